"""The cases that sparse attention gets wrong: ties, plateaus, edges of k, packed and invalid rows, order and repetition."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from acceptance.claims import Claims
from acceptance.policy_models import TINY, random_policy, random_tokens
from envsynth.policy.engine import Engine
from envsynth.policy.indexer import index_scores, indexer_kl
from envsynth.policy.model import Policy
from envsynth.policy.packing import pack
from envsynth.policy.selection import exact_topk

MODES = ("mha", "fused", "mqa", "kernels")


def by_sorting(scores: Tensor, visible: int, k: int) -> list[int]:
    """The definition: best first, the lower index at equal scores (-0.0 equals 0.0, NaN is minus infinity)."""
    values = [-math.inf if math.isnan(item) else item for item in scores[:visible].tolist()]
    return sorted(sorted(range(visible), key=lambda index: (-values[index], index))[:k])


def wrong_rows(scores_TS: Tensor, k: int, first: int = 0) -> int:
    """Count rows of causal top-k that differ from the definition; row t sees `first` + t + 1 keys."""
    length = len(scores_TS)
    visible = torch.arange(scores_TS.shape[1]) <= torch.arange(length)[:, None] + first
    found, wrong = exact_topk(scores_TS, visible, k).tolist(), 0
    for t in range(length):
        want = by_sorting(scores_TS[t], min(first + t + 1, scores_TS.shape[1]), k)
        wrong += found[t] != want + [-1] * (k - len(want))
    return wrong


def plateau(rows: int) -> tuple[int, int]:
    """Case 1: keys without a positive head score exactly zero, others may score below it.

    Returns:
        Rows wrong, and rows in which the k-th key is decided inside of the plateau.
    """
    generator, k, wrong, inside = torch.Generator().manual_seed(1), 8, 0, 0
    for _ in range(rows // 64):
        query = torch.randn(1, 64, 3, 4, generator=generator)
        key = torch.randn(1, 64, 4, generator=generator)
        weight = torch.randn(1, 64, 3, generator=generator) - 0.5
        scores = index_scores(query, key, weight)[0]
        scores[:, ::7] = torch.where(scores[:, ::7] == 0, -0.0, scores[:, ::7])
        wrong += wrong_rows(scores, k)
        for t in range(k, 64):
            better = int((scores[t, : t + 1] > 0).sum())
            inside += better < k < better + int((scores[t, : t + 1] == 0).sum())
    return wrong, inside


def equal_rows() -> int:
    """Case 2: 131,072 equal scores; the first k are kept."""
    k, size = 2048, 131_072
    wrong = 0
    for value in (0.0, -0.0, 1.5, -math.inf, math.nan):
        found = exact_topk(torch.full((2, size), value), torch.ones(size, dtype=torch.bool), k)
        wrong += int((found != torch.arange(k)).any(-1).sum())
    return wrong


def extreme_rows() -> int:
    """Case 3: beyond half precision's range, denormal, and neighbours in the last bit."""
    generator = torch.Generator().manual_seed(3)
    large = 65_504 * (1 + torch.rand(40, 64, generator=generator))
    tiny = 1e-42 * torch.randn(40, 64, generator=generator)
    close = torch.ones(40, 64) + torch.randint(0, 3, (40, 64), generator=generator) * torch.finfo(torch.float32).eps
    mixed = torch.where(torch.rand(40, 64, generator=generator) < 0.3, tiny, large * 1e30)
    return sum(wrong_rows(item, 8, first=20) for item in (large, tiny, close, mixed, -large, -mixed))


def edges(mode: str) -> tuple[int, float]:
    """Case 4: lengths 1, k - 1, k, k + 1.

    Returns:
        Wrong selections, and the largest difference of a logit from dense attention where nothing can be left out.
    """
    policy, k = random_policy(TINY), TINY.indexer.index_topk
    policy.attention_mode = mode
    wrong, worst = 0, 0.0
    with torch.no_grad():
        for length in (1, k - 1, k, k + 1):
            tokens = random_tokens(2, length)
            sparse, dense = policy(tokens), policy(tokens, dense=True)
            counts = (sparse.indexer_topk >= 0).sum(-1)
            wrong += int((counts != torch.arange(1, length + 1).clamp(max=k)[:, None]).sum())
            worst = max(worst, float((sparse.logits_BTV - dense.logits_BTV)[:, :k].abs().max()))
    return wrong, worst


