"""Each operator edits what it says, and its binding test refuses an edit that changes nothing (planted here)."""

from __future__ import annotations

import random

import pytest

from envsynth.author.procedural.ir import (
    Act,
    Atom,
    Attr,
    Choose,
    Con,
    Const,
    Count,
    If,
    Let,
    Named,
    Of,
    Pick,
    Ref,
    Sum,
    Task,
    To,
    check,
    walk,
    without_dead_lets,
)
from envsynth.author.procedural.operators import (
    MAX_ATOMS,
    MAX_OVERLAY,
    OPERATORS,
    Edit,
    binding_failure,
    nonbinding_atom,
)
from envsynth.author.procedural.oracle import Reject
from envsynth.author.procedural.sampling import Sampler
from envsynth.errors import Rejected
from tests.author.procedural.tiny_world import day, people, room, tiny_world, visit

WORLD = tiny_world()
EAST = Atom(Attr("wing"), "==", Const("East", "str", "wing"))
SEEDS = range(40)

COUNT = Task((Let("X1", Count("room", (EAST,))),), (("n", Ref("X1")),))
SUM = Task((Let("X1", Sum("room", (EAST,), Attr("rate"))),), (("total", Ref("X1")),))
PICK = Task((Let("X1", Pick("room", (EAST,), "max", Attr("rate"))),), (("room", Of("X1", Attr("name"))),))
BOOK = Task((Act("book", (("room", room("Oak Hall")), ("day", day(6)), ("heads", people(3)))),), ())
PICKACT = Task(
    (
        Let("X1", Pick("visit", (Atom(Attr("heads"), "<", people(9)),), "max", Attr("heads"))),
        Act("cancel", (("visit", Ref("X1")),)),
    ),
    (),
)
FOLLOW = Task((Let("X1", To(visit(4), "room")),), (("rate", Of("X1", Attr("rate"))),))
BRANCH = Task(
    (
        Let("X1", To(visit(4), "room")),
        If(Of("X1", Attr("rate")), ">", Const(10, "num", "credits"), PICKACT.steps[1:][:0] + BOOK.steps, ()),
    ),
    (),
)
ANY_TWO = Choose("room", (), 2, (Con("sum", Attr("rate"), "<=", Const(60, "num", "credits")),))
CHOOSE = Task((Let("X1", ANY_TWO),), (("rooms", Of("X1", Attr("name"))),))


FIR = Task((Act("book", (("room", room("Fir Room")), *BOOK.steps[0].args[1:])),), ())


def sampler(seed=0, needed=(), overlay=()) -> Sampler:
    return Sampler(WORLD, tuple(overlay), random.Random(f"test/{seed}"), frozenset(needed))


def run(task, overlay=()):
    return sampler(overlay=overlay).oracle.run(task)


def edits(name, task, seeds=SEEDS, needed=(), overlay=()) -> list[Edit]:
    """All proposals of an operator over some seeds; each is well-typed."""
    found = []
    for seed in seeds:
        drawn = sampler(seed, needed, overlay)
        try:
            edit = OPERATORS[name].apply(drawn, task, drawn.oracle.run(task))
        except (Rejected, Reject):
            continue
        check(edit.task, WORLD)
        found.append(edit)
    return found


def codes(name, task, seeds=SEEDS, needed=(), overlay=()) -> set[str]:
    found = set()
    for seed in seeds:
        drawn = sampler(seed, needed, overlay)
        try:
            OPERATORS[name].apply(drawn, task, drawn.oracle.run(task))
        except (Rejected, Reject) as reason:
            found.add(reason.code)
    return found


def outcome(task, overlay=()):
    result = run(task, overlay)
    return result.answer, result.changes


