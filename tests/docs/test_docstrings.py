"""Docstrings: their examples run, every public name has one, and the tree of errors is the one that is drawn."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from types import ModuleType

import pytest

import freeagentics_persistence
from freeagentics_persistence import errors
from freeagentics_persistence.errors import PersistenceError
from tests.docs.markdown import ROOT, tables_of

WITH_EXAMPLES = {"Agent", "BatchResult", "BeliefBatch", "Beliefs", "Coalition"}
VALUES = {"ALL", "DEFAULT_TENANT_ID"}  # what is no class or function has no docstring of its own
OPTIONS = doctest.ELLIPSIS | doctest.FAIL_FAST


def modules() -> Iterator[ModuleType]:
    """Every module of the package that can be imported without running it."""
    path, prefix = freeagentics_persistence.__path__, "freeagentics_persistence."
    for found in pkgutil.walk_packages(path, prefix):
        if not found.name.endswith("__main__"):
            yield importlib.import_module(found.name)


def examples() -> list[doctest.DocTest]:
    """Every docstring with examples."""
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [test for module in modules() for test in finder.find(module) if test.examples]


EXAMPLES = examples()


@pytest.mark.parametrize("test", EXAMPLES, ids=lambda test: test.name)
def test_examples_run(test: doctest.DocTest) -> None:
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=said.append)
    assert result.failed == 0, "".join(said)
    assert result.attempted == len(test.examples)


def test_most_used_classes_have_examples() -> None:
    assert {test.name.rpartition(".")[2] for test in EXAMPLES} >= WITH_EXAMPLES


@pytest.mark.parametrize("name", [name for name in freeagentics_persistence.__all__ if name not in VALUES])
def test_public_names_say_what_they_are(name: str) -> None:
    public = getattr(freeagentics_persistence, name)
    assert own_docstring(public), name
    for attribute, value in vars(public).items() if inspect.isclass(public) else ():
        function = getattr(value, "__func__", None) or getattr(value, "fget", None) or value
        if not attribute.startswith("_") and inspect.isfunction(function):
            assert function.__doc__, f"{name}.{attribute}"


def own_docstring(public: object) -> str | None:
    """The docstring that was written for it: none that is inherited, or that a dataclass made of its fields."""
    text = vars(public).get("__doc__") if inspect.isclass(public) else getattr(public, "__doc__", None)
    return None if text is None or text.startswith(f"{getattr(public, '__name__', '')}(") else text


def drawn_tree() -> dict[str, str | None]:
    """Class and base of each line of the tree in the docstring of errors.py."""
    found: dict[str, str | None] = {}
    path: list[str] = []
    for line in str(errors.__doc__).splitlines():
        match = re.match(r" {4}((?:[│ ] {3})*)([├└]── )?([A-Z]\w+)", line)
        if match:
            depth = len(match[1]) // 4 + bool(match[2])
            del path[depth:]
            found[match[3]] = path[-1] if path else None
            path.append(match[3])
    return found


def classes() -> dict[str, str | None]:
    """Every error class and its base among them."""
    found = {name: value for name, value in vars(errors).items() if inspect.isclass(value)}
    own = {name: value for name, value in found.items() if issubclass(value, PersistenceError)}
    return {name: None if value is PersistenceError else value.__mro__[1].__name__ for name, value in own.items()}


def test_drawn_tree_of_errors_is_that_of_the_classes() -> None:
    assert drawn_tree() == classes()


def test_operations_explain_every_error() -> None:
    path = ROOT / "docs" / "operations.md"
    rows = [row[0] for row in tables_of(path, "At three in the morning")]
    assert sorted(re.fullmatch("`(.*)`", name)[1] for name in rows if name.startswith("`")) == sorted(classes())  # type: ignore[index]
