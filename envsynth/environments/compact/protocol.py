"""What passes between an actor and an environment, in compact text: first observation, actions, observations.

Each function is exact: the JSON text comes back character by character. Text that has another form than the environment
writes is kept as it is behind a mark, so the functions take any text.

    first observation   lines of turns with today, rules, tools and answer; and the prompt, apart
    call                vok name Kelo            {"tool":"vok","arguments":{"name":"Kelo"}}
    answer              = colour red              {"answer":{"colour":"red"}}
    observation         [(name Kelo)]             {"result":[{"name":"Kelo"}]}
                        ! not_found               {"error":"not_found"}
    anything else       ? followed by the text
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable

from pydantic import JsonValue

from envsynth.environments.actions import ACTION_FORMAT
from envsynth.environments.compact.schemas import (
    compact_schema_or_value,
    compact_tool,
    expand_schema_or_value,
    expand_tool,
)
from envsynth.environments.compact.values import Reader, compact, compact_pairs, expand
from envsynth.environments.tools import compact_json
from envsynth.errors import SpecError

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TODAY = re.compile(r"\d{4}-\d\d-\d\d(?:T\d\d:\d\d:\d\d)?")
_TURNS = re.compile(r"You have ([1-9]\d*) turns\.")
_RAW = "? "
_LINES = ("turns", "rule", "tool", "answer")
STANDARD_DAY = "2000-01-01"
"""The day of worlds in which time does not matter; it is not told."""


def _json(text: str) -> JsonValue:
    """The value of a JSON text that is written as the environment writes it.

    Raises:
        SpecError: it is no such text.
    """
    try:
        value: JsonValue = json.loads(text)
        same = compact_json(value) == text
    except (ValueError, RecursionError) as error:
        raise SpecError(f"not JSON: {error}") from error
    if not same:
        raise SpecError("not the environment's way to write JSON")
    return value


def _exactly(text: str, forward: Callable[[str], str], back: Callable[[str], str]) -> str:
    """Rewrite a text, or mark it as kept when that would not come back exactly."""
    try:
        short = forward(text)
        if back(short) == text:
            return short
    except (SpecError, RecursionError):
        pass  # the text has another form, which is what the mark is for
    return _RAW + text


# ------------------------------------------------------------------------------------------------------------- actions


def compact_action(text: str) -> str:
    """Write the text of an action compactly.

    Args:
        text: Any text that an actor may send.

    Returns:
        `NAME key value ...` for a call, `= key value ...` for an answer, `? text` for anything else.
    """
    return _exactly(text, _short_action, expand_action)


def _short_action(text: str) -> str:
    value = _json(text)
    if isinstance(value, dict) and list(value) == ["answer"] and isinstance(answer := value["answer"], dict):
        return f"= {compact_pairs(answer)}".rstrip(" ")
    if isinstance(value, dict) and list(value) == ["tool", "arguments"]:
        tool, arguments = value["tool"], value["arguments"]
        if isinstance(tool, str) and isinstance(arguments, dict) and _NAME.fullmatch(tool):
            return f"{tool} {compact_pairs(arguments)}".rstrip(" ")
    raise SpecError("neither a call nor an answer")


def expand_action(text: str) -> str:
    """Read what `compact_action` wrote, or what a policy wrote in its stead.

    Args:
        text: Compact text of an action.

    Returns:
        The text that the environment reads.

    Raises:
        SpecError: it is not the compact text of an action.
    """
    if text.startswith(_RAW):
        return text.removeprefix(_RAW)
    reader = Reader(text)
    tool = "" if reader.skip("=") else reader.match(_NAME, "a tool's name or =")
    pairs: dict[str, JsonValue] = {}
    if reader.position != len(text):
        reader.need(" ")
        pairs = reader.pairs("")
    if (written := f"{tool or '='} {compact_pairs(pairs)}".rstrip(" ")) != text:
        raise SpecError(f"compact text: the action is written {written[:80]!r}, not {text[:80]!r}")
    return compact_json({"tool": tool, "arguments": pairs} if tool else {"answer": pairs})


# -------------------------------------------------------------------------------------------------------- observations


def compact_observation(text: str) -> str:
    """Write the text of an observation after a turn compactly.

    Args:
        text: Any text; the environment's are JSON.

    Returns:
        The value of a result, `! value` for an error, `? text` for anything else.
    """
    return _exactly(text, _short_observation, expand_observation)


def _short_observation(text: str) -> str:
    value = _json(text)
    if isinstance(value, dict) and list(value) == ["result"]:
        return compact(value["result"])
    if isinstance(value, dict) and list(value) == ["error"]:
        return f"! {compact(value['error'])}"
    raise SpecError("neither a result nor an error")


def expand_observation(text: str) -> str:
    """Read what `compact_observation` wrote.

    Args:
        text: Compact text of an observation.

    Returns:
        The observation's text.

    Raises:
        SpecError: it is not the compact text of an observation.
    """
    if text.startswith(_RAW):
        return text.removeprefix(_RAW)
    if text.startswith("! "):
        return compact_json({"error": expand(text.removeprefix("! "))})
    return compact_json({"result": expand(text)})


# --------------------------------------------------------------------------------------------------- first observation


def compact_first(text: str) -> tuple[str, str]:
    """Write a first observation compactly.

    Args:
        text: The text that `reset` gives.

    Returns:
        What holds for the environment and the format of the answer, and the prompt. The first is empty and the second
        is the whole text when the text has another form.
    """
    try:
        system, prompt = _short_first(text)
        if expand_first(system, prompt) == text:
            return system, prompt
    except (SpecError, RecursionError):
        pass  # the text has another form, which the empty first part says
    return "", text


def _short_first(text: str) -> tuple[str, str]:
    prompt, rest = _cut(text.removeprefix("# Task\n"), "\n\n# Today\n")
    rest, how = _cut(rest, "\n\n# How to act\n")
    rest, schema = _cut(rest, "\n\n# Final answer\nJSON Schema of the answer:\n")
    head, tools = _cut(rest, "\n\n# Tools\n")
    today, *rules = head.split("\n\n# Rules\n", 1)
    turns = _TURNS.fullmatch(how.removeprefix(f"{ACTION_FORMAT}\n"))
    if not _TODAY.fullmatch(today) or turns is None:
        raise SpecError("no first observation")
    lines = [f"turns {turns[1]}" if today == STANDARD_DAY else f"turns {turns[1]} today {today}"]
    lines += [f"rule {rule.removeprefix('- ')}" for part in rules for rule in part.split("\n")]
    lines += map(_tool_line, tools.split("\n"))
    lines.append(f"answer {compact_schema_or_value(_object(schema))}")
    return "\n".join(lines), prompt


@functools.lru_cache(maxsize=1024)
def _tool_line(doc: str) -> str:
    """A tool's line; only what could be taken for another line needs a mark. Tasks of one world share its tools."""
    line = compact_tool(_object(doc))
    return f"tool {line}" if line.partition(" ")[0] in _LINES else line


