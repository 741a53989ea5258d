"""The command ``freeagentics-db``. What a command needs is imported when it runs, so that help appears at once."""

from __future__ import annotations

import errno
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from freeagentics_persistence.cli.partitions import partitions
from freeagentics_persistence.cli.terminal import complain, drop_output, run, say
from freeagentics_persistence.errors import ConfigurationError, InvalidInput, PersistenceError

if TYPE_CHECKING:
    from uuid import UUID

    from freeagentics_persistence.settings import Settings

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for a script to read.")]

app = typer.Typer(
    name="freeagentics-db",
    help=(
        "Sets up, checks and watches the servers of freeagentics-persistence.\n\n"
        "Settings come from the environment and from .env. With no URL set, PostgreSQL and Valkey run embedded, in the "
        "user's data folder."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def main() -> None:
    """Run the command line. Ends with 0, 1 (an error, or something is wrong), 2 (usage), 130 or 143 (interrupted)."""
    try:
        app()
    except PersistenceError as error:
        complain(error.message)
        sys.exit(1)
    except OSError as error:
        # what servers and files raise is translated long before, so this is of standard output
        if error.filename is not None or error.errno not in _UNWRITABLE:
            raise
        drop_output()
        complain(f"the output cannot be written ({error.strerror}). Make room there, or write it elsewhere.")
        sys.exit(1)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        say(f"freeagentics-db {version('freeagentics-persistence')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(short_help="Set up the servers, as far as it is missing.")
def init(as_json: Json = False) -> None:
    """Set up the servers: database, roles, logins, schema, key and bucket, as far as they are missing.

    On servers of your own, DATABASE_ADMIN_URL names a login that may make databases and roles (DATABASE_URL is used
    where it is not set). Logins that DATABASE_URL, DATABASE_MIGRATOR_URL and DATABASE_RELAY_URL name are made with
    the passwords in these URLs. It may be repeated: what is there stays.

    \b
    Examples:
      freeagentics-db init
      DATABASE_ADMIN_URL=postgresql://postgres:...@db/freeagentics freeagentics-db init
      freeagentics-db init --json | jq .next
    """
    settings = _settings()
    from freeagentics_persistence.cli.initialising import initialise

    run(initialise(settings, as_json=as_json))


@app.command(short_help="Look at every server and say what is wrong.")
def check(as_json: Json = False) -> None:
    """Look at every server, and say what is wrong and what to do about it. Exit code 1 if anything is.

    \b
    Examples:
      freeagentics-db check
      freeagentics-db check --json | jq '.findings[] | select(.ok | not) | .remedy'
    """
    settings = _settings()
    from freeagentics_persistence.cli.checking import check_servers

    if not run(check_servers(settings, as_json=as_json)):
        raise typer.Exit(1)


@app.command(short_help="Bring the schema up to this version.")
def migrate(
    to: Annotated[str, typer.Option("--to", metavar="REVISION", help="Go up to this revision only.")] = "head",
    sql: Annotated[bool, typer.Option("--sql", help="Print the SQL of what is pending, and run nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Bring the database's schema up to this version. Two at once are safe: the second waits.

    \b
    Examples:
      freeagentics-db migrate
      freeagentics-db migrate --to 0004
      freeagentics-db migrate --sql > pending.sql
    """
    if sql and as_json:
        raise typer.BadParameter("--sql and --json exclude each other.")
    settings = _settings()
    from freeagentics_persistence.cli.migrating import migrate_up, print_sql

    run(print_sql(settings, to) if sql else migrate_up(settings, to, as_json=as_json))


@app.command(short_help="Undo migrations, with their data.")
def rollback(
    to: Annotated[
        str, typer.Option("--to", metavar="REVISION", help="Go down to this revision; 'base' removes everything.")
    ] = "-1",
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Undo the last migration, or all down to a revision, with the data in the tables that go.

    Says which tables and how many rows go, and asks first.

    \b
    Examples:
      freeagentics-db rollback
      freeagentics-db rollback --to 0003 --yes
    """
    settings = _settings()
    from freeagentics_persistence.cli.migrating import describe_rollback, print_removal, roll_back

    removal = run(describe_rollback(settings, to))
    print_removal(removal)
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigurationError("rollback asks before it removes data, and there is no terminal. Pass --yes.")
        typer.confirm("Go on? What goes cannot be brought back", abort=True, err=True)
    run(roll_back(settings, removal))


@app.command(short_help="Print where the schema stands.")
def status(as_json: Json = False) -> None:
    """Print which migration the database is at, which this version needs, and what lies between.

    \b
    Examples:
      freeagentics-db status
      freeagentics-db status --json | jq -r '.pending[].revision'
    """
    settings = _settings()
    from freeagentics_persistence.cli.migrating import print_status

    run(print_status(settings, as_json=as_json))


app.command(short_help="List history's partitions, or keep them.")(partitions)


@app.command(short_help="Carry changes to cache, channels and metrics.")
def relay(
    every: Annotated[
        float, typer.Option("--every", metavar="SECONDS", min=0.1, help="Seconds between lines on how far it is.")
    ] = 30.0,
) -> None:
    """Carry every change to the cache, the update channels and the metrics, until SIGTERM or Ctrl-C.

    Any number of relays may run: one of them serves each sink, the others take over where it ends.

    \b
    Examples:
      freeagentics-db relay
      freeagentics-db relay --every 5
    """
    settings = _settings()
    from freeagentics_persistence.cli.relaying import run_relay

    run(run_relay(settings, every))


@app.command(short_help="Show updates of agents as they come.")
def watch(
    agents: Annotated[
        list[str] | None, typer.Argument(metavar="[AGENT_ID]...", help="Agents to watch; all where none is named.")
    ] = None,
    after: Annotated[
        str | None, typer.Option("--after", metavar="POSITION", help="First replay what came after this position.")
    ] = None,
    tenant: Annotated[
        str | None, typer.Option("--tenant", metavar="ID", help="Another than the default tenant.")
    ] = None,
    beliefs: Annotated[bool, typer.Option("--beliefs/--no-beliefs", help="Open the sealed beliefs.")] = True,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="End after so many updates.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a line of JSON for each update.")] = False,
) -> None:
    """Show updates of agents as they are committed, until Ctrl-C. Beliefs open only with the key.

    \b
    Examples:
      freeagentics-db watch
      freeagentics-db watch 018f2b6e-0000-7000-8000-000000000001 --limit 10
      freeagentics-db watch --no-beliefs --json | jq -r .agent_id
    """
    ids = [_uuid("AGENT_ID", text, "freeagentics-db watch without one shows all") for text in agents or []]
    owner = None if tenant is None else _uuid("--tenant", tenant, "Leave it out for the default tenant")
    settings = _settings()
    from freeagentics_persistence.cli.watching import watch_updates

    run(watch_updates(settings, ids, after=after, tenant_id=owner, beliefs=beliefs, limit=limit, as_json=as_json))


@app.command(short_help="Run a swarm, store it, check every store.")
def demo(
    agents: Annotated[int, typer.Option("--agents", metavar="N", min=1, help="How many agents.")] = 500,
    steps: Annotated[int, typer.Option("--steps", metavar="N", min=1, help="How many steps each takes.")] = 60,
    seed: Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Another seed is another run.")] = 7,
    relay: Annotated[
        str, typer.Option("--relay", metavar="auto|off", help="'off' leaves it to a `freeagentics-db relay`.")
    ] = "auto",
    as_json: Json = False,
) -> None:
    """Run a swarm that infers the demand in a city, store every step, and compare every store with it at the end.

    Exit code 1 where any store differs from what the agents believe.

    \b
    Examples:
      freeagentics-db demo
      freeagentics-db demo --agents 100 --steps 20 --seed 7
      freeagentics-db demo --relay off --json
    """
    mode: Literal["auto", "off"] = "off" if relay == "off" else "auto"
    if relay != mode:
        raise typer.BadParameter(f"{relay!r} is neither auto nor off.", param_hint="--relay")
    settings = _settings()
    from freeagentics_persistence.cli.demonstrating import demonstrate

    if not run(demonstrate(settings, agents=agents, steps=steps, seed=seed, relay=mode, as_json=as_json)):
        raise typer.Exit(1)


@app.command("generate-key", short_help="Print a new key.")
def generate_key(
    file: Annotated[
        Path | None, typer.Option("--file", metavar="PATH", help="Write it to a new file that only you can read.")
    ] = None,
) -> None:
    """Print a new key, under which the data keys are wrapped. Keep a copy: without it no belief can be read.

    \b
    Examples:
      freeagentics-db generate-key --file encryption.key
      export ENCRYPTION_KEY=$(freeagentics-db generate-key)
    """
    from freeagentics_persistence.cli.keys import print_key, write_key

    if file is None:
        print_key()
    else:
        write_key(file)


def _settings() -> Settings:
    """Before anything else is imported, as what is wrong with them is told at once."""
    from freeagentics_persistence.settings import Settings

    return Settings.load()


def _uuid(field: str, text: str, remedy: str) -> UUID:
    from uuid import UUID

    try:
        return UUID(text)
    except ValueError:
        raise InvalidInput(field, f"{text!r} is no UUID", f"{remedy}.") from None
