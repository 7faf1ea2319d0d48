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
class SamplerOptions:
    """Of Optuna's samplers, by their names there; null = Optuna's default. One that the chosen sampler does
    not have is refused.
    """

    n_startup_trials: Optional[int] = None  # noqa: UP045  # tpe gp cmaes: random trials before the model begins
    n_ei_candidates: Optional[int] = None  # noqa: UP045  # tpe: candidates of which the best is taken
    multivariate: Optional[bool] = None  # noqa: UP045  # tpe: parameters seen together
    group: Optional[bool] = None  # noqa: UP045  # tpe: one joint model for each set of parameters that occur together (conditional spaces)
    constant_liar: Optional[bool] = None  # noqa: UP045  # tpe: running trials count as bad ones
    deterministic_objective: Optional[bool] = None  # noqa: UP045  # gp: the same point has always the same score
    sigma0: Optional[float] = None  # noqa: UP045  # cmaes: first step size
    popsize: Optional[int] = None  # noqa: UP045  # cmaes
    consider_pruned_trials: Optional[bool] = None  # noqa: UP045  # cmaes
    use_separable_cma: Optional[bool] = None  # noqa: UP045  # cmaes: a diagonal covariance
    with_margin: Optional[bool] = None  # noqa: UP045  # cmaes: for discrete parameters
    lr_adapt: Optional[bool] = None  # noqa: UP045  # cmaes
    qmc_type: Optional[str] = None  # noqa: UP045  # qmc: sobol halton
    scramble: Optional[bool] = None  # noqa: UP045  # qmc
    population_size: Optional[int] = None  # noqa: UP045  # nsgaii
    mutation_prob: Optional[float] = None  # noqa: UP045  # nsgaii
    crossover_prob: Optional[float] = None  # noqa: UP045  # nsgaii
    swapping_prob: Optional[float] = None  # noqa: UP045  # nsgaii


@dataclass
class PrunerOptions:
    """Of Optuna's pruners, by their names there; steps are evaluations, numbered from 1. null = Optuna's
    default.
    """

    n_startup_trials: Optional[int] = None  # noqa: UP045  # median percentile: trials that are never pruned
    n_warmup_steps: Optional[int] = None  # noqa: UP045  # median percentile: evaluations before the first pruning
    interval_steps: Optional[int] = None  # noqa: UP045  # median percentile: evaluations between prunings
    n_min_trials: Optional[int] = None  # noqa: UP045  # median percentile: scores at this evaluation to compare with
    percentile: Optional[float] = None  # noqa: UP045  # percentile: the share that is kept (25)
    min_resource: Optional[int] = None  # noqa: UP045  # hyperband asha: evaluations before the first pruning
    max_resource: Optional[int] = None  # noqa: UP045  # hyperband: evaluations of a whole run
    reduction_factor: Optional[int] = None  # noqa: UP045  # hyperband asha: one in so many goes on
    min_early_stopping_rate: Optional[int] = None  # noqa: UP045  # asha
    bootstrap_count: Optional[int] = None  # noqa: UP045  # hyperband asha: trials needed for a verdict
    p_threshold: Optional[float] = None  # noqa: UP045  # wilcoxon
    n_startup_steps: Optional[int] = None  # noqa: UP045  # wilcoxon
    patience: Optional[int] = None  # noqa: UP045  # patient: evaluations without improvement (2)
    min_delta: Optional[float] = None  # noqa: UP045  # patient: what counts as improvement
    wrapped: Optional[str] = None  # noqa: UP045  # patient: a pruner that is asked then; null = prune


@dataclass
class BertlabOptunaConf:
    """Options of the sweeper; `bertlab --cfg hydra -m hydra/sweeper=bertlab_optuna` shows them."""

    _target_: str = "hydra_plugins.bertlab_optuna.sweeper.BertlabOptuna"
    params: Dict[str, Any] = field(default_factory=dict)  # noqa: UP006  # key -> what is tried, in Hydra's own words: interval(0,1), choice(a,b), tag(log,interval(1e-5,1e-3))
    n_trials: int = (
        20  # trials that the study holds at the end, finished or pruned; a restart adds only what is missing
    )
    n_jobs: Optional[int] = None  # noqa: UP045  # trials handed to the launcher at a time; null: as many as it runs side by side (its n_jobs), or 1
    max_hours: Optional[float] = None  # noqa: UP045  # no new trial begins after this
    direction: str = "maximize"  # or minimize
    directions: List[str] = field(default_factory=list)  # noqa: UP006  # of several objectives, instead of direction
    objectives: List[str] = field(default_factory=list)  # noqa: UP006  # names of the scores that the job tells, one a direction; for a job that knows several
    sampler: str = "tpe"  # tpe gp cmaes random qmc grid nsgaii
    sampler_options: SamplerOptions = field(default_factory=SamplerOptions)
    seed: Optional[int] = None  # noqa: UP045  # of the sampler; each trial's draws follow from it and the trial's number
    pruner: str = "none"  # none median percentile hyperband asha wilcoxon patient
    pruner_options: PrunerOptions = field(default_factory=PrunerOptions)
    study_name: Optional[str] = None  # noqa: UP045  # default: the same for the same command
    folder: str = (  # trials.csv, best.yaml, plots, storage, in a folder of the study's name
        "${oc.select:paths.output,multirun}/studies"
    )
    storage: Optional[str] = None  # noqa: UP045  # sqlite:///file, journal:file, postgresql://…; default: SQLite in the study's folder
    warm_start: List[Dict[str, Any]] = field(default_factory=list)  # noqa: UP006  # points to try first
    space: Optional[str] = None  # noqa: UP045  # module.function(trial, overrides) that suggests what depends on other choices
    max_failure_rate: float = 0.5  # of the trials begun; more, after ten, stop the sweep
    heartbeat_seconds: float = (
        10.0  # a trial that was not heard of for six times as long is dead, and tried again
    )


class BertlabOptuna(Sweeper):
    """See _sweep.py."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        from hydra.core.plugins import Plugins

        self.config, self.hydra_context = config, hydra_context
        self.launcher = Plugins.instance().instantiate_launcher(
            config=config, hydra_context=hydra_context, task_function=task_function
        )

    def sweep(self, arguments: List[str]) -> None:  # noqa: UP006
        from hydra_plugins.bertlab_optuna._study import storage_errors_explained
        from hydra_plugins.bertlab_optuna._sweep import run_sweep

        assert self.config is not None and self.launcher is not None and self.hydra_context is not None
        with storage_errors_explained(self.options):
            run_sweep(self.options, arguments, self.config, self.launcher, self.hydra_context.config_loader)


ConfigStore.instance().store(
    group="hydra/sweeper", name="bertlab_optuna", node=BertlabOptunaConf, provider="bertlab_optuna"
)
