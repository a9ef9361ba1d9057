"""Wrong answers on purpose: mutants of the right one, and guesses by somebody who looked nothing up."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from typing import cast

from pydantic import JsonValue

from envsynth.actors import guess_value
from envsynth.gates.case import Case, Named
from envsynth.record import Scalar
from envsynth.spec import Outcome

N_RANDOM = 48
"""Random typed answers that are judged."""
N_ECHOES = 8
"""Answers made of the prompt's words that are judged."""
_ORDERED = re.compile(
    r"\b(in (this|that|the) order|in order of|ordered by|sorted|ascending|descending|alphabetical(ly)?|\w+ first)\b",
    re.IGNORECASE,
)


def fields_of(case: Case) -> dict[str, dict[str, JsonValue]]:
    """Schemas of the answer's fields."""
    return cast("dict[str, dict[str, JsonValue]]", case.task.answer_schema.get("properties") or {})


# ------------------------------------------------------------------------------------------------------------- guesses


def guesses(case: Case) -> Iterator[Named]:
    """Constants, echoes of the prompt, the commonest values of the data, all candidates at once, random typed answers."""
    fields, right = fields_of(case), case.task.oracle.answer
    constants: tuple[JsonValue, ...] = (case.task.prompt, 0, 1, "yes", "none", [], True)
    for constant in constants:
        yield f"constant {str(constant)[:20]!r}", Outcome(answer=dict.fromkeys(fields, constant))
    if not fields or not right:
        return
    yield from _echoes(case)
    yield from _modal(case)
    yield from _lists(case)
    rng = case.rng("guess")
    for index in range(N_RANDOM):
        answer = guess(case, rng)
        if _unordered(answer) != _unordered(right):
            yield f"random {index}", Outcome(answer=answer)


def _unordered(value: JsonValue) -> JsonValue:
    """The value with its lists sorted: a draw of the right items in another order is no wrong answer for sure."""
    if isinstance(value, dict):
        return {key: _unordered(item) for key, item in value.items()}
    return sorted((_unordered(item) for item in value), key=repr) if isinstance(value, list) else value


def guess(case: Case, rng: random.Random) -> dict[str, JsonValue]:
    """A random typed answer; texts come from the columns that hold the right ones."""
    right = case.task.oracle.answer
    return {
        name: guess_value(rng, schema, right.get(name), case.same_column) for name, schema in fields_of(case).items()
    }


def told(case: Case) -> list[Scalar]:
    """What the prompt names: numbers, texts in quotes, texts that stand in the data; the longest texts first."""
    prompt = case.task.prompt
    # A look for each of thousands of cells costs more than one at the set of words that the prompt has.
    words = set(re.findall(r"\w+", prompt))
    cells = dict.fromkeys(cell for cells in case.columns for cell in cells if isinstance(cell, str) and len(cell) > 1)
    texts = [cell for cell in cells if words.issuperset(re.findall(r"\w+", cell)) and cell in prompt]
    texts += re.findall(r"[\"'\u201c]([^\"'\u201c\u201d]{1,60})[\"'\u201d]", prompt)
    numbers = [int(digits) for digits in re.findall(r"(?<![\w-])\d{1,15}(?![\w-])", prompt)]
    return [*sorted(dict.fromkeys(texts), key=len, reverse=True), *dict.fromkeys(numbers)]


def _echoes(case: Case) -> Iterator[Named]:
    """Answers made of what the prompt names: the n-th text in every text field, the n-th number in every number field."""
    found = told(case)
    texts: list[JsonValue] = [value for value in found if isinstance(value, str)]
    texts += [word for word in re.findall(r"\b[A-Z][\w-]+", case.task.prompt) if word not in texts]
    numbers: list[JsonValue] = [value for value in found if not isinstance(value, str)]
    pools: dict[type, list[JsonValue]] = {str: texts or [case.task.prompt], int: numbers or [0], float: [0.0]}
    for index in range(min(N_ECHOES, max(len(texts), len(numbers)))):
        answer = {name: _from_pool(value, pools, index) for name, value in case.task.oracle.answer.items()}
        yield f"echo {index} {str(next(iter(answer.values())))[:20]!r}", Outcome(answer=answer)


