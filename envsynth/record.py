"""What every record is: frozen, hashed by content, refused when unknown keys appear."""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self, cast

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from envsynth.errors import SpecError

Scalar = int | float | str | None
"""A value of one cell of a table."""

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=64)]
"""A name that is safe in SQL and Python alike."""

ContentHash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
"""BLAKE2b-128 of the canonical JSON of a record, in hexadecimal."""


def canonical_json(value: Any) -> str:
    """Serialise to the one JSON text that equal values share.

    Args:
        value: A JSON-able value; mappings need string keys.

    Returns:
        JSON with sorted keys, no spaces, unicode unescaped.

    Raises:
        SpecError: the value holds NaN, an infinity, or something that is not JSON.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SpecError(f"not canonical JSON: {error}") from error


def content_hash(value: Any) -> str:
    """Hash a JSON-able value: BLAKE2b with 16 bytes of digest over its canonical JSON, as 32 hexadecimal digits.

    Raises:
        SpecError: not canonical JSON, or a text holds lone surrogates.
    """
    try:
        data = canonical_json(value).encode()
    except UnicodeEncodeError as error:
        raise SpecError(f"text with lone surrogates cannot be hashed: {error}") from error
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def explain_validation(error: ValidationError, what: str) -> str:
    """Turn a pydantic error into one line per problem, each naming the path of the key and the value."""
    lines: list[str] = []
    for item in error.errors(include_url=False):
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in item["loc"]).lstrip(".")
        if item["type"] == "extra_forbidden":
            lines.append(f"unknown key {path!r}: remove it or check its spelling")
        else:
            shown = repr(item.get("input"))
            lines.append(f"{path or 'record'}: {item['msg']} (got {shown[:80]})")
    return f"malformed {what}: " + "; ".join(lines[:8])


class Record(BaseModel):
    """A frozen record: unknown keys refused, content-hashed."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def to_json(self) -> str:
        """Return the canonical JSON of this record."""
        return canonical_json(self.model_dump(mode="json"))

    @cached_property
    def hash(self) -> str:
        """The content hash of this record, worked out once: an environment is hundreds of kilobytes of JSON."""
        return content_hash(self.model_dump(mode="json"))

    def __copy__(self) -> Self:
        copied = super().__copy__()
        cast(dict[str, Any], copied.__dict__).pop(
            "hash", None
        )  # a copy may get other content (`model_copy(update=...)`)
        return copied

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        copied = super().__deepcopy__(memo)
        cast(dict[str, Any], copied.__dict__).pop("hash", None)
        return copied

    @classmethod
    def parse(cls, value: Any) -> Self:
        """Validate plain data.

        Args:
            value: A mapping as `json.loads` gives it.

        Returns:
            The record.

        Raises:
            SpecError: a key is unknown, missing or of the wrong type; the message names its path.
        """
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise SpecError(explain_validation(error, cls.__name__)) from error

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Parse the JSON text of a record.

        Args:
            text: JSON text.

        Returns:
            The record.

        Raises:
            SpecError: not JSON, or not this record.
        """
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SpecError(f"malformed {cls.__name__}: not JSON: {error}") from error
        return cls.parse(value)


# ------------------------------------------------------------------------------------------------------- environment
