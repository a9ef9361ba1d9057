"""Rules of the policy: who does not know them gets what the ablation gets, and the operator makes that wrong."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from envsynth.author.procedural.author import ProceduralAuthor
from envsynth.author.procedural.compose import Composition
from envsynth.author.procedural.ir import (
    Act,
    Atom,
    Attr,
    Choose,
    Con,
    Const,
    Count,
    GroupBy,
    Let,
    Of,
    Pick,
    Ref,
    Sum,
    Task,
    To,
    check,
    from_json,
    walk,
)
from envsynth.author.procedural.mechanisms import MECHANISMS
from envsynth.author.procedural.operators import MAX_ATOMS, OPERATORS, Edit, binding_failure, nonbinding_atom
from envsynth.author.procedural.oracle import Reject
from envsynth.author.procedural.planner import SKILLS, compile_plan
from envsynth.author.procedural.sampling import Overlay, Sampler
from envsynth.author.procedural.unruled import same_outcome, unruled, unruled_values
from envsynth.errors import Rejected
from envsynth.gates import Rehearsal, all_gates
from envsynth.hardening import HOPELESS, Step, audit, find_root
from envsynth.sandbox import shared_jail
from tests.author.procedural.random_tasks import LocalTools, play, world
from tests.author.procedural.tiny_world import LOAD, credits_, day, people, tiny_world, visit

WORLD = tiny_world()
NAME, RATE = Attr("name"), Attr("rate")
LOAD_3, LOAD_5 = Attr("load", (day(3),)), Attr("load", (day(5),))
WEST = Atom(Attr("wing"), "==", Const("West", "str", "wing"))
GONE: Overlay = (("visit", {"id": 9, "room_name": "Yew Room", "day": "2031-05-03", "heads": 3, "state": "gone"}),)
BAY: Overlay = (
    ("room", {**WORLD.rows["room"][1], "id": 5, "name": "Bay Room"}),
    *(
        ("visit", {"id": 9 + n, "room_name": "Bay Room", "day": f"2031-05-0{3 + n}", "heads": 8, "state": "gone"})
        for n in range(3)
    ),
)

PICK = Task((Let("X1", Pick("room", (), "max", RATE)),), (("room", Of("X1", NAME)),))
NEWEST = Task((Let("X1", Pick("room", (WEST,), "max", Attr("opened"))),), PICK.report)
COUNT = Task((Let("X1", Count("room", (Atom(RATE, ">", credits_(15)),))),), (("n", Ref("X1")),))
SUM = Task((Let("X1", Sum("room", (Atom(RATE, ">", credits_(15)),), RATE)),), (("total", Ref("X1")),))
TWO = Choose("room", (), 2, (Con("sum", RATE, "<=", credits_(90)),))
CHOOSE = Task((Let("X1", TWO),), (("rooms", Of("X1", NAME)),))


def sampler(seed: int = 0, needed: tuple[str, ...] = (), overlay: Overlay = (), of: Composition = WORLD) -> Sampler:
    return Sampler(of, overlay, random.Random(f"policy/{seed}"), frozenset(needed))


def edits(task: Task, overlay: Overlay = (), of: Composition = WORLD) -> list[Edit]:
    """Proposals over some seeds; each is well-typed."""
    found: list[Edit] = []
    for seed in range(40):
        drawn = sampler(seed, (), overlay, of)
        try:
            found.append(OPERATORS["policy"].apply(drawn, task, drawn.oracle.run(task)))
        except Rejected:
            continue
        check(found[-1].task, of)
    return found


def refusal(task: Task, needed: tuple[str, ...] = ()) -> str:
    drawn = sampler(0, needed)
    with pytest.raises(Rejected) as refused:
        OPERATORS["policy"].apply(drawn, task, drawn.oracle.run(task))
    return refused.value.code


def blind() -> Composition:
    """The tiny world with a planted bug: the oracle does not know that only live visits count."""
    sql = LOAD.sql.replace(" AND v.\"state\" = 'live'", "")
    assert sql != LOAD.sql
    return replace(WORLD, derived={**WORLD.derived, ("room", "load"): replace(LOAD, sql=sql)})


# -------------------------------------------------------------------------------------------------- without the rules


def test_values_without_the_rule_are_those_of_all_visits():
    drawn = sampler()
    assert drawn.oracle.values("room", LOAD_3) == {10: 5, 20: 4, 30: 0, 40: 2, 50: 0, 60: 0}
    assert unruled_values(drawn, "room", LOAD_3) == {10: 7, 20: 4, 30: 0, 40: 2, 50: 0, 60: 0}
    assert unruled_values(sampler(0, (), GONE), "room", LOAD_3)[60] == 3
    assert unruled_values(sampler(0, (), GONE), "room", Attr("quiet"))[60] == 0
    assert sampler(0, (), GONE).oracle.values("room", Attr("quiet"))[60] == 1


@pytest.mark.parametrize(
    ("task", "ruled", "without"),
    [
        (Task((Let("X1", Sum("room", (), LOAD_3)),), (("total", Ref("X1")),)), {"total": 11}, {"total": 13}),
        (Task((Let("X1", Count("room", (Atom(LOAD_5, ">", people(0)),))),), (("n", Ref("X1")),)), {"n": 1}, {"n": 2}),
        (Task((Let("X1", To(visit(2), "room")),), (("x", Of("X1", LOAD_3)),)), {"x": 5}, {"x": 7}),
        (
            Task((Let("X1", Pick("room", (Atom(RATE, ">", credits_(40)),), "max", LOAD_5)),), (("x", Of("X1", NAME)),)),
            None,
            {"x": "Fir Room"},
        ),
        (COUNT, {"n": 5}, {"n": 5}),
    ],
    ids=["total", "condition", "report", "objective", "no rule"],
)
def test_a_task_without_the_rules(task: Task, ruled: dict[str, Any] | None, without: dict[str, Any]):
    drawn = sampler()
    other = unruled(drawn, task)
    assert other is not None
    assert other.answer == without
    if ruled is None:
        with pytest.raises(Reject, match="tie"):
            drawn.oracle.run(task)
    else:
        assert drawn.oracle.run(task).answer == ruled
        assert same_outcome(task, drawn.oracle.run(task), other) == (ruled == without)
    assert drawn.oracle.run(SUM) == sampler().oracle.run(SUM)  # the oracle of the task itself is as it was


def test_only_the_named_attributes_lose_their_rule_and_open_ones_keep_it():
    both = Task((Let("X1", Sum("room", (Atom(LOAD_5, "<", people(1)),), LOAD_3)),), (("total", Ref("X1")),))
    drawn = sampler()
    assert drawn.oracle.run(both).answer == {"total": 11}
    found = [unruled(drawn, both, attrs) for attrs in ([LOAD_3], [LOAD_5], None, [])]
    assert [result.answer["total"] for result in found if result is not None] == [13, 9, 11, 11]
    load = Attr("load", (Of("X1", Attr("day")),))
    busiest = Let(
        "X1", Pick("visit", (Atom(Attr("state"), "==", Const("gone", "str", "state")),), "max", Attr("heads"))
    )
    task = Task((busiest, Let("X2", Sum("room", (), load))), (("total", Ref("X2")),))
    result = unruled(drawn, task)
    assert result is not None
    assert result.answer == drawn.oracle.run(task).answer == {"total": 11}


def test_an_outcome_that_is_none_is_no_other_outcome():
    tie = Task((Let("X1", Pick("room", (Atom(LOAD_5, ">", people(0)),), "max", Attr("size"))),), PICK.report)
    rows = [{**row, "size": 6} if row["name"] == "Fir Room" else row for row in WORLD.rows["room"]]
    drawn = sampler(of=replace(WORLD, rows={**WORLD.rows, "room": rows}))
    assert unruled(drawn, tie) is None
    assert not same_outcome(tie, drawn.oracle.run(tie), None)


def test_another_right_set_is_right():
    drawn = sampler()
    few = Task((Let("X1", replace(TWO, atoms=(Atom(RATE, ">", credits_(15)),))),), CHOOSE.report)
    all_, less = drawn.oracle.run(CHOOSE), drawn.oracle.run(few)
    assert (10, 50) in all_.info["X1"].optimal
    last = replace(
        all_, answer={"rooms": ["Oak Hall", "Ash Room"]}, info={"X1": replace(all_.info["X1"], optimal=((10, 50),))}
    )
    assert same_outcome(CHOOSE, all_, last)
    assert same_outcome(few, less, all_)
    assert not same_outcome(few, less, last)


def played(one: Sampler, task: Task) -> dict[str, Any] | None:
    try:
        return play(compile_plan(one.world, task), LocalTools(one), **SKILLS["ignores_policy"])
    except (RuntimeError, IndexError, ValueError, TypeError):
        return None


def compare(names: tuple[str, ...], label: str, draws: int) -> Counter[str]:
    """Whoever ignores the policy among the solvers gives the answer of the oracle without rules."""
    composed, seen = world(tuple(MECHANISMS[name] for name in names), label), Counter[str]()
    for draw in range(draws):
        one = Sampler(composed, (), random.Random(f"{label}/{draw}"))
        try:
            task = one.root(("sum", "count", "pick", "group")[draw % 4])
            ruled = one.oracle.run(task)
        except (Rejected, Reject):
            continue
        other = unruled(one, task)
        if any(isinstance(node, Act) for node in walk(task)) or other is None:
            continue
        assert played(one, task) == other.answer, (label, draw, task)
        seen["equal" if other.answer == ruled.answer else "differ"] += 1
    return seen


@pytest.mark.parametrize(
    ("names", "label"),
    [
        (("booking", "inventory"), "unruled/fast"),
        (("permissions", "ledger"), "unruled/fast"),
        (("eligibility", "config"), "unruled/fast"),
        # Who ignores the rules takes the first post that is listed, and ids are not in the order of the rows.
        (("approval", "inventory"), "unruled/slow/approval"),
    ],
)
def test_the_oracle_without_rules_is_the_solver_that_ignores_them(names: tuple[str, ...], label: str):
    seen = compare(names, label, 60)
    assert seen["differ"] >= 4, seen
    assert seen["equal"] >= 4, seen


@pytest.mark.slow
def test_the_oracle_without_rules_is_the_solver_that_ignores_them_in_all_mechanisms():
    names, seen = sorted(MECHANISMS), Counter[str]()
    for index, name in enumerate(names):
        found = compare((name, names[(index + 5) % len(names)]), f"unruled/slow/{name}", 80)
        assert found["differ"] >= 2, (name, found)
        seen += found
    assert seen["differ"] >= 200, seen


# ------------------------------------------------------------------------------------------------------------ operator


@pytest.mark.parametrize(
    ("task", "rows"),
    [(PICK, GONE), (COUNT, GONE), (SUM, GONE), (CHOOSE, BAY)],
    ids=["pick", "count", "sum", "choose"],
)
def test_a_rule_decides_and_who_does_not_know_it_is_wrong(task: Task, rows: Overlay):
    before, found = sampler(0, (), rows).oracle.run(task), edits(task, rows)
    assert len(found) >= 5
    for edit in found:
        drawn = sampler(0, (), rows)
        child, without = drawn.oracle.run(edit.task), unruled(drawn, edit.task)
        name = edit.params["attribute"]
        assert name in ("load", "quiet")
        assert not any(isinstance(node, Attr) and node.name == name for node in walk(task))
        assert any(isinstance(node, Attr) and node.name == name for node in walk(edit.task.steps))
        assert (child.answer, child.changes) != (before.answer, before.changes)
        assert not same_outcome(edit.task, child, without)
        assert edit.task.report == task.report
        assert binding_failure("policy", before, child, drawn, edit.task) is None
        assert nonbinding_atom(edit.task, child, drawn.oracle.run) is None


def test_who_ignores_the_rule_of_a_pick_mostly_keeps_the_old_row():
    kept = [edit for edit in edits(PICK) if edit.params["op"] in (">", ">=")]
    assert kept
    for edit in kept:
        without = unruled(sampler(), edit.task)
        assert without is not None
        assert without.answer == {"room": "Fir Room"} == sampler().oracle.run(PICK).answer
        assert sampler().oracle.run(edit.task).answer == {"room": "Ash Room"}


def test_a_pick_may_be_ordered_by_what_the_policy_defines():
    forms = Counter(edit.task.steps[0].node.attr.name for edit in edits(NEWEST, GONE))
    assert set(forms) == {"opened", "load"}
    for edit in edits(NEWEST, GONE):
        node = edit.task.steps[0].node
        assert len(node.atoms) == 1 + (node.attr == Attr("opened"))


@pytest.mark.parametrize("edit", edits(PICK, GONE)[:12])
def test_rows_of_the_task_count(edit: Edit):
    assert edit.overlay == GONE
    assert edit.params["attribute"] in ("load", "quiet")


def test_some_rule_bars_the_row_that_fits_best():
    barred = [edit for edit in edits(PICK, GONE) if edit.params["attribute"] == "quiet"]
    for edit in barred:
        assert edit.task.steps[0].node.atoms == (Atom(Attr("quiet"), "is", None),)
        with_rows = sampler(0, (), GONE)
        assert with_rows.oracle.run(edit.task).answer == {"room": "Yew Room"}
    assert barred


@pytest.mark.parametrize(
    ("task", "needed", "code"),
    [
        (PICK, ("ignores_policy",), "no_skill"),
        (Task((Let("X1", Pick("visit", (), "max", Attr("heads"))),), (("id", Of("X1", Attr("id"))),)), (), "no_site"),
        (Task((Let("X1", To(visit(4), "room")),), (("rate", Of("X1", RATE)),)), (), "no_site"),
        (
            Task(
                (
                    Let(
                        "X1",
                        Pick("room", tuple(Atom(Attr("size"), ">=", people(n)) for n in range(MAX_ATOMS)), "max", RATE),
                    ),
                ),
                PICK.report,
            ),
            (),
            "no_site",
        ),
        (
            Task(
                (Let("X1", Pick("room", (Atom(NAME, "==", Const("Elm Room", "str", "name")),), "max", RATE)),),
                PICK.report,
            ),
            (),
            "nonbinding",
        ),
    ],
    ids=["needs it", "no attribute", "no description", "wide", "one row"],
)
def test_the_operator_refuses(task: Task, needed: tuple[str, ...], code: str):
    assert refusal(task, needed) == code


def test_what_the_parent_mentions_already_is_no_new_rule():
    quiet = Let("X1", Count("room", (Atom(Attr("quiet"), "is", None),)))
    task = Task((quiet, Let("X2", Sum("room", (), LOAD_3))), (("n", Ref("X1")), ("total", Ref("X2"))))
    assert refusal(task) == "no_site"
    assert OPERATORS["policy"].applicable(task)
    assert not OPERATORS["policy"].applicable(Task((Act("cancel", (("visit", visit(1)),)),), ()))


def test_skill_and_site_are_told_apart():
    """A refusal for a skill is about the aim, one for a site about the parent."""
    assert "no_site" in HOPELESS
    assert "no_skill" not in HOPELESS


def test_an_oracle_that_does_not_know_the_rule_is_found_out():
    """Planted: the SQL of an attribute counts what its rule does not count, so nobody who ignores the rule is wrong."""
    bug = blind()
    assert edits(PICK)
    assert edits(PICK, of=bug) == []
    for edit in edits(PICK):
        drawn = sampler(of=bug)
        before, child = drawn.oracle.run(PICK), drawn.oracle.run(edit.task)
        assert binding_failure("policy", before, child, drawn, edit.task) in (
            "who ignores the rule is right",
            "the rule changes nothing",
        )
    drawn = sampler(of=bug)
    total = Task((Let("X1", Sum("room", (), LOAD_3)),), (("total", Ref("X1")),))
    result = drawn.oracle.run(total)
    assert binding_failure("policy", drawn.oracle.run(SUM), result, drawn, total) == "who ignores the rule is right"
    sound = sampler()
    assert binding_failure("policy", sound.oracle.run(SUM), sound.oracle.run(total), sound, total) is None
    assert binding_failure("policy", sound.oracle.run(total), sound.oracle.run(total), sound, total) == (
        "the rule changes nothing"
    )


# ---------------------------------------------------------------------------------------------------------- end to end

WORLDS = (
    ("booking laboratory equipment", {"booking", "eligibility"}),
    ("subscription billing", {"allocation", "subscription"}),
    ("file permissions", {"pricing", "permissions"}),
    ("freight routing", {"itinerary", "routing"}),
    ("benefit programmes", {"pricing", "tickets", "eligibility", "config"}),
    ("catering recipes", {"scheduling", "subscription", "recipes"}),
    ("museum loans", {"booking", "inventory", "pricing"}),
)


def accepted(category: str, mechanisms: set[str]) -> tuple[Step, Step]:
    """The first root of an environment that has a child by a rule, and that child, through every gate.

    Raises:
        AssertionError: there is none, or a gate refuses it.
    """
    author = ProceduralAuthor(category, "policy/1")
    draft = author.draft(0)
    assert set(draft.composition.mechanisms) == mechanisms
    with Rehearsal(draft.environment, shared_jail()) as rehearsal:
        for number in range(6):
            steps = find_root(draft, author, number, rehearsal=rehearsal, audited="leaves").steps
            if not steps or "policy" not in author.operators(steps[0].task):
                continue
            (root,) = steps
            for attempt in range(3):
                try:
                    child = author.propose(draft, root.task, "policy", attempt, root.skills)
                except Rejected:
                    continue
                outcome = audit(draft, author, child, shared_jail(), root, rehearsal)
                assert isinstance(outcome, Step), outcome
                return root, outcome
    raise AssertionError(f"no child by a rule in {category}")


@pytest.mark.parametrize(
    ("category", "mechanisms"),
    [*WORLDS[:2], *(pytest.param(*item, marks=pytest.mark.slow) for item in WORLDS[2:])],
)
def test_a_child_by_a_rule_passes_every_gate(category: str, mechanisms: set[str]):
    root, child = accepted(category, mechanisms)
    assert child.report.ok
    assert child.report.whole
    assert {result.code for result in child.report.results} == {*(gate.code for gate in all_gates()), "DF402"}
    assert "ignores_policy" in child.skills - root.skills
    assert child.task.lineage.operator == "policy"
    assert child.task.oracle != root.task.oracle
    assert any(isinstance(node, (Pick, Count, Sum, Choose, GroupBy)) for node in walk(from_json(child.task.ir)))
