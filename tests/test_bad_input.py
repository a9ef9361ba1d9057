"""Bad input, at the level of the product: what is said, how it exits, and that nothing is lost.

Each case is a row of a table: what is wrong, the call, its exit code, and its message. After each the store opens and
holds exactly what it held before.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from envsynth.cli import main
from envsynth.environments.examples import trip_planning
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store import Store
from tests.command_line import CATEGORY, SMALL, Ran, call, held, run, small_files, start
from tests.store.processes import in_child, open_folder

Json = dict[str, Any]


@dataclass
class Bench:
    """Where a case works: a folder with a filled store, a suite file, and a sound environment with its task."""

    folder: Path
    store: Path
    suite: Path
    pair: Json
    leaf: str
    slug: str
    env: dict[str, str] = field(default_factory=dict)

    def file(self, content: Any, name: str = "pair.json") -> Path:
        """Write a file and return its path."""
        path = self.folder / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    def broken_suite(self, change: Callable[[list[Json]], None]) -> Path:
        """Write a changed copy of the suite file."""
        lines = [json.loads(line) for line in self.suite.read_text().splitlines()]
        change(lines)
        text = "".join(
            json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n" for line in lines
        )
        return self.file(text, "broken.jsonl")


@pytest.fixture
def bench(
    store_path: Path,
    tmp_path: Path,
    shop: EnvironmentSpec,
    value_task: TaskVersion,
    suite_bytes: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> Bench:
    monkeypatch.setenv("COLUMNS", "1000")  # no usage message is broken into lines
    pair = {"environment": shop.model_dump(mode="json"), "task": value_task.model_dump(mode="json")}
    del pair["task"]["environment"]
    suite = tmp_path / "suite.jsonl"
    suite.write_bytes(suite_bytes)
    with Store.open(store_path, readonly=True) as store:
        leaf = max(store.task_entries(), key=lambda entry: entry.depth)
    return Bench(tmp_path, store_path, suite, json.loads(json.dumps(pair)), leaf.hash, leaf.slug)


@pytest.fixture(scope="module")
def suite_bytes(made_store: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("suite") / "suite.jsonl"
    with pytest.raises(SystemExit):
        main(["export", "first", str(path), "--store", str(made_store)])
    return path.read_bytes()


Arrange = Callable[[Bench], list[Any]]
CASES: list[Any] = []


def case(code: int, message: str) -> Callable[[Arrange], Arrange]:
    """Add a row to the table: exit code, and what the messages must say (a pattern)."""

    def add(arrange: Arrange) -> Arrange:
        CASES.append(pytest.param(arrange, code, message, id=arrange.__name__.strip("_")))
        return arrange

    return add


# --------------------------------------------------------------------------------------------- environments and tasks


@case(
    1,
    r"pair\.json: malformed EnvironmentSpec: unknown key 'world\.tables\[0\]\.colour': remove it or check its spelling",
)
def _unknown_key(bench: Bench) -> list[Any]:
    bench.pair["environment"]["world"]["tables"][0]["colour"] = "red"
    return ["check", bench.file(bench.pair)]


@case(1, r"pair\.json: malformed TaskVersion: max_turns: .*integer.*got 'six'")
def _wrong_type(bench: Bench) -> list[Any]:
    bench.pair["task"]["max_turns"] = "six"
    return ["check", bench.file(bench.pair)]


@case(1, r"pair\.json: malformed TaskVersion: prompt: Field required")
def _missing_key(bench: Bench) -> list[Any]:
    del bench.pair["task"]["prompt"]
    return ["play", bench.file(bench.pair), "--actor", "oracle"]


@case(1, r"pair\.json line 4 column \d+: not JSON")
def _truncated_json(bench: Bench) -> list[Any]:
    return ["check", bench.file('{\n "environment": {\n  "slug": "shop",\n  "tit')]


@case(1, r"pair\.json is not UTF-8 \(invalid start byte at byte 17\): save it as UTF-8")
def _not_utf8(bench: Bench) -> list[Any]:
    return ["check", bench.file(b'{"environment": "\xff"}')]


@case(1, r"pair\.json is nested too deeply")
def _nested_too_deeply(bench: Bench) -> list[Any]:
    return ["check", bench.file("[" * 200_000)]


@case(1, r"pair\.json: .*rows.*(finite|NaN|valid)")
def _a_cell_is_nan(bench: Bench) -> list[Any]:
    text = json.dumps(bench.pair).replace('"bolt", 5', '"bolt", NaN')
    assert "NaN" in text
    return ["check", bench.file(text)]


@case(1, r"cannot read .*nowhere\.json: No such file or directory: check the path")
def _missing_file(bench: Bench) -> list[Any]:
    return ["check", bench.folder / "nowhere.json"]


@case(1, r"cannot read .*folder\.json: Is a directory")
def _a_folder_for_a_file(bench: Bench) -> list[Any]:
    (bench.folder / "folder.json").mkdir()
    return ["check", bench.folder / "folder.json"]


@case(1, r"pair\.json: unknown key 'verifier': a file has environment, task, tasks")
def _unknown_part_of_a_file(bench: Bench) -> list[Any]:
    return ["check", bench.file({**bench.pair, "verifier": {}})]


@case(1, r'pair\.json holds no object: give \{"environment"')
def _a_list_for_an_object(bench: Bench) -> list[Any]:
    return ["check", bench.file([bench.pair])]


@case(1, r"pair\.json: malformed TaskVersion: .*got 7")
def _a_number_for_a_task(bench: Bench) -> list[Any]:
    return ["check", bench.file({**bench.pair, "task": 7})]


@case(1, r"notes\.txt is a file, but neither \.jsonl \(a suite\) nor \.json")
def _a_file_of_another_kind(bench: Bench) -> list[Any]:
    return ["check", bench.file("hello", "notes.txt")]


@case(1, r"two tools have the same name")
def _a_tool_twice(bench: Bench) -> list[Any]:
    bench.pair["environment"]["tools"].append(bench.pair["environment"]["tools"][0])
    return ["check", bench.file(bench.pair)]


@case(1, r"rows\.items\[0\] has 3 cells, its table has 4 columns")
def _a_row_too_short(bench: Bench) -> list[Any]:
    bench.pair["environment"]["world"]["rows"]["items"][0].pop()
    return ["check", bench.file(bench.pair)]


@case(1, r"references 'shelves\.id', which does not exist")
def _a_reference_to_nothing(bench: Bench) -> list[Any]:
    bench.pair["environment"]["world"]["tables"][0]["columns"][2]["references"] = "shelves.id"
    return ["check", bench.file(bench.pair)]


@case(3, r"SP101 fail malformed world: table 'items': .*(syntax error|incomplete input|no such column)")
def _wrong_sql_in_a_check(bench: Bench) -> list[Any]:
    bench.pair["environment"]["world"]["tables"][0]["checks"] = ["qty >"]
    return ["check", bench.file(bench.pair)]


@case(3, r"SP101 fail malformed world: table 'items'.*CHECK constraint failed")
def _a_row_that_breaks_a_check(bench: Bench) -> list[Any]:
    bench.pair["environment"]["world"]["tables"][0]["checks"] = ["qty > 4"]
    return ["check", bench.file(bench.pair)]


@case(3, r"SP101 fail malformed world: .*(foreign key|FOREIGN KEY|reference)")
def _a_row_that_breaks_a_foreign_key(bench: Bench) -> list[Any]:
    columns = [{"name": "id", "type": "INTEGER"}, {"name": "item_id", "type": "INTEGER", "references": "items.id"}]
    world = bench.pair["environment"]["world"]
    world["tables"].append({"name": "orders", "columns": columns, "primary_key": ["id"]})
    world["rows"]["orders"] = [[1, 99]]
    return ["check", bench.file(bench.pair)]


@case(3, r"SP101 fail rows\.items\[1\]\.qty: 'nine' is not of type INTEGER")
def _a_cell_of_another_type(bench: Bench) -> list[Any]:
    bench.pair["environment"]["world"]["rows"]["items"][1][2] = "nine"
    return ["check", bench.file(bench.pair)]


@case(3, r"tool 'list_items' does not load: .*list_items")
def _a_tool_without_its_function(bench: Bench) -> list[Any]:
    bench.pair["environment"]["tools"][0]["source"] = "def other(db):\n    return 1\n"
    return ["check", bench.file(bench.pair)]


@case(3, r"tool 'list_items' does not load: .*SyntaxError")
def _a_tool_that_is_no_python(bench: Bench) -> list[Any]:
    bench.pair["environment"]["tools"][0]["source"] = "def list_items(db:\n"
    return ["check", bench.file(bench.pair)]


@case(3, r"EX201 (fail|void)")
def _a_solution_that_raises(bench: Bench) -> list[Any]:
    bench.pair["task"]["solution"] = "def solve(call):\n    return 1 / 0\n"
    return ["check", bench.file(bench.pair), "--select", "EX201"]


@case(3, r"VF301 (fail|void) .*verifier broke")
def _a_verifier_that_raises(bench: Bench) -> list[Any]:
    bench.pair["task"]["verifier"]["atoms"][0]["expression"] = "1 / 0 == 1"
    return ["check", bench.file(bench.pair), "--select", "VF301"]


@case(3, r"SP102 fail task is for environment 0{12}, this is [0-9a-f]{12}")
def _a_task_of_another_environment(bench: Bench) -> list[Any]:
    bench.pair["task"]["environment"] = "0" * 32
    return ["check", bench.file(bench.pair)]


@case(1, r"belongs to environment 0{32}")
def _play_a_task_of_another_environment(bench: Bench) -> list[Any]:
    bench.pair["task"]["environment"] = "0" * 32
    return ["play", bench.file(bench.pair), "--actor", "oracle"]


# --------------------------------------------------------------------------------------------------------------- options


@case(2, r"Invalid value for --select: no gate has the code 'XX999'; there are .*VF301")
def _unknown_gate_to_select(bench: Bench) -> list[Any]:
    return ["check", bench.leaf, "--select", "XX999"]


@case(2, r"Invalid value for CODE: no gate has the code 'tie'")
def _unknown_gate_to_explain(bench: Bench) -> list[Any]:
    return ["explain", "tie"]


@case(2, r"Invalid value for --actor: no actor is called 'champion': use one of oracle, .*chat:MODEL")
def _unknown_actor(bench: Bench) -> list[Any]:
    return ["evaluate", "first", "--actor", "champion"]


@case(2, r"--actor: no task here can lack the skill 'luck': there are .*no_pagination")
def _unknown_skill(bench: Bench) -> list[Any]:
    return ["play", bench.leaf, "--actor", "ablated:luck"]


@case(2, r"--actor: a person plays with `envsynth play`")
def _a_person_in_an_evaluation(bench: Bench) -> list[Any]:
    return ["evaluate", "first", "--actor", "human"]


@case(2, r"Invalid value for -k: pass@4 needs at least 4 episodes of each task, but n is 2: raise n or drop k=4")
def _k_above_n(bench: Bench) -> list[Any]:
    return ["evaluate", "first", "-n", 2, "-k", 4]


@case(2, r"Invalid value for -k: .*0")
def _k_of_zero(bench: Bench) -> list[Any]:
    return ["evaluate", "first", "-k", 0]


@case(2, r"--count.*greater than or equal to 1|--count.*0 is not in the range")
def _count_of_zero(bench: Bench) -> list[Any]:
    return ["synthesize", CATEGORY, "--count", 0]


@case(2, r"--seed")
def _a_negative_seed(bench: Bench) -> list[Any]:
    return ["evaluate", "first", "--seed", -1]


@case(1, r"category '' holds no word: give a sentence such as 'planning a travel itinerary'")
def _an_empty_category(bench: Bench) -> list[Any]:
    return ["synthesize", " "]


@case(2, r"list one kind at a time")
def _two_kinds_of_list(bench: Bench) -> list[Any]:
    return ["list", "--tasks", "--runs"]


@case(2, r"--kind: 'easy' is none of read, plan, optimise, infeasible, act, service, diagnose, recover")
def _unknown_kind(bench: Bench) -> list[Any]:
    return ["suite", "freeze", "easy", "--kind", "easy"]


@case(2, r"--save: needs tasks of a store: import the file first")
def _save_the_reports_of_a_file(bench: Bench) -> list[Any]:
    return ["check", bench.suite, "--save"]


@case(2, r"--save: needs a task of a store: import the file first")
def _save_the_episode_of_a_file(bench: Bench) -> list[Any]:
    return ["play", bench.suite, "--actor", "idle", "--save"]


# ------------------------------------------------------------------------------------------------------------ references


@case(
    1, r"no environment or task 'f00df00d' in store .*: give a hash, at least 4 digits of it, or a slug.*trip-planning"
)
def _unknown_hash(bench: Bench) -> list[Any]:
    return ["show", "f00df00d"]


@case(1, r"'aaaa' names several tasks .*give more of the hash: aaaa.*, aaaa")
def _ambiguous_prefix(bench: Bench) -> list[Any]:
    with sqlite3.connect(bench.store) as connection:
        for number in range(2):
            connection.execute(
                "INSERT INTO task_version SELECT printf('aaaa%028d', ?), environment, parent, operator, depth, kind, "
                "status, origin, json FROM task_version LIMIT 1",
                (number,),
            )
    connection.close()
    bench.env["damaged"] = "yes"
    return ["play", "aaaa", "--actor", "idle"]


@case(1, r"no environment or task 'b0'")
def _a_prefix_too_short(bench: Bench) -> list[Any]:
    return ["tree", "b0"]


@case(1, r"no suite 'second' in store")
def _unknown_suite(bench: Bench) -> list[Any]:
    return ["export", "second", bench.folder / "second.jsonl"]


@case(1, r"environment trip-planning is by 'hand/1', not 'procedural/4': it cannot be composed again")
def _harden_by_another_author(bench: Bench) -> list[Any]:
    from_file = bench.folder / "trip.db"
    with Store.open(from_file) as store:
        environment, task = trip_planning()
        store.add_environment(environment)
        digest = store.add_task(task)
    return ["harden", digest, "--store", from_file]


# ----------------------------------------------------------------------------------------------------------------- store


@case(1, r"store .*nowhere/s\.db: its folder .*nowhere does not exist: make it, or give another path")
def _missing_folder(bench: Bench) -> list[Any]:
    return ["synthesize", CATEGORY, "--store", bench.folder / "nowhere" / "s.db"]


@case(1, r"there is no store at .*nothing\.db: make one with `envsynth synthesize`, or give another path")
def _missing_store(bench: Bench) -> list[Any]:
    return ["list", "--store", bench.folder / "nothing.db"]


@case(1, r"store .* is a folder: give the path of a file in it")
def _a_folder_for_a_store(bench: Bench) -> list[Any]:
    return ["list", "--store", bench.folder]


@case(1, r"notes\.txt is no SQLite database, so it is no envsynth store")
def _a_text_file_for_a_store(bench: Bench) -> list[Any]:
    return ["suite", "import", bench.suite, "--store", bench.file("dear diary", "notes.txt")]


@case(1, r"other\.db is a database but no envsynth store \(tables: diary\)")
def _another_database_for_a_store(bench: Bench) -> list[Any]:
    with sqlite3.connect(bench.folder / "other.db") as connection:
        connection.execute("CREATE TABLE diary (day TEXT)")
    connection.close()
    return ["suite", "import", bench.suite, "--store", bench.folder / "other.db"]


@case(
    1,
    r"has schema revision '9999'; this envsynth knows revisions up to .*: it was written by a newer envsynth, so upgrade",
)
def _a_store_of_a_newer_schema(bench: Bench) -> list[Any]:
    newer = bench.folder / "newer.db"
    shutil.copy(bench.store, newer)
    with sqlite3.connect(newer) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    return ["synthesize", CATEGORY, "--store", newer]


@case(1, r"(database URL|no driver for store)")
def _a_database_without_a_driver(bench: Bench) -> list[Any]:
    return ["list", "--store", "nosuchdatabase://somewhere/s"]


@case(1, r"task [0-9a-f]{32} in store .* is damaged: its text has the hash [0-9a-f]{32}: restore a copy of the store")
def _a_damaged_record(bench: Bench) -> list[Any]:
    damaged = bench.folder / "damaged.db"
    shutil.copy(bench.store, damaged)
    with sqlite3.connect(damaged) as connection:
        connection.execute("UPDATE task_version SET json = replace(json, '\"max_turns\":', '\"max_turns\":1')")
    connection.close()
    return ["show", bench.leaf, "--store", damaged]


@case(1, r"damaged: restore a copy, or save what can be read|malformed|not a database|is damaged")
def _a_store_with_its_end_cut_off(bench: Bench) -> list[Any]:
    cut = bench.folder / "cut.db"
    cut.write_bytes(bench.store.read_bytes()[: bench.store.stat().st_size // 3])
    return ["show", bench.leaf, "--store", cut]


# ---------------------------------------------------------------------------------------------------------------- suites


@case(1, r"cannot read suite .*nowhere\.jsonl: No such file or directory")
def _missing_suite_file(bench: Bench) -> list[Any]:
    return ["suite", "import", bench.folder / "nowhere.jsonl"]


@case(1, r"broken\.jsonl line 3 is not JSON \(.*\): the file is cut off or damaged; export the suite again")
def _a_damaged_suite_line(bench: Bench) -> list[Any]:
    lines = bench.suite.read_bytes().splitlines(keepends=True)
    lines[2] = lines[2][:40] + b"\n"
    return ["suite", "import", bench.file(b"".join(lines), "broken.jsonl")]


@case(1, r"broken\.jsonl line 3.*hash")
def _a_suite_line_that_was_edited(bench: Bench) -> list[Any]:
    def change(lines: list[Json]) -> None:
        lines[2]["record"]["prompt"] = "Do nothing."

    return ["suite", "import", bench.broken_suite(change)]


@case(1, r"broken\.jsonl line 2.*unknown key.*'colour'")
def _a_suite_line_with_an_unknown_key(bench: Bench) -> list[Any]:
    def change(lines: list[Json]) -> None:
        lines[1]["record"]["colour"] = "red"

    return ["check", bench.broken_suite(change)]


@case(1, r"checksum")
def _a_wrong_checksum(bench: Bench) -> list[Any]:
    def change(lines: list[Json]) -> None:
        lines[0]["checksum"] = "0" * 32

    return ["suite", "import", bench.broken_suite(change)]


@case(1, r"broken\.jsonl: the header promises \d+ report lines, the file holds \d+: it is cut off or was edited")
def _a_suite_without_its_last_line(bench: Bench) -> list[Any]:
    return ["evaluate", bench.broken_suite(lambda lines: lines.pop() and None)]


@case(1, r"has format 'envsynth-suite/9', this envsynth reads 'envsynth-suite/1': upgrade envsynth")
def _a_suite_of_another_format(bench: Bench) -> list[Any]:
    def change(lines: list[Json]) -> None:
        lines[0]["format"] = "envsynth-suite/9"

    return ["suite", "import", bench.broken_suite(change)]


@case(1, r"empty\.jsonl is empty: export the suite again")
def _an_empty_suite_file(bench: Bench) -> list[Any]:
    return ["check", bench.file("", "empty.jsonl")]


@case(1, r"line 1 is not UTF-8")
def _a_suite_file_that_is_no_text(bench: Bench) -> list[Any]:
    return ["check", bench.file(b"\xff\xfe\x00\n", "binary.jsonl")]


@case(1, r"suite 'none' would be empty: no task of store .* fits")
def _freeze_nothing(bench: Bench) -> list[Any]:
    return ["suite", "freeze", "none", "--category", "no such sentence"]


@case(1, r"suite 'first' in store .* is frozen with .*: a frozen suite never changes, so choose another name")
def _freeze_other_tasks_under_a_name(bench: Bench) -> list[Any]:
    return ["suite", "freeze", "first"]


@case(1, r"cannot freeze suite 'My Suite': malformed Suite: name")
def _a_malformed_suite_name(bench: Bench) -> list[Any]:
    return ["suite", "freeze", "My Suite"]


@case(2, r"first\.csv: the name must end in \.jsonl or \.parquet")
def _export_to_an_unknown_suffix(bench: Bench) -> list[Any]:
    return ["export", "first", bench.folder / "first.csv"]


@case(2, r"--public: a JSONL suite is complete: --public is for \.parquet")
def _export_the_public_half_as_jsonl(bench: Bench) -> list[Any]:
    return ["export", "first", bench.folder / "first.jsonl", "--public"]


@case(1, r"cannot write .*nowhere.*: No such file or directory; nothing was written: check that the folder exists")
def _export_into_a_missing_folder(bench: Bench) -> list[Any]:
    return ["export", "first", bench.folder / "nowhere" / "first.jsonl"]


@case(1, r"cannot make folder .*suite\.jsonl: File exists: give another one")
def _demo_into_a_file(bench: Bench) -> list[Any]:
    return ["demo", "--out", bench.suite]


@pytest.mark.parametrize(("arrange", "code", "message"), CASES)
def test_bad_input(bench: Bench, capsys: pytest.CaptureFixture[str], arrange: Arrange, code: int, message: str) -> None:
    before = held(bench.store)
    arguments = arrange(bench)
    files = {
        path: path.read_bytes() for path in bench.folder.iterdir() if path.is_file() and path.name != "envsynth.db"
    }
    found = call(capsys, *arguments)
    text = found.said + " " + " ".join(found.out.split()) if code == 3 else found.said
    assert re.search(message, text), text
    assert found.code == code
    assert code == 3 or found.out == ""
    assert "Traceback" not in found.err
    if code == 1:
        assert len(re.findall("^error: ", found.err, re.MULTILINE)) == 1
    if "damaged" not in bench.env:
        assert held(bench.store) == before, "the store holds what it held"
    for path, content in files.items():
        if path.suffix != ".db" or path.name == "other.db":
            assert path.read_bytes() == content, f"{path.name} is untouched"


# ------------------------------------------------------------------------------------------------ full disk, read-only


def test_full_disk_while_importing(bench: Bench, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with Store.open(other):
        pass
    found = run("suite", "import", bench.suite, "--store", other, setup=small_files)
    assert found.code == 1
    assert re.search("the disk (is full|refused).*nothing of this step was written", found.said), found.said
    assert held(other) == []
    assert run("suite", "import", bench.suite, "--store", other).code == 0
    assert len(held(other)) > 3


def test_full_disk_while_exporting(bench: Bench, tmp_path: Path) -> None:
    target = tmp_path / "target.jsonl"
    target.write_text("an older file")
    found = run("export", "first", target, setup=small_files)
    assert found.code == 1
    assert re.search(r"cannot write .*target\.jsonl: .*; nothing was written: .*the disk has room", found.said), (
        found.said
    )
    assert target.read_text() == "an older file"
    assert [path.name for path in tmp_path.glob(".target*")] == []


def test_full_disk_while_synthesizing_then_resumed(tmp_path: Path) -> None:
    path, whole = tmp_path / "s.db", tmp_path / "whole.db"
    with Store.open(path):
        pass
    found = run("synthesize", CATEGORY, "-n", 1, *SMALL, "--store", path, setup=small_files)
    assert found.code == 1
    assert re.search("the disk (is full|refused)", found.said), found.said
    assert [line for line in held(path) if not line.startswith("run ")] == []
    for place in (path, whole):
        assert run("synthesize", CATEGORY, "-n", 1, *SMALL, "--store", place).code == 0
    assert held(path) == held(whole)


@pytest.mark.parametrize("as_json", [True, False])
def test_the_output_goes_to_a_full_disk(store_path: Path, as_json: bool) -> None:
    with Path("/dev/full").open("w") as full:
        process = start("list", *(["--json"] if as_json else []), stdout=full)
        _, messages = process.communicate(timeout=60)
    assert (process.returncode, messages) == (1, "error: cannot write the output: No space left on device\n")


def _main_in_child(*arguments: str) -> str:
    """Run the command line in a forked child that may be a plain user; give its exit code and messages."""
    messages = io.StringIO()
    with (
        contextlib.redirect_stderr(messages),
        contextlib.redirect_stdout(io.StringIO()),
        pytest.raises(SystemExit) as stop,
    ):
        main(list(arguments))
    return f"{stop.value.code} {' '.join(messages.getvalue().split())}"


@pytest.fixture
def read_only(made_store: Path, suite_bytes: bytes) -> Iterator[Path]:
    """A folder that a plain user can read and not write, with a store and a suite file."""
    with open_folder() as folder:
        shutil.copy(made_store, folder / "s.db")
        (folder / "suite.jsonl").write_bytes(suite_bytes)
        for path in folder.iterdir():
            path.chmod(0o444)
        folder.chmod(0o555)
        yield folder


def test_a_read_only_store(read_only: Path) -> None:
    path = str(read_only / "s.db")
    before = held(Path(path))
    # Loaded here: a plain user may be unable to read the interpreter's modules.
    assert _main_in_child("list", "--store", path) == "0 "
    assert in_child(lambda: _main_in_child("list", "--tasks", "--store", path)) == "0 "
    for arguments in (
        ["suite", "import", str(read_only / "suite.jsonl")],
        ["suite", "freeze", "mine"],
        ["synthesize", CATEGORY],
    ):
        text = in_child(lambda arguments=arguments: _main_in_child(*arguments, "--store", path))
        assert re.search(r"^1 .*error: store .*s\.db may not be written: change its permissions", text), text
    assert held(Path(path)) == before


def test_a_folder_that_may_not_be_written(read_only: Path) -> None:
    text = in_child(lambda: _main_in_child("suite", "freeze", "mine", "--store", str(read_only / "new.db")))
    assert re.search(r"^1 .*cannot .*: the file (cannot be opened|or its folder cannot be written)", text), text
    assert not (read_only / "new.db").exists()


# -------------------------------------------------------------------------------------------- interrupted, at the same time


N_ENVIRONMENTS = 5
"""Enough that some are left to do when the first is stored."""


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a store holds after a run of some environments that nothing disturbed."""
    path = tmp_path_factory.mktemp("several") / "s.db"
    assert run("synthesize", CATEGORY, "-n", N_ENVIRONMENTS, *SMALL, "--store", path).code == 0
    return held(path)


