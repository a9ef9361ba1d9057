"""Gates VF3xx: is the verifier neither loose nor strict? Mutation testing of the verifier, with outcomes as mutants."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator
from typing import cast

from pydantic import JsonValue

from envsynth.actors import GUESS_LIMIT, columns_of, guess_shares, guess_value, zero_value
from envsynth.gates.case import Case
from envsynth.gates.catalogue import failed, gate, passed, skipped
from envsynth.report import Finding, GateResult
from envsynth.spec import Outcome, ProbeCase, RowChange, Scalar, Table
from envsynth.verifiers import schema_problem

Named = tuple[str, Outcome]


def _accepted(case: Case, outcomes: Iterable[Named]) -> tuple[list[str], list[str], int]:
    """Judge outcomes; return names accepted, names whose verdict is void, and the count."""
    items = list(outcomes)
    verdicts = case.judge([outcome for _, outcome in items]) if items else []
    names = [name for name, _ in items]
    accepted = [name for name, verdict in zip(names, verdicts, strict=True) if verdict.status == "pass"]
    void = [
        f"{name}: {verdict.failure}" for name, verdict in zip(names, verdicts, strict=True) if verdict.status == "void"
    ]
    return accepted, void, len(items)


def _must_refuse(code: str, case: Case, outcomes: Iterable[Named], what: str) -> GateResult:
    accepted, void, count = _accepted(case, outcomes)
    findings = [Finding(code=code, message=f"{what} {name} is accepted", where="task.verifier") for name in accepted]
    findings += [Finding(code=code, message=f"the verifier broke on {name}", where="task.verifier") for name in void]
    return failed(code, findings, total=count, killed=count - len(accepted) - len(void))


def _fields(case: Case) -> dict[str, dict[str, JsonValue]]:
    return cast("dict[str, dict[str, JsonValue]]", case.task.answer_schema.get("properties") or {})


@gate("VF301", "doing nothing fails")
def nothing_fails(case: Case) -> GateResult:
    """Judge an untouched world with no answer, an empty answer, and a typed empty answer.

    Why: an idle agent passes 38 % of one published airline suite, because nobody asked. Fix: demand something that is
    not already true.
    """
    empty = {name: zero_value(schema) for name, schema in _fields(case).items()}
    outcomes = [("idle", Outcome(answer={})), ("typed empty", Outcome(answer=empty))]
    return _must_refuse("VF301", case, outcomes, "the outcome")


@gate("VF302", "guessing fails")
def guessing_fails(case: Case) -> GateResult:
    """Judge constant answers, echoes of the prompt, random typed answers drawn from the data, and random tool walks.

    Why: a verifier that accepts what merely looks like an answer rewards guessing. Random typed answers know the right
    columns; up to 48 of them and 3 random walks must all fail. A draw that equals the oracle's answer is left out: how
    often that happens is the business of VF308. Fix: a stricter verifier, or for plans more conditions.
    """
    rng = case.rng("guess")
    fields = _fields(case)
    constants: tuple[JsonValue, ...] = (case.task.prompt, 0, 1, "yes", "none", [], True)
    outcomes: list[Named] = [
        (f"constant {str(constant)[:20]!r}", Outcome(answer=dict.fromkeys(fields, constant))) for constant in constants
    ]
    for index in range(48 if fields else 0):
        answer = _guess(case, rng, fields)
        if answer != case.task.oracle.answer:
            outcomes.append((f"random {index}", Outcome(answer=answer)))
    result = _must_refuse("VF302", case, outcomes, "the guess")
    walks = [case.play_random(index) for index in range(3)]
    lucky = [index for index, run in enumerate(walks) if run.verdict.status == "pass"]
    findings = [*result.findings, *(Finding(code="VF302", message=f"random walk {index} passes") for index in lucky)]
    return failed("VF302", findings, **{**result.evidence, "walks": len(walks)})


def _guess(case: Case, rng: random.Random, fields: dict[str, dict[str, JsonValue]]) -> dict[str, JsonValue]:
    answer = case.task.oracle.answer
    return {name: guess_value(rng, schema, answer.get(name), case.same_column) for name, schema in fields.items()}


def answer_mutants(case: Case) -> Iterator[Named]:
    """Vary each field of the oracle's answer: off by one, sign, type, another row's value, dropped, duplicated, extra."""
    oracle = case.task.oracle
    accepts_any = case.task.kind in ("plan", "optimise")
    for name, value in oracle.answer.items():
        for label, mutant in _value_mutants(case, value, replace=not accepts_any):
            yield f"{name}/{label}", Outcome(answer={**oracle.answer, name: mutant}, changes=oracle.changes)
        rest = {key: other for key, other in oracle.answer.items() if key != name}
        yield f"{name}/missing", Outcome(answer=rest, changes=oracle.changes)
    if oracle.answer:
        yield "extra field", Outcome(answer={**oracle.answer, "extra": 1}, changes=oracle.changes)


def _value_mutants(case: Case, value: JsonValue, *, replace: bool) -> Iterator[tuple[str, JsonValue]]:
    if isinstance(value, bool):
        yield "negated", not value
    elif isinstance(value, int):
        yield from (
            ("plus one", value + 1),
            ("minus one", value - 1),
            ("times ten", value * 10 + 1),
            ("as text", str(value)),
        )
        yield "as float", float(value) + 0.5
    elif isinstance(value, str):
        others = [other for other in case.same_column(value) if other != value]
        rng = case.rng(f"answer/{value}")
        for other in rng.sample(others, min(3, len(others))) if replace else []:
            yield f"other {other!r}", other
        yield "as list", [value]
        yield "decorated", value + " (best)"
    elif isinstance(value, list) and value:
        yield from (("dropped", value[:-1]), ("duplicated", [*value[:-1], value[0]]), ("extended", [*value, value[0]]))
        yield "unknown", [*value[:-1], "No Such Row"]


@gate("VF303", "answer mutants are refused")
def answers_killed(case: Case) -> GateResult:
    """Judge the oracle's outcome with one field of the answer changed.

    Why: a verifier that never looks at a field, or compares loosely, pays for wrong answers. Fix: an atom per field,
    compared with type and value.
    """
    mutants = [item for item in answer_mutants(case) if item[1].answer != case.task.oracle.answer]
    if not mutants:
        return skipped("VF303", "the task asks for no answer")
    return _must_refuse("VF303", case, mutants, "the mutant")


def state_mutants(case: Case) -> Iterator[Named]:
    """Vary the changes of state: omit each, apply each insert twice, number off by one, an extra edit elsewhere."""
    oracle = case.task.oracle
    for index, change in enumerate(oracle.changes):
        rest = (*oracle.changes[:index], *oracle.changes[index + 1 :])
        yield f"omit {index}", Outcome(answer=oracle.answer, changes=rest)
        # A second insert of a stated key is no state that can be; keys that tools fill themselves can repeat.
        if change.op == "insert" and not set(case.spec.world.table(change.table).primary_key) <= set(change.row):
            yield f"twice {index}", Outcome(answer=oracle.answer, changes=(*oracle.changes, change))
        for column, cell in change.row.items():
            if isinstance(cell, int) and column not in _keys(case, change.table):
                wrong = change.model_copy(update={"row": {**change.row, column: cell + 1}})
                yield f"{index}/{column} + 1", Outcome(answer=oracle.answer, changes=(*rest, wrong))
    for label, extra in _side_effects(case):
        yield label, Outcome(answer=oracle.answer, changes=(*oracle.changes, extra))


def _keys(case: Case, table: str) -> set[str]:
    """Columns that identify or refer: a different key may be another valid choice, which the author's probes cover."""
    record = case.spec.world.table(table)
    return {*record.primary_key, *(column.name for column in record.columns if column.references)}


