"""What plays a whole solution beside the tools in one sandbox worker: loaded there as source text after the dispatcher.

It stands for the host between solution and tools, for calls that need no judgement of the host. At anything else it
gives up, and the host plays the episode properly: arguments that a schema may refuse, a tool that fails or refuses after
it has changed something, values that are not plain JSON, results of unusual length, too many turns.
"""

from __future__ import annotations

import contextlib
import marshal
import re
from collections.abc import Callable
from typing import Any, cast

RESULT_CHARS = 20_000
"""Longest result, as Python text; the limit of an episode is five times that, in characters of JSON."""
ASK_USER = "ask_user"
"""The tool by which the user is asked, where a user answers."""
WHOLE = 2**53
"""Integers beyond it are left to the host."""

MOST_READ, MOST_COMPILED = 20_000, 400
"""Answers of reading tools, and compiled parts of solutions, that are remembered."""

_lesson: dict[str, Any] = {}
_read: dict[tuple[str, str, bytes], bytes] = {}
"""What reading tools answered, as bytes: each solver gets a copy of its own, which costs a tenth of copying by hand. Tasks
that begin with the same image share it."""
_compiled: dict[str, Any] = {}
_FUNCTIONS = re.compile(r"\n\n\n(?=def |class |@)")
"""Between the functions of a module that is laid out as usual."""


class UnusualError(BaseException):
    """The episode must be played by the host; no `Exception`, so that solutions do not catch it."""


class CallError(Exception):
    """What `call` raises in a solution when a tool refuses; as in a worker of its own."""

    def __init__(self, payload: Any) -> None:
        super().__init__(payload)
        self.payload = payload


def learn(solution: str, turns: int, **lesson: Any) -> None:
    """Take the solution that is played next.

    Args:
        solution: Its source.
        turns: Limit of turns.
        **lesson: `tools`: JSON Schemas of the arguments by tool. `readers`: tools that change nothing. `style`: how errors
            are told, `code`, `terse` or `verbose`. `numbers`: numbers of error codes, for the style `code`. `faults`:
            calls that fail. `image`: name of the initial database. `max_calls`: how many calls there may be, or None, and
            `no_calls`, code and message of the error of later ones. `user`: what the user says by topic, when asked.
    """
    _lesson.update(lesson, code=_in_parts(solution), turns=turns)
    if len(_read) > MOST_READ:
        _read.clear()


def _in_parts(solution: str) -> list[Any]:
    """Compile a solution function by function: most are those of another task, and compiling is most of learning.

    Lines are counted from each part's own start; nobody is told of them here.
    """
    if len(_compiled) > MOST_COMPILED:
        _compiled.clear()
    try:
        return [_part(text) for text in _FUNCTIONS.split(solution)]
    except SyntaxError:  # what looks like the start of a function stands within something else
        return [_part(solution)]


def _part(text: str) -> Any:
    if text not in _compiled:
        _compiled[text] = compile(text, "<solution>", "exec", dont_inherit=True)
    return _compiled[text]


