"""The lightning indexer: a small scorer that decides which keys attention reads (arXiv:2512.02556, section 2.1).

Shape letters: B sequences, T queries, S keys, N rows of a decode step, D model, Q compressed query, I indexer heads,
J indexer head width, R rotary width; `...` is [B, T] or [N].

Differences from the attention heads that are easy to get wrong: the rotary part comes first in a head, it is rotated
by halves, the keys pass a LayerNorm with bias, the head weights may be negative and stay float32, and YaRN's softmax
factor is not theirs. The released model multiplies queries and keys with a Hadamard matrix before it rounds them to
eight bits; that matrix is orthogonal, so in exact arithmetic it changes no score, and it runs for `fp8` alone.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from envsynth.policy.config import PolicyConfig
from envsynth.policy.precision import at_least_float32, float32_linear
from envsynth.policy.quantization import hadamard, round_through
from envsynth.policy.rope import rotate_halves, rotate_pairs

ROW_BLOCK = 16
"""Rows and columns of a product at least: fewer are multiplied by other code, with other rounding."""
KEY_NORM_EPS = 1e-6
"""Added to the variance of the indexer's keys."""


class IndexerInputs(NamedTuple):
    """What a token contributes to index scores."""

    query: Tensor
    """Queries, [..., I, J]; what eight bits hold, where they are rounded."""
    key: Tensor
    """Key, [..., J]; the part that a cache keeps, likewise rounded."""
    weight: Tensor
    """Weight of each head, with every constant factor in it, float32 or wider [..., I]."""


class LightningIndexer(nn.Module):
    """Scores keys for queries: I[t, s] = sum over heads of w[t, h] * relu(q[t, h] . k[s]) (eq. 1 of section 2.1).

    Args:
        config: The policy's configuration.
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.heads = config.indexer.index_n_heads
        self.head_dim = config.indexer.index_head_dim
        self.rope_dim = config.attention.qk_rope_head_dim
        self.rounds = config.indexer.index_precision == "fp8"
        self.rotate = rotate_pairs if config.indexer.index_rope_interleave else rotate_halves
        self.wq_b = nn.Linear(config.attention.q_lora_rank, self.heads * self.head_dim, bias=False)
        self.wk = nn.Linear(config.hidden_size, self.head_dim, bias=False)
        self.k_norm = nn.LayerNorm(self.head_dim, eps=KEY_NORM_EPS)
        self.weights_proj = nn.Linear(config.hidden_size, self.heads, bias=False)

    def forward(self, x: Tensor, query_latent: Tensor, cos: Tensor, sin: Tensor) -> IndexerInputs:
        """Make queries, keys and head weights.

        The inputs are detached: the language-model loss never reaches the indexer's inputs, and the indexer's loss
        never reaches the trunk (section 2.1: the indexer input leaves the graph).

        Args:
            x: Normalised hidden states, [..., D].
            query_latent: Compressed queries after their normalisation, [..., Q].
            cos: Cosines of the positions, [..., R/2].
            sin: Sines of the positions, [..., R/2].

        Returns:
            The token's part of the scores.
        """
        x, query_latent = x.detach(), query_latent.detach()
        query = self.wq_b(query_latent).unflatten(-1, (self.heads, self.head_dim))
        key = self._normalize(self.wk(x))
        query = self._with_position(query, cos[..., None, :], sin[..., None, :])
        key = self._with_position(key, cos, sin)
        if self.rounds:
            query, key = round_through(hadamard(query)), round_through(hadamard(key))
        # Head weights stay float32: their sum decides near ties. The factors are positive, so they pass the ReLU.
        weight = float32_linear(x, self.weights_proj.weight)
        return IndexerInputs(query, key, weight * (self.heads**-0.5 * self.head_dim**-0.5))

    def _normalize(self, key: Tensor) -> Tensor:
        """Apply the LayerNorm in float32, and give the key in its own type."""
        norm = self.k_norm
        wide = [at_least_float32(item) for item in (key, norm.weight, norm.bias)]
        return functional.layer_norm(wide[0], (self.head_dim,), wide[1], wide[2], norm.eps).to(key.dtype)

    def _with_position(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotate the first part of each head."""
        rope, rest = x.split([self.rope_dim, self.head_dim - self.rope_dim], dim=-1)
        return torch.cat((self.rotate(rope, cos, sin), rest), dim=-1)


def index_scores(query_BTIJ: Tensor, key_BSJ: Tensor, weight_BTI: Tensor) -> Tensor:
    """Score every key for every query, without any mask.

    Products of half-precision or eight-bit numbers are exact in float32, in which they are summed. A score does not
    depend on how many queries and keys are scored together, so that training, prefill and decoding select equal keys:
    the sum over heads has a fixed order, and a few rows are padded, because libraries multiply few rows by other code.

    Args:
        query_BTIJ: Queries, [B, T, I, J].
        key_BSJ: Keys, [B, S, J].
        weight_BTI: Head weights, [B, T, I].

    Returns:
        Scores, float32 or wider [B, T, S].
    """
    with torch.autocast(query_BTIJ.device.type, enabled=False):
        query, key = at_least_float32(query_BTIJ), at_least_float32(key_BSJ)
        B, T, heads, width = query.shape
        rows, n_keys = _at_least_rows(query.reshape(B, T * heads, width)), key.shape[1]
        products = rows @ _at_least_rows(key).transpose(1, 2)
        dots_BTIS = products[:, : T * heads, :n_keys].unflatten(1, (T, heads))
        # Unbound, not indexed: the gradient of an index fills a tensor of all heads with zeros, once for each head.
        first, *others = zip(dots_BTIS.unbind(2), weight_BTI[..., None].unbind(2), strict=True)
        scores_BTS = first[0].relu() * first[1]
        for dots_BTS, weight_BT1 in others:
            scores_BTS = scores_BTS + dots_BTS.relu() * weight_BT1
        return scores_BTS


def _at_least_rows(x: Tensor) -> Tensor:
    """Pad [B, rows, width] with zeros to a whole block, if it has fewer rows."""
    missing = ROW_BLOCK - x.shape[1]
    return functional.pad(x, (0, 0, 0, missing)) if missing > 0 else x


def indexer_kl(scores: Tensor, attention: Tensor, kept: Tensor) -> Tensor:
    """Measure how far the index scores are from what attention looked at (section 2.1, eq. 3 and 4).

    KL(p || softmax(I)) over the kept keys of each query, where p is the attention summed over heads and scaled to sum
    one, without gradient. Written with log-softmax, so the gradient at the scores is exactly softmax(I) - p; forms
    that divide by softmax(I) + eps suppress it where it matters.

    Args:
        scores: Index scores, [..., S].
        attention: Attention probabilities of the same keys, summed over heads, [..., S].
        kept: Kept keys, bool [..., S]: all visible ones in the dense warm-up, the selected ones later.

    Returns:
        Divergence per query in nats, [...]; 0, and without gradient, for a query without any attention or key.
    """
    target = at_least_float32(attention.detach()).masked_fill(~kept, 0.0)
    target = target / target.sum(-1, keepdim=True).clamp(min=torch.finfo(target.dtype).tiny)
    # A row of minus infinities has no softmax, and NaN times zero is NaN: a query without keys keeps its scores.
    log_index = (
        scores.masked_fill(~kept & kept.any(-1, keepdim=True), float("-inf")).log_softmax(-1).masked_fill(~kept, 0.0)
    )
    return (torch.xlogy(target, target) - target * log_index).sum(-1)
