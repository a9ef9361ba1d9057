"""Wrong outcomes of a task that was worked out: what a careless player would end with, never one that is right.

Sources: choices that miss their bound and empty ones where there is a choice, requests with the other word or with changes
that do not go with it, programs with one thing changed, policies with one thing misread, and right outcomes with one cell,
row or field changed. Whatever is among the enumerated right outcomes is left out, so each of these must be refused.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from acceptance.truth.deeds import Change, Deed
from acceptance.truth.facts import Facts
from acceptance.truth.frames import GOALS
from acceptance.truth.program import (
    Act,
    Best,
    ChoiceTotal,
    Choose,
    Condition,
    Demand,
    Each,
    Fixed,
    Group,
    Named,
    Of,
    Program,
    Step,
    Term,
    Try,
    When,
)
from acceptance.truth.rules import Rules
from acceptance.truth.solver import DENIED, DONE, SIGNS, Right, Solved, Solver, tidy
from acceptance.truth.world import Handle, NotCoveredError, World

VARIANTS = 60
"""Changed programs and policies that are tried for a task."""
EACH = 3
"""Wrong outcomes that one changed program may give."""
ENOUGH = 4000
"""Outcomes of a changed program from which they are taken."""
FAR = 10**9
"""A bound that no set meets."""
MISREADABLE = (
    "gap", "gap_after", "evening", "longest", "daily", "party", "handed", "closed", "kept", "refunds", "released", "fee",
    "reserve", "shares", "stage", "phase", "bar", "quota", "most", "also_down", "since", "listed_bar", "all_quotas",
)  # fmt: skip
"""Parts of a policy that a careless reader may overlook."""


@dataclass(frozen=True)
class Wrong:
    """A wrong outcome and where it comes from."""

    outcome: Right
    """Answer and changes."""
    source: str
    """`choice`, `request`, `program`, `policy`, `answer` or `state`."""
    place: str = ""
    """Which part of the policy was misread."""


def wrong_outcomes(solved: Solved, rng: random.Random, wanted: int) -> list[Wrong]:
    """Make wrong outcomes of a task.

    Args:
        solved: The task with its right outcomes.
        rng: Source of the choice.
        wanted: How many at most.

    Returns:
        Distinct wrong outcomes, as far as there are so many.
    """
    right = {effect(solved.world, item) for item in solved.outcomes}
    found: dict[Right, str] = {}
    near = itertools.chain(_requests(solved, rng), _missed(solved, right, rng))
    careless = itertools.islice(_careless(solved, right, rng), wanted * 3)
    touched = itertools.islice(_touched(solved, rng), wanted * 40)
    for limit, source in ((wanted // 2, near), (wanted * 2 // 3, careless), (wanted, touched)):
        for outcome, told in source:
            if len(found) >= limit:
                break
            known = effect(solved.world, outcome)
            rows = [change.row for change in known.deed if change.row is not None]
            if known not in right and len(set(rows)) == len(rows):
                found.setdefault(known, told)
    return [Wrong(outcome, *told.split()) for outcome, told in found.items()]


def effect(world: World, outcome: Right) -> Right:
    """The outcome without changes that change nothing."""
    kept: list[Change] = []
    for change in outcome.deed:
        cells = change.cells
        if change.row is not None:
            before = world[change.row]
            cells = tuple((key, value) for key, value in cells if before[key] != value)
        if cells:
            kept.append(replace(change, cells=cells))
    return Right(outcome.answer, tidy(tuple(kept)))


# -------------------------------------------------------------------------------------------------- choices, requests


def _missed(solved: Solved, right: set[Right], rng: random.Random) -> Iterator[tuple[Right, str]]:
    """Choices that may be empty: that miss one demand or condition, none at all, with the total of another choice."""
    steps = solved.program.steps
    totals = [Named(step.name) for step in steps if isinstance(step, ChoiceTotal)]
    if not totals:
        return
    facts, found = Facts(solved.world, solved.rules), list(solved.outcomes)
    for other in (*_none_chosen(steps), *_loose(steps), *_loose(_as_good(facts, steps))):
        picked = _picked(facts, replace(solved.program, steps=other), right, rng)
        found += picked
        yield from ((outcome, "choice") for outcome in picked)
    told = {name for name, value in solved.program.report if value in totals}
    for outcome in rng.sample(solved.outcomes, min(EACH, len(solved.outcomes))):
        own = dict(outcome.answer)
        others = [item for item in found if any(dict(item.answer)[name] != own[name] for name in told)]
        if others:
            other = dict(rng.choice(others).answer)
            yield Right(tuple((name, (other if name in told else own)[name]) for name in own), outcome.deed), "choice"


def _none_chosen(steps: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    """Steps in which a choice has a bound that nothing meets, also with the farthest total."""
    for place, step in enumerate(steps):
        if isinstance(step, Choose) and step.may_be_empty:
            hard = [demand for demand in step.demands if demand.kind not in GOALS]
            unmet = tuple(
                demand
                if demand.value is None
                else replace(demand, value=Fixed(FAR if demand.kind in (">", ">=") else -FAR))
                for demand in hard
            )
            none = (*steps[:place], replace(step, demands=unmet), *steps[place + 1 :])
            yield none
            yield tuple(
                replace(item, largest=not item.largest) if isinstance(item, ChoiceTotal) else item for item in none
            )


def _loose(steps: tuple[Step, ...]) -> Iterator[tuple[Step, ...]]:
    """Steps in which a choice misses one demand or condition."""
    for place, step in enumerate(steps):
        if isinstance(step, Choose) and step.may_be_empty:
            met = step.rows.conditions
            looser = [
                *(replace(step, demands=step.demands[:at] + step.demands[at + 1 :]) for at in range(len(step.demands))),
                *(
                    replace(step, rows=replace(step.rows, conditions=met[:at] + met[at + 1 :]))
                    for at in range(len(met))
                ),
            ]
            yield from ((*steps[:place], other, *steps[place + 1 :]) for other in looser)


def _as_good(facts: Facts, steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Steps in which what the best choice reaches takes the place of its goal, so that looser ones are as good as it."""
    changed = list(steps)
    for place, step in enumerate(steps):
        if isinstance(step, Choose):
            looks = tuple(item for item in steps[: place + 1] if not isinstance(item, Act | Try | When | Each))
            demands = [
                replace(demand, kind="=", value=Fixed(_reached(facts, looks, step.name, demand)))
                if demand.kind in GOALS
                else demand
                for demand in step.demands
            ]
            changed[place] = replace(step, demands=tuple(demands))
    return tuple(changed) if changed != list(steps) else ()


