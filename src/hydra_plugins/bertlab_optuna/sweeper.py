"""`hydra/sweeper=bertlab_optuna`: its options, and the class that Hydra makes of them.

Hydra runs this file at every start, so nothing heavy is imported here.
"""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


def option(default: Any, help: str) -> Any:
    """A field of an options class and what it is; of a class as `default` each gets a fresh instance."""
    made = {"default_factory": default} if isinstance(default, type) else {"default": default}
    return field(**made, metadata={"help": help})


@dataclass
class SamplerOptions:
    """Of Optuna's samplers, by their names there; null = Optuna's default. One that the chosen sampler does
    not have is refused.
    """

    n_startup_trials: int | None = option(None, "tpe gp cmaes: random trials before the model begins")
    n_ei_candidates: int | None = option(None, "tpe: candidates of which the best is taken")
    multivariate: bool | None = option(None, "tpe: parameters seen together")
    group: bool | None = option(
        None, "tpe: one joint model for each set of parameters that occur together (conditional spaces)"
    )
    constant_liar: bool | None = option(None, "tpe: running trials count as bad ones")
    deterministic_objective: bool | None = option(None, "gp: the same point has always the same score")
    sigma0: float | None = option(None, "cmaes: first step size")
    popsize: int | None = option(None, "cmaes")
    consider_pruned_trials: bool | None = option(None, "cmaes")
    use_separable_cma: bool | None = option(None, "cmaes: a diagonal covariance")
    with_margin: bool | None = option(None, "cmaes: for discrete parameters")
    lr_adapt: bool | None = option(None, "cmaes")
    qmc_type: str | None = option(None, "qmc: sobol halton")
    scramble: bool | None = option(None, "qmc")
    population_size: int | None = option(None, "nsgaii")
    mutation_prob: float | None = option(None, "nsgaii")
    crossover_prob: float | None = option(None, "nsgaii")
    swapping_prob: float | None = option(None, "nsgaii")


@dataclass
class PrunerOptions:
    """Of Optuna's pruners, by their names there; steps are evaluations, numbered from 1. null = Optuna's
    default.
    """

    n_startup_trials: int | None = option(None, "median percentile: trials that are never pruned")
    n_warmup_steps: int | None = option(None, "median percentile: evaluations before the first pruning")
    interval_steps: int | None = option(None, "median percentile: evaluations between prunings")
    n_min_trials: int | None = option(None, "median percentile: scores at this evaluation to compare with")
    percentile: float | None = option(None, "percentile: the share that is kept (25)")
    min_resource: int | None = option(None, "hyperband asha: evaluations before the first pruning")
    max_resource: int | None = option(None, "hyperband: evaluations of a whole run")
    reduction_factor: int | None = option(None, "hyperband asha: one in so many goes on")
    min_early_stopping_rate: int | None = option(None, "asha")
    bootstrap_count: int | None = option(None, "hyperband asha: trials needed for a verdict")
    p_threshold: float | None = option(None, "wilcoxon")
    n_startup_steps: int | None = option(None, "wilcoxon")
    patience: int | None = option(None, "patient: evaluations without improvement (2)")
    min_delta: float | None = option(None, "patient: what counts as improvement")
    wrapped: str | None = option(None, "patient: a pruner that is asked then; null = prune")


@dataclass
class BertlabOptunaConf:
    """Options of the sweeper; `bertlab --cfg hydra -m hydra/sweeper=bertlab_optuna` shows them."""

    _target_: str = "hydra_plugins.bertlab_optuna.sweeper.BertlabOptuna"
    params: dict[str, Any] = option(
        dict,
        "key -> what is tried, in Hydra's own words: interval(0,1), choice(a,b), "
        "tag(log,interval(1e-5,1e-3))",
    )
    n_trials: int = option(
        20, "trials that the study holds at the end, finished or pruned; a restart adds only what is missing"
    )
    n_jobs: int | None = option(
        None,
        "trials handed to the launcher at a time; null: as many as it runs side by side (its n_jobs), or 1",
    )
    max_hours: float | None = option(None, "no new trial begins after this")
    direction: str = option("maximize", "or minimize")
    directions: list[str] = option(list, "of several objectives, instead of direction")
    objectives: list[str] = option(
        list, "names of the scores that the job tells, one a direction; for a job that knows several"
    )
    sampler: str = option("tpe", "tpe gp cmaes random qmc grid nsgaii")
    sampler_options: SamplerOptions = option(SamplerOptions, "of the sampler chosen")
    seed: int | None = option(
        None, "of the sampler; each trial's draws follow from it and the trial's number"
    )
    pruner: str = option("none", "none median percentile hyperband asha wilcoxon patient")
    pruner_options: PrunerOptions = option(PrunerOptions, "of the pruner chosen")
    study_name: str | None = option(None, "default: the same for the same command")
    folder: str = option(
        "${oc.select:paths.output,multirun}/studies",
        "trials.csv, best.yaml, plots, storage, in a folder of the study's name",
    )
    storage: str | None = option(
        None, "sqlite:///file, journal:file, postgresql://…; default: SQLite in the study's folder"
    )
    warm_start: list[dict[str, Any]] = option(list, "points to try first")
    space: str | None = option(
        None, "module.function(trial, overrides) that suggests what depends on other choices"
    )
    max_failure_rate: float = option(0.5, "of the trials begun; more, after ten, stop the sweep")
    heartbeat_seconds: float = option(
        10.0, "a trial that was not heard of for six times as long is dead, and tried again"
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

    def sweep(self, arguments: list[str]) -> None:
        from hydra_plugins.bertlab_optuna._study import storage_errors_explained
        from hydra_plugins.bertlab_optuna._sweep import run_sweep

        assert self.config is not None and self.launcher is not None and self.hydra_context is not None
        with storage_errors_explained(self.options):
            run_sweep(self.options, arguments, self.config, self.launcher, self.hydra_context.config_loader)


ConfigStore.instance().store(
    group="hydra/sweeper", name="bertlab_optuna", node=BertlabOptunaConf, provider="bertlab_optuna"
)
