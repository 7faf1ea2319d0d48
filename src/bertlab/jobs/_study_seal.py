"""A plan frozen before its first run, under a seal; read again, and what has changed since."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from bertlab.config.studies import StudyPlan
from bertlab.errors import RunError
from bertlab.report.arms import counted
from bertlab.report.pages.preregistered import Frozen
from bertlab.runs.files import digest, read_json, to_json, write_record

# what a study is judged by, which no edit of its file changes once it is frozen
ANSWERING = ("question", "hypothesis", "metric", "effect", "equivalence", "split", "test")


@dataclass(frozen=True)
class Fixed:
    """What frozen.json holds."""

    plan: StudyPlan
    runs: dict[str, str]  # run of the plan -> its id then
    seal: str
    at: str
    power: list[str]


def read_fixed(file: Path) -> Fixed | None:
    """The plan that was fixed; None where none was. Raises RunError for a damaged one."""
    if not file.is_file():
        return None
    try:
        kept = read_json(file)
        is_sealed = seal_of(kept["plan"], kept["runs"]) == kept["seal"]
        plan = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(StudyPlan), kept["plan"]))
        assert isinstance(plan, StudyPlan)
        runs = {str(key): str(own) for key, own in kept["runs"].items()}
        fixed = Fixed(plan, runs, str(kept["seal"]), str(kept["at"]), [str(line) for line in kept["power"]])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OmegaConfBaseException) as error:
        reason = (str(error).splitlines() or ["?"])[0]
        raise RunError(
            f"{file}: damaged ({type(error).__name__}: {reason}); take it out of the way to freeze the plan"
            " anew"
        ) from error
    if not is_sealed:
        raise RunError(
            f"{file}: edited since it was frozen: its seal is of another plan; put back the file that was"
            " frozen, or take it out of the way to freeze the plan anew"
        )
    return fixed


def seal_of(plan: Mapping[str, Any], runs: Mapping[str, str]) -> str:
    """What every run of a plan carries: the digest of all that is fixed."""
    return digest({"plan": plan, "runs": runs})


def answered_as(asked: StudyPlan, fixed: StudyPlan) -> StudyPlan:
    """A plan as its file says it now, which is asked, judged and answered as it was fixed all the same."""
    kept = dataclasses.asdict(fixed)
    return dataclasses.replace(asked, **{key: kept[key] for key in ANSWERING})


def since(fixed: Fixed, asked: StudyPlan, ids: Mapping[str, str]) -> Frozen:
    """A plan that was fixed earlier, and what its file and its runs, by their ids, are now that they were not
    then.
    """
    before, now = dataclasses.asdict(fixed.plan), dataclasses.asdict(asked)
    changed = [
        f"{key} was {before[key]}, is {now[key]}"
        + ("; the answer keeps to what it was" if key in ANSWERING else "")
        for key in now
        if before[key] != now[key]
    ]
    if others := [key for key, own in ids.items() if fixed.runs.get(key, own) != own]:
        changed.append(
            f"{counted(len(others), 'run')} now resolve to other settings, other code or another"
            f" machine's arithmetic than when the plan was frozen, e.g. {others[0]}"
        )
    return Frozen(fixed.plan, fixed.seal, fixed.at, fixed.power, changed)


def freeze(plan: StudyPlan, out: Path, ids: Mapping[str, str], power: Sequence[str]) -> Frozen:
    """Fix the plan, before its first run; `ids`: run of the plan -> its id."""
    file, now = frozen_file(out), dataclasses.asdict(plan)
    at, seal = time.strftime("%Y-%m-%dT%H:%M:%S%z"), seal_of(now, ids)
    write_record(
        file, to_json({"seal": seal, "at": at, "plan": now, "runs": dict(ids), "power": list(power)})
    )
    print(f"frozen: {file}, seal {seal}", flush=True)
    return Frozen(plan, seal, at, list(power), [])


def frozen_file(out: Path) -> Path:
    """Where a plan stands once it is fixed."""
    return out / "frozen.json"
