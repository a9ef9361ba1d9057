"""Records that only the store and its users know: rejections and suites; and the entries that listings return.

An entry is a row of the index without the record behind it: listing a thousand environments parses none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, StringConstraints, model_validator

from envsynth.record import ContentHash, Record, content_hash

SUITE_FORMAT = "envsynth-suite/1"
"""Version of the suite format; the first line of every exported suite carries it."""

Kind = Literal["read", "plan", "optimise", "infeasible", "act", "service", "diagnose", "recover"]
"""Class of a task, as in `TaskVersion.kind`."""

Status = Literal["passed", "failed", "unaudited"]
"""What the latest gate report made by this store's users says; a report that came with an import does not count."""

Origin = Literal["authored", "imported"]
"""Whether a record was made here or came with an imported suite."""


class Rejection(Record):
    """Why a draft was not accepted. Nothing that was rejected is stored as a task; this is what remains of it."""

    environment: ContentHash | None = None
    """Environment version that the draft belonged to, stored or not; None when there was none yet."""
    parent: ContentHash | None = None
    """Task version that the draft was hardened from; None at a root."""
    operator: str | None = None
    """Hardening operator that made the draft; None at a root."""
    stage: str = Field(min_length=1)
    """Which part refused it: `compose`, `oracle`, `render`, `gates`, `ladder` ..."""
    code: str = Field(min_length=1)
    """Stable code: of a gate, or of the author such as `tie` or `search_cap`."""
    message: str
    """What was wrong, which value."""
    draft: JsonValue = None
    """The draft as JSON, when it is worth keeping."""


@dataclass(frozen=True, kw_only=True)
class RefusalCount:
    """How often proposals were refused alike."""

    environment: str | None
    """Environment version."""
    operator: str | None
    """Hardening operator; None for roots."""
    stage: str
    """Which part refused."""
    code: str
    """Stable code."""
    count: int
    """How often."""


class SuiteItem(Record):
    """One task of a suite."""

    environment: ContentHash
    """Environment version."""
    task: ContentHash
    """Task version."""


class Suite(Record):
    """A frozen, named list of tasks. Its checksum covers which tasks in which order, so a result can cite it."""

    format: Literal["envsynth-suite/1"] = SUITE_FORMAT
    """Version of the suite format."""
    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+([._-][a-z0-9]+)*$", max_length=80)]
    """Name, unique in a store."""
    description: str = ""
    """What it is for."""
    items: tuple[SuiteItem, ...] = Field(min_length=1)
    """The tasks in order."""
    checksum: ContentHash
    """Hash of the ordered pairs of environment and task hash."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        tasks = [item.task for item in self.items]
        if len(set(tasks)) != len(tasks):
            raise ValueError("a task stands in the suite twice")
        if (found := suite_checksum(self.items)) != self.checksum:
            raise ValueError(f"checksum {self.checksum} does not fit the items, whose checksum is {found}")
        return self

    @classmethod
    def of(cls, name: str, items: Sequence[SuiteItem], description: str = "") -> Suite:
        """Make a suite of items and compute its checksum.

        Args:
            name: Lower-case name.
            items: The tasks in order, at least one.
            description: What it is for.

        Returns:
            The suite.

        Raises:
            SpecError: the name is malformed, there are no items, or one stands there twice.
        """
        return cls.parse(
            {
                "name": name,
                "description": description,
                "items": [item.model_dump() for item in items],
                "checksum": suite_checksum(items),
            }
        )


def suite_checksum(items: Sequence[SuiteItem]) -> str:
    """Hash the ordered pairs of environment and task hash."""
    return content_hash([[item.environment, item.task] for item in items])


Route = Literal["harden", "train", "hard", "park", "unmeasured"]
"""Where a calibration sends a task: to be hardened, to training, to the hard tier, aside; or it could not be measured."""


class PassEstimate(Record):
    """Pass@k of one task."""

    k: int = Field(ge=1)
    """Episodes that one may try."""
    value: float = Field(ge=0.0, le=1.0)
    """The estimate, without bias over both stages."""
    low: float = Field(ge=0.0, le=1.0)
    """Lower end of the exact interval of 95 %."""
    high: float = Field(ge=0.0, le=1.0)
    """Upper end."""


class Calibration(Record):
    """How difficult a task is for an actor, and what follows. Only scored episodes count; nothing is ever deleted by it."""

    environment: ContentHash
    """Environment version."""
    task: ContentHash
    """Task version."""
    actor: str = Field(min_length=1)
    """Who played."""
    seed: int = Field(ge=0)
    """Seed of the first episode; the others follow it."""
    pilot: tuple[int, int]
    """Scored episodes of the pilot, and passed ones among them."""
    more: tuple[int, int] | None = None
    """The same of the second stage; None when the pilot's share was outside the window."""
    certification: tuple[int, int] | None = None
    """The same of the search for a first pass after a pilot without any; in no rate."""
    void: int = Field(ge=0)
    """Episodes without a score, after all retries; in no rate."""
    rates: tuple[PassEstimate, ...]
    """Pass@k for growing k; none when the pilot was not scored whole."""
    band: tuple[float, float]
    """Shares of passes between which a task trains well."""
    route: Route
    """What follows."""
    certified: bool | None = None
    """Whether a pass was seen at all within the episodes that the certification allows; None when it was not asked for."""
    highest: float | None = Field(default=None, ge=0.0, le=1.0)
    """Without a pass: the rate that so many failures leave possible (95 %)."""
    planner: bool | None = None
    """Without a pass: whether the task's own solution passes, which tells a hard task from a broken one."""

    @property
    def n(self) -> int:
        """Scored episodes, certification included."""
        return sum(stage[0] for stage in (self.pilot, self.more, self.certification) if stage)

    @property
    def c(self) -> int:
        """Passed ones among them."""
        return sum(stage[1] for stage in (self.pilot, self.more, self.certification) if stage)


