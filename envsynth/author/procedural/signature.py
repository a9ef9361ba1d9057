"""The structural signature of a composed world: what is left when names, words, constants and rows are stripped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.composition import Composition
from envsynth.author.procedural.mechanism import ToolDraft


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
        labels = {
            entity: _digest(
                [
                    labels[entity],
                    sorted(labels[col.ref] for col in cols if col.kind == "fk"),
                    sorted(labels[other] for other, theirs in tables.items() for col in theirs if col.ref == entity),
                ]
            )
            for entity, cols in tables.items()
        }
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
    rules = {key: value if isinstance(value, (bool, str)) else bool(value) for key, value in composition.rules.items()}
    return _digest([sorted(labels.values()), tools, rules])
