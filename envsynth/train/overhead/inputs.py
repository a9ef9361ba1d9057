"""Inputs of one length: random, but correlated, so that neighbours select much the same keys, as trained indexers' do.

Queries and keys of the indexer drift: a direction is drawn every `period` tokens, tokens between two of them have the
directions' mixture by distance, and each token adds noise of its own. The selections are those of `index_select` on these;
nothing about them is made up. How many keys neighbours share is measured and stands in the record (our own indexers,
trained on 8,192 tokens, share six tenths: `overlap` in `benchmarks/results/dsa-fidelity.json`).

Shape letters: B sequences (one), T tokens, H heads, C latent with its rotary part, R its first `rank` numbers, I indexer
heads, J indexer head width, K selected keys, N slots of a decode step, S positions of a slot.
"""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from envsynth.kernels.indexer import ScaledKeys, index_select
from envsynth.kernels.sparse_attention import configs
from envsynth.policy.presets import PRESETS
from envsynth.train.overhead.config import OverheadConfig

EIGHT_BITS = torch.float8_e4m3fn
LARGEST = 448.0
"""Largest number of `float8_e4m3fn`."""
SAMPLED_TILES = 256
"""Tiles whose selections are compared."""


class Sizes(NamedTuple):
    """Heads and widths of a layer."""

    heads: int
    """Attention heads, H."""
    rank: int
    """Width of the latent without its rotary part, R."""
    rope: int
    """Width of the rotary part."""
    nope: int
    """Width of a head's key without position, where latents are expanded."""
    value: int
    """Width of a head's value, where latents are expanded."""
    index_heads: int
    """Indexer heads, I."""
    index_width: int
    """Indexer head width, J."""

    @property
    def scale(self) -> float:
        """Factor on attention logits."""
        return (self.nope + self.rope) ** -0.5


class Indexed(NamedTuple):
    """What the indexer reads."""

    query_BTIJ: Tensor
    """Queries, [B, T, I, J]."""
    key_BTJ: Tensor | ScaledKeys
    """Keys, [B, T, J]."""
    weight_BTI: Tensor
    """Head weights, float32 [B, T, I]."""


class Decoding(NamedTuple):
    """A decode step: one token per slot."""

    query_NIJ: Tensor
    """Queries of the indexer, [N, I, J]."""
    key_NSJ: Tensor
    """Its cached keys, [N, S, J]."""
    weight_NI: Tensor
    """Its head weights, float32 [N, I]."""
    query_NHC: Tensor
    """Queries of the attention, [N, H, C]."""
    latent_NSC: Tensor
    """Cached latents, [N, S, C]."""
    rows_N: Tensor
    """Slot of each row, int64 [N]."""
    lengths_N: Tensor
    """Keys that each row sees, int64 [N]."""


def sizes_of(preset: str) -> Sizes:
    """Give heads and widths of a preset.

    Args:
        preset: Its name.

    Returns:
        The sizes.
    """
    config = PRESETS[preset](512)
    attention, indexer = config.attention, config.indexer
    return Sizes(
        heads=attention.num_attention_heads,
        rank=attention.kv_lora_rank,
        rope=attention.qk_rope_head_dim,
        nope=attention.qk_nope_head_dim,
        value=attention.v_head_dim,
        index_heads=indexer.index_n_heads,
        index_width=indexer.index_head_dim,
    )


