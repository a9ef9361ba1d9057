"""The catalogue of gates: stable codes, each documented where it is written, shown by `envsynth explain CODE`.

A gate is a lint rule for environments. Codes: `SP1xx` the spec, `EX2xx` execution, `VF3xx` the verifier, `DF4xx`
difficulty, `SE5xx` security. A code never changes its meaning; a new meaning gets a new code.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from envsynth.errors import SpecError
from envsynth.gates.case import Case, Maker, Named
from envsynth.report import Finding, GateResult

GateFunction = Callable[[Case], GateResult]


@dataclass(frozen=True)
class Gate:
    """One gate."""

    code: str
    """Stable code."""
    title: str
    """One line."""
    run: GateFunction
    """The check; its docstring is the page that `explain` shows."""
    outcomes: Maker | None = None
    """The stated outcomes that it will have judged, so that those of several gates share a verifier worker."""

    @property
    def page(self) -> str:
        """The documentation page: what it does, why, how to fix."""
        return f"{self.code}: {self.title}\n\n{inspect.getdoc(self.run) or ''}"


_FAMILIES = ("SP", "EX", "SE", "DF", "VF")
_GATES: dict[str, Gate] = {}


def gate(code: str, title: str, outcomes: Maker | None = None) -> Callable[[GateFunction], GateFunction]:
    """Register a function as the gate of a code."""

    def register(run: GateFunction) -> GateFunction:
        if code in _GATES:
            raise ValueError(f"two gates have the code {code}")
        _GATES[code] = Gate(code, title, run, outcomes)
        return run

    return register


def all_gates() -> tuple[Gate, ...]:
    """All gates in the order in which they run: each after those that it builds on, the dear ones last."""
    return tuple(sorted(_GATES.values(), key=lambda item: (_FAMILIES.index(item.code[:2]), item.code)))


def find_gate(code: str) -> Gate:
    """Look a gate up.

    Args:
        code: Its code, in any case.

    Returns:
        The gate.

    Raises:
        SpecError: no gate has that code; the message lists all codes.
    """
    found = _GATES.get(code.upper())
    if found is None:
        raise SpecError(f"no gate has the code {code!r}; there are {', '.join(_GATES)}")
    return found


def passed(code: str, **evidence: JsonValue) -> GateResult:
    """A passed result with its evidence."""
    return GateResult(code=code, status="pass", evidence=evidence)


def failed(code: str, findings: Iterable[Finding], **evidence: JsonValue) -> GateResult:
    """A failed result, or a passed one when there is no finding."""
    items = tuple(findings)
    return GateResult(code=code, status="fail" if items else "pass", findings=items, evidence=evidence)


def skipped(code: str, why: str) -> GateResult:
    """A result of a gate that does not apply."""
    return GateResult(code=code, status="skipped", evidence={"why": why})


def _accepted(case: Case, items: Sequence[Named]) -> tuple[list[str], list[str], int]:
    """Judge outcomes; return names accepted, names whose verdict is void, and the count."""
    verdicts = case.judge([outcome for _, outcome in items]) if items else []
    names = [name for name, _ in items]
    accepted = [name for name, verdict in zip(names, verdicts, strict=True) if verdict.status == "pass"]
    void = [
        f"{name}: {verdict.failure}" for name, verdict in zip(names, verdicts, strict=True) if verdict.status == "void"
    ]
    return accepted, void, len(items)


def must_refuse(code: str, case: Case, outcomes: Sequence[Named], what: str) -> GateResult:
    """The result of a gate whose outcomes must all be refused.

    Args:
        code: The gate.
        case: The task.
        outcomes: What is judged.
        what: How findings call it.

    Returns:
        A pass when the verifier refuses all of them; one that breaks it is a finding as well.
    """
    accepted, void, count = _accepted(case, outcomes)
    findings = [Finding(code=code, message=f"{what} {name} is accepted", where="task.verifier") for name in accepted]
    findings += [Finding(code=code, message=f"the verifier broke on {name}", where="task.verifier") for name in void]
    return failed(code, findings, total=count, killed=count - len(accepted) - len(void))
