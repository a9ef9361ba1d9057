from __future__ import annotations

import copy
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsynth.verifiers import kernel, row_diff
from envsynth.verifiers.kernel import BrokenVerifierError, apply_changes, judge_one, lookup, same

KEYS = {"items": ["id"], "log": []}
BEFORE = {
    "items": [{"id": 1, "name": "a", "n": 3}, {"id": 2, "name": "b", "n": 0}],
    "log": [{"text": "x"}, {"text": "x"}],
}
COLUMNS = {
    "items": {"id": ("INTEGER", True), "name": ("TEXT", True), "n": ("INTEGER", False)},
    "log": {"text": ("TEXT", True)},
}


def changed(*changes):
    return apply_changes(BEFORE, KEYS, COLUMNS, [dict(change) for change in changes])


def judged(after=None, answer=None, definitions="", **atoms):
    """Judge atoms given as name=(kind, expression)."""
    after = BEFORE if after is None else after
    listed = [{"id": name, "kind": kind, "expression": text} for name, (kind, text) in atoms.items()]
    task = {"form": "atoms", "definitions": definitions, "atoms": listed, "program": ""}
    return judge_one(task, answer or {}, BEFORE, after, row_diff(BEFORE, after, KEYS))


def oks(result):
    assert result["broken"] is None, result["broken"]
    return {name: ok for name, ok, _ in result["checks"]}


INSERT = {"op": "insert", "table": "items", "row": {"name": "c"}}
UPDATE = {"op": "update", "table": "items", "row": {"id": 1, "n": 2}}
DELETE = {"op": "delete", "table": "items", "row": {"id": 2}}


def test_row_diff_lists_what_changed():
    diff = row_diff(BEFORE, changed(UPDATE, INSERT, DELETE), KEYS)
    assert diff == [
        {
            "op": "update",
            "table": "items",
            "old": {"id": 1, "name": "a", "n": 3},
            "new": {"id": 1, "name": "a", "n": 2},
            "changed": ["n"],
        },
        {"op": "delete", "table": "items", "old": BEFORE["items"][1], "new": None, "changed": []},
        {
            "op": "insert",
            "table": "items",
            "old": None,
            "new": {"id": 3, "name": "c", "n": None},
            "changed": [],
        },
    ]


def test_row_diff_without_key_counts_equal_rows():
    after = {**BEFORE, "log": [{"text": "x"}, {"text": "y"}]}
    assert [(e["op"], (e["old"] or e["new"])["text"]) for e in row_diff(BEFORE, after, KEYS)] == [
        ("delete", "x"),
        ("insert", "y"),
    ]


@pytest.mark.parametrize(("old", "new"), [(1, 1.0), (1, True), (0, None), ("1", 1)])
def test_row_diff_tells_types_apart(old, new):
    before, after = {"t": [{"id": 1, "v": old}]}, {"t": [{"id": 1, "v": new}]}
    assert [e["changed"] for e in row_diff(before, after, {"t": ["id"]})] == [["v"]]


CELLS = st.one_of(st.none(), st.integers(-3, 3), st.text("ab", max_size=2), st.floats(-1, 1))
ROWS = st.dictionaries(st.integers(0, 5), CELLS, max_size=6).map(
    lambda found: [{"id": key, "v": value} for key, value in found.items()]
)


@given(ROWS, ROWS)
def test_row_diff_applied_to_before_gives_after(before, after):
    rest = {row["id"]: row for row in before}
    for entry in row_diff({"t": before}, {"t": after}, {"t": ["id"]}):
        if entry["new"] is None:
            del rest[entry["old"]["id"]]
        else:
            rest[entry["new"]["id"]] = entry["new"]
    assert rest.keys() == {row["id"] for row in after}
    assert all(same(rest[row["id"]]["v"], row["v"]) for row in after)


@given(ROWS)
def test_row_diff_of_a_reordered_table_is_empty(rows):
    assert row_diff({"t": rows}, {"t": rows[::-1]}, {"t": ["id"]}) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"op": "insert", "table": "gold", "row": {}}, "unknown table 'gold'"),
        ({"op": "insert", "table": "items", "row": {"nama": 1}}, "unknown columns"),
        ({"op": "insert", "table": "items", "row": {"id": 9}}, "lacks column 'name'"),
        ({"op": "insert", "table": "items", "row": {"id": 1, "name": "z"}}, "repeats a primary key"),
        ({"op": "update", "table": "items", "row": {"id": 7, "n": 1}}, "no row"),
        ({"op": "delete", "table": "items", "row": {"id": "1"}}, "no row"),
    ],
)
def test_impossible_outcome_is_broken_not_wrong(change, message):
    with pytest.raises(BrokenVerifierError, match=message):
        changed(change)


