"""How a category sentence is understood: a word pack, and how much each mechanism suits it.

Words are compared by stem with the keywords of the packs and of the mechanisms; nothing is guessed by a model, so equal
sentences are always understood alike. `Reading.explain` says what was understood and what was not.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from envsynth.author.procedural import lexicon
from envsynth.author.procedural.lexicon import GENERAL, Pack, load_pack, pack_names
from envsynth.errors import AuthorError

HIT = 5
"""Weight that a mechanism gains by each of its keywords in the sentence."""
STRONG = 8
"""Weight from which a mechanism is in every world of the category (two at most)."""
JOINED = 2
"""Mechanisms per world."""

_WHOLE = ("booking", "pricing", "reading", "building", "wedding", "training", "bus")
"""Words that are no inflected form: "booking" is not what a library does with a book."""


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
            lines.append(f"words: no keyword matched; used pack {self.pack.name!r} ({self.pack.title})")
        for name, found in self.mechanism_words.items():
            lines.append(f"mechanism {name}: because of {_quote(found)}")
        if not self.mechanism_words:
            lines.append("mechanisms: no keyword matched; used the weights of the pack")
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


def _matches(words: Sequence[str], keywords: Sequence[str]) -> tuple[str, ...]:
    """Words of the sentence whose stem is that of a keyword, each once, in order."""
    stems = dict.fromkeys(stem(keyword) for keyword in keywords)
    return tuple(dict.fromkeys(word for word in words if stem(word) in stems))


def read_category(text: str) -> Reading:
    """Understand a category sentence.

    The pack with the most matching words wins, at a tie the one that matches first. Without any match the general pack
    is used and `explain` says so. A mechanism weighs what the pack gives it, plus a bonus for each of its own words.

    Args:
        text: A sentence such as "planning a travel itinerary".

    Returns:
        What was understood.

    Raises:
        AuthorError: the sentence holds no word.
    """
    words = re.findall(r"[a-z]+(?:-[a-z]+)*", text.lower())
    if not words:
        raise AuthorError(f"the category {text!r} holds no word: give a sentence such as 'planning a travel itinerary'")
    found = {name: _matches(words, load_pack(name).keywords) for name in pack_names() if name != GENERAL}
    hits = [(-len(matched), words.index(matched[0]), name) for name, matched in found.items() if matched]
    chosen = min(hits)[2] if hits else GENERAL
    pack = load_pack(chosen)
    calls = {name: _matches(words, keywords) for name, keywords in _mechanism_keywords().items()}
    score = {name: pack.weights.get(name, 0) + HIT * len(matched) for name, matched in calls.items()}
    ranked = sorted((name for name in score if score[name] > 0), key=lambda name: -score[name])
    return Reading(
        category=text.strip(),
        pack=pack,
        weights={name: score[name] for name in ranked},
        required=tuple([name for name in ranked if score[name] >= STRONG][:JOINED]),
        domain_words=found.get(chosen, ()),
        mechanism_words={name: matched for name, matched in calls.items() if matched},
    )


def choose_mechanisms(reading: Reading, rng: random.Random) -> tuple[str, ...]:
    """Draw the mechanisms of one world: the required ones, the rest by weight.

    Args:
        reading: What was understood of the category.
        rng: Source of the choice.

    Returns:
        Two names, in the fixed order of all mechanisms, whatever order they were drawn in.

    Raises:
        AuthorError: too few mechanisms suit the category.
    """
    chosen = list(reading.required[:JOINED])
    while len(chosen) < JOINED:
        left = [name for name in reading.weights if name not in chosen]
        if not left:
            raise AuthorError(f"{reading.category!r}: only {chosen} suit this category, {JOINED} are needed")
        chosen.append(rng.choices(left, [reading.weights[name] for name in left])[0])
    return tuple(name for name in _mechanism_keywords() if name in chosen)
