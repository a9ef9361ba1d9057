"""Multi-head latent attention over selected keys (DeepSeek-V2, arXiv:2405.04434, section 2.1; arXiv:2512.02556).

Shape letters: B sequences, T queries, S keys, N rows of a decode step, D model, H heads, Q compressed query, C latent,
R rotary width, K selected keys, I indexer heads, J indexer head width.

Four ways to compute a whole sequence give the same numbers up to rounding. `mha` expands each latent to keys and values
of every head and forms all probabilities; `fused` does the same through the library's fused attention, which keeps no
probabilities; `mqa` folds the expansion into query and output, so all heads read the selected latents themselves, which
is cheaper when few of many keys are selected (section 2.1: DSA is implemented under the MQA mode of MLA); `kernels` is
`mqa` through the operators of `envsynth.kernels`, which on a GPU form no matrix of all pairs. A decode step is always
`mqa`: it reads nothing but the cached latents of the selected keys; with `kernels` it reads them where they are.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from envsynth.kernels.dense_kl import Student, Teacher, dense_kl
from envsynth.kernels.indexer import gathered_scores, index_select, index_select_decode, selected_kl
from envsynth.kernels.sparse_attention import sparse_attention, sparse_attention_decode
from envsynth.policy.config import PolicyConfig
from envsynth.policy.diagnostics import LayerDiagnostics, layer_diagnostics
from envsynth.policy.indexer import IndexerInputs, LightningIndexer, index_scores, indexer_kl
from envsynth.policy.packing import Layout
from envsynth.policy.precision import RMSNorm, at_least_float32
from envsynth.policy.refusals import ATTENTION, naming
from envsynth.policy.rope import rotate_pairs
from envsynth.policy.selection import exact_topk, first_k, kept_mask

KEY_BLOCK = 16
"""Decode reads keys in multiples of this: libraries multiply narrow matrices by other kernels, with other rounding."""
SUM_ROWS = 1024
"""Queries of a block of the indexer's teacher."""
LATENT_NORM_EPS = 1e-6
"""Added to the mean square of latents; the released model has it whatever `rms_norm_eps` says."""

AttentionMode = Literal["mha", "fused", "mqa", "kernels"]
"""How a whole sequence is computed."""


class Wants(NamedTuple):
    """What a forward pass is to do beside the result."""

    score_live: bool = True
    """Whether any row must be scored for a live selection; False when only padding is live."""
    dense: bool = False
    """Read every visible key, whatever the indexer says (its warm-up)."""
    with_kl: bool = False
    """Also give the indexer's loss."""
    with_diagnostics: bool = False
    """Also measure the selection against dense attention."""
    kernels: bool = False
    """Run the layer's experts through `envsynth.kernels`."""


class AttentionOutput(NamedTuple):
    """What attention over a whole sequence gives."""

    out_BTD: Tensor
    """Result, [B, T, D]."""
    latent_BTC: Tensor
    """Latents with their rotated key part, for a cache, [B, T, C+R]."""
    index_key_BTJ: Tensor
    """Indexer keys, for a cache, [B, T, J]."""
    topk_BTK: Tensor | None
    """Selected keys, counted from the document's first token, int32 [B, T, K]; None when `dense` was asked for."""
    kl_BT: Tensor | None
    """Indexer loss in nats, [B, T]; None unless asked for."""
    diagnostics: LayerDiagnostics | None
    """Measures of the selection; None unless asked for."""


class _Projections(NamedTuple):
    """A token's queries and latent; the leading shape is [B, T] or [N]."""

    query_nope: Tensor
    query_rope: Tensor
    latent: Tensor
    indexer: IndexerInputs


class _Selection(NamedTuple):
    """Which keys are read; places count from the row's first token."""

    kept: Tensor
    """True at keys that are read, bool [T, S] or [B, T, S]."""
    topk_BTK: Tensor | None
    """Their places, int32, padded with -1; None for every visible key."""


