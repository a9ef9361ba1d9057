"""What an operator is, and what it proposes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydantic import JsonValue

from envsynth.author.procedural.ir import Task, walk
from envsynth.author.procedural.oracle import OracleResult
from envsynth.author.procedural.sampling import Overlay, Sampler
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


def has(task: Task, *classes: type) -> bool:
    """Whether the program holds a node of one of the classes."""
    return any(isinstance(node, classes) for node in walk(task))


def winner(result: OracleResult, var: str) -> int | str:
    """The id of the row that a variable denotes.

    Raises:
        Rejected: `no_row` when it denotes a set.
    """
    value = result.bindings[var]
    if isinstance(value, list):
        raise Rejected("no_row", f"{var} is a set")
    return value
