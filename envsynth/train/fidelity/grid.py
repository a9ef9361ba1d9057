"""Runs the jobs on several devices: a process per device, what is needed first, the longest path before others.

A process that dies, by memory or by a broken device, costs its job alone: the job is reported, another process takes the
device. Finished jobs are files, so a run that was killed goes on where it was.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final, Literal, cast

import torch
from torch import multiprocessing

from envsynth.errors import EnvsynthError, SpecError
from envsynth.policy.model import prepare_cpu
from envsynth.train.fidelity.config import FidelityConfig
from envsynth.train.fidelity.folder import FidelityFolder
from envsynth.train.fidelity.jobs import Job, all_jobs, run_job

POLL_S: Final = 1.0
"""Longest wait for news (seconds)."""
STOP_S: Final = 10.0
"""Patience with a process that was asked to end (seconds)."""
_GUESS: Final = {"pretrain": 1.0, "warmup": 3.0, "sparse": 4.0, "twin": 1.0}
"""Time per token of a stage beside that of pretraining, until it is measured."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """News of a job."""

    job: str
    """Its name."""
    state: Literal["started", "step", "finished", "failed", "skipped"]
    """What happened."""
    device: str = ""
    """Where it runs."""
    step: int = 0
    """Steps done (count)."""
    steps: int = 0
    """All steps (count)."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What was measured."""
    seconds: float = 0.0
    """Seconds since the job began; of a finished one, all that it took."""
    reason: str = ""
    """Why it failed or was skipped."""
    left_s: float | None = None
    """Estimate of the time until every job is finished (seconds); None before anything is known."""


@dataclass(frozen=True, kw_only=True)
class GridOutcome:
    """What became of the jobs."""

    finished: tuple[str, ...]
    """Finished, in this run or before."""
    failed: Mapping[str, str]
    """Failed, with their errors."""
    skipped: Mapping[str, str]
    """Not started, with the reason."""


def find_devices(kind: str, count: int | None = None) -> tuple[str, ...]:
    """Name the devices to run on.

    Args:
        kind: `cpu` or `cuda`.
        count: How many; None takes every accelerator, or one process on the CPU.

    Returns:
        Names as torch has them; `cpu` may stand there several times.

    Raises:
        SpecError: there are fewer.
    """
    if kind == "cpu":
        return ("cpu",) * (count or 1)
    there = torch.cuda.device_count()
    wanted = count or there
    if not 1 <= wanted <= there:
        raise SpecError(f"{wanted or 'some'} CUDA devices are wanted, {there} are there: ask for fewer, or use the CPU")
    return tuple(f"cuda:{index}" for index in range(wanted))


def run_grid(
    folder: FidelityFolder,
    config: FidelityConfig,
    devices: Sequence[str],
    *,
    deadline_s: float | None = None,
    on_event: Callable[[Event], None] | None = None,
) -> GridOutcome:
    """Run every job that is not finished yet.

    Args:
        folder: Where results are and go.
        config: The settings.
        devices: Where to run, one process each.
        deadline_s: Seconds from now after which nothing should run: no job starts that would not finish in time, by
            the measured time of its kind. None: no deadline.
        on_event: Told what happens.

    Returns:
        What became of the jobs.
    """
    grid = _Grid(folder, config, devices, deadline_s, on_event or (lambda event: None))
    try:
        grid.run()
    finally:
        grid.stop()
    return grid.outcome()


class _Worker:
    """A process on a device, as this process sees it."""

    def __init__(self, device: str, folder: Path, config: FidelityConfig) -> None:
        context = multiprocessing.get_context("spawn")
        here, there = context.Pipe()
        self.device, self.connection = device, here
        self.job: Job | None = None
        self.began = 0.0
        self.process = context.Process(target=_serve, args=(there, folder, config, device), daemon=True)
        with _ignored_interrupts():
            self.process.start()
        there.close()


class _ignored_interrupts:  # noqa: N801 - a context, used like a function
    """A process that starts in this block ignores Ctrl-C from its first moment: this one tells it when to end."""

    def __enter__(self) -> None:
        self._before = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, signal.SIG_IGN)

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)


