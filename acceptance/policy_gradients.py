"""Gradients of the policy: against finite differences in float64, who they reach, and what must not change them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from acceptance.claims import Claims
from acceptance.policy_models import TINY, random_policy, random_tokens
from envsynth.policy.attention import LatentAttention, Wants
from envsynth.policy.experts import Router
from envsynth.policy.indexer import index_scores, indexer_kl
from envsynth.policy.model import Policy
from envsynth.policy.packing import Layout, pack, visible_keys
from envsynth.policy.rope import rope_angles
from envsynth.policy.selection import exact_topk, kept_mask

ROUNDING = 1e-10
"""Largest relative difference of two gradients in float64 that are equal in exact arithmetic."""


def finite(check: Callable[[], bool]) -> bool:
    """Whether a gradcheck holds; it raises with the first wrong entry otherwise."""
    try:
        return check()
    except RuntimeError as error:
        print(error)
        return False


def gradcheck_kl() -> int:
    """Check the indexer's loss through scores, queries, keys and head weights; number of entries that agree."""
    generator, entries = torch.Generator().manual_seed(0), 0
    for case in range(6):
        shapes = ((1, 5, 3, 4), (1, 5, 4), (1, 5, 3))
        parts = [torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_() for shape in shapes]
        visible = torch.ones(5, 5, dtype=torch.bool).tril()
        logits = 6 * torch.randn(1, 2, 5, 5, generator=generator, dtype=torch.float64)
        attention = logits.masked_fill(~visible, float("-inf")).softmax(-1).sum(1)
        if case % 2:  # entries of exactly zero: hard attention
            attention = torch.nn.functional.one_hot(attention.argmax(-1), 5).double()
        kept = visible[None]
        if case >= 2:  # the sparse stage: three keys of each query
            kept = kept_mask(exact_topk(index_scores(*parts).detach(), visible, 3), 5)

        def loss(*items: Tensor, attention: Tensor = attention, kept: Tensor = kept) -> Tensor:
            return indexer_kl(index_scores(*items), attention, kept)

        if not finite(lambda loss=loss, parts=parts: torch.autograd.gradcheck(loss, parts)):
            return -1
        entries += sum(item.numel() for item in parts)
    return entries


def gradcheck_router() -> int:
    """Check gates through tokens and the router's matrix, with groups and a bias; number of entries that agree."""
    entries = 0
    for normalised in (True, False):
        config = replace(TINY, experts=replace(TINY.experts, norm_topk_prob=normalised))
        router = Router(config).double()
        with torch.no_grad():
            router.weight.normal_(generator=torch.Generator().manual_seed(1))
            router.e_score_correction_bias.normal_(generator=torch.Generator().manual_seed(2))
        x = torch.randn(4, config.hidden_size, dtype=torch.float64, generator=torch.Generator().manual_seed(3))

        def gates(x: Tensor, weight: Tensor, router: Router = router) -> Tensor:
            return torch.func.functional_call(router, {"weight": weight}, (x,))[1]

        arguments = (x.requires_grad_(), router.weight.detach().clone().requires_grad_())
        if not finite(lambda gates=gates, arguments=arguments: torch.autograd.gradcheck(gates, arguments)):
            return -1
        entries += sum(item.numel() for item in arguments)
    return entries


