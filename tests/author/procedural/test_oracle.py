"""The oracle against a world whose right answers are known by hand."""

from __future__ import annotations

import pickle

import pytest

from envsynth.author.procedural.compose import connect
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
    IRTypeError,
    Let,
    Named,
    Of,
    Only,
    Pick,
    Ref,
    Sum,
    Task,
    To,
)
from envsynth.author.procedural.oracle import (
    Change,
    Oracle,
    Reject,
    apply_changes,
    certificates,
)
from envsynth.errors import AuthorError
from tests.author.procedural.tiny_world import credits_, day, people, room, tiny_world, visit

WORLD = tiny_world()
SIZE, RATE, NAME, WING = Attr("size"), Attr("rate"), Attr("name"), Attr("wing")
EAST = Atom(WING, "==", Const("East", "str", "wing"))
LIVE = Atom(Attr("state"), "==", Const("live", "str", "state"))


def oracle() -> Oracle:
    return Oracle(WORLD, connect(WORLD))


def read(node, *fields):
    return oracle().run(Task((Let("X1", node),), tuple(fields) or (("x", Ref("X1")),)))


def acting(*steps, report=()):
    return Task(tuple(steps), report)


@pytest.mark.parametrize(
    ("node", "answer"),
    [
        (Count("room", (EAST,)), 3),
        (Count("room", (Atom(SIZE, ">", people(6)),)), 3),
        (Count("room", (Atom(SIZE, ">=", people(6)),)), 5),
        (Count("room", (Atom(SIZE, "!=", people(6)),)), 4),
        (Count("room", (Atom(Attr("opened"), "<", Const("2030-01-05", "date")),)), 2),
        (Count("room", (Atom(Attr("quiet"), "is", None),)), 1),
        (Count("visit", (Atom(Attr("room"), "==", room("Fir Room")),)), 3),
        (Count("visit", (Atom(Attr("room"), "!=", room("Fir Room")), LIVE)), 4),
        (Count("room", ()), 6),
        (Sum("room", (EAST,), RATE), 65),
        (Sum("room", (), Attr("load", (day(3),))), 11),
        (Sum("visit", (Atom(Attr("room"), "==", room("Yew Room")),), Attr("heads")), 0),
        (Pick("room", (EAST,), "max", RATE), 10),
        (Pick("room", (), "min", Attr("opened")), 50),
        (Pick("room", (), "max", Attr("load", (day(4),))), 40),
        (To(visit(4), "room"), 30),
        (Only("room", (Atom(NAME, "==", Const("Elm Room", "str", "name")),)), 30),
    ],
)
def test_run_answers_descriptions(node, answer):
    assert read(node).answer == {"x": answer}


@pytest.mark.parametrize(("atom", "code"), [(EAST, "tie"), (Atom(SIZE, ">", people(99)), "empty")])
def test_run_refuses_the_only_row_when_there_are_more_or_none(atom, code):
    with pytest.raises(Reject, match=code):
        read(Only("room", (atom,)))


def test_run_reports_attributes_relations_and_booleans():
    fields = [
        ("name", Of("X1", NAME)),
        ("load", Of("X1", Attr("load", (day(3),)))),
        ("quiet", Of("X1", Attr("quiet"))),
        ("constant", people(4)),
        ("other", visit(3)),
    ]
    result = read(Pick("room", (), "max", SIZE), *fields)
    assert result.answer == {"name": "Fir Room", "load": 2, "quiet": False, "constant": 4, "other": 3}
    assert result.answer["quiet"] is False
    assert read(To(visit(4), "room"), ("room", Of("X1", NAME))).answer == {"room": "Elm Room"}
    assert result.info["X1"].ids == (10, 20, 30, 40, 50, 60)
    assert (result.info["X1"].best, result.info["X1"].second) == (12, 10)


def test_run_evaluates_operands_of_variables():
    task = Task(
        (
            Let("X1", To(visit(4), "room")),
            Let("X2", Count("room", (Atom(SIZE, "==", Of("X1", SIZE)),))),
            Let("X3", Count("visit", (Atom(Attr("room"), "==", Ref("X1")),))),
        ),
        (("a", Ref("X2")), ("b", Ref("X3"))),
    )
    assert oracle().run(task).answer == {"a": 2, "b": 1}


def choice(cons=(), goal=None, k=2, atoms=()):
    return Choose("room", tuple(atoms), k, tuple(cons), goal)


def test_choose_finds_every_best_set():
    cons = (Con("sum", RATE, "<=", credits_(55)), Con("distinct", WING))
    result = read(choice(cons, ("max", SIZE)), ("picks", Of("X1", NAME)))
    info = result.info["X1"]
    # East + West within 55 credits: Oak Hall+Elm Room (55, size 14), Oak Room+Elm (45, 10), Ash+Elm (40, 12)
    assert (info.feasible, info.candidates, info.table_sets) == (3, 15, 15)
    assert (info.best, info.second, info.optimal) == (14, 12, ((10, 30),))
    assert result.answer == {"picks": ["Oak Hall", "Elm Room"]}
    assert certificates(result) == {"X1": 14}


