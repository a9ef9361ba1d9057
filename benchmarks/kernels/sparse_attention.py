"""Sparse attention on a GPU: checked against float64 and for equal bits, then timed beside plain torch and dense attention.

Run it as `python -m benchmarks.kernels.sparse_attention --out FILE.json`; `--quick` checks alone. It needs a GPU.

Baselines of the same run: the policy's own way in plain torch (gather, multiply, softmax), and the library's fused dense
attention, causal, as heads of 96/64 and over the latents themselves (160/128). Keys are random, or shared by
neighbouring queries to about four fifths, as an indexer's are; how many keys a tile of queries reads is in the record.
"""

# ruff: noqa: N803, N806 - shape letters

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import attention, functional

from benchmarks.kernels.topk import median_ms, poisoned
from envsynth.kernels.sparse_attention import configs, sparse_attention, sparse_attention_decode
from envsynth.kernels.sparse_attention.reference import attend

SCALE = 0.1
TOLERANCE = {torch.bfloat16: 1e-2, torch.float16: 2e-3, torch.float32: 2e-5}
CHECKED = (  # batch, tokens, heads, keys, rank, rope
    (2, 301, 16, 64, 128, 32),
    (1, 130, 8, 33, 128, 32),
    (3, 77, 4, 100, 64, 16),
    (1, 65, 1, 16, 32, 16),
    (1, 64, 24, 20, 192, 32),
    (1, 96, 64, 40, 512, 64),
)
TIMED = ((8, 4096), (4, 8192), (2, 16384), (1, 32768))
"""Batch and tokens."""


