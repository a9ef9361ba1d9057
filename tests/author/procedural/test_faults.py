"""Tools that fail: the solver recovers whatever the schedule, two careless ones do not, and the prompt warns of it."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from envsynth.author.procedural.author import ProceduralAuthor
from envsynth.author.procedural.docs import public_docs
from envsynth.author.procedural.ir import (
    Act,
    Attr,
    Caution,
    ForEach,
    IRTypeError,
    Let,
    Of,
    Pick,
    Ref,
    Task,
    Try,
    check,
    from_json,
    kind_of,
    to_json,
)
from envsynth.author.procedural.mechanism import Action
from envsynth.author.procedural.mechanisms import MECHANISMS
from envsynth.author.procedural.operators import OPERATORS, binding_failure
from envsynth.author.procedural.operators.faults import BEFORE_THE_LOSS
from envsynth.author.procedural.oracle import Reject, done_twice
from envsynth.author.procedural.parse import ParseError, parse
from envsynth.author.procedural.planner import FAULT_FLAGS, SKILLS, applicable_skills, compile_plan
from envsynth.author.procedural.render import REGISTERS, render, sentences
from envsynth.author.procedural.sampling import Rejected, Sampler
from envsynth.delivery import Fault
from envsynth.environments.faults import AFTER, FAULT_ERRORS, FaultClock
from envsynth.errors import AuthorError
from tests.author.procedural.random_tasks import Case, LocalTools, Refusal, prepare, world
from tests.author.procedural.tiny_world import day, people, room, tiny_world, visit

BOOK = Act("book", (("room", room("Elm Room")), ("day", day(9)), ("heads", people(5))))
CANCEL = Act("cancel", (("visit", visit(4)),))


class CallError(Exception):
    """What a call raises in a solver, as in a worker."""

    def __init__(self, payload: Any) -> None:
        super().__init__(payload)
        self.payload = payload


class FailingTools(LocalTools):
    """Tools that fail by a schedule."""

    def __init__(self, sampler: Sampler, faults: list[dict[str, Any]]) -> None:
        super().__init__(sampler)
        self.clock = FaultClock(faults)
        self.style = sampler.world.style.error_style
        self.met: list[str] = []

    def call(self, tool: str, **arguments: Any) -> Any:
        kind = self.clock.next_call(tool)
        if kind is None or kind == AFTER:
            try:
                result = super().call(tool, **arguments)
            except Refusal as refusal:
                if kind is None:
                    raise CallError(self.told(refusal.args[0])) from refusal
            if kind is None:
                return result
        self.met.append(kind)
        raise CallError(self.told(FAULT_ERRORS[kind][0]))

    def told(self, code: str) -> Any:
        numbers = {"timeout": 408, "unavailable": 503}
        return numbers.get(code, 400) if self.style == "code" else {"code": code}


def solve(source: str, tools: FailingTools, **flags: Any) -> dict[str, Any] | None:
    """The answer of a solver; None where it gives up."""
    space: dict[str, Any] = {"CallError": CallError}
    exec(compile(source, "solution", "exec"), space)
    space.update(flags)
    try:
        return space["solve"](tools.call)
    except (CallError, RuntimeError):
        return None


def schedule(rng: random.Random, sampler: Sampler, tools: list[str]) -> list[dict[str, Any]]:
    """Calls that fail, few enough in a row to be recovered from."""
    listings = [access.list_tool for access in sampler.world.access.values()]
    found: list[dict[str, Any]] = []
    for tool in dict.fromkeys([*tools, *rng.sample(listings, min(2, len(listings)))]):
        call = 1 if tool in tools else rng.randint(1, 2)
        for _ in range(rng.randint(1, 3)):
            calls = rng.randint(1, 2)
            kind = rng.choice(list(FAULT_ERRORS))
            found.append({"tool": tool, "call": call, "kind": kind, "calls": calls})
            call += calls + (rng.random() < 0.3)
    return found


def writing(names: tuple[str, ...], label: str, draws: int) -> list[tuple[Case, list[str]]]:
    """Root tasks that write, with a warning, whose solvers pass where no tool fails; and the changing tools they call."""
    composed, found = world(tuple(MECHANISMS[name] for name in names), label), []
    for draw in range(draws):
        sampler = Sampler(composed, (), random.Random(f"{label}/{draw}"))
        try:
            task = sampler.root(("act", "pickact")[draw % 2])
            case = prepare(sampler, Task((*task.steps, Caution()), task.report))
        except (Rejected, Reject):
            continue
        tools = FailingTools(sampler, [])
        answer = solve(case.source, tools)
        if case.result.changes and answer is not None and case.judge_images(tools.database, answer) == []:
            ops = [node.op for node in case.task.steps if isinstance(node, (Act, ForEach))]
            found.append((case, [tool for op in ops for tool in composed.actions[op].calls]))
    return found


def recover(names: tuple[str, ...], label: str, draws: int) -> Counter[str]:
    """Play solvers under random schedules: the whole one recovers from each."""
    seen: Counter[str] = Counter()
    for case, tools in writing(names, label, draws):
        for turn in range(3):
            faults = schedule(random.Random(f"{label}/{case.task}/{turn}"), case.sampler, tools)
            failing = FailingTools(case.sampler, faults)
            answer = solve(case.source, failing)
            assert answer is not None, (faults, case.task)
            assert case.judge_images(failing.database, answer) == [], (faults, case.task)
            seen["recovered"] += 1
            seen.update(dict.fromkeys(failing.met, 1))
            if failing.met:
                gone = FailingTools(case.sampler, faults)
                assert solve(case.source, gone, **SKILLS["no_retry"]) is None, (faults, case.task)
            rash = FailingTools(case.sampler, faults)
            told = solve(case.source, rash, **SKILLS["blind_retry"])
            passes = told is not None and case.judge_images(rash.database, told) == []
            seen[f"blind retry {'passes' if passes else 'fails'}"] += 1
    return seen


def test_the_solver_recovers_under_random_schedules():
    seen = recover(("inventory", "eligibility"), "faults/fast", 20) + recover(
        ("pricing", "itinerary"), "faults/fast", 20
    )
    assert seen["recovered"] >= 20, seen
    assert min(seen[kind] for kind in FAULT_ERRORS) >= 5, seen
    assert min(seen["blind retry passes"], seen["blind retry fails"]) >= 5, seen


def test_a_refused_repetition_counts_as_success_for_who_repeats_blindly():
    """Otherwise every lost reply would need a look, also where a second call does no harm."""
    refused = 0
    for case, tools in writing(("booking", "tickets"), "faults/refused", 20):
        if any(twice for _, twice in done_twice(case.sampler.world, case.sampler.connection, case.task)):
            continue
        failing = FailingTools(case.sampler, [{"tool": tools[0], "call": 1, "kind": AFTER, "calls": 1}])
        answer = solve(case.source, failing, **SKILLS["blind_retry"])
        assert answer is not None
        assert case.judge_images(failing.database, answer) == []
        refused += 1
    assert refused >= 5


@pytest.mark.slow
def test_the_solver_recovers_in_all_mechanisms():
    names, seen = sorted(MECHANISMS), Counter[str]()
    for index, name in enumerate(names):
        found = recover((name, names[(index + 4) % len(names)]), f"faults/slow/{name}", 24)
        assert found["recovered"] >= 3, (name, found)
        seen += found
    assert seen["recovered"] >= 300, seen


def test_the_warning_is_read_back_in_all_its_words():
    (case, _), *_ = writing(("inventory", "eligibility"), "faults/fast", 20)
    docs, task, texts = public_docs(case.sampler.world), case.task, set()
    for register in REGISTERS:
        for variant in range(3):
            text = render(task, docs, register, variant)
            assert parse(text, docs) == task
            assert all(word in text.lower() for word in ("timeout (408)", "unavailable (503)", "effect"))
            texts.add(dict(sentences(task, docs, register, variant))[f"step{len(task.steps) - 1}"])
            with pytest.raises(ParseError):
                parse(text.replace("408", "409"), docs)
            with pytest.raises(ParseError):
                parse(text.replace("503", "500"), docs)
    assert len(texts) == 9


def test_a_warning_makes_the_class_and_no_other_difference():
    composed, task = tiny_world(), Task((BOOK, Caution()), ())
    assert (kind_of(task), kind_of(Task((BOOK,), ()))) == ("recover", "act")
    assert from_json(to_json(task)) == task
    assert to_json(Caution()) == ["Caution"]
    assert check(task, composed) == {}
    with pytest.raises(IRTypeError, match="malformed"):
        from_json(["Caution", 1])


def test_only_a_solver_that_was_warned_is_patient():
    composed = tiny_world()
    plain, wary = (compile_plan(composed, Task(steps, ())) for steps in ((BOOK,), (BOOK, Caution())))
    assert all(name not in plain for name in ("patient", "RETRY", "DOUBT"))
    assert all(f"\n{name} = {value!r}" in wary for name, value in FAULT_FLAGS.items())
    assert "CHANGING = {'book_room': ['visit']}" in wary
    ours = {"no_retry", "blind_retry", "assumes_done"}
    assert ours <= set(applicable_skills(composed, Task((BOOK, Caution()), ())))
    assert not ours & set(applicable_skills(composed, Task((BOOK,), ())))


def test_an_action_that_does_not_name_its_tool_is_refused():
    book = tiny_world().actions["book"]
    assert book.calls == ("book_room",)
    for plan in ("def a_x(room):\n    write(TOOL, id=1)\n", "def a_x(room):\n    pass\n"):
        broken = Action(name="x", phrase="", params=(), oracle_sql="", plan=plan, goal="", tables=())
        with pytest.raises(AuthorError, match="does not name the tool"):
            broken.calls  # noqa: B018 - works it out


# ------------------------------------------------------------------------------------------------------------ operator


def sampler(seed: int = 0) -> Sampler:
    return Sampler(tiny_world(), (), random.Random(f"faults/{seed}"))


def test_an_action_done_twice_is_told_from_one_that_is_refused():
    drawn = sampler()
    assert done_twice(drawn.world, drawn.connection, Task((BOOK,), ())) == [("book", True)]
    assert done_twice(drawn.world, drawn.connection, Task((CANCEL,), ())) == [("cancel", False)]
    both = done_twice(drawn.world, drawn.connection, Task((CANCEL, BOOK), ()))
    assert both == [("cancel", False), ("book", True)]
    before = drawn.oracle.run(Task((BOOK,), ()))
    assert before.changes
    assert drawn.oracle.run(Task((BOOK,), ())) == before  # nothing was written


def test_the_operator_schedules_a_lost_reply_behind_what_fails_before_it():
    item, task, forms, listed = OPERATORS["faults"], Task((BOOK,), ()), set(), 0
    assert item.applicable(task)
    for seed in range(80):
        drawn = sampler(seed)
        result = drawn.oracle.run(task)
        edit = item.apply(drawn, task, result)
        assert edit.task == Task((BOOK, Caution()), ())
        assert binding_failure("faults", result, drawn.oracle.run(edit.task), drawn, edit.task) is None
        assert edit.faults == item.apply(sampler(seed), task, result).faults
        changing = [fault for fault in edit.faults if fault.tool == "book_room"]
        forms.add(tuple(fault.kind for fault in changing[:-1]))
        assert changing[-1].kind == "timeout_after"
        assert [fault.call for fault in changing] == [
            1 + sum(fault.calls for fault in changing[:place]) for place in range(len(changing))
        ]
        reading = [fault for fault in edit.faults if fault.tool != "book_room"]
        assert {fault.tool for fault in reading} <= {drawn.world.access["visit"].list_tool}
        listed += bool(reading)
        assert edit.params == {"tool": "book_room", "faults": len(edit.faults)}
    assert forms == set(BEFORE_THE_LOSS)
    assert 20 < listed < 70


@pytest.mark.parametrize(
    ("task", "code"),
    [
        (Task((CANCEL,), ()), "nonbinding"),
        (Task((BOOK, Caution()), ()), "no_site"),
        (Task((Try("X1", BOOK),), (("word", Ref("X1")),)), "no_site"),
        (Task((Let("X1", Pick("room", (), "max", Attr("rate"))),), (("name", Of("X1", Attr("name"))),)), "no_site"),
    ],
)
def test_the_operator_refuses_what_a_repetition_does_not_harm(task: Task, code: str):
    drawn = sampler()
    with pytest.raises(Rejected) as refused:
        OPERATORS["faults"].apply(drawn, task, drawn.oracle.run(task))
    assert refused.value.code == code
    assert OPERATORS["faults"].applicable(task) == (code == "nonbinding")


def test_children_of_a_task_with_faults_keep_them():
    author = ProceduralAuthor("warehouse restocking", "faults")
    draft = author.draft(0)
    child = None
    for number in range(12):
        for attempt in range(24):
            try:
                root = author.root(draft, number, attempt)
                child = author.propose(draft, root, "faults", 0)
                break
            except Rejected:
                continue
        if child is not None:
            break
    assert child is not None
    assert (child.kind, root.kind, root.faults) == ("recover", "act", ())
    assert child.oracle == root.oracle
    assert all(isinstance(fault, Fault) for fault in child.faults)
    assert "faults" not in author.operators(child)
    kept = 0
    for operator in author.operators(child):
        for attempt in range(6):
            try:
                grandchild = author.propose(draft, child, operator, attempt)
            except Rejected:
                continue
            assert grandchild.faults == child.faults
            assert grandchild.kind == "recover"
            kept += 1
    assert kept
