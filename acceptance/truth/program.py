"""What a prompt asks for, as the second reader understands it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from acceptance.truth.world import Attribute, Handle


@dataclass(frozen=True)
class Fixed:
    """A value that the prompt states."""

    value: int | str | Handle


@dataclass(frozen=True)
class Named:
    """What an earlier sentence called X1, X2, ...; "it" inside a repeated action."""

    name: str


@dataclass(frozen=True)
class Term:
    """An attribute with what must be said besides: `free on 2031-05-07 from 10 o'clock to 13 o'clock`."""

    attribute: Attribute
    arguments: tuple[Operand, ...]


@dataclass(frozen=True)
class Of:
    """`the hourly rate of X1`, or `the names of X1`."""

    term: Term
    name: str


Operand = Fixed | Named | Of


@dataclass(frozen=True)
class Condition:
    """`whose capacity is at least 6 people`; `that are grantable` has no value."""

    term: Term
    sign: str
    value: Operand | None


@dataclass(frozen=True)
class Rows:
    """All rows of an entity that meet conditions."""

    entity: str
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True)
class Only:
    """The one row that meets the conditions."""

    name: str
    rows: Rows


@dataclass(frozen=True)
class Best:
    """The one row with the most or the least of an attribute."""

    name: str
    rows: Rows
    term: Term
    largest: bool


@dataclass(frozen=True)
class Group:
    """The row to which most or fewest rows are related, or with a term the one with the most or least of its sum."""

    name: str
    relation: Attribute
    rows: Rows
    term: Term | None
    largest: bool
    none_left_out: bool
    """Whether it is said that a row to which none is related does not count."""


@dataclass(frozen=True)
class Follow:
    """The row that another refers to."""

    name: str
    of: Of


@dataclass(frozen=True)
class Total:
    """How many rows, or with a term its sum over them."""

    name: str
    rows: Rows
    term: Term | None


@dataclass(frozen=True)
class Demand:
    """What a chosen set must meet: a bound on a sum, all different (`distinct`), or a goal (`most`, `least`)."""

    kind: str
    term: Term
    value: Operand | None = None


@dataclass(frozen=True)
class Choose:
    """Several different rows, any choice or any best choice."""

    name: str
    size: int
    rows: Rows
    demands: tuple[Demand, ...]
    may_be_empty: bool = False
    """Whether it is said that the choice is empty if there is none."""


@dataclass(frozen=True)
class ChoiceTotal:
    """What a choice adds up to; of an empty one the most or the least of any choice that meets all other conditions."""

    name: str
    choice: str
    term: Term
    largest: bool


@dataclass(frozen=True)
class Act:
    """One action with its arguments by parameter."""

    action: str
    arguments: tuple[tuple[str, Operand], ...]


@dataclass(frozen=True)
class Try:
    """A request that may be denied; the name stands for `done` or `denied`."""

    name: str
    act: Act


@dataclass(frozen=True)
class When:
    """One of two actions; None is nothing."""

    left: Operand
    sign: str
    right: Operand
    then: Act | None
    otherwise: Act | None


@dataclass(frozen=True)
class Each:
    """An action on every row of a set, which it calls "it"."""

    rows: Rows
    act: Act


Step = Only | Best | Group | Follow | Total | Choose | ChoiceTotal | Act | Try | When | Each


@dataclass(frozen=True)
class Program:
    """The sentences of a prompt; fields of the answer with what they tell."""

    steps: tuple[Step, ...]
    report: tuple[tuple[str, Operand], ...]


Found = dict[str, Any]
"""What the slots of a sentence matched."""
