"""Compiled goals on a world whose right answers are known by hand: the right outcome passes, near misses fail."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import envsynth.author.procedural.goals as goals_package
from envsynth.author.procedural.compose import connect
from envsynth.author.procedural.goals import compile_goals
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
    Of,
    Pick,
    Ref,
    Sum,
    Task,
    To,
)
from envsynth.errors import AuthorError
from envsynth.verifiers import kernel
from tests.author.procedural.random_tasks import as_dict, failed, payload
from tests.author.procedural.tiny_world import (
    LOAD,
    QUIET,
    credits_,
    day,
    people,
    room,
    tiny_world,
    visit,
)

SIZE, RATE, NAME, WING = Attr("size"), Attr("rate"), Attr("name"), Attr("wing")
EAST = Atom(WING, "==", Const("East", "str", "wing"))
LIVE = Atom(Attr("state"), "==", Const("live", "str", "state"))
NEW = {"room_name": "Elm Room", "day": "2031-05-09", "heads": 5, "state": "live"}
BOOK = Act("book", (("room", room("Elm Room")), ("day", day(9)), ("heads", people(5))))


def judge(task, answer, changes=(), certificates=None, world=None):
    world = world or tiny_world()
    verifier = compile_goals(world, task, certificates or {})
    database = connect(world)
    database.row_factory = as_dict
    stated = [{"op": op, "table": table, "row": row} for op, table, row in changes]
    outcome = {"answer": answer, "changes": stated}
    return failed(kernel.judge_outcomes(database, payload(verifier), [outcome])[0])


def reading(node, *fields):
    return Task((Let("X1", node),), tuple(fields) or (("x", Ref("X1")),))


@pytest.mark.parametrize(
    ("task", "right", "wrong"),
    [
        (reading(Count("room", (Atom(SIZE, ">", people(6)),))), 3, [2, 4, "3", 3.0, True]),
        (reading(Sum("room", (), Attr("load", (day(3),)))), 11, [13, 10, 12]),
        (reading(Pick("room", (EAST,), "max", RATE), ("x", Of("X1", NAME))), "Oak Hall", ["Oak Room", "oak hall", ""]),
        (reading(Pick("room", (EAST,), "max", RATE)), 10, [20]),
        (reading(To(visit(4), "room"), ("x", Of("X1", Attr("quiet")))), False, [True, 0]),
        (reading(To(visit(4), "room"), ("x", Of("X1", NAME))), "Elm Room", ["Fir Room"]),
        (reading(Count("visit", (Atom(Attr("room"), "==", room("Fir Room")),))), 3, [1]),
        (reading(Count("visit", (Atom(Attr("room"), "!=", room("Fir Room")), LIVE))), 4, [5, 6]),
        (reading(Count("room", (Atom(Attr("quiet"), "is", None),))), 1, [0, 2]),
    ],
)
def test_values_are_exact_and_typed(task, right, wrong):
    assert judge(task, {"x": right}) == []
    for value in wrong:
        assert judge(task, {"x": value}) == ["x.value"], value


CONS = (Con("sum", RATE, "<=", credits_(55)), Con("distinct", WING))
PICKS = reading(Choose("room", (Atom(SIZE, ">=", people(6)),), 2, CONS, None), ("picks", Of("X1", NAME)))
BEST = reading(Choose("room", (Atom(SIZE, ">=", people(6)),), 2, CONS, ("max", SIZE)), ("picks", Of("X1", NAME)))


@pytest.mark.parametrize(
    ("picks", "without_goal", "with_goal"),
    [
        (["Oak Hall", "Elm Room"], [], []),
        (["Elm Room", "Oak Hall"], [], []),
        (["Ash Room", "Elm Room"], [], ["picks.best"]),
        (["Oak Room", "Elm Room"], ["picks.atom0"], ["picks.atom0", "picks.best"]),
        (["Oak Hall", "Fir Room"], ["picks.con0"], ["picks.con0", "picks.best"]),
        (["Oak Hall", "Ash Room"], ["picks.con1"], ["picks.con1"]),
        (["Oak Hall"], ["picks.count"], ["picks.count", "picks.best"]),
        (["Elm Room", "Elm Room"], ["picks.count", "picks.con1"], ["picks.count", "picks.con1", "picks.best"]),
        (["Oak Hall", "Nowhere"], ["picks.exists"], ["picks.exists", "picks.best"]),
        ([], ["picks.count"], ["picks.count", "picks.best"]),
    ],
)
def test_any_feasible_or_best_set_passes(picks, without_goal, with_goal):
    assert judge(PICKS, {"picks": picks}) == without_goal
    assert judge(BEST, {"picks": picks}, certificates={"X1": 14}) == with_goal


def test_further_attributes_of_a_set_follow_its_order():
    task = Task(PICKS.steps, (*PICKS.report, ("sizes", Of("X1", SIZE))))
    assert judge(task, {"picks": ["Elm Room", "Oak Hall"], "sizes": [6, 8]}) == []
    assert judge(task, {"picks": ["Elm Room", "Oak Hall"], "sizes": [8, 6]}) == ["sizes.value"]


def test_a_set_needs_its_certificate_and_a_naming_field():
    with pytest.raises(AuthorError, match="certificate"):
        compile_goals(tiny_world(), BEST, {})
    with pytest.raises(AuthorError, match="neither by name nor by id"):
        compile_goals(tiny_world(), Task(PICKS.steps, (("sizes", Of("X1", SIZE)),)), {})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([("insert", "visit", NEW)], []),
        ([], ["step0.book"]),
        ([("insert", "visit", NEW), ("insert", "visit", NEW)], ["frame"]),
        ([("insert", "visit", {**NEW, "heads": 6})], ["step0.book", "frame"]),
        ([("insert", "visit", {**NEW, "room_name": "Oak Hall"})], ["step0.book", "frame"]),
        ([("insert", "visit", NEW), ("update", "room", {"id": 10, "size": 9})], ["frame"]),
        ([("insert", "visit", NEW), ("delete", "visit", {"id": 2})], ["frame"]),
    ],
)
def test_an_act_is_claimed_once_and_nothing_else(changes, expected):
    assert judge(Task((BOOK,), ()), {}, changes) == expected


def test_two_equal_acts_need_two_changes():
    task = Task((BOOK, BOOK), ())
    assert judge(task, {}, [("insert", "visit", NEW)] * 2) == []
    assert judge(task, {}, [("insert", "visit", NEW)]) == ["step1.book"]


def cancelled(*numbers):
    return [("update", "visit", {"id": number, "state": "gone"}) for number in numbers]


def test_for_each_claims_every_member():
    task = Task((ForEach("visit", (Atom(Attr("day"), "==", day(3)), LIVE), "cancel"),), ())
    assert judge(task, {}, cancelled(8, 1, 3)) == []
    assert judge(task, {}, cancelled(1, 3)) == ["step0.each", "frame"]
    assert judge(task, {}, cancelled(1, 3, 8, 4)) == ["frame"]
    assert judge(task, {}) == ["step0.each"]


def branching(op, then, other):
    bound = Let("X1", To(visit(4), "room"))
    return Task((bound, If(Of("X1", SIZE), op, people(6), then, other)), ())


CANCEL = Act("cancel", (("visit", visit(1)),))


def test_the_branch_that_holds_at_first_decides():
    task = branching(">", (CANCEL,), (BOOK,))
    assert judge(task, {}, [("insert", "visit", NEW)]) == []
    assert judge(task, {}, cancelled(1)) == ["step1.if", "frame"]
    assert judge(branching(">=", (CANCEL,), (BOOK,)), {}, cancelled(1)) == []


def test_an_empty_branch_demands_that_nothing_changes():
    assert judge(branching(">", (CANCEL,), ()), {}) == []
    assert judge(branching(">", (CANCEL,), ()), {}, cancelled(1)) == ["frame"]
    assert judge(branching("<", (), (CANCEL,)), {}, cancelled(1)) == []


def test_atoms_quote_the_sentence_of_their_step_or_field():
    task = Task((*PICKS.steps, BOOK), PICKS.report)
    quotes = {"X1": "pick two rooms", "step1": "book it", "picks": "report the names"}
    found = {atom.id: atom.quote for atom in compile_goals(tiny_world(), task, {}, quotes).atoms}
    assert found == {
        "picks.count": "pick two rooms",
        "picks.exists": "report the names",
        "picks.atom0": "pick two rooms",
        "picks.con0": "pick two rooms",
        "picks.con1": "pick two rooms",
        "step1.book": "book it",
    }
    assert {atom.quote for atom in compile_goals(tiny_world(), task, {}).atoms} == {""}


def test_definitions_hold_only_what_is_used_and_are_stable():
    task = reading(Sum("room", (), Attr("load", (day(3),))))
    definitions = compile_goals(tiny_world(), task, {}).definitions
    assert "def g_load" in definitions
    assert "def g_quiet" not in definitions
    assert "def s_book" not in definitions
    assert definitions == compile_goals(tiny_world(), task, {}).definitions


@pytest.mark.parametrize(
    ("goal", "message"),
    [
        ("def g_load(db, row, day):\n    return (\n", "no Python"),
        ("def once(name, value):\n    return 1\n", "name of the verifier"),
        ("import os\n", "definitions only"),
    ],
)
def test_malformed_goal_texts_are_refused(goal, message):
    world = tiny_world()
    world.derived["room", "load"] = type(LOAD)(**{**vars(LOAD), "goal": goal})
    with pytest.raises(AuthorError, match=message):
        compile_goals(world, reading(Sum("room", (), Attr("load", (day(3),)))), {})


def test_two_texts_must_not_define_a_name_differently():
    world = tiny_world()
    world.derived["room", "load"] = type(LOAD)(**{**vars(LOAD), "goal": "X = 1\n" + LOAD.goal})
    world.derived["room", "quiet"] = type(QUIET)(**{**vars(QUIET), "goal": "X = 2\n" + QUIET.goal})
    with pytest.raises(AuthorError, match="differently"):
        compile_goals(world, reading(Count("room", ())), {})


def test_goals_import_neither_sqlite_nor_the_other_backends():
    folder = Path(goals_package.__file__).parent
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [item.name for item in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if "sqlite3" in name or ".oracle" in name or ".planner" in name]
