"""Tokens: exact on any text, and the same for an entity wherever it stands."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envsynth.author.procedural.author import ProceduralAuthor
from envsynth.environments.examples.trip import trip_planning
from envsynth.errors import SpecError
from envsynth.policy import tokens
from envsynth.policy.tokens import JOIN, SPACE, SPECIALS, VOCABULARY, VOCABULARY_SIZE, decode, encode, names
from envsynth.policy.words import whole_words

NASTY = "ab1Z .,:;=()[]{}\"'?!|_-\\\n\t\u00e9\u6f22\U0001f9ed\ud800\udc00"


@settings(max_examples=400, deadline=None)
@given(st.text() | st.text(alphabet=NASTY, max_size=40))
def test_encode_round_trips_any_text(text: str) -> None:
    assert decode(encode(text)) == text


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet=NASTY, max_size=40) | st.text())
def test_encode_never_gives_a_special_token(text: str) -> None:
    ids = encode(text + "".join(SPECIALS))
    assert all(len(SPECIALS) <= token < VOCABULARY_SIZE for token in ids)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(0, VOCABULARY_SIZE - 1), max_size=30))
def test_decode_reads_whatever_a_policy_samples(ids: list[int]) -> None:
    text = decode(ids)
    assert decode(encode(text)) == text


@pytest.mark.parametrize("token", [-1, VOCABULARY_SIZE])
def test_decode_refuses_an_id_outside_the_vocabulary(token: int) -> None:
    with pytest.raises(SpecError, match="not in the vocabulary"):
        decode([token])
    with pytest.raises(SpecError, match="not in the vocabulary"):
        names([token])


def test_a_space_between_words_costs_nothing_and_a_missing_one_is_marked() -> None:
    assert len(encode("the row")) == 2
    assert encode("the  row").count(SPACE) == 1
    assert encode("the, row").count(JOIN) == 0
    assert encode("the,row").count(JOIN) == 1
    assert JOIN not in encode("3.5 12:30 2031-05-02")


def test_an_unknown_word_is_spelled_and_a_word_of_the_grammar_is_one_token() -> None:
    assert names(encode("whose")) == ["word:whose"]
    assert names(encode("kelo")) == ["start:k", "inner:e", "inner:l", "inner:o"]
    assert names(encode("Kelo9")) == ["start:K", "inner:e", "inner:l", "inner:o", "inner:9"]


CONTEXTS = (
    ("", ""),
    (" ", " "),
    ("name ", ")"),
    ('"', '"'),
    ("'", "'."),
    ("(", ") "),
    ("[", "| "),
    ("the ", ", and "),
    ("= ", "\n"),
    ("x:", ":y"),
    ("\n", "?"),
    ("\u00e9", "\u6f22"),
    ("<", ">"),
)


def holds(ids: list[int], part: list[int]) -> bool:
    return any(ids[start : start + len(part)] == part for start in range(len(ids) - len(part) + 1))


@settings(max_examples=400, deadline=None)
@given(
    st.text(alphabet="abzAZ09-_.'/ \u00e9", min_size=1, max_size=12).map(str.strip).filter(bool),
    st.sampled_from(CONTEXTS),
)
def test_an_entity_has_the_same_ids_whatever_stands_around_it(entity: str, around: tuple[str, str]) -> None:
    before, after = around
    assert holds(encode(f"{before}{entity}{after}"), encode(entity))


def world_values() -> list[str]:
    found: dict[str, None] = {}
    worlds = [ProceduralAuthor(category, 3).draft(0).environment for category in ("planning a trip", "a laboratory")]
    for environment in [*worlds, trip_planning()[0]]:
        for table in environment.world.rows.values():
            found |= dict.fromkeys(cell for row in table for cell in row if isinstance(cell, str))
            found |= dict.fromkeys(str(cell) for row in table for cell in row if isinstance(cell, int))
    return list(found)


def test_values_of_worlds_have_the_same_ids_in_observation_and_argument() -> None:
    values = world_values()
    assert len(values) > 300
    for value in values:
        ids = encode(value)
        for before, after in CONTEXTS:
            assert holds(encode(f"{before}{value}{after}"), ids), (before, value, after)


def test_the_vocabulary_is_fixed() -> None:
    """A change of the list of tokens makes old checkpoints unreadable: it raises VERSION, and then this hash changes."""
    assert ("tokens/2", len(VOCABULARY)) == (tokens.VERSION, VOCABULARY_SIZE)
    assert len(dict.fromkeys(VOCABULARY)) == VOCABULARY_SIZE
    assert tokens.VOCABULARY_HASH == "b02591921bf1a0aeb293e7a4f15cc264"
    assert list(whole_words()) == sorted(dict.fromkeys(whole_words()))


def test_tokens_load_no_torch() -> None:
    code = "import sys, envsynth.policy.template, envsynth.policy.tokens; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
