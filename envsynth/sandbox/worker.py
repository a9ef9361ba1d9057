"""The host's handle of one jailed process: send a request, wait for the reply until the hard deadline, kill it if need be."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Literal, NoReturn, Self

import orjson
from pydantic import JsonValue

from envsynth.errors import SandboxError
from envsynth.sandbox.channel import Channel, ChannelError
from envsynth.sandbox.replies import explain_end, read_reply
from envsynth.sandbox.result import Ask, CallResult, Failure, Limits

Role = Literal["tools", "solution", "verifier"]
"""Who wrote the code of a worker; two parties never share one."""

_LAST_WORDS_S = 0.2
"""Seconds that a worker which closed its connection has to finish dying by itself, so that we learn the cause."""


class Worker:
    """One forked, confined process; a context manager. Make it with `Jail.worker`.

    Not for use by several threads at once. A worker that died stays dead: its last result says why, and using it again
    raises `SandboxError`.

    Args:
        channel: Frames to and from the process.
        pid: Its number inside the jail.
        pidfd: Its descriptor, for killing it without a race; None where the kernel has none.
        role: Who wrote its code.
        limits: What it may use.
        ask_zygote: Sends a request about it to the zygote.
    """

    def __init__(
        self,
        channel: Channel,
        pid: int,
        pidfd: int | None,
        role: Role,
        limits: Limits,
        ask_zygote: Callable[[dict[str, JsonValue]], dict[str, Any]],
    ) -> None:
        self._channel = channel
        self._pid = pid
        self._pidfd = pidfd
        self._role: Role = role
        self._limits = limits
        self._ask_zygote = ask_zygote
        self._owner = os.getpid()
        self._sequence = 0
        self._hard_left: float | None = None  # seconds left of a call that waits for a reply; None when none does
        self._alive = True
        self._death = ""

    @property
    def alive(self) -> bool:
        """Whether the process still serves."""
        return self._alive

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

    def start(self, seed: int) -> CallResult:
        """Give the process its role and the seed of `random`; `Jail.worker` does this."""
        return self._plain({"op": "start", "role": self._role, "seed": seed})

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
            return self._die(ChannelError(Failure.PROTOCOL_VIOLATION, "the worker asked without being allowed to"))
        return result

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
            return self._die(ChannelError(Failure.PROTOCOL_VIOLATION, "the worker asked without being allowed to"))
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
        if not self._alive:
            raise SandboxError(
                f"this {self._role} worker is dead ({self._death}): take a new one", Failure.SANDBOX_UNAVAILABLE.value
            )
        if os.getpid() != self._owner:
            raise SandboxError("this worker belongs to another process: take one from shared_jail() here")
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
            result = read_reply(reply, out, sequence, self._limits.stdout_bytes, request["op"] == "image")
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
            failure, message = self._cause_of_death()
        self._end(message)
        return CallResult(status=failure, message=message)

    def _cause_of_death(self) -> tuple[Failure, str]:
        """Find out why a worker that closed its connection did so."""
        if self._pidfd is not None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            if not poll.poll(_LAST_WORDS_S * 1000):
                return Failure.PROTOCOL_VIOLATION, "the worker closed its connection but went on running"
        self._kill()
        try:
            answer = self._ask_zygote({"op": "status", "pid": self._pid})
        except SandboxError:
            return Failure.SANDBOX_UNAVAILABLE, "the jail ended, and its workers with it"
        failure, message = explain_end(int(answer["status"]), float(answer["cpu_s"]), self._limits.cpu_s)
        if failure is Failure.MEMORY and self._pidfd is None:  # the signal may have been our own
            return Failure.CRASH, "the worker closed its connection and was killed"
        return failure, message

    def _kill(self) -> None:
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        else:
            with contextlib.suppress(SandboxError):  # no zygote: the kernel has killed its workers
                self._ask_zygote({"op": "kill", "pid": self._pid})

    def _end(self, why: str) -> None:
        if not self._alive:
            return
        self._alive = False
        self._hard_left = None
        self._death = why
        if os.getpid() == self._owner:
            self._kill()
        self._channel.close()
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None

    def close(self) -> None:
        """Kill the process and free its descriptors; may be called again."""
        self._end("it was closed")
