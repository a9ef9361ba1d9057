"""The pipeline stores what it makes, resumes where it was stopped, and gives equal hashes in any number of processes."""

from __future__ import annotations

import functools
import importlib.util
import os
from collections import Counter

import pytest

from envsynth import pipeline
from envsynth.author.procedural.author import AUTHOR
from envsynth.errors import AuthorError, SandboxError, SpecError, SpecNotFound, WorkError
from envsynth.hardening import Lineage
from envsynth.pipeline import REDRAWS, UnitRequest, harden_stored, make_unit, read_categories, synthesize
from envsynth.store import Store

CATEGORY = "booking laboratory equipment"
SMALL = {"seed": "1", "lineages": 1, "steps": 1}


@pytest.fixture(scope="module")
def made():
    """Makes each unit once for all tests that do not ask how it is made."""
    return functools.cache(make_unit)


@pytest.fixture
def store(tmp_path):
    with Store.open(tmp_path / "store.db") as opened:
        yield opened


@pytest.fixture
def quick(monkeypatch, made):
    """`synthesize` over units that are made once; lists which were asked for."""
    asked: list[int] = []

    def counted(request):
        asked.append(request.index)
        return made(request)

    monkeypatch.setattr(pipeline, "make_unit", counted)
    return asked


def test_units_are_stored_with_everything(store, quick):
    seen = []
    result = synthesize(CATEGORY, count=2, store=store, on_unit=seen.append, **SMALL)
    assert quick == [0, 1]
    assert [unit.index for unit in seen] == [0, 1]
    assert result.environments == [unit.environment.hash for unit in seen]
    assert result.tasks == [task.hash for unit in seen for task, _ in unit.tasks]
    assert result.resumed == 0
    assert result.rejections == Counter(item.code for unit in seen for item in unit.rejections)
    for unit in seen:
        assert store.environment(unit.environment.hash) == unit.environment
        for task, report in unit.tasks:
            assert store.task(task.hash) == task
            assert store.latest_report(task.hash) == report
            assert report.ok
        kept = store.rejections(unit.environment.hash)
        assert {item.code for item in kept} == {item.code for item in unit.rejections}  # equal ones are kept once
    (run,) = store.runs()
    assert run.key == result.run
    assert run.finished
    assert store.done_units(result.run) == {0, 1}


def test_parents_come_before_their_children(store, quick):
    result = synthesize(CATEGORY, count=2, store=store, **SMALL)
    tasks = [store.task(ref) for ref in result.tasks]
    seen: list[str] = []
    for task in tasks:
        assert task.lineage.parent is None or task.lineage.parent in seen
        seen.append(task.hash)
    assert any(task.lineage.parent for task in tasks)


def test_a_finished_run_makes_nothing_again(store, quick):
    first = synthesize(CATEGORY, count=2, store=store, **SMALL)
    again = synthesize(CATEGORY, count=2, store=store, **SMALL)
    assert quick == [0, 1]
    assert again.resumed == 2
    assert (again.run, again.environments, again.tasks) == (first.run, first.environments, first.tasks)


def test_a_higher_count_continues_the_run_and_a_lower_one_lists_its_part(store, quick):
    one = synthesize(CATEGORY, count=1, store=store, **SMALL)
    two = synthesize(f" {CATEGORY} ", count=2, store=store, **{**SMALL, "seed": 1})
    assert quick == [0, 1]
    assert (two.run, two.resumed) == (one.run, 1)
    assert two.environments[:1] == one.environments
    assert len(two.environments) == 2
    part = synthesize(CATEGORY, count=1, store=store, **SMALL)
    assert (part.environments, part.tasks) == (one.environments, one.tasks)


def test_other_settings_are_another_run(store, quick):
    first = synthesize(CATEGORY, count=1, store=store, **SMALL)
    second = synthesize(CATEGORY, count=1, store=store, **{**SMALL, "steps": 0})
    assert second.run != first.run
    assert second.environments == first.environments
    assert second.tasks == first.tasks[:1]


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_run_resumes_and_gives_the_same(store, quick, tmp_path, interruption):
    def stop(unit):
        raise interruption

    with pytest.raises(interruption):
        synthesize(CATEGORY, count=2, store=store, on_unit=stop, **SMALL)
    assert len(store.environments()) == 1  # what was finished is stored
    resumed = synthesize(CATEGORY, count=2, store=store, **SMALL)
    assert quick == [0, 1]
    assert resumed.resumed == 1
    with Store.open(tmp_path / "other.db") as other:
        whole = synthesize(CATEGORY, count=2, store=other, **SMALL)
    assert (resumed.run, resumed.environments, resumed.tasks) == (whole.run, whole.environments, whole.tasks)


