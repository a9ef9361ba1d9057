"""Join mechanisms into one world: unify their ports, vary its structure, give it words, rows, texts and tools."""

from __future__ import annotations

import random
import re
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from envsynth.author.procedural.composition import NOW, Composition, identifier
from envsynth.author.procedural.interface import draw_style, read_tools
from envsynth.author.procedural.ir import MEND
from envsynth.author.procedural.lexicon import Pack
from envsynth.author.procedural.mechanism import Action, Col, Derived, InterfaceStyle, Mechanism, Normed, Row, ToolDraft
from envsynth.author.procedural.norms import norm_action, norm_attributes
from envsynth.author.procedural.signature import signature
from envsynth.errors import AuthorError
from envsynth.record import Scalar
from envsynth.spec import Column, Table, World

__all__ = ["NOW", "Composition", "compose", "connect", "signature", "to_world"]

P_DROP = 0.5
"""Chance that an optional column is left out."""
P_LIFT = 0.5
"""Chance that a liftable enum becomes a table of its own."""
P_BY_NAME = 0.2
"""Chance that a relation stores the unique name of its target instead of the id."""

_Schema = dict[str, list[Col]]


def compose(
    mechanisms: Sequence[Mechanism],
    pack: Pack,
    rng: random.Random,
    style: InterfaceStyle | None = None,
    rules: Mapping[str, Any] | None = None,
) -> Composition:
    """Compose a world.

    Entities of the same key are unified, whatever mechanism brings them. Each kind of choice (style, rules, structure,
    words, rows) has its own stream of chance, so that overriding one leaves the others as they were.

    Args:
        mechanisms: What to join, in order; the first to fill a shared entity decides its rows.
        pack: Words, names and enum values.
        rng: Source of all choices.
        style: Interface style; drawn when None.
        rules: Rule parameters that override drawn ones.

    Returns:
        The world with rows, texts, tools and policy.

    Raises:
        AuthorError: mechanisms contradict one another, leave a table empty, or the pack lacks a word.
    """
    if not mechanisms:
        raise AuthorError("compose needs at least one mechanism")
    seeds = {part: f"{part}/{rng.getrandbits(64)}" for part in ("style", "rules", "shape", "words", "rows")}
    drawn = draw_style(random.Random(seeds["style"]))
    all_rules = _rules(mechanisms, random.Random(seeds["rules"]), rules or {})
    schema = _merge(mechanisms, all_rules)
    liftable = list(dict.fromkeys(col.name for cols in schema.values() for col in cols if col.liftable))
    originals = _vary(schema, pack, seeds["shape"])
    words = _draw_words([*schema, *(name for name in liftable if name not in schema)], pack, seeds["words"])
    world = Composition(
        mechanisms=tuple(mechanism.name for mechanism in mechanisms),
        pack=pack,
        style=style or drawn,
        words=words,
        tables={entity: _physical(entity, schema[entity], words) for entity in _targets_first(schema)},
        rules=all_rules,
        originals=originals,
        salt=f"names/{seeds['words']}",
    )
    _fill(world, mechanisms, liftable, random.Random(seeds["rows"]))
    _write_texts(world, mechanisms)
    return world


