"""VF312: a disorder is there before the repair, gone after it, and there only because the task plants it."""

from __future__ import annotations

import pytest

from acceptance.defects.bases import BASES, diagnose_atoms, read_atoms
from acceptance.defects.plants import task_with, with_atom, with_definitions, with_world, without_atom
from envsynth.gates import Case, check, explain
from envsynth.gates.disorder_gates import OTHER_ROWS, wrong_repairs
from envsynth.sandbox import shared_jail

ORDER = 'not wrong_loans(db["loans"])'


def judged(spec, task):
    (result,) = check(spec, task, select=["VF312"]).results
    return result


def messages(spec, task):
    return [finding.message for finding in judged(spec, task).findings]


@pytest.fixture(scope="module")
def sound():
    return diagnose_atoms(0)


def test_a_sound_repair_passes_and_a_read_task_is_left_out(sound):
    assert "diagnose_atoms" in BASES
    result = judged(*sound)
    assert result.status == "pass"
    assert result.evidence == {"orders": 1, "wrong_repairs": OTHER_ROWS}
    assert judged(*read_atoms(0)).status == "skipped"
    assert "order" in explain("VF312")


def test_an_order_that_holds_before_the_repair_is_found(sound):
    assert messages(*with_atom(*sound, "order", ORDER, "True")) == [
        "the initial state is in order: there is nothing to repair"
    ]


def test_a_repair_without_a_rule_of_order_is_found(sound):
    spec, task = without_atom(*sound, "order")
    assert messages(spec, task) == ["no atom says what order is"]
    assert judged(spec, task_with(task, kind="act")).status == "skipped"


def test_an_order_atom_is_judged_whatever_the_kind_is_called(sound):
    spec, task = with_atom(*sound, "order", ORDER, "True")
    assert judged(spec, task_with(task, kind="act")).status == "fail"


def test_a_disorder_of_the_environment_itself_is_found(sound):
    spec, task = sound
    rows = (*spec.world.rows["loans"], *(tuple(row.row.values()) for row in task.overlay))
    own = with_world(spec, task_with(task, overlay=()), rows={"loans": rows})
    assert messages(*own) == ["the environment is out of order without the rows of the task"]


def test_an_order_that_the_repair_does_not_bring_is_found(sound):
    strict = with_atom(*sound, "order", ORDER, 'all(row["state"] == "back" for row in db["loans"])')
    assert "it is still out of order after the oracle's repair" in messages(*strict)


def test_a_repair_of_another_row_that_passes_is_found(sound):
    spec, task = with_definitions(*sound, ' and d["old"]["code"] in codes', "")
    # The rule itself still refuses it: the loan that is out twice stays so.
    assert judged(spec, task).status == "pass"
    found = messages(*with_atom(spec, task, "order", ORDER, 'len(wrong_loans(db["loans"])) < 2'))
    assert sum(message.startswith("the repair 0 on loans") for message in found) == OTHER_ROWS


def test_the_right_answer_without_a_repair_that_passes_is_found(sound):
    spec, task = with_atom(*without_atom(*sound, "returned"), "order", ORDER, 'len(wrong_loans(db["loans"])) < 2')
    assert "the right answer is accepted without a repair" in messages(spec, task)


def test_a_rule_that_breaks_the_verifier_is_a_finding_and_no_pass(sound):
    found = messages(*with_atom(*sound, "order", ORDER, 'db["no_such_table"] == []'))
    assert any(message.startswith("the verifier broke on the initial state") for message in found)


def test_planted_near_misses_are_repaired_wrongly_first(sound):
    spec, task = sound
    # The near miss is back already, so its repair would change nothing: a row that is out takes its place.
    rows = [
        row.model_copy(update={"row": {**row.row, "book": "Book Z1", "state": "out"}}) if place == 0 else row
        for place, row in enumerate(task.overlay)
    ]
    with Case(spec, task.model_copy(update={"overlay": tuple(rows)}), shared_jail()) as case:
        names = [name for name, _ in wrong_repairs(case)]
        changes = [outcome.changes for _, outcome in wrong_repairs(case)]
    assert names[0] == "0 on loans L-9003"
    assert len(names) == OTHER_ROWS
    assert all(change.row["code"] != "L-9007" for (change,) in changes)