def _side_effects(case: Case) -> Iterator[tuple[str, RowChange]]:
    rng = case.rng("side")
    touched = {change.table for change in case.task.oracle.changes}
    tables = [table for table in case.spec.world.tables if case.spec.world.rows.get(table.name)]
    for table in rng.sample(tables, min(3, len(tables))):
        row = rng.choice(case.spec.world.rows[table.name])
        cells = dict(zip([column.name for column in table.columns], row, strict=True))
        edit = _edited_cell(table, cells)
        if edit is not None:
            key = {name: cells[name] for name in table.primary_key}
            yield f"side edit of {table.name}", RowChange(op="update", table=table.name, row={**key, **edit})
        if table.name not in touched and not _referenced(case, table.name):
            key = {name: cells[name] for name in table.primary_key}
            yield f"side delete from {table.name}", RowChange(op="delete", table=table.name, row=key)


def _edited_cell(table: Table, cells: dict[str, Scalar]) -> dict[str, Scalar] | None:
    for column in table.columns:
        value = cells[column.name]
        if column.name in table.primary_key or column.references or column.unique or value is None:
            continue
        return {column.name: value + 7 if isinstance(value, int | float) else f"{value}~"}
    return None


def _referenced(case: Case, name: str) -> bool:
    return any(
        (column.references or "").startswith(f"{name}.") for table in case.spec.world.tables for column in table.columns
    )


@gate("VF304", "state mutants are refused, and nothing else may change")
def states_killed(case: Case) -> GateResult:
    """Judge the oracle's outcome with its state changed: a write omitted, doubled or off by one, a side effect added.

    Why: most published verifiers check only that the wanted change is there; collateral damage passes. The frame
    condition, "nothing else changed", is tested on read tasks as well. Fix: claim exactly the wanted changes.
    """
    return _must_refuse("VF304", case, state_mutants(case), "the mutant")


