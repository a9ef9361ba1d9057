"""Gates DF4xx: is it hard for a reason?"""

from __future__ import annotations

from envsynth.gates.case import Case
from envsynth.gates.catalogue import failed, gate, skipped
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
