"""Gates SE5xx: can it be cheated?"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources

from pydantic import JsonValue

from envsynth.environments.actions import first_observation
from envsynth.gates.case import Case
from envsynth.gates.catalogue import failed, gate
from envsynth.report import Finding, GateResult


@gate("SE501", "the answer is not in what the actor reads first")
def no_leak(case: Case) -> GateResult:
    """Search the first observation (prompt, policy, tool documentation) for texts and long numbers of the answer.

    Why: an answer that stands in the prompt is copied, not found. Fix: describe the row instead of naming it, or report
    another attribute. A field whose schema lists its words (`enum`) is left out where all of them stand there: then none is
    told apart; a guess at it counts in VF308.
    """
    first = first_observation(case.spec, case.task)
    leaked: list[JsonValue] = []
    for name, value in case.task.oracle.answer.items():
        words = _words(case, name)
        if len(words) > 1 and all(word in first for word in words):
            continue
        told = [leaf for leaf in _leaves(value) if _tells(leaf) and str(leaf) in first]
        # A field of records may repeat what the prompt fixes (a date, the first city); it leaks when all of it is told.
        if not _is_plan(value) or all(str(leaf) in first for leaf in _leaves(value)):
            leaked += told
    return failed(
        "SE501",
        [Finding(code="SE501", message=f"the answer's {value!r} stands in the first observation") for value in leaked],
    )


def _words(case: Case, name: str) -> list[str]:
    """The words that the answer schema offers for a field."""
    fields = case.task.answer_schema.get("properties")
    field = fields.get(name) if isinstance(fields, dict) else None
    options = field.get("enum") if isinstance(field, dict) else None
    return [str(option) for option in options] if isinstance(options, list) else []


def _is_plan(value: JsonValue) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(isinstance(item, dict) for item in value))


def _leaves(value: JsonValue) -> Iterator[JsonValue]:
    if isinstance(value, dict):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _tells(value: JsonValue) -> bool:
    """Short numbers occur everywhere by chance; texts and numbers of four digits and more do not."""
    return (isinstance(value, str) and len(value) > 1) or (type(value) is int and abs(value) >= 1000)


@gate("SE502", "the solution uses tools and logic only")
def tool_only(case: Case) -> GateResult:
    """Check the solution's syntax tree against an allow-list, in a sandbox worker.

    Allowed are tool calls, logic and imports of pure standard modules (json, itertools ...); dunder names, files and
    everything else are refused.

    Why: the paper demands that solutions call tools or do logic, nothing else (arXiv:2512.02556, section 3.2.3); a
    solution with another way in would prove nothing. The sandbox is the boundary; this gate gives the early, readable
    finding. Fix: use `call(tool, **arguments)`.
    """
    checker = resources.files("envsynth.gates").joinpath("allow_list.py").read_text(encoding="utf-8")
    with case.jail.worker("verifier") as worker:
        loaded = worker.load(checker, "allow_list")
        result = worker.call("violations", {"source": case.task.solution}) if loaded.ok else loaded
    if not result.ok:
        message = f"could not be checked: {result.status.value}: {result.message}"
        return failed("SE502", [Finding(code="SE502", message=message, where="task.solution")])
    items = result.value if isinstance(result.value, list) else [f"odd reply {result.value!r}"]
    return failed("SE502", [Finding(code="SE502", message=str(item), where="task.solution") for item in items])
