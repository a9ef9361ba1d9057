"""Frames between host and worker: header (JSON length, blob length), UTF-8 JSON, then an optional raw blob.

Both sides are strictly request and reply, so a reader never takes bytes of a later frame, and one `read` is enough in
the common case. These are the worker's blocking functions; the host's, with deadlines and caps, are in `channel`.
"""

from __future__ import annotations

import enum
import json
import marshal
import os
import struct
import uuid
from typing import Any

import orjson

HEADER = struct.Struct("!II")
"""Length of the JSON text and of the blob, both in bytes, big-endian."""

CHUNK = 65536
"""Bytes asked for in the first read of a frame."""

READ_MAX = 1 << 18
"""Bytes asked for in each further read, so that memory grows only with what has arrived."""

EXIT_BROKEN, EXIT_MEMORY = 70, 71
"""Exit codes of a worker that cannot go on: its own code failed; not even an error fits into memory."""

MESSAGE_CHARS, NAME_CHARS = 500, 100
"""Longest error message, and longest name of an error type or code."""

MAX_DEPTH = 200
"""Deepest nesting of plain data that leaves a worker: hosts walk it by recursion, on stacks that may be deep already."""

_ENVELOPE_DEPTH = 3
"""Levels that a reply adds: the reply, its results, one of them."""

_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_DIGITS = bytes(ord("0") if chr(byte) in "0123456789" else 0 for byte in range(256))
_LONG_NUMBER = b"0" * 19
_INTEGERS = range(-(2**63), 2**64)

_QUICK_BYTES = 1 << 20
"""Largest data that the fast writer gets from a process that is not small."""

_NO_REFERENCES = 2
"""Version of `marshal`'s format: later ones look for objects that occur twice."""

_AS_IT_IS = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS


def _plain_form(value: Any) -> Any:
    """Give the form of the two other things that the fast writer takes: the standard library's asks here.

    Raises:
        TypeError: It is something else.
    """
    if isinstance(value, enum.Enum):
        return value.value
    if type(value) is uuid.UUID:
        return str(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False, default=_plain_form).encode


def check_integers(text: bytes) -> None:
    """Refuse JSON with integers beyond 64 bits: readers do not agree on them, and some turn them into floats.

    Args:
        text: Valid JSON.

    Raises:
        ValueError: It holds such an integer.
    """
    # A cheap look first, at a nanosecond per byte; digits in strings and floats only cost a second parse.
    if _LONG_NUMBER in text.translate(_DIGITS):
        json.loads(text.decode(), parse_int=_narrow)


def check_depth(text: bytes, most: int = MAX_DEPTH + _ENVELOPE_DEPTH) -> None:
    """Refuse JSON that is nested too deeply.

    Args:
        text: Valid JSON.
        most: Levels that are allowed.

    Raises:
        ValueError: It is nested deeper.
    """
    if len(text) <= most or text.count(b"[") + text.count(b"{") <= most:  # the common case: too few brackets to be deep
        return
    depth = 0
    outside = text.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2]  # what is not within a string
    for bracket in b"".join(outside).translate(None, _NO_BRACKETS):
        depth += 1 if bracket in b"[{" else -1
        if depth > most:
            raise ValueError(f"it is nested deeper than {most}")


def _narrow(digits: str) -> int:
    if len(digits) > 20 or int(digits) not in _INTEGERS:
        raise ValueError(f"the integer {digits[:40]} needs more than 64 bits")
    return int(digits)


def encode(value: Any, is_small: bool = False) -> bytes:
    """Encode plain data as UTF-8 JSON.

    Args:
        value: What untrusted code returned; nothing of it is called.
        is_small: Whether this process is so small that the text can only be large if `value` holds something many times;
            then nobody looks how large the value is.

    Returns:
        JSON text. A member of an enumeration is its value, a UUID its text.

    Raises:
        TypeError: It holds something that JSON has no form for.
        ValueError: It holds NaN, an infinity, a lone surrogate, an integer beyond 64 bits, or itself, or is nested deeper
            than `MAX_DEPTH`.
        RecursionError: It is nested too deeply.
    """
    text = _encode_quickly(value) if is_small or _is_moderate(value) else None
    if text is None:
        text = _encode(value).encode()
        check_integers(text)
    check_depth(text, MAX_DEPTH)
    return text


def _is_moderate(value: Any) -> bool:
    """Whether the text is certainly small; the fast writer does not ask whether there is memory, and kills the process."""
    if type(value) is str:
        return len(value) <= _QUICK_BYTES
    if value is None or type(value) is int:
        return True
    try:
        return len(marshal.dumps(value, _NO_REFERENCES)) <= _QUICK_BYTES
    except ValueError:  # not what it can write
        return False


def _encode_quickly(value: Any) -> bytes | None:
    """Encode usual data several times faster; None for all that `json` might refuse or mean something else by.

    The fast writer writes null for NaN.
    """
    try:
        text = orjson.dumps(value, None, _AS_IT_IS)
    except (TypeError, ValueError):
        return None
    return None if b"null" in text and orjson.loads(text) != value else text


def read_frame(fd: int) -> tuple[dict[str, Any], bytes | memoryview]:
    """Read one frame from the host, which is trusted to send no more than it may.

    Args:
        fd: The worker's end of the socket pair.

    Returns:
        The request and its blob; a large one is not copied.

    Raises:
        EOFError: The host closed its end.
    """
    data = _read(fd, CHUNK)
    while len(data) < HEADER.size:
        data += _read(fd, CHUNK)
    length, blob_length = HEADER.unpack_from(data)
    end = HEADER.size + length
    total = end + blob_length
    if len(data) < total:
        whole = memoryview(bytearray(total))
        whole[: len(data)] = data
        have = len(data)
        while have < total:
            part = _read(fd, min(total - have, READ_MAX))
            whole[have : have + len(part)] = part
            have += len(part)
        return orjson.loads(whole[HEADER.size : end]), whole[end:]
    return orjson.loads(data[HEADER.size : end]), data[end:]


def _read(fd: int, size: int) -> bytes:
    data = os.read(fd, size)
    if not data:
        raise EOFError
    return data


def write_frame(fd: int, text: bytes, blob: bytes = b"") -> None:
    """Write one frame of encoded JSON and a blob; a large blob is written for itself, which saves a copy."""
    head = HEADER.pack(len(text), len(blob)) + text
    if len(blob) > CHUNK:
        _write(fd, head)
        _write(fd, blob)
    else:
        _write(fd, head + blob)


def _write(fd: int, data: bytes) -> None:
    sent = os.write(fd, data)
    while sent < len(data):
        sent += os.write(fd, memoryview(data)[sent:])
