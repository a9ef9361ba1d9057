"""Log-probabilities without logits on a GPU: checked, then timed beside the unfused way.

    python -m benchmarks.kernels.logprobs [--quick] [--out FILE]

The baseline multiplies hidden states with the head, takes a log-softmax in float32 and gathers, by torch. Times are
medians of CUDA events; memory is the most in use beyond the arguments. Nothing is timed when a check is red.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from envsynth.kernels.logprobs import Precision, linear_log_probs, pack_kept

SHAPES = ((65536, 256, 588), (65536, 512, 8192), (32768, 512, 32768), (16384, 1024, 129280))
"""Rows, width and vocabulary."""
KINDS: tuple[tuple[torch.dtype, torch.dtype, Precision], ...] = (
    (torch.bfloat16, torch.bfloat16, "ieee"),
    (torch.bfloat16, torch.float32, "tf32x3"),
)
TOLERANCE = {torch.bfloat16: 1e-2, torch.float32: 2e-5}


def inputs(rows: int, width: int, vocabulary: int, kinds: tuple[torch.dtype, torch.dtype], seed: int) -> list[Tensor]:
    """Hidden states, head, targets and packed kept sets on the GPU; every fourth row keeps everything."""
    generator = torch.Generator("cuda").manual_seed(seed)
    hidden = torch.randn(rows, width, device="cuda", generator=generator).to(kinds[0])
    weight = (torch.randn(vocabulary, width, device="cuda", generator=generator) * width**-0.5).to(kinds[1])
    targets = torch.randint(0, vocabulary, (rows,), device="cuda", generator=generator)
    few = min(64, vocabulary)
    ids = torch.randint(0, vocabulary, (rows, few), device="cuda", generator=generator)
    ids[:, 0] = targets
    ids = ids.sort(-1).values
    fresh = torch.cat((torch.ones_like(ids[:, :1], dtype=torch.bool), ids[:, 1:] != ids[:, :-1]), 1)
    fresh[::4] = False
    offsets = torch.cat((torch.zeros(1, dtype=torch.int64, device="cuda"), fresh.sum(1).cumsum(0)))
    return [hidden, weight, targets, pack_kept(ids[fresh], offsets, vocabulary)]


def unfused(hidden: Tensor, weight: Tensor, targets: Tensor, keep: Tensor | None) -> Tensor:
    """The plain way: logits in float32, log-softmax, gather."""
    kind = hidden.dtype if hidden.dtype == weight.dtype else torch.float32
    logits = (hidden.to(kind) @ weight.to(kind).t()).float()
    if keep is not None:
        logits = logits.masked_fill(~keep, float("-inf"))
    return logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]


def relative(mine: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the norm of what is wanted; not a number never passes."""
    return float((mine.double() - wanted.double()).norm() / wanted.double().norm().clamp(min=1e-30))


def check(seed: int) -> list[str]:
    """Name every check that is red."""
    red = []
    for rows, width, vocabulary in ((1, 64, 1), (333, 256, 588), (70, 272, 1000), (129, 512, 8192)):
        for hidden_kind, weight_kind, precision in (*KINDS, (torch.float32, torch.float32, "ieee")):
            hidden, weight, targets, words = inputs(rows, width, vocabulary, (hidden_kind, weight_kind), seed)
            targets[::7] = -1
            for keep in (None, words):
                runs = []
                for backend in ("reference", "triton", "triton"):
                    wide = backend == "reference"
                    leaves = [(item.double() if wide else item).detach().requires_grad_() for item in (hidden, weight)]
                    torch.empty(1 << 26, device="cuda").fill_(float("nan"))
                    options: dict[str, Any] = {"keep_words_NW": keep, "precision": precision, "backend": backend}
                    found = linear_log_probs(leaves[0], leaves[1], targets, temperature=0.8, **options)
                    pulled = torch.cos(torch.arange(rows, device="cuda", dtype=found.log_probs_N.dtype))
                    gradients = torch.autograd.grad((found.log_probs_N * pulled).sum(), leaves)
                    runs.append((found.log_probs_N.detach(), found.entropy_N, found.mass_N, *gradients))
                name = f"{rows}x{width}x{vocabulary} {hidden_kind} {weight_kind} masked={keep is not None}"
                limit = TOLERANCE[torch.float32 if hidden_kind == torch.float32 else torch.bfloat16]
                worst = max(
                    relative(mine, wanted) for mine, wanted in zip(runs[1], runs[0], strict=True) if wanted.any()
                )
                if not worst <= limit:
                    red.append(f"{name}: relative error {worst:.1e}, at most {limit:g}")
                if any(not torch.equal(*pair) for pair in zip(runs[1], runs[2], strict=True)):
                    red.append(f"{name}: two runs differ")
    return red


def timed(function: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds (median) and most gigabytes beyond what was there."""
    from triton.testing import do_bench  # noqa: PLC0415 - absent where there is no GPU

    function()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    torch.cuda.synchronize()
    memory = (torch.cuda.max_memory_allocated() - before) / 2**30
    return float(do_bench(function, warmup=50, rep=200, return_mode="median")), memory


def measure(rows: int, width: int, vocabulary: int, kind: tuple[torch.dtype, torch.dtype, Precision]) -> dict[str, Any]:
    """Time one shape."""
    hidden, weight, targets, words = inputs(rows, width, vocabulary, kind[:2], 1)
    leaves = [hidden.requires_grad_(), weight.requires_grad_()]
    pulled = torch.randn(rows, device="cuda")

    def ours(keep: Tensor | None) -> Tensor:
        found = linear_log_probs(leaves[0], leaves[1], targets, keep_words_NW=keep, precision=kind[2])
        return found.log_probs_N

    record: dict[str, Any] = {
        "rows": rows,
        "width": width,
        "vocabulary": vocabulary,
        "types": [str(kind[0]), str(kind[1])],
    }
    ways: dict[str, Callable[[], Tensor]] = {
        "ours": lambda: ours(None),
        "ours, masked": lambda: ours(words),
        "unfused": lambda: unfused(leaves[0], leaves[1], targets, None),
    }
    for name, way in ways.items():
        try:
            with torch.no_grad():
                forward = timed(way)
            both = timed(lambda way=way: torch.autograd.grad((way() * pulled).sum(), leaves))
        except torch.OutOfMemoryError:
            record[name] = "out of memory"
            continue
        record[name] = {"forward_ms": forward[0], "both_ms": both[0], "forward_gib": forward[1], "both_gib": both[1]}
    print(json.dumps(record), flush=True)
    return record


def main() -> int:
    """Check, then time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the checks alone")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("this needs a GPU; on a CPU the tests run the kernels through Triton's interpreter", file=sys.stderr)
        return 2
    red = check(0)
    for line in red:
        print(f"RED  {line}", file=sys.stderr)
    if red or options.quick:
        print(f"{len(red)} red checks")
        return 1 if red else 0
    cases = [measure(*shape, kind) for shape in SHAPES for kind in KINDS]
    result = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cases": cases}
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
