"""The indexer on a GPU: checked against float64 and for equal bits in every form, then timed beside plain torch.

Run it as `python -m benchmarks.kernels.indexer --out FILE.json`; `--quick` checks alone. It needs a GPU.
"""

# ruff: noqa: N803, N806 - shape letters

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.kernels.topk import median_ms, poisoned, show
from envsynth.kernels.indexer import (
    ScaledKeys,
    configs,
    gathered_scores,
    index_select,
    index_select_decode,
    reference,
    selected_kl,
)
from envsynth.policy.indexer import index_scores
from envsynth.policy.selection import exact_topk

EIGHT = torch.float8_e4m3fn
KINDS = (  # type, heads, width
    (torch.bfloat16, 16, 64),
    (torch.bfloat16, 4, 32),
    (torch.bfloat16, 8, 64),
    (torch.bfloat16, 12, 48),
    (torch.bfloat16, 64, 128),
    (torch.float16, 16, 64),
    (torch.float32, 4, 32),
    (EIGHT, 64, 128),
)
LOGITS = (  # type, heads, width, queries, keys
    (EIGHT, 64, 128, 4096, 32768),
    (EIGHT, 64, 128, 2048, 131072),
    (torch.bfloat16, 16, 64, 8192, 32768),
    (torch.bfloat16, 8, 64, 8192, 32768),
    (torch.bfloat16, 4, 32, 8192, 32768),
)
POLICY = (  # B, T, heads, width, k
    *((B, T, 4, 64, k) for B, T in ((4, 8192), (2, 16384), (1, 32768), (1, 131072)) for k in (128, 256)),  # base
    *((B, T, 8, 64, 256) for B, T in ((4, 8192), (2, 16384), (1, 32768), (1, 131072))),  # large
    (8, 4096, 16, 64, 256),
)
PHASES = ("bars_kernel", "walk_kernel", "best_kernel", "index_scores_kernel", "topk_kernel")
"""Kernels of a selection; what else runs in it is small."""


