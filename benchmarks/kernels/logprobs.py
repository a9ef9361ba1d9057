"""Log-probabilities without logits on a GPU: checked, then timed beside the unfused way.

    python -m benchmarks.kernels.logprobs [--quick] [--compiled] [--tune SHAPE] [--out FILE]

The baseline multiplies hidden states with the head, masks, takes a log-softmax in float32 and gathers, by torch; with
`--compiled` also as `torch.compile` makes it. Its mask is a tensor of bool that is ready, which is not counted for it.
Times are medians of CUDA events; memory is the most in use beyond the arguments. The goal is judged per case, for forward
and backward together: at most the time of the unfused way, and at most 0.6 of its memory. Nothing is timed when a check
is red. `--tune 0` times tiles and both ways of the backward pass on the first shape instead.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from envsynth.kernels.logprobs import LogProbs, Precision, configs, linear_log_probs, pack_kept
from envsynth.kernels.logprobs.reference import unpack

SHAPES = ((65536, 256, 588), (65536, 512, 8192), (32768, 512, 32768), (16384, 1024, 129280))
"""Rows, width and vocabulary."""
KINDS: tuple[tuple[torch.dtype, torch.dtype, Precision], ...] = (
    (torch.bfloat16, torch.bfloat16, "ieee"),
    (torch.bfloat16, torch.float32, "ieee"),
)
SINGLE: tuple[tuple[torch.dtype, torch.dtype, Precision], ...] = (
    (torch.float32, torch.float32, "ieee"),
    (torch.float32, torch.float32, "tf32x3"),
)
"""Checked, not timed."""
TOLERANCE = {torch.bfloat16: 1e-2, torch.float32: 2e-5}
"""Relative error by the type of a result or of the head."""
MEMORY_GOAL = 0.6
TILES = (
    configs.Tiles(128, 128, 64, 8, 3),
    configs.Tiles(128, 128, 64, 8, 4),
    configs.Tiles(128, 128, 32, 8, 4),
    configs.Tiles(64, 128, 64, 4, 3),
    configs.Tiles(64, 128, 64, 4, 4),
    configs.Tiles(128, 64, 64, 4, 4),
    configs.Tiles(64, 256, 64, 8, 3),
    configs.Tiles(128, 256, 64, 8, 3),
)
"""What `--tune` tries where half precision is multiplied."""


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


def unfused(hidden: Tensor, weight: Tensor, targets: Tensor, outside: Tensor | None) -> Tensor:
    """The plain way: logits in float32, mask, log-softmax, gather."""
    kind = hidden.dtype if hidden.dtype == weight.dtype else torch.float32
    logits = (hidden.to(kind) @ weight.to(kind).t()).float()
    if outside is not None:
        logits = logits.masked_fill(outside, float("-inf"))
    return logits.log_softmax(-1).gather(1, targets[:, None])[:, 0]


@contextmanager
def keeping(keep: bool) -> Iterator[None]:
    """Keep logits wherever the budget allows it, or nowhere."""
    before = configs.KEEP_WORK
    configs.KEEP_WORK = 0 if keep else 1 << 62
    try:
        yield
    finally:
        configs.KEEP_WORK = before


def relative(mine: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the norm of what is wanted; not a number never passes."""
    return float((mine.double() - wanted.double()).norm() / wanted.double().norm().clamp(min=1e-30))


CHECKED = ((1, 64, 1), (333, 256, 588), (70, 272, 1000), (129, 512, 8192))
"""Rows, width and vocabulary."""


def check(seed: int) -> list[str]:
    """Name every check that is red; several run at a time, because most of their time is compiling."""
    jobs = [(*shape, *kind, masked) for shape in CHECKED for kind in (*KINDS, *SINGLE) for masked in (False, True)]
    with ProcessPoolExecutor(8, multiprocessing.get_context("spawn")) as pool:
        return [what for found in pool.map(check_one, jobs, [seed] * len(jobs)) for what in found]


def check_one(job: tuple[int, int, int, torch.dtype, torch.dtype, Precision, bool], seed: int) -> list[str]:
    """Name what is red of one shape and kind."""
    rows, width, vocabulary, *kinds, precision, masked = job
    hidden, weight, targets, words = inputs(rows, width, vocabulary, (kinds[0], kinds[1]), seed)
    targets[::7] = -1
    name = f"{rows}x{width}x{vocabulary} {kinds[0]} {kinds[1]} {precision} masked={masked}"
    return [f"{name}: {what}" for what in check_case([hidden, weight, targets, words if masked else None], precision)]