def test_text_key_is_filled_with_a_fresh_code():
    rows = {"t": [{"code": "new-2", "v": 1}]}
    columns = {"t": {"code": ("TEXT", True), "v": ("INTEGER", True)}}
    after = apply_changes(rows, {"t": ["code"]}, columns, [{"op": "insert", "table": "t", "row": {"v": 5}}])
    assert after["t"][1]["code"] == "new-3"


def test_apply_changes_leaves_the_initial_rows_alone():
    kept = copy.deepcopy(BEFORE)
    changed(UPDATE, INSERT, DELETE)
    assert kept == BEFORE


def test_answer_atom_decides():
    assert oks(judged(answer={"n": 3}, a=("answer", "answer['n'] == db['items'][0]['n']"))) == {
        "a": True,
        "frame": True,
    }
    assert not oks(judged(answer={"n": 4}, a=("answer", "answer['n'] == db['items'][0]['n']")))["a"]


UPDATED = "[e for e in diff if e['op'] == 'update']"


def test_state_atom_claims_and_frame_watches_the_rest():
    assert oks(judged(changed(UPDATE), s=("state", UPDATED))) == {"s": True, "frame": True}
    assert oks(judged(s=("state", UPDATED))) == {"s": False, "frame": True}
    result = judged(changed(UPDATE, INSERT), s=("state", UPDATED))
    assert oks(result) == {"s": True, "frame": False}
    assert "insert items (1)" in result["checks"][-1][2]


def test_an_entry_is_claimed_once():
    both = {"first": ("state", UPDATED), "second": ("state", UPDATED)}
    assert oks(judged(changed(UPDATE), **both)) == {"first": True, "second": False, "frame": True}


def test_a_kept_reference_to_a_claimed_entry_does_not_claim_again():
    result = judged(
        changed(UPDATE),
        definitions="kept = list(diff)",
        first=("state", "kept"),
        second=("state", "kept"),
    )
    assert oks(result) == {"first": True, "second": False, "frame": True}
    assert "claimed already" in result["checks"][1][2]


def test_equal_demands_need_two_changes():
    one = "[e for e in diff if e['op'] == 'insert'][:1]"
    atoms = {"first": ("state", one), "second": ("state", one)}
    assert oks(judged(changed(INSERT, INSERT), **atoms)) == {"first": True, "second": True, "frame": True}
    assert not oks(judged(changed(INSERT), **atoms))["second"]


def test_an_equal_copy_of_an_entry_claims_it():
    atoms = {"s": ("state", "[dict(e) for e in diff]")}
    assert oks(judged(changed(UPDATE), **atoms)) == {"s": True, "frame": True}


@pytest.mark.parametrize(
    "vandalism",
    ["diff.clear()", "diff[0]['op'] = 'nothing'", "db.clear()", "after['items'].clear()", "answer.clear()"],
)
def test_verifier_that_modifies_its_inputs_cannot_hide_a_change(vandalism):
    result = judged(changed(UPDATE), answer={"n": 1}, definitions=vandalism, a=("answer", "True"))
    assert oks(result) == {"a": True, "frame": False}
    assert "update items" in result["checks"][-1][2]


@pytest.mark.parametrize(
    ("atom", "told"),
    [
        (("answer", "answer['missing']"), "KeyError"),
        (("answer", "1 +"), "SyntaxError"),
        (("state", "True"), "returned bool"),
        (("state", "[{'op': 'update'}]"), "no diff entry"),
        (("state", "undefined_name"), "NameError"),
    ],
)
def test_atom_that_raises_or_lies_is_broken(atom, told):
    result = judged(changed(UPDATE), a=atom)
    assert result["checks"] == []
    assert told in result["broken"]


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("x = 1", "no function"),
        ("def verify(answer, before, after, diff):\n    return True", "must return"),
        ("def verify(answer, before, after, diff):\n    return {'ok': 1}", "must return"),
        ("def verify(answer, before, after, diff):\n    return {'ok': True, 'reasons': 'x'}", "list"),
        ("def verify(answer, before, after, diff):\n    raise ValueError('no')", "line 2"),
        ("def verify(:", "SyntaxError"),
    ],
)
def test_broken_program_has_no_verdict(program, told):
    task = {"form": "program", "definitions": "", "atoms": [], "program": program}
    result = judge_one(task, {}, BEFORE, BEFORE, [])
    assert result["checks"] == []
    assert told in result["broken"]