def random_keys(B: int, T: int, k: int, *, shared: bool) -> Tensor:
    """Ascending causal keys, int32 [B, T, k] padded with -1; shared ones change by a fifth from query to query."""
    keys = torch.full((B, T, k), -1, dtype=torch.int32, device="cuda")
    place = torch.arange(T, device="cuda")
    for row in range(B):
        for first in range(0, T, 1024):
            here = place[first : first + 1024]
            scores = torch.rand(len(here), T, device="cuda")
            if shared:
                # A slowly changing part decides most, a fresh part the rest.
                scores = 0.2 * scores + torch.rand(len(here) // 16 + 1, T, device="cuda")[here // 16 - first // 16]
            scores = scores.masked_fill(place > here[:, None], -1.0)
            best = scores.topk(min(k, T), dim=1)
            found = best.indices.masked_fill(best.values < 0, T).sort(1).values
            keys[row, here, : found.shape[1]] = found.masked_fill(found == T, -1).to(torch.int32)
    return keys


def inputs(B: int, T: int, H: int, C: int, kind: torch.dtype) -> list[Tensor]:
    """Queries and latents."""
    return [torch.randn(B, T, H, C, device="cuda").to(kind), torch.randn(B, T, C, device="cuda").to(kind)]


def error(got: Tensor, want: Tensor) -> float:
    """Relative error in the norm of all; infinite where only one is not finite."""
    got, want = got.detach().double(), want.detach().double()
    same = got == want
    if not (got.isfinite() | same).all():
        return float("inf")
    got, want = got.masked_fill(same, 0.0), want.masked_fill(same & ~want.isfinite(), 0.0)
    return float((got - want.masked_fill(same, 0.0)).norm() / want.norm().clamp(min=1e-30))


def run(pair: list[Tensor], keys: Tensor, rank: int, gradient: Tensor, **options: Any) -> list[Tensor]:
    """Result, log-sum-exp, sum over heads, gradients."""
    query, latent = (item.detach().requires_grad_() for item in pair)
    found = sparse_attention(query, latent, keys, rank=rank, scale=SCALE, with_sum=True, **options)
    assert found.sum_BTK is not None
    gradients = torch.autograd.grad((found.out_BTHR * gradient.to(found.out_BTHR.dtype)).sum(), (query, latent))
    return [found.out_BTHR.detach(), found.lse_BTH, found.sum_BTK, *gradients]


def check() -> list[str]:
    """Name what is red."""
    red = []
    for B, T, H, k, rank, rope in CHECKED:
        for kind, limit in TOLERANCE.items():
            pair, keys = inputs(B, T, H, rank + rope, kind), random_keys(B, T, k, shared=True)
            keys[:, 5] = -1
            keys[keys == 3] = 2**31 - 1
            pair[1][:, 3] = float("nan")
            gradient = torch.randn(B, T, H, rank, device="cuda")
            want = run([item.double().nan_to_num() for item in pair], keys, rank, gradient, backend="reference")
            name = f"{B}x{T} heads {H} k {k} rank {rank}+{rope} {kind}"
            with mock.patch.object(torch, "empty", poisoned):
                found = run(pair, keys, rank, gradient)
            worst = max(error(*pair_) for pair_ in zip(found, want, strict=True))
            if not worst <= limit:
                red.append(f"{name}: relative error {worst:.1e}, at most {limit:g}")
            loose = run(pair, keys, rank, gradient, deterministic=False)
            if not error(loose[-1], want[-1]) <= limit:
                red.append(f"{name}: with atomics")
            for _ in range(20):
                again = run(pair, keys, rank, gradient)
                if any(not torch.equal(*pair_) for pair_ in zip(found, again, strict=True)):
                    red.append(f"{name}: other bits in another run")
                    break
            turn = torch.arange(B - 1, -1, -1, device="cuda")
            turned = run([item[turn] for item in pair], keys[turn], rank, gradient[turn])
            if any(not torch.equal(left[turn], right) for left, right in zip(found, turned, strict=True)):
                red.append(f"{name}: other bits in another order of sequences")
            rows, last = torch.arange(B, device="cuda"), pair[0][:, -1].contiguous()
            step = sparse_attention_decode(last, pair[1], rows, keys[:, -1].contiguous(), rank=rank, scale=SCALE)
            if not error(step, want[0][:, -1]) <= limit:
                red.append(f"{name}: decoding")
    return red


def both(way: Callable[[], Tensor], leaves: list[Tensor]) -> dict[str, float]:
    """Milliseconds forward, and forward with backward."""
    gradient = torch.randn_like(way())
    with torch.no_grad():
        forward = median_ms(way)
    return {"forward_ms": forward, "both_ms": median_ms(lambda: torch.autograd.grad(way(), leaves, gradient))}


def dense(B: int, T: int, H: int, widths: tuple[int, int], heads_of_keys: int) -> dict[str, float]:
    """The library's fused dense attention with its fastest backend, causal."""
    shapes = ((H, widths[0]), (heads_of_keys, widths[0]), (heads_of_keys, widths[1]))
    leaves = [torch.randn(B, heads, T, width, device="cuda").bfloat16().requires_grad_() for heads, width in shapes]

    def way() -> Tensor:
        with attention.sdpa_kernel([attention.SDPBackend.CUDNN_ATTENTION]):
            return functional.scaled_dot_product_attention(
                leaves[0], leaves[1], leaves[2], is_causal=True, enable_gqa=heads_of_keys < H
            )

    return both(way, leaves)


def measure() -> Iterator[dict[str, Any]]:
    """Time the shapes of the policy: rank 128 + 32."""
    for H in (16, 8):
        for B, T in TIMED:
            for k, shared in ((256, False), (256, True), (512, True)):
                pair, keys = inputs(B, T, H, 160, torch.bfloat16), random_keys(B, T, k, shared=shared)
                leaves = [item.requires_grad_() for item in pair]

                def ours(leaves: list[Tensor] = leaves, keys: Tensor = keys, **options: Any) -> Tensor:
                    return sparse_attention(leaves[0], leaves[1], keys, rank=128, scale=SCALE, **options).out_BTHR

                record: dict[str, Any] = {"batch": B, "tokens": T, "heads": H, "k": k, "shared": shared}
                record["read_per_tile"] = union(keys, configs.queries_per_tile(H, k))
                record["ours"] = both(ours, leaves)
                record["ours, atomics"] = both(lambda ours=ours: ours(deterministic=False), leaves)
                record["ours, with the sum over heads"] = both(lambda ours=ours: ours(with_sum=True), leaves)
                if T <= 8192 and k == 256 and shared:
                    part = [leaves[0][:1], leaves[1][:1]]
                    way = lambda part=part, keys=keys: attend(part[0], part[1], keys[:1], rank=128, scale=SCALE)[0]  # noqa: E731
                    try:
                        record["plain torch, one sequence"] = both(way, leaves)
                    except torch.OutOfMemoryError:
                        record["plain torch, one sequence"] = "out of memory"
                if k == 256 and shared:
                    for name, widths, keys_heads in (("dense, 96/64", (96, 64), H), ("dense, 160/128", (160, 128), 1)):
                        try:
                            record[name] = dense(B, T, H, widths, keys_heads)
                        except RuntimeError as problem:
                            record[name] = str(problem).splitlines()[0]
                print(json.dumps(record), flush=True)
                yield record


def union(keys: Tensor, queries: int) -> float:
    """Mean number of different keys of a tile of queries, in the first sequence."""
    tiles = keys[0, : len(keys[0]) // queries * queries].reshape(-1, queries * keys.shape[2]).sort(1).values
    fresh = (tiles[:, 1:] != tiles[:, :-1]) & (tiles[:, 1:] >= 0)
    return float((fresh.sum(1) + (tiles[:, 0] >= 0)).double().mean())


def main() -> int:
    """Check, then time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="the checks alone")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("this needs a GPU; on a CPU the tests run the kernels through Triton's interpreter", file=sys.stderr)
        return 2
    red = check()
    for line in red:
        print(f"RED  {line}", file=sys.stderr)
    if red or options.quick:
        print(f"{len(red)} red checks")
        return 1 if red else 0
    result = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cases": list(measure())}
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
