"""Gates EX2xx: does it play as it should?"""

from __future__ import annotations

from envsynth.actors import OracleActor
from envsynth.errors import SandboxError
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
    if _same_everywhere(case):
        return passed("EX203", runs=3)
    # Something differs: is it so here as well, where hashes are the same and nobody plays at the same time?
    case.play_random(0)
    second = case.play(OracleActor(case.by_hash, case.jail))
    if second.void:
        return _void("EX203", second)
    return failed("EX203", _findings("EX203", _differences(case.gold, second), "between two runs"), runs=2)


@gate("EX205", "the same under another hash seed, and side by side")
def same_elsewhere(case: Case) -> GateResult:
    """Play two episodes of the solution at a time, tools and verifier with another hash seed, and compare with the first.

    The two worlds share a worker process, as the worlds of a rollout do. A random walk has dirtied one of them before.

    Why: the order of a set of texts follows the hash seed of the interpreter, so a tool that lists one shows something
    else on another machine; and what a tool keeps outside its database leaks from one episode into its neighbour.

    Fix: sort what comes from a set; keep everything in the database.
    """
    runs = case.replays
    lost = next((run for run in runs if run.void), None)
    if lost is not None:
        return _void("EX205", lost)
    names = ("in the dirtied world, under another hash seed", "side by side, under another hash seed")
    findings = [
        finding
        for name, run in zip(names, runs, strict=True)
        for finding in _findings("EX205", _differences(case.gold, run), name)
    ]
    return failed("EX205", findings, runs=1 + len(runs))


def _same_everywhere(case: Case) -> bool:
    """Whether the runs of EX205 are as the first: then one more could show nothing new."""
    try:
        return not any(run.void or _differences(case.gold, run) for run in case.replays)
    except SandboxError:
        return False  # EX205 says so; here the run in the first jail decides


def _differences(first: Trajectory, second: Trajectory) -> list[str]:
    found: list[str] = []
    for index, (left, right) in enumerate(zip(first.turns, second.turns, strict=False)):
        if (left.action, left.observation) != (right.action, right.observation):
            found.append(f"turn {index} differs")
            break
    if len(first.turns) != len(second.turns):
        found.append(f"{len(first.turns)} turns, then {len(second.turns)}")
    if first.final_state != second.final_state:
        found.append("the final state differs")
    if first.verdict.checks != second.verdict.checks:
        found.append("the verdict differs")
    return found


def _findings(code: str, differences: list[str], when: str) -> list[Finding]:
    return [Finding(code=code, message=f"{difference} {when}", where="tools") for difference in differences]


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
