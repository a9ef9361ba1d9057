"""Time and memory of a call: by events on a GPU, by the clock on a CPU."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Final

import torch

MOST_REPEATS: Final = 200
FEWEST_REPEATS: Final = 3
LONG_MS: Final = 400.0
"""A call that takes longer is not repeated: its one time after a call to warm up stands."""
FLUSHED_BYTES: Final = 256 * 2**20
"""Written between two calls on a GPU, so that none finds its inputs in the cache of the call before."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """What a call costs."""

    ms: float
    """Median of the repetitions (milliseconds)."""
    fastest_ms: float
    """The fastest repetition."""
    slowest_ms: float
    """The slowest repetition."""
    repeats: int
    """Timed calls (count), after one or two to warm up."""
    memory_bytes: int | None
    """Most memory in use during a call, above what was in use before it; None on a CPU."""

    def to_dict(self) -> dict[str, Any]:
        """Give plain values."""
        return asdict(self)


def measure_call(call: Callable[[], object], device: torch.device, repeat_ms: float) -> Timing:
    """Measure a call.

    Args:
        call: What is measured; its result is dropped.
        device: Where it works.
        repeat_ms: Time of all repetitions together (milliseconds).

    Returns:
        Time and memory.
    """
    on_gpu = device.type == "cuda"
    once = _events_ms if on_gpu else _clock_ms
    call()  # compiles, and makes what libraries keep
    before = _begin_peak(device) if on_gpu else 0
    times = once(call, 1)
    memory = torch.cuda.max_memory_allocated(device) - before if on_gpu else None
    if times[0] <= LONG_MS:
        repeats = max(FEWEST_REPEATS, min(MOST_REPEATS, int(repeat_ms / max(times[0], 1e-3))))
        times = once(call, repeats)
    return Timing(
        ms=statistics.median(times),
        fastest_ms=min(times),
        slowest_ms=max(times),
        repeats=len(times),
        memory_bytes=memory,
    )


def _begin_peak(device: torch.device) -> int:
    """Forget the highest use of memory so far, and give that of now, with what is flushed as it will be there."""
    _flushed()
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


@cache
def _flushed() -> torch.Tensor:
    return torch.empty(FLUSHED_BYTES // 4, dtype=torch.int32, device="cuda")


def _events_ms(call: Callable[[], object], repeats: int) -> list[float]:
    flushed = _flushed()
    pairs: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
    for _ in range(repeats):
        flushed.zero_()
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        pairs.append((begin, end))
    torch.cuda.synchronize()
    return [begin.elapsed_time(end) for begin, end in pairs]


def _clock_ms(call: Callable[[], object], repeats: int) -> list[float]:
    times: list[float] = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - began))
    return times
