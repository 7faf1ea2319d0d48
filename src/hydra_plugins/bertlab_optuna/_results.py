"""What a study came to: a table, the best point as a preset that runs, plots."""

import csv
import io
import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.trial import FrozenTrial, TrialState

from hydra_plugins.bertlab_optuna import _outgoing
from hydra_plugins.bertlab_optuna._space import Space
from hydra_plugins.bertlab_optuna.best_of import all_trials, draw_best_of
from hydra_plugins.bertlab_optuna.trial import NOTE

LONGEST_LEGEND = 12
FEWEST_OF_A_CURVE = 4  # trials with a score
PRESETS = ("experiment", "suite", "debug")  # groups of presets of a whole run, as they are read
UMASK = os.umask(0)
os.umask(UMASK)


def write_results(study: optuna.Study, space: Space, folder: Path) -> None:
    """trials.csv, experiment/best.yaml, plots/*.png; and what a person wants to know, printed."""
    trials = study.get_trials(deepcopy=False)
    states = {state: sum(trial.state == state for trial in trials) for state in TrialState}
    _write(folder / "trials.csv", trials_csv(study))
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    print(
        f"{len(done)} trials finished, {states[TrialState.PRUNED]} pruned, {states[TrialState.FAIL]} failed"
        " or given up"
    )
    if done:
        for trial in study.best_trials[:5]:
            words = " ".join(space.overrides(trial.params)[len(space.fixed) :])
            noted = "".join(f"  {note}" for note in notes_of(trial, but=("metric",)).values())
            print(f"best: trial {trial.number}  {scores_text(trial)}  {words}{noted}")
        (folder / "experiment").mkdir(exist_ok=True)
        _write(folder / "experiment" / "best.yaml", best_preset(study.best_trials[0], space))
        _plots(study, folder / "plots")
    print(f"study: {folder} (trials.csv, experiment/best.yaml, plots)", flush=True)


def notes_of(trial: FrozenTrial, but: Sequence[str] = ()) -> dict[str, str]:
    """What the job noted of its trial."""
    notes = {
        key.removeprefix(NOTE): str(value) for key, value in trial.user_attrs.items() if key.startswith(NOTE)
    }
    return {name: text for name, text in notes.items() if name not in but}


def scores_text(trial: FrozenTrial) -> str:
    """`validation/accuracy 0.85`; without the name where the job did not note it as `metric`."""
    values = " ".join(f"{value:.6g}" for value in trial.values or ())
    return f"{notes_of(trial).get('metric', '')} {values}".strip()


def trials_csv(study: optuna.Study) -> str:
    """One line a trial: number, state, values, whether it is the best, parameters, steps reported, seconds,
    what the job noted of it.
    """
    trials = study.get_trials(deepcopy=False)
    params = sorted({key for trial in trials for key in trial.params})
    values = (
        [f"value_{index}" for index in range(len(study.directions))]
        if len(study.directions) > 1
        else ["value"]
    )
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    notes = list(dict.fromkeys(name for trial in trials for name in notes_of(trial)))
    best = (
        {trial.number for trial in study.best_trials}
        if any(trial.state == TrialState.COMPLETE for trial in trials)
        else set()
    )
    table.writerow(
        [
            "number",
            "state",
            *values,
            "best",
            *params,
            *notes,
            "reports",
            "seconds",
            "retried_trial_number",
            "failure",
        ]
    )
    for trial in trials:
        seconds = "" if trial.duration is None else round(trial.duration.total_seconds(), 3)
        scores = trial.values or [""] * len(values)
        tried = [trial.params.get(key, "") for key in params]
        noted = [notes_of(trial).get(name, "") for name in notes]
        table.writerow([
            trial.number, trial.state.name.lower(), *scores, "yes" if trial.number in best else "", *tried,
            *noted,
            len(trial.intermediate_values), seconds, trial.user_attrs.get("retried_trial_number", ""),
            trial.user_attrs.get("failure", ""),
        ])  # fmt: skip
    return stream.getvalue()


