"""Multi-head latent attention over selected keys (DeepSeek-V2, arXiv:2405.04434, section 2.1; arXiv:2512.02556).

Shape letters: B sequences, T queries, S keys, N rows of a decode step, D model, H heads, Q compressed query, C latent,
R rotary width, K selected keys, I indexer heads, J indexer head width.

Two modes give the same numbers up to rounding. A whole sequence expands each latent to keys and values of every head
(MHA mode: fewest operations per pair of query and key). A decode step folds the expansion into the query and the
output instead (MQA mode), so it reads nothing but the cached latents of the selected keys.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from envsynth.policy.config import PolicyConfig
from envsynth.policy.indexer import IndexerInputs, LightningIndexer, index_scores, indexer_kl
from envsynth.policy.rope import rotate_pairs
from envsynth.policy.selection import exact_topk, first_k, kept_mask

KEY_BLOCK = 16
"""Decode reads keys in multiples of this: libraries multiply narrow matrices by other kernels, with other rounding."""


class AttentionOutput(NamedTuple):
    """What attention over a whole sequence gives."""

    out_BTD: Tensor
    """Result, [B, T, D]."""
    latent_BTC: Tensor
    """Latents with their rotated key part, for a cache, [B, T, C+R]."""
    index_key_BTJ: Tensor
    """Indexer keys, for a cache, [B, T, J]."""
    topk_BTK: Tensor | None
    """Selected keys, int32 [B, T, K]; None when `dense` was asked for."""
    kl_BT: Tensor | None
    """Indexer loss in nats, [B, T]; None unless asked for."""


class _Projections(NamedTuple):
    """A token's queries and latent; the leading shape is [B, T] or [N]."""

    query_nope: Tensor
    query_rope: Tensor
    latent: Tensor
    indexer: IndexerInputs


