"""The catalogue of gates: stable codes, each documented where it is written, shown by `envsynth explain CODE`.

A gate is a lint rule for environments. Codes: `SP1xx` the spec, `EX2xx` execution, `VF3xx` the verifier, `DF4xx`
difficulty, `SE5xx` security. A code never changes its meaning; a new meaning gets a new code.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from pydantic import JsonValue

from envsynth.errors import SpecError
from envsynth.gates.case import Case
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

    @property
    def page(self) -> str:
        """The documentation page: what it does, why, how to fix."""
        return f"{self.code}: {self.title}\n\n{inspect.getdoc(self.run) or ''}"


_FAMILIES = ("SP", "EX", "SE", "DF", "VF")
_GATES: dict[str, Gate] = {}


def gate(code: str, title: str) -> Callable[[GateFunction], GateFunction]:
    """Register a function as the gate of a code."""

    def register(run: GateFunction) -> GateFunction:
        if code in _GATES:
            raise ValueError(f"two gates have the code {code}")
        _GATES[code] = Gate(code, title, run)
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
