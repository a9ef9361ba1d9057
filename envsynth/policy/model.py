"""The policy: a decoder of sparse-attention layers with routed experts, in plain PyTorch.

Shape letters: B sequences, T tokens, D model, L layers, M layers with experts, A active experts per token, K selected
keys, V vocabulary, N rows of a decode step, C latent, R rotary width, J indexer head width, S positions of a cache.

What was chosen at rollout, experts and keys, comes back as explicit arguments of `forward` ("Keep Routing",
arXiv:2512.02556, section 3.1, and the same for the indexer, whose top-k is a second router). There is no recorder and
no cursor: recomputing a layer in the backward pass reads the same slice again, by construction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from envsynth.policy.attention import LatentAttention
from envsynth.policy.config import PolicyConfig
from envsynth.policy.experts import GatedMLP, MixtureOfExperts, Router, expert_load
from envsynth.policy.indexer import at_least_float32
from envsynth.policy.replay import check_indexer_topk, check_routed_experts, check_tokens
from envsynth.policy.rope import rope_angles, rope_frequencies

EMBEDDING_STD = 0.5
"""Standard deviation of fresh embeddings."""
BIAS_RATE = 1e-3
"""Step of the load-balancing bias (arXiv:2412.19437, section 4.2)."""


@dataclass(frozen=True, kw_only=True)
class PolicyOutput:
    """What one forward pass gives."""

    logits_BTV: Tensor
    """Logits of the next token, float32 (float64 in a float64 policy) [B, T, V]; meaningless at padding."""
    routed_experts: Tensor
    """Experts that ran, int32 [B, T, M, A]; -1 at padding. M counts layers with experts only."""
    indexer_topk: Tensor | None
    """Positions that attention read, relative to the sequence, int32 [B, T, L, K], ascending, padded with -1; None
    when `dense` was asked for, because then nothing was selected."""
    indexer_kl: Tensor | None
    """Indexer loss in nats, mean over layers, [B, T], 0 at padding; None unless asked for."""


class LatentCache(NamedTuple):
    """What a policy remembers of earlier tokens."""

    latent_LNSC: Tensor
    """Latents with their rotated key part, [L, slots, S, C+R]."""
    index_key_LNSJ: Tensor
    """Indexer keys, [L, slots, S, J]."""


class LayerOutput(NamedTuple):
    """What one layer gives; absent parts are None."""

    x_BTD: Tensor
    """Hidden states, [B, T, D]."""
    latent_BTC: Tensor
    """Latents, [B, T, C+R]."""
    index_key_BTJ: Tensor
    """Indexer keys, [B, T, J]."""
    topk_BTK: Tensor | None
    """Selected keys, [B, T, K]."""
    routed_BTA: Tensor | None
    """Experts that ran, [B, T, A]; None in a dense layer."""
    kl_BT: Tensor | None
    """Indexer loss, [B, T]."""


class DecoderLayer(nn.Module):
    """Attention and a feed-forward half, each on normalised input and added to the residual.

    Args:
        config: The policy's configuration.
        layer: Index of the layer, from 0.
    """

    def __init__(self, config: PolicyConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = LatentAttention(config)
        is_dense = layer < config.first_k_dense_replace
        width = config.intermediate_size
        self.mlp = GatedMLP(config.hidden_size, width) if is_dense else MixtureOfExperts(config)
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)

    def forward(
        self,
        x_BTD: Tensor,
        cos: Tensor,
        sin: Tensor,
        replay_BTK: Tensor | None,
        replay_BTA: Tensor | None,
        flags: tuple[bool, bool, bool],
    ) -> LayerOutput:
        """Apply the layer to whole sequences.

        Args:
            x_BTD: Hidden states, [B, T, D].
            cos: Cosines of positions 0..T-1, [T, R/2].
            sin: Sines of positions 0..T-1, [T, R/2].
            replay_BTK: Recorded keys, or None.
            replay_BTA: Recorded experts, or None.
            flags: Whether to score live rows, to attend densely, and to give the indexer's loss.

        Returns:
            Hidden states and what was chosen.
        """
        score_live, dense, with_kl = flags
        attention = self.self_attn(
            self.input_layernorm(x_BTD),
            cos,
            sin,
            replay_BTK=replay_BTK,
            score_live=score_live,
            dense=dense,
            with_kl=with_kl,
        )
        x_BTD, routed = self._feed_forward(x_BTD + attention.out_BTD, replay_BTA)
        return LayerOutput(
            x_BTD, attention.latent_BTC, attention.index_key_BTJ, attention.topk_BTK, routed, attention.kl_BT
        )

    def decode(
        self, x_ND: Tensor, cos: Tensor, sin: Tensor, cache: tuple[Tensor, Tensor], where: tuple[Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Apply the layer to one new token per row.

        Args:
            x_ND: Hidden states, [N, D].
            cos: Cosines, [N, R/2].
            sin: Sines, [N, R/2].
            cache: Latents and indexer keys of this layer; updated.
            where: Slot and position of each row, int64 [N] each.

        Returns:
            Hidden states [N, D], selected keys [N, K], experts that ran [N, A] or None.
        """
        out_ND, topk_NK = self.self_attn.decode(
            self.input_layernorm(x_ND),
            cos,
            sin,
            latent_cache=cache[0],
            key_cache=cache[1],
            rows_N=where[0],
            positions_N=where[1],
        )
        x_ND, routed_NA = self._feed_forward(x_ND + out_ND, None)
        return x_ND, topk_NK, routed_NA

    def _feed_forward(self, x: Tensor, replay: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Apply the second half to [..., D]."""
        normed = self.post_attention_layernorm(x)
        if isinstance(self.mlp, MixtureOfExperts):
            out, routed = self.mlp(normed, replay)
            return x + out, routed
        return x + self.mlp(normed), None


class Policy(nn.Module):
    """The trained model: token ids in, logits of the next token out.

    Args:
        config: What it is made of.
        seed: Seed of the fresh weights. Output projections and the head start at zero, so a fresh policy is uniform.
        checkpoint_layers: Recompute each layer in the backward pass instead of keeping its activations.
    """

    frequencies: Tensor
    """Rotary angle per position, [R/2]."""

    def __init__(self, config: PolicyConfig, *, seed: int = 0, checkpoint_layers: bool = False) -> None:
        super().__init__()
        self.config = config
        self.checkpoint_layers = checkpoint_layers
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, layer) for layer in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        attention = config.attention
        frequencies = rope_frequencies(attention.qk_rope_head_dim, attention.rope_theta)
        self.register_buffer("frequencies", frequencies, persistent=False)
        _fill(self, torch.Generator().manual_seed(seed))

    def forward(
        self,
        tokens_BT: Tensor,
        *,
        mask_BT: Tensor | None = None,
        routed_experts_BTMA: Tensor | None = None,
        indexer_topk_BTLK: Tensor | None = None,
        dense: bool = False,
        with_indexer_kl: bool = False,
    ) -> PolicyOutput:
        """Run whole sequences.

        Args:
            tokens_BT: Token ids, int64 [B, T]; any valid id at padding.
            mask_BT: True at real tokens, bool [B, T]; padding stands to the right. None: every token is real.
            routed_experts_BTMA: Recorded experts, int [B, T, M, A]. Only the set is replayed: gates are live. A row
                of -1 is routed live.
            indexer_topk_BTLK: Recorded keys, int [B, T, L, K], positions within the sequence, ascending, padded with
                -1. A row of -1 is selected live.
            dense: Read every visible key (the indexer's warm-up). Up to index_topk tokens this changes nothing.
            with_indexer_kl: Also give the indexer's loss.

        Returns:
            Logits, and what was chosen, which a later call can replay.

        Raises:
            ValueError: An argument has a wrong shape or impossible values, or `dense` meets recorded keys.
        """
        shape = (tokens_BT.shape[0], tokens_BT.shape[-1])
        check_tokens(tokens_BT, mask_BT, self.config)
        if routed_experts_BTMA is not None:
            check_routed_experts(routed_experts_BTMA, shape, self.config)
        if indexer_topk_BTLK is not None:
            if dense:
                raise ValueError("dense attention reads every key: it cannot also replay recorded keys")
            check_indexer_topk(indexer_topk_BTLK, shape, self.config)
        if mask_BT is None:
            mask_BT = torch.ones(shape, dtype=torch.bool, device=tokens_BT.device)
        flags = (_any_live(indexer_topk_BTLK, mask_BT), dense, with_indexer_kl)
        logits_BTV, layers = self._run(tokens_BT, routed_experts_BTMA, indexer_topk_BTLK, flags)
        return self._output(logits_BTV, layers, mask_BT)

    @torch.no_grad()
    def prefill(self, tokens_T: Tensor) -> tuple[PolicyOutput, LatentCache]:
        """Run one sequence and keep what decoding needs.

        Args:
            tokens_T: Token ids, int64 [T].

        Returns:
            The output with B = 1, and a cache of one slot and T positions.

        Raises:
            ValueError: A token id is outside the vocabulary, or the sequence is too long.
        """
        tokens_BT = tokens_T[None]
        check_tokens(tokens_BT, None, self.config)
        logits_BTV, layers = self._run(tokens_BT, None, None, (True, False, False))
        output = self._output(logits_BTV, layers, torch.ones_like(tokens_BT, dtype=torch.bool))
        latent = torch.stack([layer.latent_BTC for layer in layers])
        return output, LatentCache(latent, torch.stack([layer.index_key_BTJ for layer in layers]))

    @torch.no_grad()
    def decode(
        self, tokens_N: Tensor, cache: LatentCache, rows_N: Tensor, positions_N: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run one new token per row against the rows' caches, and add it to them.

        Args:
            tokens_N: Token ids, int64 [N].
            cache: Caches of all slots; updated.
            rows_N: Slot of each row, int64 [N]; no slot twice, unless with equal token and position.
            positions_N: Position of each token, int64 [N].

        Returns:
            Logits, float32 [N, V]; experts that ran, int32 [N, M, A]; selected keys, int32 [N, L, K].
        """
        cos, sin = rope_angles(positions_N, self.frequencies)
        x_ND, routed, selected = self.embed_tokens(tokens_N), [], []
        for index, layer in enumerate(self._decoder_layers()):
            parts = (cache.latent_LNSC[index], cache.index_key_LNSJ[index])
            x_ND, topk_NK, routed_NA = layer.decode(x_ND, cos, sin, parts, (rows_N, positions_N))
            selected.append(topk_NK)
            if routed_NA is not None:
                routed.append(routed_NA)
        logits_NV = self._head(x_ND)
        shape = (len(tokens_N), 0, self.config.experts.num_experts_per_tok)
        none = torch.empty(shape, dtype=torch.int32, device=tokens_N.device)
        routed_NMA = torch.stack(routed, dim=1) if routed else none
        return logits_NV, routed_NMA, torch.stack(selected, dim=1)

    def new_cache(self, n_slots: int, length: int) -> LatentCache:
        """Make an empty cache.

        Args:
            n_slots: Slots (count).
            length: Positions per slot (tokens).

        Returns:
            The cache, zeros in the policy's dtype.
        """
        attention, layers = self.config.attention, self.config.num_hidden_layers
        width = attention.kv_lora_rank + attention.qk_rope_head_dim
        like = self.embed_tokens.weight
        return LatentCache(
            like.new_zeros(layers, n_slots, length, width, requires_grad=False),
            like.new_zeros(layers, n_slots, length, self.config.indexer.index_head_dim, requires_grad=False),
        )

    def _run(
        self,
        tokens_BT: Tensor,
        replay_BTMA: Tensor | None,
        replay_BTLK: Tensor | None,
        flags: tuple[bool, bool, bool],
    ) -> tuple[Tensor, list[LayerOutput]]:
        """Run all layers on checked arguments."""
        positions = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
        cos, sin = rope_angles(positions, self.frequencies)
        x_BTD, outputs = self.embed_tokens(tokens_BT), []
        for index, layer in enumerate(self._decoder_layers()):
            # Recorded experts count layers with experts only, so leading dense layers shift the index.
            moe = index - self.config.first_k_dense_replace
            experts_BTA = None if replay_BTMA is None or moe < 0 else replay_BTMA[:, :, moe]
            keys_BTK = None if replay_BTLK is None else replay_BTLK[:, :, index]
            arguments = (x_BTD, cos, sin, keys_BTK, experts_BTA, flags)
            if self.checkpoint_layers and torch.is_grad_enabled():
                output = checkpoint(layer, *arguments, use_reentrant=False, preserve_rng_state=False)
            else:
                output = layer(*arguments)
            x_BTD = output.x_BTD
            outputs.append(output)
        return self._head(x_BTD), outputs

    def _decoder_layers(self) -> list[DecoderLayer]:
        """Give the layers with their type, which `nn.ModuleList` forgets."""
        return [layer for layer in self.layers if isinstance(layer, DecoderLayer)]

    def _head(self, x: Tensor) -> Tensor:
        """Give float32 logits: the difference of two log-probabilities must not be the head's rounding."""
        return nn.functional.linear(at_least_float32(self.norm(x)), at_least_float32(self.lm_head.weight))

    def _output(self, logits_BTV: Tensor, layers: list[LayerOutput], mask_BT: Tensor) -> PolicyOutput:
        """Join the layers' choices, with -1 and 0 at padding."""
        routed = [layer.routed_BTA for layer in layers if layer.routed_BTA is not None]
        shape = (*mask_BT.shape, 0, self.config.experts.num_experts_per_tok)
        none = torch.empty(shape, dtype=torch.int32, device=mask_BT.device)
        routed_BTMA = torch.stack(routed, dim=2) if routed else none
        padding_BT11 = ~mask_BT[:, :, None, None]
        topk = [layer.topk_BTK for layer in layers if layer.topk_BTK is not None]
        losses = [layer.kl_BT for layer in layers if layer.kl_BT is not None]
        return PolicyOutput(
            logits_BTV=logits_BTV,
            routed_experts=routed_BTMA.masked_fill(padding_BT11, -1),
            indexer_topk=torch.stack(topk, dim=2).masked_fill(padding_BT11, -1) if topk else None,
            indexer_kl=torch.stack(losses).mean(0).masked_fill(~mask_BT, 0.0) if losses else None,
        )


@torch.no_grad()
def balance_experts(policy: Policy, routed_experts_BTMA: Tensor, rate: float = BIAS_RATE) -> Tensor:
    """Move each router's correction bias one step towards equal load, without any loss.

    b += rate * sign(mean load - load) (arXiv:2412.19437, section 2.1.2). An explicit call, never part of `forward`:
    during reinforcement learning the bias stays frozen.

    Args:
        policy: Its routers are changed.
        routed_experts_BTMA: Experts that ran, int [B, T, M, A]; rows of -1 are padding and do not count.
        rate: Size of the step.

    Returns:
        The load that was used: tokens per layer and expert, int64 [M, E].
    """
    load_ME = expert_load(routed_experts_BTMA, policy.config.experts.n_routed_experts)
    routers = [module for module in policy.modules() if isinstance(module, Router)]
    for router, load_E in zip(routers, load_ME.to(torch.float32), strict=True):
        bias = router.e_score_correction_bias
        bias += rate * torch.sign(load_E.mean() - load_E).to(bias.device)
    return load_ME


def prepare_cpu(threads: int | None = None) -> None:
    """Set this process up for a policy on the CPU: flush denormal numbers to zero, and use so many threads.

    A sharp softmax makes denormals, which slow a CPU down about ten times. Both settings belong to the process and
    are part of bit-exactness, so the program that owns the process calls this once; importing sets nothing.

    Args:
        threads: Threads for tensor operations (count, >= 1); None leaves their number as it is.

    Raises:
        ValueError: threads < 1.
        RuntimeError: This CPU cannot flush denormals.
    """
    if threads is not None:
        if threads < 1:
            raise ValueError(f"threads must be >= 1, got {threads}")
        torch.set_num_threads(threads)
    if not torch.set_flush_denormal(True):
        raise RuntimeError("this CPU cannot flush denormal numbers; without it training may be ten times slower")


def _any_live(replay_BTLK: Tensor | None, mask_BT: Tensor) -> bool:
    """Whether a real token has a layer whose keys are selected live."""
    return replay_BTLK is None or bool(((replay_BTLK[..., 0] < 0) & mask_BT[..., None]).any())


@torch.no_grad()
def _fill(policy: Policy, generator: torch.Generator) -> None:
    """Give a policy fresh weights: deviation (3 * inputs)^-0.5, and zero where a residual branch ends and in the head."""
    for name, parameter in policy.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight", "experts.down_proj")):
            parameter.zero_()
        elif name == "embed_tokens.weight":
            parameter.normal_(std=EMBEDDING_STD, generator=generator)
        elif parameter.ndim >= 2:
            parameter.normal_(std=(3 * parameter.shape[-1]) ** -0.5, generator=generator)
