"""Records: round trip, hash stability, refusals that name the path of the key."""

from __future__ import annotations

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from envsynth import errors
from envsynth.delivery import Fault
from envsynth.errors import SpecError
from envsynth.record import canonical_json, content_hash
from envsynth.report import Finding, GateReport, GateResult
from envsynth.spec import EnvironmentSpec, Lineage, TaskVersion, World, slugify
from envsynth.trajectory import CheckResult, Verdict
from tests.conftest import make_shop, make_task

NAMES = st.text("abcdefghijklmnopqrstuvwxyz_", min_size=1, max_size=12)
SCALARS = st.one_of(st.integers(-(2**62), 2**62), st.text(max_size=30), st.none())
JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**53), 2**53),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=20),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)
H = "0" * 32


@st.composite
def environments(draw: st.DrawFn) -> EnvironmentSpec:
    tables, rows = [], {}
    for name in draw(st.lists(NAMES, min_size=1, max_size=3, unique=True)):
        columns = draw(st.lists(NAMES, min_size=1, max_size=4, unique=True))
        kinds = draw(
            st.lists(st.sampled_from(["INTEGER", "TEXT", "REAL"]), min_size=len(columns), max_size=len(columns))
        )
        tables.append(
            {
                "name": name,
                "columns": [{"name": c, "type": k} for c, k in zip(columns, kinds, strict=True)],
                "primary_key": [columns[0]],
            }
        )
        rows[name] = draw(st.lists(st.lists(SCALARS, min_size=len(columns), max_size=len(columns)), max_size=3))
    tool = {
        "name": draw(NAMES),
        "effect": "read",
        "description": draw(st.text(max_size=20)),
        "parameters": {"type": "object"},
        "source": "x",
    }
    return EnvironmentSpec.parse(
        {
            "slug": "a-world",
            "title": draw(st.text(max_size=20)),
            "world": {"tables": tables, "rows": rows, "now": "2031-05-02"},
            "tools": [tool],
            "policy": draw(st.lists(st.text(max_size=20), max_size=3)),
            "provenance": {
                "author": "test/1",
                "category": "c",
                "seed": "s",
                "details": draw(st.dictionaries(NAMES, JSON, max_size=3)),
            },
        }
    )


@given(environments())
def test_environment_round_trips_through_json_with_the_same_hash(spec):
    again = EnvironmentSpec.from_json(spec.to_json())
    assert again == spec
    assert again.hash == spec.hash
    assert again.to_json() == spec.to_json()


@given(environments())
def test_hash_does_not_depend_on_the_order_of_keys(spec):
    value = json.loads(spec.to_json())
    backwards = json.loads(json.dumps(value), object_pairs_hook=lambda pairs: dict(reversed(pairs)))
    assert EnvironmentSpec.parse(backwards).hash == spec.hash


@given(environments(), st.text(min_size=1, max_size=8))
def test_hash_changes_with_the_content(spec, extra):
    assert spec.model_copy(update={"title": spec.title + extra}).hash != spec.hash


@given(environments())
def test_a_copy_never_keeps_the_hash_of_its_original(spec):
    before = spec.hash
    for copy in (
        spec.model_copy(update={"title": spec.title + "!"}),
        spec.model_copy(update={"title": spec.title + "!"}, deep=True),
    ):
        assert copy.hash != before
        assert copy.hash == EnvironmentSpec.from_json(copy.to_json()).hash
    assert spec.model_copy() == spec
    assert "hash" not in spec.model_dump()
    assert pickle.loads(pickle.dumps(spec)).hash == before


@given(JSON)
def test_canonical_json_is_a_fixed_point(value):
    text = canonical_json(value)
    assert canonical_json(json.loads(text)) == text


def test_known_hash_never_moves():
    """Stored hashes must stay valid in every later version."""
    assert content_hash({"b": [1, "é"], "a": None}) == "bccb46da7f8860c9492baa4b6352ae16"


