"""Suites: freezing, JSONL out and in, Parquet; what is refused and how."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import envsynth.suite
from envsynth.errors import MissingExtra, SpecError, SpecNotFound, StoreError, SuiteError
from envsynth.record import canonical_json, content_hash
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store import Store, TaskQuery
from envsynth.suite import (
    Suite,
    SuiteItem,
    export_jsonl,
    export_parquet,
    freeze,
    import_jsonl,
    load_suite,
    parquet,
)
from envsynth.suite.jsonl import SuiteReader
from tests.store import factory
from tests.store.processes import in_child


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Two environments; in each root -> middle -> leaf, and a second leaf under the root, all passed."""
    with Store.open(tmp_path / "store.db") as opened:
        for number in range(2):
            home = factory.environment(number)
            root = factory.task(home)
            middle = factory.task(home, 1, root, kind="act")
            leaf = factory.task(home, 2, middle)
            other = factory.task(home, 3, root)
            with opened.batch() as batch:
                batch.add_environment(home)
                for task in (root, middle, leaf, other):
                    batch.add_task(task)
                    batch.add_report(factory.report(task))
        yield opened


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "target.db") as opened:
        yield opened


LEAVES = TaskQuery(leaves_only=True)


def nothing_in(store: Store) -> bool:
    return not (store.environment_entries() or store.task_entries() or store.suites())


# ------------------------------------------------------------------------------------------------------------- freezing


def test_freeze_keeps_what_the_query_found(store: Store) -> None:
    suite = freeze(store, "leaves", LEAVES, "all leaves")
    assert [item.task for item in suite.items] == [entry.hash for entry in store.task_entries(LEAVES)]
    assert len(suite.items) == 4
    assert store.suite("leaves") == suite
    assert freeze(store, "leaves", LEAVES, "all leaves") == suite
    assert store.suites() == ["leaves"]


def test_a_frozen_suite_never_changes(store: Store) -> None:
    suite = freeze(store, "leaves", LEAVES)
    with pytest.raises(
        SuiteError, match=r"'leaves' .* is frozen with 4 tasks .*; this one has 2 .*choose another name"
    ):
        freeze(store, "leaves", TaskQuery(kind="act"))
    with pytest.raises(SuiteError, match="is frozen with 4 tasks"):
        freeze(store, "leaves", LEAVES, "another description")
    with pytest.raises(StoreError, match="a frozen suite never changes"):
        store.add_suite(Suite.of("leaves", suite.items[:1]))
    assert store.suite("leaves") == suite


def test_freeze_by_references_keeps_their_order(store: Store) -> None:
    hashes = [entry.hash for entry in store.task_entries(LEAVES)][::-1]
    suite = freeze(store, "mine", [digest[:10] for digest in hashes])
    assert [item.task for item in suite.items] == hashes


@pytest.mark.parametrize(
    ("name", "query", "message"),
    [
        ("x", TaskQuery(category="nobody's"), "suite 'x' would be empty.*nobody's"),
        ("x", [], "would be empty"),
        ("No Name", LEAVES, "cannot freeze suite 'No Name': malformed Suite: name"),
    ],
)
def test_freeze_refuses(store: Store, name: str, query: TaskQuery, message: str) -> None:
    with pytest.raises(SuiteError, match=message):
        freeze(store, name, query)
    assert store.suites() == []


def test_freeze_refuses_unknown_and_double_tasks(store: Store) -> None:
    with pytest.raises(SpecNotFound, match="no task 'beefbeef'"):
        freeze(store, "x", ["beefbeef"])
    digest = store.task_entries()[0].hash
    with pytest.raises(SuiteError, match="a task stands in the suite twice"):
        freeze(store, "x", [digest, digest])


def test_a_suite_of_strangers_is_refused(store: Store, tmp_path: Path) -> None:
    home, other = store.environment_entries()
    task = store.task_entries(TaskQuery(environment=home.hash))[0]
    stranger = Suite.of("x", [SuiteItem(environment=home.hash, task="0" * 32)])
    with pytest.raises(StoreError, match=r"its task 0{32} is not in the store"):
        store.add_suite(stranger)
    with pytest.raises(SuiteError, match="1 of 1 tasks of suite 'x' are not in store"):
        export_jsonl(stranger, store, tmp_path / "x.jsonl")
    with pytest.raises(StoreError, match=f"belongs to environment {home.hash}"):
        store.add_suite(Suite.of("x", [SuiteItem(environment=other.hash, task=task.hash)]))


