"""Suites: frozen, named lists of tasks, with one module per export and import format.

Names are loaded when first used, so that evaluating a suite file costs neither SQLModel nor pyarrow.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from envsynth.store.records import Suite, SuiteItem, TaskQuery
    from envsynth.suite.freezing import freeze
    from envsynth.suite.jsonl import LoadedSuite, load_suite
    from envsynth.suite.parquet import export_parquet
    from envsynth.suite.transfer import ImportResult, export_jsonl, import_jsonl

__all__ = [
    "ImportResult",
    "LoadedSuite",
    "Suite",
    "SuiteItem",
    "TaskQuery",
    "export_jsonl",
    "export_parquet",
    "freeze",
    "import_jsonl",
    "load_suite",
]

_HOMES = {
    "ImportResult": "envsynth.suite.transfer",
    "LoadedSuite": "envsynth.suite.jsonl",
    "Suite": "envsynth.store.records",
    "SuiteItem": "envsynth.store.records",
    "TaskQuery": "envsynth.store.records",
    "export_jsonl": "envsynth.suite.transfer",
    "export_parquet": "envsynth.suite.parquet",
    "freeze": "envsynth.suite.freezing",
    "import_jsonl": "envsynth.suite.transfer",
    "load_suite": "envsynth.suite.jsonl",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