class LatentAttention(nn.Module):
    """One attention layer with its indexer.

    Args:
        config: The policy's configuration.
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        sizes = config.attention
        self.sizes, self.topk = sizes, config.indexer.index_topk
        heads = sizes.num_attention_heads
        self.q_a_proj = nn.Linear(config.hidden_size, sizes.q_lora_rank, bias=False)
        self.q_a_layernorm = RMSNorm(sizes.q_lora_rank, eps=LATENT_NORM_EPS)
        self.q_b_proj = nn.Linear(sizes.q_lora_rank, heads * sizes.qk_head_dim, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(config.hidden_size, sizes.kv_lora_rank + sizes.qk_rope_head_dim, bias=False)
        self.kv_a_layernorm = RMSNorm(sizes.kv_lora_rank, eps=LATENT_NORM_EPS)
        self.kv_b_proj = nn.Linear(sizes.kv_lora_rank, heads * (sizes.qk_nope_head_dim + sizes.v_head_dim), bias=False)
        self.o_proj = nn.Linear(heads * sizes.v_head_dim, config.hidden_size, bias=False)
        self.indexer = LightningIndexer(config)

    def _project(self, x: Tensor, cos: Tensor, sin: Tensor, *, learn_index: bool = False) -> _Projections:
        """Make queries and latent of each token; cos and sin have x's leading shape or broadcast to it."""
        sizes = self.sizes
        query_latent = self.q_a_layernorm(self.q_a_proj(x))
        query = self.q_b_proj(query_latent).unflatten(-1, (sizes.num_attention_heads, sizes.qk_head_dim))
        nope, rope = query.split([sizes.qk_nope_head_dim, sizes.qk_rope_head_dim], dim=-1)
        latent, key_rope = self.kv_a_proj_with_mqa(x).split([sizes.kv_lora_rank, sizes.qk_rope_head_dim], dim=-1)
        latent = torch.cat((self.kv_a_layernorm(latent), rotate_pairs(key_rope, cos, sin)), dim=-1)
        rope = rotate_pairs(rope, cos[..., None, :], sin[..., None, :])
        # Only the indexer's loss has a gradient at the scores: without it they need no graph.
        with torch.set_grad_enabled(learn_index and torch.is_grad_enabled()):
            index = self.indexer(x, query_latent, cos, sin)
        return _Projections(nope, rope, latent, index)

    def forward(
        self,
        x_BTD: Tensor,
        layout: Layout,
        wants: Wants,
        mode: AttentionMode = "mha",
        replay_BTK: Tensor | None = None,
    ) -> AttentionOutput:
        """Attend within whole sequences.

        Args:
            x_BTD: Normalised hidden states, [B, T, D].
            layout: Positions and documents.
            wants: What to do.
            mode: How to compute it.
            replay_BTK: Recorded selection, counted from the document's first token, int [B, T, K]; a row of -1 is
                selected live.

        Returns:
            The result, what a cache needs, and what was selected.
        """
        parts = self._project(x_BTD, layout.cos, layout.sin, learn_index=wants.with_kl)
        if mode == "kernels":
            if not wants.with_diagnostics:
                with naming(ATTENTION):
                    if wants.dense:
                        return self._forward_dense(parts, layout, wants)
                    return self._forward_kernels(parts, layout, wants, replay_BTK)
            mode = "fused" if wants.dense else "mqa"  # both look at all pairs anyway
        # Up to K keys nothing can be left out: the selection is every visible key, and no score is needed.
        sparse = not wants.dense and layout.longest > self.topk and wants.score_live
        scored = sparse or wants.with_kl or wants.with_diagnostics
        scores_BTS = index_scores(*_in_order(parts.indexer)) if scored else None
        relative_BTK, chosen = None, _Selection(layout.pairs(), None)
        if not wants.dense:
            relative_BTK, chosen = self._select(scores_BTS if sparse else None, layout, replay_BTK, len(x_BTD))
        attend = {"mha": self._attend, "fused": self._attend_fused, "mqa": self._attend_latents}[mode]
        out_BTD, attention = attend(parts, chosen, wants.with_kl)
        kl_BT = _loss(scores_BTS, attention, chosen) if scores_BTS is not None and attention is not None else None
        measures = self._measure(parts, scores_BTS, layout, chosen) if wants.with_diagnostics else None
        return AttentionOutput(out_BTD, parts.latent, parts.indexer.key, relative_BTK, kl_BT, measures)

    def _forward_kernels(
        self, parts: _Projections, layout: Layout, wants: Wants, replay_BTK: Tensor | None
    ) -> AttentionOutput:
        """Attend to selected keys through `envsynth.kernels`."""
        index, live = parts.indexer, (None, None)
        if layout.longest > self.topk and wants.score_live:
            live = index_select(index.query, index.key, index.weight, self.topk, starts_BT=layout.starts_BT)
        relative_BTK, places_BTK = self._chosen(live[0], layout, replay_BTK, len(parts.latent))
        query_BTHC, to_values = self._absorbed(parts)
        found = sparse_attention(
            query_BTHC,
            parts.latent.to(query_BTHC.dtype),
            places_BTK,
            rank=self.sizes.kv_lora_rank,
            scale=self.sizes.softmax_scale,
            with_sum=wants.with_kl,
        )
        heads_BTHV = torch.einsum("bthc,hvc->bthv", found.out_BTHR, to_values.to(found.out_BTHR.dtype))
        kl_BT = None
        if found.sum_BTK is not None:
            known_BTK = live[1] if replay_BTK is None else None  # recorded keys were not scored
            scores_BTK = gathered_scores(index.query, index.key, index.weight, places_BTK, known_BTK=known_BTK)
            kl_BT = selected_kl(scores_BTK, found.sum_BTK, places_BTK)
        return AttentionOutput(self.o_proj(heads_BTHV.flatten(2)), parts.latent, index.key, relative_BTK, kl_BT, None)

    def _forward_dense(self, parts: _Projections, layout: Layout, wants: Wants) -> AttentionOutput:
        """Attend to every visible key as `fused` does; the indexer's loss forms no tensor of all pairs."""
        # Only packed rows need a mask, of one byte for a pair.
        kept_BTS = None if layout.starts_BT is None else layout.pairs()
        out_BTD = self._read_fused(*self._expand(parts), kept_BTS)
        kl_BT = None
        if wants.with_kl:
            with torch.no_grad():
                query_BTHC = self._absorbed(parts)[0]
            teacher = Teacher(query_BTHC, parts.latent.to(query_BTHC.dtype), self.sizes.softmax_scale)
            kl_BT = dense_kl(teacher, Student(*parts.indexer), starts_BT=layout.starts_BT)
        return AttentionOutput(out_BTD, parts.latent, parts.indexer.key, None, kl_BT, None)

    def _absorbed(self, parts: _Projections) -> tuple[Tensor, Tensor]:
        """Fold the expansion of keys into the queries, [B, T, H, C+R], and give that of values, [H, V, C]."""
        to_keys, to_values = self._expansions()
        query_BTHC = torch.einsum("bthd,hdc->bthc", parts.query_nope, to_keys.to(parts.query_nope.dtype))
        return torch.cat((query_BTHC, parts.query_rope), dim=-1), to_values

    def _select(
        self, scores_BTS: Tensor | None, layout: Layout, replay_BTK: Tensor | None, batch: int
    ) -> tuple[Tensor, _Selection]:
        """Choose the keys of each query; without scores, every visible one.

        Returns:
            Keys counted from the document's first token, int32 [B, T, K], and the same within rows.
        """
        live_BTK = None if scores_BTS is None else exact_topk(scores_BTS, layout.pairs(), self.topk)
        relative_BTK, places_BTK = self._chosen(live_BTK, layout, replay_BTK, batch)
        if live_BTK is None and replay_BTK is None:
            return relative_BTK, _Selection(layout.pairs(), None)
        return relative_BTK, _Selection(kept_mask(places_BTK, layout.positions.shape[-1]), places_BTK)

    def _chosen(
        self, live_BTK: Tensor | None, layout: Layout, replay_BTK: Tensor | None, batch: int
    ) -> tuple[Tensor, Tensor]:
        """Join live and recorded keys: replayed rows as recorded, the others live (None: every visible key).

        Returns:
            Keys counted from the document's first token, int32 [B, T, K], and counted from the row's.
        """
        starts_BT1 = 0 if layout.starts_BT is None else layout.starts_BT[..., None].to(torch.int32)
        if live_BTK is None:
            relative_BTK = first_k(layout.positions, self.topk).expand(batch, -1, -1)
        else:
            relative_BTK = torch.where(live_BTK < 0, -1, live_BTK - starts_BT1)
        if replay_BTK is not None:
            relative_BTK = torch.where(replay_BTK[..., :1] < 0, relative_BTK, replay_BTK.to(torch.int32))
        return relative_BTK, torch.where(relative_BTK < 0, -1, relative_BTK + starts_BT1)

    def _attend(self, parts: _Projections, chosen: _Selection, with_sum: bool) -> tuple[Tensor, Tensor | None]:
        """Attend with explicit probabilities: the result [B, T, D], and their sum over heads, [B, T, S] or [B, T, K]."""
        query, key, value = self._expand(parts)
        # The scale on the query and the mask as a sum: one pass over [B, H, T, S] instead of four.
        dropped = torch.where(chosen.kept, 0.0, float("-inf"))
        logits_BHTS = at_least_float32((query * self.sizes.softmax_scale) @ key.transpose(2, 3))
        attention_BHTS = logits_BHTS.add_(_per_head(dropped)).softmax(-1)
        heads_BTHV = (attention_BHTS.to(value.dtype) @ value).transpose(1, 2)
        total = _at_keys(attention_BHTS.detach().sum(1), chosen) if with_sum else None
        return self.o_proj(heads_BTHV.flatten(2)), total

    def _attend_fused(self, parts: _Projections, chosen: _Selection, with_sum: bool) -> tuple[Tensor, Tensor | None]:
        """Attend through the library's fused attention; the sum over heads takes a pass of its own, without gradient."""
        query, key, value = self._expand(parts)
        out_BTD = self._read_fused(query, key, value, None if chosen.kept.ndim == 2 else chosen.kept)
        scale = self.sizes.softmax_scale
        return out_BTD, _at_keys(attention_sum(query, key, chosen.kept, scale), chosen) if with_sum else None

    def _read_fused(self, query: Tensor, key: Tensor, value: Tensor, kept_BTS: Tensor | None) -> Tensor:
        """Attend through the library's fused attention to kept keys (None: all earlier ones), [B, T, D]."""
        # Fused kernels of GPUs want values as wide as keys.
        wider = max(0, key.shape[-1] - value.shape[-1]) if value.is_cuda else 0
        heads_BHTV = functional.scaled_dot_product_attention(
            query.to(value.dtype),
            key.to(value.dtype),
            functional.pad(value, (0, wider)),
            attn_mask=None if kept_BTS is None else _per_head(kept_BTS),
            is_causal=kept_BTS is None,
            scale=self.sizes.softmax_scale,
        )[..., : value.shape[-1]]
        return self.o_proj(heads_BHTV.transpose(1, 2).flatten(2))

    def _attend_latents(self, parts: _Projections, chosen: _Selection, with_sum: bool) -> tuple[Tensor, Tensor | None]:
        """Attend to latents, which all heads share; selected ones are gathered, so nothing of size T x S is formed."""
        query_BTHC, to_values = self._absorbed(parts)
        query_BTHC = query_BTHC * self.sizes.softmax_scale
        rank, latent_BSC = self.sizes.kv_lora_rank, parts.latent
        if chosen.topk_BTK is None:
            logits = at_least_float32(torch.einsum("bthc,bsc->bths", query_BTHC, latent_BSC.to(query_BTHC.dtype)))
            kept = chosen.kept
        else:
            latent_BSC = _gather_rows(latent_BSC, chosen.topk_BTK)
            logits = at_least_float32(query_BTHC @ latent_BSC.transpose(-1, -2).to(query_BTHC.dtype))
            kept = chosen.topk_BTK >= 0
        attention = logits.masked_fill(~kept[..., None, :], float("-inf")).softmax(-1)
        read = attention.to(latent_BSC.dtype)
        if chosen.topk_BTK is None:
            read_BTHC = torch.einsum("bths,bsc->bthc", read, latent_BSC[..., :rank])
        else:
            read_BTHC = read @ latent_BSC[..., :rank]
        heads_BTHV = torch.einsum("bthc,hvc->bthv", read_BTHC, to_values.to(read_BTHC.dtype))
        return self.o_proj(heads_BTHV.flatten(2)), attention.detach().sum(2) if with_sum else None

    def _expand(self, parts: _Projections) -> tuple[Tensor, Tensor, Tensor]:
        """Expand latents to queries and keys [B, H, T, nope+R], and values [B, H, T, V]."""
        sizes = self.sizes
        latent_BSC, key_rope_BSR = parts.latent.split([sizes.kv_lora_rank, sizes.qk_rope_head_dim], dim=-1)
        expanded = self.kv_b_proj(latent_BSC).unflatten(-1, (sizes.num_attention_heads, -1)).transpose(1, 2)
        key_nope, value = expanded.split([sizes.qk_nope_head_dim, sizes.v_head_dim], dim=-1)
        key_rope = key_rope_BSR[:, None].expand(-1, sizes.num_attention_heads, -1, -1)
        key = torch.cat((key_nope, key_rope), dim=-1)
        query = torch.cat((parts.query_nope.transpose(1, 2), parts.query_rope.transpose(1, 2)), dim=-1)
        return query, key, value.contiguous()

    def _measure(
        self, parts: _Projections, scores_BTS: Tensor | None, layout: Layout, chosen: _Selection
    ) -> LayerDiagnostics | None:
        """Compare the selection (what top-k would select, under dense attention) with what dense attention looks at."""
        if scores_BTS is None:
            return None
        topk_BTK = chosen.topk_BTK
        if topk_BTK is None:
            topk_BTK = exact_topk(scores_BTS, layout.pairs(), self.topk)
        query, key, _ = self._expand(parts)
        total_BTS = attention_sum(query, key, layout.pairs(), self.sizes.softmax_scale)
        return layer_diagnostics(scores_BTS, total_BTS, layout.pairs(), topk_BTK)

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
        mode: AttentionMode = "mha",
    ) -> tuple[Tensor, Tensor]:
        """Attend from one new token per row to its own cache, and write the token into that cache.

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
            mode: "kernels" selects and attends through `envsynth.kernels`; all others are one way.

        Returns:
            Result [N, D], and the selected keys, int32 [N, K].
        """
        sizes, parts = self.sizes, self._project(x_ND, cos, sin)
        latent_cache[rows_N, positions_N] = parts.latent
        key_cache[rows_N, positions_N] = parts.indexer.key
        if mode == "kernels":
            with naming(ATTENTION):
                return self._decode_kernels(parts, latent_cache, key_cache, rows_N, positions_N)
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
        logits_NHK = at_least_float32(query_NHC @ cached_NKC.transpose(1, 2))
        attention_NHK = logits_NHK.masked_fill((topk_NK < 0)[:, None], float("-inf")).softmax(-1)
        read_NHC = attention_NHK.to(cached_NKC.dtype) @ cached_NKC[..., : sizes.kv_lora_rank]
        heads_NHV = torch.einsum("nhc,hvc->nhv", read_NHC, to_values)
        return self.o_proj(heads_NHV.flatten(1)), topk_NK

    def _decode_kernels(
        self, parts: _Projections, latent_cache: Tensor, key_cache: Tensor, rows_N: Tensor, positions_N: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Attend from one token per row through `envsynth.kernels`, which read caches in place and never wait."""
        sizes, index = self.sizes, parts.indexer
        topk_NK = index_select_decode(index.query, key_cache, index.weight, rows_N, positions_N + 1, self.topk)[0]
        to_keys, to_values = self._expansions()
        query_NHC = torch.einsum("nhd,hdc->nhc", parts.query_nope, to_keys)
        query_NHC = torch.cat((query_NHC, parts.query_rope), dim=-1)
        read_NHC = sparse_attention_decode(
            query_NHC, latent_cache, rows_N, topk_NK, rank=sizes.kv_lora_rank, scale=sizes.softmax_scale
        )
        heads_NHV = torch.einsum("nhc,hvc->nhv", read_NHC, to_values)
        return self.o_proj(heads_NHV.flatten(1)), topk_NK

    def _expansions(self) -> tuple[Tensor, Tensor]:
        """Give the two halves of the latent's expansion: to keys [H, nope, C] and to values [H, V, C]."""
        sizes = self.sizes
        weight = self.kv_b_proj.weight.unflatten(0, (sizes.num_attention_heads, -1))
        nope, value = weight.split([sizes.qk_nope_head_dim, sizes.v_head_dim], dim=1)
        return nope, value


@torch.no_grad()
def attention_sum(query_BHTX: Tensor, key_BHSX: Tensor, kept: Tensor, scale: float) -> Tensor:
    """Sum the attention probabilities over heads, a block of queries at a time: the indexer's teacher (section 2.1).

    Args:
        query_BHTX: Queries, [B, H, T, X].
        key_BHSX: Keys of the same tokens, [B, H, T, X].
        kept: Keys that are read, bool [T, S] or [B, T, S]; never one behind its query.
        scale: Factor on the logits.

    Returns:
        Sums, float32 or wider [B, T, S].
    """
    B, _, T, _ = query_BHTX.shape
    wide = torch.promote_types(query_BHTX.dtype, torch.float32)
    total_BTS = torch.zeros(B, T, T, dtype=wide, device=query_BHTX.device)
    for begin in range(0, T, SUM_ROWS):
        # Later keys are invisible to the whole block, which saves half of long sequences.
        end = min(begin + SUM_ROWS, T)
        rows = slice(begin, end)
        logits_BHRS = (query_BHTX[:, :, rows] * scale) @ key_BHSX[:, :, :end].transpose(2, 3)
        logits_BHRS.masked_fill_(~_per_head(kept[..., rows, :end]), float("-inf"))
        total_BTS[:, rows, :end] = logits_BHRS.softmax(-1, dtype=wide).sum(1)
    return total_BTS


def _loss(scores_BTS: Tensor, attention: Tensor, chosen: _Selection) -> Tensor:
    """Give the indexer's loss on the keys that were read, [B, T]."""
    if chosen.topk_BTK is None:
        return indexer_kl(scores_BTS, attention, chosen.kept)
    scores_BTK = scores_BTS.gather(-1, chosen.topk_BTK.clamp(min=0).to(torch.int64))
    return indexer_kl(scores_BTK, attention, chosen.topk_BTK >= 0)


def _at_keys(total_BTS: Tensor, chosen: _Selection) -> Tensor:
    """Give sums over all keys at the selected ones, where some were selected."""
    if chosen.topk_BTK is None:
        return total_BTS
    return total_BTS.gather(-1, chosen.topk_BTK.clamp(min=0).to(torch.int64))


def _gather_rows(latent_BSC: Tensor, topk_BTK: Tensor) -> Tensor:
    """Copy the selected latents of each query, [B, T, K, C+R]; padding reads the row's first latent."""
    batch, length, _ = latent_BSC.shape
    first_B11 = torch.arange(batch, device=latent_BSC.device)[:, None, None] * length
    flat_BTK = first_B11 + topk_BTK.clamp(min=0)
    # In float32, because the backward pass adds up what thousands of queries give to one latent.
    wide = at_least_float32(latent_BSC).flatten(0, 1)
    return wide.index_select(0, flat_BTK.flatten()).unflatten(0, flat_BTK.shape).to(latent_BSC.dtype)


def _per_head(mask: Tensor) -> Tensor:
    """Make a mask of keys broadcast over [B, H, T, S]."""
    return mask if mask.ndim == 2 else mask[:, None]


def _in_order(index: IndexerInputs) -> tuple[Tensor, Tensor, Tensor]:
    return index.query, index.key, index.weight
