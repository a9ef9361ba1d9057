"""Compiled solvers on a world whose right answers are known by hand, and what each lacking skill does to them."""

from __future__ import annotations

import ast

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
    Of,
    Pick,
    Ref,
    Sum,
    Task,
    To,
)
from envsynth.author.procedural.planner import (
    ASK_FLAGS,
    BUDGET_FLAGS,
    FAULT_FLAGS,
    FLAGS,
    SKILLS,
    applicable_skills,
    compile_plan,
)
from envsynth.author.procedural.planner.prelude import CHOOSING
from envsynth.errors import AuthorError
from tests.author.procedural.random_tasks import LocalTools, play
from tests.author.procedural.tiny_world import (
    LOAD,
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


class Sampled:
    """What `LocalTools` needs of a sampler."""

    def __init__(self, world):
        self.world, self.overlay = world, ()


def solve(task, world=None, **flags):
    world = world or tiny_world()
    tools = LocalTools(Sampled(world))
    return play(compile_plan(world, task), tools, **flags), tools


def reading(*lets, report):
    return Task(tuple(Let(f"X{index}", node) for index, node in enumerate(lets, start=1)), tuple(report))


PICK = reading(Pick("room", (EAST, Atom(RATE, "<", credits_(30))), "max", RATE), report=[("name", Of("X1", NAME))])
BRANCHING = Task(
    (
        Let("X1", To(visit(4), "room")),
        If(
            Of("X1", SIZE),
            ">",
            people(6),
            (Act("cancel", (("visit", visit(1)),)),),
            (Act("resize", (("room", Ref("X1")), ("size", people(7)))),),
        ),
    ),
    (),
)
CHOICE = reading(
    Choose("room", (), 2, (Con("sum", RATE, "<=", credits_(55)), Con("distinct", WING)), ("max", SIZE)),
    report=[("picks", Of("X1", NAME))],
)
LOADS = reading(Sum("room", (), Attr("load", (day(3),))), report=[("total", Ref("X1"))])


@pytest.mark.parametrize("paging", ["page", "offset", "cursor"])
@pytest.mark.parametrize("projection", ["full", "brief"])
@pytest.mark.parametrize("filters", ["none", "relations+enums"])
@pytest.mark.parametrize("lookup", ["id", "name"])
def test_solve_reads_through_every_interface(paging, projection, filters, lookup):
    world = tiny_world(paging=paging, projection=projection, filters=filters, lookup=lookup)
    assert solve(PICK, world)[0] == {"name": "Oak Room"}
    assert solve(LOADS, world)[0] == {"total": 11}
    assert sorted(solve(CHOICE, world)[0]["picks"]) == ["Elm Room", "Oak Hall"]
    counted = reading(Count("visit", (Atom(Attr("room"), "==", room("Fir Room")), LIVE)), report=[("n", Ref("X1"))])
    assert solve(counted, world)[0] == {"n": 2}


def test_filters_and_whole_listings_keep_calls_low():
    counted = reading(Count("visit", (Atom(Attr("room"), "==", room("Oak Hall")),)), report=[("n", Ref("X1"))])
    plain = solve(counted, tiny_world(lookup="name"))[1].calls
    filtered = solve(counted, tiny_world(lookup="name", filters="relations"))[1].calls
    assert (plain, filtered) == (5, 2)
    # six rooms ask for their visits: two filtered reads of one and two pages, then all four pages at once
    assert solve(LOADS, tiny_world(filters="relations"))[1].calls <= 3 + 2 + 4


@pytest.mark.parametrize(
    ("task", "skill", "answer"),
    [
        (PICK, "first_match", {"name": "Oak Room"}),
        (PICK, "no_filter", {"name": "Fir Room"}),
        (PICK, "first_constraint_only", {"name": "Oak Hall"}),
        (PICK, "wrong_boundary", {"name": "Oak Hall"}),
        (PICK, "no_pagination", {"name": "Oak Room"}),
        (LOADS, "ignores_policy", {"total": 13}),
        (LOADS, "no_aggregation", {"total": 5}),
        (LOADS, "no_pagination", {"total": 5}),
        (CHOICE, "first_match", {"picks": ["Oak Hall", "Oak Room"]}),
        (CHOICE, "greedy", {"picks": ["Yew Room"]}),
    ],
)
def test_a_lacking_skill_gives_the_careless_answer(task, skill, answer):
    assert solve(task, **SKILLS[skill])[0] == answer


def test_fuzzy_names_take_the_first_that_starts_alike():
    task = reading(Count("visit", (Atom(Attr("room"), "==", room("Oak Room")),)), report=[("n", Ref("X1"))])
    assert solve(task)[0] == {"n": 1}
    assert solve(task, **SKILLS["fuzzy_name"])[0] == {"n": 2}
    by_id = reading(To(visit(4), "room"), report=[("name", Of("X1", NAME))])
    assert solve(by_id, **SKILLS["fuzzy_name"])[0] == {"name": "Elm Room"}


def state(tools):
    rooms = {row["id"]: row["size"] for row in tools.database.execute("SELECT id, size FROM room")}
    gone = [row["id"] for row in tools.database.execute("SELECT id FROM visit WHERE state = 'gone'")]
    return rooms[30], gone


def test_branches_and_writes_follow_their_flags():
    assert state(solve(BRANCHING)[1]) == (7, [2, 6])
    assert state(solve(BRANCHING, **SKILLS["no_branch"])[1]) == (6, [1, 2, 6])
    assert state(solve(BRANCHING, **SKILLS["never_writes"])[1]) == (6, [2, 6])
    assert state(solve(BRANCHING, **SKILLS["wrong_boundary"])[1]) == (6, [1, 2, 6])


def test_everything_is_read_before_the_first_change():
    bound = Let("X1", To(visit(4), "room"))
    copied = Act("resize", (("room", room("Oak Hall")), ("size", Of("X1", SIZE))))
    first = Act("resize", (("room", Ref("X1")), ("size", people(9))))
    each = ForEach("visit", (Atom(Attr("day"), "==", day(3)), LIVE), "cancel")
    task = Task((bound, first, copied, each), (("size", Of("X1", SIZE)),))
    answer, tools = solve(task)
    sizes = {row["id"]: row["size"] for row in tools.database.execute("SELECT id, size FROM room")}
    assert (answer, sizes[10], sizes[30]) == ({"size": 6}, 6, 9)
    assert state(tools)[1] == [1, 2, 3, 6, 8]


def test_a_refused_change_ends_the_solver():
    task = Task((Act("book", (("room", room("Oak Room")), ("day", day(9)), ("heads", people(5)))),), ())
    with pytest.raises(Exception, match="too many"):
        solve(task)


def test_ablations_that_are_not_applicable_change_nothing():
    for task in (PICK, BRANCHING, CHOICE, LOADS):
        world = tiny_world()
        answer, tools = solve(task, world)
        expected = (answer, state(tools), tools.calls)
        for skill in [name for name in SKILLS if name not in applicable_skills(world, task)]:
            answer, tools = solve(task, world, **SKILLS[skill])
            assert (answer, state(tools), tools.calls) == expected, skill


def test_applicable_skills_name_what_is_in_play():
    world = tiny_world()
    assert applicable_skills(world, LOADS) == ["no_pagination", "ignores_policy", "no_aggregation"]
    assert applicable_skills(world, CHOICE) == ["no_pagination", "first_match", "greedy", "wrong_boundary"]
    assert applicable_skills(world, BRANCHING) == ["no_pagination", "no_branch", "never_writes", "wrong_boundary"]
    assert applicable_skills(world, PICK) == [
        "no_pagination",
        "first_match",
        "wrong_boundary",
        "first_constraint_only",
        "no_filter",
    ]


def test_the_source_stands_alone_and_names_every_flag():
    source = compile_plan(tiny_world(), CHOICE)
    tree = ast.parse(source)
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert [ast.unparse(node) for node in imports] == ["from itertools import combinations"]
    assert "__" not in source
    assigned = [node.targets[0].id for node in tree.body if isinstance(node, ast.Assign)]
    assert [name for name in FLAGS if name not in assigned] == []
    for skill, flags in SKILLS.items():
        known = {**FLAGS, **FAULT_FLAGS, **ASK_FLAGS, **BUDGET_FLAGS}
        assert [name for name, value in flags.items() if known[name] == value] == [], skill
    assert "d_load" not in source
    assert source == compile_plan(tiny_world(), CHOICE)


def test_texts_are_included_with_what_they_call():
    source = compile_plan(tiny_world(), LOADS)
    assert source.count("def visits_of(row)") == 1
    assert "def d_load(row, day)" in source
    assert "def d_quiet" not in source
    assert "def choose" not in source


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("def d_load(row, day):\n  return (\n", "no Python"),
        ("def rows(entity, equal):\n    return []\ndef d_load(row, day):\n    return 0\n", "prelude"),
        ("def visits_of(row):\n    return []\ndef d_load(row, day):\n    return 0\n", "differently"),
        ("def d_other(row, day):\n    return 0\n", "no planner text defines"),
        ("print(1)\n", "functions and constants"),
    ],
)
def test_malformed_planner_texts_are_refused(plan, message):
    world = tiny_world()
    world.derived["room", "load"] = type(LOAD)(**{**vars(LOAD), "plan": plan})
    with pytest.raises(AuthorError, match=message):
        compile_plan(world, LOADS)


def test_arguments_that_need_calls_are_worked_out_before_the_loop():
    task = reading(
        To(visit(4), "room"),
        Count("room", (Atom(SIZE, "<=", Of("X1", SIZE)),)),
        Count("room", (Atom(Attr("load", (Const("2031-05-03", "date"),)), ">", people(0)),)),
        report=[("n", Ref("X2")), ("m", Ref("X3"))],
    )
    assert solve(task)[0] == {"n": 3, "m": 3}


def test_a_solver_gives_up_where_more_sets_than_any_task_has_would_be_tried():
    space = {"FIRST": False, "GREEDY": False, "slips": lambda: False, "holds": lambda total, op, bound: total >= bound}
    exec(CHOOSING, space)
    conditions = [("sum", lambda row: row, ">=", 10**6)]
    with pytest.raises(RuntimeError, match="too many sets"):
        space["choose"](list(range(51)), 3, conditions, None)  # 20,825 sets
    with pytest.raises(RuntimeError, match="no 3 rows"):
        space["choose"](list(range(50)), 3, conditions, None)  # 19,600