@pytest.mark.parametrize(
    ("number", "workers", "code"),
    [(signal.SIGINT, 1, 130), (signal.SIGINT, 2, 130), (signal.SIGTERM, 2, 130), (signal.SIGKILL, 2, -9)],
)
def test_interrupted_then_resumed(tmp_path: Path, several: list[str], number: int, workers: int, code: int) -> None:
    path = tmp_path / "s.db"
    command = ["synthesize", CATEGORY, "-n", N_ENVIRONMENTS, *SMALL[:-1], workers, "--store", path]
    process = start(*command)
    done = _wait_for_first(path)
    os.killpg(process.pid, number)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == code, messages
    if code == 130:
        assert "interrupted: what was stored is kept" in messages
        assert "Traceback" not in messages
    between = held(path)
    kept = [line for line in between if line.startswith("environment")]
    assert done <= len(kept) < N_ENVIRONMENTS, "it was interrupted between two units"
    # Two workers end their units in any order.
    assert set(between) - set(several) <= {line for line in between if line.startswith("run ")}
    again = run(*command, "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["resumed"] == len(kept)
    assert sorted(held(path)) == sorted(several), "equal hashes, as if nothing had happened"


def _wait_for_first(path: Path) -> int:
    """Wait until a unit is in the store, and count."""
    for _ in range(1200):
        if path.exists():
            with (
                contextlib.suppress(sqlite3.Error),
                contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection,
            ):
                count = connection.execute("SELECT count(*) FROM run_unit").fetchone()[0]
                if count:
                    return count
        time.sleep(0.02)
    return pytest.fail("no unit was stored within 24 s")


def test_two_processes_synthesize_into_one_store(tmp_path: Path, several: list[str]) -> None:
    path = tmp_path / "s.db"
    command = ["synthesize", CATEGORY, "-n", N_ENVIRONMENTS, *SMALL, "--store", path, "--json"]
    processes = [start(*command) for _ in range(2)]
    found = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], [err for _, err in found]
    assert json.loads(found[0][0])["environments"] == json.loads(found[1][0])["environments"]
    assert sorted(held(path)) == sorted(several)


def test_interrupting_an_evaluation_keeps_what_was_saved(store_path: Path) -> None:
    command = ["evaluate", "first", "--actor", "oracle", "-n", 200, "--save"]
    process = start(*command)
    for _ in range(1200):
        with Store.open(store_path, readonly=True) as store:
            if store.trajectories():
                break
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    with Store.open(store_path, readonly=True) as store:
        kept = store.trajectories()
    assert 0 < len(kept) < 400
    assert all(item.actor == "oracle" for item in kept)


def test_a_call_that_was_right(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """The bench itself is sound: each case above fails for its own reason."""
    path = bench.file(bench.pair)
    found: Ran = call(
        capsys, "check", path, "--select", "SP101", "--select", "SP102", "--select", "EX201", "--select", "VF301"
    )
    assert found.code == 0, found.out
    assert call(capsys, "check", bench.broken_suite(lambda lines: None), "--select", "SP101").code == 0
    assert call(capsys, "suite", "import", bench.suite, "--store", bench.folder / "new.db").code == 0