def test_choose_keeps_ties_and_needs_no_certificate_without_a_goal():
    tied = read(choice(goal=("min", SIZE), k=1, atoms=(Atom(SIZE, ">=", people(6)),)), ("p", Of("X1", NAME)))
    assert tied.info["X1"].optimal == ((30,), (50,))
    any_set = read(choice((Con("sum", SIZE, ">", people(20)),)), ("p", Of("X1", NAME)))
    assert any_set.info["X1"].optimal == ((40, 60),)
    assert certificates(any_set) == {}


@pytest.mark.parametrize(
    ("node", "code"),
    [
        (Pick("room", (Atom(SIZE, ">", people(99)),), "max", RATE), "empty"),
        (Pick("room", (Atom(SIZE, "<", people(8)),), "max", SIZE), "tie"),
        (Count("visit", (Atom(Attr("room"), "==", room("Nowhere")),)), "name_unknown"),
        (choice((Con("sum", RATE, "<", credits_(10)),)), "infeasible"),
        (choice(k=7), "infeasible"),
    ],
)
def test_run_rejects_what_has_no_answer(node, code):
    with pytest.raises(Reject) as caught:
        read(node, ("x", Of("X1", NAME)) if isinstance(node, Choose) else ("x", Ref("X1")))
    assert caught.value.code == code
    assert pickle.loads(pickle.dumps(caught.value)).code == code


def test_a_tie_below_the_winner_is_none():
    assert read(Pick("room", (), "max", SIZE)).answer == {"x": 40}


def test_ambiguous_names_are_rejected():
    world = tiny_world()
    world.rows["visit"][0]["day"] = "2031-06-01"
    named = Named("visit", "state", "live")
    with pytest.raises(Reject) as caught:
        Oracle(world, connect(world)).run(Task((Let("X1", To(named, "room")),), (("x", Of("X1", NAME)),)))
    assert caught.value.code == "name_ambiguous"


def test_choose_caps_the_search_before_it_starts():
    world = tiny_world()
    extra = [{**world.rows["room"][0], "id": 1000 + n, "name": f"Room {n}"} for n in range(50)]
    overlay = tuple(("room", row) for row in extra)
    task = Task((Let("X1", choice(k=3)),), (("p", Of("X1", NAME)),))
    with pytest.raises(Reject) as caught:
        Oracle(world, connect(world, overlay)).run(task)
    assert caught.value.code == "search_cap"


def test_an_attribute_of_a_set_is_no_operand():
    task = Task(
        (Let("X1", choice()), Let("X2", Count("room", (Atom(SIZE, "==", Of("X1", SIZE)),)))),
        (("p", Of("X1", NAME)), ("n", Ref("X2"))),
    )
    with pytest.raises(Reject) as caught:
        oracle().run(task)
    assert caught.value.code == "plural_operand"


def test_acts_give_changes_and_targets():
    book = Act("book", (("room", room("Elm Room")), ("day", day(9)), ("heads", people(5))))
    result = oracle().run(acting(book, Act("cancel", (("visit", visit(1)),))))
    insert = {"room_name": "Elm Room", "day": "2031-05-09", "heads": 5, "state": "live"}
    assert result.changes == [
        Change("insert", "visit", insert),
        Change("update", "visit", {"id": 1, "state": "gone"}),
    ]
    assert not result.write_overlap
    assert oracle().run(acting(book, book)).write_overlap


def test_for_each_and_if_record_sets_and_branches():
    on_day = Atom(Attr("day"), "==", day(3))
    test = If(Of("X1", SIZE), ">", people(11), (Act("resize", (("room", Ref("X1")), ("size", people(2)))),), ())
    task = acting(Let("X1", Pick("room", (), "max", SIZE)), ForEach("visit", (on_day, LIVE), "cancel"), test)
    result = oracle().run(task)
    assert result.sets == {1: (1, 3, 8)}
    assert result.branches == {2: True}
    assert len(result.changes) == 4


@pytest.mark.parametrize(
    ("step", "code"),
    [
        (Act("cancel", (("visit", visit(2)),)), "act_noop"),
        (Act("resize", (("room", room("Oak Hall")), ("size", people(8)))), "act_noop"),
        (ForEach("visit", (Atom(Attr("heads"), ">", people(50)),), "cancel"), "foreach_empty"),
    ],
)
def test_acts_without_effect_are_rejected(step, code):
    with pytest.raises(Reject) as caught:
        oracle().run(acting(step))
    assert caught.value.code == code


def resize(name: str, size: int) -> Act:
    return Act("resize", (("room", room(name)), ("size", people(size))))


KEPT = Oracle(WORLD, connect(WORLD), {})
"""Keeps what was asked of the rows, and of the rows after some changes, for all programs below."""


def sensitive(task: Task) -> bool:
    asked = oracle()
    told = asked.order_sensitive(task, asked.run(task))
    assert [KEPT.order_sensitive(task, KEPT.run(task)) for _ in range(2)] == [told] * 2
    return told


