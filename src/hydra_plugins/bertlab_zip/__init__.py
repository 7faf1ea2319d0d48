"""Hydra's basic sweeper with keys whose values go together: see sweeper.py."""
