"""The tree of errors: each says what happened and what to do, and crosses processes whole."""

from __future__ import annotations

import copy
import inspect
import pickle
from uuid import uuid4

import pytest

from freeagentics_persistence import errors
from freeagentics_persistence.errors import ConcurrentUpdate, InvalidInput, PersistenceError

CLASSES = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, PersistenceError)]
ID = uuid4()
EXAMPLES = [
    InvalidInput("energy", "101 is out of range", "Pass an int from 0 to 100."),
    errors.UnknownAgent(ID),
    errors.UnknownCoalition(ID),
    errors.UnknownTenant(ID),
    errors.UnknownMember(ID, ID),
    errors.InvalidTransition(ID, "active", "forming", ("profitable", "dissolved"), "read it again."),
    ConcurrentUpdate(f"agent {ID}", 3, 5),
    ConcurrentUpdate(f"agent {ID}", 3, None),
    errors.OutcomeUnknown(revisions=(ID,)),
    errors.FeedGap("gone", resume_after="1-2"),
    errors.SubscriberOverflow(resume_after="1-2"),
    errors.KeyUnavailable("data key is disabled."),
    errors.DatabaseUnavailable(),
]


def test_the_drawn_tree_is_the_real_one() -> None:
    parents = []
    for line in (errors.__doc__ or "").splitlines():
        drawn = line.replace("│", " ").replace("├──", "   ").replace("└──", "   ")
        words = drawn.split()
        if not words or not hasattr(errors, words[0]) or not drawn.startswith("    "):
            continue
        parents.append(((len(drawn) - len(drawn.lstrip())) // 4, getattr(errors, words[0])))
    assert {kind for _, kind in parents} == set(CLASSES)
    above: dict[int, type] = {}
    for depth, kind in parents:
        above[depth] = kind
        if kind is not PersistenceError:
            assert kind.__bases__[0] is above[depth - 1]


@pytest.mark.parametrize("kind", [kind for kind in CLASSES if "__init__" not in vars(kind)])
def test_the_first_line_of_the_docstring_is_the_message(kind: type[PersistenceError]) -> None:
    if issubclass(kind, InvalidInput):
        return
    error = kind()
    assert str(error) == error.message == (kind.__doc__ or "").strip().split("\n")[0]
    assert str(error).endswith(".")
    assert str(kind("said otherwise")) == "said otherwise"


@pytest.mark.parametrize("error", EXAMPLES, ids=[type(error).__name__ + str(i) for i, error in enumerate(EXAMPLES)])
def test_errors_cross_processes_whole(error: PersistenceError) -> None:
    error.add_note("row 3")
    for other in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert other.args == error.args
        assert vars(other) == vars(error)
        assert other.__notes__ == error.__notes__


def test_builtin_kinds() -> None:
    assert issubclass(InvalidInput, ValueError)
    assert issubclass(errors.NotFound, LookupError)


def test_invalid_input_says_which_what_and_how() -> None:
    error = InvalidInput("energy", "101 is out of range", "Pass an int from 0 to 100.")
    assert str(error) == "energy: 101 is out of range. Pass an int from 0 to 100."
    assert (error.field, error.problem, error.remedy) == (
        "energy",
        "101 is out of range",
        "Pass an int from 0 to 100.",
    )


def test_a_conflict_says_both_versions() -> None:
    error = ConcurrentUpdate("agent 7", 3, 5)
    assert (error.expected, error.actual) == (3, 5)
    assert "agent 7: expected version 3, but it is at version 5. Nothing was written" in str(error)
    assert "it does not exist" in str(ConcurrentUpdate("agent 7", 3, None))


@pytest.mark.parametrize("kind", [errors.UnknownAgent, errors.UnknownCoalition, errors.UnknownTenant])
def test_unknown_objects_are_named_with_the_remedy(kind: type[errors.UnknownAgent]) -> None:
    assert str(ID) in str(kind(ID))
    assert "first with" in str(kind(ID))
