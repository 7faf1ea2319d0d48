"""A few of the inputs of fuzz.py for each thing that is read, always the same; by hand it goes on."""

from dataclasses import replace
from pathlib import Path

import pytest
from fuzz import TARGETS, attempt
from hypothesis import HealthCheck, Phase, given, settings
from inputs import Target

from templates import Given, Templates
from watched import Watch, command

pytestmark = pytest.mark.slow

EXAMPLES = {
    "words": 15,
    "presets": 12,
    "tables": 6,
    "pairs": 6,
    "weights": 5,
    "hugging face": 4,
    "run folder": 5,
    "torn run": 4,
    "reports": 5,
}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_no_input_breaks_or_misuses_a_command(target: Target, templates: Templates) -> None:
    tried = []

    @settings(
        max_examples=EXAMPLES[target.name], phases=(Phase.generate,), suppress_health_check=list(HealthCheck)
    )
    @given(target.cases(templates))
    def look(case: Given) -> None:
        ending = attempt(case, templates)
        tried.append(ending)
        assert not ending.wrong, ending.wrong

    look()
    assert len(tried) >= EXAMPLES[target.name] // 2


def test_what_must_not_happen_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watch itself: of each kind of misdeed one, done by a job in the place of ours."""
    from bertlab.config import registry

    stranger = tmp_path / "evil.py"
    stranger.write_text("done = True\n")
    outside, inside = tmp_path.parent / "outside", tmp_path / "inside"
    deeds = {
        "writes to": lambda: outside.write_text("x"),
        "os.mkdir": lambda: outside.mkdir(),
        "os.rename": lambda: stranger.rename(outside),
        "os.system": lambda: __import__("os").system("true"),
        "starts true": lambda: __import__("subprocess").run(["true"]),
        "runs": lambda: exec(compile(stranger.read_text(), str(stranger), "exec")),
        "builtins.input": lambda: input(),
        "": lambda: inside.write_text("x"),
    }
    job = registry.load_job("list")
    for told, deed in deeds.items():
        monkeypatch.setattr(registry, "load_job", lambda _, deed=deed: replace(job, run=lambda *_: deed()))
        ending = command("list", "datasets", place=tmp_path)
        assert (told in ending.wrong) if told else (not ending.wrong), (told, ending)
    assert not outside.exists() and stranger.exists()
    assert not Watch(tmp_path).is_outside(inside)
