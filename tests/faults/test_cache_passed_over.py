"""While Redis is known to be away, reads go on, and its absence is not written to the log for each of them."""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from freeagentics_persistence import Agent, Persistence
from freeagentics_persistence.errors import CacheUnavailable
from freeagentics_persistence.operations.servers import ServerUrls
from tests.conftest import settings_of
from tests.support.proxy import Proxy


async def test_a_known_absence_is_logged_quietly(urls: ServerUrls, caplog: pytest.LogCaptureFixture) -> None:
    parts = urlsplit(urls.redis)
    async with Proxy(Path(unquote(parts.path))) as proxy:
        redis = {"url": f"redis://:{parts.password}@127.0.0.1:{proxy.port}/0"}
        async with Persistence.open(settings_of(urls, redis=redis), relay="off") as store:
            agent = await store.agents.save_agent(Agent(name="a", agent_type="t", beliefs=[0.5, 0.5]))
            proxy.refuse(True)
            proxy.cut()
            caplog.set_level(logging.DEBUG, logger="freeagentics_persistence.database.context")
            for _ in range(20):
                assert await store.agents.get_beliefs(agent.id) == agent.beliefs
            levels = [record.levelno for record in caplog.records if "passed over" in record.message]
            assert 1 <= levels.count(logging.WARNING) <= 8
            assert levels.count(logging.DEBUG) >= 12
            with pytest.raises(CacheUnavailable) as caught:
                await store.cache.get_cached_beliefs(agent.id)
            assert caught.value.passed_over
