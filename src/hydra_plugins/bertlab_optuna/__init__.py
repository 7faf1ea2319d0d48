"""An Optuna sweeper for Hydra that prunes, resumes to a total, and loses no finished trial. It knows nothing
of bertlab.
"""
