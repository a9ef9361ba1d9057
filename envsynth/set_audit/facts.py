"""What a set audit keeps of a task and its world: digests, words and names, so that thousands fit into memory."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from envsynth.author.procedural.ir import Task, from_json
from envsynth.author.procedural.signature import skeleton
from envsynth.record import content_hash
from envsynth.spec import EnvironmentSpec, Table, TaskVersion

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True, kw_only=True)
class WorldFacts:
    """An environment version."""

    hash: str
    """Content hash of the record."""
    slug: str
    """Readable name."""
    content: str
    """Hash of what an actor can meet: the record without names of it, provenance and history."""
    signature: str
    """Structural signature: the author's where the record has it, else of tables and tools as they are recorded."""
    mechanisms: tuple[str, ...]
    """Mechanisms in alphabetical order; empty when the author names none."""


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """A task version in its world."""

    split: str
    """Which of the audited lists it stands in."""
    hash: str
    """Content hash of the record."""
    parent: str | None
    """Version that it was hardened from."""
    world: WorldFacts
    """Its environment."""
    kind: str
    """Class of the task."""
    operator: str | None
    """Operator of the last hardening step; None at a root."""
    content: str
    """Hash of what an actor meets: world, prompt, answer schema, added rows; no lineage, no provenance."""
    words: tuple[str, ...]
    """Normalised words of the prompt."""
    program: str | None
    """Skeleton of the task program; None without a program that this build reads."""
    unreadable: bool
    """Whether there is a program that this build cannot read."""
    outcome: str
    """Hash of the right answer and its changes."""

    @property
    def name(self) -> str:
        """How findings call it."""
        return f"{self.hash[:12]} of {self.world.slug}"


def normalised_words(text: str) -> tuple[str, ...]:
    """Split a text into words that compare: compatibility forms and case folded, punctuation left out.

    Args:
        text: Any text.

    Returns:
        The words in order.
    """
    return tuple(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def world_facts(spec: EnvironmentSpec) -> WorldFacts:
    """Reduce an environment version to its facts.

    Args:
        spec: The environment.

    Returns:
        The facts.
    """
    recorded = spec.provenance.details.get("signature")
    named = spec.provenance.details.get("mechanisms")
    shown = spec.model_dump(mode="json", include={"world", "tools", "policy", "error_style"})
    return WorldFacts(
        hash=spec.hash,
        slug=spec.slug,
        content=content_hash(shown),
        signature=recorded if isinstance(recorded, str) else f"record/{recorded_form(spec)}",
        mechanisms=tuple(sorted(map(str, named))) if isinstance(named, list) else (),
    )


def task_facts(task: TaskVersion, world: WorldFacts, split: str) -> TaskFacts:
    """Reduce a task version to its facts.

    Args:
        task: The task.
        world: Facts of its environment.
        split: Which list it stands in.

    Returns:
        The facts.
    """
    program = None if task.ir is None else _skeleton(task.ir)
    shown = task.model_dump(mode="json", include={"prompt", "answer_schema", "overlay"})
    return TaskFacts(
        split=split,
        hash=task.hash,
        parent=task.lineage.parent,
        world=world,
        kind=task.kind,
        operator=task.lineage.operator,
        content=content_hash([world.content, shown]),
        words=normalised_words(task.prompt),
        program=program,
        unreadable=task.ir is not None and program is None,
        outcome=content_hash(task.oracle.model_dump(mode="json")),
    )


def _skeleton(ir: Any) -> str | None:
    """The form of a program; None for one that is malformed or of another build, which findings count."""
    try:
        program = from_json(ir)
        return skeleton(program) if isinstance(program, Task) else None
    except (ValueError, TypeError, AttributeError, RecursionError):  # a file from elsewhere may hold anything here
        return None


def recorded_form(spec: EnvironmentSpec) -> str:
    """Hash the structure of any author's world, names and rows stripped.

    Weisfeiler-Leman refinement of the graph of tables over kinds of columns, and the multiset of tools by what they take.

    Args:
        spec: The environment.

    Returns:
        32 hexadecimal digits.
    """
    tables = spec.world.tables
    labels = {table.name: content_hash([*sorted(_columns(table)), len(table.primary_key)]) for table in tables}
    targets = {
        table.name: [column.references.partition(".")[0] for column in table.columns if column.references]
        for table in tables
    }
    for _ in tables:
        labels = {
            name: content_hash(
                [
                    label,
                    sorted(labels[other] for other in targets[name]),
                    sorted(labels[other] for other, theirs in targets.items() for target in theirs if target == name),
                ]
            )
            for name, label in labels.items()
        }
    tools = sorted([tool.effect, *_taken(tool.parameters)] for tool in spec.tools)
    return content_hash([sorted(labels.values()), tools])


def _columns(table: Table) -> list[list[str | bool]]:
    return [[item.type, item.nullable, item.unique, item.references is not None] for item in table.columns]


def _taken(parameters: Mapping[str, Any]) -> list[str]:
    """Types of a tool's arguments; whether one is needed counts."""
    properties, required = parameters.get("properties"), parameters.get("required")
    needed = cast("list[Any]", required) if isinstance(required, list) else []
    found: list[str] = []
    if isinstance(properties, dict):
        for name, schema in cast("dict[str, Any]", properties).items():
            kind = cast("dict[str, Any]", schema).get("type") if isinstance(schema, dict) else None
            found.append(f"{kind}{'' if name in needed else '?'}")
    return sorted(found)