def test_a_failing_unit_keeps_those_before_it(store, quick, monkeypatch, made):
    def fails(request):
        if request.index == 1:
            raise AuthorError("no task passed the gates")
        return made(request)

    monkeypatch.setattr(pipeline, "make_unit", fails)
    with pytest.raises(WorkError, match="no task passed the gates"):
        synthesize(CATEGORY, count=3, store=store, **SMALL)
    (run,) = store.runs()
    assert store.done_units(run.key) == {0}
    assert not run.finished


NO_RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed (extra [ray])")


@pytest.mark.slow
@pytest.mark.parametrize(
    "executor", ["pool", pytest.param("ray", marks=(NO_RAY, pytest.mark.filterwarnings("default")))]
)
def test_executors_do_not_change_what_is_made(store, tmp_path, executor):
    alone = synthesize(CATEGORY, count=3, store=store, executor="serial", **SMALL)
    with Store.open(tmp_path / "other.db") as other:
        together = synthesize(CATEGORY, count=3, store=other, workers=2, executor=executor, **SMALL)
        assert (together.environments, together.tasks) == (alone.environments, alone.tasks)
        assert together.dataset == alone.dataset == other.dataset_hash(alone.run)
        assert together.rejections == alone.rejections
        assert [other.task(ref) for ref in together.tasks] == [store.task(ref) for ref in alone.tasks]


def test_the_hash_of_a_data_set_is_over_its_units_in_order(store, quick, tmp_path):
    whole = synthesize(CATEGORY, count=2, store=store, **SMALL)
    assert whole.dataset == store.dataset_hash(whole.run) == store.dataset_hash(whole.run, 2)
    first = synthesize(CATEGORY, count=1, store=store, **SMALL)
    assert first.dataset == store.dataset_hash(whole.run, 1) != whole.dataset
    with Store.open(tmp_path / "other.db") as other:
        other.start_run(whole.run, "synthesize", {})
        for unit in reversed(store.units(whole.run)):  # the order of arrival says nothing
            tasks = [(store.task(ref), store.latest_report(ref)) for ref in unit.tasks]
            other.commit_unit(whole.run, unit.unit, environment=store.environment(unit.environment), tasks=tasks)
        assert other.dataset_hash(whole.run) == whole.dataset
        other.commit_unit(whole.run, 7)
        assert other.dataset_hash(whole.run) != whole.dataset
    with pytest.raises(SpecNotFound, match="no run 'nothing'"):
        store.dataset_hash("nothing")


def test_what_is_left_to_do_is_told_before_the_first_unit(store, quick):
    told = []
    synthesize(CATEGORY, count=1, store=store, on_start=lambda missing: told.append((missing, list(quick))), **SMALL)
    synthesize(CATEGORY, count=2, store=store, on_start=lambda missing: told.append((missing, list(quick))), **SMALL)
    assert told == [(1, []), (1, [0])]


def test_a_unit_is_a_function_of_its_request(made):
    request = UnitRequest(category=CATEGORY, index=0, **SMALL)
    assert make_unit(request) == made(request)


