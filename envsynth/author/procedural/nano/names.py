"""Names of nano worlds: coined words, and English ones from two lists that share no word.

Training worlds take 70 % coined and 30 % English names. Held-out worlds take English names of the held-out list alone,
which no training world has. Verbs are coined in both, so that they must be read and cannot be recalled.
"""

from __future__ import annotations

import itertools
import keyword
import random
from collections.abc import Callable, Sequence

from envsynth.author.procedural.docs import AGGREGATES, RESERVED
from envsynth.errors import AuthorError

P_COINED = 0.7
"""Chance that a name of a training world is coined."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


TRAIN_NOUNS = _words(
    """
    car book ship farm song loan bank lot crab lamp boat cake cat dog hen map pen bus cup hat job key bed box tree road
    goat duck frog desk door coat ring drum bell bike tent
    """
)
"""Nouns of training worlds."""
HELD_OUT_NOUNS = _words("fox owl elk ant jug urn yak oak asp bug ewe hog jay vat wok pie")
"""Nouns of held-out worlds."""
TRAIN_FIELDS = _words(
    """
    city hue size zone tier era lane mode age fee cost mark port tint side spot wood host kind load
    """
)
"""Fields of training worlds."""
HELD_OUT_FIELDS = _words("rim hub ink dew arc dye fin gap hem ire lip wig gem wax")
"""Fields of held-out worlds."""

_GRAMMAR = _words(
    """
    ad all am an and any are as at be by can day db del do ed em en er few find for get go ha has he hi ho how id ids if in
    is it its let max may me min my new no not now of on one or our out own ox per re read row set so sum the to two up us
    use was way we with you
    """
)
"""Short words of prompts, of tool sources and of English."""
_CONSONANTS = "bdfgklmnprstvz"
_ALL_CONSONANTS = "bcdfghjklmnpqrstvwxyz"
_VOWELS = "aeiou"
_SHORT = ("cv", "vc")
"""Shapes of verbs."""
_SHAPES = ("cv", "vc", "cvc", "cvc", "vcc", "vcv", "ccv", "cvv")
"""Shapes of nouns and fields, one of the seven twice: those of short English words, so that such words can be copied too."""
_FORBIDDEN = dict.fromkeys((*RESERVED, *AGGREGATES, *_GRAMMAR, "name"))
"""What no name may be."""


class Namer:
    """Draws names, each once.

    Args:
        rng: Source of all draws.
        held_out: Whether nouns and fields come from the held-out lists.
    """

    def __init__(self, rng: random.Random, *, held_out: bool) -> None:
        self._rng = rng
        self._held_out = held_out
        self._used: dict[str, None] = {}
        self._barred = _FORBIDDEN if held_out else _FORBIDDEN | dict.fromkeys((*HELD_OUT_NOUNS, *HELD_OUT_FIELDS))

    def verb(self) -> str:
        """Coin a verb."""
        return self._take(lambda: self._coin(_SHORT))

    def noun(self) -> tuple[str, str]:
        """Draw a noun: singular and plural."""
        pool = HELD_OUT_NOUNS if self._held_out else TRAIN_NOUNS
        word = self._take(lambda: self._word(pool))
        return word, f"{word}s"

    def field(self) -> str:
        """Draw the name of a field."""
        pool = HELD_OUT_FIELDS if self._held_out else TRAIN_FIELDS
        return self._take(lambda: self._word(pool))

    def _word(self, pool: Sequence[str]) -> str:
        coined = not self._held_out and self._rng.random() < P_COINED
        return self._coin(_SHAPES) if coined else self._rng.choice(pool)

    def _coin(self, shapes: Sequence[str]) -> str:
        rng = self._rng
        return "".join(rng.choice(_VOWELS if sound == "v" else _ALL_CONSONANTS) for sound in rng.choice(shapes))

    def _take(self, draw: Callable[[], str]) -> str:
        while True:
            word = draw()
            # No name may be the plural of another, or a word that means something in a prompt or in a tool's source.
            forms = (word, f"{word}s", word.removesuffix("s"))
            if word in self._barred or keyword.iskeyword(word) or any(form in self._used for form in forms):
                continue
            self._used[word] = None
            return word


def values(rng: random.Random, count: int) -> list[str]:
    """Draw different values: three letters, a vowel between two consonants.

    Args:
        rng: Source of the draw.
        count: How many.

    Returns:
        The values.

    Raises:
        AuthorError: there are not so many.
    """
    if count > len(_VALUES):
        raise AuthorError(f"{count} different values were asked for, there are {len(_VALUES)}")
    return rng.sample(_VALUES, count)


_VALUES = tuple(
    value
    for value in map("".join, itertools.product(_CONSONANTS, _VOWELS, _CONSONANTS))
    if value not in (*TRAIN_NOUNS, *TRAIN_FIELDS, *HELD_OUT_NOUNS, *HELD_OUT_FIELDS, *_GRAMMAR)
)
