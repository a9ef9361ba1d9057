"""How often a guess hits, against draws and against counting."""

from __future__ import annotations

import random
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsynth.actors import columns_of, guess_share, guess_shares, guess_value
from envsynth.spec import World

ROOMS = ("Oak", "Elm", "Ash", "Fir", "Yew")
COLUMNS = [
    ("name", ROOMS),
    ("room_name", ("Oak", "Oak", "Oak", "Elm", "Ash", "Ash", "Fir", "Fir")),
    ("capacity", (2, 4, 4, 8, 300)),
    ("id", (1, 2, 3, 4, 5)),
]


@pytest.mark.parametrize(
    ("answer", "schema", "share"),
    [
        ({"room_name": "Elm"}, {}, 1 / 4),  # four names occur in bookings, one in five rows is Elm
        ({"room_name": "Oak"}, {}, 3 / 8),  # the favourite
        ({"room_name": "Yew"}, {}, 1 / 5),
        ({"room_name": "Box"}, {}, 0.0),
        ({"pick": "yes"}, {"properties": {"pick": {"enum": ["yes", "no"]}}}, 1 / 2),
        ({"number_of_rooms": 3}, {}, 1 / 21),
        ({"sum_of_capacity": 318}, {}, 1 / 637),
        ({"room_capacity": 4}, {}, 2 / 5),
        ({"room_capacity": 300}, {}, 1 / 4),
        ({"total": -40}, {}, 1 / 81),
        ({"mean": 2.5}, {}, 1 / 21),
        ({"free": True}, {}, 1 / 2),
        ({"nothing": None}, {}, 1.0),
        ({"rooms": ["Yew", "Box"]}, {}, 0.0),
        ({"rooms": ["Elm", "Ash"]}, {}, 2 / 16),
        ({"plan": {"room_name": "Yew", "number_of_rooms": 3}}, {}, 1 / 105),
        ({"room_name": "Yew", "number_of_rooms": 3}, {}, 1 / 105),
        ({}, {}, 1.0),
    ],
)
def test_guess_share_of_typical_answers(answer, schema, share) -> None:
    assert guess_share(answer, COLUMNS, schema) == pytest.approx(share)


@given(st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=12), min_size=1, max_size=4), st.randoms())
def test_guess_share_of_a_text_is_the_best_of_all_columns_by_counting(columns: list[list[str]], rng) -> None:
    value = rng.choice(rng.choice(columns))
    ways = [
        hit
        for cells in columns
        for hit in (Fraction(Counter(cells)[value], len(cells)), Fraction(int(value in cells), len(set(cells))))
    ]
    shares = guess_shares({"x": value}, [(f"c{index}", cells) for index, cells in enumerate(columns)], {})
    assert shares["x"] == pytest.approx(float(max(ways)))


@pytest.mark.parametrize("value", ["Elm", "Yew", 3, 300, True])
def test_guess_value_hits_no_more_often_than_the_share_says(value) -> None:
    rng = random.Random("hits")

    def column_of(like):
        return list(dict.fromkeys(cell for _, cells in COLUMNS if like in cells for cell in cells))

    draws = 20_000
    hits = sum(guess_value(rng, {"type": "integer"}, value, column_of) == value for _ in range(draws)) / draws
    share = guess_share({"x": value}, COLUMNS, {})
    assert hits <= share + 4 * (share / draws) ** 0.5
    assert hits > share / 3


def test_guess_value_draws_rows_of_a_plan_in_the_form_of_the_right_one() -> None:
    rng = random.Random("plan")
    schema = {"items": {"properties": {"day": {"type": "string"}, "n": {"type": "integer"}}}}
    right = [{"day": "Oak", "n": 2}, {"day": "Elm", "n": 3}]
    guess = guess_value(rng, schema, right, lambda like: list(ROOMS))
    assert [set(item) for item in guess] == [{"day", "n"}] * 2
    assert all(item["day"] in ROOMS and 0 <= item["n"] <= 20 for item in guess)


def test_columns_of_a_world_are_named_and_empty_tables_have_none() -> None:
    column = {"name": "id", "type": "INTEGER"}
    tables = [{"name": name, "columns": (column,), "primary_key": ("id",)} for name in ("a", "b")]
    world = World.parse({"tables": tuple(tables), "rows": {"a": ((3,), (4,))}, "now": "2031-05-02"})
    assert columns_of(world) == [("id", (3, 4))]
