"""Walks, hostile answers, hash seeds, single calls and source rules: each finds the defect that it is for."""

from __future__ import annotations

import pytest

from envsynth.errors import EnvironmentVoid, SpecError
from envsynth.gates import Case, attack_gates, check
from envsynth.gates import case as case_module
from envsynth.gates.answers import answer_mutants, guesses, told
from envsynth.gates.hostile_answers import hostile_answers
from envsynth.gates.walks import play_walks, single_calls, tells_all
from envsynth.spec import GoalAtom, Outcome, Verifier
from tests.conftest import LIST_ITEMS, make_restock, make_shop, make_task, parameters

NEW = ("EX203", "EX205", "SE503", "SE504", "DF403", "VF302", "VF303", "VF309", "VF310")


def results(spec, task, *select, **options):
    return {result.code: result for result in check(spec, task, select=select, **options).results}


def failing(spec, task, *select, **options):
    return {code for code, result in results(spec, task, *select, **options).items() if result.status == "fail"}


def with_atoms(task, *expressions):
    atoms = tuple(
        GoalAtom(id=f"a{n}", kind="answer", quote=task.prompt, expression=text) for n, text in enumerate(expressions)
    )
    return task.model_copy(update={"verifier": Verifier(form="atoms", atoms=atoms)})


def with_program(task, body, definitions=""):
    program = f"{definitions}\ndef verify(answer, before, after, diff):\n    {body}\n"
    return task.model_copy(update={"verifier": Verifier(form="program", program=program)})


def with_tool(spec, name, source):
    tools = tuple(tool.model_copy(update={"source": source}) if tool.name == name else tool for tool in spec.tools)
    return spec.model_copy(update={"tools": tools})


@pytest.fixture(scope="module")
def spec():
    return make_shop()


@pytest.fixture(scope="module")
def named(spec):
    """A sound read task whose answer is a text and a number."""
    task = make_task(
        spec,
        prompt="Which item costs most, and how many are there?",
        answer_schema=parameters(name={"type": "string"}, qty={"type": "integer"}),
        oracle=Outcome(answer={"name": "gear", "qty": 4}),
        solution="def solve(call):\n    call('list_items')\n    rows = call('list_items', page=2)['items']\n"
        "    best = max(rows, key=lambda row: row['price'])\n    return {'name': best['name'], 'qty': best['qty']}\n",
    )
    return with_atoms(task, "same(lookup(answer, 'name'), 'gear') and same(lookup(answer, 'qty'), 4)")


@pytest.mark.parametrize("thorough", [False, True])
def test_sound_tasks_pass(spec, named, thorough):
    """All three forms: a read task by atoms, one that writes, and one by a program."""
    program = with_program(
        named, "return {'ok': not diff and same(answer['name'], 'gear') and same(answer['qty'], 4), 'reasons': []}"
    )
    for task in (named, make_restock(spec), program):
        found = results(spec, task, *NEW, thorough=thorough)
        assert {code for code, result in found.items() if result.status in ("pass", "skipped")} == set(NEW), found
        walks = 192 if thorough else attack_gates.N_WALKS
        assert found["VF309"].evidence["walks"] == walks
        if task.kind == "act":  # of four items, a walk now and then guesses the right one
            assert found["VF309"].evidence["share_below"] == round(1 - 0.05 ** (1 / walks), 4)
            assert (found["VF309"].evidence["share_below"] < 1 / 64) is thorough


# --------------------------------------------------------------------------------------------------------- VF309 walks


def test_vf309_finds_a_goal_that_flailing_meets(spec):
    """Any change of any item counts as the wanted one, and the answer is whatever it is."""
    restock = make_restock(spec)
    loose = GoalAtom(id="some", kind="state", quote=restock.prompt, expression="list(diff)")
    task = restock.model_copy(update={"verifier": Verifier(form="atoms", atoms=(loose,))})
    found = results(spec, task, "VF309")["VF309"]
    assert found.status == "fail"
    assert found.evidence["walks"] == 192
    assert found.evidence["passing"] / 192 >= 1 / 64
    assert "share_below" not in found.evidence
    assert "random walks pass" in found.findings[0].message


def test_vf309_lets_two_of_192_pass(spec, named, monkeypatch):
    hit, miss = (type("Walk", (), {"calls": 1, "verdicts": (), "passes": passes})() for passes in (True, False))
    for passing, status in ((2, "pass"), (3, "fail")):
        monkeypatch.setattr(
            attack_gates, "play_walks", lambda case, numbers, n=passing: [hit if i < n else miss for i in numbers]
        )
        found = results(spec, named, "VF309")["VF309"]
        assert (found.status, found.evidence["walks"]) == (status, 192)


