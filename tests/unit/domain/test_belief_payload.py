"""The belief payload: what goes in comes out, bit for bit, and nothing else is ever read."""

from __future__ import annotations

import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freeagentics_persistence.domain.beliefs.batch import BeliefBatch
from freeagentics_persistence.domain.beliefs.beliefs import Beliefs, Factor
from freeagentics_persistence.domain.beliefs.families import DTYPES, Family
from freeagentics_persistence.domain.beliefs.payload import MAX_PAYLOAD_BYTES, unpack_header, unpack_rows
from freeagentics_persistence.errors import EnvelopeRejected, InvalidInput
from tests.unit.domain.belief_strategies import beliefs, seeds, values_of

RAW, F8 = list(Family).index(Family.RAW), DTYPES.index("float64")


def header_of(
    *factors: tuple[bytes, int, int, tuple[int, ...]], version: int = 1, count: int | None = None, extra: bytes = b""
) -> bytes:
    """A header written by hand, from the description of the format alone."""
    body = struct.pack("<BH", version, len(factors) if count is None else count)
    for name, family, dtype, shape in factors:
        body += bytes([len(name)]) + name + bytes([family, dtype, len(shape)])
        body += b"".join(size.to_bytes(4, "little") for size in shape)
    return (len(body) + len(extra) + 2).to_bytes(2, "little") + body + extra


def read_every_way(payload: bytes) -> None:
    """Read a payload alone and in batches, down to its statistics."""
    alone = Beliefs.from_bytes(payload)
    assert alone.to_bytes() == payload
    _ = alone.entropy, alone.max_belief, alone.variance, repr(alone)
    for batch in (BeliefBatch.from_payloads([payload, payload]), BeliefBatch.from_payloads([payload, None])):
        assert batch[0] == alone
        batch.statistics()


@given(beliefs())
@settings(max_examples=150, deadline=None)
def test_what_goes_in_comes_out_bit_for_bit(stored: Beliefs) -> None:
    read = Beliefs.from_bytes(stored.to_bytes())
    assert read.layout == stored.layout
    for mine, theirs in zip(stored, read, strict=True):
        assert (theirs.values.dtype, theirs.values.shape) == (mine.values.dtype, mine.values.shape)
        assert theirs.values.tobytes() == mine.values.tobytes()
        assert theirs.values.dtype.isbuiltin  # numpy's own, also where it was read with an order of bytes
        assert theirs.values.flags.aligned
        assert not theirs.values.flags.writeable
    assert (type(read), {type(factor) for factor in read}) == (Beliefs, {Factor})
    assert read == stored


def test_the_bytes_are_those_of_the_format() -> None:
    q = np.array([[0.25, 0.75]], dtype=">f4")
    stored = Beliefs([Factor(q, "categorical", "é"), Factor(np.array([1, -2], "<i8"), "raw", "")])
    expected = header_of(("é".encode(), 0, 1, (1, 2)), (b"", RAW, 4, (2,)))
    assert stored.to_bytes() == expected + struct.pack("<2f", 0.25, 0.75) + struct.pack("<2q", 1, -2)


@given(st.sampled_from(DTYPES), seeds)
@settings(deadline=None)
def test_byte_order_and_strides_do_not_matter(dtype: str, seed: int) -> None:
    plain = values_of(Family.RAW, dtype, (4, 6), seed)
    swapped = plain.byteswap().view(plain.dtype.newbyteorder(">"))
    transposed = np.asfortranarray(plain)
    strided = np.repeat(plain, 2, axis=1)[:, ::2]
    expected = Beliefs(Factor(plain, "raw")).to_bytes()
    for other in (swapped, transposed, strided):
        assert Beliefs(Factor(other, "raw")).to_bytes() == expected
    batches = [BeliefBatch([array], families=["raw"], names=["r"]) for array in (plain, swapped, transposed, strided)]
    first = batches[0].payloads_of(np.arange(4))
    assert all(batch.payloads_of(np.arange(4)) == first for batch in batches)
    assert [Beliefs.from_bytes(bytes(row))["r"].tobytes() for row in first] == [row.tobytes() for row in plain]


def test_empty_and_scalar_raw_arrays() -> None:
    kept = Beliefs(
        [Factor(np.empty((0, 3), "f4"), "raw", "none"), Factor(np.float64(-0.0), "raw", "zero"), Factor([], "raw")]
    )
    read = Beliefs.from_bytes(kept.to_bytes())
    assert read["none"].shape == (0, 3)
    assert read["zero"].shape == ()
    assert np.signbit(read["zero"])
    assert read == kept


