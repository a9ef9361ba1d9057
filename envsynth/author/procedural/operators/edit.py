"""What an operator is, and what it proposes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeGuard

from pydantic import JsonValue

from envsynth.author.procedural.ir import MEND, Act, Attr, GroupBy, Ref, Step, Task, walk
from envsynth.author.procedural.oracle import OracleResult
from envsynth.author.procedural.sampling import Overlay, Sampler
from envsynth.delivery import Delivery, Fault
from envsynth.errors import Rejected


@dataclass(frozen=True)
class Edit:
    """What an operator proposes: a program and its distractor rows, with what was done."""

    task: Task
    """The child's program."""
    overlay: Overlay
    """The child's distractor rows."""
    params: dict[str, JsonValue]
    """What the operator did, for the lineage."""
    faults: tuple[Fault, ...] | None = None
    """Calls that fail in the child; those of the parent when None."""
    delivery: Delivery | None = None
    """What the child takes away from its actor, or adds, besides its parent; nothing when None."""


@dataclass(frozen=True)
class Operator:
    """One hardening operator."""

    name: str
    """Name in lineages."""
    summary: str
    """One line for people."""
    applicable: Callable[[Task], bool]
    """Whether the program has a site for it."""
    apply: Callable[[Sampler, Task, OracleResult], Edit]
    """Propose a child; raises `Rejected`."""


def delivered(parent: Delivery, more: Delivery | None) -> Delivery:
    """What a child takes away or adds: what its parent does, and what the operator sets.

    Raises:
        Rejected: `no_site` where that is what the parent does already.
    """
    if more is None:
        return parent
    found = {name: getattr(more, name) for name in more.model_fields_set}
    found["withheld"] = tuple(dict.fromkeys((*parent.withheld, *more.withheld)))
    made = parent.model_copy(update=found)
    if made == parent:
        raise Rejected("no_site", "the parent is delivered so already")
    return made


def has(task: Task, *classes: type) -> bool:
    """Whether the program holds a node of one of the classes."""
    return any(isinstance(node, classes) for node in walk(task))


def is_request(step: Step) -> TypeGuard[Act]:
    """Whether a step performs an action for its own sake; to put in order what was planted is the task itself."""
    return isinstance(step, Act) and not step.op.startswith(MEND)


def mended_rows(task: Task) -> list[str]:
    """Variables of the rows that the task puts in order: a second change of one of them would be ambiguous."""
    repairs = [step for step in task.steps if isinstance(step, Act) and step.op.startswith(MEND)]
    return [node.var for node in walk(tuple(repairs)) if isinstance(node, Ref)]


def winner(result: OracleResult, var: str) -> int | str:
    """The id of the row that a variable denotes.

    Raises:
        Rejected: `no_row` when it denotes a set.
    """
    value = result.bindings[var]
    if isinstance(value, list):
        raise Rejected("no_row", f"{var} is a set")
    return value


def shares(sampler: Sampler, node: GroupBy, result: OracleResult, var: str) -> tuple[list[int | str], list[int | str]]:
    """The members of the winning group, and those of all others.

    Args:
        sampler: Draws over the task's world and overlay.
        node: The comparison.
        result: The task's oracle result.
        var: The variable that the comparison is bound to.

    Returns:
        Ids of both.
    """
    related = sampler.oracle.values(node.entity, Attr(node.rel))
    ids = result.info[var].ids
    won = [row_id for row_id in ids if related[row_id] == winner(result, var)]
    return won, [row_id for row_id in ids if row_id not in won]