def nonbinding(task):
    drawn = sampler()
    return nonbinding_atom(task, drawn.oracle.run(task), lambda variant: drawn.oracle.run(without_dead_lets(variant)))


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (COUNT, ["constraint", "distractors", "aggregate", "policy", "ask", "budget"]),
        (PICK, ["constraint", "side_effect", "distractors", "aggregate", "couple", "policy", "ask", "budget"]),
        (BOOK, ["hop", "distractors", "aggregate", "group", "conceal", "faults", "ask", "budget", "withhold"]),
        (
            PICKACT,
            [
                *("constraint", "side_effect", "distractors", "branch", "aggregate", "couple", "horizon", "faults"),
                *("policy", "ask", "budget"),
            ],
        ),
        (FOLLOW, ["hop", "side_effect", "distractors", "group", "conceal", "couple", "ask", "budget", "withhold"]),
        (
            BRANCH,
            [
                "hop",
                "side_effect",
                "distractors",
                "aggregate",
                "group",
                "conceal",
                "couple",
                "faults",
                "ask",
                "budget",
                "withhold",
            ],
        ),
        (CHOOSE, ["constraint", "distractors", "optimise", "aggregate", "policy", "ask", "budget"]),
    ],
    ids=["count", "pick", "act", "pickact", "follow", "branch", "choose"],
)
def test_applicable_names_the_operators_with_a_site(task, expected):
    check(task, WORLD)
    assert [name for name, item in OPERATORS.items() if item.applicable(task)] == expected


@pytest.mark.parametrize(
    ("name", "task"),
    [("constraint", FOLLOW), ("hop", PICK), ("optimise", PICK), ("branch", PICK), ("side_effect", COUNT)],
)
def test_an_operator_without_a_site_refuses(name, task):
    assert codes(name, task) <= {"no_site", "uncoupled"}
    assert codes(name, task)


# ----------------------------------------------------------------------------------------------------------- constraint


def test_a_constraint_on_a_pick_is_false_of_the_old_winner():
    found = edits("constraint", PICK)
    assert len({edit.params["attribute"] for edit in found}) > 2
    for edit in found:
        atom = edit.task.steps[0].node.atoms[-1]
        assert 10 not in sampler().oracle.ids("room", (atom,)), atom
        assert edit.task.steps[0].node.atoms[:-1] == (EAST,)


@pytest.mark.parametrize("task", [COUNT, SUM])
def test_a_constraint_on_a_count_or_sum_is_true_of_some_member(task):
    for edit in edits("constraint", task):
        atoms = edit.task.steps[0].node.atoms
        assert sampler().oracle.ids("room", atoms), atoms


def test_a_constraint_on_a_choice_leaves_a_set():
    found = edits("constraint", CHOOSE)
    assert found
    for edit in found:
        assert run(edit.task).info["X1"].feasible >= 1


def test_a_constraint_repeats_no_attribute_and_stops_at_the_limit():
    for edit in edits("constraint", PICK):
        names = [atom.attr.name for atom in edit.task.steps[0].node.atoms]
        assert len(set(names)) == len(names)
    wide = (EAST, *(Atom(Attr("size"), ">=", people(n)) for n in range(1, MAX_ATOMS)))
    task = Task((Let("X1", Pick("room", wide, "max", Attr("rate"))),), PICK.report)
    assert codes("constraint", task) == {"wide"}


def test_a_description_of_two_rows_takes_no_constraint():
    two = Pick("room", (Atom(Attr("size"), ">", people(9)),), "max", Attr("rate"))
    assert codes("constraint", Task((Let("X1", two),), PICK.report)) == {"too_few"}


@pytest.mark.parametrize(
    ("node", "planted"),
    [
        (Pick("room", (EAST, Atom(Attr("rate"), "<", Const(30, "num", "credits"))), "max", Attr("rate")), None),
        (Pick("room", (EAST, Atom(Attr("size"), ">=", people(4))), "max", Attr("rate")), "X1: size"),
        (Pick("room", (EAST, Atom(Attr("size"), ">=", people(8))), "max", Attr("rate")), "X1: size"),
        (Count("room", (EAST, Atom(Attr("size"), ">", people(4)))), None),
        (Count("room", (EAST, Atom(Attr("size"), "<=", people(8)))), "X1: size"),
    ],
    ids=["binds", "all rows meet it", "the winner meets it", "count binds", "count of the same rows"],
)
def test_every_condition_must_change_the_outcome_when_it_is_dropped(node, planted):
    field = ("x", Of("X1", Attr("name")) if isinstance(node, Pick) else Ref("X1"))
    assert nonbinding(Task((Let("X1", node),), (field,))) == planted


def test_a_condition_on_a_choice_must_grow_the_sets_or_move_the_optimum():
    def chosen(size, goal=None):
        atoms = (Atom(Attr("size"), ">=", people(size)),)
        return Task((Let("X1", Choose("room", atoms, 2, ANY_TWO.cons, goal)),), CHOOSE.report)

    assert nonbinding(chosen(4)) == "X1: size"
    assert nonbinding(chosen(6)) is None
    assert nonbinding(chosen(6, ("max", Attr("size")))) is None


