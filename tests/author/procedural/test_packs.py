"""Word packs: which one a sentence gets, what their words may be, and how many names they make."""

from __future__ import annotations

import random
import re
from collections import Counter
from pathlib import Path

import pytest

from envsynth.author.procedural.compose import compose
from envsynth.author.procedural.docs import AGGREGATES, RESERVED
from envsynth.author.procedural.lexicon import load_pack, pack_names
from envsynth.author.procedural.mechanisms import MECHANISMS
from envsynth.author.procedural.reading import STRONG, choose_mechanisms, read_category, stem

PACKS = pack_names()
PLANNED = (
    "booking", "inventory", "pricing", "itinerary", "ledger", "approval", "tickets", "routing", "scheduling",
    "allocation", "eligibility", "subscription", "permissions", "config", "telemetry", "recipes", "identity",
)  # fmt: skip
"""Mechanisms that packs may give a weight, whether this build has them or not."""
SHARED = ("booking", "closure", "item", "lot", "order", "person", "reservation", "resource", "site")
"""Entities that every pack calls by words of its own."""
BEFORE = frozenset((
    "catering", "clinic", "coworking", "events", "farm", "general", "hotel", "laboratory", "library", "rental", "retail",
    "school", "sports", "transport", "travel", "warehouse", "workshop",
))  # fmt: skip
"""The first packs; their lists of parts are a little shorter, and they share a few words."""

# What a person would expect of each sentence, written before the matcher saw any of them: the pack, then one or two
# mechanisms that must be among the two most suitable ones when all planned mechanisms exist.
EXPECTED = (
    ("hospital bed management", "hospital", "allocation"),
    ("assigning beds on a maternity ward", "hospital", "allocation"),
    ("appointments in a dental clinic", "clinic", "booking"),
    ("merging duplicate patient records", "clinic", "identity"),
    ("pharmacy stock and expiry dates", "pharmacy", "inventory"),
    ("compounding of prescriptions", "pharmacy", "recipes"),
    ("a veterinary practice and its appointments", "veterinary", "booking"),
    ("museum loans of paintings: approvals", "museum", "approval"),
    ("gate allocation at an airport", "airport", "allocation"),
    ("berths and containers in a port: scheduling", "port", "scheduling"),
    ("railway timetables", "railway", "itinerary"),
    ("software licence audits", "licences", "subscription"),
    ("software license renewals", "licences", "subscription"),
    ("IT helpdesk", "itops", "tickets"),
    ("access rights on a company network", "itops", "permissions"),
    ("incident response for a data centre", "datacentre", "tickets"),
    ("sensor alarms in data centers", "datacentre", "telemetry"),
    ("roles and permissions of cloud accounts", "cloud", "permissions"),
    ("deployments to kubernetes", "cloud", "config"),
    ("bank transfers and account balances", "bank", "ledger"),
    ("know-your-customer identity checks in a bank", "bank", "identity"),
    ("insurance claims", "insurance", "eligibility"),
    ("tax returns and payments", "tax", "ledger"),
    ("building permits in a city administration", "city", "approval"),
    ("dispatching ambulances", "emergency", "routing"),
    ("shift rosters of a fire brigade", "emergency", "scheduling"),
    ("purchase of material for construction sites", "construction", "pricing"),
    ("apartment viewings for a real estate agent", "estate", "booking"),
    ("power grid telemetry", "energy", "telemetry"),
    ("meter readings of a water utility", "water", "telemetry"),
    ("mining trucks: haulage", "mining", "routing"),
    ("felling permits in forestry", "forestry", "approval"),
    ("catch quotas in fisheries", "fishing", "allocation"),
    ("film production schedules", "film", "scheduling"),
    ("magazine subscriptions of a publisher", "publishing", "subscription"),
    ("shift plans in a newsroom", "newsroom", "scheduling"),
    ("orchestra rehearsals", "music", "scheduling"),
    ("seating in a theatre", "theatre", "allocation"),
    ("kindergarten places: eligibility", "kindergarten", "eligibility"),
    ("admissions to a university", "university", "eligibility"),
    ("peer review of research grants", "grants", "approval"),
    ("volunteers and donations of a food bank", "charity", "ledger"),
    ("waste collection routes", "recycling", "routing"),
    ("fashion boutique with discounts", "fashion", "pricing"),
    ("assembly of car modules in a car factory", "automotive", "recipes"),
    ("configurations of aircraft avionics", "aerospace", "config"),
    ("telemetry of a space station", "space", "telemetry"),
    ("crafting in a video game", "games", "recipes"),
    ("mobile phone plans and roaming", "telecom", "subscription"),
    ("complaints in a call centre", "callcentre", "tickets"),
    ("hearings at a law firm: booking", "legal", "booking"),
    ("expense approvals", "company", "approval"),
    ("payroll and expense ledger of a company", "company", "ledger"),
    ("warehouse restocking", "warehouse", "inventory"),
    ("school enrolment", "school", "eligibility"),
    ("freight routing", "transport", "routing"),
    ("recipe scaling for a canteen", "catering", "recipes"),
    ("coworking memberships", "coworking", "subscription"),
    ("wedding venues and their availability", "events", "booking"),
    ("grain storage on a farm", "farm", "inventory"),
    ("hotel rooms", "hotel", "booking"),
    ("reagent mixtures in a chemistry lab", "laboratory", "recipes"),
    ("library cards and lending", "library", "booking"),
    ("bike and van rental", "rental", "booking"),
    ("supermarket promotions", "retail", "pricing"),
    ("tennis club memberships", "sports", "subscription"),
    ("sightseeing trips", "travel", "itinerary"),
    ("jobs in a repair workshop", "workshop", "scheduling"),
)


