"""Gates VF3xx: is the verifier neither loose nor strict? Mutation testing of the verifier, with outcomes as mutants."""

from __future__ import annotations

import math
from collections.abc import Iterator

from envsynth.actors import GUESS_LIMIT, guess_shares, zero_value
from envsynth.gates.answers import answer_mutants, fields_of, guess, guesses
from envsynth.gates.case import Case, Maker, Named
from envsynth.gates.catalogue import failed, gate, must_refuse, passed, skipped
from envsynth.record import Scalar
from envsynth.report import Finding, GateResult
from envsynth.spec import Outcome, ProbeCase, RowChange, Table
from envsynth.verifiers import schema_problem


def _nothing(case: Case) -> Iterator[Named]:
    empty = {name: zero_value(schema) for name, schema in fields_of(case).items()}
    yield from (("idle", Outcome(answer={})), ("typed empty", Outcome(answer=empty)))


@gate("VF301", "doing nothing fails", _nothing)
def nothing_fails(case: Case) -> GateResult:
    """Judge an untouched world with no answer, an empty answer, and a typed empty answer.

    Why: an idle agent passes 38 % of one published airline suite, because nobody asked. Fix: demand something that is
    not already true.
    """
    return must_refuse("VF301", case, case.named(_nothing), "the outcome")


@gate("VF302", "guessing fails", guesses)
def guessing_fails(case: Case) -> GateResult:
    """Judge what guessers answer who looked nothing up: constants, echoes, the commonest values, everything at once.

    Echoes are the prompt, and the texts and numbers that it names, in fields of their type. The commonest values are
    those of the columns that hold the right ones, where one value leads. Everything at once is a list of all candidates,
    in fields that ask for several. Up to 48 random typed answers know the right columns as well. All must fail. A random
    draw that equals the oracle's answer is left out: how often that happens is the business of VF308.

    Why: a verifier that accepts what merely looks like an answer rewards guessing. Fix: a stricter verifier, or for plans
    more conditions; when the commonest value is the right one, ask for something that is rarer.
    """
    return must_refuse("VF302", case, case.named(guesses), "the guess")


@gate("VF303", "answer mutants are refused", answer_mutants)
def answers_killed(case: Case) -> GateResult:
    """Judge the oracle's outcome with one field of the answer changed, at any depth, or with two fields swapped.

    Numbers: off by one, of another sign, in another unit, as text. Texts: another row's, cut, decorated, empty. Lists:
    an item dropped, repeated, added or unknown; in another order where the prompt demands one. Records: each of their
    fields. Where several answers are right, values that may be part of another one are not tried.

    Why: a verifier that never looks at a field, or compares loosely, pays for wrong answers. Fix: an atom per field,
    compared with type and value.
    """
    mutants = case.named(answer_mutants)
    if not mutants:
        return skipped("VF303", "the task asks for no answer")
    return must_refuse("VF303", case, mutants, "the mutant")


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


@gate("VF304", "state mutants are refused, and nothing else may change", state_mutants)
def states_killed(case: Case) -> GateResult:
    """Judge the oracle's outcome with its state changed: a write omitted, doubled or off by one, a side effect added.

    Why: most published verifiers check only that the wanted change is there; collateral damage passes. The frame
    condition, "nothing else changed", is tested on read tasks as well. Fix: claim exactly the wanted changes.
    """
    return must_refuse("VF304", case, case.named(state_mutants), "the mutant")


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


def _probes(accept: bool) -> Maker:
    return lambda case: [(probe.name, probe.outcome) for probe in case.task.probes if probe.accept is accept]


@gate("VF305", "constraint mutants are refused", _probes(False))
def constraints_killed(case: Case) -> GateResult:
    """Judge witnesses that meet all conditions of the task but one, as the author's oracle made them.

    Why: each condition of the prompt must be able to fail an outcome, or it is decoration. All of them, 100 %, must be
    refused; conditions without a witness are counted by the author. Fix: the atom of the condition that is named.
    """
    probes = [probe for probe in case.task.probes if not probe.accept]
    if not probes:
        return skipped("VF305", "the author gave no constraint mutants")
    return _probe_gate("VF305", case, probes, accept=False, what="the mutant")


@gate("VF306", "other valid outcomes are accepted", _probes(True))
def alternatives_accepted(case: Case) -> GateResult:
    """Judge other valid outcomes: other best choices, other orders of items and of changes.

    Why: a verifier that demands the author's own choice punishes honest actors; dozens of published tasks had to be
    mended for it. Fix: state the property, not the plan.
    """
    probes = [probe for probe in case.task.probes if probe.accept]
    if not probes:
        return skipped("VF306", "the author gave no alternatives")
    return _probe_gate("VF306", case, probes, accept=True, what="the alternative")


def _halves(case: Case) -> Iterator[Named]:
    oracle = case.task.oracle
    if oracle.changes:
        yield "answer without the changes", Outcome(answer=oracle.answer)
    if oracle.answer and schema_problem(case.task.answer_schema, {}) is not None:
        yield "changes without the answer", Outcome(answer={}, changes=oracle.changes)


@gate("VF307", "the answer format alone decides nothing", _halves)
def format_alone_fails(case: Case) -> GateResult:
    """Judge the oracle's answer on an untouched world when the task asks for changes, and the changes without the answer.

    Why: half a job must not pay. Fix: check both answer and state.
    """
    outcomes = case.named(_halves)
    if not outcomes:
        return passed("VF307", total=0)
    return must_refuse("VF307", case, outcomes, "half a job:")


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
        shares = guess_shares(case.task.oracle.answer, case.named_columns, case.task.answer_schema)
        share = math.prod(shares.values())
        found = (
            [] if share < GUESS_LIMIT else [Finding(code="VF308", message=_often(share), where="task.oracle.answer")]
        )
        return failed("VF308", found, share=share, fields=dict(shares))
    rng = case.rng("guess share")
    verdicts = case.judge([Outcome(answer=guess(case, rng)) for _ in range(N_GUESSES)])
    share = sum(verdict.status == "pass" for verdict in verdicts) / N_GUESSES
    found = [] if share < GUESS_LIMIT else [Finding(code="VF308", message=_often(share), where="task.verifier")]
    return failed("VF308", found, share=share, guesses=N_GUESSES)


def _often(share: float) -> str:
    return f"a guess is right once in {1 / share:.0f} tries, allowed is less often than once in {1 / GUESS_LIMIT:.0f}"