def test_a_checksum_that_does_not_fit_is_refused(store: Store) -> None:
    suite = freeze(store, "leaves", LEAVES)
    with pytest.raises(SpecError, match=r"checksum 0{32} does not fit the items"):
        Suite.parse({**suite.model_dump(mode="json"), "checksum": "0" * 32})


# ---------------------------------------------------------------------------------------------------------------- JSONL


def test_export_import_export_gives_the_same_bytes(store: Store, target: Store, tmp_path: Path) -> None:
    suite = freeze(store, "leaves", LEAVES)
    first = export_jsonl(suite, store, tmp_path / "first.jsonl")
    result = import_jsonl(first, target)
    second = export_jsonl(target.suite("leaves"), target, tmp_path / "second.jsonl")
    assert second.read_bytes() == first.read_bytes()
    assert target.suite("leaves") == suite
    assert (result.name, result.checksum, result.n_tasks) == ("leaves", suite.checksum, 4)
    assert len(result.new_environments) == 2
    assert len(result.new_tasks) == 8  # four tasks, two roots, two middles
    for entry in store.task_entries():
        assert target.task(entry.hash) == store.task(entry.hash)
        assert target.lineage(entry.hash) == store.lineage(entry.hash)


def test_imported_tasks_are_unaudited_until_gates_run(store: Store, target: Store, tmp_path: Path) -> None:
    file = export_jsonl(freeze(store, "leaves", LEAVES), store, tmp_path / "s.jsonl")
    result = import_jsonl(file, target)
    assert set(result.unaudited) == {item.task for item in target.suite("leaves").items}
    assert "4 tasks are unaudited" in str(result)
    assert "run `envsynth check --save`" in str(result)
    entries = target.task_entries()
    assert {(entry.origin, entry.status) for entry in entries} == {("imported", "unaudited")}
    task = target.task(result.unaudited[0])
    assert len(target.reports(task.hash, origin="imported")) == 1
    assert target.reports(task.hash, origin="authored") == []
    own = factory.report(task, note="our own gates")
    target.add_report(own)
    assert target.entries_of([task.hash])[task.hash].status == "passed"
    assert target.latest_report(task.hash) == own
    again = import_jsonl(file, target)
    assert (again.new_tasks, again.new_environments, len(again.unaudited)) == ((), (), 3)
    assert target.latest_report(task.hash) == own


def test_import_where_the_records_are_already_changes_no_audit(store: Store, tmp_path: Path) -> None:
    file = export_jsonl(freeze(store, "leaves", LEAVES), store, tmp_path / "s.jsonl")
    before = store.task_entries()
    result = import_jsonl(file, store)
    assert (result.new_tasks, result.unaudited) == ((), ())
    assert "unaudited" not in str(result)
    assert store.task_entries() == before


def test_a_suite_may_hold_a_task_and_its_ancestors_in_any_order(store: Store, target: Store, tmp_path: Path) -> None:
    leaf = next(entry for entry in store.task_entries() if entry.depth == 2)
    root = store.lineage(leaf.hash)[0]
    suite = freeze(store, "odd", [leaf.hash, root.hash])
    file = export_jsonl(suite, store, tmp_path / "s.jsonl")
    assert import_jsonl(file, target).checksum == suite.checksum
    assert target.suite("odd") == suite
    assert list(load_suite(file).tasks) == [leaf.hash, root.hash]


def test_load_suite_needs_no_store(store: Store, tmp_path: Path) -> None:
    suite = freeze(store, "leaves", LEAVES)
    loaded = load_suite(export_jsonl(suite, store, tmp_path / "s.jsonl"))
    assert loaded.suite == suite
    pairs = loaded.pairs()
    assert [task.hash for _, task in pairs] == [item.task for item in suite.items]
    assert all(task.environment == spec.hash for spec, task in pairs)
    assert len(loaded.ancestors) == 4
    assert loaded.reports[pairs[0][1].hash] == factory.report(pairs[0][1])


