"""What workers of any kind answer, and the caller's account of it: what is done, who died, what is told of a failure."""

from __future__ import annotations

import copy
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.reduction import ForkingPickler
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from envsynth.errors import WorkError
from envsynth.executors.interrupts import uninterrupted

T = TypeVar("T")
R = TypeVar("R")

_SHOWN = 120
"""Characters of an item in a message."""


class Boundary:
    """Catches any `Exception` of foreign code; interrupts and exits pass through."""

    error: Exception | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if isinstance(value, Exception):
            self.error = value
            return True
        return False


@dataclass(frozen=True)
class Reply:
    """What a worker sends back for one item."""

    index: int
    """Position of the item."""
    value: Any = None
    """The result, when there is no error."""
    error: Exception | None = None
    """What the function or the initializer raised."""


def start(initializer: Callable[[], None] | None) -> Exception | None:
    """Call the initializer of a worker process.

    Args:
        initializer: What to call, if anything.

    Returns:
        What it raised: the answer to every item of this process.
    """
    with Boundary() as started:
        if initializer is not None:
            initializer()
    return started.error


def answer(function: Callable[[Any], Any], index: int, item: Any, broken: Exception | None) -> Reply:
    """Apply the function to one item in a worker.

    Args:
        function: What to apply.
        index: Position of the item.
        item: The item.
        broken: What the initializer of this process raised.

    Returns:
        The result, or an error that can be pickled.
    """
    reply = Reply(index)
    with Boundary() as boundary:
        if broken is not None:
            raise broken
        reply = Reply(index, value=function(item))
    if boundary.error is not None:
        reply = Reply(index, error=portable(boundary.error))
    return reply


def unsendable(index: int, why: object) -> Reply:
    """Return the reply for a result that cannot be pickled."""
    return Reply(index, error=WorkError(f"its result cannot be pickled ({why}): return plain records", index))


def portable(error: Exception) -> Exception:
    """Return the error if it survives pickling with its message, else a `WorkError` that tells the same."""
    text = "".join(traceback.format_exception(error))
    with Boundary() as boundary:
        ForkingPickler.dumps(error)
        twin = copy.copy(error)  # rebuilt the way unpickling does it
        if type(twin) is type(error) and str(twin) == str(error):
            error.__cause__ = None
            error.add_note(f"in a worker process:\n{text}")
            return error
    why = "" if boundary.error is None else f" ({boundary.error})"
    substitute = WorkError(f"{type(error).__name__}: {error} [the exception cannot be pickled{why}]")
    substitute.add_note(f"in a worker process:\n{text}")
    return substitute


def failure(index: int, item: object, error: BaseException) -> WorkError:
    """Make the error of an item from what its function raised."""
    return WorkError(f"item {index} ({repr(item)[:_SHOWN]}) failed: {type(error).__name__}: {error}", index, item)


@dataclass
class Account(Generic[T, R]):
    """The caller's account of one map: each item is delivered once, and its worker may die so many times."""

    items: Sequence[T]
    """All items."""
    on_result: Callable[[int, R], None] | None
    """Told of each result."""
    retries: int
    """Deaths of a worker that an item survives."""
    keep: bool
    """Whether results are kept for the end."""
    n_done: int = 0
    """Items delivered."""
    results: dict[int, R] = field(default_factory=dict[int, R])
    """Kept results by index."""
    deaths: dict[int, int] = field(default_factory=dict[int, int])
    """Dead workers by index of their item."""

    @property
    def done(self) -> bool:
        """Whether every item was delivered."""
        return self.n_done == len(self.items)

    def deliver(self, reply: Reply) -> None:
        """Take a reply that holds no error; Ctrl-C waits until the result is stored.

        Raises:
            KeyboardInterrupt: afterwards, when it came meanwhile.
        """
        with uninterrupted():
            self.n_done += 1
            if self.keep:
                self.results[reply.index] = reply.value
            if self.on_result is not None:
                self.on_result(reply.index, reply.value)

    def failed(self, reply: Reply, error: Exception) -> WorkError:
        """Make the error to raise for a reply that holds one."""
        return failure(reply.index, self.items[reply.index], error)

    def died(self, index: int, how: str) -> None:
        """Count the death of an item's worker.

        Args:
            index: The item.
            how: What is known of the death.

        Raises:
            WorkError: the item has killed more workers than the retries allow.
        """
        self.deaths[index] = self.deaths.get(index, 0) + 1
        if self.deaths[index] > self.retries:
            raise WorkError(
                f"item {index} ({repr(self.items[index])[:_SHOWN]}) killed its worker process {self.deaths[index]} times "
                f"({how}): look for exhausted memory or a crash in native code",
                index,
                self.items[index],
            )

    def ordered(self) -> list[R]:
        """Return the kept results in the order of the items."""
        return [self.results[index] for index in sorted(self.results)]