def test_a_condition_without_which_there_is_no_outcome_does_not_count_as_binding():
    atoms = (Atom(Attr("size"), "<", people(8)), EAST)
    task = Task((Let("X1", Pick("room", atoms, "max", Attr("size"))),), PICK.report)
    # Without EAST, two rooms share the largest size: a tie proves that the condition matters.
    assert nonbinding(task) is None


# ------------------------------------------------------------------------------------------------------------------ hop


@pytest.mark.parametrize("task", [FIR, FOLLOW])
@pytest.mark.parametrize("needed", [(), ("first_match", "no_filter")])
def test_a_hop_replaces_a_name_by_a_description_of_that_row_alone(task, needed):
    before = run(task)
    found = edits("hop", task, needed=needed)
    for edit in found:
        first = edit.task.steps[0]
        assert isinstance(first, Let)
        assert first.var == edit.params["var"]
        assert any(isinstance(node, (Ref, Of)) and node.var == first.var for node in walk(edit.task.steps[1:]))
        child = run(edit.task)
        assert (child.answer, child.changes) == (before.answer, before.changes)
        assert binding_failure("hop", before, child, sampler(), edit.task) is None
    assert found or task is FOLLOW  # nothing points to a visit, and no visit is an extreme beside others


def test_a_hop_aims_at_an_extreme_until_its_skills_are_needed():
    assert {edit.params["hop"] for edit in edits("hop", FIR)} == {"extreme"}
    assert {edit.params["hop"] for edit in edits("hop", FIR, needed=("first_match", "no_filter"))} == {
        "extreme",
        "relation",
    }
    for edit in edits("hop", FIR):
        assert run(edit.task).info[edit.params["var"]].ids[0] != 40
    # Oak Hall is the first of all rooms: whoever takes the first room that fits would be right.
    assert codes("hop", BOOK) == {"no_hop"}


def test_a_hop_to_another_row_is_refused():
    before = run(BOOK)
    act = Act("book", (("room", Ref("X1")), *BOOK.steps[0].args[1:]))
    wrong = Task((Let("X1", Pick("room", (), "max", Attr("rate"))), act), ())
    assert binding_failure("hop", before, run(wrong), sampler(), wrong) == "the description denotes another row"


# ---------------------------------------------------------------------------------------------------------- side effect


@pytest.mark.parametrize("task", [PICK, PICKACT, FOLLOW])
def test_a_side_effect_acts_on_what_was_found(task):
    found = edits("side_effect", task)
    assert found
    for edit in found:
        act = edit.task.steps[-1]
        assert edit.task.steps[:-1] == task.steps
        assert any(isinstance(node, Ref) for node in walk(act)), act
        assert edit.params == {"action": act.op}


def test_a_side_effect_that_changes_nothing_more_is_refused():
    before = run(PICK)
    edit = next(edit for edit in edits("side_effect", PICK) if edit.params["action"] == "book")
    assert binding_failure("side_effect", before, run(edit.task), sampler(), edit.task) is None
    assert binding_failure("side_effect", before, before, sampler(), PICK) == "the action changes nothing more"


def test_a_side_effect_is_not_tried_where_an_action_needs_no_new_skill():
    needed = ("never_writes", "ignores_policy", "fuzzy_name", "no_pagination")
    assert codes("side_effect", PICK, needed=needed) == {"no_skill"}


# ---------------------------------------------------------------------------------------------------------- distractors


@pytest.mark.parametrize("task", [PICK, COUNT, BOOK, CHOOSE])
def test_distractors_sort_first_and_look_alike(task):
    for edit in edits("distractors", task):
        assert edit.task == task
        originals = {row["name"]: row for row in WORLD.rows["room"]}
        added = [row for _, row in edit.overlay]
        assert len(added) == edit.params["rows"]
        assert len({row["id"] for row in added} | {row["id"] for row in WORLD.rows["room"]}) == 6 + len(added)
        for row in added:
            twins = [name for name in originals if name.split()[0] == row["name"].split()[0] and name != row["name"]]
            assert any(row["id"] < originals[name]["id"] for name in twins), row


