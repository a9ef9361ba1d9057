"""Gymnasium ids of the built-in examples and of stored environments, resolvable in every interpreter.

`hook` waits until Gymnasium is imported, `ids` registers (cheaply), `making` makes. Nothing is imported before it is
needed: importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from envsynth.gym_ids.ids import register_all, register_store

__all__ = ["register_all", "register_store"]


def __getattr__(name: str) -> Any:
    """Load a public name on first use.

    Raises:
        AttributeError: there is no such public name.
    """
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.ids"), name)
