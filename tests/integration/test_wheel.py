"""The built wheel is whole: in an environment that has its declared dependencies alone it runs the demo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

CHECKOUT = Path(__file__).parents[2]
NAME = "freeagentics_persistence"

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Installed:
    """An environment outside of the checkout, and an empty folder to run in."""

    environment: Path
    site: Path
    folder: Path

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, with nothing of this process's settings."""
        return subprocess.run(
            [self.environment / "bin" / program, *arguments],
            cwd=self.folder / "empty",
            env={
                "PATH": os.defpath,
                "HOME": str(self.folder / "home"),
                "FREEAGENTICS_DATA_FOLDER": str(self.folder / "data"),
            },
            capture_output=True,
            text=True,
            timeout=200,
        )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built as `make wheel` does: from the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    checked([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(CHECKOUT)])
    [found] = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in a new environment, with links to the dependencies that it declares and to nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    environment = folder / "environment"
    venv.create(environment, with_pip=False, symlinks=True)
    python = str(environment / "bin" / "python")
    uv = str(CHECKOUT / "infra" / "uv.sh")
    checked([uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", python, str(wheel)])
    [site] = environment.glob("lib/python*/site-packages")
    [own] = site.glob(f"{NAME}-*.dist-info")
    for found in declared(PathDistribution(own), set(), {""}):
        link(found, site)
    for name in ("empty", "home"):
        (folder / name).mkdir()
    return Installed(environment, site, folder)


def checked(command: list[str]) -> None:
    """Run a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr


def declared(of: Distribution, seen: set[tuple[str, str]], extras: set[str]) -> Iterator[Distribution]:
    """What a distribution requires here, and what that requires."""
    for text in of.requires or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in extras):
            found = distribution(requirement.name)
            assert requirement.specifier.contains(found.version, prereleases=True), f"{text}: {found.version} is here"
            wanted = {extra for extra in ("", *requirement.extras) if (requirement.name, extra) not in seen}
            if wanted:
                seen |= {(requirement.name, extra) for extra in wanted}
                yield found
                yield from declared(found, seen, wanted)


def link(found: Distribution, site: Path) -> None:
    """Make a distribution's modules and metadata importable from another folder."""
    for name in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
        if not (site / name).exists():
            (site / name).symlink_to(Path(str(found.locate_file(name))))


def test_wheel_carries_all_that_is_needed(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        [entry_points] = [name for name in names if name.endswith(".dist-info/entry_points.txt")]
        commands = archive.read(entry_points).decode()
    migrations = {f"_migrations/versions/{path.name}" for path in CHECKOUT.glob("migrations/versions/*.py")}
    assert migrations
    wanted = migrations | {"py.typed", "_migrations/env.py", "_migrations/script.py.mako"}
    assert names >= {f"{NAME}/{name}" for name in wanted}
    assert f"freeagentics-db = {NAME}.cli.main:main" in commands
    strangers = {name for name in names if name.split("/")[0].split("-")[0] != NAME or "__pycache__" in name}
    assert not strangers


def test_environment_has_the_wheel_and_not_the_checkout(installed: Installed) -> None:
    where = installed.run("python", "-c", f"import sys, {NAME}; print({NAME}.__file__); print(*sys.path)")
    file, path = where.stdout.splitlines()
    assert Path(file).parent == installed.site / NAME
    assert str(CHECKOUT) not in path
    assert installed.run("python", "-c", "import pytest").returncode == 1  # only what is declared is there


def test_demo_runs_from_the_wheel(installed: Installed) -> None:
    demo = installed.run("freeagentics-db", "demo", "--agents", "20", "--steps", "3")
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "Every store holds exactly what the agents believe" in demo.stdout

    status = installed.run("freeagentics-db", "status", "--json")
    assert status.returncode == 0, status.stderr
    found = json.loads(status.stdout)
    assert (found["ok"], found["pending"], found["current"]) == (True, [], found["head"])
    assert [path.name for path in (installed.folder / "empty").iterdir()] == []
