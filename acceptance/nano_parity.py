"""The logits of the nano policy are those of transformers' deepseek_v32 with the same weights, dense and sparse."""

from __future__ import annotations

import argparse
import warnings

import torch

from acceptance.claims import Claims
from envsynth.policy.huggingface import huggingface_config, huggingface_state_dict
from envsynth.policy.model import Policy
from envsynth.policy.presets import nano
from envsynth.policy.tokens import VOCABULARY_SIZE

LIMIT = 1e-5
LENGTHS = (20, 32, 33, 120, 240)
"""Below, at and above the 32 keys that are kept."""


def lively(seed: int) -> Policy:
    """A nano policy whose logits are not flat and whose indexer scores do not tie at zero.

    Fresh output projections are zero; and on ties the peer keeps any of the tied keys, we keep the first ones. So every
    second indexer head gets the opposite query: no key scores exactly zero.
    """
    torch.manual_seed(seed)
    policy = Policy(nano(VOCABULARY_SIZE), seed=seed).eval()
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.dim() > 1 and not parameter.any():
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
        for layer in policy.layers:
            indexer = layer.self_attn.indexer
            queries = indexer.wq_b.weight.unflatten(0, (indexer.heads, -1))
            queries[1::2] = -queries[::2]
    return policy


def largest_difference(seed: int, length: int) -> tuple[float, float]:
    """Largest difference of a logit, and the standard deviation of the peer's logits."""
    policy = lively(seed)
    tokens = torch.randint(VOCABULARY_SIZE, (2, length), generator=torch.Generator().manual_seed(seed + length))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        from transformers.models.deepseek_v32 import DeepseekV32Config, DeepseekV32ForCausalLM  # noqa: PLC0415

        config = DeepseekV32Config(**huggingface_config(policy.config), attn_implementation="eager")
        peer = DeepseekV32ForCausalLM(config).eval()
        peer.load_state_dict(huggingface_state_dict(policy), strict=True)
        theirs = peer(tokens, use_cache=False).logits
        return float((policy(tokens).logits_BTV - theirs).abs().max()), float(theirs.std())


def main() -> int:
    """Print the lines."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fast", action="store_true", help="the same: it takes seconds")
    parser.parse_args()
    claims = Claims()
    for length in LENGTHS:
        found = [largest_difference(seed, length) for seed in range(3)]
        worst, flattest = max(error for error, _ in found), min(spread for _, spread in found)
        claims.line(
            f"largest difference of a logit, {length} tokens, 3 seeds of weights, logits of spread {flattest:.2f}",
            f"{worst:.1e}",
            f"<= {LIMIT:.0e}",
            worst <= LIMIT and flattest > 0.1,
        )
    return claims.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
