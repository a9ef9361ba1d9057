"""The break condition is applied as it stands, and every failing measure is named with both numbers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from envsynth.train.fidelity.config import FidelityConfig
from envsynth.train.fidelity.experiment import COLUMNS, describe, summary
from envsynth.train.fidelity.folder import FidelityFolder
from envsynth.train.fidelity.grid import Event, GridOutcome
from envsynth.train.fidelity.measure import ACCURACIES, Share
from envsynth.train.fidelity.verdict import LOSS, compare, judge, make_result, pool


def found(right: int, loss: float = 1.0) -> dict[str, Any]:
    share = Share.of(right, 1000)
    fields = {name: getattr(share, name) for name in ("right", "n", "share", "low", "high")}
    return {"accuracy": dict.fromkeys(ACCURACIES, fields), "loss": {"answer": loss}, "sequences": 3, "selection": None}


@pytest.mark.parametrize(
    ("cell", "twin", "verdict"),
    [
        (found(950), found(1000), "ok"),
        (found(949), found(1000), "FAILED"),
        (found(1000), found(900), "ok"),
        (found(1000, 1.05), found(1000), "ok"),
        (found(1000, 1.0501), found(1000), "FAILED"),
        (found(0), found(0), "undecided"),
        (found(0, 2.0), found(0, 1.0), "FAILED"),
        (found(1000, 0.5), found(1000, 0.0), "undecided"),
    ],
)
def test_judge_five_percent(cell: dict[str, Any], twin: dict[str, Any], verdict: str) -> None:
    assert judge(compare(cell, twin)) == verdict


def test_compare_names_measure_and_both_numbers() -> None:
    comparisons = compare(found(900), found(1000))
    assert [item.measure for item in comparisons] == [*ACCURACIES, LOSS]
    assert str(comparisons[0]) == "single: 0.9 beside 1 of the dense twin, +10.0 % worse"
    assert comparisons[0].apart
    assert not compare(found(999), found(1000))[0].apart
    assert str(compare(found(900), found(0))[0]) == "single: 0.9 beside 0 of the dense twin"


def test_pool_adds_counts_and_averages_losses() -> None:
    first, second = found(900, 1.0), found(700, 2.0)
    for item, recall in ((first, 0.5), (second, 0.7)):
        item["selection"] = {"recall": recall, "best": 1.0, "entropy": 1.0, "overlap": 0.0}
    both = pool([first, second])
    assert (both["accuracy"]["single"]["right"], both["accuracy"]["single"]["n"]) == (1600, 2000)
    assert (both["loss"]["answer"], both["sequences"]) == (1.5, 6)
    assert both["selection"]["recall"] == pytest.approx(0.6)


def test_make_result_holds_every_cell_and_twins_had_equal_training(
    finished: tuple[FidelityFolder, FidelityConfig, GridOutcome],
) -> None:
    folder, config, outcome = finished
    result = make_result(folder, config, ["cpu"], outcome)
    assert json.loads(json.dumps(result, allow_nan=False)) == json.loads(json.dumps(result))
    assert [(cell["heads"], cell["topk"]) for cell in result["cells"]] == [(1, 4), (1, 8)]
    training = {job["name"]: job["training"] for job in result["jobs"]}
    twin = training["seed0-twin"]
    for name in ("seed0-sparse-h1-k4", "seed0-sparse-h1-k8"):
        assert all(training[name][field] == twin[field] for field in ("batches", "steps", "tokens", "rates"))
    for cell in result["cells"]:
        again = compare(cell["after"], result["twin"])
        assert cell["verdict"] == judge(again)
        assert cell["failures"] == [str(item) for item in again if item.fails]
    assert len(result["failures"]) == sum(len(cell["failures"]) for cell in result["cells"])
    assert result["complete"]


def test_make_result_without_a_twin_has_missing_cells(
    finished: tuple[FidelityFolder, FidelityConfig, GridOutcome], tmp_path: Any
) -> None:
    folder, config, _ = finished
    part = FidelityFolder.open(tmp_path, config)
    for name in ("seed0-pretrain", "seed0-sparse-h1-k4"):
        part.keep(name, folder.found(name) or {})
    lost = GridOutcome(finished=(), failed={"seed0-twin": "broke"}, skipped={})
    result = make_result(part, config, ["cpu"], lost)
    assert {cell["verdict"] for cell in result["cells"]} == {"missing"}
    assert (result["twin"], result["complete"], result["failed_jobs"]) == (None, False, {"seed0-twin": "broke"})
    assert [row[-1] for row in summary(result)] == ["missing", "missing"]


def test_summary_marks_failures(finished: tuple[FidelityFolder, FidelityConfig, GridOutcome]) -> None:
    folder, config, outcome = finished
    result = make_result(folder, config, ["cpu"], outcome)
    result["cells"][0]["failures"] = ["copy: 0.1 beside 0.9 of the dense twin"]
    rows = summary(result)
    assert all(len(row) == len(COLUMNS) for row in rows)
    assert rows[0][0] == "dense"
    assert rows[1][-1] == "FAILED (copy)"


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Event(job="a", state="started", device="cpu"), "a on cpu: started"),
        (Event(job="a", state="skipped", reason="late"), "a: skipped: late"),
        (Event(job="a", state="failed", device="cpu", reason="why"), "a on cpu: failed: why"),
        (
            Event(job="a", state="finished", device="cpu", seconds=2, left_s=9),
            "a on cpu: finished in 2.0 s; all jobs: about 9 s left",
        ),
        (
            Event(job="a", state="step", device="cpu", step=1, steps=2, metrics={"loss": 1.0, "tokens_per_s": 1e4}),
            "a on cpu: step 1 of 2, loss 1.0000, 10,000 tokens/s",
        ),
    ],
)
def test_describe(event: Event, line: str) -> None:
    assert describe(event) == line
