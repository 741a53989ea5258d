"""Settings: read from the environment and ``.env`` when asked for, one group a prefix."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from freeagentics_persistence.errors import ConfigurationError


class Environment(StrEnum):
    """What kind of place this runs in."""

    EMBEDDED = "embedded"
    DEVELOPMENT = "development"
    TESTING = "testing"
    PRODUCTION = "production"


def _group(prefix: str) -> SettingsConfigDict:
    return SettingsConfigDict(
        env_prefix=prefix,
        env_file=".env",
        extra="ignore",
        frozen=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )


class DatabaseSettings(BaseSettings):
    """PostgreSQL. URLs are ``postgresql://user:password@host:port/database``."""

    model_config = _group("DATABASE_")

    url: SecretStr | None = Field(None, description="the application's login")
    migrator_url: SecretStr | None = Field(None, description="login that migrates; DATABASE_URL where unset")
    relay_url: SecretStr | None = Field(None, description="login of the relay; DATABASE_URL where unset")
    admin_url: SecretStr | None = Field(None, description="login that may make roles, for `init` alone")
    direct_url: SecretStr | None = Field(
        None, description="past the pooler, for locks and LISTEN; DATABASE_URL if unset"
    )
    pooler: Literal["none", "transaction"] = Field("none", description="`transaction` behind PgBouncer in that mode")
    pool_size: int = Field(10, ge=1, le=1000, description="connections of one process")
    pool_timeout: float = Field(10.0, gt=0, le=86_400, description="seconds to wait for a free connection")
    connect_timeout: float = Field(10.0, gt=0, le=86_400, description="seconds to wait for a new connection")
    statement_timeout: float = Field(60.0, ge=0.001, le=86_400, description="seconds a statement may take")
    auto_migrate: bool | None = Field(None, description="migrate on open; by default everywhere but in production")
    batch_rows: int = Field(1000, ge=1, le=20_000, description="rows sent in one statement")
    batch_connections: int = Field(3, ge=1, le=16, description="connections that one batch call may use at once")
    write_queue: int = Field(10_000, ge=1, description="single updates waiting for group commit; more are refused")
    read_queue: int = Field(10_000, ge=1, description="single reads waiting to share a statement; more are refused")
    revision_memory_hours: float = Field(24.0, gt=0, le=744, description="how long a retry is recognised")


class HistorySettings(BaseSettings):
    """The history of agents: its partitions, and what policies by divergence need."""

    model_config = _group("HISTORY_")

    partitions: Literal["month", "day"] = Field(
        "month", description="a partition of history holds a `month` or a `day`"
    )
    retention_days: int = Field(365, ge=2, le=36_500, description="partitions wholly older than this are dropped")
    memory_megabytes: int = Field(
        64, ge=1, le=65_536, description="remembered beliefs, for history policies by divergence"
    )


class RedisSettings(BaseSettings):
    """Redis 7 or Valkey, also ``unix://`` and ``rediss://`` URLs."""

    model_config = _group("REDIS_")

    url: SecretStr | None = Field(None, description="`redis://:password@host:port/0`")
    timeout: float = Field(2.0, gt=0, le=86_400, description="seconds to wait for an answer")
    pool_size: int = Field(32, ge=1, le=1000, description="connections of one process")
    belief_ttl: int = Field(300, ge=1, le=2_592_000, description="seconds a cached belief lives, plus up to 10 %")
    member_ttl: int = Field(600, ge=1, le=2_592_000, description="seconds a cached membership lives, plus up to 10 %")
    feed_length: int = Field(100_000, ge=100, description="updates of one tenant that can be replayed")
    feed_megabytes: int = Field(128, ge=1, description="about as much memory as these updates may take")
    feed_idle_hours: float = Field(24.0, gt=0, le=8760, description="how long they stay after a tenant's last update")


