"""Gates EX214, EX213 and DF408: a task gets by with what it is given, and its limit of calls is why wasteful solvers fail."""

from __future__ import annotations

import re

from envsynth.gates.case import Case
from envsynth.gates.catalogue import failed, gate, skipped
from envsynth.report import Finding, GateResult

LEAST_ROOM = 1.3
"""A limit of tool calls is at least so many times what the solution makes."""
WASTEFUL = ("spendthrift", "brute_force")
"""Solvers that make more calls than they need."""


@gate("EX214", "the limit of tool calls leaves room")
def calls_are_enough(case: Case) -> GateResult:
    """Compare the limit of tool calls with the solution's own calls: at least 1.3 times as many.

    Why: below them nobody can do the task, and at them one refused call ends an honest attempt. Fix: raise
    `delivery.max_calls`.
    """
    limit = case.task.delivery.max_calls
    if limit is None:
        return skipped("EX214", "tool calls are not limited")
    calls = case.gold.n_calls
    findings = (
        []
        if limit >= LEAST_ROOM * calls
        else [
            Finding(
                code="EX214",
                message=f"the solution makes {calls} tool calls, the limit is {limit}",
                where="task.delivery.max_calls",
                fix=f"at least {LEAST_ROOM:g} times the solution's calls",
            )
        ]
    )
    return failed("EX214", findings, calls=calls, max_calls=limit)


@gate("EX213", "withheld tools are not needed, nor spoken of")
def tools_are_withheld(case: Case) -> GateResult:
    """Look for withheld tools in the calls of the solution, in prompt, policy and the documentation of the other tools.

    Why: a solution that calls a tool which its actor does not have proves nothing; and who is sent to a tool that there is
    not looks for it in vain. Fix: withhold a tool that another one can stand for, and that nobody mentions.
    """
    withheld = case.task.delivery.withheld
    if not withheld:
        return skipped("EX213", "no tool is withheld")
    called = {turn.call.tool for turn in case.gold.turns if turn.call is not None}
    left = [tool for tool in case.spec.tools if tool.name not in withheld]
    texts = [case.task.prompt, *case.spec.policy, *(f"{tool.description} {tool.returns}" for tool in left)]
    words = {word for text in texts for word in re.findall(r"\w+", text)}
    findings = [
        Finding(
            code="EX213", message=f"{problem} {name!r}", where="task.delivery.withheld", fix="withhold another tool"
        )
        for problem, where in (("the solution calls", called), ("prompt, policy or another tool speaks of", words))
        for name in withheld
        if name in where
    ]
    return failed("EX213", findings, withheld=[*withheld])


@gate("DF408", "wasted tool calls are missing in the end")
def waste_fails(case: Case) -> GateResult:
    """Play the solvers that waste calls, with the limit and without: they fail with it, and because of it alone.

    They are `spendthrift`, which remembers only what it has read last and reads anew for each
    description, and `brute_force`, which reads all rows of
    everything first.

    Why: a limit that nobody meets who wastes calls makes nothing harder; and a wasteful solver that fails anyway shows
    nothing about the limit. Fix: lower `delivery.max_calls`, or limit the calls of a task that has more to read.
    """
    limit = case.task.delivery.max_calls
    if limit is None:
        return skipped("DF408", "tool calls are not limited")
    if not case.task.ablations:
        return skipped("DF408", "the solution has no ablations")
    known = [skill for skill in WASTEFUL if skill in case.task.ablations]
    findings = [
        Finding(code="DF408", message=f"the ladder has no {skill}", where="task.ablations")
        for skill in WASTEFUL
        if skill not in known
    ]
    verdicts, free = case.ablated(known), case.without_limit(known)
    for skill in known:
        for verdict in (verdicts[skill], free[skill].verdict):
            if verdict.status == "void":
                message = f"no judgement of {skill}: {verdict.failure}"
                finding = Finding(code="DF408", message=message, fix="run the check again")
                return GateResult(code="DF408", status="void", findings=(finding,))
        if verdicts[skill].status == "pass":
            message = f"{skill} passes with {free[skill].calls} of {limit} calls"
            findings.append(Finding(code="DF408", message=message, where="task.delivery", fix="lower the limit"))
        elif free[skill].verdict.status != "pass":
            message = f"{skill} fails without the limit as well"
            findings.append(
                Finding(code="DF408", message=message, where="task.ablations", fix="let it waste calls only")
            )
    return failed("DF408", findings, max_calls=limit, **{skill: free[skill].calls for skill in known})
