"""What runs tools inside a tools worker: loaded there as source text; the host only reads this file.

A worker may hold the worlds of several episodes. Each tool's source has a namespace of its own in each world, so that
helper functions of equal names do not overwrite each other. All namespaces are made anew for every episode, so that a
tool's module state cannot leak from one into the next.
"""

from __future__ import annotations

import random
import time
from types import CodeType
from typing import Any

PART = "tool "
"""How the names of tools' code objects begin among the parts of this family."""

_FIRST = random.Random(0).getstate()
"""State of `random` at the start of every episode."""

_codes: dict[str, CodeType] = {}
_random_tools: set[str] = set()
_worlds: dict[str, dict[str, Any]] = {}
_draws: dict[str, Any] = {}


def take_tools(parts: dict[str, CodeType]) -> None:
    """Take the tools' compiled sources, and try each once.

    Args:
        parts: Code objects; those of tools have names that begin with `PART`.

    Raises:
        ImportError: A source fails, or defines no function of the tool's name.
    """
    for name, code in parts.items():
        if name.startswith(PART):
            tool = name.removeprefix(PART)
            _codes[tool] = code
            if _draws_numbers(code):
                _random_tools.add(tool)
            _try(tool)


def _try(tool: str) -> None:
    try:
        _load(tool)
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise ImportError(f"tool {tool!r} does not load: {said}; correct its source") from error


def _draws_numbers(code: CodeType) -> bool:
    inner = (item for item in code.co_consts if isinstance(item, CodeType))
    return "random" in code.co_names or any(_draws_numbers(item) for item in inner)


def fresh_tools(world: str) -> float:
    """Forget the namespaces of a world's last episode.

    Returns:
        Processor seconds that this worker has used.
    """
    _worlds[world] = {}
    _draws.pop(world, None)
    return time.process_time()


def drop_tools(world: str) -> None:
    """Forget a world that will not be played again."""
    _worlds.pop(world, None)
    _draws.pop(world, None)


def _load(name: str) -> Any:
    space: dict[str, Any] = {"__name__": f"tool_{name}", "Refusal": globals()["Refusal"]}
    exec(_codes[name], space)  # noqa: S102 - this module runs in the jail
    if not callable(space.get(name)):
        raise TypeError(f"the source of tool {name!r} defines no function of that name")
    return space[name]


def run_tool(db: Any, world: str, tool: str, given: dict[str, Any]) -> Any:
    """Call a tool with keyword arguments."""
    tools = _worlds[world]
    function = tools.get(tool)
    draws = tool in _random_tools
    if draws:
        random.setstate(_draws.get(world, _FIRST))
    if function is None:
        function = tools[tool] = _load(tool)
    result = function(db, **given)
    if draws:
        _draws[world] = random.getstate()
    return result