def _from_pool(like: JsonValue, pools: dict[type, list[JsonValue]], index: int) -> JsonValue:
    """A value of the form of another one, from a pool for its type; nothing of the other one but its form."""
    if isinstance(like, list):
        return [_from_pool(item, pools, index + place) for place, item in enumerate(like)]
    if isinstance(like, dict):
        return {key: _from_pool(item, pools, index) for key, item in like.items()}
    pool = pools.get(type(like), [False])
    return pool[index % len(pool)]


def _modal(case: Case) -> Iterator[Named]:
    """The commonest value of the columns that hold the right one, where one value is the commonest."""
    answer = {name: _commonest(case, name, value) for name, value in case.task.oracle.answer.items()}
    if all(value is not None for value in answer.values()):
        yield f"commonest values {str(answer)[:60]}", Outcome(answer=answer)


def _commonest(case: Case, name: str, like: JsonValue) -> JsonValue:
    """None when there is no such value."""
    if isinstance(like, list):
        items = [_commonest(case, name, item) for item in like]
        return None if None in items else items
    if isinstance(like, dict):
        inner = {key: _commonest(case, key, item) for key, item in like.items()}
        return None if None in inner.values() else inner
    counts: Counter[Scalar] = Counter()
    for column, cells in case.named_columns:
        fits = any(type(cell) is type(like) and cell == like for cell in cells)
        # A number stands in many columns by chance; only one that the field is named after tells a guesser anything.
        if fits and (isinstance(like, str) or name == column or name.endswith(f"_{column}")):
            counts.update(cell for cell in cells if type(cell) is type(like))
    ranked = counts.most_common(2)
    clear = ranked and ranked[0][1] > 1 and (len(ranked) == 1 or ranked[0][1] > ranked[1][1])
    return ranked[0][0] if clear else None


def _lists(case: Case) -> Iterator[Named]:
    """All candidates at once, in each field that asks for several; the other fields are right."""
    right = case.task.oracle
    for name, value in right.answer.items():
        if not isinstance(value, list) or not value or isinstance(value[0], dict | list):
            continue
        every: list[JsonValue] = [*dict.fromkeys([*cast("list[Scalar]", value), *case.same_column(value[0])])]
        for label, answer in (("all candidates", every), ("all candidates twice", every + every)):
            if answer != value:
                yield f"{label} as {name}", Outcome(answer={**right.answer, name: answer}, changes=right.changes)


# ------------------------------------------------------------------------------------------------------------- mutants


def answer_mutants(case: Case) -> Iterator[Named]:
    """Vary each field of the oracle's answer, at every depth, and swap fields of one type."""
    oracle = case.task.oracle
    one_right = case.task.kind not in ("plan", "optimise")
    mutants: list[tuple[str, JsonValue]] = []
    for name, value in oracle.answer.items():
        mutants += [
            (f"{name}/{label}", {**oracle.answer, name: mutant})
            for label, mutant in _value_mutants(case, value, one_right)
        ]
        mutants.append((f"{name}/missing", {key: other for key, other in oracle.answer.items() if key != name}))
    if oracle.answer:
        mutants.append(("extra field", {**oracle.answer, "extra": 1}))
    if one_right:
        mutants += [(f"swapped {label}", mutant) for label, mutant in _swapped(oracle.answer)]
    for label, answer in mutants:
        if not _equal(answer, oracle.answer) and isinstance(answer, dict):
            yield label, Outcome(answer=answer, changes=oracle.changes)


def _equal(left: JsonValue, right: JsonValue) -> bool:
    """Equality with types: True is not 1."""
    return left == right and repr(left) == repr(right)


