"""Drawn pieces of programs are well-typed, true of their witness, and use values that occur in the data."""

from __future__ import annotations

import random
import re

import pytest

from envsynth.author.procedural.author import ProceduralAuthor
from envsynth.author.procedural.ir import (
    Act,
    Attr,
    Choose,
    Const,
    GroupBy,
    Let,
    Named,
    Of,
    Pick,
    Ref,
    Sum,
    Task,
    Try,
    Type,
    check,
    digest,
    walk,
)
from envsynth.author.procedural.sampling import COMPARE, NO_ROUTE, ROOT_KINDS, Sampler
from envsynth.errors import Rejected
from tests.author.procedural.tiny_world import room, tiny_world

WORLD = tiny_world()
DRAFTED = ProceduralAuthor("planning a travel itinerary", 3).draft(0).composition
BOTH = pytest.mark.parametrize("world", [WORLD, DRAFTED], ids=["tiny", "drafted"])


def sampler(world=WORLD, seed=0, overlay=()) -> Sampler:
    return Sampler(world, tuple(overlay), random.Random(f"sampling/{seed}"))


def drawn(draw, count=60):
    """What a draw gives over some seeds, without refusals."""
    found = []
    for seed in range(count):
        try:
            found.append(draw(seed))
        except Rejected:
            continue
    assert found
    return found


def test_a_bound_on_a_total_excludes_some_set(monkeypatch):
    """Where all candidates have the same number, no bound tells one set from another."""
    tasks = drawn(lambda seed: sampler(DRAFTED, seed).root("choose"))
    assert tasks
    monkeypatch.setattr(Sampler, "numbers", lambda self, entity, ids, attr: dict.fromkeys(ids, 0))
    codes = []
    for seed in range(60):
        with pytest.raises(Rejected) as caught:
            sampler(DRAFTED, seed).choose_root()
        codes.append(caught.value.code)
    assert "idle_bound" in codes


@BOTH
@pytest.mark.parametrize("truth", [True, False])
def test_a_condition_has_the_asked_truth_on_its_witness(world, truth):
    kinds = set()
    for seed in range(80):
        one = sampler(world, seed)
        entity = one.rng.choice(list(world.tables))
        row_id = one.rng.choice(world.rows[entity])["id"]
        try:
            atom = one.atom(entity, row_id, truth=truth)
        except Rejected as reason:
            assert reason.code == "no_atom"  # noqa: PT017 -- one of eighty draws
            continue
        kinds.add(atom.op)
        assert (row_id in one.oracle.ids(entity, (atom,))) == truth, atom
    assert len(kinds) > 3


@BOTH
def test_thresholds_occur_among_the_values_of_the_attribute(world):
    for seed in range(60):
        one = sampler(world, seed)
        entity = one.rng.choice(list(world.tables))
        try:
            atom = one.atom(entity)
        except Rejected:
            continue
        if isinstance(atom.value, Const):
            values = [one.oracle.value(entity, row["id"], atom.attr) for row in world.rows[entity]]
            assert atom.value.value in values
            assert atom.value.value not in NO_ROUTE.get(atom.value.unit, ())


def test_a_condition_is_not_made_of_values_that_stand_for_none(monkeypatch):
    one = sampler()
    monkeypatch.setitem(NO_ROUTE, "people", tuple(row["size"] for row in WORLD.rows["room"]))
    assert all(one.atom_on("room", Attr("size"), 10, truth=True) is None for _ in range(20))


def test_a_condition_on_an_attribute_without_value_is_not_drawn(monkeypatch):
    one = sampler()
    monkeypatch.setattr(one.oracle, "value", lambda entity, row_id, attr: 8 if row_id == 10 else None)
    found = [one.atom_on("room", Attr("size"), 10, truth=False) for _ in range(60)]
    # The other row has no value, unless it is the witness itself.
    assert {atom.value.value for atom in found if atom is not None} == {8}
    assert found.count(None) > 40
    monkeypatch.setattr(one.oracle, "value", lambda entity, row_id, attr: None)
    assert one.atom_on("room", Attr("size"), 10, truth=True) is None


def test_an_entity_without_attributes_has_no_condition(monkeypatch):
    one = sampler()
    monkeypatch.setattr(one, "attr_names", lambda entity, kinds: [])
    with pytest.raises(Rejected, match="no_atom"):
        one.atom("room")


def test_numbers_leave_out_rows_without_value(monkeypatch):
    one = sampler()
    assert one.numbers("room", [10, 40], Attr("size")) == {10: 8, 40: 12}
    monkeypatch.setattr(one.oracle, "value", lambda entity, row_id, attr: None if row_id == 10 else 1)
    assert one.numbers("room", [10, 40], Attr("size")) == {40: 1}


def test_comparators_are_those_of_the_program():
    assert all(COMPARE[op](2, 2) == (op in (">=", "<=", "==")) for op in COMPARE)
    assert COMPARE["<"]("2030-01-01", "2030-01-02")


@BOTH
def test_a_row_is_named_by_its_name_unless_two_have_it(world):
    one = sampler(world)
    for entity, rows in world.rows.items():
        named = one.named(entity, rows[0])
        assert named.by == world.naming(entity)
        assert one.row(named) == rows[0]


