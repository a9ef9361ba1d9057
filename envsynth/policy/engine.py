"""Rollouts where the policy is: many sequences at once, one token per step, against cached latents.

Shape letters: N rows of a step, V vocabulary, M layers with experts, A active experts, L layers, K selected keys, S
positions of a slot.

A slot holds one growing sequence. Tokens enter it from a prompt, from `append` (what a tool answered) or by sampling;
every token that is fed leaves the experts and the keys that it used in the slot's record, whoever wrote it. The last
sampled token of a turn is fed when the next turn begins, so its record is as real as the others; at the very end one
token stays unfed, and its rows are -1.

What a slot's tokens depend on: the weights, its own tokens, and its key. Random numbers are counted per position of a
stream of the key. Arithmetic sees the other slots through the shapes of its tensors alone; each step is padded to whole
blocks of rows, because libraries treat leftover rows by other code with other rounding.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import Tensor

from envsynth.policy.decode_graph import DecodeGraphs, can_capture
from envsynth.policy.drawing import Sampling, draw, truncated_log_probs, uniform_stream
from envsynth.policy.grouped import ROW_BLOCK
from envsynth.policy.model import LatentCache, Policy, PolicyOutput

PROMPTS = 64
"""Prompts whose caches are kept, so that members of a group which start later need not run them again."""


class TurnEnd(StrEnum):
    """Why a turn ended."""

    STOP_ID = "stop_id"
    """A stop token was sampled; it is part of the turn."""
    MAX_TOKENS = "max_tokens"
    """The turn's own limit was reached."""
    FULL = "full"
    """The slot has no room for another token."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One stretch of sampled tokens."""

    tokens: tuple[int, ...]
    """Sampled token ids, a stop token included."""
    end: TurnEnd
    """Why it ended."""


@dataclass(frozen=True, kw_only=True)
class SlotRecord:
    """All tokens of a slot, and what they used; the material of a training sequence, on the CPU."""

    tokens: Tensor
    """Token ids, int64 [T]."""
    sampled: Tensor
    """True where the policy sampled the token, False where it was given, bool [T]."""
    log_probs: Tensor
    """Log-probability of each sampled token in the distribution it was drawn from, float32 [T]; 0 elsewhere."""
    kept_ids: Tensor
    """Kept token ids of all tokens, one after another, ascending within a token, int32 [kept]."""
    kept_offsets: Tensor
    """Token t kept `kept_ids[kept_offsets[t]:kept_offsets[t + 1]]`, int64 [T + 1]; an empty stretch means that nothing
    was left out."""
    routed_experts: Tensor
    """Experts of each fed token, int32 [T, M, A]; -1 at a last token that was never fed."""
    indexer_topk: Tensor
    """Keys of each fed token, positions in this sequence, int32 [T, L, K]; -1 at a last token that was never fed."""


@dataclass
class _Slot:
    """The host's side of a slot."""

    tokens: list[int]
    fed: int
    kept: dict[int, Tensor]
    turn_start: int = -1
    """Position of the open turn's first sampled token; -1 while no turn is open or nothing was sampled."""
    limit: int = 0
    """Tokens that the open turn may still sample."""
    stop_ids: frozenset[int] = frozenset()
    is_open: bool = False
    turn: Turn | None = None


