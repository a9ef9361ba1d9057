"""Read tools: they tell the truth, page by page, in every style."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import product

import jsonschema
import pytest

from envsynth.author.procedural.compose import compose, connect
from envsynth.author.procedural.interface import BRIEF_ROWS, draw_style
from envsynth.author.procedural.lexicon import load_pack
from envsynth.author.procedural.mechanisms import MECHANISMS

BASE = draw_style(random.Random("style"))
STYLES = [
    replace(BASE, paging=paging, projection=projection, filters=filters, ids=ids, lookup=lookup, page_size=size)
    for (paging, projection), (filters, ids, lookup, size) in product(
        product(("page", "offset", "cursor"), ("full", "brief")),
        (("none", "int", "name", 5), ("relations", "code", "id", 20), ("relations+enums", "int", "name", 8)),
    )
]


class Refusal(Exception):
    def __init__(self, code, message):
        super().__init__(code, message)
        self.code = code


def make_world(style, seed=1):
    chosen = [MECHANISMS["booking"], MECHANISMS["inventory"]]
    return compose(chosen, load_pack("laboratory"), random.Random(f"interface/{seed}"), style=style)


def as_dict(cursor, values):
    return {column[0]: value for column, value in zip(cursor.description, values, strict=True)}


def tool_caller(world):
    database = connect(world)
    database.row_factory = as_dict
    scope = {"Refusal": Refusal}
    drafts = {tool.name: tool for tool in world.tools}
    for tool in world.tools:
        exec(tool.source, scope)

    def call(name, /, **arguments):
        jsonschema.validate(arguments, drafts[name].parameters)
        return scope[name](database, **arguments)

    return call


def listing(world, call, entity, **filters):
    """Read a whole listing the way its documents say."""
    style, tool = world.style, world.access[entity].list_tool
    reply = call(tool, **filters)
    found, pages = list(reply[style.result_key]), 1
    while len(reply[style.result_key]):
        if style.paging == "page":
            position = reply["next_page"]
            more = position is not None
        elif style.paging == "offset":
            position, more = len(found), len(found) < reply["total"]
        else:
            position = reply["next_cursor"]
            more = position is not None
        if not more:
            break
        reply = call(tool, **{style.paging: position}, **filters)
        found += reply[style.result_key]
        pages += 1
    return found, pages


@pytest.mark.parametrize("style", STYLES, ids=str)
def test_listings_give_all_rows_once_in_order_of_id(style):
    world = make_world(style)
    call = tool_caller(world)
    for entity, rows in world.rows.items():
        access = world.access[entity]
        found, pages = listing(world, call, entity)
        expected = [
            {column: row[column] for column in access.columns} for row in sorted(rows, key=lambda row: row["id"])
        ]
        assert found == expected
        assert pages == -(-len(rows) // style.page_size)


@pytest.mark.parametrize("style", STYLES, ids=str)
def test_filters_keep_exactly_the_matching_rows(style):
    world = make_world(style)
    call = tool_caller(world)
    asked = 0
    for entity, rows in world.rows.items():
        for column in world.access[entity].filters:
            value = rows[0][column]
            found, _ = listing(world, call, entity, **{column: value})
            wanted = sorted(row["id"] for row in rows if row[column] == value)
            assert [row["id"] for row in found] == wanted
            asked += 1
    assert bool(asked) == (style.filters != "none")


@pytest.mark.parametrize("style", STYLES[:6], ids=str)
def test_get_and_find_give_whole_rows_or_refuse(style):
    world = make_world(style)
    call = tool_caller(world)
    seen = set()
    for entity, rows in world.rows.items():
        access = world.access[entity]
        if access.get_tool:
            seen.add("get")
            assert len(rows) <= BRIEF_ROWS
            assert access.columns == ("id", "name")
            assert call(access.get_tool, id=rows[-1]["id"]) == rows[-1]
            with pytest.raises(Refusal) as caught:
                call(access.get_tool, id=-1 if style.ids == "int" else "ZZ-1")
            assert caught.value.code == "not_found"
        else:
            assert list(access.columns) == world.columns(entity)
        if access.find_tool:
            seen.add("find")
            assert call(access.find_tool, name=rows[0]["name"]) == {style.result_key: [rows[0]]}
            with pytest.raises(Refusal):
                call(access.find_tool, name=str(rows[0]["name"])[:-1])
    assert ("get" in seen) == (style.projection == "brief")
    assert ("find" in seen) == (style.lookup == "name")


@pytest.mark.parametrize(
    ("paging", "bad"), [("page", 0), ("page", -3), ("offset", -1), ("cursor", "abc"), ("cursor", "-4")]
)
def test_positions_before_the_first_row_are_refused(paging, bad):
    world = make_world(replace(BASE, paging=paging))
    call = tool_caller(world)
    with pytest.raises(Refusal) as caught:
        call(world.access["booking"].list_tool, **{paging: bad})
    assert caught.value.code == "bad_page"


@pytest.mark.parametrize(("paging", "far"), [("page", 10**30), ("offset", 10**30), ("cursor", "999999999")])
def test_positions_behind_the_last_row_give_an_empty_page(paging, far):
    world = make_world(replace(BASE, paging=paging))
    reply = tool_caller(world)(world.access["booking"].list_tool, **{paging: far})
    assert reply[world.style.result_key] == []
    assert reply.get("next_page") is None
    assert reply.get("next_cursor") is None


def test_documents_name_every_column_with_its_label():
    for style in STYLES[:4]:
        world = make_world(style)
        drafts = {tool.name: tool for tool in world.tools}
        for entity, access in world.access.items():
            listing_tool = drafts[access.list_tool]
            assert str(style.page_size) in listing_tool.description
            for col in world.tables[entity]:
                if col.column in access.columns:
                    assert f"{col.column}: {world.describe(col)}" in listing_tool.returns
                if col.kind not in ("id", "name"):
                    assert col.label in world.describe(col)
                if col.unit == "credits":
                    assert "credits" in world.describe(col)


def test_argument_schemas_are_strict():
    world = make_world(STYLES[2])
    for tool in world.tools:
        jsonschema.Draft202012Validator.check_schema(tool.parameters)
        assert tool.parameters["additionalProperties"] is False
        assert set(tool.parameters["required"]) <= set(tool.parameters["properties"])
        assert tool.errors
        assert tool.description.endswith(".")


def test_styles_cover_every_choice():
    drawn = [draw_style(random.Random(f"style/{seed}")) for seed in range(80)]
    for name in ("paging", "projection", "filters", "lookup", "error_style", "ids", "page_size"):
        assert len({getattr(style, name) for style in drawn}) >= 2
