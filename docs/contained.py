"""The generated page of what stops which hostile program; `generate.py` runs this file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FINDINGS = Path(__file__).resolve().parents[1] / "benchmarks" / "results" / "contained.json"
COLUMNS = (("default", "all layers"), ("seccomp only", "seccomp alone"), ("exposed", "seccomp alone, `ctypes` at hand"))
"""Modes that have a column, and its head."""


def _cell(rows: list[dict[str, Any]], mode: str, name: str) -> str:
    """The layers of one program in one mode; who opened the jail is told only where it made a difference."""
    told: dict[str, list[str]] = {}
    for row in rows:
        if row["mode"] == mode:
            told.setdefault(", ".join(row["found"][name]["stopped_by"]), []).append(row["who"])
    if len(told) == 1:
        return next(iter(told))
    return "; ".join(f"{layers} ({' and '.join(who)})" for layers, who in told.items())


def _text(meaning: str) -> str:
    return meaning.replace("|", "/").replace("__", "\\_\\_")


def _rows(recorded: dict[str, Any], public: bool) -> list[str]:
    lines = ["| program | contained means | " + " | ".join(head for _, head in COLUMNS) + " |"]
    lines.append("|---|---|" + "---|" * len(COLUMNS))
    for name, program in recorded["programs"].items():
        if program["public"] == public:
            cells = [_cell(recorded["rows"], mode, name) for mode, _ in COLUMNS]
            lines.append(f"| `{name}` | {_text(program['meaning'])} | " + " | ".join(cells) + " |")
    return lines


def page(note: str) -> str:
    """Render the page from the recorded findings.

    Args:
        note: First line: where the page comes from.

    Returns:
        The page, the same for the same record.
    """
    recorded = json.loads(FINDINGS.read_text(encoding="utf-8"))
    lines = [
        note,
        "# What stopped each hostile program",
        "",
        "`python -m acceptance.jail_hostile --record` runs the hostile programs of `tests/sandbox/hostile_programs.py` in "
        "each row of the matrix below and writes what it saw to `benchmarks/results/contained.json`; this page is made from "
        "that file. A program is contained when no canary comes back, nothing on the host changed, nothing is left running, "
        "and the next worker is sound; the [threat model](threat-model.md) says what the layers are.",
        "",
        f"Recorded with Python {recorded['python']} on {recorded['machine']}.",
        "",
        "| who opened the jail | mode | layers that were off | contained |",
        "|---|---|---|---|",
    ]
    for row in recorded["rows"]:
        off = ", ".join(row["off"]) or "none"
        lines.append(f"| {row['who']} | {row['mode']} | {off} | {row['contained']} of {len(row['found'])} |")
    lines += [
        "",
        "## How a layer is known",
        "",
        "From the evidence that a program brings back, never from its name. seccomp answers before namespaces and Landlock "
        "do, so they are never seen to stop anything; they are there for the day when seccomp fails. What evidence does not "
        "speak of is not named: a program may have been stopped by more layers than are told. Where limits are close to each "
        "other, a slower machine may tell another one, such as the soft limit in place of the memory limit.",
        "",
        "| layer | its evidence |",
        "|---|---|",
        *[f"| {layer} | {evidence} |" for layer, evidence in recorded["layers"].items()],
        "",
        "## The 32 public programs",
        "",
        *_rows(recorded, public=True),
        "",
        "## Programs of our own",
        "",
        *_rows(recorded, public=False),
    ]
    return "\n".join(lines) + "\n"
