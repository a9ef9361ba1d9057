"""Look at this machine: the sandbox with its self-test, the store, optional extras."""

from __future__ import annotations

import importlib.util
import platform
import sys
from pathlib import Path
from typing import Any

from envsynth import __version__
from envsynth.errors import EnvsynthError
from envsynth.sandbox import inspect_sandbox
from envsynth.store import Store, default_store_path

EXTRAS = {
    "train": "torch",
    "ray": "ray",
    "export": "pyarrow",
    "docker": "docker",
    "view": "starlette",
    "plots": "matplotlib",
}
"""Extra -> the module that shows that it is installed."""


def examine(topic: str = "all", store: str | Path | None = None) -> dict[str, dict[str, Any]]:
    """Examine this machine.

    Args:
        topic: `all`, `sandbox` or `store`.
        store: The store to look at; the default store when None.

    Returns:
        Facts by section; `sandbox` holds `ok`, whether untrusted code is contained here.
    """
    found: dict[str, dict[str, Any]] = {}
    if topic == "all":
        found["envsynth"] = {"version": __version__, "python": sys.version.split()[0], "platform": platform.platform()}
        found["extras"] = {
            name: "installed" if importlib.util.find_spec(module) else "absent" for name, module in EXTRAS.items()
        }
    if topic in ("all", "sandbox"):
        found["sandbox"] = inspect_sandbox()
    if topic in ("all", "store"):
        found["store"] = _store(store)
    return found


def _store(path: str | Path | None) -> dict[str, Any]:
    place = str(path or default_store_path())
    try:
        with Store.open(path, readonly=True) as opened:
            n_environments, n_tasks = len(opened.environment_entries()), len(opened.task_entries())
    except EnvsynthError as error:
        return {"path": place, "state": str(error)}
    return {"path": place, "state": "readable", "environments": n_environments, "tasks": n_tasks}
