"""Structural signatures: what counts as another world or another program, and what does not."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest

from envsynth.author.procedural.compose import compose
from envsynth.author.procedural.ir import Act, Atom, Attr, Const, Count, Let, Named, Of, Pick, Ref, Task
from envsynth.author.procedural.mechanisms import MECHANISMS
from envsynth.author.procedural.reading import read_category
from envsynth.author.procedural.signature import signature, skeleton, structure


def world(pack: str = "library loans", seed: int = 1, **options: Any):
    mechanisms = [MECHANISMS["booking"], MECHANISMS["pricing"]]
    return compose(mechanisms, read_category(pack).pack, random.Random(seed), **options)


def both(composition: Any) -> tuple[str, str]:
    return structure(composition, interface=True), structure(composition, interface=False)


def test_words_and_rows_do_not_count():
    first, second = world("library loans"), world("hospital bed management")
    assert first.word("person") != second.word("person")
    assert both(first) == both(second)
    assert signature(first) == signature(second)


@pytest.mark.parametrize(
    "change", [{"paging": "page"}, {"projection": "full"}, {"filters": "none"}, {"error_style": "code"}]
)
def test_dials_of_the_interface_count_only_there(change: dict[str, str]):
    composition = world()
    others = {"paging": "none", "projection": "brief", "filters": "relations", "error_style": "verbose"}
    left, right = (
        dataclasses.replace(composition, style=dataclasses.replace(composition.style, **values))
        for values in (change, {name: others[name] for name in change})
    )
    assert structure(left, interface=True) != structure(right, interface=True)
    assert structure(left, interface=False) == structure(right, interface=False)


@pytest.mark.parametrize(
    "change", [{"page_size": 7}, {"ids": "int"}, {"ids": "code"}, {"verb": "seek"}, {"result_key": "found"}]
)
def test_sizes_verbs_and_forms_of_ids_never_count(change: dict[str, Any]):
    composition = world()
    other = dataclasses.replace(composition, style=dataclasses.replace(composition.style, **change))
    assert both(composition) == both(other)


def test_optional_columns_do_not_count_and_relations_and_rules_do():
    composition = world()
    entity, place, col = next(
        (entity, place, col)
        for entity, cols in composition.tables.items()
        for place, col in enumerate(cols)
        if col.optional and col.kind != "fk"
    )
    without = {
        **composition.tables,
        entity: [*composition.tables[entity][:place], *composition.tables[entity][place + 1 :]],
    }
    assert both(dataclasses.replace(composition, tables=without)) == both(composition)
    assert signature(dataclasses.replace(composition, tables=without)) != signature(composition)
    needed = {
        **composition.tables,
        entity: [*composition.tables[entity], dataclasses.replace(col, name="more", optional=False)],
    }
    assert both(dataclasses.replace(composition, tables=needed))[1] != both(composition)[1]
    switch = next(name for name, value in composition.rules.items() if isinstance(value, bool))
    turned = {**composition.rules, switch: not composition.rules[switch]}
    assert both(dataclasses.replace(composition, rules=turned))[1] != both(composition)[1]


def picked(
    entity: str = "room", attribute: str = "rate", *, op: str = ">=", value: int = 5, var: str = "X1", way: str = "max"
) -> Task:
    node = Pick(entity, (Atom(Attr(attribute), op, Const(value, "num", "credits")),), way, Attr(attribute))
    return Task((Let(var, node),), (("name", Of(var, Attr("name"))),))


def test_words_and_constants_of_a_program_do_not_count():
    assert skeleton(picked()) == skeleton(picked("shelf", "weight", value=9, var="X7"))


@pytest.mark.parametrize("other", [picked(op="<"), picked(way="min"), Task((), ()), Task(picked().steps, ())])
def test_the_form_of_a_program_counts(other: Task):
    assert skeleton(picked()) != skeleton(other)


def test_which_parts_concern_the_same_thing_counts():
    node = Pick("room", (Atom(Attr("size"), ">=", Const(5, "num")),), "max", Attr("rate"))
    assert skeleton(Task((Let("X1", node),), picked().report)) != skeleton(picked())


def test_kinds_of_constants_count_and_their_labels_do_not():
    def act(label: str, value: Any) -> Task:
        return Task(
            (Act("book", ((label, Named("room", "name", "A")), ("day", value))), Let("X1", Count("room", ()))),
            (("n", Ref("X1")),),
        )

    assert skeleton(act("room", Const("2031-05-01", "date"))) == skeleton(act("place", Const("2031-06-01", "date")))
    assert skeleton(act("room", Const("2031-05-01", "date"))) != skeleton(act("room", Const(4, "num")))
