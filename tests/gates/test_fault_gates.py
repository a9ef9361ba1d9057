"""Gates EX210 and DF404 on a hand-made spec whose tools fail, and what hardening makes of tasks that write."""

from __future__ import annotations

import itertools

import pytest

from acceptance.defects.plants import PLANTS
from acceptance.defects.recovering import FAULTS, WARNING, recover_atoms
from envsynth.author.procedural.author import ProceduralAuthor
from envsynth.delivery import Fault
from envsynth.errors import Rejected
from envsynth.gates import Case, Rehearsal, check
from envsynth.hardening import Step, audit
from envsynth.sandbox import shared_jail


def failing(spec, task, **update):
    report = check(spec, task.model_copy(update=update), select=("EX201", "EX210", "DF404"))
    return {result.code: [finding.message for finding in result.findings] for result in report.results}


def test_a_sound_spec_whose_tools_fail_passes_every_gate():
    report = check(*recover_atoms(0))
    assert report.ok, [finding.message for finding in report.findings]
    assert report.evidence("EX210") == {"faults": 4}
    assert report.evidence("DF404") == {"in_doubt": True}


@pytest.mark.parametrize("item", [item for item in PLANTS if item.base == "recover_atoms"], ids=lambda item: item.name)
def test_planted_defects_of_schedules_are_found(item):
    report = check(*item.pair())
    codes = {result.code for result in report.results if result.status == "fail"}
    assert item.code in codes
    assert codes <= {item.code, *item.also}


def test_the_gates_say_which_fault_and_which_solver():
    spec, task = recover_atoms(0)
    late = Fault(tool="reserve", call=9, kind="timeout_after")
    found = failing(spec, task, faults=(*FAULTS, late))
    assert found["EX210"] == ["timeout_after at call 9 of 'reserve' never happens: the solution makes 2"]
    assert found["DF404"] == []
    found = failing(spec, task, prompt=task.prompt.replace("timeout", "silence"))
    assert found["EX210"] == ["neither prompt nor policy says what a call that ends in timeout has done"]
    assert WARNING in task.prompt
    found = failing(spec, task, ablations={**task.ablations, "no_retry": {}})
    assert found["DF404"] == ["no_retry passes"]
    left = {name: flags for name, flags in task.ablations.items() if name != "blind_retry"}
    assert failing(spec, task, ablations=left)["DF404"] == ["the ladder has no blind_retry"]


def test_a_reading_tool_that_fails_needs_patience_alone():
    spec, task = recover_atoms(0)
    found = failing(spec, task, faults=(Fault(tool="list_reservations", call=1, kind="timeout_before"),))
    assert found == {"EX201": [], "EX210": [], "DF404": []}


def test_tasks_without_faults_are_left_alone():
    spec, task = recover_atoms(0)
    report = check(spec, task.model_copy(update={"faults": ()}), select=("EX210", "DF404"))
    assert [result.status for result in report.results] == ["skipped", "skipped"]


@pytest.fixture(scope="module")
def child():
    """A root that writes and its child whose tools fail, both through every gate."""
    author, jail = ProceduralAuthor("warehouse restocking", "fx"), shared_jail()
    draft = author.draft(0)
    with Rehearsal(draft.environment, jail) as rehearsal:
        for number, attempt in itertools.product(range(12), range(24)):
            try:
                task = author.root(draft, number, attempt)
                proposed = author.propose(draft, task, "faults", 0)
            except Rejected:
                continue
            root = audit(draft, author, task, jail, None, rehearsal)
            if isinstance(root, Step):
                proposed = author.propose(draft, root.task, "faults", 0, root.skills)
                found = audit(draft, author, proposed, jail, root, rehearsal)
                assert isinstance(found, Step), found
                return draft, root, found
    pytest.fail("no root whose tools can fail")


def test_a_child_whose_tools_fail_needs_new_skills_and_passes_every_gate(child):
    draft, root, found = child
    assert found.task.kind == "recover"
    assert {"no_retry", "blind_retry"} <= found.skills - root.skills
    assert found.task.oracle == root.task.oracle
    assert found.task.lineage.parent == root.task.hash
    report = check(draft.environment, found.task)
    assert report.ok, [finding.message for finding in report.findings]


def test_its_ladder_ends_alike_in_rehearsals_and_in_proper_episodes(child):
    draft, _, found = child
    jail = shared_jail()
    with (
        Rehearsal(draft.environment, jail) as rehearsal,
        Case(draft.environment, found.task, jail, rehearsal=rehearsal) as quick,
        Case(draft.environment, found.task, jail) as case,
    ):
        assert quick.rehearse()
        assert list(quick._rehearsed(list(found.task.ablations))) == list(found.task.ablations)
        there = {skill: verdict.status for skill, verdict in quick.ablated(found.task.ablations).items()}
        assert there == {skill: verdict.status for skill, verdict in case.ablated(found.task.ablations).items()}
        assert {there["no_retry"], there["blind_retry"]} == {"fail"}
