"""A sound spec whose tools fail, made from one whose tools do not, and the defects that a fault schedule can have."""

from __future__ import annotations

from acceptance.defects.bases import BASES, act_atoms
from acceptance.defects.making import Pair
from acceptance.defects.plants import plant, replaced, task_with, with_prompt
from envsynth.delivery import Fault
from envsynth.spec import EnvironmentSpec, TaskVersion

WARNING = (
    "A call that ends in timeout may or may not have taken effect: check before you repeat it. One that ends in unavailable "
    "has had no effect."
)
FAULTS = (
    Fault(tool="reserve", call=1, kind="timeout_before"),
    Fault(tool="reserve", call=2, kind="timeout_after"),
    Fault(tool="list_reservations", call=2, kind="unavailable", calls=2),
)
_PATIENT = """
RETRY = True
LOOK = True


def waiting(call, tool, **arguments):
    for trial in range(6):
        try:
            return call(tool, **arguments)
        except CallError as error:
            if not RETRY or error.payload["code"] not in ("timeout", "unavailable"):
                raise
    raise RuntimeError("no reply")


def surely(call, **wanted):
    listed = lambda: len(read_all(lambda tool, **given: waiting(call, tool, **given), "reservations"))
    before = listed()
    for trial in range(6):
        try:
            return call("reserve", **wanted)
        except CallError as error:
            if not RETRY or error.payload["code"] not in ("timeout", "unavailable"):
                raise
        if LOOK and listed() > before:
            return {}
    raise RuntimeError("no reply")


def solve(call):"""


def recover_atoms(variant: int = 0) -> Pair:
    """Recover: reserve where most is free, with a tool that loses a call and then a reply."""
    spec, task = act_atoms(variant)
    solution = replaced(task.solution, 'call("reserve", ', "surely(call, ")
    solution = replaced(solution, "\n\ndef solve(call):", _PATIENT)
    skills = {"no_retry": {"RETRY": False}, "blind_retry": {"LOOK": False}}
    return spec, task_with(
        task,
        kind="recover",
        prompt=f"{task.prompt} {WARNING}",
        solution=solution,
        ablations={**task.ablations, **skills},
        faults=[fault.model_dump() for fault in FAULTS],
    )


BASES["recover_atoms"] = recover_atoms


def _failing(task: TaskVersion, *faults: Fault) -> TaskVersion:
    return task_with(task, faults=[fault.model_dump() for fault in faults])


@plant("a tool that is needed never comes back", "recover_atoms", "EX201")
def _never_back(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return spec, _failing(task, Fault(tool="reserve", call=1, kind="unavailable", calls=8))


@plant("a fault that never happens", "recover_atoms", "EX210")
def _never_fires(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return spec, _failing(task, *FAULTS, Fault(tool="list_stock", call=40, kind="unavailable"))


@plant("a fault of a tool that there is not", "recover_atoms", "EX210")
def _elsewhere(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return spec, _failing(task, *FAULTS, Fault(tool="list_depots", call=1, kind="timeout_before"))


@plant("nobody says what a timeout leaves open", "recover_atoms", "EX210")
def _unexplained(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    return with_prompt(spec, task, f" {WARNING}", "")


@plant("whoever repeats a change blindly is right", "recover_atoms", "DF404")
def _harmless(spec: EnvironmentSpec, task: TaskVersion) -> Pair:
    # The reply is lost of a call that did nothing; a reader's fault is left, so that patience is needed.
    return spec, _failing(task, Fault(tool="reserve", call=1, kind="timeout_before"), FAULTS[2])
