"""Under which licence each package is that is installed with ours: by what the packages declare, never by
their texts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bertlab.errors import RunError

UNKNOWN = "unknown"
# classifiers that name one licence and its version; those of a family ("BSD License") are told in their own
# words
SPDX = {
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "ISC License (ISCL)": "ISC",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "zlib/libpng License": "Zlib",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
}


@dataclass(frozen=True)
class Licensed:
    """An installed package, and what it says of its licence."""

    package: str
    version: str
    licence: str  # an SPDX expression; the package's own words where it declares none; `unknown`
    declared_as: (
        str  # License-Expression, License, Classifier; "in words" behind it where it is no SPDX expression
    )
    needed_by: str  # the package that asked for it first


def licences_with(name: str) -> list[Licensed]:
    """A package and all that it needs and finds installed, those of its extras included. Raises RunError
    where it is not installed.
    """
    try:
        root = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise RunError(
            f"{name} is not installed here as a package, so that what came with it is not known: pip"
            " install ."
        ) from None
    licensed: dict[str, Licensed] = {}
    seen: set[tuple[str, str]] = set()  # package and extra
    waiting = [(root, extra, "-") for extra in ("", *(root.metadata.get_all("Provides-Extra") or ()))]
    while waiting:
        package, extra, needed_by = waiting.pop(0)
        key = canonicalize_name(package.metadata["Name"])
        if (key, extra) in seen:
            continue
        seen.add((key, extra))
        licence, declared_as = licence_of(package.metadata)
        licensed.setdefault(
            key, Licensed(package.metadata["Name"], package.version, licence, declared_as, needed_by)
        )
        for needed in _needed(package, extra):
            try:
                there = metadata.distribution(needed.name)
            except metadata.PackageNotFoundError:  # of an extra that nobody asked for
                continue
            waiting += [(there, wanted, package.metadata["Name"]) for wanted in ("", *sorted(needed.extras))]
    return [licensed[key] for key in sorted(licensed)]


def _needed(package: metadata.Distribution, extra: str) -> Iterator[Requirement]:
    for line in package.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
            yield requirement


def licence_of(declared: metadata.PackageMetadata) -> tuple[str, str]:
    """The licence that a package declares, and in which field of its metadata."""
    expression, free = (
        (declared.get_all(field) or [""])[0].strip() for field in ("License-Expression", "License")
    )
    for field, text in (("License-Expression", expression), ("License", free)):
        try:
            if text:
                return canonicalize_license_expression(text), field
        except InvalidLicenseExpression:
            if field == "License-Expression":
                return text, f"{field}, in words"
    named = [
        line.rpartition(" :: ")[2]
        for line in declared.get_all("Classifier") or ()
        if line.startswith("License :: ")
    ]
    if len(named) == 1 and named[0] in SPDX:
        return SPDX[named[0]], "Classifier"
    if named:
        return ", ".join(named), "Classifier, in words"
    if free:
        return free.splitlines()[0][:60], "License, in words"
    return UNKNOWN, "-"
