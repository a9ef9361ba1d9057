"""Equal bits, again and again: `python -m benchmarks.kernels.repeats [--out FILE]`.

Every operator runs 20 times on the same inputs, forward and backward, in bfloat16 (scores also in eight bits), with
gradients in a fixed order; then with the sequences, rows or tokens of the batch in another order, whose results must be
the same ones in that order. Gradients of what all tokens share (the experts' and the head's weights) are sums over
tokens in their order, so only their reruns are compared. Nothing is timed. Exit code 1: some bit differed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from envsynth.kernels.dense_kl import Student, Teacher, dense_kl
from envsynth.kernels.experts import experts
from envsynth.kernels.indexer import ScaledKeys, gathered_scores, index_select, selected_kl
from envsynth.kernels.logprobs import linear_log_probs
from envsynth.kernels.sparse_attention import sparse_attention
from envsynth.kernels.topk import topk

RERUNS, PERMUTATIONS = 20, 3


class Case(NamedTuple):
    """An operator with its inputs."""

    name: str
    run: Callable[[Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]]
    """Results and gradients, from what has a batch and what all of the batch share."""
    batched: Sequence[Tensor]
    """Inputs with the batch in front."""
    shared: Sequence[Tensor]
    """Inputs without a batch."""
    per_batch: int
    """How many of the results have the batch in front; they come first."""


def leaves(items: Sequence[Tensor]) -> list[Tensor]:
    return [item.detach().requires_grad_(item.is_floating_point()) for item in items]


def run_topk(batched: Sequence[Tensor], shared: Sequence[Tensor]) -> Sequence[Tensor]:
    scores_RS, ends_R = batched
    return [topk(scores_RS, ends_R, 256)]


def run_selection(batched: Sequence[Tensor], shared: Sequence[Tensor]) -> Sequence[Tensor]:
    query, key, weight, *scales = batched
    return index_select(query, ScaledKeys(key, scales[0]) if scales else key, weight, 256)


def run_index_loss(batched: Sequence[Tensor], shared: Sequence[Tensor]) -> Sequence[Tensor]:
    *inputs, topk_BTK, target_BTK, pulled_BT = batched
    mine = leaves(inputs)
    loss_BT = selected_kl(gathered_scores(mine[0], mine[1], mine[2], topk_BTK), target_BTK, topk_BTK)
    return [loss_BT.detach(), *torch.autograd.grad(loss_BT, mine, pulled_BT)]


def run_attention(batched: Sequence[Tensor], shared: Sequence[Tensor]) -> Sequence[Tensor]:
    query, latent, topk_BTK, gradient = batched
    mine = leaves((query, latent))
    found = sparse_attention(mine[0], mine[1], topk_BTK, rank=gradient.shape[-1], scale=0.08, with_sum=True)
    assert found.sum_BTK is not None
    results = [item.detach() for item in (found.out_BTHR, found.lse_BTH, found.sum_BTK)]
    return [*results, *torch.autograd.grad(found.out_BTHR, mine, gradient)]


def run_dense_loss(batched: Sequence[Tensor], shared: Sequence[Tensor]) -> Sequence[Tensor]:
    query, latent, *inputs, pulled_BT = batched
    mine = leaves(inputs)
    loss_BT = dense_kl(Teacher(query, latent, 0.08), Student(*mine))
    return [loss_BT.detach(), *torch.autograd.grad(loss_BT, mine, pulled_BT)]


def run_experts(batched: Sequence[Tensor], shared: Sequence[Tensor]) -> Sequence[Tensor]:
    x_ND, chosen_NA, gates_NA, gradient_ND = batched
    mine = leaves((x_ND, gates_NA, *shared))
    out_ND = experts(mine[0], chosen_NA, mine[1], *mine[2:])
    return [out_ND.detach(), *torch.autograd.grad(out_ND, mine, gradient_ND)]


def run_log_probs(batched: Sequence[Tensor], shared: Sequence[Tensor]) -> Sequence[Tensor]:
    hidden_ND, targets_N, pulled_N = batched
    mine = leaves((hidden_ND, *shared))
    found_N = linear_log_probs(mine[0], mine[1], targets_N).log_probs_N
    return [found_N.detach(), *torch.autograd.grad(found_N, mine, pulled_N)]


def cases(device: torch.device, length: int) -> list[Case]:
    """Make all cases: two to eight sequences of a length."""
    drawing, half = torch.Generator(device).manual_seed(0), torch.bfloat16

    def normal(*shape: int, kind: torch.dtype = half) -> Tensor:
        return torch.randn(shape, generator=drawing, device=device).to(kind)

    def whole(most: int, *shape: int, kind: torch.dtype = torch.int32) -> Tensor:
        return torch.randint(most, shape, generator=drawing, device=device, dtype=kind)

    single, B, T = torch.float32, 4, length
    index = (normal(B, T, 4, 64), normal(B, T, 64), normal(B, T, 4, kind=single))
    eight = (
        index[0].to(torch.float8_e4m3fn),
        index[1].to(torch.float8_e4m3fn),
        index[2],
        0.5 + normal(B, T).abs().float(),
    )
    topk_BTK, scores_BTK = index_select(*index, 256)
    loss = (*index, topk_BTK, torch.rand(scores_BTK.shape, generator=drawing, device=device), normal(B, T, kind=single))
    rounded = normal(64, 4 * T, kind=single).mul(4).round().div(4)  # many ties
    found = [
        Case("topk", run_topk, (rounded, whole(4 * T, 64) + 1), (), 1),
        Case("index_select", run_selection, index, (), 2),
        Case("index_select, eight bits", run_selection, eight, (), 2),
        Case("gathered_scores and selected_kl", run_index_loss, loss, (), 4),
    ]
    for heads in (8, 16):
        attention = (normal(B, T, heads, 160), normal(B, T, 160), topk_BTK, normal(B, T, heads, 128))
        found.append(Case(f"sparse_attention, {heads} heads", run_attention, attention, (), 5))
    dense = (normal(B, T, 8, 160), normal(B, T, 160), *index, normal(B, T, kind=single))
    found.append(Case("dense_kl", run_dense_loss, dense, (), 4))
    tokens, D, E, F = B * T, 256, 32, 128
    x = (normal(tokens, D), whole(E, tokens, 4), normal(tokens, 4, kind=single).sigmoid(), normal(tokens, D))
    found.append(Case("experts", run_experts, x, (normal(E, F, D), normal(E, F, D), normal(E, D, F)), 3))
    for kind in (half, single):
        rows = (normal(tokens, D), whole(1000, tokens, kind=torch.int64), normal(tokens, kind=single))
        found.append(Case(f"logprobs, head {str(kind)[6:]}", run_log_probs, rows, (normal(1000, D, kind=kind),), 2))
    return found


def bits(items: Sequence[Tensor]) -> list[Tensor]:
    """View numbers as bytes, so that NaN equals itself and -0.0 differs from 0.0."""
    return [item.contiguous().view(torch.uint8) for item in items]


def differing(case: Case) -> dict[str, int]:
    """Count the reruns and permutations that differ in any bit."""
    first = case.run(case.batched, case.shared)
    again = [
        any(
            not torch.equal(one, other)
            for one, other in zip(bits(first), bits(case.run(case.batched, case.shared)), strict=True)
        )
        for _ in range(RERUNS)
    ]
    moved = []
    for seed in range(PERMUTATIONS):
        count = len(case.batched[0])
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).to(case.batched[0].device)
        got = case.run([_taken(item, order) for item in case.batched], case.shared)[: case.per_batch]
        want = [_taken(item, order) for item in first[: case.per_batch]]
        moved.append(any(not torch.equal(one, other) for one, other in zip(bits(got), bits(want), strict=True)))
    return {
        "reruns": RERUNS,
        "differing reruns": sum(again),
        "permutations": PERMUTATIONS,
        "differing permutations": sum(moved),
    }


def _taken(item: Tensor, order: Tensor) -> Tensor:
    """Take the batch in another order; eight bits cannot be indexed everywhere, their bytes can."""
    if item.dtype == torch.float8_e4m3fn:
        return item.view(torch.uint8)[order].view(torch.float8_e4m3fn)
    return item[order]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=4096, help="tokens of a sequence")
    parser.add_argument("--quick", action="store_true", help="the same: it is a check")
    parser.add_argument("--out", type=Path, help="file for the record")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        sys.stderr.write("benchmarks.kernels.repeats needs a GPU\n")
        return 2
    device = torch.device("cuda")
    record = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "length": options.length, "cases": {}}
    for case in cases(device, options.length):
        record["cases"][case.name] = found = differing(case)
        print(f"{case.name}: {found}", flush=True)
    if options.out is not None:
        options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    red = [
        name for name, found in record["cases"].items() if found["differing reruns"] or found["differing permutations"]
    ]
    print(f"RED: {red}" if red else "all bits equal")
    return 1 if red else 0


if __name__ == "__main__":
    raise SystemExit(main())