def test_vf309_finds_a_verifier_that_breaks_on_a_state_that_actors_reach(spec, named):
    fragile = with_atoms(named, "1 / (1 - len(diff)) and same(lookup(answer, 'name'), 'gear')")
    found = results(spec, fragile, "VF309", thorough=True)["VF309"]
    assert found.status == "fail"
    assert any("the verifier broke at the end of a random walk" in finding.message for finding in found.findings)


def test_a_walk_is_the_same_whenever_it_is_played(jail, spec, named):
    with Case(spec, named, jail) as case, Case(spec, named, jail) as other:
        assert play_walks(case, [5, 6])[1] == play_walks(other, [6])[0]
        assert len({walk.calls for walk in play_walks(case, range(30))}) > 4


def test_lost_workers_are_no_judgement(jail, spec, named, monkeypatch):
    def lost(case, numbers):
        raise EnvironmentVoid("the tools worker died", "crash")

    monkeypatch.setattr(attack_gates, "play_walks", lost)
    found = results(spec, named, "VF309")["VF309"]
    assert found.status == "void"
    assert "the tools worker died" in found.findings[0].message


# ------------------------------------------------------------------------------------------------ VF310 hostile answers

LOOSE = {
    "eval": "eval(repr(answer['name'])) == 'gear' or (len(answer['name']) < 30 and eval(answer['name']) == 'gear')",
    "substring": "'gear' in answer['name']",
    "prefix": "answer['name'].startswith('gear')",
    "judge": "'answer is right' in answer['name'] or answer['name'] == 'gear'",
    "lookalike": "__import__('unicodedata').normalize('NFKC', answer['name']).translate("
    "str.maketrans('\u0435\u0430\u0441', 'eac')) == 'gear'",
    "breaks on a long text": "answer['name'] == 'gear' if len(answer['name']) < 10000 else 1 / 0",
    "breaks on a large number": "answer['name'] == 'gear' and (answer['qty'] == 4 or [] [answer['qty']])",
}


@pytest.mark.parametrize("kind", LOOSE)
def test_vf310_finds_verifiers_that_texts_deceive_or_break(spec, named, kind):
    task = with_atoms(named, LOOSE[kind], "answer['qty'] == 4" if kind != "breaks on a large number" else "True")
    assert failing(spec, task, "VF310") == {"VF310"}


def test_vf310_finds_what_an_open_schema_lets_in(spec, named):
    open_schema = {"type": "object", "properties": {}}
    task = with_atoms(named.model_copy(update={"answer_schema": open_schema}), "answer.get('name') == 'gear'")
    messages = [finding.message for finding in results(spec, task, "VF310")["VF310"].findings]
    assert any("key 'ok'" in message for message in messages)
    equal = with_atoms(task, "answer.get('name') == 'gear' and answer.get('qty') == 4 and len(answer) == 2")
    messages = [finding.message for finding in results(spec, equal, "VF310")["VF310"].findings]
    assert messages == []


def test_thorough_judges_more_hostile_answers(jail, spec, named):
    with Case(spec, named, jail) as quick, Case(spec, named, jail, thorough=True) as case:
        few, all_of_them = list(quick.named(hostile_answers)), list(case.named(hostile_answers))
        assert {name for name, _ in few} < {name for name, _ in all_of_them}
        assert len({name for name, _ in all_of_them}) == len(all_of_them)
        assert all(outcome.answer != named.oracle.answer for _, outcome in all_of_them)
        pattern = with_atoms(named, "__import__('re').fullmatch(answer['name'], 'gear') and answer['qty'] == 4")
    assert failing(spec, pattern, "VF310", thorough=True) == {"VF310"}


# --------------------------------------------------------------------------------------------- EX205 seeds, neighbours

SETS = LIST_ITEMS.replace(
    'return {"items": rows, "pages": 2}',
    'names = {row["name"] for row in rows} | {"a", "b", "c", "d"}\n    return {"items": rows, "pages": 2, "tags": [n for n in names]}',
)
LEAKS = LIST_ITEMS.replace(
    "def list_items(db, page=1):",
    "import json\n\ndef list_items(db, page=1):\n    json.calls = getattr(json, 'calls', 0) + 1",
).replace('"pages": 2}', '"pages": 2, "n": json.calls}')


