"""Multi-token prediction: layers that predict tokens after the next one (DeepSeek-V3, arXiv:2412.19437, section 2.2).

Shape letters: B sequences, T tokens, D model, P prediction layers, V vocabulary, A active experts per token.

Layer p reads, at position t, the hidden state of the layer before and the embedding of token t+1+p, and predicts token
t+2+p with the policy's own head. The layers train the trunk to look further ahead; playing needs none of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from envsynth.policy.attention import AttentionMode, Wants
from envsynth.policy.config import PolicyConfig
from envsynth.policy.layer import DecoderLayer, LayerOutput
from envsynth.policy.packing import Layout
from envsynth.policy.precision import RMSNorm


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions:
    """What the prediction layers give."""

    logits: Tensor | None = None
    """Logits of the token after next, the one after that, and so on, float32 or wider [B, T, P, V]; None where kernels
    scored the tokens instead."""
    log_probs_BTP: Tensor | None = None
    """Log-probabilities of those tokens (nats), [B, T, P], 0 where there is none; None without a request."""
    valid_BTP: Tensor
    """Whether that token exists and belongs to the same document, bool [B, T, P]."""
    routed_experts: Tensor
    """Experts that ran, int32 [B, T, P, A]; -1 at padding."""

    @property
    def logits_BTPV(self) -> Tensor:  # noqa: N802 - a shape, as in all names of tensors
        """Logits, [B, T, P, V].

        Raises:
            ValueError: none were formed.
        """
        if self.logits is None:
            raise ValueError("no logits were formed: kernels scored the tokens; read log_probs_BTP")
        return self.logits


class PredictionLayer(nn.Module):
    """Joins hidden state and embedding, and applies one decoder layer.

    Args:
        config: The policy's configuration.
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        width, eps = config.hidden_size, config.rms_norm_eps
        self.enorm = RMSNorm(width, eps=eps)
        self.hnorm = RMSNorm(width, eps=eps)
        self.eh_proj = nn.Linear(2 * width, width, bias=False)
        self.layer = DecoderLayer(config, is_dense=False)
        self.norm = RMSNorm(width, eps=eps)

    def forward(
        self, embedding_BTD: Tensor, hidden_BTD: Tensor, layout: Layout, wants: Wants, mode: AttentionMode
    ) -> tuple[Tensor, LayerOutput]:
        """Apply the layer.

        Args:
            embedding_BTD: Embeddings of the tokens ahead, [B, T, D].
            hidden_BTD: Normalised hidden states of the layer before, [B, T, D].
            layout: Positions and documents.
            wants: What attention is to do.
            mode: How it is computed.

        Returns:
            Normalised hidden states for the head and the next layer, [B, T, D], and what the decoder layer gave.
        """
        joined = torch.cat((self.enorm(embedding_BTD), self.hnorm(hidden_BTD)), dim=-1)
        output = self.layer(self.eh_proj(joined), layout, wants, mode)
        return self.norm(output.x_BTD), output


def tokens_ahead(tokens_BT: Tensor, mask_BT: Tensor, starts_BT: Tensor | None, steps: int) -> tuple[Tensor, Tensor]:
    """Give the tokens that come so many places later in the same document.

    Args:
        tokens_BT: Token ids, int64 [B, T].
        mask_BT: True at real tokens, bool [B, T].
        starts_BT: Place of each token's document's first token, int [B, T], or None.
        steps: Places (count, >= 1).

    Returns:
        Token ids, int64 [B, T], and whether there is such a token, bool [B, T]; elsewhere the id is the last token's.
    """
    length = tokens_BT.shape[1]
    places_T = torch.arange(length, device=tokens_BT.device) + steps
    inside_T = places_T.clamp(max=length - 1)
    there_BT = mask_BT & mask_BT[:, inside_T] & (places_T < length)
    if starts_BT is not None:
        there_BT = there_BT & (starts_BT == starts_BT[:, inside_T])
    return tokens_BT[:, inside_T], there_BT