def _swapped(record: dict[str, JsonValue]) -> Iterator[tuple[str, dict[str, JsonValue]]]:
    names = list(record)
    for place, left in enumerate(names):
        for right in names[place + 1 :]:
            if type(record[left]) is type(record[right]) and record[left] != record[right]:
                yield f"{left} and {right}", {**record, left: record[right], right: record[left]}


def _value_mutants(case: Case, value: JsonValue, one_right: bool) -> Iterator[tuple[str, JsonValue]]:
    """Mutants of one value; where several answers are right, no other value that might be one of them."""
    if value is None:
        yield from (("zero", 0), ("empty text", ""))
    elif isinstance(value, bool):
        yield from (("negated", not value), ("as number", int(value)))
    elif isinstance(value, int):
        yield from _number_mutants(case, value, one_right)
    elif isinstance(value, float):
        yield from (("plus one", value + 1), ("doubled", value * 2), ("other sign", -value), ("as text", str(value)))
    elif isinstance(value, str):
        yield from _text_mutants(case, value, one_right)
    elif isinstance(value, list):
        yield from _list_mutants(case, value, one_right)
    else:
        yield from _record_mutants(case, value, one_right)


def _number_mutants(case: Case, value: int, one_right: bool) -> Iterator[tuple[str, JsonValue]]:
    yield from (("plus one", value + 1), ("minus one", value - 1), ("times ten", value * 10 + 1))
    yield from (("other sign", -value), ("other unit", value * 100), ("as text", str(value)))
    yield "as float", float(value) + 0.5
    if one_right:
        yield from _others(case, value, 2)


def _text_mutants(case: Case, value: str, one_right: bool) -> Iterator[tuple[str, JsonValue]]:
    if one_right:
        yield from _others(case, value, 3)
    yield "as list", [value]
    yield from (("decorated", value + " (best)"), ("empty", ""))
    if len(value) > 1:
        yield "cut", value[:-1]


def _others(case: Case, value: Scalar, count: int) -> Iterator[tuple[str, JsonValue]]:
    others = [other for other in case.same_column(value) if other != value]
    rng = case.rng(f"answer/{value}")
    for other in rng.sample(others, min(count, len(others))):
        yield f"other {other!r}", other


def _list_mutants(case: Case, value: list[JsonValue], one_right: bool) -> Iterator[tuple[str, JsonValue]]:
    if not value:
        yield "one item", ["No Such Row"]
        yield "null", None
        return
    yield from (("dropped", value[:-1]), ("duplicated", [*value[:-1], value[0]]), ("extended", [*value, value[0]]))
    yield from (("unknown", [*value[:-1], "No Such Row"]), ("emptied", []))
    if one_right and len(value) > 1 and _ORDERED.search(case.task.prompt):
        yield "reordered", [*value[1:], value[0]]
    for place in dict.fromkeys((0, len(value) - 1)):
        for label, mutant in _inner_mutants(case, value[place], one_right):
            yield f"{place}/{label}", [*value[:place], mutant, *value[place + 1 :]]


def _record_mutants(case: Case, value: dict[str, JsonValue], one_right: bool) -> Iterator[tuple[str, JsonValue]]:
    for key, inner in value.items():
        for label, mutant in _inner_mutants(case, inner, one_right):
            yield f"{key}/{label}", {**value, key: mutant}
        yield f"{key}/missing", {name: other for name, other in value.items() if name != key}
    yield "extra key", {**value, "extra": 1}
    if one_right:
        for label, mutant in _swapped(value):
            yield f"swapped {label}", mutant


def _inner_mutants(case: Case, value: JsonValue, one_right: bool) -> Iterator[tuple[str, JsonValue]]:
    """Of a value within a field: where several answers are right, another number may be part of one of them."""
    if not one_right and isinstance(value, int | float):
        return iter((("as text", str(value)),))
    return _value_mutants(case, value, one_right)
