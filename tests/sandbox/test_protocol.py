from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from envsynth import sandbox
from envsynth.sandbox import CallResult, Failure, Limits, Worker
from envsynth.sandbox.channel import Channel, ChannelError, decode, read_text
from envsynth.sandbox.jailed import frames
from envsynth.sandbox.process import WorkerProcess
from envsynth.sandbox.replies import read_reply, read_success
from envsynth.sandbox.zygote import Ticket, Zygote

LIMITS = Limits(soft_s=0.2, hard_s=0.3, frame_bytes=8192, blob_bytes=8192)


class Forger:
    """A worker whose every byte the test chooses; it answers each request with the next one of its replies."""

    def __init__(self) -> None:
        self.host, self.theirs = socket.socketpair()
        self.asked: list[dict[str, Any]] = []
        self.living = 1
        process = WorkerProcess(cast("Zygote", self), Ticket(), LIMITS.cpu_s)
        process.settle()
        self.worker = Worker(Channel(self.host, 8192, 8192), process, "tools", LIMITS)

    def settle(self, _: Ticket) -> dict[str, Any]:
        return {"pid": 1}

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(request)
        return {"status": 9, "cpu_s": 0.0}

    def call(self, *pieces: bytes) -> CallResult:
        def answer() -> None:
            try:
                frames.read_frame(self.theirs.fileno())
                for piece in pieces:
                    self.theirs.sendall(piece)
            except OSError:  # the host has given up
                return

        thread = threading.Thread(target=answer)
        thread.start()
        try:
            return self.worker.call("anything")
        finally:
            thread.join()


@pytest.fixture
def forger() -> Iterator[Forger]:
    made = Forger()
    yield made
    made.worker.close()
    made.theirs.close()


def frame(value: object, blob: bytes = b"") -> bytes:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return struct.pack("!II", len(text), len(blob)) + text + blob


def good(number: int = 1) -> dict[str, object]:
    return {"id": number, "status": "ok", "value": 5}


def test_honest_reply_in_one_piece_or_many(forger: Forger) -> None:
    assert forger.call(frame(good())).value == 5
    assert forger.call(*[bytes([byte]) for byte in frame(good(2))]).value == 5


@pytest.mark.parametrize(
    "data",
    [
        frame(good(2)),
        frame(good(0)),
        frame({**good(), "id": True}),
        frame({**good(), "id": 1.0}),
        frame({**good(), "id": "1"}),
        frame({"status": "ok", "value": 5}),
        frame(good()) + b"x",
        frame(good()) + frame(good(2)),
        frame(good(), b"blob"),
        frame([1, 2]),
        frame(b""),
        frame(b"{"),
        frame(b'{"id":1,"status":"ok","value":NaN}'),
        frame(b'{"id":1,"status":"ok","value":1e999}'),
        frame(b'{"id":1,"status":"ok","value":18446744073709551616}'),
        frame(b'{"id":1,"status":"ok","value":"\\ud800"}'),
        frame(b'{"id":1,"status":"ok","value":"\xff"}'),
        frame(b'{"id":1,"status":"ok","value":' + b"[" * 2000 + b"]" * 2000 + b"}"),
        frame(b'{"id":1,"status":"ok","value":' + b"[" * 300 + b"]" * 300 + b"}"),
        frame(b'{"id":1,"status":"ok","value":' + b'{"\\\\":' * 300 + b"1" + b"}" * 301),
        frame(b'{"\x00id":1,"status":"ok","value":5}'),
        '{"id":1,"status":"ok","value":5}'.encode("utf-16"),
        frame({"id": 1, "status": "ok"}),
        frame({"id": 1, "status": "splendid", "value": 5}),
        frame({"id": 1, "status": "hard_timeout", "error": ["", "", ""]}),
        frame({"id": 1, "status": "sandbox_unavailable", "error": ["", "", ""]}),
        frame({"id": 1, "status": "tool_error", "error": ["", ""]}),
        frame({"id": 1, "status": "tool_error", "error": ["", "", 3]}),
        frame({"id": 1, "status": "tool_error"}),
        frame({"id": 1, "status": ["ok"], "value": 5}),
        frame({**good(), "stdout": 7}),
        frame({"id": 1, "ask": {"tool": "x", "arguments": {}}}),
        frame({"id": 1, "ask": {"tool": 3, "arguments": {}}}),
        frame({"id": 1, "ask": ["x"]}),
        struct.pack("!II", 8193, 0),
        struct.pack("!II", 0xFFFFFFFF, 0xFFFFFFFF),
        struct.pack("!II", 2, 8193),
    ],
)
def test_forged_reply_ends_the_worker(forger: Forger, data: bytes) -> None:
    result = forger.call(data)
    assert result.status is Failure.PROTOCOL_VIOLATION, result
    assert result.value is None
    assert not forger.worker.alive
    assert {"op": "kill", "pid": 1} in forger.asked


