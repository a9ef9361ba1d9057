"""Every operator's kernels give what its reference gives: results, gradients, hard cases, and equal bits where promised.

Through Triton's interpreter, in float32 and without a GPU; `--fast` takes one shape of each. On a GPU the scripts under
`benchmarks/kernels/` check bfloat16 and eight bits before they measure anything.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

import acceptance.triton_interpreter  # noqa: F401 - asks for it, before Triton is first loaded
from acceptance.claims import Claims
from envsynth.kernels.dense_kl import Student, Teacher, dense_kl
from envsynth.kernels.dispatch import Backend
from envsynth.kernels.experts import experts
from envsynth.kernels.indexer import gathered_scores, index_select, selected_kl
from envsynth.kernels.logprobs import linear_log_probs, pack_kept
from envsynth.kernels.sparse_attention import sparse_attention, sparse_attention_decode
from envsynth.kernels.topk import topk

RERUNS = 20
TOLERANCE = 1e-5
"""Largest difference as a share of the largest number, in float32."""


class Found(NamedTuple):
    """What an operator gave: results, then gradients."""

    exact: tuple[Tensor, ...]
    """Compared bit by bit."""
    close: tuple[Tensor, ...]
    """Compared by `TOLERANCE`."""


Run = Callable[[Backend], Found]


def _random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _gradients(outputs: Sequence[Tensor], inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Pull random numbers back through outputs."""
    loss = sum((item * _random(*item.shape, seed=90 + at)).sum() for at, item in enumerate(outputs))
    return torch.autograd.grad(loss, list(inputs))


def _causal_keys(batch: int, length: int, k: int, seed: int) -> Tensor:
    """Random sorted causal selections, padded with -1."""
    scores = _random(batch * length, length, seed=seed)
    ends = torch.arange(1, length + 1).repeat(batch)
    return topk(scores, ends, k, backend="reference").view(batch, length, k)


def run_topk(rows: int, size: int, k: int) -> Run:
    """Scores with plateaus, infinities and NaN; visible parts from nothing to everything."""
    scores = (_random(rows, size, seed=1) * 2).round() / 2
    scores[::3] = scores[::3].clamp(min=0)
    scores[1::5, ::7] = float("nan")
    scores[2::5, ::11] = -0.0
    ends = torch.arange(rows) * (size + k) // max(rows - 1, 1)
    starts = torch.arange(rows) % 3
    return lambda backend: Found((topk(scores, ends, k, starts_R=starts, backend=backend),), ())


