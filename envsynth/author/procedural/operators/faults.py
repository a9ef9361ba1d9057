"""H9: let tools fail by a schedule, so that a change which timed out must be looked for before it is made again."""

from __future__ import annotations

import random
from collections import Counter

from pydantic import JsonValue

from envsynth.author.procedural.ir import Caution, Task, Try
from envsynth.author.procedural.operators.edit import Edit, has
from envsynth.author.procedural.oracle import OracleResult, done_twice
from envsynth.author.procedural.sampling import Sampler
from envsynth.delivery import Fault, FaultKind
from envsynth.errors import Rejected

BEFORE_THE_LOSS: tuple[tuple[FaultKind, ...], ...] = (
    *((), ("unavailable",), ("timeout_before", "unavailable")),
    *(("timeout_before",), ("timeout_before",)),
)
"""How calls of the changing tool fail before the one whose change is made and whose reply is lost.

Where one timed out without effect before, neither who always repeats nor who never does is right.
"""
READ_FAULTS = 0.6
"""Share of schedules in which a listing fails as well."""


def add_faults(sampler: Sampler, task: Task, result: OracleResult) -> Edit:
    """H9: fail calls of a tool whose change, when it is made twice, is another one; the outcome stays.

    Args:
        sampler: Draws over the parent's world and overlay.
        task: The parent's program.
        result: The parent's oracle result.

    Returns:
        The proposal, with its schedule.

    Raises:
        Rejected: `no_site` where tools fail already, nothing is changed or a refusal has a meaning of its own;
            `nonbinding` where no action changes more when it is done twice.
    """
    if not result.changes or has(task, Caution, Try):
        raise Rejected("no_site", "nothing is changed, a refusal has a meaning, or tools fail already")
    used: Counter[str] = Counter()
    sites: list[tuple[str, str, int]] = []
    for op, binds in done_twice(sampler.world, sampler.connection, task):
        for tool in sampler.world.actions[op].calls:
            used[tool] += 1
            if binds:
                sites.append((op, tool, used[tool]))
    if not sites:
        raise Rejected("nonbinding", "no action changes more when it is done twice")
    op, tool, call = sampler.rng.choice(sites)
    listings = [sampler.world.access[entity].list_tool for entity in sampler.world.actions[op].tables]
    faults = (*_lost(sampler.rng, tool, call), *_unread(sampler.rng, listings))
    params: dict[str, JsonValue] = {"tool": tool, "faults": len(faults)}
    return Edit(Task((*task.steps, Caution()), task.report), sampler.overlay, params, faults)


def _lost(rng: random.Random, tool: str, call: int) -> list[Fault]:
    """A call whose change is made and whose reply is lost, with what fails before it."""
    found: list[Fault] = []
    for kind in rng.choice(BEFORE_THE_LOSS):
        calls = rng.randint(1, 2) if kind == "unavailable" else 1
        found.append(Fault(tool=tool, call=call, kind=kind, calls=calls))
        call += calls
    return [*found, Fault(tool=tool, call=call, kind="timeout_after")]


def _unread(rng: random.Random, listings: list[str]) -> list[Fault]:
    """Calls of a listing that fail; who looks what became of a change calls it more than once."""
    if rng.random() >= READ_FAULTS:
        return []
    kinds: tuple[FaultKind, ...] = ("unavailable", "timeout_before", "timeout_after")
    kind = rng.choice(kinds)
    return [Fault(tool=rng.choice(listings), call=rng.randint(1, 3), kind=kind, calls=rng.randint(1, 2))]
