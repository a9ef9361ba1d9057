"""The data of a report, as records: what was made, what was refused, how it was played, what was exported."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from envsynth.report import GateReport
from envsynth.spec import EnvironmentSpec, TaskVersion
from envsynth.trajectory import Trajectory

Audited = tuple[TaskVersion, GateReport]
"""A task version with its gates."""


@dataclass(frozen=True, kw_only=True)
class CategorySection:
    """What one category sentence became."""

    category: str
    """The sentence."""
    reading: str
    """How it was understood, in words."""
    environments: tuple[EnvironmentSpec, ...]
    """Environment versions."""
    tasks: tuple[Audited, ...]
    """All task versions, each parent before its children."""
    rejections: Mapping[str, int]
    """Refused proposals by code."""


@dataclass(frozen=True, kw_only=True)
class LadderRow:
    """How one actor did on the suite."""

    actor: str
    """Actor."""
    tasks: int
    """Tasks played."""
    passed: int
    """Episodes passed."""
    scored: int
    """Episodes with a score."""
    void: int
    """Episodes without a judgement, in no rate."""
    rate: float
    """Share of scored episodes that passed."""
    low: float
    """Lower end of the 95 % confidence interval."""
    high: float
    """Upper end."""
    mean_calls: float
    """Tool calls per episode."""


@dataclass(frozen=True, kw_only=True)
class SuiteSection:
    """The frozen suite and its files."""

    name: str
    """Name."""
    tasks: int
    """Tasks."""
    checksum: str
    """Checksum over the ordered hashes."""
    files: tuple[tuple[str, int], ...]
    """Exported files with their sizes in bytes."""


@dataclass(frozen=True, kw_only=True)
class PolicyRow:
    """How one policy did on tasks that it had never seen."""

    stage: str
    """Which weights."""
    manner: str
    """`greedy` or `sampled`."""
    rate: float
    """pass@1."""
    low: float
    """Lower end of the 95 % interval over environments."""
    high: float
    """Upper end."""
    tasks: int
    """Tasks."""
    episodes: int
    """Episodes."""


@dataclass(frozen=True, kw_only=True)
class TrainingSection:
    """How a policy learned."""

    parameters: int
    """Weights (count)."""
    threads: int
    """Threads of tensor operations, chosen by measuring."""
    seconds: float
    """Everything: lessons, training, playing."""
    sft_seconds: float
    """Budget of imitation."""
    grpo_seconds: float
    """Budget of rewards, and of the control."""
    curve: tuple[tuple[float, float], ...]
    """Seconds of imitation, and accuracy on action tokens of the lessons."""
    rows: tuple[PolicyRow, ...]
    """pass@1 of each stage, greedy and sampled."""
    torch: str
    """Version of torch."""


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """Everything that a report shows."""

    title: str
    """Headline."""
    seed: int
    """Seed of the run."""
    version: str
    """Version of envsynth."""
    sections: tuple[CategorySection, ...]
    """One per category."""
    lineage: tuple[Audited, ...]
    """One lineage, root first."""
    episode: Trajectory
    """The gold episode of the lineage's last version."""
    failure: Trajectory | None
    """An episode of the same task by a solver that lacks one skill."""
    ladder: tuple[LadderRow, ...]
    """Evaluation of the actor ladder."""
    suite: SuiteSection
    """The frozen suite."""
    commands: tuple[str, ...] = field(default=())
    """Commands that go on from here."""
    training: TrainingSection | None = None
    """How a policy learned on such tasks."""
