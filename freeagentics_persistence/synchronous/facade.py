"""Thin objects that stand for those of the async API, and whose calls wait for a loop in another thread.

Nothing here knows the methods of the API: classes are made from those that they stand for, when one is first met.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import fields, is_dataclass
from functools import lru_cache, partial, wraps
from types import FunctionType
from typing import Any, Self, cast

from freeagentics_persistence.domain.validation import require_finite
from freeagentics_persistence.errors import StoreClosed
from freeagentics_persistence.synchronous.background_loop import BackgroundLoop, Lease


class Synchronous:
    """An object of the async API, with the same names: coroutine methods are ordinary calls, answered when done.

    Answers that have coroutine methods themselves, such as updates and tenants' stores, come as such objects, all
    others as they are. Signatures and docstrings are those of the async API, and shown in notebooks and by ``help``.
    Type checkers see ``Any``: they know no way to derive these classes, and a written twin of each would go stale.
    """

    __slots__ = ("__weakref__", "_lease", "_target")

    def __init__(self, lease: Lease, target: Any) -> None:
        self._lease = lease
        self._target = target

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in getattr(self._target, "__dict__", ()):
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        return self._facing(getattr(self._target, name))

    def __dir__(self) -> list[str]:
        own = getattr(self._target, "__dict__", ())
        return sorted({*super().__dir__(), *(name for name in own if not name.startswith("_"))})

    def __eq__(self, other: object) -> bool:
        return bool(self._target == other._target) if isinstance(other, Synchronous) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._target)

    def __repr__(self) -> str:
        return f"<synchronous {self._target!r}>"

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self._facing(self._lease.loop.call(partial(function, self._target, *args, **kwargs)))

    def _facing(self, value: Any) -> Any:
        """What callers get for a value of the async API."""
        if value is self._target:
            return self
        return _class_for(_kind_of(value))(self._lease, value) if _has_coroutines(value) else value


class SynchronousStore(Synchronous):
    """A store whose calls are ordinary ones; made by ``Persistence.open_sync()``.

    It has what the async store has, under the same names, and may be used by several threads at once. Ctrl-C ends
    the call that waits, and the store goes on. Close it by ``with`` or ``close()``; one that is forgotten, or still
    open when the main thread ends, is closed then. After a fork the child has to open a store of its own.
    """

    __slots__ = ()

    def close(self) -> None:
        """Close the store; again is harmless. Calls that wait in other threads end with StoreClosed."""
        self._lease.loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_synchronously(opening: Callable[[], AbstractAsyncContextManager[object]]) -> SynchronousStore:
    """The store that ``opening()`` makes, open in a thread of its own. Raises what opening raises."""
    loop = BackgroundLoop()
    store = loop.open(opening)
    return cast("SynchronousStore", _class_for(_kind_of(store), SynchronousStore)(Lease(loop), store))


class _Context(Synchronous):
    __slots__ = ()

    def __enter__(self) -> Any:
        return self._facing(self._lease.loop.enter(self._target))

    def __exit__(self, *error: object) -> None:
        self._lease.loop.leave(self._target, *error)


class _Generator(Synchronous):
    __slots__ = ()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        try:
            return self._call(anext)
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        """End the iteration, and give back what it holds."""
        with suppress(StoreClosed):  # which has ended it already
            self._call(type(self._target).aclose)


class _Iterator(Synchronous):
    __slots__ = ()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        return self.next()

    def next(self, timeout: float | None = None) -> Any:
        """The next one; TimeoutError where none has come after so many seconds. None is lost by that."""
        seconds = None if timeout is None else require_finite("timeout", timeout)
        try:
            return self._call(_next_within, seconds)
        except StopAsyncIteration:
            raise StopIteration from None


async def _next_within(iterator: Any, timeout: float | None) -> Any:
    async with asyncio.timeout(timeout):
        return await anext(iterator)


@lru_cache(maxsize=256)
def _class_for(kind: type, base: type[Synchronous] | None = None) -> type[Synchronous]:
    """The class whose objects stand for those of an async one."""
    if hasattr(kind, "asend"):
        return _Generator
    asked = {"__anext__": _Iterator, "__aenter__": _Context}
    bases = (base,) if base else tuple(part for name, part in asked.items() if hasattr(kind, name)) or (Synchronous,)
    members: dict[str, Any] = {"__slots__": (), "__module__": __name__, "__doc__": (base or kind).__doc__}
    for name in dir(kind):
        member = inspect.getattr_static(kind, name)
        if name.startswith("_") or any(hasattr(known, name) for known in bases):
            continue
        if isinstance(member, FunctionType):
            members[name] = _method(member)
        elif inspect.isdatadescriptor(member):
            members[name] = _property(name, member)
    return type(f"Synchronous{kind.__name__}", bases, members)


def _method(function: FunctionType) -> Callable[..., Any]:
    @wraps(function)
    def call(self: Synchronous, *args: Any, **kwargs: Any) -> Any:
        return self._call(function, *args, **kwargs)

    signature = inspect.signature(function)
    answer = signature.return_annotation
    if isinstance(answer, str):
        signature = signature.replace(return_annotation=answer.replace("Async", ""))
    call.__signature__ = signature  # type: ignore[attr-defined]
    return call


def _property(name: str, member: Any) -> property:
    return property(lambda self: self._facing(getattr(self._target, name)), doc=inspect.getdoc(member))


def _has_coroutines(value: object) -> bool:
    values = [value]
    if is_dataclass(value):
        values += [getattr(value, field.name) for field in fields(value)]
    return any(_is_asynchronous(_kind_of(each)) for each in values)


def _kind_of(value: object) -> Any:
    return type(value)  # Any, as mypy takes classes for unhashable


@lru_cache(maxsize=256)
def _is_asynchronous(kind: type) -> bool:
    names = dir(kind)
    members = (inspect.getattr_static(kind, name) for name in names if not name.startswith("_"))
    return not {"__anext__", "__aenter__"}.isdisjoint(names) or any(map(inspect.iscoroutinefunction, members))
