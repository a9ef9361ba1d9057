"""Random policies and the peer that judges them: transformers' deepseek_v32 with the same weights.

Where scores tie, the peer keeps any of the tied keys and we keep the first ones, so sets may differ without a fault. Then
the peer's sets are replayed in ours, and the sets are compared by what they are worth: our own scores at the peer's keys
and at ours, as multisets.
"""

from __future__ import annotations

import random
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from envsynth.policy.config import AttentionConfig, ExpertsConfig, IndexerConfig, PolicyConfig, YarnConfig
from envsynth.policy.experts import Router
from envsynth.policy.huggingface import huggingface_config, huggingface_state_dict
from envsynth.policy.indexer import LightningIndexer, index_scores
from envsynth.policy.model import Policy

LIMIT = 1e-5
"""Largest difference of a float32 logit; logits have a spread of about one."""
WORTH = 1e-6
"""Largest difference between the sorted scores of two sets that are worth the same."""
VOCABULARY, LONGEST = 101, 128


@dataclass(frozen=True, kw_only=True)
class Case:
    """A policy and what it reads."""

    number: int
    """Seed of weights and tokens."""
    config: PolicyConfig
    """What it is made of."""
    length: int
    """Tokens of each of two sequences, odd."""
    pairs: bool
    """Whether indexer heads come in pairs with opposite queries, so that no key scores exactly zero."""
    bias: float
    """Mean of the routers' correction biases; far below zero, scores of experts are negative."""


@dataclass(frozen=True, kw_only=True)
class Peer:
    """What the peer computed."""

    logits: Tensor
    """Logits, [B, T, V]."""
    keys: Tensor
    """Selected keys in our form, int [B, T, L, K]."""
    experts: Tensor
    """Experts, ascending, int [B, T, M, A]."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """How far ours is from the peer."""

    worst: float
    """Largest difference of a logit."""
    spread: float
    """Standard deviation of the peer's logits."""
    rows: int
    """Pairs of token and layer whose keys had to be chosen."""
    wrong: int
    """Of these, how many sets are not worth the same; and the same for experts."""
    tied: int
    """Of these, how many sets differ by exactly equal scores."""
    near: int
    """Of these, how many sets differ by scores that are equal up to rounding."""
    experts: int
    """Tokens whose experts differ, by affinities that are equal up to rounding."""

    @property
    def replayed(self) -> bool:
        """Whether the peer's sets had to be replayed."""
        return bool(self.tied or self.near or self.experts or self.wrong)

    @property
    def holds(self) -> bool:
        """Whether the two agree."""
        return self.wrong == 0 and self.worst <= LIMIT


