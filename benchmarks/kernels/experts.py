"""Experts on a GPU: checked against the reference, then timed beside torch's grouped matrix products.

Run it as `python -m benchmarks.kernels.experts --out FILE.json`; `--quick` checks alone, `--parts` also times each kernel,
`--tune` other tiles, `--compiled` the baseline under torch.compile (minutes). It needs a GPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional

from envsynth.kernels.experts import experts
from envsynth.kernels.experts.configs import Tile, Tiles, tiles_for

LIMITS = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.2e-2}
"""Largest error of a result or a gradient, relative to its norm, against the reference in float64."""
NAMES = ("y", "dx", "dgates", "dgate", "dup", "ddown")


@dataclass(frozen=True)
class Shape:
    """Sizes of one call."""

    name: str
    tokens: int
    active: int
    n_experts: int
    width: int
    hidden: int

    @property
    def flops(self) -> float:
        """Operations of the three products, forward alone."""
        return 6.0 * self.tokens * self.active * self.width * self.hidden


SHAPES = (
    Shape("base 16K", 16384, 2, 16, 384, 128),
    Shape("base 64K", 65536, 2, 16, 384, 128),
    Shape("large 16K", 16384, 4, 32, 768, 256),
    Shape("large 64K", 65536, 4, 32, 768, 256),
    Shape("512 to 512", 65536, 4, 32, 512, 512),
    Shape("512 to 256", 65536, 4, 32, 512, 256),
)
GOAL = 1.3
"""Times as fast as the baseline, forward and backward."""


def draw(shape: Shape, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, list[Tensor]]:
    """Give chosen experts, some more popular than others, and x, gates and the three stacks."""
    n_experts, width, hidden = shape.n_experts, shape.width, shape.hidden
    taste = torch.randn(shape.tokens, n_experts, device=device) + 0.5 * torch.randn(n_experts, device=device)
    chosen = taste.topk(min(shape.active, n_experts), dim=-1).indices.sort(-1).values.to(torch.int32)
    chosen = chosen.repeat(1, shape.active)[:, : shape.active]
    x, gates = torch.randn(shape.tokens, width, device=device), torch.rand(shape.tokens, shape.active, device=device)
    weights = [
        torch.randn(n_experts, *size, device=device) * size[1] ** -0.5
        for size in ((hidden, width), (hidden, width), (width, hidden))
    ]
    return chosen, [x.to(dtype), gates, *(item.to(dtype) for item in weights)]


def grouped(x: Tensor, chosen: Tensor, gates: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """Compute the same by torch's grouped products, as the policy does without these kernels."""
    flat = chosen.flatten().to(torch.int64)
    order = torch.argsort(flat, stable=True)
    ends = torch.searchsorted(flat[order], torch.arange(len(gate), device=x.device), right=True).to(torch.int32)
    rows = x[order.div(chosen.shape[1], rounding_mode="floor")]
    to_gate, to_up = (functional.grouped_mm(rows, item.transpose(1, 2), offs=ends) for item in (gate, up))
    hidden = (functional.silu(to_gate.float()) * to_up.float()).to(x.dtype)
    out = functional.grouped_mm(hidden, down.transpose(1, 2), offs=ends)
    back = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))
    per_choice = out[back].unflatten(0, (-1, chosen.shape[1]))
    return (per_choice.float() * gates[..., None]).sum(1).to(x.dtype)


def with_gradients(run: Callable[..., Tensor], chosen: Tensor, inputs: list[Tensor], dy: Tensor) -> list[Tensor]:
    """Give the result and the gradients of x, gates and the three stacks."""
    x, gates, *weights = (item.detach().requires_grad_() for item in inputs)
    y = run(x, chosen, gates, *weights)
    return [y.detach(), *torch.autograd.grad(y, (x, gates, *weights), dy.to(y.dtype))]


def by_reference(x: Tensor, chosen: Tensor, *others: Tensor) -> Tensor:
    return experts(x, chosen, *others, backend="reference")


def errors(found: list[Tensor], wanted: list[Tensor]) -> list[float]:
    """Give errors relative to the norm; a NaN anywhere gives NaN, which is below no limit."""
    return [
        ((one.double() - other).norm() / other.norm().clamp(min=1e-30)).item()
        for one, other in zip(found, wanted, strict=True)
    ]


