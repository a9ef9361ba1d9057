"""What the author refuses before anything is compiled, on a world whose right answers are known by hand."""

from __future__ import annotations

import random

import pytest

from envsynth.author.procedural.compose import to_world
from envsynth.author.procedural.ir import (
    Act,
    Atom,
    Attr,
    Choose,
    Con,
    Const,
    Count,
    Let,
    Named,
    Of,
    Pick,
    Ref,
    Sum,
    Task,
)
from envsynth.author.procedural.sampling import NO_ROUTE, Sampler
from envsynth.author.procedural.screen import refuse_guessable, refuse_poor
from envsynth.errors import Rejected
from tests.author.procedural.tiny_world import tiny_world

WORLD = tiny_world()
SIZE, RATE = Attr("size"), Attr("rate")
OAK = Named("room", "name", "Oak Hall")
LARGEST = Let("X1", Pick("room", (), "max", SIZE))
NAME = ("room_name", Of("X1", Attr("name")))


def booking(room, day="2031-05-04", heads=3) -> Act:
    return Act("book", (("room", room), ("day", Const(day, "date")), ("heads", Const(heads, "num", "people"))))


def people(number: int) -> Const:
    return Const(number, "num", "people")


def screened(program: Task) -> str:
    """The code of the refusal, or `fine`."""
    one = Sampler(WORLD, (), random.Random("screen"))
    result = one.oracle.run(program)
    try:
        refuse_poor(one, program, result)
        if not result.changes:
            schema = {"properties": {}}
            refuse_guessable(result.answer, to_world(WORLD), schema)
    except Rejected as reason:
        return reason.code
    return "fine"


def choice(k: int, *cons: Con) -> Task:
    return Task((Let("X1", Choose("room", (), k, cons)),), (("room_names", Of("X1", Attr("name"))),))


@pytest.mark.parametrize(
    ("program", "code"),
    [
        # Six names and the rate 60 among six: a guess is right once in 36.
        (Task((LARGEST,), (NAME, ("room_rate", Of("X1", RATE)))), "guessable"),
        (Task((LARGEST, Let("X2", Sum("room", (), RATE))), (NAME, ("sum_of_rate", Ref("X2")))), "fine"),
        (Task((LARGEST,), (NAME,)), "guessable"),
        (Task((Let("X1", Sum("room", (), RATE)),), (("sum_of_rate", Ref("X1")),)), "fine"),
        (Task((Let("X1", Count("room", ())),), (("number_of_rooms", Ref("X1")),)), "guessable"),
        (
            Task((Let("X1", Count("room", (Atom(SIZE, ">", people(90)),))),), (("number_of_rooms", Ref("X1")),)),
            "trivial_answer",
        ),
        (Task((booking(OAK),), ()), "fine"),
        (Task((booking(OAK), booking(OAK)), ()), "write_overlap"),
        # Three chosen of six: 20 sets; one in 64 is less than one set.
        (choice(3, Con("sum", SIZE, ">=", people(28))), "loose"),
        (choice(3, Con("sum", SIZE, ">=", people(30))), "tight"),
    ],
)
def test_a_program_is_refused_for_what_is_wrong_with_it(program: Task, code: str) -> None:
    assert screened(program) == code


@pytest.mark.parametrize("value", [12, 60])
def test_a_value_that_stands_for_none_is_neither_the_extreme_nor_an_answer(monkeypatch, value) -> None:
    program = Task((LARGEST, booking(Ref("X1"))), (("room_rate", Of("X1", RATE)),))
    assert screened(program) == "fine"
    monkeypatch.setitem(NO_ROUTE, "people" if value == 12 else "credits", (value,))
    assert screened(program) == "no_route"