def _valid() -> dict:
    return {
        "slug": "shop",
        "title": "Shop",
        "world": {
            "tables": [
                {
                    "name": "item",
                    "columns": [{"name": "id", "type": "INTEGER"}, {"name": "qty", "type": "INTEGER"}],
                    "primary_key": ["id"],
                }
            ],
            "rows": {"item": [[1, 2]]},
            "now": "2031-05-02",
        },
        "tools": [{"name": "f", "effect": "read", "description": "d", "parameters": {}, "source": "s"}],
        "provenance": {"author": "a", "category": "c", "seed": "s"},
    }


def _at(value, path, new):
    *head, last = path
    for key in head:
        value = value[key]
    value[last] = new


@pytest.mark.parametrize(
    ("path", "new", "message"),
    [
        (("worlds",), {}, r"unknown key 'worlds'"),
        (("world", "clock"), 1, r"unknown key 'world\.clock'"),
        (("tools", 0, "sauce"), "x", r"unknown key 'tools\[0\]\.sauce'"),
        (
            ("world", "tables", 0, "columns", 1, "typ"),
            "INTEGER",
            r"unknown key 'world\.tables\[0\]\.columns\[1\]\.typ'",
        ),
        (("world", "tables", 0, "columns", 1, "type"), "INT", r"world\.tables\[0\]\.columns\[1\]\.type"),
        (("world", "now"), "yesterday", r"world\.now: .*'yesterday'"),
        (("world", "rows", "item"), [[1]], r"rows\.item\[0\] has 1 cells, its table has 2 columns"),
        (("world", "rows", "items"), [], r"rows of unknown table 'items'"),
        (("world", "tables", 0, "primary_key"), ["key"], r"primary key \['key'\] is no column"),
        (
            ("world", "tables", 0, "columns", 1, "references"),
            "room.id",
            r"item\.qty references 'room\.id', which does not exist",
        ),
        (("slug",), "Not A Slug", r"slug: "),
        (("tools",), [], r"tools: "),
        (("format",), "envsynth/2", r"format: "),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_malformed_environment_is_refused_with_its_path(path, new, message):
    value = _valid()
    _at(value, path, new)
    with pytest.raises(SpecError, match=message):
        EnvironmentSpec.parse(value)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "NaN", '{"slug": ' + "[" * 100_000 + "]" * 100_000 + "}"])
def test_text_that_is_no_record_is_refused(text):
    with pytest.raises(SpecError):
        EnvironmentSpec.from_json(text)


def test_two_tables_or_tools_of_one_name_are_refused():
    value = _valid()
    value["tools"] = value["tools"] * 2
    with pytest.raises(SpecError, match="two tools have the same name"):
        EnvironmentSpec.parse(value)
    value = _valid()
    value["world"]["tables"] = value["world"]["tables"] * 2
    with pytest.raises(SpecError, match="two tables have the same name"):
        EnvironmentSpec.parse(value)


def test_records_are_frozen():
    spec = EnvironmentSpec.parse(_valid())
    with pytest.raises(ValidationError):
        spec.title = "other"  # type: ignore[misc]


def test_nan_is_no_canonical_json():
    with pytest.raises(SpecError, match="canonical"):
        canonical_json({"a": float("nan")})


def test_lineage_needs_parent_operator_and_depth_together():
    assert Lineage().depth == 0
    assert Lineage(parent=H, operator="hop", depth=2).depth == 2
    for wrong in ({"parent": H}, {"operator": "hop"}, {"depth": 1}, {"parent": H, "operator": "hop"}):
        with pytest.raises(SpecError, match="go together"):
            Lineage.parse(wrong)


def test_verifier_has_exactly_one_form():
    for wrong in (
        {"form": "program"},
        {"form": "program", "program": "x", "definitions": "y"},
        {"form": "atoms", "program": "x"},
    ):
        with pytest.raises(SpecError):
            TaskVersion.model_fields["verifier"].annotation.parse(wrong)  # type: ignore[union-attr]


