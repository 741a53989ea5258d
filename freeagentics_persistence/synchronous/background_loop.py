"""An event loop in a thread of its own, in which one store is open, for callers in other threads."""

from __future__ import annotations

import asyncio
import atexit
import inspect
import logging
import os
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractAsyncContextManager, suppress
from functools import cache, partial
from typing import Any, TypeVar, cast

from freeagentics_persistence.errors import PersistenceError, StoreClosed

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

EXIT_SECONDS = 20.0  # embedded servers that stop more slowly are left to their watchdog
_open: set[BackgroundLoop] = set()


class BackgroundLoop:
    """Runs the calls of any number of threads; each waits for its own."""

    def __init__(self) -> None:
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="freeagentics store", daemon=True)
        self._accepting = threading.Lock()
        self._closed = False
        self._closing = asyncio.Event()
        self._tasks: dict[Future[Any], asyncio.Task[Any]] = {}
        self._entered: dict[int, AbstractAsyncContextManager[Any]] = {}
        self._life: Future[None] = Future()

    def open(self, opening: Callable[[], AbstractAsyncContextManager[_T]]) -> _T:
        """Start the thread and enter the context in it. Raises what that raises."""
        opened: Future[_T] = Future()
        self._life = self._submit(lambda: self._live(opening, opened))
        self._life.add_done_callback(self._end)
        _register_at_exit()
        try:
            self._thread.start()
            wait(cast("list[Future[object]]", [opened, self._life]), return_when=FIRST_COMPLETED)
        except RuntimeError:  # no thread could be started
            raise
        except BaseException:
            self._cancel(self._life)
            self._thread.join()
            raise
        if not opened.done():
            self.close()
        return opened.result()

    def call(self, work: Callable[[], Any]) -> Any:
        """Run it in the loop, await what it returns where that can be awaited, and return or raise what comes of it.

        Where the wait is interrupted (KeyboardInterrupt), the call is cancelled, and has ended when this raises.
        """
        self._require_other_thread()
        answer = self._submit(work)
        try:
            return answer.result()
        except BaseException:
            if not answer.done():
                self._cancel(answer)
            raise
        finally:
            del answer  # which would keep the error, and so this frame, alive

    def enter(self, context: AbstractAsyncContextManager[_T]) -> _T:
        """Enter it; what is not left by then is left when the store is closed. Raises what that raises."""

        async def work() -> _T:
            value = await type(context).__aenter__(context)
            self._entered[id(context)] = context
            return value

        return cast("_T", self.call(work))

    def leave(self, context: AbstractAsyncContextManager[Any], *error: Any) -> None:
        """Leave it; on a closed store it is left already. Raises what that raises."""

        async def work() -> None:
            self._entered.pop(id(context), None)
            await type(context).__aexit__(context, *error)

        with suppress(StoreClosed):
            self.call(work)

    def close(self, timeout: float | None = None) -> None:
        """End the calls that wait, leave the context, end the thread. Raises what leaving raises."""
        if os.getpid() != self._process:
            return  # a forked child has nothing to close
        self._require_other_thread()
        with self._accepting:
            self._closed = True
        with suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._closing.set)
        self._thread.join(timeout)
        if self._life.done():
            self._life.result()

    def let_go(self) -> None:
        """Close without waiting, where nobody can call any more; from any thread."""
        if os.getpid() == self._process:
            with suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._closing.set)

    def _require_other_thread(self) -> None:
        if os.getpid() != self._process:
            raise StoreClosed(
                f"this store was opened by process {self._process}, and neither its thread nor its connections came "
                f"along when process {os.getpid()} was forked. Open a store in the new process, or start it by 'spawn'."
            )
        if threading.get_ident() == self._thread.ident:
            raise PersistenceError(
                "a store was called from its own thread, where it would wait for itself. Call it from another one."
            )

    def _submit(self, work: Callable[[], Any]) -> Future[Any]:
        answer: Future[Any] = Future()
        with self._accepting:
            if self._closed:
                raise StoreClosed("the store is closed. Open another: Persistence.open_sync()")
            self._loop.call_soon_threadsafe(self._begin, work, answer)
        return answer

    def _cancel(self, answer: Future[Any]) -> None:
        with suppress(RuntimeError):  # the loop is closed, and so the call has ended
            self._loop.call_soon_threadsafe(lambda: answer in self._tasks and self._tasks[answer].cancel())
        wait([answer])

    def _run(self) -> None:
        _open.add(self)
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:  # which ends what is left over
            runner.get_loop().set_default_executor(ThreadPoolExecutor(thread_name_prefix="freeagentics store"))
            runner.get_loop().run_forever()

    def _end(self, _: Future[None]) -> None:
        _open.discard(self)
        with self._accepting:
            self._closed = True
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _begin(self, work: Callable[[], Any], answer: Future[Any]) -> None:
        task = self._tasks[answer] = self._loop.create_task(_perform(work))
        task.add_done_callback(partial(self._finish, answer))

    def _finish(self, answer: Future[Any], task: asyncio.Task[Any]) -> None:
        del self._tasks[answer]
        if task.cancelled():
            answer.set_exception(
                StoreClosed(
                    "the store was closed while this call waited. A write may have been applied: open the store "
                    "again, and read it back or repeat it with its revision."
                )
            )
        elif (error := task.exception()) is not None:
            answer.set_exception(error)
        else:
            answer.set_result(task.result())

    async def _live(self, opening: Callable[[], AbstractAsyncContextManager[_T]], opened: Future[_T]) -> None:
        async with opening() as store:
            opened.set_result(store)
            await self._closing.wait()
            calls = set(self._tasks.values()) - {asyncio.current_task()}
            for task in calls:
                task.cancel()
            if calls:
                await asyncio.wait(calls)
            for context in reversed(self._entered.values()):
                await type(context).__aexit__(context, None, None, None)


class Lease:
    """Shared by all objects of a store: once the last of them is forgotten, the store is closed."""

    __slots__ = ("__weakref__", "loop")

    def __init__(self, loop: BackgroundLoop) -> None:
        self.loop = loop
        weakref.finalize(self, loop.let_go).atexit = False


async def _perform(work: Callable[[], Any]) -> Any:
    result = work()
    return await result if inspect.isawaitable(result) else result


@cache
def _register_at_exit() -> None:
    # Before the hook of concurrent.futures, as these run in reverse and stopping embedded servers needs its threads;
    # atexit alone would come after both.
    getattr(threading, "_register_atexit", atexit.register)(_close_forgotten)


def _close_forgotten() -> None:
    for loop in tuple(_open):
        try:
            loop.close(EXIT_SECONDS)
        except Exception:  # noqa: BLE001 - told; the hooks of others and other stores come after it
            _log.exception("a store that was still open when the program ended did not close well")