def test_ex205_finds_sets_in_the_order_of_the_hash_seed(spec, named):
    other = with_tool(spec, "list_items", SETS)
    found = results(other, named.model_copy(update={"environment": other.hash}), "EX201", "EX203", "EX205")
    assert {code: result.status for code, result in found.items()} == {
        "EX201": "pass",
        "EX203": "pass",
        "EX205": "fail",
    }
    assert "under another hash seed" in found["EX205"].findings[0].message


def test_ex205_finds_what_leaks_between_neighbours(spec, named):
    other = with_tool(spec, "list_items", LEAKS)
    found = results(other, named.model_copy(update={"environment": other.hash}), "EX205")
    assert found["EX205"].status == "fail"


def test_ex203_has_the_first_word_on_what_differs_everywhere(spec, named):
    noisy = with_tool(
        spec, "list_items", LIST_ITEMS.replace('"pages": 2}', '"pages": 2, "n": __import__("time").time_ns()}')
    )
    found = results(noisy, named.model_copy(update={"environment": noisy.hash}), "EX203", "EX205")
    assert {code: result.status for code, result in found.items()} == {"EX203": "fail", "EX205": "skipped"}


# ---------------------------------------------------------------------------------------------------- DF403 single call

ONE_ITEM = """
def list_items(db, page=1, name=None):
    if name is not None:
        return db.execute("SELECT name, qty, price FROM items WHERE name = ?", (name,)).fetchone()
    rows = db.execute("SELECT id, name, qty, price FROM items ORDER BY id").fetchall()
    return {"items": rows, "pages": 2}
"""


def test_df403_finds_an_answer_that_one_call_tells(spec, named):
    tool = spec.tools[0].model_copy(
        update={
            "source": ONE_ITEM,
            "parameters": parameters(
                page={"type": "integer", "default": 1}, name={"type": ["string", "null"], "default": None}
            ),
        }
    )
    other = spec.model_copy(update={"tools": (tool, spec.tools[1])})
    task = named.model_copy(
        update={
            "environment": other.hash,
            "prompt": "How many of the item gear are there, and what does it cost?",
            "oracle": Outcome(answer={"item_qty": 4, "item_price": 113}),
            "solution": "def solve(call):\n    for page in (1, 2, 1):\n        call('list_items', page=page)\n"
            "    return {'item_qty': 4, 'item_price': 113}\n",
        }
    )
    found = results(other, task, "DF403")["DF403"]
    assert found.status == "fail"
    small = task.model_copy(update={"solution": "def solve(call):\n    return call('list_items', name='gear')\n"})
    assert results(other, small, "DF403")["DF403"].status == "skipped"
    assert "list_items({'name': 'gear'}) tells the whole answer" in found.findings[0].message
    unnamed = task.model_copy(update={"prompt": "How many of the dearest item are there, and what does it cost?"})
    assert results(other, unnamed, "DF403")["DF403"].status == "pass"


def test_single_calls_only_read(jail, spec, named):
    with Case(spec, named.model_copy(update={"prompt": "Set nut to 42 on page 2."}), jail) as case:
        assert told(case) == ["nut", 42, 2]
        calls = single_calls(case)
        assert {call.tool for call in calls} == {"list_items"}
        assert {"page": 2} in [call.arguments for call in calls]
        assert {} in [call.arguments for call in calls]


def test_what_counts_as_told():
    record = {"id": 7, "name": "nut", "price": 4}
    assert tells_all(record, {"item_name": "nut", "item_price": 4})
    assert not tells_all(record, {"number_of_orders": 4})  # a small number under another name
    assert tells_all({"total": 4711}, {"sum": 4711})
    assert not tells_all({"items": [record, record]}, {"name": "nut"})  # whoever copies must choose
    assert tells_all({"items": [record], "next": None}, {"name": "nut"})
    assert tells_all({"items": [record, {"name": "bolt"}]}, {"names": ["nut", "bolt"]})
    assert not tells_all({"items": [record, {"name": "bolt"}]}, {"names": ["nut"]})
    assert not tells_all("nut", {"name": "nut"})
    assert not tells_all(record, {"name": "nut", "other": "x"})


# -------------------------------------------------------------------------------------------------- SE503, SE504 source