def _probe_gate(code: str, case: Case, probes: list[ProbeCase], accept: bool, what: str) -> GateResult:
    verdicts = case.judge([probe.outcome for probe in probes])
    wanted = "pass" if accept else "fail"
    wrong = [(probe, verdict) for probe, verdict in zip(probes, verdicts, strict=True) if verdict.status != wanted]
    findings = [
        Finding(
            code=code,
            message=f"{what} {probe.name} gets {verdict.status}"
            + (f" ({', '.join(verdict.failed)})" if accept else ""),
            where="task.verifier",
        )
        for probe, verdict in wrong
    ]
    return failed(code, findings, total=len(probes), right=len(probes) - len(wrong))


@gate("VF305", "constraint mutants are refused")
def constraints_killed(case: Case) -> GateResult:
    """Judge witnesses that meet all conditions of the task but one, as the author's oracle made them.

    Why: each condition of the prompt must be able to fail an outcome, or it is decoration. All of them, 100 %, must be
    refused; conditions without a witness are counted by the author. Fix: the atom of the condition that is named.
    """
    probes = [probe for probe in case.task.probes if not probe.accept]
    if not probes:
        return skipped("VF305", "the author gave no constraint mutants")
    return _probe_gate("VF305", case, probes, accept=False, what="the mutant")


@gate("VF306", "other valid outcomes are accepted")
def alternatives_accepted(case: Case) -> GateResult:
    """Judge other valid outcomes: other best choices, other orders of items and of changes.

    Why: a verifier that demands the author's own choice punishes honest actors; dozens of published tasks had to be
    mended for it. Fix: state the property, not the plan.
    """
    probes = [probe for probe in case.task.probes if probe.accept]
    if not probes:
        return skipped("VF306", "the author gave no alternatives")
    return _probe_gate("VF306", case, probes, accept=True, what="the alternative")


@gate("VF307", "the answer format alone decides nothing")
def format_alone_fails(case: Case) -> GateResult:
    """Judge the oracle's answer on an untouched world when the task asks for changes, and the changes without the answer.

    Why: half a job must not pay. Fix: check both answer and state.
    """
    oracle = case.task.oracle
    outcomes: list[Named] = []
    if oracle.changes:
        outcomes.append(("answer without the changes", Outcome(answer=oracle.answer)))
    if oracle.answer and schema_problem(case.task.answer_schema, {}) is not None:
        outcomes.append(("changes without the answer", Outcome(answer={}, changes=oracle.changes)))
    if not outcomes:
        return passed("VF307", total=0)
    return _must_refuse("VF307", case, outcomes, "half a job:")


N_GUESSES = 192
"""Guesses at a task that accepts several answers."""


@gate("VF308", "a guess hits less often than once in 64")
def guess_is_rare(case: Case) -> GateResult:
    """Say how often a guesser hits who looks nothing up, but knows the schema, the columns and the size of the numbers.

    Why: a name out of 30 is right once in 30 tries, and a count below 20 once in 20: in a group of rollouts such hits
    look like skill. For a task with one right answer the share is computed: for a text the best of a uniform draw and a
    random cell over the columns that hold it, for a number one in twice its size (at least 21) or its frequency in the
    column that the field is named after; fields multiply. For a task that accepts several answers 192 guesses are
    judged. Limits: fields count as independent, so an actor that reads one table and reports a row of it at random hits
    more often; and a task that asks for changes is left to VF307, which shows that no answer alone passes. Fix: ask for
    another field, or from a larger table.
    """
    if case.task.oracle.changes:
        return skipped("VF308", "the task asks for changes: an answer alone fails (VF307)")
    if case.task.kind in ("read", "infeasible", "service"):
        shares = guess_shares(case.task.oracle.answer, columns_of(case.spec.world), case.task.answer_schema)
        share = math.prod(shares.values())
        found = (
            [] if share < GUESS_LIMIT else [Finding(code="VF308", message=_often(share), where="task.oracle.answer")]
        )
        return failed("VF308", found, share=share, fields=dict(shares))
    rng, fields = case.rng("guess share"), _fields(case)
    verdicts = case.judge([Outcome(answer=_guess(case, rng, fields)) for _ in range(N_GUESSES)])
    share = sum(verdict.status == "pass" for verdict in verdicts) / N_GUESSES
    found = [] if share < GUESS_LIMIT else [Finding(code="VF308", message=_often(share), where="task.verifier")]
    return failed("VF308", found, share=share, guesses=N_GUESSES)


def _often(share: float) -> str:
    return f"a guess is right once in {1 / share:.0f} tries, allowed is less often than once in {1 / GUESS_LIMIT:.0f}"
