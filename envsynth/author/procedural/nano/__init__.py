"""The nano tier: small worlds with coined verbs and tasks of one or two calls, for policies of a million parameters."""

from __future__ import annotations

from envsynth.author.procedural.nano.author import NANO_AUTHOR, NanoAuthor, NanoTask, nano_kind, nano_tasks
from envsynth.author.procedural.nano.tasks import KINDS
from envsynth.author.procedural.nano.traces import Trace, gold_trace, retry_traces

__all__ = [
    "KINDS",
    "NANO_AUTHOR",
    "NanoAuthor",
    "NanoTask",
    "Trace",
    "gold_trace",
    "nano_kind",
    "nano_tasks",
    "retry_traces",
]
