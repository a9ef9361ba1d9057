"""How a task reaches its actor: which calls fail, how many there may be, which tools are missing, what a user tells.

All of it belongs to one task; its environment, which many tasks share, knows nothing of it. The host sees to it, outside
the tools, in every way of playing alike.
"""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from envsynth.record import Identifier, Record

_VALUE = re.compile(r'"([^"]+)"|(?<![\w.-])(-?\d[\w:-]*(?:\.\d+)?)')
FaultKind = Literal["timeout_before", "timeout_after", "unavailable"]


class Fault(Record):
    """Calls of one tool that fail in every episode of a task. The host fails them: the tool knows nothing of it.

    Calls are counted by tool and episode, those with arguments that the tool takes only. A faulted call is a call.
    """

    tool: Identifier
    """Which tool."""
    call: int = Field(ge=1)
    """Which call of it is the first to fail, from 1."""
    kind: FaultKind
    """`timeout_before`: error `timeout`, and the tool has not run. `timeout_after`: the same error, but the tool has run;
    its result is lost and its changes stay. `unavailable`: error `unavailable`, and the tool has not run."""
    calls: int = Field(default=1, ge=1, le=8)
    """How many calls in a row fail."""


class Fact(Record):
    """What only the user knows, and tells when asked about it."""

    topic: Identifier
    """What to ask about: a value of the argument `about` of the tool `ask_user`."""
    says: str = Field(min_length=1, max_length=200)
    """The user's words."""

    @property
    def values(self) -> tuple[str, ...]:
        """Numbers, dates and texts in double quotes in the words; none where what the user says is of no matter."""
        return tuple(dict.fromkeys(quoted or plain for quoted, plain in _VALUE.findall(self.says)))


def stands_in(value: str, text: str) -> bool:
    """Whether a text holds a number, date or name that the user knows, as it is and not as a part of another."""
    return re.search(rf"(?<![\w.-]){re.escape(value)}(?![\w-]|\.\d)", text) is not None


class Delivery(Record):
    """What of its environment a task takes away from the actor, or adds."""

    max_calls: int | None = Field(default=None, ge=1)
    """Tool calls that the actor may make; public. Later ones are refused with `no_calls_left`."""
    withheld: tuple[Identifier, ...] = ()
    """Tools of the environment that this task does without; to its actor they do not exist."""
    user: tuple[Fact, ...] = ()
    """What the user tells when asked; private."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        for key, names in (("withheld", self.withheld), ("user", tuple(fact.topic for fact in self.user))):
            if twice := [name for index, name in enumerate(names) if name in names[:index]]:
                raise ValueError(f"delivery.{key}: {twice[0]!r} twice; name it once")
        return self


AS_IT_IS = Delivery()
"""All tools, no user, no limit but that of turns."""
