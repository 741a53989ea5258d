"""The beliefs of many agents as arrays, so that a step of 10,000 agents never makes 10,000 objects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any
from uuid import UUID

import numpy as np
import numpy.typing as npt

from freeagentics_persistence.domain.beliefs.beliefs import Beliefs, BeliefsLike, require_name
from freeagentics_persistence.domain.beliefs.families import (
    Array,
    Family,
    as_family,
    bad_rows,
    check_layout,
    dtype_name,
)
from freeagentics_persistence.domain.beliefs.input import as_columns, beliefs_of_row, plain_rows
from freeagentics_persistence.domain.beliefs.payload import (
    FactorLayout,
    Layout,
    pack_rows,
    row_bytes,
    storable,
    unpack_rows,
)
from freeagentics_persistence.domain.beliefs.statistics import BeliefStatistics, statistics
from freeagentics_persistence.errors import InvalidInput

Rows = npt.NDArray[np.int64]
_NO_BELIEFS = "Every row of an update needs beliefs: leave that agent out."


class BeliefBatch:
    """Beliefs of N agents: one (N, ...) array per factor, or ragged rows.

    ``BeliefBatch(q)`` takes one (N, k) array, ``BeliefBatch([q0, q1])`` one array per factor (pymdp's ``qs`` of a
    batched agent), ``BeliefBatch.from_rows([...])`` anything, one entry per agent. Names and families are given
    per factor and default to categorical.

    Batches that were read also say whose rows they are: ``ids``, ``versions`` (N,), ``revisions``, and
    ``present`` (N,), which is False where an agent has no beliefs (or, as of a time, did not exist).

    Arrays are copied, so the caller's may be reused at once. Values that break a family's rules are reported per row
    by ``problems()``, so that one agent's NaN does not cost its neighbours their step; of columns, dtypes and shapes
    that cannot be stored are refused here with InvalidInput.

    >>> batch = BeliefBatch([np.full((3, 4), 0.25), np.array([[1.0, 0.0], [0.5, 0.5], [0.9, 0.9]])])
    >>> batch
    <BeliefBatch of 3: [3, 4], [3, 2]>
    >>> batch.problems()
    {2: InvalidInput("beliefs[2] factor 'factor_1': does not sum to 1. Normalise it over the last axis ...")}
    >>> batch[1]
    <Beliefs factor_0: categorical float64[4], factor_1: categorical float64[2]>
    >>> BeliefBatch.from_rows([[0.5, 0.5], None, [0.2, 0.3, 0.5]]).present
    array([ True, False,  True])
    """

    def __init__(
        self,
        factors: Array | Sequence[Array],
        *,
        families: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        columns = as_columns(factors)
        given = families if families is not None else [Family.CATEGORICAL] * len(columns)
        default_names = [f"factor_{i}" for i in range(len(columns))] if len(columns) > 1 else [""]
        labels = [require_name("names", name) for name in names] if names is not None else default_names
        if not len(columns) == len(given) == len(labels):
            raise InvalidInput("families, names", "do not match the factors", "Pass one of each per factor.")
        if len(set(labels)) != len(labels):
            raise InvalidInput("names", "repeat", "Give each factor its own name.")
        if len({len(column) for column in columns}) != 1:
            raise InvalidInput("factors", "have different numbers of rows", "Every factor has one row per agent.")
        layout = []
        for column, family_name, name in zip(columns, given, labels, strict=True):
            family = as_family("families", family_name)
            check_layout(f"beliefs factor {name!r}", family, column.dtype, column.shape[1:])
            layout.append(FactorLayout(name, family, dtype_name(column.dtype), column.shape[1:]))
        self._layout: Layout | None = storable(tuple(layout))
        self._values: list[Array] = columns
        self._rows: list[Beliefs | None] | None = None
        self._describe(len(columns[0]), checked=False)

    def _describe(self, count: int, *, checked: bool = True) -> None:
        self._checked = checked
        self._refused: dict[int, InvalidInput] = {}
        self.ids: tuple[UUID, ...] | None = None
        self.versions: npt.NDArray[np.int64] | None = None
        self._revisions: Sequence[bytes] | None = None
        self._named: tuple[UUID | None, ...] | None = None
        self.present: npt.NDArray[np.bool_] = np.ones(count, dtype=bool)

    @classmethod
    def from_rows(cls, rows: Sequence[BeliefsLike | None]) -> BeliefBatch:
        """One entry per agent, ragged allowed; None where an agent has no beliefs.

        An entry that cannot be stored is not present, and is reported by ``problems()``.
        """
        plain = plain_rows(rows)
        if plain is not None:
            return cls._from_columns(*plain, checked=False)
        refused: dict[int, InvalidInput] = {}
        beliefs = [beliefs_of_row(i, row, refused) for i, row in enumerate(rows)]
        layout = beliefs[0].layout if beliefs and beliefs[0] is not None else None
        if layout is not None and all(row is not None and row.layout == layout for row in beliefs):
            return cls._from_columns(layout, _stacked(beliefs))
        batch = cls.__new__(cls)
        batch._layout, batch._values, batch._rows = None, [], beliefs
        batch._describe(len(beliefs))
        batch._refused = refused
        batch.present = np.array([row is not None for row in beliefs], dtype=bool)
        return batch

    @classmethod
    def _from_columns(cls, layout: Layout, values: list[Array], *, checked: bool = True) -> BeliefBatch:
        batch = cls.__new__(cls)
        batch._layout, batch._values, batch._rows = layout, values, None
        batch._describe(len(values[0]), checked=checked)
        return batch

    @classmethod
    def from_payloads(cls, payloads: Sequence[bytes | None]) -> BeliefBatch:
        """The batch of belief payloads that were stored; None where an agent has no beliefs."""
        if payloads and None not in payloads:
            rows = unpack_rows(payloads)  # type: ignore[arg-type]
            if rows is not None:
                return cls._from_columns(*rows)
        return cls.from_rows([None if payload is None else Beliefs.from_bytes(payload) for payload in payloads])

    @classmethod
    def joined(cls, parts: Sequence[BeliefBatch]) -> BeliefBatch:
        """The rows of batches that were read, one batch after the other."""
        if len(parts) == 1:
            return parts[0]
        layout = parts[0]._layout
        if layout is not None and all(part._layout == layout for part in parts):
            columns = zip(*(part._values for part in parts), strict=True)
            batch = cls._from_columns(layout, [np.concatenate(values) for values in columns])
        else:
            batch = cls.from_rows([beliefs for part in parts for beliefs in part])
        batch.ids = tuple(chain.from_iterable(part.ids or () for part in parts))
        batch.versions = np.concatenate([part.versions for part in parts if part.versions is not None])
        batch._revisions = list(chain.from_iterable(part._revisions or () for part in parts))
        return batch

    def came_from(self, ids: Sequence[UUID], versions: Sequence[int], revisions: Sequence[bytes]) -> None:
        """Say whose rows these are: versions are 0, and revisions empty instead of 16 bytes, where there is none."""
        self.ids, self.versions = tuple(ids), np.array(versions, dtype=np.int64)
        self._revisions = revisions

    @property
    def revisions(self) -> tuple[UUID | None, ...] | None:
        """The revision of each row that was read; UUIDs are made when they are asked for, as few readers do."""
        if self._named is None and self._revisions is not None:
            self._named = tuple(UUID(bytes=revision) if revision else None for revision in self._revisions)
        return self._named

    @property
    def is_dense(self) -> bool:
        """Whether every agent has the same factors, so that ``factors`` can be had."""
        return self._rows is None

    @property
    def factors(self) -> list[Array]:
        """One (N, ...) array per factor. Raises InvalidInput for a ragged batch: use ``batch[i]`` there."""
        if self._rows is not None:
            raise InvalidInput("factors", "differ between agents", "Use batch[i], or batch.present for missing rows.")
        return self._values

    @property
    def layout(self) -> Layout:
        """Name, family, dtype and shape of each factor of a dense batch."""
        _ = self.factors
        assert self._layout is not None  # noqa: S101 - a dense batch has one
        return self._layout

    def to_pymdp(self) -> list[Array]:
        """pymdp's ``qs``: the categorical factors as a list of (N, ...) arrays."""
        pairs = zip(self.layout, self.factors, strict=True)
        return [values for spec, values in pairs if spec.family is Family.CATEGORICAL]

    @property
    def refused(self) -> dict[int, InvalidInput]:
        """Row number -> why it was given but is not present: from_rows() could not make it out."""
        return self._refused

    def problems(self, rows: Rows | None = None) -> dict[int, InvalidInput]:
        """Row number -> why that row cannot be stored; of these rows, or of all."""
        chosen = self._chosen(rows)
        found: dict[int, InvalidInput] = {}
        if self._rows is not None:  # rows are Beliefs, which were checked when they were made
            for row in chosen[~self.present[chosen]].tolist():
                missing = InvalidInput(f"beliefs[{row}]", "is None", _NO_BELIEFS)
                found[row] = self._refused.get(row, missing)
        elif not self._checked:
            for spec, values in zip(self.layout, self._values, strict=True):
                for mask, problem, remedy in bad_rows(spec.family, _taken(values, chosen)):
                    for row in chosen[mask].tolist():
                        field = f"beliefs[{row}]" + (f" factor {spec.name!r}" if spec.name else "")
                        found.setdefault(row, InvalidInput(field, problem, remedy))
        return found

    def statistics(self, rows: Rows | None = None) -> BeliefStatistics:
        """Entropy, maximum and variance of these rows, or of all, each of shape (N,).

        NaN where undefined or not present.
        """
        chosen = self._chosen(rows)
        if self._rows is None:
            return statistics(
                [spec.family for spec in self.layout], [_taken(values, chosen) for values in self._values]
            )
        table = np.full((3, len(chosen)), np.nan)
        for places, layout, values in self.groups(chosen):
            found = statistics([spec.family for spec in layout], values)
            table[:, places] = found.entropy, found.max_belief, found.variance
        return BeliefStatistics(*table)

    def payloads_of(self, rows: Rows) -> list[memoryview]:
        """The belief payloads of these rows, which must be present."""
        found: list[memoryview] = [memoryview(b"")] * len(rows)
        for places, layout, values in self.groups(rows):
            for place, payload in zip(places.tolist(), pack_rows(layout, values), strict=True):
                found[place] = payload
        return found

    @property
    def nbytes(self) -> npt.NDArray[np.int64]:
        """Bytes of each row's numbers, shape (N,)."""
        if self._rows is None:
            return np.full(len(self), row_bytes(self.layout), dtype=np.int64)
        return np.array([row_bytes(row.layout) if row else 0 for row in self._rows], dtype=np.int64)

    def _chosen(self, rows: Rows | None) -> Rows:
        return np.arange(len(self), dtype=np.int64) if rows is None else rows

    def groups(self, rows: Rows) -> Iterator[tuple[Rows, Layout, list[Array]]]:
        """Rows with the same factors: their places in ``rows``, the layout, and one array per factor."""
        if self._rows is None:
            yield np.arange(len(rows), dtype=np.int64), self.layout, [_taken(values, rows) for values in self._values]
            return
        alike: dict[Layout, list[int]] = {}
        for place, row in enumerate(rows.tolist()):
            beliefs = self._rows[row]
            if beliefs is not None:
                alike.setdefault(beliefs.layout, []).append(place)
        for layout, found in alike.items():
            places = np.array(found, dtype=np.int64)
            yield places, layout, _stacked([self._rows[row] for row in rows[places].tolist()])

    def __getitem__(self, row: int) -> Beliefs:
        """The beliefs of one row. Raises KeyError where it has none."""
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        if self._rows is None:
            return Beliefs.from_stored(self.layout, [values[row] for values in self._values])
        beliefs = self._rows[row]
        if beliefs is None:
            raise KeyError(f"row {row} has no beliefs (see batch.present)")
        return beliefs

    def get(self, row: int) -> Beliefs | None:
        """The beliefs of one row, None where it has none."""
        return self[row] if self.present[row] else None

    def __iter__(self) -> Iterator[Beliefs | None]:
        return (self.get(row) for row in range(len(self)))

    def __len__(self) -> int:
        return len(self._values[0]) if self._rows is None else len(self._rows)

    def __repr__(self) -> str:
        """Shapes only: a belief never reaches a log by its repr."""
        shape = "ragged" if self._rows is not None else ", ".join(str(list(v.shape)) for v in self._values)
        return f"<BeliefBatch of {len(self)}: {shape}>"


def as_batch(values: BeliefBatch | Any) -> BeliefBatch:
    """A BeliefBatch, or what can be made into one: an (N, k) array, or a list of (N, ...) arrays."""
    return values if isinstance(values, BeliefBatch) else BeliefBatch(values)


def _stacked(rows: Sequence[Beliefs | None]) -> list[Array]:
    """One (N, ...) array per factor of rows that have the same."""
    each = [[factor.values for factor in row.factors] for row in rows if row is not None]
    return [np.stack(values) for values in zip(*each, strict=True)]


def _taken(values: Array, rows: Rows) -> Array:
    """These rows: a view where they follow one another."""
    if len(rows) == 1 or (len(rows) and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all()):
        return values[rows[0] : rows[-1] + 1]
    return values[rows]
