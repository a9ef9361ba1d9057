"""The catalogue of rules for sets: stable codes `ST6xx`, documented where they are written, like those of gates."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from envsynth.errors import SpecError
from envsynth.report import GateResult
from envsynth.set_audit.facts import TaskFacts
from envsynth.set_audit.reading import Members, Reference


@dataclass(frozen=True, kw_only=True)
class SetLimits:
    """What a set must keep to."""

    near: float = 0.8
    """Jaccard index of the prompts' word sequences above which two tasks are near duplicates, below 1."""
    shingle: int = 5
    """Words of a sequence (count)."""
    window: int = 13
    """Words in a row that a prompt may not share with a suite it is held against (count)."""
    distinct_worlds: float = 0.9
    """Least share of different structures among environments."""
    distinct_programs: float = 0.5
    """Least share of different skeletons among programs."""
    largest_share: float = 0.8
    """Largest share that one class of tasks, operator or mechanism may have."""
    judged_from: int = 20
    """Count from which on shares of classes, operators and mechanisms are judged."""

    def __post_init__(self) -> None:
        """Refuse limits that no set can be held to.

        Raises:
            SpecError: a share is outside [0, 1], `near` is 1, or a count is below 1.
        """
        for name in ("near", "distinct_worlds", "distinct_programs", "largest_share"):
            value: float = getattr(self, name)
            if not 0.0 <= value <= 1.0 or (name == "near" and value == 1.0):
                raise SpecError(f"{name} is a share, got {value}")
        for name in ("shingle", "window", "judged_from"):
            if getattr(self, name) < 1:
                raise SpecError(f"{name} counts, so it is at least 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class SetCase:
    """A set under audit."""

    members: Members
    """Its tasks."""
    references: Sequence[Reference] = ()
    """Suites that it must not contain."""
    limits: SetLimits = field(default_factory=SetLimits)
    """What it must keep to."""

    @property
    def tasks(self) -> list[TaskFacts]:
        """The tasks in order."""
        return self.members.tasks

    @cached_property
    def splits(self) -> dict[str, list[TaskFacts]]:
        """The tasks by split."""
        found: dict[str, list[TaskFacts]] = {}
        for task in self.tasks:
            found.setdefault(task.split, []).append(task)
        return found

    @cached_property
    def split_pairs(self) -> list[tuple[str, str]]:
        """Every two splits."""
        names = list(self.splits)
        return [(one, other) for number, one in enumerate(names) for other in names[number + 1 :]]

    def line(self, task: TaskFacts) -> Iterator[str]:
        """Yield a task version and those before it, the root last."""
        seen: dict[str, None] = {}
        digest: str | None = task.hash
        while digest is not None and digest not in seen:
            seen[digest] = None
            yield digest
            digest = self.members.parents.get(digest)

    def root(self, task: TaskFacts) -> str:
        """Return the first version of a task's lineage."""
        return list(self.line(task))[-1]

    def place(self, task: TaskFacts) -> str:
        """Say where a task stands: its split, where there are several."""
        return f"task {task.name}" + (f" in {task.split}" if len(self.splits) > 1 else "")


RuleFunction = Callable[[SetCase], GateResult]


@dataclass(frozen=True)
class SetRule:
    """One rule."""

    code: str
    """Stable code."""
    title: str
    """One line."""
    run: RuleFunction
    """The check; its docstring is the page that `explain` shows."""

    @property
    def page(self) -> str:
        """The documentation page: what it does, why, how to fix."""
        return f"{self.code}: {self.title}\n\n{inspect.getdoc(self.run) or ''}"


_RULES: dict[str, SetRule] = {}


def rule(code: str, title: str) -> Callable[[RuleFunction], RuleFunction]:
    """Register a function as the rule of a code."""

    def register(run: RuleFunction) -> RuleFunction:
        if code in _RULES:
            raise ValueError(f"two rules have the code {code}")
        _RULES[code] = SetRule(code, title, run)
        return run

    return register


def all_rules() -> tuple[SetRule, ...]:
    """All rules by code."""
    return tuple(_RULES[code] for code in sorted(_RULES))


def find_rule(code: str) -> SetRule:
    """Look a rule up.

    Args:
        code: Its code, in any case.

    Returns:
        The rule.

    Raises:
        SpecError: no rule has that code; the message lists all codes.
    """
    found = _RULES.get(code.upper())
    if found is None:
        raise SpecError(f"no rule for sets has the code {code!r}; there are {', '.join(sorted(_RULES))}")
    return found
