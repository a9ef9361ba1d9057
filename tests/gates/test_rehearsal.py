"""A rehearsal ends as proper episodes do, or says that it cannot tell; it never takes anything for granted."""

from __future__ import annotations

import json
import sqlite3

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envsynth.author.procedural.author import ProceduralAuthor
from envsynth.gates import Case, Rehearsal, rehearse
from envsynth.hardening import find_root, harden
from envsynth.sandbox import shared_jail
from envsynth.verifiers import Bench, SchemaCheck, judge, malformed
from envsynth.verifiers.strict import _plainly_sound

AUTHOR = ProceduralAuthor("warehouse restocking", "rehearsal")
DRAFT = AUTHOR.draft(0)


@pytest.fixture(scope="module")
def versions():
    """A lineage of one environment, found without a rehearsal."""
    root = next(found for number in range(1, 6) if (found := find_root(DRAFT, AUTHOR, number)).steps)
    return [step.task for step in harden(DRAFT, AUTHOR, root.steps[0], steps=2).steps]


@pytest.fixture
def rehearsal(jail, shop):
    with Rehearsal(shop, jail) as made:
        yield made


def test_a_ladder_ends_as_in_proper_episodes(versions):
    jail = shared_jail()
    seen = []
    with Rehearsal(DRAFT.environment, jail) as made:
        for task in versions:
            with (
                Case(DRAFT.environment, task, jail, rehearsal=made) as quick,
                Case(DRAFT.environment, task, jail) as case,
            ):
                assert quick.rehearse()
                assert quick.rehearsed_calls == case.gold.n_calls
                assert list(quick._rehearsed(list(task.ablations))) == list(task.ablations)
                there = {skill: verdict.status for skill, verdict in quick.ablated(task.ablations).items()}
                assert there == {skill: verdict.status for skill, verdict in case.ablated(task.ablations).items()}
                seen += there.values()
    assert {"pass", "fail"} <= set(seen)


def test_a_lineage_is_the_same_with_a_rehearsal(versions):
    root = next(found for number in range(1, 6) if (found := find_root(DRAFT, AUTHOR, number)).steps)
    with Rehearsal(DRAFT.environment, shared_jail()) as made:
        again = harden(DRAFT, AUTHOR, root.steps[0], steps=2, rehearsal=made)
    assert [step.task for step in again.steps] == versions
    assert all(step.report.ok for step in again.steps)


NOTHING_LACKS = ({},)


def ends(rehearsal, jail, task, turns=50, solvers=NOTHING_LACKS):
    with Case(rehearsal.spec, task, jail) as case:
        return rehearsal.endings(task, case.image, solvers, turns)


def test_the_whole_solution_and_its_changes(jail, rehearsal, shop, restock_task):
    with Case(shop, restock_task, jail) as case:
        (played,) = rehearsal.endings(restock_task, case.image, [{}], 50)
        case.gold  # noqa: B018 - plays it
        assert played is not None
        ending = played.ending
        assert played.calls == case.gold.n_calls > 0
        assert ending[1] == case.gold.answer
        assert ending[0] == case.env.final_image()
        assert ending[0] != case.image


@pytest.mark.parametrize(
    "body",
    [
        "call('list_items', page='one')",  # a schema refuses it
        "call('list_items', page=True)",
        "call('list_items', extra=1)",
        "call('no_such_tool')",
        "call(7)",
        "[call('list_items', page=1) for _ in range(60)]",  # more turns than there are
        "return {'value': (1, 2)}",  # on the wire it is a list
        "return {'value': 2 ** 60}",
        "return {'value': 0.5}",
    ],
)
def test_what_is_not_plain_is_left_to_proper_episodes(jail, rehearsal, value_task, body):
    task = value_task.model_copy(update={"solution": f"def solve(call):\n    {body}\n    return {{}}\n"})
    assert ends(rehearsal, jail, task) == [None]


def test_a_solver_that_fails_gives_no_answer(jail, rehearsal, value_task):
    task = value_task.model_copy(update={"solution": "def solve(call):\n    return {}['x']\n"})
    (((_, answer), _),) = ends(rehearsal, jail, task)
    assert answer is None
    task = value_task.model_copy(update={"solution": "def solve(call):\n    return [1]\n"})
    (((_, answer), _),) = ends(rehearsal, jail, task)
    assert answer is None


def test_a_solution_that_does_not_compile_is_left_to_proper_episodes(jail, rehearsal, value_task):
    assert ends(rehearsal, jail, value_task.model_copy(update={"solution": "def solve(:"})) == [None]
    assert ends(rehearsal, jail, value_task) != [None]


def test_a_dead_worker_is_replaced(jail, rehearsal, value_task):
    assert ends(rehearsal, jail, value_task) != [None]
    rehearsal._worker.close()
    assert ends(rehearsal, jail, value_task) != [None]
    killer = value_task.model_copy(update={"solution": "import os\ndef solve(call):\n    os._exit(3)\n"})
    assert ends(rehearsal, jail, killer) == [None]
    assert ends(rehearsal, jail, value_task) != [None]


