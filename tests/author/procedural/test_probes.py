"""Probes differ from the right outcome, cover every condition, and get their verdict through the real verifier."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from envsynth.author.procedural.author import ProceduralAuthor
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
    Task,
    To,
)
from envsynth.author.procedural.probes import make_probes, to_outcome
from envsynth.author.procedural.sampling import Sampler
from envsynth.environments import build_image
from envsynth.errors import Rejected
from envsynth.verifiers import judge
from tests.author.procedural.tiny_world import credits_, day, people, room, tiny_world, visit

WORLD = tiny_world()
EAST = Atom(Attr("wing"), "==", Const("East", "str", "wing"))


def probes(task):
    sampler = Sampler(WORLD, (), random.Random("probes"))
    result = sampler.oracle.run(task)
    return result, make_probes(sampler, task, result, sampler.rng)


def names(found, accept=False):
    return [case.name for case in found.cases if case.accept == accept]


def test_each_condition_is_dropped_negated_and_shifted():
    task = Task(
        (Let("X1", Pick("room", (EAST, Atom(Attr("rate"), "<", credits_(30))), "max", Attr("rate"))),),
        (("room", Of("X1", Attr("name"))),),
    )
    result, found = probes(task)
    assert result.answer == {"room": "Oak Room"}
    answers = {case.name: case.outcome.answer["room"] for case in found.cases}
    assert answers == {
        "constraint/drop/X1.0": "Elm Room",
        "constraint/drop/X1.1": "Oak Hall",
    }
    # Negating EAST gives Elm Room again, and negating or shifting the second gives Oak Hall again: seen already.
    assert found.equivalent == 3
    assert found.no_witness == 0


def test_mutants_without_a_well_defined_outcome_are_counted():
    task = Task(
        (Let("X1", Pick("room", (Atom(Attr("size"), "<", people(6)),), "max", Attr("rate"))),),
        (("room", Of("X1", Attr("name"))),),
    )
    _, found = probes(task)
    assert {case.name for case in found.cases} == {"constraint/drop/X1.0", "constraint/boundary/X1.0"}
    assert found.equivalent == 1  # the negation picks the same room as dropping does
    low = Task((Let("X1", Pick("room", (Atom(Attr("size"), ">=", people(4)),), "max", Attr("rate"))),), task.report)
    _, found = probes(low)
    assert found.no_witness == 1  # no room is below 4
    assert found.equivalent == 2


def test_no_mutant_equals_the_right_outcome_or_another():
    task = Task((Let("X1", Count("room", (EAST, Atom(Attr("size"), ">", people(4))))),), (("n", Ref("X1")),))
    result, found = probes(task)
    texts = [case.outcome.to_json() for case in found.cases]
    assert len(set(texts)) == len(texts)
    assert to_outcome(result.answer, result.changes).to_json() not in texts


def test_set_conditions_and_goals_are_mutated():
    cons = (Con("sum", Attr("rate"), "<=", credits_(60)),)
    task = Task(
        (Let("X1", Choose("room", (EAST,), 2, cons, ("max", Attr("size")))),),
        (("rooms", Of("X1", Attr("name"))),),
    )
    result, found = probes(task)
    assert names(found) == [
        "constraint/drop/X1.0",
        "constraint/goal/X1",
    ]
    best = {tuple(sorted(item)) for item in result.info["X1"].optimal}
    ids = {row["name"]: row["id"] for row in WORLD.rows["room"]}
    for case in found.cases:
        chosen = tuple(sorted(ids[name] for name in case.outcome.answer["rooms"]))
        assert (chosen in best) == case.accept, case


def test_any_feasible_choice_is_an_alternative():
    cons = (Con("sum", Attr("rate"), "<=", credits_(60)),)
    task = Task((Let("X1", Choose("room", (), 2, cons)),), (("rooms", Of("X1", Attr("name"))),))
    result, found = probes(task)
    good = [case for case in found.cases if case.accept]
    assert len(good) == min(8, result.info["X1"].feasible)
    assert len({tuple(case.outcome.answer["rooms"]) for case in good}) == len(good)
    rates = {row["name"]: row["rate"] for row in WORLD.rows["room"]}
    for case in found.cases:
        assert (sum(rates[name] for name in case.outcome.answer["rooms"]) <= 60) == case.accept


def test_actions_get_wrong_targets_and_branches_are_flipped():
    book = Act("book", (("room", room("Fir Room")), ("day", day(6)), ("heads", people(3))))
    other = Act("cancel", (("visit", visit(1)),))
    task = Task((Let("X1", To(visit(4), "room")), If(Of("X1", Attr("rate")), ">", credits_(20), (book,), (other,))), ())
    result, found = probes(task)
    assert [change.op for change in result.changes] == ["insert"]
    assert names(found) == ["constraint/branch/step1", "argument/book0.room", "argument/book0.heads"]
    # The other branch is not taken: its wrong target changes nothing.
    assert found.equivalent == 1


def test_the_order_of_changes_is_free():
    acts = (Act("cancel", (("visit", visit(1)),)), Act("cancel", (("visit", visit(3)),)))
    result, found = probes(Task(acts, ()))
    case = next(case for case in found.cases if case.accept)
    assert case.name == "order of changes"
    assert [change.row["id"] for change in case.outcome.changes] == [3, 1]
    assert [change.cells["id"] for change in result.changes] == [1, 3]


def test_the_sampler_is_left_with_the_tasks_own_bindings():
    task = Task((Let("X1", Pick("room", (EAST,), "max", Attr("rate"))),), (("room", Of("X1", Attr("name"))),))
    sampler = Sampler(WORLD, (), random.Random("probes"))
    result = sampler.oracle.run(task)
    make_probes(sampler, task, result, sampler.rng)
    assert sampler.oracle.bindings == result.bindings == {"X1": 10}


def candidates(author, draft, kinds):
    found = {}
    for number in range(12):
        for attempt in range(12):
            try:
                task = author.root(draft, number, attempt)
            except Rejected:
                continue
            found.setdefault(task.kind, task)
            break
        if set(kinds) <= set(found):
            return [found[kind] for kind in kinds]
    raise AssertionError(f"only {list(found)}")


@pytest.mark.parametrize("category", ["planning a travel itinerary", "warehouse inventory management"])
def test_every_probe_gets_its_verdict_through_the_verifier(jail, category):
    author = ProceduralAuthor(category, 5)
    draft = author.draft(0)
    tasks = [author.complete(draft, candidate, 9) for candidate in candidates(author, draft, ("act", "plan", "read"))]
    assert sum(bool(task.probes) for task in tasks) > 1
    for task in tasks:
        image = build_image(jail, draft.environment.world, task.overlay)
        verdicts = judge(jail, task, image, [probe.outcome for probe in task.probes])
        for probe, verdict in zip(task.probes, verdicts, strict=True):
            assert verdict.status == ("pass" if probe.accept else "fail"), (probe.name, verdict.failed, verdict.failure)


def test_a_loosened_verifier_lets_a_constraint_mutant_pass(jail):
    """The probes are able to fail: without the answer's atom nothing is refused."""
    author = ProceduralAuthor("planning a travel itinerary", 5)
    draft = author.draft(0)
    (candidate,) = candidates(author, draft, ("plan",))
    task = author.complete(draft, candidate, 9)
    lax = task.model_copy(update={"verifier": task.verifier.model_copy(update={"atoms": ()})})
    image = build_image(jail, draft.environment.world, task.overlay)
    verdicts = judge(jail, lax, image, [probe.outcome for probe in task.probes if not probe.accept])
    assert {verdict.status for verdict in verdicts} == {"pass"}


def test_a_named_argument_moves_to_another_row():
    task = Task((Act("cancel", (("visit", visit(1)),)),), ())
    _, found = probes(task)
    (case,) = found.cases
    assert case.name == "argument/cancel0.visit"
    assert case.outcome.changes[0].row["id"] != 1
    assert isinstance(replace(visit(1), value=2), Named)
