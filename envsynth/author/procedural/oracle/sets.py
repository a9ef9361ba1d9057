"""Exact search of sets: all ways to take k of some rows, in arrays."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from envsynth.author.procedural.ir import Choose, Con
from envsynth.author.procedural.oracle.outcome import Key

MAX_SETS = 20_000
"""Candidate sets of one `Choose` that are enumerated at most; more is a rejection, before any is built."""

Places = NDArray[np.int32]

COMPARE: Mapping[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
"""Comparators by their signs."""


class Wanted(NamedTuple):
    """A condition on a set."""

    con: Con
    """Its kind and sign."""
    values: Sequence[Any]
    """What it is about, of each row."""
    bound: Key | None
    """What a total is compared with."""


def relaxed(node: Choose) -> Choose:
    """The choice without its bound: as near to it as its other conditions allow."""
    (bound,) = node.bounds
    direction = "max" if bound.op in (">", ">=") else "min"
    cons = tuple(con for con in node.cons if con is not bound)
    return replace(node, cons=cons, goal=(direction, bound.attr), or_none=False)


def feasible_sets(
    keys: Sequence[Key], k: int, wanted: Sequence[Wanted], gains: Sequence[int] | None
) -> list[tuple[int, tuple[Key, ...]]]:
    """Find all sets that meet the conditions.

    Args:
        keys: Ids of the rows.
        k: Rows of a set.
        wanted: The conditions.
        gains: What each row adds to the goal; None without a goal.

    Returns:
        The sets in order of the rows, each with its total of the goal (0 without a goal).
    """
    sets = all_sets(len(keys), k)
    met = np.ones(len(sets), dtype=bool)
    for con, values, bound in wanted:
        met &= _met(con, values, bound, sets)
    sets = sets[met]
    totals = totals_of(gains, sets) if gains is not None else [0] * len(sets)
    chosen_places: list[list[int]] = sets.tolist()
    found = [tuple(keys[place] for place in places) for places in chosen_places]
    return [(int(total), chosen) for total, chosen in zip(totals, found, strict=True)]


@functools.lru_cache(maxsize=64)
def all_sets(count: int, k: int) -> Places:
    """All sets of k out of some rows by their places, in order, one per line; never written."""
    size = math.comb(count, k) * k
    return np.fromiter(itertools.chain.from_iterable(itertools.combinations(range(count), k)), np.int32, size).reshape(
        -1, k
    )


def totals_of(values: Sequence[int], sets: Places) -> Any:
    """Total of each set, exact: numbers that could overflow are added as integers of Python."""
    small = all(-(2**40) < value < 2**40 for value in values)
    return np.array(values, dtype=np.int64 if small else object)[sets].sum(axis=1)


def _met(con: Con, values: Sequence[Any], bound: Key | None, sets: Places) -> Any:
    """Whether each set meets a condition."""
    if con.kind == "distinct":
        codes = {value: code for code, value in enumerate(dict.fromkeys(values))}
        drawn = np.sort(np.array([codes[value] for value in values], dtype=np.int32)[sets], axis=1)
        return (drawn[:, 1:] != drawn[:, :-1]).all(axis=1)
    return np.asarray(COMPARE[con.op](totals_of(values, sets), bound), dtype=bool)
