"""H15: let the user alone know a value of the prompt, so that it has to be asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from envsynth.author.procedural.composition import identifier
from envsynth.author.procedural.docs import UNIT_WORDS
from envsynth.author.procedural.ir import (
    Asked,
    Atom,
    Con,
    Const,
    ForEach,
    Let,
    Named,
    Operand,
    Ref,
    Task,
    fresh_var,
    lets,
    walk,
    without_dead_lets,
)
from envsynth.author.procedural.operators.binding import differs
from envsynth.author.procedural.operators.edit import Edit
from envsynth.author.procedural.oracle import OracleResult, Reject
from envsynth.author.procedural.render.values import head
from envsynth.author.procedural.sampling import Sampler
from envsynth.author.procedural.schema import WIDEST
from envsynth.author.procedural.sites import chosen_lets, filtered_lets
from envsynth.author.procedural.trees import subst
from envsynth.errors import Rejected

SKILL = "never_asks"
"""The ablation that a task which has to be asked about needs to fail."""
GUESSES = 12
"""Other values that are tried in place of one, besides what a solver goes by that does not ask."""
MOST_ALIKE = 0.5
"""Share of the other values that may lead to the same outcome: else a guess would do."""
FEWEST_NAMES = 5
"""Rows among which a name tells one."""
_ORDERED = ("<", "<=", ">", ">=")
_SHIFTS = (-50, -25, -10, 10, 25, 50)
"""By how many percent the bound of a total is moved for a guess."""


@dataclass(frozen=True)
class _Site:
    """A value that the user may know in place of the prompt."""

    old: Const | Named
    asked: Asked
    default: Operand
    """What a solver goes by that does not ask."""
    others: tuple[Operand, ...]
    """What a solver may guess."""

    def put(self, task: Task, new: Any) -> Task:
        """The program with something else in place of the value: of a name everywhere, of a bound there alone."""
        by_name = isinstance(self.old, Named)
        return subst(task, lambda node: new if node is self.old or (by_name and node == self.old) else node)


def ask_user(sampler: Sampler, task: Task, result: OracleResult) -> Edit:
    """H15: take a bound or a name out of the prompt; the user tells it who asks about its topic. The outcome stays.

    Args:
        sampler: Draws over the parent's world and overlay.
        task: The parent's program.
        result: The parent's oracle result.

    Returns:
        The proposal.

    Raises:
        Rejected: `no_skill` where the parent has to be asked about already; `no_site` where no condition has a bound with a
            unit or a date, and no row is called by name; `nonbinding` where other values, or none, lead to the same outcome.
    """
    if SKILL in sampler.needed:
        raise Rejected("no_skill", "the user has to be asked already")
    sites = [*_bounds(sampler, task), *_names(sampler, task)]
    if not sites:
        raise Rejected("no_site", "no bound and no name that a user could know")
    sampler.rng.shuffle(sites)
    for site in sites:
        if _matters(sampler, task, result, site):
            var = fresh_var(task)
            child = site.put(task, Ref(var))
            steps = (Let(var, site.asked), *child.steps)
            return Edit(Task(steps, child.report), sampler.overlay, {"var": var, "topic": site.asked.topic})
    raise Rejected("nonbinding", "other values, or none, lead to the same outcome")


def _matters(sampler: Sampler, task: Task, result: OracleResult, site: _Site) -> bool:
    """Whether the outcome is another one without the value, and with most others in its place."""

    def alike(other: Operand) -> bool:
        try:
            return not differs(task, result, sampler.oracle.run(without_dead_lets(site.put(task, other))))
        except Reject:
            return False

    guesses = sampler.rng.sample(site.others, min(GUESSES, len(site.others)))
    return not alike(site.default) and sum(map(alike, guesses)) <= MOST_ALIKE * len(guesses)


def _bounds(sampler: Sampler, task: Task) -> Iterator[_Site]:
    """Bounds of conditions, and of totals of chosen sets: numbers with a unit, and dates."""
    filtered = [(node.entity, node.atoms) for _, node in filtered_lets(task)]
    filtered += [(step.entity, step.atoms) for step in task.steps if isinstance(step, ForEach)]
    for entity, atoms in filtered:
        for atom in atoms:
            if isinstance(atom.value, Const) and _can_be_told(atom.value, atom.op):
                values = sampler.oracle.values(entity, atom.attr).values()
                yield _bound(sampler, task, entity, atom, atom.value, [value for value in values if value is not None])
    for _, node in chosen_lets(task):
        for con in node.bounds:
            if isinstance(con.value, Const) and _can_be_told(con.value, con.op):
                total = int(con.value.value)
                shifted = [total + total * percent // 100 for percent in _SHIFTS]
                yield _bound(sampler, task, node.entity, con, con.value, shifted)


def _can_be_told(value: Const, op: str) -> bool:
    """Whether it is a bound that is known by what it is a number of, or a date."""
    has_unit = value.kind == "num" and bool(UNIT_WORDS.get(value.unit, value.unit))
    return op in _ORDERED and (has_unit or value.kind == "date")


def _bound(
    sampler: Sampler, task: Task, entity: str, condition: Atom | Con, value: Const, others: Sequence[int | str]
) -> _Site:
    below, above = WIDEST[value.kind]
    default = replace(value, value=below if condition.op in (">", ">=") else above)
    topic = _topic(task, f"limit_of_{_noun(sampler, entity, condition.attr.name)}")
    guesses = tuple(replace(value, value=other) for other in dict.fromkeys(others) if other != value.value)
    return _Site(value, Asked(topic, value.kind, value.unit, value.value), default, guesses)


def _names(sampler: Sampler, task: Task) -> Iterator[_Site]:
    """Rows that are called by name, among enough others."""
    for named in dict.fromkeys(node for node in walk(task) if isinstance(node, Named) and node.by == "name"):
        ids = sampler.oracle.ids(named.entity, ())
        names = {row["id"]: str(row["name"]) for row in sampler.rows(named.entity)}
        others = tuple(replace(named, value=names[key]) for key in ids if names[key] != named.value)
        if len(ids) >= FEWEST_NAMES:
            topic = _topic(task, f"which_{sampler.world.slug(named.entity)}")
            asked = Asked(topic, "row", named.entity, named.value)
            yield _Site(named, asked, replace(named, value=names[ids[0]]), others)


def _noun(sampler: Sampler, entity: str, name: str) -> str:
    """What an attribute is called, as an identifier: "busy_days", of "busy days from {0} to {1}"."""
    derived = sampler.world.derived.get((entity, name))
    label = derived.label if derived is not None else sampler.world.col(entity, name).label
    return identifier(head(label))[:40] or name


def _topic(task: Task, wanted: str) -> str:
    """The name of a topic that the program does not use."""
    used = [let.node.topic for let in lets(task, Asked) if isinstance(let.node, Asked)]
    return wanted if wanted not in used else f"{wanted}_{len(used) + 1}"
