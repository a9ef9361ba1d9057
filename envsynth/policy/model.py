"""The policy: a decoder of sparse-attention layers with routed experts, in plain PyTorch.

Shape letters: B sequences, T tokens, D model, L layers, M layers with experts, A active experts per token, K selected
keys, V vocabulary, N rows of a decode step, C latent, R rotary width, J indexer head width, S positions of a cache, P
prediction layers.

What was chosen at rollout, experts and keys, comes back as explicit arguments of `forward` ("Keep Routing",
arXiv:2512.02556, section 3.1, and the same for the indexer, whose top-k is a second router). There is no recorder and
no cursor: recomputing a layer in the backward pass reads the same slice again, by construction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from envsynth.policy.attention import AttentionMode, Wants
from envsynth.policy.config import PolicyConfig
from envsynth.policy.diagnostics import join_layers
from envsynth.policy.experts import Router, expert_load
from envsynth.policy.layer import DecoderLayer, LayerOutput
from envsynth.policy.output import PolicyOutput
from envsynth.policy.packing import Layout, check_starts, visible_keys
from envsynth.policy.precision import RMSNorm, float32_linear
from envsynth.policy.prediction import PredictionLayer, Predictions, tokens_ahead
from envsynth.policy.replay import check_indexer_topk, check_routed_experts, check_tokens
from envsynth.policy.rope import attention_frequencies, rope_angles
from envsynth.policy.scores import ScoreRequest, TokenScores, check_request, score_hidden, score_logits

EMBEDDING_STD = 0.5
"""Standard deviation of fresh embeddings."""
BIAS_RATE = 1e-3
"""Step of the load-balancing bias (arXiv:2412.19437, section 4.2)."""
FLOAT32_NAMES = ("lm_head.weight", "mlp.gate.weight", "e_score_correction_bias", "weights_proj.weight", "frequencies")
"""Endings of the weights that stay float32 in a half-precision policy: head, router, the indexer's head weights."""


class LatentCache(NamedTuple):
    """What a policy remembers of earlier tokens."""

    latent_LNSC: Tensor
    """Latents with their rotated key part, [L, slots, S, C+R]."""
    index_key_LNSJ: Tensor
    """Indexer keys, [L, slots, S, J]."""