def poisoned(make: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Allocate as `make` does, filled with what must not be read."""

    def made(*size: Any, **options: Any) -> Tensor:
        out = make(*size, **options)
        return out.fill_(float("nan") if out.is_floating_point() else 1)

    return made


def cases(device: torch.device, dtype: torch.dtype) -> Iterator[tuple[str, Tensor, list[Tensor]]]:
    """Give a name, choices and inputs of each check; inputs are fresh each time.

    Every tile height is among them. Most share their widths, because each new one is compiled anew.
    """
    shapes = [
        Shape("one token", 1, 2, 64, 256, 160),
        Shape("few rows", 101, 2, 24, 256, 160),
        Shape("many rows", 5003, 2, 16, 256, 160),
        Shape("one expert, named twice", 1501, 2, 1, 256, 160),
    ]
    if dtype == torch.bfloat16:
        shapes += [
            Shape("some rows", 801, 2, 32, 256, 160),
            Shape("more rows", 1999, 2, 16, 256, 160),
            Shape("base", 9001, 2, 16, 384, 128),
            Shape("large", 9001, 4, 32, 768, 256),
            Shape("512 to 512", 3001, 4, 5, 512, 512),
            Shape("one choice, sums not split", 2001, 1, 7, 384, 1024),
        ]
    for shape in shapes:
        yield (shape.name, *draw(shape, dtype, device))
    chosen, inputs = draw(Shape("", 3000, 2, 6, 256, 160), dtype, device)
    yield "experts without tokens", torch.where(chosen % 2 == 1, 0, chosen), inputs
    yield "all on one", torch.full_like(chosen, 4), inputs
    yield "indices outside, int64", (chosen - 1).long(), inputs


def check_case(name: str, chosen: Tensor, inputs: list[Tensor]) -> list[str]:
    """Compare one case with the reference, twice, and with tokens in another order; give what is wrong."""
    dtype, dy = inputs[0].dtype, torch.randn_like(inputs[0])
    wanted = with_gradients(by_reference, chosen, [item.double() for item in inputs], dy)
    with (
        mock.patch("torch.empty", poisoned(torch.empty)),
        mock.patch("torch.empty_like", poisoned(torch.empty_like)),
        mock.patch("torch.Tensor.new_empty", poisoned(Tensor.new_empty)),
    ):
        found, again = (with_gradients(experts_by_kernels, chosen, inputs, dy) for _ in range(2))
    red = [
        f"{name}, {dtype}: {part} is off by {error:.1e}"
        for part, error in zip(NAMES, errors(found, wanted), strict=True)
        if not error < LIMITS[dtype]
    ]
    if not all(torch.equal(*pair) for pair in zip(found, again, strict=True)):
        red.append(f"{name}, {dtype}: not repeatable")
    order = torch.randperm(len(chosen), device=chosen.device)
    x, gates, *weights = inputs
    if not torch.equal(experts_by_kernels(x, chosen, gates, *weights), found[0]):
        red.append(f"{name}, {dtype}: a result without gradients differs from one with")
    moved = with_gradients(experts_by_kernels, chosen[order], [x[order], gates[order], *weights], dy[order])
    for part, one, other in zip(NAMES[:3], found, moved, strict=False):
        if not torch.equal(one[order], other):
            red.append(f"{name}, {dtype}: {part} of a token depends on the other tokens")
    return red


def experts_by_kernels(x: Tensor, chosen: Tensor, *others: Tensor) -> Tensor:
    return experts(x, chosen, *others, backend="triton")


def check(device: torch.device) -> list[str]:
    """Compare all cases with the reference, and our error in bfloat16 with the baseline's; give what is wrong."""
    red = [
        line
        for dtype in (torch.bfloat16, torch.float16, torch.float32)
        for name, chosen, inputs in cases(device, dtype)
        for line in check_case(name, chosen, inputs)
    ]
    chosen, inputs = draw(replace(SHAPES[3], tokens=8192), torch.bfloat16, device)
    dy = torch.randn_like(inputs[0])
    wanted = with_gradients(by_reference, chosen, [item.double() for item in inputs], dy)
    ours = errors(with_gradients(experts_by_kernels, chosen, inputs, dy), wanted)
    theirs = errors(with_gradients(grouped, chosen, inputs, dy), wanted)
    print("errors of", ", ".join(NAMES))
    print("  ours      ", *(f"{item:.2e}" for item in ours))
    print("  grouped_mm", *(f"{item:.2e}" for item in theirs))
    red += [
        f"{part}: less exact than grouped_mm" for part, a, b in zip(NAMES, ours, theirs, strict=True) if a > 1.5 * b
    ]
    return red + check_large_offsets(device)


def check_large_offsets(device: torch.device) -> list[str]:
    """Look at the last tokens of a call whose hidden layer has more than 2^31 numbers."""
    shape = Shape("", 2**18 + 77, 4, 8, 64, 2560)
    chosen, inputs = draw(shape, torch.bfloat16, device)
    dy = torch.randn_like(inputs[0])
    found = with_gradients(experts_by_kernels, chosen, inputs, dy)[:3]
    # The last rows are of the last expert.
    some = (chosen == shape.n_experts - 1).any(-1).nonzero().flatten()[-64:]
    x, gates, *weights = (item.double() for item in inputs)
    wanted = with_gradients(by_reference, chosen[some], [x[some], gates[some], *weights], dy[some])[:3]
    wrong = [not error < LIMITS[torch.bfloat16] for error in errors([item[some] for item in found], wanted)]
    return ["offsets beyond 2^31"] if any(wrong) else []


def median_ms(run: Callable[[], object]) -> float:
    """Time a call by CUDA events after a warm-up."""
    from triton.testing import do_bench  # noqa: PLC0415 - Triton, for a GPU alone

    return do_bench(run, warmup=30, rep=150, return_mode="median")


def graph_ms(run: Callable[[], object]) -> float:
    """Time a call replayed as a CUDA graph: without what it costs the host to launch."""
    from triton.testing import do_bench_cudagraph  # noqa: PLC0415 - Triton, for a GPU alone

    with torch.cuda.stream(torch.cuda.Stream()):
        return do_bench_cudagraph(run, rep=100, return_mode="median")


def peak_gb(run: Callable[[], object]) -> float:
    """Give the memory that a call takes beside what was there."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    run()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 1e9


def measure_one(run: Callable[..., Tensor], chosen: Tensor, inputs: list[Tensor], dy: Tensor) -> dict[str, float]:
    """Give time and memory, forward alone and with gradients; with gradients also replayed from a CUDA graph."""

    def forward() -> None:
        with torch.no_grad():
            run(inputs[0], chosen, *inputs[1:])

    def both() -> None:
        with_gradients(run, chosen, inputs, dy)

    return {
        "forward_ms": median_ms(forward),
        "both_ms": median_ms(both),
        "both_captured_ms": graph_ms(both),
        "forward_gb": peak_gb(forward),
        "both_gb": peak_gb(both),
    }


def measure(device: torch.device, compiled: bool) -> Iterator[dict[str, Any]]:
    """Time each shape beside the baseline."""
    runs = {"ours": experts_by_kernels, "grouped": grouped}
    if compiled:
        runs["compiled"] = torch.compile(grouped, dynamic=False)
    for shape in SHAPES:
        chosen, inputs = draw(shape, torch.bfloat16, device)
        dy = torch.randn_like(inputs[0])
        record: dict[str, Any] = asdict(shape)
        for name, run in runs.items():
            record |= {f"{name}_{key}": value for key, value in measure_one(run, chosen, inputs, dy).items()}
        record["tflops_forward"] = shape.flops * 1e-9 / record["ours_forward_ms"]
        record["tflops_both"] = 3 * shape.flops * 1e-9 / record["ours_both_ms"]
        record["faster_forward"] = record["grouped_forward_ms"] / record["ours_forward_ms"]
        record["faster_both"] = record["grouped_both_ms"] / record["ours_both_ms"]
        record["faster_captured"] = record["grouped_both_captured_ms"] / record["ours_both_captured_ms"]
        record["goal_met"] = record["faster_both"] >= GOAL
        yield record


def kernels_of(shape: Shape, tiles: Tiles, device: torch.device) -> dict[str, tuple[Callable[[Tile], object], float]]:
    """Give each kernel of a call alone, as a function of its tile, with its operations."""
    from envsynth.kernels.experts import backward, forward, products, sorting, sums  # noqa: PLC0415 - Triton, for a GPU alone

    chosen, (x, gates, gate, up, down) = draw(shape, torch.bfloat16, device)
    n_experts, active, rows, one = shape.n_experts, shape.active, tiles.rows, shape.flops / 3
    order = sorting.sort_choices(chosen, n_experts, rows)

    def run_up(tile: Tile) -> tuple[Tensor, Tensor, Tensor]:
        return forward.multiply_up(x, (gate, up), order, active, tile, rows=rows, keep=True)

    def run_down(tile: Tile) -> Tensor:
        return products.multiply((hidden,), (down,), order, tile, rows=rows, transposed=False)

    def run_hidden(tile: Tile) -> object:
        return backward.differentiate_hidden(x, down, kept, gates, order, tile, rows=rows)

    def run_inputs(tile: Tile) -> Tensor:
        return products.multiply(kept, (gate, up), order, tile, rows=rows, transposed=True)

    def run_pair(tile: Tile) -> object:
        return sums.sum_products(kept, x, order, active, tile, out_rows=tiles.pair_rows, gather_left=False)

    def run_single(tile: Tile) -> object:
        return sums.sum_products((x,), hidden, order, active, tile, out_rows=tiles.single_rows, gather_left=True)

    hidden, *both = run_up(tiles.up)
    kept, out = tuple(both), run_down(tiles.down)
    return {
        "sort": (lambda _: sorting.sort_choices(chosen, n_experts, rows), 0.0),
        "up": (run_up, 2 * one),
        "down": (run_down, one),
        "add": (lambda _: forward.add_choices(out, order, gates, x.dtype, weighted=True), 0.0),
        "hidden": (run_hidden, one),
        "inputs": (run_inputs, 2 * one),
        "pair": (run_pair, 2 * one),
        "single": (run_single, one),
    }


def tiles_of(shape: Shape) -> Tiles:
    return tiles_for(torch.bfloat16, shape.tokens * shape.active, shape.n_experts, shape.width, shape.hidden)


def parts(device: torch.device) -> Iterator[dict[str, Any]]:
    """Time each kernel alone."""
    for shape in (SHAPES[1], SHAPES[3], SHAPES[4]):
        tiles = tiles_of(shape)
        for name, (run, flops) in kernels_of(shape, tiles, device).items():
            tile = getattr(tiles, name, tiles.up)
            ms = median_ms(lambda run=run, tile=tile: run(tile))
            yield {"shape": shape.name, "kernel": name, "ms": ms, "tflops": flops * 1e-9 / ms}


def candidates(name: str, tile: Tile) -> Iterator[Tile]:
    """Give other tiles of a product; those whose accumulators would not fit the registers are left out."""
    sums = 2 if name in {"up", "pair"} else 1
    for columns in (tile.columns, max(tile.columns // 2, 16)):
        for warps in (4, 8):
            for depth in (32, 64) if name == "inputs" else (64,):
                for stages in (5, 7) if name in {"pair", "single"} else (3, 4):
                    if columns * sums > 32 * warps:
                        continue
                    yield (other := Tile(columns=columns, depth=depth, warps=warps, stages=stages))
                    if name not in {"pair", "single"}:
                        yield replace(other, persistent=True)


def tune(device: torch.device) -> Iterator[dict[str, Any]]:
    """Time other tiles of each product and give the best; what does not fit is left out."""
    from triton.runtime.errors import OutOfResources  # noqa: PLC0415 - Triton, for a GPU alone

    for shape in (SHAPES[3], SHAPES[4]):
        tiles = tiles_of(shape)
        kernels = kernels_of(shape, tiles, device)
        for name in ("up", "down", "hidden", "inputs", "pair", "single"):
            run, flops = kernels[name]
            found = []
            for tile in candidates(name, getattr(tiles, name)):
                try:
                    ms = median_ms(lambda run=run, tile=tile: run(tile))
                except OutOfResources:
                    continue
                found.append(
                    {"shape": shape.name, "kernel": name, **asdict(tile), "ms": ms, "tflops": flops * 1e-9 / ms}
                )
            yield from sorted(found, key=lambda record: record["ms"])[:4]


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
    parser.add_argument("--parts", action="store_true", help="also time each kernel")
    parser.add_argument("--tune", action="store_true", help="also time other tiles")
    parser.add_argument("--compiled", action="store_true", help="also time the baseline under torch.compile")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks.kernels.experts needs a GPU", file=sys.stderr)
        return 2
    device = torch.device("cuda")
    # A gate's gradient may cancel to nearly nothing, and with it the digits of one token's: equal inputs every time.
    torch.manual_seed(0)
    red = check(device)
    print("\n".join(red) or "checks: green")
    if red:
        return 1
    result: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "checks": "green"}
    wanted = {"shapes": not options.quick, "parts": options.parts, "tuning": options.tune}
    makers = {
        "shapes": lambda: measure(device, options.compiled),
        "parts": lambda: parts(device),
        "tuning": lambda: tune(device),
    }
    for part, make in makers.items():
        if not wanted[part]:
            continue
        result[part] = []
        for record in make():
            show(record)
            result[part].append(record)
            if options.out:
                options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
