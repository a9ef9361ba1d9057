"""ST601 to ST603: is no task there twice, in other words or under another name?"""

from __future__ import annotations

from envsynth.report import Finding, GateResult
from envsynth.set_audit.catalogue import SetCase, rule
from envsynth.set_audit.facts import TaskFacts
from envsynth.set_audit.overlap import nearest_earlier


@rule("ST601", "no task is there twice")
def same_task(case: SetCase) -> GateResult:
    """Compare tasks by what an actor meets: tables, rows, tools, policy, prompt, answer schema, added rows.

    Names of environments, provenance and lineage do not count, so a copy under another name or seed is found.

    Why: a task that is there twice counts twice in training and in every average, and across splits it is a leak.

    Fix: leave one of them out.
    """
    first: dict[str, TaskFacts] = {}
    findings: list[Finding] = []
    for task in case.tasks:
        known = first.setdefault(task.content, task)
        if known is not task:
            findings.append(_finding("ST601", case, task, known, "is the same as"))
    return _result("ST601", findings, tasks=len(case.tasks), distinct=len(first))


@rule("ST602", "no two prompts are nearly the same")
def near_prompts(case: SetCase) -> GateResult:
    """Compare the sets of five words in a row of all prompts; two tasks whose Jaccard index is above 0.8 are found.

    The comparison is exact, not a sketch. Each task is told with the earlier one that it resembles most. A version and
    those that it was hardened from are not compared: an operator that adds rows leaves the prompt as it is.

    Why: a prompt with one other number is no second task for a policy that learns the words, and text is what deduplicators
    of other people's pipelines look at.

    Fix: leave one of them out, or audit the last versions of lineages only.
    """
    tasks, limits = case.tasks, case.limits
    lines = [frozenset(case.line(task)) for task in tasks]

    def related(one: int, other: int) -> bool:
        # The same version twice is ST601's business.
        return tasks[one].hash in lines[other] or tasks[other].hash in lines[one]

    found = nearest_earlier([task.words for task in tasks], limits.shingle, limits.near, related)
    findings = [
        _finding("ST602", case, tasks[pair.later], tasks[pair.earlier], f"is worded ({pair.jaccard:.2f}) like")
        for pair in found
    ]
    return _result("ST602", findings, tasks=len(tasks))


@rule("ST603", "no program is there twice with the same answer")
def same_program(case: SetCase) -> GateResult:
    """Compare tasks by the skeleton of their program, their right outcome and the structure of their world.

    A skeleton is a task program without words and constants. Versions of one lineage are not compared with each other.
    The same skeleton and answer in a world of another structure is counted as `elsewhere`, and no finding: small numbers
    coincide.

    Why: other names for the same rows read like another task and are the same one; only its program shows it.

    Fix: leave one of them out.
    """
    first: dict[tuple[str, str, str], list[TaskFacts]] = {}
    worlds: dict[tuple[str, str], dict[str, None]] = {}
    findings: list[Finding] = []
    for task in case.tasks:
        if task.program is None:
            continue
        alike = first.setdefault((task.world.signature, task.program, task.outcome), [])
        worlds.setdefault((task.program, task.outcome), {})[task.world.signature] = None
        line = frozenset(case.line(task))
        known = next((other for other in alike if other.hash not in line and task.hash not in case.line(other)), None)
        alike.append(task)
        if known is not None:
            findings.append(_finding("ST603", case, task, known, "has program and answer of"))
    programs = sum(task.program is not None for task in case.tasks)
    if not programs:
        return GateResult(code="ST603", status="skipped", evidence={"why": "no task has a program that can be read"})
    return _result(
        "ST603",
        findings,
        programs=programs,
        unreadable=sum(task.unreadable for task in case.tasks),
        elsewhere=sum(len(found) - 1 for found in worlds.values()),
    )


def _finding(code: str, case: SetCase, task: TaskFacts, known: TaskFacts, what: str) -> Finding:
    message = f"{case.place(task)} {what} {case.place(known)}"
    return Finding(code=code, message=message, where=task.hash, fix="leave one of them out")


def _result(code: str, findings: list[Finding], **evidence: int) -> GateResult:
    status = "fail" if findings else "pass"
    return GateResult(code=code, status=status, findings=tuple(findings), evidence={**evidence, "found": len(findings)})