class Policy(nn.Module):
    """The trained model: token ids in, logits of the next token out.

    Half precision (`policy.to(torch.bfloat16)`, or float32 weights under automatic mixed precision) leaves head, router,
    softmax and the indexer's sums in float32.

    Args:
        config: What it is made of.
        seed: Seed of the fresh weights. Output projections and the head start at zero, so a fresh policy is uniform.
        checkpoint_layers: Recompute each layer in the backward pass instead of keeping its activations.
        attention: How attention is computed; all ways give the same numbers up to rounding.
        kernels: Whether experts and scores of tokens run through `envsynth.kernels`. None: on a GPU, and with
            `attention="kernels"`. On a CPU that means their references.
    """

    frequencies: Tensor
    """Rotary angle per position, float32 [R/2]."""

    def __init__(
        self,
        config: PolicyConfig,
        *,
        seed: int = 0,
        checkpoint_layers: bool = False,
        attention: AttentionMode = "mha",
        kernels: bool | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.checkpoint_layers = checkpoint_layers
        self.attention_mode: AttentionMode = attention
        self.kernels = kernels
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            DecoderLayer(config, is_dense=layer < config.first_k_dense_replace)
            for layer in range(config.num_hidden_layers)
        )
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        if config.num_nextn_predict_layers:
            self.mtp_layers = nn.ModuleList(PredictionLayer(config) for _ in range(config.num_nextn_predict_layers))
        self.register_buffer("frequencies", attention_frequencies(config.attention), persistent=False)
        _fill(self, seed)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move and convert as any module, but leave the weights of `FLOAT32_NAMES` at least float32."""
        before = {name: item.data for name, item in _named(self) if name.endswith(FLOAT32_NAMES)}
        super()._apply(fn, recurse)
        for name, item in _named(self):
            if name in before and item.dtype in (torch.bfloat16, torch.float16):
                item.data = before[name].to(item.device)
        return self

    @property
    def uses_kernels(self) -> bool:
        """Whether experts and scores of tokens run through `envsynth.kernels`."""
        if self.kernels is not None:
            return self.kernels
        return self.attention_mode == "kernels" or self.embed_tokens.weight.is_cuda

    def forward(  # noqa: PLR0913 - what can be replayed and what can be asked for; all but the tokens by name
        self,
        tokens_BT: Tensor,
        *,
        mask_BT: Tensor | None = None,
        starts_BT: Tensor | None = None,
        routed_experts_BTMA: Tensor | None = None,
        indexer_topk_BTLK: Tensor | None = None,
        dense: bool = False,
        with_indexer_kl: bool = False,
        with_diagnostics: bool = False,
        with_predictions: bool = False,
        score: ScoreRequest | None = None,
    ) -> PolicyOutput:
        """Run whole sequences.

        Args:
            tokens_BT: Token ids, int64 [B, T]; any valid id at padding.
            mask_BT: True at real tokens, bool [B, T]; padding stands to the right. None: every token is real.
            starts_BT: Place of each token's document's first token, int64 [B, T] (`packing.pack`). None: a row is one
                document.
            routed_experts_BTMA: Recorded experts, int [B, T, M, A]. Only the set is replayed: gates are live. A row
                of -1 is routed live.
            indexer_topk_BTLK: Recorded keys, int [B, T, L, K], positions within the document, ascending, padded with
                -1. A row of -1 is selected live.
            dense: Read every visible key (the indexer's warm-up). Up to index_topk tokens this changes nothing.
            with_indexer_kl: Also give the indexer's loss.
            with_diagnostics: Also measure the selection against dense attention.
            with_predictions: Also run the prediction layers.
            score: Tokens to score (`scores.next_token_request`); the prediction layers' own follow from it. Where
                kernels score them (`uses_kernels`), no logits are formed.

        Returns:
            Logits or scores, and what was chosen, which a later call can replay.

        Raises:
            ValueError: An argument has a wrong shape or impossible values, `dense` meets recorded keys, or predictions
                are asked of a policy without prediction layers. A compiled policy checks no values.
            UnsupportedError: A kernel cannot take the policy's types or widths; the message names the setting.
        """
        shape = (tokens_BT.shape[0], tokens_BT.shape[-1])
        if dense and indexer_topk_BTLK is not None:
            raise ValueError("dense attention reads every key: it cannot also replay recorded keys")
        if with_predictions and not self.config.num_nextn_predict_layers:
            raise ValueError("predictions need PolicyConfig.num_nextn_predict_layers >= 1, got 0")
        compiled = torch.compiler.is_compiling()
        if not compiled:  # values are data: reading them would break a compiler's graph
            check_tokens(tokens_BT, mask_BT, self.config)
        if mask_BT is None:
            mask_BT = torch.ones(shape, dtype=torch.bool, device=tokens_BT.device)
        if starts_BT is not None and not compiled:
            check_starts(starts_BT, shape)
        layout = self._layout(tokens_BT, starts_BT)
        if not compiled:
            self._check_given(shape, layout, routed_experts_BTMA, indexer_topk_BTLK, score)
        score_live = compiled or _any_live(indexer_topk_BTLK, mask_BT)
        wants = Wants(score_live, dense, with_indexer_kl, with_diagnostics, kernels=self.uses_kernels)
        hidden_BTD, layers = self._run(tokens_BT, layout, wants, indexer_topk_BTLK, routed_experts_BTMA)
        predicting: list[LayerOutput] = []
        predictions = None
        if with_predictions:
            predictions, predicting = self._predict(hidden_BTD, tokens_BT, mask_BT, layout, wants, score)
        return self._output(self._head(hidden_BTD, score), layers, mask_BT, predictions, predicting)

    def _check_given(
        self,
        shape: tuple[int, int],
        layout: Layout,
        routed_experts_BTMA: Tensor | None,
        indexer_topk_BTLK: Tensor | None,
        score: ScoreRequest | None,
    ) -> None:
        """Refuse records and requests that do not belong to the sequences."""
        if routed_experts_BTMA is not None:
            check_routed_experts(routed_experts_BTMA, shape, self.config)
        if indexer_topk_BTLK is not None:
            check_indexer_topk(indexer_topk_BTLK, shape, self.config, layout.positions)
        if score is not None:
            check_request(score, shape, self.config.vocab_size)

    @torch.no_grad()
    def prefill(self, tokens_T: Tensor, *, last_only: bool = False) -> tuple[PolicyOutput, LatentCache]:
        """Run one sequence and keep what decoding needs.

        Args:
            tokens_T: Token ids, int64 [T].
            last_only: Give the last token's logits alone, [1, 1, V].

        Returns:
            The output with B = 1, and a cache of one slot and T positions.

        Raises:
            ValueError: A token id is outside the vocabulary, or the sequence is too long.
        """
        tokens_BT = tokens_T[None]
        check_tokens(tokens_BT, None, self.config)
        hidden_BTD, layers = self._run(tokens_BT, self._layout(tokens_BT, None), Wants(kernels=self.uses_kernels))
        head = self._head(hidden_BTD[:, -1:] if last_only else hidden_BTD, None)
        output = self._output(head, layers, torch.ones_like(tokens_BT, dtype=torch.bool))
        latent = torch.stack([layer.attention.latent_BTC for layer in layers])
        return output, LatentCache(latent, torch.stack([layer.attention.index_key_BTJ for layer in layers]))

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
        angles, mode, kernels = self._angles(positions_N), self.attention_mode, self.uses_kernels
        x_ND, routed, selected = self.embed_tokens(tokens_N), [], []
        for index, layer in enumerate(self._decoder_layers()):
            parts = (cache.latent_LNSC[index], cache.index_key_LNSJ[index])
            x_ND, topk_NK, routed_NA = layer.decode(x_ND, angles, parts, (rows_N, positions_N), mode, kernels)
            selected.append(topk_NK)
            if routed_NA is not None:
                routed.append(routed_NA)
        logits_NV = float32_linear(self.norm(x_ND), self.lm_head.weight)
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

    def _angles(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Give cosines and sines of positions."""
        yarn = self.config.attention.yarn
        return rope_angles(positions, self.frequencies, yarn.attention_factor if yarn else 1.0)

    def _layout(self, tokens_BT: Tensor, starts_BT: Tensor | None) -> Layout:
        """Say where each token stands and what it may see."""
        length, device = tokens_BT.shape[1], tokens_BT.device
        positions, longest = torch.arange(length, device=device), length
        if starts_BT is not None:
            positions = positions - starts_BT
            if not torch.compiler.is_compiling():
                longest = int(positions.max()) + 1
        cos, sin = self._angles(positions)
        # Kernels never form a matrix of all pairs, not even of bits: at 128 thousand tokens it would be 17 GB.
        visible = None if self.attention_mode == "kernels" else visible_keys(length, starts_BT, device)
        return Layout(cos, sin, positions, starts_BT, visible, longest)

    def _run(
        self,
        tokens_BT: Tensor,
        layout: Layout,
        wants: Wants,
        replay_BTLK: Tensor | None = None,
        replay_BTMA: Tensor | None = None,
    ) -> tuple[Tensor, list[LayerOutput]]:
        """Run all layers on checked arguments: normalised hidden states, and what each layer gave."""
        x_BTD, outputs = self.embed_tokens(tokens_BT), []
        for index, layer in enumerate(self._decoder_layers()):
            # Recorded experts count layers with experts only, so leading dense layers shift the index.
            moe = index - self.config.first_k_dense_replace
            experts_BTA = None if replay_BTMA is None or moe < 0 else replay_BTMA[:, :, moe]
            keys_BTK = None if replay_BTLK is None else replay_BTLK[:, :, index]
            output = self._call(layer, x_BTD, layout, wants, self.attention_mode, keys_BTK, experts_BTA)
            x_BTD = output.x_BTD
            outputs.append(output)
        return self.norm(x_BTD), outputs

    def _call(self, layer: nn.Module, *arguments: object) -> Any:
        """Call a layer, and where asked for recompute it in the backward pass instead of keeping its activations."""
        if self.checkpoint_layers and torch.is_grad_enabled():
            return checkpoint(layer, *arguments, use_reentrant=False, preserve_rng_state=False)
        return layer(*arguments)

    def _head(self, hidden_BTD: Tensor, score: ScoreRequest | None) -> tuple[Tensor | None, TokenScores | None]:
        """Apply the head to normalised hidden states: logits [B, T, V], scores of tokens, or both."""
        if score is not None and self.uses_kernels:
            return None, score_hidden(hidden_BTD, self.lm_head.weight, score)
        # Float32: the difference of two log-probabilities must not be the head's rounding.
        logits_BTV = float32_linear(hidden_BTD, self.lm_head.weight)
        return logits_BTV, None if score is None else score_logits(logits_BTV, score)

    def _predict(
        self,
        hidden_BTD: Tensor,
        tokens_BT: Tensor,
        mask_BT: Tensor,
        layout: Layout,
        wants: Wants,
        score: ScoreRequest | None,
    ) -> tuple[Predictions, list[LayerOutput]]:
        """Run the prediction layers, each on the hidden states of the one before."""
        # Prediction layers learn the full distribution: they know no kept sets.
        asked = None if score is None else ScoreRequest(tokens_BT, None, score.temperature, with_measures=False)
        logits, scores, valid, layers = [], [], [], []
        for index, layer in enumerate(self.mtp_layers):
            ahead_BT, _ = tokens_ahead(tokens_BT, mask_BT, layout.starts_BT, index + 1)
            target_BT, valid_BT = tokens_ahead(tokens_BT, mask_BT, layout.starts_BT, index + 2)
            embedding_BTD = self.embed_tokens(ahead_BT)
            hidden_BTD, output = self._call(layer, embedding_BTD, hidden_BTD, layout, wants, self.attention_mode)
            if asked is not None:
                asked = asked._replace(targets_BT=torch.where(valid_BT, target_BT, -1))
            logits_BTV, found = self._head(hidden_BTD, asked)
            logits += [] if logits_BTV is None else [logits_BTV]
            scores += [] if found is None else [found.log_probs_BT]
            valid.append(valid_BT)
            layers.append(output)
        routed_BTPA = torch.stack([layer.routed_BTA for layer in layers], dim=2)
        predictions = Predictions(
            logits=torch.stack(logits, dim=2) if logits else None,
            log_probs_BTP=torch.stack(scores, dim=2) if scores else None,
            valid_BTP=torch.stack(valid, dim=2),
            routed_experts=routed_BTPA.masked_fill(~mask_BT[:, :, None, None], -1),
        )
        return predictions, layers

    def _decoder_layers(self) -> list[DecoderLayer]:
        """Give the layers with their type, which `nn.ModuleList` forgets."""
        return [layer for layer in self.layers if isinstance(layer, DecoderLayer)]

    def _output(
        self,
        head: tuple[Tensor | None, TokenScores | None],
        layers: list[LayerOutput],
        mask_BT: Tensor,
        predictions: Predictions | None = None,
        predicting: Sequence[LayerOutput] = (),
    ) -> PolicyOutput:
        """Join the layers' choices, with -1 and 0 at padding; prediction layers count in the indexer's loss alone."""
        routed = [layer.routed_BTA for layer in layers if layer.routed_BTA is not None]
        shape = (*mask_BT.shape, 0, self.config.experts.num_experts_per_tok)
        none = torch.empty(shape, dtype=torch.int32, device=mask_BT.device)
        routed_BTMA = torch.stack(routed, dim=2) if routed else none
        padding_BT11 = ~mask_BT[:, :, None, None]
        topk = [layer.attention.topk_BTK for layer in layers if layer.attention.topk_BTK is not None]
        losses = [item.attention.kl_BT for item in (*layers, *predicting) if item.attention.kl_BT is not None]
        measured = [layer.attention.diagnostics for layer in layers if layer.attention.diagnostics is not None]
        return PolicyOutput(
            logits=head[0],
            scores=head[1],
            routed_experts=routed_BTMA.masked_fill(padding_BT11, -1),
            indexer_topk=torch.stack(topk, dim=2).masked_fill(padding_BT11, -1) if topk else None,
            indexer_kl=torch.stack(losses).mean(0).masked_fill(~mask_BT, 0.0) if losses else None,
            diagnostics=join_layers(measured),
            predictions=predictions,
        )


@torch.no_grad()
def balance_experts(
    policy: Policy, routed_experts_BTMA: Tensor, rate: float = BIAS_RATE, *, predicting: bool = False
) -> Tensor:
    """Move each router's correction bias one step towards equal load, without any loss.

    b += rate * sign(mean load - load) (arXiv:2412.19437, section 2.1.2). An explicit call, never part of `forward`:
    during reinforcement learning the bias stays frozen.

    Args:
        policy: Its routers are changed.
        routed_experts_BTMA: Experts that ran, int [B, T, M, A]; rows of -1 are padding and do not count.
        rate: Size of the step.
        predicting: The experts are those of the prediction layers, [B, T, P, A].

    Returns:
        The load that was used: tokens per layer and expert, int64 [M, E].
    """
    load_ME = expert_load(routed_experts_BTMA, policy.config.experts.n_routed_experts)
    part = policy.mtp_layers if predicting else policy.layers
    routers = [module for module in part.modules() if isinstance(module, Router)]
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
def _fill(policy: Policy, seed: int) -> None:
    """Give a policy fresh weights: deviation (3 * inputs)^-0.5, and zero where a residual branch ends and in the head."""
    if policy.embed_tokens.weight.is_meta:
        return
    generator = torch.Generator(policy.embed_tokens.weight.device).manual_seed(seed)
    for name, parameter in policy.named_parameters():
        if name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight", "experts.down_proj")):
            parameter.zero_()
        elif name == "embed_tokens.weight":
            parameter.normal_(std=EMBEDDING_STD, generator=generator)
        elif parameter.ndim >= 2:
            parameter.normal_(std=(3 * parameter.shape[-1]) ** -0.5, generator=generator)


def _named(policy: Policy) -> list[tuple[str, Tensor]]:
    """Give all weights and buffers by name."""
    return [*policy.named_parameters(), *policy.named_buffers()]
