"""Gates SP1xx: is the record itself sound, before anything is played?"""

from __future__ import annotations

from pydantic import JsonValue

from envsynth.errors import SandboxError, SpecError
from envsynth.gates.case import Case
from envsynth.gates.catalogue import failed, gate, passed, skipped
from envsynth.gates.parser import parse_apart
from envsynth.record import content_hash
from envsynth.report import Finding, GateResult
from envsynth.verifiers import malformed, schema_problem


@gate("SP101", "the world builds")
def world_builds(case: Case) -> GateResult:
    """Build the database image from schema, rows and overlay, in the sandbox.

    Why: wrong SQL, a broken foreign key or a duplicate key found during training is a void episode; found here it is a
    finding. Fix: mend the table, row or check that the message names.
    """
    try:
        size = len(case.image)
    except SpecError as error:
        return failed(
            "SP101", [Finding(code="SP101", message=str(error), where="world", fix="mend the named table or row")]
        )
    n_rows = sum(len(rows) for rows in case.spec.world.rows.values()) + len(case.task.overlay)
    return passed("SP101", image_bytes=size, tables=len(case.spec.world.tables), rows=n_rows)


@gate("SP102", "the task belongs to this environment version")
def task_belongs(case: Case) -> GateResult:
    """Compare the task's environment hash with the hash of the environment.

    Why: augmenting the toolset makes a new environment version, and every task must be audited again in it. Fix: make a
    new task version that names the new hash.
    """
    if case.task.environment == case.spec.hash:
        return passed("SP102")
    message = f"task is for environment {case.task.environment[:12]}, this is {case.spec.hash[:12]}"
    return failed(
        "SP102", [Finding(code="SP102", message=message, where="task.environment", fix="re-audit against this version")]
    )


@gate("SP103", "tool interfaces are well-formed")
def tools_well_formed(case: Case) -> GateResult:
    """Check each tool's JSON Schema and load all tool sources in the sandbox.

    Why: a schema that accepts unknown keys hides an actor's mistakes, and a source without its function fails at the
    first call of an episode. Fix: `"type": "object"`, `"additionalProperties": false`, and `def <tool name>(db, ...)`.
    """
    # The finding is about the environment version, which all its tasks share: once per process is enough.
    key = case.spec.hash
    if key not in _TOOL_FINDINGS:
        if len(_TOOL_FINDINGS) >= 64:
            _TOOL_FINDINGS.clear()
        _TOOL_FINDINGS[key] = (*_interface_findings(case), *_unloadable(case))
    writes = sum(tool.effect == "write" for tool in case.spec.tools)
    return failed("SP103", _TOOL_FINDINGS[key], tools=len(case.spec.tools), writes=writes)


_TOOL_FINDINGS: dict[str, tuple[Finding, ...]] = {}


def _interface_findings(case: Case) -> list[Finding]:
    findings: list[Finding] = []
    for tool in case.spec.tools:
        where = f"tools.{tool.name}.parameters"
        problem = malformed(tool.parameters)
        if problem is not None:
            findings.append(Finding(code="SP103", message=f"no JSON Schema: {problem}", where=where))
            continue
        if tool.parameters.get("type") != "object" or tool.parameters.get("additionalProperties") is not False:
            fix = 'set "type": "object" and "additionalProperties": false'
            findings.append(Finding(code="SP103", message="arguments are not a closed object", where=where, fix=fix))
        if not tool.description.strip():
            findings.append(
                Finding(code="SP103", message="no description", where=f"tools.{tool.name}", fix="say what it does")
            )
    return findings


def _unloadable(case: Case) -> list[Finding]:
    findings: list[Finding] = []
    try:
        with case.jail.worker("tools") as worker:
            for tool in case.spec.tools:
                where = f"tools.{tool.name}.source"
                loaded = worker.load(tool.source, tool.name)
                if not loaded.ok:
                    message = f"does not load: {loaded.status.value}: {loaded.error_type} {loaded.message}"
                    return [*findings, Finding(code="SP103", message=message, where=where, fix="mend the source")]
                probe = worker.load(f"if not callable({tool.name}):\n    raise TypeError('not a function')\n", "probe")
                if not probe.ok:
                    fix = f"define `def {tool.name}(db, ...)`"
                    findings.append(
                        Finding(code="SP103", message="defines no function of the tool's name", where=where, fix=fix)
                    )
    except SandboxError as error:
        findings.append(Finding(code="SP103", message=f"loading killed the worker: {error}", where="tools"))
    return findings


@gate("SP104", "the answer schema is well-formed and the oracle's answer meets it")
def answer_schema(case: Case) -> GateResult:
    """Check the answer schema and hold the oracle's answer against it.

    Why: an answer schema that no right answer meets makes the task unsolvable; an open one lets junk in. Fix: a closed
    object whose required keys are all fields.
    """
    schema = case.task.answer_schema
    broken = malformed(schema)
    if broken is not None:
        return failed("SP104", [Finding(code="SP104", message=f"no JSON Schema: {broken}", where="task.answer_schema")])
    findings: list[Finding] = []
    if schema.get("type") != "object" or schema.get("additionalProperties") is not False:
        fix = 'set "type": "object" and "additionalProperties": false'
        findings.append(
            Finding(code="SP104", message="answers are not a closed object", where="task.answer_schema", fix=fix)
        )
    problem = schema_problem(schema, case.task.oracle.answer)
    if problem:
        findings.append(
            Finding(code="SP104", message=f"the oracle's answer does not meet it: {problem}", where="task.oracle")
        )
    return failed("SP104", findings)


@gate("SP105", "every goal atom quotes what demands it")
def atoms_quoted(case: Case) -> GateResult:
    """Look for each atom's quote in the prompt and the policy.

    Why: a verifier that checks what nobody was told fails honest solutions; that is the commonest complaint about
    published benchmarks. Fix: state the requirement in the prompt or policy and quote it.
    """
    verifier = case.task.verifier
    if verifier.form != "atoms":
        return skipped("SP105", "a program verifier has no atoms")
    public = "\n".join([case.task.prompt, *case.spec.policy])
    findings = [
        Finding(
            code="SP105",
            message=f"quote {atom.quote[:80]!r} is in neither prompt nor policy",
            where=f"verifier.atoms.{atom.id}",
            fix="quote the words that demand it",
        )
        for atom in verifier.atoms
        if not atom.quote or atom.quote not in public
    ]
    return failed("SP105", findings, atoms=len(verifier.atoms))


@gate("SP106", "the prompt parses back to the same program")
def prompt_parses_back(case: Case) -> GateResult:
    """Parse the prompt in a fresh process from prompt and public docs alone, and compare with the task's program.

    What the user alone knows is read from the user's words: prompt and words together say what the program says.

    Why: a requirement that is lost or added between program and text makes a right answer fail. The parser knows
    nothing of the author's tables of words. Fix: mend the renderer, or the label that the message shows.
    """
    if case.task.ir is None:
        return skipped("SP106", "the author gave no task program; SP105 covers the link from words to checks")
    user: dict[str, JsonValue] = {fact.topic: fact.says for fact in case.task.delivery.user}
    reply = parse_apart(case.task.prompt, {**case.spec.public_docs, **({"user": user} if user else {})})
    if "error" in reply:
        return failed(
            "SP106", [Finding(code="SP106", message=f"does not parse: {reply['error']}", where="task.prompt")]
        )
    if reply["ir"] != case.task.ir:
        return failed("SP106", [Finding(code="SP106", message="parses to another program", where="task.prompt")])
    return passed("SP106", program=content_hash(case.task.ir))
