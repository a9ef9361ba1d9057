"""ST610: does every knob that makes tasks harder turn that way?"""

from __future__ import annotations

from math import inf, sqrt

from pydantic import JsonValue

from envsynth.report import Finding, GateResult
from envsynth.set_audit.catalogue import SetCase, rule
from envsynth.set_audit.measured import Solved

ONE_SIDED = 1.645
"""Quantile of the normal distribution at 95 %."""


@rule("ST610", "no operator makes tasks easier")
def knobs_turn_one_way(case: SetCase) -> GateResult:
    """Compare how often the two versions of hardening steps are solved, for each operator and solver.

    Each operator is a knob, and each step turns it by one. Solvers are those of the ladder, counted over every skill that
    the set needs, and every actor that both versions were calibrated with. The rate of the children must not be higher than
    that of their parents: a one-sided Wald test over all steps of an operator, at 5 %, as in ReSyn. Tries of one task count
    as independent ones, which makes the test the stricter. Fewer than 20 tries are not judged.

    Only a store knows reports and calibrations; a suite file has neither, so nothing is judged there.

    Why: a curriculum, and a hard tier, are made by turning knobs. One that makes tasks easier does the opposite, and no
    single task shows it.

    Fix: hold the operator's tasks against their parents, and leave the operator out until its steps bind.
    """
    totals: dict[tuple[str, str], tuple[int, Solved, Solved]] = {}
    for turn in case.members.turns:
        steps, before, after = totals.get((turn.operator, turn.solver), (0, (0, 0), (0, 0)))
        totals[turn.operator, turn.solver] = (steps + 1, _sum(before, turn.before), _sum(after, turn.after))
    judged = {
        key: found for key, found in sorted(totals.items()) if found[1][0] >= case.limits.judged_from <= found[2][0]
    }
    if not judged:
        why = f"no operator has steps whose two versions were tried {case.limits.judged_from} times by the same solver"
        return GateResult(code="ST610", status="skipped", evidence={"why": why})
    findings: list[Finding] = []
    evidence: dict[str, JsonValue] = {}
    for (operator, solver), (steps, before, after) in judged.items():
        rates = before[1] / before[0], after[1] / after[0]
        evidence[f"{operator}, {solver}"] = {"steps": steps, "before": round(rates[0], 3), "after": round(rates[1], 3)}
        if _rise(before, after) > ONE_SIDED:
            message = f"{solver} solves {rates[1]:.1%} of what {operator} made, and {rates[0]:.1%} of the parents"
            findings.append(
                Finding(code="ST610", message=f"{message} ({steps} steps)", where=operator, fix="leave it out")
            )
    status = "fail" if findings else "pass"
    return GateResult(code="ST610", status=status, findings=tuple(findings), evidence=evidence)


def _sum(one: Solved, other: Solved) -> Solved:
    return one[0] + other[0], one[1] + other[1]


def _rise(before: Solved, after: Solved) -> float:
    """By how many standard errors the second rate is higher (Wald)."""
    low, high = before[1] / before[0], after[1] / after[0]
    error = sqrt(low * (1 - low) / before[0] + high * (1 - high) / after[0])
    return (high - low) / error if error else (inf if high > low else 0.0)
