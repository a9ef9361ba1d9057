"""The English of prompts, rules and tool documents: classes of faults that blind readers stumbled over, looked for in
the texts of all mechanisms. Every class is planted once, so that a search that finds nothing can find something."""

from __future__ import annotations

import random
import re
from functools import cache

import pytest

from envsynth.author.procedural import ir
from envsynth.author.procedural.author import ALL_ROWS_RULE, SNAPSHOT_RULE, ProceduralAuthor
from envsynth.author.procedural.compose import compose
from envsynth.author.procedural.docs import public_docs
from envsynth.author.procedural.lexicon import load_pack, pack_names
from envsynth.author.procedural.mechanisms import MECHANISMS
from envsynth.author.procedural.parse import parse
from envsynth.author.procedural.parse.docs import Docs as ParserDocs
from envsynth.author.procedural.render import REGISTERS, facts, render
from envsynth.author.procedural.render.values import is_plural
from envsynth.errors import Rejected
from tests.author.procedural.test_round_trip import Docs, Generator

SEEDS = range(3)
PLURAL_LABELS = {"accepted goods", "booked hours", "busy days", "free seats", "operating hours", "secured units"}
"""Nouns of labels that take "are"; a new plural label is entered here by whoever reads it aloud."""
CATEGORIES = (
    "planning a travel itinerary",
    "a bank's customer accounts",
    "managing IT support tickets",
    "grid telemetry",
)

FAULTS = {
    "doubled word": re.compile(r"\b([a-z]+) \1\b"),
    "number": re.compile(r"(?<!-)\b1 (?!of\b|is\b|unless\b|less\b|as\b)[a-z]*(?:[^aeious]s|[aeo]s)\b"),
    "particle": re.compile(r"\b(?:back|off|away|out|over) (?:it|them)\b"),
    "a before a vowel": re.compile(r"\b[Aa] (?=[aeio]|u(?!ni|se|su|ti)|hour|heir|honest|8|1[18]\b)(?!one\b|once\b|eu)"),
    "an before a consonant": re.compile(
        r"\b[Aa]n (?![aeiou8]|1[18]\b|hour|heir|honest)|\b[Aa]n (?=uni[tof]|user|one\b)"
    ),
    "noun said again": re.compile(r"\b((?:[a-z]+ )?[a-z]+) (?:is|are|is not|are not|=|!=) the \1 (?:[A-Z\"]|with id)"),
    "value before its noun": re.compile(
        r"\b(?:in|of) (?:state|stage|phase|standing|progress|condition|strength|type|kind|verdict)"
        r" (?!and|at|but|can|for|has|have|if|in|is|it|of|on|or|records?\b|that|then|until|with)[a-z]+"
    ),
    "verb after 1": re.compile(r"\b1 [a-z]+ (?:remain|are|have|come)\b"),
    "verb after percent": re.compile(r"\bpercent (?:\([^)]*\) |[a-z ]+\([^)]*\) )?(?:come|are|have)\b"),
    "a sum of many": re.compile(r"\bis the [a-z]+s of [^.;]*, added up"),
    "dangling name": re.compile(
        r"(?:whose|that are|such that) (?:(?!, find the |[.] ).)*; (?:call (?:it|them)|it is referred to as) X"
        r"|, (?:referred to as|to be called) X"
    ),
    "singular that are": re.compile(
        r"\b(?:Get X\d+|X\d+|denote|be|Find|Look up|Take|Determine)[ :=]+the (?:(?!among|with|over|of)[a-z]+ )+that are\b"
    ),
    "bare list": re.compile(r"\b(?:Limits|Rules):"),
    "unreadable set": re.compile(r"such that (?:all with|combined|max|min)\b|\b(?:max|min) combined\b"),
}

PLANTED = {
    "doubled word": "Take the the room.",
    "number": "It lasts at least 1 hours.",
    "particle": "Take each of the orders in turn and call back it.",
    "a before a vowel": "A hour of a upgrade.",
    "an before a consonant": "To start an booking.",
    "noun said again": "the lines whose product line is the product line Drives",
    "value before its noun": "Only a batch in progress planned can be started.",
    "verb after 1": "if at least 1 hour remain until then",
    "verb after percent": "35 percent of this (rounded down) come off",
    "a sum of many": "The wealth of a client is the balances of all accounts, added up.",
    "dangling name": "such that the sum of their quality grade is minimal, referred to as X1",
    "singular that are": "Get X1: the enrolment that are lapsed",
    "bare list": "Limits: each needs a cost.",
    "unreadable set": "such that combined merit <= 58 points and max combined amount",
}


def faults(text):
    """Names of the faults in a text; what stands in quotes is data."""
    bare = re.sub(r"\"[^\"\n]*\"|(?<=[ (])'[^'\n]*'(?=[ ,.;:?)]|$)", "'...'", text)
    return [
        f"{name}: {found[0]!r} in {text[:200]!r}" for name, fault in FAULTS.items() if (found := fault.search(bare))
    ]


@cache
def make_world(mechanism, seed):
    return compose([MECHANISMS[mechanism]], load_pack("general"), random.Random(f"english/{mechanism}/{seed}"))


def noun_of(label):
    """The noun of a label, told by hand: what stands before its first slot or preposition."""
    return re.split(r" ?\{| (?:after|at|for|from|in|leaving|on|until|with) ", label)[0]


# ---------------------------------------------------------------------------------------------------------------- words


