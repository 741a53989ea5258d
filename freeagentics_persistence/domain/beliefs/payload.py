"""The belief payload: the bytes that are sealed into an envelope. No JSON, no pickle.

    u16  length of the header, this field included
    u8   format version (1)
    u16  number of factors
    per factor: u8 length of its name, the name in UTF-8, u8 family, u8 dtype, u8 number of axes, u32 per axis
    then the numbers of each factor, little-endian, C order, one factor after the other

Agents with the same factors have the same header, so a whole batch is packed and unpacked as one byte matrix.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from freeagentics_persistence.domain.beliefs.families import DTYPES, Array, Family, check_layout
from freeagentics_persistence.errors import EnvelopeRejected, InvalidInput

FORMAT_VERSION = 1
MAX_FACTORS = 4096
MAX_PAYLOAD_BYTES = 16 * 1024 * 1024
_FAMILIES = tuple(Family)
# by their strings, which give numpy's own dtypes where the machine is little-endian
_LITTLE = {name: np.dtype(np.dtype(name).newbyteorder("<").str) for name in DTYPES}
_IS_LITTLE = sys.byteorder == "little"
_WRONG_LENGTH = "the belief payload is malformed: its length does not fit its header."


@dataclass(frozen=True, slots=True)
class FactorLayout:
    """One factor of one agent: its name, family, dtype name and shape."""

    name: str
    family: Family
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


Layout = tuple[FactorLayout, ...]


@lru_cache(maxsize=1024)
def pack_header(layout: Layout) -> bytes:
    """The header of a layout. Raises InvalidInput where it, or its numbers, are too large to store."""
    if not 1 <= len(layout) <= MAX_FACTORS:
        raise InvalidInput("beliefs", f"have {len(layout)} factors", f"Pass 1 to {MAX_FACTORS}.")
    size = row_bytes(layout)
    if size > MAX_PAYLOAD_BYTES:
        raise InvalidInput(
            "beliefs", f"have {size:,} bytes", f"At most {MAX_PAYLOAD_BYTES:,} are stored for one agent."
        )
    parts = [struct.pack("<BH", FORMAT_VERSION, len(layout))]
    for factor in layout:
        name = factor.name.encode()
        codes = (_FAMILIES.index(factor.family), DTYPES.index(factor.dtype), len(factor.shape))
        parts.append(struct.pack(f"<B{len(name)}s3B{len(factor.shape)}I", len(name), name, *codes, *factor.shape))
    body = b"".join(parts)
    if len(body) + 2 > 0xFFFF:
        raise InvalidInput("beliefs", f"have {len(layout)} factors", "Their names and shapes exceed 64 KiB: use fewer.")
    return struct.pack("<H", len(body) + 2) + body


@lru_cache(maxsize=1024)
def unpack_header(header: bytes) -> Layout:
    """The layout of a header. Raises EnvelopeRejected for what no belief can have."""
    layout: list[FactorLayout] = []
    try:
        version, count = struct.unpack_from("<BH", header, 2)
        if version != FORMAT_VERSION:
            raise EnvelopeRejected(f"the belief payload has format version {version}: update this package to read it.")
        offset = 5
        for _ in range(count):
            (length,) = struct.unpack_from("<B", header, offset)
            name, family, dtype, axes = struct.unpack_from(f"<{length}s3B", header, offset + 1)
            offset += 4 + length
            shape = struct.unpack_from(f"<{axes}I", header, offset)
            offset += 4 * axes
            layout.append(FactorLayout(name.decode(), _FAMILIES[family], DTYPES[dtype], shape))
        if offset != len(header):
            raise EnvelopeRejected("the belief payload is malformed: its header has trailing bytes.")
        for factor in layout:
            check_layout("payload", factor.family, np.dtype(factor.dtype), factor.shape)
    except (struct.error, IndexError, UnicodeDecodeError, InvalidInput) as error:
        raise EnvelopeRejected("the belief payload is malformed: no beliefs have such a header.") from error
    if not 1 <= len({factor.name for factor in layout}) == count:
        raise EnvelopeRejected("the belief payload is malformed: it has no factors, or two of one name.")
    return tuple(layout)


@lru_cache(maxsize=1024)
def storable(layout: Layout) -> Layout:
    """The same layout, as one object that all equal ones share. Raises InvalidInput where it cannot be stored."""
    pack_header(layout)
    return layout


def row_bytes(layout: Layout) -> int:
    """Bytes of one agent's numbers."""
    return sum(factor.nbytes for factor in layout)


