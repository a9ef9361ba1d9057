"""One worker's conversation with the host: load source, open and serialize databases, call functions.

Untrusted code runs in this very process and can reach everything here; nothing here is a boundary. What this module
owes honest code: time limits, atomic calls, captured output, plain results and errors with a cause.
"""

from __future__ import annotations

import builtins
import marshal
import math
import os
import random
import resource
import signal
import sqlite3
import sys
import time
import types
from collections.abc import Callable
from typing import Any, NoReturn

from envsynth.sandbox.jailed import frames
from envsynth.sandbox.jailed.databases import Database, Template, open_database
from envsynth.sandbox.jailed.frames import EXIT_MEMORY
from envsynth.sandbox.jailed.outcomes import (
    BadResult,
    CallError,
    Capture,
    OutputLimit,
    Refusal,
    SoftTimeout,
    describe,
    said,
)

_WARM_BYTES = 512 << 10
"""Memory that a warm worker has ready: room for an image of usual size, its database and a reply."""

_SMALL_SHARE = 5
"""A worker is small while it has used less than this part of its memory beyond what it began with: a text that is made of
what it holds fits into the rest then, though it be written twice."""

_DONE, _NOTHING = b'"status":"ok","value":null', b"0"
"""A reply without a value; and how it is told in a batch, where a number is the size of the value's text."""


def _used_kib() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _write_and_read(db: Database) -> Any:
    db.execute("INSERT INTO warm (name) VALUES (?)", ("up",))
    return db.execute("SELECT * FROM warm").fetchall()