@pytest.mark.parametrize(("text", "pack", "mechanism"), EXPECTED)
def test_a_sentence_gets_the_pack_and_the_mechanism_that_a_person_expects(text, pack, mechanism):
    reading = read_category(text, PLANNED)
    assert reading.pack.name == pack, reading.explain()
    assert mechanism in reading.mechanisms, reading.explain()
    assert f"words: pack {pack!r}" in reading.explain()


@pytest.mark.parametrize("text", [text for text, _, _ in EXPECTED])
def test_a_sentence_makes_worlds_of_the_mechanisms_of_this_build(text):
    reading = read_category(text)
    assert set(reading.weights) <= set(MECHANISMS)
    for seed in range(5):
        chosen = choose_mechanisms(reading, random.Random(f"build/{seed}"))
        assert len(set(chosen)) == 2
        assert set(chosen) <= set(MECHANISMS)


def test_the_table_covers_every_pack_and_every_mechanism():
    assert len(EXPECTED) >= 60
    assert {pack for _, pack, _ in EXPECTED} == set(PACKS) - {"general"}
    assert {mechanism for _, _, mechanism in EXPECTED} == set(PLANNED)


def test_a_mechanism_that_the_build_lacks_is_left_out_and_the_reading_says_so():
    reading = read_category("hospital bed management", ("booking", "inventory"))
    assert set(reading.weights) == {"booking", "inventory"}
    assert "mechanism allocation: 'bed management' called for it, but this build has no such mechanism" in (
        reading.explain()
    )


def test_a_keyword_of_two_words_beats_two_single_words():
    reading = read_category("fabric and garments at a food bank")
    assert reading.pack.name == "charity"
    assert reading.domain_words == ("food bank",)
    assert reading.other_packs["fashion"] == ("fabric", "garments")


def test_at_a_tie_a_word_that_also_calls_for_a_mechanism_gives_way():
    assert read_category("material of a farm").pack.name == "farm"
    assert read_category("material").pack.name == "warehouse"


def test_hyphens_and_american_spelling_make_no_difference():
    for one, other in (("data-center", "data centre"), ("theater", "theatres"), ("license", "licences")):
        assert read_category(one).pack == read_category(other).pack


def test_the_packs_that_lost_are_named():
    text = read_category("loans of a bank to a farm").explain()
    assert "words: pack 'bank' (banks), because of 'loans', 'bank'" in text
    assert "other packs: 'library' because of 'loans'; 'farm' because of 'farm'" in text


# --------------------------------------------------------------------------------------------------------------- lint


def test_there_are_at_least_42_packs():
    assert len(PACKS) >= 42
    assert set(PACKS) >= BEFORE


@pytest.mark.parametrize("name", [name for name in PACKS if name != "general"])
def test_keywords_are_plain_and_few_share_one(name):
    pack = load_pack(name)
    assert 8 <= len(pack.keywords) <= 20
    assert len({" ".join(map(stem, keyword.split())) for keyword in pack.keywords}) == len(pack.keywords) or (
        name in BEFORE
    )
    for keyword in pack.keywords:
        assert re.fullmatch(r"[a-z]+(?:[ -][a-z]+)*", keyword), keyword


