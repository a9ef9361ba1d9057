"""Public documents: complete, JSON, and without ambiguous words."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest

from envsynth.author.procedural.compose import compose
from envsynth.author.procedural.docs import lint, public_docs
from envsynth.author.procedural.lexicon import load_pack
from envsynth.author.procedural.mechanisms import MECHANISMS
from envsynth.errors import AuthorError


def make_world():
    return compose([MECHANISMS["booking"], MECHANISMS["inventory"]], load_pack("library"), random.Random("docs/1"))


def test_documents_cover_every_attribute_and_action():
    world = make_world()
    docs = public_docs(world)
    assert json.loads(json.dumps(docs)) == docs
    assert set(docs["entities"]) == set(world.tables)
    stored = {(entity, col.name) for entity, cols in world.tables.items() for col in cols}
    assert {(entity, name) for entity, name, *_ in docs["attrs"]} == stored | set(world.derived)
    assert {name for name, *_ in docs["actions"]} == set(world.actions)


def test_documents_agree_with_the_schema_on_types():
    world = make_world()
    docs = public_docs(world)
    for entity, name, label, type_, params in docs["attrs"]:
        assert tuple(type_) == world.attr_type(entity, name)
        assert [tuple(param) for param in params] == list(world.attr_params(entity, name))
        assert label
    for name, _, params in docs["actions"]:
        assert [(param, tuple(type_)) for param, type_ in params] == list(world.action_params(name))


def test_units_have_words():
    units = public_docs(make_world())["units"]
    assert units["oclock"] == "o'clock"
    assert units["h"] == "hours"
    assert units["credits"] == "credits"


def docs_with(attrs=(), entities=None, actions=()):
    return {
        "entities": entities or {"site": ["depot", "depots"]},
        "attrs": [["site", f"a{index}", label, ["num", "kg"], []] for index, label in enumerate(attrs)],
        "actions": list(actions),
        "units": {},
    }


@pytest.mark.parametrize(
    ("docs", "finding"),
    [
        (docs_with(["price", "price of {0}"]), "begins label"),
        (docs_with(["stock", "stock is low"]), "begins label"),
        (docs_with(["rank", "rank among peers"]), "begins label"),
        (docs_with(["weight", "weight"]), "stands for"),
        (docs_with(["total weight"]), "'total'"),
        (docs_with(["cheapest rate"]), "'cheapest'"),
        (docs_with(["days whose sum"]), "'whose'"),
        (docs_with(entities={"a": ["lot", "lots"], "b": ["lot", "parcels"]}), "stands for a and b"),
        (docs_with(entities={"a": ["bed and breakfast", "inns"]}), "'and'"),
        (docs_with(entities={"a": ["piece of art", "pieces"]}), "'of'"),
        (docs_with(entities={"a": ["Depot", "depots"]}), "lower-case"),
        (docs_with(actions=[["go", "go to {place}", [["site", ["row", "site"]]]]]), "each parameter"),
        (
            docs_with(
                actions=[["a", "take {x}", [["x", ["row", "site"]]]], ["b", "take {y}", [["y", ["row", "site"]]]]]
            ),
            "stands for a and b",
        ),
    ],
)
def test_lint_finds_ambiguous_words(docs, finding):
    assert any(finding in line for line in lint(docs))


def test_lint_lets_harmless_prefixes_pass():
    assert lint(docs_with(["price", "price tag", "booked hours on {0}", "headcount"])) == []


def test_a_world_with_ambiguous_words_is_refused():
    world = make_world()
    entity, name = next(iter(world.derived))
    world.derived[entity, name] = replace(world.derived[entity, name], label="total hours on {0}")
    with pytest.raises(AuthorError, match="'total'"):
        public_docs(world)


def test_nouns_of_a_world_are_distinct():
    world = make_world()
    world.words["site"] = world.words["person"]
    with pytest.raises(AuthorError, match="stands for"):
        public_docs(world)
