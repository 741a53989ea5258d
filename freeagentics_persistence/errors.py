"""Every error this package raises on purpose.

    PersistenceError
    ├── ConfigurationError            a setting is missing or wrong (names the variable)
    ├── InvalidInput (ValueError)     a value was refused at the boundary; nothing was written
    ├── NotFound (LookupError)
    │   ├── UnknownAgent
    │   ├── UnknownCoalition
    │   ├── UnknownMember             the agent is not in this coalition
    │   └── UnknownTenant
    ├── WriteRefused                  the write was understood and not applied
    │   ├── ConcurrentUpdate          another writer was first (expected and actual version)
    │   ├── AlreadyExists
    │   ├── RevisionExpired           the revision is too old to be recognised as a retry
    │   ├── InvalidTransition         a coalition's status allows no such move (present, wanted, allowed)
    │   └── CoalitionDissolved
    ├── OutcomeUnknown                the connection was lost while committing; the message says how to go on
    ├── EncryptionError
    │   ├── KeyUnavailable            a key is missing, disabled, destroyed or does not unwrap
    │   └── EnvelopeRejected          an envelope is cut, altered, foreign, or no envelope at all
    ├── Unavailable                   a server cannot do its work now
    │   ├── DatabaseUnavailable
    │   ├── CacheUnavailable
    │   ├── MetricsUnavailable
    │   ├── AuthenticationFailed
    │   ├── TimedOut
    │   └── Overloaded
    ├── NewEpoch                      the database was restored or failed over under an open store
    ├── SchemaMismatch                the database is not migrated, or by other code
    ├── MigrationFailed
    ├── UpdatesError
    │   ├── FeedGap                   updates after a position are no longer replayable
    │   └── SubscriberOverflow        the subscriber read too slowly for its buffer
    ├── EmbeddedServerError
    │   ├── DataFolderUnusable        not writable, not a folder, or not ours
    │   ├── IncompatibleDataFolder    made by another major version of the server
    │   └── ServerDidNotStart
    └── StoreClosed                   used before it was opened or after it was closed

Each message says what happened, to which object, and what to do next. The first line of a class's
docstring is its message where none is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uuid import UUID


class PersistenceError(Exception):
    """The persistence layer could not do what was asked."""

    def __init__(self, message: str | None = None) -> None:
        text = message or (type(self).__doc__ or "").strip().split("\n")[0]
        super().__init__(text)
        self.message = text

    def __reduce__(self) -> tuple[Any, ...]:
        # subclasses take arguments of their own, so an error that crosses processes is not made by calling its class
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[PersistenceError], args: tuple[Any, ...], state: dict[str, Any]) -> PersistenceError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class ConfigurationError(PersistenceError):
    """A setting is missing or wrong."""


class InvalidInput(PersistenceError, ValueError):
    """A value was refused; nothing was written.

    Attributes: ``field`` (which value), ``problem`` (what is wrong with it), ``remedy`` (what to do).
    """

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(f"{field}: {problem}. {remedy}")
        self.field = field
        self.problem = problem
        self.remedy = remedy


class NotFound(PersistenceError, LookupError):
    """No such object in this tenant."""


class UnknownAgent(NotFound):
    """No such agent in this tenant. Save it first with agents.save_agent()."""

    def __init__(self, agent_id: UUID) -> None:
        super().__init__(f"agent {agent_id} does not exist in this tenant. Save it first with agents.save_agent().")
        self.agent_id = agent_id


class UnknownCoalition(NotFound):
    """No such coalition in this tenant. Save it first with coalitions.save_coalition()."""

    def __init__(self, coalition_id: UUID) -> None:
        super().__init__(
            f"coalition {coalition_id} does not exist in this tenant. Save it first with coalitions.save_coalition()."
        )
        self.coalition_id = coalition_id


class UnknownMember(NotFound):
    """The agent is not a member of the coalition. Add it first with coalitions.add_members()."""

    def __init__(self, coalition_id: UUID, agent_id: UUID) -> None:
        super().__init__(
            f"agent {agent_id} is not a member of coalition {coalition_id}. Nothing was written: add it first with "
            "coalitions.add_members(), or leave it out."
        )
        self.coalition_id = coalition_id
        self.agent_id = agent_id


class UnknownTenant(NotFound):
    """No such tenant. Create it first with store.create_tenant()."""

    def __init__(self, tenant_id: UUID) -> None:
        super().__init__(f"tenant {tenant_id} does not exist. Create it first with store.create_tenant().")
        self.tenant_id = tenant_id


class WriteRefused(PersistenceError):
    """The write was not applied."""


class ConcurrentUpdate(WriteRefused):
    """Another writer was first.

    Attributes: ``expected`` and ``actual`` version; ``actual`` is None where the object does not exist.
    """

    def __init__(self, what: str, expected: int | None, actual: int | None) -> None:
        found = "it does not exist" if actual is None else f"it is at version {actual}"
        super().__init__(
            f"{what}: expected version {expected}, but {found}. Nothing was written: read it again and repeat "
            "the change on what you find."
        )
        self.expected = expected
        self.actual = actual


class AlreadyExists(WriteRefused):
    """An object with this id exists already."""


class RevisionExpired(WriteRefused):
    """The revision is too old to tell a retry from a new write. Make a new revision after reading the agent."""


class InvalidTransition(WriteRefused):
    """The coalition cannot come to the wanted status.

    Attributes: ``present`` (its status, or "new"), ``wanted``, and ``allowed``, what it may become from there.
    """

    def __init__(
        self, coalition_id: UUID, present: str, wanted: str, allowed: tuple[str, ...], remedy: str, why: str = ""
    ) -> None:
        super().__init__(
            f"coalition {coalition_id} is {present} and cannot become {wanted}{why}. From {present} it may become "
            f"{' or '.join(allowed)}. Nothing was written: {remedy}"
        )
        self.coalition_id = coalition_id
        self.present = present
        self.wanted = wanted
        self.allowed = allowed


class CoalitionDissolved(WriteRefused):
    """The coalition is dissolved, which is final: it takes no status, member or revenue any more."""


class OutcomeUnknown(PersistenceError):
    """The connection was lost while a write was being committed, so it may or may not have been applied.

    Attribute ``revisions``: repeat the call with these, and each write is applied once however often it comes. Empty
    for calls that take none; the message then says whether the call may be repeated, or what to read back first.
    """

    def __init__(self, message: str | None = None, revisions: tuple[UUID, ...] = ()) -> None:
        super().__init__(message)
        self.revisions = revisions


class EncryptionError(PersistenceError):
    """A value could not be sealed or opened."""


class KeyUnavailable(EncryptionError):
    """A key that is needed here is missing, disabled or destroyed."""


class EnvelopeRejected(EncryptionError):
    """A sealed value is not what it should be: altered, cut, moved from elsewhere, or not sealed at all."""


class Unavailable(PersistenceError):
    """A server cannot do its work now."""


class DatabaseUnavailable(Unavailable):
    """PostgreSQL cannot be reached. Nothing was written. Run `freeagentics-db check`."""


class CacheUnavailable(Unavailable):
    """Redis cannot be reached. Run `freeagentics-db check`.

    Attribute ``passed_over``: it was not even tried, as it failed several times in a row.
    """

    passed_over: bool = False


class MetricsUnavailable(Unavailable):
    """InfluxDB cannot be reached. Run `freeagentics-db check`."""


class AuthenticationFailed(Unavailable):
    """A server refused the user name, password or token."""


class TimedOut(Unavailable):
    """A server did not answer in time."""


class Overloaded(Unavailable):
    """More work is waiting than the stated bound allows. Slow down, or raise the bound."""


class NewEpoch(PersistenceError):
    """The database has begun a new epoch (restored, or failed over). Open the store again."""


class SchemaMismatch(PersistenceError):
    """The database is not migrated to what this version needs. Run `freeagentics-db migrate`."""


class MigrationFailed(PersistenceError):
    """A migration did not complete."""


class UpdatesError(PersistenceError):
    """The stream of updates could not be followed."""


class FeedGap(UpdatesError):
    """Updates were lost to this subscriber. Read the agents again, then subscribe with after=error.resume_after.

    Attribute ``resume_after``: the position from which updates are complete again.
    """

    def __init__(self, message: str | None = None, resume_after: str | None = None) -> None:
        super().__init__(message)
        self.resume_after = resume_after


class SubscriberOverflow(UpdatesError):
    """The subscriber's buffer is full: it reads slower than updates come.

    Attribute ``resume_after``: subscribe with it to go on without losing one.
    """

    def __init__(self, message: str | None = None, resume_after: str | None = None) -> None:
        super().__init__(message)
        self.resume_after = resume_after


class EmbeddedServerError(PersistenceError):
    """An embedded server could not be used."""


class DataFolderUnusable(EmbeddedServerError):
    """The data folder cannot be used."""


class IncompatibleDataFolder(EmbeddedServerError):
    """The data folder was made by another major version of the server."""


class ServerDidNotStart(EmbeddedServerError):
    """An embedded server did not start."""


class StoreClosed(PersistenceError):
    """The store is not open. Use it inside `async with Persistence.open() as store:`."""
