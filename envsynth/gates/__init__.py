"""Gates: lint rules for environments, with stable codes, run on one task version in its environment version."""

from __future__ import annotations

from collections.abc import Sequence

from envsynth.errors import EnvironmentVoid, SandboxError
from envsynth.gates import (
    atom_gates,
    attack_gates,
    delivery_gates,
    difficulty_gates,
    disorder_gates,
    execution_gates,
    fault_gates,
    robustness_gates,
    security_gates,
    spec_gates,
    user_gates,
    verifier_gates,
    wording_gates,
)
from envsynth.gates.case import Case
from envsynth.gates.catalogue import Gate, all_gates, find_gate
from envsynth.gates.rehearsal import Rehearsal
from envsynth.report import Finding, GateReport, GateResult
from envsynth.sandbox import Jail, shared_jail
from envsynth.spec import EnvironmentSpec, TaskVersion

__all__ = ["Case", "Gate", "Rehearsal", "all_gates", "check", "explain", "find_gate"]

_ROOMS = (
    spec_gates,
    wording_gates,
    execution_gates,
    robustness_gates,
    security_gates,
    difficulty_gates,
    fault_gates,
    user_gates,
    delivery_gates,
    verifier_gates,
    atom_gates,
    attack_gates,
    disorder_gates,
)
"""Importing them registers their gates."""


def check(
    spec: EnvironmentSpec,
    task: TaskVersion,
    *,
    jail: Jail | None = None,
    select: Sequence[str] | None = None,
    fail_fast: bool = False,
    thorough: bool = False,
    case: Case | None = None,
) -> GateReport:
    """Run gates on a task version. A failing task is data, not an exception.

    Args:
        spec: The environment version.
        task: The task version.
        jail: Where untrusted source runs; the process's own when None.
        select: Codes to run, in catalogue order; all when None.
        fail_fast: Stop at the first gate that does not pass; the rest are `skipped`.
        thorough: Play and judge as much as the gates' statements need for a single task; a synthesis, which counts over
            many, does less. Not used when `case` is given, which has its own.
        case: A case of the same task whose cached runs are used again.

    Returns:
        The report; `report.ok` says whether all passed.

    Raises:
        SpecError: `select` names an unknown code.
    """
    wanted = {find_gate(code).code for code in select} if select is not None else None
    own = case is None
    case = case or Case(spec, task, jail or shared_jail(), thorough=thorough)
    gates = [item for item in all_gates() if wanted is None or item.code in wanted]
    results: list[GateResult] = []
    case.expect(item.outcomes for item in gates if item.outcomes is not None)
    try:
        for item in gates:
            results.append(_run(item, case, results, fail_fast=fail_fast))
    finally:
        if own:
            case.close()
    return GateReport(environment=spec.hash, task=task.hash, results=tuple(results))


def _run(item: Gate, case: Case, done: list[GateResult], *, fail_fast: bool) -> GateResult:
    """Run one gate; gates that build on a failed one are skipped, because they could only repeat its finding.

    One that loses its workers is void.
    """
    bad = [result.code for result in done if result.status in ("fail", "void")]
    if bad and (
        fail_fast
        or bad[0] in ("SP101", "SP102")
        or (
            "EX201" in bad
            and item.code in ("EX203", "EX204", "EX205", "EX210", "EX212", "SE501", "DF401", "DF404", "DF407", "DF408")
        )
        or ("EX203" in bad and item.code == "EX205")
    ):
        return GateResult(code=item.code, status="skipped", evidence={"why": f"{bad[0]} failed"})
    try:
        return item.run(case)
    except (EnvironmentVoid, SandboxError) as error:
        # A worker that is gone is no property of the task: no judgement, and so no pass either.
        finding = Finding(code=item.code, message=f"no judgement: {error}", fix="run the check again")
        return GateResult(code=item.code, status="void", findings=(finding,))


def explain(code: str) -> str:
    """Return the documentation page of a gate.

    Args:
        code: Its code.

    Returns:
        What it does, why, and how to fix a finding.

    Raises:
        SpecError: no gate has that code.
    """
    return find_gate(code).page
