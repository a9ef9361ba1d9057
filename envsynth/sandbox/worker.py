"""The host's handle of one jailed process: send a request, wait for the reply until the hard deadline, kill it if need be."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, NoReturn, Self

import orjson
from pydantic import JsonValue

from envsynth.errors import SandboxError
from envsynth.sandbox.channel import Channel, ChannelError
from envsynth.sandbox.families import Source
from envsynth.sandbox.held import HeldImages
from envsynth.sandbox.process import WorkerProcess, this_process
from envsynth.sandbox.replies import UNALLOWED, read_posted, read_reply, read_success
from envsynth.sandbox.requests import Request, framed
from envsynth.sandbox.result import Ask, CallResult, Failure, Limits, Role

START_S = 20.0
"""Seconds that a fresh worker has to be scheduled and to run its code, which has its own soft limit."""

_PATIENCE_S = 0.25
"""Seconds that a worker has once the host looks at it, when its time ran out while the host waited for others."""

_WITH_BLOB = ("image", "compile")  # requests that are answered with bytes


class Worker:
    """One forked, confined process; a context manager. Make it with `Jail.worker`.

    Not for use by several threads at once. A worker that died stays dead: its last result says why, and using it again
    raises `SandboxError`.

    Args:
        channel: Frames to and from the process.
        process: The process itself.
        role: Who wrote its code.
        limits: What it may use.
        on_end: Called once when it has died or was closed.
    """

    def __init__(
        self,
        channel: Channel,
        process: WorkerProcess,
        role: Role,
        limits: Limits,
        on_end: Callable[[Worker], None] | None = None,
    ) -> None:
        self._channel = channel
        self._process = process
        self._role: Role = role
        self._limits = limits
        self._on_end = on_end
        self._owner = this_process()
        self._sequence = 0
        self._hard_left: float | None = None  # seconds left of a call that waits for a reply; None when none does
        self._held = HeldImages()
        self._posted: list[Request] = []  # requests on their way whose outcomes nobody has taken yet
        self._post_limits = limits
        self._post_deadline = 0.0
        self._broke: CallResult | None = None
        self._starting = False
        self._alive = True
        self._death = ""

    @property
    def alive(self) -> bool:
        """Whether the process still serves."""
        return self._alive

    @property
    def running(self) -> bool:
        """Whether the process is there; `alive` learns of a death only at the next request."""
        return self._alive and self._process.running()

    @property
    def role(self) -> Role:
        """Who wrote the code of this worker."""
        return self._role

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_alive", False):
            self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Worker is a process and cannot be pickled; make one in the other process")

    # -------------------------------------------------------------------------------------------- requests

    def post_start(self, seed: int, code: bytes, warm: bool, image: bytes = b"") -> None:
        """Send role, seed of `random`, bytecode and database, even before the process exists; `Jail` does this.

        Raises:
            SandboxError: The zygote has ended meanwhile.
        """
        request: dict[str, Any] = {"op": "start", "role": self._role, "seed": seed, "warm": warm}
        request |= {"soft": self._limits.soft_s, "id": 1, "code_bytes": len(code)}
        self._sequence = 1
        try:
            self._channel.send(orjson.dumps(request), code + image, time.monotonic() + self._limits.hard_s)
        except ChannelError as error:
            raise SandboxError(f"a fresh worker failed: {error.message}") from error
        self._starting = True

    def await_start(self) -> None:
        """Wait until the process is forked and has run its code.

        Raises:
            SandboxError: It could not be forked, or its code failed; `failure` says how.
        """
        if not self._alive:
            raise SandboxError(f"this {self._role} worker is dead ({self._death})", Failure.SANDBOX_UNAVAILABLE.value)
        if not self._starting:
            return
        self._starting = False
        self._process.settle()
        try:
            text, blob = self._channel.receive(time.monotonic() + START_S)
            result = read_reply(text, blob, 1, self._limits.stdout_bytes, may_blob=False)
        except ChannelError as error:
            result = self._die(error)
        except BaseException:
            self._end("the host was interrupted while it waited")
            raise
        if isinstance(result, Ask) or not result.ok:
            self.close()
            said = result.tool if isinstance(result, Ask) else f"{result.error_type}: {result.message}"
            status = Failure.PROTOCOL_VIOLATION if isinstance(result, Ask) else result.status
            raise SandboxError(f"a fresh worker failed: {status.value}: {said}", status.value)

    def load(self, source: str, name: str = "module") -> CallResult:
        """Compile source and execute it in the worker's one namespace.

        Args:
            source: Python source.
            name: Its name in error messages.

        Returns:
            The outcome, without a value.

        Raises:
            SandboxError: The worker is dead, or waits for a reply.
        """
        return self._plain({"op": "load", "source": source, "name": name})

    def compile(self, sources: Sequence[Source]) -> CallResult:
        """Compile sources without running them.

        Args:
            sources: What to compile.

        Returns:
            The outcome; `blob` is bytecode for `load_code`, which the host never reads.

        Raises:
            SandboxError: The worker is dead, or waits for a reply.
        """
        listed = [[source.name, source.part, source.text] for source in sources]
        return self._plain({"op": "compile", "sources": listed})

    def load_code(self, code: bytes) -> CallResult:
        """Execute bytecode that `compile` gave, in the worker's one namespace.

        Raises:
            SandboxError: The worker is dead, or waits for a reply.
        """
        return self._plain({"op": "load"}, code)

    def open(self, image: bytes, name: str = "main") -> CallResult:
        """Open a database image as the database `name`, in place of an older one.

        Args:
            image: A serialized database; empty for a new one.
            name: What `call` names it by.

        Returns:
            The outcome, without a value.

        Raises:
            SandboxError: The worker is dead, waits for a reply, or is a solution, which never has a database.
        """
        if self._role == "solution":
            raise SandboxError("a solution worker has no database: its code reaches the world by tool calls only")
        return self._plain({"op": "open", "name": name}, image)

    def image(self, name: str = "main") -> CallResult:
        """Serialize a database.

        Args:
            name: Which one.

        Returns:
            The outcome; `blob` is the image, which only another worker may open.

        Raises:
            SandboxError: The worker is dead, or waits for a reply.
        """
        return self._plain({"op": "image", "name": name})

    def call(
        self,
        function: str,
        arguments: dict[str, JsonValue] | None = None,
        *,
        databases: tuple[str, ...] = (),
        limits: Limits | None = None,
    ) -> CallResult:
        """Run `function(*databases, **arguments)` in the worker; with databases, all or nothing.

        Args:
            function: Name in the worker's namespace.
            arguments: Plain JSON data.
            databases: Names of open databases, passed first.
            limits: Other time limits for this call.

        Returns:
            The outcome.

        Raises:
            SandboxError: The worker is dead, or waits for a reply.
        """
        result = self._begin(function, arguments, databases, limits, ask=False)
        if isinstance(result, Ask):
            return self._die(ChannelError(Failure.PROTOCOL_VIOLATION, UNALLOWED))
        return result

    def run(self, requests: Sequence[Request], limits: Limits | None = None) -> list[CallResult]:
        """Run several requests in order, in one frame if their results fit; when the worker dies, the rest fails alike.

        Each has its own time limits and, with databases, is all or nothing; a failure does not stop the next.

        Args:
            requests: What to run.
            limits: Other time limits for each.

        Returns:
            The outcomes, in order.

        Raises:
            SandboxError: The worker is dead, or waits for a reply.
        """
        self.post(requests, limits)
        return self.take()

    def post(self, requests: Sequence[Request], limits: Limits | None = None) -> None:
        """Send several requests and return at once; `take` waits for the outcomes. So several workers run at a time.

        Raises:
            SandboxError: The worker is dead, or waits for a reply.
        """
        self._check_usable(asked=False)
        self._posted = list(requests)
        self._post_limits = limits or self._limits
        self._broke = self._send_batch(self._posted)
        self._held.note(requests)  # what could not be sent is not held

    def take(self) -> list[CallResult]:
        """Wait for the outcomes of `post`.

        Returns:
            One for each request, in order; none when nothing was posted.
        """
        found: list[CallResult] = []
        wanted, self._posted = self._posted, []
        while len(found) < len(wanted):
            rest = wanted[len(found) :]
            broke = self._broke or self._receive_batch(rest, found)
            if broke is not None:
                return found + [broke] * (len(wanted) - len(found))
            self._broke = self._send_batch(wanted[len(found) :])
        return found

    def _send_batch(self, requests: Sequence[Request]) -> CallResult | None:
        """Send requests in a frame; return the outcome of all when the worker is found dead.

        Raises:
            SandboxError: A request is no plain JSON.
        """
        if not requests:
            return None
        self._sequence += 1
        frame, blob = framed(requests, self._sequence, self._post_limits.soft_s)
        try:
            text = orjson.dumps(frame)
        except TypeError as error:
            self._posted = []
            raise SandboxError(f"what was to be sent is not plain JSON: {error}", Failure.BAD_RESULT.value) from error
        self._post_deadline = time.monotonic() + self._post_limits.hard_s
        try:
            self._channel.send(text, blob, self._post_deadline)
        except ChannelError as error:
            return self._die(error)
        except BaseException:
            self._end("the host was interrupted while it sent")
            raise
        return None

    def _receive_batch(self, rest: Sequence[Request], found: list[CallResult]) -> CallResult | None:
        """Append the outcomes of the next frame; return the outcome of all others when the worker died."""
        deadline = max(self._post_deadline, time.monotonic() + _PATIENCE_S)
        try:
            text, blob = self._channel.receive(deadline)
            results = read_posted(text, blob, self._sequence, self._limits.stdout_bytes, rest)
            found += self._held.completed(results, len(found))
        except ChannelError as error:
            return self._die(error)
        except BaseException:  # interrupted in the middle of a frame: the conversation cannot go on
            self._end("the host was interrupted while it waited")
            raise
        return None

    def begin(
        self,
        function: str,
        arguments: dict[str, JsonValue] | None = None,
        *,
        databases: tuple[str, ...] = (),
        limits: Limits | None = None,
    ) -> Ask | CallResult:
        """Like `call`, but the code may ask for tool calls; answer each `Ask` with `reply` or `reply_error`.

        Only the time that the worker itself spends counts against the limits, over all of its parts.

        Args:
            function: Name in the worker's namespace.
            arguments: Plain JSON data.
            databases: Names of open databases, passed first.
            limits: Other time limits for this call.

        Returns:
            A tool call that the code asks for, or the outcome.

        Raises:
            SandboxError: The worker is dead, or waits for a reply.
        """
        return self._begin(function, arguments, databases, limits, ask=True)

    def reply(self, value: JsonValue) -> Ask | CallResult:
        """Answer an `Ask`: `call` in the worker returns the value.

        Args:
            value: Plain JSON data.

        Returns:
            The next tool call, or the outcome.

        Raises:
            SandboxError: Nothing was asked, the worker is dead, or the value is no plain JSON.
        """
        return self._resume("reply", value)

    def reply_error(self, payload: JsonValue) -> Ask | CallResult:
        """Answer an `Ask`: `call` in the worker raises `CallError(payload)`.

        Args:
            payload: Plain JSON data.

        Returns:
            The next tool call, or the outcome.

        Raises:
            SandboxError: Nothing was asked, the worker is dead, or the payload is no plain JSON.
        """
        return self._resume("reply_error", payload)

    # -------------------------------------------------------------------------------------------- exchange

    def _plain(self, request: dict[str, Any], blob: bytes = b"") -> CallResult:
        self._check_usable(asked=False)
        request["soft"] = self._limits.soft_s
        result = self._exchange(request, blob, self._limits.hard_s)
        if isinstance(result, Ask):
            return self._die(ChannelError(Failure.PROTOCOL_VIOLATION, UNALLOWED))
        return result

    def _begin(
        self,
        function: str,
        arguments: dict[str, JsonValue] | None,
        databases: tuple[str, ...],
        limits: Limits | None,
        ask: bool,
    ) -> Ask | CallResult:
        self._check_usable(asked=False)
        chosen = limits or self._limits
        request: dict[str, Any] = {
            "op": "call",
            "function": function,
            "arguments": arguments or {},
            "databases": databases,
            "soft": chosen.soft_s,
            "ask": ask,
        }
        return self._exchange(request, b"", chosen.hard_s)

    def _resume(self, op: str, value: JsonValue) -> Ask | CallResult:
        self._check_usable(asked=True)
        hard_left = self._hard_left or 0.0
        result = self._exchange({"op": op, "value": value}, b"", hard_left)
        if isinstance(result, CallResult) and result.status is Failure.BAD_RESULT and self._hard_left is not None:
            raise SandboxError(result.message, Failure.BAD_RESULT.value)
        return result

    def _check_usable(self, asked: bool) -> None:
        usable = self._alive and self._owner is this_process() and not self._posted
        if usable and (self._hard_left is not None) is asked:
            return
        if not self._alive:
            raise SandboxError(
                f"this {self._role} worker is dead ({self._death}): take a new one", Failure.SANDBOX_UNAVAILABLE.value
            )
        if self._owner is not this_process():
            raise SandboxError("this worker belongs to another process: take one from shared_jail() here")
        if self._posted:
            raise SandboxError("the outcomes of `post` were not taken yet: call `take` first")
        if asked and self._hard_left is None:
            raise SandboxError("nothing was asked: `reply` and `reply_error` answer an `Ask` of `begin`")
        if not asked and self._hard_left is not None:
            raise SandboxError("the worker waits for the answer to its `Ask`: use `reply` or `reply_error`")

    def _exchange(self, request: dict[str, Any], blob: bytes, hard_s: float) -> Ask | CallResult:
        sequence = self._sequence + 1
        request["id"] = sequence
        try:
            text = orjson.dumps(request)
        except TypeError as error:
            return CallResult(status=Failure.BAD_RESULT, message=f"what was to be sent is not plain JSON: {error}")
        self._sequence = sequence
        self._hard_left = None
        started = time.monotonic()
        try:
            self._channel.send(text, blob, started + hard_s)
            reply, out = self._channel.receive(started + hard_s)
            result = None if out else read_success(reply, sequence)
            if result is not None:
                return result
            result = read_reply(reply, out, sequence, self._limits.stdout_bytes, request["op"] in _WITH_BLOB)
        except ChannelError as error:
            return self._die(error)
        except BaseException:  # interrupted in the middle of a frame: the conversation cannot go on
            self._end("the host was interrupted while it waited")
            raise
        if isinstance(result, Ask):
            self._hard_left = hard_s - (time.monotonic() - started)
        return result

    # -------------------------------------------------------------------------------------------- death

    def _die(self, error: ChannelError) -> CallResult:
        failure, message = error.failure, error.message
        if failure is Failure.CRASH:
            failure, message = self._process.cause_of_death()
        self._end(message)
        return CallResult(status=failure, message=message)

    def _end(self, why: str) -> None:
        if not self._alive:
            return
        self._alive = False
        self._hard_left = None
        self._death = why
        self._channel.close()
        self._process.close(ours=self._owner is this_process())
        if self._on_end is not None:
            self._on_end(self)

    def close(self) -> None:
        """Kill the process and free its descriptors; may be called again."""
        self._end("it was closed")
