"""What the trainer does to a copy of the policy: the logits that it scored, and the gradient that its loss left on them.

Shape letters: B sequences, T tokens, V vocabulary, M layers with experts, A active experts, L layers, K selected keys.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from envsynth.policy.batch import TokenTrajectory
from envsynth.policy.model import Policy, PolicyOutput
from envsynth.policy.optimizer import OptimizerConfig, PolicyOptimizer
from envsynth.train.grpo_update import UpdateConfig, update

Tokens = tuple[int, ...]
"""Token ids of a sequence: what rows of the trainer's batches are recognised by, in whatever order they come."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CapturedRow:
    """One sequence in the trainer's forward pass; equal sequences are one row."""

    logits_TV: Tensor
    """Logits that the trainer scored, [T, V]."""
    gradient_TV: Tensor
    """Gradient of the loss on them, summed over equal sequences, [T, V]."""
    is_reached_T: Tensor
    """Whether any of the equal sequences has a gradient there: two of opposite advantage cancel in the sum. Bool [T]."""
    routed_experts: Tensor
    """Experts that ran, int [T, M, A]."""
    indexer_topk: Tensor | None
    """Keys that attention read, int [T, L, K]."""


@dataclass(frozen=True, eq=False)
class _Pass:
    tokens_BT: Tensor
    valid_BT: Tensor
    output: PolicyOutput
    gradients: list[Tensor]


def capture_update(
    policy: Policy, reference: Policy | None, trajectories: Sequence[TokenTrajectory], config: UpdateConfig
) -> dict[Tokens, CapturedRow]:
    """Let the trainer update a copy of the policy, at a learning rate of zero, and watch.

    Args:
        policy: What is trained; it does not change.
        reference: The frozen policy of the KL term.
        trajectories: Episodes, as `collect` gives them.
        config: How the trainer learns.

    Returns:
        Rows by their tokens.

    Raises:
        SpecError: the trainer refuses the episodes.
    """
    watched = copy.deepcopy(policy)
    watched.kernels = False  # kernels score tokens without logits that could be looked at
    passes: list[_Pass] = []

    def watch(_: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any], output: PolicyOutput) -> None:
        if not output.logits_BTV.requires_grad:
            return  # a look at the policy, not a step of learning
        tokens_BT: Tensor = arguments[0] if arguments else options["tokens_BT"]
        valid_BT = options.get("mask_BT")
        valid_BT = torch.ones_like(tokens_BT, dtype=torch.bool) if valid_BT is None else valid_BT
        gradients: list[Tensor] = []
        output.logits_BTV.register_hook(gradients.append)
        passes.append(_Pass(tokens_BT, valid_BT, output, gradients))

    handle = watched.register_forward_hook(watch, with_kwargs=True)
    frozen = PolicyOptimizer(watched, OptimizerConfig(muon_lr=0.0, adamw_lr=0.0))
    try:
        update(watched, reference, frozen, trajectories, config, scale=1.0, key="doctor")
    finally:
        handle.remove()
    found: dict[Tokens, CapturedRow] = {}
    for item in passes:
        for row in range(len(item.tokens_BT)):
            _add(found, item, row)
    return found


def altered(item: TokenTrajectory, n_experts: int) -> TokenTrajectory:
    """Give a record other experts and other keys than those of the rollout, no kept sets, and a reward by member.

    Whoever replays the record now runs what no live policy would choose. Without kept sets every token has a gradient,
    however sure the policy was of it.

    Args:
        item: A record.
        n_experts: Routed experts of a layer (count).

    Returns:
        The altered record.
    """
    changes: dict[str, Any] = {"kept": None, "reward": float(item.member % 2)}
    experts, keys = item.routed_experts, item.indexer_topk
    if experts is not None:
        changes["routed_experts"] = torch.where(experts < 0, experts, (experts + 1) % n_experts)
    if keys is not None:
        length, layers, width = keys.shape
        last = torch.arange(length)[:, None, None]
        # Runs of neighbours that begin elsewhere for each token and layer, so that no shuffle of rows or layers fits.
        begin = (5 * last + 3 * torch.arange(layers)[:, None] + int(item.tokens.sum())) % (last - width + 2).clamp(
            min=1
        )
        run = begin + torch.arange(width)
        run = torch.where(run <= last, run, -1).to(keys.dtype)
        changes["indexer_topk"] = torch.where(keys[..., :1] < 0, keys, run)
    return replace(item, **changes)


def turn_ends(row_tokens: Tokens, end: int) -> list[int]:
    """List the positions of a token that ends turns; it is never injected, so each was sampled."""
    return [position for position, token in enumerate(row_tokens) if token == end]


def by_tokens(trajectories: Sequence[TokenTrajectory]) -> Mapping[Tokens, list[TokenTrajectory]]:
    """Sort records by their tokens; equal episodes of a group stand together."""
    found: dict[Tokens, list[TokenTrajectory]] = {}
    for item in trajectories:
        found.setdefault(tuple(item.tokens.tolist()), []).append(item)
    return found


def _add(found: dict[Tokens, CapturedRow], item: _Pass, row: int) -> None:
    length = int(item.valid_BT[row].sum())
    tokens = tuple(item.tokens_BT[row, :length].tolist())
    output = item.output
    logits_TV = output.logits_BTV.detach()[row, :length]
    gradient_TV = item.gradients[0][row, :length] if item.gradients else torch.zeros_like(logits_TV)
    is_reached_T = (gradient_TV != 0).any(-1)
    if tokens in found:
        before = found[tokens]
        found[tokens] = replace(
            before,
            gradient_TV=before.gradient_TV + gradient_TV,
            is_reached_T=before.is_reached_T | is_reached_T,
        )
        return
    found[tokens] = CapturedRow(
        logits_TV=logits_TV,
        gradient_TV=gradient_TV,
        is_reached_T=is_reached_T,
        routed_experts=output.routed_experts[row, :length],
        indexer_topk=None if output.indexer_topk is None else output.indexer_topk[row, :length],
    )