def test_every_class_of_fault_is_found_where_it_is_planted():
    assert set(PLANTED) == set(FAULTS)
    for name, text in PLANTED.items():
        assert [found.partition(":")[0] for found in faults(text)] == [name]


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_both_sides_know_which_labels_are_plural(mechanism):
    for seed in SEEDS:
        docs = public_docs(make_world(mechanism, seed))
        parser = ParserDocs(docs)
        for entity, name, label, type_, _ in docs["attrs"]:
            if type_[0] != "bool":
                assert is_plural(label) == parser.by_name[entity, name].plural == (noun_of(label) in PLURAL_LABELS), (
                    label
                )


def test_no_noun_in_the_singular_counts_as_plural():
    for pack in pack_names():
        for pairs in load_pack(pack).nouns.values():
            for one, many in pairs:
                parser = ParserDocs({"entities": {"a": [one, many]}, "attrs": [], "actions": [], "units": {}})
                assert not is_plural(one), one
                assert parser.nouns["a"] == (one, many)


def test_plural_labels_are_reached():
    """The set of plural labels is no list of wishes: each is in some world."""
    labels = {
        noun_of(attr[2])
        for mechanism in MECHANISMS
        for seed in range(8)
        for attr in public_docs(make_world(mechanism, seed))["attrs"]
    }
    assert labels >= PLURAL_LABELS


# ---------------------------------------------------------------------------------------------------------------- rules


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_rules_and_tool_documents_are_english(mechanism):
    for seed in SEEDS:
        world = make_world(mechanism, seed)
        texts = [*world.policy, SNAPSHOT_RULE, ALL_ROWS_RULE]
        texts += [text for tool in world.tools for text in (tool.description, tool.returns)]
        texts += [item["description"] for tool in world.tools for item in tool.parameters["properties"].values()]
        assert [found for text in texts for found in faults(text)] == []


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_no_sentence_stands_twice_in_the_rules(mechanism):
    for seed in SEEDS:
        said = [part for rule in make_world(mechanism, seed).policy for part in re.split(r"(?<=[.]) (?=[A-Z])", rule)]
        assert [sentence for sentence in dict.fromkeys(said) if said.count(sentence) > 1] == []


def test_no_rule_says_what_the_first_observation_says_above_it():
    """The day stands under its own heading; only rules that add a weekday or an hour may name it again."""
    for mechanism in MECHANISMS:
        world = make_world(mechanism, 0)
        assert f"Today is {world.now[:10]}." not in world.policy


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_definitions_agree_with_their_label(mechanism):
    checked = 0
    for seed in SEEDS:
        for derived in make_world(mechanism, seed).derived.values():
            noun = noun_of(derived.label)
            begins = re.match(rf"The {re.escape(noun)} of an? [^.:;]*? (is|are)\b", derived.policy)
            if derived.type.kind != "bool" and begins:
                assert begins[1] == ("are" if noun in PLURAL_LABELS else "is"), derived.policy
                checked += 1
    assert checked or mechanism in ("itinerary", "pricing", "eligibility", "permissions")


# -------------------------------------------------------------------------------------------------------------- prompts


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_phrases_of_one_thing_take_a_pronoun(mechanism):
    for name, phrase, params in public_docs(make_world(mechanism, 0))["actions"]:
        if len(params) == 1:
            assert faults(phrase.format(**{params[0][0]: "it"})) == [], name


def test_a_phrase_that_ends_in_its_particle_is_found():
    assert faults("call back {shipment}".format(shipment="it"))
    assert not faults("call {shipment} back".format(shipment="it"))


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_random_prompts_of_real_worlds_are_english_and_read_back(mechanism):
    # Bookings bring an action on one row, which "for each" needs.
    names = dict.fromkeys((mechanism, "booking"))
    world = compose([MECHANISMS[name] for name in names], load_pack("general"), random.Random(f"english/{mechanism}"))
    docs = public_docs(world)
    schema = Docs(docs)
    for seed in range(10):
        task = Generator(schema, random.Random(f"english/{mechanism}/{seed}")).task()
        ir.check(task, schema)
        told = {**docs, "user": {fact.topic: fact.says for fact in facts(task, docs)}}
        for register in REGISTERS:
            text = render(task, docs, register, variant=seed % 3)
            assert faults(text) == []
            assert disagreements(text, docs) == []
            assert parse(text, told) == task, text


def disagreements(text, docs):
    """Places where "is" or "are" stands behind a label without arguments and does not agree with it."""
    found = []
    for _, _, label, type_, params in docs["attrs"]:
        if type_[0] != "bool" and not params:
            wrong = "is" if label in PLURAL_LABELS else "are"
            found += re.findall(rf"\b(?:whose|combined|total) {re.escape(label)} {wrong}\b", text)
    return found


def test_disagreement_is_found_where_it_is_planted():
    docs = {"attrs": [["person", "held", "secured units", ["num", "units"], []]]}
    assert disagreements("the people whose secured units is at least 1 unit", docs)
    assert not disagreements("the people whose secured units are at least 1 unit", docs)


@pytest.mark.parametrize("category", CATEGORIES)
def test_proposed_prompts_are_english(category):
    author = ProceduralAuthor(category, "english")
    draft = author.draft(0)
    read = 0
    for number in range(6):
        for attempt in range(30):
            try:
                task = author.root(draft, number, attempt)
            except Rejected:
                continue
            assert faults(task.prompt) == []
            read += 1
            break
    assert read >= 4
    rules = draft.environment.policy
    assert rules[-2:] == (SNAPSHOT_RULE, ALL_ROWS_RULE)
    assert [found for rule in rules for found in faults(rule)] == []