class Inputs:
    """Tensors of one preset and length, each drawn when it is first asked for.

    Args:
        config: The settings.
        preset: Name of the preset.
        length: Tokens T.
    """

    def __init__(self, config: OverheadConfig, preset: str, length: int) -> None:
        self.config, self.preset, self.length = config, preset, length
        self.sizes = sizes_of(preset)
        self.device = torch.device(config.device)
        self.dtype: torch.dtype = getattr(torch, config.precision)
        self._selections: dict[int, tuple[Tensor, Tensor]] = {}

    def normal(self, name: str, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Draw independent numbers; equal names give equal numbers.

        Args:
            name: What is drawn.
            *shape: Sizes.
            dtype: Type; None for the settings'.

        Returns:
            Normal numbers.
        """
        text = f"dsa-overhead/{self.config.seed}/{self.preset}/{self.length}/{name}"
        seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest())
        generator = torch.Generator(self.device).manual_seed(seed)
        return torch.randn(*shape, generator=generator, device=self.device, dtype=dtype or self.dtype)

    @cached_property
    def index(self) -> Indexed:
        """Drifting queries, keys and weights of the indexer."""
        heads, width, noise = self.sizes.index_heads, self.sizes.index_width, self.config.query_noise
        query = self._drift("index queries", heads * width, noise).unflatten(-1, (heads, width))
        key = self._drift("index keys", width, self.config.key_noise)
        weight = self._drift("index weights", heads, noise) * (heads * width) ** -0.5
        return Indexed(query.to(self.dtype), key.to(self.dtype), weight)

    @cached_property
    def index_eight(self) -> Indexed:
        """The same in eight bits: a scale for each query and head, in the weights, and one for each key."""
        query, key, weight = self.index
        assert isinstance(key, Tensor)
        query_scale_BTI = query.float().abs().amax(-1).clamp(min=1e-12) / LARGEST
        key_scale_BT = key.float().abs().amax(-1).clamp(min=1e-12) / LARGEST
        values = ScaledKeys((key.float() / key_scale_BT[..., None]).to(EIGHT_BITS), key_scale_BT)
        return Indexed((query.float() / query_scale_BTI[..., None]).to(EIGHT_BITS), values, weight * query_scale_BTI)

    @cached_property
    def core(self) -> tuple[Tensor, Tensor]:
        """Queries [B, T, H, C] and latents [B, T, C] of the attention."""
        width = self.sizes.rank + self.sizes.rope
        query = self.normal("queries", 1, self.length, self.sizes.heads, width)
        return query, self.normal("latents", 1, self.length, width)

    @cached_property
    def gradient(self) -> Tensor:
        """Gradient at the result of the attention, [B, T, H, R]."""
        return self.normal("gradient", 1, self.length, self.sizes.heads, self.sizes.rank)

    @cached_property
    def decoding(self) -> Decoding:
        """A decode step of all slots at this length."""
        sizes, slots, length = self.sizes, self.config.slots, self.length
        index = (sizes.index_heads, sizes.index_width)
        width = sizes.rank + sizes.rope
        return Decoding(
            query_NIJ=self.normal("decode index queries", slots, *index),
            key_NSJ=self.normal("cached index keys", slots, length, sizes.index_width),
            weight_NI=self.normal("decode index weights", slots, sizes.index_heads, dtype=torch.float32),
            query_NHC=self.normal("decode queries", slots, sizes.heads, width),
            latent_NSC=self.normal("cached latents", slots, length, width),
            rows_N=torch.arange(slots, device=self.device),
            lengths_N=torch.full((slots,), length, device=self.device),
        )

    def selection(self, k: int) -> tuple[Tensor, Tensor]:
        """Select by the indexer, once.

        Args:
            k: Keys kept per query.

        Returns:
            Keys, int32 [B, T, K], padded with -1, and their scores, float32 [B, T, K].
        """
        if k not in self._selections:
            self._selections[k] = index_select(*self.index, k)
        return self._selections[k]

    def _drift(self, name: str, width: int, noise: float) -> Tensor:
        """Draw numbers that drift, float32 [B, T, width]."""
        period = self.config.period
        anchors_AX = self.normal(f"{name}, anchors", self.length // period + 2, width, dtype=torch.float32)
        place_T = torch.arange(self.length, device=self.device)
        share_T1 = (place_T % period / period)[:, None]
        first_T = place_T // period
        mixed_TX = anchors_AX[first_T] * (1 - share_T1) + anchors_AX[first_T + 1] * share_T1
        # Between two directions their mixture is shorter than either.
        mixed_TX /= (share_T1.square() + (1 - share_T1).square()).sqrt()
        return (mixed_TX + noise * self.normal(name, self.length, width, dtype=torch.float32))[None]


def shared_keys(topk_BTK: Tensor, heads: int) -> dict[str, float]:
    """Measure how much neighbouring queries select the same keys, on tiles spread over the queries that see enough.

    Args:
        topk_BTK: Selected keys of one sequence, int32 [1, T, K], padded with -1.
        heads: Attention heads; with K they say how many queries a tile has.

    Returns:
        `neighbour_share`: mean share of a query's keys that the query before selected as well; `tile_queries`: queries
        of a tile; `tile_keys`: mean number of distinct keys of a tile.
    """
    topk_TK = topk_BTK[0]
    length, k = topk_TK.shape
    queries = configs.queries_per_tile(heads, k)
    full = range(-(-k // queries), length // queries)  # tiles whose queries all see at least k keys
    tiles = list(full)[:: max(1, len(full) // SAMPLED_TILES)] or [length // queries - 1]
    first_P = torch.tensor(tiles, device=topk_TK.device) * queries
    rows_PQ = (first_P[:, None] + torch.arange(queries, device=topk_TK.device)).clamp(0, length - 1)
    keys_PE = topk_TK[rows_PQ].flatten(1).sort(-1).values
    fresh_PE = torch.cat((torch.ones_like(keys_PE[:, :1], dtype=torch.bool), keys_PE.diff(dim=1) != 0), dim=1)
    own_PK, before_PK = topk_TK[first_P.clamp(min=1)], topk_TK[first_P.clamp(min=1) - 1]
    both_PE = torch.cat((own_PK, before_PK), dim=1).sort(-1).values
    same_P = ((both_PE.diff(dim=1) == 0) & (both_PE[:, 1:] >= 0)).sum(1) / (own_PK >= 0).sum(1).clamp(min=1)
    return {
        "neighbour_share": float(same_P.mean()),
        "tile_queries": float(queries),
        "tile_keys": float((fresh_PE & (keys_PE >= 0)).sum(1).float().mean()),
    }
