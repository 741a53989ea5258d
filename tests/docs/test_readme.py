"""The README and the documents are run: their Python, their output, their commands, settings and links."""

from __future__ import annotations

import ast
import builtins
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from inspect import isawaitable
from itertools import pairwise
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import typer
from pydantic_settings import BaseSettings
from typer.testing import CliRunner

import freeagentics_persistence
from freeagentics_persistence import Persistence
from freeagentics_persistence.cli.main import app
from freeagentics_persistence.settings import GROUPS, Settings
from tests.docs.markdown import DOCUMENTS, ROOT, Block, anchors_of, blocks_of, links_of, name_of, prose_of, tables_of

README = ROOT / "README.md"
RUNNABLE = [path for path in DOCUMENTS if any(block.language == "python" for block in blocks_of(path))]
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
OF_OTHERS = ("DATABASE_", "HISTORY_", "REDIS_", "INFLUXDB_", "ENCRYPTION_", "RELAY_", "FREEAGENTICS_")
PLUMBING = {"close", "load_membership"}  # public for other parts of the package, not for callers


def is_script(block: Block) -> bool:
    """Whether the block is a whole program."""
    return block.language == "python" and any(start in block.text for start in ("asyncio.run(", ".open_sync("))


def scripts() -> Iterator[tuple[Block, Block]]:
    """Each program of the README with the output that follows it."""
    found = list(blocks_of(README))
    for block, following in pairwise(found):
        if is_script(block):
            yield block, following


def compiled(block: Block) -> CodeType:
    """The block's code, in which await may stand outside of functions; tracebacks show its lines."""
    source = "\n" * (block.line - 1) + block.text
    return compile(source, str(block.path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize(("script", "output"), list(scripts()), ids=["async", "sync"])
def test_programs_print_what_the_readme_says(tmp_path: Path, script: Block, output: Block) -> None:
    (tmp_path / "quickstart.py").write_text(script.text)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OF_OTHERS)}
    done = subprocess.run(
        [sys.executable, "quickstart.py"],
        cwd=tmp_path,
        env=environment | {"FREEAGENTICS_DATA_FOLDER": str(tmp_path / "data"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stdout) == (0, output.text), done.stderr


@pytest.mark.parametrize("path", RUNNABLE, ids=name_of)
async def test_python_blocks_run(path: Path, store: Persistence) -> None:
    names: dict[str, Any] = {"__builtins__": builtins, "store": store}
    ran = 0
    for block in blocks_of(path):
        if block.language == "python" and not is_script(block):
            result = FunctionType(compiled(block), names)()
            if isawaitable(result):
                await result
            ran += 1
    assert ran


def shell_lines() -> Iterator[tuple[str, str]]:
    """Every command line of the documents, in blocks and in code within the text."""
    for path in DOCUMENTS:
        for block in blocks_of(path):
            if block.language == "sh":
                for i, line in enumerate(block.text.splitlines()):
                    yield f"{name_of(path)}:{block.line + i}", line
        for code in re.findall(r"`([^`\n]+)`", prose_of(path)):
            yield name_of(path), code


def commands(program: str) -> Iterator[tuple[str, list[str]]]:
    """The arguments with which the documents call a program."""
    for place, line in shell_lines():
        if program in line:
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                del words[0]
            if words and Path(words[0]).name == program:
                ends = [i for i, word in enumerate(words) if word in ("|", ">", ">>", "&&")]
                yield place, words[1 : ends[0] if ends else None]


def test_commands_of_the_documents_exist() -> None:
    called = list(commands("freeagentics-db"))
    for place, words in called:
        result = CliRunner().invoke(app, [*words, "--help"])  # help is given only where all else is understood
        assert result.exit_code == 0, f"{place}: freeagentics-db {shlex.join(words)}: {result.output}"
    assert len(called) > 10


def test_make_targets_of_the_documents_exist() -> None:
    called = [(place, words) for place, words in commands("make") if words]
    for place, words in called:
        targets = [word for word in words if "=" not in word]
        assert TARGETS.issuperset(targets), f"{place}: make {shlex.join(words)}"
    assert len(called) > 5


def test_every_command_is_in_the_table() -> None:
    known: Any = typer.main.get_command(app)
    written = [row[0].strip("`").removeprefix("freeagentics-db ") for row in tables_of(README, "The command")]
    assert written == list(known.commands)


def test_every_method_is_in_the_table() -> None:
    tenant = {"agents", "history", "coalitions", "queries", "cache", "updates", "metrics", "epoch"}
    for name, _, methods in tables_of(README, "The API"):
        own = class_named(name.strip("`"))
        public = {method for method in vars(own) if not method.startswith("_")} - PLUMBING - tenant
        assert re.findall(r"`(\w+)`", methods) == [method for method in vars(own) if method in public], name


def class_named(name: str) -> type:
    """The class of a public name, or of an attribute of a tenant's store."""
    if hasattr(freeagentics_persistence, name):
        return getattr(freeagentics_persistence, name)
    module = sys.modules["freeagentics_persistence.assembly"]
    return getattr(module, name)


def test_settings_table_is_that_of_the_code() -> None:
    written = tables_of(ROOT / "docs" / "settings.md", "Settings")
    expected = [list(row) for row in settings_rows()]
    assert written == expected, "the table should be:\n" + "\n".join(f"| {' | '.join(row)} |" for row in expected)


def settings_rows() -> Iterator[tuple[str, str, str]]:
    """Variable, default and meaning of every setting."""
    kinds: list[type[BaseSettings]] = [Settings, *GROUPS.values()]
    for kind in kinds:
        for name, field in kind.model_fields.items():
            if name in GROUPS:
                continue
            default = "unset" if field.default is None else f"`{str(field.default).lower()}`"
            yield f"`{kind.model_config['env_prefix']}{name.upper()}`", default, str(field.description)


def test_example_environment_has_every_setting_and_no_other() -> None:
    text = (ROOT / ".env.example").read_text()
    written = re.findall(r"^(?:# )?([A-Z_]+)=", text, re.MULTILINE)
    known = {variable.strip("`") for variable, _, _ in settings_rows()}
    compose = set(re.findall(r"\$\{([A-Z_]+)", (ROOT / "docker-compose.yml").read_text()))
    assert sorted(written) == sorted(known | compose)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    for link in links_of(path):
        if link.startswith("https://"):
            continue
        target, _, anchor = link.partition("#")
        file = (path.parent / target) if target else path
        assert file.exists(), f"{name_of(path)}: {link}"
        assert not anchor or anchor in anchors_of(file), f"{name_of(path)}: {link}"


def test_picture_is_well_formed_and_says_what_it_shows() -> None:
    picture = ET.parse(ROOT / "docs" / "flow.svg").getroot()
    space = "{http://www.w3.org/2000/svg}"
    assert picture.tag == f"{space}svg"
    assert picture.findtext(f"{space}desc")
    for table in ("agents", "agent_history", "events"):
        assert table in [text.text for text in picture.iter(f"{space}text")]


def test_wheel_of_the_readme_is_this_version() -> None:
    assert f"freeagentics_persistence-{freeagentics_persistence.__version__}-py3-none-any.whl" in README.read_text()