def test_pymdp_arrays_come_back_as_they_were() -> None:
    qs = [np.array([[[0.5, 0.5]]], "f4"), np.array([[[0.2, 0.3, 0.5]]], "f4")]
    legacy = np.empty(2, dtype=object)
    legacy[:] = [np.array([0.5, 0.5]), np.array([0.2, 0.3, 0.5])]
    key = np.array([7, 9], "u4")
    read = Beliefs.from_bytes(Beliefs.from_pymdp(qs, action=np.array([[1]], "i4"), key=key).to_bytes())
    assert [(q.dtype.name, q.shape) for q in read.to_pymdp()] == [("float32", (1, 1, 2)), ("float32", (1, 1, 3))]
    assert read["key"].tobytes() == key.tobytes()
    assert read["action"].dtype == np.int32
    again = Beliefs.from_bytes(Beliefs(legacy).to_bytes()).to_object_array()
    assert again.dtype == object
    assert again.shape == (2,)
    assert all(mine.tobytes() == theirs.tobytes() for mine, theirs in zip(legacy, again, strict=True))


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x05\x00\x01",
        b"\x04\x00\x01\x00\x00",  # a header shorter than its own fields
        b"\xff\xff\x01\x01\x00",  # a header longer than the payload
        header_of((b"", RAW, F8, (1,)), version=2) + bytes(8),
        header_of(),  # no factor
        header_of((b"", RAW, F8, (1,)), count=2) + bytes(8),
        header_of((b"", RAW, F8, (1,)), count=0) + bytes(8),
        header_of((b"", RAW, F8, (1,)), extra=b"\x00") + bytes(8),
        header_of((b"", len(Family), F8, (1,))) + bytes(8),
        header_of((b"", RAW, len(DTYPES), (1,))) + bytes(8),
        header_of((b"\xff", RAW, F8, (1,))) + bytes(8),
        header_of((b"a", RAW, F8, (0,)), (b"a", RAW, F8, (0,))),  # two of one name
        header_of((b"", RAW, F8, (1,) * 17)) + bytes(8),
        header_of((b"", RAW, F8, (1,) * 200)) + bytes(8),  # more axes than numpy has
        header_of((b"", 0, F8, ())) + bytes(8),  # a categorical scalar
        header_of((b"", 0, F8, (0,))),
        header_of((b"", 0, DTYPES.index("int64"), (1,))) + bytes(8),
        header_of((b"", 2, F8, (3,))) + bytes(24),  # a gaussian of three parameters
        header_of((b"", RAW, F8, (2,))) + bytes(15),
        header_of((b"", RAW, F8, (2,))) + bytes(17),
    ],
)
def test_malformed_payloads_are_rejected(payload: bytes) -> None:
    with pytest.raises(EnvelopeRejected, match="belief payload"):
        Beliefs.from_bytes(payload)
    with pytest.raises(EnvelopeRejected, match="belief payload"):
        BeliefBatch.from_payloads([payload, payload])


@pytest.mark.parametrize(
    "shape",
    [
        (2**31, 2**31, 4),  # 2**64 numbers, which is 0 in 64 bits
        (2**31, 2**31, 2**31),
        (0, 2**31, 2**31, 2**31),  # no numbers, in a shape that numpy cannot hold
        (2**32 - 1, 2**32 - 1),
        (2**28,),
    ],
)
def test_an_absurd_size_is_rejected_without_allocating_it(shape: tuple[int, ...]) -> None:
    payload = header_of((b"", RAW, F8, shape))
    tracemalloc.start()
    try:
        with pytest.raises(EnvelopeRejected):
            Beliefs.from_bytes(payload)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_random_bytes_are_read_or_rejected(payload: bytes) -> None:
    try:
        read_every_way(payload)
    except EnvelopeRejected:
        return


@given(beliefs(), st.data())
@settings(max_examples=250, deadline=None)
def test_damaged_payloads_are_read_or_rejected(stored: Beliefs, data: st.DataObject) -> None:
    payload = bytearray(stored.to_bytes())
    header = int.from_bytes(payload[:2], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, header - 1))] = data.draw(st.integers(0, 255))
    payload = payload[: data.draw(st.integers(0, len(payload)))] if data.draw(st.booleans()) else payload
    try:
        read_every_way(bytes(payload))
    except EnvelopeRejected:
        return


@given(beliefs())
@settings(max_examples=25, deadline=None)
def test_every_cut_and_every_extension_is_rejected(stored: Beliefs) -> None:
    payload = stored.to_bytes()
    for length in range(len(payload)):
        with pytest.raises(EnvelopeRejected):
            Beliefs.from_bytes(payload[:length])
    with pytest.raises(EnvelopeRejected):
        Beliefs.from_bytes(payload + b"\x00")


def test_one_damaged_row_rejects_the_batch() -> None:
    good = Beliefs.uniform(3).to_bytes()
    for bad in (good[:-1], good[:-8] + b"\x00" * 7, b"\xff" + good[1:]):
        for rows in ([good, bad], [bad, good], [good, None, bad]):
            with pytest.raises(EnvelopeRejected):
                BeliefBatch.from_payloads(rows)


def test_a_batch_has_arrays_of_its_own() -> None:
    payloads = [Beliefs([Factor([0.5, 0.5], name="odd"), Factor([1.0], name="q")]).to_bytes()]
    for count in (1, 3):
        rows = unpack_rows(payloads * count)
        assert rows is not None
        for array in rows[1]:
            assert array.flags.aligned
            assert array.flags.writeable
            assert array.dtype.isnative


def test_the_limit_of_sixteen_mebibytes() -> None:
    largest = Factor(np.zeros(MAX_PAYLOAD_BYTES, "u4")[: MAX_PAYLOAD_BYTES // 4], "raw")
    payload = Beliefs(largest).to_bytes()
    assert len(unpack_header(payload[: payload[0]])) == 1
    one_more = np.zeros(MAX_PAYLOAD_BYTES // 4 + 1, "u4")
    with pytest.raises(InvalidInput, match=r"16,777,220 bytes\. At most 16,777,216 are stored"):
        Beliefs(Factor(one_more, "raw"))
    with pytest.raises(InvalidInput, match="At most 16,777,216"):
        BeliefBatch([one_more[np.newaxis]], families=["raw"])
    halves = [Factor(one_more[: len(one_more) // 2 + 1], "raw", name) for name in "ab"]
    with pytest.raises(InvalidInput, match="At most 16,777,216"):
        Beliefs(halves)


@pytest.mark.parametrize("count", [4_097, 66_000])
def test_too_many_factors_are_refused(count: int) -> None:
    with pytest.raises(InvalidInput, match="factors"):
        BeliefBatch([np.ones((1, 1))] * count)


def test_headers_of_more_than_64_kib_are_refused() -> None:
    with pytest.raises(InvalidInput, match="exceed 64 KiB"):
        Beliefs([Factor([1.0], name=f"{i:0255}") for i in range(300)])