@functools.lru_cache(maxsize=1024)
def _tool_doc(line: str) -> str:
    return compact_json(expand_tool(line))


def _cut(text: str, mark: str) -> tuple[str, str]:
    left, found, right = text.partition(mark)
    if not found:
        raise SpecError(f"no first observation: {mark.strip()!r} is missing")
    return left, right


def _object(text: str) -> dict[str, JsonValue]:
    value = _json(text)
    if not isinstance(value, dict):
        raise SpecError(f"no object: {text[:40]!r}")
    return value


def expand_first(system: str, prompt: str) -> str:
    """Read what `compact_first` wrote.

    Args:
        system: Its first part.
        prompt: Its second part.

    Returns:
        The first observation's text.

    Raises:
        SpecError: the first part is not what `compact_first` writes.
    """
    if not system:
        return prompt
    found: dict[str, list[str]] = {word: [] for word in _LINES}
    for line in system.split("\n"):
        word, _, rest = line.partition(" ")
        if word in found:
            found[word].append(rest)
        else:
            found["tool"].append(line)
    if [len(found[word]) for word in ("turns", "answer")] != [1, 1]:
        raise SpecError("compact text: needs one line of turns and one of answer")
    turns, mark, today = found["turns"][0].partition(" today ")
    today = today if mark else STANDARD_DAY
    lines = ["# Task", prompt, "", "# Today", today]
    if found["rule"]:
        lines += ["", "# Rules", *(f"- {rule}" for rule in found["rule"])]
    lines += ["", "# Tools", *map(_tool_doc, found["tool"])]
    schema = expand_schema_or_value(found["answer"][0])
    lines += ["", "# Final answer", "JSON Schema of the answer:", compact_json(schema)]
    return "\n".join([*lines, "", "# How to act", ACTION_FORMAT, f"You have {turns} turns."])
