"""A sound spec whose tool calls are limited, made from one whose calls are not, and the defects that a limit, or a withheld tool, can have."""

from __future__ import annotations

from acceptance.defects.bases import BASES, act_atoms
from acceptance.defects.making import Pair
from acceptance.defects.plants import plant, replaced, task_with
from envsynth.delivery import Delivery
from envsynth.spec import EnvironmentSpec, TaskVersion

_FREE = """
READS = "once"


def free(call, row):
    if READS == "again":
        row = [other for other in read_all(call, "stock") if other == row][0]
    return row["free"]


def solve(call):
    for again in range(6 if READS == "all" else 0):
        read_all(call, "stock")
        read_all(call, "reservations")"""
WASTEFUL = {"spendthrift": {"READS": "again"}, "brute_force": {"READS": "all"}}


def limited_atoms(variant: int = 0) -> Pair:
    """Limited: reserve where most is free, without reading twice."""
    spec, task = act_atoms(variant)
    solution = replaced(task.solution, 'key=lambda row: row["free"]', "key=lambda row: free(call, row)")
    solution = replaced(solution, "\n\ndef solve(call):", _FREE)
    return spec, task_with(
        task, solution=solution, ablations={**task.ablations, **WASTEFUL}, delivery=Delivery(max_calls=8)
    )


BASES["limited_atoms"] = limited_atoms


def _limited(spec: EnvironmentSpec, task: TaskVersion, calls: int) -> Pair:
    return spec, task_with(task, delivery=Delivery(max_calls=calls))


@plant("a limit below the solution's own calls", "limited_atoms", "EX214", "EX201")
def _too_low(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return _limited(spec, task, 3)


@plant("a limit that leaves no call to spare", "limited_atoms", "EX214")
def _no_room(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return _limited(spec, task, 5)


@plant("a limit that nobody meets who wastes calls", "limited_atoms", "DF408")
def _no_limit(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return _limited(spec, task, 90)


@plant("a wasteful solver that fails for another reason", "limited_atoms", "DF408")
def _fails_anyway(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return spec, task_with(task, ablations={**task.ablations, "spendthrift": {"WRITES": False}})


@plant("a withheld tool that the solution calls", "limited_atoms", "EX213", "EX201")
def _needed(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return spec, task_with(task, delivery=Delivery(max_calls=8, withheld=("reserve",)))


@plant("a withheld tool that the prompt sends to", "limited_atoms", "EX213")
def _spoken_of(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    delivery = Delivery(max_calls=8, withheld=("list_reservations",))
    solution = replaced(task.solution, '        read_all(call, "reservations")', "        pass")
    return spec, task_with(task, delivery=delivery, solution=solution, prompt=f"{task.prompt} See list_reservations.")
