"""Sets and totals that are worked out in arrays are those that a loop over all of them finds."""

from __future__ import annotations

import itertools
import math
import operator
import random
import sqlite3

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from envsynth.author.procedural.ir import Atom, Attr, Choose, Con, Const
from envsynth.author.procedural.operators.aggregate import _Line, _same_line
from envsynth.author.procedural.oracle.relations import Relations
from envsynth.author.procedural.oracle.sets import _met, all_sets, totals_of
from envsynth.author.procedural.planner import prelude
from envsynth.author.procedural.sampling import COMPARE, Sampler
from tests.author.procedural.tiny_world import credits_, tiny_world

BIG = st.one_of(st.integers(-20, 20), st.sampled_from([2**62, -(2**62), 2**63 - 1]))
OPS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "==": operator.eq}


@given(st.integers(0, 7), st.integers(1, 4))
def test_all_sets_in_order(count, k):
    assert [tuple(line) for line in all_sets(count, k).tolist()] == list(itertools.combinations(range(count), k))
    assert len(all_sets(count, k)) == math.comb(count, k)


@given(st.lists(BIG, min_size=2, max_size=7), st.integers(1, 3), st.sampled_from(list(OPS)), BIG)
def test_totals_and_conditions_are_exact(values, k, op, bound):
    sets = all_sets(len(values), k)
    chosen = list(itertools.combinations(values, k))
    assert [int(total) for total in totals_of(values, sets)] == [sum(items) for items in chosen]
    con = Con("sum", Attr("rate"), op, Const(0, "num"))
    assert list(_met(con, values, bound, sets)) == [OPS[op](sum(items), bound) for items in chosen]
    distinct = _met(Con("distinct", Attr("rate")), values, None, sets)
    assert list(distinct) == [len(set(items)) == len(items) for items in chosen]


def test_sets_are_not_written():
    assert all_sets(5, 2) is all_sets(5, 2)
    assert all_sets(5, 2).dtype == np.int32


@given(
    st.lists(st.tuples(st.integers(0, 9), st.one_of(st.none(), st.integers(-9, 9))), max_size=16),
    st.sampled_from(list(OPS)),
    st.integers(-1, 10),
)
def test_the_total_on_one_side_of_a_value(rows, op, value):
    numbers = [number for cell, number in rows if OPS[op](cell, value)]
    wanted = sum(numbers) if 2 <= len(numbers) <= 12 and None not in numbers else None
    assert _Line(rows).total(op, value) == wanted


@given(st.sampled_from([*OPS, "!="]), st.integers(0, 60), st.integers(-5, 65))
def test_two_numbers_that_draw_one_line(op, number, total):
    sampler = Sampler(tiny_world(), (), random.Random(0))
    values = [row["rate"] for row in sampler.rows("room")]
    fits = _same_line(sampler, "room", Atom(Attr("rate"), op, credits_(number)), credits_(number))
    compare = COMPARE.get(op)
    wanted = compare is not None and all(compare(value, total) == compare(value, number) for value in values)
    assert fits(total) is wanted


def test_an_oracle_finds_the_sets_that_a_loop_finds():
    sampler = Sampler(tiny_world(), (), random.Random(0))
    rates = {row["id"]: row["rate"] for row in sampler.rows("room")}
    for k, bound in itertools.product((1, 2, 3), (20, 50, 70, 90)):
        node = Choose("room", (), k, (Con("sum", Attr("rate"), "<=", credits_(bound)),))
        found = sampler.oracle._feasible(node)
        sets = [keys for keys in itertools.combinations(sorted(rates), k) if sum(rates[key] for key in keys) <= bound]
        assert found == [(0, keys) for keys in sets]
        best = sampler.oracle._feasible(Choose("room", (), k, node.cons, ("max", Attr("rate"))))
        assert best == [(sum(rates[key] for key in keys), keys) for keys in sets]


def test_rows_that_may_change_are_asked_for_again():
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (id INTEGER)")
    kept, fresh = Relations(tiny_world(), connection, {}), Relations(tiny_world(), connection)
    sql = "SELECT id FROM t"
    assert kept.query(sql) == fresh.query(sql) == []
    connection.execute("INSERT INTO t VALUES (1)")
    assert fresh.query(sql) == [(1,)]
    assert kept.query(sql) == []


ROWS = [{"id": number, "wing": wing} for number, wing in enumerate(["East", "West", "East", "North", None])]


@given(st.sampled_from(["East", "West", "South", None, 1]), st.booleans())
def test_a_solver_finds_rows_by_a_value_without_looking_at_all_of_them(value, filtered):
    asked = []

    def listing(tool, filters):
        asked.append((tool, dict(filters)))
        return [row for row in ROWS if all(row[name] == wanted for name, wanted in filters.items())]

    space = {"MEMO": {}, "listing": listing, "STRICT": True}
    exec(prelude.THINKING, space)
    filters = {"wing": value} if filtered else {}
    exact = [("wing", "==", value)]
    for _ in range(3):
        found = space["listed"]("list_rooms", filters, exact)
        assert [row for row in found if space["meets"](row, exact)] == [row for row in ROWS if row["wing"] == value]
    assert len(asked) == 1
    assert space["listed"]("list_rooms", {}, []) == ROWS