def test_order_sensitive_finds_conditions_that_a_write_changes():
    size_of = Let("X1", To(visit(4), "room"))
    later = If(Of("X1", SIZE), "<=", people(6), (Act("cancel", (("visit", visit(1)),)),), ())
    assert sensitive(acting(size_of, resize("Elm Room", 9), later))
    assert sensitive(acting(size_of, later, resize("Elm Room", 9)))
    assert not sensitive(acting(size_of, resize("Oak Hall", 9), later))


def test_order_sensitive_finds_operands_sets_and_answers_that_a_write_changes():
    bound = Let("X1", To(visit(4), "room"))
    copied = Act("resize", (("room", room("Oak Hall")), ("size", Of("X1", SIZE))))
    assert sensitive(acting(bound, resize("Elm Room", 9), copied))
    assert not sensitive(acting(bound, copied, resize("Elm Room", 9)))
    assert sensitive(acting(bound, resize("Elm Room", 9), report=(("size", Of("X1", SIZE)),)))
    small = ForEach("visit", (Atom(Attr("heads"), ">=", people(6)), LIVE), "cancel")
    book = Act("book", (("room", room("Elm Room")), ("day", day(9)), ("heads", people(6))))
    assert sensitive(acting(book, small))
    assert not sensitive(acting(small, book))


def test_an_oracle_over_rows_that_may_change_asks_again():
    database = connect(WORLD)
    changing, keeping = Oracle(WORLD, database), Oracle(WORLD, database, {})
    before = [asked.ids("visit", (LIVE,)) for asked in (changing, keeping)]
    rates = [asked.values("room", Attr("rate")) for asked in (changing, keeping)]
    database.execute("UPDATE visit SET state = 'gone'")
    database.execute("UPDATE room SET rate = 1")
    assert (before[0], rates[0]) == (before[1], rates[1])
    assert changing.ids("visit", (LIVE,)) == []
    assert set(changing.values("room", Attr("rate")).values()) == {1}
    assert keeping.ids("visit", (LIVE,)) == before[1]


def test_answers_after_other_changes_are_others():
    size_of = Let("X1", To(visit(4), "room"))
    later = If(Of("X1", SIZE), "<=", people(6), (Act("cancel", (("visit", visit(1)),)),), ())
    found = [sensitive(acting(size_of, resize("Elm Room", size), later)) for size in (9, 5, 9, 7, 5)]
    assert found == [True, False, True, True, False]


def test_the_database_is_never_written():
    database = connect(WORLD)
    task = acting(resize("Elm Room", 9), Act("cancel", (("visit", visit(1)),)))
    asked = Oracle(WORLD, database)
    asked.order_sensitive(task, asked.run(task))
    assert database.total_changes == len(WORLD.rows["room"]) + len(WORLD.rows["visit"])
    assert asked.run(task).changes == asked.run(task).changes


def test_apply_changes_works_on_a_copy():
    database = connect(WORLD)
    cells = {"room_name": "Elm Room", "day": "2031-05-09", "heads": 5, "state": "live"}
    changes = [
        Change("insert", "visit", cells),
        Change("update", "room", {"id": 10, "size": 9}),
        Change("delete", "visit", {"id": 2}),
    ]
    after = apply_changes(database, changes)
    assert after.execute("SELECT MAX(id), COUNT(*) FROM visit").fetchone() == (9, 8)
    assert after.execute("SELECT size FROM room WHERE id = 10").fetchone() == (9,)
    assert database.execute("SELECT MAX(id), COUNT(*) FROM visit").fetchone() == (8, 8)
    for broken in (Change("insert", "visit", {"nothing": 1}), Change("update", "visit", {"day": "x"})):
        with pytest.raises(AuthorError, match="change"):
            apply_changes(database, [broken])


def test_ids_and_values_answer_single_questions():
    asked = oracle()
    assert asked.ids("room", (EAST,)) == [10, 20, 50]
    assert asked.value("visit", 5, Attr("room")) == 40
    assert asked.value("room", 60, Attr("quiet")) is True
    assert asked.value("room", 99, SIZE) is None
    assert asked.resolve(Pick("room", (), "max", SIZE))[0] == 40


def test_ill_typed_programs_and_broken_sql_are_errors_not_rejections():
    with pytest.raises(IRTypeError):
        oracle().run(Task((Let("X1", Count("room", ())),), ()))
    world = tiny_world()
    world.derived["room", "load"] = type(world.derived["room", "load"])(
        **{**vars(world.derived["room", "load"]), "sql": "({t}.nothing + {1})"}
    )
    task = Task((Let("X1", Sum("room", (), Attr("load", (day(3),)))),), (("x", Ref("X1")),))
    with pytest.raises(AuthorError, match="placeholders"):
        Oracle(world, connect(world)).run(task)


def test_negative_numbers_stay_numbers_in_sql():
    world = tiny_world()
    world.rows["room"][0]["size"] = -3
    found = Oracle(world, connect(world)).run(
        Task((Let("X1", Count("room", (Atom(SIZE, ">", people(-3)),))),), (("x", Ref("X1")),))
    )
    assert found.answer == {"x": 5}
