"""What a task comes to for a reader who does not know the rules of the policy.

A mechanism's planner texts say what an attribute is without its rule: with the flag `POLICY` off, as in the ablation
`ignores_policy`. They are run here over plain rows and give values; the outcome is the oracle's, who is asked the same task
with those values in place of the attribute's SQL. Only texts of composed worlds are run, which are this package's own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from envsynth.author.procedural.compose import Composition
from envsynth.author.procedural.ir import (
    Attr,
    Choose,
    Const,
    Count,
    ForEach,
    GroupBy,
    Named,
    Of,
    Only,
    Pick,
    Sum,
    Task,
)
from envsynth.author.procedural.mechanism import Row
from envsynth.author.procedural.oracle import Oracle, OracleResult, Reject
from envsynth.author.procedural.oracle.outcome import Cell, Key
from envsynth.author.procedural.oracle.relations import literal
from envsynth.author.procedural.sampling import Overlay, Sampler
from envsynth.author.procedural.sites import chosen_lets
from envsynth.author.procedural.trees import subst

_UNRULED: Mapping[str, bool] = {"POLICY": False, "GREEDY": False, "FIRST": False, "CHECKS": True}
"""Flags that planner texts of attributes look at: all skills but one."""
_DESCRIBING = (Pick, Only, Count, Sum, Choose, GroupBy, ForEach)
_OPEN = 6
_scopes: deque[tuple[Composition, Overlay, dict[str, Any], dict[Any, dict[Key, Cell]]]] = deque(maxlen=_OPEN)


class _Rows:
    """Rows of a world as planner texts ask for them, by id as listings have them; an index by column keeps that cheap."""

    def __init__(self, sampler: Sampler) -> None:
        self._rows: dict[str, list[Row]] = {
            entity: sorted(sampler.rows(entity), key=lambda row: row["id"]) for entity in sampler.world.tables
        }
        self._by: dict[tuple[str, str], dict[int | str, list[Row]]] = {}

    def rows(self, entity: str, equal: Mapping[str, int | str]) -> list[Row]:
        """Rows whose columns have these values."""
        if not equal:
            return list(self._rows[entity])
        (first, value), *others = equal.items()
        key = (entity, first)
        if key not in self._by:
            self._by[key] = {}
            for row in self._rows[entity]:
                self._by[key].setdefault(row[first], []).append(row)
        return [row for row in self._by[key].get(value, []) if all(row[name] == cell for name, cell in others)]

    def named(self, entity: str, by: str, value: int | str) -> Row:
        """The first row with this name or id."""
        return self.rows(entity, {by: value})[0]


def _scope(sampler: Sampler) -> tuple[dict[str, Any], dict[Any, dict[Key, Cell]]]:
    """The planner texts of a world over its rows, without rules, and what was asked of them before."""
    for world, overlay, space, known in _scopes:
        if world is sampler.world and overlay == sampler.overlay:
            return space, known
    rows = _Rows(sampler)
    space: dict[str, Any] = {**_UNRULED, "rows": rows.rows, "named": rows.named}
    for text in dict.fromkeys(item.plan for item in sampler.world.derived.values()):
        exec(compile(text, "<unruled>", "exec"), space)  # noqa: S102 - our own text: a composed world is never read from a store
    known: dict[Any, dict[Key, Cell]] = {}
    _scopes.appendleft((sampler.world, sampler.overlay, space, known))
    return space, known


def is_closed(attr: Attr) -> bool:
    """Whether its arguments are values and rows that the program names, so that no variable decides what it is."""
    return all(isinstance(arg, (Const, Named)) for arg in attr.args)


def unruled_values(sampler: Sampler, entity: str, attr: Attr) -> dict[Key, Cell]:
    """Give a derived attribute of all rows, as who does not know the rules works it out.

    Args:
        sampler: Over world and overlay.
        entity: Whose attribute.
        attr: The attribute, closed.

    Returns:
        Values by row id; a boolean as the integer that SQL has.
    """
    space, known = _scope(sampler)
    key = (entity, attr)
    if key not in known:
        args = [
            sampler.row(arg) if isinstance(arg, Named) else arg.value
            for arg in attr.args
            if isinstance(arg, (Const, Named))
        ]
        values = {row["id"]: space[f"d_{attr.name}"](row, *args) for row in sampler.rows(entity)}
        known[key] = {row_id: int(value) if isinstance(value, bool) else value for row_id, value in values.items()}
    return dict(known[key])


def unruled(sampler: Sampler, task: Task, attrs: Sequence[Attr] | None = None) -> OracleResult | None:
    """Work out a task for a reader who does not know what defines its attributes.

    Args:
        sampler: Over world and overlay of the task.
        task: A well-typed program.
        attrs: Attributes whose rule is ignored; all that are closed when None.

    Returns:
        The outcome, or None when there is no single one.
    """
    try:
        return _Reading(sampler, task, attrs).outcome()
    except Reject:
        return None


class _Reading:
    """One task with values in place of rules."""

    def __init__(self, sampler: Sampler, task: Task, attrs: Sequence[Attr] | None) -> None:
        self._sampler, self._task, self._attrs = sampler, task, attrs
        self._types = sampler.oracle.checked(task)
        self._derived = dict(sampler.world.derived)
        self._names: dict[tuple[str, Attr], Attr] = {}

    def outcome(self) -> OracleResult:
        """Ask the oracle; it keeps nothing, as the world is another one."""
        task = self._rewritten(self._task, "")
        return Oracle(replace(self._sampler.world, derived=self._derived), self._sampler.connection).run(task)

    def _rewritten(self, value: Any, entity: str) -> Any:
        def at(node: Any) -> Any:
            if isinstance(node, Attr):
                return self._attr(entity, node)
            if isinstance(node, Of):
                return Of(node.var, self._attr(self._types[node.var].detail, node.attr))
            if isinstance(node, _DESCRIBING) and node is not value:
                return self._rewritten(node, node.entity)
            return node

        return subst(value, at)

    def _attr(self, entity: str, attr: Attr) -> Attr:
        """The attribute, or one that is but a table of what it is without its rule."""
        item = self._sampler.world.derived.get((entity, attr.name))
        if item is None or item.norm or not is_closed(attr) or (self._attrs is not None and attr not in self._attrs):
            return attr
        key = (entity, attr)
        if key not in self._names:
            name = f"{attr.name}_unruled_{len(self._names)}"
            cells = unruled_values(self._sampler, entity, attr).items()
            cases = " ".join(f"WHEN {literal(row_id)} THEN {literal(cell)}" for row_id, cell in cells)
            sql = f'(CASE {{t}}."id" {cases} END)'
            self._names[key] = Attr(name)
            self._derived[entity, name] = replace(item, name=name, params=(), sql=sql)
        return self._names[key]


def same_outcome(task: Task, right: OracleResult, other: OracleResult | None) -> bool:
    """Whether another reading of a task comes to an outcome that is right.

    Args:
        task: The program.
        right: Its outcome.
        other: That of the other reading; None when there is no single one.

    Returns:
        Whether answer and changes are equal, or a chosen set is another one of those that are right.
    """
    if other is None:
        return False
    if (other.answer, other.changes) == (right.answer, right.changes):
        return True
    pairs = [(right.info[let.var], other.info[let.var]) for let, _ in chosen_lets(task)]
    if not pairs or right.infeasible != other.infeasible:
        return False
    if any(not set(theirs.optimal[:1]) <= set(ours.optimal) or theirs.best != ours.best for ours, theirs in pairs):
        return False
    # What differs may follow from the set that was taken, of those that are right.
    return any(theirs.optimal[:1] != ours.optimal[:1] for ours, theirs in pairs)