@pytest.mark.parametrize("name", ["count", "lineages", "workers"])
def test_numbers_below_one_are_refused(store, name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        synthesize(CATEGORY, store=store, **{"count": 1, **SMALL, name: 0})
    assert store.runs() == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_lineages_are_a_number(store, value):
    with pytest.raises(ValueError, match="lineages must be a number"):
        synthesize(CATEGORY, store=store, **{"count": 1, **SMALL, "lineages": value})
    assert store.runs() == []


@pytest.mark.parametrize(
    ("lineages", "each"),
    [(1, [1] * 6), (2.5, [2, 2, 3, 3, 2, 2]), (1.25, [1, 1, 1, 1, 1, 1]), (1.5, [1, 1, 2, 2, 1, 1])],
)
def test_a_broken_number_of_lineages_is_met_on_average(store, monkeypatch, lineages, each):
    asked = []

    def refuse(request):
        asked.append(request)
        raise AuthorError("enough")

    monkeypatch.setattr(pipeline, "make_unit", refuse)
    for count in range(1, 7):
        with pytest.raises(WorkError, match="enough"):
            synthesize(["a thing", "another"], store=store, count=count, seed=1, steps=1, lineages=lineages)
    monkeypatch.setattr(pipeline, "run_all", lambda function, items, **_: asked.extend(items))
    asked.clear()
    synthesize(["a thing", "another"], store=store, count=6, seed=1, steps=1, lineages=lineages)
    assert [request.lineages for request in asked] == each
    assert [request.index for request in asked] == [0, 0, 1, 1, 2, 2]


def test_rehearsed_ancestors_are_stored_unaudited(store, tmp_path):
    result = synthesize(CATEGORY, count=1, store=store, audited="leaves", **SMALL)
    everything = synthesize(CATEGORY, count=1, store=store, **SMALL)
    assert result.run != everything.run
    assert result.tasks == everything.tasks
    with Store.open(tmp_path / "other.db") as other:
        again = synthesize(CATEGORY, count=1, store=other, audited="leaves", **SMALL)
        status = {entry.hash: entry.status for entry in other.task_entries()}
        assert [status[digest] for digest in again.tasks] == ["unaudited", "passed"]
        done = harden_stored(again.tasks[0], store=other, steps=1)
        assert {entry.hash: entry.status for entry in other.task_entries()}[again.tasks[1]] == "passed"
        assert done.steps[0].task.hash == again.tasks[1]


@pytest.mark.parametrize("category", ["", "   \n"])
def test_an_empty_category_is_refused(store, category):
    with pytest.raises(AuthorError, match="category is empty"):
        synthesize(category, count=1, store=store, **SMALL)
    assert store.runs() == []


def test_an_unknown_category_gives_environments_of_general_words(store):
    result = synthesize("zzyzx qwfp", count=1, store=store, **{**SMALL, "steps": 0})
    (spec,) = store.environments()
    assert result.environments == [spec.hash]
    assert spec.provenance.author == AUTHOR
    assert spec.provenance.category == "zzyzx qwfp"
    assert len(spec.world.tables) >= 4


def test_no_root_in_any_composition_is_an_error_with_its_reasons(monkeypatch):
    drawn = []

    def nothing(draft, author, number, **options):
        drawn.append(draft.environment.hash)
        return Lineage((), ())

    monkeypatch.setattr(pipeline, "find_root", nothing)
    with pytest.raises(AuthorError, match=f"index 7, in {REDRAWS} compositions"):
        make_unit(UnitRequest(category=CATEGORY, index=7, **SMALL))
    assert len(set(drawn)) == REDRAWS


def test_a_lost_sandbox_costs_one_more_try(monkeypatch, made):
    real, calls = pipeline.find_root, []
    request = UnitRequest(category=CATEGORY, index=0, **SMALL)
    expected = made(request)

    def breaks_once(draft, author, number, **options):
        calls.append(number)
        if len(calls) == 1:
            raise SandboxError("the jail is gone")
        return real(draft, author, number, **options)

    monkeypatch.setattr(pipeline, "find_root", breaks_once)
    assert make_unit(request) == expected
    assert calls == [0, 0]
    monkeypatch.setattr(pipeline, "find_root", lambda *_, **__: (_ for _ in ()).throw(SandboxError("gone for good")))
    with pytest.raises(SandboxError, match="gone for good"):
        make_unit(request)


def test_two_lineages_never_hold_the_same_program(made):
    unit = made(UnitRequest(category=CATEGORY, index=0, seed="1", lineages=2, steps=1))
    programs = [str(task.ir) for task, report in unit.tasks if task.lineage.operator != "distractors"]
    assert len(set(programs)) == len(programs)


def test_without_a_store_the_default_one_is_used(quick, tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "ENVSYNTH_STORE", str(tmp_path / "default.db"))
    result = synthesize(CATEGORY, count=1, **SMALL)
    with Store.open() as store:
        assert [spec.hash for spec in store.environments()] == result.environments


# ------------------------------------------------------------------------------------------------------ several categories

SEVERAL = (CATEGORY, "warehouse restocking", "small tables of anything")
TINY = {"seed": "3", "lineages": 1, "tier": "nano"}


def test_categories_take_turns_and_make_what_each_makes_alone(store, tmp_path):
    seen, told = [], []
    together = synthesize(SEVERAL, count=7, store=store, on_start=told.append, on_unit=seen.append, **TINY)
    asked = [(unit.environment.provenance.category, unit.index) for unit in seen]
    assert asked == [(SEVERAL[number % 3], number // 3) for number in range(7)]
    assert told == [7]
    for turn, category in enumerate(SEVERAL):
        with Store.open(tmp_path / f"{turn}.db") as other:
            alone = synthesize(category, count=(9 - turn) // 3, store=other, **TINY)
            assert alone.environments == together.environments[turn::3]
            assert sorted(alone.tasks) == sorted(set(together.tasks) & {task.hash for task in other.tasks()})
    assert len(set(together.environments)) == 7


def test_a_run_of_several_categories_is_resumed_and_continued(store, tmp_path):
    def stop(unit):
        if unit.index == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        synthesize(SEVERAL, count=5, store=store, on_unit=stop, **TINY)
    assert len(store.environments()) == 4
    seen, told = [], []
    more = synthesize(SEVERAL, count=6, store=store, on_start=told.append, on_unit=seen.append, **TINY)
    assert (more.resumed, told, len(seen)) == (4, [2], 2)
    with Store.open(tmp_path / "other.db") as other:
        whole = synthesize(SEVERAL, count=6, store=other, workers=2, **TINY)
    assert (more.run, more.environments, more.tasks) == (whole.run, whole.environments, whole.tasks)
    assert more.dataset == whole.dataset == store.dataset_hash(more.run, 6) != store.dataset_hash(more.run, 5)


def test_the_order_of_categories_is_part_of_the_run_and_one_in_a_list_is_that_one(store):
    first = synthesize(SEVERAL[:2], count=1, store=store, **TINY)
    assert synthesize(SEVERAL[1::-1], count=1, store=store, **TINY).run != first.run
    alone = synthesize(CATEGORY, count=1, store=store, **TINY)
    assert synthesize([CATEGORY], count=1, store=store, **TINY).run == alone.run != first.run
    assert alone.environments == first.environments


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no category is given"),
        ([CATEGORY, "x", f" {CATEGORY}"], "is given 2 times"),
    ],
)
def test_no_category_and_the_same_twice_are_refused(store, given, message):
    with pytest.raises(SpecError, match=message):
        synthesize(given, count=1, store=store, **TINY)
    assert store.runs() == []


def test_one_empty_category_among_several_is_refused_before_a_run_begins(store):
    with pytest.raises(AuthorError, match="empty"):
        synthesize([CATEGORY, " "], count=1, store=store, **TINY)
    assert store.runs() == []


def test_categories_of_a_file(tmp_path):
    path = tmp_path / "c.txt"
    path.write_text("\ufeff# those of the north\r\n\r\n  phone plans \r\ncafés and bars\r\n", encoding="utf-8")
    assert read_categories(path) == ("phone plans", "cafés and bars")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "holds no category"),
        (b"\n# nothing\n", "holds no category"),
        (b"a b\n\nc d\na b\n", "line 4 of .* repeats line 1, 'a b'"),
        (b"a b\n12 34\n", "line 2 of .* holds no word: '12 34'"),
        (b"phone \xe9\n", "not UTF-8"),
    ],
)
def test_a_wrong_file_of_categories_says_where(tmp_path, data, message):
    path = tmp_path / "c.txt"
    path.write_bytes(data)
    with pytest.raises(SpecError, match=message):
        read_categories(path)
    with pytest.raises(SpecError, match=r"cannot read categories from .*nowhere\.txt: No such file"):
        read_categories(tmp_path / "nowhere.txt")


