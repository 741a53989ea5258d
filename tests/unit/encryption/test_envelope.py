"""The envelope: exactly its layout, and closed to everything but its own place."""

from __future__ import annotations

import os
from itertools import combinations
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from freeagentics_persistence.domain.beliefs.beliefs import Beliefs
from freeagentics_persistence.encryption import envelope
from freeagentics_persistence.encryption.envelope import OVERHEAD_BYTES, Opener, Writer, derive_cipher
from freeagentics_persistence.errors import EnvelopeRejected, KeyUnavailable
from freeagentics_persistence.ports.sealing import Kind, require_opened

KEY_ID, DATA_KEY = uuid4(), os.urandom(32)
TENANT, AGENT, REVISION = uuid4(), uuid4(), uuid4()
VALUE = b"a belief, as bytes"


def cipher_of(key_id: UUID, salt: bytes) -> AESGCM:
    """The cipher of the one key there is."""
    if key_id != KEY_ID:
        raise KeyUnavailable(f"data key {key_id} is not in the keyring.")
    return derive_cipher(DATA_KEY, salt)


def seal(value: bytes = VALUE, writer: Writer | None = None) -> bytes:
    """One value in an envelope."""
    own = writer or Writer(KEY_ID, DATA_KEY)
    return own.seal(TENANT, Kind.BELIEFS, [AGENT], [REVISION], [value])[0]


def open_sealed(sealed: bytes, **moved: UUID | Kind) -> bytes:
    """What an envelope holds, opened at its own place, or at another."""
    place: dict[str, Any] = {
        "tenant_id": TENANT, "kind": Kind.BELIEFS, "subject": AGENT, "revision": REVISION, **moved
    }  # fmt: skip
    opener = Opener(cipher_of, place["tenant_id"], place["kind"])
    (value,) = opener.open_each([place["subject"]], [place["revision"].bytes], [sealed])
    return require_opened(value)


@given(st.binary(max_size=3000))
@settings(deadline=None)
def test_values_come_back_from_62_bytes_more(value: bytes) -> None:
    sealed = seal(value)
    assert len(sealed) == len(value) + 62 == len(value) + OVERHEAD_BYTES
    assert open_sealed(sealed) == value
    assert len(value) < 8 or value not in sealed


def test_the_layout_is_the_documented_one() -> None:
    """Opened by hand, from the description of the format alone."""
    sealed = seal()
    assert sealed[:2] == b"\x01\x01"
    assert sealed[2:18] == KEY_ID.bytes
    salt, nonce = sealed[18:34], sealed[34:46]
    info = b"freeagentics-persistence envelope v1"
    key = HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(DATA_KEY)
    parts = [TENANT.bytes, b"beliefs", AGENT.bytes, REVISION.bytes]
    data = sealed[:34] + b"".join(len(part).to_bytes(2, "big") + part for part in parts)
    assert AESGCM(key).decrypt(nonce, sealed[46:], data) == VALUE


MOVES: dict[str, UUID | Kind] = {
    "tenant_id": uuid4(),
    "kind": Kind.UPDATE_DATA,
    "subject": uuid4(),
    "revision": uuid4(),
}


@pytest.mark.parametrize("names", [names for n in (1, 2, 3, 4) for names in combinations(MOVES, n)])
def test_a_moved_envelope_stays_closed(names: tuple[str, ...]) -> None:
    with pytest.raises(EnvelopeRejected, match="belongs to another tenant, kind, agent or revision"):
        open_sealed(seal(), **{name: MOVES[name] for name in names})


@pytest.mark.parametrize(
    "moved",
    [
        {"tenant_id": AGENT, "subject": TENANT},
        {"subject": REVISION, "revision": AGENT},
        {"tenant_id": REVISION, "revision": TENANT},
    ],
)
def test_identifiers_that_change_places_keep_it_closed(moved: dict[str, UUID]) -> None:
    with pytest.raises(EnvelopeRejected):
        open_sealed(seal(), **moved)


def test_every_flipped_bit_is_noticed() -> None:
    sealed = seal()
    for place in range(len(sealed)):
        for bit in range(8):
            altered = bytearray(sealed)
            altered[place] ^= 1 << bit
            is_key_id = 2 <= place < 18
            with pytest.raises(KeyUnavailable if is_key_id else EnvelopeRejected):
                open_sealed(bytes(altered))


@pytest.mark.parametrize(("place", "named"), [(0, "format 2, algorithm 1"), (1, "format 1, algorithm 2")])
def test_a_newer_format_is_told_from_a_damaged_one(place: int, named: str) -> None:
    newer = bytearray(seal())
    newer[place] = 2
    with pytest.raises(EnvelopeRejected, match=rf"{named}.*written by a newer version"):
        open_sealed(bytes(newer))


