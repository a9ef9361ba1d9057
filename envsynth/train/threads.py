"""How many threads to train with: measured, because a second core that is busy elsewhere makes two threads far slower.

Threads of tensor operations wait for each other at every operation. When another process has the second core, each wait
lasts a time slice: fifty times slower than one thread was measured. So the choice is made by trying at start.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import torch

TRIAL_S = 0.5
"""Seconds that each number of threads is tried for."""
_WIDTH, _ROWS = 128, 2048


def choose_threads(
    candidates: tuple[int, ...] = (1, 2), *, trial_s: float = TRIAL_S, rate: Callable[[int, float], float] | None = None
) -> int:
    """Try numbers of threads and return the fastest; this process is left with that number.

    Args:
        candidates: Numbers to try; those above the CPUs that this process may use are left out, except the least.
        trial_s: Seconds for each.
        rate: Measures how much work is done per second with a number of threads, for so many seconds; by default
            products of the shapes that a small policy has.

    Returns:
        The number of threads; the smaller one unless the larger gains more than a tenth.
    """
    usable = len(os.sched_getaffinity(0))
    least = min(candidates)
    wanted = sorted(item for item in candidates if item == least or item <= usable)
    measure = rate or _rate
    best, best_rate = wanted[0], measure(wanted[0], trial_s)
    for threads in wanted[1:]:
        found = measure(threads, trial_s)
        if found > 1.1 * best_rate:
            best, best_rate = threads, found
    torch.set_num_threads(best)
    return best


def _rate(threads: int, trial_s: float) -> float:
    """Work per second, as the slowest quarter of the trial has it: an average would hide a core that comes and goes."""
    torch.set_num_threads(threads)
    rows, matrix = torch.randn(_ROWS, _WIDTH), torch.randn(_WIDTH, _WIDTH) / _WIDTH**0.5
    spans: list[float] = []
    began = last = time.perf_counter()
    while last - began < trial_s or len(spans) < 4:
        x = rows
        for _ in range(8):
            x = torch.nn.functional.silu(x @ matrix)
        now = time.perf_counter()
        spans.append(now - last)
        last = now
    slowest = sorted(spans)[-max(1, len(spans) // 4) :]
    return len(slowest) / sum(slowest)
