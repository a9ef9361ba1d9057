"""H3: replace a number in the prompt by a total that has to be worked out."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from envsynth.author.procedural.ir import Atom, Attr, Const, Let, Ref, Sum, Task, Type, fresh_var, swap, walk
from envsynth.author.procedural.operators.edit import Edit
from envsynth.author.procedural.oracle import OracleResult
from envsynth.author.procedural.oracle.outcome import Cell
from envsynth.author.procedural.sampling import COMPARE, Sampler
from envsynth.author.procedural.sites import filtered_lets
from envsynth.errors import Rejected

MEMBERS = range(2, 13)
"""Rows that a total adds up: one row would be no aggregation, many make long answers of listings."""


@dataclass(frozen=True)
class _Site:
    """A number in a condition, and which other numbers would leave the condition's meaning on these rows."""

    const: Const
    fits: Callable[[int], bool]


def add_total(sampler: Sampler, task: Task, result: OracleResult) -> Edit:
    """H3: replace the threshold of a condition by the sum of an attribute over rows, of equal unit and equal effect.

    Args:
        sampler: Draws over the parent's world and overlay.
        task: The parent's program.
        result: The parent's oracle result.

    Returns:
        The proposal; the sum draws the line between the same rows as the number did.

    Raises:
        Rejected: no number with a unit, or no sum that draws the same line.
    """
    sites = _sites(sampler, task)
    if not sites:
        raise Rejected("no_site", "no condition compares with a number that has a unit")
    site = sampler.rng.choice(sites)
    sources = [
        (entity, name)
        for entity in sampler.world.tables
        for name in sampler.additive(entity)
        if (type_ := sampler.world.attr_type(entity, name)) is not None and type_.detail == site.const.unit
    ]
    sampler.rng.shuffle(sources)
    for entity, name in sources:
        attr = sampler.attr(entity, name)
        fitting = _fitting(sampler, entity, attr, site)
        if fitting:
            atom = sampler.rng.choice(fitting)
            var = fresh_var(task)
            child = swap(task, site.const, Ref(var))
            steps = (Let(var, Sum(entity, (atom,), attr)), *child.steps)
            return Edit(Task(steps, child.report), sampler.overlay, {"var": var, "entity": entity, "attribute": name})
    raise Rejected("no_total", f"no total draws the line of {site.const.value} {site.const.unit}")


def _fitting(sampler: Sampler, entity: str, attr: Attr, site: _Site) -> list[Atom]:
    """Conditions on one stored attribute whose rows have a total that draws the same line: all there are.

    Stored attributes alone, as each of them costs one look at the rows, and each derived one a query for each row.
    """
    numbers = sampler.oracle.values(entity, attr)
    found: list[Atom] = []
    if site.fits(sum(number for number in numbers.values() if isinstance(number, int))):
        return found  # the total of all rows would do as well, so no condition on them would bind
    for column in sampler.stored(entity):
        type_ = sampler.world.attr_type(entity, column) or Type("")
        cells = sampler.oracle.values(entity, Attr(column))
        line = _Line([(cell, numbers[key]) for key, cell in cells.items() if cell is not None])
        for value in sorted(dict.fromkeys(line.cells), key=str):
            for op in ("==",) if type_.kind in ("str", "row") else (">=", "<=", ">", "<"):
                total = line.total(op, value)
                if total is not None and site.fits(total):
                    atom = sampler.threshold(Attr(column), type_, op, value)
                    found += [] if atom is None else [atom]
    return found


class _Line:
    """Rows in the order of a column, so that the total of those on one side of a value is a difference of two totals.

    Args:
        rows: Cell of the column, and the number to total, of each row.
    """

    def __init__(self, rows: Sequence[tuple[Any, Cell]]) -> None:
        ordered = sorted(rows, key=lambda row: row[0])
        self.cells = [cell for cell, _ in ordered]
        counted = [number if isinstance(number, int) else None for _, number in ordered]
        self._totals = [0, *itertools.accumulate(number or 0 for number in counted)]
        self._missing = [0, *itertools.accumulate(int(number is None) for number in counted)]

    def total(self, op: str, value: Any) -> int | None:
        """The total over the rows whose cell compares so; None when too few, too many, or one has no number."""
        left, right = bisect.bisect_left(self.cells, value), bisect.bisect_right(self.cells, value)
        end = len(self.cells)
        start, stop = {"==": (left, right), ">=": (left, end), "<=": (0, right), ">": (right, end), "<": (0, left)}[op]
        if stop - start not in MEMBERS or self._missing[stop] > self._missing[start]:
            return None
        return self._totals[stop] - self._totals[start]


def _sites(sampler: Sampler, task: Task) -> list[_Site]:
    found: list[_Site] = []
    for _, node in filtered_lets(task):
        for atom in node.atoms:
            if isinstance(atom.value, Const) and atom.value.kind == "num" and atom.value.unit not in ("", "oclock"):
                if any(isinstance(inner, Ref) for inner in walk(atom.attr)):
                    continue
                found.append(_Site(atom.value, _same_line(sampler, node.entity, atom, atom.value)))
    return found


def _same_line(sampler: Sampler, entity: str, atom: Atom, const: Const) -> Callable[[int], bool]:
    values = sorted(set(_values(sampler, entity, atom.attr)))
    if atom.op == "==":
        return lambda total: total == const.value or not {total, const.value} & set(values)
    if atom.op not in COMPARE:
        return lambda total: False
    # Two numbers draw one line where as many values lie before the one as before the other.
    place = bisect.bisect_left if atom.op in (">=", "<") else bisect.bisect_right
    before = place(values, int(const.value))
    return lambda total: place(values, total) == before


def _values(sampler: Sampler, entity: str, attr: Attr) -> list[int]:
    return list(sampler.numbers(entity, [row["id"] for row in sampler.rows(entity)], attr).values())