class _Grid:
    """The state of one run."""

    def __init__(
        self,
        folder: FidelityFolder,
        config: FidelityConfig,
        devices: Sequence[str],
        deadline_s: float | None,
        on_event: Callable[[Event], None],
    ) -> None:
        self.folder, self.config, self.tell = folder, config, on_event
        self.deadline = None if deadline_s is None else time.monotonic() + deadline_s
        self.jobs = all_jobs(config)
        self.spent: dict[str, list[float]] = {}
        self.finished: list[str] = []
        for job in self.jobs:
            if (found := folder.found(job.name)) is not None:
                self._done(job, float(found["seconds"]))
        self.failed: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        self.waiting = [job for job in self.jobs if job.name not in self.finished]
        self.workers: list[_Worker | None] = [None] * len(devices)
        self.devices = tuple(devices)

    def run(self) -> None:
        """Hand out jobs and listen, until nothing is left."""
        while True:
            self._hand_out()
            busy = [worker for worker in self.workers if worker is not None and worker.job is not None]
            if not busy:
                break
            for connection in wait([worker.connection for worker in busy], POLL_S):
                self._hear(next(worker for worker in busy if worker.connection is connection))
        for job in list(self.waiting):
            self._skip(job, f"it needs {job.needs}, which is not finished")

    def _hand_out(self) -> None:
        for slot, device in enumerate(self.devices):
            worker = self.workers[slot]
            if worker is not None and worker.job is not None:
                continue
            job = self._next()
            if job is None:
                return
            if worker is None:
                worker = self.workers[slot] = _Worker(device, self.folder.path, self.config)
            worker.job, worker.began = job, time.monotonic()
            try:
                worker.connection.send(job)
            except OSError:
                # It died before its first job; the end of its connection is heard like that of any other.
                continue
            self._news(worker, "started")

    def _next(self) -> Job | None:
        """Take the ready job with the longest path behind it that still fits before the deadline."""
        ready = [job for job in self.waiting if job.needs is None or job.needs in self.finished]
        for job in sorted(ready, key=self._path, reverse=True):
            self.waiting.remove(job)
            if self.deadline is not None:
                left, needed = self.deadline - time.monotonic(), self._seconds(job)
                if left <= (needed or 0.0):
                    about = "of unknown length" if needed is None else f"of about {needed:.0f} s"
                    self._skip(job, f"{max(left, 0.0):.0f} s were left before the deadline for a job {about}")
                    continue
            return job
        return None

    def _seconds(self, job: Job) -> float | None:
        """Expect so many seconds of a job, as those of its kind took; None before one of them is finished."""
        spent = self.spent.get(job.kind)
        return sum(spent) / len(spent) if spent else None

    def _cost(self, job: Job) -> float:
        """Weigh a job against others, by measurement if there is one."""
        if (seconds := self._seconds(job)) is not None:
            return seconds
        stage = getattr(self.config, "sparse" if job.kind == "twin" else job.kind)
        guess = stage.steps * stage.batch_tokens * _GUESS[job.kind]
        known = [(kind, sum(spent) / len(spent)) for kind, spent in self.spent.items()]
        if not known:
            return guess
        # Guesses and measurements must have one unit, or their order means nothing.
        kind, seconds = known[0]
        measured = getattr(self.config, "sparse" if kind == "twin" else kind)
        return guess * seconds / (measured.steps * measured.batch_tokens * _GUESS[kind])

    def _path(self, job: Job) -> float:
        """Weigh a job with the longest chain of jobs that wait for it."""
        return self._cost(job) + max((self._path(other) for other in self.jobs if other.needs == job.name), default=0.0)

    def _hear(self, worker: _Worker) -> None:
        """Read one message of a process, or notice its end."""
        job = cast("Job", worker.job)
        try:
            message: dict[str, Any] = worker.connection.recv()
        except (EOFError, OSError):
            worker.process.join(STOP_S)
            self._fail(worker, job, f"its process ended with code {worker.process.exitcode}; memory may have run out")
            return
        if message["state"] == "step":
            self._news(worker, "step", step=message["step"], steps=message["steps"], metrics=message["metrics"])
        elif message["state"] == "finished":
            self._done(job, message["seconds"])
            self._news(worker, "finished")
            worker.job = None
        else:
            self._fail(worker, job, message["reason"])

    def _fail(self, worker: _Worker, job: Job, reason: str) -> None:
        self.failed[job.name] = reason
        self._news(worker, "failed", reason=reason)
        # An error may leave an accelerator unusable for the process that met it: the next job gets a fresh one.
        _end(worker)
        self.workers[self.workers.index(worker)] = None

    def _skip(self, job: Job, reason: str) -> None:
        if job in self.waiting:
            self.waiting.remove(job)
        self.skipped[job.name] = reason
        self.tell(Event(job=job.name, state="skipped", reason=reason))

    def _done(self, job: Job, seconds: float) -> None:
        self.finished.append(job.name)
        self.spent.setdefault(job.kind, []).append(seconds)

    def _news(self, worker: _Worker, state: Any, **parts: Any) -> None:
        job = cast("Job", worker.job)
        seconds = time.monotonic() - worker.began
        self.tell(Event(job=job.name, state=state, device=worker.device, seconds=seconds, left_s=self._left(), **parts))

    def _left(self) -> float | None:
        """Estimate the time until the end: all work that is left, shared evenly."""
        if not self.spent:
            return None
        under_way = [worker for worker in self.workers if worker is not None and worker.job is not None]
        work = sum(self._cost(job) for job in self.waiting)
        for worker in under_way:
            job = cast("Job", worker.job)
            if job.name not in self.finished and job.name not in self.failed:
                work += max(0.0, self._cost(job) - (time.monotonic() - worker.began))
        return work / len(self.devices)

    def stop(self) -> None:
        """End every process."""
        for worker in self.workers:
            if worker is not None:
                _end(worker)

    def outcome(self) -> GridOutcome:
        """Say what became of the jobs."""
        return GridOutcome(finished=tuple(self.finished), failed=self.failed, skipped=self.skipped)


def _end(worker: _Worker) -> None:
    worker.connection.close()
    worker.process.terminate()
    worker.process.join(STOP_S)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()


def _serve(connection: Connection, path: Path, config: FidelityConfig, device: str) -> None:
    """Run jobs until the connection ends; the end of the other process ends this one at its next message.

    Args:
        connection: Where jobs come from and news go.
        path: Folder of the experiment.
        config: The settings.
        device: Where to run.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    here, folder = torch.device(device), FidelityFolder(path)
    # One thread per process: equal results for any number of processes, and none waits for another's core.
    prepare_cpu(1 if here.type == "cpu" else None)
    if here.type == "cuda":
        torch.cuda.set_device(here)

    def watch(step: int, steps: int, metrics: Mapping[str, float]) -> None:
        connection.send({"state": "step", "step": step, "steps": steps, "metrics": dict(metrics)})

    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        try:
            message = {"state": "finished", "seconds": run_job(job, folder, config, here, watch)}
        except BrokenPipeError:
            return
        except EnvsynthError as error:
            message = {"state": "failed", "reason": str(error)}
        except Exception as error:  # noqa: BLE001 - the boundary: whatever stops a job is reported beside the others
            message = {"state": "failed", "reason": f"{type(error).__name__}: {error}"}
        connection.send(message)