class InfluxSettings(BaseSettings):
    """InfluxDB 2; without a URL the metrics are queries over PostgreSQL."""

    model_config = _group("INFLUXDB_")

    url: str | None = Field(None, description="`http://host:8086`")
    token: SecretStr | None = Field(None, description="a token that may read and write the bucket")
    org: str = Field("freeagentics", description="the organisation")
    bucket: str = Field("freeagentics_metrics", description="the bucket")
    timeout: float = Field(10.0, gt=0, le=86_400, description="seconds to wait for an answer")
    belief_dimensions: bool = Field(False, description="also store every probability, readable, as belief_i")

    @model_validator(mode="after")
    def _needs_token(self) -> InfluxSettings:
        if self.url is not None and self.token is None:
            raise ValueError("INFLUXDB_URL is set and INFLUXDB_TOKEN is not: give a token")
        return self


class EncryptionSettings(BaseSettings):
    """Where the key that wraps the data keys comes from: its value, or a file of mode 0600."""

    model_config = _group("ENCRYPTION_")

    key: SecretStr | None = Field(None, description="base64 of 32 bytes; older keys after it, separated by commas")
    key_file: Path | None = Field(None, description="file of such keys, one a line; made on first use if embedded")


class RelaySettings(BaseSettings):
    """The relay, which carries events to the cache, the update channels and the metrics."""

    model_config = _group("RELAY_")

    batch_events: int = Field(2000, ge=1, le=20_000, description="events read at once")
    poll_interval: float = Field(0.25, gt=0, le=60, description="seconds between looks where no wake-up comes")
    max_backlog_hours: float = Field(
        24.0, gt=0, le=8784, description="events older than this are given up where a sink makes no headway"
    )
    max_waiting_events: int = Field(
        20_000, ge=0, description="events waiting for a sink from which on writers go at its pace; 0: they never wait"
    )
    write_timeout: float = Field(30.0, gt=0, le=86_400, description="seconds that a write waits so at most")


