"""What one agent believes: named factors, each a numpy array of a family."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from freeagentics_persistence.domain.beliefs.families import (
    Array,
    Family,
    as_array,
    as_family,
    bad_rows,
    check_layout,
    dtype_name,
)
from freeagentics_persistence.domain.beliefs.payload import (
    MAX_PAYLOAD_BYTES,
    FactorLayout,
    Layout,
    pack_rows,
    storable,
    unpack_row,
)
from freeagentics_persistence.domain.beliefs.statistics import divergence, statistics
from freeagentics_persistence.domain.validation import require_int, require_text, shown
from freeagentics_persistence.errors import InvalidInput

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """One factor: ``values`` keeps its dtype and shape, and is read-only.

    Raises InvalidInput where values are not what the family allows (see ``families``).
    """

    values: Array
    family: Family = Family.CATEGORICAL
    name: str = ""

    def __post_init__(self) -> None:
        label = "beliefs" if isinstance(self.name, str) and not self.name else f"beliefs factor {shown(self.name)}"
        require_name(f"{label} name", self.name)
        object.__setattr__(self, "family", as_family(f"{label} family", self.family))
        object.__setattr__(self, "values", as_array(label, self.values, self.family))
        check_layout(label, self.family, self.values.dtype, self.values.shape)
        for mask, problem, remedy in bad_rows(self.family, self.values[np.newaxis]):
            if mask.any():
                raise InvalidInput(label, problem, remedy)

    @property
    def layout(self) -> FactorLayout:
        """Name, family, dtype and shape."""
        return FactorLayout(self.name, self.family, dtype_name(self.values.dtype), self.values.shape)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Factor):
            return NotImplemented
        return self.layout == other.layout and self.values.tobytes() == other.values.tobytes()

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        # an unpickled array would be writable, so that what was checked could change
        return _copied_factor, (self.layout, self.values)

    def __repr__(self) -> str:
        """Name, family and shape only: a belief never reaches a log by its repr."""
        return f"<Factor {self}>"

    def __str__(self) -> str:
        return f"{self.name or '-'}: {self.family} {self.values.dtype.name}{list(self.values.shape)}"


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Beliefs:
    """One or more factors. Equality is bit for bit, type and shape included.

    ``Beliefs([.7, .1, .1, .1])`` is one categorical factor, ``Beliefs([qs_a, qs_b])`` of arrays several;
    other families are given as ``Factor(values, "dirichlet", "pA")``.

    >>> beliefs = Beliefs([Factor([0.5, 0.25, 0.25], name="place"), Factor([[2.0], [0.5]], "gaussian", "speed")])
    >>> beliefs
    <Beliefs place: categorical float64[3], speed: gaussian float64[2, 1]>
    >>> beliefs["place"]
    array([0.5 , 0.25, 0.25])
    >>> beliefs.max_belief, round(Beliefs.uniform(4).entropy, 4)
    (0.5, 1.3863)
    >>> round(Beliefs([1.0, 0.0]).divergence(Beliefs([0.5, 0.5])), 4)
    0.6931
    >>> Beliefs([0.7, 0.7])
    Traceback (most recent call last):
    freeagentics_persistence.errors.InvalidInput: beliefs: does not sum to 1. Normalise it over the last axis ...
    """

    factors: tuple[Factor, ...]
    layout: Layout
    """The layout of every factor."""

    def __init__(self, values: BeliefsLike) -> None:
        factors = tuple(_factors(values))
        names = [factor.name for factor in factors]
        if len(set(names)) != len(names):
            repeated = next(name for name in names if names.count(name) > 1)
            raise InvalidInput("beliefs", f"have two factors named {repeated!r}", "Give each its own name.")
        object.__setattr__(self, "factors", factors)
        object.__setattr__(self, "layout", storable(tuple(factor.layout for factor in factors)))

    @classmethod
    def uniform(cls, *sizes: int) -> Beliefs:
        """One uniform categorical factor for each size, float64."""
        counts = [require_int("sizes", size, low=1, high=MAX_PAYLOAD_BYTES // 8) for size in sizes]
        return cls([np.full(count, 1.0 / count) for count in counts])

    @classmethod
    def from_pymdp(cls, qs: Sequence[Any] | Array, **raw: Any) -> Beliefs:
        """pymdp's ``qs`` (a list of arrays, or an object array) as categorical factors ``factor_0``, ``factor_1`` ...

        Keyword arguments become raw factors of those names: the last action, the state of a random generator,
        learned parameters: whatever the run needs to go on.
        """
        if not isinstance(qs, list | tuple | np.ndarray) or getattr(qs, "ndim", 1) == 0:
            raise InvalidInput("qs", f"is a {type(qs).__name__}", "Pass a list of arrays, or an object array.")
        states = [Factor(q, Family.CATEGORICAL, f"factor_{i}") for i, q in enumerate(qs)]
        return cls([*states, *(Factor(value, Family.RAW, name) for name, value in raw.items())])

    def to_pymdp(self) -> list[Array]:
        """The categorical factors as pymdp's ``qs``: a list of arrays."""
        return [factor.values for factor in self.factors if factor.family is Family.CATEGORICAL]

    def to_object_array(self) -> npt.NDArray[np.object_]:
        """The categorical factors as legacy pymdp's ``qs``: an object array of arrays."""
        states = self.to_pymdp()
        out = np.empty(len(states), dtype=object)
        for i, state in enumerate(states):
            out[i] = state.copy()
        return out

    @property
    def nbytes(self) -> int:
        """Bytes of its numbers."""
        return sum(factor.values.nbytes for factor in self.factors)

    @property
    def entropy(self) -> float | None:
        """In nats, summed over factors; None where every factor is raw."""
        return _scalar(statistics(*self._columns()).entropy)

    @property
    def max_belief(self) -> float | None:
        """The largest probability of any categorical factor; None without one."""
        return _scalar(statistics(*self._columns()).max_belief)

    @property
    def variance(self) -> float | None:
        """Mean over factors (see ``statistics``); None where every factor is raw."""
        return _scalar(statistics(*self._columns()).variance)

    def divergence(self, other: Beliefs) -> float | None:
        """KL(self || other) in nats, summed over factors; infinite where ``other`` rules out what self allows.

        Raises InvalidInput where the two do not have the same factors.
        """
        if not isinstance(other, Beliefs):
            raise InvalidInput("other", f"is a {type(other).__name__}", "Pass Beliefs.")
        mine = [(factor.name, factor.family, factor.values.shape) for factor in self.factors]
        theirs = [(factor.name, factor.family, factor.values.shape) for factor in other.factors]
        if mine != theirs:
            raise InvalidInput("other", "has other factors", "Compare beliefs of the same names, families and shapes.")
        return _scalar(divergence(*self._columns(), other._columns()[1]))

    def to_bytes(self) -> bytes:
        """The belief payload (see ``payload``)."""
        return bytes(pack_rows(self.layout, self._columns()[1])[0])

    @classmethod
    def from_bytes(cls, payload: bytes) -> Beliefs:
        """The beliefs of a payload. Raises EnvelopeRejected where it is malformed."""
        layout, values = unpack_row(bytes(payload))
        return _stored_beliefs(layout, tuple(map(_stored_factor, layout, values)))

    @classmethod
    def from_stored(cls, layout: Layout, values: Sequence[Array]) -> Beliefs:
        """Beliefs that were validated when they were stored."""
        return _stored_beliefs(layout, tuple(map(_copied_factor, layout, values)))

    def _columns(self) -> tuple[list[Family], list[Array]]:
        return [f.family for f in self.factors], [f.values[np.newaxis] for f in self.factors]

    def __getitem__(self, name: str | int) -> Array:
        """The values of the factor of that name or number."""
        if isinstance(name, int):
            return self.factors[name].values
        for factor in self.factors:
            if factor.name == name:
                return factor.values
        raise KeyError(name)

    def __iter__(self) -> Iterator[Factor]:
        return iter(self.factors)

    def __len__(self) -> int:
        return len(self.factors)

    def __eq__(self, other: object) -> bool:
        return self.factors == other.factors if isinstance(other, Beliefs) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Names and shapes only: a belief never reaches a log by its repr."""
        return f"<Beliefs {', '.join(map(str, self))}>"


BeliefsLike = Beliefs | Factor | Array | Sequence[float] | Sequence["Factor | Array"]


def as_beliefs(values: BeliefsLike) -> Beliefs:
    """Beliefs, or what can be made into them."""
    return values if isinstance(values, Beliefs) else Beliefs(values)


def _factors(values: object) -> Iterator[Factor]:
    if isinstance(values, Beliefs):
        yield from values.factors
    elif isinstance(values, Factor):
        yield values
    elif _is_list_of_factors(values):
        several = len(values) > 1  # type: ignore[arg-type]
        for i, item in enumerate(values):  # type: ignore[arg-type, var-annotated]
            yield item if isinstance(item, Factor) else Factor(item, name=f"factor_{i}" if several else "")
    else:
        yield Factor(values)  # type: ignore[arg-type]


def _is_list_of_factors(values: object) -> bool:
    if isinstance(values, np.ndarray):
        return values.dtype == object
    if isinstance(values, list | tuple):
        return not values or any(isinstance(item, Factor | list | tuple) or np.ndim(item) > 0 for item in values)
    return False


class _OpenFactor:
    """A factor while it is filled in: a frozen one takes several times as long by object.__setattr__."""

    __slots__ = Factor.__slots__


class _OpenBeliefs:
    """Beliefs while they are filled in."""

    __slots__ = Beliefs.__slots__


def _stored_beliefs(layout: Layout, factors: tuple[Factor, ...]) -> Beliefs:
    beliefs: Any = _OpenBeliefs()
    beliefs.factors = factors
    beliefs.layout = layout
    beliefs.__class__ = Beliefs
    return beliefs


def _stored_factor(layout: FactorLayout, values: Array) -> Factor:
    """The factor of values that were validated when they were stored, and that nobody can change."""
    factor: Any = _OpenFactor()
    factor.values = values
    factor.family = layout.family
    factor.name = layout.name
    factor.__class__ = Factor
    return factor


def _copied_factor(layout: FactorLayout, values: Array) -> Factor:
    own = values.copy()
    own.setflags(write=False)
    return _stored_factor(layout, own)


def _scalar(values: Array) -> float | None:
    return None if np.isnan(values[0]) else float(values[0])


def require_name(field: str, name: str) -> str:
    """A factor's name: at most 255 bytes, possibly empty."""
    if not isinstance(name, str) or name:
        require_text(field, name, limit=255)
        if len(name.encode()) > 255:
            raise InvalidInput(field, "has more than 255 bytes", "Use a shorter name.")
    return name