def _reached(facts: Facts, looks: tuple[Step, ...], name: str, demand: Demand) -> int:
    """What the best choice reaches; of an empty one what no choice reaches."""
    total = ChoiceTotal("reached", name, demand.term, largest=demand.kind == "most")
    chosen = Program((*looks, total), (("reached", Named("reached")),))
    return next((dict(item.answer)["reached"] for item in Solver(facts).outcomes(chosen)), FAR)


def _picked(facts: Facts, program: Program, right: set[Right], rng: random.Random) -> list[Right]:
    """Some outcomes of a changed program that are not right."""
    outcomes = itertools.islice(Solver(facts).outcomes(program), ENOUGH)
    wrong = [outcome for outcome in outcomes if effect(facts.world, outcome) not in right]
    return rng.sample(wrong, min(EACH, len(wrong)))


def _requests(solved: Solved, rng: random.Random) -> Iterator[tuple[Right, str]]:
    """Requests done against the rules, denied without a reason, done without a change, changed but called denied."""
    named = [Named(step.name) for step in solved.program.steps if isinstance(step, Try)]
    if not named:
        return
    heedless = Solver(Facts(solved.world, solved.rules), heedless=True).outcomes(solved.program)
    outcomes = [*solved.outcomes[: EACH * 20], *itertools.islice(heedless, EACH * 20)]
    told = [name for name, value in solved.program.report if value in named]
    for outcome in rng.sample(outcomes, min(EACH, len(outcomes))):
        for word in (DONE, DENIED):
            answer = tuple((name, word if name in told else value) for name, value in outcome.answer)
            yield from ((Right(answer, deed), "request") for deed in (outcome.deed, ()))


# --------------------------------------------------------------------------------------------------- careless readers


