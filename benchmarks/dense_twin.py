"""A plain dense decoder with as many parameters as a policy has active ones: the baseline that needs no new idea.

Rotary positions, multi-head attention through the library's fused kernel, SwiGLU, RMSNorm; the policy's width, layers,
heads and vocabulary. The width of its feed-forward half makes up for what the policy's experts and indexers have.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from envsynth.policy.config import PolicyConfig
from envsynth.policy.experts import GatedMLP, RoutedExperts
from envsynth.policy.model import Policy
from envsynth.policy.rope import rope_angles, rope_frequencies, rotate_halves


class DenseLayer(nn.Module):
    """Attention over every earlier token, and one feed-forward half.

    Args:
        config: The policy's configuration, for width and heads.
        width: Width of the feed-forward half.
    """

    def __init__(self, config: PolicyConfig, width: int) -> None:
        super().__init__()
        dim, self.heads = config.hidden_size, config.attention.num_attention_heads
        self.qkv_proj = nn.Linear(dim, 3 * dim, bias=False)
        self.o_proj = nn.Linear(dim, dim, bias=False)
        self.mlp = GatedMLP(dim, width)
        self.input_layernorm = nn.RMSNorm(dim, eps=config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(dim, eps=config.rms_norm_eps)

    def forward(self, x_BTD: Tensor, cos: Tensor, sin: Tensor) -> Tensor:  # noqa: N803 - shapes
        """Apply the layer to hidden states [B, T, D]."""
        parts = self.qkv_proj(self.input_layernorm(x_BTD)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        turned = rotate_halves(parts[:2], cos, sin)
        read = functional.scaled_dot_product_attention(turned[0], turned[1], parts[2], is_causal=True)
        x_BTD = x_BTD + self.o_proj(read.transpose(1, 2).flatten(2))  # noqa: N806
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))


class DenseTwin(nn.Module):
    """The whole baseline.

    Args:
        config: Configuration of the policy that it stands beside.
        width: Width of the feed-forward halves.
    """

    frequencies: Tensor
    """Rotary angle per position, [head width / 2]."""

    def __init__(self, config: PolicyConfig, width: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DenseLayer(config, width) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        head = config.hidden_size // config.attention.num_attention_heads
        self.register_buffer("frequencies", rope_frequencies(head, config.attention.rope_theta), persistent=False)

    def forward(self, tokens_BT: Tensor) -> Tensor:  # noqa: N803 - shapes
        """Give logits [B, T, V] for token ids [B, T]."""
        cos, sin = rope_angles(torch.arange(tokens_BT.shape[1]), self.frequencies)
        x_BTD = self.embed_tokens(tokens_BT)  # noqa: N806
        for layer in self.layers:
            x_BTD = layer(x_BTD, cos, sin)  # noqa: N806
        return self.lm_head(self.norm(x_BTD))


def count(module: nn.Module) -> int:
    """Count all parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


def active(policy: Policy) -> int:
    """Count the parameters that take part in one token: all but those of the experts that it does not choose."""
    sizes = policy.config.experts
    routed = sum(count(module) for module in policy.modules() if isinstance(module, RoutedExperts))
    return count(policy) - routed * (sizes.n_routed_experts - sizes.num_experts_per_tok) // sizes.n_routed_experts


def dense_twin(policy: Policy) -> DenseTwin:
    """Make the baseline whose parameters are as many as the policy's active ones, as nearly as its width allows.

    Raises:
        ValueError: Attention alone has more.
    """
    config = policy.config
    column = 3 * config.hidden_size * config.num_hidden_layers
    empty = count(DenseTwin(config, 1)) - column
    width = round((active(policy) - empty) / column)
    if width < 1:
        raise ValueError(f"a dense decoder without feed-forward halves has {empty} parameters, of {active(policy)}")
    return DenseTwin(config, width)
