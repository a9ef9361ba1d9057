"""What a person looks at: one self-contained HTML report. Records come in, a file comes out; nothing is run here."""

from __future__ import annotations

from envsynth.view.data import CategorySection, LadderRow, PolicyRow, ReportData, SuiteSection, TrainingSection
from envsynth.view.report import render_report, write_report

__all__ = [
    "CategorySection",
    "LadderRow",
    "PolicyRow",
    "ReportData",
    "SuiteSection",
    "TrainingSection",
    "render_report",
    "write_report",
]
