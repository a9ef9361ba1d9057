"""Gates EX212 and DF407: is a user asked for what the prompt does not say, and does it matter?"""

from __future__ import annotations

from collections.abc import Iterator

from envsynth.delivery import Fact, stands_in
from envsynth.environments.delivery import ASK_USER
from envsynth.gates.case import Case
from envsynth.gates.catalogue import failed, gate, skipped
from envsynth.report import Finding, GateResult

FEWEST = 5
"""Values of a column among which a name that the user tells is one: of fewer, a guess is soon right."""


@gate("EX212", "what the user knows is asked for, and stands nowhere else")
def user_is_asked(case: Case) -> GateResult:
    """Look for the user's topics in the solution's own episode and in the prompt, and for the values where they may not be.

    Values are the numbers, dates and texts in double quotes of the user's words. Words without one are of no matter and need
    not be asked for; at least one topic must matter. Of those that do, the solution asks about each; the prompt says that a
    user can be asked, and names each topic (`which_room` or "which room"); neither prompt nor source of the solution holds a
    value.

    Why: what nobody has to ask for tests nothing; an actor who is not told of the user, or of the topic, can only guess; and
    a solution that holds the value proves nothing about asking. Fix: name user and topic in the prompt, take the value from
    the words that `ask_user` returns, and choose a value that does not occur by chance.
    """
    user = case.task.delivery.user
    if not user:
        return skipped("EX212", "there is no user to ask")
    calls = [turn.call for turn in case.gold.turns if turn.call is not None and turn.call.tool == ASK_USER]
    asked = {str(call.arguments.get("about")) for call in calls}
    findings = [
        *([] if any(fact.values for fact in user) else [_finding("the user tells no value", "task.delivery.user")]),
        *([] if "user" in case.task.prompt.lower() else [_finding("it does not speak of a user", "task.prompt")]),
        *(finding for fact in user if fact.values for finding in _of_topic(case, fact, asked)),
    ]
    return failed("EX212", findings, topics=len(user), asked=len(asked))


def _of_topic(case: Case, fact: Fact, asked: set[str]) -> Iterator[Finding]:
    topic, prompt = fact.topic, case.task.prompt
    if topic not in asked:
        yield _finding(f"the solution does not ask about {topic!r}", "task.solution")
    if topic not in prompt and topic.replace("_", " ") not in prompt:
        yield _finding(f"it does not name the topic {topic!r}", "task.prompt")
    for value in fact.values:
        for where, text in (("task.prompt", prompt), ("task.solution", case.task.solution)):
            if stands_in(value, text):
                yield _finding(f"it holds {value!r}, which only the user knows", where)


def _finding(message: str, where: str) -> Finding:
    return Finding(code="EX212", message=message, where=where)


@gate("DF407", "the user has to be asked")
def asking_binds(case: Case) -> GateResult:
    """Play the solver that never asks the user (`never_asks`): it must fail. A name must be one of five and more.

    Why: where the outcome is the same whatever the user says, or one of a few guesses is right, the question is an ornament.
    Fix: let the user know a value without which another outcome is right; give the ladder the ablation `never_asks`, whose
    solver does without.
    """
    user = case.task.delivery.user
    if not user:
        return skipped("DF407", "there is no user to ask")
    if not case.task.ablations:
        return skipped("DF407", "the solution has no ablations")
    findings: list[Finding] = []
    if "never_asks" not in case.task.ablations:
        findings.append(Finding(code="DF407", message="the ladder has no never_asks", where="task.ablations"))
    else:
        verdict = case.ablated(["never_asks"])["never_asks"]
        if verdict.status == "void":
            message = f"no judgement without never_asks: {verdict.failure}"
            finding = Finding(code="DF407", message=message, fix="run the check again")
            return GateResult(code="DF407", status="void", findings=(finding,))
        if verdict.status == "pass":
            findings.append(Finding(code="DF407", message="never_asks passes", where="task.delivery.user"))
    names = [value for fact in user for value in fact.values if not value[-1].isdigit()]
    few = {name: len(case.same_column(name)) for name in names if len(case.same_column(name)) < FEWEST}
    findings += [
        Finding(
            code="DF407",
            message=f"{name!r} is one of {count} values: a guess is soon right",
            where="task.delivery.user",
        )
        for name, count in few.items()
    ]
    return failed("DF407", findings, names=len(names))
