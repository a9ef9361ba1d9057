"""Runs code that nobody trusts in confined processes; the host sees only JSON and opaque bytes.

`Jail` starts a confined zygote, `Jail.worker` forks a process from it, `Worker.call` runs a function there. What ends
badly is data (`CallResult.status`), what cannot run at all is a `SandboxError`. What the jail covers, and what it does
not, is told in `docs/concepts/threat-model.md` and by `inspect_sandbox`.
"""

from __future__ import annotations

from envsynth.sandbox.doctor import inspect_sandbox
from envsynth.sandbox.families import Family, Source
from envsynth.sandbox.jail import Jail, shared_jail
from envsynth.sandbox.result import Ask, CallResult, Failure, Limits, Role
from envsynth.sandbox.worker import Worker

__all__ = [
    "Ask",
    "CallResult",
    "Failure",
    "Family",
    "Jail",
    "Limits",
    "Role",
    "Source",
    "Worker",
    "inspect_sandbox",
    "shared_jail",
]
