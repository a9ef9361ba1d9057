"""Tool calls that are limited: the solver stays as it is, two wasteful ones are right and make more calls, the prompt tells."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from envsynth.author.procedural.author import ProceduralAuthor
from envsynth.author.procedural.ir import (
    Act,
    Attr,
    Budget,
    Caution,
    Let,
    Of,
    Pick,
    Task,
    check,
    from_json,
    kind_of,
    to_json,
)
from envsynth.author.procedural.mechanisms import MECHANISMS
from envsynth.author.procedural.operators import OPERATORS, binding_failure
from envsynth.author.procedural.operators.budget import BUDGET_SKILLS, UNTIL_PLAYED
from envsynth.author.procedural.oracle import Reject
from envsynth.author.procedural.parse import ParseError, parse
from envsynth.author.procedural.planner import BUDGET_FLAGS, SKILLS, applicable_skills, compile_plan
from envsynth.author.procedural.planner.compiler import NOTES
from envsynth.author.procedural.render import REGISTERS, render, sentences
from envsynth.author.procedural.sampling import ROOT_KINDS, Sampler
from envsynth.errors import AuthorError, Rejected
from tests.author.procedural.random_tasks import Case, LocalTools, prepare, world
from tests.author.procedural.test_parse import ALL
from tests.author.procedural.tiny_world import day, people, room, tiny_world

BOOK = Act("book", (("room", room("Elm Room")), ("day", day(9)), ("heads", people(5))))
KINDS = [kind for kind in ROOT_KINDS if kind != "service"]  # whether a refusal is right is the screen's business
PICK = Task((Let("X1", Pick("room", (), "max", Attr("rate"))),), (("name", Of("X1", Attr("name"))),))


def played(case: Case, task: Task, **flags: Any) -> tuple[int, bool]:
    """Calls that a solver makes, and whether it is right."""
    tools, calls = LocalTools(case.sampler), 0

    def call(tool: str, **arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return tools.call(tool, **arguments)

    space: dict[str, Any] = {"CallError": Exception}
    exec(compile(compile_plan(case.sampler.world, task), "solution", "exec"), space)
    space.update(flags)
    answer = space["solve"](call)
    return calls, case.judge_images(tools.database, answer) == []


@pytest.mark.parametrize("names", [("inventory", "eligibility"), ("tickets", "config"), ("itinerary", "booking")])
def test_wasteful_solvers_are_right_and_make_more_calls(names: tuple[str, ...]):
    composed, seen = world(tuple(MECHANISMS[name] for name in names), "budget"), Counter[str]()
    for draw in range(24):
        sampler = Sampler(composed, (), random.Random(f"budget/{draw}"))
        try:
            case = prepare(sampler, sampler.root(KINDS[draw % len(KINDS)]))
        except (Rejected, Reject):
            continue
        before = played(case, case.task)
        limited = Task((*case.task.steps, Budget()), case.task.report)
        assert played(case, limited) == before == (before[0], True)
        again, right = played(case, limited, **SKILLS["spendthrift"])
        assert right, case.task
        assert again <= before[0] + NOTES + 50, case.task
        everything, right = played(case, limited, **SKILLS["brute_force"])
        assert right, case.task
        seen["again"] += again >= 1.3 * before[0]
        seen["all"] += everything >= 1.3 * before[0]
        seen["tasks"] += 1
    assert seen["tasks"] >= 8, seen
    assert seen["all"] == seen["tasks"], seen
    assert 2 <= seen["again"] < seen["tasks"], seen


def test_the_sentence_is_read_back_in_all_its_words():
    docs, texts = next(iter(ALL.values())), set()
    task = Task((Budget(),), ())
    for register in REGISTERS:
        for variant in range(3):
            text = render(task, docs, register, variant)
            assert parse(text, docs) == task
            texts.add(dict(sentences(task, docs, register, variant))["step0"])
            with pytest.raises(ParseError):
                parse(text.replace("imit", "is_"), docs)
    assert len(texts) == 9


def test_a_limit_makes_no_class_and_no_other_difference():
    composed, task = tiny_world(), Task((BOOK, Budget()), ())
    assert kind_of(task) == kind_of(Task((BOOK,), ())) == "act"
    assert from_json(to_json(task)) == task
    assert to_json(Budget()) == ["Budget"]
    assert check(task, composed) == {}
    sampler = Sampler(composed, (), random.Random(0))
    assert sampler.oracle.run(task).changes == sampler.oracle.run(Task((BOOK,), ())).changes


def test_only_a_solver_that_was_told_is_thrifty():
    composed = tiny_world()
    plain, thrifty = (compile_plan(composed, Task(steps, ())) for steps in ((BOOK,), (BOOK, Budget())))
    assert all(name not in plain for name in ("READS", "begin", "anew"))
    assert all(f"\n{name} = {value!r}" in thrifty for name, value in BUDGET_FLAGS.items())
    assert {*applicable_skills(composed, Task((BOOK, Budget()), ()))} >= BUDGET_SKILLS
    assert not BUDGET_SKILLS & {*applicable_skills(composed, Task((BOOK, Caution()), ()))}


# ------------------------------------------------------------------------------------------------------------ operator


@pytest.mark.parametrize("task", [PICK, Task((BOOK,), ()), Task((BOOK, Caution()), ())])
def test_the_operator_limits_calls_and_changes_nothing_else(task: Task):
    item, sampler = OPERATORS["budget"], Sampler(tiny_world(), (), random.Random(0), frozenset({"spendthrift"}))
    assert item.applicable(task)
    result = sampler.oracle.run(task)
    edit = item.apply(sampler, task, result)
    assert edit.task == Task((*task.steps, Budget()), task.report)
    assert edit.delivery is not None
    assert edit.delivery.model_dump(exclude_defaults=True) == {"max_calls": UNTIL_PLAYED}
    assert (edit.faults, edit.overlay) == (None, ())
    assert binding_failure("budget", result, sampler.oracle.run(edit.task), sampler, edit.task) is None


@pytest.mark.parametrize(
    ("task", "needed", "code"),
    [(Task((BOOK, Budget()), ()), frozenset[str](), "no_site"), (Task((BOOK,), ()), BUDGET_SKILLS, "no_skill")],
)
def test_the_operator_refuses_what_it_cannot_add_to(task: Task, needed: frozenset[str], code: str):
    sampler = Sampler(tiny_world(), (), random.Random(0), needed)
    with pytest.raises(Rejected) as refused:
        OPERATORS["budget"].apply(sampler, task, sampler.oracle.run(task))
    assert refused.value.code == code
    assert OPERATORS["budget"].applicable(task) == (code == "no_skill")


def test_a_limit_needs_its_sentence(monkeypatch: pytest.MonkeyPatch):
    author, draft, root = a_root()
    child = author.propose(draft, root, "budget", 0)
    assert child.delivery.max_calls == UNTIL_PLAYED
    assert child.prompt != root.prompt
    assert (child.oracle, child.kind) == (root.oracle, root.kind)
    assert "budget" not in author.operators(child)
    kept = 0
    for operator in author.operators(child):
        for attempt in range(4):
            try:
                grandchild = author.propose(draft, child, operator, attempt)
            except Rejected:
                continue
            assert grandchild.delivery == child.delivery
            assert {*grandchild.ablations} >= BUDGET_SKILLS
            kept += 1
    assert kept
    assert author.complete(draft, child, 10).max_turns >= UNTIL_PLAYED / 0.6
    monkeypatch.setattr("envsynth.author.procedural.operators.budget.Delivery", lambda max_calls: None)
    with pytest.raises(AuthorError, match="a prompt has a Budget exactly where it holds"):
        author.propose(draft, root, "budget", 0)


def a_root():
    author = ProceduralAuthor("warehouse restocking", "budget")
    draft = author.draft(0)
    for attempt in range(24):
        try:
            return author, draft, author.root(draft, 0, attempt)
        except Rejected:
            continue
    pytest.fail("no root")
