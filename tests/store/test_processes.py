"""Several processes on one store, and processes that are killed: nothing accepted is lost, nothing is half there."""

from __future__ import annotations

import random
import sqlite3
import time
from pathlib import Path

import pytest

from envsynth.store import Store, TaskQuery
from tests.store import factory
from tests.store.processes import script

N_WRITERS = 4

WRITER = """
import sys
from envsynth.store import Store
from tests.store import factory
path, part = sys.argv[1], int(sys.argv[2])
with Store.open(path) as store:
    store.start_run("shared", "synthesize", {"seed": 1})
    for number in range(12):
        # Two of three units are tried by every process, the third by one alone.
        unit = number if number % 3 else 100 * (part + 1) + number
        spec = factory.environment(unit)
        task = factory.task(spec)
        child = factory.task(spec, 1, task)
        new = store.commit_unit("shared", unit, environment=spec,
            tasks=[(task, factory.report(task)), (child, factory.report(child))],
            rejections=[factory.rejection(spec)])
        print(unit, int(new), flush=True)
"""

ENDLESS = """
import sys
from envsynth.store import Store
from tests.store import factory
store = Store.open(sys.argv[1])
store.start_run("r", "synthesize", {})
unit = max(store.done_units("r"), default=-1) + 1
while True:
    spec = factory.environment(unit, rows=400)
    tasks = [factory.task(spec, number) for number in range(3)]
    store.commit_unit("r", unit, environment=spec, tasks=[(task, factory.report(task)) for task in tasks])
    print(unit, spec.hash, flush=True)
    unit += 1
"""


def test_four_processes_make_and_fill_one_store(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    children = [script(WRITER, path, part) for part in range(N_WRITERS)]
    lines: list[tuple[int, bool]] = []
    for child in children:
        text, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
        lines += [(int(unit), new == "1") for unit, new in map(str.split, text.splitlines())]
    units = {unit for unit, _ in lines}
    with Store.open(path) as store:
        assert store.done_units("shared") == units
        # Every unit was new to exactly one process.
        assert sorted(unit for unit, new in lines if new) == sorted(units)
        assert len(store.environment_entries()) == len(units)
        assert len(store.task_entries(TaskQuery(leaves_only=True))) == len(units)
        assert len(store.rejections(run="shared")) == len(units)
        assert sum(store.rejection_counts().values()) == len(units)


@pytest.mark.parametrize("seed", range(3))
def test_kill_nine_loses_nothing_that_was_accepted(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "s.db"
    chance = random.Random(f"kill/{seed}")
    accepted: dict[int, str] = {}
    for _ in range(2):
        child = script(ENDLESS, path)
        assert child.stdout is not None
        wanted = chance.randint(3, 20)
        for _ in range(wanted):
            unit, digest = child.stdout.readline().split()
            accepted[int(unit)] = digest
        time.sleep(chance.uniform(0, 0.02))  # somewhere within the next unit
        child.kill()
        rest, _ = child.communicate()
        for line in rest.splitlines(keepends=True):
            if line.endswith("\n"):
                unit, digest = line.split()
                accepted[int(unit)] = digest
    with Store.open(path) as store:
        units = store.units("r")
        stored = {unit.unit: unit.environment for unit in units}
        assert accepted.items() <= stored.items()
        assert len(stored) <= len(accepted) + 2  # at most the unit that each process was about to print
        # Each unit is there whole: its environment and all three tasks with their reports, unharmed.
        for unit in units:
            assert unit.environment is not None
            tasks = store.tasks(environment=unit.environment)
            assert {task.hash for task in tasks} == set(unit.tasks)
            assert all(store.latest_report(task.hash) == factory.report(task) for task in tasks)
        assert len(store.environment_entries()) == len(stored)
    with sqlite3.connect(path) as raw:
        assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert raw.execute("PRAGMA foreign_key_check").fetchall() == []
    raw.close()
