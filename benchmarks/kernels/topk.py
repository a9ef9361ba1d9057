"""Top-k on a GPU: checked against the reference, then timed beside torch.topk.

Run it as `python -m benchmarks.kernels.topk --out FILE.json`; `--quick` checks alone. It needs a GPU.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from envsynth.kernels.topk import reference, topk
from envsynth.kernels.topk.configs import Sizes, sizes_for

SHAPES = [  # rows, scores, k, causal
    (64, 32768, 2048, False),
    (4096, 32768, 2048, False),
    (2048, 131072, 2048, False),
    (4096, 32768, 512, False),
    (32768, 4096, 256, True),
    (16384, 16384, 256, True),
    (8192, 32768, 64, True),
    (8192, 32768, 256, True),
    (8192, 32768, 512, True),
]
GOALS_MS = {(64, 32768, 2048): 0.040, (4096, 32768, 2048): 0.6, (2048, 131072, 2048): 1.0}


def poisoned(*size: Any, **options: Any) -> Tensor:
    """Allocate as `torch.empty` does, filled with what must not be read."""
    floating = options.get("dtype", torch.float32).is_floating_point
    shape = size if all(isinstance(item, int) for item in size) else size[0]
    return torch.full(shape, float("nan") if floating else -77, **options)


def cases(device: torch.device) -> Iterator[tuple[str, Tensor, Tensor, Tensor | None, int, Sizes | None]]:
    """Give a name, scores, ends, starts, k and sizes of each check; inputs are fresh each time."""
    rows = 96

    def plateau(size: int) -> Tensor:
        zero = torch.where(torch.rand(rows, size, device=device) < 0.5, 0.0, -0.0)
        return torch.where(torch.rand(rows, size, device=device) < 0.6, zero, torch.randn(rows, size, device=device))

    def ends(size: int, k: int) -> Tensor:
        some = torch.randint(0, size + 1, (rows,), device=device)
        special = [0, 1, k - 1, k, k + 1, size]
        some[: len(special)] = torch.tensor(special, device=device).clamp(max=size)
        return some

    for size, k in ((131072, 2048), (32767, 256), (5000, 64), (4096, 512), (999, 1), (300, 2048)):
        scores = torch.randn(rows, size, device=device)
        starts = (torch.rand(rows, device=device) * (some := ends(size, k))).to(torch.int32)
        yield f"normal {size} k={k}", scores, ends(size, k), None, k, None
        yield f"plateau {size} k={k}", plateau(size), ends(size, k), None, k, None
        yield f"documents {size} k={k}", plateau(size), some, starts, k, None
        yield f"streamed in small buffers {size} k={k}", plateau(size), some, starts, min(k, 30), Sizes(128, 64, 1, 64)
        yield f"rising {size} k={k}", scores.sort(-1).values, ends(size, k), None, k, None
        yield f"falling {size} k={k}", scores.sort(-1, descending=True).values, ends(size, k), None, k, None
    for (size, k), few in itertools.product(
        ((131072, 2048), (32768, 2048), (20000, 8192), (32768, 100)), (True, False)
    ):
        # A sample that lies: nothing but it is high, so that too few reach its bar, or all but it, so that the buffer
        # overflows. `few` takes the sizes for few rows, else those for many.
        sizes = sizes_for(k, size, 1 if few else 10**6, 132)
        inside = sampled(size, sizes.sample, device)
        noise = torch.randn(rows, size, device=device)
        for name, shift in (("too high", 50.0), ("too low", -50.0)):
            lying = noise + shift * inside
            yield f"sample {name} {size} k={k} few={few}", lying, ends(size, k).fill_(size), None, k, sizes
            yield f"sample {name} {size} k={k} few={few}, cut rows", lying, ends(size, k), None, k, sizes
        lying = torch.where(inside, -1.0, noise.relu())
        yield f"sample below a plateau {size} k={k} few={few}", lying, ends(size, k).fill_(size), None, k, sizes
        blocks = (torch.arange(size, device=device) // 4096 % 3 == 0) * 50.0 + noise
        yield f"blocks {size} k={k} few={few}", blocks, ends(size, k), None, k, sizes
        yield f"rising {size} k={k} few={few}", noise.sort(-1).values, ends(size, k), None, k, sizes
        yield (
            f"without looking ahead {size} k={k} few={few}",
            noise,
            ends(size, k),
            None,
            k,
            sizes._replace(ahead=False),
        )
    for value in (0.0, -0.0, 1.5, float("inf"), float("-inf"), float("nan")):
        equal = torch.full((rows, 131072), value, device=device)
        yield f"all {value}", equal, ends(131072, 2048), None, 2048, None
    extremes = [float("inf"), float("-inf"), float("nan"), 65505.0, 7e4, 3.4e38, -3.4e38, 1e-45, -1e-45, 2e-39, 0.0]
    pick = torch.randint(len(extremes), (rows, 9001), device=device)
    yield "extremes", torch.tensor(extremes, device=device)[pick], ends(9001, 700), None, 700, None
    yield "bfloat16", plateau(20000).bfloat16(), ends(20000, 100), None, 100, None


def sampled(size: int, sample: int, device: torch.device) -> Tensor:
    """Tell which places of a whole row its sample holds, by the kernel's rule; bool [S]."""
    offset = torch.arange(sample, device=device)
    places = (offset // 4 * size // (sample // 4)) // 4 * 4 + offset % 4
    return torch.zeros(size + 4, dtype=torch.bool, device=device).index_fill_(0, places, True)[:size]


def check(device: torch.device) -> list[str]:
    """Compare with the reference, bit for bit, twice and with rows in another order; give what is wrong."""
    from envsynth.kernels.topk.forward import launch  # noqa: PLC0415 - Triton, for a GPU alone

    red = []
    for name, scores, ends, starts, k, sizes in cases(device):
        want = reference.topk(scores, ends, k, starts)
        with mock.patch("torch.empty", poisoned):
            got, again = (launch(scores, ends, k, starts, sizes) for _ in range(2))
            order = torch.randperm(len(scores), device=device)
            moved = launch(scores[order], ends[order], k, None if starts is None else starts[order], sizes)
        if not torch.equal(got, want):
            red.append(f"{name}: {int((got != want).any(-1).sum())} rows differ from the reference")
        if not torch.equal(got, again) or not torch.equal(moved, got[order]):
            red.append(f"{name}: not repeatable")
    # Offsets beyond 2^31.
    large = torch.randn(17000, 131072, device=device)
    ends = torch.full((17000,), 131072, device=device, dtype=torch.int32)
    got = topk(large, ends, 64)
    if not torch.equal(got[-40:], reference.topk(large[-40:], ends[-40:], 64)):
        red.append("offsets beyond 2^31")
    return red


def median_ms(run: Callable[[], object]) -> float:
    """Time a call by CUDA events after a warm-up."""
    from triton.testing import do_bench  # noqa: PLC0415 - Triton, for a GPU alone

    return do_bench(run, warmup=20, rep=120, return_mode="median")


def measure(device: torch.device) -> Iterator[dict[str, Any]]:
    """Time each shape beside the baseline."""
    for rows, size, k, causal in SHAPES:
        scores = torch.randn(rows, size, device=device)
        ends = torch.full((rows,), size, device=device, dtype=torch.int32)
        if causal:
            ends = (torch.arange(rows, device=device, dtype=torch.int32) % size) + 1
        record = {"rows": rows, "scores": size, "k": k, "causal": causal, "goal_ms": GOALS_MS.get((rows, size, k))}
        record["topk_ms"] = median_ms(lambda s=scores, e=ends, k=k: topk(s, e, k))
        record["torch_topk_ms"] = median_ms(lambda s=scores, k=k: torch.topk(s, k, dim=-1, sorted=False))
        record["gb_per_s"] = 4e-6 * int(ends.sum()) / record["topk_ms"]
        if not causal and rows * size >= 2**27:
            rising = scores.sort(-1).values
            record["rising_ms"] = median_ms(lambda s=rising, e=ends, k=k: topk(s, e, k))
            halves = scores.relu_()
            record["plateau_ms"] = median_ms(lambda s=halves, e=ends, k=k: topk(s, e, k))
        yield record


def tune(device: torch.device) -> Iterator[dict[str, Any]]:
    """Time other sizes, around those that are chosen."""
    from envsynth.kernels.topk.forward import launch  # noqa: PLC0415 - Triton, for a GPU alone

    processors = torch.cuda.get_device_properties(device).multi_processor_count
    for rows, size, k, causal in SHAPES[:-3]:
        scores = torch.randn(rows, size, device=device)
        ends = torch.full((rows,), size, device=device, dtype=torch.int32)
        if causal:
            ends = (torch.arange(rows, device=device, dtype=torch.int32) % size) + 1
        base = sizes_for(k, size, rows, processors)
        for sizes in neighbours(base, k):
            time = median_ms(lambda s=scores, e=ends, k=k, z=sizes: launch(s, e, k, None, z))
            chosen = sizes == base
            yield {"rows": rows, "scores": size, "k": k, **sizes._asdict(), "chosen": chosen, "topk_ms": time}


def neighbours(base: Sizes, k: int) -> list[Sizes]:
    """Give the chosen sizes first, then others that are valid for k."""
    capacity, chunk, warps, sample = base[:4]
    changed = [
        base,
        base._replace(ahead=not base.ahead),
        base._replace(sample=sample // 2),
        base._replace(sample=sample * 2),
        base._replace(chunk=chunk // 2),
        base._replace(warps=warps // 2),
        base._replace(warps=warps // 2, registers=80),
        base._replace(warps=warps * 2),
        base._replace(registers=80),
        base._replace(registers=128),
        base._replace(capacity=capacity // 2, chunk=chunk // 2, warps=max(1, warps // 2)),
        base._replace(capacity=capacity * 2, chunk=chunk * 2, warps=warps * 2),
        base._replace(capacity=capacity * 2, chunk=chunk * 2, registers=80),
    ]

    def valid(sizes: Sizes) -> bool:
        fits = 32 * sizes.warps * sizes.registers <= 65536 and sizes.warps <= 32
        return fits and sizes.capacity >= sizes.chunk + k and sizes.sample <= sizes.capacity

    return list(dict.fromkeys(filter(valid, changed)))


def show(record: dict[str, Any]) -> None:
    """Print one line."""
    print(
        "  ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in record.items()
        )
    )


def main() -> int:
    """Check, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="file of the result, JSON")
    parser.add_argument("--quick", action="store_true", help="check alone")
    parser.add_argument("--tune", action="store_true", help="also time other sizes")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks.kernels.topk needs a GPU", file=sys.stderr)
        return 2
    device = torch.device("cuda")
    red = check(device)
    print("\n".join(red) or "checks: green")
    if red:
        return 1
    result: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "checks": "green"}
    for part, run in (("shapes", measure), ("tuning", tune)):
        if options.quick or (part == "tuning" and not options.tune):
            continue
        result[part] = []
        for record in run(device):
            show(record)
            result[part].append(record)
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
