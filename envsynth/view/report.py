"""Render a report: one HTML file with its style inside, no script, no request to anywhere."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from envsynth.report import GateReport
from envsynth.spec import TaskVersion
from envsynth.suite.atomic import whole_file
from envsynth.trajectory import Trajectory, Turn
from envsynth.view.data import ReportData, TrainingSection

SHOWN_CHARS = 420
"""Characters of an observation that the report shows; the trajectory in the store has all."""
CODE_LINES = 60
"""Lines of a source that the report shows."""

GATE_TITLES = {
    "SP101": "the world builds",
    "EX201": "solvable through tools alone",
    "EX202": "the oracle agrees",
    "EX203": "deterministic",
    "VF301": "doing nothing fails",
    "VF302": "guessing fails",
    "VF303": "answer mutants refused",
    "VF304": "state mutants refused",
    "VF305": "constraint mutants refused",
    "VF306": "alternatives accepted",
    "VF308": "a guess hits rarely",
    "SE501": "no leak",
}
"""Short titles of the gates that the summary shows."""


def render_report(data: ReportData) -> str:
    """Render a report as HTML.

    Args:
        data: What it shows.

    Returns:
        A self-contained page.
    """
    engine = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    engine.filters["clip"] = _clip
    source = resources.files("envsynth.view").joinpath("templates", "report.html.j2").read_text(encoding="utf-8")
    return engine.from_string(source).render(data=data, **_facts(data))


def write_report(path: Path, data: ReportData) -> Path:
    """Render a report into a file.

    Args:
        path: The file; replaced only when the page is complete.
        data: What it shows.

    Returns:
        The path.

    Raises:
        SuiteError: the file cannot be written; an older one is still there then.
    """
    page = render_report(data)
    with whole_file(path) as file:
        file.write(page.encode())
    return path


def _clip(text: str, limit: int = SHOWN_CHARS) -> str:
    return text if len(text) <= limit else f"{text[:limit]} … ({len(text) - limit} more characters)"


def _facts(data: ReportData) -> dict[str, Any]:
    audited = [pair for section in data.sections for pair in section.tasks]
    environments = [item for section in data.sections for item in section.environments]
    return {
        "n_environments": len(environments),
        "n_tasks": len(audited),
        "n_refused": sum(sum(section.rejections.values()) for section in data.sections),
        "n_steps": sum(task.lineage.depth > 0 for task, _ in audited),
        "mutants": _mutants(audited),
        "gates": _gates(audited),
        "lineage": [_version(task, report) for task, report in data.lineage],
        "task": data.lineage[-1][0],
        "atoms": data.lineage[-1][0].verifier.atoms,
        "solution": _solve_part(data.lineage[-1][0].solution),
        "turns": _turns(data.episode),
        "failed_turns": _turns(data.failure) if data.failure else [],
        "curve": _curve(data.training) if data.training else {},
        "shares": [
            {"row": row, "width": 100 * row.rate, "low": 100 * row.low, "high": 100 * row.high} for row in data.ladder
        ],
    }


CURVE_WIDTH, CURVE_HEIGHT = 640, 180
"""Size of the learning curve (px)."""


def _curve(training: TrainingSection) -> dict[str, Any]:
    """The learning curve as points of an SVG line, with the marks of its axes."""
    end = max((second for second, _ in training.curve), default=1.0) or 1.0
    points = [f"{CURVE_WIDTH * second / end:.1f},{CURVE_HEIGHT * (1 - share):.1f}" for second, share in training.curve]
    return {"points": " ".join(points), "end": end, "width": CURVE_WIDTH, "height": CURVE_HEIGHT}


def _mutants(audited: list[tuple[TaskVersion, GateReport]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for code, label in (
        ("VF302", "guesses"),
        ("VF303", "answer mutants"),
        ("VF304", "state mutants"),
        ("VF305", "constraint mutants"),
    ):
        evidence = [report.evidence(code) for _, report in audited]
        total = sum(int(item.get("total", 0)) for item in evidence)  # type: ignore[arg-type]
        killed = sum(int(item.get("killed", item.get("right", 0))) for item in evidence)  # type: ignore[arg-type]
        found.append({"label": label, "total": total, "killed": killed})
    return found


def _gates(audited: list[tuple[TaskVersion, GateReport]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for code, title in GATE_TITLES.items():
        statuses = [result.status for _, report in audited for result in report.results if result.code == code]
        rows.append(
            {
                "code": code,
                "title": title,
                "passed": statuses.count("pass"),
                "applies": len(statuses) - statuses.count("skipped"),
            }
        )
    return rows


def _version(task: TaskVersion, report: GateReport) -> dict[str, Any]:
    before = report.evidence("DF402").get("new")
    return {
        "task": task,
        "calls": report.evidence("EX201").get("calls", "?"),
        "skills": report.evidence("DF401").get("skills", []),
        "new": before if isinstance(before, list) else [],
        "changes": len(task.oracle.changes),
        "distractors": len(task.overlay),
        "faults": sum(fault.calls for fault in task.faults),
    }


def _turns(trajectory: Trajectory) -> list[dict[str, Any]]:
    return [
        {"number": number, "turn": turn, "action": _action(turn)} for number, turn in enumerate(trajectory.turns, 1)
    ]


def _action(turn: Turn) -> str:
    if turn.call is None:
        return turn.action
    arguments = ", ".join(
        f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in turn.call.arguments.items()
    )
    return f"{turn.call.tool}({arguments})"


def _solve_part(source: str) -> str:
    """The part of a solution that is about this task: its `solve` function."""
    start = source.find("def solve(")
    lines = source[max(start, 0) :].rstrip().split("\n")
    return "\n".join(lines[:CODE_LINES])
