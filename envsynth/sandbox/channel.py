"""The host's end of a worker's socket: frames with deadlines and caps, decoded strictly.

Everything that arrives here was written by untrusted code. It is bounded before it is held in memory, and is never more
than JSON and opaque bytes: nothing is unpickled, evaluated or opened.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from typing import Any

import msgspec
import orjson

from envsynth.sandbox.jailed.frames import CHUNK, HEADER, READ_MAX, check_depth, check_integers
from envsynth.sandbox.result import CallResult, Failure, success, success_text

_TIME = struct.Struct("@ll")
"""The kernel's `timeval`: seconds, microseconds."""

_EARLY_S = 0.02
"""How much later than its deadline a reply may be noticed to be late; saves setting the time for each read."""

_validated = msgspec.json.Decoder(msgspec.Raw).decode
"""Reads JSON without making values; accepts bytes that are no UTF-8, and numbers of any size."""

_LONG_NUMBER, _EXPONENT, _CONTROL = b"0" * 19, b"0e", b"c"


def _mark(byte: int) -> int:
    char = chr(byte)
    return ord("0" if char in "0123456789" else "e" if char in "eE" else "c" if byte < ord(" ") else "-")


_MARKS = bytes(map(_mark, range(256)))

_TOO_SLOW = "the worker passed its hard time limit"


class ChannelError(Exception):
    """The conversation with a worker is over.

    Args:
        failure: Why.
        message: What happened.
    """

    def __init__(self, failure: Failure, message: str) -> None:
        super().__init__(failure, message)
        self.failure = failure
        self.message = message


class Channel:
    """One stream socket to one worker.

    Args:
        sock: The host's end; owned by this object.
        frame_bytes: Longest JSON text accepted.
        blob_bytes: Largest blob accepted.
    """

    def __init__(self, sock: socket.socket, frame_bytes: int, blob_bytes: int) -> None:
        self._sock = sock
        self._frame_bytes = frame_bytes
        self._blob_bytes = blob_bytes
        self._patience = 0.0  # seconds that the kernel waits in a blocking read; see `_first`
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)
        self._writable = select.poll()
        self._writable.register(sock, select.POLLOUT)

    def close(self) -> None:
        """Close the socket; may be called again."""
        self._sock.close()

    def send(self, text: bytes, blob: bytes, deadline: float) -> None:
        """Send one frame.

        Args:
            text: JSON text.
            blob: Raw bytes after it.
            deadline: When to give up, on the clock of `time.monotonic`.

        Raises:
            ChannelError: The worker is gone, or did not read in time.
        """
        data: bytes | memoryview = HEADER.pack(len(text), len(blob)) + text
        if blob:
            data += blob
        while data:
            try:
                sent = self._sock.send(data, socket.MSG_DONTWAIT)
                if sent == len(data):
                    return
                data = memoryview(data)[sent:]
            except BlockingIOError:
                self._wait(self._writable, deadline)
            except (BrokenPipeError, ConnectionResetError) as error:
                raise ChannelError(Failure.CRASH, "the worker closed its connection") from error

    def receive(self, deadline: float) -> tuple[bytes, bytes | memoryview]:
        """Receive one frame; one read in the common case.

        Args:
            deadline: When to give up, on the clock of `time.monotonic`.

        Returns:
            JSON text and blob; a large one is not copied.

        Raises:
            ChannelError: The worker is gone, was too slow, or sent something other than one frame within the caps.
        """
        data = self._first(deadline)
        while len(data) < HEADER.size:
            data += self._read(CHUNK, deadline)
        length, blob_length = HEADER.unpack_from(data)
        if length > self._frame_bytes or blob_length > self._blob_bytes:
            raise ChannelError(
                Failure.PROTOCOL_VIOLATION, f"a frame of {length} + {blob_length} bytes is larger than allowed"
            )
        end = HEADER.size + length
        total = end + blob_length
        if len(data) < total:
            grown = bytearray(data)
            while len(grown) < total:
                grown += self._read(min(total - len(grown), READ_MAX), deadline)
            whole = memoryview(grown)
            return bytes(whole[HEADER.size : end]), whole[end:]
        if len(data) > total:
            raise ChannelError(Failure.PROTOCOL_VIOLATION, f"{len(data) - total} bytes follow the frame")
        return data[HEADER.size : end], data[end:]

    def _first(self, deadline: float) -> bytes:
        """Read with one system call instead of two: the kernel keeps the time.

        Raises:
            ChannelError: The worker is gone, or was too slow.
        """
        left = deadline - time.monotonic()
        if left <= 0:
            return self._read(CHUNK, deadline)
        if not left <= self._patience <= left + _EARLY_S:
            self._patience = left + _EARLY_S / 2
            seconds, rest = divmod(self._patience, 1)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIME.pack(int(seconds), int(rest * 1e6) + 1))
        try:
            data = self._sock.recv(CHUNK)
        except BlockingIOError as error:
            raise ChannelError(Failure.HARD_TIMEOUT, _TOO_SLOW) from error
        except ConnectionResetError:
            data = b""
        if not data:
            raise ChannelError(Failure.CRASH, "the worker closed its connection")
        return data

    def _read(self, size: int, deadline: float) -> bytes:
        self._wait(self._readable, deadline)
        try:
            data = self._sock.recv(size, socket.MSG_DONTWAIT)
        except ConnectionResetError:
            data = b""
        if not data:
            raise ChannelError(Failure.CRASH, "the worker closed its connection")
        return data

    def _wait(self, poll: select.poll, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise ChannelError(Failure.HARD_TIMEOUT, _TOO_SLOW)


def decode(text: bytes) -> Any:
    """Decode the JSON text of a reply strictly.

    Args:
        text: UTF-8 JSON.

    Returns:
        Plain data: no NaN, no infinity, no lone surrogate, no integer beyond 64 bits, nested at most 200 deep in a reply.

    Raises:
        ChannelError: It is not such JSON.
    """
    try:
        value = orjson.loads(text)
        check_integers(text)
        check_depth(text)
    except (ValueError, RecursionError) as error:
        raise ChannelError(Failure.PROTOCOL_VIOLATION, _told(error)) from error
    return value


def read_text(text: bytes) -> CallResult:
    """Check what a call returned, which mostly nobody reads but as text: the usual value is not built before it is asked for.

    Args:
        text: UTF-8 JSON.

    Returns:
        The outcome, with its JSON text: that which came, when it has neither line breaks nor numbers on which readers do not
        agree, else written anew.

    Raises:
        ChannelError: It is not such JSON as `decode` reads.
    """
    try:
        _validated(text)
        marks = text.translate(_MARKS)
        if _LONG_NUMBER not in marks and _EXPONENT not in marks and _CONTROL not in marks:
            check_depth(text)
            return success_text(text.decode())
    except (ValueError, RecursionError) as error:
        raise ChannelError(Failure.PROTOCOL_VIOLATION, _told(error)) from error
    value = decode(text)
    return success(value, "", b"", orjson.dumps(value).decode())


def _told(error: Exception) -> str:
    return f"a reply is not plain JSON: {str(error)[:200]}"
