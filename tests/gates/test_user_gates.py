"""Gates EX212 and DF407 on a hand-made spec with a user who knows something."""

from __future__ import annotations

import pytest

from acceptance.defects.asking import OTHER, TOPIC, ask_atoms
from acceptance.defects.plants import PLANTS
from envsynth.delivery import AS_IT_IS, Delivery, Fact, stands_in
from envsynth.gates import check


def found(spec, task, **update):
    report = check(spec, task.model_copy(update=update), select=("EX201", "EX212", "DF407"))
    return {result.code: [finding.message for finding in result.findings] for result in report.results}


@pytest.mark.parametrize("variant", [0, 3])
def test_a_sound_spec_with_a_user_passes_every_gate(variant):
    report = check(*ask_atoms(variant))
    assert report.ok, [finding.message for finding in report.findings]
    assert report.evidence("EX212") == {"topics": 2, "asked": 1}
    assert report.evidence("DF407") == {"names": 1}


@pytest.mark.parametrize("item", [item for item in PLANTS if item.base == "ask_atoms"], ids=lambda item: item.name)
def test_planted_defects_of_users_are_found(item):
    report = check(*item.pair())
    codes = {result.code for result in report.results if result.status == "fail"}
    assert item.code in codes
    assert codes <= {item.code, *item.also}


def test_the_gates_say_what_is_wrong():
    spec, task = ask_atoms(0)
    (fact,) = (fact for fact in task.delivery.user if fact.values)
    mute = Delivery(user=(OTHER, Fact(topic=TOPIC, says="I do not mind.")))
    assert found(spec, task, delivery=mute)["EX212"] == []  # skipped: the solution cannot go on
    assert found(spec, task, delivery=mute)["EX201"] != []
    more = Delivery(user=(*task.delivery.user, Fact(topic="whose", says='Call "Nora Feld" on 2031-05-07.')))
    told = found(spec, task, delivery=more)
    assert "the solution does not ask about 'whose'" in told["EX212"]
    assert told["DF407"] == ["'Nora Feld' is one of 1 values: a guess is soon right"]
    assert found(spec, task, prompt=f"{task.prompt} ({fact.values[0]})")["EX212"] == [
        f"it holds {fact.values[0]!r}, which only the user knows"
    ]


def test_tasks_without_a_user_are_left_alone():
    spec, task = ask_atoms(0)
    report = check(spec, task.model_copy(update={"delivery": AS_IT_IS}), select=("EX212", "DF407"))
    assert [result.status for result in report.results] == ["skipped", "skipped"]


def test_values_are_numbers_dates_and_quoted_texts_and_stand_as_they_are():
    said = Fact(topic="a", says='It is -3 or 2031-05-07, 1.5 for "Elm Room 7" at 10:30.')
    assert said.values == ("-3", "2031-05-07", "1.5", "Elm Room 7", "10:30")
    assert OTHER.values == ()
    for value, text in (("12", "x=12."), ("12", "(12)"), ("2031-05-07", "on 2031-05-07,"), ("Elm", "the Elm.")):
        assert stands_in(value, text)
    for value, text in (("12", "112"), ("12", "12.5"), ("12", "X12"), ("05", "2031-05-07"), ("Elm", "Elmwood")):
        assert not stands_in(value, text)