@dataclass(frozen=True, kw_only=True)
class TaskQuery:
    """Which tasks to list or to freeze; every condition that is not None must hold."""

    environment: str | None = None
    """Hash, unique prefix or slug of an environment version."""
    category: str | None = None
    """Category sentence of the environment, exactly."""
    kind: Kind | None = None
    """Class of the task."""
    operator: str | None = None
    """Operator of the last hardening step."""
    min_depth: int = 0
    """Least number of accepted hardening steps."""
    max_depth: int | None = None
    """Greatest number of accepted hardening steps."""
    leaves_only: bool = False
    """Only tasks that have not failed and have no child that has not failed."""
    status: Status | None = None
    """Result of the audit."""


@dataclass(frozen=True, kw_only=True)
class EnvironmentEntry:
    """What the index knows of an environment version."""

    hash: str
    """Content hash."""
    slug: str
    """Readable name, unique in the store."""
    title: str
    """One line for people."""
    category: str
    """Category sentence."""
    author: str
    """Who wrote it."""
    n_tools: int
    """Number of tools."""
    n_tables: int
    """Number of tables."""
    n_rows: int
    """Number of rows in all tables."""
    previous: str | None
    """Environment version that it was augmented from."""
    origin: Origin
    """Made here or imported."""


@dataclass(frozen=True, kw_only=True)
class TaskEntry:
    """What the index knows of a task version."""

    hash: str
    """Content hash."""
    environment: str
    """Hash of its environment version."""
    slug: str
    """Slug of its environment version."""
    category: str
    """Category sentence of its environment version."""
    parent: str | None
    """Hash of the version it was hardened from."""
    operator: str | None
    """Operator that made it."""
    depth: int
    """Accepted hardening steps from the root."""
    kind: str
    """Class of the task."""
    status: Status
    """Result of the audit."""
    origin: Origin
    """Made here or imported."""


@dataclass(frozen=True, kw_only=True)
class RunEntry:
    """One run and how far it came."""

    key: str
    """Name of the run; the same key resumes it."""
    command: str
    """What was run."""
    params: dict[str, JsonValue]
    """With which parameters."""
    finished: bool
    """Whether it came to its end."""
    n_units: int
    """Units committed."""
    n_tasks: int
    """Tasks accepted in them."""
    n_rejections: int
    """Drafts rejected in them."""


@dataclass(frozen=True, kw_only=True)
class UnitEntry:
    """One committed unit of a run."""

    unit: int
    """Number within the run."""
    environment: str | None
    """Hash of the environment version that it made, if it made one."""
    tasks: tuple[str, ...]
    """Hashes of the accepted tasks in order."""
    n_rejections: int
    """Drafts rejected."""