@pytest.mark.parametrize("data", [b"", b"\0\0", struct.pack("!II", 100, 0) + b"{"])
def test_reply_that_does_not_end_is_a_hard_timeout(forger: Forger, data: bytes) -> None:
    started = time.monotonic()
    assert forger.call(data).status is Failure.HARD_TIMEOUT
    assert 0.25 < time.monotonic() - started < 1
    assert not forger.worker.alive


def test_trickle_of_bytes_does_not_move_the_deadline(forger: Forger) -> None:
    def trickle() -> None:
        data = frame({"id": 1, "status": "ok", "value": "x" * 1000})
        for byte in data:
            try:
                forger.theirs.send(bytes([byte]))
            except OSError:
                return
            time.sleep(0.01)

    thread = threading.Thread(target=trickle)
    thread.start()
    started = time.monotonic()
    assert forger.worker.call("anything").status is Failure.HARD_TIMEOUT
    assert time.monotonic() - started < 1
    thread.join()


def test_worker_that_does_not_read_is_a_hard_timeout(forger: Forger) -> None:
    assert forger.worker.open(b"x" * (8 << 20)).status is Failure.HARD_TIMEOUT
    assert not forger.worker.alive


def test_reply_forged_ahead_of_time_is_found_out(forger: Forger) -> None:
    assert forger.call(frame(good())).ok
    forger.theirs.sendall(frame(good(2)))  # before the request
    taken = forger.call(frame({**good(2), "value": 6}))
    if taken.ok:  # it was read alone, and taken, for it is the worker's own result; but the true one betrays it
        assert taken.value == 5
        assert forger.call(frame(good(3))).status is Failure.PROTOCOL_VIOLATION
    else:  # both were there when it was read
        assert taken.status is Failure.PROTOCOL_VIOLATION


def test_texts_of_a_reply_are_capped_by_the_host() -> None:
    reply = {"id": 1, "status": "tool_error", "error": ["t" * 900, "c" * 900, "m" * 900], "stdout": "o" * 900}
    result = read_reply(orjson.dumps(reply), b"", 1, 10, False)
    assert isinstance(result, CallResult)
    assert [len(text) for text in (result.error_type, result.code, result.message, result.stdout)] == [
        100,
        100,
        500,
        10,
    ]


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@settings(deadline=None, max_examples=60)
@given(value=plain, blob=st.binary(max_size=300), cuts=st.lists(st.integers(0, 400), max_size=4))
def test_frames_survive_any_cutting(value: object, blob: bytes, cuts: list[int]) -> None:
    host, theirs = socket.socketpair()
    channel = Channel(host, 1 << 20, 1 << 20)
    try:
        channel.send(orjson.dumps({"v": value}), blob, time.monotonic() + 5)
        assert frames.read_frame(theirs.fileno()) == ({"v": value}, blob)
        data = struct.pack("!II", len(frames.encode(value)), len(blob)) + frames.encode(value) + blob

        def drip() -> None:
            at = 0
            for cut in [*sorted(cuts), len(data)]:
                theirs.sendall(data[at:cut])
                at = max(at, min(cut, len(data)))

        thread = threading.Thread(target=drip)
        thread.start()
        text, out = channel.receive(time.monotonic() + 5)
        thread.join()
        assert (decode(text), out) == (value, blob)
    finally:
        channel.close()
        theirs.close()


@settings(deadline=None, max_examples=100)
@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_a_violation(data: bytes) -> None:
    host, theirs = socket.socketpair()
    channel = Channel(host, 8192, 8192)
    try:
        theirs.sendall(data)
        theirs.close()
        failure = Failure.OK
        try:
            text, blob = channel.receive(time.monotonic() + 5)
            assert data == struct.pack("!II", len(text), len(blob)) + text + blob
            read_reply(text, blob, 1, 100, True)
        except ChannelError as error:
            failure = error.failure
        assert failure in (Failure.OK, Failure.PROTOCOL_VIOLATION, Failure.CRASH)
    finally:
        channel.close()


@settings(deadline=None, max_examples=100)
@given(value=plain, extra=st.dictionaries(st.sampled_from(["id", "status", "error", "stdout", "ask", "value"]), plain))
def test_any_json_is_a_reply_or_a_violation(value: object, extra: dict[str, object]) -> None:
    reply = {"id": 1, "status": "ok", "value": value, **extra}
    result = failure = None
    try:
        result = read_reply(orjson.dumps(reply), b"", 1, 100, False)
    except ChannelError as error:
        failure = error.failure
    if result is None:
        assert failure is Failure.PROTOCOL_VIOLATION
        return
    assert reply["id"] == 1
    assert type(reply["id"]) is int
    if isinstance(result, CallResult) and result.ok:
        assert result.value == reply["value"]


