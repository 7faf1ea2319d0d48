"""Licences of what is installed: as packages declare them; what they do not say is not made up."""

import json
from pathlib import Path
from typing import Any

import pytest

from bertlab.errors import RunError
from bertlab.runs.licences import licences_with

MIT = "Classifier: License :: OSI Approved :: MIT License"
BSD = "Classifier: License :: OSI Approved :: BSD License"


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A package of this name with these lines of metadata."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def made(name: str, *lines: str) -> None:
        folder = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(
            "\n".join(["Metadata-Version: 2.4", f"Name: {name}", "Version: 1.0", *lines, ""])
        )

    return made


@pytest.mark.parametrize(
    ("lines", "licence", "declared_as"),
    [
        (["License-Expression: apache-2.0 OR mit", BSD], "Apache-2.0 OR MIT", "License-Expression"),
        (["License-Expression: LicenseRef-Own"], "LicenseRef-Own", "License-Expression"),
        (["License-Expression: do what you like"], "do what you like", "License-Expression, in words"),
        (["License: BSD-3-Clause", BSD], "BSD-3-Clause", "License"),
        (["License: the MIT one", MIT], "MIT", "Classifier"),
        ([BSD], "BSD License", "Classifier, in words"),  # which of them is not said
        ([MIT, BSD], "MIT License, BSD License", "Classifier, in words"),  # one of them, or both: not said
        (
            ["License: Copyright 2020 Somebody", "        All rights reserved"],
            "Copyright 2020 Somebody",
            "License, in words",
        ),
        (["License: "], "unknown", "-"),
        ([], "unknown", "-"),
    ],
)
def test_a_licence_is_what_the_package_declares(
    install: Any, lines: list[str], licence: str, declared_as: str
) -> None:
    install("given", *lines)
    (only,) = licences_with("given")
    assert (only.licence, only.declared_as, only.version) == (licence, declared_as, "1.0")


def test_all_that_is_needed_and_installed_is_listed_once(install: Any) -> None:
    install("root-here", "Provides-Extra: more", "Requires-Dist: near_by[fast]",
        "Requires-Dist: Others; extra == 'more'",
            "Requires-Dist: old-one; python_version < '3'",
            "Requires-Dist: not-there; extra == 'more'")  # fmt: skip
    install("near-by", "Provides-Extra: fast", "Provides-Extra: tests",
        "Requires-Dist: quick; extra == 'fast'",
            "Requires-Dist: checker; extra == 'tests'", "Requires-Dist: root-here")  # fmt: skip
    for name in ("others", "old-one", "quick", "checker"):
        install(name)
    assert {one.package: one.needed_by for one in licences_with("root-here")} == {
        "near-by": "root-here", "others": "root-here", "quick": "near-by", "root-here": "-",
    }  # fmt: skip


def test_what_is_not_installed_is_told() -> None:
    with pytest.raises(RunError, match="not installed here as a package"):
        licences_with("no-such-package")


def test_the_list_is_for_people_and_for_programs(cli: Any) -> None:
    status, out, err = cli("list", "licences")
    assert status == 0 and "torch" in out and " packages: " in out, err
    status, out, err = cli("list", "licences", "format=jsonl")
    rows = [json.loads(line) for line in out.splitlines()]
    assert status == 0 and {"package", "version", "licence", "declared_as", "needed_by"} == set(rows[0]), err
    assert {row["package"]: row["licence"] for row in rows}["bertlab"] == "MIT"
    status, _, err = cli("list", "licences", "sort=package")
    assert status == 2 and "for runs" in err
