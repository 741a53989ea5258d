"""The keyring over a real PostgreSQL: states of keys, first keys, wrong keys, altered rows."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid4

import asyncpg
import pytest

from freeagentics_persistence.database.engine import Database
from freeagentics_persistence.database.repositories.tenants import TenantRepository
from freeagentics_persistence.domain.identifiers import new_revision
from freeagentics_persistence.encryption import keyring
from freeagentics_persistence.encryption.envelope import read_header
from freeagentics_persistence.encryption.key_providers import EnvironmentKeyProvider, generate_key
from freeagentics_persistence.encryption.keyring import KeyringSealer
from freeagentics_persistence.errors import EnvelopeRejected, KeyUnavailable, UnknownTenant
from freeagentics_persistence.ports.keys import KeyState
from freeagentics_persistence.ports.sealing import Kind

AGENT, REVISION, VALUE = uuid4(), new_revision(), b"a belief, as bytes"


@pytest.fixture
def kek() -> str:
    """The key that wraps the data keys."""
    return generate_key()


@pytest.fixture
def tenants(app_database: Database) -> TenantRepository:
    """The keyring's rows."""
    return TenantRepository(app_database)


@pytest.fixture
async def tenant(tenants: TenantRepository) -> UUID:
    """A tenant without keys."""
    return await tenants.create_tenant("acme")


def sealer_of(tenants: TenantRepository, *keks: str) -> KeyringSealer:
    """A sealer as a new process has it."""
    return KeyringSealer(EnvironmentKeyProvider(keks), tenants)


async def seal(sealer: KeyringSealer, tenant: UUID) -> bytes:
    """The value in an envelope of this tenant."""
    return (await sealer.seal_many(tenant, Kind.BELIEFS, [AGENT], [REVISION], [VALUE]))[0]


async def open_sealed(sealer: KeyringSealer, tenant: UUID, sealed: bytes) -> bytes | None:
    """What the envelope holds."""
    return (await sealer.open_many(tenant, Kind.BELIEFS, [AGENT], [REVISION], [sealed]))[0]


def age(sealer: KeyringSealer, tenant: UUID, seconds: float) -> None:
    """Let a sealer's keys have been read that much earlier."""
    sealer._tenants[tenant].loaded_at -= seconds


async def set_state(admin: asyncpg.Connection, key_id: UUID, state: str) -> None:
    """Change a key's state as an administrator does; a destroyed key loses what was wrapped."""
    wrapped = ", wrapped_key = NULL" if state == "destroyed" else ""
    await admin.execute(f"UPDATE keyring SET state = $2{wrapped} WHERE key_id = $1", key_id, state)


async def test_the_first_key_is_made_once_and_kept(tenants: TenantRepository, tenant: UUID, kek: str) -> None:
    sealed = await seal(sealer_of(tenants, kek), tenant)
    (row,) = await tenants.load_keys(tenant)
    assert row.state is KeyState.PRIMARY
    assert row.wrapped is not None
    assert len(row.wrapped) == 12 + 32 + 16
    assert read_header(sealed)[0] == row.key_id
    assert str(row.wrapped) not in repr(row)
    other = sealer_of(tenants, kek)
    assert await open_sealed(other, tenant, sealed) == VALUE
    assert read_header(await seal(other, tenant))[0] == row.key_id


async def test_two_writers_of_one_key_have_salts_of_their_own(
    tenants: TenantRepository, tenant: UUID, kek: str
) -> None:
    first, second = sealer_of(tenants, kek), sealer_of(tenants, kek)
    headers = [read_header(await seal(sealer, tenant)) for sealer in (first, second, first)]
    assert headers[0] == headers[2]
    assert headers[0][0] == headers[1][0]
    assert headers[0][1] != headers[1][1]


async def test_a_race_for_the_first_key_has_one_winner(tenants: TenantRepository, tenant: UUID, kek: str) -> None:
    sealers = [sealer_of(tenants, kek) for _ in range(8)]
    sealed = await asyncio.gather(*(seal(sealer, tenant) for sealer in sealers))
    assert len(await tenants.load_keys(tenant)) == 1
    assert len({read_header(one)[0] for one in sealed}) == 1
    for sealer in sealers:
        assert [await open_sealed(sealer, tenant, one) for one in sealed] == [VALUE] * 8


async def test_an_unknown_tenant_has_no_keys(tenants: TenantRepository, kek: str) -> None:
    sealer, stranger = sealer_of(tenants, kek), uuid4()
    for attempt in (sealer.ensure_tenant(stranger), seal(sealer, stranger), open_sealed(sealer, stranger, bytes(80))):
        with pytest.raises(UnknownTenant, match=str(stranger)):
            await attempt


async def test_tenants_do_not_open_each_others_envelopes(tenants: TenantRepository, tenant: UUID, kek: str) -> None:
    sealer, other = sealer_of(tenants, kek), await tenants.create_tenant("other")
    sealed = await seal(sealer, tenant)
    assert await open_sealed(sealer, tenant, sealed) == VALUE  # its cipher is in memory now
    with pytest.raises(KeyUnavailable, match="not in the keyring"):
        await open_sealed(sealer, other, sealed)


