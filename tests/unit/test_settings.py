"""Settings: where they come from, what each environment demands, and errors that name the variable."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from freeagentics_persistence.errors import ConfigurationError
from freeagentics_persistence.settings import GROUPS, DatabaseSettings, Environment, Settings

SECRET = "hunter2secret"
DATABASE = f"postgresql://app:{SECRET}@db.example:5432/swarm"
REDIS = f"redis://:{SECRET}@cache.example:6379/0"
OWN_SERVERS: dict[str, Any] = {"database": {"url": DATABASE}, "redis": {"url": REDIS}}
PRODUCTION: dict[str, Any] = {**OWN_SERVERS, "env": "production", "encryption": {"key": SECRET}}
PREFIXES = ("DATABASE_", "HISTORY_", "REDIS_", "INFLUXDB_", "ENCRYPTION_", "RELAY_", "FREEAGENTICS_")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder and an environment without settings."""
    for name in os.environ:
        if name.startswith(PREFIXES):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(**values: Any) -> str:
    """The message of the ConfigurationError, which shows no secret, not even by its causes."""
    with pytest.raises(ConfigurationError) as caught:
        Settings.load(**values)
    error = caught.value
    assert SECRET not in str(error)
    assert error.__cause__ is None
    assert error.__suppress_context__ or error.__context__ is None
    return str(error)


def test_nothing_set_means_embedded_servers() -> None:
    settings = Settings.load()
    assert settings.env is Environment.EMBEDDED
    assert settings.auto_migrate
    assert settings.database.url is settings.redis.url is settings.influx.url is None
    assert (settings.influx.org, settings.influx.bucket) == ("freeagentics", "freeagentics_metrics")
    assert (settings.redis.belief_ttl, settings.redis.member_ttl) == (300, 600)


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    variables = {
        "DATABASE_URL": DATABASE,
        "DATABASE_POOL_SIZE": "33",
        "REDIS_URL": REDIS,
        "INFLUXDB_URL": "http://localhost:8086",
        "INFLUXDB_TOKEN": SECRET,
        "INFLUXDB_BELIEF_DIMENSIONS": "true",
        "ENCRYPTION_KEY_FILE": str(tmp_path / "keys"),
        "RELAY_POLL_INTERVAL": "0.5",
        "FREEAGENTICS_ENV": "testing",
        "FREEAGENTICS_DATA_FOLDER": str(tmp_path),
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = Settings.load()
    assert settings.env is Environment.TESTING
    assert settings.data_folder == tmp_path
    assert settings.database.url is not None
    assert settings.database.url.get_secret_value() == DATABASE
    assert settings.database.pool_size == 33
    assert settings.influx.belief_dimensions
    assert settings.encryption.key_file == tmp_path / "keys"
    assert settings.relay.poll_interval == 0.5


def test_dotenv_is_read_and_the_environment_wins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"DATABASE_URL={DATABASE}", f"REDIS_URL={REDIS}", "DATABASE_POOL_SIZE=11", "REDIS_TIMEOUT=7", "OTHER=1"]
    (folder / ".env").write_text("\n".join(lines))
    monkeypatch.setenv("DATABASE_POOL_SIZE", "12")
    settings = Settings.load()
    assert settings.env is Environment.DEVELOPMENT
    assert settings.database.pool_size == 12
    assert settings.redis.timeout == 7
    assert Settings.load(database={"pool_size": 13}).database.pool_size == 13
    url = Settings.load(database={"pool_size": 13}).database.url
    assert url is not None
    assert url.get_secret_value() == DATABASE


def test_empty_variables_are_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "INFLUXDB_URL", "FREEAGENTICS_ENV", "DATABASE_POOL_SIZE"):
        monkeypatch.setenv(name, "")
    assert Settings.load() == Settings.load(env="embedded")


def test_groups_as_dicts_or_objects() -> None:
    settings = Settings.load(**OWN_SERVERS, relay={"batch_events": 5})
    assert settings.env is Environment.DEVELOPMENT
    assert settings.relay.batch_events == 5
    database = DatabaseSettings(url=DATABASE)  # type: ignore[arg-type]
    assert Settings.load(database=database, redis={"url": REDIS}).database is database


