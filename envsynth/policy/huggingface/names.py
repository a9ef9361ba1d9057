"""The same weights under the names of `transformers`: whole stacks of experts, or one matrix per expert.

Layers that predict further tokens follow the others in the released files, so layer L + i there is `mtp_layers.i` here;
each has copies of embedding and head there, which here are those of the main model.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Final, NamedTuple

import torch
from torch import Tensor

from envsynth.policy.model import Policy

PREDICTION: Final = re.compile(r"mtp_layers\.(\d+)\.(layer\.|norm\.)?(.+)")
"""Names of our prediction layers: the layer, which part of it, and the rest."""
_THEIR_PARTS: Final = {"layer.": "", "norm.": "shared_head.norm.", None: ""}
_STACK: Final = re.compile(r"(.+\.experts)\.(gate_proj|up_proj|down_proj)")


class Place(NamedTuple):
    """Where a tensor of a file belongs."""

    parts: Sequence[Tensor]
    """Views of the policy's tensors; the file's tensor holds them one after another along its last dimension but one."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape that the file's tensor must have."""
        first = self.parts[0].shape
        if len(first) < 2:
            return tuple(first)
        return (*first[:-2], sum(part.shape[-2] for part in self.parts), first[-1])

    def fill(self, value: Tensor) -> None:
        """Copy a file's tensor into the policy.

        Args:
            value: A tensor of `shape`.
        """
        start = 0
        for part in self.parts:
            rows = part.shape[-2] if len(self.parts) > 1 else 0
            part.copy_(value.narrow(-2, start, rows) if len(self.parts) > 1 else value)
            start += rows


def huggingface_state_dict(policy: Policy) -> dict[str, Tensor]:
    """Give the policy's weights under the names of `transformers.DeepseekV32ForCausalLM`.

    Prediction layers are left out: that class has none.

    Args:
        policy: The policy.

    Returns:
        Detached tensors; the gate and up matrices of the routed experts are joined, the others are shared.
    """
    ours = {name: tensor for name, tensor in _ours(policy).items() if PREDICTION.match(name) is None}
    named = _named(ours, policy.config.num_hidden_layers, None)
    return {
        name: torch.cat(tuple(place.parts), dim=-2) if len(place.parts) > 1 else place.parts[0] for name, place in named
    }


def places(policy: Policy, names: Collection[str] | None = None) -> dict[str, Place]:
    """Give the place of every weight, prediction layers included.

    Args:
        policy: The policy.
        names: Names of a file; where it has the stack of a layer's experts, that is what is looked for. None gives one
            matrix per expert, as the released files have.

    Returns:
        Name in the file -> place in the policy.
    """
    return dict(_named(_ours(policy), policy.config.num_hidden_layers, names or ()))


def copies(policy: Policy) -> dict[str, Tensor]:
    """Give what each prediction layer of a file repeats of the main model.

    Args:
        policy: The policy.

    Returns:
        Name in the file -> the policy's tensor.
    """
    ours, first = _ours(policy), policy.config.num_hidden_layers
    indices = sorted({int(found[1]) for found in map(PREDICTION.match, ours) if found})
    return {
        f"model.layers.{first + index}.{name}": ours[same]
        for index in indices
        for name, same in (
            ("embed_tokens.weight", "embed_tokens.weight"),
            ("shared_head.head.weight", "lm_head.weight"),
        )
    }


def _ours(policy: Policy) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in policy.state_dict().items()}


def _named(ours: dict[str, Tensor], n_layers: int, names: Collection[str] | None) -> Iterator[tuple[str, Place]]:
    """Give names and places; `names` decides between stacks and single experts, None means stacks."""
    for name, tensor in ours.items():
        theirs, stack = _their_name(name, n_layers), _STACK.fullmatch(name)
        if stack is None:
            yield theirs, Place((tensor,))
            continue
        prefix, kind = theirs.rsplit(".", 1)
        joined = f"{prefix}.down_proj" if kind == "down_proj" else f"{prefix}.gate_up_proj"
        if names is not None and joined not in names:
            yield from ((f"{prefix}.{expert}.{kind}.weight", Place((one,))) for expert, one in enumerate(tensor))
        elif kind == "down_proj":
            yield joined, Place((tensor,))
        elif kind == "gate_proj":
            yield joined, Place((tensor, ours[f"{stack[1]}.up_proj"]))


def _their_name(name: str, n_layers: int) -> str:
    if name.startswith("lm_head."):
        return name
    found = PREDICTION.match(name)
    if found is None:
        return f"model.{name}"
    return f"model.layers.{n_layers + int(found[1])}.{_THEIR_PARTS[found[2]]}{found[3]}"
