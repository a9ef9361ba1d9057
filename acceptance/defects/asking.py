"""A sound spec with a user who knows what the prompt does not say, and the defects that such a spec can have."""

from __future__ import annotations

from acceptance.defects.bases import BASES, act_atoms
from acceptance.defects.making import Pair
from acceptance.defects.plants import plant, replaced, task_with, with_prompt, with_solution
from envsynth.delivery import Fact
from envsynth.spec import EnvironmentSpec, TaskVersion

TOPIC = "which_item"
ASKING = f"of the item that the user names when asked about '{TOPIC}'"
OTHER = Fact(topic="which_depot", says="I do not mind.")
_SOLVE = f"""
ASKS = True


def solve(call):
    if not ASKS:
        first = read_all(call, "stock")[0]
        return {{"depot": first["depot"], "left": first["free"]}}
    item = call("ask_user", about="{TOPIC}").split('"')[1]"""


def ask_atoms(variant: int = 0) -> Pair:
    """Ask: reserve an item that only the user can name."""
    spec, task = act_atoms(variant)
    item = next(str(change.row["item"]) for change in task.oracle.changes if change.table == "reservations")
    spec, task = with_prompt(spec, task, f"of the item {item}", ASKING)
    solution = replaced(replaced(task.solution, "\n\ndef solve(call):", _SOLVE), f'"{item}"', "item")
    return spec, _knowing(
        task_with(task, solution=solution, ablations={**task.ablations, "never_asks": {"ASKS": False}}),
        Fact(topic=TOPIC, says=f'It is "{item}".'),
        OTHER,
    )


BASES["ask_atoms"] = ask_atoms


def _knowing(task: TaskVersion, *facts: Fact) -> TaskVersion:
    return task_with(task, delivery={"user": [fact.model_dump() for fact in facts]})


@plant("a topic that matters and that nobody asks about", "ask_atoms", "EX212")
def _unasked(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return spec, _knowing(task, *task.delivery.user, Fact(topic="deposit", says="It is 4711 credits."))


@plant("the prompt does not say that there is a user", "ask_atoms", "EX212")
def _no_user(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_prompt(spec, task, "that the user names when asked about", "meant by")


@plant("the prompt does not say what to ask about", "ask_atoms", "EX212")
def _no_topic(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_prompt(spec, task, f"when asked about '{TOPIC}'", "when asked")


@plant("the prompt says what only the user knows", "ask_atoms", "EX212")
def _said(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    (value,) = next(fact.values for fact in task.delivery.user if fact.topic == TOPIC)
    return with_prompt(spec, task, ASKING, f"{ASKING}, it is the {value},")


@plant("the solution asks and does not listen", "ask_atoms", "EX212")
def _held(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    (value,) = next(fact.values for fact in task.delivery.user if fact.topic == TOPIC)
    return with_solution(spec, task, ".split('\"')[1]", f' and "{value}"')


@plant("who never asks is right", "ask_atoms", "DF407")
def _needless(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    # The solver that does without is the whole one; the ladder has another that fails.
    return spec, task_with(task, ablations={"never_writes": {"WRITES": False}, "never_asks": {"ASKS": True}})


@plant("nobody tried what becomes of who never asks", "ask_atoms", "DF407")
def _untried(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    left = {name: flags for name, flags in task.ablations.items() if name != "never_asks"}
    return spec, task_with(task, ablations=left)
