"""Checks of what a forward pass is given: padding, recorded experts, recorded keys.

Shape letters: B sequences, T tokens, M layers with experts, A active experts per token, L layers, K selected keys.

A recorded set that is wrong trains another policy without any other sign, so nothing here is repaired: it is refused.
"""

from __future__ import annotations

import torch
from torch import Tensor

from envsynth.policy.config import PolicyConfig

_SIGNED = (torch.int16, torch.int32, torch.int64)
"""Types that hold every expert id and -1; eight bits would fold ids above 127 into others."""


def check_tokens(tokens_BT: Tensor, mask_BT: Tensor | None, config: PolicyConfig) -> None:
    """Refuse token ids and masks that the policy cannot read.

    Args:
        tokens_BT: Token ids, integer [B, T].
        mask_BT: True at real tokens, bool [B, T], or None.
        config: The policy's configuration.

    Raises:
        ValueError: A shape or type is wrong, an id is outside the vocabulary, the sequence is too long, or padding
            stands before a real token.
    """
    shape = tuple(tokens_BT.shape)
    if len(shape) != 2 or 0 in shape or tokens_BT.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"tokens must be int64 [B, T] with B, T >= 1, got {tokens_BT.dtype} {shape}")
    if shape[1] > config.max_position_embeddings:
        raise ValueError(f"{shape[1]} tokens, but max_position_embeddings is {config.max_position_embeddings}")
    low, high = (int(value) for value in tokens_BT.aminmax())
    if low < 0 or high >= config.vocab_size:
        raise ValueError(f"token ids must be within 0..{config.vocab_size - 1}, got {low}..{high}")
    if mask_BT is None:
        return
    if tuple(mask_BT.shape) != shape or mask_BT.dtype != torch.bool:
        raise ValueError(f"the mask must be bool {shape}, got {mask_BT.dtype} {tuple(mask_BT.shape)}")
    if not mask_BT[:, 0].all() or (mask_BT[:, 1:] & ~mask_BT[:, :-1]).any():
        raise ValueError("padding must stand to the right of at least one real token, in every sequence")


def check_routed_experts(replay_BTMA: Tensor, shape_BT: tuple[int, int], config: PolicyConfig) -> None:
    """Refuse recorded experts that no router can have chosen.

    Args:
        replay_BTMA: Recorded experts, int16, int32 or int64 [B, T, M, A]; a row is A different ids, or all -1.
        shape_BT: Sequences and tokens.
        config: The policy's configuration.

    Raises:
        ValueError: A shape or type is wrong, an id is out of range, repeated, or -1 beside others.
    """
    experts = config.experts
    _check_shape("routed_experts", replay_BTMA, (*shape_BT, config.n_moe_layers, experts.num_experts_per_tok))
    low, high = _range(replay_BTMA)
    if low < -1 or high >= experts.n_routed_experts:
        raise ValueError(f"recorded experts must be within -1..{experts.n_routed_experts - 1}, got {low}..{high}")
    missing = replay_BTMA < 0
    if (missing.any(-1) != missing.all(-1)).any():
        raise ValueError("a row of recorded experts is complete, or all -1 for live routing; some rows are neither")
    ids = replay_BTMA.sort(dim=-1).values
    if ((ids[..., 1:] == ids[..., :-1]) & (ids[..., 1:] >= 0)).any():
        raise ValueError("a row of recorded experts names an expert twice; a padded row must be -1, never zeros")


def check_indexer_topk(replay_BTLK: Tensor, shape_BT: tuple[int, int], config: PolicyConfig, positions: Tensor) -> None:
    """Refuse recorded keys that causal top-k cannot have selected.

    Args:
        replay_BTLK: Recorded positions within the document, int16, int32 or int64 [B, T, L, K]; a row ascends and is
            padded with -1, or is all -1.
        shape_BT: Sequences and tokens.
        config: The policy's configuration.
        positions: Position of each token in its document, int64 [T] or [B, T].

    Raises:
        ValueError: A shape or type is wrong, a position is after its token, or a row does not ascend.
    """
    _check_shape("indexer_topk", replay_BTLK, (*shape_BT, config.num_hidden_layers, config.indexer.index_topk))
    low, _ = _range(replay_BTLK)
    if low < -1:
        raise ValueError(f"recorded positions must be >= -1, got {low}")
    latest_BT = replay_BTLK.flatten(2).amax(-1)
    ahead = latest_BT > positions
    if ahead.any():
        where = ahead.nonzero()[0].tolist()
        raise ValueError(f"token {where} (sequence, position) reads a later position, {int(latest_BT[*where])}")
    before, after = replay_BTLK[..., :-1], replay_BTLK[..., 1:]
    if ((after >= 0) & ((before < 0) | (after <= before))).any():
        raise ValueError("a row of recorded positions must ascend, with -1 at its end only")


def _check_shape(name: str, replay: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(replay.shape) != shape or replay.dtype not in _SIGNED:
        got = f"{replay.dtype} {tuple(replay.shape)}"
        raise ValueError(f"{name} must be int16, int32 or int64 {shape}, got {got}")


def _range(x: Tensor) -> tuple[int, int]:
    if x.numel() == 0:
        return -1, -1
    low, high = x.aminmax()
    return int(low), int(high)
