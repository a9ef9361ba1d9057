"""The store of envsynth: SQLite by default; every accepted environment, task, verdict and rejection, with lineage.

Names are loaded when first used, so that `envsynth.store.catalogue`, which runs whenever Gymnasium is imported, costs
no SQLModel.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from envsynth.store.batch import Batch
    from envsynth.store.records import (
        Calibration,
        EnvironmentEntry,
        RefusalCount,
        Rejection,
        RunEntry,
        Suite,
        SuiteItem,
        TaskEntry,
        TaskQuery,
        UnitEntry,
    )
    from envsynth.store.schema import default_store_path
    from envsynth.store.store import Store

__all__ = [
    "Batch",
    "Calibration",
    "EnvironmentEntry",
    "RefusalCount",
    "Rejection",
    "RunEntry",
    "Store",
    "Suite",
    "SuiteItem",
    "TaskEntry",
    "TaskQuery",
    "UnitEntry",
    "default_store_path",
]

_HOMES = {"Batch": "batch", "Store": "store", "default_store_path": "schema"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'records')}"), name)
