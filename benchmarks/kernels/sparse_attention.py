"""Attention over selected keys on a GPU: `python -m benchmarks.kernels.sparse_attention [--out FILE] [--quick] [--tune]`.

First every kernel is checked against the reference in float64, with fresh numbers and with NaN in all memory that it is
to write; on a red check nothing is timed. Then forward, sum over heads and backward are timed at shapes like our own
policies', beside the same computation in plain torch (gather, two products) and beside dense attention by cuDNN: of full
heads, 96 wide with values of 64, and of latents that all heads share, 160 wide with values of 128.

Keys are drawn one from each of K equal parts of what a query sees. `rand`: anew for every query. `corr`: each key stays
for five queries, so neighbours share four fifths. `--peer FILE` times another implementation: the file defines
`forward(query_BTHC, latent_BSC, topk_BTK, rank, scale)` and may define `backward`, which takes the gradient of the
result and what `forward` returned.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from envsynth.kernels.dispatch import load_kernels
from envsynth.kernels.sparse_attention import configs, reference, sparse_attention, sparse_attention_decode
from envsynth.kernels.sparse_attention.configs import Tiles

PERIODS = {"rand": 1, "corr": 5}
"""Queries for which a key stays selected."""
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
"""Largest relative error of a result or gradient, by norms; a single number may be four times as far off."""


class Shape(NamedTuple):
    """Sizes of one call."""

    B: int
    T: int
    H: int
    rank: int
    rope: int
    K: int

    @property
    def scale(self) -> float:
        return (self.rank + self.rope) ** -0.5

    def __str__(self) -> str:
        return f"B{self.B} L{self.T} H{self.H} {self.rank}+{self.rope} k{self.K}"


CHECKED = (
    Shape(2, 203, 16, 128, 32, 96),
    Shape(2, 203, 8, 128, 32, 96),
    Shape(1, 131, 12, 192, 32, 96),
    Shape(2, 75, 4, 64, 16, 30),
    Shape(1, 77, 1, 64, 16, 9),
    Shape(1, 67, 64, 128, 32, 65),
    Shape(1, 33, 128, 512, 64, 130),
    Shape(1, 61, 16, 512, 64, 64),
    Shape(1, 61, 3, 100, 20, 20),
)
"""The first two are checked in float16 too, the last ones in float32 too."""
TIMED = (
    *(Shape(B, 32768 // B, H, 128, 32, 256) for H in (16, 8) for B in (8, 4, 2, 1)),
    Shape(1, 32768, 8, 128, 32, 128),
    Shape(4, 8192, 12, 192, 32, 256),
    Shape(1, 32768, 12, 192, 32, 512),
)


class Inputs(NamedTuple):
    """Tensors of one call."""

    query: Tensor
    latent: Tensor
    topk: Tensor
    gradient: Tensor


def select(shape: Shape, period: int, generator: torch.Generator) -> Tensor:
    """Draw causal keys: part k of what was visible when key k was last drawn, int32 [B, T, K]."""
    time = torch.arange(shape.T, device="cuda")[:, None]
    part = torch.arange(shape.K, device="cuda")
    drawn = (time - part % period).div(period, rounding_mode="floor") + 1
    visible = ((drawn - 1) * period + part % period).clamp(min=0) + 1
    draws = torch.rand(shape.B, shape.T // period + 2, shape.K, generator=generator, device="cuda")
    draw = draws.gather(1, drawn.expand(shape.B, -1, -1))
    key = ((part + draw) * visible / shape.K).long().clamp(max=time)
    key = torch.where(time < shape.K + period, torch.where(part <= time, part, -1), key).sort(-1).values
    # Parts of unlike sizes can give the same key, which then counts once.
    key[..., 1:].masked_fill_(key[..., 1:] == key[..., :-1], -1)
    return key.to(torch.int32)


def inputs(shape: Shape, dtype: torch.dtype, period: int, seed: int) -> Inputs:
    generator = torch.Generator("cuda").manual_seed(seed)

    def draw(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator, device="cuda").to(dtype)

    width = shape.rank + shape.rope
    heads = (shape.B, shape.T, shape.H)
    topk = select(shape, period, generator)
    return Inputs(draw(*heads, width), draw(shape.B, shape.T, width), topk, draw(*heads, shape.rank))


@contextmanager
def poisoned() -> Iterator[None]:
    """Fill memory that nobody wrote with NaN, or with an absurd number."""
    empty, empty_like = torch.empty, torch.empty_like

    def poison(x: Tensor) -> Tensor:
        return x.fill_(float("nan") if x.is_floating_point() else -(2**30))

    with (
        mock.patch.object(torch, "empty", lambda *args, **kwargs: poison(empty(*args, **kwargs))),
        mock.patch.object(torch, "empty_like", lambda *args, **kwargs: poison(empty_like(*args, **kwargs))),
    ):
        yield


@contextmanager
def packing(queries: int | None) -> Iterator[None]:
    """Put so many queries into a tile; None leaves the choice to the operator."""
    if queries is None:
        yield
        return
    with mock.patch.object(configs, "queries_per_tile", return_value=queries):
        yield


def differentiate(given: Inputs, shape: Shape, *, deterministic: bool) -> tuple[Tensor, ...]:
    """Result, log-sum-exp, sum over heads, gradients of query and latent."""
    query, latent = given.query.clone().requires_grad_(), given.latent.clone().requires_grad_()
    numbers: dict[str, Any] = {"rank": shape.rank, "scale": shape.scale, "with_sum": True, "backend": "triton"}
    found = sparse_attention(query, latent, given.topk, deterministic=deterministic, **numbers)
    found.out_BTHR.backward(given.gradient)
    assert query.grad is not None
    assert latent.grad is not None
    assert found.sum_BTK is not None
    return found.out_BTHR.detach(), found.lse_BTH, found.sum_BTK, query.grad, latent.grad


def truth_of(given: Inputs, shape: Shape) -> tuple[Tensor, ...]:
    query, latent = (x.double().requires_grad_() for x in (given.query, given.latent))
    out, lse, sums = reference.attend(query, latent, given.topk, rank=shape.rank, scale=shape.scale)
    out.backward(given.gradient.double())
    assert query.grad is not None
    assert latent.grad is not None
    return out.detach(), lse, sums, query.grad, latent.grad


def error(found: Tensor, truth: Tensor) -> float:
    """Relative error by norms, or a quarter of the largest one over the largest number; infinite on NaN."""
    found, finite = found.double(), torch.isfinite(truth)
    if not torch.equal(torch.isfinite(found), finite) or not torch.equal(found[~finite], truth[~finite]):
        return float("inf")
    away = (found - truth)[finite]
    whole = away.norm() / truth[finite].norm().clamp(min=1e-30)
    single = away.abs().max() / truth[finite].abs().max().clamp(min=1e-30) / 4
    return float(torch.maximum(whole, single))


def check(shape: Shape, dtype: torch.dtype, queries: int | None) -> dict[str, Any]:
    """Compare every output with the truth, and bits with bits."""
    given = inputs(shape, dtype, PERIODS["corr"], seed=shape.T)
    given.topk[:, shape.T // 2] = -1  # a row without any key
    given.topk[:, 1::7, 0] = 2**31 - 1
    given.topk[:, 2::7, shape.K // 2] = -(2**31)
    unread = torch.ones(shape.B, shape.T + 1, dtype=torch.bool, device="cuda")
    named = torch.where((given.topk < 0) | (given.topk >= shape.T), shape.T, given.topk).flatten(1).long()
    unread.scatter_(1, named, value=False)
    given.latent[unread[:, :-1]] = float("nan")
    truth = truth_of(given, shape)
    names = ("out", "lse", "sum", "query gradient", "latent gradient")
    limits = (TOLERANCE[dtype], 1e-5, TOLERANCE[dtype], TOLERANCE[dtype], TOLERANCE[dtype])
    with packing(queries), poisoned():
        found = differentiate(given, shape, deterministic=True)
        again = differentiate(given, shape, deterministic=True)
        atomic = differentiate(given, shape, deterministic=False)
        turned = differentiate(Inputs(*(x.flip(0) for x in given)), shape, deterministic=True)
        with mock.patch.object(configs, "WORKSPACE_BYTES", 1):
            rounds = differentiate(given, shape, deterministic=True)
    errors = {name: error(x, y) for name, x, y in zip(names, found, truth, strict=True)}
    errors["atomic latent gradient"] = error(atomic[4], truth[4])
    errors["latent gradient in rounds"] = error(rounds[4], truth[4])
    red = [name for name, limit in zip(names, limits, strict=True) if errors[name] > limit]
    red += [name for name in list(errors)[5:] if errors[name] > TOLERANCE[dtype]]
    red += ["reruns"] if not all(map(torch.equal, found, again)) else []
    red += (
        ["order of sequences"] if not all(torch.equal(x.flip(0), y) for x, y in zip(found, turned, strict=True)) else []
    )
    rows = torch.arange(shape.B, device="cuda")
    last = (given.query[:, -1], given.latent, rows, given.topk[:, -1])
    decoded = sparse_attention_decode(*last, rank=shape.rank, scale=shape.scale, backend="triton")
    red += ["decode"] if not torch.equal(decoded, found[0][:, -1]) else []
    without = sparse_attention(*given[:3], rank=shape.rank, scale=shape.scale, backend="triton")
    red += ["without the sum"] if not torch.equal(without.out_BTHR, found[0]) else []
    return {"shape": str(shape), "dtype": str(dtype)[6:], "queries": queries, "errors": errors, "red": red}


def check_all() -> list[dict[str, Any]]:
    """Run every check, several at a time because most of their time is compiling, and print them."""
    jobs = []
    for number, shape in enumerate(CHECKED):
        usual = configs.queries_per_tile(shape.H, shape.K)
        dtypes = [torch.bfloat16, *([torch.float16] if number < 2 else []), *([torch.float32] if number > 6 else [])]
        jobs += [(shape, dtype, queries) for dtype in dtypes for queries in sorted({1, usual})]
    results = []
    with ProcessPoolExecutor(8, multiprocessing.get_context("spawn")) as pool:
        for one in pool.map(check, *zip(*jobs, strict=True)):
            results.append(one)
            worst = max(one["errors"].values())
            print(
                f"{one['shape']} {one['dtype']} {one['queries']} a tile: {worst:.1e} {one['red'] or 'ok'}", flush=True
            )
    return results


def milliseconds(function: Callable[[], object], repeat_ms: int = 60) -> float:
    from triton import testing  # noqa: PLC0415 - a machine without a GPU need not have it

    return cast("float", testing.do_bench(function, warmup=repeat_ms // 4, rep=repeat_ms, return_mode="median"))


def gather_attention(query: Tensor, latent: Tensor, topk: Tensor, rank: int, scale: float) -> Tensor:
    """What the policy does in plain torch."""
    first = torch.arange(len(latent), device=latent.device)[:, None, None] * latent.shape[1]
    flat = (first + topk.clamp(min=0)).flatten()
    read = latent.float().flatten(0, 1).index_select(0, flat).unflatten(0, topk.shape).to(latent.dtype)
    logits = ((query * scale) @ read.transpose(-1, -2)).float()
    attention = logits.masked_fill((topk < 0)[..., None, :], float("-inf")).softmax(-1)
    return attention.to(read.dtype) @ read[..., :rank]


def forward_and_backward(function: Callable[..., Tensor], *leaves: Tensor) -> tuple[float, float]:
    """Time the forward pass alone, and both passes."""
    with torch.no_grad():
        alone = milliseconds(lambda: function(*leaves))
    needing = [x.detach().requires_grad_() for x in leaves]
    gradient = torch.randn_like(function(*needing))
    return alone, milliseconds(lambda: torch.autograd.grad(function(*needing), needing, gradient))


def dense(shape: Shape, width: int, value: int, *, shared: bool) -> tuple[float, float]:
    """Time dense causal attention by cuDNN."""
    heads = 1 if shared else shape.H
    query = torch.randn(shape.B, shape.H, shape.T, width, device="cuda", dtype=torch.bfloat16)
    key = torch.randn(shape.B, heads, shape.T, width, device="cuda", dtype=torch.bfloat16)
    values = torch.randn(shape.B, heads, shape.T, value, device="cuda", dtype=torch.bfloat16)

    def attend(query: Tensor, key: Tensor, values: Tensor) -> Tensor:
        key, values = (x.expand(-1, shape.H, -1, -1) for x in (key, values))
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return functional.scaled_dot_product_attention(query, key, values, is_causal=True)

    try:
        return forward_and_backward(attend, query, key, values)
    except RuntimeError as refusal:
        print(f"cuDNN refuses {width}/{value}: {refusal}", file=sys.stderr)
        return float("nan"), float("nan")


def kernels_of(given: Inputs, shape: Shape, choices: Sequence[int], repeat_ms: int = 60) -> dict[str, Any]:
    """Time our kernels, and the backward pass with so many queries in a tile; count what a tile reads."""
    forward, backward, union = (load_kernels(f"sparse_attention.{name}") for name in ("forward", "backward", "union"))
    numbers: dict[str, Any] = {"rank": shape.rank, "scale": shape.scale}
    found = forward.attend(*given[:3], **numbers)

    def time_of(function: Callable[[], object]) -> float:
        return milliseconds(function, repeat_ms)

    times = {
        "forward": time_of(lambda: forward.attend(*given[:3], **numbers)),
        "forward with sum": time_of(lambda: forward.attend(*given[:3], with_sum=True, **numbers)),
    }
    packed = []
    for queries in choices:

        def differentiate(*, deterministic: bool, queries: int = queries) -> None:
            entries = union.entries_of(given.topk, shape.T, queries)
            saved = backward.Saved(given.query, given.latent, found.out, found.lse, entries)
            budget = configs.WORKSPACE_BYTES
            backward.gradients(saved, given.gradient, deterministic=deterministic, workspace_bytes=budget, **numbers)

        entries = union.entries_of(given.topk, shape.T, queries)
        counts = (given.topk >= 0).sum(-1) if entries.counts is None else entries.counts
        packed.append(
            {
                "queries": queries,
                "read": float(counts.float().mean()),
                "backward": time_of(lambda run=differentiate: run(deterministic=True)),
                "backward, atomics": time_of(lambda run=differentiate: run(deterministic=False)),
                "of that, union": time_of(lambda queries=queries: union.entries_of(given.topk, shape.T, queries)),
            }
        )
    return {"ms": times, "backward": packed, "queries": configs.queries_per_tile(shape.H, shape.K)}


def show(found: dict[str, Any]) -> None:
    """Print what `kernels_of` gives."""
    print("    " + ", ".join(f"{what} {ms:.3f}" for what, ms in found["ms"].items()))
    for one in found["backward"]:
        print("    " + ", ".join(f"{what} {number:.4g}" for what, number in one.items()), flush=True)


def peer_of(peer: Any, given: Inputs, shape: Shape) -> dict[str, Any]:
    """Time another implementation; what it refuses is told. `settings` has the times of all it tried, its own first."""
    arguments = (*given[:3], shape.rank, shape.scale)
    try:
        kept = peer.forward(*arguments)
    except RuntimeError as refusal:
        return {"refused": str(refusal)[:400]}
    times: dict[str, Any] = {"forward": milliseconds(lambda: peer.forward(*arguments))}
    if hasattr(peer, "backward"):
        times["backward"] = milliseconds(lambda: peer.backward(given.gradient, kept, *arguments))
    if hasattr(peer, "settings"):
        times["settings"] = peer.settings(*given[:3])
    return times


def time_all(peer: Any | None) -> Iterator[list[dict[str, Any]]]:
    """Time every shape and print it; give what is known after each."""
    results = []
    for shape in TIMED:
        mha, mqa = dense(shape, 96, 64, shared=False), dense(shape, 160, 128, shared=True)
        print(f"\n{shape}: dense MHA {mha[0]:.2f} / {mha[1]:.2f} ms, dense MQA {mqa[0]:.2f} / {mqa[1]:.2f} ms")
        for name, period in PERIODS.items():
            given = inputs(shape, torch.bfloat16, period, seed=1)

            def gather(query: Tensor, latent: Tensor, given: Inputs = given, shape: Shape = shape) -> Tensor:
                return gather_attention(query, latent, given.topk, shape.rank, shape.scale)

            plain = forward_and_backward(gather, given.query, given.latent)
            ours = kernels_of(given, shape, sorted({1, configs.queries_per_tile(shape.H, shape.K)}))
            others = None if peer is None else peer_of(peer, given, shape)
            print(f"  {name}: gather {plain[0]:.2f} / {plain[1]:.2f} ms", "" if others is None else f"peer {others}")
            show(ours)
            results.append(
                {
                    "shape": str(shape), "indices": name, "gather": plain, "dense mha": mha, "dense mqa": mqa,
                    "ours": ours, "peer": others,
                }
            )  # fmt: skip
        yield results


TUNED = {  # queries of a tile that are tried
    Shape(1, 32768, 16, 128, 32, 256): (1,),
    Shape(1, 32768, 12, 192, 32, 256): (1,),
    Shape(1, 32768, 8, 128, 32, 256): (1, 2),
    Shape(1, 32768, 4, 128, 32, 256): (1, 2, 4),
    Shape(1, 32768, 1, 128, 32, 256): (1, 4, 16),
    Shape(1, 8192, 16, 128, 32, 512): (1,),
}
TILES_TRIED = (  # rows, keys, warps, stages, columns
    (64, 64, 4, 2, 64), (64, 64, 4, 3, 64), (64, 128, 4, 2, 64), (64, 128, 4, 2, 128), (64, 128, 4, 1, 128),
    (64, 256, 4, 1, 128), (64, 256, 8, 1, 128), (64, 64, 2, 2, 64), (64, 64, 2, 3, 128), (64, 32, 2, 3, 128),
)  # fmt: skip


@contextmanager
def tiles_of(tiles: Tiles) -> Iterator[None]:
    """Use these tiles everywhere."""
    table: configs.Table = {2: ((128, 512, tiles),)}
    with mock.patch.object(configs, "FORWARD", table), mock.patch.object(configs, "BACKWARD", table):
        yield


def compile_one(shape: Shape, tiles: tuple[int, ...]) -> str | None:
    """Compile what one choice needs, into the cache of compiled kernels; give what went wrong."""
    tried, shape = TUNED[shape], shape._replace(T=512)
    try:
        with tiles_of(Tiles(*tiles)):
            run_once(inputs(shape, torch.bfloat16, 16, seed=1), shape, tried)
    except Exception as refusal:  # noqa: BLE001 - any failure to compile is an answer here
        return f"{type(refusal).__name__}: {str(refusal).splitlines()[0][:80]}"
    return None


def run_once(given: Inputs, shape: Shape, choices: Sequence[int]) -> None:
    """Run each kernel once."""
    for queries in choices:
        for deterministic in (True, False):
            with packing(queries):
                differentiate(given, shape, deterministic=deterministic)
    sparse_attention(*given[:3], rank=shape.rank, scale=shape.scale, backend="triton")


def tune() -> list[dict[str, Any]]:
    """Try other tiles, and print them."""
    results = []
    jobs = [(shape, tiles) for shape in TUNED for tiles in TILES_TRIED]
    with ProcessPoolExecutor(14, multiprocessing.get_context("spawn")) as pool:
        refused = dict(zip(jobs, pool.map(compile_one, *zip(*jobs, strict=True)), strict=True))
    for shape, tiles in jobs:
        for name, period in PERIODS.items():
            print(f"{shape} {name} {tiles}: {refused[shape, tiles] or ''}", flush=True)
            if refused[shape, tiles] is None:
                given = inputs(shape, torch.bfloat16, period, seed=1)
                with tiles_of(Tiles(*tiles)):
                    found = kernels_of(given, shape, TUNED[shape], repeat_ms=20)
                show(found)
                results.append({"shape": str(shape), "indices": name, "tiles": tiles, **found})
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="file for the results, as JSON")
    parser.add_argument("--quick", action="store_true", help="only check")
    parser.add_argument("--tune", action="store_true", help="also try other tiles")
    parser.add_argument("--peer", type=Path, help="Python file of another implementation")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("needs a GPU", file=sys.stderr)
        return 2
    results: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__}
    results["checks"] = check_all()
    red = [one for one in results["checks"] if one["red"]]
    if red:
        print(f"{len(red)} checks are red: nothing is timed", file=sys.stderr)
    elif not arguments.quick:
        peer = None
        if arguments.peer is not None:
            spec = importlib.util.spec_from_file_location("peer", arguments.peer)
            assert spec is not None
            assert spec.loader is not None
            peer = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(peer)
        for times in time_all(peer):
            results["times"] = times
            keep(results, arguments.out)
        if arguments.tune:
            results["tune"] = tune()
    keep(results, arguments.out)
    return 1 if red else 0


def keep(results: dict[str, Any], file: Path | None) -> None:
    """Write what is known so far."""
    if file is not None:
        file.write_text(json.dumps(results, indent=1, default=str) + "\n")


if __name__ == "__main__":
    sys.exit(main())