async def test_rows_and_kinds_are_bound(tenants: TenantRepository, tenant: UUID, kek: str) -> None:
    sealer = sealer_of(tenants, kek)
    agents, revisions = [uuid4() for _ in range(3)], [new_revision() for _ in range(3)]
    values = [b"0", b"1", b"2"]
    sealed = await sealer.seal_many(tenant, Kind.BELIEFS, agents, revisions, values)
    rows: list[bytes | None] = [sealed[0], None, sealed[2]]
    assert await sealer.open_many(tenant, Kind.BELIEFS, agents, revisions, rows) == [b"0", None, b"2"]
    with pytest.raises(EnvelopeRejected):
        await sealer.open_many(tenant, Kind.BELIEFS, agents, revisions, sealed[::-1])
    with pytest.raises(EnvelopeRejected):
        await sealer.open_many(tenant, Kind.UPDATE_DATA, agents, revisions, rows)
    for plain in (b"", VALUE, b'{"beliefs": [0.7, 0.1, 0.1, 0.1]}' + b" " * 62):
        with pytest.raises(EnvelopeRejected):
            await sealer.open_many(tenant, Kind.BELIEFS, agents[:1], revisions[:1], [plain])


@pytest.mark.parametrize(
    ("state", "opens"),
    [("pending", False), ("primary", True), ("decrypt", True), ("disabled", False), ("destroyed", False)],
)
async def test_states_of_a_key(
    tenants: TenantRepository, tenant: UUID, kek: str, admin: asyncpg.Connection, state: str, opens: bool
) -> None:
    sealed = await seal(sealer_of(tenants, kek), tenant)
    old = read_header(sealed)[0]
    await set_state(admin, old, "decrypt")
    second = keyring._wrap(tenant, await EnvironmentKeyProvider([kek]).current())
    await tenants.add_first_key(second)
    if state == "primary":
        await set_state(admin, second.key_id, "decrypt")
    await set_state(admin, old, state)
    sealer = sealer_of(tenants, kek)
    if opens:
        assert await open_sealed(sealer, tenant, sealed) == VALUE
    else:
        with pytest.raises(KeyUnavailable, match=f"{old}.* is {state}"):
            await open_sealed(sealer, tenant, sealed)
    expected = old if state == "primary" else second.key_id
    assert read_header(await seal(sealer, tenant))[0] == expected


@pytest.mark.parametrize("state", ["pending", "decrypt", "disabled", "destroyed"])
async def test_nothing_is_sealed_without_a_primary_key(
    tenants: TenantRepository, tenant: UUID, kek: str, admin: asyncpg.Connection, state: str
) -> None:
    key_id = read_header(await seal(sealer_of(tenants, kek), tenant))[0]
    await set_state(admin, key_id, state)
    with pytest.raises(KeyUnavailable, match="no primary data key"):
        await seal(sealer_of(tenants, kek), tenant)
    assert len(await tenants.load_keys(tenant)) == 1


async def test_a_state_takes_effect_in_a_running_process(
    tenants: TenantRepository, tenant: UUID, kek: str, admin: asyncpg.Connection
) -> None:
    sealer = sealer_of(tenants, kek)
    sealed = await seal(sealer, tenant)
    old = read_header(sealed)[0]
    assert await open_sealed(sealer, tenant, sealed) == VALUE
    await set_state(admin, old, "disabled")
    await tenants.add_first_key(keyring._wrap(tenant, await EnvironmentKeyProvider([kek]).current()))
    assert await open_sealed(sealer, tenant, sealed) == VALUE  # states are read again every minute
    age(sealer, tenant, 61)
    with pytest.raises(KeyUnavailable, match="is disabled"):
        await open_sealed(sealer, tenant, sealed)
    assert read_header(await seal(sealer, tenant))[0] != old


async def test_a_reload_keeps_the_writer_and_its_salt(tenants: TenantRepository, tenant: UUID, kek: str) -> None:
    sealer = sealer_of(tenants, kek)
    first = await seal(sealer, tenant)
    age(sealer, tenant, 61)
    loaded = sealer._tenants[tenant]
    assert (await seal(sealer, tenant))[:34] == first[:34]
    assert sealer._tenants[tenant] is not loaded


async def test_a_key_that_another_process_added_is_found_at_once(
    tenants: TenantRepository, tenant: UUID, kek: str, admin: asyncpg.Connection
) -> None:
    running = sealer_of(tenants, kek)
    await set_state(admin, read_header(await seal(running, tenant))[0], "decrypt")
    await tenants.add_first_key(keyring._wrap(tenant, await EnvironmentKeyProvider([kek]).current()))
    sealed = await seal(sealer_of(tenants, kek), tenant)
    with pytest.raises(KeyUnavailable, match="not in the keyring"):
        await open_sealed(running, tenant, sealed)  # asked for keys less than a second ago
    age(running, tenant, 1.1)
    assert await open_sealed(running, tenant, sealed) == VALUE


