"""Composition: structure, words, rows, records and signature."""

from __future__ import annotations

import os
import random
import statistics
import subprocess
import sys
from dataclasses import replace
from itertools import combinations, pairwise
from types import MappingProxyType

import pytest

from envsynth.author.procedural.compose import compose, connect, signature, to_world
from envsynth.author.procedural.docs import RESERVED, public_docs
from envsynth.author.procedural.ir import Type
from envsynth.author.procedural.lexicon import load_pack, pack_names
from envsynth.author.procedural.mechanism import Col
from envsynth.author.procedural.mechanisms import MECHANISMS
from envsynth.errors import AuthorError

PAIRS = list(combinations(MECHANISMS, 2))


def make_world(seed=1, names=("booking",), pack="general", **more):
    chosen = [MECHANISMS[name] for name in names]
    return compose(chosen, load_pack(pack), random.Random(f"compose/{seed}"), **more)


class Notes:
    """A small mechanism of our own: it lets tests ask for schemas that no built-in one has."""

    name = "notes"
    ports = MappingProxyType({"actor": "person"})
    note = (
        Col(name="id", kind="id"),
        Col(name="person", kind="fk", ref="person"),
        Col(name="size", kind="num", label="size", unit="kg"),
    )

    def options(self, rng):
        return {}

    def tables(self, rules):
        person = (Col(name="id", kind="id"), Col(name="name", kind="name"))
        return {"item": self.note, "person": person}

    def generate(self, world, rng):
        world.fill(rng, "item", 3, lambda i: {})
        if not world.rows["person"]:
            world.fill(rng, "person", 4, lambda i: {})

    def derived(self, world):
        return []

    actions = tools = policy = derived


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_pairs_compose_with_every_pack(pair):
    # With many mechanisms each pair takes its share of the packs: a mechanism still meets all of them, in several pairs.
    share = max(1, len(PAIRS) // 12)
    for pack in pack_names()[PAIRS.index(pair) % share :: share]:
        world = make_world(pack, pair, pack)
        assert public_docs(world)["attrs"]
        database = connect(world)
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        assert {table.name for table in to_world(world).tables} == set(world.tables)


def test_median_world_has_four_tables_and_eight_tools():
    worlds = [make_world(seed, PAIRS[seed % len(PAIRS)]) for seed in range(30)]
    assert statistics.median(len(world.tables) for world in worlds) >= 4
    assert statistics.median(len(world.tools) for world in worlds) >= 8


def test_shared_entities_are_unified_once():
    world = make_world(3, ("booking", "inventory"))
    assert [entity for entity in world.tables if entity in ("site", "person")] == ["site", "person"]
    names = [col.name for col in world.tables["person"]]
    assert len(names) == len(set(names))
    ids = [row["id"] for row in world.rows["person"]]
    assert len(ids) == len(set(ids))


def test_relations_point_to_earlier_tables():
    for seed in range(10):
        world = make_world(seed, ("booking", "inventory"))
        order = list(world.tables)
        for entity, cols in world.tables.items():
            for col in cols:
                if col.kind == "fk":
                    assert order.index(col.ref) < order.index(entity)


def lifted_world(lifted):
    """The first world in which `region` is (or is not) a table of its own."""
    return next(world for world in (make_world(seed) for seed in range(40)) if ("region" in world.tables) == lifted)


def test_a_lifted_enum_becomes_a_table_and_its_column_a_relation():
    world = lifted_world(lifted=True)
    col = world.col("site", "region")
    assert (col.kind, col.ref) == ("fk", "region")
    assert col.column == f"{world.slug('region')}_{col.refkey}"
    assert world.attr_type("site", "region") == Type("row", "region")
    assert [row["name"] for row in world.rows["region"]] == list(world.pack.values["region"])
    targets = {row[col.refkey] for row in world.rows["region"]}
    assert {row[col.column] for row in world.rows["site"]} <= targets


def test_an_unlifted_enum_stays_a_text_of_the_pack():
    world = lifted_world(lifted=False)
    col = world.col("site", "region")
    assert (col.kind, col.column) == ("enum", "region")
    assert world.attr_type("site", "region") == Type("str", "region")
    assert {row["region"] for row in world.rows["site"]} <= set(world.pack.values["region"])


def test_pack_values_replace_those_of_the_mechanism():
    values = load_pack("clinic").values["tier"]
    for seed in range(8):
        world = make_world(seed, pack="clinic")
        col = world.col("person", "tier")
        if col.kind == "enum":
            assert {row["tier"] for row in world.rows["person"]} <= set(values)
        else:
            assert {row["name"] for row in world.rows["tier"]} == set(values)


def test_a_relation_by_name_stores_the_unique_name():
    found = 0
    for seed in range(20):
        world = make_world(seed)
        for entity, cols in world.tables.items():
            for col in cols:
                if col.kind == "fk" and col.refkey == "name":
                    found += 1
                    assert col.column.endswith("_name")
                    names = {row["name"] for row in world.rows[col.ref]}
                    assert {row[col.column] for row in world.rows[entity]} <= names
    assert found


def test_a_role_names_its_column_and_the_entity_word_names_the_others():
    world = next(world for world in map(make_world, range(40)) if world.has("resource", "keeper"))
    assert world.fk("resource", "keeper")[0].startswith("keeper_")
    assert world.fk("booking", "resource")[0].startswith(world.slug("resource") + "_")
    assert world.fk("booking", "person")[0].startswith(world.slug("person") + "_")
    with pytest.raises(AuthorError, match="no relation"):
        world.fk("booking", "day")


def test_integer_ids_leave_gaps_and_do_not_overlap_between_entities():
    world = next(world for world in map(make_world, range(20)) if world.style.ids == "int")
    ids = [row["id"] for rows in world.rows.values() for row in rows]
    assert len(ids) == len(set(ids))
    own = sorted(row["id"] for row in world.rows["booking"])
    assert min(after - before for before, after in pairwise(own)) == 10


def test_codes_are_unique_and_scattered():
    world = next(world for world in map(make_world, range(20)) if world.style.ids == "code")
    codes = [row["id"] for row in world.rows["booking"]]
    assert len(codes) == len(set(codes))
    assert codes != sorted(codes)


def test_names_are_unique_and_hold_no_reserved_word():
    for pack in pack_names():
        world = make_world(1, PAIRS[0], pack)
        for entity, rows in world.rows.items():
            names = [str(row["name"]) for row in rows if "name" in row]
            assert len(names) == len(set(names)), entity
            for name in names:
                assert not set(name.lower().split()) & set(RESERVED)
                assert all(part[0].isupper() and part.isalnum() for part in name.split()), name


def test_names_are_coined_once_the_parts_are_exhausted():
    world = make_world(1)
    world.pack = replace(world.pack, names={"site": (("Only",), ("One",))})
    world.rows["site"].clear()
    world.fill(random.Random("names"), "site", 6, lambda _: {})
    names = [row["name"] for row in world.rows["site"]]
    assert "Only One" in names
    assert len(set(names)) == 6


def test_a_cell_that_no_generator_gives_is_drawn_or_refused():
    world = make_world(1)
    rng = random.Random("cells")
    world.fill(rng, "resource", 1, lambda _: {"capacity": 7})
    made = world.rows["resource"][-1]
    assert made["capacity"] == 7
    assert 10 <= made["rate"] <= 900
    with pytest.raises(AuthorError, match=r"booking\.day"):
        world.fill(rng, "booking", 1, lambda _: {})
    with pytest.raises(AuthorError, match="two rows of site"):
        world.fill(rng, "site", 2, lambda _: {"name": "Twin Town"})


def test_a_relation_to_rows_that_come_later_is_resolved():
    world = compose([Notes()], load_pack("general"), random.Random("late"))
    fk, key = world.fk("item", "person")
    assert {row[fk] for row in world.rows["item"]} <= {row[key] for row in world.rows["person"]}


def test_contradicting_mechanisms_are_refused():
    class Other(Notes):
        name = "other"
        note = (Col(name="id", kind="id"), Col(name="size", kind="num", label="size", unit="credits"))

    with pytest.raises(AuthorError, match=r"item\.size"):
        compose([Notes(), Other()], load_pack("general"), random.Random("clash"))
    with pytest.raises(AuthorError, match="rule 'buffer' already"):
        compose([MECHANISMS["booking"]] * 2, load_pack("general"), random.Random("clash"))
    with pytest.raises(AuthorError, match="at least one"):
        compose([], load_pack("general"), random.Random("none"))


def test_a_pack_without_a_noun_is_refused():
    pack = load_pack("general")
    poor = replace(pack, nouns={key: nouns for key, nouns in pack.nouns.items() if key != "booking"})
    with pytest.raises(AuthorError, match="no noun for the entity 'booking'"):
        compose([MECHANISMS["booking"]], poor, random.Random("poor"))


def test_an_empty_table_is_refused():
    class Idle(Notes):
        def generate(self, world, rng):
            pass

    with pytest.raises(AuthorError, match="no mechanism fills"):
        compose([Idle()], load_pack("general"), random.Random("idle"))


def test_overriding_rules_or_style_leaves_the_rest_alone():
    plain = make_world(5)
    buffered = make_world(5, rules={"buffer": 1 - plain.rules["buffer"]})
    assert buffered.tables == plain.tables
    assert buffered.words == plain.words
    assert buffered.rules["buffer"] != plain.rules["buffer"]
    styled = make_world(5, style=replace(plain.style, page_size=3))
    assert to_world(styled) == to_world(plain)
    assert styled.style.page_size == 3
    with pytest.raises(AuthorError, match="has a rule 'bufer'"):
        make_world(5, rules={"bufer": 1})


def test_overlay_rows_are_added_to_the_database_only():
    world = make_world(2)
    row = {**world.rows["site"][0], "id": "Z-1" if world.style.ids == "code" else 1, "name": "Second Site"}
    database = connect(world, [("site", row)])
    assert database.execute('SELECT COUNT(*) FROM "site"').fetchone()[0] == len(world.rows["site"]) + 1
    assert len(to_world(world).rows["site"]) == len(world.rows["site"])


def test_record_describes_columns_with_their_units():
    record = to_world(make_world(2))
    rate = next(column for column in record.table("resource").columns if column.name == "rate")
    assert (rate.type, rate.description) == ("INTEGER", "hourly rate in credits")
    assert next(column for column in record.table("site").columns if column.name == "name").unique


_PRINT = """
import random
from envsynth.author.procedural.compose import compose, signature, to_world
from envsynth.author.procedural.lexicon import load_pack
from envsynth.author.procedural.mechanisms import MECHANISMS
mechanisms = list(MECHANISMS.values())
for seed in range(4):
    pair = [mechanisms[seed % len(mechanisms)], mechanisms[(seed + 1) % len(mechanisms)]]
    world = compose(pair, load_pack("travel"), random.Random(f"hash/{seed}"))
    print(to_world(world).hash, signature(world), hash("x") and "", [tool.source for tool in world.tools], world.policy)
"""


def test_equal_seeds_give_equal_worlds_under_any_hash_seed():
    outputs = [
        subprocess.run(
            [sys.executable, "-c", _PRINT],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "77")
    ]
    assert outputs[0] == outputs[1]
    assert len(outputs[0]) > 1000


def test_signature_ignores_words_constants_and_rows():
    plain = make_world(9)
    other = make_world(9, pack="clinic", rules={"peak": 14, "large_group": 8})
    base = make_world(9, rules={"peak": 16, "large_group": 4})
    assert signature(base) == signature(other)
    assert to_world(base) != to_world(other)
    styled = make_world(9, style=replace(plain.style, page_size=99, result_key="things", verb="scan"))
    assert signature(styled) == signature(plain)


def test_signature_sees_rules_tables_and_interface():
    plain = make_world(9)
    flipped = make_world(9, rules={"closures": not plain.rules["closures"]})
    lookup = "id" if plain.style.lookup == "name" else "name"
    restyled = make_world(9, style=replace(plain.style, lookup=lookup))
    joined = make_world(9, ("booking", "inventory"))
    assert len({signature(world) for world in (plain, flipped, restyled, joined)}) == 4


def test_signatures_are_mostly_distinct():
    found = [signature(make_world(seed, PAIRS[seed % len(PAIRS)])) for seed in range(40)]
    assert len(set(found)) >= 36


def test_schema_questions_have_answers():
    world = make_world(1)
    assert world.attr_type("resource", "rate") == Type("num", "credits")
    assert world.attr_type("resource", "free") == Type("bool")
    assert world.attr_type("booking", "day") == Type("date")
    assert world.attr_type("site", "name") == Type("str", "name")
    assert world.attr_type("site", "nothing") is None
    assert world.attr_type("nothing", "name") is None
    assert len(world.attr_params("resource", "free")) == 3
    assert world.attr_params("resource", "rate") == ()
    assert world.action_params("fly") is None
    assert [name for name, _ in world.action_params("cancel") or ()] == ["booking"]
    assert (world.naming("site"), world.naming("booking")) == ("name", "id")


def test_policy_defines_every_derived_attribute_and_reads_well():
    world = make_world(1, PAIRS[0])
    for derived in world.derived.values():
        assert derived.policy in world.policy
    text = " ".join([*world.policy, *(tool.description + tool.returns for tool in world.tools)])
    assert " a employee" not in text
    assert " a appointment" not in text
    assert len(world.policy) == len(set(world.policy))