def _careless(solved: Solved, right: set[Right], rng: random.Random) -> Iterator[tuple[Right, str]]:
    """Outcomes under misread policies, of what the outcome was worked out with, then of changed programs."""
    facts = Facts(solved.world, solved.rules)
    misread, programs = list(_misread(solved.rules)), list(dict.fromkeys(variants(solved.world, solved.program)))
    rng.shuffle(misread)
    rng.shuffle(programs)
    tried = [(Facts(solved.world, other), solved.program, f"policy {place}") for place, other in misread[:VARIANTS]]
    tried += [(facts, program, "program") for program in programs[:VARIANTS]]
    for known, program, told in tried:
        try:
            picked = _picked(known, program, right, rng)
        except NotCoveredError:
            continue  # the changed program has no outcome of its own
        yield from ((outcome, told) for outcome in picked)


def _misread(rules: Rules) -> Iterator[tuple[str, Rules]]:
    """The rules with one part misread that the outcome was worked out with."""
    for key in sorted(rules.used.intersection(rules.values)):
        value = rules.values[key]
        others: list[str | None] = [str(int(value) + by) for by in (-1, 1)] if value.isdigit() else []
        if key in MISREADABLE:
            others.append(None)
        if " or " in value:
            others.append(value.partition(" or ")[0])
        others += {"active": ["active or tentative"], "full cost": ["amount"], "full costs": ["amounts"]}.get(value, [])
        for other in others:
            values = {name: told for name, told in rules.values.items() if name != key}
            yield key, replace(rules, values=values if other is None else values | {key: other})


def variants(world: World, item: Any) -> Iterator[Any]:
    """A program, or a part of one, with one thing changed."""
    if isinstance(item, tuple):
        for place, part in enumerate(item):
            if isinstance(part, Condition | Demand):
                yield (*item[:place], *item[place + 1 :])
            yield from ((*item[:place], other, *item[place + 1 :]) for other in variants(world, part))
        return
    if not is_dataclass(item) or isinstance(item, Handle):
        return
    yield from _changed(world, item)
    if isinstance(item, Group):
        yield from _regrouped(world, item)
    names = [] if isinstance(item, Fixed | Term) else [part.name for part in fields(item)]
    if isinstance(item, Term):
        names = ["arguments"]
    if isinstance(item, Program):
        names = ["steps"]
    for name in names:
        yield from (replace(item, **{name: other}) for other in variants(world, getattr(item, name)))


def _changed(world: World, item: Any) -> Iterator[Any]:
    match item:
        case Condition(_, sign, value) if value is not None:
            signs = [other for other in SIGNS if other != sign] if sign in ("<", "<=", ">", ">=") else ["=", "!="]
            yield from (replace(item, sign=other) for other in signs if other != sign)
        case Best() | ChoiceTotal():
            yield replace(item, largest=not item.largest)
        case When():
            yield replace(item, then=item.otherwise, otherwise=item.then)
        case Demand("most" | "least"):
            yield replace(item, kind="least" if item.kind == "most" else "most")
        case Fixed(int() as number):
            yield from (Fixed(number + by) for by in (-5, -1, 1, 5))
        case Fixed(Handle() as handle):
            yield from (Fixed(other) for other in world.handles(handle.entity) if other != handle)
        case Term(attribute):
            for other in world.attributes[attribute.entity]:
                alike = (other.kind, other.unit, other.parameters) == (
                    attribute.kind, attribute.unit, attribute.parameters,
                )  # fmt: skip
                if alike and other.key != attribute.key and attribute.key not in ("id", "name"):
                    yield replace(item, attribute=other)
        case _:
            return


def _regrouped(world: World, group: Group) -> Iterator[Group]:
    """The other end of the comparison, groups by another relation to the same table, numbers of rows for sums."""
    yield replace(group, largest=not group.largest, none_left_out=True)
    if group.term is not None:
        yield replace(group, term=None)
    for other in world.attributes[group.relation.entity]:
        if (other.kind, other.unit) == ("row", group.relation.unit) and other != group.relation:
            yield replace(group, relation=other)


# ------------------------------------------------------------------------------------------------- touched outcomes


def _touched(solved: Solved, rng: random.Random) -> Iterator[tuple[Right, str]]:
    """Right outcomes with one field, cell or row changed, without end."""
    if not solved.outcomes:
        return
    columns, listed = _columns(solved.world), _listed(solved)
    while True:
        outcome = rng.choice(solved.outcomes)
        if outcome.answer and rng.random() < (0.5 if outcome.deed else 0.9):
            yield Right(_other_answer(columns, listed, outcome, rng), outcome.deed), "answer"
        else:
            yield Right(outcome.answer, _other_deed(solved, outcome.deed, rng)), "state"


