"""Gates EX2xx: does it play as it should?"""

from __future__ import annotations

from envsynth.actors import OracleActor
from envsynth.gates.case import Case
from envsynth.gates.catalogue import failed, gate, passed
from envsynth.report import Finding, GateResult
from envsynth.trajectory import StopReason, Trajectory


def _void(code: str, run: Trajectory) -> GateResult:
    message = f"infrastructure failed, no judgement: {run.verdict.failure}"
    return GateResult(
        code=code, status="void", findings=(Finding(code=code, message=message, fix="run the check again"),)
    )


@gate("EX201", "solvable through tools alone")
def solvable(case: Case) -> GateResult:
    """Play the solution: tools with their database, solution and verifier each in a sandbox worker of its own.

    Why: an unsolvable task teaches nothing and measures nothing. The solution sees only what an actor sees. Fix: mend
    the solution, the tools, or the goal atom that the message names.
    """
    run = case.gold
    if run.void:
        return _void("EX201", run)
    if run.verdict.status != "pass":
        detail = ", ".join(run.verdict.failed) or (run.turns[-1].observation[:120] if run.turns else "no turn")
        message = f"the solution ends with {run.stop.value}, failing {detail}"
        return failed("EX201", [Finding(code="EX201", message=message, where="task.solution")])
    return passed("EX201", calls=run.n_calls, turns=len(run.turns))


@gate("EX202", "the relational oracle agrees")
def oracle_agrees(case: Case) -> GateResult:
    """Judge the oracle's answer and row changes, which come from SQL and exact search, with the verifier.

    Why: solution and verifier of one author can share a misconception; the oracle shares no code with either. Together
    with EX201 it shows that three derivations agree. Fix: find which of the three reads the prompt differently.
    """
    verdict = case.judge([case.task.oracle])[0]
    if verdict.status == "void":
        message = f"the verifier broke on the oracle's outcome: {verdict.failure}"
        return failed("EX202", [Finding(code="EX202", message=message, where="task.verifier")])
    if verdict.status == "fail":
        message = f"the verifier refuses the oracle's outcome: {', '.join(verdict.failed)}"
        return failed("EX202", [Finding(code="EX202", message=message, where="task.oracle")])
    if case.task.kind in ("read", "infeasible") and case.gold.answer != case.task.oracle.answer:
        return failed(
            "EX202", [Finding(code="EX202", message="solution and oracle answer differently", where="task.oracle")]
        )
    return passed("EX202", changes=len(case.task.oracle.changes))


@gate("EX203", "deterministic")
def deterministic(case: Case) -> GateResult:
    """Play the solution again, in an environment that a random walk has dirtied, and compare observations and state.

    Why: a flaky environment adds noise to every gradient and makes pass rates incomparable. Fix: remove randomness,
    clocks and set order from tools; derive what must vary from the seed.
    """
    first = case.gold
    case.play_random(0)
    second = case.play(OracleActor(case.by_hash, case.jail))
    if second.void:
        return _void("EX203", second)
    findings: list[Finding] = []
    for index, (left, right) in enumerate(zip(first.turns, second.turns, strict=False)):
        if (left.action, left.observation) != (right.action, right.observation):
            findings.append(Finding(code="EX203", message=f"turn {index} differs between two runs", where="tools"))
            break
    if len(first.turns) != len(second.turns):
        findings.append(
            Finding(code="EX203", message=f"{len(first.turns)} turns, then {len(second.turns)}", where="tools")
        )
    if first.final_state != second.final_state:
        findings.append(Finding(code="EX203", message="the final state differs between two runs", where="tools"))
    return failed("EX203", findings)


@gate("EX204", "the turn limit leaves room")
def room_in_budget(case: Case) -> GateResult:
    """Compare the solution's calls with the limit of turns: at most 60 % of it.

    Why: an honest actor explores; a limit at the solution's own count fails it for looking around. Fix: raise
    `max_turns`.
    """
    calls, limit = case.gold.n_calls, case.task.max_turns
    if case.gold.stop is StopReason.ANSWERED and calls <= 0.6 * limit:
        return passed("EX204", calls=calls, max_turns=limit)
    message = f"the solution needs {calls} of {limit} turns"
    return failed("EX204", [Finding(code="EX204", message=message, where="task.max_turns", fix="raise max_turns")])
