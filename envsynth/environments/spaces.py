"""The space of unicode text, for observations and actions.

Gymnasium's `Text` has a fixed alphabet and cannot hold a JSON tool call with an accented name. This one also has shared
memory for Gymnasium's asynchronous vector environment, so `make_vec` works without special arguments.
"""

from __future__ import annotations

import multiprocessing
import struct
from collections import UserDict
from collections.abc import Sequence
from typing import Any, overload

import orjson
from gymnasium.spaces import Space
from gymnasium.vector.utils import (
    create_shared_memory,  # pyright: ignore[reportUnknownVariableType] - partly untyped there
    read_from_shared_memory,
    write_to_shared_memory,
)
from pydantic import BaseModel, JsonValue

MAX_OBSERVATION_CHARS = 1 << 18
"""Longest observation, in characters."""

_ALPHABET = (
    'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 {}[]",:._-\\\n\u00e9\u00df\u0416\u6f22\U0001f9ed'
)
_LENGTH = struct.Struct("<Q")


class UnicodeText(Space[str]):
    """Any text of at most `max_length` characters; samples are short and mostly meaningless."""

    def __init__(self, max_length: int = MAX_OBSERVATION_CHARS, seed: int | None = None) -> None:
        """Make the space.

        Args:
            max_length: Longest text, in characters.
            seed: Seed of `sample`.
        """
        super().__init__(shape=None, dtype=None, seed=seed)
        self.max_length = max_length

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """Return random text of up to 64 characters; masks are ignored, as text has none."""
        size = int(self.np_random.integers(0, min(self.max_length, 64) + 1))
        return "".join(_ALPHABET[i] for i in self.np_random.integers(0, len(_ALPHABET), size))

    def contains(self, x: Any) -> bool:
        """Whether `x` is text that is not too long."""
        return isinstance(x, str) and len(x) <= self.max_length

    @property
    def is_np_flattenable(self) -> bool:
        """False: text has no array form."""
        return False

    def __eq__(self, other: object) -> bool:
        """Equal when of equal length limit."""
        return isinstance(other, UnicodeText) and other.max_length == self.max_length

    def __hash__(self) -> int:
        """Hash of the length limit."""
        return hash(("UnicodeText", self.max_length))

    def __repr__(self) -> str:
        """Return the constructor call."""
        return f"UnicodeText({self.max_length})"


class Facts(UserDict[str, JsonValue]):
    """A mapping within `info`, read like a dictionary.

    It is no `dict` on purpose: Gymnasium's vector environments merge dictionaries of all slots key by key into typed
    arrays, which fails as soon as two slots hold results of different types. A mapping that is no dictionary stays whole.
    """

    def __init__(self, data: dict[str, JsonValue]) -> None:
        """Take a dictionary over; unlike the base class this copies nothing, as every step makes two."""
        self.data = data

    @classmethod
    def of_text(cls, text: str) -> Facts:
        """Take the JSON text of a dictionary over, which is decoded when it is first read: training reads texts alone.

        Args:
            text: JSON that was checked.
        """
        made = cls.__new__(cls)
        made.__dict__["_text"] = text
        return made

    @classmethod
    def of_record(cls, record: BaseModel) -> Facts:
        """Take the fields of a record, which never changes, as JSON has them; they are made when somebody reads them."""
        made = cls.__new__(cls)
        made.__dict__["_record"] = record
        return made

    def __getattr__(self, name: str) -> Any:
        """Decode the text, or read the record.

        Raises:
            AttributeError: there is no such attribute.
        """
        if name == "data" and "_text" in self.__dict__:
            self.data = orjson.loads(self.__dict__.pop("_text"))
        elif name == "data" and "_record" in self.__dict__:
            self.data = self.__dict__.pop("_record").model_dump(mode="json")
        else:
            raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")
        return self.data

    def __copy__(self) -> Facts:
        return Facts(self.data.copy())

    def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Refuse to be a key, as dictionaries do.

        Raises:
            TypeError: always.
        """
        raise TypeError("unhashable type: 'Facts'")


# The three functions below extend Gymnasium's single-dispatch tables for this space. A slot is eight bytes of length and
# the text in UTF-8; four bytes per character always suffice.


def _slot_bytes(space: UnicodeText) -> int:
    return _LENGTH.size + 4 * space.max_length


@create_shared_memory.register(UnicodeText)
def _create(space: UnicodeText, n: int = 1, ctx: Any = multiprocessing) -> Any:
    return ctx.RawArray("B", n * _slot_bytes(space))


@write_to_shared_memory.register(UnicodeText)
def _write(space: UnicodeText, index: int, value: str, shared_memory: Any) -> None:
    data = value.encode("utf-8", "surrogatepass")
    view = memoryview(shared_memory).cast("B")
    start = index * _slot_bytes(space)
    view[start : start + _LENGTH.size] = _LENGTH.pack(len(data))
    view[start + _LENGTH.size : start + _LENGTH.size + len(data)] = data


class _SharedTexts(Sequence[str]):
    """Live view of the slots.

    Gymnasium reads shared memory once, keeps what it got and deep-copies it after each step. For arrays that is a view;
    texts must be read again at each access, and a deep copy is a plain tuple of what stands there now.
    """

    def __init__(self, space: UnicodeText, memory: Any, n: int) -> None:
        self._slot = _slot_bytes(space)
        self._view = memoryview(memory).cast("B")
        self._n = n

    def __len__(self) -> int:
        return self._n

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[str, ...]: ...

    def __getitem__(self, index: int | slice) -> str | tuple[str, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(self._n)))
        start = range(self._n)[index] * self._slot
        (size,) = _LENGTH.unpack(self._view[start : start + _LENGTH.size])
        data = bytes(self._view[start + _LENGTH.size : start + _LENGTH.size + size])
        return data.decode("utf-8", "surrogatepass")

    def __deepcopy__(self, memo: dict[int, Any]) -> tuple[str, ...]:
        return tuple(self)


@read_from_shared_memory.register(UnicodeText)
def _read(space: UnicodeText, shared_memory: Any, n: int = 1) -> Any:
    return _SharedTexts(space, shared_memory, n)