def best_preset(trial: FrozenTrial, space: Space) -> str:
    """The best point with all that was fixed, as a preset of the group `experiment`."""
    presets: dict[str, str] = {}
    choices: list[Any] = []
    tree: dict[str, Any] = {}
    for override in OverridesParser.create().parse_overrides(space.overrides(trial.params)):
        key, written = override.get_key_element().lstrip("+"), override.input_line or ""
        value = written.partition("=")[2]
        if key in PRESETS:
            presets[key] = value
        elif key.startswith("hydra") or key == "search":
            continue
        elif "." in key.split("@")[0] or not isinstance(override.value(), str) or key in ("seed", "tags"):
            node = tree
            *path, last = key.split(".")
            for part in path:
                node = node.setdefault(part, {})
            node[last] = yaml.safe_load(value)
        else:
            choices.append({f"override /{key}": value})
    noted = "".join(f", {name} {text}" for name, text in notes_of(trial, but=("metric",)).items())
    head = f"# @package _global_\n# Best of a study: trial {trial.number}, {scores_text(trial)}{noted}.\n"
    command = "# Command: bertlab --config-dir STUDY-FOLDER experiment=best\n"
    # as parts: a group that is read after the experiments cannot be overridden from within one
    named = [f"/{key}/{presets[key]}" for key in PRESETS if key in presets]
    body = {"defaults": [*named, *choices, "_self_"], **tree} if named or choices else tree
    return head + command + str(yaml.safe_dump(body, sort_keys=False))


def _plots(study: optuna.Study, folder: Path) -> None:
    """History, importance, slices, intermediate values, the expected best of k trials; what a study has too
    little for is left out.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from optuna.importance import PedAnovaImportanceEvaluator
    from optuna.visualization import matplotlib as draw

    folder.mkdir(exist_ok=True)
    several = len(study.directions) > 1
    name_of_score = notes_of(study.best_trials[0]).get("metric", "score")
    drawings: dict[str, Any] = {
        "history": lambda: draw.plot_optimization_history(study, target_name=name_of_score),
        "importance": lambda: draw.plot_param_importances(
            study, evaluator=PedAnovaImportanceEvaluator(), target_name=name_of_score
        ),
        "slices": lambda: draw.plot_slice(study, target_name=name_of_score),
        "intermediate": lambda: draw.plot_intermediate_values(study),
        "best_of_k": lambda: _best_of_k(study, name_of_score),
    }
    if several:
        drawings = {"pareto": lambda: draw.plot_pareto_front(study)} if len(study.directions) <= 3 else {}
    for name, make in drawings.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                made = make()
                axes = made.flat[0] if hasattr(made, "flat") else made
                if name == "intermediate":
                    axes.set_ylabel(name_of_score)
                width = 5 * len(made.flat) if hasattr(made, "flat") else 7
                axes.figure.set_size_inches(max(7, width), 4.5)
                legend = axes.get_legend()
                # one line a trial: nobody can tell the colours apart
                if legend is not None and len(legend.get_texts()) > LONGEST_LEGEND:
                    legend.remove()
                axes.figure.savefig(folder / f"{name}.png", dpi=110, bbox_inches="tight")
        except (ValueError, RuntimeError, ZeroDivisionError, IndexError):
            continue  # too few trials for this one
        finally:
            plt.close("all")


def _best_of_k(study: optuna.Study, name_of_score: str) -> Any:
    """Over all trials that ended, those stopped early and those that failed too. Raises ValueError for too
    few.
    """
    import matplotlib.pyplot as plt
    from optuna.study import StudyDirection

    trials = study.get_trials(deepcopy=False)
    done = [trial.value for trial in trials if trial.state == TrialState.COMPLETE]
    finished = [value for value in done if value is not None]
    again = {trial.user_attrs.get("retried_trial_number") for trial in trials}
    others = [
        trial
        for trial in trials
        if trial.state in (TrialState.PRUNED, TrialState.FAIL) and trial.number not in again
    ]
    told = [trial.intermediate_values for trial in others if trial.intermediate_values]
    last = [scores[max(scores)] for scores in told]
    if len(finished) + len(last) < FEWEST_OF_A_CURVE:
        raise ValueError("too few trials for a curve")
    higher = study.direction == StudyDirection.MAXIMIZE
    values, words = all_trials(finished, last, len(others) - len(last), higher)
    axes = plt.subplots()[1]
    draw_best_of(axes, values, higher)
    axes.set_ylabel(f"expected best {name_of_score}")
    axes.set_title(f"{words}; 95 % band over trials", fontsize=9)
    return axes


def _write(file: Path, content: str) -> None:
    """Whole or not at all; several sweeps of one study may write at once, each its own temporary file."""
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=file.parent, prefix=f".{file.name}.", suffix=".tmp", delete=False
    ) as stream:
        temporary = Path(stream.name)
        stream.write(_outgoing.clean(content))
    temporary.chmod(0o666 & ~UMASK)
    temporary.replace(file)
