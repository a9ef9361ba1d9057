"""Source text of the helpers that the definitions of every verifier start with, and the choice of mechanism texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from envsynth.errors import AuthorError

HELPERS = '''\
@once
def row_of(table, column, value):
    """The one initial row with this value."""
    found = [row for row in db[table] if row[column] == value]
    if len(found) != 1:
        raise LookupError(f"{len(found)} rows of {table} have {column} {value!r}")
    return found[0]


def extreme(members, measure, direction):
    """The one row that no other row equals or exceeds in the direction "max" or "min"."""
    values = [measure(row) for row in members]
    limit = max(values) if direction == "max" else min(values)
    if values.count(limit) != 1:
        raise LookupError(f"{values.count(limit)} rows share the {direction}")
    return members[values.index(limit)]


def rows_called(table, column, names):
    """The initial rows that an answer names, in its order; names that no row has are left out."""
    return [row for name in names for row in db[table] if same(row[column], name)]


def all_differ(values):
    """Whether no two values are equal."""
    return all(left != right for index, left in enumerate(values) for right in values[:index])


class Nothing(list):
    """Claims no change and is met all the same: the branch that applies asks for nothing."""

    def __bool__(self):
        return True


def for_each(members, rule):
    """The changes that a rule claims for all members, each with changes of its own; None if one lacks them."""
    left, claimed = list(diff), []
    for row in members:
        found = rule(db, left, row)
        if not found:
            return None
        claimed += found
        left = [entry for entry in left if not any(entry is taken for taken in found)]
    return claimed
'''

GROUPING = '''\
def peak(table, key, shares, direction):
    """The initial row whose shares, pairs (key of a row, amount), add up to the extreme; a row without one is left out."""
    having = [row for row in db[table] if any(owner == row[key] for owner, _ in shares)]
    return extreme(having, lambda row: sum(amount for owner, amount in shares if owner == row[key]), direction)
'''
"""Helper of the tasks that compare groups of rows."""

SEARCH = '''\
def sets_of(count, size, start=0):
    """All ways to take `size` of the numbers from `start` to `count` - 1, ascending."""
    if size == 0:
        yield []
        return
    for first in range(start, count - size + 1):
        for rest in sets_of(count, size - 1, first + 1):
            yield [first, *rest]


def differing(values):
    """A test of a set of positions: no two values are equal."""
    return lambda chosen: all_differ([values[number] for number in chosen])


def totalling(values, met):
    """A test of a set of positions: the total of the values is as it should be."""
    return lambda chosen: met(sum(values[number] for number in chosen))


def nearest_total(values, size, direction, tests):
    """The extreme total of all sets of positions that meet the tests; every set is looked at."""
    sets = [chosen for chosen in sets_of(len(values), size) if all(test(chosen) for test in tests)]
    totals = [sum(values[number] for number in chosen) for chosen in sets]
    if not totals:
        raise LookupError("no set meets the other conditions")
    return max(totals) if direction == "max" else min(totals)
'''
"""Helpers of verifiers that must prove that no set exists."""

_DEFINED = re.compile(r"^(?:@once\n)?(?:def|class) (\w+)|^(\w+) *=", re.MULTILINE)
_BLOCK = re.compile(r"^(?=\S)(?<!@once\n)", re.MULTILINE)
_RESERVED = (
    *(first or second for first, second in _DEFINED.findall(HELPERS + GROUPING + SEARCH)),
    *("db", "after", "diff", "answer", "same", "lookup", "once"),
)


def split(texts: Iterable[str]) -> dict[str, str]:
    """Cut goal texts into their top-level definitions.

    Args:
        texts: Sources in order; the same definition may stand in several of them, word for word.

    Returns:
        Source by name.

    Raises:
        AuthorError: a text redefines a helper, or two texts define a name differently.
    """
    found: dict[str, str] = {}
    for text in texts:
        for block in _BLOCK.split(text):
            match = _DEFINED.match(block)
            if match is None:
                if block.strip():
                    raise AuthorError(f"goal text may hold definitions only: {block[:120]}")
                continue
            name = match[1] or match[2]
            if name in _RESERVED:
                raise AuthorError(f"goal text defines {name!r}, a name of the verifier: rename it")
            if found.setdefault(name, block.strip("\n")) != block.strip("\n"):
                raise AuthorError(f"two goal texts define {name!r} differently: rename one")
    return found


def closure(blocks: Mapping[str, str], texts: Sequence[str]) -> list[str]:
    """Return the definitions whose names occur in the texts, or in such definitions, in their order."""
    used: dict[str, None] = {}
    todo = list(texts)
    while todo:
        words = dict.fromkeys(re.findall(r"\w+", todo.pop()))
        for name in blocks:
            if name in words and name not in used:
                used[name] = None
                todo.append(blocks[name])
    return [block for name, block in blocks.items() if name in used]