def gradcheck_attention() -> int:
    """Check sparse attention through its input and all matrices in every mode; number of entries that agree."""
    attention, entries, length = LatentAttention(TINY).double(), 0, 9
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for item in attention.parameters():
            item.normal_(std=0.3, generator=generator)
    x = torch.randn(1, length, TINY.hidden_size, dtype=torch.float64, generator=generator)
    positions = torch.arange(length)
    angles = rope_angles(positions, torch.rand(TINY.attention.qk_rope_head_dim // 2, dtype=torch.float64))
    layout = Layout(*angles, positions, None, visible_keys(length, None, x.device), length)
    topk = attention(x, layout, Wants()).topk_BTK
    names = [name for name, _ in attention.named_parameters() if "indexer" not in name]
    for mode in ("mha", "fused", "mqa", "kernels"):

        def run(x: Tensor, *weights: Tensor, mode: str = mode) -> Tensor:
            # Selected keys are replayed: the choice itself has no gradient, and a tie would be a step.
            replaced = dict(zip(names, weights, strict=True))
            return torch.func.functional_call(attention, replaced, (x, layout, Wants(), mode, topk)).out_BTD

        weights = [
            item.detach().clone().requires_grad_() for name, item in attention.named_parameters() if name in names
        ]
        arguments = (x.clone().requires_grad_(), *weights)
        if not finite(lambda run=run, arguments=arguments: torch.autograd.gradcheck(run, arguments, fast_mode=True)):
            return -1
        entries += sum(item.numel() for item in arguments)
    return entries


def leaks(policy: Policy, mode: str, dense: bool) -> tuple[int, int, int]:
    """Count indexer weights that the language-model loss moves, trunk weights that the KL moves, and those it should."""
    policy.attention_mode = mode
    output = policy(random_tokens(2, 30), dense=dense, with_indexer_kl=True)
    named = dict(policy.named_parameters())
    reached: list[set[str]] = []
    for loss in (output.logits_BTV.square().mean(), output.indexer_kl.sum()):
        found = torch.autograd.grad(loss, list(named.values()), retain_graph=True, allow_unused=True)
        reached.append(
            {name for name, grad in zip(named, found, strict=True) if grad is not None and bool((grad != 0).any())}
        )
    indexer = {name for name in named if ".indexer." in name}
    return len(reached[0] & indexer), len(reached[1] - indexer), len(reached[1] & indexer)


def gradients(policy: Policy, losses: list[Tensor]) -> dict[str, Tensor]:
    """Differentiate a sum of losses."""
    policy.zero_grad()
    torch.stack(losses).sum().backward()
    return {name: item.grad.clone() for name, item in policy.named_parameters() if item.grad is not None}


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest difference of two gradients, relative to the largest entry of the weight's gradient."""
    if one.keys() != other.keys():
        return float("inf")
    return max(float((one[name] - other[name]).abs().max() / one[name].abs().max().clamp(min=1e-30)) for name in one)


def loss_of(policy: Policy, tokens: Tensor, **options: Tensor) -> Tensor:
    """Give a loss that reaches every weight."""
    output = policy(tokens, with_indexer_kl=True, **options)
    return output.logits_BTV.square().sum() + output.indexer_kl.sum()


def packing(mode: str) -> float:
    """Compare gradients of packed rows with those of single documents."""
    policy = random_policy(TINY).double()
    policy.attention_mode = mode
    documents = [random_tokens(1, n, seed=n)[0] for n in (1, 5, 6, 7, 20, 13)]
    rows = pack([documents[0][:0], *documents], 30)
    output = policy(rows.tokens_BT, mask_BT=rows.mask_BT, starts_BT=rows.starts_BT, with_indexer_kl=True)
    parts = zip(rows.unpack(output.logits_BTV), rows.unpack(output.indexer_kl), strict=True)
    packed = gradients(policy, [logits.square().sum() + loss.sum() for logits, loss in parts])
    return difference(packed, gradients(policy, [loss_of(policy, item[None]) for item in documents]))


def checkpointing(mode: str) -> float:
    """Compare gradients with and without recomputing layers, with replayed keys and experts."""
    tokens, found = random_tokens(2, 30), []
    for recompute in (False, True):
        policy = random_policy(TINY, checkpoint_layers=recompute).double()
        policy.attention_mode = mode
        record = policy(tokens)
        replay = {"routed_experts_BTMA": record.routed_experts, "indexer_topk_BTLK": record.indexer_topk}
        found.append(gradients(policy, [loss_of(policy, tokens), loss_of(policy, tokens, **replay)]))
    return difference(*found)


def replays() -> tuple[bool, float, float]:
    """Replay a policy's own choices, other experts and other keys: is the first the same bits, and what change others."""
    policy, tokens = random_policy(TINY), random_tokens(2, 30)
    with torch.no_grad():
        own = policy(tokens)
        again = policy(tokens, routed_experts_BTMA=own.routed_experts, indexer_topk_BTLK=own.indexer_topk)
        other = (own.routed_experts + 1) % TINY.experts.n_routed_experts
        keys = own.indexer_topk.clone()
        late = torch.arange(30) >= TINY.indexer.index_topk
        keys[:, late] = torch.arange(TINY.indexer.index_topk, dtype=torch.int32)  # the first keys, whatever was best
        by_experts = policy(tokens, routed_experts_BTMA=other).logits_BTV
        by_keys = policy(tokens, indexer_topk_BTLK=keys).logits_BTV
    same = torch.equal(own.logits_BTV, again.logits_BTV)
    changes = [float((item - own.logits_BTV).abs().max()) for item in (by_experts, by_keys)]
    return same, changes[0], changes[1]


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fast", action="store_true", help="the same: it takes seconds")
    parser.parse_args()
    claims = Claims()
    for name, check in (
        ("indexer KL, dense and selected, attention of exactly zero", gradcheck_kl),
        ("router with groups and bias", gradcheck_router),
        ("sparse attention in three modes", gradcheck_attention),
    ):
        entries = check()
        claims.line(f"gradcheck in float64, {name}: entries that agree", entries, "all (> 0)", entries > 0)
    for mode in ("mha", "fused", "mqa", "kernels"):
        for dense in (False, True):
            into_indexer, into_trunk, own = leaks(random_policy(TINY).double(), mode, dense)
            how = f"{mode}, {'dense' if dense else 'sparse'}"
            claims.line(
                f"weights of the indexer that the language-model loss moves ({how})",
                into_indexer,
                "0",
                into_indexer == 0,
            )
            claims.line(f"weights of the trunk that the indexer's KL moves ({how})", into_trunk, "0", into_trunk == 0)
            claims.line(f"weights of the indexer that its KL moves ({how})", own, "15", own == 15)
        packed = packing(mode)
        claims.line(
            f"gradient, packed against unpacked ({mode})", f"{packed:.1e}", f"<= {ROUNDING:.0e}", packed <= ROUNDING
        )
        recomputed = checkpointing(mode)
        claims.line(f"gradient, layers recomputed or kept ({mode})", f"{recomputed:.1e}", "0", recomputed == 0)
    same, by_experts, by_keys = replays()
    claims.line("replay of a policy's own experts and keys gives the same bits", same, "True", same)
    claims.line("replay of other experts changes a logit by", f"{by_experts:.2f}", ">= 0.01", by_experts >= 0.01)
    claims.line("replay of other keys changes a logit by", f"{by_keys:.2f}", ">= 0.01", by_keys >= 0.01)
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
