"""What runs tools inside a tools worker: loaded there as source text; the host only reads this file.

Each tool's source has a namespace of its own, so that helper functions of equal names do not overwrite each other. All
namespaces are made anew for every episode, so that a tool's module state cannot leak from one into the next.
"""

from __future__ import annotations

import json
from typing import Any

_codes: dict[str, Any] = {}
_tools: dict[str, Any] = {}


def add_tool(name: str, source: str) -> None:
    """Compile the source of a tool and try it once.

    Raises:
        TypeError: the source does not define a function of that name.
    """
    _codes[name] = compile(source, f"<tool {name}>", "exec")
    _load(name)


def fresh_tools(db: Any) -> None:
    """Execute all tool sources again, each in a new namespace, and turn foreign keys on.

    SQLite ignores that pragma inside a transaction, so the call's savepoint is closed around it.
    """
    db.end_call()
    db.execute("PRAGMA foreign_keys = ON")
    db.begin_call()
    for name in _codes:
        _load(name)


def _load(name: str) -> None:
    space: dict[str, Any] = {"__name__": f"tool_{name}", "Refusal": globals()["Refusal"]}
    exec(_codes[name], space)  # noqa: S102 - this module runs in the jail
    if not callable(space.get(name)):
        raise TypeError(f"the source of tool {name!r} defines no function of that name")
    _tools[name] = space[name]


def run_tool(db: Any, tool: str, given: dict[str, Any], max_chars: int) -> Any:
    """Call a tool with keyword arguments.

    The size is checked here, not on the host, so that a call that is answered by an error is also rolled back.
    """
    result = _tools[tool](db, **given)
    size = len(json.dumps(result, allow_nan=False, ensure_ascii=False, separators=(",", ":")))
    if size > max_chars:
        text = f"the result has {size} characters, at most {max_chars} are shown"
        raise globals()["Refusal"]("too_large", text)
    return result
