"""Time and memory of a call: by events on a GPU, by the clock on a CPU.

On a GPU a call is timed twice: launched from Python, and replayed from a CUDA graph, where launches cost next to nothing.
What lies between the two is what a program could save that captures its steps.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any, Final

import torch

from envsynth.policy.decode_graph import capture

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
    captured_ms: float | None
    """Median of the repetitions of a CUDA graph of the call; None where there is none."""
    not_captured: str
    """Why there is no graph; empty where there is one."""

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
        times = once(call, _repeats(times[0], repeat_ms))
    captured_ms, not_captured = _captured_ms(call, times, repeat_ms) if on_gpu else (None, "not on a GPU")
    return Timing(
        ms=statistics.median(times),
        fastest_ms=min(times),
        slowest_ms=max(times),
        repeats=len(times),
        memory_bytes=memory,
        captured_ms=captured_ms,
        not_captured=not_captured,
    )


def _repeats(ms: float, repeat_ms: float) -> int:
    return max(FEWEST_REPEATS, min(MOST_REPEATS, int(repeat_ms / max(ms, 1e-3))))


def _captured_ms(call: Callable[[], object], times: list[float], repeat_ms: float) -> tuple[float | None, str]:
    """Give the median time of a CUDA graph of the call, or why there is none."""
    if times[0] > LONG_MS:
        return None, "its launches take a negligible part of its time"
    try:
        captured = capture(call)
    except RuntimeError as error:
        return None, f"capture failed: {str(error).splitlines()[0][:200]}"
    return statistics.median(_events_ms(captured.replay, _repeats(min(times), repeat_ms))), ""


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