class Settings(BaseSettings):
    """All settings. ``Settings.load()`` reads the environment and ``.env``."""

    model_config = _group("FREEAGENTICS_")

    env: Environment = Field(Environment.EMBEDDED, description="embedded, development, testing or production")
    data_folder: Path | None = Field(None, description="where embedded servers keep their data")
    database: DatabaseSettings = Field(default_factory=lambda: DatabaseSettings())
    history: HistorySettings = Field(default_factory=lambda: HistorySettings())
    redis: RedisSettings = Field(default_factory=lambda: RedisSettings())
    influx: InfluxSettings = Field(default_factory=lambda: InfluxSettings())
    encryption: EncryptionSettings = Field(default_factory=lambda: EncryptionSettings())
    relay: RelaySettings = Field(default_factory=lambda: RelaySettings())

    @field_validator("database", "history", "redis", "influx", "encryption", "relay", mode="before")
    @classmethod
    def _from_mapping(cls, value: Any, info: Any) -> Any:
        group = GROUPS[info.field_name]
        if isinstance(value, group):
            return value
        if not isinstance(value, dict):
            raise ConfigurationError(f"{info.field_name} is a {type(value).__name__}. Pass a dict or {group.__name__}.")
        _refuse_unknown(value, group)
        return group(**value)

    @model_validator(mode="after")
    def _fits_environment(self) -> Settings:
        urls = {"DATABASE_URL": self.database.url, "REDIS_URL": self.redis.url}
        given = [name for name, url in urls.items() if url is not None]
        missing = [name for name, url in urls.items() if url is None]
        explicit = "env" in self.model_fields_set
        if given and missing:
            raise ValueError(
                f"{given[0]} is set and {missing[0]} is not: "
                "set both for servers of your own, or neither for embedded ones"
            )
        if not given and explicit and self.env is not Environment.EMBEDDED:
            raise ValueError(f"FREEAGENTICS_ENV is {self.env}, which needs DATABASE_URL and REDIS_URL: set them")
        if given and explicit and self.env is Environment.EMBEDDED:
            raise ValueError("FREEAGENTICS_ENV is embedded and DATABASE_URL is set: unset one of them")
        if given and not explicit:
            object.__setattr__(self, "env", Environment.DEVELOPMENT)
        hours = {
            "DATABASE_REVISION_MEMORY_HOURS": self.database.revision_memory_hours,
            "RELAY_MAX_BACKLOG_HOURS": self.relay.max_backlog_hours,
        }
        for name, value in hours.items():
            if self.history.retention_days * 24 < value + 24:
                raise ValueError(f"HISTORY_RETENTION_DAYS must be a day longer than {name}, which is {value:g}")
        if self.env is Environment.PRODUCTION:
            self._fits_production()
        return self

    def _fits_production(self) -> None:
        if self.encryption.key is None and self.encryption.key_file is None:
            raise ValueError(
                "ENCRYPTION_KEY or ENCRYPTION_KEY_FILE must be set in production: make one with "
                "freeagentics-db generate-key and keep a copy of it"
            )
        if self.database.auto_migrate:
            raise ValueError("DATABASE_AUTO_MIGRATE must be off in production: run freeagentics-db migrate instead")
        if self.database.pool_size < 20:
            if "pool_size" in self.database.model_fields_set:
                raise ValueError("DATABASE_POOL_SIZE must be 20 or more in production")
            object.__setattr__(self, "database", self.database.model_copy(update={"pool_size": 20}))

    @property
    def auto_migrate(self) -> bool:
        """Whether opening the store migrates the database."""
        return (
            self.env is not Environment.PRODUCTION if self.database.auto_migrate is None else self.database.auto_migrate
        )

    @classmethod
    def load(cls, **values: Any) -> Settings:
        """Settings from the environment and ``.env``; keyword arguments win, groups as dicts.

        ``Settings.load(database={"url": "postgresql://..."}, redis={"url": "redis://..."})``.
        Raises ConfigurationError that names the variable.
        """
        try:
            _refuse_unknown(values, cls)
            return cls(**values)
        except ValidationError as error:
            raise ConfigurationError(_explain(error)) from None
        except SettingsError as error:  # a group given as one variable that is not JSON
            names = [f"FREEAGENTICS_{name.upper()}" for name in GROUPS if f'"{name}"' in str(error)]
            raise ConfigurationError(f"{', '.join(names)}: not JSON. Unset it and use the variables of .env.") from None
        except UnicodeDecodeError:
            raise ConfigurationError(".env is not UTF-8 text. Save it as UTF-8.") from None
        except OSError as error:
            raise ConfigurationError(
                f".env cannot be read ({error.strerror}). Make it readable, or remove it."
            ) from None


GROUPS: dict[str, type[BaseSettings]] = {
    "database": DatabaseSettings,
    "history": HistorySettings,
    "redis": RedisSettings,
    "influx": InfluxSettings,
    "encryption": EncryptionSettings,
    "relay": RelaySettings,
}


def _refuse_unknown(values: dict[str, Any], kind: type[BaseSettings]) -> None:
    unknown = [str(name) for name in values if name not in kind.model_fields]
    if unknown:
        raise ConfigurationError(
            f"{', '.join(unknown)}: no such setting of {kind.__name__}. Use one of: {', '.join(kind.model_fields)}."
        )


def _explain(error: ValidationError) -> str:
    """What is wrong, by variable. Values are never part of it, as they may be secret."""
    kinds: list[type[BaseSettings]] = [*GROUPS.values(), Settings]
    prefixes = {kind.__name__: str(kind.model_config["env_prefix"]) for kind in kinds}
    lines = []
    for detail in error.errors(include_url=False, include_input=False, include_context=False):
        prefix, place = prefixes[error.title], [str(part) for part in detail["loc"]]
        message = detail["msg"].removeprefix("Value error, ")
        if place and place[0] in GROUPS:
            prefix, place = str(GROUPS[place[0]].model_config["env_prefix"]), place[1:]
        lines.append(f"{prefix}{'_'.join(place).upper()}: {message}" if place else message)
    return "; ".join(lines) + ". Set it in the environment or in .env."
