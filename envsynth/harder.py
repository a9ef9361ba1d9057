"""Whether a child is harder than its parent: what the ladder of skill-ablated solvers says, and the careless ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from envsynth.gates import Case, Rehearsal
from envsynth.report import Finding, GateReport, GateResult
from envsynth.spec import TaskVersion


@dataclass(frozen=True)
class Step:
    """One accepted version of a lineage."""

    task: TaskVersion
    """The version."""
    report: GateReport
    """Its gates."""

    @property
    def skills(self) -> frozenset[str]:
        """Skills whose ablation fails: what the task needs."""
        skills = self.report.evidence("DF401").get("skills")
        return frozenset(str(skill) for skill in skills) if isinstance(skills, list) else frozenset()

    @property
    def calls(self) -> int:
        """Tool calls of the gold run."""
        calls = self.report.evidence("EX201").get("calls")
        return calls if isinstance(calls, int) else 0


LESS = 2
"""By how many fewer careless solvers must pass a child than its parent, where it needs no new skill."""


def may_need_something_new(case: Case, parent: Step) -> bool:
    """Tell whether a skill that the parent does not need may be necessary; a void run leaves that open."""
    verdicts = case.ablated(skill for skill in case.task.ablations if skill not in parent.skills)
    return any(verdict.status != "pass" for verdict in verdicts.values())


Passing = tuple[int, int, int]
"""Careless solvers: how many pass the parent, how many the child, how many there are."""


def fewer_pass(
    solvers: Sequence[Mapping[str, JsonValue]], case: Case, parent: Step, rehearsal: Rehearsal | None
) -> Passing | None:
    """Compare how many careless solvers pass a candidate and its parent.

    Args:
        solvers: What each overwrites in the solution.
        case: The candidate.
        parent: The version that it should be harder than.
        rehearsal: Where they are played.

    Returns:
        The numbers when notably fewer pass the candidate; None when they do not, or nobody can tell.
    """
    if rehearsal is None or not solvers:
        return None
    if parent.task.hash not in rehearsal.passing:
        with Case(case.spec, parent.task, case.jail, rehearsal=rehearsal) as before:
            rehearsal.passing[parent.task.hash] = before.passing(solvers)
    passed = rehearsal.passing[parent.task.hash]
    if passed is None or sum(passed) < LESS:
        return None
    most = sum(passed) - LESS
    # Who passes the parent mostly passes the child as well: so few of them tell that too many do.
    order = sorted(range(len(solvers)), key=lambda number: not passed[number])
    found = 0
    for part in (order[: most + 1], order[most + 1 :]):
        passes = case.passing([solvers[number] for number in part])
        if passes is None:
            return None
        found += sum(passes)
        if found > most:
            return None
    return sum(passed), found, len(solvers)


def harder(step: Step, parent: Step | None, careless: Passing | None) -> GateResult:
    """DF402: a child needs a skill that its parent did not need, and more skills in all; or fewer careless solvers pass."""
    if parent is None:
        why = "a root has no parent" if step.task.lineage.parent is None else "another measure decides"
        return GateResult(code="DF402", status="skipped", evidence={"why": why})
    new = sorted(step.skills - parent.skills)
    evidence: dict[str, JsonValue] = {
        "new": [*new],
        "lost": [*sorted(parent.skills - step.skills)],
        "calls_before": parent.calls,
        "calls": step.calls,
    }
    if careless is not None:
        evidence |= dict(zip(("careless_before", "careless", "careless_solvers"), careless, strict=True))
    fewer = careless is not None and step.skills >= parent.skills
    if fewer or (new and len(step.skills) > len(parent.skills)):
        return GateResult(code="DF402", status="pass", evidence=evidence)
    message = f"needs {len(step.skills)} skills, its parent {len(parent.skills)}; new: {', '.join(new) or 'none'}"
    finding = Finding(code="DF402", message=message, where="task", fix="another operator")
    return GateResult(code="DF402", status="fail", findings=(finding,), evidence=evidence)
