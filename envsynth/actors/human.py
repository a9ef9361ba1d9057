"""A person plays; the caller supplies where lines come from and where text goes."""

from __future__ import annotations

import io
import json
import re
import shlex
from collections.abc import Callable

from pydantic import JsonValue

from envsynth.actors.slots import SlotActor, action_text
from envsynth.trajectory import Episode, Move

HELP = (
    "Type `TOOL name=value ...` to call a tool, `answer name=value ...` to answer, or the JSON of either; "
    "values are JSON, anything else is text. `quit` gives up."
)
"""How a person plays; shown with the first observation."""


PROMPT = "your turn>"
"""What stands before the line that a person types."""


class HumanActor(SlotActor):
    """Asks a person for every move.

    Args:
        ask: Shows a short prompt and returns the line that the person typed, as `input` does; `EOFError` means that the
            person leaves.
        tell: Shows text to the person.
    """

    def __init__(self, ask: Callable[[str], str], tell: Callable[[str], None]) -> None:
        super().__init__("human")
        self._ask = ask
        self._tell = tell

    def begin(self, slot: int, episode: Episode) -> None:
        """Explain how to play."""
        self._tell(HELP)

    def move(self, slot: int, episode: Episode, observation: str) -> Move:
        """Show the observation and ask until a line says something."""
        self._tell(observation)
        line = ""
        while not line:
            try:
                line = self._ask(PROMPT).strip()
            except EOFError:
                line = "quit"
        if line in ("quit", "exit"):
            return Move("", stop=True, failure="the person gave up")
        return Move(command_to_action(line))


def command_to_action(line: str) -> str:
    """Turn a typed line into the text of an action.

    Args:
        line: JSON, which is passed on as it is, or `TOOL name=value ...`, or `answer name=value ...`.

    Returns:
        The action's text. A line that fits no form is passed on, so that the environment says what is wrong.
    """
    if line.lstrip().startswith("{"):
        return line
    head, _, rest = line.strip().partition(" ")
    values = _values(rest)
    if not head or values is None or head != "".join(_words(head)):
        return line
    if head == "answer":
        return action_text({"answer": values})
    return action_text({"tool": head, "arguments": values})


_NAME = re.compile(r"\s*(\w+)=")


def _values(text: str) -> dict[str, JsonValue] | None:
    """Read `name=value ...`; None when the text is something else."""
    values: dict[str, JsonValue] = {}
    rest = text.strip()
    while rest:
        found = _NAME.match(rest)
        if found is None:
            return None
        rest = rest[found.end() :]
        value, rest = _json(rest) if rest[:1] in ("[", "{", '"') else _word(rest)
        if rest is None:
            return None
        values[found[1]] = value
    return values


def _json(text: str) -> tuple[JsonValue, str | None]:
    """Take a list, an object or a text off the front of a text; its quotes are JSON's, not the shell's."""
    try:
        value, end = _DECODER.raw_decode(text)
    except ValueError:
        return _word(text)
    return (value, text[end:].lstrip()) if text[end : end + 1] in ("", " ") else (None, None)


def _word(text: str) -> tuple[JsonValue, str | None]:
    """Take a word off the front of a text, which may stand in quotes."""
    if not text.strip() or text[0].isspace():
        return "", text.lstrip()
    stream = io.StringIO(text)
    lexer = shlex.shlex(stream, posix=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    try:
        word = lexer.get_token()
    except ValueError:  # an open quote
        return None, None
    # What shlex has read ahead is one blank at most.
    return _typed(word or ""), text[stream.tell() :].lstrip()


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError:
        return []


_DECODER = json.JSONDecoder(parse_constant=lambda name: name)


def _typed(text: str) -> JsonValue:
    try:
        value: JsonValue = _DECODER.decode(text)
    except ValueError:
        return text
    return value
