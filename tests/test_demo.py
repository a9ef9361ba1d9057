"""The demo: the main job end to end, on one category."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

import envsynth.demo
from envsynth.demo import run_demo
from envsynth.store import Store
from envsynth.suite import load_suite
from tests.command_line import CATEGORY, call


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


def _digests(folder: Path) -> dict[str, str]:
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("report.html", "suite.jsonl", "suite.parquet")
    }


@pytest.mark.slow
def test_demo_then_again_then_by_the_command(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    units: list[str] = []
    result = run_demo(folder, count=1, workers=1, say=said.append, on_unit=units.append, categories=(CATEGORY,))
    assert result.report == folder / "report.html"
    assert len(units) == 1
    assert any("exporting" in line for line in said)
    ladder = {row.actor: row for row in result.ladder}
    assert ladder["oracle"].rate == 1.0
    assert {ladder[name].rate for name in ("idle", "empty", "random")} == {0.0}
    assert any(name.startswith("ablated:") and row.rate < 1.0 for name, row in ladder.items())
    assert result.episode.verdict.status == "pass"
    suite = load_suite(folder / "suite.jsonl")
    with Store.open(folder / "envsynth.db", readonly=True) as store:
        assert [store.task(task.hash) for _, task in suite.pairs()] == [task for _, task in suite.pairs()]
        assert store.suites() == [suite.suite.name]
    first = _digests(folder)

    monkeypatch.setattr(envsynth.demo, "CATEGORIES", (CATEGORY,))
    monkeypatch.setattr(run_demo, "__kwdefaults__", {**run_demo.__kwdefaults__, "categories": (CATEGORY,)})
    found = call(capsys, "demo", "--out", folder, "--count", 1, "--workers", 1, "--no-train")
    assert found.code == 0
    assert found.out.splitlines()[-1] == str(folder / "report.html")
    assert "made by an earlier call" in found.err
    assert "environments 1/1" in found.err
    assert found.out.count("\n") < 120
    assert _digests(folder) == first, "the same demo again gives the same files"
