"""envsynth: verifiable, tool-using environments that are hard to solve and easy to verify.

The public names of the text wing. They are loaded on first use, so `import envsynth` is light and never loads torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from envsynth.environments import ToolEnv, ToolVectorEnv, make_env
    from envsynth.gates import check, explain
    from envsynth.gym_ids import register_store
    from envsynth.hardening import harden
    from envsynth.pipeline import synthesize
    from envsynth.report import Finding, GateReport
    from envsynth.rollout import play
    from envsynth.spec import EnvironmentSpec, TaskVersion
    from envsynth.store import Store
    from envsynth.suite import Suite
    from envsynth.trajectory import Group, StopReason, ToolCall, Trajectory, Turn, Verdict

_HOMES = {
    "EnvironmentSpec": "envsynth.spec",
    "Finding": "envsynth.report",
    "GateReport": "envsynth.report",
    "Group": "envsynth.trajectory",
    "StopReason": "envsynth.trajectory",
    "Store": "envsynth.store",
    "Suite": "envsynth.suite",
    "TaskVersion": "envsynth.spec",
    "ToolCall": "envsynth.trajectory",
    "ToolEnv": "envsynth.environments",
    "ToolVectorEnv": "envsynth.environments",
    "Trajectory": "envsynth.trajectory",
    "Turn": "envsynth.trajectory",
    "Verdict": "envsynth.trajectory",
    "check": "envsynth.gates",
    "explain": "envsynth.gates",
    "harden": "envsynth.hardening",
    "make_env": "envsynth.environments",
    "play": "envsynth.rollout",
    "register_store": "envsynth.gym_ids",
    "synthesize": "envsynth.pipeline",
}

__all__ = [
    "EnvironmentSpec",
    "Finding",
    "GateReport",
    "Group",
    "StopReason",
    "Store",
    "Suite",
    "TaskVersion",
    "ToolCall",
    "ToolEnv",
    "ToolVectorEnv",
    "Trajectory",
    "Turn",
    "Verdict",
    "__version__",
    "check",
    "explain",
    "harden",
    "make_env",
    "play",
    "register_store",
    "synthesize",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its home on first use.

    The functions `rollout` and `evaluate` share their names with submodules, so they are not here: import them from
    `envsynth.rollout` and `envsynth.evaluate`.

    Raises:
        AttributeError: there is no such name.
    """
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'envsynth' has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names."""
    return sorted(__all__)
