"""Which cells of the grid fail, by the numbers of finished jobs.

The digest of the paper names the break condition: more than five percent worse than the dense baseline. It is applied to
every accuracy and to the loss of answers, of every cell, as it stands: intervals are shown beside it and excuse nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from envsynth.train.fidelity.config import FidelityConfig
from envsynth.train.fidelity.folder import FidelityFolder
from envsynth.train.fidelity.grid import GridOutcome
from envsynth.train.fidelity.jobs import Job, all_jobs
from envsynth.train.fidelity.measure import ACCURACIES, SELECTION, Share

FORMAT: Final = "envsynth-dsa-fidelity/1"
"""Version of the result."""
BREAK: Final = 0.05
"""A cell that is worse than its twin by a larger share fails."""
LEARNED: Final = 0.5
"""A twin below this accuracy has not learned a task; comparing with it tells little, which the result says."""
LOSS: Final = "answer_loss"
"""Name of the loss among the measures."""

Verdict = Literal["ok", "FAILED", "undecided", "missing"]
"""`undecided`: nothing fails, but a twin's value is zero, so that a share of it means nothing; `missing`: not finished."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One measure of a cell beside that of its twin."""

    measure: str
    """An accuracy, or `answer_loss`."""
    cell: float
    """Value of the cell."""
    twin: float
    """Value of the dense twin."""
    regression: float | None
    """How much worse the cell is, as a share of the twin's value; negative when it is better, None when that is 0."""
    apart: bool | None
    """Whether the 95 % intervals do not overlap; None for the loss, which has none."""

    @property
    def fails(self) -> bool:
        """Whether the break condition holds."""
        # Shares of counts are rounded: exactly five percent is not more than five percent.
        return self.regression is not None and self.regression > BREAK + 1e-9

    def __str__(self) -> str:
        share = "" if self.regression is None else f", {100 * self.regression:+.1f} % worse"
        return f"{self.measure}: {self.cell:.4g} beside {self.twin:.4g} of the dense twin{share}"


def compare(cell: Mapping[str, Any], twin: Mapping[str, Any]) -> tuple[Comparison, ...]:
    """Compare a cell with its twin, measure by measure.

    Args:
        cell: `accuracy` and `loss` as `pool` gives them.
        twin: The same of the dense twin.

    Returns:
        One comparison for each accuracy, and one for the loss of answers.
    """
    found: list[Comparison] = []
    for name in ACCURACIES:
        mine, other = cell["accuracy"][name], twin["accuracy"][name]
        value, beside = mine["share"], other["share"]
        found.append(
            Comparison(
                measure=name,
                cell=value,
                twin=beside,
                regression=(beside - value) / beside if beside else None,
                apart=mine["high"] < other["low"] or other["high"] < mine["low"],
            )
        )
    value, beside = cell["loss"]["answer"], twin["loss"]["answer"]
    regression = (value - beside) / beside if beside else None
    found.append(Comparison(measure=LOSS, cell=value, twin=beside, regression=regression, apart=None))
    return tuple(found)


def judge(comparisons: Sequence[Comparison]) -> Verdict:
    """Judge a cell.

    Args:
        comparisons: All measures of it.

    Returns:
        `FAILED` when one measure fails, `undecided` when none does but one cannot be compared, else `ok`.
    """
    if any(item.fails for item in comparisons):
        return "FAILED"
    return "undecided" if any(item.regression is None for item in comparisons) else "ok"


def pool(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Put the measurements of several seeds together: counts are added, losses and selections averaged.

    Args:
        found: What each seed measured, at least one.

    Returns:
        `accuracy`, `loss`, `sequences` and `selection`.
    """
    accuracy = {}
    for name in ACCURACIES:
        shares = [item["accuracy"][name] for item in found]
        share = Share.of(sum(item["right"] for item in shares), sum(item["n"] for item in shares))
        accuracy[name] = {field: getattr(share, field) for field in ("right", "n", "share", "low", "high")}
    loss = {name: _mean([item["loss"][name] for item in found]) for name in found[0]["loss"]}
    selections = [item["selection"] for item in found if item["selection"] is not None]
    selection = {name: _mean([item[name] for item in selections]) for name in SELECTION} if selections else None
    return {
        "accuracy": accuracy,
        "loss": loss,
        "sequences": sum(item["sequences"] for item in found),
        "selection": selection,
    }


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def make_result(
    folder: FidelityFolder, config: FidelityConfig, devices: Sequence[str], outcome: GridOutcome
) -> dict[str, Any]:
    """Put everything that finished jobs found into one record.

    Args:
        folder: Where jobs are.
        config: The settings.
        devices: Where this run ran.
        outcome: What became of the jobs.

    Returns:
        Plain values: `settings`, where it ran, `jobs` with their curves, `twin`, `cells` with verdicts, and `failures`,
        one line for every measure that fails.
    """
    jobs = [found for job in all_jobs(config) if (found := folder.found(job.name)) is not None]
    by_name = {found["name"]: found for found in jobs}
    cells = [_cell(config, by_name, heads, topk) for heads in config.heads for topk in config.topks]
    twins = [by_name[job.name]["after"] for job in all_jobs(config) if job.kind == "twin" and job.name in by_name]
    twin = pool(twins) if twins else None
    return {
        "format": FORMAT,
        "settings": config.to_dict(),
        "break_condition": f"more than {100 * BREAK:g} % worse than the dense twin, in any measure",
        "devices": list(devices),
        "hardware": sorted({found["device"] for found in jobs}),
        "torch": sorted({found["torch"] for found in jobs}),
        "revisions": sorted({found["revision"] or "unknown" for found in jobs}),
        "complete": not outcome.failed and not outcome.skipped,
        "failed_jobs": dict(outcome.failed),
        "skipped_jobs": dict(outcome.skipped),
        "twin": twin,
        "unlearned": [] if twin is None else [n for n in ACCURACIES if twin["accuracy"][n]["share"] < LEARNED],
        "cells": cells,
        "failures": [f"heads={c['heads']} k={c['topk']}: {line}" for c in cells for line in c["failures"]],
        "jobs": jobs,
    }


def _cell(config: FidelityConfig, by_name: Mapping[str, Any], heads: int, topk: int) -> dict[str, Any]:
    """Put a cell together, from the seeds of which both the sparse run and its twin are finished."""
    pairs: list[tuple[int, dict[str, Any], dict[str, Any]]] = []
    for seed in range(config.seeds):
        sparse = by_name.get(Job(kind="sparse", seed=seed, heads=heads, topk=topk).name)
        twin = by_name.get(Job(kind="twin", seed=seed).name)
        if sparse is not None and twin is not None:
            pairs.append((seed, sparse, twin))
    cell: dict[str, Any] = {"heads": heads, "topk": topk, "seeds": [seed for seed, *_ in pairs]}
    if not pairs:
        return {**cell, "verdict": "missing", "failures": []}
    after = pool([sparse["after"] for _, sparse, _ in pairs])
    twin = pool([item["after"] for *_, item in pairs])
    comparisons = compare(after, twin)
    return {
        **cell,
        "verdict": judge(comparisons),
        "failures": [str(item) for item in comparisons if item.fails],
        "comparisons": [
            {
                "measure": item.measure,
                "cell": item.cell,
                "twin": item.twin,
                "regression": item.regression,
                "apart": item.apart,
            }
            for item in comparisons
        ],
        "after_warmup": pool([sparse["after_warmup"] for _, sparse, _ in pairs]),
        "after": after,
    }
