"""MLflow: scalars at their steps, settings as parameters, final scores and cost, in a database or on a
server.

A continued run goes on in its MLflow run, which carries the run's id as a tag.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from bertlab.config.schema import TrackerConfig, string
from bertlab.contracts import RunInfo, Tracker
from bertlab.errors import ConfigError, RunError, first_line
from bertlab.trackers.tensorboard import flat

ID = "bertlab.id"  # tag
LONGEST = 500  # letters of a parameter
AT_ONCE = 100  # parameters in a call


@dataclass
class Mlflow(TrackerConfig):
    """Needs the package: `pip install mlflow-skinny`, or `mlflow` for its pages too."""

    side_by_side: ClassVar = True

    uri: str | None = string(
        None,
        "tracking server, or a database (sqlite:///mlflow.db); null = MLFLOW_TRACKING_URI or its default",
    )
    experiment: str = string("bertlab", "MLflow experiment")

    def build(self, info: RunInfo) -> "MlflowTracker":
        """Start the MLflow run, or go on with that of this id. Raises ConfigError where the package is
        missing or the place refuses.
        """
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError:
            raise ConfigError(
                "tracker=mlflow: the package is not installed; pip install 'bertlab[mlflow]'"
            ) from None
        try:
            return MlflowTracker(MlflowClient(self.uri), self.experiment, info)
        except (MlflowException, OSError) as error:
            line = first_line(error, 200)
            raise ConfigError(
                f"tracker=mlflow: cannot start ({line}); see tracker.uri and MLFLOW_TRACKING_URI"
            ) from error


class MlflowTracker(Tracker):
    """See contracts.Tracker."""

    def __init__(self, client: Any, experiment: str, info: RunInfo) -> None:
        from mlflow.entities import Param

        self.client = client
        found = client.get_experiment_by_name(experiment)
        place = client.create_experiment(experiment) if found is None else found.experiment_id
        earlier = client.search_runs([place], filter_string=f"tags.`{ID}` = '{info.run_id}'", max_results=1)
        if earlier:
            self.id = earlier[0].info.run_id
            client.update_run(self.id, status="RUNNING")
            return
        tags = {
            ID: info.run_id,
            **({"bertlab.sweep": info.sweep} if info.sweep else {}),
            **dict.fromkeys(info.tags, "true"),
        }
        self.id = client.create_run(place, run_name=info.title, tags=tags).info.run_id
        parameters = [Param(key, str(value)[:LONGEST]) for key, value in flat(info.config).items()]
        for start in range(0, len(parameters), AT_ONCE):
            client.log_batch(self.id, params=parameters[start : start + AT_ONCE])

    def log(self, record: dict[str, Any]) -> None:
        """All numbers of a record in one call, at the run's own step. Raises RunError where the server does
        not take them.
        """
        self._log({name: value for name, value in record.items() if name != "step"}, int(record["step"]))

    def _log(self, numbers: dict[str, Any], step: int) -> None:
        import time

        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(name, float(value), now, step) for name, value in numbers.items()]
        with refusal_told():
            self.client.log_batch(self.id, metrics=metrics)

    def finish(self, summary: dict[str, Any]) -> None:
        """Final scores as `final/split/name`, the cost as `cost/name`, then close; a run that did not finish
        is marked so.
        """
        finals = {f"final/{name}": value for name, value in summary.get("metrics", {}).items()}
        finals |= {f"cost/{name}": value for name, value in summary.get("cost", {}).items()}
        try:
            self._log({name: value for name, value in finals.items() if isinstance(value, int | float)}, 0)
        finally:
            states = {"finished": "FINISHED", "interrupted": "KILLED", "pruned": "KILLED"}
            with refusal_told():
                self.client.set_terminated(self.id, states.get(summary["status"], "FAILED"))


@contextmanager
def refusal_told() -> Iterator[None]:
    """Where the server is asked for something. Raises RunError where it does not take it."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise RunError(f"tracker=mlflow: {first_line(error, 200)}; the same command continues") from error
