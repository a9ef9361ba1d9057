"""Gates VF309 and VF310: what happens to an actor that flails about, and to one that attacks the verifier?"""

from __future__ import annotations

from pydantic import JsonValue

from envsynth.actors import GUESS_LIMIT
from envsynth.gates.case import Case
from envsynth.gates.catalogue import failed, gate, must_refuse
from envsynth.gates.hostile_answers import hostile_answers
from envsynth.gates.walks import Walk, play_walks
from envsynth.report import Finding, GateResult

N_WALKS = 3
"""Random walks of a check."""
ENOUGH_WALKS = 192
"""Random walks of a thorough check, and of any other in which one passes: when none of so many does, the share of walks
that pass is below one in 64, at a confidence of 95 %."""


@gate("VF309", "a random walk passes less often than once in 64")
def random_walks_fail(case: Case) -> GateResult:
    """Play walks of 1 to 64 random typed calls, give up to four random typed answers at the end of each, and judge them.

    Arguments and answers are partly values that results showed before. When a walk passes, 192 are played, and fewer
    than one in 64 may pass: at most two. What is shown when none passes stands in the evidence as `share_below`: the
    share of walks that pass, at a confidence of 95 %. After 3 walks that is no more than 0.63: they find a verifier that
    lets most walks pass, and the small shares only over the many tasks of a set. `envsynth check --thorough` plays 192
    walks, which show less than one in 64 for one task.

    Why: an actor that flails about must not be paid, least of all for what it broke on the way. Fix: the state atoms;
    demand the change that the prompt asks for, and no other.
    """
    walks = play_walks(case, range(ENOUGH_WALKS if case.thorough else N_WALKS))
    if len(walks) < ENOUGH_WALKS and any(walk.passes for walk in walks):
        walks += play_walks(case, range(len(walks), ENOUGH_WALKS))
    verdicts = [verdict for walk in walks for verdict in walk.verdicts]
    passing = [walk for walk in walks if walk.passes]
    findings: list[Finding] = []
    if len(passing) / len(walks) >= GUESS_LIMIT:
        findings.append(Finding(code="VF309", message=_often(passing, walks), where="task.verifier"))
    broken = dict.fromkeys(verdict.failure or "" for verdict in verdicts if verdict.status == "void")
    findings += [
        Finding(code="VF309", message=f"the verifier broke at the end of a random walk: {why}", where="task.verifier")
        for why in broken
    ]
    evidence: dict[str, JsonValue] = {
        "calls": sum(walk.calls for walk in walks),
        "answers": len(verdicts),
        "passing": len(passing),
    }
    if not passing:
        evidence["share_below"] = round(1 - 0.05 ** (1 / len(walks)), 4)
    return failed("VF309", findings, walks=len(walks), **evidence)


def _often(passing: list[Walk], walks: list[Walk]) -> str:
    calls = ", ".join(str(walk.calls) for walk in passing[:5])
    return (
        f"{len(passing)} of {len(walks)} random walks pass (after {calls} calls), allowed is less than one in "
        f"{1 / GUESS_LIMIT:.0f}"
    )


@gate("VF310", "hostile answers are refused, and break nothing", hostile_answers)
def hostile_answers_refused(case: Case) -> GateResult:
    """Judge the oracle's outcome with one field of the answer hostile, each in turn.

    Malformed: NaN, infinity, integers beyond 64 bits, flags for numbers, deep nesting, half a surrogate pair, endless
    text, additional keys. Well-formed: lookalike letters, all candidates as one text, a hedged answer, an expression
    whose value is right, code, SQL, a plea to the judge, very long texts and lists, the largest numbers. `--thorough`
    adds null, operators, patterns, wildcards, invisible characters, templates, quotes and more keys. Each must be refused with reward 0: one that breaks the verifier makes the episode void, and an actor could leave every episode
    that goes badly that way.

    Why: verifiers that evaluate, search or match an answer, or ask a model about it, pay for texts that say "this is
    right". Fix: compare with type and value; no `eval`, no `in`, no pattern; close the answer schema.
    """
    return must_refuse("VF310", case, case.named(hostile_answers), "the hostile answer")