def test_every_cut_and_extension_is_noticed() -> None:
    sealed = seal()
    others = [sealed[:length] for length in range(len(sealed))]
    others += [sealed[length:] for length in range(1, len(sealed))]
    others += [sealed + extra for extra in (b"\x00", b"\xff" * 16, sealed)]
    for other in others:
        with pytest.raises((EnvelopeRejected, KeyUnavailable)):
            open_sealed(other)


def test_every_splice_of_two_envelopes_is_noticed() -> None:
    writer = Writer(KEY_ID, DATA_KEY)
    for second in (seal(writer=writer), seal(b"another belief!!!!", writer), seal()):
        first = seal(writer=writer)
        for place in range(1, len(first)):
            spliced = first[:place] + second[place:]
            if spliced not in (first, second):  # their headers, of one writer, are the same
                with pytest.raises(EnvelopeRejected):
                    open_sealed(spliced)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_what_was_never_sealed_is_rejected(value: bytes) -> None:
    for other in (value, b"\x01\x01" + value, b"\x01\x01" + KEY_ID.bytes + value):
        with pytest.raises((EnvelopeRejected, KeyUnavailable)):
            open_sealed(other)


def test_plaintext_beliefs_are_no_envelope() -> None:
    for states in (1, 4, 256):
        with pytest.raises(EnvelopeRejected, match="never sealed"):
            open_sealed(Beliefs.uniform(states).to_bytes())
    with pytest.raises(EnvelopeRejected, match=r"format 123, algorithm 34.*never sealed.*newer version"):
        open_sealed(b'{"beliefs": [0.7, 0.1, 0.1, 0.1]}' + b" " * 62)
    with pytest.raises(EnvelopeRejected, match="0 bytes are too short"):
        open_sealed(b"")


def test_the_wrong_data_key_opens_nothing() -> None:
    sealed = Writer(KEY_ID, os.urandom(32)).seal(TENANT, Kind.BELIEFS, [AGENT], [REVISION], [VALUE])[0]
    with pytest.raises(EnvelopeRejected):
        open_sealed(sealed)


def test_an_error_shows_no_value_and_no_key() -> None:
    altered = bytearray(seal())
    altered[-1] ^= 1
    with pytest.raises(EnvelopeRejected) as caught:
        open_sealed(bytes(altered))
    error = caught.value
    assert str(AGENT) in str(error)
    assert str(REVISION) in str(error)
    assert error.__cause__ is None
    for secret in (VALUE.decode(), DATA_KEY.hex(), repr(DATA_KEY)):
        assert secret not in str(error)


def test_nonces_of_a_batch_are_unique_and_the_salt_is_the_writers() -> None:
    writer, count = Writer(KEY_ID, DATA_KEY), 5_000
    batches = [
        writer.seal(TENANT, Kind.BELIEFS, [AGENT] * count, [REVISION] * count, [VALUE] * count) for _ in range(2)
    ]
    sealed = [*batches[0], *batches[1]]
    assert len({one[34:46] for one in sealed}) == 2 * count
    assert len({one[18:34] for one in sealed}) == 1
    assert len({one[46:] for one in sealed}) == 2 * count
    assert Writer(KEY_ID, DATA_KEY).seal(TENANT, Kind.BELIEFS, [], [], []) == []


def test_two_writers_differ_in_salt() -> None:
    salts = {seal()[18:34] for _ in range(50)}
    assert len(salts) == 50


@pytest.mark.parametrize(("left", "changes"), [(3, False), (2, True), (0, True)])
def test_a_new_salt_is_taken_before_the_limit(monkeypatch: pytest.MonkeyPatch, left: int, changes: bool) -> None:
    assert envelope.SEALS_PER_SALT == 2**32
    monkeypatch.setattr(envelope, "SEALS_PER_SALT", 10)
    writer = Writer(KEY_ID, DATA_KEY)
    first = [seal(writer=writer) for _ in range(10 - left)]
    rest = writer.seal(TENANT, Kind.BELIEFS, [AGENT] * 3, [REVISION] * 3, [VALUE] * 3)
    assert len({one[18:34] for one in first}) == 1
    assert len({one[18:34] for one in rest}) == 1
    assert (rest[0][18:34] != first[0][18:34]) is changes
    assert [open_sealed(one) for one in (*first, *rest)] == [VALUE] * (13 - left)


def test_rows_that_do_not_match_are_never_sealed() -> None:
    writer = Writer(KEY_ID, DATA_KEY)
    with pytest.raises(ValueError, match="zip"):
        writer.seal(TENANT, Kind.BELIEFS, [AGENT], [REVISION, REVISION], [VALUE, VALUE])
