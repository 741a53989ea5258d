"""partitions: what there is, what keeping would do, and keeping."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from freeagentics_persistence.operations.servers import ServerUrls
from tests.integration.cli.cli_helpers import Run
from tests.integration.cli.test_cli_check import execute

NOW = datetime.now(UTC)
OLD = """
CREATE TABLE agent_history_2020_02 PARTITION OF agent_history
FOR VALUES FROM ('2020-02-01 00:00+00') TO ('2020-03-01 00:00+00');
ALTER TABLE agent_history_2020_02 OWNER TO freeagentics_owner;
"""


async def test_partitions_are_listed_and_kept(run: Run, urls: ServerUrls, own: dict[str, str]) -> None:
    listed = (await asyncio.to_thread(run, "partitions", "--json", own)).json["partitions"]
    assert {each["parent"] for each in listed} == {"agent_history", "accepted_revisions"}
    present = next(each for each in listed if each["name"] == f"agent_history_{NOW:%Y_%m}")
    assert datetime.fromisoformat(present["starts"]) <= NOW < datetime.fromisoformat(present["ends"])
    assert (present["rows"], present["bytes"] > 0, present["expired"]) == (0, True, False)
    assert (await asyncio.to_thread(run, "partitions", "keep", own)).out == "nothing to make, and nothing to drop\n"

    await execute(urls.admin, OLD)
    tomorrow = f"accepted_revisions_{NOW + timedelta(days=1):%Y_%m_%d}"
    await execute(urls.admin, f"DROP TABLE {tomorrow}")
    shown = (await asyncio.to_thread(run, "partitions", own)).out.splitlines()
    assert shown[0].split() == ["partition", "from", "to", "rows,", "about", "MiB"]
    assert shown[1].split() == ["agent_history_2020_02", "2020-02-01", "2020-03-01", "0", "0.0", "expired"]
    assert shown[-1].endswith("to come")

    said = f"made {tomorrow}\ndropped agent_history_2020_02\n"
    planned = await asyncio.to_thread(run, "partitions", "keep", "--dry-run", own)
    assert planned.out == "".join(f"would be {line}\n" for line in said.splitlines())
    kept = await asyncio.to_thread(run, "partitions", "keep", "--json", own)
    assert kept.json == {"made": [tomorrow], "dropped": ["agent_history_2020_02"], "busy": [], "dry_run": False}
    assert (await asyncio.to_thread(run, "partitions", "keep", own)).code == 0


def test_days_are_made_where_the_settings_say_so(run: Run, own: dict[str, str]) -> None:
    daily = {**own, "HISTORY_PARTITIONS": "day"}
    kept = run("partitions", "keep", "--json", daily).json
    assert all(name.count("_") == 4 for name in kept["made"])
    checked = {each["subject"]: each for each in run("check", "--json", daily).json["findings"]}
    assert checked["history"]["ok"]
    assert checked["history"]["facts"]["partition"] == kept["made"][0]
    assert run("partitions", "keep", daily).out == "nothing to make, and nothing to drop\n"
