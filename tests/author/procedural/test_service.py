"""Actions that may be denied: the oracle decides, tools refuse, the verifier wants the right word and the right state."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from envsynth.author.procedural.author import answer_schema
from envsynth.author.procedural.docs import public_docs
from envsynth.author.procedural.goals import compile_goals
from envsynth.author.procedural.ir import (
    Act,
    Attr,
    IRTypeError,
    Let,
    Of,
    Only,
    Ref,
    Task,
    Try,
    check,
    digest,
    from_json,
    kind_of,
    to_json,
)
from envsynth.author.procedural.mechanisms import MECHANISMS
from envsynth.author.procedural.oracle import Reject
from envsynth.author.procedural.parse import parse
from envsynth.author.procedural.planner import SKILLS, applicable_skills
from envsynth.author.procedural.probes import make_probes
from envsynth.author.procedural.render import REGISTERS, render
from envsynth.author.procedural.sampling import Rejected, Sampler
from envsynth.author.procedural.screen import refuse_poor
from envsynth.errors import AuthorError
from tests.author.procedural.random_tasks import Case, LocalTools, Refusal, play, prepare, world
from tests.author.procedural.tiny_world import day, people, room, tiny_world

BOOK = Act("book", (("room", room("Elm Room")), ("day", day(9)), ("heads", people(5))))


def requests(names: tuple[str, ...], label: str, draws: int) -> list[Case]:
    """Root tasks whose action may be denied, with what the three backends make of them."""
    composed, found = world(tuple(MECHANISMS[name] for name in names), label), []
    for draw in range(draws):
        sampler = Sampler(composed, (), random.Random(f"{label}/{draw}"))
        try:
            found.append(prepare(sampler, sampler.root("service")))
        except (Rejected, Reject):
            continue
    return found


def solved(case: Case) -> tuple[list[str], LocalTools, dict[str, object]] | None:
    """Failed checks of the solution, its tools and its answer; None where its own thinking finds no way to ask."""
    tools = LocalTools(case.sampler)
    try:
        answer = play(case.source, tools)
    except (RuntimeError, IndexError, ValueError):
        return None
    return case.judge_images(tools.database, answer), tools, answer


def compare(names: tuple[str, ...], label: str, draws: int) -> Counter[str]:
    """What the backends say; probes get the verdict that they must get.

    A solution that disagrees is refused by the gates. It may disagree in one way only: its tools have nothing to do and
    refuse nothing, where the oracle sees no change.
    """
    seen: Counter[str] = Counter()
    for case in requests(names, label, draws):
        word = str(case.result.answer["decision"])
        assert (word == "done") == bool(case.result.changes)
        assert case.judge_outcome(case.result.answer, case.result.changes) == []
        found = solved(case)
        if found is None or found[0]:
            assert word == "denied", case.task
            seen["no way to ask" if found is None else "nothing refused"] += 1
            continue
        assert found[2] == case.result.answer
        seen[word] += 1
        lazy = LocalTools(case.sampler)
        answer = play(case.source, lazy, **SKILLS["never_writes"])
        assert case.judge_images(lazy.database, answer) != [], "done without trying"
        case.sampler.oracle.run(case.task)
        for probe in make_probes(case.sampler, case.task, case.result, random.Random(label)).cases:
            changes = [(change.op, change.table, change.row) for change in probe.outcome.changes]
            assert (case.judge_outcome(probe.outcome.answer, changes) == []) == probe.accept, (probe, case.task)
            seen[f"{word}: {'/'.join(probe.name.split('/')[:2])}"] += 1
    return seen


def test_done_and_denied_agree_on_random_worlds():
    seen = compare(("booking", "inventory"), "service/fast", 16) + compare(("ledger", "allocation"), "service/fast", 16)
    assert seen["done"] >= 3, seen
    assert seen["denied"] >= 3, seen
    for name in ("done: decision/word", "done: decision/idle", "done: decision/untried", "denied: decision/word"):
        assert seen[name] >= 3, seen


@pytest.mark.slow
def test_done_and_denied_agree_on_many_tasks():
    names, seen = sorted(MECHANISMS), Counter[str]()
    for index, name in enumerate(names):
        seen += compare((name, names[(index + 5) % len(names)]), f"service/slow/{name}", 40)
    assert seen["done"] + seen["denied"] >= 150, seen
    assert seen["denied"] >= 50, seen
    assert seen["nothing refused"] <= seen["denied"] / 4, seen


def test_prompts_of_requests_are_read_back():
    cases = requests(("booking", "inventory"), "service/prompt", 16)
    docs = public_docs(cases[0].sampler.world)
    assert len(cases) >= 4
    for case in cases[:4]:
        for register in REGISTERS:
            for variant in range(3):
                text = render(case.task, docs, register, variant)
                assert parse(text, docs) == case.task
                assert "'denied'" in text
        assert from_json(to_json(case.task)) == case.task
        assert digest(case.task) == digest(from_json(to_json(case.task)))


def request(*report: tuple[str, Ref | Of]) -> Task:
    return Task((Try("X1", BOOK),), report or (("decision", Ref("X1")),))


def test_the_outcome_of_a_request_is_a_word_to_be_reported_only():
    assert kind_of(request()) == "service"
    world_ = tiny_world()
    assert check(request(), world_)["X1"] == ("str", "decision")
    again = Task((Try("X1", BOOK), Try("X1", BOOK)), (("decision", Ref("X1")),))
    with pytest.raises(IRTypeError, match="bound twice"):
        check(again, world_)
    with pytest.raises(IRTypeError, match="dead binding"):
        check(Task((Try("X1", BOOK),), ()), world_)
    asking = Only("room", ())
    with pytest.raises(IRTypeError, match="X1 is no row"):
        check(Task((Try("X1", BOOK), Let("X2", asking)), (("x", Of("X1", Attr("size"))), ("y", Ref("X2")))), world_)


def test_the_schema_offers_both_words_and_the_certificate_is_needed():
    sampler = Sampler(tiny_world(), (), random.Random("service"))
    result = sampler.oracle.run(request())
    assert (result.answer, result.decisions) == ({"decision": "done"}, {"X1": True})
    assert answer_schema(request(), result)["properties"]["decision"] == {"type": "string", "enum": ["done", "denied"]}
    with pytest.raises(AuthorError, match="no certificate for X1"):
        compile_goals(tiny_world(), request(), {})
    assert "never_writes" in applicable_skills(tiny_world(), request())


def test_a_solution_reports_denied_only_where_a_tool_refused():
    sampler = Sampler(tiny_world(), (), random.Random("service"))
    case = prepare(sampler, request())
    assert play(case.source, LocalTools(sampler)) == {"decision": "done"}

    class Closed(LocalTools):
        def call(self, tool, **arguments):
            if self.effects[tool] == "write":
                raise Refusal("closed")
            return super().call(tool, **arguments)

    assert play(case.source, Closed(sampler)) == {"decision": "denied"}
    broken = case.source.replace("def a_book(room, day, heads):", "def a_book(room, day, heads):\n    [][0]")
    assert broken != case.source
    with pytest.raises(IndexError):
        play(broken, LocalTools(sampler))


def test_a_denied_request_is_not_refused_as_idle():
    for case in requests(("ledger", "allocation"), "service/fast", 16):
        if not case.result.changes:
            refuse_poor(case.sampler, case.task, case.result)
            break
    else:
        pytest.fail("no denied request was drawn")