class Engine:
    """Generates with a policy in fixed slots.

    The policy must not change while slots are in use: `step` refuses to mix weights. After an update, `clear`. Changes
    made through a parameter's `.data` are invisible to that check; optimizers and `load_state_dict` do not hide. On a GPU,
    with `attention_mode = "kernels"`, steps are replayed from CUDA graphs (`decode_graph`).

    Args:
        policy: The model; the engine never changes it.
        n_slots: Sequences at once (count, >= 1).
        max_len: Longest sequence (tokens), at most the policy's `max_position_embeddings`.
        sampling: How tokens are drawn.

    Raises:
        ValueError: n_slots or max_len is out of range.
    """

    def __init__(self, policy: Policy, *, n_slots: int, max_len: int, sampling: Sampling | None = None) -> None:
        config = policy.config
        if n_slots < 1 or not 1 <= max_len <= config.max_position_embeddings:
            raise ValueError(
                f"need n_slots >= 1 and max_len within 1..{config.max_position_embeddings}, got {n_slots} and {max_len}"
            )
        self.policy, self.n_slots, self.max_len = policy, n_slots, max_len
        self.sampling = sampling or Sampling()
        self._cache = policy.new_cache(n_slots, max_len)
        self._slots: dict[int, _Slot] = {}
        self._weights: tuple[int, ...] = ()
        self._graphs = DecodeGraphs(policy, self._cache)
        self._prompts: dict[tuple[int, ...], tuple[PolicyOutput, LatentCache]] = {}
        active, layers = config.experts.num_experts_per_tok, config.num_hidden_layers
        wide = torch.promote_types(policy.lm_head.weight.dtype, torch.float32)
        self._device = policy.embed_tokens.weight.device
        self._logits = self._zeros(config.vocab_size, dtype=wide)
        self._uniforms = self._zeros(max_len, dtype=torch.float64)
        self._log_probs = self._zeros(max_len, dtype=wide)
        self._sampled = self._zeros(max_len, dtype=torch.bool)
        self._routed = self._zeros(max_len, config.n_moe_layers, active, dtype=torch.int32)
        self._topk = self._zeros(max_len, layers, config.indexer.index_topk, dtype=torch.int32)

    @property
    def open_slots(self) -> list[int]:
        """Slots whose turn has not ended, ascending."""
        return sorted(index for index, slot in self._slots.items() if slot.is_open)

    def clear(self) -> None:
        """Forget every slot; necessary after the policy's weights changed."""
        self._slots.clear()

    def start(self, slots: Sequence[int], prompt: Sequence[int], keys: Sequence[str]) -> None:
        """Begin a sequence in each slot with the same prompt, which is computed once.

        A slot in use starts afresh, which is also how a rewritten context enters: its tokens so far become the
        prompt. Give a rewritten context a key of its own, or it draws the numbers of the old one again.

        Args:
            slots: Slots, each once.
            prompt: Token ids (at least one).
            keys: One key per slot, such as "seed/step/task/sample"; equal keys draw equal numbers.

        Raises:
            ValueError: A slot is out of range or repeated, the counts differ, or the prompt is empty, too long or
                has an id outside the vocabulary.
            RuntimeError: The policy changed while other slots are in use.
        """
        if len(set(slots)) != len(slots) or not all(0 <= slot < self.n_slots for slot in slots) or not slots:
            raise ValueError(f"slots must be different numbers within 0..{self.n_slots - 1}, got {list(slots)}")
        if len(keys) != len(slots):
            raise ValueError(f"need one key per slot, got {len(keys)} keys for {len(slots)} slots")
        if not 1 <= len(prompt) <= self.max_len:
            raise ValueError(f"a prompt has 1..{self.max_len} tokens here, got {len(prompt)}")
        self._check_ids(prompt)
        for slot in slots:
            self._slots.pop(slot, None)
        self._check_weights()
        output, cache = self._prefill(tuple(prompt))
        length, index = len(prompt), self._integers(slots)
        self._cache.latent_LNSC[:, index, :length] = cache.latent_LNSC
        self._cache.index_key_LNSJ[:, index, :length] = cache.index_key_LNSJ
        self._logits[index] = output.logits_BTV[0, -1]
        self._log_probs[index], self._sampled[index] = 0.0, False
        self._routed[index], self._topk[index] = -1, -1
        self._routed[index, :length] = output.routed_experts
        if output.indexer_topk is not None:
            self._topk[index, :length] = output.indexer_topk
        for slot, key in zip(slots, keys, strict=True):
            self._uniforms[slot] = uniform_stream(key, self.max_len)
            self._slots[slot] = _Slot(tokens=list(prompt), fed=length, kept={})

    def _prefill(self, prompt: tuple[int, ...]) -> tuple[PolicyOutput, LatentCache]:
        """Run a prompt, or give what an earlier run of it with these weights gave."""
        if prompt not in self._prompts:
            if len(self._prompts) >= PROMPTS:
                self._prompts.pop(next(iter(self._prompts)))
            # Where kernels score tokens, nobody wants the logits of a whole prompt; a CPU keeps the bits of all rows.
            last_only = self.policy.uses_kernels
            self._prompts[prompt] = self.policy.prefill(self._integers(prompt), last_only=last_only)
        return self._prompts[prompt]

    def append(self, slot: int, tokens: Sequence[int]) -> None:
        """Add given tokens, such as what a tool answered; they are fed when the next turn begins.

        Args:
            slot: A started slot without an open turn.
            tokens: Token ids.

        Raises:
            ValueError: The slot has no room for them, or an id is outside the vocabulary.
            RuntimeError: The slot was not started, or its turn is open.
        """
        state = self._idle(slot)
        if len(tokens) > self.room(slot):
            raise ValueError(f"slot {slot} has room for {self.room(slot)} tokens, got {len(tokens)}")
        self._check_ids(tokens)
        state.tokens.extend(tokens)

    def room(self, slot: int) -> int:
        """Say how many tokens a started slot still takes.

        Args:
            slot: A started slot.

        Returns:
            Tokens (count).

        Raises:
            RuntimeError: The slot was not started.
        """
        return self.max_len - len(self._state(slot).tokens)

    def begin_turn(self, slots: Collection[int], *, stop_ids: Collection[int], max_tokens: int) -> None:
        """Let slots sample until a stop token.

        Args:
            slots: Started slots without an open turn.
            stop_ids: Token ids that end a turn.
            max_tokens: Tokens that a turn may sample (count, >= 1).

        Raises:
            ValueError: max_tokens < 1, or a slot is full.
            RuntimeError: A slot was not started, or its turn is open.
        """
        if max_tokens < 1:
            raise ValueError(f"max_tokens must be >= 1, got {max_tokens}")
        full = [slot for slot in slots if self._idle(slot) and not self.room(slot)]
        if full:
            raise ValueError(f"slots {full} are full: {self.max_len} tokens each")
        for slot in slots:
            state = self._slots[slot]
            state.is_open, state.turn, state.turn_start = True, None, len(state.tokens)
            state.limit, state.stop_ids = max_tokens, frozenset(stop_ids)

    def step(self) -> list[int]:
        """Advance every slot with an open turn by one token: a given one if any waits, else a sampled one.

        Returns:
            Slots whose turn ended in this step, ascending.

        Raises:
            RuntimeError: The policy changed since the slots started.
        """
        self._check_weights()
        rows = self.open_slots
        waiting = [row for row in rows if self._slots[row].fed < len(self._slots[row].tokens)]
        if waiting:
            self._feed(waiting)
        ready = [row for row in rows if self._slots[row].fed == len(self._slots[row].tokens)]
        return self._sample(ready) if ready else []

    def generate_turn(self, slots: Collection[int], *, stop_ids: Collection[int], max_tokens: int) -> dict[int, Turn]:
        """Sample one turn in each slot, to its end; turns that are open elsewhere advance as well.

        Args:
            slots: Started slots without an open turn.
            stop_ids: Token ids that end a turn.
            max_tokens: Tokens that a turn may sample (count, >= 1).

        Returns:
            The turn of each slot.

        Raises:
            ValueError: As `begin_turn`.
            RuntimeError: As `begin_turn` and `step`.
        """
        self.begin_turn(slots, stop_ids=stop_ids, max_tokens=max_tokens)
        while any(self._slots[slot].is_open for slot in slots):
            self.step()
        return {slot: self.turn(slot) for slot in slots}

    def turn(self, slot: int) -> Turn:
        """Give the last turn that ended in a slot.

        Args:
            slot: A started slot.

        Returns:
            The turn.

        Raises:
            RuntimeError: The slot was not started, or no turn of it has ended.
        """
        turn = self._state(slot).turn
        if turn is None:
            raise RuntimeError(f"no turn of slot {slot} has ended: call begin_turn and step")
        return turn

    def record(self, slot: int) -> SlotRecord:
        """Copy out everything that happened in a slot.

        Args:
            slot: A started slot.

        Returns:
            Its tokens and what they used; given tokens that were not fed yet have rows of -1.

        Raises:
            RuntimeError: The slot was not started.
        """
        state = self._state(slot)
        length = len(state.tokens)
        empty = torch.empty(0, dtype=torch.int32)
        kept = [state.kept.get(position, empty) for position in range(length)]
        counts = torch.tensor([0, *(len(ids) for ids in kept)], dtype=torch.int64)
        return SlotRecord(
            tokens=torch.tensor(state.tokens, dtype=torch.int64),
            sampled=_own(self._sampled[slot, :length]),
            log_probs=_own(self._log_probs[slot, :length]),
            kept_ids=torch.cat(kept),
            kept_offsets=counts.cumsum(0),
            routed_experts=_own(self._routed[slot, :length]),
            indexer_topk=_own(self._topk[slot, :length]),
        )

    def _feed(self, rows: list[int]) -> None:
        """Run the next waiting token of each slot, and record what it used."""
        tokens = [self._slots[row].tokens[self._slots[row].fed] for row in rows]
        positions = [self._slots[row].fed for row in rows]
        # Copies of the first row fill up the last block: they write the same values to the same place.
        padding = -len(rows) % ROW_BLOCK
        rows_N, positions_N, tokens_N = (
            self._integers(item + item[:1] * padding) for item in (rows, positions, tokens)
        )
        if can_capture(self.policy):
            logits_NV, routed_NMA, topk_NLK = self._graphs.decode(tokens_N, rows_N, positions_N)
        else:
            logits_NV, routed_NMA, topk_NLK = self.policy.decode(tokens_N, self._cache, rows_N, positions_N)
        self._logits[rows_N] = logits_NV
        self._routed[rows_N, positions_N] = routed_NMA
        self._topk[rows_N, positions_N] = topk_NLK
        for row in rows:
            self._slots[row].fed += 1

    def _sample(self, rows: list[int]) -> list[int]:
        """Draw the next token of each slot, and close the turns that end with it."""
        rows_N = self._integers(rows)
        positions_N = self._integers([len(self._slots[row].tokens) for row in rows])
        log_probs_NV = truncated_log_probs(self._logits[rows_N], self.sampling)
        tokens_N = draw(log_probs_NV, self._uniforms[rows_N, positions_N])
        self._log_probs[rows_N, positions_N] = log_probs_NV.gather(1, tokens_N[:, None]).squeeze(1)
        self._sampled[rows_N, positions_N] = True
        kept: Sequence[Tensor] = ()
        if self.sampling.truncates:
            in_set_NV = log_probs_NV.isfinite()
            ids = in_set_NV.nonzero()[:, 1].to("cpu", torch.int32)
            kept = ids.split(in_set_NV.sum(-1).tolist())
        ended = []
        for index, (row, token) in enumerate(zip(rows, tokens_N.tolist(), strict=True)):
            state = self._slots[row]
            if kept:
                state.kept[len(state.tokens)] = kept[index]
            state.tokens.append(token)
            state.limit -= 1
            end = self._end(state, token)
            if end is not None:
                state.is_open, state.turn = False, Turn(tokens=tuple(state.tokens[state.turn_start :]), end=end)
                ended.append(row)
        return ended

    def _zeros(self, *shape: int, dtype: torch.dtype) -> Tensor:
        """Make a table with a row for each slot."""
        return torch.zeros(self.n_slots, *shape, dtype=dtype, device=self._device)

    def _integers(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(list(values), dtype=torch.int64, device=self._device)

    def _end(self, state: _Slot, token: int) -> TurnEnd | None:
        if token in state.stop_ids:
            return TurnEnd.STOP_ID
        if state.limit == 0:
            return TurnEnd.MAX_TOKENS
        return TurnEnd.FULL if len(state.tokens) == self.max_len else None

    def _state(self, slot: int) -> _Slot:
        state = self._slots.get(slot)
        if state is None:
            raise RuntimeError(f"slot {slot} was not started")
        return state

    def _idle(self, slot: int) -> _Slot:
        state = self._state(slot)
        if state.is_open:
            raise RuntimeError(f"the turn of slot {slot} is open: step until it ends")
        return state

    def _check_ids(self, tokens: Sequence[int]) -> None:
        """Refuse ids outside the vocabulary.

        Raises:
            ValueError: There is one.
        """
        vocabulary = self.policy.config.vocab_size
        outside = [token for token in tokens if not 0 <= token < vocabulary]
        if outside:
            raise ValueError(f"token ids must be within 0..{vocabulary - 1}, got {outside}")

    def _check_weights(self) -> None:
        """Refuse to continue sequences whose cache was computed by other weights.

        Raises:
            RuntimeError: A weight changed since the slots in use started.
        """
        # Every in-place change of a tensor, an optimizer's included, raises its version.
        tensors = (*self.policy.parameters(), *self.policy.buffers())
        weights = tuple(number for item in tensors for number in (item.data_ptr(), item._version))
        if weights != self._weights:
            if self._slots:
                raise RuntimeError("the policy's weights changed while slots are in use: call clear() after an update")
            self._prompts.clear()
            if weights[::2] != self._weights[::2]:
                self._graphs.clear()  # they read weights where they were
        self._weights = weights


def _own(part: Tensor) -> Tensor:
    """Copy a part of a table, to the CPU."""
    return part.clone() if part.device.type == "cpu" else part.cpu()
