"""Feed the host's frame decoder with bytes that no honest worker sends: `python -m scripts.fuzz_frames --seconds 60`.

With atheris (`pip install -e ".[fuzz]"`) libFuzzer guides the mutations by the coverage of the decoder; without it, or
with `--blind`, the same harness runs on seeded random mutations. An input is a small program for the forger of a
worker: which reply is awaited, where the stream is cut, whether it ends, and the bytes themselves. `check` plays it
through a real socket pair and raises `Finding` when the decoder gives anything but a reply of the documented form or
`ChannelError`, reads more than its caps allow, or waits past its deadline. The judgement uses the standard library's
JSON, not the decoder's.
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
import random
import re
import resource
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FunctionType
from typing import Any, NoReturn

from envsynth.sandbox import channel, held, replies
from envsynth.sandbox.channel import Channel, ChannelError
from envsynth.sandbox.held import HeldImages
from envsynth.sandbox.jailed import frames, pages
from envsynth.sandbox.jailed.frames import CHUNK, HEADER, MESSAGE_CHARS, NAME_CHARS, READ_MAX
from envsynth.sandbox.result import Ask, CallResult, Failure
from scripts.fuzz_inputs import FRAMED, MAX_INPUT, OPEN, SMALL, TOKENS, mutated, restructured, seeds

try:
    import atheris
except ImportError:  # an extra; not every Python has a wheel
    atheris = None

SEQUENCE = 1
STDOUT_BYTES = 64
SHAPES: tuple[bool | tuple[bool, ...], ...] = (
    False, True, (False,), (True,), (False, True, False), (True, True), (False,) * 5, True,
)  # fmt: skip
"""What is awaited: one reply without or with a blob, or a batch. The blob of the last one may be changed pages."""
PAGED = len(SHAPES) - 1
BASE = bytes(range(1, 43))
"""The image that pages are changes of: two of sixteen bytes, which is a page here, and a short one."""
CAPS = (8192, 48)
"""Caps of text and blob, bytes; the small one lets short inputs pass it."""
MAX_DEPTH = 1024
"""Deepest nesting that `decode` lets through."""
OPEN_S, CLOSED_S, SLACK_S = 0.002, 5.0, 1.0
"""Deadline of a stream that stays open, of one that ends, and what a busy machine may add."""
SAID = {
    Failure.TOOL_ERROR, Failure.SOFT_TIMEOUT, Failure.MEMORY, Failure.BAD_RESULT, Failure.OUTPUT_LIMIT,
    Failure.POLICY_VIOLATION,
}  # fmt: skip
"""Failures that a living worker may report, as the documentation of `Failure` says."""
ENDS = {Failure.CRASH, Failure.HARD_TIMEOUT, Failure.PROTOCOL_VIOLATION}
"""How a conversation may end."""


class Finding(AssertionError):
    """The decoder did what it must not do."""


class Fed(socket.socket):
    """The host's end; after each read the forger sends its next piece, so that cuts need neither threads nor time."""

    def feed(self, peer: socket.socket, pieces: Sequence[bytes], is_open: bool) -> None:
        """Send the first piece, and the others as the pieces are read."""
        self._peer, self._pieces, self._is_open = peer, list(pieces), is_open
        self.taken = self.asked = 0
        self._next()

    def _next(self) -> None:
        if self._pieces:
            self._peer.sendall(self._pieces.pop(0))
        elif not self._is_open:
            self._peer.close()

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Read, and count what was asked for and what came."""
        self.asked = max(self.asked, size)
        data = super().recv(size, flags)
        self.taken += len(data)
        self._next()
        return data


def check(data: bytes) -> str:
    """Play one input.

    Args:
        data: Any bytes.

    Returns:
        How it ended: "good", or the failure and the start of its message, without numbers.

    Raises:
        Finding: The decoder did what it must not do.
    """
    shape, flags, blob_size, count = data[:4].ljust(4, b"\0")
    places, body = data[4 : 4 + 2 * (count % 4)], data[4 + 2 * (count % 4) :]
    shape %= len(SHAPES)
    awaited, cap = SHAPES[shape], CAPS[bool(flags & SMALL)]
    is_open = flags & OPEN == OPEN
    size = min(blob_size, len(body))
    stream = HEADER.pack(len(body) - size, size) + body if flags & FRAMED else body
    cuts = sorted(int.from_bytes(places[at : at + 2]) % (len(stream) + 1) for at in range(0, len(places), 2))
    pieces = [stream[low:high] for low, high in zip([0, *cuts], [*cuts, len(stream)], strict=True) if low < high]
    ours, theirs = socket.socketpair()
    with Fed(fileno=ours.detach()) as sock, theirs:
        sock.feed(theirs, pieces, is_open)
        began = time.monotonic()
        left = OPEN_S if is_open else CLOSED_S
        try:
            text, received = Channel(sock, cap, cap).receive(began + left)
            blob = bytes(received)
            judge_frame(stream, text, blob, cap)
            judge(text, received, awaited)
            if shape == PAGED:
                judge_pages(text, blob)
        except ChannelError as error:
            if error.failure not in ENDS or type(error.message) is not str or len(error.message) > MESSAGE_CHARS:
                raise Finding(f"an error of another form: {error!r}") from error
            return f"{error.failure.value}: {re.sub('[0-9]+|:.*', '', error.message)}"
        finally:
            judge_cost(sock, time.monotonic() - began - (left if is_open else 0.0), cap)
    return "good"


def judge_cost(sock: Fed, late_s: float, cap: int) -> None:
    """Say whether the decoder read or waited too much.

    Raises:
        Finding: It did.
    """
    if late_s > SLACK_S:
        raise Finding(f"the decoder waited {late_s:.2f} s too long")
    # One read may bring a chunk, whatever the caps are; what follows was announced and is within them.
    if sock.asked > READ_MAX or sock.taken > HEADER.size + CHUNK + 2 * cap:
        raise Finding(f"the decoder asked for {sock.asked} bytes and took {sock.taken}")


def judge_frame(stream: bytes, text: bytes, blob: bytes, cap: int) -> None:
    """Say whether a frame is what the stream begins with.

    Raises:
        Finding: It is not, or it is larger than allowed.
    """
    if len(text) > cap or len(blob) > cap or not stream.startswith(HEADER.pack(len(text), len(blob)) + text + blob):
        raise Finding(f"a frame that was not sent: {text[:80]!r} {blob[:80]!r}")


def judge(text: bytes, blob: bytes | memoryview, awaited: bool | tuple[bool, ...]) -> None:
    """Read a reply as the host does and compare what comes out with the text.

    Raises:
        Finding: The reply has not the documented form.
    """
    if isinstance(awaited, bool):
        found: list[Any] = [replies.read_reply(text, blob, SEQUENCE, STDOUT_BYTES, awaited)]
        asked: tuple[bool, ...] = (awaited,)
    else:
        found = list(replies.read_batch(text, blob, SEQUENCE, STDOUT_BYTES, awaited))
        asked = awaited
    sent = _strict(text)
    if type(sent) is not dict or type(sent.get("id")) is not int or sent["id"] != SEQUENCE:
        raise Finding(f"a reply to another request was accepted: {text[:120]!r}")
    if not 0 < len(found) <= len(asked):
        raise Finding(f"{len(found)} results of {len(asked)} requests")
    parts = [sent] if isinstance(awaited, bool) else sent["results"]
    start = 0
    for result, part, may_blob in zip(found, parts, asked, strict=False):
        size = len(blob) if isinstance(awaited, bool) else _size(part, may_blob)
        piece = bytes(blob[start : start + size])
        start += size
        if isinstance(result, Ask) and isinstance(awaited, bool):
            fine = type(result.tool) is str and type(result.arguments) is dict and _is_plain(result.arguments)
            fine = fine and (part["ask"]["tool"], part["ask"]["arguments"]) == (result.tool, result.arguments)
        else:
            fine = isinstance(result, CallResult) and _is_result(result, part, piece, may_blob)
        if not fine:
            raise Finding(f"no reply of the documented form: {result!r:.300}")
    if start != len(blob):
        raise Finding(f"bytes that nobody asked for: {blob[start:][:80]!r}")


def judge_pages(text: bytes, blob: bytes) -> None:
    """Put changed pages into an image as the host does, and compare with what they say.

    Raises:
        ChannelError: The host refuses them.
        Finding: The image is another one, or these are no pages of it.
    """
    held, kept = HeldImages(), pages.PAGE
    held.note([{"op": "hold", "key": "k", "image": BASE}, {"op": "image", "held": "k"}])
    result = replies.read_reply(text, blob, SEQUENCE, STDOUT_BYTES, True)
    value = _strict(text).get("value")
    if isinstance(result, Ask) or not result.ok or value is None:
        return
    try:
        pages.PAGE = 16
        (whole,) = held.completed([result], 1)
    finally:
        pages.PAGE = kept
    size, numbers = value
    image, taken = dict(enumerate(BASE[:size])), 0
    for number in numbers:
        for place in range(16 * number, min(16 * number + 16, size)):
            image[place] = blob[taken]
            taken += 1
    fine = type(size) is int and all(type(number) is int for number in numbers) and numbers == sorted(set(numbers))
    if not fine or taken != len(blob) or whole.value is not None or sorted(image) != list(range(size)):
        raise Finding(f"no pages of an image: {value!r:.100}")
    if whole.blob != bytes(image[place] for place in range(size)):
        raise Finding(f"another image than {value!r:.100} says")


def _size(part: Any, may_blob: bool) -> int:
    """Bytes of one result of a batch."""
    if type(part) is int:
        return part
    is_text = "text" in part and not may_blob and part.get("status") == "ok"
    return part["text"] if is_text else part.get("bytes", 0)


def _strict(text: bytes) -> Any:
    """Read JSON with the standard library; what it is too lenient about is judged in what comes out.

    Raises:
        Finding: It is no JSON.
    """
    try:
        return json.loads(text.decode("utf-8"))
    except ValueError as error:
        raise Finding(f"no JSON, but accepted: {text[:120]!r}") from error


def _is_result(result: CallResult, part: Any, piece: bytes, may_blob: bool) -> bool:
    if type(part) is int:  # short for this
        part = {"status": "ok", "text": part} if part else {"status": "ok", "value": None}
    texts = (result.error_type, result.code, result.message, result.stdout)
    if not all(type(text) is str and _is_plain(text) for text in texts) or len(result.stdout) > STDOUT_BYTES:
        return False
    if type(result.blob) is not bytes or (result.blob and not may_blob):
        return False
    if result.ok:
        if result.text:
            sent = "text" in part and result.blob == b"" and _strict(result.text.encode()) == _strict(piece)
            value = _strict(piece)
        else:
            sent, value = piece == result.blob, part["value"]
        return (
            sent and not any(texts[:3]) and _is_plain(result.value) and result.value == value and part["status"] == "ok"
        )
    lengths = (
        len(result.error_type) <= NAME_CHARS and len(result.code) <= NAME_CHARS and len(result.message) <= MESSAGE_CHARS
    )
    return (
        result.status in SAID
        and part["status"] == result.status.value
        and lengths
        and (result.value, result.blob) == (None, b"")
    )


def _is_plain(value: Any) -> bool:
    """Whether this is plain JSON data as `decode` documents it; without recursion, as depth is part of the question."""
    waiting = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if type(item) is dict:
            waiting += [(key, depth) for key in item] + [(each, depth + 1) for each in item.values()]
            fine = depth <= MAX_DEPTH and all(type(key) is str for key in item)
        elif type(item) is list:
            waiting += [(each, depth + 1) for each in item]
            fine = depth <= MAX_DEPTH
        else:
            fine = _is_plain_leaf(item)
        if not fine:
            return False
    return True


def _is_plain_leaf(item: Any) -> bool:
    if type(item) is str:
        return not any("\ud800" <= letter <= "\udfff" for letter in item)
    if type(item) is int:
        return -(2**63) <= item < 2**64
    if type(item) is float:
        return math.isfinite(item)
    return item is None or type(item) is bool


# ------------------------------------------------------------------------------------------------------- two drivers


def run_blind(seconds: float, seed: int, executions: int = 0) -> tuple[int, Counter[str]]:
    """Play the seeds and then seeded random mutations of them, until time or number is used up.

    Args:
        seconds: How long.
        seed: Of the mutations.
        executions: How many inputs at most; 0: no limit.

    Returns:
        Inputs played, and how often each end was seen.

    Raises:
        Finding: The decoder did what it must not do.
    """
    check_seeds()
    pool = [data for data, _ in seeds()]
    rng, ends, done = random.Random(f"fuzz/{seed}"), Counter[str](), 0
    stop = time.monotonic() + seconds
    while time.monotonic() < stop and (not executions or done < executions):
        ends[check(mutated(rng, pool))] += 1
        done += 1
    return done, ends


def check_seeds() -> None:
    """Play the seeds, whose ends are known.

    Raises:
        Finding: A good reply was refused, or a bad one accepted.
    """
    for data, is_good in seeds():
        if (check(data) == "good") is not is_good:
            raise Finding(f"a {'good' if is_good else 'bad'} reply was taken for the opposite: {data!r:.200}")


def decoder() -> Iterator[FunctionType]:
    """List the functions whose coverage guides the fuzzer."""
    for module in (channel, replies, frames, held, pages):
        for owner in (module, *(kind for kind in vars(module).values() if inspect.isclass(kind))):
            for value in vars(owner).values():
                if isinstance(value, FunctionType) and value.__module__ == module.__name__:
                    yield value


def run_guided(seconds: int, seed: int, folder: Path) -> NoReturn:
    """Fuzz by coverage; libFuzzer reports on standard error and ends the process.

    Args:
        seconds: How long.
        seed: Of the mutations.
        folder: Where corpus and findings go.

    Raises:
        RuntimeError: atheris is missing, or libFuzzer returned.
    """
    if atheris is None:
        raise RuntimeError("coverage guidance needs atheris: install the extra `fuzz`")
    check_seeds()
    for function in decoder():
        atheris.instrument_func(function)
    corpus = folder / "corpus"
    corpus.mkdir(parents=True)
    for number, (data, _) in enumerate(seeds()):
        Path(corpus, f"seed-{number:02}").write_bytes(data)
    words = ["".join(f"\\x{byte:02x}" for byte in token) for token in TOKENS]
    Path(folder, "words").write_text("".join(f'"{word}"\n' for word in words), encoding="ascii")
    flags = [
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-max_len={MAX_INPUT}",
        "-timeout=10",
        "-rss_limit_mb=1024",
    ]
    flags += [f"-dict={folder / 'words'}", f"-artifact_prefix={folder}/", "-print_final_stats=1"]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], lambda data: void(check(data)), custom_mutator=changed)
    atheris.Fuzz()
    raise RuntimeError("libFuzzer returned")


def changed(data: bytes, max_size: int, seed: int) -> bytes:
    """Change an input: half of the time as libFuzzer does, else by the parts of its JSON."""
    if seed % 2:
        return atheris.Mutate(data, max_size)
    return restructured(random.Random(seed), data)[:max_size]


def void(_: object) -> None:
    """Drop a value: libFuzzer wants none."""


def main() -> int:
    """Fuzz as the command line says; a finding ends the process with a traceback.

    Returns:
        0.
    """
    parser = argparse.ArgumentParser(description="Fuzz the host's frame decoder.")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="for corpus and findings; a temporary one by default")
    parser.add_argument("--blind", action="store_true", help="no coverage guidance, even with atheris")
    options = parser.parse_args()
    if atheris is not None and not options.blind:
        run_guided(options.seconds, options.seed, options.folder or Path(tempfile.mkdtemp(prefix="fuzz-")))
    began = time.monotonic()
    done, ends = run_blind(options.seconds, options.seed)
    facts = {
        "executions": done,
        "seconds": round(time.monotonic() - began, 1),
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "ends": dict(ends.most_common()),
    }
    print(json.dumps(facts))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
