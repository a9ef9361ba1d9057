"""Overlap of texts against the definition."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envsynth.set_audit.overlap import nearest_earlier, shingled, similar_sets, window_digests


def never(one: int, other: int) -> bool:
    return False


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.frozensets(st.integers(0, 12), min_size=1, max_size=10), max_size=14),
    st.sampled_from([0.0, 0.1, 0.3, 0.5, 2 / 3, 0.7, 0.8, 0.9, 0.99]),
)
def test_all_pairs_above_the_threshold_are_found_and_no_other(sets: list[frozenset[int]], threshold: float) -> None:
    wanted = {
        (one, other): len(sets[one] & sets[other]) / len(sets[one] | sets[other])
        for one, other in itertools.combinations(range(len(sets)), 2)
    }
    found = {(pair.earlier, pair.later): pair.jaccard for pair in similar_sets(sets, threshold)}
    assert found == {pair: value for pair, value in wanted.items() if value > threshold}


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("abc ", max_size=14), max_size=12), st.sampled_from([0.2, 0.5, 0.8]), st.integers(0, 3))
def test_the_nearest_earlier_text_is_told(texts: list[str], threshold: float, parity: int) -> None:
    def related(one: int, other: int) -> bool:
        return (one + other) % 4 == parity

    words = [tuple(text.split()) for text in texts]
    sets = shingled(words, 2)
    wanted = []
    for later in range(len(words)):
        near = [
            (len(sets[earlier] & sets[later]) / len(sets[earlier] | sets[later]), -earlier)
            for earlier in range(later)
            if not related(earlier, later)
        ]
        if near and max(near)[0] > threshold:
            wanted.append((max(near)[0], later))
    found = nearest_earlier(words, 2, threshold, related)
    assert [(pair.jaccard, pair.later) for pair in found] == wanted
    assert not any(related(pair.earlier, pair.later) for pair in found)


def test_a_short_text_is_one_sequence_of_its_own() -> None:
    short, same, longer, none, empty = shingled([["a", "b"], ["a", "b"], ["a", "b", "c"], [], []], 3)
    assert short == same != longer
    assert (len(short), len(longer), none) == (1, 1, empty)
    assert window_digests(["a", "b"], 3) == window_digests(["a", "b"], 13) != window_digests(["a", "b", "c"], 3)
    assert window_digests([], 3) == []
    assert len(window_digests(["a"] * 5, 3)) == 3


@pytest.mark.parametrize("copies", [1, 400])
def test_thousands_of_prompts_take_seconds(copies: int) -> None:
    """Templated prompts, which share most of their phrases; and many copies of the same ones."""
    rng = random.Random(1)
    phrases = [[f"w{rng.randrange(300)}" for _ in range(12)] for _ in range(120)]
    texts = [
        [word for _ in range(5) for word in (*rng.choice(phrases), f"n{rng.randrange(50)}")]
        for _ in range(2_000 // copies)
    ] * copies
    found = nearest_earlier(texts, 5, 0.8, never)
    assert len(found) >= 2_000 - 2_000 // copies
