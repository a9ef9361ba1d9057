"""Source text that many workers run: compiled once, inside the jail, and handed to each of them as opaque bytes."""

from __future__ import annotations

import functools
import hashlib
import sys
from dataclasses import dataclass, field

from envsynth.sandbox.result import Role


@dataclass(frozen=True, kw_only=True)
class Source:
    """One source text of a family."""

    name: str
    """Its name in error messages."""
    text: str
    """Python source."""
    part: bool = False
    """Not run at once, but kept as the code object `PARTS[name]` for the sources that are."""


@dataclass(frozen=True)
class Family:
    """Workers that start with the same code: all episodes of one environment, or all verifiers.

    Code of two parties never stands in one family, as it would share a process.
    """

    role: Role
    """Who wrote the code."""
    sources: tuple[Source, ...] = ()
    """What they load, in order, into one namespace."""
    image: bytes = field(default=b"", repr=False)
    """A database image that they have open as the database `main`, foreign keys on, before they are handed out; empty for
    none."""

    @functools.cached_property
    def key(self) -> str:
        """Hash of all that determines how a worker starts, the Python that compiles its code included."""
        digest = hashlib.blake2b(f"{self.role}\0{sys.version}".encode(), digest_size=16)
        for source in self.sources:
            for text in (source.name, source.text, str(source.part)):
                data = text.encode("utf-8", "backslashreplace")
                digest.update(len(data).to_bytes(8) + data)
        digest.update(b"\0" + self.image)
        return digest.hexdigest()