def test_nothing_is_read_at_import_and_nothing_changes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings.load()
    monkeypatch.setenv("DATABASE_POOL_SIZE", "44")
    assert settings.database.pool_size == 10
    assert Settings.load().database.pool_size == 44
    with pytest.raises(ValidationError, match="frozen"):
        settings.env = Environment.PRODUCTION
    with pytest.raises(ValidationError, match="frozen"):
        settings.database.pool_size = 5


@pytest.mark.parametrize("through", ["environment", "dotenv", "keywords"])
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_POOL_SIZE", SECRET),
        ("DATABASE_POOL_SIZE", "0"),
        ("DATABASE_POOL_SIZE", "1001"),
        ("DATABASE_POOLER", SECRET),
        ("DATABASE_POOL_TIMEOUT", "0"),
        ("DATABASE_POOL_TIMEOUT", "nan"),
        ("DATABASE_CONNECT_TIMEOUT", "inf"),
        ("DATABASE_STATEMENT_TIMEOUT", "1e300"),
        ("DATABASE_STATEMENT_TIMEOUT", "0.0001"),
        ("DATABASE_AUTO_MIGRATE", SECRET),
        ("DATABASE_BATCH_ROWS", "20001"),
        ("DATABASE_BATCH_CONNECTIONS", "17"),
        ("DATABASE_WRITE_QUEUE", "1.5"),
        ("DATABASE_REVISION_MEMORY_HOURS", "-1"),
        ("REDIS_TIMEOUT", SECRET),
        ("REDIS_POOL_SIZE", "0"),
        ("REDIS_BELIEF_TTL", "0"),
        ("REDIS_BELIEF_TTL", "99999999999"),
        ("REDIS_MEMBER_TTL", "-5"),
        ("REDIS_FEED_LENGTH", "99"),
        ("INFLUXDB_TIMEOUT", "0"),
        ("INFLUXDB_BELIEF_DIMENSIONS", SECRET),
        ("RELAY_BATCH_EVENTS", "0"),
        ("RELAY_POLL_INTERVAL", "61"),
        ("RELAY_MAX_BACKLOG_HOURS", "inf"),
        ("FREEAGENTICS_ENV", SECRET),
        ("FREEAGENTICS_ENV", "Production"),
    ],
)
def test_a_bad_value_is_named_by_its_variable(
    variable: str, value: str, through: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values: dict[str, Any] = {}
    prefix, _, field = variable.partition("_")
    if through == "environment":
        monkeypatch.setenv(variable, value)
    elif through == "dotenv":
        (folder / ".env").write_text(f"{variable}={value}\n")
    elif prefix == "FREEAGENTICS":
        values = {field.lower(): value}
    else:
        values = {{"INFLUXDB": "influx"}.get(prefix, prefix.lower()): {field.lower(): value}}
    assert refused(**values).startswith(f"{variable}: ")


def test_several_bad_values_are_told_at_once() -> None:
    message = refused(env="foo", database={"pool_size": 0, "batch_rows": 0}, redis={"timeout": -1})
    for variable in ("FREEAGENTICS_ENV", "DATABASE_POOL_SIZE", "DATABASE_BATCH_ROWS", "REDIS_TIMEOUT"):
        assert f"{variable}: " in message


def test_secrets_of_the_wrong_type_are_not_shown() -> None:
    for value in ([DATABASE], 5, {"url": SECRET}, SECRET.encode() + b"\xff"):
        assert refused(database={"url": value}).startswith("DATABASE_URL: ")


def test_the_library_below_shows_no_input_either() -> None:
    with pytest.raises(ValidationError) as caught:
        DatabaseSettings(pool_size=SECRET)  # type: ignore[arg-type]
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value)


@pytest.mark.parametrize("name", [*GROUPS])
@pytest.mark.parametrize("value", [SECRET, None, [SECRET], 5])
def test_a_group_that_is_no_dict_is_refused(name: str, value: Any) -> None:
    assert refused(**{name: value}).startswith(f"{name} is a {type(value).__name__}.")


