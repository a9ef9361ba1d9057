"""The whole experiment in a folder: the one call behind both commands, and its news as lines of text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envsynth.train.fidelity.config import FidelityConfig
from envsynth.train.fidelity.folder import FidelityFolder
from envsynth.train.fidelity.grid import Event, GridOutcome, run_grid
from envsynth.train.fidelity.verdict import make_result


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What a run of the experiment gives."""

    result: Mapping[str, Any]
    """The record, as the file has it."""
    file: Path
    """Where it stands."""
    outcome: GridOutcome
    """What became of the jobs."""

    @property
    def complete(self) -> bool:
        """Whether every job is finished; cells that fail the break condition are results, not failed jobs."""
        return not self.outcome.failed and not self.outcome.skipped


def run_experiment(
    path: Path,
    config: FidelityConfig,
    devices: Sequence[str],
    *,
    deadline_s: float | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> Experiment:
    """Run the experiment, or what is left of it, and write its record.

    Args:
        path: The folder; one of equal settings is gone on with.
        config: The settings.
        devices: Where to run, one process each, as `find_devices` names them.
        deadline_s: Seconds from now after which nothing should run; None: no deadline.
        on_event: Told what happens.

    Returns:
        The record and what became of the jobs.

    Raises:
        CheckpointError: the folder holds an experiment with other settings, or damaged files.
    """
    folder = FidelityFolder.open(path, config)
    outcome = run_grid(folder, config, devices, deadline_s=deadline_s, on_event=on_event)
    result = make_result(folder, config, devices, outcome)
    return Experiment(result=result, file=folder.keep_result(result), outcome=outcome)


def describe(event: Event) -> str:
    """Say in one line what happened.

    Args:
        event: The news.

    Returns:
        The line.
    """
    where = f" on {event.device}" if event.device else ""
    left = "" if event.left_s is None else f"; all jobs: about {event.left_s:.0f} s left"
    if event.state == "step":
        names = {"loss": "loss", "kl": "KL", "recall": "recall"}
        marks = "".join(
            f", {label} {event.metrics[name]:.4f}" for name, label in names.items() if name in event.metrics
        )
        rate = event.metrics.get("tokens_per_s", 0.0)
        return f"{event.job}{where}: step {event.step} of {event.steps}{marks}, {rate:,.0f} tokens/s{left}"
    if event.state == "started":
        return f"{event.job}{where}: started{left}"
    if event.state == "finished":
        return f"{event.job}{where}: finished in {event.seconds:.1f} s{left}"
    return f"{event.job}{where}: {event.state}: {event.reason}"


def summary(result: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Give the table of the result: the dense twin, then every cell.

    Args:
        result: The record.

    Returns:
        Rows of heads, k, single, multi, copy, answer loss, recall after warm-up and after training, verdict.
    """
    twin = result["twin"]
    rows: list[tuple[str, ...]] = []
    if twin is not None:
        rows.append(("dense", "all", *_values(twin), "", "", "twin"))
    for cell in result["cells"]:
        head = (str(cell["heads"]), str(cell["topk"]))
        if cell["verdict"] == "missing":
            rows.append((*head, "", "", "", "", "", "", "missing"))
            continue
        failing = [line.split(":")[0] for line in cell["failures"]]
        verdict = f"FAILED ({', '.join(failing)})" if failing else cell["verdict"]
        rows.append((*head, *_values(cell["after"]), _recall(cell["after_warmup"]), _recall(cell["after"]), verdict))
    return rows


COLUMNS = ("heads", "k", "single", "multi", "copy", "answer loss", "recall before", "recall after", "verdict")
"""Columns of `summary`; `before` is directly after the warm-up."""


def _values(found: Mapping[str, Any]) -> tuple[str, ...]:
    shares = [f"{found['accuracy'][name]['share']:.3f}" for name in ("single", "multi", "copy")]
    return (*shares, f"{found['loss']['answer']:.4f}")


def _recall(found: Mapping[str, Any]) -> str:
    return "" if found["selection"] is None else f"{found['selection']['recall']:.3f}"