def test_program_gets_rows_and_diff():
    program = (
        "def verify(answer, before, after, diff):\n"
        "    ok = len(before['items']) + 1 == len(after['items']) and diff[0]['op'] == 'insert'\n"
        "    return {'ok': ok and answer['n'] == 1, 'reasons': ['not so']}\n"
    )
    task = {"form": "program", "definitions": "", "atoms": [], "program": program}
    after = changed(INSERT)
    diff = row_diff(BEFORE, after, KEYS)
    assert judge_one(task, {"n": 1}, BEFORE, after, diff)["checks"] == [["program", True, ""]]
    assert judge_one(task, {"n": 2}, BEFORE, after, diff)["checks"] == [["program", False, "not so"]]


@given(
    st.recursive(st.integers() | st.text(max_size=3), lambda x: st.lists(x) | st.dictionaries(st.text(max_size=2), x)),
    st.lists(st.integers(-3, 3) | st.text(max_size=2), max_size=4),
)
def test_lookup_never_raises(value, path):
    lookup(value, *path)


def test_lookup_follows_the_path():
    assert lookup({"plan": [{"city": "Wuxi"}]}, "plan", 0, "city") == "Wuxi"
    assert lookup({"plan": [{"city": "Wuxi"}]}, "plan", 1, "city") is None


def as_dict(cursor, row):
    return {column[0]: cell for column, cell in zip(cursor.description, row, strict=True)}


def database(script):
    db = sqlite3.connect(":memory:")
    db.row_factory = as_dict
    db.executescript(script)
    return db


SCRIPT = 'CREATE TABLE t (b TEXT, a INTEGER, "odd ""name" TEXT, PRIMARY KEY (a, b)) STRICT; CREATE TABLE sqlitex (x);'


def test_images_are_read_with_keys_columns_and_odd_names():
    db = database(SCRIPT + "INSERT INTO t VALUES ('x', 1, 'é')")
    assert kernel.read_keys(db) == {"t": ["a", "b"], "sqlitex": []}
    assert kernel.read_rows(db) == {"t": [{"b": "x", "a": 1, 'odd "name': "é"}], "sqlitex": []}
    assert kernel.read_columns(db)["t"] == {
        "b": ("TEXT", True),
        "a": ("INTEGER", True),
        'odd "name': ("TEXT", False),
    }
    db.close()


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE extra (x)",
        "DROP TABLE sqlitex",
        "CREATE INDEX i ON t (a)",
        "CREATE TRIGGER g AFTER INSERT ON t BEGIN DELETE FROM t; END",
        "ALTER TABLE t ADD COLUMN more TEXT",
    ],
)
def test_changed_schema_fails_the_frame(change):
    before, after = database(SCRIPT), database(SCRIPT + change)
    task = {"form": "atoms", "definitions": "", "atoms": [], "program": ""}
    [result, same] = kernel.verify_images(before, after, before, task=task, answers=[{}, {}])
    assert oks(result) == {"frame": False}
    assert "schema" in result["checks"][0][2]
    assert oks(same) == {"frame": True}
    before.close()
    after.close()


@pytest.mark.parametrize(
    "change",
    [
        "",
        "UPDATE t SET b = 'y'",
        "DELETE FROM t",
        "INSERT INTO sqlitex VALUES (1)",
        "CREATE TABLE extra (x)",
        "DROP TABLE sqlitex",
        "ALTER TABLE t RENAME COLUMN b TO c",
    ],
)
def test_images_are_compared_as_rows_are(change):
    """What `verify_images` skips because nothing changed is what a comparison of all rows finds unchanged."""
    filled = SCRIPT + "INSERT INTO t VALUES ('x', 1, 'é'), ('x', 2, NULL);"
    before, after = database(filled), database(filled + change)
    task = {"form": "program", "definitions": "", "atoms": [], "program": PRINTING}
    [result] = kernel.verify_images(before, after, task=task, answers=[{}])
    rows, later = kernel.read_rows(before), kernel.read_rows(after)
    keys = {**kernel.read_keys(after), **kernel.read_keys(before)}
    schema = kernel._schema_diff(kernel.read_schema(before), kernel.read_schema(after))
    expected = str([rows, later, schema + kernel.row_diff(rows, later, keys)])[: kernel.REASON_CHARS]
    assert result["checks"] == [["program", False, expected]]
    before.close()
    after.close()