def test_every_line_is_canonical_json_with_the_header_first(store: Store, tmp_path: Path) -> None:
    suite = freeze(store, "leaves", LEAVES)
    lines = export_jsonl(suite, store, tmp_path / "s.jsonl").read_text().splitlines()
    assert all(canonical_json(json.loads(line)) == line for line in lines)
    head = json.loads(lines[0])
    assert (head["format"], head["checksum"]) == ("envsynth-suite/1", suite.checksum)
    assert head["counts"] == {"environments": 2, "ancestors": 4, "tasks": 4, "reports": 8}
    kinds = [json.loads(line)["kind"] for line in lines[1:]]
    assert kinds == ["environment"] * 2 + ["ancestor"] * 4 + ["task"] * 4 + ["report"] * 8


def edited(number: int, change: Callable[[dict], object]) -> Callable[[list[str]], None]:
    def apply(lines: list[str]) -> None:
        value = json.loads(lines[number - 1])
        change(value)
        lines[number - 1] = canonical_json(value)

    return apply


def rehashed(value: dict, key: str, new: object) -> None:
    value["record"][key] = new
    value["hash"] = content_hash(value["record"])


def swap(lines: list[str]) -> None:
    lines[7], lines[8] = lines[8], lines[7]


def drop_ancestor(lines: list[str]) -> None:
    del lines[3]
    edited(1, lambda value: value["counts"].update(ancestors=3))(lines)
    gone = [line for line in lines if '"kind":"report"' in line]
    roots = {json.loads(line)["hash"] for line in lines if '"kind":"ancestor"' in line or '"kind":"task"' in line}
    for line in gone:
        if json.loads(line)["record"]["task"] not in roots:
            lines.remove(line)
            edited(1, lambda value: value["counts"].update(reports=7))(lines)


def drop_environment(lines: list[str]) -> None:
    del lines[1]


def repeat(number: int) -> Callable[[list[str]], None]:
    return lambda lines: lines.insert(number, lines[number - 1])


