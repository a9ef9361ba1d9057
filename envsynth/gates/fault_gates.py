"""Gates EX210 and DF404: do the faults of a task happen, and does a change that timed out have to be looked for?"""

from __future__ import annotations

from collections import Counter

from envsynth.environments.faults import FAULT_ERRORS
from envsynth.environments.tools import check_arguments
from envsynth.gates.case import Case
from envsynth.gates.catalogue import failed, gate, skipped
from envsynth.report import Finding, GateResult


@gate("EX210", "faults happen, and their errors are explained")
def faults_happen(case: Case) -> GateResult:
    """Count the solution's calls of each tool, as the fault schedule does, and look for the errors in prompt and policy.

    Every call that the schedule fails must be made by the solution, which recovers from all of them (EX201).

    Why: a fault that no honest episode meets makes a task of the class `recover` that tests nothing; and an actor who was
    never told what `timeout` leaves open can only guess. Fix: schedule faults on calls that every solution makes; say in
    prompt or policy what a call that ends in `timeout` or `unavailable` has done.
    """
    faults = case.task.faults
    if not faults:
        return skipped("EX210", "no call fails")
    made: Counter[str] = Counter()
    for turn in case.gold.turns:
        tool = None if turn.call is None else case.spec.tool(turn.call.tool)
        if tool is not None and turn.call is not None and check_arguments(tool, turn.call.arguments) is None:
            made[tool.name] += 1
    findings = [
        Finding(
            code="EX210",
            message=f"{fault.kind} at call {fault.call} of {fault.tool!r} never happens: the solution makes {made[fault.tool]}",
            where=f"task.faults[{index}]",
            fix="fail calls that every solution makes",
        )
        for index, fault in enumerate(faults)
        if made[fault.tool] < fault.call + fault.calls - 1
    ]
    public = "\n".join([case.task.prompt, *case.spec.policy]).lower()
    findings += [
        Finding(
            code="EX210",
            message=f"neither prompt nor policy says what a call that ends in {error} has done",
            where="task.prompt",
            fix=f"say what {error} means",
        )
        for error in dict.fromkeys(FAULT_ERRORS[fault.kind][0] for fault in faults)
        if error not in public
    ]
    return failed("EX210", findings, faults=sum(fault.calls for fault in faults))


@gate("DF404", "a change that timed out must be looked for")
def faults_bind(case: Case) -> GateResult:
    """Play the solvers that never call again (`no_retry`) or repeat without a look (`blind_retry`): both must fail.

    The latter is played where a change times out. A repetition that is refused counts as a success for it, as it would
    for a careless actor.

    Why: where a change can be made twice without harm, whoever repeats it blindly is right, and the fault tests patience
    alone. Fix: let a change lose its reply that is another one when it is made twice.
    """
    faults = case.task.faults
    if not faults:
        return skipped("DF404", "no call fails")
    if not case.task.ablations:
        return skipped("DF404", "the solution has no ablations")
    writes = {tool.name for tool in case.spec.tools if tool.effect == "write"}
    in_doubt = any(FAULT_ERRORS[fault.kind][0] == "timeout" and fault.tool in writes for fault in faults)
    wanted = ["no_retry", *(["blind_retry"] if in_doubt else [])]
    verdicts = case.ablated([skill for skill in wanted if skill in case.task.ablations])
    findings: list[Finding] = []
    for skill in wanted:
        if skill not in verdicts:
            findings.append(Finding(code="DF404", message=f"the ladder has no {skill}", where="task.ablations"))
        elif verdicts[skill].status == "void":
            message = f"no judgement without {skill}: {verdicts[skill].failure}"
            finding = Finding(code="DF404", message=message, fix="run the check again")
            return GateResult(code="DF404", status="void", findings=(finding,))
        elif verdicts[skill].status == "pass":
            fix = "fail a call whose change is another one when it is made twice"
            findings.append(Finding(code="DF404", message=f"{skill} passes", where="task.faults", fix=fix))
    return failed("DF404", findings, in_doubt=in_doubt)
