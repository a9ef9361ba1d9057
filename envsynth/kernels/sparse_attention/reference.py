"""Attention over selected keys in plain torch: the truth that the kernels are held to.

Shape letters: B sequences, T queries, S keys, N rows of a decode step, H heads, C latent with its rotary part, R its
first `rank` numbers (the value), K selected keys.
"""

from __future__ import annotations

import torch
from torch import Tensor


def attend(
    query_BTHC: Tensor, latent_BSC: Tensor, topk_BTK: Tensor, *, rank: int, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Attend to the selected latents of each query; every selected key is copied, so this is for small sizes.

    Args:
        query_BTHC: Queries, floating [B, T, H, C].
        latent_BSC: Keys, whose first `rank` numbers are the values, of the same dtype, [B, S, C].
        topk_BTK: Selected keys, int [B, T, K]; entries below 0 or from S on are skipped.
        rank: Width R of a value.
        scale: Factor on the logits.

    Returns:
        Result in the query's dtype [B, T, H, R]; log-sum-exp of the logits [B, T, H] and the sum of probabilities over
        heads at each entry [B, T, K], both in float32 (float64 for float64) and without gradient.
    """
    B, T, H, _ = query_BTHC.shape
    S, K = latent_BSC.shape[1], topk_BTK.shape[-1]
    wide = torch.promote_types(query_BTHC.dtype, torch.float32)
    if S == 0 or K == 0:
        # Zero, yet with a gradient for both.
        out = (query_BTHC[..., :rank] * 0 + latent_BSC.sum() * 0).nan_to_num(0.0)
        return out, out.new_full((B, T, H), float("inf"), dtype=wide), out.new_zeros((B, T, K), dtype=wide)
    valid_BTK = (topk_BTK >= 0) & (topk_BTK < S)
    key_BTK = topk_BTK.clamp(0, S - 1).to(torch.int64)
    first_B11 = torch.arange(B, device=key_BTK.device)[:, None, None] * S
    # In float32, because the backward pass adds up what thousands of queries give to one latent.
    rows = latent_BSC.to(wide).flatten(0, 1).index_select(0, (first_B11 + key_BTK).flatten())
    # What stands in memory behind a skipped entry may be anything, NaN too.
    read_BTKC = rows.unflatten(0, key_BTK.shape).masked_fill(~valid_BTK[..., None], 0.0)
    logits_BTHK = (query_BTHC.to(wide) @ read_BTKC.transpose(-1, -2)) * scale
    some_BT11 = valid_BTK.any(-1)[..., None, None]
    masked_BTHK = logits_BTHK.masked_fill(~valid_BTK[..., None, :], float("-inf")).masked_fill(~some_BT11, 0.0)
    attention_BTHK = masked_BTHK.softmax(-1).masked_fill(~some_BT11, 0.0)
    out_BTHR = attention_BTHK @ read_BTKC[..., :rank]
    lse_BTH = masked_BTHK.detach().logsumexp(-1).masked_fill(~some_BT11[..., 0], float("inf"))
    return out_BTHR.to(query_BTHC.dtype), lse_BTH, attention_BTHK.detach().sum(2)


def attend_cached(
    query_NHC: Tensor, latent_cache: Tensor, rows_N: Tensor, topk_NK: Tensor, *, rank: int, scale: float
) -> Tensor:
    """Attend from one token per row to its slot of a cache.

    Args:
        query_NHC: Queries, floating [N, H, C].
        latent_cache: Latents, [slots, max length, C].
        rows_N: Slot of each row, int [N].
        topk_NK: Selected keys, int [N, K].
        rank: Width R of a value.
        scale: Factor on the logits.

    Returns:
        Result in the query's dtype, [N, H, R].
    """
    latent_NSC = latent_cache.index_select(0, rows_N)
    out_N1HR, _, _ = attend(query_NHC[:, None], latent_NSC, topk_NK[:, None], rank=rank, scale=scale)
    return out_N1HR[:, 0]
