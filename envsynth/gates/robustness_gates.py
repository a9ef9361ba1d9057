"""Gates EX208 and EX209: does the task hold when rows lie in another order, and do its tools hold under odd calls?"""

from __future__ import annotations

from envsynth.actors import OracleActor
from envsynth.environments import make_env
from envsynth.gates.case import GATE_TURNS, Case
from envsynth.gates.catalogue import failed, gate, passed, skipped
from envsynth.report import Finding, GateResult
from envsynth.rollout import EpisodeRequest, rollout
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.trajectory import Trajectory


@gate("EX208", "the order of rows decides nothing")
def order_decides_nothing(case: Case) -> GateResult:
    """Play the solution in the same world with the rows of every table in reverse order, judged by the same verifier.

    Why: two rows may share the best value, and the author's solution takes the first one; an honest actor that takes the
    other fails. Where the text names one right answer, a tie is a defect; where any will do, the verifier must accept the
    one that comes first now. Limits: tables with an integer primary key are listed by it in either order, and ties that
    the solution breaks by another column stay hidden. Where a task program exists, the oracle refuses ties itself.

    Fix: name the rule for ties in the prompt, let the verifier accept each best row, or change the rows.
    """
    if case.task.ir is not None:
        return skipped("EX208", "the oracle of the task program refuses ties")
    if case.gold.verdict.status != "pass":
        return skipped("EX208", "the solution does not pass in the first place (EX201)")
    run = _play_reversed(case)
    if run.void:
        finding = Finding(code="EX208", message=f"no judgement: {run.verdict.failure}", fix="run the check again")
        return GateResult(code="EX208", status="void", findings=(finding,))
    if run.verdict.status == "pass":
        return passed("EX208", same_answer=run.answer == case.gold.answer)
    why = ", ".join(run.verdict.failed) or run.stop.value
    message = f"with the rows in reverse order the solution fails {why}: it answers {_short(run.answer)}"
    fix = "state the rule for ties, or accept each best row"
    return failed("EX208", [Finding(code="EX208", message=message, where="task.verifier", fix=fix)])


def _short(answer: object) -> str:
    text = repr(answer)
    return text if len(text) <= 120 else text[:120] + "..."


def _play_reversed(case: Case) -> Trajectory:
    rows = {name: tuple(reversed(found)) for name, found in case.spec.world.rows.items()}
    spec: EnvironmentSpec = case.spec.model_copy(
        update={"world": case.spec.world.model_copy(update={"rows": rows})},
    )
    task: TaskVersion = case.task.model_copy(update={"environment": spec.hash})
    actor = OracleActor({task.hash: task}, case.jail)
    env = make_env(spec, task, jail=case.jail, max_turns=max(GATE_TURNS, task.max_turns))
    try:
        return rollout([env], actor, [EpisodeRequest(task.hash, 0)])[0]
    finally:
        actor.close()
        env.close()


WALKS = 3
"""Random walks whose calls EX209 looks at."""


@gate("EX209", "no tool breaks")
def no_tool_breaks(case: Case) -> GateResult:
    """Look through the solution's calls and those of random walks for tools that failed with anything but a refusal.

    Why: a tool that breaks on an edge of its arguments tells the actor nothing that it can act on; half of the faults of
    one published collection of 1,000 environments are of this kind (arXiv:2602.10090). Limit: random walks reach what they
    reach, a pass is no proof. Fix: refuse with `raise Refusal(code, message)`.
    """
    runs = [case.gold, *(case.play_random(index) for index in range(WALKS))]
    turns = [turn for run in runs for turn in run.turns if turn.call is not None]
    broken = {
        turn.call.tool: turn.call.arguments for turn in turns if turn.call is not None and turn.error == "internal"
    }
    findings = [
        Finding(
            code="EX209",
            message=f"{tool} breaks on {_short(arguments)}",
            where=f"tools.{tool}.source",
            fix="refuse with `raise Refusal(code, message)`",
        )
        for tool, arguments in broken.items()
    ]
    return failed("EX209", findings, calls=len(turns), tools=len({turn.call.tool for turn in turns if turn.call}))
