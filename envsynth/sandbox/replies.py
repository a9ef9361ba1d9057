"""Reads what a worker says and how it ended; all of a reply may be forged by the code that runs there."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from envsynth.sandbox.channel import ChannelError, decode, read_text
from envsynth.sandbox.jailed.frames import EXIT_MEMORY, MESSAGE_CHARS, NAME_CHARS
from envsynth.sandbox.requests import Request
from envsynth.sandbox.result import Ask, CallResult, Failure, success

_SAID_BY_WORKER = {
    failure.value: failure
    for failure in (
        Failure.TOOL_ERROR,
        Failure.SOFT_TIMEOUT,
        Failure.MEMORY,
        Failure.BAD_RESULT,
        Failure.OUTPUT_LIMIT,
        Failure.POLICY_VIOLATION,
    )
}
"""Failures that a living worker may report; the others are for the host to see."""

_BRACE = ord("}")

UNALLOWED = "the worker asked without being allowed to"

_UNASKED = "a reply carries bytes that nobody asked for"


def read_success(text: bytes, sequence: int) -> CallResult | None:
    """Read the usual reply by its form; what it reads, `read_reply` reads the same.

    Args:
        text: JSON text of the frame, which has no blob.
        sequence: Number of the request that it must answer.

    Returns:
        The outcome; None for any other reply, of which `read_reply` says what it is.
    """
    head = b'{"id":%d,"status":"ok","value":' % sequence
    if not text.startswith(head) or text[-1] != _BRACE:
        return None
    try:
        return read_text(text[len(head) : -1])
    except ChannelError:
        return None


def read_posted(
    text: bytes, blob: bytes | memoryview, sequence: int, stdout_bytes: int, requests: Sequence[Request]
) -> list[CallResult]:
    """Read the reply to requests that travelled together, or to one.

    Args:
        text: JSON text of the frame.
        blob: Blob of the frame.
        sequence: Number of the frame that it must answer.
        stdout_bytes: Output to keep of each.
        requests: What was asked for, at least one.

    Returns:
        The outcomes of the first requests, at least one.

    Raises:
        ChannelError: It is not a reply to these requests.
    """
    may_blob = [request["op"] == "image" for request in requests]
    if len(requests) > 1 or "image" in requests[0]:
        return read_batch(text, blob, sequence, stdout_bytes, may_blob)
    return [read_single(text, blob, sequence, stdout_bytes, may_blob[0])]


def read_single(text: bytes, blob: bytes | memoryview, sequence: int, stdout_bytes: int, may_blob: bool) -> CallResult:
    """Read the reply to one request that travelled alone; as `read_reply`, but a question is none.

    Args:
        text: JSON text of the frame.
        blob: Blob of the frame.
        sequence: Number of the request that it must answer.
        stdout_bytes: Output to keep.
        may_blob: Whether a blob was asked for.

    Returns:
        The outcome.

    Raises:
        ChannelError: It is not a reply to this request.
    """
    result = None if blob else read_success(text, sequence)
    found = read_reply(text, blob, sequence, stdout_bytes, may_blob) if result is None else result
    if isinstance(found, Ask):
        raise ChannelError(Failure.PROTOCOL_VIOLATION, UNALLOWED)
    return found


def read_reply(
    text: bytes, blob: bytes | memoryview, sequence: int, stdout_bytes: int, may_blob: bool
) -> Ask | CallResult:
    """Check the form of a reply.

    Args:
        text: JSON text of the frame.
        blob: Blob of the frame.
        sequence: Number of the request that it must answer.
        stdout_bytes: Output to keep.
        may_blob: Whether a blob was asked for.

    Returns:
        A question, or the outcome.

    Raises:
        ChannelError: It is not a reply to this request.
    """
    reply = _read(text, sequence)
    if blob and not may_blob:
        raise ChannelError(Failure.PROTOCOL_VIOLATION, _UNASKED)
    if "ask" in reply:
        return _read_ask(reply["ask"])
    return _read_result(reply, bytes(blob), _output(reply, stdout_bytes))


def read_batch(
    text: bytes, blob: bytes | memoryview, sequence: int, stdout_bytes: int, may_blob: Sequence[bool]
) -> list[CallResult]:
    """Check the form of a reply to several requests, of which a worker may answer the first ones only.

    Args:
        text: JSON text of the frame.
        blob: Blob of the frame: the blobs of all results, one after another.
        sequence: Number of the frame that it must answer.
        stdout_bytes: Output to keep of each.
        may_blob: For each request, whether a blob was asked for.

    Returns:
        The outcomes of the first requests, at least one.

    Raises:
        ChannelError: It is not a reply to these requests.
    """
    reply = _read(text, sequence)
    results: Any = reply.get("results")
    if reply.get("status") != "batch" or not _is(results, list) or not 0 < len(results) <= len(may_blob):
        raise ChannelError(Failure.PROTOCOL_VIOLATION, "a reply to several requests has an unknown form")
    found: list[CallResult] = []
    start = 0
    for result, may in zip(results, may_blob, strict=False):
        if _is(result, int) and not may:  # the usual one: the size of the text of what a call returned, 0 for nothing
            part = _part(blob, start, result)
            start += result
            found.append(read_text(part) if part else success(None, "", b""))
            continue
        if not _is(result, dict):
            raise ChannelError(Failure.PROTOCOL_VIOLATION, "a reply has an unknown form")
        is_text = "text" in result and not may and result.get("status") == "ok"
        part = _part(blob, start, result["text"] if is_text else result.get("bytes", 0))
        start += len(part)
        if part and not may and not is_text:
            raise ChannelError(Failure.PROTOCOL_VIOLATION, _UNASKED)
        output = _output(result, stdout_bytes)
        found.append(replace(read_text(part), stdout=output) if is_text else _read_result(result, part, output))
    if start != len(blob):
        raise ChannelError(Failure.PROTOCOL_VIOLATION, _UNASKED)
    return found


def _part(blob: bytes | memoryview, start: int, size: Any) -> bytes:
    if not _is(size, int) or not 0 <= size <= len(blob) - start:
        raise ChannelError(Failure.PROTOCOL_VIOLATION, _UNASKED)
    return bytes(blob[start : start + size])


def _read(text: bytes, sequence: int) -> dict[str, Any]:
    reply: Any = decode(text)
    if not _is(reply, dict) or not _is(reply.get("id"), int) or reply["id"] != sequence:
        raise ChannelError(Failure.PROTOCOL_VIOLATION, f"a reply does not answer request {sequence}")
    return reply


def _output(reply: dict[str, Any], stdout_bytes: int) -> str:
    stdout = reply.get("stdout", "")
    if not _is(stdout, str):
        raise ChannelError(Failure.PROTOCOL_VIOLATION, "a reply's output is no text")
    return stdout[:stdout_bytes]


def _read_result(reply: dict[str, Any], blob: bytes, stdout: str) -> CallResult:
    status = reply.get("status")
    if status == "ok" and "value" in reply:
        return success(reply["value"], stdout, blob)
    return _read_failure(status, reply.get("error"), stdout)


def _is(value: Any, kind: type) -> bool:
    """Whether a value is of exactly this type: True is no integer here."""
    return type(value) is kind


def _read_ask(ask: Any) -> Ask:
    if _is(ask, dict) and _is(ask.get("tool"), str) and _is(ask.get("arguments"), dict):
        return Ask(tool=ask["tool"], arguments=ask["arguments"])
    raise ChannelError(Failure.PROTOCOL_VIOLATION, "a request for a tool call is malformed")


def _read_failure(status: Any, error: Any, stdout: str) -> CallResult:
    known = _is(status, str) and status in _SAID_BY_WORKER
    if not known or not _is(error, list) or len(error) != 3 or not all(_is(part, str) for part in error):
        raise ChannelError(Failure.PROTOCOL_VIOLATION, "a reply has an unknown form")
    kind, code, message = error
    return CallResult(
        status=_SAID_BY_WORKER[status],
        error_type=kind[:NAME_CHARS],
        code=code[:NAME_CHARS],
        message=message[:MESSAGE_CHARS],
        stdout=stdout,
    )


def explain_end(status: int, cpu_s: float, cpu_limit_s: int) -> tuple[Failure, str]:
    """Explain why a worker that the host had not killed is dead.

    Args:
        status: Its wait status.
        cpu_s: Processor seconds it used.
        cpu_limit_s: Processor seconds it was allowed.

    Returns:
        The failure, and a sentence for people.
    """
    if os.WIFEXITED(status):
        code = os.WEXITSTATUS(status)
        if code == EXIT_MEMORY:
            return Failure.MEMORY, "the worker reached its memory limit and could not even say so"
        return Failure.CRASH, f"the worker ended itself with exit code {code}"
    number = os.WTERMSIG(status)
    killed = number == signal.SIGKILL
    # Code may ignore the first signal; the kernel then kills. Its two clocks may differ by a few milliseconds.
    if number == signal.SIGXCPU or (killed and cpu_s >= cpu_limit_s - 0.1):
        return Failure.HARD_TIMEOUT, f"the worker used its {cpu_limit_s} processor seconds"
    if killed:
        return Failure.MEMORY, "the kernel killed the worker, most likely because memory ran out"
    return Failure.CRASH, f"the worker died by signal {number} ({signal.strsignal(number)})"
