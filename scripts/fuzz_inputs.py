"""Inputs of `fuzz_frames`: seeds of all kinds, and two ways to change them, by bytes and by the parts of their JSON."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any

from envsynth.sandbox.jailed.frames import HEADER

FRAMED, SMALL, OPEN = 1, 2, 0xF8
"""Flags: put the right header before the body; use the small cap; do not end the stream, which costs time
and is therefore rare."""
MAX_INPUT = 4096
TOKENS = (
    b'"id":1', b'"id":true', b'"id":1.0', b'"id":2', b'"status":"ok"', b'"status":"batch"', b'"status":"tool_error"',
    b'"status":"crash"', b'"value":', b'"text":2', b'"results":[', b'"bytes":', b'"bytes":-1', b'"stdout":"', b'"error":["","",""]',
    b'"ask":{"tool":"t","arguments":{}}', b"18446744073709551616", b"-9223372036854775809", b"1e999", b"NaN", b"null",
    b"\\ud800", b"\xff", b"\xef\xbb\xbf", b"[" * 40, b"]" * 40, b"{", b"}", b",", b"\x00\x00\x00\x08", b"\xff\xff\xff\xff",
)  # fmt: skip
"""Words of the language that replies are written in, and of its traps."""
VALUES: tuple[Any, ...] = (
    1, 0, -1, 2, True, None, 1.0, 2**63, 2**64, -(2**63) - 1, 1e300, "", "ok", "batch", "x" * 600, "tool_error", "crash", "memory",
    "protocol_violation", [], {}, [1], ["", "", ""], ["a", "b", "c", "d"], {"tool": "t", "arguments": {}}, {"status": "ok", "value": 1},
    {"status": "ok", "value": None, "bytes": 1}, [{"status": "ok", "value": 2}],
)  # fmt: skip
KEYS = ("id", "status", "value", "text", "error", "stdout", "ask", "results", "bytes", "tool", "arguments")


def made(body: bytes, shape: int = 0, flags: int = FRAMED, blob: int = 0, cuts: Sequence[int] = ()) -> bytes:
    """Build an input.

    Args:
        body: JSON text and blob, or with `flags` = 0 a whole stream.
        shape: Position in `SHAPES`.
        flags: Sum of flags.
        blob: How many of the last bytes of the body are the blob.
        cuts: Where the stream is cut, at most three places.

    Returns:
        The input.
    """
    return bytes([shape, flags, blob, len(cuts)]) + b"".join(cut.to_bytes(2) for cut in cuts) + body


def seeds() -> list[tuple[bytes, bool]]:
    """List inputs of all kinds, each with whether it is a good reply."""
    ok = b'{"id":1,"status":"ok","value":{"a":[1,2.5,null,true,"\\u00e9"]},"stdout":"hello"}'
    failed = b'{"id":1,"status":"tool_error","error":["Refusal","not_found","no such row"],"stdout":"x"}'
    ask = b'{"id":1,"ask":{"tool":"find","arguments":{"name":"x","n":3}}}'
    item = b'{"status":"ok","value":1}'
    batch = b'{"id":1,"status":"batch","results":[%b]}'
    mixed = batch % (item + b',{"status":"ok","value":null,"bytes":3},{"status":"memory","error":["M","","m"]}')
    text = batch % b'7,{"status":"ok","text":2,"stdout":"o"}'
    two = batch % b'{"status":"ok","value":null,"bytes":2},{"status":"ok","value":null,"bytes":1}'
    stream = HEADER.pack(len(ok), 0) + ok
    good = [
        made(ok), made(ok, cuts=(1, 5, 30)), made(failed), made(failed.replace(b"no such row", b"m" * 600)),
        made(ok.replace(b"hello", b"o" * 100)), made(ask), made(ask, 1), made(ok + b"blob", 1, blob=4),
        made(stream, flags=0),
        made(stream, flags=0, cuts=(8,)), made(b'{"id":1,"status":"ok","value":5}', flags=FRAMED | SMALL),
        made(batch % item, 2), made(batch % (item + b"," + item), 6),
        made(batch % item, 3), made(mixed + b"img", 4, blob=3),
        made(two + b"abc", 5, blob=3, cuts=(8, 20, 100)), made(text + b'{"a":1}[]', 6, blob=9),
        made(b'{"id":1,"status":"ok","value":[42,[]]}', 7), made(b'{"id":1,"status":"ok","value":null}whole', 7, blob=5),
        made(b'{"id":1,"status":"ok","value":[42,[0,2]]}' + b"n" * 26, 7, blob=26),
        made(b'{"id":1,"status":"ok","value":[50,[2,3]]}' + b"n" * 18, 7, blob=18), made(b'{"id":1,"status":"ok","value":[20,[]]}', 7),
        made(batch % b"0,0", 6), made(batch % b'0,{"status":"memory","error":["M","","m"]}', 6),
    ]  # fmt: skip
    bad = [
        made(b""), made(b"", flags=0), made(b"", flags=OPEN), made(stream[:5], flags=OPEN), made(stream[:-1], flags=0),
        made(stream + b"x", flags=0), made(b"\xff" * 8, flags=0), made(ok, flags=FRAMED | SMALL), made(ok + b"b", blob=1),
        made(ok.replace(b":1,", b":2,", 1)), made(ok.replace(b":1,", b":true,", 1)), made(ok.replace(b"2.5", b"NaN")),
        made(ok.replace(b"2.5", b"1" * 30)), made(ok.replace(b"ok", b"crash")), made(ok.replace(b'"hello"', b"[]")),
        made(ok.replace(b"\\u00e9", b"\\udfff")), made(ok.replace(b"\\u00e9", b"\xff")),
        made(b"[" * 1500 + b"]" * 1500),
        made(failed.replace(b'"Refusal"', b"3")), made(failed.replace(b"tool_error", b"hard_timeout")),
        made(ask.replace(b'"find"', b"null")), made(ask, 2), made(ok, 2),
        made(batch % b"", 2), made(batch % (item + b"," + item), 2), made(mixed + b"im", 4, blob=2),
        made(two + b"abcd", 5, blob=4),
        made(two.replace(b":2}", b":-2}") + b"abc", 5, blob=3), made(two.replace(b":2}", b":true}") + b"abc", 5, blob=3),
        made(two + b"abc", 2, blob=3), made(batch % b"1", 2), made(batch % b"-1,3" + b"{}", 6, blob=2),
        made(batch % b"2" + b"{]", 2, blob=2), made(batch % b"2" + b"{}", 3, blob=2), made(batch % b"true" + b"1", 2, blob=1),
        made(b'{"id":1,"status":"ok","value":[42,[2,0]]}' + b"n" * 26, 7, blob=26),
        made(b'{"id":1,"status":"ok","value":[60,[2,3]]}' + b"n" * 20, 7, blob=20),
        made(b'{"id":1,"status":"ok","value":[-1,[]]}', 7), made(b'{"id":1,"status":"ok","value":[42,[true]]}' + b"n" * 16, 7, blob=16),
        made(text.replace(b":2,", b":true,") + b'{"a":1}[]', 6, blob=9), made(text + b'{"a":1}[1', 6, blob=9),
    ]  # fmt: skip
    return [(data, True) for data in good] + [(data, False) for data in bad]


def restructured(rng: random.Random, data: bytes) -> bytes:
    """Change one part of an input's JSON and keep it valid, so that what stands behind the JSON reader is reached."""
    head = 4 + 2 * (data[3] % 4) if len(data) > 3 else 4
    size = min(data[2], max(0, len(data) - head)) if len(data) > 3 else 0
    end = len(data) - size
    try:
        value = json.loads(data[head:end])
    except (ValueError, RecursionError):
        return data + rng.choice(TOKENS)
    parts = [value]
    for part in parts:
        children = part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
        parts += [child for child in children if isinstance(child, dict | list)]
    part = rng.choice(parts)
    if isinstance(part, dict):
        name = rng.choice([*part, rng.choice(KEYS)])
        if rng.randrange(4):
            part[name] = rng.choice(VALUES)
        else:
            part.pop(name, None)
    elif isinstance(part, list):
        part.insert(rng.randint(0, len(part)), rng.choice(VALUES))
        if rng.randrange(2):
            part.pop(rng.randrange(len(part)))
    shape = rng.randrange(8) if rng.randrange(4) == 0 else data[0]
    blob = rng.randrange(6) if rng.randrange(4) == 0 else data[2]
    return bytes([shape, data[1], blob]) + data[3:head] + json.dumps(value).encode() + data[end:]


def mutated(rng: random.Random, pool: Sequence[bytes]) -> bytes:
    """Make an input from others by some small changes."""
    if rng.randrange(2):
        return restructured(rng, rng.choice(pool))[:MAX_INPUT]
    data = bytearray(rng.choice(pool))
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(data))
        match rng.randrange(6):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[at : at + rng.randint(1, 8)]
            case 2:
                data[at:at] = rng.choice(TOKENS)
            case 3:
                data[at : at + rng.randint(1, 12)] = rng.choice(TOKENS)
            case 4:
                other = rng.choice(pool)
                data[at:] = other[rng.randint(0, len(other)) :]
            case _:
                data[: min(4, len(data))] = bytes(rng.randrange(8) for _ in range(min(4, len(data))))
    return bytes(data[:MAX_INPUT])