def packed(mode: str) -> float:
    """Case 5: documents of 0, 1, k and more tokens in one row; largest difference of a logit in float64."""
    policy, k = random_policy(TINY).double(), TINY.indexer.index_topk
    policy.attention_mode = mode
    documents = [random_tokens(1, max(n, 1), seed=n)[0, :n] for n in (0, 1, k, k + 1, 20, 1, 0)]
    rows, worst = pack(documents, 40), 0.0
    with torch.no_grad():
        output = policy(rows.tokens_BT, mask_BT=rows.mask_BT, starts_BT=rows.starts_BT)
        for document, logits, topk in zip(
            documents, rows.unpack(output.logits_BTV), rows.unpack(output.indexer_topk), strict=True
        ):
            if len(document):
                alone = policy(document[None])
                if not torch.equal(alone.indexer_topk[0], topk):
                    return math.inf
                worst = max(worst, float((alone.logits_BTV[0] - logits).abs().max()))
    return worst


def refused() -> tuple[int, int]:
    """Case 6: records that no top-k gives; how many were refused, of how many."""
    policy, tokens, last = random_policy(TINY), random_tokens(1, 10), 9
    with torch.no_grad():
        own = policy(tokens)
    bad: list[Callable[[Tensor, Tensor], object]] = [
        lambda keys, _: keys[0, last, 0].__setitem__(slice(0, 2), torch.tensor([3, 3])),
        lambda keys, _: keys[0, last, 0].__setitem__(slice(0, 2), torch.tensor([4, 3])),
        lambda keys, _: keys[0, last, 0].__setitem__(5, 10),
        lambda keys, _: keys[0, 2, 0].__setitem__(2, 3),
        lambda keys, _: keys[0, last, 0].__setitem__(0, -2),
        lambda keys, _: keys[0, last, 0].__setitem__(0, -2_147_483_648),
        lambda keys, _: keys[0, last, 0].__setitem__(5, 2_147_483_647),
        lambda keys, _: keys[0, last, 0].__setitem__(2, -1),
        lambda _, experts: experts[0, last, 0].__setitem__(0, 8),
        lambda _, experts: experts[0, last, 0].__setitem__(slice(0, 2), torch.tensor([2, 2])),
        lambda _, experts: experts[0, last, 0].__setitem__(0, -1),
    ]
    count = 0
    for spoil in bad:
        keys, experts = own.indexer_topk.clone(), own.routed_experts.clone()
        spoil(keys, experts)
        try:
            policy(tokens, indexer_topk_BTLK=keys, routed_experts_BTMA=experts)
        except ValueError:
            count += 1
    return count, len(bad)


