"""How a category sentence is understood: a word pack, and how much each mechanism suits it.

Words are compared by stem with the keywords of the packs and of the mechanisms; a keyword of two words ("data centre")
must occur as a whole and counts for more. Nothing is guessed by a model, so equal sentences are always understood alike.
`Reading.explain` says what was understood and what was not.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources

from envsynth.author.procedural import lexicon
from envsynth.author.procedural.lexicon import GENERAL, Pack, load_pack, pack_names
from envsynth.author.procedural.mechanisms import MECHANISMS
from envsynth.errors import AuthorError

HIT = 5
"""Weight that a mechanism gains by each of its keywords in the sentence."""
PHRASE = 3
"""What a keyword of several words counts for in place of 1: more than two words that happen to be there."""
STRONG = 8
"""Weight from which a mechanism is in every world of the category (two at most)."""
JOINED = 2
"""Mechanisms that a world has at least."""
SIZES = {2: 6, 3: 3, 4: 1}
"""How often a world joins so many mechanisms: each more makes tasks that cross more tables, and costs all gates time."""

_WHOLE = ("booking", "pricing", "reading", "building", "wedding", "training", "bus", "gas")
"""Words that are no inflected form: "booking" is not what a library does with a book."""

_SAME = {
    "buses": "bus", "children": "child", "people": "person", "mice": "mouse", "wolves": "wolf", "shelves": "shelf",
    "center": "centre", "centers": "centre", "theater": "theatre", "theaters": "theatre", "license": "licence",
    "licenses": "licence", "licensing": "licence", "fulfillment": "fulfilment", "enrollment": "enrolment",
    "enrollments": "enrolment", "authorization": "authorisation", "authorizations": "authorisation",
    "datacenter": "datacentre", "datacenters": "datacentre", "harbor": "harbour", "harbors": "harbour",
}  # fmt: skip
"""Irregular plurals, and American spellings: what they stand for."""


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What was understood of a category sentence."""

    category: str
    """The sentence."""
    pack: Pack
    """Words, names and values of its worlds."""
    weights: Mapping[str, int]
    """Mechanisms by falling weight; those of weight 0 are left out."""
    required: tuple[str, ...]
    """Mechanisms of every world of the category, at most two."""
    domain_words: tuple[str, ...]
    """Words of the sentence that called for the pack."""
    mechanism_words: Mapping[str, tuple[str, ...]]
    """Words of the sentence that called for a mechanism."""
    other_packs: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Words of the sentence that called for packs which lost, by pack."""
    missing: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    """Words of the sentence that called for mechanisms which this build lacks, by mechanism."""

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """The most suitable mechanisms: the required ones, then by weight."""
        ranked = [*self.required, *(name for name in self.weights if name not in self.required)]
        return tuple(ranked[:JOINED])

    @property
    def words(self) -> Pack:
        """The pack, under the name of what it gives."""
        return self.pack

    def explain(self) -> str:
        """Say how the sentence was understood, line by line, for people."""
        lines = [f"category: {self.category}"]
        if self.domain_words:
            lines.append(f"words: pack {self.pack.name!r} ({self.pack.title}), because of {_quote(self.domain_words)}")
        else:
            lines.append(
                f"words: no pack matched, because no word of the sentence is a keyword of one; "
                f"took pack {self.pack.name!r} ({self.pack.title}) instead"
            )
        if self.other_packs:
            others = "; ".join(f"{name!r} because of {_quote(found)}" for name, found in self.other_packs.items())
            lines.append(f"words: fewer or later words called for other packs: {others}")
        for name, found in self.mechanism_words.items():
            lines.append(f"mechanism {name}: because of {_quote(found)}")
        for name, found in self.missing.items():
            lines.append(f"mechanism {name}: {_quote(found)} called for it, but this build has no such mechanism")
        if not self.mechanism_words:
            lines.append("mechanisms: no keyword matched; took the weights of the pack")
        shares = ", ".join(f"{name} {weight}" for name, weight in self.weights.items())
        always = f"always {' and '.join(self.required)}; " if self.required else ""
        lines.append(f"worlds join {JOINED} mechanisms: {always}weights {shares}")
        return "\n".join(lines)


def _quote(words: Sequence[str]) -> str:
    return ", ".join(repr(word) for word in words)


def stem(word: str) -> str:
    """Cut inflection off an English word: "planning" -> "plan", "batches" -> "batch", "schedules" -> "schedul".

    Args:
        word: One word, lower case.

    Returns:
        Its stem; only good for comparing with other stems.
    """
    word = _SAME.get(word, word)
    for suffix, instead in (
        ("ies", "y"),
        ("sses", "ss"),
        ("ches", "ch"),
        ("shes", "sh"),
        ("xes", "x"),
    ):
        if word.endswith(suffix) and len(word) > len(suffix) + 1 and word not in _WHOLE:
            word = word.removesuffix(suffix) + instead
            break
    else:
        if word.endswith("s") and not word.endswith("ss") and len(word) > 3 and word not in _WHOLE:
            word = word.removesuffix("s")
    if word in _WHOLE:
        return word
    for suffix in ("ing", "ed"):
        if word.endswith(suffix) and len(word) >= len(suffix) + 3:
            word = word.removesuffix(suffix)
            if word[-1] == word[-2] and word[-1] not in "lsz":
                word = word[:-1]
            break
    return word.removesuffix("e") if len(word) > 4 else word


@cache
def _mechanism_keywords() -> dict[str, tuple[str, ...]]:
    text = resources.files(lexicon).joinpath("_mechanisms.toml").read_text(encoding="utf-8")
    return {name: tuple(words) for name, words in tomllib.loads(text).items()}


@cache
def _stems(keyword: str) -> tuple[str, ...]:
    return tuple(stem(word) for word in keyword.split())


def _matches(words: Sequence[str], keywords: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Find the keywords of a sentence: what its words say, with what each counts and where it begins, in order.

    Several keywords of one stem count once, and so does a word that is there twice.
    """
    stems = [stem(word) for word in words]
    found: list[tuple[int, int, str]] = []
    for known in dict.fromkeys(_stems(keyword) for keyword in keywords):
        size = len(known)
        for start in range(len(stems) - size + 1):
            if tuple(stems[start : start + size]) == known:
                found.append((start, PHRASE if size > 1 else 1, " ".join(words[start : start + size])))
                break
    return {text: (count, start) for start, count, text in sorted(found)}


