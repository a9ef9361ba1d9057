"""What the host asks of a worker, as the plain data that goes over the wire; for `Worker.run`, many in one frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NotRequired, TypedDict

from pydantic import JsonValue


class CallRequest(TypedDict):
    """Run `function(*databases, **arguments)`; with databases, all or nothing."""

    op: Literal["call"]
    function: str
    """Name in the worker's namespace."""
    arguments: dict[str, JsonValue]
    """Plain JSON data."""
    databases: tuple[str, ...]
    """Names of open databases, passed first."""
    chars: NotRequired[int]
    """Longest result, as JSON text, in characters; a longer one is an `OUTPUT_LIMIT`."""


class HoldRequest(TypedDict):
    """Have the worker keep a database image."""

    op: Literal["hold"]
    key: str
    """What `OpenRequest` calls it."""
    image: bytes
    """A serialized database; empty for a new one."""


class OpenRequest(TypedDict):
    """Fill the database `name`, from an image that the worker holds or from one sent along."""

    op: Literal["open"]
    name: str
    held: NotRequired[str]
    """Key of a `HoldRequest`."""
    image: NotRequired[bytes]
    """A serialized database; empty for a new one."""
    keys: NotRequired[bool]
    """Whether foreign keys hold; SQLite's default is that they do not."""


class ImageRequest(TypedDict):
    """Serialize the database `name`."""

    op: Literal["image"]
    name: str
    held: NotRequired[str]
    """Key of a `HoldRequest`, if the database began with that image: then only what has changed travels."""


class DropRequest(TypedDict):
    """Close the database `name`, or forget the image `key`, if they are there."""

    op: Literal["drop"]
    name: NotRequired[str]
    key: NotRequired[str]


Request = CallRequest | HoldRequest | OpenRequest | ImageRequest | DropRequest
"""One request of a batch."""


def call(function: str, arguments: dict[str, Any], *databases: str) -> CallRequest:
    """Build a call: `function(*databases, **arguments)`."""
    return {"op": "call", "function": function, "arguments": arguments, "databases": databases}


def hold_image(key: str, image: bytes) -> HoldRequest:
    """Build a request to keep an image."""
    return {"op": "hold", "key": key, "image": image}


def open_held(name: str, key: str, keys: bool = False) -> OpenRequest:
    """Build a request to fill a database from a held image, in which foreign keys may hold."""
    return {"op": "open", "name": name, "held": key, "keys": keys}


def open_image(name: str, image: bytes, keys: bool = False) -> OpenRequest:
    """Build a request to fill a database from an image that is sent along, in which foreign keys may hold."""
    return {"op": "open", "name": name, "image": image, "keys": keys}


def image_of(name: str, key: str | None = None) -> ImageRequest:
    """Build a request to serialize a database, which mostly began with the image that is held under the key."""
    return {"op": "image", "name": name} if key is None else {"op": "image", "name": name, "held": key}


def drop_database(name: str) -> DropRequest:
    """Build a request to close a database."""
    return {"op": "drop", "name": name}


def drop_image(key: str) -> DropRequest:
    """Build a request to forget a held image."""
    return {"op": "drop", "key": key}


def packed(requests: Sequence[Request]) -> tuple[list[Any], bytes]:
    """Separate what is JSON from what is bytes.

    Args:
        requests: What to send.

    Returns:
        The requests for the frame's JSON, with the size of each one's bytes, and all bytes one after another.
    """
    blobs: list[bytes] = []
    found: list[Any] = []
    for request in requests:
        if "image" in request:
            rest = {name: value for name, value in request.items() if name != "image"}
            found.append(rest | {"bytes": len(request["image"])})
            blobs.append(request["image"])
        else:
            found.append(request)
    return found, b"".join(blobs)


def framed(requests: Sequence[Request], sequence: int, soft_s: float) -> tuple[dict[str, Any], bytes]:
    """Make a frame of requests; one that carries no bytes travels in the plain form, which costs both sides less.

    Args:
        requests: What to send, at least one.
        sequence: Number of the frame.
        soft_s: Seconds that each has.

    Returns:
        JSON data and the blob.
    """
    if len(requests) == 1 and "image" not in requests[0]:
        return {**requests[0], "id": sequence, "soft": soft_s}, b""
    listed, blob = packed(requests)
    return {"id": sequence, "op": "batch", "soft": soft_s, "requests": listed}, blob
