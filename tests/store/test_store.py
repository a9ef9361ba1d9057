"""What the store keeps, finds and refuses."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from envsynth.errors import SpecNotFound, StoreError
from envsynth.record import canonical_json, content_hash
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.store import Rejection, Store, TaskQuery
from tests.store import factory


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store.db") as opened:
        yield opened


def tree(store: Store) -> tuple[EnvironmentSpec, TaskVersion, TaskVersion, TaskVersion, TaskVersion]:
    """Store root -> left, root -> right -> leaf."""
    home = factory.environment()
    root = factory.task(home)
    left = factory.task(home, 1, root)
    right = factory.task(home, 2, root, kind="act")
    leaf = factory.task(home, 3, right)
    store.add_environment(home)
    for task in (root, left, right, leaf):
        store.add_task(task, factory.report(task))
    return home, root, left, right, leaf


def test_add_is_idempotent(store: Store) -> None:
    home = factory.environment()
    task = factory.task(home)
    for _ in range(2):
        assert store.add_environment(home) == home.hash
        assert store.add_task(task, factory.report(task)) == task.hash
        store.add_trajectories([factory.trajectory(task)])
        store.add_rejections([factory.rejection(home)])
    assert [entry.hash for entry in store.environment_entries()] == [home.hash]
    assert [entry.hash for entry in store.task_entries()] == [task.hash]
    assert store.reports(task.hash) == [factory.report(task)]
    assert store.trajectories() == [factory.trajectory(task)]
    assert store.rejections() == [factory.rejection(home)]


def test_records_come_back_equal_from_a_new_connection(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s.db") as store:
        home, root, *_ = tree(store)
    with Store.open(tmp_path / "s.db") as store:
        assert store.environment(home.hash) == home
        assert store.environments() == [home]
        assert store.task(root.hash) == root
        assert len(store.tasks()) == 4


def test_references_are_hash_prefix_or_slug(store: Store) -> None:
    home, *_ = tree(store)
    lone = factory.environment(7)
    only = factory.task(lone)
    store.add_environment(lone)
    store.add_task(only, factory.report(only))
    assert store.environment(lone.slug) == store.environment(lone.hash[:8]) == lone
    assert store.task(only.hash[:8]) == store.task(lone.slug) == only
    assert store.tasks(environment=lone.hash[:8]) == [only]
    with pytest.raises(StoreError, match=r"'library' names several environments.*library-0.*library-7"):
        store.environment("library")
    with pytest.raises(StoreError, match=r"names several tasks.*depth 1.*depth 2"):
        store.task(home.slug)
    for ref in ("", "zzzz", "0", "%", "library_0"):
        with pytest.raises(SpecNotFound, match="no environment"):
            store.environment(ref)
        with pytest.raises(SpecNotFound, match="no task"):
            store.task(ref)


def test_ambiguous_prefix_lists_candidates(store: Store) -> None:
    by_prefix: dict[str, list[EnvironmentSpec]] = {}
    for number in range(2000):
        spec = factory.environment(number, rows=0)
        same = by_prefix.setdefault(spec.hash[:4], [])
        same.append(spec)
        if len(same) == 2:
            break
    for spec in same:
        store.add_environment(spec)
    with pytest.raises(StoreError) as caught:
        store.environment(same[0].hash[:4])
    assert all(spec.hash in str(caught.value) for spec in same)
    assert "give more of the hash" in str(caught.value)


def test_lineage_children_and_descendants(store: Store) -> None:
    _, root, left, right, leaf = tree(store)
    assert store.lineage(leaf.hash) == [root, right, leaf]
    assert store.lineage(root.hash) == [root]
    assert store.children(root.hash) == sorted([left, right], key=lambda task: task.hash)
    assert store.children(leaf.hash) == []
    assert [entry.hash for entry in store.descendants(right.hash)] == [right.hash, leaf.hash]
    assert len(store.descendants(root.hash)) == 4


def test_leaves_and_other_conditions(store: Store) -> None:
    home, root, left, right, leaf = tree(store)

    def hashes(**keys: object) -> set[str]:
        return {entry.hash for entry in store.task_entries(TaskQuery(**keys))}

    assert {task.hash for task in store.tasks(leaves_only=True)} == {left.hash, leaf.hash}
    assert store.tasks(kind="act") == [right]
    assert hashes(min_depth=1, max_depth=1) == {left.hash, right.hash}
    assert hashes(operator="constraint") == {left.hash, right.hash, leaf.hash}
    assert hashes(category="lending books", environment=home.slug) == hashes()
    assert hashes(category="another") == set()
    assert hashes(status="unaudited") == set()
    # A re-audit that fails takes a task out of play; its parent is a leaf again.
    store.add_report(factory.report(leaf, ok=False))
    assert hashes(leaves_only=True) == {left.hash, right.hash}
    assert hashes(status="failed") == {leaf.hash}
    assert root.hash not in hashes(leaves_only=True)


def test_children_may_be_added_before_their_parents_in_one_batch(store: Store) -> None:
    home = factory.environment()
    root = factory.task(home)
    child = factory.task(home, 1, root)
    with store.batch() as batch:
        batch.add_task(child)
        batch.add_task(root)
        batch.add_environment(home)
    assert store.lineage(child.hash) == [root, child]
    assert set(batch.new_tasks) == {root.hash, child.hash}


def test_reports_keep_history_and_the_latest_decides(store: Store) -> None:
    home = factory.environment()
    task = factory.task(home)
    store.add_environment(home)
    store.add_task(task)
    assert store.latest_report(task.hash) is None
    assert store.task_entries()[0].status == "unaudited"
    good, bad = factory.report(task), factory.report(task, ok=False)
    for report in (good, good, bad, good):
        store.add_report(report)
    assert store.reports(task.hash) == [good, bad, good]
    assert store.latest_report(task.hash) == good
    assert store.task_entries()[0].status == "passed"


def test_a_report_that_leaves_gates_out_audits_nothing_and_replaces_nothing(store: Store) -> None:
    home = factory.environment()
    task = factory.task(home)
    store.add_environment(home)
    store.add_task(task)
    whole = factory.report(task)
    part = whole.model_copy(update={"whole": False})
    store.add_report(part)
    assert store.task_entries()[0].status == "unaudited"
    assert store.latest_report(task.hash) == part
    store.add_report(whole)
    assert store.task_entries()[0].status == "passed"
    store.add_report(part)
    assert store.task_entries()[0].status == "passed"
    assert store.reports(task.hash) == [part, whole]


def test_latest_reports_of_many_are_those_of_each(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envsynth.store.reader._CHUNK", 2)
    home = factory.environment()
    store.add_environment(home)
    tasks = [factory.task(home, number) for number in range(5)]
    for number, task in enumerate(tasks):
        store.add_task(task)
        for turn in range(number):
            store.add_report(factory.report(task, ok=turn % 2 == 0))
    hashes = [task.hash for task in reversed(tasks)]
    wanted = [store.latest_report(digest) for digest in hashes]
    assert wanted[-1] is None
    assert list(store.latest_reports(hashes)) == wanted[:-1]
    assert [report.ok for report in wanted[:-1]] == [False, True, False, True]


def test_why_was_this_rejected(store: Store) -> None:
    home, root, *_ = tree(store)
    store.start_run("r", "synthesize", {})
    tie = factory.rejection(home, "tie", parent=root.hash, operator="hop", draft={"ir": [1]})
    cap = factory.rejection(None, "search_cap")
    store.commit_unit("r", 0, rejections=[tie, cap])
    store.add_rejections([factory.rejection(None, "tie")])
    assert store.rejections(home.slug) == store.rejections(home.hash[:6]) == [tie]
    assert store.rejections(code="search_cap") == [cap]
    assert store.rejections(parent=root.hash) == [tie]
    assert store.rejections(run="r") == [tie, cap]
    assert store.rejection_counts() == {("oracle", "tie"): 2, ("oracle", "search_cap"): 1}
    twice = [factory.rejection(home, "again")] * 2
    for _ in range(2):
        store.add_rejections(twice)
    assert store.rejections(code="again") == twice
    store.add_rejections([*twice, *twice, factory.rejection(home, "other")])
    assert store.rejections(code="again") == [*twice, *twice]


def test_more_records_than_one_statement_asks_for(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("envsynth.store.batch._MOST_ASKED", 2)
    home = factory.environment()
    root = factory.task(home)
    tasks = [root, *(factory.task(home, number, root) for number in range(1, 6))]
    refused = [factory.rejection(home, f"code {number}") for number in range(5)]
    store.start_run("r", "synthesize", {})
    store.add_rejections(refused[:3])
    for _ in range(2):
        store.commit_unit(
            "r", 0, environment=home, tasks=[(task, factory.report(task)) for task in tasks], rejections=refused
        )
        store.add_rejections(refused)
    assert {entry.hash for entry in store.task_entries()} == {task.hash for task in tasks}
    assert store.rejections(run="r") == refused
    assert len(store.rejections()) == 2 * len(refused)


def test_of_two_reports_in_one_unit_the_later_one_counts(store: Store) -> None:
    home = factory.environment()
    task = factory.task(home)
    good, bad = factory.report(task), factory.report(task, ok=False)
    store.start_run("r", "synthesize", {})
    store.commit_unit("r", 0, environment=home, tasks=[(task, good), (task, bad), (task, bad)])
    assert store.reports(task.hash) == [good, bad]
    assert store.task_entries()[0].status == "failed"


def test_runs_resume_and_finish(store: Store) -> None:
    home = factory.environment()
    task = factory.task(home)
    store.start_run("r", "synthesize", {"seed": 1})
    accepted = [(task, factory.report(task))]
    assert store.commit_unit("r", 3, environment=home, tasks=accepted)
    assert not store.commit_unit("r", 3, environment=home, tasks=accepted)
    assert store.commit_unit("r", 4)
    store.start_run("r", "synthesize", {"seed": 1})
    assert store.done_units("r") == {3, 4}
    assert store.done_units("unknown") == set()
    first, second = store.units("r")
    assert (first.environment, first.tasks) == (home.hash, (task.hash,))
    assert (second.environment, second.tasks) == (None, ())
    store.finish_run("r")
    (entry,) = store.runs()
    assert (entry.finished, entry.n_units, entry.n_tasks, entry.n_rejections) == (True, 2, 1, 0)
    assert entry.params == {"seed": 1}


def test_a_unit_is_all_or_nothing(store: Store) -> None:
    home, other = factory.environment(1), factory.environment(2)
    store.start_run("r", "synthesize", {})
    good, stray = factory.task(home), factory.task(other)
    with pytest.raises(StoreError, match=f"its environment {other.hash} is not in the store"):
        store.commit_unit(
            "r",
            0,
            environment=home,
            tasks=[(good, factory.report(good)), (stray, factory.report(stray))],
            rejections=[factory.rejection(home)],
        )
    assert store.environment_entries() == [] == store.task_entries()
    assert store.rejections() == []
    assert store.done_units("r") == set()


def test_a_batch_that_raises_writes_nothing(store: Store) -> None:

    def interrupted() -> None:
        with store.batch() as batch:
            batch.add_environment(factory.environment())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert store.environment_entries() == []


def test_trajectories_by_task_and_actor(store: Store) -> None:
    _, root, left, *_ = tree(store)
    episodes = [
        factory.trajectory(root, seed=2**70),
        factory.trajectory(root, seed=1, actor="idle"),
        factory.trajectory(left),
    ]
    hashes = store.add_trajectories(episodes)
    assert hashes == [episode.hash for episode in episodes]
    assert store.trajectories() == episodes
    assert store.trajectories(root.hash) == episodes[:2]
    assert store.trajectories(root.hash, actor="idle") == [episodes[1]]


def _refusals(store: Store) -> dict[str, tuple[object, str]]:
    home, root, *_ = tree(store)
    twin = home.model_copy(update={"title": "another"})
    orphan = factory.task(home, 9, factory.task(home, 8))
    deep = factory.task(home, 9, root)
    deep = deep.model_copy(update={"lineage": deep.lineage.model_copy(update={"depth": 5})})
    stranger = factory.task(factory.environment(5))
    store.start_run("r", "synthesize", {"seed": 1})
    store.commit_unit("r", 0, environment=home)
    return {
        "slug taken": (
            lambda: store.add_environment(twin),
            rf"its slug 'library-0' belongs to environment {home.hash}.*give it a slug of its own",
        ),
        "orphan": (lambda: store.add_task(orphan), r"its parent task \w{32} is not in the store"),
        "depth": (lambda: store.add_task(deep), "its depth is 5, its parent .* has depth 0"),
        "no environment": (lambda: store.add_task(stranger), "its environment .* is not in the"),
        "wrong report": (
            lambda: store.add_task(root, factory.report(stranger)),
            f"its gate report is of task {stranger.hash}",
        ),
        "report of nobody": (
            lambda: store.add_report(factory.report(stranger)),
            f"its task {stranger.hash} is not in the store",
        ),
        "trajectory of nobody": (
            lambda: store.add_trajectories([factory.trajectory(stranger)]),
            f"its task {stranger.hash} is not in the store",
        ),
        "no run": (lambda: store.commit_unit("q", 0), "no run 'q': start it with start_run"),
        "other params": (
            lambda: store.start_run("r", "synthesize", {"seed": 2}),
            r'was started as synthesize with \{"seed":1\}.*resume it with the same options',
        ),
        "unit differs": (
            lambda: store.commit_unit("r", 0, environment=factory.environment(6)),
            "unit 0 of run 'r' was committed before with another result",
        ),
        "finish nothing": (lambda: store.finish_run("q"), "no run 'q'"),
        "no suite": (lambda: store.suite("q"), "no suite 'q'"),
        "nothing by hash": (lambda: store.task_json("0" * 32), "no task 0{32}"),
    }


@pytest.mark.parametrize(
    "case",
    [
        "slug taken",
        "orphan",
        "depth",
        "no environment",
        "wrong report",
        "report of nobody",
        "trajectory of nobody",
        "no run",
        "other params",
        "unit differs",
        "finish nothing",
        "no suite",
        "nothing by hash",
    ],
)
def test_refusals_say_what_and_what_to_do(store: Store, case: str) -> None:
    action, message = _refusals(store)[case]
    before = (store.environment_entries(), store.task_entries(), store.runs())
    with pytest.raises(StoreError, match=message):
        action()  # type: ignore[operator]
    assert (store.environment_entries(), store.task_entries(), store.runs()) == before


@pytest.mark.parametrize("table", ["environment", "task_version", "gate_report", "trajectory"])
def test_a_damaged_row_is_named(store: Store, table: str) -> None:
    _, root, *_ = tree(store)
    store.add_trajectories([factory.trajectory(root)])
    reads = {
        "environment": store.environments,
        "task_version": store.tasks,
        "gate_report": lambda: store.reports(root.hash),
        "trajectory": store.trajectories,
    }
    with sqlite3.connect(store.where) as raw:
        raw.execute(f"UPDATE {table} SET json = replace(json, 'env', 'ENV')")
    raw.close()
    with pytest.raises(StoreError, match=r"\w+ [0-9a-f]{32} in store .* is damaged.*restore a copy"):
        reads[table]()


def test_a_record_of_a_later_format_is_refused_not_misread(store: Store) -> None:
    home = factory.environment()
    value = {**json.loads(home.to_json()), "later": 1}
    text = canonical_json(value)
    store.add_environment(home)
    with sqlite3.connect(store.where) as raw:
        digest = raw.execute("SELECT hash FROM environment").fetchone()[0]
        from_text = content_hash(value)
        raw.execute("UPDATE environment SET json = ?, hash = ?", (text, from_text))
    raw.close()
    assert digest != from_text
    with pytest.raises(StoreError, match=r"cannot be read by this envsynth.*unknown key 'later'"):
        store.environment(from_text)


def test_a_broken_lineage_is_named(store: Store) -> None:
    _, root, left, right, leaf = tree(store)
    with sqlite3.connect(store.where) as raw:
        raw.execute("UPDATE task_version SET parent = ? WHERE hash = ?", (left.hash, leaf.hash))
        raw.execute("UPDATE task_version SET parent = ? WHERE hash = ?", (leaf.hash, root.hash))
    raw.close()
    with pytest.raises(StoreError, match=f"lineage of task {leaf.hash} .* is broken"):
        store.lineage(leaf.hash)
    assert len(store.descendants(right.hash)) == 1  # a circle in the index ends


def test_threads_share_a_store(store: Store) -> None:
    store.start_run("r", "synthesize", {})

    def work(part: int) -> None:
        for number in range(5):
            spec = factory.environment(part * 5 + number)
            store.commit_unit("r", part * 5 + number, environment=spec)

    threads = [threading.Thread(target=work, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.done_units("r") == set(range(20))
    assert len(store.environment_entries()) == 20


def test_a_forked_child_gets_connections_of_its_own(store: Store) -> None:
    store.add_environment(factory.environment(1))
    child = os.fork()
    if child == 0:
        try:
            store.add_environment(factory.environment(2))
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    store.add_environment(factory.environment(3))
    assert len(store.environment_entries()) == 3


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
scalars = st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
plain = st.recursive(scalars | st.booleans(), lambda x: st.lists(x, max_size=3) | st.dictionaries(texts, x, max_size=3))


@given(
    title=texts,
    rows=st.lists(st.tuples(scalars, scalars), max_size=4),
    details=st.dictionaries(texts, plain, max_size=3),
    prompt=texts.filter(bool),
    answer=st.dictionaries(texts, plain, max_size=3),
    seed=st.integers(),
)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_record_round_trips(store: Store, title, rows, details, prompt, answer, seed) -> None:
    spec = factory.environment()
    value = spec.model_dump(mode="json")
    value["title"], value["world"]["rows"], value["provenance"]["details"] = title, {"book": rows}, details
    spec = EnvironmentSpec.parse(value)
    spec = spec.model_copy(update={"slug": f"e-{spec.hash}"})
    task = factory.task(spec).model_copy(update={"prompt": prompt})
    episode = factory.trajectory(task, seed).model_copy(update={"answer": answer})
    refused = Rejection(environment=spec.hash, stage="s", code="c", message=title, draft=answer)
    store.add_environment(spec)
    store.add_task(task, factory.report(task, note=title))
    store.add_trajectories([episode])
    store.add_rejections([refused])
    assert store.environment(spec.hash).to_json() == spec.to_json()
    assert store.task(task.hash).to_json() == task.to_json()
    assert store.latest_report(task.hash) == factory.report(task, note=title)
    assert episode.to_json() in {item.to_json() for item in store.trajectories(task.hash)}
    assert refused.to_json() in {item.to_json() for item in store.rejections(spec.hash)}