PRINTING = (
    "def verify(answer, before, after, diff):\n    return {'ok': False, 'reasons': [str([before, after, diff])]}\n"
)


def test_equal_numbers_of_other_types_are_a_change():
    script = "CREATE TABLE n (id INTEGER PRIMARY KEY, v); INSERT INTO n VALUES (1, 2);"
    before, after = database(script), database(script + "UPDATE n SET v = 2.0")
    task = {"form": "atoms", "definitions": "", "atoms": [], "program": ""}
    [result] = kernel.verify_images(before, after, task=task, answers=[{}])
    assert oks(result) == {"frame": False}
    before.close()
    after.close()


REMEMBERING = """
calls = []

@once
def big(limit):
    calls.append(limit)
    return [row for row in db['items'] if row['n'] > limit]
"""


def outcomes_of(definitions, *expressions):
    """Judge two outcomes without changes in one request."""
    db = database("CREATE TABLE items (id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO items VALUES (1, 3), (2, 0);")
    atoms = [{"id": str(index), "kind": "answer", "expression": text} for index, text in enumerate(expressions)]
    task = {"form": "atoms", "definitions": definitions, "atoms": atoms, "program": ""}
    found = kernel.judge_outcomes(db, task, [{"answer": {}, "changes": []}] * 2)
    db.close()
    return found


def test_once_hands_out_copies_so_that_no_outcome_leaves_anything_to_the_next():
    spoil = "(big(1)[0].update(n=9), big(1).clear(), db['items'].clear(), len(big(1)))[-1] == 1 and big(1)[0]['n'] == 3"
    assert [oks(found)["0"] for found in outcomes_of(REMEMBERING, spoil, "not calls")] == [True, True]


def test_once_runs_where_no_outcome_is_in_sight():
    for name in ("answer", "diff", "after"):
        for found in outcomes_of(f"@once\ndef seen():\n    return {name}\n", "seen() is None"):
            assert f"NameError: name '{name}' is not defined" in found["broken"]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return db['items'].sort(key=lambda row: row['n'])", "modified the initial rows"),
        ("return len", "no plain data"),
        ("raise ValueError('no')", "ValueError: no (at <task definitions> line 3)"),
    ],
)
def test_once_refuses_what_cannot_be_remembered(body, told):
    for found in outcomes_of(f"@once\ndef odd():\n    {body}\n", "odd() is None"):
        assert told in found["broken"]


def test_once_marks_top_level_definitions_only():
    inner = "def outer():\n    @once\n    def inner():\n        return 1\n    return inner()\n"
    assert "top level" in outcomes_of(inner, "outer() == 1")[0]["broken"]
    twice = "@once\ndef f():\n    return 1\n@once\ndef f():\n    return 2\n"
    assert "defined twice" in outcomes_of(twice, "f() == 2")[0]["broken"]


def test_once_tells_arguments_of_equal_value_and_other_type_apart():
    kind = "@once\ndef kind(value):\n    return type(value).__name__\n"
    assert oks(outcomes_of(kind, "[kind(v) for v in (1, True, 1.0)] == ['int', 'bool', 'float']")[0])["0"]