def _rules(mechanisms: Sequence[Mechanism], rng: random.Random, overrides: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for mechanism in mechanisms:
        options = mechanism.options(rng)
        if clash := [key for key in options if key in found]:
            raise AuthorError(f"{mechanism.name}: rule {clash[0]!r} already belongs to another mechanism")
        found.update(options)
    if unknown := [key for key in overrides if key not in found]:
        raise AuthorError(f"no mechanism of {[m.name for m in mechanisms]} has a rule {unknown[0]!r}")
    return {**found, **overrides}


def _merge(mechanisms: Sequence[Mechanism], rules: Mapping[str, Any]) -> _Schema:
    schema: _Schema = {}
    for mechanism in mechanisms:
        for entity, cols in mechanism.tables(rules).items():
            known = schema.setdefault(entity, [])
            for col in cols:
                place = next((index for index, old in enumerate(known) if old.name == col.name), None)
                if place is None:
                    known.append(col)
                    continue
                old = known[place]
                if (old.kind, old.unit, old.ref, old.values) != (
                    col.kind,
                    col.unit,
                    col.ref,
                    col.values,
                ):
                    raise AuthorError(f"{mechanism.name}: {entity}.{col.name} is {col}, another mechanism has {old}")
                known[place] = replace(
                    old,
                    optional=old.optional and col.optional,
                    liftable=old.liftable and col.liftable,
                )
    return schema


def _vary(schema: _Schema, pack: Pack, seed: str) -> dict[str, tuple[str, ...]]:
    """Draw the structure in place; return the enum values that the pack renames, as the mechanisms know them.

    Every column has its own stream of chance, so that a rule that adds a column leaves the others as they were.
    """
    originals: dict[str, tuple[str, ...]] = {}
    for entity in list(schema):
        cols: list[Col] = []
        for col in schema[entity]:
            rng = random.Random(f"{seed}/{entity}/{col.name}")
            if col.optional and rng.random() < P_DROP:
                continue
            if col.liftable and col.name in pack.values:
                originals[col.name] = col.values
                col = replace(col, values=pack.values[col.name])
            if col.liftable and rng.random() < P_LIFT:
                schema.setdefault(
                    col.name,
                    [
                        Col(name="id", kind="id", label="id"),
                        Col(name="name", kind="name", label="name"),
                    ],
                )
                col = replace(col, kind="fk", ref=col.name)
            cols.append(col)
        schema[entity] = cols
    named = [entity for entity, cols in schema.items() if any(col.kind == "name" for col in cols)]
    for entity, cols in schema.items():
        for index, col in enumerate(cols):
            by_name = random.Random(f"{seed}/{entity}/{col.name}/key").random() < P_BY_NAME
            if col.kind == "fk" and col.ref in named and by_name:
                cols[index] = replace(col, refkey="name")
    return originals


def _draw_words(entities: Sequence[str], pack: Pack, seed: str) -> dict[str, tuple[str, str]]:
    words: dict[str, tuple[str, str]] = {}
    used: dict[str, str] = {}
    for entity in entities:
        nouns = pack.nouns.get(entity)
        if not nouns:
            raise AuthorError(f"word pack {pack.name!r} has no noun for the entity {entity!r}")
        order = random.Random(f"{seed}/{entity}").sample(nouns, len(nouns))
        free = [pair for pair in order if pair[0] not in used and pair[1] not in used]
        if not free:
            taken = {noun: used[noun] for pair in nouns for noun in pair if noun in used}
            raise AuthorError(f"word pack {pack.name!r}: every noun of {entity!r} is taken: {taken}")
        words[entity] = free[0]
        used.update(dict.fromkeys(free[0], entity))
    return words


def _physical(entity: str, cols: Sequence[Col], words: Mapping[str, tuple[str, str]]) -> tuple[Col, ...]:
    """Fill label and column name of each column of an entity.

    Raises:
        AuthorError: two columns would have the same name.
    """
    done: list[Col] = []
    for col in cols:
        # A liftable enum is called by this world's word for it, whether it became a table or not.
        label = words[col.name][0] if col.liftable else col.label or col.name.replace("_", " ")
        label = re.sub(r"\{(\w+)\}", lambda match: words[match[1]][0], label)
        column = col.name
        if col.kind == "fk":
            role = identifier(words[col.ref][0]) if col.name == col.ref else col.name
            column = f"{role}_{col.refkey}"
        done.append(replace(col, label=label, column=column))
    names = [col.column for col in done]
    if len(set(names)) != len(names):
        raise AuthorError(f"two columns of {entity} would have the same name: {names}")
    return tuple(done)


def _targets_first(schema: _Schema) -> list[str]:
    """Order entities so that relations point backwards; circles keep the order of the mechanisms."""
    order: list[str] = []

    def visit(entity: str, path: tuple[str, ...]) -> None:
        if entity in order or entity in path:
            return
        for col in schema[entity]:
            if col.kind == "fk":
                if col.ref not in schema:
                    raise AuthorError(f"{entity}.{col.name} points to {col.ref!r}, which no mechanism has")
                visit(col.ref, (*path, entity))
        order.append(entity)

    for entity in schema:
        visit(entity, ())
    return order


def _fill(world: Composition, mechanisms: Sequence[Mechanism], liftable: Sequence[str], rng: random.Random) -> None:
    world.rows = {entity: [] for entity in world.tables}
    lifted = {col.name: col.values for cols in world.tables.values() for col in cols if col.kind == "fk" and col.values}
    for name, values in lifted.items():
        if name in liftable:
            world.fill(rng, name, len(values), lambda i, values=values: {"name": values[i]})
    for mechanism in mechanisms:
        mechanism.generate(world, rng)
    world.resolve_late(rng)
    if empty := [entity for entity, rows in world.rows.items() if not rows]:
        raise AuthorError(f"no mechanism fills {empty}")


_VOWEL = re.compile(
    r"\b([Aa]) (?=(?:[aeio]|u(?!ni[cfloqtv]|s[aeiu]|til|te|bi|ran)|h(?:eir|our|onest|onour)|8|1[18](?!\d)))(?!(?:one|once|eu|ewe)\b|eu)"
)
"""An "a" before a vowel that is heard: "hour" has one, "unit", "user" and "one" have none."""


def _articles(text: str) -> str:
    """Write "an" before a vowel; mechanisms say "a" before nouns that they do not know."""
    return _VOWEL.sub(r"\1n ", text)


def _write_texts(world: Composition, mechanisms: Sequence[Mechanism]) -> None:
    policy: list[str] = []
    writes: list[ToolDraft] = []
    for mechanism in mechanisms:
        policy += mechanism.policy(world)
        policy += [_add_derived(world, mechanism.name, derived) for derived in mechanism.derived(world)]
        for action in mechanism.actions(world):
            if action.name.startswith(MEND):
                raise AuthorError(f"{mechanism.name}: the action {action.name!r} is named like one that follows a norm")
            policy.append(_add_action(world, mechanism.name, action))
        for norm in mechanism.norms(world) if isinstance(mechanism, Normed) else ():
            world.norms.append(norm)
            policy += [_add_derived(world, mechanism.name, derived) for derived in norm_attributes(world, norm)]
            policy.append(_add_action(world, mechanism.name, norm_action(world, norm, world.actions)))
        writes += mechanism.tools(world)
    reads, world.access = read_tools(world)
    world.tools = [
        replace(tool, description=_articles(tool.description), returns=_articles(tool.returns))
        for tool in (*reads, *writes)
    ]
    names = [tool.name for tool in world.tools]
    if len(set(names)) != len(names):
        raise AuthorError(f"two tools have the same name: {sorted(names)}")
    world.policy = [_articles(sentence) for sentence in dict.fromkeys(policy) if sentence]


def _add_derived(world: Composition, owner: str, derived: Derived) -> str:
    """Add a derived attribute; return its sentence.

    Raises:
        AuthorError: the world has one of that name.
    """
    if any(name == derived.name for _, name in world.derived):
        raise AuthorError(f"{owner}: a derived attribute {derived.name!r} exists already")
    sentence = _articles(derived.policy)
    world.derived[derived.entity, derived.name] = replace(derived, policy=sentence)
    return sentence


def _add_action(world: Composition, owner: str, action: Action) -> str:
    """Add an action; return its sentence.

    Raises:
        AuthorError: the world has one of that name.
    """
    if action.name in world.actions:
        raise AuthorError(f"{owner}: an action {action.name!r} exists already")
    sentence = _articles(action.policy)
    world.actions[action.name] = replace(action, policy=sentence)
    return sentence


# ----------------------------------------------------------------------------------------------------------- databases


def _storage(world: Composition, col: Col) -> str:
    keyed = col.kind == "id" or (col.kind == "fk" and col.refkey == "id")
    return "INTEGER" if col.kind == "num" or (keyed and world.style.ids == "int") else "TEXT"


def connect(composition: Composition, overlay: Sequence[tuple[str, Row]] = ()) -> sqlite3.Connection:
    """Open an in-memory database of the world for the oracle.

    Args:
        composition: The world.
        overlay: Distractor rows as (entity, row), added to the world's own.

    Returns:
        A connection in autocommit mode whose rows are tuples. Tables are named by entity key.
    """
    database = sqlite3.connect(":memory:", isolation_level=None)
    for entity, cols in composition.tables.items():
        parts = [
            f'"{col.column}" {_storage(composition, col)}'
            + (" PRIMARY KEY" if col.kind == "id" else " NOT NULL")
            + (" UNIQUE" if col.kind == "name" else "")
            + (f' REFERENCES "{col.ref}"("{col.refkey}")' if col.kind == "fk" else "")
            for col in cols
        ]
        database.execute(f'CREATE TABLE "{entity}" ({", ".join(parts)})')
        columns = composition.columns(entity)
        rows = [*composition.rows[entity], *(row for name, row in overlay if name == entity)]
        marks = ", ".join("?" * len(columns))
        names = ", ".join(f'"{column}"' for column in columns)
        database.executemany(
            f'INSERT INTO "{entity}" ({names}) VALUES ({marks})',
            [[row[column] for column in columns] for row in rows],
        )
    return database


def to_world(composition: Composition) -> World:
    """Turn a composition into the record of its initial state; equal compositions give equal JSON."""
    tables: list[Table] = []
    for entity, cols in composition.tables.items():
        columns = tuple(
            Column(
                name=col.column,
                type="INTEGER" if _storage(composition, col) == "INTEGER" else "TEXT",
                unique=col.kind == "name",
                references=f"{col.ref}.{col.refkey}" if col.kind == "fk" else None,
                description=composition.describe(col),
            )
            for col in cols
        )
        tables.append(
            Table(
                name=entity,
                columns=columns,
                primary_key=("id",),
                description=f"one {composition.word(entity)} per row",
            )
        )
    rows: dict[str, tuple[tuple[Scalar, ...], ...]] = {
        entity: tuple(tuple(row[column] for column in composition.columns(entity)) for row in composition.rows[entity])
        for entity in composition.tables
    }
    return World(tables=tuple(tables), rows=rows, now=composition.now)
