"""Check that the lock files fit pyproject.toml and one another, without asking any registry.

Exit status 1 and one line per fault when a direct dependency is not locked, or locked outside its range, a locked
package has no hash, two lock files differ in a package they share, or one names a host or a path of one machine.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PINNED = re.compile(r"^(?P<name>[A-Za-z0-9._-]+)(\[[^]]*\])?==(?P<version>[^ ;\\]+)", re.MULTILINE)
FOREIGN = re.compile(r"://|(?<![\w.-])/\w+/")

Pins = dict[str, set[str]]


def group_requirements(groups: dict[str, list[Any]], name: str) -> Iterator[Requirement]:
    """Yield the requirements of one dependency group and of those that it includes."""
    for entry in groups[name]:
        if isinstance(entry, str):
            yield Requirement(entry)
        else:
            yield from group_requirements(groups, entry["include-group"])


def read_pins(text: str) -> Pins:
    """Map each package to the versions a lock pins (several where environments differ)."""
    pins: Pins = {}
    for match in PINNED.finditer(text):
        pins.setdefault(canonicalize_name(match["name"]), set()).add(match["version"])
    return pins


def faults_of(file: str, text: str, required: list[Requirement]) -> Iterator[str]:
    """Yield what is wrong with one lock file by itself."""
    pins = read_pins(text)
    for requirement in required:
        versions = pins.get(canonicalize_name(requirement.name), set())
        if not versions:
            yield f"{file}: {requirement.name} is not locked; run make lock"
        for version in sorted(versions):
            if not requirement.specifier.contains(version, prereleases=True):
                yield f"{file}: {requirement.name} {version} does not fit {requirement}; run make lock"
    for block in re.split(r"\n(?=[A-Za-z0-9])", text):
        if PINNED.match(block) and "--hash=sha256:" not in block:
            yield f"{file}: {block.split()[0]} has no hash; run make lock"
    for number, line in enumerate(text.splitlines(), start=1):
        if FOREIGN.search(line):
            yield f"{file}:{number}: names a host or a path of one machine: {line.strip()}"


def differences(file: str, pins: Pins, base: Pins) -> Iterator[str]:
    """Yield the packages that two locks share at different versions."""
    for name in sorted(pins.keys() & base.keys()):
        if pins[name] != base[name]:
            here, there = ", ".join(sorted(pins[name])), ", ".join(sorted(base[name]))
            yield f"{file}: {name} {here}, but requirements/dev.txt has {there}; run make lock"


def main() -> int:
    """Check every lock file; return the exit status."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    direct = [Requirement(text) for text in project["project"]["dependencies"]]
    required = {
        "requirements/uv.txt": [*group_requirements(groups, "setup")],
        "requirements/run.txt": [*direct, *group_requirements(groups, "package")],
        "requirements/dev.txt": [*direct, *group_requirements(groups, "dev")],
        "requirements/pymdp.txt": [*group_requirements(groups, "pymdp")],
        "requirements/bench.txt": [*group_requirements(groups, "bench")],
    }
    texts = {file: (ROOT / file).read_text() for file in required}
    base = read_pins(texts["requirements/dev.txt"])
    faults = [fault for file in required for fault in faults_of(file, texts[file], required[file])]
    faults += [fault for file in required for fault in differences(file, read_pins(texts[file]), base)]
    print(*faults or ["Lock files: current, hashed and in agreement."], sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
