"""H5: let the outcome depend on a rule that stands in the policy alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from envsynth.author.procedural.ir import (
    Atom,
    Attr,
    Choose,
    Count,
    GroupBy,
    Pick,
    Sum,
    Task,
    Type,
    walk,
    without_dead_lets,
)
from envsynth.author.procedural.operators.binding import nonbinding_atom
from envsynth.author.procedural.operators.constraint import MAX_ATOMS
from envsynth.author.procedural.operators.edit import Edit
from envsynth.author.procedural.oracle import OracleResult, Reject
from envsynth.author.procedural.oracle.outcome import Cell, Key
from envsynth.author.procedural.sampling import COMPARE, Sampler
from envsynth.author.procedural.sites import Filtered, filtered_lets, with_node
from envsynth.author.procedural.unruled import is_closed, same_outcome, unruled, unruled_values
from envsynth.errors import Rejected

POLICY_SKILL = "ignores_policy"
"""The skill that the operator is for."""
DRAWS = 6
"""Draws of the arguments of an attribute."""
MOST_TRIES = 16
"""Edits that the oracle is asked about; each costs some runs of the task."""
TRIES_OF_ONE = 4
"""Edits by one attribute with one set of arguments among them."""
P_OBJECTIVE = 0.25
"""Share of proposals on the best row that change what it is best at, not which rows it is the best of."""


@dataclass(frozen=True)
class _Site:
    """A description, its members in the parent, and an attribute that the policy defines: with the rule and without."""

    var: str
    node: Filtered
    ids: Sequence[Key]
    attr: Attr
    ruled: dict[Key, Cell]
    unruled: dict[Key, Cell]


def add_policy_rule(sampler: Sampler, task: Task, result: OracleResult) -> Edit:
    """H5: add a condition on, or an objective over, an attribute that the policy defines and the parent does not mention.

    The parent's outcome violates the child, and so does the child's own for who takes the attribute without its rule:
    counts bookings that the rule does not count, say. Where it can be had, that reader stays with the parent's row.

    Args:
        sampler: Draws over the parent's world and overlay.
        task: The parent's program.
        result: The parent's oracle result.

    Returns:
        The proposal.

    Raises:
        Rejected: `no_skill` where the parent needs the policy already, `no_site` where no description is of rows that have
            such an attribute, `nonbinding` where no edit depends on a rule.
    """
    if POLICY_SKILL in sampler.needed:
        raise Rejected("no_skill", "the task depends on a rule of the policy already")
    open_lets = [(let, node) for let, node in filtered_lets(task) if _takes_more(node)]
    names = {let.var: _unused(sampler, task, node.entity) for let, node in open_lets}
    pairs = [(let, node, name) for let, node in open_lets for name in names[let.var]]
    if not pairs:
        raise Rejected("no_site", "no description of rows that have a further attribute which the policy defines")
    sampler.rng.shuffle(pairs)
    tries = 0
    for let, node, name in pairs:
        for _ in range(DRAWS if sampler.world.attr_params(node.entity, name) else 1):
            attr = sampler.attr(node.entity, name)
            values = sampler.oracle.values(node.entity, attr), unruled_values(sampler, node.entity, attr)
            site = _Site(let.var, node, result.info[let.var].ids, attr, *values)
            for number, (changed, op) in enumerate(_edits(sampler, site, result)):
                if number == TRIES_OF_ONE or tries == MOST_TRIES:
                    break
                tries += 1
                child = with_node(task, let, changed)
                if _binds(sampler, child, attr, result):
                    return Edit(child, sampler.overlay, {"var": let.var, "attribute": name, "op": op})
    raise Rejected("nonbinding", f"none of {tries} edits depends on a rule")


def _takes_more(node: Filtered) -> bool:
    return len(node.atoms) < MAX_ATOMS and isinstance(node, (Pick, Count, Sum, Choose, GroupBy))


def _unused(sampler: Sampler, task: Task, entity: str) -> list[str]:
    """Derived attributes of an entity that the program does not mention."""
    used = [node.name for node in walk(task) if isinstance(node, Attr)]
    names = sampler.attr_names(entity, ("num", "date", "str", "bool"))
    return [name for name in names if (entity, name) in sampler.world.derived and name not in used]


def _edits(sampler: Sampler, site: _Site, result: OracleResult) -> Iterator[tuple[Filtered, str]]:
    """Changed descriptions that the rule decides on, each with what was done; the likeliest to mislead come first."""
    type_ = sampler.world.attr_type(site.node.entity, site.attr.name) or Type("")
    orders = isinstance(site.node, Pick) and type_.kind in ("num", "date")
    first = orders and sampler.rng.random() < P_OBJECTIVE
    if first:
        yield _ordered(site)
    drawn = [*_lines(site, type_)]
    sampler.rng.shuffle(drawn)
    ranked: list[tuple[bool, bool, str, Cell]] = []
    winner = result.bindings[site.var]
    for op, value in drawn:
        ruled, unruled_ = _meeting(site.ids, site.ruled, op, value), _meeting(site.ids, site.unruled, op, value)
        if not ruled or ruled == unruled_ or len(ruled) == len(site.ids):
            continue
        if (isinstance(site.node, Pick) and winner in ruled) or not _decides(sampler, site, result, ruled, unruled_):
            continue
        stays = winner in unruled_ if isinstance(site.node, (Pick, GroupBy)) else len(unruled_) == len(site.ids)
        ranked.append((not stays, len(ruled) < 2, op, value))
    for _, _, op, value in sorted(ranked, key=lambda item: item[:2]):
        atom = Atom(site.attr, op, None) if value is None else sampler.threshold(site.attr, type_, op, value)
        if atom is not None:
            yield replace(site.node, atoms=(*site.node.atoms, atom)), op
    if orders and not first:
        yield _ordered(site)


def _ordered(site: _Site) -> tuple[Filtered, str]:
    """The best row by the attribute, of those that it was the best of."""
    assert isinstance(site.node, Pick)
    return replace(site.node, attr=site.attr), site.node.dir


def _decides(sampler: Sampler, site: _Site, result: OracleResult, ruled: set[Key], unruled_: set[Key]) -> bool:
    """Whether it may matter which of two sets of rows meet a condition; cheap, so that the oracle is asked about few."""
    node, info = site.node, result.info[site.var]
    if isinstance(node, Count):
        return len(ruled) != len(unruled_)
    if isinstance(node, Pick) and is_closed(node.attr):
        found = sampler.oracle.values(node.entity, node.attr)
        return _extremes(found, node.dir, ruled) != _extremes(found, node.dir, unruled_)
    if isinstance(node, Choose) and node.goal is None and info.feasible:
        left = [chosen for chosen in info.optimal if ruled.issuperset(chosen)]
        taken = next((chosen for chosen in info.optimal if unruled_.issuperset(chosen)), None)
        return len(left) > 1 and taken not in left
    return True


def _extremes(values: Mapping[Key, Any], direction: str, ids: set[Key]) -> set[Key]:
    """The rows of those with the largest or smallest value."""
    told = [values[row_id] for row_id in ids if values[row_id] is not None]
    best = (max if direction == "max" else min)(told, default=None)
    return {row_id for row_id in ids if values[row_id] == best}


def _lines(site: _Site, type_: Type) -> Iterator[tuple[str, Cell]]:
    """Comparisons with values that members have by the rule."""
    if type_.kind == "bool":
        yield "is", None
        return
    values = dict.fromkeys(site.ruled.get(row_id) for row_id in site.ids)
    for value in values:
        if value is not None:
            for op in ("==",) if type_.kind == "str" else (">=", "<=", ">", "<"):
                yield op, value


def _meeting(ids: Sequence[Key], values: dict[Key, Cell], op: str, value: Cell) -> set[Key]:
    """The rows of those whose value compares so; who has none meets nothing."""
    told = [(row_id, values.get(row_id)) for row_id in ids]
    test = COMPARE.get(op, lambda cell, _: bool(cell))
    return {row_id for row_id, cell in told if cell is not None and test(cell, value)}


def _binds(sampler: Sampler, child: Task, attr: Attr, result: OracleResult) -> bool:
    """Whether the edit changes what is right, and whoever takes the attribute without its rule gets something else."""
    try:
        ruled = sampler.oracle.run(child)
    except Reject:
        return False
    same = (ruled.answer, ruled.changes) == (result.answer, result.changes)
    if same or ruled.infeasible != result.infeasible or same_outcome(child, ruled, unruled(sampler, child, [attr])):
        return False
    types = sampler.oracle.checked(child)
    return nonbinding_atom(child, ruled, lambda less: sampler.oracle.run(without_dead_lets(less), types=types)) is None
