"""Sentences read as people would write them, and what cannot be written exactly is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from envsynth.author.procedural.ir import (
    Act,
    Atom,
    Attr,
    Choose,
    Con,
    Const,
    Count,
    ForEach,
    If,
    Let,
    Named,
    Of,
    Pick,
    Ref,
    Sum,
    Task,
    To,
)
from envsynth.author.procedural.render import REGISTERS, render, sentences
from envsynth.author.procedural.render.forms import FORMS
from envsynth.author.procedural.render.values import unit_word
from envsynth.errors import SpecError

ALL = json.loads((Path(__file__).parent / "prompt_docs.json").read_text(encoding="utf-8"))
ROOMS, STOCK = ALL["booking"], ALL["inventory"]
DAY = Const("2031-05-07", "date")


def hour(value):
    return Const(value, "num", "oclock")


def people(value):
    return Const(value, "num", "people")


CAPACITY = Atom(Attr("capacity"), ">=", people(6))
FREE = Atom(Attr("free", (DAY, hour(10), hour(13))), "is", None)
PICK = Let("X1", Pick("resource", (CAPACITY,), "max", Attr("rate")))
NAME = (("room_name", Of("X1", Attr("name"))),)


def first(step, docs=ROOMS, register="plain", variant=0):
    """The sentence of one step, without a report."""
    return sentences(Task((step,), ()), docs, register, variant)[0][1]


def test_render_pick_and_report_read_as_in_the_documentation():
    assert render(Task((PICK,), NAME), ROOMS, "plain", 2) == (
        "Of the rooms whose capacity is at least 6 people, take the one with the highest hourly rate and call it X1. "
        'Report the name of X1 as "room_name" (a name).'
    )


@pytest.mark.parametrize(
    ("register", "text"),
    [
        (
            "plain",
            "Find the room with the highest hourly rate among the rooms whose capacity is at least 6 people; call that room X1.",
        ),
        (
            "formal",
            "Let X1 denote the room with the greatest hourly rate among the rooms whose capacity is no less than 6 people.",
        ),
        (
            "terse",
            "X1 = the room with the max hourly rate among the rooms whose capacity >= 6 people.",
        ),
    ],
)
def test_render_registers_differ_in_tone(register, text):
    assert first(PICK, register=register) == text


@pytest.mark.parametrize("kind", sorted(FORMS))
def test_every_sentence_kind_has_three_paraphrases_per_register(kind):
    for register in REGISTERS:
        assert len(set(FORMS[kind][register])) >= 3


def test_render_variant_changes_every_sentence():
    task = Task((PICK,), NAME)
    texts = [sentences(task, ROOMS, register, variant) for register in REGISTERS for variant in range(3)]
    for index in range(2):
        assert len({text[index] for text in texts}) == len(texts)


def test_sentences_have_variables_steps_and_report_as_keys():
    task = Task((PICK, Act("cancel", (("booking", Named("booking", "id", 7)),))), NAME)
    pairs = sentences(task, ROOMS, "plain")
    assert [key for key, _ in pairs] == ["X1", "step1", "report"]
    assert " ".join(text for _, text in pairs) == render(task, ROOMS, "plain")


def test_render_derived_conditions_and_series_of_three():
    near = Atom(Attr("site"), "!=", Named("site", "name", "Vademu Lobota"))
    assert first(Let("X2", Count("resource", (CAPACITY, near, FREE)))) == (
        "Count the rooms whose capacity is at least 6 people, whose campus is not Vademu Lobota and that are "
        "free on 2031-05-07 from 10 o'clock to 13 o'clock; call the number X2."
    )


@pytest.mark.parametrize(
    ("atom", "text"),
    [
        (Atom(Attr("start"), ">=", hour(10)), "whose start hour is at or after 10 o'clock"),
        (Atom(Attr("start"), "==", hour(10)), "whose start hour is 10 o'clock"),
        (Atom(Attr("day"), "<=", DAY), "whose day is on or before 2031-05-07"),
        (Atom(Attr("day"), "!=", DAY), "whose day is not 2031-05-07"),
        (Atom(Attr("headcount"), "==", people(1)), "whose headcount is exactly 1 person"),
        (
            Atom(Attr("status"), "!=", Const("on hold", "str", "booking.status")),
            "whose status is not 'on hold'",
        ),
        (
            Atom(Attr("resource"), "==", Named("resource", "id", "RR-7")),
            "whose booked place is the room with id RR-7",
        ),
    ],
)
def test_render_comparators_follow_the_type(atom, text):
    assert f"room bookings {text};" in first(Let("X1", Count("booking", (atom,))))


def test_render_without_conditions_says_all():
    assert first(Let("X1", Sum("lot", (), Attr("qty"))), STOCK) == (
        "Add up the quantity over all batches; call the sum X1."
    )


def test_render_time_has_latest_and_earliest():
    assert "the latest start hour" in first(Let("X1", Pick("booking", (), "max", Attr("start"))))
    assert "the earliest day" in first(Let("X1", Pick("booking", (), "min", Attr("day"))), register="terse")


def test_render_choose_states_that_ties_are_accepted():
    cons = (Con("distinct", Attr("site")), Con("sum", Attr("capacity"), ">=", people(20)))
    plan = first(Let("X1", Choose("resource", (FREE,), 3, cons)))
    assert plan == (
        "Choose 3 different rooms that are free on 2031-05-07 from 10 o'clock to 13 o'clock such that no two of them share "
        "the same campus and their combined capacity is at least 20 people; call the chosen rooms X1 (any such choice is accepted)."
    )
    best = first(Let("X1", Choose("resource", (), 2, (), ("min", Attr("rate")))))
    assert best.endswith("as small as possible; call the chosen rooms X1 (any best choice is accepted).")


def test_render_branches_and_repetition():
    cancel = Act("cancel", (("booking", Ref("X1")),))
    task = Task(
        (
            Let("X1", Pick("booking", (), "max", Attr("headcount"))),
            Let("X2", To(Ref("X1"), "person")),
            If(Of("X2", Attr("credit")), ">", Const(670, "num", "credits"), (cancel,), ()),
            ForEach("booking", (Atom(Attr("person"), "==", Ref("X2")),), "cancel"),
        ),
        (),
    )
    found = dict(sentences(task, ROOMS, "plain", 1))
    assert found["X2"] == "Check what the holder of X1 is; call it X2."
    assert found["step2"] == "If the credit limit of X2 is more than 670 credits, cancel X1; otherwise, do nothing."
    assert found["step3"] == "Take each of the room bookings whose holder is X2 in turn and cancel it."
    assert found["report"] == "When this is done, answer with an empty object."


def test_render_report_states_the_format_of_every_field():
    task = Task(
        (
            Let("X1", Choose("lot", (), 2, ())),
            Let("X2", Count("lot", ())),
            Let("X3", To(Named("lot", "id", 3), "item")),
        ),
        (
            ("batch_ids", Of("X1", Attr("id"))),
            ("expiry", Of("X1", Attr("expiry"))),
            ("count", Ref("X2")),
            ("stock", Of("X3", Attr("available", (Named("site", "name", "Doru"),)))),
        ),
    )
    assert render(task, STOCK, "plain", 1).endswith(
        'Answer with "batch_ids": the ids of X1 (a list of ids, in any order), '
        '"expiry": the expiry day of each of X1 (a list of dates as YYYY-MM-DD, in any order), '
        '"count": X2 (a whole number) and '
        '"stock": X3\'s available stock at the depot Doru (a whole number of units).'
    )


@pytest.mark.parametrize(
    ("word", "one"),
    [
        ("hours", "hour"),
        ("people", "person"),
        ("boxes", "box"),
        ("batches", "batch"),
        ("entries", "entry"),
        ("kg", "kg"),
        ("percent", "percent"),
        ("o'clock", "o'clock"),
        ("s", "s"),
        ("glass", "glass"),
        ("cases", "case"),
    ],
)
def test_unit_word_is_singular_for_one_only(word, one):
    assert unit_word({"u": word}, "u", 1) == one
    assert unit_word({"u": word}, "u", 0) == unit_word({}, word, -1) == word


def test_render_quotes_names_that_are_no_run_of_capitalised_words():
    step = Let("X1", To(Named("resource", "name", "room no. 5"), "site"))
    assert first(step) == 'Look up the campus of the room "room no. 5"; call it X1.'


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (Let("X1", Count("gadget", ())), "no noun for entity 'gadget'"),
        (Let("X1", Pick("resource", (), "max", Attr("height"))), "no attribute resource.height"),
        (Let("X1", To(Ref("X9"), "site")), "X9 is used before"),
        (Act("destroy", ()), "no phrase for action 'destroy'"),
        (Act("cancel", (("resource", Named("resource", "id", 1)),)), "takes \\['booking'\\]"),
        (If(Const(1, "num"), "==", Const(1, "num"), (), ()), "a condition is about a variable"),
        (
            Let("X1", Count("booking", (Atom(Attr("status"), "<", Const("a", "str")),))),
            "not compared with '<'",
        ),
        (
            Let("X1", Count("booking", (Atom(Attr("status"), "==", Const("'\"", "str")),))),
            "both kinds of quotes",
        ),
        (
            Let("X1", Count("booking", (Atom(Attr("day"), "==", Const("7 May", "date")),))),
            "must be ISO text",
        ),
        (
            Let("X1", Count("resource", (Atom(Attr("rate"), "==", Const("7", "num", "credits")),))),
            "must be an integer",
        ),
        (Let("X1", Choose("resource", (), 0, ())), "at least one row"),
        (Let("X1", To(Named("resource", "id", "a b"), "site")), "a code such as"),
        (ForEach("resource", (), "book"), "exactly one parameter"),
    ],
)
def test_render_refuses_what_it_cannot_write_exactly(step, message):
    with pytest.raises(SpecError, match=message):
        first(step)


def test_render_refuses_a_phrase_that_hides_a_parameter():
    docs = {**ROOMS, "actions": [["cancel", "cancel it", [["booking", ["row", "booking"]]]]]}
    with pytest.raises(SpecError, match="does not mention"):
        first(Act("cancel", (("booking", Named("booking", "id", 1)),)), docs)


def test_render_refuses_a_report_of_a_truth_value():
    with pytest.raises(SpecError, match="cannot report a value of type bool"):
        render(Task((PICK,), (("free", Of("X1", FREE.attr)),)), ROOMS, "plain")
