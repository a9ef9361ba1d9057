"""Enumerates every right outcome of a task: all rows, all sets, all ways to act."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from acceptance.truth.deeds import Change, Deed, Deeds, ImpossibleError, UndecidedError, after
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
    Follow,
    Group,
    Named,
    Of,
    Only,
    Operand,
    Program,
    Rows,
    Step,
    Term,
    Total,
    Try,
    When,
)
from acceptance.truth.reader import Reader
from acceptance.truth.rules import Rules, read_policy
from acceptance.truth.world import Handle, NotCoveredError, PublicTask, Value, World

SETS_LIMIT = 400_000
"""Sets of rows that are tried one by one; a task with more is not covered."""
OUTCOMES_LIMIT = 60_000
"""Right outcomes that are kept; a task with more is not covered."""
SIGNS = {
    ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt, "=": operator.eq, "!=": operator.ne,
}  # fmt: skip

Scope = dict[str, Value]
"""What each name stands for: a handle, a number, a word, or a tuple of handles."""
Words = tuple[tuple[str, str], ...]
"""What came of requests that may be denied, by name."""
Way = tuple[Deed, Words]
"""One way to carry something out, and what came of requests."""
DONE, DENIED = "done", "denied"
"""What comes of a request."""
Answer = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """One action to carry out."""

    action: str
    """Its public key."""
    arguments: dict[str, Value]
    """By parameter."""
    name: str = ""
    """What the prompt calls its outcome, if it may be denied."""


@dataclass(frozen=True)
class Right:
    """One right outcome."""

    answer: tuple[tuple[str, Any], ...]
    """By field; a frozen set where the order does not matter."""
    deed: Deed
    """All changed rows."""


@dataclass(frozen=True)
class Solved:
    """A task that was understood and worked out."""

    world: World
    """Its tables."""
    rules: Rules
    """What its policy says."""
    program: Program
    """What its prompt asks for."""
    outcomes: tuple[Right, ...]
    """Every right outcome."""
    entities: tuple[str, ...]
    """Tables that the prompt speaks of, in order."""


def solve(task: PublicTask) -> Solved:
    """Work out every right outcome of a task.

    Args:
        task: What a player knows, and the rows.

    Returns:
        The outcomes; none when the policy does not allow what is asked, or when a description of one row fits another
        number of rows.

    Raises:
        NotCoveredError: the prompt or the policy is not understood, or leaves the outcome open.
    """
    world = World(task)
    named = {("share", "stage"): "stage", ("claim", "person"): "applicant"}
    known = [item for entity in ("share", "claim") for item in world.attributes.get(entity, ())]
    labels = {named[item.entity, item.key]: item.label for item in known if (item.entity, item.key) in named}
    facts = Facts(world, read_policy(task.policy, world.nouns, labels))
    programs = Reader(world).programs()
    found = [frozenset(Solver(facts).outcomes(program)) for program in programs]
    if len(set(found)) > 1:
        raise NotCoveredError("the prompt has several meanings with different outcomes")
    outcomes = tuple(sorted(found[0], key=repr))
    return Solved(world, facts.rules, programs[0], outcomes, tuple(spoken_of(programs[0])))


class Solver:
    """Runs programs over one state.

    Args:
        facts: The state before the first change.
        heedless: Do what the policy forbids as well.
    """

    def __init__(self, facts: Facts, *, heedless: bool = False) -> None:
        self.facts = facts
        self.world = facts.world
        self.heedless = heedless

    def outcomes(self, program: Program) -> Iterator[Right]:
        """Every right outcome of a program.

        Raises:
            NotCoveredError: it depends on when the actions are done, or there are too many.
        """
        looks = [step for step in program.steps if not isinstance(step, Act | Try | When | Each)]
        acts = [step for step in program.steps if isinstance(step, Act | Try | When | Each)]
        choices = {step.name: step for step in looks if isinstance(step, Choose)}
        for count, scope in enumerate(self._scopes(looks, {}, choices)):
            if count > OUTCOMES_LIMIT:
                raise NotCoveredError("too many right outcomes to enumerate")
            calls = [call for step in acts for call in self._calls(step, scope)]
            for deed, words in self._carried_out(calls):
                known = scope | dict(words)
                yield Right(tuple((name, self._told(value, known)) for name, value in program.report), deed)

    # ---------------------------------------------------------------------------------------------- descriptions

    def _scopes(self, steps: list[Step], scope: Scope, choices: dict[str, Choose]) -> Iterator[Scope]:
        if not steps:
            yield scope
            return
        step = steps[0]
        values = (
            self._nearest(step, choices[step.choice], scope)
            if isinstance(step, ChoiceTotal)
            else self._named(step, scope)
        )
        for value in values:
            yield from self._scopes(steps[1:], scope | {step.name: value}, choices)

    def _nearest(self, step: ChoiceTotal, choice: Choose, scope: Scope) -> list[Value]:
        """What a choice adds up to; of an empty one the nearest total without the bound, if there is any.

        Raises:
            NotCoveredError: it matters whether the goal of the choice holds for that total, which the prompt does not tell.
        """
        if scope[step.choice]:
            return [sum(self.term(handle, step.term, scope) for handle in scope[step.choice])]
        left = tuple(demand for demand in choice.demands if demand.value is None or demand.term != step.term)
        nearest: list[int | None] = []
        for demands in (tuple(demand for demand in left if demand.kind not in GOALS), left):
            sets = self._choices(self.rows(choice.rows, scope), choice.size, demands, scope)
            totals = {sum(self.term(handle, step.term, scope) for handle in chosen) for chosen in sets}
            nearest.append((max if step.largest else min)(totals, default=None))
        if nearest[0] != nearest[1]:
            raise NotCoveredError("the nearest total of an empty choice depends on whether its goal holds for it")
        return [nearest[0]] if nearest[0] is not None else []

    def _named(self, step: Step, scope: Scope) -> Iterator[Value]:
        match step:
            case Only(_, rows):
                yield from self._single(self.rows(rows, scope))
            case Best(_, rows, term, largest):
                values = {handle: self.term(handle, term, scope) for handle in self.rows(rows, scope)}
                yield from self._single(_peak_of(values, largest))
            case Group():
                yield from self._single(self._leading(step, scope))
            case Follow(_, of):
                yield self.operand(of, scope)
            case Total(_, rows, None):
                yield len(self.rows(rows, scope))
            case Total(_, rows, term):
                yield sum(self.term(handle, term, scope) for handle in self.rows(rows, scope))
            case Choose(_, size, rows, demands, may_be_empty):
                found = False
                for chosen in self._choices(self.rows(rows, scope), size, demands, scope):
                    found = True
                    yield chosen
                if may_be_empty and not found:
                    yield ()
            case _:
                raise NotCoveredError(f"no description: {step}")

    def _single(self, handles: list[Handle]) -> list[Handle]:
        """The row that a description of one row means: none, so that nothing is right, when it fits several or none."""
        return handles if len(handles) == 1 else []

    def _leading(self, group: Group, scope: Scope) -> list[Handle]:
        """Rows to which most or fewest are related; one to which none is related has no number.

        Raises:
            NotCoveredError: that is not said, and it would matter if such a row had 0.
        """
        totals: dict[Handle, int] = {}
        for handle in self.rows(group.rows, scope):
            related = self.facts.value(handle, group.relation.key)
            totals[related] = totals.get(related, 0) + (
                1 if group.term is None else self.term(handle, group.term, scope)
            )
        leading = _peak_of(totals, group.largest)
        zeros = dict.fromkeys(self.world.handles(group.relation.unit), 0)
        if not group.none_left_out and self._single(_peak_of(zeros | totals, group.largest)) != self._single(leading):
            raise NotCoveredError("a group of no rows might be the least, and the prompt does not tell")
        return leading

    def rows(self, rows: Rows, scope: Scope) -> list[Handle]:
        """Rows that meet conditions."""
        handles = self.world.handles(rows.entity)
        return [handle for handle in handles if all(self._meets(handle, item, scope) for item in rows.conditions)]

    def _meets(self, handle: Handle, condition: Condition, scope: Scope) -> bool:
        value = self.term(handle, condition.term, scope)
        if condition.value is None:
            return bool(value)
        return bool(SIGNS[condition.sign](value, self.operand(condition.value, scope)))

    def term(self, handle: Handle, term: Term, scope: Scope) -> Value:
        """The value of an attribute of a row."""
        arguments = tuple(self.operand(item, scope) for item in term.arguments)
        return self.facts.value(handle, term.attribute.key, arguments)

    def operand(self, operand: Operand, scope: Scope) -> Value:
        """What an operand stands for."""
        match operand:
            case Fixed(value):
                return value
            case Named(name):
                return scope[name]
            case Of(term, name):
                return self.term(scope[name], term, scope)

    def _choices(
        self, handles: list[Handle], size: int, demands: tuple[Demand, ...], scope: Scope
    ) -> Iterator[tuple[Handle, ...]]:
        sets = list(itertools.islice(itertools.combinations(handles, size), SETS_LIMIT + 1))
        if len(sets) > SETS_LIMIT:
            raise NotCoveredError("too many sets to enumerate")
        for demand in sorted(demands, key=lambda item: item.kind in GOALS):
            values = {handle: self.term(handle, demand.term, scope) for handle in handles}
            if demand.kind == "distinct":
                sets = [chosen for chosen in sets if len({values[handle] for handle in chosen}) == size]
                continue
            sums = [sum(values[handle] for handle in chosen) for chosen in sets]
            if demand.value is None:
                bound, sign = (max if demand.kind == "most" else min)(sums, default=0), "="
            else:
                bound, sign = self.operand(demand.value, scope), demand.kind
            sets = [chosen for chosen, total in zip(sets, sums, strict=True) if SIGNS[sign](total, bound)]
        yield from sets

    def _told(self, operand: Operand, scope: Scope) -> Value:
        if isinstance(operand, Of) and isinstance(scope[operand.name], tuple):
            return frozenset(self.term(handle, operand.term, scope) for handle in scope[operand.name])
        value = self.operand(operand, scope)
        if isinstance(value, Handle | bool):
            raise NotCoveredError("a row or a truth in an answer")
        return value

    # --------------------------------------------------------------------------------------------------- actions

    def _calls(self, step: Step, scope: Scope) -> list[Call]:
        match step:
            case Act(action, arguments):
                return [Call(action, {key: self.operand(value, scope) for key, value in arguments})]
            case Try(name, act):
                return [replace(call, name=name) for call in self._calls(act, scope)]
            case When(left, sign, right, then, otherwise):
                holds = SIGNS[sign](self.operand(left, scope), self.operand(right, scope))
                taken = then if holds else otherwise
                return [] if taken is None else self._calls(taken, scope)
            case Each(rows, act):
                return [call for row in self.rows(rows, scope) for call in self._calls(act, scope | {"it": row})]
            case _:
                raise NotCoveredError(f"no action: {step}")

    def _carried_out(self, calls: list[Call]) -> Iterator[Way]:
        """All ways to do all calls; each in the state that those before left, which must not matter.

        Raises:
            NotCoveredError: it does matter.
        """
        if not calls:
            yield (), ()
            return
        if len(calls) == 1:
            yield from ((tidy(deed), words) for deed, words in self._ways(self.facts, calls[0]))
            return
        orders = [calls, calls[::-1]]
        found = [{_tidied(way) for way in self._in_turn(self.facts, order, ((), ()))} for order in orders]
        each_alone = [self._ways(self.facts, call) for call in calls]
        found.append({_tidied(_joined(*ways)) for ways in itertools.product(*each_alone)})
        if not found[0] == found[1] == found[2]:
            raise NotCoveredError("the outcome depends on the order of the actions")
        yield from found[0]

    def _in_turn(self, facts: Facts, calls: list[Call], done: Way) -> Iterator[Way]:
        if not calls:
            yield done
            return
        for way in self._ways(facts, calls[0]):
            yield from self._in_turn(Facts(after(facts.world, way[0]), facts.rules), calls[1:], _joined(done, way))

    def _ways(self, facts: Facts, call: Call) -> list[Way]:
        """Every way to carry out an action; a request that the policy does not allow is denied and changes nothing.

        Raises:
            NotCoveredError: the policy does not tell whether a request is refused.
        """
        try:
            deeds = Deeds(facts, self.heedless).ways(call.action, call.arguments)
        except ImpossibleError as why:
            if call.name and isinstance(why, UndecidedError):
                raise NotCoveredError(f"the policy does not tell whether {why} is refused") from why
            return [((), ((call.name, DENIED),))] if call.name else []
        return [(deed, ((call.name, DONE),) if call.name else ()) for deed in deeds]


def _joined(*ways: Way) -> Way:
    """All changes and words of ways together."""
    return tuple(change for deed, _ in ways for change in deed), tuple(word for _, words in ways for word in words)


def _tidied(way: Way) -> Way:
    """The same way in one order."""
    return tidy(way[0]), tuple(sorted(way[1]))


def _peak_of(values: dict[Handle, Value], largest: bool) -> list[Handle]:
    """The rows with the most or the least."""
    peak = (max if largest else min)(values.values(), default=None)
    return [handle for handle, value in values.items() if value == peak]


def tidy(deed: Deed) -> Deed:
    """The same changes in one order, each row once."""
    return tuple(sorted(dict.fromkeys(deed), key=repr))


def cells(world: World, change: Change) -> dict[str, Value]:
    """The columns of a change: new cells, and the primary key of a row that was there before."""
    named = {world.columns[change.entity][key]: world.cell(change.entity, key, value) for key, value in change.cells}
    return named if change.row is None else world.identity(change.row) | named


def spoken_of(program: Program) -> Iterator[str]:
    """Entities of a program: of its descriptions, of what it reads of rows, of what it acts on."""
    seen: dict[str, None] = {}

    def visit(item: Any) -> None:
        if isinstance(item, Term):
            seen.setdefault(f"{item.attribute.entity}.{item.attribute.key}")
        if isinstance(item, Group):
            seen.setdefault(f"{item.relation.entity}.{item.relation.key}")
        if isinstance(item, Rows):
            seen.setdefault(item.entity)
        if isinstance(item, Act):
            seen.setdefault(f"action.{item.action}")
        if isinstance(item, tuple):
            for part in item:
                visit(part)
        elif hasattr(item, "__dataclass_fields__"):
            for name in item.__dataclass_fields__:
                visit(getattr(item, name))

    visit(program)
    yield from seen