def draw_case(number: int, **wanted: Any) -> Case:
    """Draw a policy.

    Args:
        number: Which one; equal numbers give equal policies.
        **wanted: Values to take instead of drawn ones: `yarn`, `sparse`, `rope`, `groups`, `normed`, `bias`, `scaling`.
    """
    rng = random.Random(f"policy_transformers/{number}")
    length = rng.randrange(9, 64, 2)
    sparse = wanted.get("sparse", rng.random() < 0.6)
    k = rng.randint(2, length - 1) if sparse else length + rng.choice((0, 0, 1, 7))
    rope = wanted.get("rope", rng.choice((2, 4, 8, 16)))
    yarn = wanted.get("yarn", number // 8 % 2 == 1)  # with every number of heads
    config = PolicyConfig(
        vocab_size=VOCABULARY,
        hidden_size=rng.choice((24, 32, 48, 64)),
        intermediate_size=rng.choice((20, 48, 64)),
        max_position_embeddings=LONGEST,
        rms_norm_eps=rng.choice((1e-6, 1e-5, 1e-3)),
        **_layers(rng),
        attention=AttentionConfig(
            num_attention_heads=number % 8 + 1,
            q_lora_rank=rng.randint(8, 48),
            kv_lora_rank=rng.randint(6, 40),
            qk_nope_head_dim=rng.randint(3, 24),
            qk_rope_head_dim=rope,
            v_head_dim=rng.randint(3, 24),
            rope_theta=rng.choice((100.0, 1000.0, 10000.0)),
            yarn=_yarn(rng, length) if yarn else None,
        ),
        indexer=IndexerConfig(
            index_n_heads=rng.randint(1, 8), index_head_dim=rope + rng.choice((0, 3, 8, 16)), index_topk=k
        ),
        experts=_experts(rng, wanted),
    )
    bias = wanted.get("bias", rng.choice((0.0, 0.0, -1.5)))
    return Case(number=number, config=config, length=length, pairs=rng.random() < 0.5, bias=bias)


def _layers(rng: random.Random) -> dict[str, int]:
    dense = rng.randint(0, 2)
    return {"first_k_dense_replace": dense, "num_hidden_layers": dense + rng.randint(1, 2)}


def _yarn(rng: random.Random, length: int) -> YarnConfig:
    return YarnConfig(
        factor=rng.choice((2.0, 4.0, 10.0, 40.0)),
        original_max_position_embeddings=rng.choice((7, length // 2 + 4, length + 1, 4096)),
        beta_fast=rng.choice((32.0, 8.0)),
        beta_slow=rng.choice((1.0, 0.5)),
        mscale=rng.choice((1.0, 0.707)),
        mscale_all_dim=rng.choice((1.0, 0.707)),
    )


def _experts(rng: random.Random, wanted: dict[str, Any]) -> ExpertsConfig:
    groups = wanted.get("groups", rng.choice((1, 2, 4)))
    size = rng.randint(max(2, 4 // groups), 16 // groups)
    best = rng.randint(1, groups - 1 if "groups" in wanted else groups)
    return ExpertsConfig(
        n_routed_experts=groups * size,
        num_experts_per_tok=rng.randint(2 if "normed" in wanted else 1, min(4, best * size)),
        n_shared_experts=rng.randint(1, 2),
        moe_intermediate_size=rng.choice((8, 17, 24)),
        n_group=groups,
        topk_group=best,
        norm_topk_prob=wanted.get("normed", rng.random() < 0.5),
        routed_scaling_factor=wanted.get("scaling", rng.choice((1.0, 1.5, 2.5))),
    )


def lively(case: Case, config: PolicyConfig | None = None) -> Policy:
    """Make the policy with random weights, gains and biases everywhere; a fresh one has zeros where branches end.

    Args:
        case: What to make.
        config: Another configuration of the same shapes.
    """
    generator = torch.Generator().manual_seed(case.number)
    policy = Policy(config or case.config).eval()
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if parameter.ndim >= 2:
                # The head's deviation gives logits of spread one: rounding grows with the logits, and the limit does not.
                scale = 1.0 if name.startswith("embed") else parameter.shape[-1] ** -0.5
                parameter.normal_(std=scale, generator=generator)
            else:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
        for module in policy.modules():
            if isinstance(module, Router):
                module.e_score_correction_bias.normal_(case.bias, 0.1, generator=generator)
            if isinstance(module, LightningIndexer) and case.pairs:
                queries = module.wq_b.weight.unflatten(0, (module.heads, -1))
                queries[1::2] = -queries[: module.heads - module.heads % 2 : 2]
    return policy


def draw_tokens(case: Case, sequences: int = 2) -> Tensor:
    """Draw token ids, [sequences, T]."""
    generator = torch.Generator().manual_seed(1000 + case.number)
    return torch.randint(VOCABULARY, (sequences, case.length), generator=generator)


@torch.no_grad()
def run_peer(policy: Policy, tokens: Tensor) -> Peer:
    """Run the peer with the policy's weights.

    Args:
        policy: The policy.
        tokens: Token ids, [B, T].
    """
    keys: list[Tensor] = []
    experts: list[Tensor] = []
    config, length = policy.config, tokens.shape[1]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers.models.deepseek_v32 import DeepseekV32Config, DeepseekV32ForCausalLM  # noqa: PLC0415
        from transformers.utils import logging  # noqa: PLC0415

        logging.set_verbosity_error()  # it remarks on lengths that are not the product of YaRN's factor
        theirs = DeepseekV32Config(
            **huggingface_config(config), attn_implementation="eager", experts_implementation="eager"
        )
        peer = DeepseekV32ForCausalLM(theirs).eval()
        peer.load_state_dict(huggingface_state_dict(policy), strict=True)
        for index, layer in enumerate(peer.model.layers):
            layer.self_attn.indexer.register_forward_hook(lambda _module, _inputs, output: keys.append(output))
            if index >= config.first_k_dense_replace:
                layer.mlp.gate.register_forward_hook(lambda _module, _inputs, output: experts.append(output[2]))
        logits = peer(tokens, use_cache=False).logits
    selected = torch.stack(keys, dim=2)
    selected = selected.masked_fill(selected > torch.arange(length)[:, None, None], length).sort(dim=-1).values
    selected = torch.nn.functional.pad(selected, (0, config.indexer.index_topk - selected.shape[-1]), value=length)
    routed = torch.stack([each.view(*tokens.shape, -1) for each in experts], dim=2).sort(dim=-1).values
    return Peer(logits=logits, keys=selected.masked_fill(selected == length, -1), experts=routed.to(torch.int32))


@torch.no_grad()
def compare(policy: Policy, tokens: Tensor, peer: Peer) -> Compared:
    """Compare ours with what the peer computed.

    Args:
        policy: Ours.
        tokens: Token ids, [B, T].
        peer: The peer's results for them.
    """
    live = policy(tokens)
    spread = float(peer.logits.std())
    rows = (
        max(tokens.shape[1] - policy.config.indexer.index_topk, 0) * tokens.shape[0] * policy.config.num_hidden_layers
    )
    if torch.equal(live.indexer_topk, peer.keys) and torch.equal(live.routed_experts.sort(-1).values, peer.experts):
        worst = float((live.logits_BTV - peer.logits).abs().max())
        return Compared(worst=worst, spread=spread, rows=rows, wrong=0, tied=0, near=0, experts=0)
    differ, other = _chosen_worth(policy, tokens, peer)
    replayed = policy(tokens, indexer_topk_BTLK=peer.keys, routed_experts_BTMA=peer.experts).logits_BTV
    return Compared(
        worst=float((replayed - peer.logits).abs().max()),
        spread=spread,
        rows=rows,
        # Sets that differ cost at least 0; -1 stands for equal sets. Written so that NaN counts as wrong.
        wrong=int((~(differ <= WORTH)).sum() + (~(other <= WORTH)).sum()),
        tied=int((differ == 0).sum()),
        near=int(((differ > 0) & (differ <= WORTH)).sum()),
        experts=int(((other >= 0) & (other <= WORTH)).sum()),
    )


def _chosen_worth(policy: Policy, tokens: Tensor, peer: Peer) -> tuple[Tensor, Tensor]:
    """Give for each choice of keys and of experts how much ours and the peer's differ in worth, -1 for equal sets.

    Each layer chooses live, on what the peer's choices in all layers below give, so that its choice alone is compared.
    """
    indexed: list[Any] = []
    routed: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output: indexed.append(output))
        for module in policy.modules()
        if isinstance(module, LightningIndexer)
    ]
    routers = [module for module in policy.modules() if isinstance(module, Router)]
    hooks += [
        module.register_forward_hook(lambda _module, inputs, _output: routed.append(inputs[0])) for module in routers
    ]
    keys, experts = torch.full_like(peer.keys, -1), torch.full_like(peer.experts, -1)
    key_worth, expert_worth = [], []
    for layer in range(policy.config.num_hidden_layers):
        indexed.clear()
        live = policy(tokens, indexer_topk_BTLK=keys, routed_experts_BTMA=experts)
        key_worth.append(_key_worth(indexed[layer], live.indexer_topk[:, :, layer], peer.keys[:, :, layer]))
        keys[:, :, layer] = peer.keys[:, :, layer]
        moe = layer - policy.config.first_k_dense_replace
        if moe >= 0:
            routed.clear()
            live = policy(tokens, indexer_topk_BTLK=keys, routed_experts_BTMA=experts)
            parts = routers[moe], routed[moe], live.routed_experts[:, :, moe], peer.experts[:, :, moe]
            expert_worth.append(_expert_worth(*parts))
            experts[:, :, moe] = peer.experts[:, :, moe]
    for hook in hooks:
        hook.remove()
    return torch.cat(key_worth), torch.cat(expert_worth)


def _key_worth(parts: Any, ours: Tensor, theirs: Tensor) -> Tensor:
    scores = index_scores(parts.query, parts.key, parts.weight)
    k = ours.shape[-1]
    # Of up to k keys all are selected, and none has to be scored.
    return _worth(scores[:, k:], ours[:, k:], theirs[:, k:])


def _expert_worth(router: Router, x: Tensor, ours: Tensor, theirs: Tensor) -> Tensor:
    scores = torch.nn.functional.linear(x, router.weight).sigmoid() + router.e_score_correction_bias
    return _worth(scores, ours.flatten(0, 1), theirs.flatten(0, 1))


def _worth(scores: Tensor, ours: Tensor, theirs: Tensor) -> Tensor:
    values = [scores.gather(-1, rows.clamp(min=0).long()).sort(-1).values for rows in (ours, theirs)]
    apart = (values[0] - values[1]).abs().amax(-1)
    same = (ours.sort(-1).values == theirs.sort(-1).values).all(-1)
    return torch.where(same, -1.0, apart).flatten()
