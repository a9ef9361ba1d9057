"""Which texts overlap: pairs of prompts with nearly the same word sequences, exactly, and windows of words.

No sketch and no seed: prefix filtering finds every pair above the threshold, and fast enough for sets of thousands.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import floor

Shingles = frozenset[int]
"""Sequences of words of one text, each by its number."""


@dataclass(frozen=True)
class Likeness:
    """A text and an earlier one that it resembles most."""

    jaccard: float
    """Common sequences of words among all of both, 0 to 1."""
    earlier: int
    """Position of the earlier text."""
    later: int
    """Position of the text."""


def shingled(texts: Sequence[Sequence[str]], size: int) -> list[Shingles]:
    """Cut texts into sequences of words.

    Args:
        texts: Normalised words of each.
        size: Words of a sequence; a shorter text is one sequence.

    Returns:
        The set of sequences of each text.
    """
    numbers: dict[tuple[str, ...], int] = {}
    return [frozenset(numbers.setdefault(part, len(numbers)) for part in _windows(tuple(text), size)) for text in texts]


def _windows(words: tuple[str, ...], size: int) -> list[tuple[str, ...]]:
    return [words[start : start + size] for start in range(max(1, len(words) - size + 1))]


def similar_sets(sets: Sequence[Shingles], threshold: float) -> list[Likeness]:
    """Find all pairs of sets whose Jaccard index is above a threshold.

    Prefix filtering (Bayardo, Ma, Srikant 2007): order all elements, rare ones first. Two sets of which one is of size n
    and whose index is above t have an element in common among the first n - floor(t * n) of each. So only pairs that share
    one of those are compared, and none is missed.

    Args:
        sets: The sets, none empty.
        threshold: Index that must be exceeded, in [0, 1).

    Returns:
        The pairs by position.
    """
    frequency = Counter(item for one in sets for item in one)
    # The smaller set first, so that what is indexed is never larger than what asks.
    order = sorted(range(len(sets)), key=lambda index: (len(sets[index]), index))
    postings: dict[int, list[int]] = {}
    found: list[Likeness] = []
    for index in order:
        one = sets[index]
        prefix = sorted(one, key=lambda item: (frequency[item], item))[: len(one) - floor(threshold * len(one))]
        least = threshold * len(one)
        candidates = dict.fromkeys(
            other for item in prefix for other in postings.get(item, ()) if len(sets[other]) > least
        )
        for other in candidates:
            common = len(one & sets[other])
            jaccard = common / (len(one) + len(sets[other]) - common)
            if jaccard > threshold:
                found.append(Likeness(jaccard, min(index, other), max(index, other)))
        for item in prefix:
            postings.setdefault(item, []).append(index)
    return sorted(found, key=lambda pair: (pair.later, pair.earlier))


def nearest_earlier(
    texts: Sequence[Sequence[str]], size: int, threshold: float, related: Callable[[int, int], bool]
) -> list[Likeness]:
    """Find the texts that resemble an earlier one.

    Args:
        texts: Normalised words of each.
        size: Words of a sequence.
        threshold: Jaccard index that must be exceeded, in [0, 1).
        related: Whether two positions may resemble each other.

    Returns:
        For each such text the earlier one that it resembles most; of equals, the first.
    """
    members: dict[Shingles, list[int]] = {}
    for index, one in enumerate(shingled(texts, size)):
        members.setdefault(one, []).append(index)
    groups = list(members.values())
    alike: list[list[tuple[float, int]]] = [[(1.0, number)] for number in range(len(groups))]
    for pair in similar_sets(list(members), threshold):
        alike[pair.later].append((pair.jaccard, pair.earlier))
        alike[pair.earlier].append((pair.jaccard, pair.later))
    found: list[Likeness] = []
    for number, group in enumerate(groups):
        nearest = sorted(alike[number], key=lambda item: (-item[0], item[1]))
        for later in group:
            best = next(
                (
                    Likeness(jaccard, earlier, later)
                    for jaccard, other in nearest
                    for earlier in groups[other]
                    if earlier < later and not related(earlier, later)
                ),
                None,
            )
            found += [] if best is None else [best]
    return sorted(found, key=lambda pair: pair.later)


def window_digests(words: Sequence[str], size: int) -> list[bytes]:
    """Hash the windows of a text.

    Args:
        words: Its normalised words.
        size: Words of a window; a shorter text is one window, whole.

    Returns:
        The hashes in order; none for a text without words.
    """
    if not words:
        return []
    return [
        hashlib.blake2b(" ".join(part).encode("utf-8", "replace"), digest_size=16).digest()
        for part in _windows(tuple(words), size)
    ]
