"""What leaves a worker: the fast writer takes exactly what the standard library's takes, and rows are dictionaries."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import enum
import json
import math
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from envsynth.sandbox.jailed import frames
from envsynth.sandbox.jailed.databases import Database, open_database


class Colour(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Name(str):
    __slots__ = ()


@dataclasses.dataclass
class Point:
    x: int = 1


ODD_VALUES: list[object] = [
    Colour.RED, Number.ONE, Name("n"), Point(), uuid.UUID(int=7), datetime.date(2031, 5, 1), math.nan, math.inf, -0.0,
    2**63, 2**64, -(2**63), -(2**63) - 1, "\ud800", "\u2028\x00", b"bytes", {1, 2}, frozenset(), 1j, ..., None, 1e16, 5e-324,
    collections.OrderedDict(a=1), collections.Counter("ab"), range(3), (1, None), {1: "int key"}, {None: 1}, {True: 2},
    {Name("k"): 1}, {"a": math.nan, "b": None}, 10**400, "x" * 70_000,
]  # fmt: skip
ODD = st.sampled_from(ODD_VALUES)
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
VALUES = st.recursive(
    PLAIN | ODD,
    lambda inner: (
        st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)


def form(value: object) -> object:
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, uuid.UUID):
        return str(value)
    raise TypeError(value)


def slowly(value: object) -> object:
    """What the standard library writes and reads back; None in a list when it refuses."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=form).encode()
        frames.check_integers(text)
    except (TypeError, ValueError, RecursionError):
        return [None]
    return json.loads(text)


def compare(value: object, is_small: bool) -> None:
    try:
        found = json.loads(frames.encode(value, is_small))
    except (TypeError, ValueError, RecursionError):
        found = [None]
    expected = slowly(value)
    assert repr(found) == repr(expected)  # 1, 1.0 and True are equal, and must not be exchanged


@given(VALUES, st.booleans())
def test_fast_and_standard_writer_take_and_mean_the_same(value: object, is_small: bool) -> None:
    compare(value, is_small)


@pytest.mark.parametrize("is_small", [True, False])
@pytest.mark.parametrize("value", ODD_VALUES, ids=lambda value: repr(value)[:20])
def test_odd_values_are_taken_alike(value: object, is_small: bool) -> None:
    compare(value, is_small)
    compare([value, {"a": value}], is_small)


@pytest.mark.parametrize("depth", [199, 200, 201, 260, 2_100, 50_000])
def test_depth_is_limited_alike(depth: int) -> None:
    value: list[object] = []
    for _ in range(depth - 1):
        value = [value]
    if depth <= frames.MAX_DEPTH:
        assert frames.encode(value) == b"[" * depth + b"]" * depth
    else:
        with pytest.raises((ValueError, RecursionError)):
            frames.encode(value)


def test_itself_within_itself_is_refused() -> None:
    value: list[object] = []
    value.append(value)
    with pytest.raises((ValueError, RecursionError)):
        frames.encode(value)


def test_large_results_go_the_slow_way(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def spy(value: object, *_: object) -> bytes:
        sizes.append(len(str(value)))
        return json.dumps(value).encode()

    monkeypatch.setattr(frames.orjson, "dumps", spy)
    text = "x" * (3 << 20)
    assert frames.encode([text, text]) == json.dumps([text, text], separators=(",", ":")).encode()
    assert frames.encode(text) == json.dumps(text).encode()
    assert sizes == []


@pytest.fixture
def db() -> Database:
    return open_database(1 << 20, lambda: False)


def test_rows_are_dictionaries_however_often_a_statement_runs(db: Database) -> None:
    db.execute('CREATE TABLE t (a INTEGER, "b\'{}""\\" TEXT)')
    db.execute("INSERT INTO t VALUES (1, 'x'), (2, NULL)")
    for _ in range(20):
        assert db.execute("SELECT * FROM t").fetchall() == [{"a": 1, "b'{}\"\\": "x"}, {"a": 2, "b'{}\"\\": None}]
        assert db.execute("SELECT a, a + 1 AS a FROM t").fetchone() == {"a": 2}  # the last of equal names


def test_rows_follow_a_changed_schema(db: Database) -> None:
    for number in range(12):
        db.execute("DROP TABLE IF EXISTS t")
        db.execute(f"CREATE TABLE t (a INTEGER, c{number // 5} TEXT)")
        db.execute("INSERT INTO t VALUES (1, 'x')")
        for _ in range(3):
            assert db.execute("SELECT * FROM t").fetchall() == [{"a": 1, f"c{number // 5}": "x"}]


def test_a_row_factory_of_the_codes_own_is_kept(db: Database) -> None:
    db.row_factory = None
    for _ in range(20):
        assert db.execute("SELECT 1 AS a").fetchall() == [(1,)]
