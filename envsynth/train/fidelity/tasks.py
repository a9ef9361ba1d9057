"""Long synthetic sequences whose answers stand earlier in the same sequence.

A body of filler holds needles (a key of two ids and a value of two ids), groups of needles that share one key, and one
span to copy. A tail asks for some of them, always in the same layout, so the places of answers are known without looking.

    body   filler .. [NEEDLE k1 k2 v1 v2] .. filler .. [COPY_BEGIN c1 .. cS COPY_END] .. filler
    tail   [QUERY k1 k2 v1 v2] per asked needle, [QUERY_ALL k1 k2 v v ..] per group (values by position), [COPY c1 .. cS]

Shape letters: B sequences, T tokens, N single needles, M queries, G groups, R needles of a group, S ids of the span,
P pairs of key ids, I items of a body (needles and the span), F filler tokens of a body.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from envsynth.errors import SpecError

VOCABULARY: Final = 512
"""Token ids."""
NEEDLE, QUERY, QUERY_ALL, COPY_BEGIN, COPY_END, COPY = range(6)
"""Marks; ids 6 and 7 are unused."""
FILLER_IDS: Final = range(8, 264)
"""Ids of filler."""
KEY_IDS: Final = range(264, 328)
"""Ids that keys are made of, two each."""
VALUE_IDS: Final = range(328, 456)
"""Ids that values are made of, two each."""
COPY_IDS: Final = range(456, 512)
"""Ids of spans to copy."""
SUCCESSORS: Final = 16
"""Ids that may follow a filler id; the r-th has a weight of 1/r."""
NEEDLE_TOKENS: Final = 5
"""Length of a needle and of a query with its answer."""

Ids = NDArray[np.int64]


class Kind(IntEnum):
    """What a token is, when it is the one to predict."""

    FILLER = 0
    """Follows from the filler before it, up to the chain's own chance."""
    SINGLE = 1
    """Half of the value of a needle whose key is its own."""
    MULTI = 2
    """Part of the values of a group."""
    COPY = 3
    """Part of the copied span."""
    OTHER = 4
    """A mark: its place follows from the layout of the tail, and not in the body."""
    RANDOM = 5
    """Drawn at random: keys, values and spans where they first stand, and keys that a query names."""