def pack_rows(layout: Layout, values: Sequence[Array]) -> list[memoryview]:
    """Payloads of N agents with the same layout, as views of one block; ``values[f]`` has shape (N, ...)."""
    header = pack_header(layout)
    count = len(values[0])
    width = len(header) + row_bytes(layout)
    matrix = np.empty((count, width), dtype=np.uint8)
    matrix[:, : len(header)] = np.frombuffer(header, dtype=np.uint8)
    offset = len(header)
    for factor, array in zip(layout, values, strict=True):
        little = np.ascontiguousarray(array, dtype=np.dtype(factor.dtype).newbyteorder("<"))
        matrix[:, offset : offset + factor.nbytes] = little.reshape(-1).view(np.uint8).reshape(count, factor.nbytes)
        offset += factor.nbytes
    block = matrix.reshape(-1).data
    return [block[i : i + width] for i in range(0, len(block), width)]


def unpack_rows(payloads: Sequence[bytes]) -> tuple[Layout, list[Array]] | None:
    """Layout and arrays (N, ...) of payloads that share one header; None where they do not."""
    header = _header_of(payloads[0])
    layout = unpack_header(header)
    width, length = len(payloads[0]), len(header)
    if len(payloads) > 1 and ({len(p) for p in payloads} != {width} or {p[:length] for p in payloads} != {header}):
        return None
    if width != len(header) + row_bytes(layout):
        raise EnvelopeRejected(_WRONG_LENGTH)
    matrix = np.frombuffer(b"".join(payloads), dtype=np.uint8).reshape(len(payloads), width)
    arrays: list[Array] = []
    offset = len(header)
    for factor in layout:
        arrays.append(_column(matrix[:, offset : offset + factor.nbytes], factor))
        offset += factor.nbytes
    return layout, arrays


def unpack_row(payload: bytes) -> tuple[Layout, list[Array]]:
    """Layout and read-only arrays of one payload."""
    layout, slices, end = _places(_header_of(payload))
    if end != len(payload):
        raise EnvelopeRejected(_WRONG_LENGTH)
    try:
        # bytes of their own are aligned, wherever in the payload the numbers begin, and nobody can write to them
        arrays: list[Array] = [np.ndarray(shape, little, payload[part]) for shape, little, part in slices]
    except (TypeError, ValueError) as error:  # no array has such a shape
        raise EnvelopeRejected(_WRONG_LENGTH) from error
    return layout, arrays if _IS_LITTLE else list(map(_swapped, arrays))


@lru_cache(maxsize=1024)
def _places(header: bytes) -> tuple[Layout, list[tuple[tuple[int, ...], np.dtype[Any], slice]], int]:
    """The layout, shape, dtype and place in the payload of each factor, and where the last one ends."""
    layout, slices, offset = unpack_header(header), [], len(header)
    for factor in layout:
        end = offset + factor.nbytes
        slices.append((factor.shape, _LITTLE[factor.dtype], slice(offset, end)))
        offset = end
    return layout, slices, offset


def _swapped(little: Array) -> Array:
    values: Array = little.astype(little.dtype.newbyteorder("="))
    values.setflags(write=False)
    return values


def _header_of(payload: bytes) -> bytes:
    if len(payload) < 5:
        raise EnvelopeRejected("the belief payload is malformed: it is too short.")
    length = payload[0] | payload[1] << 8
    if not 5 <= length <= len(payload):
        raise EnvelopeRejected("the belief payload is malformed: its header does not fit.")
    return payload[:length]


def _column(cells: npt.NDArray[np.uint8], factor: FactorLayout) -> Array:
    little = _LITTLE[factor.dtype]
    shape = (len(cells), *factor.shape)
    # an aligned copy of its own, also where the cells of a single row are contiguous already
    values: Array = np.array(cells, order="C").reshape(-1).view(little)
    try:
        return values.reshape(shape).astype(factor.dtype, copy=False)
    except ValueError as error:
        raise EnvelopeRejected("the belief payload is malformed: no array has such a shape.") from error
