"""Gate VF320: does each goal atom decide anything?"""

from __future__ import annotations

from envsynth.actors import guess_value
from envsynth.gates.case import Case
from envsynth.gates.catalogue import failed, gate, skipped
from envsynth.gates.verifier_gates import answer_mutants, state_mutants
from envsynth.report import Finding, GateResult
from envsynth.spec import Outcome

TYPED_GUESSES = 64
"""Random answers of the right types among the outcomes."""


@gate("VF320", "every goal atom fails some wrong outcome")
def atoms_decide(case: Case) -> GateResult:
    """Judge wrong outcomes of all kinds, and look for atoms that none of them fails.

    The outcomes are the author's constraint mutants, mutants of answer and state, and random typed answers.

    Why: a condition that excludes nothing ("at most 99,000 grams" where everything together weighs less) makes the prompt
    longer and the task no harder, and an atom that is always true may be a slip. Where a task program exists, its author
    tests each condition by leaving it out. Limit: an atom may be sound and rarely fail; then a probe is missing that fails
    it. Fix: a limit that binds, a corrected expression, or a probe that breaks this condition alone.
    """
    atoms = case.task.verifier.atoms
    if case.task.ir is not None:
        return skipped("VF320", "the author of the task program tests each condition by leaving it out")
    if not atoms:
        return skipped("VF320", "the verifier has no atoms")
    outcomes = [probe.outcome for probe in case.task.probes if not probe.accept]
    outcomes += [outcome for _, outcome in (*answer_mutants(case), *state_mutants(case))]
    outcomes += _guesses(case)
    failing = {name for verdict in case.judge(outcomes) for name in verdict.failed}
    findings = [
        Finding(
            code="VF320",
            message=f"none of {len(outcomes)} wrong outcomes fails it",
            where=f"verifier.atoms.{atom.id}",
            fix="make the condition bind, or add a probe that breaks it alone",
        )
        for atom in atoms
        if atom.id not in failing
    ]
    return failed("VF320", findings, atoms=len(atoms), outcomes=len(outcomes))


def _guesses(case: Case) -> list[Outcome]:
    """Random typed answers, with the changes that go with the right one."""
    rng, oracle = case.rng("atoms"), case.task.oracle
    properties = case.task.answer_schema.get("properties")
    fields = properties if isinstance(properties, dict) else {}
    found: list[Outcome] = []
    for _ in range(TYPED_GUESSES if fields else 0):
        answer = {
            name: guess_value(
                rng, schema if isinstance(schema, dict) else {}, oracle.answer.get(name), case.same_column
            )
            for name, schema in fields.items()
        }
        found.append(Outcome(answer=answer, changes=oracle.changes))
    return found