class Session:
    """The state of one worker.

    Args:
        fd: The worker's end of the socket pair.
        frame_bytes: Longest JSON text of a reply.
        blob_bytes: Largest blob of a reply, and largest database.
        stdout_bytes: Output kept per request.
        memory_mb: Memory that it may use beyond what it begins with, MiB.
    """

    def __init__(self, fd: int, frame_bytes: int, blob_bytes: int, stdout_bytes: int, memory_mb: int = 0) -> None:
        self._fd = fd
        self._frame_bytes = self._room = frame_bytes
        self._blob_bytes = blob_bytes
        self._stdout_bytes = stdout_bytes
        self._databases: dict[str, Database] = {}
        self._held: dict[str, Template] = {}
        self._spare: Database | None = None  # opened while nobody waited
        self._in_call: list[Database] = []
        self._module = types.ModuleType("untrusted")
        self._id = 0
        self._role = ""
        self._armed = self._may_ask = self._in_batch = False
        self._value = b""  # JSON text of what the last call of a batch returned
        self._deadline = self._rings_at = math.inf
        self._small_kib = _used_kib() + (memory_mb << 10) // _SMALL_SHARE
        self._is_small = False
        self._capture = Capture(stdout_bytes)
        self._operations: dict[str, Callable[[dict[str, Any], bytes | memoryview], tuple[bytes, bytes]]] = {
            "start": self._start,
            "compile": self._compile,
            "load": self._load,
            "hold": self._hold,
            "drop": self._drop,
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
                if request["op"] == "batch":
                    text, out = self._answer_batch(request, blob)
                else:
                    text, out = self._answer(request, blob)
                    text = b'{"id":%d,%b}' % (self._id, text)
            except MemoryError:
                os._exit(EXIT_MEMORY)
            frames.write_frame(self._fd, text, out)

    # -------------------------------------------------------------------------------------------- one request

    def _answer(self, request: dict[str, Any], blob: bytes | memoryview) -> tuple[bytes, bytes]:
        """Run one request; return the reply's fields as JSON without braces, and its blob."""
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
        return self._framed(value, request["op"] == "call"), out

    def _answer_batch(self, batch: dict[str, Any], blob: bytes | memoryview) -> tuple[bytes, bytes]:
        """Run requests in order, each for itself; stop early when the time or the room of one reply is half used.

        The host sends the rest again. Half, because the last one may use up the other half.
        """
        soft = batch["soft"]
        stop = time.monotonic() + soft / 2
        self._room = self._frame_bytes // 2
        self._in_batch = True
        self._is_small = _used_kib() < self._small_kib  # one look for all: it costs as much as a small result
        parts: list[bytes] = []
        blobs: list[bytes] = []
        used = blob_bytes = start = 0
        for request in batch["requests"]:
            request["soft"] = soft
            self._renew_capture()
            self._value = b""
            end = start + request.get("bytes", 0)
            text, out = self._answer(request, blob[start:end])
            start = end
            if self._value:  # what a call returned goes as its own text, which the host need not write again
                blobs.append(self._value)
                size = b"%d" % len(self._value)
                text = b'{"status":"ok","text":%b%b}' % (size, text) if text else size
            elif out:
                if blobs and blob_bytes + len(out) > self._blob_bytes:
                    break  # an image changes nothing, so the host may ask again
                text = b'{%b,"bytes":%d}' % (text, len(out))
                blobs.append(out)
                blob_bytes += len(out)
            else:
                text = _NOTHING if text == _DONE else b"{%b}" % text
            parts.append(text)
            used += len(text) + len(self._value)
            if used > self._room or time.monotonic() > stop:
                break
        self._room = self._frame_bytes
        self._in_batch = self._is_small = False
        self._value = b""
        return b'{"id":%d,"status":"batch","results":[%b]}' % (self._id, b",".join(parts)), b"".join(blobs)

    def _failed(self, error: BaseException) -> bytes:
        is_late = time.monotonic() > self._deadline
        while self._in_call:
            self._in_call.pop().undo_call()
        status, parts = describe(error, is_late)
        text = b'"status":%b,"error":%b' % (frames.encode(status), frames.encode(parts))
        return text + self._output(len(text))

    def _framed(self, value: bytes, is_call: bool) -> bytes:
        if self._in_batch and is_call and value != b"null":
            self._value = value
            return self._output(len(value))
        text = _DONE if value == b"null" else b'"status":"ok","value":%b' % value
        return text + self._output(len(text)) if self._capture.size else text

    def _output(self, used: int) -> bytes:
        """What was printed, as a further field of the reply, if there is room."""
        if not self._capture.size:
            return b""
        output = b',"stdout":%b' % frames.encode(self._capture.text())
        return output if used + len(output) + 64 <= self._room else b""

    def _encoded(self, value: Any, most_chars: int) -> bytes:
        try:
            text = frames.encode(value, self._is_small)
        except (TypeError, ValueError, RecursionError) as error:
            raise BadResult(f"the result is not plain JSON: {said(error)}") from error
        if most_chars and len(text) > most_chars and len(text.decode()) > most_chars:
            raise OutputLimit(f"the result has {len(text.decode())} characters, at most {most_chars} are shown")
        if len(text) + 64 > self._room:
            raise OutputLimit(f"the result has {len(text)} bytes of JSON, allowed are {self._room}")
        return text

    def _renew_capture(self) -> None:
        if self._capture.size:
            self._capture = Capture(self._stdout_bytes)
        sys.stdout = sys.stderr = self._capture

    # -------------------------------------------------------------------------------------------- time

    def _ring(self, *_: object) -> None:
        self._rings_at = math.inf
        if not self._armed:
            return
        left = self._deadline - time.monotonic()
        if left > 0:  # it was set for an earlier request
            self._set_alarm(left)
            return
        self._armed = False
        raise SoftTimeout

    def _set_alarm(self, seconds: float) -> None:
        self._rings_at = time.monotonic() + seconds
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def _arm(self, seconds: float) -> None:
        """Limit what follows; the alarm of an earlier request is left to ring first, which saves two system calls."""
        self._deadline = time.monotonic() + seconds
        self._armed = True
        if self._rings_at > self._deadline:
            self._set_alarm(seconds)

    def _disarm(self) -> None:
        self._armed = False

    def _is_late(self) -> bool:
        return self._armed and time.monotonic() > self._deadline

    # -------------------------------------------------------------------------------------------- operations

    def _start(self, request: dict[str, Any], blob: bytes | memoryview) -> tuple[bytes, bytes]:
        self._role = request["role"]
        random.seed(request["seed"])
        sys.modules[self._module.__name__] = self._module
        names = vars(self._module)
        names["__builtins__"] = builtins
        names["Refusal"] = Refusal
        if self._role == "solution":
            names["call"] = self._ask
            names["CallError"] = CallError
        if request["warm"]:
            self._warm_up()
            self._arm(request["soft"])
        code, image = blob[: request["code_bytes"]], blob[request["code_bytes"] :]
        if code:
            self._execute(code)
        if image:
            self._open({"name": "main", "keys": True}, image)
        return b"null", b""

    def _warm_up(self) -> None:
        """Touch what requests need, while nobody waits: first writes to pages shared with the zygote are slow."""
        b"x" * _WARM_BYTES  # pyright: ignore[reportUnusedExpression] - freed at once, and kept by the allocator
        db = open_database(self._blob_bytes, self._is_late)
        db.execute("CREATE TABLE warm (id INTEGER PRIMARY KEY, name TEXT)")
        template = Template(db.serialize(), self._blob_bytes)
        template.fill(db)
        template.close()
        names = vars(self._module)
        names["warm"] = _write_and_read
        self._databases["warm"] = db
        request: dict[str, Any] = {"op": "call", "function": "warm", "arguments": {}, "databases": ["warm"]}
        self._answer_batch({"soft": 1.0, "requests": [request]}, b"")
        del names["warm"]
        sqlite3.Connection.close(self._databases.pop("warm"))
        eval(compile("[x + 1 for x in (1, 2)]", "<warm>", "eval"))  # noqa: S307 - our own text
        self._spare = open_database(self._blob_bytes, self._is_late)

    def _execute(self, blob: bytes | memoryview) -> None:
        """Run bytecode that a compiler worker made; parts of it are only kept, for the sources to run later."""
        names = vars(self._module)
        parts = names.setdefault("PARTS", {})
        for name, is_part, code in marshal.loads(blob):
            if is_part:
                parts[name] = code
            else:
                exec(code, names)  # noqa: S102 - the jail is where untrusted source runs

    def _compile(self, request: dict[str, Any], _: bytes | memoryview) -> tuple[bytes, bytes]:
        found = [
            (name, is_part, compile(source, f"<{name}>", "exec", dont_inherit=True))
            for name, is_part, source in request["sources"]
        ]
        return b"null", marshal.dumps(found)

    def _load(self, request: dict[str, Any], blob: bytes | memoryview) -> tuple[bytes, bytes]:
        if blob:
            self._execute(blob)
        else:
            code = compile(request["source"], f"<{request['name']}>", "exec", dont_inherit=True)
            exec(code, vars(self._module))  # noqa: S102 - the jail is where untrusted source runs
        return b"null", b""

    def _hold(self, request: dict[str, Any], blob: bytes | memoryview) -> tuple[bytes, bytes]:
        self._held.pop(request["key"], None)  # should this one fail, the host must not get changes of an older one
        self._held[request["key"]] = Template(blob, self._blob_bytes)
        return b"null", b""

    def _drop(self, request: dict[str, Any], _: bytes | memoryview) -> tuple[bytes, bytes]:
        template = self._held.pop(request.get("key", ""), None)
        if template is not None:
            template.close()
        db = self._databases.pop(request.get("name", ""), None)
        if db is not None:
            sqlite3.Connection.close(db)
        return b"null", b""

    def _open(self, request: dict[str, Any], blob: bytes | memoryview) -> tuple[bytes, bytes]:
        name, key = request["name"], request.get("held")
        old = self._databases.get(name)
        template = None if key is None else self._template(key)
        if old is not None and old.origin is template is not None and old.rewind():
            return b"null", b""
        self._databases.pop(name, None)
        if old is not None and (template is None or not old.leave_origin()):
            sqlite3.Connection.close(old)
            old = None
        db = old or self._new_database()
        try:
            if template is None:
                db.load(blob, self._blob_bytes)
            else:
                template.fill(db)
        except BaseException:
            sqlite3.Connection.close(db)
            raise
        if request.get("keys", False):
            db.hold_foreign_keys()
        if template is not None:
            db.mark_origin(template)
        self._databases[name] = db
        return b"null", b""

    def _new_database(self) -> Database:
        db, self._spare = self._spare, None
        return db or open_database(self._blob_bytes, self._is_late)

    def _template(self, key: str) -> Template:
        held = self._held.get(key)
        if held is None:
            raise LookupError(f"no image {key!r} is held here")
        return held

    def _image(self, request: dict[str, Any], _: bytes | memoryview) -> tuple[bytes, bytes]:
        db = self._database(request["name"])
        value = b"null"
        if db.origin is not None and db.origin is self._held.get(request.get("held", "")):
            size, numbers, image = db.origin.changes(db)
            value = b"[%d,[%b]]" % (size, b",".join([b"%d" % number for number in numbers]))
        else:
            image = db.serialize() if db.origin is None else db.origin.serialize(db)
            size = len(image)
        if size > self._blob_bytes:
            raise OutputLimit(f"the database has {size} bytes, allowed are {self._blob_bytes}")
        return value, image

    def _call(self, request: dict[str, Any], _: bytes | memoryview) -> tuple[bytes, bytes]:
        name = request["function"]
        function = vars(self._module).get(name)
        if not callable(function):
            raise NameError(f"the loaded source defines no function {name!r}")  # noqa: TRY004
        databases = [self._database(key) for key in request["databases"]]
        for db in databases:
            db.begin_call()
            self._in_call.append(db)
        self._may_ask = request.get("ask", False)
        try:
            value = function(*databases, **request["arguments"])
        finally:
            self._may_ask = False
        text = self._encoded(value, request.get("chars", 0))
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
        paused = time.monotonic()
        self._armed = False
        frames.write_frame(self._fd, text)
        reply, _ = frames.read_frame(self._fd)
        self._id = reply["id"]
        self._armed = True
        self._deadline += time.monotonic() - paused
        if self._rings_at > self._deadline:
            self._set_alarm(max(self._deadline - time.monotonic(), 1e-6))
        if reply["op"] == "reply_error":
            raise CallError(reply["value"])
        return reply["value"]
