"""The policy's tokenizer: copy-stable, fixed, exact on any text, without torch.

Text is cut into runs of ASCII letters and digits, and everything else. A run is one token if it is a word of the fixed
grammar; else it is spelled, one token per character, the first in its word-start variant. So an entity has the same ids
wherever it stands, and a name that was never seen is as easy to copy as a familiar one. Other ASCII characters are one
token each, and what is left is spelled in bytes of UTF-8.

A space costs nothing where one is expected: between two runs, behind punctuation that closes, around "=". What is
expected depends on the two neighbours alone; a tie (`JOIN`) says that an expected space is missing, `SPACE` is one more.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Final

from envsynth.errors import SpecError
from envsynth.policy.words import whole_words

VERSION: Final = "tokens/2"
"""Version of the vocabulary; a change of the list of tokens raises it."""

SPECIALS: Final = (
    "<|pad|>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|think|>",
    "<|/think|>",
    "<|call|>",
    "<|answer|>",
    "<|result|>",
    "<|end|>",
)
"""Tokens that no text encodes to: padding, turns, thinking, kinds of action, results, end of turn."""

PAD, SYSTEM, USER, ASSISTANT, THINK, END_THINK, CALL, ANSWER, RESULT, END = range(len(SPECIALS))

_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_PUNCTUATION = "\n!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
_BYTES = tuple(byte for byte in range(256) if byte < 32 or byte > 126)
_WORDS = whole_words()


def _build() -> tuple[str, ...]:
    spelled = [f"word:{word}" for word in _WORDS]
    starts = [f"start:{char}" for char in _LETTERS]
    inner = [f"inner:{char}" for char in _LETTERS]
    marks = [f"mark:{char}" for char in _PUNCTUATION]
    return (*SPECIALS, "JOIN", "SPACE", *marks, *starts, *inner, *(f"byte:{byte:02x}" for byte in _BYTES), *spelled)


VOCABULARY: Final = _build()
"""Name of each token, by id."""
VOCABULARY_SIZE: Final = len(VOCABULARY)
"""Number of tokens."""
VOCABULARY_HASH: Final = hashlib.blake2b(json.dumps([VERSION, *VOCABULARY]).encode(), digest_size=16).hexdigest()
"""BLAKE2b-128 of version and token list, 32 hexadecimal digits: a checkpoint names the vocabulary that it was trained on."""

_IDS = {name: index for index, name in enumerate(VOCABULARY)}
JOIN: Final = _IDS["JOIN"]
"""No space here, although one is expected."""
SPACE: Final = _IDS["SPACE"]
"""One more space than is expected."""

_START = {char: _IDS[f"start:{char}"] for char in _LETTERS}
_INNER = {char: _IDS[f"inner:{char}"] for char in _LETTERS}
_MARK = {char: _IDS[f"mark:{char}"] for char in _PUNCTUATION}
_BYTE = {byte: _IDS[f"byte:{byte:02x}"] for byte in _BYTES}
_WORD = {word: _IDS[f"word:{word}"] for word in _WORDS}
_PIECE = re.compile(r"[A-Za-z0-9]+| +|.", re.DOTALL)

_OPEN, _CLOSE, _POINT = "([{", ")]},;?!|>", ".:"
_WORDLIKE: Final = "w"
_DIGITLIKE: Final = "d"
_TEXT = {
    **{index: char for char, index in _START.items()},
    **{index: char for char, index in _INNER.items()},
    **{index: char for char, index in _MARK.items()},
    **{index: word for word, index in _WORD.items()},
}
_RAW = {index: byte for byte, index in _BYTE.items()}
INNER_IDS: Final = frozenset(_INNER.values())
"""Tokens of letters and digits that go on a spelled word."""


def _space_expected(left: str, right: str) -> bool:
    """Whether one space is expected between two neighbours, each `w`, `d` (a run that begins with a digit) or a mark."""
    word = right in (_WORDLIKE, _DIGITLIKE)
    if left in (_WORDLIKE, _DIGITLIKE):
        return word or right == "=" or right in _OPEN
    if left == "=":
        return word or right in _OPEN or right == '"'
    if left in _CLOSE:
        return word or right in _OPEN
    if left in _POINT:
        return right == _WORDLIKE or right in _OPEN
    return False


def _kind(char: str) -> str:
    """The class of a neighbour, by its character: letters and digits stand for their runs, no ASCII text for nothing."""
    if char in _INNER:
        return _DIGITLIKE if char.isdigit() else _WORDLIKE
    return char if char in _MARK else ""


def encode(text: str) -> list[int]:
    """Turn text into ids; no text gives a special token.

    Args:
        text: Any text, lone surrogates included.

    Returns:
        The ids; `decode` gives the text back.
    """
    ids: list[int] = []
    left, spaces = "", 0
    for piece in _PIECE.findall(text):
        if piece[0] == " ":
            spaces = len(piece)
            continue
        right = _kind(piece[0])
        expected = bool(left and right) and _space_expected(left, right)
        ids += [SPACE] * (spaces - expected) if spaces >= expected else [JOIN]
        ids += _spell(piece)
        left, spaces = right, 0
    return ids + [SPACE] * spaces


def _spell(piece: str) -> list[int]:
    if piece in _WORD:
        return [_WORD[piece]]
    if piece[0] in _START:
        return [_START[piece[0]], *(_INNER[char] for char in piece[1:])]
    if piece in _MARK:
        return [_MARK[piece]]
    return [_BYTE[byte] for byte in piece.encode("utf-8", "surrogatepass")]


def decode(ids: Iterable[int]) -> str:
    """Turn ids into text.

    Args:
        ids: Ids of `encode`, or any other: a special token reads as its name, and bytes that are no UTF-8 as the
            replacement character, because a policy may sample anything.

    Returns:
        The text.

    Raises:
        SpecError: an id is not in the vocabulary.
    """
    return _Decoder().run(ids)


class _Decoder:
    def __init__(self) -> None:
        self.parts: list[str] = []
        self.raw = bytearray()
        self.left = ""
        self.spaces = 0
        self.joined = False

    def run(self, ids: Iterable[int]) -> str:
        for token in ids:
            self.one(token)
        self.flush()
        self.parts.append(" " * self.spaces)
        return "".join(self.parts)

    def one(self, token: int) -> None:
        if token == SPACE:
            self.spaces += 1
        elif token == JOIN:
            self.joined = True
        elif token in _RAW:
            self.gap("")
            self.raw.append(_RAW[token])
        elif 0 <= token < len(SPECIALS):
            self.piece(SPECIALS[token], "")
        elif token in INNER_IDS:
            self.piece(_TEXT[token], self.left, gap=self.spaces > 0)
        elif token in _TEXT:
            self.piece(_TEXT[token], _kind(_TEXT[token][0]))
        else:
            raise SpecError(f"token {token} is not in the vocabulary of {VOCABULARY_SIZE}")

    def piece(self, text: str, kind: str, *, gap: bool = True) -> None:
        if gap:
            self.gap(kind)
        self.flush()
        self.parts.append(text)
        self.left = kind

    def gap(self, kind: str) -> None:
        """Write the spaces before a piece."""
        expected = bool(self.left and kind) and not self.joined and _space_expected(self.left, kind)
        if self.spaces or expected:
            self.flush()
        self.parts.append(" " * (self.spaces + expected))
        self.spaces, self.joined = 0, False
        self.left = kind

    def flush(self) -> None:
        """Write the bytes that have been gathered."""
        if self.raw:
            try:
                self.parts.append(self.raw.decode("utf-8", "surrogatepass"))
            except UnicodeDecodeError:
                self.parts.append(self.raw.decode("utf-8", "replace"))
            self.raw.clear()


def names(ids: Sequence[int]) -> list[str]:
    """Names of tokens, for people.

    Raises:
        SpecError: an id is not in the vocabulary.
    """
    if bad := [token for token in ids if not 0 <= token < VOCABULARY_SIZE]:
        raise SpecError(f"token {bad[0]} is not in the vocabulary of {VOCABULARY_SIZE}")
    return [VOCABULARY[token] for token in ids]
