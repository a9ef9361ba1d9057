from __future__ import annotations

import sqlite3

import pytest

from envsynth.environments import build_image, world
from envsynth.environments.world import create_statement
from envsynth.errors import SpecError
from envsynth.sandbox import Jail
from envsynth.spec import OverlayRow, World


def world_of(spec, **changes):
    return World.parse({**spec.world.model_dump(mode="json"), **changes})


def read(image, query):
    db = sqlite3.connect(":memory:")
    try:
        db.deserialize(image)
        return db.execute(query).fetchall()
    finally:
        db.close()


def test_image_holds_schema_and_rows(jail, spec):
    image = build_image(jail, spec.world)
    assert read(image, "SELECT name, stock, note FROM items ORDER BY rowid") == [
        ("thé", 7, None),
        ("nut", 3, "salted"),
    ]
    assert read(image, "PRAGMA journal_mode")[0][0] in ("memory", "delete")
    assert image[18:20] == b"\x01\x01"


def test_equal_worlds_give_equal_bytes(spec):
    images = []
    for _ in range(2):
        world._cache = world._ImageCache()
        with Jail() as fresh:
            images.append(build_image(fresh, spec.world))
    assert images[0] == images[1]


def test_cache_returns_the_same_object_and_tells_worlds_apart(jail, spec):
    first = build_image(jail, spec.world)
    assert build_image(jail, spec.world) is first
    extra = OverlayRow(table="items", row={"name": "tea", "stock": 1, "note": None})
    assert build_image(jail, spec.world, (extra,)) != first


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"items": [["a", "7", None]]}, r"rows.items\[0\].stock: '7' is not of type INTEGER"),
        ({"items": [["a", 7.0, None]]}, r"rows.items\[0\].stock: 7.0 is not of type INTEGER"),
        ({"items": [["a", None, None]]}, r"rows.items\[0\].stock: NULL"),
        ({"items": [["a", 2**63, None]]}, "64 bits"),
        ({"items": [["a", 1, None], ["a", 2, None]]}, "table 'items', row 1: UNIQUE"),
        ({"items": [["a", 1, None]], "orders": [[1, "b", 1]]}, "table 'orders', row 0: references"),
        ({"items": [["a", 1, None]], "orders": [[1, "a", 0]]}, "table 'orders', row 0: CHECK"),
    ],
)
def test_wrong_rows_are_named(jail, spec, rows, message):
    with pytest.raises(SpecError, match=message):
        build_image(jail, world_of(spec, rows=rows))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (OverlayRow(table="gold", row={}), "unknown table 'gold'"),
        (OverlayRow(table="items", row={"name": "tea"}), "are not the columns"),
        (OverlayRow(table="items", row={"name": "nut", "stock": 1, "note": None}), "UNIQUE"),
    ],
)
def test_wrong_overlay_is_named(jail, spec, row, message):
    with pytest.raises(SpecError, match=message):
        build_image(jail, spec.world, (row,))


def test_many_rows_travel_in_several_requests(jail, spec):
    rows = {"items": [[f"item {number}", number, None] for number in range(4_500)]}
    image = build_image(jail, world_of(spec, rows=rows))
    assert read(image, "SELECT count(*), sum(stock) FROM items") == [(4_500, 4_500 * 4_499 // 2)]


def test_create_statement_is_strict_and_quoted(spec):
    sql = create_statement(spec.world.table("orders"))
    assert sql.endswith("STRICT")
    assert 'REFERENCES "items" ("name")' in sql
    assert "CHECK (count > 0)" in sql