REREADS = """
def solve(call):
    counts = []
    for qty in (8, 8, 3):
        counts.append(call("list_items", page=1)["items"][1]["qty"])
        call("set_qty", item_id=2, qty=qty)
    return {"value": counts[0] * 100 + counts[1] * 10 + call("list_items", page=1)["items"][1]["qty"]}
"""


def test_memory_of_reads_ends_with_a_change(jail, rehearsal, value_task):
    """What was read before a change is read anew after it, by the same solver and by the next."""
    task = value_task.model_copy(update={"solution": REREADS})
    endings = ends(rehearsal, jail, task, solvers=[{}, {}])
    assert [played and played.ending[1] for played in endings] == [{"value": 983}] * 2


def test_an_answer_from_memory_is_a_copy(jail, rehearsal, value_task):
    sly = """
def solve(call):
    call("list_items", page=1)["items"].clear()
    return {"value": len(call("list_items", page=1)["items"])}
"""
    endings = ends(rehearsal, jail, value_task.model_copy(update={"solution": sly}), solvers=[{}, {}])
    assert [played and played.ending[1] for played in endings] == [{"value": 2}] * 2


READS = """
def solve(call):
    return {"value": call("list_items", page=1)["items"][1]["qty"]}
"""


def test_memory_of_reads_is_of_one_image(jail, rehearsal, value_task):
    """Tasks that begin with equal databases share what was read, those that begin otherwise do not."""
    task = value_task.model_copy(update={"solution": READS})
    with Case(rehearsal.spec, task, jail) as case:
        first = case.image
    db = sqlite3.connect(":memory:")
    db.deserialize(first)
    db.execute("UPDATE items SET qty = 77 WHERE id = 2")
    db.commit()
    second = db.serialize()
    (before,) = db.execute("SELECT count(*) FROM items WHERE qty = 77").fetchone()
    assert before == 1
    found = []
    for image in (first, second, first, second):
        ((ending, _),) = rehearsal.endings(task, image, [{}], 50)
        found.append(ending[1]["value"])
    assert found[0] != 77
    assert found == [found[0], 77] * 2


def test_more_solutions_than_are_kept_compiled(jail, rehearsal, value_task):
    bodies = [f"def solve(call):\n    return {{'value': {number}}}\n" for number in range(rehearse.MOST_COMPILED + 3)]
    tasks = [value_task.model_copy(update={"solution": body}) for body in bodies]
    for _ in range(2):
        found = [ends(rehearsal, jail, task)[0] for task in tasks]
        assert [played and played.ending[1] for played in found] == [{"value": number} for number in range(len(tasks))]


HALF_WAY = """
def set_qty(db, item_id, qty):
    db.execute("UPDATE items SET qty = ? WHERE id = ?", (qty, item_id))
    if qty > 5:
        raise Refusal("too_many", "at most five")
    if qty < 0:
        raise RuntimeError("a defect")
    return {"long": "x" * 30_000} if qty == 0 else {}
"""


@pytest.mark.parametrize(("qty", "known"), [(4, True), (9, False), (-1, False), (0, False)])
def test_tools_that_fail_or_refuse_half_way_are_left_to_proper_episodes(jail, shop_factory, task_factory, qty, known):
    shop = shop_factory()
    shop = shop_factory(tools=(shop.tools[0], shop.tools[1].model_copy(update={"source": HALF_WAY})))
    solution = f"""
def solve(call):
    try:
        call("set_qty", item_id=2, qty={qty})
    except CallError:
        pass
    return {{"value": 1}}
"""
    with Rehearsal(shop, jail) as made:
        (ending,) = ends(made, jail, task_factory(shop, solution=solution))
    assert (ending is not None) is known


NESTED = """
TEXT = '''


def value():
    return 1


'''


def value():
    return len(TEXT)


@staticmethod
def worth():
    return value()


class Solver:
    def solve(self, call):
        return {"value": worth()}


def solve(call):
    return Solver().solve(call)
"""


@pytest.mark.parametrize("solution", [NESTED, NESTED.replace("staticmethod", "(lambda function: function)")])
def test_what_looks_like_a_function_within_a_text_is_no_part(rehearsal, jail, shop, task_factory, solution):
    task = task_factory(shop, solution=solution)
    (((_, answer), _),) = ends(rehearsal, jail, task)
    with Case(shop, task, jail) as case:
        assert answer == case.gold.answer == {"value": 31}


