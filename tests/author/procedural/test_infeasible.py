"""Choices that may have no set: three backends, prompt, probes and the operator that makes infeasible twins."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

import pytest

from envsynth.author.procedural.author import answer_schema
from envsynth.author.procedural.docs import public_docs
from envsynth.author.procedural.goals import compile_goals
from envsynth.author.procedural.ir import (
    Act,
    Atom,
    Attr,
    Choose,
    Con,
    Const,
    IRTypeError,
    Let,
    Of,
    Pick,
    Reach,
    Ref,
    Sum,
    Task,
    check,
    digest,
)
from envsynth.author.procedural.mechanisms import MECHANISMS
from envsynth.author.procedural.operators import OPERATORS, binding_failure, nonbinding_atom
from envsynth.author.procedural.oracle import Reject, certificates
from envsynth.author.procedural.parse import ParseError, parse
from envsynth.author.procedural.planner import SKILLS, applicable_skills
from envsynth.author.procedural.probes import make_probes
from envsynth.author.procedural.prompt_edits import apply, edits
from envsynth.author.procedural.render import REGISTERS, render
from envsynth.author.procedural.sampling import Rejected, Sampler
from envsynth.author.procedural.screen import refuse_poor
from envsynth.errors import AuthorError
from tests.author.procedural.random_tasks import Case, LocalTools, agree, play, prepare, world
from tests.author.procedural.tiny_world import credits_, day, people, room, tiny_world

NAME, RATE, WING, SIZE = Attr("name"), Attr("rate"), Attr("wing"), Attr("size")
EAST = Atom(WING, "==", Const("East", "str", "wing"))
APART = Con("distinct", WING)
BOOK = Act("book", (("room", room("Elm Room")), ("day", day(9)), ("heads", people(5))))


def pair(op: str, bound: int, *cons: Con, atoms: tuple[Atom, ...] = (), goal: tuple[str, Attr] | None = None) -> Task:
    """Two rooms whose combined rate is so; their names and that total."""
    node = Choose("room", atoms, 2, (*cons, Con("sum", RATE, op, credits_(bound))), goal, or_none=True)
    report = (("rooms", Of("X1", NAME)), ("combined_rate", Ref("X2")))
    return Task((Let("X1", node), Let("X2", Reach(Ref("X1")))), report)


def sampler(seed: object = 0) -> Sampler:
    return Sampler(tiny_world(), (), random.Random(f"twin/{seed}"))


def judge(task: Task, rooms: list[str], total: int) -> list[str]:
    return prepare(sampler(), task).judge_outcome({"rooms": rooms, "combined_rate": total}, [])


# All two of the east: 30 + 20, 30 + 15, 20 + 15. All: 60 + 45 = 105; of two wings 60 + 30 = 90.
CASES = [
    (pair(">=", 51, atoms=(EAST,)), [], 50),
    (pair(">", 50, atoms=(EAST,)), [], 50),
    (pair("<", 35, atoms=(EAST,)), [], 35),
    (pair("<=", 34, atoms=(EAST,)), [], 35),
    (pair(">=", 91, APART), [], 90),
    (pair(">=", 91, APART, goal=("min", SIZE)), [], 90),
    (pair(">=", 105), ["Fir Room", "Yew Room"], 105),
    (pair("<=", 35), ["Ash Room", "Oak Room"], 35),
    (pair(">=", 90, APART), ["Fir Room", "Oak Hall"], 90),
]


@pytest.mark.parametrize(("task", "rooms", "total"), CASES)
def test_the_known_outcome_is_told_by_all_three_backends(task, rooms, total):
    result = sampler().oracle.run(task)
    assert (sorted(result.answer["rooms"]), result.answer["combined_rate"]) == (rooms, total)
    assert result.infeasible == (rooms == [])
    assert agree(sampler(), task) == "agree"
    assert judge(task, rooms, total) == []


@pytest.mark.parametrize(
    ("task", "rooms", "total", "failed"),
    [
        # an infeasible twin: the set that meets the parent's bound, none with another total, half a set
        (pair(">=", 51, atoms=(EAST,)), ["Oak Hall", "Oak Room"], 50, ["rooms.con0"]),
        (pair(">=", 51, atoms=(EAST,)), [], 51, ["combined_rate.value"]),
        (pair(">=", 51, atoms=(EAST,)), [], 105, ["combined_rate.value"]),
        (pair(">=", 51, atoms=(EAST,)), ["Oak Hall"], 30, ["rooms.count", "rooms.con0"]),
        (pair(">=", 91, APART), ["Fir Room", "Yew Room"], 105, ["rooms.con0"]),
        (pair(">=", 91, APART), [], 105, ["combined_rate.value"]),
        (pair(">=", 91, APART, goal=("min", SIZE)), ["Fir Room", "Yew Room"], 105, ["rooms.con0", "rooms.best"]),
        # the feasible parent: none, with the nearest total or without; the right set with another total
        (pair(">=", 50, atoms=(EAST,)), [], 50, ["rooms.none"]),
        (pair(">=", 50, atoms=(EAST,)), [], 0, ["rooms.none", "combined_rate.value"]),
        (pair(">=", 50, atoms=(EAST,)), ["Oak Hall", "Oak Room"], 51, ["combined_rate.value"]),
        (pair(">=", 50, atoms=(EAST,)), ["Oak Hall", "Ash Room"], 45, ["rooms.con0"]),
        (pair("<=", 35, goal=("max", SIZE)), [], 35, ["rooms.none"]),
    ],
)
def test_a_wrong_outcome_fails_the_atom_that_it_breaks(task, rooms, total, failed):
    assert judge(task, rooms, total) == failed


def test_a_choice_without_a_set_for_its_other_conditions_is_refused():
    far = Atom(SIZE, ">=", Const(12, "num", "people"))
    for task in (pair(">=", 1, atoms=(far,)), pair(">=", 1, APART, atoms=(EAST,))):
        with pytest.raises(Reject, match="infeasible"):
            sampler().oracle.run(task)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (replace(CASES[0][0], steps=CASES[0][0].steps[1:]), "no set chosen"),
        (
            Task((Let("X1", Choose("room", (), 2, (APART,), None, or_none=True)),), (("rooms", Of("X1", NAME)),)),
            "bounds one total",
        ),
        (
            Task(
                (
                    *CASES[0][0].steps,
                    Let("X3", Pick("room", (Atom(RATE, "<", Ref("X2")),), "max", SIZE)),
                ),
                (*CASES[0][0].report, ("third", Of("X3", NAME))),
            ),
            "can be reported only",
        ),
    ],
)
def test_ill_typed_totals_are_refused(task, message):
    with pytest.raises(IRTypeError, match=message):
        check(task, tiny_world())


def test_the_solver_lacks_a_skill_only_where_no_set_fits():
    twin, parent = prepare(sampler(), pair(">=", 51, atoms=(EAST,))), prepare(sampler(), pair(">=", 50, atoms=(EAST,)))
    for case, fails in ((twin, True), (parent, False)):
        assert "assumes_feasible" in applicable_skills(tiny_world(), case.task)
        tools = LocalTools(case.sampler)
        answer = play(case.source, tools, **SKILLS["assumes_feasible"])
        assert (case.judge_images(tools.database, answer) != []) == fails
        assert answer == {"rooms": answer["rooms"], "combined_rate": 50}
        assert sorted(answer["rooms"]) == ["Oak Hall", "Oak Room"]
    certain = Task((Let("X1", replace(CASES[7][0].steps[0].node, or_none=False)),), CASES[7][0].report[:1])
    assert "assumes_feasible" not in applicable_skills(tiny_world(), certain)


def test_a_prompt_says_what_no_set_means_and_never_whether_there_is_one():
    docs = public_docs(world((MECHANISMS["booking"], MECHANISMS["inventory"]), "prompt"))
    seen: Counter[str] = Counter()
    for case, twin in twins(("booking", "inventory"), "prompt", 3):
        for register in REGISTERS:
            for variant in range(3):
                texts = [render(item.task, docs, register, variant) for item in (case, twin)]
                assert [parse(text, docs) for text in texts] == [case.task, twin.task]
                parts = [text.split(" ") for text in texts]
                differing = sum(left != right for left, right in zip(*parts, strict=True))
                assert differing in (1, 2), "only the bound, and whether its unit is a plural, differs"
                assert "if there is none, X1 is empty" in texts[0]
                for edit in edits(texts[1]):
                    try:
                        assert parse(apply(texts[1], edit), docs) != twin.task
                    except ParseError:
                        seen["refused"] += 1
    assert seen["refused"] > 30


def test_a_total_of_another_set_or_direction_is_no_sentence():
    docs = public_docs(world((MECHANISMS["booking"], MECHANISMS["inventory"]), "prompt"))
    case, _ = twins(("booking", "inventory"), "prompt", 1)[0]
    text = render(case.task, docs, "plain", 2)
    word, other = ("highest", "lowest") if "the highest total of any choice" in text else ("lowest", "highest")
    wrong = [
        text.replace(f"the {word} total of any choice", f"the {other} total of any choice"),
        text.replace("if there is none, X1 is empty", "if there is none, X2 is empty"),
        text.replace("; if there is none, X1 is empty", ""),
        text.replace("or, if X1 is empty", "or, if X2 is empty"),
    ]
    for changed in wrong:
        assert changed != text
        with pytest.raises(ParseError):
            parse(changed, docs)


def twins(names: tuple[str, ...], label: str, count: int) -> list[tuple[Case, Case]]:
    """Root choices with their infeasible twins.

    Raises:
        AssertionError: too few draws become a pair.
    """
    composed, found = world(tuple(MECHANISMS[name] for name in names), label), []
    for draw in range(400):
        drawn = Sampler(composed, (), random.Random(f"{label}/{draw}"))
        try:
            parent = drawn.root("choose")
            result = drawn.oracle.run(parent)
            edit = OPERATORS["infeasible"].apply(drawn, parent, result)
            found.append((prepare(drawn, parent), prepare(drawn, edit.task)))
        except (Rejected, Reject):
            continue
        if len(found) == count:
            return found
    raise AssertionError(f"only {len(found)} of {count} twins in {label}")


def check_twins(names: tuple[str, ...], label: str, count: int) -> Counter[str]:
    """All backends agree on parents and twins, and every probe gets the verdict that it must get."""
    seen: Counter[str] = Counter()
    for pair_of in twins(names, label, count):
        for case, infeasible in zip(pair_of, (False, True), strict=True):
            assert case.result.infeasible == infeasible
            assert agree(case.sampler, case.task) == "agree"
            case.sampler.oracle.run(case.task)
            for probe in make_probes(case.sampler, case.task, case.result, random.Random(label)).cases:
                changes = [(change.op, change.table, change.row) for change in probe.outcome.changes]
                failed = case.judge_outcome(probe.outcome.answer, changes)
                assert (failed == []) == probe.accept, (probe, failed, case.task)
                seen["/".join(probe.name.split("/")[:2]) + ("/twin" if infeasible else "")] += 1
        seen["pairs"] += 1
    return seen


def test_twins_and_parents_refuse_one_another_on_random_worlds():
    seen = check_twins(("pricing", "inventory"), "fast", 6)
    # "none" in the parent, the parent's sets in the twin, and dropped bounds in both
    for name in ("constraint/none", "constraint/reached/twin", "constraint/drop", "constraint/drop/twin"):
        assert seen[name] >= 3, seen
    assert "constraint/none/twin" not in seen, "the right answer is no mutant"


def test_a_recalled_result_answers_for_the_total_as_the_run_did():
    for task, _, total in CASES:
        result = sampler().oracle.run(task)
        fresh = sampler().oracle
        fresh.recall(task, result)
        assert fresh.resolve(task.steps[1].node) == (total, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    "names",
    [
        *(("booking", "inventory"), ("pricing", "recipes"), ("allocation", "ledger"), ("itinerary", "routing")),
        *(("subscription", "tickets"), ("config", "telemetry")),
    ],
    ids="+".join,
)
def test_twins_and_parents_agree_on_many_tasks(names):
    assert check_twins(names, f"slow/{'+'.join(names)}", 14)["pairs"] == 14


# ------------------------------------------------------------------------------------------------------- the operator


def test_one_number_makes_the_twin_and_it_misses_closely():
    parent = pair(">=", 45, atoms=(EAST,))
    for seed in range(6):
        drawn = sampler(seed)
        before = drawn.oracle.run(parent)
        edit = OPERATORS["infeasible"].apply(drawn, parent, before)
        assert edit.params == {"var": "X1", "bound": edit.params["bound"], "was": 45, "nearest": 50}
        assert 50 < int(str(edit.params["bound"])) <= 52
        after = drawn.oracle.run(edit.task)
        assert (after.answer, after.infeasible) == ({"rooms": [], "combined_rate": 50}, True)
        assert binding_failure("infeasible", before, after, drawn, edit.task) is None
        assert binding_failure("infeasible", before, before, drawn, parent) == "some set still meets all conditions"
        assert binding_failure("distractors", before, after, drawn, edit.task) == "whether a set exists has changed"


def refusal(task: Task) -> str:
    drawn = sampler()
    with pytest.raises(Rejected) as raised:
        OPERATORS["infeasible"].apply(drawn, task, drawn.oracle.run(task))
    return raised.value.code


def test_no_twin_of_a_twin_nor_of_a_bound_that_is_worked_out():
    assert refusal(pair(">=", 51, atoms=(EAST,))) == "no_site"
    rooms = pair(">=", 45, atoms=(EAST,))
    chosen = rooms.steps[0].node
    worked_out = replace(chosen, cons=(replace(chosen.cons[0], value=Ref("X3")),))
    total = Let("X3", Sum("room", (Atom(NAME, "==", Const("Fir Room", "str", "name")),), RATE))
    assert (
        refusal(
            Task(
                (total, Let("X1", replace(worked_out, cons=(replace(worked_out.cons[0], op="<"),))), *rooms.steps[1:]),
                rooms.report,
            )
        )
        == "no_site"
    )
    acting = Task((*rooms.steps, BOOK), rooms.report)
    assert refusal(acting) == "no_site"
    assert not OPERATORS["infeasible"].applicable(acting)
    certain = Task((Let("X1", replace(CASES[7][0].steps[0].node, or_none=False)),), CASES[7][0].report[:1])
    assert not OPERATORS["infeasible"].applicable(certain)
    assert OPERATORS["infeasible"].applicable(CASES[7][0])


def test_other_operators_work_on_a_twin_and_keep_it_one():
    twin = pair(">=", 106)
    seen: Counter[str] = Counter()
    for name in ("constraint", "distractors", "aggregate"):
        for seed in range(12):
            drawn = sampler(f"{name}/{seed}")
            before = drawn.oracle.run(twin)
            try:
                edit = OPERATORS[name].apply(drawn, twin, before)
                child = Sampler(drawn.world, edit.overlay, drawn.rng)
                after = child.oracle.run(edit.task)
            except (Rejected, Reject):
                continue
            if binding_failure(name, before, after, child, edit.task) is None:
                assert after.infeasible
                seen[name] += 1
                if name == "constraint":
                    assert after.answer["combined_rate"] < 105, "the nearest set must fail the new condition"
                    assert nonbinding_atom(edit.task, after, child.oracle.run) is None
    assert seen["constraint"] >= 3, seen
    with pytest.raises(Rejected, match="none that some set meets"):
        OPERATORS["optimise"].apply(sampler(), twin, sampler().oracle.run(twin))


def test_an_atom_of_a_twin_that_changes_nothing_is_found():
    idle = pair(">=", 106, atoms=(Atom(SIZE, ">=", Const(5, "num", "people")),))
    drawn = sampler()
    assert nonbinding_atom(idle, drawn.oracle.run(idle), drawn.oracle.run) == "X1: size"


# ------------------------------------------------------------------------------------------------------- the record


def test_the_schema_tells_nothing():
    schemas = [answer_schema(task, sampler().oracle.run(task)) for task, _, _ in (CASES[4], CASES[8])]
    assert schemas[0] == schemas[1]
    assert schemas[0]["properties"]["rooms"] == {
        "type": "array",
        "items": {"type": "string"},
        "minItems": 0,
        "maxItems": 2,
        "uniqueItems": True,
    }
    by_id = Task(CASES[4][0].steps, (("rooms", Of("X1", Attr("id"))), CASES[4][0].report[1]))
    assert answer_schema(by_id, sampler().oracle.run(by_id))["properties"]["rooms"]["items"] == {"type": "integer"}
    bare = Task(CASES[4][0].steps, (("rooms", Ref("X1")), CASES[4][0].report[1]))
    assert answer_schema(bare, sampler().oracle.run(bare)) == answer_schema(by_id, sampler().oracle.run(by_id))
    sizes = Task(CASES[4][0].steps, (*CASES[4][0].report, ("sizes", Of("X1", SIZE))))
    with pytest.raises(AuthorError, match="by name or id"):
        answer_schema(sizes, sampler().oracle.run(sizes))


def test_an_empty_list_is_a_poor_answer_only_where_a_set_exists():
    twin = pair(">=", 106)
    drawn = sampler()
    refuse_poor(drawn, twin, drawn.oracle.run(twin))
    nothing = pair("<", 106)
    result = drawn.oracle.run(nothing)
    result.answer["rooms"] = []
    with pytest.raises(Rejected, match="empty or zero"):
        refuse_poor(drawn, nothing, result)


def test_the_certificate_of_a_goal_is_asked_for_only_where_a_set_exists():
    goal = pair(">=", 91, APART, goal=("min", SIZE))
    assert certificates(sampler().oracle.run(goal)) == {}
    assert [atom.id for atom in compile_goals(tiny_world(), goal, {}).atoms if atom.id.endswith("best")]
    certain = replace(goal.steps[0].node, or_none=False)
    with pytest.raises(AuthorError, match="no certificate"):
        compile_goals(tiny_world(), Task((Let("X1", certain),), goal.report[:1]), {})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("max(totals) if", "min(totals) if"),
        ("all(test(chosen) for test in tests)", "True"),
        ("range(start, count - size + 1)", "range(start, count - size)"),
    ],
)
def test_a_wrong_search_of_the_verifier_is_found(old, new, monkeypatch):
    """The proof that no set exists can fail: three planted bugs of the search are disagreements."""
    text = compile_goals.__globals__["_Goals"].__init__.__globals__["SEARCH"]
    assert old in text
    monkeypatch.setitem(compile_goals.__globals__, "SEARCH", text.replace(old, new))
    assert any(judge(task, rooms, total) for task, rooms, total in CASES[:6])


def test_programs_with_and_without_the_clause_have_different_digests():
    node = CASES[6][0].steps[0].node
    assert digest(node) != digest(replace(node, or_none=False))
