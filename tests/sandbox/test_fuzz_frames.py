"""The fuzz harness itself: it lets the decoder pass, and it finds bugs that are planted in it."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from acceptance.jail_fuzz import read_report
from envsynth.sandbox import Failure, channel, replies
from envsynth.sandbox.channel import Channel, ChannelError
from envsynth.sandbox.jailed.frames import HEADER
from scripts import fuzz_frames
from scripts.fuzz_frames import Finding, check, run_blind
from scripts.fuzz_inputs import OPEN, VALUES, made

EXECUTIONS = 1_500
GOOD = b'{"id":1,"status":"ok","value":5}'


def test_run_blind_finds_nothing_and_repeats_itself() -> None:
    done, ends = run_blind(60, 3, EXECUTIONS)
    assert done == EXECUTIONS
    assert len(ends) >= 10
    assert ends["good"] > 20
    again = run_blind(60, 3, EXECUTIONS)[1]
    assert sum((again - ends).values()) <= EXECUTIONS // 300  # on a busy machine some replies come too late


def accept_any_id(text: bytes, _: int) -> Any:
    reply = channel.decode(text)
    if not isinstance(reply, dict):
        raise ChannelError(Failure.PROTOCOL_VIOLATION, "no reply")
    return reply


def lenient(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise ChannelError(Failure.PROTOCOL_VIOLATION, "no JSON") from error


def without_caps(self: Channel, deadline: float) -> tuple[bytes, bytes]:
    data = self._first(deadline)
    if len(data) < HEADER.size:
        raise ChannelError(Failure.PROTOCOL_VIOLATION, "short")
    length, blob = HEADER.unpack_from(data)
    return data[8 : 8 + length], data[8 + length : 8 + length + blob]


def greedy(self: Channel, size: int, deadline: float) -> bytes:
    self._wait(self._readable, deadline)
    return self._sock.recv(size << 8)


def any_kind(value: Any, kind: type) -> bool:
    return isinstance(value, kind)  # True is an integer


@pytest.mark.parametrize(
    ("owner", "name", "bug"),
    [
        (replies, "_read", accept_any_id),
        (replies, "decode", lenient),
        (replies, "_is", any_kind),
        (replies, "_SAID_BY_WORKER", {failure.value: failure for failure in Failure}),
        (replies, "MESSAGE_CHARS", 10_000),
        (channel, "check_integers", lambda text: None),
        (Channel, "receive", without_caps),
        (Channel, "_read", greedy),
    ],
    ids=[
        "any-id",
        "lenient-json",
        "true-is-one",
        "any-status",
        "long-message",
        "big-integers",
        "no-caps",
        "greedy-read",
    ],
)
def test_run_blind_finds_a_planted_bug(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, bug: Any) -> None:
    monkeypatch.setattr(owner, name, bug)
    with pytest.raises(Finding):
        run_blind(60, 3, EXECUTIONS)


def test_run_blind_lets_other_exceptions_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "decode", json.loads)
    with pytest.raises(json.JSONDecodeError):
        run_blind(60, 3, EXECUTIONS)


def test_check_finds_bytes_that_nobody_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        replies, "read_reply", lambda text, blob, sequence, keep, may: real(text, blob, sequence, keep, True)
    )
    with pytest.raises(Finding):
        check(made(GOOD + b"blob", blob=4))


real = replies.read_reply


def test_check_finds_a_reader_that_waits_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    def sleepy(self: Channel, deadline: float) -> bytes:
        time.sleep(0.1)
        raise ChannelError(Failure.HARD_TIMEOUT, "late")

    monkeypatch.setattr(fuzz_frames, "SLACK_S", 0.05)
    monkeypatch.setattr(Channel, "_first", sleepy)
    with pytest.raises(Finding, match="too long"):
        check(made(b"", flags=OPEN))


PARTS = st.sampled_from(VALUES)
RESULTS = st.fixed_dictionaries({"status": st.sampled_from(["ok", "tool_error", "crash"])}, optional={
    "value": PARTS, "bytes": st.integers(-1, 3) | st.booleans(), "stdout": PARTS,
    "error": st.lists(PARTS, min_size=2, max_size=4),
})  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(
    results=st.lists(RESULTS | PARTS, max_size=4),
    shape=st.integers(2, 6),
    blob=st.binary(max_size=4),
    cuts=st.lists(st.integers(0, 300), max_size=3),
)
def test_batches_of_all_forms_are_read_or_refused(results: list[Any], shape: int, blob: bytes, cuts: list[int]) -> None:
    text = json.dumps({"id": 1, "status": "batch", "results": results}).encode()
    assert check(made(text + blob, shape, blob=len(blob), cuts=cuts))


def test_read_report_reads_what_libfuzzer_says() -> None:
    err = (
        "#9 DONE   cov: 95 ft: 155 corp: 38/1807b lim: 4096\nDone 18076 runs in 9 second(s)\nstat::peak_rss_mb:   54\n"
    )
    facts = read_report(0, "", err, blind=False)
    assert (facts["executions"], facts["seconds"], facts["edges"], facts["features"]) == (18076, 9, 95, 155)
    assert (facts["corpus"], facts["peak_mb"], facts["finding"]) == (38, 54, "")
    assert read_report(77, "", "uncaught", blind=False)["finding"] == "uncaught"
