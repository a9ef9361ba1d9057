"""Word packs: the skin of a world (nouns, names, enum values), the keywords that call for it, and what it suits.

A pack is one TOML file in this directory. What a pack leaves out it takes from `general.toml`, which is complete. Packs
never change structure: they only decide how things are called, and how much each mechanism suits a category.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from envsynth.errors import AuthorError

GENERAL = "general"
"""Name of the complete pack that others inherit from."""


_Nouns = Mapping[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Words of one domain."""

    name: str
    """Its file name without suffix."""
    title: str
    """The domain in a few words, for people."""
    keywords: tuple[str, ...]
    """Words of a category sentence that call for it."""
    nouns: Mapping[str, tuple[tuple[str, str], ...]]
    """Alternatives (singular, plural) by entity key."""
    names: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]
    """First and second parts of names by entity key; an empty second part makes codes such as SAVE42."""
    values: Mapping[str, tuple[str, ...]]
    """Values of liftable enums by column name."""
    weights: Mapping[str, int]
    """How much each mechanism suits the domain; 0 means that it is never chosen. A mechanism that this build lacks may be
    named: it is not chosen either."""


def _nouns(raw: Mapping[str, Any], path: str) -> dict[str, tuple[tuple[str, str], ...]]:
    found: dict[str, tuple[tuple[str, str], ...]] = {}
    for entity, pairs in raw.items():
        split = [tuple(str(pair).split("/")) for pair in pairs]
        if bad := [pair for pair in split if len(pair) != 2]:
            raise AuthorError(f"{path}: nouns.{entity} needs 'singular/plural', got {bad[0]}")
        found[entity] = tuple((pair[0], pair[1]) for pair in split)
    return found


def _inherit(base: _Nouns, own: _Nouns) -> dict[str, tuple[tuple[str, str], ...]]:
    """Add the nouns of the general pack that a pack lacks, but none that it uses for another entity.

    So a mechanism can bring an entity with common nouns to the general pack, whatever the others call their things.
    """
    used = {word for pairs in own.values() for pair in pairs for word in pair}
    found = dict(own)
    for entity, pairs in base.items():
        free = tuple(pair for pair in pairs if not used.intersection(pair))
        found.setdefault(entity, free or pairs)
    # The order of the general pack, then what only this pack has: independent of the order in a pack's file.
    return {entity: found[entity] for entity in dict.fromkeys((*base, *own))}


@cache
def load_pack(name: str) -> Pack:
    """Load a pack by name; what it leaves out comes from the general pack.

    Args:
        name: File name without suffix ("travel").

    Returns:
        The pack.

    Raises:
        AuthorError: there is no such pack, or its file is malformed.
    """
    path = resources.files(__name__).joinpath(f"{name}.toml")
    if not path.is_file():
        raise AuthorError(f"no word pack {name!r}; there are: {', '.join(pack_names())}")
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise AuthorError(f"word pack {name!r} is no TOML: {error}") from error
    base = None if name == GENERAL else load_pack(GENERAL)
    names = {
        entity: (tuple(parts["first"].split()), tuple(parts.get("second", "").split()))
        for entity, parts in raw.get("names", {}).items()
    }
    values = {column: tuple(items) for column, items in raw.get("values", {}).items()}
    weights = {mechanism: int(weight) for mechanism, weight in raw.get("weights", {}).items()}
    return Pack(
        name=name,
        title=str(raw.get("title", name)),
        keywords=tuple(raw.get("keywords", ())),
        nouns=_inherit(base.nouns if base else {}, _nouns(raw.get("nouns", {}), name)),
        names={**(base.names if base else {}), **names},
        values={**(base.values if base else {}), **values},
        weights={**(base.weights if base else {}), **weights},
    )


@cache
def pack_names() -> tuple[str, ...]:
    """Names of all packs, sorted; files that begin with an underscore are no packs."""
    files = resources.files(__name__).iterdir()
    return tuple(
        sorted(item.name.removesuffix(".toml") for item in files if item.name.endswith(".toml") and item.name[0] != "_")
    )
