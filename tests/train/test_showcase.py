"""What the demo shows of training: measured once, kept, and shown again."""

from __future__ import annotations

from pathlib import Path

import pytest

from envsynth.errors import SpecError
from envsynth.train.showcase import RESULT, ShowcaseConfig, run_showcase

SMALL = ShowcaseConfig(
    sft_seconds=1, grpo_seconds=1, few=20, few_steps=2, lessons=20, tasks=2, draws=2, slots=4, groups=1
)


@pytest.mark.slow
def test_showcase_measures_every_stage_once(tmp_path: Path) -> None:
    said: list[str] = []
    steps: list[str] = []
    section = run_showcase(tmp_path, SMALL, say=said.append, on_step=lambda report: steps.append(report.phase))
    assert {"sft", "grpo"} <= set(steps)
    assert [(row.stage.split()[0], row.manner) for row in section.rows] == [
        ("random", "greedy"),
        *((s, m) for s in ("after", "imitation", "then", "control:", "after") for m in ("greedy", "sampled")),
    ]
    assert {row.tasks for row in section.rows} == {2}
    assert {(row.manner, row.episodes) for row in section.rows} == {("greedy", 2), ("sampled", 4)}
    assert all(0 <= row.low <= row.rate <= row.high <= 1 for row in section.rows)
    assert section.curve
    assert all(0 <= share <= 1 for _, share in section.curve)
    assert section.parameters > 900_000
    assert (tmp_path / RESULT).exists()
    n_steps = len(steps)
    assert run_showcase(tmp_path, SMALL, say=said.append, on_step=lambda report: steps.append(report.phase)) == section
    assert len(steps) == n_steps
    assert "earlier call" in said[-1]


def test_showcase_refuses_nonsense() -> None:
    with pytest.raises(SpecError, match="tasks is 0"):
        ShowcaseConfig(tasks=0)
