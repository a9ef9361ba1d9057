"""Which calls of an episode fail, by the schedule of its task. The host reads this file, and so does a rehearsal's worker.

Faults are failed outside the tools, whose sources know nothing of them: before a tool runs, or behind it.
"""

from __future__ import annotations

from typing import Any

AFTER = "timeout_after"
"""The kind of fault whose tool runs; its changes stay and its result is lost."""

_TIMEOUT = ("timeout", "no reply in time: the call may or may not have taken effect")

FAULT_ERRORS: dict[str, tuple[str, str]] = {
    "timeout_before": _TIMEOUT,
    AFTER: _TIMEOUT,
    "unavailable": ("unavailable", "the tool is not available at the moment: the call has had no effect"),
}
"""Code and message of the error that each kind of fault ends in. Both timeouts say the same."""


class FaultClock:
    """Counts the calls of one episode by tool.

    Args:
        faults: The schedule, each a `Fault` as a dictionary.
    """

    def __init__(self, faults: list[dict[str, Any]]) -> None:
        self._kinds = {
            (fault["tool"], fault["call"] + more): fault["kind"] for fault in faults for more in range(fault["calls"])
        }
        self._counts: dict[str, int] = {}

    def next_call(self, tool: str) -> str | None:
        """Count a call that the tool takes; return the kind of fault that it ends in, or None."""
        if not self._kinds:
            return None
        number = self._counts[tool] = self._counts.get(tool, 0) + 1
        return self._kinds.get((tool, number))
