"""Worlds, tools and the Gymnasium environment; the only package that imports gymnasium.

Importing this package is cheap: names load when they are first used, because Gymnasium's own import registers our ids.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from envsynth.environments.env import ToolEnv, make_env
    from envsynth.environments.registration import register_environment
    from envsynth.environments.tools import ToolResult, ToolRuntime, check_arguments, tool_docs
    from envsynth.environments.vector import ToolVectorEnv
    from envsynth.environments.world import build_image

__all__ = [
    "ToolEnv",
    "ToolResult",
    "ToolRuntime",
    "ToolVectorEnv",
    "build_image",
    "check_arguments",
    "make_env",
    "register_environment",
    "tool_docs",
]

_HOMES = {
    "ToolEnv": "env",
    "make_env": "env",
    "register_environment": "registration",
    "ToolResult": "tools",
    "ToolRuntime": "tools",
    "check_arguments": "tools",
    "tool_docs": "tools",
    "ToolVectorEnv": "vector",
    "build_image": "world",
}


def __getattr__(name: str) -> Any:
    """Load a public name from its module on first use.

    Raises:
        AttributeError: there is no such public name.
    """
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    value = getattr(module, name)
    globals()[name] = value
    return value
