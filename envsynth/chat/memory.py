"""Replies kept on disk: a cache that saves money, and cassettes that make tests and papers replayable offline."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from pathlib import Path
from typing import Any, cast

from pydantic import JsonValue

from envsynth.chat.messages import ChatReply
from envsynth.errors import ChatError
from envsynth.record import canonical_json


class DiskCache:
    """A folder with one file per reply, named by the hash of the request. Safe for several processes.

    Args:
        folder: Where the files live; created when missing.

    Raises:
        ChatError: the folder cannot be made.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ChatError(f"cannot make the chat cache folder {str(folder)!r}: {error}") from error

    def get(self, key: str) -> ChatReply | None:
        """Return the reply kept under a key, if any.

        Args:
            key: Hash of the request.

        Returns:
            The reply, or None.

        Raises:
            ChatError: the file is damaged or cannot be read.
        """
        path = self._path(key)
        try:
            return ChatReply.from_data(json.loads(path.read_bytes())["reply"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ChatError(f"damaged chat cache file {str(path)!r} ({error}): delete it") from error

    def put(self, key: str, request: JsonValue, reply: ChatReply) -> None:
        """Keep a reply.

        Args:
            key: Hash of the request.
            request: The request, for people.
            reply: The reply.

        Raises:
            ChatError: the file cannot be written.
        """
        path = self._path(key)
        text = canonical_json({"request": request, "reply": reply.to_data()})
        try:
            path.parent.mkdir(exist_ok=True)
            # A rename is atomic: readers and a killed writer never leave half a file under the real name.
            with tempfile.NamedTemporaryFile(
                "w", dir=path.parent, suffix=".part", delete=False, encoding="utf-8"
            ) as file:
                file.write(text)
            Path(file.name).replace(path)
        except OSError as error:
            raise ChatError(f"cannot write the chat cache file {str(path)!r}: {error}") from error

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"


class Cassette:
    """One JSON-lines file of requests with replies, to be played again without any network.

    Args:
        path: The file.
        replay: True: only play what is recorded, and never ask a provider. False: play what is recorded, ask for the
            rest and append it.

    Raises:
        ChatError: the file is damaged, or is to be replayed and does not exist.
    """

    def __init__(self, path: str | Path, *, replay: bool) -> None:
        self.path = Path(path)
        self.replay = replay
        self._lock = threading.Lock()
        self._replies: dict[str, ChatReply] = {}
        if replay and not self.path.exists():
            raise ChatError(f"no cassette at {str(path)!r}: record one first")
        if self.path.exists():
            self._load()

    def _load(self) -> None:
        try:
            lines = self.path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ChatError(f"cannot read the cassette {str(self.path)!r}: {error}") from error
        for number, line in enumerate(lines, start=1):
            try:
                entry = cast("dict[str, Any]", json.loads(line))
                self._replies[str(entry["key"])] = ChatReply.from_data(entry["reply"])
            except (ValueError, KeyError, TypeError) as error:
                raise ChatError(f"damaged cassette {str(self.path)!r}, line {number}: {error}") from error

    def get(self, key: str) -> ChatReply | None:
        """Return the recorded reply of a key, if any."""
        with self._lock:
            return self._replies.get(key)

    def put(self, key: str, request: JsonValue, reply: ChatReply) -> None:
        """Append a reply to the file.

        Args:
            key: Hash of the request.
            request: The request, for people.
            reply: The reply.

        Raises:
            ChatError: the file cannot be written.
        """
        line = canonical_json({"key": key, "request": request, "reply": reply.to_data()}) + "\n"
        with self._lock:
            self._replies[key] = reply
            try:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(line)
                    file.flush()
                    os.fsync(file.fileno())
            except OSError as error:
                raise ChatError(f"cannot write the cassette {str(self.path)!r}: {error}") from error
