"""A tool that finds rows by name is withheld: the solution turns pages instead, and is right as before."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from envsynth.author.procedural.author import ProceduralAuthor
from envsynth.author.procedural.ir import Act, Attr, Let, Named, Of, Pick, Task
from envsynth.author.procedural.operators import OPERATORS, delivered, without_tools
from envsynth.author.procedural.planner import compile_plan
from envsynth.author.procedural.sampling import Sampler
from envsynth.delivery import AS_IT_IS, Delivery
from envsynth.errors import Rejected
from envsynth.gates import Rehearsal, check
from envsynth.hardening import Step, audit
from envsynth.sandbox import shared_jail
from tests.author.procedural.tiny_world import day, people, tiny_world

WORLD = tiny_world()
FINDABLE = replace(
    WORLD,
    style=replace(WORLD.style, page_size=2),
    access=WORLD.access | {"room": replace(WORLD.access["room"], find_tool="find_room")},
)
NAMES = [str(row["name"]) for row in sorted(WORLD.rows["room"], key=lambda row: int(row["id"]))]
PICK = Task((Let("X1", Pick("room", (), "max", Attr("rate"))),), (("name", Of("X1", Attr("name"))),))


def book(name: str) -> Task:
    return Task((Act("book", (("room", Named("room", "name", name)), ("day", day(9)), ("heads", people(5)))),), ())


def apply(task: Task, world=FINDABLE, needed: frozenset[str] = frozenset()):
    sampler = Sampler(world, (), random.Random(0), needed)
    return OPERATORS["withhold"].apply(sampler, task, sampler.oracle.run(task))


def test_the_operator_withholds_what_finds_a_row_behind_the_first_page():
    for place, name in enumerate(NAMES):
        if place < FINDABLE.style.page_size:
            with pytest.raises(Rejected, match="first pages"):
                apply(book(name))
            continue
        edit = apply(book(name))
        assert edit.task == book(name)
        assert edit.params == {"tool": "find_room"}
        assert delivered(AS_IT_IS, edit.delivery) == Delivery(withheld=("find_room",))
    assert len(NAMES) > FINDABLE.style.page_size


@pytest.mark.parametrize(
    ("task", "world", "needed", "code"),
    [
        (PICK, FINDABLE, frozenset[str](), "no_site"),
        (book(NAMES[-1]), WORLD, frozenset[str](), "no_site"),
        (book(NAMES[-1]), FINDABLE, frozenset({"no_pagination"}), "no_skill"),
    ],
)
def test_the_operator_refuses_where_pages_need_not_be_turned_for_it(task, world, needed, code):
    with pytest.raises(Rejected) as refused:
        apply(task, world, needed)
    assert refused.value.code == code


def test_the_solution_is_compiled_for_the_world_without_the_tool():
    task = book(NAMES[-1])
    assert "find_room" in compile_plan(FINDABLE, task)
    assert "find_room" not in compile_plan(without_tools(FINDABLE, ("find_room",)), task)
    assert FINDABLE.access["room"].find_tool == "find_room"
    assert without_tools(FINDABLE, ()) is FINDABLE


def test_what_the_parent_takes_away_stays_away():
    parent = Delivery(max_calls=9, withheld=("find_room",))
    assert delivered(parent, None) is parent
    assert delivered(parent, Delivery(withheld=("find_person",))).model_dump(exclude_defaults=True) == {
        "max_calls": 9,
        "withheld": ("find_room", "find_person"),
    }
    assert delivered(parent, Delivery(max_calls=400)) == Delivery(max_calls=400, withheld=("find_room",))
    with pytest.raises(Rejected, match="so already"):
        delivered(parent, Delivery(withheld=("find_room",)))


@pytest.mark.parametrize(("category", "index", "number", "attempt"), [
    ("warehouse restocking", 0, 3, 12), ("warehouse restocking", 1, 2, 4), ("hotel front desk", 0, 0, 6),
])  # fmt: skip
def test_children_turn_pages_and_pass_every_gate(category: str, index: int, number: int, attempt: int):
    author, jail = ProceduralAuthor(category, "wh"), shared_jail()
    draft = author.draft(index)
    with Rehearsal(draft.environment, jail) as rehearsal:
        root = audit(draft, author, author.root(draft, number, attempt), jail, None, rehearsal)
        assert isinstance(root, Step), root
        child = audit(
            draft, author, author.propose(draft, root.task, "withhold", 0, root.skills), jail, root, rehearsal
        )
        assert isinstance(child, Step), child
    (tool,) = child.task.delivery.withheld
    assert draft.environment.tool(tool) is not None
    assert tool in root.task.solution
    assert tool not in child.task.solution
    assert child.calls > root.calls
    assert child.skills - root.skills == {"no_pagination"}
    assert (child.task.prompt, child.task.oracle, child.task.ir) == (root.task.prompt, root.task.oracle, root.task.ir)
    report = check(draft.environment, child.task)
    assert report.ok, [finding.message for finding in report.findings]
    assert report.evidence("EX213") == {"withheld": [tool]}
