"""Gates DF4xx: is it hard for a reason?"""

from __future__ import annotations

from envsynth.gates.case import Case
from envsynth.gates.catalogue import failed, gate, skipped
from envsynth.gates.walks import play_single_calls, single_calls, tells_all
from envsynth.report import Finding, GateResult


@gate("DF401", "skills are needed")
def skills_needed(case: Case) -> GateResult:
    """Play the ladder of skill-ablated solvers: the solution with one ability removed, and turns enough for detours.

    Why: the ablations that fail are the skills that the task needs: a cheap, deterministic proof of difficulty without a
    model. A task that every ablation solves is trivial. Fix: harden it.
    """
    if not case.task.ablations:
        return skipped("DF401", "the solution has no ablations")
    verdicts = case.ablated(case.task.ablations)
    for skill, verdict in verdicts.items():
        if verdict.status == "void":
            message = f"no judgement without {skill}: {verdict.failure}"
            finding = Finding(code="DF401", message=message, fix="run the check again")
            return GateResult(code="DF401", status="void", findings=(finding,))
    failing = [skill for skill, verdict in verdicts.items() if verdict.status != "pass"]
    findings = (
        []
        if failing
        else [Finding(code="DF401", message="every skill-ablated solver passes", where="task", fix="harden it")]
    )
    return failed("DF401", findings, skills=[*failing], ladder=len(case.task.ablations))


SMALL_CALLS = 2
"""Calls of a solution that is meant to be no more than a look-up."""


@gate("DF403", "no single call tells the whole answer")
def no_single_call(case: Case) -> GateResult:
    """Call each reading tool with what the prompt names, up to 48 calls, and look for a result that is the answer.

    A result is the answer when its only record holds every field, or when its records' column is the list that is asked
    for: an actor would copy it. Numbers below 1000 count only under a key that the field is named after. A task that
    asks for changes is left out: one call with the prompt's own arguments may be all of a simple root, and what the
    actor must know before it makes the call is measured by the ladder (DF401). So is one whose own solution makes no
    more than two calls: it is meant to be that small, as those of the nano tier are.

    Why: a look-up with one call tests whether the actor can copy, and its pass rate tells nothing about planning.
    Fix: describe the row by its properties, join another table, or aggregate; or split what the tool tells.
    """
    if case.task.oracle.changes:
        return skipped("DF403", "the task asks for changes")
    if not case.task.oracle.answer:
        return skipped("DF403", "the task asks for no answer")
    if case.gold.n_calls <= SMALL_CALLS:
        return skipped("DF403", f"the solution itself makes {case.gold.n_calls} calls")
    calls = single_calls(case)
    results = play_single_calls(case, calls)
    telling = [call for call, result in zip(calls, results, strict=True) if tells_all(result, case.task.oracle.answer)]
    findings = [
        Finding(code="DF403", message=f"{call.tool}({call.arguments}) tells the whole answer", where="task")
        for call in telling[:3]
    ]
    return failed("DF403", findings, calls=len(calls), answered=sum(result is not None for result in results))
