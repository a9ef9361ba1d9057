"""What the sandbox says: the closed set of failures, limits, results of calls, and questions of a solution."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

import orjson
from pydantic import JsonValue

from envsynth.errors import SpecError

Role = Literal["tools", "solution", "verifier", "compiler"]
"""Who wrote the code of a worker; two parties never share one. A compiler's worker compiles, and runs nothing."""


class Failure(StrEnum):
    """How a request to a worker ended; closed, so that code which gives rewards can tell the cases apart."""

    OK = "ok"
    """It returned."""
    TOOL_ERROR = "tool_error"
    """The code raised; changes are rolled back, the worker lives on."""
    SOFT_TIMEOUT = "soft_timeout"
    """It passed the soft limit and was interrupted; changes are rolled back, the worker lives on."""
    HARD_TIMEOUT = "hard_timeout"
    """It passed the hard limit, or its processor seconds; the worker was killed."""
    MEMORY = "memory"
    """It reached the memory limit; the worker lives on, or died when not even the error fitted."""
    CRASH = "crash"
    """The worker died by a signal or ended itself."""
    BAD_RESULT = "bad_result"
    """Arguments or result have no plain JSON form; changes are rolled back, the worker lives on."""
    OUTPUT_LIMIT = "output_limit"
    """The result or image is larger than allowed; changes are rolled back, the worker lives on."""
    POLICY_VIOLATION = "policy_violation"
    """The code asked for what the jail refuses: a file, a module, a process; rolled back, the worker lives on."""
    PROTOCOL_VIOLATION = "protocol_violation"
    """The worker's frames are forged or malformed; it was killed."""
    UNSUPPORTED = "unsupported"
    """The engine cannot run such code; the process jail never says this."""
    SANDBOX_UNAVAILABLE = "sandbox_unavailable"
    """The sandbox itself is down: infrastructure, never the fault of the code."""


MIN_FRAME_BYTES = 4096
"""Room that an error report needs."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What untrusted code may use. Times are per request, the rest per worker.

    Raises:
        SpecError: A value is not positive, or a frame has no room for an error report.
    """

    soft_s: float = 1.0
    """Seconds after which a request is interrupted."""
    hard_s: float = 2.0
    """Seconds after which the worker is killed."""
    cpu_s: int = 30
    """Processor seconds in the worker's life."""
    memory_mb: int = 256
    """Memory beyond what a fresh worker has, MiB."""
    frame_bytes: int = 4 << 20
    """Longest JSON text of a reply, bytes."""
    blob_bytes: int = 64 << 20
    """Largest database, bytes."""
    stdout_bytes: int = 65536
    """Standard output kept per request, bytes."""

    def __post_init__(self) -> None:
        for name in ("soft_s", "hard_s", "cpu_s", "memory_mb", "blob_bytes"):
            if getattr(self, name) <= 0:
                raise SpecError(f"limit {name} is {getattr(self, name)!r}: it must be positive")
        if self.frame_bytes < MIN_FRAME_BYTES or self.stdout_bytes < 0:
            raise SpecError(
                f"limits frame_bytes={self.frame_bytes!r}, stdout_bytes={self.stdout_bytes!r}: frames need at least "
                f"{MIN_FRAME_BYTES} bytes, output at least 0"
            )


def _nothing() -> None:
    """The default of a field that must not be an attribute of the class: one that is missing is made when it is read."""


@dataclass(frozen=True, kw_only=True)
class CallResult:
    """How a request to a worker ended."""

    status: Failure
    """The outcome; anything but `OK` is a failure."""
    value: JsonValue = field(default_factory=_nothing)
    """What the function returned; made from `text` when it is first read."""
    error_type: str = ""
    """Name of the exception's class."""
    code: str = ""
    """Code of a `Refusal`."""
    message: str = ""
    """What went wrong, at most 500 characters."""
    stdout: str = ""
    """What the code printed, capped."""
    blob: bytes = b""
    """A database image; opaque to the host, which never opens it."""
    text: str = field(default="", compare=False, repr=False)
    """JSON text of `value`, checked by the host, when it is at hand."""

    @property
    def ok(self) -> bool:
        """Whether the request succeeded."""
        return self.status is Failure.OK

    def __getattr__(self, name: str) -> JsonValue:
        """Make the value, which alone may be missing.

        Raises:
            AttributeError: there is no such attribute.
        """
        if name != "value":
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        value = self.__dict__["value"] = orjson.loads(self.text)
        return value


def success_text(text: str) -> CallResult:
    """Make the usual outcome of a call from the JSON text of its value, in which nothing remains to be checked."""
    found = object.__new__(CallResult)
    object.__setattr__(found, "__dict__", {"status": Failure.OK, "text": text})
    return found


def success(value: JsonValue, stdout: str, blob: bytes, text: str = "") -> CallResult:
    """Make the usual outcome, several times faster than the constructor of a frozen record: its defaults are the class's."""
    fields: dict[str, Any] = {"status": Failure.OK, "value": value, "text": text}
    if stdout:
        fields["stdout"] = stdout
    if blob:
        fields["blob"] = blob
    found = object.__new__(CallResult)
    object.__setattr__(found, "__dict__", fields)
    return found


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A solution asks the host to call a tool; answer with `Worker.reply` or `Worker.reply_error`."""

    tool: str
    """Name of the tool, not yet checked against the environment."""
    arguments: dict[str, JsonValue] = field(default_factory=dict[str, JsonValue])
    """Arguments, not yet checked against the tool's schema."""
