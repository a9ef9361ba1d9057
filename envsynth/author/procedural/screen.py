"""What the author refuses by looking at a program and its outcome alone, before anything is compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from envsynth.actors import GUESS_LIMIT, columns_of, guess_share
from envsynth.author.procedural.ir import Act, ForEach, GroupBy, Let, Of, Pick, Task, lets, walk
from envsynth.author.procedural.oracle import OracleResult
from envsynth.author.procedural.sampling import NO_ROUTE, Sampler
from envsynth.author.procedural.sites import chosen_lets
from envsynth.delivery import Fact, stands_in
from envsynth.errors import Rejected
from envsynth.spec import World

MAX_CHANGES = 12
"""Row changes of one task."""


def refuse_poor(sampler: Sampler, program: Task, result: OracleResult) -> None:
    """Refuse programs that are ambiguous, empty, too large, or whose choices almost any guess meets.

    Args:
        sampler: Over the world and overlay of the task.
        program: The program.
        result: Its outcome.

    Raises:
        Rejected: the code says which.
    """
    writes = any(isinstance(node, (Act, ForEach)) for node in walk(program))
    denied = not all(result.decisions.values())
    if writes and not result.changes and not denied:
        raise Rejected("act_empty", "the actions change nothing: doing nothing would pass")
    if len(result.changes) > MAX_CHANGES:
        raise Rejected("act_many", f"{len(result.changes)} row changes")
    if result.write_overlap:
        raise Rejected("write_overlap", "two actions touch the same row")
    if result.changes and sampler.oracle.order_sensitive(program, result):
        raise Rejected("order_sensitive", "a condition changes its truth during the task")
    given = [value for value in result.answer.values() if not (result.infeasible and value == [])]
    if any(value in (0, None, [], "") for value in given):
        raise Rejected("trivial_answer", "an answer field is empty or zero")
    _refuse_none(sampler, program, result)
    _refuse_poor_groups(sampler, program, result)
    for let, _ in chosen_lets(program):
        info = result.info[let.var]
        if info.nearest:
            continue
        accepted = len(info.optimal) or info.feasible
        if info.feasible < 2:
            raise Rejected("tight", "only one set is feasible")
        if accepted >= GUESS_LIMIT * info.table_sets:
            raise Rejected("loose", f"{accepted} of {info.table_sets} sets are accepted")


def refuse_guessable(answer: Mapping[str, Any], world: World, schema: Mapping[str, Any]) -> None:
    """Refuse a right answer that a guess hits too often; gate VF308 computes the same share.

    Args:
        answer: The one right answer.
        world: Where a guesser takes values from.
        schema: JSON Schema of the answer.

    Raises:
        Rejected: `guessable`.
    """
    share = guess_share(answer, columns_of(world), schema)
    if share >= GUESS_LIMIT:
        raise Rejected("guessable", f"a guess at the answer is right once in {1 / share:.0f} tries")


def refuse_told(user: Sequence[Fact], prompt: str, solution: str) -> None:
    """Refuse what only the user is to know and stands in prompt or solution; gate EX212 looks for the same values.

    Args:
        user: What the user knows.
        prompt: The prompt.
        solution: Source of the solution.

    Raises:
        Rejected: `told`.
    """
    for fact in user:
        for value in fact.values:
            for where, text in (("prompt", prompt), ("solution", solution)):
                if stands_in(value, text):
                    raise Rejected("told", f"{value!r}, which only the user knows, stands in the {where}")


def _refuse_none(sampler: Sampler, program: Task, result: OracleResult) -> None:
    """Refuse a value that stands for "there is none" as an answer, or as the extreme that is asked for.

    Raises:
        Rejected: `no_route`.
    """
    picks = {step.var: step.node for step in program.steps if isinstance(step, Let) and isinstance(step.node, Pick)}
    values: list[tuple[str, str, object]] = [
        (pick.entity, pick.attr.name, result.info[var].best) for var, pick in picks.items()
    ]
    values += [
        (picks[operand.var].entity, operand.attr.name, result.answer[field])
        for field, operand in program.report
        if isinstance(operand, Of) and operand.var in picks
    ]
    for entity, name, value in values:
        type_ = sampler.world.attr_type(entity, name)
        if type_ is not None and value in NO_ROUTE.get(type_.detail, ()):
            raise Rejected("no_route", f"{name} is {value}, which stands for none")


def _refuse_poor_groups(sampler: Sampler, program: Task, result: OracleResult) -> None:
    """Refuse a comparison of groups that compares nothing, or whose winner a reader may see elsewhere.

    Raises:
        Rejected: `lone_group`, `no_share` or `no_route`.
    """
    for let in lets(program, GroupBy):
        node, info = let.node, result.info[let.var]
        assert isinstance(node, GroupBy)
        if info.second is None:
            raise Rejected("lone_group", f"{let.var} compares one {node.rel} with no other")
        if node.dir == "max" and info.best is not None and info.best <= 0:
            raise Rejected("no_share", f"{let.var} has a total of {info.best}, as little as without rows")
        if node.attr is None:
            continue
        type_ = sampler.world.attr_type(node.entity, node.attr.name)
        none = NO_ROUTE.get(type_.detail, ()) if type_ is not None else ()
        if any(value in none for value in sampler.numbers(node.entity, info.ids, node.attr).values()):
            raise Rejected("no_route", f"a total of {node.attr.name} takes in a value that stands for none")