ANSWERS: Final = (Kind.SINGLE, Kind.MULTI, Kind.COPY)
"""Kinds that follow with certainty from earlier tokens."""


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """How many of everything a sequence holds.

    Raises:
        SpecError: a count is out of range, or the items leave no room for filler.
    """

    context: int
    """Tokens of a sequence, T."""
    needles: int
    """Needles with a key of their own, N."""
    queries: int
    """Single needles that are asked for, M."""
    groups: int
    """Groups of needles that share a key, G; all are asked for."""
    group_size: int
    """Needles of a group, R."""
    span: int
    """Ids of the span to copy, S."""

    def __post_init__(self) -> None:
        for name in ("context", "needles", "queries", "groups", "group_size", "span"):
            value = getattr(self, name)
            if value < 1:
                raise SpecError(f"TaskConfig.{name} must be >= 1, got {value}")
        if self.queries > self.needles:
            raise SpecError(f"TaskConfig.queries must be <= needles={self.needles}, got {self.queries}")
        if self.needles + self.groups > len(KEY_IDS) ** 2:
            raise SpecError(f"TaskConfig.needles: there are only {len(KEY_IDS) ** 2} keys, got {self.needles}")
        if self.filler < self.context // 8:
            raise SpecError(
                f"TaskConfig.context={self.context} leaves {self.filler} tokens of filler, below an eighth: ask for less"
            )

    @classmethod
    def for_context(cls, context: int) -> Self:
        """Give counts that grow with the context.

        Args:
            context: Tokens of a sequence (count, >= 64).

        Returns:
            The configuration; with 8,192 tokens 64 needles, 24 queries, two groups of four, a span of 64.

        Raises:
            SpecError: the context is too short.
        """
        needles = min(64, max(2, context // 32))
        return cls(
            context=context,
            needles=needles,
            queries=min(24, needles),
            groups=2 if context >= 1024 else 1,
            group_size=4 if context >= 128 else 2,
            span=min(64, max(4, context // 16)),
        )

    @property
    def all_needles(self) -> int:
        """Needles of a body, those of groups among them."""
        return self.needles + self.groups * self.group_size

    @property
    def group_tokens(self) -> int:
        """Length of the query of a group with its answer."""
        return 3 + 2 * self.group_size

    @property
    def body(self) -> int:
        """Tokens before the first query."""
        return self.context - NEEDLE_TOKENS * self.queries - self.group_tokens * self.groups - 1 - self.span

    @property
    def filler(self) -> int:
        """Filler tokens, F."""
        return self.body - NEEDLE_TOKENS * self.all_needles - self.span - 2

    @cached_property
    def single_positions(self) -> Ids:
        """Positions of the two answer ids of each query, int64 [M, 2]."""
        return self.body + NEEDLE_TOKENS * np.arange(self.queries)[:, None] + np.arange(3, NEEDLE_TOKENS)

    @cached_property
    def multi_positions(self) -> Ids:
        """Positions of the answer ids of each group, int64 [G, 2R]."""
        first = self.body + NEEDLE_TOKENS * self.queries
        return first + self.group_tokens * np.arange(self.groups)[:, None] + np.arange(3, self.group_tokens)

    @cached_property
    def copy_positions(self) -> Ids:
        """Positions of the copied ids, int64 [S]."""
        return np.arange(self.context - self.span, self.context)


@dataclass(frozen=True, kw_only=True, eq=False)
class TaskBatch:
    """Some sequences, and what each token is."""

    tokens_BT: Ids
    """Token ids, int64 [B, T]."""
    kinds_BT: NDArray[np.uint8]
    """A `Kind` per token, uint8 [B, T]; that of position 0 is never predicted."""
    starts_BI: Ids
    """Where each needle begins, int64 [B, I]: singles, then the groups' (by group, in order of position), then the span."""

    @property
    def digest(self) -> str:
        """Hash of the tokens (16 hexadecimal digits)."""
        return hashlib.blake2b(self.tokens_BT.tobytes(), digest_size=8).hexdigest()


def make_tasks(config: TaskConfig, *, seed: str, step: int, sequences: int) -> TaskBatch:
    """Make the sequences of one step; equal arguments give equal sequences, whatever was made before.

    Args:
        config: How many of everything.
        seed: Text; different texts give unrelated sequences.
        step: Number of the batch.
        sequences: Sequences B (count, >= 1).

    Returns:
        The batch.
    """
    digest = hashlib.blake2b(f"dsa-fidelity/{seed}/{step}".encode(), digest_size=16).digest()
    rng = np.random.Generator(np.random.SFC64(int.from_bytes(digest)))
    starts_BI = _places(config, rng, sequences)
    keys_BNA, values_BNA, span_BS = _contents(config, rng, sequences)
    tokens_BT = np.zeros((sequences, config.context), np.int64)
    kinds_BT = np.full((sequences, config.context), Kind.OTHER, np.uint8)
    free_BT = np.ones((sequences, config.context), bool)
    free_BT[:, config.body :] = False

    rows = np.arange(sequences)[:, None, None]
    needle_BN5 = np.concatenate((np.full_like(keys_BNA[..., :1], NEEDLE), keys_BNA, values_BNA), axis=2)
    places_BN5 = starts_BI[:, :-1, None] + np.arange(NEEDLE_TOKENS)
    tokens_BT[rows, places_BN5] = needle_BN5
    kinds_BT[rows, places_BN5[..., 1:]] = Kind.RANDOM
    free_BT[rows, places_BN5] = False
    places_BS = starts_BI[:, -1:] + np.arange(config.span + 2)
    tokens_BT[rows[:, 0], places_BS] = np.pad(
        span_BS, ((0, 0), (1, 1)), constant_values=((0, 0), (COPY_BEGIN, COPY_END))
    )
    kinds_BT[rows[:, 0], places_BS[:, 1:-1]] = Kind.RANDOM
    free_BT[rows[:, 0], places_BS] = False
    tokens_BT[free_BT] = _filler(config, rng, sequences).ravel()
    kinds_BT[free_BT] = Kind.FILLER
    asked_BM = rng.random((sequences, config.needles)).argsort(axis=1)[:, : config.queries]
    _ask(config, tokens_BT, kinds_BT, (needle_BN5, asked_BM, span_BS))
    return TaskBatch(tokens_BT=tokens_BT, kinds_BT=kinds_BT, starts_BI=starts_BI)


def _places(config: TaskConfig, rng: np.random.Generator, sequences: int) -> Ids:
    """Draw where each item begins: items in random order, with gaps of filler that are cut at random."""
    count = config.all_needles + 1
    lengths_I = np.full(count, NEEDLE_TOKENS)
    lengths_I[-1] = config.span + 2
    order_BI = rng.random((sequences, count)).argsort(axis=1)
    before_BI = np.sort(rng.integers(0, config.filler + 1, (sequences, count)), axis=1)
    ordered_BI = lengths_I[order_BI]
    starts_BI = np.empty((sequences, count), np.int64)
    np.put_along_axis(starts_BI, order_BI, before_BI + ordered_BI.cumsum(axis=1) - ordered_BI, axis=1)
    grouped = starts_BI[:, config.needles : -1].reshape(sequences, config.groups, config.group_size)
    starts_BI[:, config.needles : -1] = np.sort(grouped, axis=2).reshape(sequences, -1)
    return starts_BI


def _contents(config: TaskConfig, rng: np.random.Generator, sequences: int) -> tuple[Ids, Ids, Ids]:
    """Draw keys and values of each needle, [B, N + GR, 2] both, and the span, [B, S]; no two keys are equal."""
    wanted = config.needles + config.groups
    pairs_BP = rng.random((sequences, len(KEY_IDS) ** 2), np.float32).argpartition(wanted, axis=1)[:, :wanted]
    # What a partition puts in front is in no random order; which key is a group's must not depend on it.
    pairs_BP = rng.permuted(pairs_BP, axis=1)
    owner_N = np.concatenate(
        (np.arange(config.needles), np.repeat(np.arange(config.needles, wanted), config.group_size))
    )
    pairs_BN = pairs_BP[:, owner_N]
    keys_BNA = KEY_IDS.start + np.stack(np.divmod(pairs_BN, len(KEY_IDS)), axis=2)
    values_BNA = rng.integers(VALUE_IDS.start, VALUE_IDS.stop, (*pairs_BN.shape, 2))
    return keys_BNA, values_BNA, rng.integers(COPY_IDS.start, COPY_IDS.stop, (sequences, config.span))


def transitions() -> Ids:
    """Give the table of the filler's chain, the same for every sequence of every experiment.

    Returns:
        Successors of each filler id by falling weight, as offsets into the filler ids, int64 [filler ids, 16].
    """
    rng = np.random.Generator(np.random.PCG64(20251202))
    return np.stack([rng.permutation(len(FILLER_IDS))[:SUCCESSORS] for _ in FILLER_IDS])


_FLAT = transitions().ravel() * SUCCESSORS
"""The table, with offsets that already point at the row of the successor."""
_ZIPF = np.cumsum(1 / np.arange(1, SUCCESSORS + 1)) / np.sum(1 / np.arange(1, SUCCESSORS + 1))


def _filler(config: TaskConfig, rng: np.random.Generator, sequences: int) -> Ids:
    """Walk the chain, [B, F]. Steps follow each other, so the loop is over tokens and each pass serves all sequences."""
    rank_FB = np.searchsorted(_ZIPF[:-1], rng.random((config.filler, sequences)))
    rows_FB = np.empty((config.filler, sequences), np.int64)
    rows_FB[0] = rng.integers(0, len(FILLER_IDS), sequences) * SUCCESSORS
    for step in range(1, config.filler):
        _FLAT.take(rows_FB[step - 1] + rank_FB[step], out=rows_FB[step], mode="clip")
    return FILLER_IDS.start + rows_FB.T // SUCCESSORS


def _ask(config: TaskConfig, tokens_BT: Ids, kinds_BT: NDArray[np.uint8], parts: tuple[Ids, Ids, Ids]) -> None:
    """Write the tail: needles asked for (5 ids each, of which the first becomes the query's mark), groups, span."""
    needle_BN5, asked_BM, span_BS = parts
    sequences = len(tokens_BT)
    query_BM5 = np.take_along_axis(needle_BN5[:, : config.needles], asked_BM[..., None], axis=1)
    query_BM5[..., 0] = QUERY
    at = config.body + NEEDLE_TOKENS * config.queries
    tokens_BT[:, config.body : at] = query_BM5.reshape(sequences, -1)
    groups = needle_BN5[:, config.needles :].reshape(sequences, config.groups, config.group_size, NEEDLE_TOKENS)
    values = groups[..., 3:].reshape(sequences, config.groups, -1)
    query = np.concatenate((np.full_like(values[..., :1], QUERY_ALL), groups[:, :, 0, 1:3], values), axis=2)
    end = at + config.group_tokens * config.groups
    tokens_BT[:, at:end] = query.reshape(sequences, -1)
    tokens_BT[:, end] = COPY
    tokens_BT[:, end + 1 :] = span_BS
    kinds_BT[:, config.single_positions - 2] = Kind.RANDOM
    kinds_BT[:, config.multi_positions[:, :1] - [2, 1]] = Kind.RANDOM
    kinds_BT[:, config.single_positions] = Kind.SINGLE
    kinds_BT[:, config.multi_positions] = Kind.MULTI
    kinds_BT[:, config.copy_positions] = Kind.COPY
