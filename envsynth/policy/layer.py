"""One decoder layer: attention and a feed-forward half, each on normalised input and added to the residual.

Shape letters: B sequences, T tokens, N rows of a decode step, D model, A active experts per token, K selected keys, C
latent, R rotary width, J indexer head width.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from envsynth.policy.attention import AttentionMode, AttentionOutput, LatentAttention, Wants
from envsynth.policy.config import PolicyConfig
from envsynth.policy.experts import GatedMLP, MixtureOfExperts
from envsynth.policy.packing import Layout
from envsynth.policy.precision import RMSNorm


class LayerOutput(NamedTuple):
    """What one layer gives; absent parts are None."""

    x_BTD: Tensor
    """Hidden states, [B, T, D]."""
    attention: AttentionOutput
    """What attention gave beside them."""
    routed_BTA: Tensor | None
    """Experts that ran, [B, T, A]; None in a dense layer."""


class DecoderLayer(nn.Module):
    """Attention and a feed-forward half, each on normalised input and added to the residual.

    Args:
        config: The policy's configuration.
        is_dense: Whether the feed-forward half is one network instead of experts.
    """

    def __init__(self, config: PolicyConfig, *, is_dense: bool) -> None:
        super().__init__()
        self.self_attn = LatentAttention(config)
        width = config.intermediate_size
        self.mlp = GatedMLP(config.hidden_size, width) if is_dense else MixtureOfExperts(config)
        self.input_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(
        self,
        x_BTD: Tensor,
        layout: Layout,
        wants: Wants,
        mode: AttentionMode,
        replay_BTK: Tensor | None = None,
        replay_BTA: Tensor | None = None,
    ) -> LayerOutput:
        """Apply the layer to whole sequences.

        Args:
            x_BTD: Hidden states, [B, T, D].
            layout: Positions and documents.
            wants: What to do.
            mode: How attention is computed.
            replay_BTK: Recorded keys, or None.
            replay_BTA: Recorded experts, or None.

        Returns:
            Hidden states and what was chosen.
        """
        attention = self.self_attn(self.input_layernorm(x_BTD), layout, wants, mode, replay_BTK)
        x_BTD, routed = self._feed_forward(x_BTD + attention.out_BTD, replay_BTA, wants.kernels)
        return LayerOutput(x_BTD, attention, routed)

    def decode(
        self,
        x_ND: Tensor,
        angles: tuple[Tensor, Tensor],
        cache: tuple[Tensor, Tensor],
        where: tuple[Tensor, Tensor],
        mode: AttentionMode = "mha",
        kernels: bool = False,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Apply the layer to one new token per row.

        Args:
            x_ND: Hidden states, [N, D].
            angles: Cosines and sines, [N, R/2] each.
            cache: Latents and indexer keys of this layer; updated.
            where: Slot and position of each row, int64 [N] each.
            mode: How attention is computed: "kernels", or all others alike.
            kernels: Run the experts through `envsynth.kernels`.

        Returns:
            Hidden states [N, D], selected keys [N, K], experts that ran [N, A] or None.
        """
        out_ND, topk_NK = self.self_attn.decode(
            self.input_layernorm(x_ND),
            *angles,
            latent_cache=cache[0],
            key_cache=cache[1],
            rows_N=where[0],
            positions_N=where[1],
            mode=mode,
        )
        x_ND, routed_NA = self._feed_forward(x_ND + out_ND, None, kernels)
        return x_ND, topk_NK, routed_NA

    def _feed_forward(self, x: Tensor, replay: Tensor | None, kernels: bool) -> tuple[Tensor, Tensor | None]:
        """Apply the second half to [..., D]."""
        normed = self.post_attention_layernorm(x)
        if isinstance(self.mlp, MixtureOfExperts):
            out, routed = self.mlp(normed, replay, kernels)
            return x + out, routed
        return x + self.mlp(normed), None