def test_places_say_which_database_an_episode_ended_with():
    before, after = database(SCRIPT), database(SCRIPT + "INSERT INTO sqlitex VALUES (1);")
    task = {"form": "atoms", "definitions": "", "atoms": [], "program": ""}
    found = kernel.verify_images(before, after, task=task, answers=[{}] * 4, places=[1, 0, 0, 1])
    assert [oks(each)["frame"] for each in found] == [False, True, True, False]
    before.close()
    after.close()


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 400), st.integers(1, 3_000)), max_size=8))
def test_pages_tell_which_tables_are_untouched(changes):
    """A table that the pages call untouched reads as before: trees of many pages, overflowing texts, deletions."""
    fill = "".join(
        f"CREATE TABLE {name} (id INTEGER PRIMARY KEY, v TEXT UNIQUE);"
        f"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows})"
        f" INSERT INTO {name} SELECT i, i || hex(zeroblob({size})) FROM n;"
        for name, rows, size in (("a", 400, 20), ("b", 3, 4_000), ("c", 50, 200), ("d", 0, 1))
    )
    before = database(fill + "CREATE VIEW w AS SELECT * FROM a;")
    image = before.serialize()
    after = database("")
    after.deserialize(image)
    for table, key, size in changes:
        if size % 3:
            after.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", (key, f"{key} {'x' * size}"))
        else:
            after.execute(f"DELETE FROM {table} WHERE id <= ?", (key,))
    after.commit()
    untouched = kernel._Pages(before).untouched(after)
    old, new = kernel.read_rows(before), kernel.read_rows(after)
    assert all(old[name] == new[name] for name in old if untouched is not None and name in untouched)
    if not changes:
        assert untouched is not None
        assert set("abcd") <= untouched
    before.close()
    after.close()


def test_a_change_on_overflowing_pages_alone_is_seen() -> None:
    """The leaf names the same overflow page as before, so that only a page that no tree leads to is another one."""

    def opened(tail: str) -> sqlite3.Connection:
        db = sqlite3.connect(":memory:")
        db.row_factory = lambda cursor, row: dict(zip([column[0] for column in cursor.description], row, strict=True))
        db.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY, text TEXT)")
        db.execute("INSERT INTO notes VALUES (1, ?)", ("x" * 20_000 + tail,))
        db.commit()
        return db

    before, after = opened("a"), opened("b")
    pages = [memoryview(db.serialize())[2 * 4096 - 4096 : 2 * 4096] for db in (before, after)]
    assert pages[0] == pages[1]  # the table's only leaf
    assert kernel._Pages(before).untouched(after) is None
    task = {"form": "atoms", "definitions": "", "atoms": [], "program": ""}
    (verdict,) = kernel.verify_images(before, after, task=task, answers=[{}])
    assert verdict["checks"][-1][:2] == ["frame", False]


# --------------------------------------------------------------------------------------------------------------- order

RULES = "def low(rows):\n    return [row for row in rows if row['n'] < 1]\n"


def test_an_order_atom_is_about_the_final_rows():
    mended = {"op": "update", "table": "items", "row": {"id": 2, "n": 5}}
    atoms = {
        "claim": ("state", "diff"),
        "order": ("order", "not low(db['items'])"),
        "before": ("answer", "low(db['items'])"),
    }
    assert oks(judged(definitions=RULES, **atoms)) == {"claim": False, "order": False, "before": True, "frame": True}
    assert all(oks(judged(after=changed(mended), definitions=RULES, **atoms)).values())


def test_an_order_atom_is_not_asked_where_a_change_is_left():
    mended = {"op": "update", "table": "items", "row": {"id": 2, "n": 5}}
    strange = {"op": "update", "table": "items", "row": {"id": 1, "n": None}}
    result = judged(after=changed(mended, strange), definitions=RULES, order=("order", "not low(db['items'])"))
    assert oks(result) == {"order": False, "frame": False}
    assert "nothing asks for" in result["checks"][0][2]


def test_what_is_worked_out_once_is_worked_out_anew_for_the_final_rows():
    mended = {"op": "update", "table": "items", "row": {"id": 2, "n": 5}}
    counted = "@once\ndef lows():\n    return len([row for row in db['items'] if row['n'] < 1])\n"
    atoms = {"was": ("answer", "lows() == 1"), "claim": ("state", "diff"), "order": ("order", "lows() == 0")}
    assert all(oks(judged(after=changed(mended), definitions=counted, **atoms)).values())


def test_an_order_atom_sees_neither_answer_nor_changes_and_what_atoms_do_to_rows():
    for name in ("answer", "diff", "after"):
        assert "NameError" in judged(order=("order", f"{name} is not None"))["broken"]
    spoilt = {
        "spoil": ("answer", "[row.update(n=0) for row in after['items']]"),
        "order": ("order", "db['items'][0]['n'] == 3"),
    }
    assert oks(judged(**spoilt))["order"]


def test_checks_come_in_the_order_of_the_atoms():
    result = judged(order=("order", "True"), last=("answer", "True"))
    assert [check[0] for check in result["checks"]] == ["order", "last", "frame"]