def _score(matched: Mapping[str, tuple[int, int]]) -> int:
    return sum(count for count, _ in matched.values())


def _words(text: str) -> list[str]:
    """Words of a sentence, lower case; the parts of a word with hyphens follow it ("meter-reading", "meter", ...)."""
    found: list[str] = []
    for word in re.findall(r"[a-z]+(?:-[a-z]+)*", text.lower()):
        found += [word, *word.split("-")] if "-" in word else [word]
    return found


def read_category(text: str, mechanisms: Collection[str] | None = None) -> Reading:
    """Understand a category sentence.

    The pack wins whose matching words count most, at a tie the one that matches first, then the first by name. Without
    any match the general pack is used and `explain` says so. A mechanism weighs what the pack gives it, plus a bonus for
    each of its own words, and one more for its name.

    Args:
        text: A sentence such as "planning a travel itinerary".
        mechanisms: Names to choose from; None: the mechanisms of this build. Others that packs or keywords name are left
            out.

    Returns:
        What was understood.

    Raises:
        AuthorError: the sentence holds no word.
    """
    words = _words(text)
    if not words:
        raise AuthorError(f"the category {text!r} holds no word: give a sentence such as 'planning a travel itinerary'")
    found = {name: _matches(words, load_pack(name).keywords) for name in pack_names() if name != GENERAL}
    found = {name: matched for name, matched in found.items() if matched}
    calls = {name: matched for name in _known() if (matched := _matches(words, _mechanism_keywords().get(name, ())))}
    busy = {text for matched in calls.values() for text in matched}

    def rank(name: str) -> tuple[int, int, int, str]:
        matched = found[name]
        own = sum(word not in busy for word in matched)
        return -_score(matched), -own, min(at for _, at in matched.values()), name

    best = sorted(found, key=rank)
    chosen = best[0] if best else GENERAL
    pack = load_pack(chosen)
    built = MECHANISMS if mechanisms is None else mechanisms
    said = {stem(word) for word in words}
    # A mechanism's own name counts twice: "inventory and pricing of ingredients" is not about recipes.
    hits = {name: _score(calls.get(name, {})) + (stem(name) in said) for name in _known() if name in built}
    score = {name: pack.weights.get(name, 0) + HIT * hits[name] for name in hits}
    ranked = sorted((name for name in score if score[name] > 0), key=lambda name: -score[name])
    return Reading(
        category=text.strip(),
        pack=pack,
        weights={name: score[name] for name in ranked},
        required=tuple([name for name in ranked if score[name] >= STRONG][:JOINED]),
        domain_words=tuple(found.get(chosen, ())),
        mechanism_words={name: tuple(matched) for name, matched in calls.items() if name in built},
        other_packs={name: tuple(found[name]) for name in best[1:]},
        missing={name: tuple(matched) for name, matched in calls.items() if name not in built},
    )


def _known() -> tuple[str, ...]:
    """All mechanisms that have keywords, in the fixed order of their file, then those of this build that have none."""
    return tuple(dict.fromkeys((*_mechanism_keywords(), *MECHANISMS)))


def choose_mechanisms(reading: Reading, rng: random.Random) -> tuple[str, ...]:
    """Draw the mechanisms of one world: the required ones, the rest by weight.

    Args:
        reading: What was understood of the category.
        rng: Source of the choice.

    Returns:
        Two to four names, in the fixed order of all mechanisms, whatever order they were drawn in; no more than suit.

    Raises:
        AuthorError: too few mechanisms suit the category.
    """
    chosen = list(reading.required[:JOINED])
    size = rng.choices(list(SIZES), list(SIZES.values()))[0]
    while len(chosen) < size:
        left = [name for name in reading.weights if name not in chosen]
        if not left and len(chosen) >= JOINED:
            break
        if not left:
            raise AuthorError(f"{reading.category!r}: only {chosen} suit this category, {JOINED} are needed")
        chosen.append(rng.choices(left, [reading.weights[name] for name in left])[0])
    return tuple(name for name in _known() if name in chosen)
