"""URLs of servers: which are taken, how they are shown, and that no part of a password ever is."""

from __future__ import annotations

import pytest

from freeagentics_persistence.cache.connection import RedisConnection
from freeagentics_persistence.database.bootstrap import database_name, in_database
from freeagentics_persistence.database.urls import checked_dsn, describe, login_of
from freeagentics_persistence.errors import ConfigurationError
from freeagentics_persistence.metrics.influx_store import InfluxMetricsStore

RAW_PASSWORDS = [
    "12/S3cret",
    "S3cr/et",
    "S3cr?et",
    "S3cr#et",
    "S3cr@et",
    "S3cr[et",
    "1#S3cret",
    "1?S3cret",
    "1/S3cret/1",
]


def everything(error: BaseException | None) -> str:
    """What an error and all that led to it may show."""
    parts = []
    while error is not None:
        parts.append(f"{error} {error!r}")
        error = error.__cause__ or error.__context__
    return "\n".join(parts)


def take(url: str) -> None:
    """Give a URL to what takes its kind."""
    if url.startswith("postgresql:"):
        describe(url)
    elif url.startswith("http:"):
        InfluxMetricsStore(url, "token", "org", "bucket")
    else:
        RedisConnection(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://u:pw@db.example.org:5433/fa", "db.example.org:5433/fa"),
        ("postgres://u:pw@db.example.org", "db.example.org:5432"),
        ("postgresql+asyncpg://u:p%2Fw%40%23@db_1/fa?sslmode=require", "db_1:5432/fa"),
        ("postgresql://u@[::1]:5433/fa", "[::1]:5433/fa"),
        ("postgresql://", "localhost:5432"),
        ("postgresql:///fa?host=/run/pg&port=5433&password=hidden", "/run/pg:5433/fa"),
        ("postgresql://u@%2Frun%2Fpg:5433/fa", "/run/pg:5433/fa"),
        ("postgresql://u@one:5433,two,[::1]:5434/fa", "one:5433,two:5432,[::1]:5434/fa"),
        ("postgresql:///fa?host=one,two&port=5433,5434", "one:5433,two:5434/fa"),
        ("postgresql:///fa?host=one,two&port=5433", "one:5433,two:5433/fa"),
        ("postgresql:///fa?host=one:5433,two", "one:5433,two:5432/fa"),
        ("postgresql://u@h/d%C3%A9p%C3%B4t", "h:5432/dépôt"),
        ("postgresql://u@h/a%0Ab", "h:5432"),
    ],
)
def test_what_a_database_url_shows(url: str, shown: str) -> None:
    assert describe(url) == f"PostgreSQL at {shown}"
    assert checked_dsn(url) == f"postgresql://{url.partition('://')[2]}"


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("mysql://root@localhost/swarm", "must start with postgresql://"),
        ("localhost/swarm", "must start with postgresql://"),
        ("postgresql://[::1/db", "no valid host"),
        ("postgresql://u@a..b/db", "no valid host"),
        ("postgresql://u@one,,two/db", "no valid host"),
        ("postgresql://u@:5432/db", "no valid host"),
        ("postgresql://u@h:port/db", "no valid port"),
        ("postgresql://u@h:0/db", "no valid port"),
        ("postgresql://u@h:65536/db", "no valid port"),
        ("postgresql://u@one:1,two:x/db", "no valid port"),
        ("postgresql:///db?port=abc", "no valid port"),
        ("postgresql:///db?host=h&port=99999", "no valid port"),
        ("postgresql:///db?host=one,two&port=1,2,3", "2 hosts and 3 ports"),
        ("postgresql://u@h/db?password=a&S3cret", "parameters that cannot be read"),
        ("postgresql://u@h/db#S3cret", "Percent-encode"),
        ("postgresql://u@h/db?password=S3@cret", "Percent-encode"),
    ],
)
def test_a_database_url_that_cannot_be_right(url: str, problem: str) -> None:
    for use in (checked_dsn, describe, login_of, database_name):
        with pytest.raises(ConfigurationError, match=problem) as caught:
            use(url)
        assert "cret" not in everything(caught.value)


def test_what_percent_encoding_hides_comes_back() -> None:
    url = "postgresql://an%40a:p%2Fw%23%5B@h/my%2Fdb"
    assert login_of(url) == ("an@a", "p/w#[")
    assert login_of("postgresql://h/db") == ("", None)
    assert database_name(url) == "my/db"
    assert database_name(in_database("postgresql://u@one:1,two:2/db?sslmode=require", "o/d")) == "o/d"
    assert describe(url) == "PostgreSQL at h:5432"


@pytest.mark.parametrize("password", RAW_PASSWORDS)
@pytest.mark.parametrize(
    "url", ["postgresql://u:{}@h:5432/db", "redis://u:{}@h:6379/0", "unix://:{}@/run/valkey.sock", "http://u:{}@h:8086"]
)
def test_a_password_that_is_not_encoded_is_never_shown(url: str, password: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        take(url.format(password))
    text = everything(caught.value)
    assert "S3cr" not in text
    assert "cret" not in text
    assert "Percent-encode the password" in text or "INFLUXDB_TOKEN" in text


@pytest.mark.parametrize(
    "url",
    [
        "redis://h?encoding=zz",
        "redis://h?credential_provider=x",
        "redis://h?socket_timeout=1",
        "redis://h?ssl_cert_reqs=none",
        "rediss://h?ssl_cert_reqs=sometimes",
        "redis://h/zero",
        "redis://a..b",
        "redis://[::1",
        "redis://h:70000",
        "redis://h?db=x",
    ],
)
def test_a_redis_url_that_cannot_be_right(url: str) -> None:
    with pytest.raises(ConfigurationError, match="REDIS_URL"):
        RedisConnection(url)


def test_a_redis_url_with_parameters() -> None:
    assert RedisConnection("rediss://u:p%2Fw@h:6380/2?ssl_ca_certs=/ca.pem").server == "h:6380 (database 2)"
    assert RedisConnection("unix://:pw@/run/a%40b.sock?db=3").server == "/run/a@b.sock (database 3)"
