"""Rows that task code sees are copies made when it looks: nothing but the time that it takes tells them from copies of all."""

from __future__ import annotations

import copy
import gc
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsynth.verifiers import kernel
from envsynth.verifiers.kernel import judge_one

ROWS = {"site": [{"id": 1, "n": True}, {"id": 2, "n": 1.0}], "empty": [], "log": [{"text": "x"}, {"text": "x"}]}
OTHER = {"site": [{"id": 1, "n": True}], "empty": [], "log": []}

LOOKS = [
    "db['site'][1]['n']",
    "db['none']",
    "db.get('log')",
    "(db.get('none'), db.get('none', 5))",
    "list(db)",
    "len(db)",
    "bool(db)",
    "'site' in db, 'none' in db",
    "list(db.items())",
    "list(db.values())",
    "list(db.keys())",
    "[len(found) for found in db.values()]",
    "dict(db)",
    "{**db}",
    "list(reversed(db))",
    "repr(db)",
    "str(db)",
    "f'{db}'",
    "'%(log)s' % db",
    "'{log}'.format_map(db)",
    "json.dumps(db)",
    "json.dumps({'all': [db]}, sort_keys=True)",
    "json.dumps(db, indent=1)",
    "type(db.copy()), db.copy()",
    "type(copy.copy(db)), copy.copy(db)",
    "type(copy.deepcopy(db)), copy.deepcopy(db)",
    "db == after, db != after, after == db",
    "db == dict(after), dict(after) == db, dict(db) == after",
    "db == db, db == dict(db), db == 5",
    "db | after, after | db",
    "{'first': 1} | db, db | {'last': 1}",
    "isinstance(db, dict)",
    "sorted(db)",
    "[*zip(db, after)]",
    "(lambda **tables: tables)(**db)",
]
CHANGES = [
    "db['site'].clear()",
    "db['site'][0].update(n=7)",
    "db['log'].append({'text': 'y'})",
    "db.update(log=[])",
    "db.update(after)",
    "db.__setitem__('log', 5)",
    "db.__setitem__('more', [])",
    "db.__delitem__('empty')",
    "db.__ior__({'log': []})",
    "db.pop('site')",
    "db.pop('none', 5)",
    "db.popitem()",
    "db.setdefault('site', [])",
    "db.setdefault('more', [])",
    "db.clear()",
    "after.clear()",
    "after['site'].clear()",
]


def played(make, lines):
    """What lines of code give on rows that `make` copied, and what the rows are then."""
    space = {"db": make(ROWS), "after": make(OTHER), "json": json, "copy": copy}
    found = []
    for line in lines:
        try:
            found.append(repr(eval(line, space)))
        except Exception as error:  # noqa: BLE001 - whatever it is, it must be the same
            found.append(repr(error))
    return found, {table: space["db"][table] for table in space["db"]}


@pytest.mark.parametrize("line", LOOKS + CHANGES)
def test_each_look_and_change_is_that_of_a_dictionary(line):
    assert played(kernel._Tables, [line]) == played(kernel._copied, [line])


@given(st.lists(st.sampled_from(LOOKS + CHANGES), max_size=6))
def test_looks_and_changes_in_a_row_are_those_of_a_dictionary(lines):
    kept = json.dumps([ROWS, OTHER])
    assert played(kernel._Tables, lines) == played(kernel._copied, lines)
    assert json.dumps([ROWS, OTHER]) == kept


def test_every_method_of_dictionaries_is_played():
    """A method that a later Python adds needs a look: what reads values must not read what nobody has looked at."""
    known = {
        *(
            "__class_getitem__",
            "__getattribute__",
            "__init__",
            "__new__",
            "__sizeof__",
            "__hash__",
            "__doc__",
            "fromkeys",
        ),
        *("__ge__", "__gt__", "__le__", "__lt__"),
        *("__contains__", "__delitem__", "__len__", "__reversed__", "__setitem__", "clear", "keys"),
    }
    assert set(vars(dict)) - known <= set(vars(kernel._Tables))


def judged(definitions, expression, initial=None):
    task = {"form": "atoms", "definitions": definitions, "program": ""}
    task["atoms"] = [{"id": "a", "kind": "answer", "expression": expression}]
    return judge_one(task, {}, ROWS, OTHER, [], initial)


def test_tables_may_be_an_argument_of_what_is_worked_out_once():
    count = "@once\ndef count(tables, extra):\n    return sum(map(len, tables.values())) + extra\n"
    assert judged(count, "count(db, 1) == 5 and count(after, 0) == 1")["checks"][0][1]


@pytest.mark.parametrize(
    ("body", "is_fine"),
    [
        ("return db['site'][0]['id']", True),
        ("return list(db.items())[0][0]", True),
        ("db['site'][0]['n'] = 1", False),  # equal to what was there, but of another type
        ("db['site'].reverse()", False),
        ("db.pop('empty')", False),
        ("db['empty'] = db.pop('empty')", False),
        ("db['more'] = []", False),
        ("db.clear()", False),
        ("global db; db = {}", False),
        ("global db; db = dict(db)", True),
    ],
)
def test_what_is_worked_out_once_may_look_and_not_touch(body, is_fine):
    initial = kernel.Initial(f"@once\ndef seen():\n    {body}\n", ROWS)
    told = judged(f"@once\ndef seen():\n    {body}\n", "[seen()]", initial)["broken"]
    assert (told is None) if is_fine else (told is not None and "modified the initial rows" in told)


@pytest.mark.parametrize("form", ["atoms", "program"])
def test_what_an_outcome_saw_is_freed_at_its_end(form):
    source = (
        "import weakref\nclass Seen: pass\nseen = Seen()\nlookup.kept = weakref.ref(seen)\n"
        "def verify(*_):\n    return {'ok': seen is not None}\n"
    )
    atoms = [{"id": "a", "kind": "answer", "expression": "verify()['ok']"}]
    gc.disable()
    try:
        found = judge_one({"form": form, "definitions": source, "atoms": atoms, "program": source}, {}, ROWS, OTHER, [])
        assert found["broken"] is None
        assert kernel.lookup.kept() is None
    finally:
        gc.enable()
        del kernel.lookup.kept
