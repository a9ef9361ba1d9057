"""The public documents of a world: words, labels, units and phrases in which its tasks are written.

The renderer writes prompts from them, the parser reads prompts with nothing else, and actors see them in tools and policy.
The lint refuses words that would make a sentence ambiguous, before any task is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from envsynth.author.procedural.composition import Composition
from envsynth.author.procedural.ir import Type
from envsynth.errors import AuthorError

RESERVED = ("whose", "that are", "among", "over", "and", "of")
"""Words that hold a sentence together; no noun and no name may contain them."""

AGGREGATES = ("total", "number", "sum", "highest", "lowest", "different", "cheapest")
"""Words of the aggregates; no label may contain them, or "the total total" arises."""

_FOLLOW = (" is ", " of ", " among")
"""What follows a label in a sentence: a longer label must not continue so."""

UNIT_WORDS = {
    "h": "hours",
    "oclock": "o'clock",
    "min": "minutes",
    "percent": "percent",
    "version": "",
    "level": "",
    "worth": "",
}
"""Words of units that are not their own word; versions and levels are numbers without one, and
so is the worth of a voucher, which is a percentage or credits by its kind."""


def public_docs(composition: Composition) -> dict[str, Any]:
    """Describe a world to those who write and read its prompts.

    Args:
        composition: The world.

    Returns:
        JSON: `entities` {key: [singular, plural]}, `attrs` [[entity, name, label, type, parameter types]], `actions`
        [[name, phrase, [[parameter, type]]]], `units` {unit: word}; a type is [kind, detail].

    Raises:
        AuthorError: a word would make sentences ambiguous; the message lists every finding.
    """
    attrs: list[list[Any]] = []
    for entity, cols in composition.tables.items():
        for col in cols:
            type_ = composition.attr_type(entity, col.name) or Type("str", col.name)
            attrs.append([entity, col.name, col.label, list(type_), []])
    attrs += [
        [entity, name, derived.label, list(derived.type), [list(param) for param in derived.params]]
        for (entity, name), derived in composition.derived.items()
    ]
    actions = [
        [action.name, action.phrase, [[name, list(type_)] for name, type_ in action.params]]
        for action in composition.actions.values()
    ]
    types = [attr[3] for attr in attrs] + [param for attr in attrs for param in attr[4]]
    types += [type_ for _, _, params in actions for _, type_ in params]
    units = dict.fromkeys(detail for kind, detail in types if kind == "num" and detail)
    docs: dict[str, Any] = {
        "entities": {entity: list(composition.words[entity]) for entity in composition.tables},
        "attrs": attrs,
        "actions": actions,
        "units": {unit: UNIT_WORDS.get(unit, unit) for unit in units},
    }
    if findings := lint(docs):
        raise AuthorError(f"words of {'+'.join(composition.mechanisms)} are ambiguous: {'; '.join(findings)}")
    return docs


def lint(docs: Mapping[str, Any]) -> list[str]:
    """Find words that make sentences ambiguous.

    Args:
        docs: Public documents.

    Returns:
        One line per finding; empty when all is well.
    """
    return [
        *_lint_nouns(docs["entities"]),
        *_lint_labels(docs["attrs"]),
        *_lint_actions(docs["actions"]),
    ]


def _holds(text: str, phrase: str) -> bool:
    return re.search(rf"\b{re.escape(phrase)}\b", text) is not None


def _lint_nouns(entities: Mapping[str, list[str]]) -> list[str]:
    found: list[str] = []
    owner: dict[str, str] = {}
    for entity, nouns in entities.items():
        for noun in nouns:
            if noun in owner:
                found.append(f"noun {noun!r} stands for {owner[noun]} and {entity}")
            owner[noun] = entity
            found += [f"noun {noun!r} of {entity} contains {word!r}" for word in RESERVED if _holds(noun, word)]
            if not re.fullmatch(r"[a-z][a-z]*(?:[ -][a-z]+)*", noun):
                found.append(f"noun {noun!r} of {entity} is not lower-case words")
    return found


def _lint_labels(attrs: list[list[Any]]) -> list[str]:
    found: list[str] = []
    by_entity: dict[str, list[tuple[str, str]]] = {}
    for entity, name, label, *_ in attrs:
        by_entity.setdefault(entity, []).append((name, label))
        found += [f"label {label!r} of {entity}.{name} contains {word!r}" for word in AGGREGATES if _holds(label, word)]
        found += [
            f"label {label!r} of {entity}.{name} contains {word!r}"
            for word in ("whose", "that are", "among", "over")
            if _holds(label, word)
        ]
    for entity, labels in by_entity.items():
        for name, label in labels:
            for other, longer in labels:
                if other == name:
                    continue
                if longer == label:
                    found.append(f"label {label!r} stands for {entity}.{name} and {entity}.{other}")
                found += [
                    f"label {label!r} of {entity}.{name} begins label {longer!r} of {other}"
                    for follow in _FOLLOW
                    if longer.startswith(label + follow)
                ]
    return list(dict.fromkeys(found))


def _lint_actions(actions: list[list[Any]]) -> list[str]:
    found: list[str] = []
    phrases: dict[str, str] = {}
    for name, phrase, params in actions:
        slots = re.findall(r"\{(\w+)\}", phrase)
        if sorted(slots) != sorted(param for param, _ in params):
            found.append(f"phrase {phrase!r} of {name} does not name each parameter once")
        shape = re.sub(r"\{\w+\}", "{}", phrase)
        if shape in phrases:
            found.append(f"phrase {phrase!r} stands for {phrases[shape]} and {name}")
        phrases[shape] = name
    return found
