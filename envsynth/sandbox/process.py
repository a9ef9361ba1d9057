"""The process behind a worker: its descriptor, how it is killed, why it died."""

from __future__ import annotations

import contextlib
import os
import select
import signal

from envsynth.errors import SandboxError
from envsynth.sandbox.replies import explain_end
from envsynth.sandbox.result import Failure
from envsynth.sandbox.zygote import Ticket, Zygote

_LAST_WORDS_S = 0.2
"""Seconds that a worker which closed its connection has to finish dying by itself, so that we learn the cause."""


_mark = [object()]


def this_process() -> object:
    """What stands for this process: another object in each forked child; cheaper to ask for than its number."""
    return _mark[0]


def _be_another() -> None:
    _mark[0] = object()


os.register_at_fork(after_in_child=_be_another)


class WorkerProcess:
    """A process that the zygote forks, or has been asked to fork.

    Args:
        zygote: Whose child it is.
        ticket: The request for it.
        cpu_limit_s: Processor seconds that it may use.
    """

    def __init__(self, zygote: Zygote, ticket: Ticket, cpu_limit_s: int) -> None:
        self._zygote = zygote
        self._ticket = ticket
        self._cpu_limit_s = cpu_limit_s
        self._pid = 0
        self._pidfd: int | None = None
        self._closed = False

    def settle(self) -> None:
        """Wait until it is forked.

        Raises:
            SandboxError: It could not be.
        """
        if self._pid:
            return
        answer = self._zygote.settle(self._ticket)
        if "error" in answer:
            raise SandboxError(f"no worker could be forked: {answer['error']}")
        self._pid = int(answer["pid"])
        self._pidfd = self._ticket.descriptors[0] if self._ticket.descriptors else None

    def running(self) -> bool:
        """Whether it has not ended yet, as far as this kernel can tell without asking the zygote."""
        if self._pidfd is None:
            return True
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return not poll.poll(0)

    def kill(self) -> None:
        """Kill it; nothing happens when it is dead."""
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        elif self._pid:
            with contextlib.suppress(SandboxError):  # no zygote: the kernel has killed its workers
                self._zygote.ask({"op": "kill", "pid": self._pid})

    def cause_of_death(self) -> tuple[Failure, str]:
        """Find out why it closed its connection, and make sure that it is dead."""
        if self._pidfd is not None:
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            if not poll.poll(_LAST_WORDS_S * 1000):
                return Failure.PROTOCOL_VIOLATION, "the worker closed its connection but went on running"
        self.kill()
        try:
            self.settle()
            answer = self._zygote.ask({"op": "status", "pid": self._pid})
        except SandboxError:
            return Failure.SANDBOX_UNAVAILABLE, "the jail ended, and its workers with it"
        failure, message = explain_end(int(answer["status"]), float(answer["cpu_s"]), self._cpu_limit_s)
        if failure is Failure.MEMORY and self._pidfd is None:  # the signal may have been our own
            return Failure.CRASH, "the worker closed its connection and was killed"
        return failure, message

    def close(self, ours: bool) -> None:
        """Kill it and free its descriptor.

        Args:
            ours: Whether this process is the host that asked for it, not a fork of that.
        """
        if self._closed:
            return
        self._closed = True
        if ours:
            with contextlib.suppress(SandboxError):
                self.settle()
            self.kill()
            self._zygote.living -= 1
        if self._pidfd is not None:
            os.close(self._pidfd)
            self._pidfd = None