DAMAGES: dict[str, tuple[Callable[[list[str]], object], str]] = {
    "empty": (lambda lines: lines.clear(), "is empty: export the suite again"),
    "no header": (lambda lines: lines.pop(0), "line 1 is no suite header"),
    "other file": (lambda lines: lines.insert(0, '{"a":1}'), "line 1 is no suite header"),
    "later format": (
        edited(1, lambda value: value.update(format="envsynth-suite/2")),
        "has format 'envsynth-suite/2', this envsynth reads 'envsynth-suite/1': upgrade envsynth",
    ),
    "header key": (edited(1, lambda value: value.update(more=1)), "line 1: .*unknown key 'more'"),
    "header count": (
        edited(1, lambda value: value["counts"].update(tasks="x")),
        r"line 1: .*counts\.tasks: .*got 'x'",
    ),
    "bad name": (edited(1, lambda value: value.update(name="A B")), "line 1: malformed Suite: name"),
    "not JSON": (lambda lines: lines.__setitem__(4, "{oops"), "line 5 is not JSON .*cut off"),
    "no object": (lambda lines: lines.__setitem__(4, "[1]"), r"line 5 is '\[1\]', not an object"),
    "blank line": (lambda lines: lines.insert(4, ""), "line 5 is not JSON"),
    "unknown kind": (edited(3, lambda value: value.update(kind="song")), "line 3: .*kind: .*got 'song'"),
    "unknown key": (
        edited(3, lambda value: value["record"]["world"]["tables"][0].update(colour=1)),
        r"line 3: malformed EnvironmentSpec: unknown key 'world\.tables\[0\]\.colour'",
    ),
    "missing key": (
        edited(9, lambda value: value["record"].pop("prompt")),
        "line 9: malformed TaskVersion: prompt: Field required",
    ),
    "edited prompt": (
        edited(9, lambda value: value["record"].update(prompt="easier")),
        r"line 9: the task says hash \w{32}, its content has \w{32}: it was edited or damaged",
    ),
    "edited row": (
        edited(2, lambda value: value["record"]["world"]["rows"]["book"][0].__setitem__(1, "x")),
        "line 2: the environment says hash",
    ),
    "surrogate": (
        lambda lines: lines.__setitem__(8, lines[8].replace("How many", "\\ud800", 1)),
        r"line 9: malformed TaskVersion: prompt: .*\\ud800",
    ),
    "edited with hash": (
        edited(9, lambda value: rehashed(value, "prompt", "easier")),
        r"line \d+: a gate report of task \w{32} in environment \w{32}, which is not here",
    ),
    "reordered": (swap, "tasks were exchanged or reordered"),
    "cut off": (lambda lines: lines.pop(), "promises 8 report lines, the file holds 7: it is cut off"),
    "half a line": (lambda lines: lines.__setitem__(-1, lines[-1][:50]), "line 19 is not JSON"),
    "environment gone": (drop_environment, "its environment .* stands on no line before"),
    "ancestor gone": (drop_ancestor, r"line \d+: the parent \w{32} of this task stands on no line"),
    "environment twice": (repeat(2), "line 3: environment .* stands on line 2 already"),
    "task twice": (repeat(9), "line 10: task .* stands in the file twice"),
    "report twice": (repeat(12), "line 13: gate report of task .* stands on line 12 already"),
    "wrong order": (
        lambda lines: lines.append(lines.pop(1)),
        "its environment .* stands on no line before",
    ),
    "late ancestor": (lambda lines: lines.insert(10, lines.pop(3)), "line 11: a line of kind 'ancestor' stands after"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_a_damaged_file_is_refused_whole(store: Store, target: Store, tmp_path: Path, case: str) -> None:
    damage, message = DAMAGES[case]
    file = export_jsonl(freeze(store, "leaves", LEAVES), store, tmp_path / "s.jsonl")
    lines = file.read_text().splitlines()
    damage(lines)
    file.write_text("".join(f"{line}\n" for line in lines))
    with pytest.raises(SuiteError, match=message):
        import_jsonl(file, target)
    with pytest.raises(SuiteError, match=message):
        load_suite(file)
    assert nothing_in(target)


def test_files_that_cannot_be_read(target: Store, tmp_path: Path) -> None:
    (tmp_path / "latin.jsonl").write_bytes('{"kind":"suite","name":"Bücher"}'.encode("latin-1"))
    with pytest.raises(SuiteError, match=r"latin.jsonl line 1 is not UTF-8"):
        import_jsonl(tmp_path / "latin.jsonl", target)
    with pytest.raises(SuiteError, match=r"cannot read suite .*no.jsonl: No such file"):
        import_jsonl(tmp_path / "no.jsonl", target)
    with pytest.raises(SuiteError, match=r"cannot read suite .*: Is a directory"):
        load_suite(tmp_path)
    with pytest.raises(SuiteError, match="has not been read to its end"):
        _ = SuiteReader(tmp_path / "no.jsonl").suite


def test_import_that_clashes_with_the_store_is_refused_whole(store: Store, target: Store, tmp_path: Path) -> None:
    file = export_jsonl(freeze(store, "leaves", LEAVES), store, tmp_path / "s.jsonl")
    taken = factory.environment(1).model_copy(update={"title": "another library"})
    target.add_environment(taken)
    with pytest.raises(StoreError, match=r"cannot import .*s\.jsonl: .*slug 'library-1' belongs to"):
        import_jsonl(file, target)
    assert [entry.hash for entry in target.environment_entries()] == [taken.hash]
    assert target.task_entries() == []


def test_import_under_a_taken_name_is_refused(store: Store, target: Store, tmp_path: Path) -> None:
    file = export_jsonl(freeze(store, "leaves", LEAVES), store, tmp_path / "s.jsonl")
    home = factory.environment(9)
    task = factory.task(home)
    target.add_environment(home)
    target.add_task(task, factory.report(task))
    freeze(target, "leaves", LEAVES)
    with pytest.raises(SuiteError, match=r"'leaves' .* is frozen with 1 tasks .* this one has 4"):
        import_jsonl(file, target)
    assert len(target.task_entries()) == 1


def test_import_into_a_read_only_store(store: Store, target: Store, tmp_path: Path) -> None:
    file = export_jsonl(freeze(store, "leaves", LEAVES), store, tmp_path / "s.jsonl")
    with (
        Store.open(target.where, readonly=True) as reader,
        pytest.raises(StoreError, match=r"cannot import .*was opened read-only"),
    ):
        import_jsonl(file, reader)


def test_a_full_disk_leaves_the_older_file(store: Store, tmp_path: Path) -> None:
    suite = freeze(store, "leaves", LEAVES)
    file = tmp_path / "out" / "s.jsonl"
    file.parent.mkdir()
    file.write_text("older")

    def limited() -> str:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        return str(export_jsonl(suite, store, file))

    def limited_parquet() -> str:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        return str(export_parquet(suite, store, file))

    for export in (limited, limited_parquet):
        text = in_child(export, plain_user=False)
        assert text.startswith("SuiteError: cannot write")
        assert "File too large; nothing was written: check that the folder exists" in text
        assert [item.name for item in file.parent.iterdir()] == ["s.jsonl"]
        assert file.read_text() == "older"


def test_export_into_nowhere(store: Store, tmp_path: Path) -> None:
    suite = freeze(store, "leaves", LEAVES)
    for export in (export_jsonl, export_parquet):
        with pytest.raises(SuiteError, match="No such file or directory; nothing was written"):
            export(suite, store, tmp_path / "no" / "s")


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(titles=st.lists(texts, min_size=1, max_size=3), prompts=st.lists(texts.filter(bool), min_size=1, max_size=3))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_survives_the_round_trip(
    tmp_path_factory: pytest.TempPathFactory, titles: list[str], prompts: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("round")
    with Store.open(folder / "a.db") as one, Store.open(folder / "b.db") as two:
        for number, title in enumerate(titles):
            spec = factory.environment(number).model_copy(update={"title": title})
            one.add_environment(spec)
            for prompt in prompts:
                task = factory.task(spec).model_copy(update={"prompt": prompt})
                one.add_task(task, factory.report(task, note=prompt))
        first = export_jsonl(freeze(one, "all", TaskQuery(), titles[0]), one, folder / "a.jsonl")
        second = export_jsonl(two.suite(import_jsonl(first, two).name), two, folder / "b.jsonl")
        assert first.read_bytes() == second.read_bytes()
        assert [spec.to_json() for spec in two.environments()] == [spec.to_json() for spec in one.environments()]
        assert [task.to_json() for task in two.tasks()] == [task.to_json() for task in one.tasks()]


def test_the_package_has_no_other_names() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        envsynth.suite.nothing  # noqa: B018


# -------------------------------------------------------------------------------------------------------------- Parquet


def test_parquet_has_one_row_per_task(store: Store, tmp_path: Path) -> None:
    suite = freeze(store, "leaves", LEAVES)
    table = pyarrow.parquet.read_table(export_parquet(suite, store, tmp_path / "s.parquet"))
    rows = table.to_pylist()
    assert [row["task_id"] for row in rows] == [item.task for item in suite.items]
    assert table.schema.metadata[b"envsynth.checksum"].decode() == suite.checksum
    for position, row in enumerate(rows):
        task = store.task(row["task_id"])
        assert row["position"] == position
        assert EnvironmentSpec.from_json(row["environment"]).hash == task.environment
        assert row["prompt"] == [{"role": "user", "content": task.prompt}]
        assert json.loads(row["tools"])[0]["function"]["name"] == "list_books"
        assert json.loads(row["verifier"]) == task.verifier.model_dump(mode="json")
        assert json.loads(row["gate_report"])["task"] == task.hash
        assert (row["solution"], row["status"]) == (task.solution, "passed")


def test_parquet_rows_and_policy_become_messages(store: Store, tmp_path: Path) -> None:
    spec = factory.environment(5).model_copy(update={"policy": ("Be kind.", "Ask twice.")})
    task = factory.task(spec)
    store.add_environment(spec)
    store.add_task(task)
    suite = freeze(store, "one", [task.hash])
    (row,) = pyarrow.parquet.read_table(export_parquet(suite, store, tmp_path / "s.parquet")).to_pylist()
    assert row["prompt"][0] == {"role": "system", "content": "Be kind.\nAsk twice."}
    assert (row["status"], row["gate_report"]) == ("unaudited", None)


def test_the_public_half_holds_nothing_private(store: Store, tmp_path: Path) -> None:
    spec = factory.environment(5)
    task = factory.task(spec).model_copy(
        update={"solution": "def solve(call):\n    return 'Geheimnis'\n", "ir": {"goal": "Geheimnis"}}
    )
    task = TaskVersion.parse(task.model_dump(mode="json"))
    store.add_environment(spec)
    store.add_task(task, factory.report(task, note="Geheimnis"))
    suite = freeze(store, "one", [task.hash])
    whole, half = tmp_path / "whole.parquet", tmp_path / "half.parquet"
    whole_row = pyarrow.parquet.read_table(export_parquet(suite, store, whole)).to_pylist()[0]
    half_row = pyarrow.parquet.read_table(export_parquet(suite, store, half, include_private=False)).to_pylist()[0]
    assert set(whole_row) - set(half_row) == set(parquet.PRIVATE)
    assert "Geheimnis" in json.dumps(whole_row)
    assert "Geheimnis" not in json.dumps(half_row)
    assert half_row == {key: value for key, value in whole_row.items() if key in half_row}


def test_the_faults_of_a_task_travel_with_it(store: Store, tmp_path: Path) -> None:
    spec, faults = factory.environment(5), [{"tool": "list_books", "call": 2, "kind": "unavailable", "calls": 3}]
    task = TaskVersion.parse({**factory.task(spec).model_dump(mode="json"), "kind": "recover", "faults": faults})
    store.add_environment(spec)
    store.add_task(task)
    assert store.task(task.hash).faults == task.faults
    assert [entry.hash for entry in store.task_entries(TaskQuery(kind="recover"))] == [task.hash]
    suite = freeze(store, "one", [task.hash])
    loaded = load_suite(export_jsonl(suite, store, tmp_path / "s.jsonl"))
    assert [found.faults for found in loaded.tasks.values()] == [task.faults]
    whole, half = tmp_path / "whole.parquet", tmp_path / "half.parquet"
    (row,) = pyarrow.parquet.read_table(export_parquet(suite, store, whole)).to_pylist()
    assert json.loads(row["faults"]) == faults
    (row,) = pyarrow.parquet.read_table(export_parquet(suite, store, half, include_private=False)).to_pylist()
    assert row["kind"] == "recover"
    assert "unavailable" not in json.dumps(row)


def test_the_delivery_of_a_task_travels_with_it(store: Store, tmp_path: Path) -> None:
    spec = factory.environment(5)
    user = [{"topic": "limit", "says": "Geheimnis"}]
    given = {"max_calls": 7, "withheld": ["list_books"], "user": user}
    task = TaskVersion.parse({**factory.task(spec).model_dump(mode="json"), "delivery": given})
    store.add_environment(spec)
    store.add_task(task)
    assert store.task(task.hash).delivery == task.delivery
    suite = freeze(store, "one", [task.hash])
    loaded = load_suite(export_jsonl(suite, store, tmp_path / "s.jsonl"))
    assert [found.delivery for found in loaded.tasks.values()] == [task.delivery]
    whole, half = tmp_path / "whole.parquet", tmp_path / "half.parquet"
    (row,) = pyarrow.parquet.read_table(export_parquet(suite, store, whole)).to_pylist()
    assert json.loads(row["delivery"]) == given
    (row,) = pyarrow.parquet.read_table(export_parquet(suite, store, half, include_private=False)).to_pylist()
    assert row["max_calls"] == 7
    names = [tool["function"]["name"] for tool in json.loads(row["tools"])]
    assert "ask_user" in names
    assert "list_books" not in names
    assert "Geheimnis" not in json.dumps(row)


def test_parquet_is_the_same_twice(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "ROWS_PER_GROUP", 3)
    suite = freeze(store, "leaves", LEAVES)
    first = export_parquet(suite, store, tmp_path / "a.parquet").read_bytes()
    assert export_parquet(suite, store, tmp_path / "b.parquet").read_bytes() == first
    assert pyarrow.parquet.read_metadata(tmp_path / "a.parquet").num_row_groups == 2


def test_without_pyarrow_the_extra_is_named(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> object:
        raise ImportError(name)

    suite = freeze(store, "leaves", LEAVES)
    monkeypatch.setattr(parquet.importlib, "import_module", absent)
    with pytest.raises(MissingExtra, match=r"pip install 'envsynth\[export\]'"):
        export_parquet(suite, store, tmp_path / "s.parquet")