def test_unknown_names_are_refused() -> None:
    message = refused(databse={"url": DATABASE})
    assert message.startswith("databse: no such setting")
    assert "database" in message
    message = refused(database={"uri": DATABASE}, redis={"url": REDIS})
    assert message.startswith("uri: no such setting of DatabaseSettings")
    assert "url" in message


@pytest.mark.parametrize("value", [SECRET, f'{{"url": "{SECRET}', "[1]"])
def test_a_group_in_one_variable_must_be_json(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FREEAGENTICS_DATABASE", value)
    message = refused()
    assert "FREEAGENTICS_DATABASE" in message or message.startswith("database is a list")


def test_a_dotenv_that_is_no_text_is_refused(folder: Path) -> None:
    (folder / ".env").write_bytes(b"DATABASE_URL=caf\xe9" + SECRET.encode())
    assert refused() == ".env is not UTF-8 text. Save it as UTF-8."


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"database": {"url": DATABASE}}, ("DATABASE_URL is set and REDIS_URL is not",)),
        ({"redis": {"url": REDIS}}, ("REDIS_URL is set and DATABASE_URL is not",)),
        ({"env": "development"}, ("FREEAGENTICS_ENV is development", "DATABASE_URL and REDIS_URL")),
        ({"env": "testing"}, ("FREEAGENTICS_ENV is testing", "DATABASE_URL and REDIS_URL")),
        ({"history": {"partitions": "week"}}, ("HISTORY_PARTITIONS", "'month' or 'day'")),
        (
            {"history": {"retention_days": 10}, "relay": {"max_backlog_hours": 240}},
            ("HISTORY_RETENTION_DAYS must be a day longer than RELAY_MAX_BACKLOG_HOURS", "240"),
        ),
        (
            {"history": {"retention_days": 2}, "database": {"revision_memory_hours": 25}},
            ("HISTORY_RETENTION_DAYS must be a day longer than DATABASE_REVISION_MEMORY_HOURS", "25"),
        ),
        ({"env": "production"}, ("FREEAGENTICS_ENV is production", "DATABASE_URL and REDIS_URL")),
        ({**OWN_SERVERS, "env": "embedded"}, ("FREEAGENTICS_ENV is embedded", "DATABASE_URL")),
        ({"influx": {"url": "http://localhost:8086"}}, ("INFLUXDB_URL is set and INFLUXDB_TOKEN is not",)),
        ({**OWN_SERVERS, "env": "production"}, ("ENCRYPTION_KEY or ENCRYPTION_KEY_FILE",)),
        ({**PRODUCTION, "database": {"url": DATABASE, "auto_migrate": True}}, ("DATABASE_AUTO_MIGRATE",)),
        ({**PRODUCTION, "database": {"url": DATABASE, "pool_size": 19}}, ("DATABASE_POOL_SIZE",)),
    ],
)
def test_what_does_not_fit_together_is_named(values: dict[str, Any], named: tuple[str, ...]) -> None:
    message = refused(**values)
    assert all(name in message for name in named)


def test_production() -> None:
    settings = Settings.load(**PRODUCTION)
    assert settings.env is Environment.PRODUCTION
    assert settings.database.pool_size == 20
    assert not settings.auto_migrate
    assert Settings.load(**{**PRODUCTION, "encryption": {"key_file": "/keys"}}).encryption.key is None
    assert Settings.load(**{**PRODUCTION, "database": {"url": DATABASE, "pool_size": 50}}).database.pool_size == 50


def test_migration_on_open() -> None:
    assert Settings.load(**OWN_SERVERS).auto_migrate
    off = {**OWN_SERVERS, "database": {"url": DATABASE, "auto_migrate": False}}
    assert not Settings.load(**off).auto_migrate


def test_secrets_are_hidden() -> None:
    everything = dict.fromkeys(("url", "migrator_url", "relay_url", "admin_url", "direct_url"), DATABASE)
    settings = Settings.load(
        database=everything,
        redis={"url": REDIS},
        influx={"url": "http://localhost:8086", "token": SECRET},
        encryption={"key": SECRET},
    )
    groups = [settings.database, settings.redis, settings.influx, settings.encryption]
    for text in (repr(settings), str(settings), settings.model_dump_json(), *map(repr, groups), *map(str, groups)):
        assert SECRET not in text
