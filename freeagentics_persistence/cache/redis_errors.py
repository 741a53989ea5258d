"""Redis and operating-system errors as errors of our tree."""

from __future__ import annotations

import redis.exceptions as driver

from freeagentics_persistence.errors import AuthenticationFailed, CacheUnavailable, PersistenceError, TimedOut

CHECK = "Run `freeagentics-db check`."
LOST = (driver.ConnectionError, driver.TimeoutError, driver.InvalidResponse, OSError)


def translate(error: Exception, server: str, timeout: float) -> PersistenceError:
    """The error to raise in place of a driver's; ``server`` is named in it, so it must not hold a password."""
    while isinstance(error.__cause__, driver.RedisError):
        error = error.__cause__  # over unix sockets a refused login comes wrapped as a lost connection
    text = str(error)
    match error:
        case driver.AuthenticationError():
            return AuthenticationFailed(
                f"Redis at {server} refused the user name or password ({text}). Correct them in REDIS_URL."
            )
        case driver.NoPermissionError() | driver.AuthorizationError():
            return AuthenticationFailed(
                f"Redis at {server} does not allow this user what is needed ({text}). Allow it all commands on keys "
                "and channels that begin with `fa:`."
            )
        case driver.BusyLoadingError():
            return CacheUnavailable(f"Redis at {server} is still loading its data. Try again when it is done.")
        case TimeoutError() | driver.TimeoutError():
            return TimedOut(
                f"Redis at {server} did not answer within {timeout:g} s. {CHECK} If it is slow, raise REDIS_TIMEOUT."
            )
        case driver.ResponseError() if isinstance(error, driver.OutOfMemoryError) or "OOM" in text:
            return CacheUnavailable(
                f"Redis at {server} is out of memory. Raise its maxmemory, or lower REDIS_FEED_LENGTH."
            )
        case driver.ResponseError():
            return CacheUnavailable(f"Redis at {server} refused a command ({text}). {CHECK}")
        case _:
            return CacheUnavailable(f"Redis at {server} cannot be reached ({text}). {CHECK}")