def _other_answer(
    columns: list[dict[Any, None]], listed: dict[str, tuple[int, list[Any]]], outcome: Right, rng: random.Random
) -> tuple[tuple[str, Any], ...]:
    place = rng.randrange(len(outcome.answer))
    name, value = outcome.answer[place]
    if value == frozenset():  # some of what might have been chosen
        size, pool = listed[name]
        some = frozenset(rng.sample(pool, min(rng.choice((1, size)), len(pool))))
        return (*outcome.answer[:place], (name, some), *outcome.answer[place + 1 :])
    one = min(value) if isinstance(value, frozenset) else value
    pool = [
        cell for cell in _same_column(columns, one) if cell not in (value if isinstance(value, frozenset) else (value,))
    ]
    unknown = f"{one} II" if isinstance(one, str) else one + 100_000
    if isinstance(value, frozenset):
        pool = rng.sample(pool, min(len(pool), len(value))) if rng.random() < 0.8 else [unknown]
        gone = rng.sample(sorted(value), rng.randint(1, max(1, min(len(pool), len(value)))))
        value = (value - frozenset(gone)) | frozenset((pool or [unknown])[: len(gone)])
    elif isinstance(value, int):
        value = rng.choice([value + by for by in (-10, -3, -2, -1, 1, 2, 3, 10)] + rng.sample(pool, min(4, len(pool))))
    else:
        value = rng.choice(pool) if pool and rng.random() < 0.9 else unknown
    return (*outcome.answer[:place], (name, value), *outcome.answer[place + 1 :])


def _columns(world: World) -> list[dict[Any, None]]:
    """Distinct values of every column, in order, and the words of every field of the answer whose schema lists them."""
    fields = world.task.answer_schema.get("properties", {}).values()
    return [
        *(
            dict.fromkeys(row[key] for row in rows)
            for entity, rows in world.rows.items()
            for key in world.columns[entity]
        ),
        *(dict.fromkeys(schema["enum"]) for schema in fields if "enum" in schema),
    ]


def _listed(solved: Solved) -> dict[str, tuple[int, list[Any]]]:
    """Fields about chosen rows, with the size of the choice and all that might be listed."""
    choices = {step.name: step for step in solved.program.steps if isinstance(step, Choose)}
    found: dict[str, tuple[int, list[Any]]] = {}
    for field, value in solved.program.report:
        if isinstance(value, Of) and value.name in choices:
            choice = choices[value.name]
            rows = solved.world.rows[choice.rows.entity]
            found[field] = choice.size, list(dict.fromkeys(row[value.term.attribute.key] for row in rows))
    return found


def _same_column(columns: list[dict[Any, None]], value: Any) -> list[Any]:
    """Distinct values of the columns that hold a value."""
    found: dict[Any, None] = {}
    for column in columns:
        if value in column:
            found |= {cell: None for cell in column if type(cell) is type(value)}
    return list(found)


def _other_deed(solved: Solved, deed: Deed, rng: random.Random) -> Deed:
    if not deed:
        return (_stray(solved.world, rng),)
    place = rng.randrange(len(deed))
    change, others = deed[place], (*deed[:place], *deed[place + 1 :])
    turn = rng.randrange(4)
    if turn == 0:
        return others
    if turn == 1:
        return (*deed, _stray(solved.world, rng))
    if turn == 2 and change.row is not None:
        return (*others, replace(change, row=rng.choice(solved.world.handles(change.entity))))
    spot = rng.randrange(len(change.cells))
    key, value = change.cells[spot]
    told = sorted({row[key] for row in solved.world.rows[change.entity]} - {value}, key=repr)
    if isinstance(value, Handle):
        told = [other for other in solved.world.handles(value.entity) if other != value]
    if not told:
        return others
    cells = (*change.cells[:spot], (key, rng.choice(told)), *change.cells[spot + 1 :])
    return (*others, replace(change, cells=cells))


def _stray(world: World, rng: random.Random) -> Change:
    """A change that nobody asked for: one cell of one row takes the value of another row."""
    while True:
        entity = rng.choice(list(world.rows))
        keys = [key for key in world.columns[entity] if key not in ("id", "name")]
        if keys and world.rows[entity]:
            key, handle = rng.choice(keys), rng.choice(world.handles(entity))
            value = rng.choice(world.rows[entity])[key]
            if value != world[handle][key]:
                return Change(entity, handle, ((key, value),))
