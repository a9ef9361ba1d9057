"""Structural signatures of worlds and programs: what is left when names, words, constants and rows are stripped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, cast

from envsynth.author.procedural.composition import Composition
from envsynth.author.procedural.ir import Act, Asked, Attr, Const, ForEach, GroupBy, Named, Task, To
from envsynth.author.procedural.mechanism import Col, ToolDraft


def _digest(value: object) -> str:
    data = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def signature(composition: Composition) -> str:
    """Hash the structure of a world: 32 hexadecimal digits.

    Names, words, constants and rows do not count. What counts: the graph of tables by relations (Weisfeiler-Leman
    refinement over kinds and units of columns), the multiset of tools by what they take and give, and the shape of the
    rules (a switch as it is, a number by whether it is zero).
    """
    tables = composition.tables
    labels = {
        entity: _digest(sorted([col.kind, col.unit, col.refkey if col.kind == "fk" else ""] for col in cols))
        for entity, cols in tables.items()
    }
    for _ in range(len(tables)):
        labels = _refined(labels, tables)
    shown = {access.list_tool: access.columns for access in composition.access.values()}
    kinds: dict[str, str] = {}
    for cols in tables.values():
        for col in cols:
            kinds.setdefault(col.column, col.kind)

    def takes(tool: ToolDraft) -> list[str]:
        # Ids are one kind, however they are written.
        properties: Mapping[str, Any] = tool.parameters["properties"]
        return sorted(
            kinds.get(name) or ("id" if name.endswith("_id") else str(schema.get("type")))
            for name, schema in properties.items()
        )

    tools = sorted(
        [tool.effect, takes(tool), sorted(kinds[column] for column in shown.get(tool.name, ()))]
        for tool in composition.tools
    )
    return _digest([sorted(labels.values()), tools, _shape(composition.rules)])


def _refined(labels: Mapping[str, str], tables: Mapping[str, Sequence[Col]]) -> dict[str, str]:
    """One round of Weisfeiler-Leman refinement: each table's label takes in those of its neighbours."""
    return {
        entity: _digest(
            [
                labels[entity],
                sorted(labels[col.ref] for col in cols if col.kind == "fk"),
                sorted(labels[other] for other, theirs in tables.items() for col in theirs if col.ref == entity),
            ]
        )
        for entity, cols in tables.items()
    }


def _shape(rules: Mapping[str, Any]) -> dict[str, bool | str]:
    """The rules: a switch as it is, a number by whether it is zero."""
    return {key: value if isinstance(value, (bool, str)) else bool(value) for key, value in rules.items()}


def structure(composition: Composition, *, interface: bool) -> str:
    """Hash what makes two worlds different in kind: coarser than `signature`, as optional columns do not count either.

    Args:
        composition: The world.
        interface: Whether paging, projection, filters, look-ups and error dialect count; page sizes, verbs and the way ids
            are written never do.

    Returns:
        32 hexadecimal digits.
    """
    tables = {
        entity: [col for col in cols if not col.optional or col.kind == "fk"]
        for entity, cols in composition.tables.items()
    }
    labels = {entity: _digest(sorted([col.kind, col.unit] for col in cols)) for entity, cols in tables.items()}
    for _ in range(len(tables)):
        labels = _refined(labels, tables)
    style = composition.style
    dials = [style.paging, style.projection, style.filters, style.lookup, style.error_style] if interface else []
    return _digest([sorted(labels.values()), _shape(composition.rules), dials])


def skeleton(task: Task) -> str:
    """Hash the form of a program: 32 hexadecimal digits.

    Words and constants do not count: entities, attributes, actions and variables are numbered in the order in which they
    occur, a constant is its kind. What counts: steps, nodes, comparators, which parts concern the same thing.
    """
    numbers: dict[tuple[str, str], int] = {}

    def form(value: Any) -> Any:
        if isinstance(value, tuple):
            return [form(item) for item in cast("tuple[Any, ...]", value)]
        if not is_dataclass(value):
            return value
        parts = [part(type(value), field.name, getattr(value, field.name)) for field in fields(value)]
        return [type(value).__name__, *parts]

    def part(kind: type, name: str, value: Any) -> Any:
        if (kind, name) in _CONSTANT:
            return None
        if (kind, name) in _LABELLED:
            return [form(operand) for _, operand in value]
        what = _NAMING.get((kind, name)) or _NAMING.get((object, name))
        return form(value) if what is None else numbers.setdefault((what, value), len(numbers))

    return _digest(form(task))


_CONSTANT = {
    *((Const, "value"), (Const, "unit"), (Named, "by"), (Named, "value")),
    *((Asked, "topic"), (Asked, "detail"), (Asked, "value")),
}
_LABELLED = {(Act, "args"), (Task, "report")}
_NAMING: Mapping[tuple[type, str], str] = {
    (object, "entity"): "entity",
    (object, "var"): "variable",
    (Attr, "name"): "attribute",
    (To, "rel"): "attribute",
    (GroupBy, "rel"): "attribute",
    (Act, "op"): "action",
    (ForEach, "op"): "action",
}
"""Fields that hold constants; operands with a name each; and names that are numbered, by class (`object`: any)."""
