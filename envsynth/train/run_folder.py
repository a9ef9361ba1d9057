"""The folder of a run: configuration, metrics, checkpoints; and stopping at a whole step.

RUN/
    config.json                what was asked for, versions, git revision
    metrics.jsonl              one line per step; equal runs write equal bytes
    timings.jsonl              seconds and rates of the same steps: what a clock says stands apart
    sft/step-00000120/         checkpoints of each phase
    grpo/step-00000010/
"""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, Self

from envsynth.errors import CheckpointError
from envsynth.policy.checkpoint import FOLDER

METRICS, TIMINGS, CONFIG = "metrics.jsonl", "timings.jsonl", "config.json"
Phase = str
"""`sft` or `grpo`."""
SOURCE: Final = Path(__file__).resolve().parents[2]
"""Where the package stands: the root of the checkout when it runs from one."""
KEPT_CHECKPOINTS: Final = 2
"""Newest checkpoints of a phase that stay; a damaged newest one leaves one to go back to."""


@dataclass(frozen=True)
class StepReport:
    """What a loop tells of one step."""

    phase: Phase
    """Which loop."""
    step: int
    """Steps so far in this phase (count)."""
    metrics: Mapping[str, float]
    """Everything that was measured, without times."""
    fraction: float
    """Share of the budget that is used up, in [0, 1]."""
    elapsed_s: float
    """Seconds of this phase, earlier parts of the run included."""
    tokens: int
    """Tokens trained on in this step."""


class RunFolder:
    """Writes metrics and knows where checkpoints are.

    Args:
        path: The folder; made when it is absent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def checkpoint(self, phase: Phase, step: int) -> Path:
        """Return the folder of a checkpoint."""
        return self.path / phase / FOLDER.format(step)

    def checkpoints(self, phase: Phase) -> list[Path]:
        """Return the complete checkpoints of a phase, the oldest first."""
        return sorted(self.path.glob(f"{phase}/step-*"))

    def prune(self, phase: Phase) -> None:
        """Remove all but the newest checkpoints of a phase."""
        for old in self.checkpoints(phase)[:-KEPT_CHECKPOINTS]:
            for file in old.iterdir():
                file.unlink()
            old.rmdir()

    def write_config(self, content: Mapping[str, Any]) -> None:
        """Record what was asked for."""
        (self.path / CONFIG).write_text(json.dumps(content, indent=1) + "\n")

    def metrics_bytes(self) -> int:
        """Return the length of the metrics file (bytes), flushed to the disk."""
        file = self.path / METRICS
        if not file.exists():
            return 0
        with file.open("ab") as opened:
            opened.flush()
            os.fsync(opened.fileno())
        return file.stat().st_size

    def cut_metrics(self, size: int) -> None:
        """Drop the lines that were written after a checkpoint.

        Args:
            size: Length of the metrics file at the checkpoint (bytes).

        Raises:
            CheckpointError: the file is shorter than that, so it is not the one of the checkpoint.
        """
        file = self.path / METRICS
        found = file.stat().st_size if file.exists() else 0
        if found < size:
            raise CheckpointError(
                f"{file} has {found} bytes, the checkpoint was written at {size}: put the run's own file back"
            )
        if found > size:
            os.truncate(file, size)

    def log(self, report: StepReport) -> None:
        """Append one step to metrics and timings."""
        line = {"phase": report.phase, "step": report.step, **dict(sorted(report.metrics.items()))}
        with (self.path / METRICS).open("a") as file:
            file.write(json.dumps(line) + "\n")
        timing = {"phase": report.phase, "step": report.step, "elapsed_s": round(report.elapsed_s, 3)}
        with (self.path / TIMINGS).open("a") as file:
            file.write(json.dumps({**timing, "tokens": report.tokens}) + "\n")


class StopRequest:
    """Turns Ctrl-C and SIGTERM into a flag that a loop reads between two steps; a second one interrupts at once.

    In a thread other than the main one, signals go where they went before, and the flag can be set by `ask`.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def ask(self) -> None:
        """Ask for the end after the current step."""
        self.asked = True

    def __enter__(self) -> Self:
        """Take the signals over."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._noted)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _noted(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
