"""Gates SE5xx: can it be cheated?"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from importlib import resources

from pydantic import JsonValue, RootModel

from envsynth.environments.actions import first_observation
from envsynth.gates.case import Case
from envsynth.gates.catalogue import failed, gate
from envsynth.report import Finding, GateResult
from envsynth.sandbox import Family, Source


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
    return _result("SE502", _lint_task(case)["solution"], "task.solution")


@gate("SE503", "the verifier's source compares, and does nothing else")
def verifier_compares(case: Case) -> GateResult:
    """Check the syntax trees of the verifier's sources, in a sandbox worker.

    Refused are: `eval`, `exec` and `compile`, which would run an answer; imports that are no pure logic, files and the
    interpreter's own names; looking for a text or pattern within the text of an answer (`in`, `re.search`,
    `startswith`), which a longer answer meets as well; an exception that ends in a pass; and a program that reads neither
    `after` nor `diff`, so that collateral damage passes. Only what the source shows is found: VF302 to VF310 submit what
    it should refuse.

    Why: these are the ways in which rewards of published benchmarks were had without the work. Fix: compare fields with
    type and value (`same`); claim changes by atoms, or compare the whole `diff`.
    """
    return _result("SE503", _lint_task(case)["verifier"], "task.verifier")


@gate("SE504", "tools have no more power than they need")
def tools_confined(case: Case) -> GateResult:
    """Check the syntax trees of the tools' sources, in a sandbox worker.

    Refused are: `eval`, `exec` and `compile`; imports beyond logic, data and seeded draws, such as `os`, `subprocess` or
    `socket`; files and the interpreter's own names; `executescript`; and SQL that is put together from an argument of type
    text, with which an actor could write statements of its own.

    Why: a tool with more power than its task needs is a way around the task. The sandbox stops what leaves the process;
    what happens in the database is up to the tool. Fix: constant SQL with `?` for values; choose columns from a constant
    table.
    """
    # The finding is about the environment version, which all its tasks share: once per process is enough.
    key = case.spec.hash
    if key not in _TOOL_RESULTS:
        if len(_TOOL_RESULTS) >= 64:
            _TOOL_RESULTS.clear()
        tools: list[JsonValue] = [
            {"name": tool.name, "source": tool.source, "texts": _of_type_text(tool.parameters.get("properties"))}
            for tool in case.spec.tools
        ]
        found = _linted(case, "lint_tools", {"tools": tools}, [tool.name for tool in case.spec.tools])
        findings = [
            Finding(code="SE504", message=item, where=f"tools.{tool.name}.source")
            for tool in case.spec.tools
            for item in found[tool.name]
        ]
        _TOOL_RESULTS[key] = failed("SE504", findings, tools=len(case.spec.tools))
    return _TOOL_RESULTS[key]


_TOOL_RESULTS: dict[str, GateResult] = {}


def _of_type_text(properties: JsonValue) -> list[JsonValue]:
    """Names of properties of type text that may hold any text."""
    found = properties.items() if isinstance(properties, dict) else ()
    return [name for name, schema in found if isinstance(schema, dict) and _is_free_text(schema)]


def _is_free_text(schema: dict[str, JsonValue]) -> bool:
    kinds = schema.get("type", "string")
    return "string" in (kinds if isinstance(kinds, list) else [kinds]) and not {"enum", "const"} & set(schema)


@functools.cache
def _linters() -> Family:
    """Workers that have the rules loaded, and nothing else."""
    folder = resources.files("envsynth.gates")
    names = ("allow_list", "source_lint")
    texts = [folder.joinpath(f"{name}.py").read_text(encoding="utf-8") for name in names]
    return Family("verifier", tuple(Source(name=name, text=text) for name, text in zip(names, texts, strict=True)))


def _lint_task(case: Case) -> dict[str, list[str]]:
    """Problems of the solution and of the verifier, by a worker that is asked once for both."""
    verifier = case.task.verifier
    sources = [verifier.program, verifier.definitions, *(atom.expression for atom in verifier.atoms)]
    given: dict[str, JsonValue] = {
        "solution": case.task.solution,
        "sources": [source for source in sources if source.strip()],
        "texts": _of_type_text(case.task.answer_schema.get("properties")),
    }
    return case.once("lint", lambda: _linted(case, "lint_task", given, ("solution", "verifier")))


class _Reply(RootModel[dict[str, list[str]]]):
    """What the rules say, by part."""


def _linted(case: Case, rules: str, given: dict[str, JsonValue], parts: Sequence[str]) -> dict[str, list[str]]:
    """What a function of the rules says of sources, by part; sources that break it are a finding of all parts."""
    result = case.ask_aide(_linters(), rules, given)
    if not result.ok:
        return {part: [f"could not be checked: {result.status.value}: {result.message}"] for part in parts}
    return _Reply.model_validate(result.value).root


def _result(code: str, items: list[str], where: str) -> GateResult:
    return failed(code, [Finding(code=code, message=item, where=where) for item in items])