async def test_the_wrong_kek_is_named_beside_the_right_one(tenants: TenantRepository, tenant: UUID, kek: str) -> None:
    sealed = await seal(sealer_of(tenants, kek), tenant)
    wrong = generate_key()
    references = [(await EnvironmentKeyProvider([key]).current()).reference for key in (kek, wrong)]
    for attempt in (seal(sealer_of(tenants, wrong), tenant), open_sealed(sealer_of(tenants, wrong), tenant, sealed)):
        with pytest.raises(KeyUnavailable) as caught:
            await attempt
        assert all(reference in str(caught.value) for reference in references)
        assert kek not in str(caught.value)
        assert wrong not in str(caught.value)
    assert len(await tenants.load_keys(tenant)) == 1


async def test_an_old_kek_opens_and_the_new_one_wraps(tenants: TenantRepository, tenant: UUID, kek: str) -> None:
    sealed, new = await seal(sealer_of(tenants, kek), tenant), generate_key()
    sealer = sealer_of(tenants, new, kek)
    assert await open_sealed(sealer, tenant, sealed) == VALUE
    second = await tenants.create_tenant("second")
    await sealer.ensure_tenant(second)
    (row,) = await tenants.load_keys(second)
    assert row.kek_reference == (await EnvironmentKeyProvider([new]).current()).reference


@pytest.mark.parametrize(
    "change",
    [
        "wrapped_key = set_byte(wrapped_key, 0, get_byte(wrapped_key, 0) # 1)",
        "wrapped_key = set_byte(wrapped_key, 59, get_byte(wrapped_key, 59) # 1)",
        "wrapped_key = substring(wrapped_key for 59)",
        "wrapped_key = substring(wrapped_key for 20)",
        "wrapped_key = substring(wrapped_key for 5)",
        "wrapped_key = ''",
        "wrapped_key = wrapped_key || '\\x00'",
        "key_id = gen_random_uuid()",
    ],
)
async def test_an_altered_row_does_not_unwrap(
    tenants: TenantRepository, tenant: UUID, kek: str, admin: asyncpg.Connection, change: str
) -> None:
    await seal(sealer_of(tenants, kek), tenant)
    await admin.execute(f"UPDATE keyring SET {change}")
    with pytest.raises(KeyUnavailable, match=r"does not unwrap.*altered.*backup") as caught:
        await seal(sealer_of(tenants, kek), tenant)
    assert str(tenant) in str(caught.value)


async def test_a_row_of_another_tenant_does_not_unwrap(
    tenants: TenantRepository, tenant: UUID, kek: str, admin: asyncpg.Connection
) -> None:
    await seal(sealer_of(tenants, kek), tenant)
    thief = await tenants.create_tenant("thief")
    await admin.execute(
        "INSERT INTO keyring (tenant_id, key_id, state, wrapped_key, kek_reference) "
        "SELECT $1, key_id, state, wrapped_key, kek_reference FROM keyring WHERE tenant_id = $2",
        thief,
        tenant,
    )
    with pytest.raises(KeyUnavailable, match="does not unwrap"):
        await seal(sealer_of(tenants, kek), thief)


async def test_a_lost_keyring_opens_nothing(
    tenants: TenantRepository, tenant: UUID, kek: str, admin: asyncpg.Connection
) -> None:
    sealed = await seal(sealer_of(tenants, kek), tenant)
    await admin.execute("DELETE FROM keyring")
    with pytest.raises(KeyUnavailable, match=r"not in the keyring.*restore it from a backup"):
        await open_sealed(sealer_of(tenants, kek), tenant, sealed)


async def test_keys_of_the_tenants_used_last_are_held(
    tenants: TenantRepository, kek: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "MAX_TENANTS", 3)
    sealer, ids = sealer_of(tenants, kek), [await tenants.create_tenant(f"tenant {i}") for i in range(5)]
    sealed = [await seal(sealer, ids[0])]
    for tenant_id in ids[1:]:
        sealed.append(await seal(sealer, tenant_id))
        await sealer.ensure_tenant(ids[0])
    assert list(sealer._tenants) == [ids[3], ids[4], ids[0]]
    for tenant_id, envelope in zip(ids, sealed, strict=True):
        assert await open_sealed(sealer, tenant_id, envelope) == VALUE


async def test_readers_keep_a_bounded_number_of_ciphers(
    tenants: TenantRepository, tenant: UUID, kek: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "MAX_CIPHERS", 3)
    sealed = [await seal(sealer_of(tenants, kek), tenant) for _ in range(6)]
    reader = sealer_of(tenants, kek)
    for _ in range(2):
        assert [await open_sealed(reader, tenant, one) for one in sealed] == [VALUE] * 6
        assert len(reader._ciphers) == 3