def test_a_void_verdict_has_no_score_and_a_scored_one_no_failure():
    assert Verdict(status="void", score=None, failure="worker died").score is None
    for wrong in (
        {"status": "void", "score": 0.0},
        {"status": "fail", "score": None},
        {"status": "pass", "score": 1.0, "failure": "x"},
    ):
        with pytest.raises(SpecError):
            Verdict.parse(wrong)
    verdict = Verdict(
        status="fail", score=0.0, checks=(CheckResult(id="frame", ok=False), CheckResult(id="a", ok=True))
    )
    assert verdict.failed == ("frame",)


def test_a_report_is_ok_when_nothing_failed_or_was_void():
    def report(*statuses: str) -> GateReport:
        results = tuple(GateResult(code=f"SP10{i}", status=status) for i, status in enumerate(statuses))  # type: ignore[arg-type]
        return GateReport(environment=H, task=H, results=results)

    assert report("pass", "skipped").ok
    assert not report("pass", "fail").ok
    assert not report("void").ok
    finding = Finding(code="VF305", message="m")
    assert GateReport(
        environment=H, task=H, results=(GateResult(code="VF305", status="fail", findings=(finding,)),)
    ).findings == (finding,)
    with pytest.raises(SpecError):
        Finding.parse({"code": "XX1", "message": "m"})


@given(st.text(max_size=80))
def test_slugs_are_slugs(text):
    slug = slugify(text)
    assert slug
    assert len(slug) <= 48
    assert all(char.isascii() and (char.isalnum() or char == "-") for char in slug)
    assert not slug.startswith("-")
    assert not slug.endswith("-")


@pytest.mark.parametrize(
    "cls", [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, Exception)]
)
def test_every_error_survives_pickling_and_is_a_standard_exception(cls):
    error = cls("what happened") if cls is not errors.Rejected else cls("tie", "two rows")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert str(again) == str(error)
    assert isinstance(again, errors.EnvsynthError)
    if cls is not errors.EnvsynthError:
        assert any(
            base.__module__ == "builtins" and base not in (Exception, BaseException, object) for base in cls.__mro__
        )


def test_world_table_lookup():
    world = World.parse(_valid()["world"])
    assert world.table("item").primary_key == ("id",)
    with pytest.raises(KeyError):
        world.table("nope")


# -------------------------------------------------------------------------------------------------------------- faults


def test_a_task_without_faults_keeps_the_hash_that_it_had_before_there_were_any():
    task = make_task(make_shop())
    assert task.hash == "e9a2a4a1a887711fc7a1777c905e8ea6"
    assert "faults" not in task.model_dump()
    assert TaskVersion.parse({**task.model_dump(), "faults": []}).hash == task.hash


def test_faults_are_part_of_a_task():
    plain = make_task(make_shop())
    task = make_task(make_shop(), faults=(Fault(tool="set_qty", call=2, kind="timeout_after"),))
    assert task.hash != plain.hash
    assert TaskVersion.from_json(task.to_json()) == task
    assert task.model_copy(update={"faults": ()}).hash == plain.hash
    later = make_task(make_shop(), faults=(Fault(tool="set_qty", call=3, kind="timeout_after"),))
    assert later.hash != task.hash


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ([{"tool": "a", "call": 0, "kind": "unavailable"}], r"faults\[0\]\.call"),
        ([{"tool": "a", "call": 1, "kind": "broken"}], r"faults\[0\]\.kind"),
        ([{"tool": "a", "call": 1, "kind": "unavailable", "calls": 9}], r"faults\[0\]\.calls"),
        (
            [
                {"tool": "a", "call": 1, "kind": "unavailable", "calls": 3},
                {"tool": "b", "call": 2, "kind": "timeout_after"},
                {"tool": "a", "call": 3, "kind": "timeout_after"},
            ],
            "a call of 'a' fails in two ways",
        ),
    ],
)
def test_malformed_faults_are_refused(faults, message):
    with pytest.raises(SpecError, match=message):
        TaskVersion.parse({**make_task(make_shop()).model_dump(mode="json"), "faults": faults})
