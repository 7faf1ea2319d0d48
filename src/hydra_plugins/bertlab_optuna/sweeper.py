"""`hydra/sweeper=bertlab_optuna`: its options, and the class that Hydra makes of them.

Hydra runs this file at every start, so nothing heavy is imported here.
"""

from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional  # noqa: UP035  # Hydra runs this module outside sys.modules

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class BertlabOptunaConf:
    """Options of the sweeper; `bertlab --cfg hydra -m hydra/sweeper=bertlab_optuna` shows them."""

    _target_: str = "hydra_plugins.bertlab_optuna.sweeper.BertlabOptuna"
    params: Dict[str, Any] = field(default_factory=dict)  # noqa: UP006  # key -> what is tried, in Hydra's own words: interval(0,1), choice(a,b), tag(log,interval(1e-5,1e-3))
    n_trials: int = 20  # trials that the study holds at the end, finished or pruned; a restart adds only what is missing
    n_jobs: int = 1  # trials handed to the launcher at a time
    max_hours: Optional[float] = None  # noqa: UP045  # no new trial begins after this
    direction: str = "maximize"  # or minimize
    directions: List[str] = field(default_factory=list)  # noqa: UP006  # of several objectives, instead of direction
    sampler: str = "tpe"  # tpe gp cmaes random qmc grid nsgaii
    sampler_options: Dict[str, Any] = field(default_factory=dict)  # noqa: UP006  # keyword arguments of Optuna's class
    seed: Optional[int] = None  # noqa: UP045  # of the sampler
    pruner: str = "none"  # none median percentile hyperband asha wilcoxon patient
    pruner_options: Dict[str, Any] = field(default_factory=dict)  # noqa: UP006
    study_name: Optional[str] = None  # noqa: UP045  # default: the same for the same command
    folder: str = "multirun/studies"  # trials.csv, best.yaml, plots and the default storage, in a folder of the study's name
    storage: Optional[str] = None  # noqa: UP045  # sqlite:///file, journal:file, postgresql://…; default: SQLite in the study's folder
    warm_start: List[Dict[str, Any]] = field(default_factory=list)  # noqa: UP006  # points to try first
    space: Optional[str] = None  # noqa: UP045  # module.function(trial, overrides) that suggests what depends on other choices
    max_failure_rate: float = 0.5  # of the trials begun; more, after ten, stop the sweep
    heartbeat_seconds: float = 10.0  # a trial that was not heard of for six times as long is dead, and tried again


class BertlabOptuna(Sweeper):
    """See _sweep.py."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(config=config, hydra_context=hydra_context, task_function=task_function)

    def sweep(self, arguments: List[str]) -> None:  # noqa: UP006
        from hydra_plugins.bertlab_optuna._sweep import run_sweep

        assert self.config is not None and self.launcher is not None and self.hydra_context is not None
        run_sweep(self.options, arguments, self.config, self.launcher, self.hydra_context.config_loader)


ConfigStore.instance().store(group="hydra/sweeper", name="bertlab_optuna", node=BertlabOptunaConf, provider="bertlab_optuna")