def test_near_misses_fail_one_condition_at_its_threshold():
    task = Task((Let("X1", Pick("room", (Atom(Attr("size"), ">", people(6)),), "max", Attr("rate"))),), PICK.report)
    found = [edit for edit in edits("distractors", task) if "var" in edit.params]
    assert found
    for edit in found:
        (_, row), *_ = edit.overlay
        assert row["size"] == 6
        assert row["rate"] == 63  # better than the winner's 60: tempting
        before, child = run(task), run(task, edit.overlay)
        assert binding_failure("distractors", before, child, sampler(overlay=edit.overlay), task) is None


def test_a_distractor_that_changes_the_outcome_is_refused():
    winner = {**WORLD.rows["room"][0], "id": 5, "name": "Oak Hat", "rate": 99}
    before, child = run(PICK), run(PICK, (("room", winner),))
    assert child.answer == {"room": "Oak Hat"}
    assert binding_failure("distractors", before, child, sampler(), PICK) == "a distractor changed the outcome"


def test_distractors_aim_at_skills_that_are_not_needed_yet():
    twins = edits("distractors", BOOK)
    assert twins
    assert all(edit.params == {"twin_of": "Oak Hall", "rows": 1} for edit in twins)
    assert codes("distractors", BOOK, needed=("fuzzy_name",)) == {"no_skill"}
    near = ("first_match", "wrong_boundary", "no_filter", "first_constraint_only")
    assert codes("distractors", PICK, needed=near) == {"no_skill"}


def test_distractors_stop_when_the_overlay_is_full():
    rows = [("room", {**WORLD.rows["room"][1], "id": n, "name": f"Oak N{n}"}) for n in range(61, 61 + MAX_OVERLAY)]
    assert codes("distractors", BOOK, overlay=rows) == {"overlay_full"}


# --------------------------------------------------------------------------------------------------------------- branch

ROOM_ACT = Task(
    (
        Let("X1", Pick("room", (EAST,), "max", Attr("rate"))),
        Act("book", (("room", Ref("X1")), ("day", day(6)), ("heads", people(3)))),
    ),
    (),
)


def test_a_branch_keeps_the_parents_action_where_the_condition_says():
    found = edits("branch", ROOM_ACT)
    assert {edit.params["holds"] for edit in found} == {True, False}
    before = run(ROOM_ACT)
    for edit in found:
        branch = edit.task.steps[-1]
        assert isinstance(branch, If)
        assert branch.then != branch.other
        assert ROOM_ACT.steps[1] in (*branch.then, *branch.other)
        child = run(edit.task)
        assert child.branches == {1: edit.params["holds"]}
        assert child.changes == before.changes


def test_a_branch_refuses_a_condition_that_never_varies():
    for edit in edits("branch", ROOM_ACT):
        branch = edit.task.steps[-1]
        atom = Atom(branch.lhs.attr, branch.op, branch.rhs)
        held = sampler().oracle.ids("room", (atom,))
        assert 0 < len(held) < 6, atom
    assert "idle_condition" in codes("branch", ROOM_ACT, seeds=range(120))


def test_a_branch_refuses_equal_branches(monkeypatch):
    monkeypatch.setattr(Sampler, "act", lambda self, bound=(): ROOM_ACT.steps[1])
    assert edits("branch", ROOM_ACT) == []
    assert "same_branches" in codes("branch", ROOM_ACT)


# ------------------------------------------------------------------------------------------------------------- optimise


def test_a_goal_goes_against_the_set_condition():
    found = edits("optimise", CHOOSE)
    assert found
    for edit in found:
        assert edit.task.steps[0].node.goal == (
            "max",
            Attr(edit.params["attribute"], edit.task.steps[0].node.goal[1].args),
        )
        assert edit.params["attribute"] != "rate"


def test_a_goal_that_greed_reaches_is_refused():
    def with_goal(limit):
        con = Con("sum", Attr("rate"), "<=", Const(limit, "num", "credits"))
        return Task((Let("X1", Choose("room", (), 2, (con,), ("max", Attr("size")))),), CHOOSE.report)

    before = run(CHOOSE)
    tight, lax = with_goal(60), with_goal(200)
    assert binding_failure("optimise", before, run(tight), sampler(), tight) is None
    assert binding_failure("optimise", before, run(lax), sampler(), lax) == (
        "taking the extreme rows one by one is already optimal"
    )


def test_a_choice_whose_numbers_are_used_up_has_no_goal(monkeypatch):
    monkeypatch.setattr(Sampler, "additive", lambda self, entity: ["rate"])
    assert codes("optimise", CHOOSE) == {"no_attribute"}