def test_a_name_that_two_rows_share_gives_way_to_the_id():
    twin = {**WORLD.rows["room"][0], "id": 5, "name": "Oak Hat"}
    one = sampler(overlay=[("room", twin)])
    assert one.rows("room")[-1] == twin
    assert one.named("room", twin) == room("Oak Hat")
    one.world.rows["room"].append({**twin, "id": 6})
    try:
        assert one.named("room", twin) == Named("room", "id", 5)
    finally:
        one.world.rows["room"].pop()
    with pytest.raises(Rejected, match="no_row"):
        one.row(room("Nowhere"))


def test_hours_come_in_ascending_order():
    types = [Type("num", "oclock"), Type("date"), Type("num", "oclock")]
    for seed in range(20):
        start, _, end = sampler(DRAFTED, seed).operands(types, list(DRAFTED.tables))
        assert start.value < end.value


def test_operands_are_values_that_occur():
    one = sampler()
    assert one.domain(Type("num", "people"), ["visit"]) == [1, 2, 3, 4, 5, 6, 9]
    assert one.operand(Type("date"), ["visit"]).value in one.domain(Type("date"), ["visit"])
    assert isinstance(one.operand(Type("row", "room"), []), Named)
    with pytest.raises(Rejected, match="no_value"):
        one.operand(Type("num", "parsecs"), ["room"])


def test_attributes_by_kind():
    one = sampler()
    assert one.attr_names("room", ("num",)) == ["size", "rate", "load"]
    assert one.attr_names("room", ("bool",)) == ["quiet"]
    assert one.attr_names("visit", ("row",)) == ["room"]
    assert one.additive("room") == ["size", "rate", "load"]
    assert one.neighbours("room") == ["room", "visit"]
    assert len(one.attr("room", "load").args) == 1


def test_an_action_uses_what_is_bound():
    one = sampler()
    assert one.takes("room")
    assert not one.takes("person")
    for seed in range(30):
        act = sampler(seed=seed).act([("X1", "room")])
        assert Ref("X1") in [operand for _, operand in act.args]
        assert act.op in ("book", "resize")
    with pytest.raises(Rejected, match="no_action"):
        one.act([("X1", "person")])


def test_a_variable_fills_one_parameter_only():
    for seed in range(30):
        act = sampler(DRAFTED, seed).act()
        entities = [type_.detail for _, type_ in DRAFTED.actions[act.op].params if type_.kind == "row"]
        if entities:
            used = sampler(DRAFTED, seed).act([("X1", entities[0])])
            assert sum(operand == Ref("X1") for _, operand in used.args) == 1


@BOTH
@pytest.mark.parametrize("kind", list(dict.fromkeys(ROOT_KINDS)))
def test_roots_are_well_typed_and_of_their_kind(world, kind):
    shapes = {
        "pick": lambda task: isinstance(task.steps[0].node, Pick) and len(task.report) == 2,
        "count": lambda task: [type(step.node).__name__ for step in task.steps] == ["Sum", "Count"],
        "sum": lambda task: isinstance(task.steps[0].node, Sum),
        "choose": lambda task: isinstance(task.steps[0].node, Choose),
        "act": lambda task: isinstance(task.steps[0], Act) and not task.report,
        "service": lambda task: isinstance(task.steps[1], Try) and Ref("X1") in list(walk(task.steps[1])),
        "pickact": lambda task: isinstance(task.steps[1], Act) and Ref("X1") in list(walk(task.steps[1])),
        "group": lambda task: isinstance(task.steps[0].node, GroupBy) and len(task.report) + len(task.steps) == 3,
    }
    if kind == "choose" and world is WORLD:
        tasks = drawn(lambda seed: sampler(world, seed).root(kind), 200)
    else:
        tasks = drawn(lambda seed: sampler(world, seed).root(kind))
    for task in tasks:
        check(task, world)
        assert shapes[kind](task)
        assert isinstance(task, Task)
    assert len({digest(task) for task in tasks}) > len(tasks) // 2


def test_a_row_is_reported_by_what_people_call_it():
    one = sampler()
    assert one.report_row("room", "X1") == ("room_name", Of("X1", Attr("name")))
    assert one.report_row("visit", "X1") == ("visit_id", Of("X1", Attr("id")))


def test_equal_seeds_draw_equal_programs():
    for kind in dict.fromkeys(ROOT_KINDS):
        for seed in range(5):
            try:
                first = sampler(DRAFTED, seed).root(kind)
            except Rejected as reason:
                with pytest.raises(Rejected, match=reason.code):
                    sampler(DRAFTED, seed).root(kind)
            else:
                assert sampler(DRAFTED, seed).root(kind) == first


def test_a_choice_may_ask_for_different_relations():
    kinds = {con.kind for task in drawn(lambda seed: sampler(DRAFTED, seed).root("choose"), 120) for con in _cons(task)}
    assert kinds == {"sum", "distinct"}


def _cons(task):
    return [
        con for step in task.steps if isinstance(step, Let) and isinstance(step.node, Choose) for con in step.node.cons
    ]


def test_a_field_is_called_what_prompts_call_the_value_without_its_arguments():
    world = ProceduralAuthor("university exams", "fields").draft(0).composition
    slugs = {name: world.attr_slug(entity, name) for entity, name in world.derived}
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", slug) for slug in slugs.values()), slugs
    labels = {name: item.label for (_, name), item in world.derived.items()}
    assert [name for name, label in labels.items() if "{" in label], "no attribute has arguments"
    plain = {name: label.replace(" ", "_") for name, label in labels.items() if "{" not in label}
    assert {name: slugs[name] for name in plain} == plain
