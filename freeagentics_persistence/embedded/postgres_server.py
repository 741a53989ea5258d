"""PostgreSQL: its configuration, its start, and whether it answers."""

from __future__ import annotations

import shutil
import socket
import struct
from typing import TYPE_CHECKING

from freeagentics_persistence.embedded.files import log_tail, write_atomically
from freeagentics_persistence.embedded.local_server import Answer, LocalServer
from freeagentics_persistence.embedded.machine import MIB, share_of_disk, share_of_memory
from freeagentics_persistence.embedded.postgres_cluster import make_cluster, refuse_other_version, renew_passwords
from freeagentics_persistence.embedded.secrets_file import save_secrets
from freeagentics_persistence.embedded.urls import ADMIN, DATABASE, POSTGRES_PORT, POSTGRES_SOCKET

if TYPE_CHECKING:
    import subprocess

    from freeagentics_persistence.embedded.kernel_lock import FileLock
    from freeagentics_persistence.embedded.local_server import Setup
    from freeagentics_persistence.embedded.patience import Patience

_HBA = """\
# TYPE  DATABASE     USER  METHOD
local   all          all   scram-sha-256
local   replication  all   scram-sha-256
"""
_CANNOT_CONNECT_NOW = "57P03"
_PROTOCOL_3 = 196608


class PostgresServer(LocalServer):
    """The cluster's server. It listens on a unix socket only."""

    name = "postgres"
    title = "PostgreSQL"
    socket_name = POSTGRES_SOCKET

    def make_ready(self, lock: FileLock, patience: Patience) -> None:
        """Make the cluster on a first start, then write its configuration."""
        setup, data = self.setup, self.setup.data
        for half_made in data.root.glob("postgres.new-*"):
            shutil.rmtree(half_made)
        if not data.postgres.is_dir():
            data.demand_space()
            patience.say("PostgreSQL: making the database cluster (first start)")
            make_cluster(setup, lock, self.log)
        refuse_other_version(data.postgres, setup.binaries.postgres)
        # Nobody holds the lock, so whatever process has the number in this file by now, it is not this server.
        (data.postgres / "postmaster.pid").unlink(missing_ok=True)
        for name in (POSTGRES_SOCKET, POSTGRES_SOCKET + ".lock"):
            (setup.sockets / name).unlink(missing_ok=True)
        if not data.secrets.exists():
            patience.say("PostgreSQL: setting new passwords")
            renew_passwords(setup, lock, self.log)
            save_secrets(data.secrets, setup.secrets)
        write_atomically(data.postgres / "postgresql.conf", configuration(setup), setup.account)
        write_atomically(data.postgres / "pg_hba.conf", _HBA, setup.account)

    def spawn(self, lock: FileLock, output: int) -> subprocess.Popen[bytes]:
        """Start the postmaster; the processes it forks hold the lock too."""
        folder, account = self.setup.data.postgres, self.setup.account
        return account.spawn(
            [str(self.setup.binaries.postgres / "postgres"), "-D", account.data_argument(folder)],
            folder=folder,
            output=output,
            keep=(lock.fd,),
        )

    def knock(self) -> Answer:
        """Once the server calls itself ready, begin a connection and read whether it would go on with it."""
        if self._status() not in ("ready", ""):
            # Not asked: it would log every refusal, and its log is what shows progress.
            return Answer(ready=False, message=self._last_log_message())
        startup = f"user\0{ADMIN}\0database\0{DATABASE}\0\0".encode()
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1)
                connection.connect(str(self._socket_path))
                connection.sendall(struct.pack("!ii", 8 + len(startup), _PROTOCOL_3) + startup)
                reply = connection.recv(1024)
        except OSError:
            return Answer(ready=False, message="")
        if reply[:1] == b"R":
            return Answer(ready=True, message="")
        fields = {part[:1]: part[1:].decode(errors="replace") for part in reply[5:].split(b"\0")}
        code = fields.get(b"C")
        return Answer(ready=code not in (None, _CANNOT_CONNECT_NOW), message=fields.get(b"M", ""))

    def _status(self) -> str:
        """What the server calls itself: starting, stopping or ready; empty where it says nothing."""
        try:
            lines = (self.setup.data.postgres / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return ""
        return lines[7].strip() if len(lines) > 7 else "starting"

    def _last_log_message(self) -> str:
        return log_tail(self.log, self._log_start, lines=1).partition("LOG:  ")[2]


def configuration(setup: Setup) -> str:
    """postgresql.conf for this machine. ``ALTER SYSTEM`` still overrides it."""
    on = "on" if setup.durable else "off"
    buffers = share_of_memory(0.15, least=64, most=2048 if setup.durable else 128)
    wal = share_of_disk(setup.data.root, 0.05, least=256, most=4096)
    settings = {
        "listen_addresses": "",
        "port": POSTGRES_PORT,
        "unix_socket_directories": setup.sockets,
        "unix_socket_permissions": "0700",
        "password_encryption": "scram-sha-256",
        "max_connections": 100,
        "shared_buffers": f"{buffers // MIB}MB",
        "effective_cache_size": f"{share_of_memory(0.5, least=256, most=1 << 20) // MIB}MB",
        "work_mem": f"{share_of_memory(0.001, least=4, most=32) // MIB}MB",
        "maintenance_work_mem": f"{share_of_memory(0.03, least=64, most=512) // MIB}MB",
        "max_locks_per_transaction": 128,
        "jit": "off",
        "random_page_cost": 1.1,
        "fsync": on,
        "synchronous_commit": on,
        "full_page_writes": on,
        "wal_level": "replica",
        "wal_compression": "pglz",
        "min_wal_size": "128MB",
        "max_wal_size": f"{wal // MIB}MB",
        "checkpoint_timeout": "10min",
        "autovacuum": "on",
        "autovacuum_naptime": "30s",
        "autovacuum_vacuum_scale_factor": 0.05,
        "autovacuum_analyze_scale_factor": 0.05,
        "autovacuum_vacuum_cost_limit": 2000,
        "datestyle": "iso, mdy",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "lc_messages": "C",
        "log_line_prefix": "%m [%p] %q%u ",
        "log_startup_progress_interval": "2s",
        # A statement that failed may hold a password or a value.
        "log_min_error_statement": "panic",
        "log_parameter_max_length": 0,
        "cluster_name": "freeagentics",
    }
    lines = "".join(f"{name} = '{value}'\n" for name, value in settings.items())
    return "# Written at every start. To change a setting, use ALTER SYSTEM.\n" + lines