@pytest.mark.parametrize("style", ["code", "terse", "verbose"])
def test_a_refusal_is_told_in_the_style_of_the_environment(jail, shop_factory, task_factory, style):
    shop = shop_factory(error_style=style)
    solution = """
def solve(call):
    try:
        call("list_items", page=3)
    except CallError as error:
        return {"value": repr(error.payload)}
"""
    schema = {"type": "object", "properties": {"value": {"type": "string"}}, "additionalProperties": False}
    task = task_factory(shop, solution=solution, answer_schema=schema)
    with Rehearsal(shop, jail) as made, Case(shop, task, jail) as case:
        (((_, answer), _),) = made.endings(task, case.image, [{}], 50)
        assert case.gold.answer == answer


def test_a_bench_judges_as_fresh_workers_do_and_comes_back(jail, shop, value_task):
    bench = Bench(jail)
    with Case(shop, value_task, jail) as case:
        outcomes = [value_task.oracle, value_task.oracle.model_copy(update={"answer": {"value": -1}})]
        fresh = judge(jail, value_task, case.image, outcomes)
        assert judge(jail, value_task, case.image, outcomes, bench) == fresh
        bench._worker.close()
        assert [verdict.status for verdict in judge(jail, value_task, case.image, outcomes, bench)] == ["pass", "fail"]
        bench.close()
        assert judge(jail, value_task, case.image, outcomes, bench) == fresh


def test_a_worn_out_bench_voids_nothing(jail, shop, value_task, broken_task):
    """What its worker did before is no fault of the next outcome; a broken verifier is void on a fresh worker too."""
    bench = Bench(jail)
    with Case(shop, value_task, jail) as case:
        assert [verdict.status for verdict in judge(jail, value_task, case.image, [value_task.oracle], bench)] == [
            "pass"
        ]
        bench._worker._process.kill()  # it is found dead by the next request alone
        assert [verdict.status for verdict in judge(jail, value_task, case.image, [value_task.oracle], bench)] == [
            "pass"
        ]
        assert [verdict.status for verdict in judge(jail, broken_task, case.image, [value_task.oracle], bench)] == [
            "void"
        ]
    bench.close()


values = st.one_of(
    st.integers(-5, 5), st.booleans(), st.none(), st.floats(), st.text("ab1-\n\u0661", max_size=4), st.just("2026-01-02"),
    st.lists(st.integers(0, 3), max_size=3),
)  # fmt: skip
bounds = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["string", "integer", "boolean", "array", "number"]),
        "enum": st.lists(
            st.one_of(st.integers(0, 2), st.booleans(), st.text("ab", max_size=2)), min_size=1, max_size=3
        ),
        "minimum": st.integers(-2, 2),
        "maximum": st.integers(-2, 2),
        "minLength": st.integers(0, 2),
        "maxLength": st.integers(0, 2),
        "pattern": st.sampled_from([r"^\d$", "^a", r"^\d{4}-\d{2}-\d{2}$"]),
        "items": st.sampled_from([{"type": "integer"}, {"type": "string"}, {"enum": [1, 2]}]),
        "multipleOf": st.just(2),
        "description": st.just("words"),
    },
)


@given(
    properties=st.dictionaries(st.sampled_from("xyz"), bounds),
    arguments=st.dictionaries(st.sampled_from("xyz"), values),
)
@settings(max_examples=400, deadline=None)
def test_arguments_that_fit_are_accepted_by_the_full_check(properties, arguments):
    schema = {
        "type": "object",
        "properties": properties,
        "required": ["x"] * ("x" in properties),
        "additionalProperties": False,
    }
    if rehearse.fits(schema, arguments):
        assert SchemaCheck(schema).problem(arguments) is None


def test_arguments_that_tools_take_fit():
    schema = {
        "type": "object",
        "properties": {"page": {"type": "integer", "minimum": 1}, "on": {"type": "string", "pattern": r"^\d{4}$"}},
        "required": ["page"],
        "additionalProperties": False,
    }
    assert rehearse.fits(schema, {"page": 1, "on": "2026"})
    assert not rehearse.fits(schema, {"on": "2026"})
    assert not rehearse.fits({**schema, "additionalProperties": True}, {"page": 1})


words = st.one_of(
    st.integers(-1, 2), st.booleans(), st.none(), st.text("ab", max_size=2), st.just("object"), st.just([]), st.just({})
)
schemas = st.recursive(
    words,
    lambda inner: st.dictionaries(
        st.sampled_from(
            [
                "type",
                "description",
                "properties",
                "required",
                "items",
                "enum",
                "additionalProperties",
                "minimum",
                "minItems",
                "uniqueItems",
                "pattern",
                "x",
            ]
        ),
        st.one_of(
            words,
            inner,
            st.lists(st.text("ab", max_size=1), max_size=2),
            st.dictionaries(st.text("ab", max_size=1), inner),
        ),
        max_size=4,
    ),
    max_leaves=6,
)


@given(schema=schemas)
@settings(max_examples=500, deadline=None)
def test_what_looks_sound_is_a_schema(schema):
    if _plainly_sound(schema):
        jsonschema.Draft202012Validator.check_schema(schema)
        assert malformed(json.loads(json.dumps(schema))) is None
