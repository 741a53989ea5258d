"""Programs of callers without an event loop, each run as a process of its own: synchronous_programs.py <name> <folder>.

The folder is that of embedded servers. What happens is printed, a line for each thing.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

from freeagentics_persistence import Agent, Persistence, Settings, SynchronousStore
from freeagentics_persistence.errors import StoreClosed


def opened(folder: Path) -> SynchronousStore:
    return Persistence.open_sync(Settings.load(data_folder=folder))


def interrupt_after(seconds: float) -> None:
    """What Ctrl-C does, a little later."""
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()


def interrupted(folder: Path) -> None:
    with opened(folder) as store:
        agent = Agent(name="a", agent_type="t", beliefs=[0.5, 0.5])
        with store.updates.subscribe_to_agent_updates(agent.id) as updates:
            store.agents.save_agent(agent)
            assert next(updates).version == 1
            for _ in range(3):
                interrupt_after(0.3)
                try:
                    next(updates)
                except KeyboardInterrupt:
                    print("interrupted")
            store.agents.update_beliefs(agent.id, [0.1, 0.9])
            update = next(updates)
            print(update.version, update.beliefs()[0])


def interrupted_while_opening(folder: Path) -> None:
    interrupt_after(0.3)  # the first start of a cluster takes longer
    try:
        opened(folder)
    except KeyboardInterrupt:
        print("interrupted")
    print([thread.name for thread in threading.enumerate() if thread.name.startswith("freeagentics")])
    with opened(folder) as store:
        print(store.agents.save_agent(Agent(name="a", agent_type="t")).version)


def forgotten(folder: Path) -> None:
    store = opened(folder)
    agent = Agent(name="a", agent_type="t", beliefs=[0.5, 0.5])

    def follow() -> None:
        with store.updates.subscribe_to_agent_updates(agent.id) as updates:
            store.agents.save_agent(agent)
            print(next(updates).version)
            try:
                next(updates)
            except StoreClosed:
                print("closed")

    threading.Thread(target=follow).start()
    time.sleep(1)


def failed(folder: Path) -> None:
    store = opened(folder)
    raise SystemExit(f"died with {store.epoch}")


def forked(folder: Path) -> None:
    with opened(folder) as store:
        agent = store.agents.save_agent(Agent(name="a", agent_type="t"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # newer versions of Python warn of what is tested here
            child = os.fork()
        if child == 0:
            try:
                store.agents.get_agent(agent.id)
            except StoreClosed as error:
                print(error, flush=True)
            store.close()
            sys.exit(7)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        print(store.agents.get_agent(agent.id).version)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell started the tests behind it
    globals()[sys.argv[1]](Path(sys.argv[2]))
