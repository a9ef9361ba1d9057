"""The record of the experiment on costs: one file, written whole or not at all, that a later run goes on with."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import torch

from envsynth.errors import CheckpointError
from envsynth.policy.checkpoint import git_revision
from envsynth.train.overhead.config import OverheadConfig
from envsynth.train.run_folder import SOURCE

FORMAT: Final = "envsynth-dsa-overhead/2"
"""Version of the record."""
NAME: Final = "dsa-overhead.json"
"""Its file."""
CAPTURED: Final = "captured_ms"
"""The number of a row that a CUDA graph gave."""
Row = dict[str, Any]
"""A measurement: preset, length, k (None for dense attention), part, ms (None where refused), and what `Timing` has."""
Key = tuple[str, int, int | None, str]
"""Preset, length, k and part of a row."""


class OverheadRecord:
    """What was measured so far.

    Args:
        folder: Where the file stands.
        content: What it holds.
    """

    def __init__(self, folder: Path, content: dict[str, Any]) -> None:
        self.file, self.content = folder / NAME, content

    @classmethod
    def open(cls, folder: Path, config: OverheadConfig) -> OverheadRecord:
        """Begin a record, or take up one of equal settings and hardware.

        Args:
            folder: Where; made when it is not there.
            config: The settings.

        Returns:
            The record.

        Raises:
            CheckpointError: the file is damaged, or of other settings, hardware or libraries.
        """
        folder.mkdir(parents=True, exist_ok=True)
        fresh: dict[str, Any] = {
            "format": FORMAT,
            "settings": config.to_dict(),
            "hardware": hardware(config.device),
            "torch": torch.__version__,
            "triton": triton_version(),
            "revisions": [],
            "complete": False,
            "checks": {},
            "rows": [],
        }
        file = folder / NAME
        if file.exists():
            stored = _read(file)
            for name in ("format", "settings", "hardware", "torch", "triton"):
                if stored.get(name) != fresh[name]:
                    raise CheckpointError(
                        f"{file} has {name} = {stored.get(name)}, this run has {fresh[name]}: repeat its settings on its"
                        " machine to go on, or choose another folder"
                    )
            fresh = stored
        revision = git_revision(SOURCE) or "unknown"
        if revision not in fresh["revisions"]:
            fresh["revisions"].append(revision)
        return cls(folder, fresh)

    @property
    def rows(self) -> list[Row]:
        """All measurements, in the order in which they were made."""
        return self.content["rows"]

    def row(self, key: Key) -> Row | None:
        """Find a measurement.

        Args:
            key: Which one.

        Returns:
            It; None if it was not made.
        """
        return find_row(self.rows, key)

    def write(self) -> Path:
        """Write the file, whole or not at all, also when the machine stops.

        Returns:
            The file.
        """
        fresh = self.file.with_name(f"{self.file.name}.new")
        with fresh.open("w", encoding="utf-8") as opened:
            opened.write(json.dumps(self.content, indent=1, allow_nan=False) + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        fresh.replace(self.file)
        return self.file


def find_row(rows: Sequence[Row], key: Key) -> Row | None:
    """Find a measurement.

    Args:
        rows: Measurements.
        key: Which one.

    Returns:
        It; None if it is not there.
    """
    return next((row for row in rows if (row["preset"], row["length"], row["k"], row["part"]) == key), None)


def hardware(device: str) -> str:
    """Name the device.

    Args:
        device: `cpu` or `cuda`.

    Returns:
        The name of the GPU, or the architecture of the processor.
    """
    return torch.cuda.get_device_name() if device == "cuda" else f"cpu, {platform.machine()}"


def triton_version() -> str | None:
    """Give the version of triton.

    Returns:
        The version; None if it is not installed.
    """
    try:
        return version("triton")
    except PackageNotFoundError:
        return None


def _read(file: Path) -> dict[str, Any]:
    """Read the file.

    Raises:
        CheckpointError: it is damaged.
    """
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} is damaged: {error}; remove it and run again") from error
    if not isinstance(content, dict) or not isinstance(content.get("rows"), list):
        raise CheckpointError(f"{file} is no record of this experiment; remove it and run again")
    return content


def dense_best(rows: Sequence[Row], preset: str, length: int, what: str, by: str = "ms") -> Row | None:
    """Give the faster of the two forms of dense attention.

    Args:
        rows: Measurements.
        preset: Name of the preset.
        length: Tokens.
        what: `forward` or `training`.
        by: Which time decides: `ms`, or `CAPTURED`.

    Returns:
        The row of MHA or MQA; None if neither has a time.
    """
    found = [find_row(rows, (preset, length, None, f"dense_{kind}_{what}")) for kind in ("mha", "mqa")]
    timed = [row for row in found if row is not None and row.get(by) is not None]
    return min(timed, key=lambda row: row[by], default=None)


def as_captured(row: Row | None) -> Row | None:
    """Give a row whose time is that of its CUDA graph.

    Args:
        row: A row, or None.

    Returns:
        The row, without a time where there is no graph; None for None.
    """
    return None if row is None else {**row, "ms": row.get(CAPTURED)}


def ratio(above: Mapping[str, Any] | None, below: Mapping[str, Any] | None) -> float | None:
    """Divide two times.

    Args:
        above: A row, or None.
        below: A row, or None.

    Returns:
        How many times as long the first one takes; None where a time is missing.
    """
    if above is None or below is None or above["ms"] is None or below["ms"] is None:
        return None
    return above["ms"] / below["ms"]