def rehearse(db: Any, world: str, overrides: dict[str, Any]) -> dict[str, Any]:
    """Play the solution to its answer.

    Args:
        db: The world's database, fresh.
        world: Its name, whose tools are fresh.
        overrides: Names of the solution's module that are overwritten.

    Returns:
        `{"answer": {...}, "changed": bool, "calls": int}`; `answer` is None when the solution gave none. `{"unusual": why}` when the
        episode must be played by the host.
    """
    began = db.total_changes
    calls = 0
    clock = globals()["FaultClock"](_lesson["faults"])

    def call(tool: Any, /, **arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        _count(calls)
        if type(tool) is not str or tool not in _lesson["tools"]:
            raise UnusualError(f"arguments of {tool!r}")
        key = _question(tool, arguments) if db.total_changes == began else None
        known = None if key is None else _read.get(key)
        # Arguments of a question that was answered before have met the schema before.
        if known is None and not fits(_lesson["tools"][tool], arguments):
            raise UnusualError(f"arguments of {tool!r}")
        if tool == ASK_USER and _lesson["user"]:
            return _lesson["user"][arguments["about"]]
        fault = clock.next_call(tool)
        if fault is not None:
            _fail(fault, db, world, tool, arguments)
        if known is not None:
            return marshal.loads(known)
        result = _asked(db, world, tool, arguments)
        if key is not None and tool in _lesson["readers"]:
            _read[key] = marshal.dumps(result)
        return result

    space: dict[str, Any] = {
        "__name__": "solution",
        "Refusal": globals()["Refusal"],
        "call": call,
        "CallError": CallError,
    }
    try:
        answer = _solved(space, overrides)
    except UnusualError as why:
        return {"unusual": str(why)}
    except Exception:  # noqa: BLE001 - a solution that fails gives no answer
        answer = None
    return {"answer": answer, "changed": db.total_changes != began, "calls": calls}


def _solved(space: dict[str, Any], overrides: dict[str, Any]) -> Any:
    for code in _lesson["code"]:
        exec(code, space)  # noqa: S102 - this module runs in the jail
    space.update(overrides)
    answer = space["solve"](space["call"])
    return plain(answer) if isinstance(answer, dict) else None


def _question(tool: str, arguments: dict[str, Any]) -> tuple[str, str, bytes]:
    """What is asked: equal only for the same tool with arguments of equal types and values.

    Raises:
        UnusualError: the arguments are no plain data.
    """
    try:
        return _lesson["image"], tool, marshal.dumps(arguments, 2)
    except ValueError as error:
        raise UnusualError(f"arguments of {tool!r}") from error


def _count(calls: int) -> None:
    """Hold the number of a call against the limits.

    Raises:
        UnusualError: the turns end.
        CallError: no calls are left.
    """
    if calls >= _lesson["turns"] - 1:
        raise UnusualError("turns")
    if _lesson["max_calls"] is not None and calls > _lesson["max_calls"]:
        raise CallError(_in_style(*_lesson["no_calls"]))


def _fail(fault: str, db: Any, world: str, tool: str, arguments: dict[str, Any]) -> None:
    """Fail a call; whether the tool runs is all that the kinds of timeouts differ in.

    Raises:
        CallError: always.
    """
    if fault == globals()["AFTER"]:
        with contextlib.suppress(CallError):  # a refusal is lost with the reply
            _asked(db, world, tool, arguments)
    raise CallError(_in_style(*globals()["FAULT_ERRORS"][fault]))


def _asked(db: Any, world: str, tool: str, arguments: dict[str, Any]) -> Any:
    before = db.total_changes
    try:
        result = globals()["run_tool"](db, world, tool, plain(arguments))
    except globals()["Refusal"] as refusal:
        if db.total_changes != before:
            raise UnusualError("a refusal after a change") from refusal
        raise CallError(_told(refusal)) from None
    except Exception as error:
        raise UnusualError(f"{tool!r} failed: {type(error).__name__}") from error
    if len(repr(result)) > RESULT_CHARS:
        raise UnusualError(f"a long result of {tool!r}")
    return plain(result)


def _told(refusal: Any) -> Any:
    code, message = refusal.code, refusal.message
    if type(code) is not str or type(message) is not str or not code or max(len(code), len(message)) > 100:
        raise UnusualError("an odd refusal")
    return _in_style(code, message)


def _in_style(code: str, message: str) -> Any:
    if _lesson["style"] == "code":
        return _lesson["numbers"].get(code, 400)
    return {"code": code} if _lesson["style"] == "terse" else {"code": code, "message": message}


def plain(value: Any) -> Any:
    """Copy plain JSON data; the copy is what the other side of a wire would get.

    Raises:
        UnusualError: it is something else, or a number that wires write in several ways.
    """
    kind = cast("type[Any]", type(value))
    if kind is str or kind is bool or value is None or (kind is int and -WHOLE < value < WHOLE):
        return value
    if kind is list:
        return [plain(item) for item in value]
    if kind is dict and all(type(name) is str for name in value):
        return {name: plain(item) for name, item in value.items()}
    raise UnusualError(f"a value of type {kind.__name__}")


def fits(schema: dict[str, Any], arguments: dict[str, Any]) -> bool:
    """Whether arguments meet a closed schema for certain; False also when it says what is not known here."""
    if set(schema) - {"type", "properties", "required", "additionalProperties", *_SAID}:
        return False
    known = schema.get("properties", {})
    if schema.get("additionalProperties") is not False or not set(schema.get("required", ())) <= set(arguments):
        return False
    return all(name in known and _meets(known[name], value) for name, value in arguments.items())


def _meets(schema: dict[str, Any], value: Any) -> bool:
    words = [word for word in schema if word not in _SAID]
    return bool(words) and all(word in _MET and _MET[word](schema[word], value) for word in words)


def _is_of(kind: Any, value: Any) -> bool:
    return kind in _KINDS and type(value) is _KINDS[kind]


def _is_long(value: Any) -> bool:
    return type(value) in (str, list)


def _matches(pattern: str, value: Any) -> bool:
    """Where a line ends and what a digit is, is a matter of opinion beyond one line of ASCII."""
    return type(value) is str and value.isascii() and "\n" not in value and re.search(pattern, value) is not None


def _all_meet(schema: dict[str, Any], value: Any) -> bool:
    items = cast("list[Any]", value) if type(value) is list else []
    return items is value and all(_meets(schema, item) for item in items)


_KINDS = {"string": str, "integer": int, "boolean": bool, "array": list}
_SAID = ("description", "title", "default", "examples")
_MET: dict[str, Callable[[Any, Any], bool]] = {
    "type": _is_of,
    "enum": lambda items, value: any(type(item) is type(value) and item == value for item in items),
    "minimum": lambda bound, value: type(value) is int and value >= bound,
    "maximum": lambda bound, value: type(value) is int and value <= bound,
    "minLength": lambda bound, value: _is_long(value) and len(value) >= bound,
    "maxLength": lambda bound, value: _is_long(value) and len(value) <= bound,
    "minItems": lambda bound, value: _is_long(value) and len(value) >= bound,
    "maxItems": lambda bound, value: _is_long(value) and len(value) <= bound,
    "pattern": _matches,
    "items": _all_meet,
}
"""Whether a value certainly meets a keyword; any other keyword is not met here."""
