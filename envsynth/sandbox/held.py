"""The images that a worker holds, as the host sent them: of a database that began with one it tells what has changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from envsynth.sandbox.channel import ChannelError
from envsynth.sandbox.jailed.pages import with_pages
from envsynth.sandbox.requests import Request
from envsynth.sandbox.result import CallResult, Failure, success


class HeldImages:
    """What one worker was sent to hold, in the order of its requests."""

    def __init__(self) -> None:
        self._images: dict[str, bytes] = {}
        self._bases: list[bytes | None] = []

    def note(self, requests: Sequence[Request]) -> None:
        """Remember what requests have the worker hold and forget, and which image each may be answered with changes of."""
        self._bases = []
        for place, request in enumerate(requests):
            if request["op"] == "hold":
                self._images[request["key"]] = request["image"]
            elif request["op"] == "drop":
                self._images.pop(request.get("key", ""), None)
            elif request["op"] == "image" and "held" in request:
                self._bases += [None] * (place - len(self._bases))
                self._bases.append(self._images.get(request["held"]))

    def completed(self, results: list[CallResult], start: int) -> list[CallResult]:
        """Put whole images in place of changes.

        Args:
            results: Outcomes of some of the requests, in their order.
            start: The place of the first of these.

        Returns:
            The same, with whole images.

        Raises:
            ChannelError: These are no changes of the image that the host knows.
        """
        for place, base in enumerate(self._bases[start : start + len(results)]):
            if base is not None and results[place].ok and results[place].value is not None:
                results[place] = _completed(results[place], base)
        return results


def _completed(result: CallResult, base: bytes) -> CallResult:
    told = cast("list[Any]", result.value if type(result.value) is list else [])
    numbers = cast("list[Any]", told[1] if len(told) == 2 and type(told[1]) is list else [None])
    if any(type(number) is not int for number in (*told[:1], *numbers)):
        raise ChannelError(Failure.PROTOCOL_VIOLATION, "the changes of an image have an unknown form")
    try:
        return success(None, result.stdout, with_pages(base, told[0], numbers, result.blob))
    except ValueError as error:
        raise ChannelError(Failure.PROTOCOL_VIOLATION, f"the changes of an image do not fit: {error}") from error