def test_no_keyword_is_in_more_than_two_packs():
    owners = Counter(
        keyword
        for name in PACKS
        for keyword in {" ".join(map(stem, each.split())) for each in load_pack(name).keywords}
    )
    assert not [keyword for keyword, count in owners.items() if count > 2]


@pytest.mark.parametrize("name", PACKS)
def test_nouns_are_words_that_a_sentence_can_hold(name):
    pack = load_pack(name)
    assert set(SHARED) <= set(pack.nouns)
    for entity, pairs in pack.nouns.items():
        assert len(set(pairs)) == len(pairs)
        for singular, plural in pairs:
            assert singular != plural, (entity, singular)
            for noun in (singular, plural):
                assert noun.isascii()
                assert not [word for word in RESERVED if re.search(rf"\b{word}\b", noun)], (entity, noun)


@pytest.mark.parametrize("name", [name for name in PACKS if name not in BEFORE])
def test_a_newer_pack_brings_its_own_words(name):
    pack, general = load_pack(name), load_pack("general")
    assert set(pack.weights) == set(PLANNED)
    for entity in ("person", "site", "resource", "item"):
        first, second = pack.names[entity]
        assert len(first) >= 10, entity
        assert len(second) >= (4 if entity == "resource" else 5), entity
        assert pack.names[entity] != general.names[entity]
        assert pack.nouns[entity] != general.nouns[entity]
    for column in ("region", "tier", "category"):
        assert pack.values[column] != general.values[column]


@pytest.mark.parametrize("name", PACKS)
def test_weights_name_mechanisms_that_exist_or_are_planned(name):
    weights = load_pack(name).weights
    assert set(weights) <= {*PLANNED, *MECHANISMS}
    assert all(0 <= weight <= 9 for weight in weights.values())
    # A second one would be in every world too, and then all worlds of the pack would join the same two mechanisms.
    assert sum(weight >= STRONG for weight in weights.values()) <= 1
    assert sum(weights.get(mechanism, 0) > 0 for mechanism in MECHANISMS) >= 2


def test_a_pack_never_inherits_a_noun_that_it_uses_for_something_else():
    for name in PACKS:
        pack = load_pack(name)
        words = [word for pairs in pack.nouns.values() for pair in pairs for word in set(pair)]
        assert len(set(words)) == len(words), [word for word, count in Counter(words).items() if count > 1]


# -------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize("entity", ["person", "site", "resource", "item"])
def test_first_parts_of_names_are_mostly_distinct_over_packs(entity):
    firsts = [set(load_pack(name).names[entity][0]) for name in PACKS if name not in BEFORE]
    parts = [part for first in firsts for part in first]
    assert len(set(parts)) >= 0.95 * len(parts), [part for part, count in Counter(parts).items() if count > 1]


def test_worlds_of_all_packs_and_seeds_have_thousands_of_names():
    names: dict[str, set[str]] = {}
    plain: dict[str, set[str]] = {}
    for name in PACKS:
        pack = load_pack(name)
        for entity, (first, second) in pack.names.items():
            plain.setdefault(entity, set()).update(f"{one} {two}" for one in first for two in second)
        for seed in range(3):
            world = compose(
                [MECHANISMS["booking"], MECHANISMS["inventory"]], pack, random.Random(f"names/{name}/{seed}")
            )
            for entity in ("person", "site", "resource", "item"):
                rng = random.Random(f"more/{name}/{seed}/{entity}")
                names.setdefault(entity, set()).update(world.coin_name(rng, entity, {}) for _ in range(60))
    for entity in ("person", "site", "resource", "item"):
        assert len(names[entity]) >= 5000, entity
        share = len(names[entity] & plain[entity]) / len(names[entity])
        assert 0.2 <= share <= 0.7, (entity, share)  # both kinds of words are there: English and coined


def test_the_docs_say_how_many_packs_there_are():
    root = Path(__file__).parents[3]
    for page in ("guides/synthesize.md", "concepts/procedural-author.md"):
        assert f"{len(PACKS)} " in (root / "docs" / page).read_text(encoding="utf-8"), page


@pytest.mark.parametrize("name", PACKS)
def test_nouns_hold_no_word_of_the_prompt_language(name: str) -> None:
    """A mechanism puts nouns into labels ("reserved lot"), where words of aggregates are ambiguous."""
    forms = [form for pairs in load_pack(name).nouns.values() for pair in pairs for form in pair]
    words = {word for form in forms for word in re.split("[ -]", form)}
    assert len(words) > 20
    assert not {*AGGREGATES, *RESERVED} & words
