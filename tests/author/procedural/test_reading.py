"""Category sentences: what is understood, what is said about it, and the word packs behind it."""

from __future__ import annotations

import random
import re
from itertools import combinations

import pytest

from envsynth.author.procedural.docs import RESERVED
from envsynth.author.procedural.lexicon import load_pack, pack_names
from envsynth.author.procedural.mechanisms import MECHANISMS
from envsynth.author.procedural.reading import choose_mechanisms, read_category, stem
from envsynth.errors import AuthorError

PACKS = pack_names()


@pytest.mark.parametrize(
    ("text", "pack", "mechanism"),
    [
        ("planning a travel itinerary", "travel", "itinerary"),
        ("Trips and tours for tourists", "travel", "itinerary"),
        ("bus routes and timetables", "transport", "itinerary"),
        ("booking meeting rooms", "coworking", "booking"),
        ("clinic appointments", "clinic", "booking"),
        ("a warehouse and its stock", "warehouse", "inventory"),
        ("lab reagents: inventory", "laboratory", "inventory"),
        ("shop discounts and coupons", "retail", "pricing"),
        ("ordering spare parts for a bike workshop", "workshop", "inventory"),
        ("library books", "library", "booking"),
        ("gym courts", "sports", "booking"),
        ("restaurants: supplies and pricing", "catering", "pricing"),
        ("school courses", "school", "booking"),
        ("car rental", "rental", "booking"),
        ("a farm co-op", "farm", "inventory"),
        ("concerts and events", "events", "booking"),
        ("hotel stays", "hotel", "booking"),
    ],
)
def test_sentences_are_understood(text, pack, mechanism):
    reading = read_category(text)
    assert reading.pack.name == pack
    assert mechanism in reading.mechanisms
    assert len(reading.mechanisms) == 2
    assert reading.words is reading.pack


@pytest.mark.parametrize(
    "text", ["planning a travel itinerary", "weekend trips", "a route for couriers", "train journeys"]
)
def test_travel_worlds_always_hold_itineraries(text):
    reading = read_category(text)
    for seed in range(30):
        chosen = choose_mechanisms(reading, random.Random(f"choice/{seed}"))
        assert "itinerary" in chosen
        assert 2 <= len(set(chosen)) == len(chosen) <= 4


def test_choice_varies_with_the_seed_and_repeats_with_it():
    reading = read_category("planning a travel itinerary")
    chosen = [choose_mechanisms(reading, random.Random(f"choice/{seed}")) for seed in range(40)]
    assert len(set(chosen)) >= 2
    assert chosen == [choose_mechanisms(reading, random.Random(f"choice/{seed}")) for seed in range(40)]


def test_two_named_mechanisms_are_both_required():
    reading = read_category("inventory and pricing of ingredients")
    assert sorted(reading.required) == ["inventory", "pricing"]
    assert choose_mechanisms(reading, random.Random("any")) == ("inventory", "pricing")


def test_unknown_words_fall_back_and_say_so():
    reading = read_category("underwater basket weaving")
    assert reading.pack.name == "general"
    assert "no pack matched" in reading.explain()
    assert "took pack 'general' (shared resources of an organisation) instead" in reading.explain()
    assert "mechanisms: no keyword matched; took the weights of the pack" in reading.explain()
    assert len(reading.mechanisms) == 2


def test_explanation_quotes_the_words_that_decided():
    text = read_category("planning a travel itinerary").explain()
    assert "'travel', 'itinerary'" in text
    assert "always itinerary" in text
    assert "no keyword matched" not in text
    assert "no pack matched" not in text


@pytest.mark.parametrize("text", ["", "   ", "123 !?"])
def test_a_sentence_without_words_is_refused(text):
    with pytest.raises(AuthorError, match="holds no word"):
        read_category(text)


@pytest.mark.parametrize(
    ("word", "other"),
    [
        ("planning", "plan"), ("batches", "batch"), ("trips", "trip"), ("cities", "city"), ("schedules", "scheduling"),
        ("routes", "routing"), ("classes", "class"), ("shipped", "shipping"), ("boxes", "box"), ("sales", "sale"),
    ],
)  # fmt: skip
def test_inflected_words_share_a_stem(word, other):
    assert stem(word) == stem(other)


@pytest.mark.parametrize(
    ("word", "other"), [("booking", "book"), ("training", "train"), ("bus", "bu"), ("glass", "glas")]
)
def test_different_words_keep_different_stems(word, other):
    assert stem(word) != stem(other)


def test_there_are_packs_for_many_sentences():
    assert len(PACKS) >= 14
    with pytest.raises(AuthorError, match="no word pack 'nothing'"):
        load_pack("nothing")


@pytest.mark.parametrize("name", PACKS)
def test_nouns_of_a_pack_never_clash(name):
    pack = load_pack(name)
    for (entity, nouns), (other, others) in combinations(pack.nouns.items(), 2):
        shared = {word for pair in nouns for word in pair} & {word for pair in others for word in pair}
        assert not shared, (entity, other, shared)
    for entity, nouns in pack.nouns.items():
        for noun in (word for pair in nouns for word in pair):
            assert re.fullmatch(r"[a-z]+(?:[ -][a-z]+)*", noun), (entity, noun)
            assert not [word for word in RESERVED if re.search(rf"\b{word}\b", noun)]


@pytest.mark.parametrize("name", PACKS)
def test_parts_of_names_are_plain_words(name):
    pack = load_pack(name)
    for entity, (first, second) in pack.names.items():
        assert len(set(first)) == len(first), entity
        assert len(set(second)) == len(second), entity
        for part in (*first, *second):
            assert re.fullmatch(r"[A-Z][a-z]+|[A-Z]+", part), (entity, part)
            assert part.lower() not in RESERVED
        if second:
            assert len(first) * len(second) >= 40, entity


@pytest.mark.parametrize("name", PACKS)
def test_weights_name_mechanisms_and_values_are_distinct(name):
    pack = load_pack(name)
    assert set(pack.weights) >= set(MECHANISMS)
    assert sum(weight > 0 for weight in pack.weights.values()) >= 2
    for column, values in pack.values.items():
        assert len(set(values)) == len(values) >= 3, column
    assert pack.keywords or name == "general"