def same_keys(policy: Policy, length: int, sequences: int) -> tuple[int, int]:
    """Case 8: keys selected by training (a batch), prefill (a sequence, cut anywhere) and decoding (token by token).

    Returns:
        Rows compared, and rows that differ.
    """
    tokens = random_tokens(sequences, length, seed=8)
    rows = wrong = 0
    with torch.no_grad():
        trained = policy(tokens).indexer_topk
        engine = Engine(policy, n_slots=sequences, max_len=length)
        for index in range(sequences):
            for cut in (length // 3, length // 2 + 1, length):
                prefilled = policy.prefill(tokens[index, :cut])[0].indexer_topk[0]
                wrong += int((prefilled != trained[index, :cut]).any(-1).sum())
                rows += prefilled[..., 0].numel()
            engine.start([index], tokens[index, :1].tolist(), [str(index)])
            engine.append(index, tokens[index, 1:-1].tolist())
        engine.generate_turn(range(sequences), stop_ids=(), max_tokens=1)
        for index in range(sequences):
            decoded = engine.record(index).indexer_topk[: length - 1]
            wrong += int((decoded != trained[index, : length - 1]).any(-1).sum())
            rows += decoded[..., 0].numel()
    return rows, wrong


def repeated(mode: str, runs: int) -> tuple[int, int]:
    """Case 9: the same batch again and again, and in other orders; runs, and runs whose bits differ."""
    policy, tokens = random_policy(TINY), random_tokens(6, 48, seed=9)
    policy.attention_mode = mode
    different, first = 0, None
    generator = torch.Generator().manual_seed(9)
    for run in range(runs):
        order = torch.randperm(6, generator=generator) if run % 2 else torch.arange(6)
        with torch.no_grad():
            output = policy(tokens[order], with_indexer_kl=True)
        back = order.argsort()
        found = (
            output.logits_BTV[back],
            output.indexer_topk[back],
            output.routed_experts[back],
            output.indexer_kl[back],
        )
        first = first or found
        different += not all(torch.equal(one, other) for one, other in zip(found, first, strict=True))
    return runs, different


def zero_entries() -> float:
    """Case 12: gradient of the KL in float32 where the teacher is exactly zero; largest error against softmax - p."""
    generator, worst = torch.Generator().manual_seed(12), 0.0
    for _ in range(50):
        scores = (4 * torch.randn(1, 6, 32, generator=generator)).requires_grad_()
        attention = torch.rand(1, 6, 32, generator=generator).relu() ** 8
        attention = torch.where(torch.rand(attention.shape, generator=generator) < 0.7, 0.0, attention)
        attention[..., 0] += 1e-30
        kept = torch.ones(1, 6, 32, dtype=torch.bool)
        (found,) = torch.autograd.grad(indexer_kl(scores, attention, kept).sum(), scores)
        p = attention.double() / attention.double().sum(-1, keepdim=True)
        worst = max(worst, float((found - (scores.detach().double().softmax(-1) - p)).abs().max()))
    return worst


def lines_about_selection(claims: Claims, fast: bool) -> None:
    """Print cases 1 to 3 and 6."""
    wrong, inside = plateau(640 if fast else 12_800)
    claims.line("case 1, plateau of zeros with scores below it: rows that differ from sorting", wrong, "0", wrong == 0)
    claims.line("case 1: rows in which the k-th key is one of the tied", inside, ">= 50", inside >= 50)
    claims.line("case 2, 131,072 equal scores, five values: rows wrong", found := equal_rows(), "0", found == 0)
    claims.line("case 3, above 65,504, denormal, one bit apart: rows wrong", found := extreme_rows(), "0", found == 0)
    count, of = refused()
    claims.line("case 6, repeated and impossible recorded keys and experts: refused", count, f"{of}", count == of)


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fast", action="store_true", help="fewer rows and runs")
    fast = parser.parse_args().fast
    claims = Claims()
    lines_about_selection(claims, fast)
    for mode in MODES:
        wrong, worst = edges(mode)
        claims.line(f"case 4, lengths 1, k-1, k, k+1 ({mode}): rows of a wrong size", wrong, "0", wrong == 0)
        target = 0.0 if mode == "mha" else 1e-5
        claims.line(
            f"case 4 ({mode}): logit, sparse against dense up to k", f"{worst:.1e}", f"<= {target:.0e}", worst <= target
        )
        worst = packed(mode)
        claims.line(
            f"case 5, packed documents of 0, 1, k, k+1 ({mode}): logit", f"{worst:.1e}", "<= 1e-12", worst <= 1e-12
        )
        runs, different = repeated(mode, 6 if fast else 40)
        claims.line(
            f"case 9, runs again and in other orders ({mode}, {runs} runs): other bits", different, "0", different == 0
        )
    for precision in ("exact", "fp8"):
        policy = random_policy(replace(TINY, indexer=replace(TINY.indexer, index_precision=precision)))
        rows, wrong = same_keys(policy, 100 if fast else 250, 4 if fast else 16)
        claims.line(
            f"case 8, training, prefill and decoding ({precision}, {rows} rows): other keys", wrong, "0", wrong == 0
        )
    worst = zero_entries()
    claims.line("case 12, KL gradient in float32 with entries of zero: error", f"{worst:.1e}", "<= 1e-6", worst <= 1e-6)
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
