"""bertlab: controlled experiments on BERT-style encoders.

import bertlab
run = bertlab.run(["experiment=bertsst2", "seed=1"])     # trains, continues or skips, as the command line does
run.metrics["validation/accuracy"], run.history, run.predict(["What a film!"])
run = bertlab.load("multirun/sst2-classification-…")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertlab.api import Run, load, run

__version__ = "0.1.0"
__all__ = ["Run", "__version__", "load", "run"]


def __getattr__(name: str) -> Any:
    """`run`, `load` and `Run` are imported when asked for: `bertlab --help` must not wait for torch."""
    if name in ("Run", "load", "run"):
        from bertlab import api

        return getattr(api, name)
    raise AttributeError(f"module 'bertlab' has no attribute '{name}'")
