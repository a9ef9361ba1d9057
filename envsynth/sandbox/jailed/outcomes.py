"""How untrusted code ends: what it may raise, what it printed, and the words for it that the host may see."""

from __future__ import annotations

import errno
import io
import sqlite3
from typing import Any

from envsynth.sandbox.jailed.frames import MESSAGE_CHARS, NAME_CHARS

_JAIL_ERRORS = (errno.EPERM, errno.EACCES, errno.ENOENT, errno.ENOSYS)


class Refusal(Exception):
    """What a tool raises to refuse a call: part of its interface, not a defect.

    Args:
        code: Stable code, such as `not_found`.
        message: For people.
    """

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


class CallError(Exception):
    """What `call` raises in a solution when the host answers with an error.

    Args:
        payload: What the host said.
    """

    def __init__(self, payload: Any) -> None:
        super().__init__(payload)
        self.payload = payload


class SoftTimeout(BaseException):
    """The time of a call is up; not an `Exception`, so that ordinary handlers let it pass."""


class BadResult(Exception):
    """A value has no JSON form."""


class OutputLimit(Exception):
    """A result is larger than a frame may be."""


class Capture(io.TextIOBase):
    """Standard output up to a cap; the rest is counted and dropped."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[str] = []
        self.size = 0

    def write(self, text: str, /) -> int:
        """Keep the text while there is room, and say that all of it was written."""
        room = self._limit - self.size
        self.size += len(text)
        if room > 0:
            self._parts.append(text[:room])
        return len(text)

    def text(self) -> str:
        """What was kept, as whole characters."""
        data = "".join(self._parts).encode("utf-8", "backslashreplace")[: self._limit]
        return data.decode("utf-8", "ignore")


def said(value: object, limit: int = MESSAGE_CHARS) -> str:
    """The text of what untrusted code made, cut; `__str__` may be untrusted too."""
    try:
        text = str(value)[:limit]
    except BaseException:  # noqa: BLE001 - `__str__` is untrusted code too
        return "(its text could not be made)"
    return text.encode("utf-8", "backslashreplace").decode()[:limit]


def _where(error: BaseException) -> str:
    found = ""
    step = error.__traceback__
    while step is not None:
        name = step.tb_frame.f_code.co_filename
        if name.startswith("<") and name.endswith(">"):
            found = f" (line {step.tb_lineno} of {name[1:-1]})"
        step = step.tb_next
    return found


def describe(error: BaseException, is_late: bool) -> tuple[str, list[str]]:
    """Classify what untrusted code raised.

    Args:
        error: The exception.
        is_late: Whether the soft time limit had passed.

    Returns:
        The status, and the error's type, code and message.
    """
    kind = said(type(error).__name__, NAME_CHARS)
    message = said(error)
    interrupted = is_late and isinstance(error, sqlite3.OperationalError)
    if isinstance(error, SoftTimeout) or interrupted:
        found = "soft_timeout", "the call passed its soft time limit"
    elif isinstance(error, MemoryError):
        found = "memory", "the call reached the memory limit"
    elif isinstance(error, BadResult):
        found = "bad_result", message
    elif isinstance(error, OutputLimit):
        found = "output_limit", message
    elif isinstance(error, Refusal):
        return "tool_error", ["Refusal", said(error.code, NAME_CHARS), said(error.message)]
    elif _is_jails(error):
        found = "policy_violation", f"not available in the sandbox: {message}{_where(error)}"
    else:
        found = "tool_error", message + _where(error)
    return found[0], [kind, "", found[1]]


def _is_jails(error: BaseException) -> bool:
    """Whether the jail refused something; an OSError that code raises itself has no error number."""
    if isinstance(error, OSError):
        return error.errno in _JAIL_ERRORS
    if isinstance(error, sqlite3.DatabaseError):
        return "not authorized" in str(error)
    return isinstance(error, ModuleNotFoundError)