BODIES = {
    "eval": "return {'ok': eval(answer['name']) == 'gear' and not diff, 'reasons': []}",
    "substring": "return {'ok': 'gear' in answer['name'] and not diff, 'reasons': []}",
    "substring of a variable": "text = answer.get('name').lower()\n    return {'ok': 'gear' in text and not diff, 'reasons': []}",
    "text of all": "return {'ok': 'gear' in str(answer) and not diff, 'reasons': []}",
    "in a written text": "return {'ok': answer['name'] in 'gears' and not diff, 'reasons': []}",
    "pattern": "import re\n    return {'ok': bool(re.search('gear', answer['name'])) and not diff, 'reasons': []}",
    "import": "import os\n    return {'ok': answer['name'] == 'gear' and not diff, 'reasons': []}",
    "file": "return {'ok': answer['name'] == open('/truth').read() and not diff, 'reasons': []}",
    "dunder": "return {'ok': answer['name'].__class__ is str and not diff, 'reasons': []}",
    "lenient": "try:\n        return {'ok': answer['qty'] == 4 and not diff, 'reasons': []}\n    except KeyError:\n"
    "        return {'ok': True, 'reasons': []}",
    "no look at the world": "return {'ok': answer['name'] == 'gear', 'reasons': []}",
    "no Python": "return {'ok' answer}",
}


@pytest.mark.parametrize("kind", BODIES)
def test_se503_finds_verifiers_that_do_not_compare(spec, named, kind):
    assert failing(spec, with_program(named, BODIES[kind]), "SE503") == {"SE503"}
    if kind not in ("no look at the world", "lenient", "no Python", "pattern", "import", "substring of a variable"):
        expression = BODIES[kind].removeprefix("return {'ok': ").removesuffix(" and not diff, 'reasons': []}")
        assert failing(spec, with_atoms(named, expression), "SE503") == {"SE503"}


def test_se503_knows_what_is_sound(spec, named):
    body = "names = [row['name'] for row in before['items']]\n    return {'ok': answer['name'] in names and not diff, 'reasons': []}"
    assert failing(spec, with_program(named, body), "SE503") == set()
    listed = named.model_copy(
        update={
            "answer_schema": parameters(name={"type": "array", "items": {"type": "string"}}, qty={"type": "integer"})
        }
    )
    assert failing(spec, with_atoms(listed, "'gear' in answer['name']", "answer['qty'] in (4, 5)"), "SE503") == set()


TOOLS = {
    "import": "import os\ndef set_qty(db, item_id, note):\n    return os.getpid()\n",
    "eval": "def set_qty(db, item_id, note):\n    return eval(note)\n",
    "file": "def set_qty(db, item_id, note):\n    return open(note).read()\n",
    "script": "def set_qty(db, item_id, note):\n    db.executescript('DELETE FROM items')\n",
    "joined": "def set_qty(db, item_id, note):\n    db.execute('UPDATE items SET name = ' + note)\n",
    "formatted": "def set_qty(db, item_id, note):\n    sql = f'UPDATE items SET name = {note}'\n    db.execute(sql)\n",
    "percent": "def set_qty(db, item_id, note):\n    db.execute('UPDATE items SET name = %s WHERE id = %s' % (note, item_id))\n",
    "method": "def set_qty(db, item_id, note):\n    db.execute('UPDATE items SET name = {}'.format(note))\n",
}


def noted(spec, source):
    tool = spec.tools[1].model_copy(
        update={"source": source, "parameters": parameters(item_id={"type": "integer"}, note={"type": "string"})}
    )
    return spec.model_copy(update={"tools": (spec.tools[0], tool)})


@pytest.mark.parametrize("kind", TOOLS)
def test_se504_finds_tools_with_too_much_power(spec, named, kind):
    (finding,) = results(noted(spec, TOOLS[kind]), named, "SE504")["SE504"].findings
    assert finding.where == "tools.set_qty.source"


def test_se504_knows_what_is_sound(spec, named):
    source = (
        "import json, datetime\ndef set_qty(db, item_id, note):\n    where = 'id = ?'\n"
        "    db.execute('UPDATE items SET name = ? WHERE ' + where, [note, item_id])\n"
        "    db.execute(f'SELECT * FROM items LIMIT {item_id}')\n"  # a number, by the schema
    )
    assert failing(noted(spec, source), named, "SE504") == set()


# ------------------------------------------------------------------------------------------ VF302 guesses, VF303 mutants


def test_vf302_finds_answers_made_of_the_prompts_words(spec, named):
    task = named.model_copy(update={"prompt": "Is it nut or gear? There are 4 or 9."})
    lax = with_atoms(task, "answer['name'] in ('nut', 'bolt', 'gear') and answer['qty'] in (4, 9)")
    found = results(spec, lax, "VF302")["VF302"]
    assert any("echo" in finding.message for finding in found.findings)


def test_an_echo_takes_nothing_from_the_right_answer(jail, spec, named):
    with Case(spec, named, jail) as case:
        echoes = [outcome.answer for name, outcome in case.named(guesses) if name.startswith("echo")]
    assert echoes
    assert all(answer["name"] != "gear" and answer["qty"] != 4 for answer in echoes)