def check_case(case: list[Any], precision: Precision) -> list[str]:
    """Name what is red of hidden states, head, targets and kept sets."""
    hidden, weight, targets, keep = case
    pulled = torch.cos(torch.arange(len(hidden), device="cuda", dtype=torch.float64))
    options: dict[str, Any] = {"temperature": 0.8, "precision": precision}

    def run(backend: str, wide: bool) -> tuple[LogProbs, tuple[Tensor, ...]]:
        leaves = [(item.double() if wide else item).detach().requires_grad_() for item in (hidden, weight)]
        # What scratch memory holds must not matter.
        torch.empty(1 << 26, device="cuda").fill_(float("nan"))
        found = linear_log_probs(leaves[0], leaves[1], targets, keep_words_NW=keep, backend=backend, **options)  # pyright: ignore[reportArgumentType]
        total = (found.log_probs_N * pulled.to(found.log_probs_N.dtype)).sum()
        return found, torch.autograd.grad(total, leaves)

    wanted = run("reference", wide=True)
    with keeping(False):
        formed = run("triton", wide=False)
        again = run("triton", wide=False)
    with keeping(True):
        kept = run("triton", wide=False)
    with torch.no_grad():
        plain = linear_log_probs(hidden, weight, targets, keep_words_NW=keep, backend="triton", **options)
        some = slice(len(hidden) // 3, len(hidden) // 3 + 1)
        words = None if keep is None else keep[some]
        alone = linear_log_probs(hidden[some], weight, targets[some], keep_words_NW=words, backend="triton", **options)
    red = []
    limits = [1e-4 if weight.dtype == torch.float32 else TOLERANCE[torch.bfloat16]] * 3
    limits += [TOLERANCE[hidden.dtype], TOLERANCE[weight.dtype]]
    mine_all, right_all = ([*scores[:3], *gradients] for scores, gradients in (formed, wanted))
    for mine, right, limit in zip(mine_all, right_all, limits, strict=True):
        error = relative(mine.detach(), right.detach()) if bool(right.any()) else 0.0
        if not error <= limit:
            red.append(f"relative error {error:.1e} of {list(right.shape)}, at most {limit:g}")
    for what, other in (("two runs", again), ("logits kept and formed again", kept)):
        if any(not torch.equal(*pair) for pair in zip((*formed[0], *formed[1]), (*other[0], *other[1]), strict=True)):
            red.append(f"{what} differ")
    if any(not torch.equal(*pair) for pair in zip(formed[0], plain, strict=True)):
        red.append("runs with and without gradient differ")
    if any(not torch.equal(left[some], right) for left, right in zip(plain, alone, strict=True)):
        red.append("a row's bits depend on the batch")
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


def captured_ms(function: Callable[[], object]) -> float:
    """Median time of a call that is replayed from a CUDA graph, where launches cost next to nothing."""
    from triton.testing import do_bench_cudagraph  # noqa: PLC0415 - absent where there is no GPU

    with torch.cuda.stream(torch.cuda.Stream()):
        return float(do_bench_cudagraph(function, rep=100, return_mode="median"))


def pulling(way: Callable[[], Tensor], pulled: Tensor, leaves: list[Tensor]) -> Callable[[], object]:
    """Make forward and backward of a way."""
    return lambda: torch.autograd.grad((way() * pulled).sum(), leaves)


def ways(case: list[Tensor], precision: Precision, compiled: bool) -> dict[str, Callable[[], Tensor]]:
    """Every way to the log-probabilities, masked and not."""
    hidden, weight, targets, words = case
    outside = ~unpack(words, len(weight))
    plain = {"unfused": unfused}
    if compiled:
        plain["compiled"] = torch.compile(unfused, dynamic=False)

    def ours(keep: Tensor | None) -> Tensor:
        return linear_log_probs(hidden, weight, targets, keep_words_NW=keep, precision=precision).log_probs_N

    found: dict[str, Callable[[], Tensor]] = {"ours": lambda: ours(None), "ours, masked": lambda: ours(words)}
    for name, way in plain.items():
        found[name] = lambda way=way: way(hidden, weight, targets, None)
        found[f"{name}, masked"] = lambda way=way: way(hidden, weight, targets, outside)
    return found


def measure(
    shape: tuple[int, int, int], kind: tuple[torch.dtype, torch.dtype, Precision], compiled: bool
) -> dict[str, Any]:
    """Time one shape, and print how it stands to the goal."""
    # Else the limit of compilations of one function is reached, and what follows is not compiled.
    torch.compiler.reset()
    case = inputs(*shape, kind[:2], 1)
    leaves = [case[0].requires_grad_(), case[1].requires_grad_()]
    pulled = torch.randn(shape[0], device="cuda")
    record: dict[str, Any] = dict(zip(("rows", "width", "vocabulary"), shape, strict=True))
    record["types"] = [str(kind[0]), str(kind[1])]
    for name, way in ways(case, kind[2], compiled).items():
        try:
            with torch.no_grad():
                forward = timed(way)
            both = timed(pulling(way, pulled, leaves))
            captured = captured_ms(pulling(way, pulled, leaves))
        except torch.OutOfMemoryError:
            record[name] = "out of memory"
            continue
        record[name] = {"forward_ms": forward[0], "both_ms": both[0], "forward_gib": forward[1], "both_gib": both[1]}
        record[name]["both_captured_ms"] = captured
    record["goal"] = [judged(record, mine, other) for mine, other in rivals(record)]
    print(json.dumps(record), flush=True)
    for line in record["goal"]:
        print(f"{'x'.join(map(str, shape))} {kind[0]} {kind[1]}: {line}", flush=True)
    return record


def rivals(record: dict[str, Any]) -> list[tuple[str, str]]:
    """Pairs of our way and another's, masked with masked."""
    return [
        (f"ours{mask}", f"{name}{mask}")
        for mask in ("", ", masked")
        for name in ("unfused", "compiled")
        if f"{name}{mask}" in record
    ]


def judged(record: dict[str, Any], mine: str, other: str) -> str:
    """Say in words how two ways compare: forward and backward, time and memory."""
    if isinstance(record[mine], str) or isinstance(record[other], str):
        return f"{mine} / {other}: {mine} {record[mine]}; {other} {record[other]}"
    time = record[mine]["both_ms"] / record[other]["both_ms"]
    forward = record[mine]["forward_ms"] / record[other]["forward_ms"]
    memory = record[mine]["both_gib"] / record[other]["both_gib"]
    captured = record[mine]["both_captured_ms"] / record[other]["both_captured_ms"]
    verdict = "met" if time <= 1 and memory <= MEMORY_GOAL else "NOT met"
    return f"{mine} / {other}: time {time:.2f} (captured {captured:.2f}, forward alone {forward:.2f}), memory {memory:.2f}: goal {verdict}"


def tune(shape: tuple[int, int, int]) -> None:
    """Time tiles, and the backward pass with logits kept and formed again."""
    from triton.runtime.errors import OutOfResources  # noqa: PLC0415 - absent where there is no GPU

    before = configs.HALF
    for kind in KINDS:
        case = inputs(*shape, kind[:2], 1)
        leaves = [case[0].requires_grad_(), case[1].requires_grad_()]
        pulled = torch.randn(shape[0], device="cuda")
        ours = [(mask, ways(case, kind[2], compiled=False)[mask]) for mask in ("ours", "ours, masked")]
        trials = [(before, True), *((tiles, False) for tiles in TILES)]
        for (mask, way), (tiles, keep) in itertools.product(ours, trials):
            line: dict[str, Any] = {"way": mask, "head": str(kind[1]), "keep": keep, "tiles": tiles}
            configs.HALF = tiles
            try:
                with keeping(keep):
                    with torch.no_grad():
                        line["forward_ms"] = timed(way)[0]
                    line["both_ms"], line["both_gib"] = timed(pulling(way, pulled, leaves))
            except (OutOfResources, torch.OutOfMemoryError) as error:
                line["error"] = str(error)[:80]
            print(json.dumps(line), flush=True)
    configs.HALF = before


def main() -> int:
    """Check, then time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the checks alone")
    parser.add_argument("--compiled", action="store_true", help="also compare with the unfused way, compiled")
    parser.add_argument("--tune", type=int, choices=range(len(SHAPES)), help="time tiles on this shape instead")
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
    if options.tune is not None:
        tune(SHAPES[options.tune])
        return 0
    cases = [measure(shape, kind, options.compiled) for shape in SHAPES for kind in KINDS]
    result = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cases": cases}
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
