"""One worker's conversation with the host: load source, open and serialize databases, call functions.

Untrusted code runs in this very process and can reach everything here; nothing here is a boundary. What this module
owes honest code: time limits, atomic calls, captured output, plain results and errors with a cause.
"""

from __future__ import annotations

import builtins
import errno
import io
import math
import os
import random
import signal
import sqlite3
import sys
import time
import types
from collections.abc import Callable
from typing import Any, NoReturn

from envsynth.sandbox.jailed import frames
from envsynth.sandbox.jailed.databases import Database, open_database
from envsynth.sandbox.jailed.frames import EXIT_MEMORY, MESSAGE_CHARS, NAME_CHARS

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


class _Capture(io.TextIOBase):
    """Standard output up to a cap; the rest is counted and dropped."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._parts: list[str] = []
        self.size = 0

    def write(self, text: str, /) -> int:
        room = self._limit - self.size
        self.size += len(text)
        if room > 0:
            self._parts.append(text[:room])
        return len(text)

    def text(self) -> str:
        data = "".join(self._parts).encode("utf-8", "backslashreplace")[: self._limit]
        return data.decode("utf-8", "ignore")


def _said(value: object, limit: int = MESSAGE_CHARS) -> str:
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
    kind = _said(type(error).__name__, NAME_CHARS)
    message = _said(error)
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
        return "tool_error", ["Refusal", _said(error.code, NAME_CHARS), _said(error.message)]
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


class Session:
    """The state of one worker.

    Args:
        fd: The worker's end of the socket pair.
        frame_bytes: Longest JSON text of a reply.
        blob_bytes: Largest blob of a reply, and largest database.
        stdout_bytes: Output kept per request.
    """

    def __init__(self, fd: int, frame_bytes: int, blob_bytes: int, stdout_bytes: int) -> None:
        self._fd = fd
        self._frame_bytes = frame_bytes
        self._blob_bytes = blob_bytes
        self._stdout_bytes = stdout_bytes
        self._databases: dict[str, Database] = {}
        self._in_call: list[Database] = []
        self._module = types.ModuleType("untrusted")
        self._id = 0
        self._role = ""
        self._armed = self._may_ask = False
        self._deadline = math.inf
        self._capture = _Capture(stdout_bytes)
        self._operations: dict[str, Callable[[dict[str, Any], bytes], tuple[bytes, bytes]]] = {
            "start": self._start,
            "load": self._load,
            "open": self._open,
            "image": self._image,
            "call": self._call,
        }

    def serve(self) -> NoReturn:
        """Answer requests until the host closes its end, then end the process."""
        signal.signal(signal.SIGALRM, self._ring)
        while True:
            try:
                request, blob = frames.read_frame(self._fd)
            except EOFError:
                os._exit(0)
            self._id = request["id"]
            self._renew_capture()
            try:
                text, out = self._answer(request, blob)
            except MemoryError:
                os._exit(EXIT_MEMORY)
            frames.write_frame(self._fd, text, out)

    # -------------------------------------------------------------------------------------------- one request

    def _answer(self, request: dict[str, Any], blob: bytes) -> tuple[bytes, bytes]:
        try:
            try:
                self._arm(request["soft"])
                value, out = self._operations[request["op"]](request, blob)
                self._disarm()
            except BaseException as error:  # noqa: BLE001 - the boundary: whatever code raises becomes a reply
                self._disarm()
                return self._failed(error), b""
        except SoftTimeout as late:  # the alarm rang between a failure and its disarming; it rings only once
            return self._failed(late), b""
        return self._framed(value), out

    def _failed(self, error: BaseException) -> bytes:
        is_late = time.monotonic() > self._deadline
        while self._in_call:
            self._in_call.pop().undo_call()
        status, parts = describe(error, is_late)
        reply: dict[str, Any] = {"id": self._id, "status": status, "error": parts}
        if self._capture.size:
            reply["stdout"] = self._capture.text()
        text = frames.encode(reply)
        if len(text) > self._frame_bytes:
            del reply["stdout"]
            text = frames.encode(reply)
        return text

    def _framed(self, value: bytes) -> bytes:
        text = b'{"id":%d,"status":"ok","value":%b' % (self._id, value)
        if self._capture.size:
            output = frames.encode(self._capture.text())
            if len(text) + len(output) + 12 <= self._frame_bytes:
                text += b',"stdout":' + output
        return text + b"}"

    def _encoded(self, value: Any) -> bytes:
        try:
            text = frames.encode(value)
        except (TypeError, ValueError, RecursionError) as error:
            raise BadResult(f"the result is not plain JSON: {_said(error)}") from error
        if len(text) + 64 > self._frame_bytes:
            raise OutputLimit(f"the result has {len(text)} bytes of JSON, allowed are {self._frame_bytes}")
        return text

    def _renew_capture(self) -> None:
        if self._capture.size:
            self._capture = _Capture(self._stdout_bytes)
        sys.stdout = sys.stderr = self._capture

    # -------------------------------------------------------------------------------------------- time

    def _ring(self, *_: object) -> None:
        if self._armed:
            self._armed = False
            raise SoftTimeout

    def _arm(self, seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._armed = True
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def _disarm(self) -> None:
        self._armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _is_late(self) -> bool:
        return self._armed and time.monotonic() > self._deadline

    # -------------------------------------------------------------------------------------------- operations

    def _start(self, request: dict[str, Any], _: bytes) -> tuple[bytes, bytes]:
        self._role = request["role"]
        random.seed(request["seed"])
        sys.modules[self._module.__name__] = self._module
        names = vars(self._module)
        names["__builtins__"] = builtins
        names["Refusal"] = Refusal
        if self._role == "solution":
            names["call"] = self._ask
            names["CallError"] = CallError
        return b"null", b""

    def _load(self, request: dict[str, Any], _: bytes) -> tuple[bytes, bytes]:
        code = compile(request["source"], f"<{request['name']}>", "exec", dont_inherit=True)
        exec(code, vars(self._module))  # noqa: S102 - the jail is where untrusted source runs
        return b"null", b""

    def _open(self, request: dict[str, Any], blob: bytes) -> tuple[bytes, bytes]:
        old = self._databases.pop(request["name"], None)
        if old is not None:
            sqlite3.Connection.close(old)
        self._databases[request["name"]] = open_database(blob, self._blob_bytes, self._is_late)
        return b"null", b""

    def _image(self, request: dict[str, Any], _: bytes) -> tuple[bytes, bytes]:
        db = self._database(request["name"])
        if db.in_transaction:
            raise RuntimeError("a transaction is open; its changes are not part of the database yet")
        image = db.serialize()
        if len(image) > self._blob_bytes:
            raise OutputLimit(f"the database has {len(image)} bytes, allowed are {self._blob_bytes}")
        return b"null", image

    def _call(self, request: dict[str, Any], _: bytes) -> tuple[bytes, bytes]:
        name = request["function"]
        function = vars(self._module).get(name)
        if not callable(function):
            raise NameError(f"the loaded source defines no function {name!r}")  # noqa: TRY004
        databases = [self._database(key) for key in request["databases"]]
        for db in databases:
            db.begin_call()
            self._in_call.append(db)
        self._may_ask = request["ask"]
        try:
            value = function(*databases, **request["arguments"])
        finally:
            self._may_ask = False
        text = self._encoded(value)
        self._disarm()
        for db in databases:
            db.end_call()
        self._in_call.clear()
        return text, b""

    def _database(self, name: str) -> Database:
        if name not in self._databases:
            raise LookupError(f"no database {name!r} is open; open are {sorted(self._databases)}")
        return self._databases[name]

    # -------------------------------------------------------------------------------------------- nested calls

    def _ask(self, tool: Any, /, **arguments: Any) -> Any:
        """Call a tool of the environment; the host routes it. Time spent waiting is not counted.

        Args:
            tool: Name of the tool.
            arguments: Its arguments, plain data.

        Returns:
            What the tool returned.

        Raises:
            CallError: The host answered with an error.
            RuntimeError: No call of the solution is running.
            TypeError: The name is no text, or an argument has no JSON form.
            ValueError: The arguments are too large.
        """
        if not self._may_ask:
            raise RuntimeError("call() works only while the solution's function runs")
        if not isinstance(tool, str):
            raise TypeError(f"call() needs the tool's name, not {type(tool).__name__}")
        text = frames.encode({"id": self._id, "ask": {"tool": tool, "arguments": arguments}})
        if len(text) > self._frame_bytes:
            raise ValueError(f"the arguments of {tool!r} have {len(text)} bytes of JSON")
        left = signal.setitimer(signal.ITIMER_REAL, 0)[0]
        paused = time.monotonic()
        frames.write_frame(self._fd, text)
        reply, _ = frames.read_frame(self._fd)
        self._id = reply["id"]
        self._deadline += time.monotonic() - paused
        signal.setitimer(signal.ITIMER_REAL, left)
        if reply["op"] == "reply_error":
            raise CallError(reply["value"])
        return reply["value"]