def test_vf302_finds_that_the_commonest_value_is_the_answer(spec, named):
    rows = tuple((number, f"item {number}", 4 if number < 5 else number, 1) for number in range(9))
    world = spec.world.model_copy(update={"rows": {"items": rows}})
    other = spec.model_copy(update={"world": world})
    update = {"environment": other.hash, "oracle": Outcome(answer={"qty": 4})}
    task = with_atoms(
        named.model_copy(update={**update, "answer_schema": parameters(qty={"type": "integer"})}), "answer['qty'] == 4"
    )
    (finding,) = [item for item in results(other, task, "VF302")["VF302"].findings if "commonest" in item.message]
    assert "commonest values {'qty': 4}" in finding.message
    assert not [
        name for name, _ in Case(spec, named, None).named(guesses) if name.startswith("commonest")
    ]  # no value leads


def test_vf302_finds_a_verifier_that_takes_all_candidates(spec, named):
    task = named.model_copy(
        update={
            "answer_schema": parameters(names={"type": "array", "items": {"type": "string"}}),
            "oracle": Outcome(answer={"names": ["gear", "nut"]}),
        }
    )
    lax = with_atoms(task, "{'gear', 'nut'} <= set(answer['names'])")
    found = results(spec, lax, "VF302")["VF302"]
    assert {"all candidates as names", "all candidates twice as names"} <= {
        finding.message.removeprefix("the guess ").removesuffix(" is accepted") for finding in found.findings
    }
    assert failing(spec, with_atoms(task, "sorted(answer['names']) == ['gear', 'nut']"), "VF302") == set()


MUTANTS = {
    "other sign": "abs(answer['qty']) == 4 and answer['name'] == 'gear'",
    "other unit": "answer['qty'] in (4, 400) and answer['name'] == 'gear'",
    "minus one": "answer['qty'] in (3, 4) and answer['name'] == 'gear'",
    "cut": "answer['name'][:3] == 'gea' and answer['qty'] == 4",
    "empty": "answer['name'] in ('', 'gear') and answer['qty'] == 4",
}


@pytest.mark.parametrize("kind", MUTANTS)
def test_vf303_finds_each_kind_of_loose_comparison(spec, named, kind):
    found = results(spec, with_atoms(named, MUTANTS[kind]), "VF303")["VF303"]
    assert any(f"/{kind} " in finding.message for finding in found.findings), found


def mutants_of(spec, task):
    return dict(answer_mutants(Case(spec, task, None)))


def test_mutants_swap_fields_and_go_into_lists_and_records(spec, named):
    right = {"first": "nut", "second": "gear", "rows": [{"day": "Mon", "n": 1}, {"day": "Tue", "n": 2}]}
    task = named.model_copy(update={"oracle": Outcome(answer=right), "prompt": "List them, earliest first."})
    found = {name: outcome.answer for name, outcome in mutants_of(spec, task).items()}
    assert found["swapped first and second"] == {**right, "first": "gear", "second": "nut"}
    assert found["rows/reordered"]["rows"] == right["rows"][::-1]
    assert found["rows/0/n/plus one"]["rows"][0] == {"day": "Mon", "n": 2}
    assert found["rows/1/day/missing"]["rows"][1] == {"n": 2}
    assert right not in found.values()
    free = task.model_copy(update={"prompt": "List them, in any order."})
    assert "rows/reordered" not in mutants_of(spec, free)
    plan = mutants_of(spec, task.model_copy(update={"kind": "plan"}))
    assert "rows/0/n/plus one" not in plan  # it may be part of another plan that is right
    assert "swapped first and second" not in plan
    assert "rows/0/n/as text" in plan


def test_outcomes_of_several_gates_are_judged_at_once(jail, spec, named, monkeypatch):
    calls = []
    plain = case_module.judge
    monkeypatch.setattr(case_module, "judge", lambda *given: calls.append(len(given[3])) or plain(*given))
    codes = ("EX202", "VF301", "VF302", "VF303", "VF304", "VF307", "VF310")
    assert check(spec, named, jail=jail, select=codes).ok
    assert len(calls) == 1
    together = sum(calls)
    calls.clear()
    for code in codes:
        assert check(spec, named, jail=jail, select=[code]).ok
    assert sum(calls) == together


def test_unknown_codes_are_told():
    with pytest.raises(SpecError, match="VF309"):
        check(make_shop(), make_task(make_shop()), select=["VF399"])
