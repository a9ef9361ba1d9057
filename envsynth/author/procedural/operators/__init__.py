"""Hardening operators: each edits a task program (or its distractor rows) so that one more skill is needed.

An operator knows types, never mechanisms. It proposes; the binding test then asks the oracle whether the edit does what
the operator is for, and gates and the ladder decide whether the child is harder. `applicable` says cheaply whether there
is a site at all.
"""

from __future__ import annotations

from envsynth.author.procedural.ir import (
    Act,
    Budget,
    Caution,
    Choose,
    Const,
    Count,
    ForEach,
    GroupBy,
    If,
    Named,
    Only,
    Pick,
    Sum,
    Task,
    To,
    Try,
)
from envsynth.author.procedural.operators.aggregate import add_total
from envsynth.author.procedural.operators.ask import ask_user
from envsynth.author.procedural.operators.binding import binding_failure, nonbinding_atom
from envsynth.author.procedural.operators.branch import add_branch
from envsynth.author.procedural.operators.budget import add_budget
from envsynth.author.procedural.operators.conceal import conceal
from envsynth.author.procedural.operators.constraint import MAX_ATOMS, add_constraint
from envsynth.author.procedural.operators.couple import couple
from envsynth.author.procedural.operators.distractors import MAX_OVERLAY, add_distractors
from envsynth.author.procedural.operators.edit import Edit, Operator, delivered, has, is_request
from envsynth.author.procedural.operators.faults import add_faults
from envsynth.author.procedural.operators.group import add_group
from envsynth.author.procedural.operators.hop import add_hop
from envsynth.author.procedural.operators.horizon import add_horizon
from envsynth.author.procedural.operators.infeasible import make_infeasible
from envsynth.author.procedural.operators.optimise import add_goal
from envsynth.author.procedural.operators.policy import add_policy_rule
from envsynth.author.procedural.operators.side_effect import MAX_ACTS, add_side_effect
from envsynth.author.procedural.operators.withhold import withhold, without_tools
from envsynth.author.procedural.sites import chosen_lets

__all__ = [
    "MAX_ACTS",
    "MAX_ATOMS",
    "MAX_OVERLAY",
    "OPERATORS",
    "Edit",
    "Operator",
    "binding_failure",
    "delivered",
    "nonbinding_atom",
    "without_tools",
]


def _n_acts(task: Task) -> int:
    return sum(is_request(step) or isinstance(step, (If, ForEach)) for step in task.steps)


def _can_act_more(task: Task) -> bool:
    return _n_acts(task) < MAX_ACTS and has(task, Pick, Only, To, GroupBy)


def _can_branch(task: Task) -> bool:
    return _n_acts(task) == 1 and any(map(is_request, task.steps)) and has(task, Pick, To, GroupBy)


def _can_couple(task: Task) -> bool:
    return has(task, Pick, Only, To, GroupBy) and not chosen_lets(task)


def _can_widen(task: Task) -> bool:
    return any(is_request(step) and len(step.args) == 1 for step in task.steps)


def _can_optimise(task: Task) -> bool:
    return any(node.goal is None for _, node in chosen_lets(task))


def _can_be_infeasible(task: Task) -> bool:
    return any(node.or_none for _, node in chosen_lets(task)) and not has(task, Act, ForEach)


def _can_fail(task: Task) -> bool:
    return has(task, Act, ForEach) and not has(task, Caution, Try)


OPERATORS: dict[str, Operator] = {
    item.name: item
    for item in (
        Operator(
            "constraint",
            "adds a condition to a description",
            lambda task: has(task, Pick, Count, Sum, Choose, GroupBy),
            add_constraint,
        ),
        Operator("hop", "replaces a named row by a description of it", lambda task: has(task, Named), add_hop),
        Operator("side_effect", "demands an action on what was found", _can_act_more, add_side_effect),
        Operator(
            "distractors",
            "adds rows that a careless reader takes",
            lambda task: has(task, Named, Pick, Count, Sum, Choose, GroupBy),
            add_distractors,
        ),
        Operator("branch", "makes the action depend on a fact", _can_branch, add_branch),
        Operator("optimise", "asks for the best choice instead of any", _can_optimise, add_goal),
        Operator("aggregate", "replaces a number by a total", lambda task: has(task, Const), add_total),
        Operator(
            "group", "asks which row the most or fewest others belong to", lambda task: has(task, Named), add_group
        ),
        Operator("conceal", "describes a named row instead of naming it", lambda task: has(task, Named), conceal),
        Operator("couple", "asks a question about what was found", _can_couple, couple),
        Operator("infeasible", "tightens a bound until no set meets it", _can_be_infeasible, make_infeasible),
        Operator("horizon", "demands an action on every row that fits", _can_widen, add_horizon),
        Operator("faults", "lets tools fail, also behind a change that was made", _can_fail, add_faults),
        Operator(
            "policy",
            "makes a rule of the policy decide",
            lambda task: has(task, Pick, Count, Sum, Choose, GroupBy),
            add_policy_rule,
        ),
        Operator("ask", "lets the user alone know a value", lambda task: has(task, Const, Named), ask_user),
        Operator("budget", "limits the number of tool calls", lambda task: not has(task, Budget), add_budget),
        Operator("withhold", "withholds a tool that finds by name", lambda task: has(task, Named), withhold),
    )
}
"""All operators by name."""