def inputs(kind: torch.dtype, B: int, T: int, S: int, heads: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Make queries, keys and weights of either sign."""
    query = torch.randn(B, T, heads, width, device="cuda").to(kind)
    return query, torch.randn(B, S, width, device="cuda").to(kind), torch.randn(B, T, heads, device="cuda")


def error(got: Tensor, want: Tensor) -> float:
    """Give the relative error in the norm of all."""
    got, want = got.detach().double(), want.detach()
    return float((got - want).norm() / want.norm().clamp(min=1e-30))


def check_forms(kind: torch.dtype, heads: int, width: int) -> Iterator[tuple[str, bool]]:
    """Compare one type and size in all forms; give names, and whether each is right."""
    B, T, k = 3, 777, 200
    query, key, weight = inputs(kind, B, T, T, heads, width)
    weight[:, ::50] = 0.0
    scales = torch.rand(B, T, device="cuda") + 0.5
    keys = ScaledKeys(key, scales) if kind == EIGHT else key
    topk, scores = index_select(query, keys, weight, k)
    wide = key.double() * (scales[..., None] if kind == EIGHT else 1.0)
    dense = reference.index_scores(query.double(), wide, weight.double())
    kept = topk >= 0
    want = dense.gather(2, topk.clamp(min=0).long()).masked_fill(~kept, 0.0)
    yield "scores", error(scores, want) < (1e-3 if kind == EIGHT else 1e-5)
    visible = torch.ones(T, T, dtype=torch.bool, device="cuda").tril()
    best = exact_topk(dense, visible, k)
    best_scores = dense.gather(2, best.clamp(min=0).long()).masked_fill(best < 0, 0.0)
    yield "selection", error(want.sort(-1).values, best_scores.sort(-1).values) < 1e-3 and torch.equal(kept, best >= 0)

    def same(result: tuple[Tensor, Tensor], *index: Any) -> bool:
        return torch.equal(result[0], topk[index]) and torch.equal(result[1], scores[index])

    yield "repeated", all(same(index_select(query, keys, weight, k)) for _ in range(5))
    for rows in (8, 500, 2 * T):
        yield f"chunks of {rows}", same(index_select(query, keys, weight, k, chunk_rows=rows))
    order = torch.tensor([2, 0, 1], device="cuda")
    moved = ScaledKeys(key[order], scales[order]) if kind == EIGHT else key[order]
    yield "batch in another order", same(index_select(query[order], moved, weight[order], k), order)
    first = torch.tensor([400, 0, 77], device="cuda")
    places = first[:, None] + torch.arange(13, device="cuda")
    batch = torch.arange(B, device="cuda")[:, None]
    later = index_select(query[batch, places], keys, weight[batch, places], k, query_start_B=first)
    yield "prefill continued", same(later, batch, places)
    cache = torch.full((7, T + 55, width), float("nan"), device="cuda").to(kind)
    cache_scales = torch.full((7, T + 55), float("nan"), device="cuda")
    slots = torch.tensor([6, 0, 3], device="cuda")
    cache.view(torch.uint8)[slots, :T] = key.view(torch.uint8)
    cache_scales[slots, :T] = scales
    cached = ScaledKeys(cache, cache_scales) if kind == EIGHT else cache
    for place in (0, 5, k - 1, k, k + 1, 500, T - 1):
        at = torch.full((B,), place, device="cuda")
        decoded = index_select_decode(query[:, place], cached, weight[:, place], slots, at + 1, k)
        yield f"decoding at {place}", same(decoded, slice(None), place)
    if kind != EIGHT:
        yield "gathered", torch.equal(gathered_scores(query, key, weight, topk), scores)
        yield from check_gradients(query, key, weight, topk)


def check_gradients(query: Tensor, key: Tensor, weight: Tensor, topk: Tensor) -> Iterator[tuple[str, bool]]:
    """Compare gradients with float64, and with themselves."""
    leaves = [item.detach().requires_grad_() for item in (query, key, weight)]
    wide = [item.detach().double().requires_grad_() for item in (query, key, weight)]
    grad = torch.randn(topk.shape, device="cuda")
    found = [torch.autograd.grad(gathered_scores(*leaves, topk), leaves, grad) for _ in range(3)]
    want = torch.autograd.grad(reference.gathered_scores(*wide, topk), wide, grad.double())
    limit = 1e-4 if query.dtype == torch.float32 else 1e-2
    for name, mine, theirs in zip(("query", "key", "weight"), found[0], want, strict=True):
        yield f"gradient of {name}: {error(mine, theirs):.1e}", error(mine, theirs) < limit
    yield (
        "gradients repeated",
        all(torch.equal(a, b) for again in found[1:] for a, b in zip(again, found[0], strict=True)),
    )
    target = torch.rand(topk.shape, device="cuda") * (torch.rand(topk.shape, device="cuda") < 0.7)
    target[:, 7] = 0.0
    scores = 5 * torch.randn(topk.shape, device="cuda")
    both = []
    for leaf, give in ((scores, selected_kl), (scores.double(), reference.selected_kl)):
        leaf.requires_grad_()
        kl = give(leaf, target.to(leaf.dtype), topk)
        both.append((kl, torch.autograd.grad(kl.sum(), leaf)[0]))
    yield "loss", error(both[0][0], both[1][0]) < 1e-5
    yield "gradient of the loss", error(both[0][1], both[1][1]) < 1e-5


def check_documents() -> Iterator[tuple[str, bool]]:
    """Compare packed documents with each alone, and invisible NaN with none."""
    query, key, weight = inputs(torch.bfloat16, 1, 700, 700, 8, 64)
    lengths = [1, 64, 65, 1, 1, 300, 268]
    starts = torch.repeat_interleave(
        torch.tensor(lengths).cumsum(0) - torch.tensor(lengths), torch.tensor(lengths)
    ).cuda()[None]
    topk, scores = index_select(query, key, weight, 64, starts_BT=starts)
    begin = 0
    for length in lengths:
        part = slice(begin, begin + length)
        alone = index_select(query[:, part], key[:, part], weight[:, part], 64)
        moved = torch.where(topk[:, part] < 0, -1, topk[:, part] - begin)
        yield f"document at {begin}", torch.equal(alone[0], moved) and torch.equal(alone[1], scores[:, part])
        begin += length
    key[:, :432] = float("nan")
    yield (
        "invisible NaN",
        torch.equal(index_select(query, key, weight, 64, starts_BT=starts)[0][:, 432:], topk[:, 432:]),
    )


def with_scores(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Give bfloat16 queries, keys and weights whose scores are these, up to 64 rows: heads for either sign, lanes for rows."""
    count, size = rows.shape
    key = torch.zeros(1, size, 64, device="cuda")
    key[0, :, :count] = rows.T
    query = torch.zeros(1, count, 4, 64, device="cuda")
    place = torch.arange(count, device="cuda")
    query[0, place, 0, place], query[0, place, 1, place] = 1.0, -1.0
    weight = torch.tensor([1.0, -1.0, 0.0, 0.0], device="cuda").expand(1, count, 4).contiguous()
    return query.bfloat16(), key.bfloat16(), weight


def misleading(size: int) -> Iterator[tuple[str, Tensor]]:
    """Give scores, [S], that mislead the sample of a walk or fill its lists; values that bfloat16 holds."""
    some = torch.randint(1, 30000, (size,), device="cuda").bfloat16().float() / 256
    place = torch.arange(size, device="cuda")
    yield "rising", some.sort().values
    yield "falling", some.sort(descending=True).values
    yield "plateau of zeros", torch.where(some < 60, torch.where(some < 20, -0.0, 0.0), some - 64)
    yield "all equal", torch.full((size,), -1.5, device="cuda")
    yield "all zero", torch.zeros(size, device="cuda")
    for turns in (2, 4):
        parts, part = torch.arange(turns * 128, device="cuda"), -(-size // (turns * 128))
        sampled = parts * part + (((parts * 40503) & 0xFFFF) * part >> 16)
        high = some.clone()
        high[sampled[sampled < size]] += 512
        yield f"high in the sample of {turns} tiles", high
        yield f"low in the sample of {turns} tiles", -high
    for period in (2, 16, 64, 128, 256, part):
        yield f"high at every {period}th key", torch.where(place % period == period // 2, some + 512, some)


def check_walk() -> Iterator[tuple[str, bool]]:
    """Compare the walk with written scores, bit for bit, where its sample misleads it and its lists get full."""
    for size, k in ((9000, 256), (40000, 128), (40000, 2048)):
        for name, row in misleading(size):
            given = with_scores(torch.stack([row, row.flip(0)] * 20))
            first = torch.tensor([size - 1], device="cuda")
            with mock.patch.object(configs, "WALK_PROGRAMS", 1):
                walked = index_select(*given, k, query_start_B=first)
            with mock.patch.object(configs, "WALK_PROGRAMS", 1 << 30):
                written = index_select(*given, k, query_start_B=first)
            equal = torch.equal(walked[0], written[0])
            bits = torch.equal(walked[1].view(torch.int32), written[1].view(torch.int32))
            yield f"{name}, {size} keys, k={k}", equal and bits
    for kind, heads, width in KINDS:
        for size, k in ((3000, 256), (20000, 64)):
            query, key, weight = inputs(kind, 1, 999, size, heads, width)
            first = torch.tensor([size - 999], device="cuda")
            keys = ScaledKeys(key, torch.rand(1, size, device="cuda") + 0.5) if kind == EIGHT else key
            results = []
            for programs in (1, 1 << 30):
                with mock.patch.object(configs, "WALK_PROGRAMS", programs):
                    results.append(index_select(query, keys, weight, k, query_start_B=first))
            same = all(torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in zip(*results, strict=True))
            yield f"{kind} {heads} heads of {width}, {size} keys, k={k}", same


def check() -> list[str]:
    """Run all checks in poisoned memory; give what is wrong."""
    red = []
    with mock.patch("torch.empty", poisoned):
        for kind, heads, width in KINDS:
            for name, right in check_forms(kind, heads, width):
                if not right:
                    red.append(f"{kind} {heads} heads of {width}: {name}")
        red += [f"packed: {name}" for name, right in check_documents() if not right]
        red += [f"walk: {name}" for name, right in check_walk() if not right]
    return red


def measure_logits() -> Iterator[dict[str, Any]]:
    """Time the scores' kernel alone, all keys visible to all queries."""
    from envsynth.kernels.indexer.forward import KeyRange, scores_of_range  # noqa: PLC0415 - Triton, for a GPU alone

    for kind, heads, width, T, S in LOGITS:
        query, key, weight = inputs(kind, 1, T, S, heads, width)
        out = torch.empty(1, T, S, device="cuda")
        seen = KeyRange(
            torch.zeros(1, T, dtype=torch.int32, device="cuda"),
            torch.full((1, T), S, dtype=torch.int32, device="cuda"),
            S,
        )
        scales = torch.ones(1, S, device="cuda") if kind == EIGHT else None
        time = median_ms(
            lambda q=query, k=key, w=weight, v=seen, o=out, s=scales: scores_of_range(q, k, w, v, o, key_scale_BS=s)
        )
        yield {
            "kernel": "logits", "type": str(kind), "heads": heads, "width": width, "queries": T, "keys": S, "ms": time,
            "tflops": 2e-9 * T * S * heads * width / time, "goal_tflops": 900 if kind == EIGHT else None,
        }  # fmt: skip


def phases_ms(run: Callable[[], Any]) -> dict[str, float]:
    """Time the kernels of one call by name, and the processor's part."""
    run()
    torch.cuda.synchronize()
    kinds = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=kinds) as profile:
        run()
        torch.cuda.synchronize()
    found: dict[str, float] = dict.fromkeys((*PHASES, "other"), 0.0)
    for event in profile.events() or ():
        if event.device_type.name == "CUDA":
            name = event.name if event.name in PHASES else "other"
            found[name] += event.device_time / 1000
    begin = time.perf_counter()
    run()
    found["processor"] = 1000 * (time.perf_counter() - begin)
    torch.cuda.synchronize()
    return {name: value for name, value in found.items() if value}


def measure_selection() -> Iterator[dict[str, Any]]:
    """Time what a layer of the policy needs, beside plain torch where its memory allows."""
    for B, T, heads, width, k in POLICY:
        query, key, weight = inputs(torch.bfloat16, B, T, T, heads, width)
        record: dict[str, Any] = {"kernel": "select", "B": B, "T": T, "heads": heads, "width": width, "k": k}
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        topk, known = index_select(query, key, weight, k)
        record["peak_mib"] = (torch.cuda.max_memory_allocated() - before) / 2**20
        record["select_ms"] = median_ms(lambda q=query, s=key, w=weight, k=k: index_select(q, s, w, k))
        record["phases_ms"] = phases_ms(lambda q=query, s=key, w=weight, k=k: index_select(q, s, w, k))
        with mock.patch.object(configs, "WALK_PROGRAMS", 1 << 30):
            record["by_written_scores_ms"] = median_ms(lambda q=query, s=key, w=weight, k=k: index_select(q, s, w, k))
        leaves = [item.requires_grad_() for item in (query, key, weight)]
        target = torch.rand_like(known)

        def learn(leaves: Any = leaves, topk: Tensor = topk, known: Tensor = known, target: Tensor = target) -> None:
            loss = selected_kl(gathered_scores(*leaves, topk, known_BTK=known), target, topk).mean()
            torch.autograd.grad(loss, leaves)

        record["gradients_ms"] = median_ms(learn)
        if B * T * T * heads * 4 < 36 * 2**30:
            visible = torch.ones(T, T, dtype=torch.bool, device="cuda").tril()

            def plain(
                q: Tensor = query, s: Tensor = key, w: Tensor = weight, v: Tensor = visible, k: int = k
            ) -> Tensor:
                with torch.no_grad():
                    return exact_topk(index_scores(q, s, w), v, k)

            record["plain_torch_ms"] = median_ms(plain)
        yield record
    for N, length, heads, width, k in ((64, 32768, 16, 64, 256), (64, 131072, 64, 128, 2048)):
        kind = EIGHT if heads == 64 else torch.bfloat16
        query, key, weight = inputs(kind, N, 1, length, heads, width)
        rows = torch.arange(N, device="cuda")
        lengths = torch.full((N,), length, device="cuda")
        time = median_ms(
            lambda q=query, c=key, w=weight, r=rows, n=lengths, k=k: index_select_decode(q[:, 0], c, w[:, 0], r, n, k)
        )
        moved = key.numel() * key.element_size()
        yield {
            "kernel": "decode",
            "N": N,
            "length": length,
            "heads": heads,
            "ms": time,
            "gb_per_s": 1e-6 * moved / time,
        }


def main() -> int:
    """Check, then measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="file of the result, JSON")
    parser.add_argument("--quick", action="store_true", help="check alone")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks.kernels.indexer needs a GPU", file=sys.stderr)
        return 2
    red = check()
    print("\n".join(red) or "checks: green")
    if red:
        return 1
    result: dict[str, Any] = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "checks": "green"}
    result["measured"] = []
    if not options.quick:
        for run in (measure_logits, measure_selection):
            for record in run():
                show(record)
                result["measured"].append(record)
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
