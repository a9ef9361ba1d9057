"""What the acceptance of a whole set measures with: leaves without twins, trees of processes, lines that were not run."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from acceptance import synthesis_scale
from acceptance.process_tree import Measured, measure
from envsynth.pipeline import UnitRequest, make_unit
from envsynth.report import GateReport
from envsynth.store import Rejection, Store, TaskEntry

HOLDS = """
import subprocess, sys, time
if len(sys.argv) > 1:
    held = b"x" * (int(sys.argv[1]) << 20)
    ended = time.process_time() + 0.4
    while time.process_time() < ended:
        pass
    time.sleep(1.5)
else:
    for child in [subprocess.Popen([sys.executable, sys.argv[0], "60"]) for _ in range(2)]:
        child.wait()
    print("done")
"""


def entry(name: str, parent: str | None = None, kind: str = "read") -> TaskEntry:
    depth = 0 if parent is None else 1
    return TaskEntry(
        hash=name, environment="e", slug="s", category="c", parent=parent, operator=None, depth=depth, kind=kind,
        status="passed", origin="authored",
    )  # fmt: skip


def test_twins_are_no_leaves_and_make_no_ancestors() -> None:
    tasks = [entry("a"), entry("b", "a"), entry("c"), entry("twin", "c", "infeasible"), entry("d", "twin")]
    assert [task.hash for task in synthesis_scale.leaves_of(tasks)] == ["b", "c", "d"]


def test_memory_and_time_of_children_count(tmp_path: Path) -> None:
    program = tmp_path / "holds.py"
    program.write_text(HOLDS)
    found = measure([sys.executable, str(program)])
    assert (found.code, found.out) == (0, "done\n")
    assert found.peak_bytes > 120 << 20
    assert 0.8 <= found.cpu_s < 20
    assert found.wall_s >= 1.5
    assert measure([sys.executable, "-c", "raise SystemExit(3)"]).code == 3


def test_what_another_set_took_is_not_added(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made(command: list[str], **_: object) -> Measured:
        with Store.open(command[command.index("--store") + 1]) as store:
            spec = store.environments()[0] if store.environment_entries() else unit.environment
            store.add_environment(spec.model_copy(update={"slug": f"number-{len(store.environment_entries())}"}))
        return Measured(code=0, out="{}", wall_s=10.0, cpu_s=1.0, peak_bytes=5)

    unit = make_unit(UnitRequest(category="small tables", seed="s", index=0, lineages=1, tier="nano"))
    monkeypatch.setattr(synthesis_scale, "measure", made)
    options, path = argparse.Namespace(fast=True, seed=1, workers=1), tmp_path / "set.db"
    path.with_suffix(".took.json").write_text('{"calls": 1, "wall_s": 99.0, "cpu_s": 9.0, "peak_bytes": 9, "made": 7}')
    took = [synthesis_scale.synthesize(path, 1, options, quiet=True)[1] for _ in range(2)]
    assert [(item.calls, item.wall_s, item.peak_bytes, item.made) for item in took] == [(1, 10, 5, 1), (2, 20, 5, 2)]


def test_a_line_without_a_measurement_is_neither_passed_nor_failed(capsys: pytest.CaptureFixture[str]) -> None:
    record = synthesis_scale.Record()
    record.at_least("nothing", None, 3)
    record.at_least("enough", 3, 3)
    assert record.claims.exit_code() == 0
    record.at_least("too little", 2.9, 3)
    assert record.claims.exit_code() == 1
    assert [line["result"] for line in record.lines] == ["NOT RUN", "PASS", "FAIL"]
    assert capsys.readouterr().out.startswith("NOT RUN  nothing: nothing to measure  (target >= 3)\n")


def test_counts_of_the_gates_are_those_of_the_reports(tmp_path: Path) -> None:
    unit = make_unit(UnitRequest(category="small tables", seed="s", index=0, lineages=3, tier="nano"))
    reports = [report for _, report in unit.tasks]
    first = next(result for result in reports[0].results if result.code == "VF301")
    spoiled = first.model_copy(update={"status": "fail", "evidence": {"killed": 1, "total": 2}})
    results = tuple(spoiled if result is first else result for result in reports[0].results)
    reports[0] = GateReport(environment=reports[0].environment, task=reports[0].task, results=results)
    refused = [
        Rejection(environment=unit.environment.hash, stage=stage, code="VF305", message=str(number))
        for number, stage in enumerate(("gates", "gates", "author"))
    ]
    with Store.open(tmp_path / "g.db") as store:
        store.add_environment(unit.environment)
        for (task, _), report in zip(unit.tasks, reports, strict=True):
            store.add_task(task, report)
        store.add_rejections(refused)
        table = synthesis_scale.gate_table(store)
        assert synthesis_scale.audited(store) == len(reports) - 1
        part = tuple(result.model_copy(update={"status": "skipped", "evidence": {}}) for result in reports[1].results)
        rehearsed = unit.tasks[1][0].model_copy(update={"prompt": "Another prompt."})
        report = GateReport(environment=unit.environment.hash, task=rehearsed.hash, results=part, whole=False)
        store.add_task(rehearsed, report)
        assert synthesis_scale.audited(store) == len(reports) - 1
        assert synthesis_scale.gate_table(store)["VF302"]["all killed"] == table["VF302"]["all killed"] == len(reports)
    assert (table["VF301"]["pass"], table["VF301"]["fail"]) == (len(reports) - 1, 1)
    assert (table["VF301"]["killed"], table["VF301"]["total"]) == (2 * len(reports) - 1, 2 * len(reports))
    assert table["VF302"]["total"] == sum(int(report.evidence("VF302")["total"]) for report in reports)
    assert table["VF305"]["refused"] == 2
    record = synthesis_scale.Record()
    synthesis_scale._gates(record, table, len(reports), fast=True)
    synthesis_scale._rejected(record, table, len(reports))
    failed = [line["name"] for line in record.lines if line["result"] == "FAIL"]
    assert failed == ["idle and empty (reward 0)", "rejected at the final audit, while the set was made"]


def test_an_audit_with_another_seed_finds_what_is_broken() -> None:
    unit = make_unit(UnitRequest(category="small tables", seed="s", index=0, lineages=1, tier="nano"))
    ((task, _),) = unit.tasks
    assert synthesis_scale.audit_again((unit.environment, task)) == []
    broken = task.model_copy(update={"solution": "def solve(call):\n    return {}\n"})
    assert "EX201" in synthesis_scale.audit_again((unit.environment, broken))


@pytest.mark.parametrize("arguments", [["--environments", "0"], ["--sample", "0"], ["--workers", "-1"]])
def test_impossible_numbers_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        synthesis_scale.options_of(arguments)
    assert "must be at least 1" in capsys.readouterr().err
