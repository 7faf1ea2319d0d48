"""The command line: words, help, sweeps, dispatch, exit status."""

from bertlab.cli.entry import main, run_command

__all__ = ["main", "run_command"]