# --------------------------------------------------------------------------- aggregate, conceal, couple, horizon

CHEAP = Atom(Attr("rate"), "<", Const(31, "num", "credits"))
CHEAPER = Task((Let("X1", Pick("room", (EAST, CHEAP), "max", Attr("size"))),), PICK.report)


def test_a_total_draws_the_same_line_as_the_number_it_replaces():
    found = edits("aggregate", CHEAPER)
    assert found
    for edit in found:
        total, rest = edit.task.steps[0], edit.task.steps[1]
        assert isinstance(total.node, Sum)
        assert rest.node.atoms[1] == Atom(Attr("rate"), "<", Ref(total.var))
        assert not [node for node in walk(rest) if isinstance(node, Const) and node.unit == "credits"]
        assert 2 <= len(run(edit.task).info[total.var].ids) <= 12
        assert outcome(edit.task) == outcome(CHEAPER)
        assert binding_failure("aggregate", run(CHEAPER), run(edit.task), sampler(), edit.task) is None
    assert binding_failure("aggregate", run(CHEAPER), run(FOLLOW), sampler(), FOLLOW) is not None


def test_a_number_without_a_unit_is_not_replaced():
    assert codes("aggregate", Task((Let("X1", Count("room", (EAST,))),), COUNT.report)) == {"no_site"}


@pytest.mark.parametrize("task", [BOOK, FOLLOW, FIR])
def test_a_concealed_row_is_the_only_one_that_fits_and_no_condition_is_idle(task):
    found = edits("conceal", task, range(80))
    assert found
    for edit in found:
        only = edit.task.steps[0].node
        (row_id,) = sampler().oracle.ids(only.entity, only.atoms)
        assert 2 <= len(only.atoms) <= 3
        for atom in only.atoms:
            rest = tuple(other for other in only.atoms if other is not atom)
            assert len(sampler().oracle.ids(only.entity, rest)) > 1
            assert row_id in sampler().oracle.ids(only.entity, rest)
        assert outcome(edit.task) == outcome(task)
        assert nonbinding(edit.task) is None
    assert binding_failure("conceal", run(BOOK), run(FIR), sampler(), FIR) is not None


@pytest.mark.parametrize("task", [PICK, FOLLOW, BRANCH])
def test_a_coupled_question_is_about_the_row_that_was_found_and_comes_before_any_change(task):
    found = edits("couple", task)
    assert found or codes("couple", task) == {"too_few"}
    for edit in found:
        (new,) = [step for step in edit.task.steps if isinstance(step, Let) and step.var == edit.params["var"]]
        assert new.node.atoms[0].value == Ref("X1")
        assert edit.task.report[: len(task.report)] == task.report
        assert len(edit.task.report) == len(task.report) + 1
        assert run(edit.task).changes == run(task).changes
        lets = [isinstance(step, Let) for step in edit.task.steps]
        assert lets == sorted(lets, reverse=True)


def test_a_row_that_nothing_belongs_to_has_no_coupled_question():
    assert codes("couple", PICKACT) == {"no_site"}


CANCEL = Task((Act("cancel", (("visit", visit(4)),)),), ())


def test_a_wider_action_includes_the_row_that_it_was_on():
    found = edits("horizon", CANCEL, range(120))
    assert found
    for edit in found:
        each = edit.task.steps[-1]
        ids = sampler().oracle.ids(each.entity, each.atoms)
        assert 4 in ids
        assert 2 <= len(ids) <= 6
        assert edit.params == {"action": "cancel", "rows": len(ids)}
    before = run(CANCEL)
    assert binding_failure("horizon", before, before, sampler(), CANCEL) == "the action changes nothing more"


def test_a_wider_action_keeps_what_the_task_had_found():
    assert codes("horizon", PICKACT) <= {"uncoupled", "no_set", "no_atom"}
    assert "uncoupled" in codes("horizon", PICKACT)
    assert codes("horizon", BOOK) == {"no_site"}


def test_operators_are_documented():
    assert list(OPERATORS) == [
        *("constraint", "hop", "side_effect", "distractors", "branch", "optimise"),
        *("aggregate", "group", "conceal", "couple", "infeasible", "horizon", "faults", "policy", "ask"),
        *("budget", "withhold"),
    ]
    for name, item in OPERATORS.items():
        assert item.name == name
        assert item.summary
        assert item.apply.__doc__
    assert isinstance(BOOK.steps[0].args[0][1], Named)
