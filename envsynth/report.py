"""What gates found, as data: findings with stable codes, and the report of one environment or task version."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue

from envsynth.record import ContentHash, Record


class Finding(Record):
    """One finding of one gate."""

    code: str = Field(pattern=r"^(SP1|EX2|VF3|DF4|SE5|ST6)\d\d$")
    """Stable code; `envsynth explain CODE` documents it."""
    message: str
    """What is wrong, which value."""
    where: str = ""
    """Which part of the record: a path, a tool, an atom."""
    fix: str = ""
    """What to do."""


class GateResult(Record):
    """What one gate did."""

    code: str
    """The gate's code."""
    status: Literal["pass", "fail", "void", "skipped"]
    """`void`: the gate itself could not run; `skipped`: it does not apply, or an earlier gate failed."""
    findings: tuple[Finding, ...] = ()
    """Why it failed."""
    evidence: dict[str, JsonValue] = Field(default_factory=dict)
    """Counts and measurements, such as mutants killed; no times, so that reports are reproducible."""


class GateReport(Record):
    """All gates on one task version in its environment version."""

    environment: ContentHash
    """Environment version."""
    task: ContentHash
    """Task version."""
    results: tuple[GateResult, ...]
    """In the order in which they ran."""
    whole: bool = True
    """False when gates were left for a later check: then nothing failed so far, and the task is not audited."""

    @property
    def ok(self) -> bool:
        """Whether every gate passed or did not apply."""
        return all(result.status in ("pass", "skipped") for result in self.results)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings in order."""
        return tuple(finding for result in self.results for finding in result.findings)

    def evidence(self, code: str) -> dict[str, JsonValue]:
        """Return the evidence of one gate; empty when it did not run."""
        for result in self.results:
            if result.code == code:
                return result.evidence
        return {}


class SetReport(Record):
    """All rules for sets on some lists of tasks."""

    splits: dict[str, int]
    """Tasks by list, in the order in which the lists were named."""
    tasks: int = Field(ge=1)
    """Tasks of all lists."""
    environments: int = Field(ge=1)
    """Environment versions of those tasks."""
    against: tuple[str, ...] = ()
    """Suites that the tasks were held against."""
    results: tuple[GateResult, ...]
    """By code."""

    @property
    def ok(self) -> bool:
        """Whether every rule passed or did not apply."""
        return all(result.status in ("pass", "skipped") for result in self.results)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings in order."""
        return tuple(finding for result in self.results for finding in result.findings)

    def result(self, code: str) -> GateResult:
        """Return what one rule found.

        Raises:
            KeyError: it did not run.
        """
        for found in self.results:
            if found.code == code:
                return found
        raise KeyError(code)
