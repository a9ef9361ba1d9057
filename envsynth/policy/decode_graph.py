"""Decode steps replayed from CUDA graphs: Python takes longer to launch a step's many small kernels than a GPU to run them.

A graph repeats the launches of one call, on the same memory. So there is one for each number of rows, with inputs and
outputs of its own; caches and weights are read and written where they are. Kernels are those of `Policy.decode`, and so
are the bits.

Shape letters: N rows of a step, V vocabulary, M layers with experts, A active experts, L layers, K selected keys.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from envsynth.policy.model import LatentCache, Policy

Decoded = tuple[Tensor, Tensor, Tensor]
"""Logits [N, V], experts that ran [N, M, A] and selected keys [N, L, K]."""
Result = TypeVar("Result")


class Captured(NamedTuple, Generic[Result]):
    """A call that can be repeated."""

    replay: Callable[[], object]
    """Repeats it on what its inputs hold now."""
    found: Result
    """Where its results are after each repetition."""


class _Step(NamedTuple):
    """A graph with its inputs."""

    inputs: tuple[Tensor, Tensor, Tensor]
    captured: Captured[Decoded]


def can_capture(policy: Policy) -> bool:
    """Tell whether a policy's decode steps can be captured: on a GPU, through kernels, which never wait for the host.

    Not under autocast: it keeps converted weights of its own, which a graph would read when they are long given away.

    Args:
        policy: The model.

    Returns:
        Whether they can.
    """
    runs_kernels = policy.embed_tokens.weight.is_cuda and policy.attention_mode == "kernels" and policy.uses_kernels
    return runs_kernels and not torch.is_autocast_enabled("cuda")


def capture(call: Callable[[], Result]) -> Captured[Result]:
    """Make a CUDA graph of a call.

    Args:
        call: Called twice, the first time to compile and to fill what libraries keep.

    Returns:
        The graph.

    Raises:
        RuntimeError: the call waits for the GPU, or copies from the host.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        call()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    # Other threads may use the GPU meanwhile: what they do is none of this graph's business.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        found = call()
    return Captured(graph.replay, found)


class DecodeGraphs:
    """Decode steps of one cache, captured at their first use.

    Weights may change in place; after they moved elsewhere, `clear`.

    Args:
        policy: The model; `can_capture` says which.
        cache: Caches of all slots.
        capture: How a call is captured.
    """

    def __init__(
        self,
        policy: Policy,
        cache: LatentCache,
        capture: Callable[[Callable[[], Decoded]], Captured[Decoded]] = capture,
    ) -> None:
        self.policy, self.cache, self._capture = policy, cache, capture
        self._steps: dict[int, _Step] = {}

    def clear(self) -> None:
        """Forget all graphs, and give their memory back."""
        self._steps.clear()

    def decode(self, tokens_N: Tensor, rows_N: Tensor, positions_N: Tensor) -> Decoded:
        """Run one new token per row, as `Policy.decode` does.

        Args:
            tokens_N: Token ids, int64 [N].
            rows_N: Slot of each row, int64 [N]; no slot twice, unless with equal token and position.
            positions_N: Position of each token, int64 [N].

        Returns:
            What `Policy.decode` gives; the next step of as many rows overwrites it.

        Raises:
            RuntimeError: the step cannot be captured.
        """
        given = (tokens_N, rows_N, positions_N)
        step = self._steps.get(len(tokens_N))
        if step is None:
            # A step that is run twice writes the same numbers to the same places of the cache.
            tokens, rows, positions = inputs = (tokens_N.clone(), rows_N.clone(), positions_N.clone())
            captured = self._capture(lambda: self.policy.decode(tokens, self.cache, rows, positions))
            step = self._steps[len(tokens_N)] = _Step(inputs, captured)
        for mine, new in zip(step.inputs, given, strict=True):
            mine.copy_(new)
        step.captured.replay()
        return step.captured.found