def run_index(batch: int, length: int, heads: int, k: int) -> Run:
    """Selection and the scores of what was selected, with their gradients."""
    query, key = _random(batch, length, heads, 32, seed=2), _random(batch, length, 32, seed=3)
    weight = _random(batch, length, heads, seed=4)
    starts = (torch.arange(length) // 7 * 7).expand(batch, -1).contiguous()
    selected = index_select(query, key, weight, k, starts_BT=starts, backend="reference")[0]

    def run(backend: Backend) -> Found:
        leaves = [item.clone().requires_grad_() for item in (query, key, weight)]
        live, scores = index_select(query, key, weight, k, starts_BT=starts, backend=backend)
        gathered = gathered_scores(*leaves, selected, backend=backend)
        target = _random(batch, length, k, seed=5).abs()
        divergence = selected_kl(gathered, target, selected)
        close = (scores.masked_fill(live < 0, 0.0), gathered, divergence)
        return Found((live,), (*(item.detach() for item in close), *_gradients((gathered, divergence), leaves)))

    return run


def run_dense_loss(batch: int, length: int, heads: int, index_heads: int) -> Run:
    """The indexer's loss on all visible keys of packed documents, some queries of which see nothing."""
    width = 40
    query, key = _random(batch, length, heads, width, seed=18), _random(batch, length, width, seed=19)
    student = _random(batch, length, index_heads, 32, seed=20), _random(batch, length, 32, seed=21)
    weight = _random(batch, length, index_heads, seed=22)
    starts = (torch.arange(length) // 13 * 13).expand(batch, -1).contiguous()
    starts[:, 3] = length
    teacher = Teacher(query, key, 0.2)

    def run(backend: Backend) -> Found:
        leaves = [item.clone().requires_grad_() for item in (*student, weight)]
        loss = dense_kl(teacher, Student(*leaves), starts_BT=starts, backend=backend)
        return Found((), (loss.detach(), *_gradients((loss,), leaves)))

    return run


def run_attention(batch: int, length: int, heads: int, k: int) -> Run:
    """Attention over selected keys, the sum over heads, and a decode step."""
    rank, width = 32, 48
    query, latent = _random(batch, length, heads, width, seed=6), _random(batch, length, width, seed=7)
    keys = _causal_keys(batch, length, k, seed=8)
    slots = torch.arange(batch)

    def run(backend: Backend) -> Found:
        leaves = [item.clone().requires_grad_() for item in (query, latent)]
        found = sparse_attention(*leaves, keys, rank=rank, scale=0.2, with_sum=True, backend=backend)
        last = sparse_attention_decode(
            query[:, -1].contiguous(), latent, slots, keys[:, -1].contiguous(), rank=rank, scale=0.2, backend=backend
        )
        total = torch.zeros(()) if found.sum_BTK is None else found.sum_BTK
        close = (found.out_BTHR, found.lse_BTH, total, last)
        return Found((), (*(item.detach() for item in close), *_gradients((found.out_BTHR,), leaves)))

    return run


def run_experts(tokens: int, n_experts: int, active: int) -> Run:
    """Experts, one of them without tokens."""
    width, hidden = 32, 48
    x, gates = _random(tokens, width, seed=9), _random(tokens, active, seed=10)
    weights = [_random(n_experts, hidden, width, seed=11), _random(n_experts, hidden, width, seed=12)]
    weights.append(_random(n_experts, width, hidden, seed=13))
    order = _random(tokens, max(n_experts - 1, active), seed=14).argsort(-1)
    chosen = order[:, :active].to(torch.int32)

    def run(backend: Backend) -> Found:
        leaves = [item.clone().requires_grad_() for item in (x, gates, *weights)]
        result = experts(leaves[0], chosen, *leaves[1:], backend=backend)
        return Found((), (result.detach(), *_gradients((result,), leaves)))

    return run


def run_log_probs(rows: int, vocabulary: int) -> Run:
    """Log-probabilities under a mask of kept tokens."""
    hidden, weight = _random(rows, 32, seed=15), _random(vocabulary, 32, seed=16)
    targets = torch.arange(rows) * 7 % vocabulary
    kept = _random(rows, vocabulary, seed=17) > 0.5
    kept[torch.arange(rows), targets] = True
    kept[0] = True
    lengths = torch.where(kept.all(-1), 0, kept.sum(-1))
    offsets = torch.cat((torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)))
    ids = (kept & ~kept.all(-1, keepdim=True)).nonzero()[:, 1].int()
    words = pack_kept(ids, offsets, vocabulary)

    def run(backend: Backend) -> Found:
        leaves = [item.clone().requires_grad_() for item in (hidden, weight)]
        found = linear_log_probs(*leaves, targets, temperature=0.7, keep_words_NW=words, backend=backend)
        return Found((), (found.log_probs_N.detach(), *_gradients((found.log_probs_N,), leaves)))

    return run


def cases(fast: bool) -> dict[str, Run]:
    """Give what is run, by name."""
    found = {
        "topk, 9 rows of 70, k 8": run_topk(9, 70, 8),
        "indexer, 2 x 37 tokens, 3 heads, k 6": run_index(2, 37, 3, 6),
        "dense loss, 2 x 37 tokens, 3 heads of the indexer": run_dense_loss(2, 37, 4, 3),
        "sparse attention, 2 x 21 queries, 4 heads, k 5": run_attention(2, 21, 4, 5),
        "experts, 41 tokens, 3 of 6": run_experts(41, 6, 3),
        "log-probabilities, 19 rows, 77 tokens": run_log_probs(19, 77),
    }
    if not fast:
        found |= {
            "topk, 5 rows of 5,000, k 300": run_topk(5, 5000, 300),
            "topk, k beyond the row": run_topk(4, 9, 40),
            "indexer, 1 x 130 tokens, 8 heads, k 33": run_index(1, 130, 8, 33),
            "dense loss, 1 x 130 tokens, 8 heads of the indexer": run_dense_loss(1, 130, 12, 8),
            "sparse attention, 1 x 50 queries, 16 heads, k 33": run_attention(1, 50, 16, 33),
            "sparse attention, 3 x 9 queries, 1 head, k 1": run_attention(3, 9, 1, 1),
            "experts, 1 token, 1 of 1": run_experts(1, 1, 1),
            "experts, 300 tokens, 2 of 4": run_experts(300, 4, 2),
            "log-probabilities, 1 row, 588 tokens": run_log_probs(1, 588),
            "log-probabilities, 130 rows, 1 token": run_log_probs(130, 1),
        }
    return found


def difference(mine: Tensor, wanted: Tensor) -> float:
    """Give the largest difference as a share of the largest number; infinite where one is not finite and the other is."""
    same = mine == wanted
    if same.all():
        return 0.0
    if not (mine.isfinite() | same).all():
        return float("inf")
    scale = wanted[wanted.isfinite()].abs().max().clamp(min=1.0)
    return float((mine - wanted).masked_fill(same, 0.0).abs().max() / scale)


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fast", action="store_true", help="one shape of each operator, three reruns")
    options = parser.parse_args()
    claims = Claims()
    reruns = 3 if options.fast else RERUNS
    for name, run in cases(options.fast).items():
        wanted, found = run("reference"), run("triton")
        unequal = sum(not torch.equal(*pair) for pair in zip(found.exact, wanted.exact, strict=True))
        if wanted.exact:
            claims.line(f"{name}: selections that differ from the reference's", unequal, "0", unequal == 0)
        if wanted.close:
            worst = max(difference(*pair) for pair in zip(found.close, wanted.close, strict=True))
            line = f"{name}: worst difference of results and gradients"
            claims.line(line, f"{worst:.1e}", f"<= {TOLERANCE:g}", worst <= TOLERANCE)
        again = 0
        for _ in range(reruns - 1):
            other = run("triton")
            again += any(
                not torch.equal(*pair)
                for pair in zip((*found.exact, *found.close), (*other.exact, *other.close), strict=True)
            )
        claims.line(f"{name}: of {reruns} runs, those with other bits", again, "0", again == 0)
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
