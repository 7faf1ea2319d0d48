"""bertlab: controlled experiments on BERT-style encoders.

import bertlab
run = bertlab.run(["experiment=bertsst2", "seed=1"])  # trains, continues or skips, as the command line does
run.metrics["validation/accuracy"], run.history, run.predict(["What a film!"]), run.evaluate("mine.csv")
run.plot()
run = bertlab.load("multirun/sst2-classification-…")
bertlab.sweep(["experiment=bertsst2", "seed=range(5)"])  # as -m: a list of runs
bertlab.runs("multirun")  # a DataFrame: a row a run, its scores, costs and keys
bertlab.report("multirun", baseline="init=scratch")
"""

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bertlab.api import Report, Run, load, report, run, runs, sweep

__version__ = "0.1.0"
__all__ = ["Report", "Run", "__version__", "load", "report", "run", "runs", "sweep"]


def __getattr__(name: str) -> Any:
    """What `__all__` names is imported when asked for: `bertlab --help` must not wait for torch."""
    if name in __all__:
        from bertlab import api

        return getattr(api, name)
    raise AttributeError(f"module 'bertlab' has no attribute '{name}'")


def __dir__() -> list[str]:
    """What a newcomer is to see."""
    return __all__


class _Room(ModuleType):
    """`bertlab.runs` and `bertlab.report` are rooms of the house, and called they are the functions of the
    same names.
    """

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        from bertlab import api

        return getattr(api, self.__name__.rpartition(".")[2])(*arguments, **options)


class _House(ModuleType):
    def __setattr__(self, name: str, value: Any) -> None:
        """Importing a room binds it here, which would hide the function of its name."""
        if name in __all__ and isinstance(value, ModuleType):
            value.__class__ = _Room
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _House
