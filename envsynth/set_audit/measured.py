"""How often both versions of a hardening step were solved: by the ladder of their reports, and by calibrated actors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from envsynth.store import Store, TaskEntry

LADDER = "the ladder"
"""Names the skill-ablated solvers among those that were counted."""

Solved = tuple[int, int]
"""Tries, and passes among them."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One hardening step whose two versions were measured with the same solvers."""

    operator: str
    """Operator of the step: the knob that was turned."""
    solver: str
    """Who solved: the ladder, or an actor."""
    before: Solved
    """The parent."""
    after: Solved
    """The child."""


def read_turns(store: Store, tasks: Iterable[str]) -> list[Turn]:
    """Read what a store knows of the hardening steps that led to tasks.

    The ladder counts every skill that some of these versions need: a solver that lacks a skill which does not come up in a
    task solves it as the whole planner does.

    Args:
        store: The store; nothing is played.
        tasks: Hashes of task versions; those that the store lacks tell nothing.

    Returns:
        The steps, each once for each solver.
    """
    entries = {entry.hash: entry for entry in store.task_entries()}
    line = list(dict.fromkeys(step for task in tasks for step in _line(task, entries)))
    rates = _ladder(store, line)
    for calibration in store.calibrations():
        stages = [stage for stage in (calibration.pilot, calibration.more) if stage is not None]
        counts = sum(stage[0] for stage in stages), sum(stage[1] for stage in stages)
        rates.setdefault(calibration.actor, {})[calibration.task] = counts
    return [
        Turn(operator=entry.operator, solver=solver, before=found[entry.parent], after=found[entry.hash])
        for entry in map(entries.__getitem__, line)
        for solver, found in rates.items()
        if entry.operator is not None and entry.parent in found and entry.hash in found
    ]


def _line(task: str, entries: Mapping[str, TaskEntry]) -> Iterator[str]:
    digest: str | None = task
    while digest is not None and digest in entries:
        yield digest
        digest = entries[digest].parent


def _ladder(store: Store, tasks: list[str]) -> dict[str, dict[str, Solved]]:
    failing: dict[str, int] = {}
    known: set[str] = set()
    for report in store.latest_reports(tasks):
        skills = report.evidence("DF401").get("skills")
        if isinstance(skills, list):
            failing[report.task] = len(skills)
            known.update(map(str, skills))
    return {LADDER: {task: (len(known), len(known) - count) for task, count in failing.items()}} if known else {}
