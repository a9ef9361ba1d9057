"""Places in a task program that operators edit and probes mutate: descriptions by conditions, and choices of sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from envsynth.author.procedural.ir import (
    Asked,
    Atom,
    Choose,
    Count,
    GroupBy,
    Let,
    Only,
    Pick,
    Reach,
    Sum,
    Task,
    To,
    swap,
)

Filtered = Pick | Only | Count | Sum | Choose | GroupBy
"""Descriptions that have conditions: all but following a relation, totals of chosen sets, and what a user tells."""


def filtered_lets(task: Task) -> list[tuple[Let, Filtered]]:
    """Lets whose description has conditions, each with that description."""
    return [
        (step, step.node)
        for step in task.steps
        if isinstance(step, Let) and not isinstance(step.node, (To, Reach, Asked))
    ]


def chosen_lets(task: Task) -> list[tuple[Let, Choose]]:
    """Lets that choose a set, each with the choice."""
    return [(step, step.node) for step in task.steps if isinstance(step, Let) and isinstance(step.node, Choose)]


def with_node(task: Task, let: Let, node: Filtered) -> Task:
    """The program with another description in one let."""
    return swap(task, let, Let(let.var, node))


def with_atoms(task: Task, let: Let, node: Filtered, atoms: Sequence[Atom]) -> Task:
    """The program with other conditions on the description of one let."""
    return with_node(task, let, replace(node, atoms=tuple(atoms)))
