"""Skills of the solver, and which of them a task calls for."""

from __future__ import annotations

from collections.abc import Mapping

from envsynth.author.procedural.ir import (
    Act,
    Asked,
    Atom,
    Budget,
    Caution,
    Choose,
    Con,
    Count,
    ForEach,
    GroupBy,
    If,
    Named,
    Only,
    Pick,
    Reach,
    Sum,
    Task,
    lets,
    walk,
)
from envsynth.author.procedural.planner.texts import PlannerWorld, mentions, needed_texts

FLAGS: Mapping[str, bool | str | int] = {
    "PAGES": True,
    "POLICY": True,
    "FIRST": False,
    "GREEDY": False,
    "BRANCH": True,
    "WRITES": True,
    "FUZZY": False,
    "STRICT": True,
    "NONE": True,
    "TOTALS": True,
    "SLIPS": 0,
    "CHECKS": True,
    "ATOMS": "all",
}
"""Module-level names of every solver and their values with all skills."""

FAULT_FLAGS: Mapping[str, bool | str | int] = {"RETRY": True, "DOUBT": "look"}
"""Those of a solver whose task warns of tools that fail, besides."""

ASK_FLAGS: Mapping[str, bool | str | int] = {"ASKS": True}
"""Those of a solver whose task has a user to ask, besides."""
BUDGET_FLAGS: Mapping[str, bool | str | int] = {"READS": "once"}
"""Those of a solver whose tool calls are limited, besides."""

SKILLS: Mapping[str, Mapping[str, bool | str | int]] = {
    "no_pagination": {"PAGES": False},
    "first_match": {"FIRST": True},
    "greedy": {"GREEDY": True},
    "no_branch": {"BRANCH": False},
    "ignores_policy": {"POLICY": False},
    "never_writes": {"WRITES": False},
    "fuzzy_name": {"FUZZY": True},
    "wrong_boundary": {"STRICT": False},
    "first_constraint_only": {"ATOMS": "first"},
    "no_filter": {"ATOMS": "none"},
    "no_aggregation": {"TOTALS": False},
    "assumes_feasible": {"NONE": False},
    "no_retry": {"RETRY": False},
    "blind_retry": {"DOUBT": "repeat"},
    "assumes_done": {"DOUBT": "made"},
    "fixes_first_symptom": {"CHECKS": False},
    "never_asks": {"ASKS": False},
    "spendthrift": {"READS": "again"},
    "brute_force": {"READS": "all"},
}
"""Each ablation: the names that are overwritten after the source is loaded."""

CARELESS: tuple[Mapping[str, int], ...] = tuple({"SLIPS": number} for number in range(1, 13))
"""Careless solvers, each with slips of its own at an eighth of its decisions: what they overwrite."""

_ORDERED = ("<", "<=", ">", ">=")


def applicable_skills(world: PlannerWorld, task: Task) -> list[str]:
    """Name the skills that a task calls for; ablating any other skill changes nothing.

    Args:
        world: The composition.
        task: A well-typed program.

    Returns:
        Names of `SKILLS` in their order. `no_pagination` is among them where listings have pages: whether one has a second
        depends on the rows.
    """
    nodes = list(walk(task))
    texts = needed_texts(world, task)
    open_ended = any(isinstance(node, Choose) and node.or_none for node in nodes)
    goals = open_ended or any(isinstance(node, Choose) and node.goal for node in nodes)
    widths = [len(node.atoms) for node in nodes if isinstance(node, (Pick, Only, Count, Sum, Choose, GroupBy, ForEach))]
    in_play = {
        "no_pagination": world.style.paging != "none",
        "first_match": any(isinstance(node, (Pick, Choose, GroupBy)) for node in nodes),
        "greedy": goals or mentions(texts, "GREEDY"),
        "no_branch": any(isinstance(node, If) for node in nodes),
        "ignores_policy": mentions(texts, "POLICY"),
        "never_writes": any(isinstance(node, (Act, ForEach)) for node in nodes),
        "fuzzy_name": any(_is_name(node) for node in nodes),
        "wrong_boundary": any(isinstance(node, (Atom, Con, If)) and node.op in _ORDERED for node in nodes),
        "first_constraint_only": any(width > 1 for width in widths),
        "no_filter": any(width > 0 for width in widths),
        "no_aggregation": any(isinstance(node, (Sum, GroupBy, Reach)) for node in nodes),
        "assumes_feasible": open_ended,
        **dict.fromkeys(("no_retry", "blind_retry", "assumes_done"), Caution() in task.steps),
        "fixes_first_symptom": mentions(texts, "CHECKS"),
        "never_asks": bool(lets(task, Asked)),
        **dict.fromkeys(("spendthrift", "brute_force"), Budget() in task.steps),
    }
    return [skill for skill in SKILLS if in_play[skill]]


def _is_name(node: object) -> bool:
    return (isinstance(node, Named) and node.by == "name") or (isinstance(node, Asked) and node.kind == "row")