class LatentAttention(nn.Module):
    """One attention layer with its indexer.

    Args:
        config: The policy's configuration.
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        sizes, eps = config.attention, config.rms_norm_eps
        self.sizes, self.topk = sizes, config.indexer.index_topk
        heads = sizes.num_attention_heads
        self.q_a_proj = nn.Linear(config.hidden_size, sizes.q_lora_rank, bias=False)
        self.q_a_layernorm = nn.RMSNorm(sizes.q_lora_rank, eps=eps)
        self.q_b_proj = nn.Linear(sizes.q_lora_rank, heads * sizes.qk_head_dim, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(config.hidden_size, sizes.kv_lora_rank + sizes.qk_rope_head_dim, bias=False)
        self.kv_a_layernorm = nn.RMSNorm(sizes.kv_lora_rank, eps=eps)
        self.kv_b_proj = nn.Linear(sizes.kv_lora_rank, heads * (sizes.qk_nope_head_dim + sizes.v_head_dim), bias=False)
        self.o_proj = nn.Linear(heads * sizes.v_head_dim, config.hidden_size, bias=False)
        self.indexer = LightningIndexer(config)

    def _project(self, x: Tensor, cos: Tensor, sin: Tensor) -> _Projections:
        """Make queries and latent of each token; cos and sin have x's leading shape or broadcast to it."""
        sizes = self.sizes
        query_latent = self.q_a_layernorm(self.q_a_proj(x))
        query = self.q_b_proj(query_latent).unflatten(-1, (sizes.num_attention_heads, sizes.qk_head_dim))
        nope, rope = query.split([sizes.qk_nope_head_dim, sizes.qk_rope_head_dim], dim=-1)
        latent, key_rope = self.kv_a_proj_with_mqa(x).split([sizes.kv_lora_rank, sizes.qk_rope_head_dim], dim=-1)
        latent = torch.cat((self.kv_a_layernorm(latent), rotate_pairs(key_rope, cos, sin)), dim=-1)
        rope = rotate_pairs(rope, cos[..., None, :], sin[..., None, :])
        return _Projections(nope, rope, latent, self.indexer(x, query_latent, cos, sin))

    def forward(
        self,
        x_BTD: Tensor,
        cos: Tensor,
        sin: Tensor,
        *,
        replay_BTK: Tensor | None = None,
        score_live: bool = True,
        dense: bool = False,
        with_kl: bool = False,
    ) -> AttentionOutput:
        """Attend within whole sequences.

        Args:
            x_BTD: Normalised hidden states, [B, T, D].
            cos: Cosines of positions 0..T-1, [T, R/2].
            sin: Sines of positions 0..T-1, [T, R/2].
            replay_BTK: Recorded selection, int [B, T, K]; a row of -1 is selected live.
            score_live: Whether any row must be scored for a live selection; False when only padding is live.
            dense: Read every visible key, whatever the indexer says (its warm-up).
            with_kl: Also give the indexer's loss.

        Returns:
            The result, what a cache needs, and what was selected.
        """
        parts = self._project(x_BTD, cos, sin)
        length = x_BTD.shape[1]
        causal_TS = torch.ones(length, length, dtype=torch.bool, device=x_BTD.device).tril()
        # Up to K keys nothing can be left out: the selection is every visible key, and no score is needed.
        sparse = not dense and length > self.topk and score_live
        scores_BTS = index_scores(*_in_order(parts.indexer)) if sparse or with_kl else None
        kept_BTS, topk_BTK = causal_TS.expand(x_BTD.shape[0], -1, -1), None
        if not dense:
            kept_BTS, topk_BTK = self._select(scores_BTS if sparse else None, causal_TS, replay_BTK, kept_BTS)
        out_BTD, attention_BHTS = self._attend(parts, kept_BTS)
        kl_BT = indexer_kl(scores_BTS, attention_BHTS, kept_BTS) if with_kl and scores_BTS is not None else None
        return AttentionOutput(out_BTD, parts.latent, parts.indexer.key, topk_BTK, kl_BT)

    def _select(
        self, scores_BTS: Tensor | None, causal_TS: Tensor, replay_BTK: Tensor | None, every_BTS: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Choose the keys of each query: replayed rows as recorded, the others live (every visible key unscored)."""
        batch, length, _ = every_BTS.shape
        if scores_BTS is not None:
            topk_BTK = exact_topk(scores_BTS, causal_TS, self.topk)
            kept_BTS = kept_mask(topk_BTK, length)
        else:
            topk_BTK = first_k(length, self.topk, causal_TS.device).expand(batch, -1, -1)
            kept_BTS = every_BTS
        if replay_BTK is None:
            return kept_BTS, topk_BTK
        live_BT1 = replay_BTK[..., :1] < 0
        kept_BTS = torch.where(live_BT1, kept_BTS, kept_mask(replay_BTK, length))
        return kept_BTS, torch.where(live_BT1, topk_BTK, replay_BTK.to(torch.int32))

    def _attend(self, parts: _Projections, kept_BTS: Tensor) -> tuple[Tensor, Tensor]:
        """Attend in MHA mode, and give the result [B, T, D] with the probabilities [B, H, T, S]."""
        sizes = self.sizes
        latent_BSC, key_rope_BSR = parts.latent.split([sizes.kv_lora_rank, sizes.qk_rope_head_dim], dim=-1)
        expanded = self.kv_b_proj(latent_BSC).unflatten(-1, (sizes.num_attention_heads, -1)).transpose(1, 2)
        key_nope, value = expanded.split([sizes.qk_nope_head_dim, sizes.v_head_dim], dim=-1)
        key_rope = key_rope_BSR[:, None].expand(-1, sizes.num_attention_heads, -1, -1)
        key = torch.cat((key_nope, key_rope), dim=-1)
        # The scale on the query and the mask as a sum: one pass over [B, H, T, S] instead of four.
        query = torch.cat((parts.query_nope, parts.query_rope), dim=-1).transpose(1, 2) * sizes.softmax_scale
        dropped_BTS = torch.zeros_like(kept_BTS, dtype=query.dtype).masked_fill(~kept_BTS, float("-inf"))
        attention_BHTS = (query @ key.transpose(2, 3)).add_(dropped_BTS[:, None]).softmax(-1)
        heads_BTHV = (attention_BHTS @ value).transpose(1, 2)
        return self.o_proj(heads_BTHV.flatten(2)), attention_BHTS

    def decode(
        self,
        x_ND: Tensor,
        cos: Tensor,
        sin: Tensor,
        *,
        latent_cache: Tensor,
        key_cache: Tensor,
        rows_N: Tensor,
        positions_N: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Attend from one new token per row to its own cache, and write the token into that cache.

        MQA mode (arXiv:2512.02556, section 2.1: all heads of a query share the latents that its indexer selected).
        Every row takes part with exactly K gathered keys, padded and masked, whatever its length: so a row's rounding
        does not depend on the lengths of the others.

        Args:
            x_ND: Normalised hidden states, [N, D].
            cos: Cosines of the rows' positions, [N, R/2].
            sin: Sines of the rows' positions, [N, R/2].
            latent_cache: Latents of this layer, [slots, max length, C+R]; updated.
            key_cache: Indexer keys of this layer, [slots, max length, J]; updated.
            rows_N: Slot of each row, int64 [N].
            positions_N: Position of each new token, int64 [N]; the cache holds all earlier ones.

        Returns:
            Result [N, D], and the selected keys, int32 [N, K].
        """
        sizes, parts = self.sizes, self._project(x_ND, cos, sin)
        latent_cache[rows_N, positions_N] = parts.latent
        key_cache[rows_N, positions_N] = parts.indexer.key
        longest = int(positions_N.max()) + 1
        width = min(-(-longest // KEY_BLOCK) * KEY_BLOCK, key_cache.shape[1])
        key_NSJ = key_cache[:, :width].index_select(0, rows_N)
        scores_NS = index_scores(parts.indexer.query[:, None], key_NSJ, parts.indexer.weight[:, None]).squeeze(1)
        visible_NS = torch.arange(width, device=x_ND.device) <= positions_N[:, None]
        topk_NK = exact_topk(scores_NS, visible_NS, self.topk)
        # Padding reads position 0, which is always a real key, and is masked below.
        flat_NK = rows_N[:, None] * latent_cache.shape[1] + topk_NK.clamp(min=0)
        # One index over flattened slots copies whole rows, several times faster than a pair of indices.
        cached_NKC = latent_cache.flatten(0, 1).index_select(0, flat_NK.flatten()).unflatten(0, flat_NK.shape)
        to_keys, to_values = self._expansions()
        query_NHC = torch.einsum("nhd,hdc->nhc", parts.query_nope, to_keys)
        query_NHC = torch.cat((query_NHC, parts.query_rope), dim=-1) * sizes.softmax_scale
        logits_NHK = query_NHC @ cached_NKC.transpose(1, 2)
        attention_NHK = logits_NHK.masked_fill((topk_NK < 0)[:, None], float("-inf")).softmax(-1)
        read_NHC = attention_NHK @ cached_NKC[..., : sizes.kv_lora_rank]
        heads_NHV = torch.einsum("nhc,hvc->nhv", read_NHC, to_values)
        return self.o_proj(heads_NHV.flatten(1)), topk_NK

    def _expansions(self) -> tuple[Tensor, Tensor]:
        """Give the two halves of the latent's expansion: to keys [H, nope, C] and to values [H, V, C]."""
        sizes = self.sizes
        weight = self.kv_b_proj.weight.unflatten(0, (sizes.num_attention_heads, -1))
        nope, value = weight.split([sizes.qk_nope_head_dim, sizes.v_head_dim], dim=1)
        return nope, value


def _in_order(index: IndexerInputs) -> tuple[Tensor, Tensor, Tensor]:
    return index.query, index.key, index.weight
