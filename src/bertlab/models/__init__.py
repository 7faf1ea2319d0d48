"""Encoders: one file a model."""
