"""The task program: what the type checker refuses and with which words, and the JSON form."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
    Pick,
    Ref,
    Sum,
    Task,
    To,
    Type,
    check,
    digest,
    fresh_var,
    from_json,
    kind_of,
    lets,
    swap,
    to_json,
    without_dead_lets,
)
from envsynth.author.procedural.signature import skeleton

HOURS = Type("num", "h")
ATTRS = {
    ("room", "name"): Type("str", "name"),
    ("room", "size"): Type("num", "m2"),
    ("room", "opened"): Type("date"),
    ("room", "wing"): Type("row", "wing"),
    ("room", "grade"): Type("str", "grade"),
    ("room", "quiet"): Type("bool"),
    ("room", "free"): HOURS,
    ("wing", "name"): Type("str", "name"),
}


class Rooms:
    """A schema of rooms and wings; `free` takes a day."""

    def attr_type(self, entity: str, name: str) -> Type | None:
        return ATTRS.get((entity, name))

    def attr_params(self, entity: str, name: str) -> tuple[Type, ...]:
        return (Type("date"),) if name == "free" else ()

    def action_params(self, op: str) -> tuple[tuple[str, Type], ...] | None:
        return {"paint": (("room", Type("row", "room")),), "rent": (("room", Type("row", "room")), ("n", HOURS))}.get(
            op
        )


ROOM = Named("room", "name", "Oak")
SIZE = Attr("size")
BIG = Atom(SIZE, ">=", Const(20, "num", "m2"))
X1 = Let("X1", Pick("room", (BIG,), "max", SIZE))
NAME = ("room_name", Of("X1", Attr("name")))
GOOD = Task((X1, Act("paint", (("room", Ref("X1")),))), (NAME,))


def reading(*steps, report=(NAME,)) -> Task:
    return Task((X1, *steps), report)


def choosing(cons=(), goal=None, k=2) -> Task:
    return Task((Let("X1", Choose("room", (), k, cons, goal)),), (("room_names", Of("X1", Attr("name"))),))


def test_check_gives_the_type_of_each_variable() -> None:
    task = reading(
        Let(
            "X2",
            Count("room", (Atom(Attr("quiet"), "is", None), Atom(Attr("grade"), "==", Const("A", "str", "grade")))),
        ),
        Let("X3", Sum("room", (Atom(Attr("opened"), "<", Const("2031-01-01", "date")),), SIZE)),
        Let("X4", To(Ref("X1"), "wing")),
        Let(
            "X5", Choose("room", (), 2, (Con("sum", SIZE, "<=", Const(90, "num", "m2")), Con("distinct", Attr("wing"))))
        ),
        If(
            Of("X1", Attr("free", (Const("2031-05-01", "date"),))),
            ">",
            Const(3, "num", "h"),
            (),
            (Act("paint", (("room", ROOM),)),),
        ),
        ForEach("room", (Atom(Attr("wing"), "==", Ref("X4")),), "paint"),
        report=(NAME, ("n", Ref("X2")), ("size", Ref("X3")), ("wing", Of("X4", Attr("name"))), ("all", Ref("X5"))),
    )
    assert check(task, Rooms()) == {
        "X1": Type("row", "room"),
        "X2": Type("num", ""),
        "X3": Type("num", "m2"),
        "X4": Type("row", "wing"),
        "X5": Type("rows", "room"),
    }


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (reading(Let("X2", Count("room", ()))), "dead binding"),
        (reading(X1), "bound twice"),
        (reading(report=(NAME, NAME)), "names a field twice"),
        (reading(report=(NAME, ("n", Ref("X9")))), "unbound variable X9"),
        (reading(report=(NAME, ("n", "text"))), "bad operand"),
        (reading(report=(("n", Of("X1", Attr("colour"))),)), "unknown attribute room.colour"),
        (reading(report=(("n", Of("X1", Attr("free"))),)), "takes 1 arguments, got 0"),
        (reading(report=(("n", Of("X1", Attr("free", (Const(1, "num", "h"),)))),)), "wanted"),
        (Task((Let("X1", Count("room", ())),), (("n", Of("X1", SIZE)),)), "X1 is no row"),
        (
            Task((Let("X1", Count("room", (Atom(Attr("quiet"), "==", Const(1, "num")),))),), (("n", Ref("X1")),)),
            "boolean",
        ),
        (
            Task((Let("X1", Count("room", (Atom(SIZE, "~", Const(1, "num", "m2")),))),), (("n", Ref("X1")),)),
            "comparator",
        ),
        (Task((Let("X1", Count("room", (Atom(SIZE, ">", None),))),), (("n", Ref("X1")),)), "comparator"),
        (Task((Let("X1", Count("room", (Atom(SIZE, ">", Const(1, "num", "h")),))),), (("n", Ref("X1")),)), "against"),
        (
            Task(
                (Let("X1", Count("room", (Atom(Attr("grade"), ">", Const("A", "str", "grade")),))),),
                (("n", Ref("X1")),),
            ),
            "without order",
        ),
        (Task((Let("X1", Pick("room", (), "max", Attr("grade"))),), (NAME,)), "pick by an attribute without order"),
        (Task((Let("X1", Sum("room", (), Attr("opened"))),), (("n", Ref("X1")),)), "is no number"),
        (Task((Let("X1", To(Const(3, "num"), "wing")),), (("n", Ref("X1")),)), "no relation"),
        (Task((Let("X1", To(ROOM, "grade")),), (("n", Ref("X1")),)), "no relation"),
        (choosing((Con("sum", SIZE, "<=", None),)), "sum condition on size"),
        (choosing((Con("sum", Attr("grade"), "<=", Const(1, "num")),)), "sum condition on grade"),
        (choosing((Con("most", SIZE),)), "unknown set condition"),
        (choosing(goal=("max", Attr("grade"))), "goal by an attribute"),
        (reading(Act("burn", ())), "unknown action 'burn'"),
        (reading(Act("rent", (("room", ROOM),))), "action rent takes"),
        (reading(Act("rent", (("room", ROOM), ("n", Const(3, "num", "m2"))))), "action rent, n"),
        (reading(If(Of("X1", SIZE), ">", Const(3, "num", "h"), (), ())), "condition compares"),
        (reading(ForEach("room", (), "rent")), "does not take exactly one"),
        (reading(ForEach("wing", (), "paint")), "does not take exactly one"),
    ],
)
def test_check_refuses_ill_typed_programs_and_says_why(task: Task, message: str) -> None:
    with pytest.raises(IRTypeError, match=message):
        check(task, Rooms())


def test_from_json_reads_what_to_json_wrote() -> None:
    assert from_json(to_json(GOOD)) == GOOD


@pytest.mark.parametrize("value", [[], [3], ["Nothing", 1], ["Ref"], ["Ref", "X1", "X2"], ["()", ["Pick", 1]]])
def test_from_json_refuses_malformed_programs(value: object) -> None:
    with pytest.raises(IRTypeError, match="malformed program"):
        from_json(value)


@given(st.integers(1, 9), st.integers(1, 9))
def test_digest_tells_constants_apart_and_skeleton_does_not(left: int, right: int) -> None:
    one, two = (swap(GOOD, X1.node.atoms[0], Atom(SIZE, ">=", Const(number, "num", "m2"))) for number in (left, right))
    assert (digest(one) == digest(two)) == (left == right)
    assert skeleton(one) == skeleton(two)
    assert skeleton(one) != skeleton(swap(one, one.steps[0].node.atoms, ()))
    painted = (Task((Act("paint", (("room", name),)),), ()) for name in (ROOM, Named("room", "name", "Elm")))
    assert len(dict.fromkeys(map(skeleton, painted))) == 1


def test_swap_replaces_the_very_node_and_leaves_its_equal() -> None:
    twin = Named("room", "name", "Oak")
    task = Task((Act("paint", (("room", ROOM),)), Act("paint", (("room", twin),))), ())
    assert swap(task, twin, Ref("X1")).steps == (task.steps[0], Act("paint", (("room", Ref("X1")),)))


def test_kind_is_derived_from_the_program() -> None:
    kinds = [kind_of(task) for task in (GOOD, reading(), choosing(), choosing(goal=("max", SIZE)))]
    assert kinds == ["act", "read", "plan", "optimise"]
    assert kind_of(Task((ForEach("room", (), "paint"),), ())) == "act"


def test_variables_are_numbered_on_and_dead_ones_dropped_in_chains() -> None:
    chain = reading(Let("X3", Pick("room", (), "min", SIZE)), Let("X7", To(Ref("X3"), "wing")))
    assert fresh_var(chain) == "X8"
    assert fresh_var(Task((), ())) == "X1"
    assert without_dead_lets(chain) == reading()
    assert [let.var for let in lets(chain, Pick)] == ["X1", "X3"]
    assert [let.var for let in lets(chain)] == ["X1", "X3", "X7"]
