"""What a store tells of synthesis: counted against what was put into it."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

import pytest

from envsynth.hardening import AUDIT_ORDER
from envsynth.pipeline import Unit, UnitRequest, make_unit
from envsynth.report import GateReport, GateResult
from envsynth.spec import Lineage, TaskVersion
from envsynth.store import Rejection, Store
from envsynth.yields import STAGES, Funnel, LadderShare, stored_yields


@pytest.fixture(scope="module")
def units() -> list[Unit]:
    return [
        make_unit(
            UnitRequest(category="booking laboratory equipment", seed="y", index=index, lineages=1, steps=1, tries=6)
        )
        for index in range(2)
    ]


def test_every_proposal_is_counted_once(units: list[Unit], tmp_path: Path) -> None:
    with Store.open(tmp_path / "y.db") as store:
        store.start_run("r", "synthesize", {})
        for unit in units:
            store.commit_unit(
                "r", unit.index, environment=unit.environment, tasks=unit.tasks, rejections=unit.rejections
            )
        found = stored_yields(store)
    tasks = [task for unit in units for task, _ in unit.tasks]
    refused = [item for unit in units for item in unit.rejections]
    assert (found.environments, found.tasks) == (2, len(tasks))
    assert sum(found.refused.values()) == len(refused) == sum(count for *_, count in found.reasons)
    assert list(found.refused)[:3] == list(STAGES)
    for name in ("operators", "mechanisms"):
        assert all(0 <= row.share <= 1 and len(row.reasons) <= 3 for row in getattr(found, name))
    assert found.operators[0].name == "root"
    assert sum(row.accepted for row in found.operators) == len(tasks)
    assert sum(row.refused for row in found.operators) == len(refused)
    roots = Counter(item.code for item in refused if item.operator is None)
    assert found.operators[0].refused == roots.total()
    assert dict(found.operators[0].reasons).items() <= roots.items()
    assert (
        sum(found.depths.values())
        == found.leaves
        == len({task.hash for task in tasks} - {t.lineage.parent for t in tasks})
    )
    parents = {task.lineage.parent for task in tasks}
    reports = [report for unit in units for task, report in unit.tasks if task.hash not in parents]
    assert found.calls["max"] == max(report.evidence("EX201")["calls"] for report in reports)
    assert found.distinct == ((2, 2),)
    kinds = Counter(task.kind for task in tasks if task.hash not in parents)
    assert found.kinds == kinds
    skills = [report.evidence("DF401")["skills"] for report in reports]
    assert found.skills == Counter(len(needed) for needed in skills)
    assert found.needed == Counter(skill for needed in skills for skill in needed)
    assert found.gold_calls == Counter(report.evidence("EX201")["calls"] for report in reports)


def test_the_ladder_is_counted_over_the_skills_of_all_and_apart_for_the_deepest(
    tmp_path: Path, units: list[Unit]
) -> None:
    environment, (first, report) = units[0].environment, units[0].tasks[0]

    def version(parent: TaskVersion | None, name: str, skills: str) -> tuple[TaskVersion, GateReport]:
        depth = 0 if parent is None else parent.lineage.depth + 1
        operator = None if parent is None else "hop"
        lineage = Lineage(parent=parent and parent.hash, operator=operator, depth=depth)
        task = first.model_copy(update={"lineage": lineage, "prompt": name})
        results = [GateResult(code="DF401", status="pass", evidence={"skills": [*skills]})]
        return task, report.model_copy(update={"task": task.hash, "results": (*results,)})

    root, alone = version(None, "root", "x"), version(None, "alone", "xyz")
    child = version(root[0], "child", "xy")
    last, sister = version(child[0], "last", "xyw"), version(root[0], "sister", "xyzv")
    with Store.open(tmp_path / "l.db") as store:
        store.add_environment(environment)
        for task, its_report in (root, alone, child, last, sister):
            store.add_task(task, its_report)
        found = stored_yields(store)
    assert found.ladder == (
        LadderShare(depth=0, versions=2, passing=0.6, deep=0.8),
        LadderShare(depth=1, versions=2, passing=0.4, deep=0.6),
        LadderShare(depth=2, versions=1, passing=0.4, deep=0.4),
    )
    assert found.skills == {3: 2, 4: 1}


def test_an_environment_counts_for_each_of_its_mechanisms(units: list[Unit], tmp_path: Path) -> None:
    with Store.open(tmp_path / "m.db") as store:
        unit = units[0]
        store.add_environment(unit.environment)
        for task, report in unit.tasks:
            store.add_task(task, report)
        store.add_rejections(unit.rejections)
        found = stored_yields(store)
    names = unit.environment.provenance.details["mechanisms"]
    assert isinstance(names, list)
    assert sorted(row.name for row in found.mechanisms) == sorted(names)
    mine = [item for item in unit.rejections if item.environment == unit.environment.hash]
    assert all((row.accepted, row.refused) == (len(unit.tasks), len(mine)) for row in found.mechanisms)


def test_an_empty_store_has_no_yields(tmp_path: Path) -> None:
    with Store.open(tmp_path / "e.db") as store:
        found = stored_yields(store)
    assert (found.environments, found.tasks, found.leaves, found.operators, found.distinct) == (0, 0, 0, (), ())
    assert (found.kinds, found.skills, found.needed, found.ladder, found.gold_calls) == ({}, {}, {}, (), {})
    assert dict(found.refused) == dict.fromkeys(STAGES, 0)


def refused(stage: str, code: str) -> Rejection:
    return Rejection(environment="e" * 32, stage=stage, code=code, message="m")


def test_the_yield_of_a_gate_counts_those_that_met_it() -> None:
    funnel = Funnel()
    assert (funnel.passages(), str(funnel)) == ((), "0% of proposals accepted")
    funnel.add(1, [refused("author", "tie"), refused("author", "loose"), refused("gates", "VF302")])
    funnel.add(
        1, [refused("ladder", "DF402"), refused("ladder", "DF402"), refused("gates", "EX202"), refused("gates", "zz")]
    )
    # Nine proposals; the cheap gates come before the ladder, the verifier's after it.
    assert [(item.gate, item.met, item.passed) for item in funnel.passages()] == [
        ("author", 9, 7),
        ("EX202", 7, 6),
        ("DF402", 6, 4),
        ("VF302", 4, 3),
        ("zz", 3, 2),
    ]
    assert str(funnel) == "22% of proposals accepted; passed author 78%, EX202 86%, DF402 67%, VF302 75%, zz 67%"


def test_the_funnel_of_real_units_ends_at_what_was_accepted(units: list[Unit]) -> None:
    funnel = Funnel()
    for unit in units:
        funnel.add(len(unit.tasks), unit.rejections)
    passages = funnel.passages()
    assert passages[-1].passed == sum(len(unit.tasks) for unit in units)
    assert all(first.passed == second.met for first, second in itertools.pairwise(passages))
    assert {item.gate for item in passages} <= {"author", *AUDIT_ORDER}