@given(number=st.integers(-(2**70), 2**70))
def test_integers_beyond_64_bits_never_pass(number: int) -> None:
    text = b"[%d]" % number
    if -(2**63) <= number < 2**64:
        assert decode(text) == [number]
        assert frames.encode([number]) == text
    else:
        with pytest.raises(ChannelError):
            decode(text)
        with pytest.raises(ValueError, match="64 bits"):
            frames.encode([number])


ODD_TEXTS = [
    b"1", b"-0", b"01", b"1.", b"-", b"1e5", b"1E5", b"1e999", b"-1e999", b"5e-324", b"9" * 400, b"0." + b"1" * 400, b"1" * 19,
    b"1" * 20, b"18446744073709551615", b"18446744073709551616", b"NaN", b"Infinity", b"nul", b"true", b"", b" 1", b"1 ", b"1 2",
    b"\xef\xbb\xbf1", b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"', b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\\u12"', b'"\\x"', b'"\\/"',
    b'"\x01"', b'"\n"', b"[1,]", b"[1\n,2]", b"[1, 2]", b'{"a":1,"a":2}', b'{"a":1 "b":2}', b"{1:2}", b"[" * 203 + b"]" * 203,
    b"[" * 204 + b"]" * 204, b"[" * 5_000 + b"]" * 5_000, b'{"a":' * 204 + b"1" + b"}" * 204, b'"0e"', b'"[[["', b"\x00",
]  # fmt: skip


def accepted(read: Callable[[bytes], object], text: bytes) -> object:
    """What is read of a text; the type when it is a violation."""
    try:
        return read(text)
    except ChannelError:
        return ChannelError


def agree(text: bytes) -> None:
    """Reading without building values takes the same texts as reading, and means the same by them."""
    value = accepted(decode, text)
    late = accepted(read_text, text)
    if value is ChannelError:
        assert late is ChannelError
        return
    assert isinstance(late, CallResult)
    told = late.text
    assert repr(late.value) == repr(value)  # 1, 1.0 and True are equal, and must not be exchanged
    assert repr(json.loads(told)) == repr(value)
    assert "\n" not in told
    assert late == CallResult(status=Failure.OK, value=cast("Any", value))


@pytest.mark.parametrize("text", ODD_TEXTS, ids=lambda text: text[:20])
def test_late_reading_takes_the_same_texts(text: bytes) -> None:
    agree(text)
    agree(b"[" + text + b"]")
    agree(b'{"a":' + text + b"}")


FRAGMENTS = st.sampled_from([b"[", b"]", b"{", b"}", b",", b":", b'"', b'"a"', b"1", b"0", b"9" * 10, b".", b"e", b"E", b"+", b"-", b" ", b"\n", b"\\", b"u0041", b"ud800", b"null", b"true", b"\xc3\xa9", b"\xff"])  # fmt: skip


@settings(deadline=None, max_examples=400)
@given(st.lists(FRAGMENTS, max_size=12).map(b"".join) | plain.map(orjson.dumps))
def test_late_reading_takes_the_same_texts_of_any_kind(text: bytes) -> None:
    agree(text)


def test_values_are_made_once_and_only_when_they_are_read() -> None:
    result = read_text(b'{"a":[1]}')
    assert "value" not in vars(result)
    assert result.value is result.value
    assert replace(read_text(b"[1]"), stdout="o").value == [1]
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        getattr(result, "other")  # noqa: B009 - its type knows no such name


def test_host_imports_nothing_that_unpickles() -> None:
    """The host's half of the sandbox never unpickles, unmarshals or evaluates what came from a worker."""
    files = sorted(Path(sandbox.__file__).parent.glob("*.py"))
    assert len(files) >= 6
    for file in files:
        for word in ("import pickle", "import marshal", "eval(", "exec(", "import sqlite3"):
            assert word not in file.read_text(encoding="utf-8"), (file.name, word)


PIECES = st.sampled_from(
    [
        b'{"id":1,"status":"ok","value":',
        b"5",
        b"{}",
        b'"x"',
        b"}",
        b",",
        b'"stdout":"o"',
        b" ",
        b'"id":2',
        b"1e999",
        b"NaN",
    ]
)


@given(st.lists(PIECES, max_size=7).map(b"".join))
def test_usual_replies_are_read_the_same_either_way(text: bytes) -> None:
    quick = read_success(text, 1) if text else None
    if quick is not None:
        assert read_reply(text, b"", 1, 100, may_blob=False) == quick


def test_the_usual_reply_is_read_quickly() -> None:
    assert read_success(b'{"id":1,"status":"ok","value":{"a":[1]}}', 1) is not None
    assert read_success(b'{"id":1,"status":"ok","value":5,"stdout":"x"}', 1) is None
    assert read_success(b'{"id":2,"status":"ok","value":5}', 1) is None