# --------------------------------------------------------------------------------------------------- hardening the stored


def test_a_stored_task_is_hardened_further(store, quick):
    result = synthesize(CATEGORY, count=1, store=store, **{**SMALL, "steps": 0})
    (root,) = result.tasks
    before = store.task_json(root)
    seen = []
    done = harden_stored(root, store=store, steps=1, on_step=seen.append)
    assert done.parent == store.task(root)
    assert tuple(seen) == done.steps
    assert done.new == {step.task.hash for step in done.steps}
    assert [child.hash for child in store.children(root)] == [step.task.hash for step in done.steps]
    assert store.task_json(root) == before
    again = harden_stored(root, store=store, steps=1)
    assert again.steps == done.steps
    assert again.new == frozenset()
    assert len(store.children(root)) == len(done.steps)


def test_only_a_sound_stored_task_of_this_author_is_hardened(store, made):
    with pytest.raises(SpecNotFound):
        harden_stored("feedbeef", store=store)
    unit = made(UnitRequest(category=CATEGORY, index=0, seed="1", lineages=1, steps=0))
    (task, _), *_ = unit.tasks
    broken = task.model_copy(update={"solution": "def solve(call):\n    return {}\n"})
    store.add_environment(unit.environment)
    store.add_task(broken)
    with pytest.raises(SpecError, match="does not pass gate EX201"):
        harden_stored(broken.hash, store=store)
