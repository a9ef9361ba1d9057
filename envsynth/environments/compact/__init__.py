"""What a policy reads instead of JSON: the same content in fewer tokens, as pure functions with an exact round trip."""

from __future__ import annotations

from envsynth.environments.compact.protocol import (
    STANDARD_DAY,
    compact_action,
    compact_first,
    compact_observation,
    expand_action,
    expand_first,
    expand_observation,
)
from envsynth.environments.compact.schemas import compact_tool, expand_tool
from envsynth.environments.compact.values import compact, expand

__all__ = [
    "STANDARD_DAY",
    "compact",
    "compact_action",
    "compact_first",
    "compact_observation",
    "compact_tool",
    "expand",
    "expand_action",
    "expand_first",
    "expand_observation",
    "expand_tool",
]
