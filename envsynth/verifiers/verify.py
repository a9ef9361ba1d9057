"""One verdict for one episode, and many verdicts for stated outcomes; either from a fresh verifier worker."""

from __future__ import annotations

import base64
import functools
import marshal
from collections.abc import Sequence
from importlib import resources
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from envsynth.errors import SandboxError, SpecError
from envsynth.sandbox import CallResult, Jail, Limits, Worker
from envsynth.spec import Outcome, TaskVersion
from envsynth.trajectory import CheckResult, Verdict
from envsynth.verifiers.strict import schema_problem

VERIFIER_LIMITS = Limits(soft_s=5.0, hard_s=10.0, cpu_s=60)
"""What one request to a verifier worker may use."""

BATCH = 32
"""Outcomes in one request of `judge`; each request has the whole time limit."""


class _Reply(BaseModel):
    """What the kernel must say about one outcome; anything else is no verdict."""

    model_config = ConfigDict(extra="forbid", strict=True)

    checks: list[Annotated[tuple[str, bool, str], Field(strict=False)]]
    broken: str | None


_REPLIES = TypeAdapter(list[_Reply])


@functools.cache
def kernel_source() -> str:
    """Return the source text of the kernel that is loaded into every verifier worker."""
    return resources.files("envsynth.verifiers").joinpath("kernel.py").read_text(encoding="utf-8")


@functools.cache
def _kernel_loader() -> str:
    """Return source that defines the kernel from its bytecode: compiling it anew in each worker costs more than a verdict.

    Workers run this process's interpreter, so the bytecode fits.
    """
    code = compile(kernel_source(), "<verifier_kernel>", "exec", dont_inherit=True, optimize=0)
    data = base64.b64encode(marshal.dumps(code)).decode()
    return f"import base64, marshal\nexec(marshal.loads(base64.b64decode({data!r})))\n"


def _void(failure: str) -> Verdict:
    return Verdict(status="void", score=None, failure=failure)


def _schema_verdict(task: TaskVersion, answer: dict[str, JsonValue] | None) -> Verdict | None:
    """Judge the answer's form on the host; None when it conforms."""
    if answer is None:
        problem: str | None = "no final answer was given"
    else:
        try:
            problem = schema_problem(task.answer_schema, answer)
        except SpecError as error:
            return _void(f"broken verifier: answer_schema: {error}")
    if problem is None:
        return None
    check = CheckResult(id="answer.schema", ok=False, reason=problem)
    return Verdict(status="fail", score=0.0, checks=(check,))


def _payload(task: TaskVersion) -> dict[str, JsonValue]:
    verifier = task.verifier
    return {
        "form": verifier.form,
        "definitions": verifier.definitions,
        "atoms": [{"id": atom.id, "kind": atom.kind, "expression": atom.expression} for atom in verifier.atoms],
        "program": verifier.program,
    }


def _failed(step: str, result: CallResult) -> str:
    detail = ": ".join(part for part in (result.error_type, result.message) if part)
    return f"{step}: {result.status.value}" + (f" ({detail})" if detail else "")


def _prepare(worker: Worker, images: dict[str, bytes]) -> str | None:
    loaded = worker.load(_kernel_loader(), "verifier_kernel")
    if not loaded.ok:
        return _failed("the kernel was not loaded", loaded)
    for name, image in images.items():
        opened = worker.open(image, name)
        if not opened.ok:
            return _failed(f"the {name} image was not opened", opened)
    return None


def _verdict(task: TaskVersion, reply: _Reply) -> Verdict:
    if reply.broken is not None:
        return _void(f"broken verifier: {reply.broken}")
    quotes = {atom.id: atom.quote for atom in task.verifier.atoms}
    expected = [*quotes, "frame"] if task.verifier.form == "atoms" else ["program"]
    if [check[0] for check in reply.checks] != expected:
        return _void("broken verifier: the worker's reply does not list the task's checks")
    schema = CheckResult(id="answer.schema", ok=True)
    checks = tuple(
        CheckResult(id=name, ok=ok, reason=reason, quote=quotes.get(name, "")) for name, ok, reason in reply.checks
    )
    passed = all(check.ok for check in checks)
    status = "pass" if passed else "fail"
    return Verdict(status=status, score=1.0 if passed else 0.0, checks=(schema, *checks))


def verify(
    jail: Jail,
    task: TaskVersion,
    before: bytes,
    after: bytes,
    answer: dict[str, JsonValue] | None,
) -> Verdict:
    """Judge an episode from its initial and final database images and its final answer.

    Args:
        jail: Where the verifier worker is forked.
        task: The task version; its verifier runs in that worker only.
        before: Image of the database at reset.
        after: Image of the database at the end.
        answer: The final answer; None when none was given.

    Returns:
        The verdict. Void, never a score, when the verifier, its worker or an image is broken.
    """
    early = _schema_verdict(task, answer)
    if early is not None:
        return early
    arguments: dict[str, JsonValue] = {"task": _payload(task), "answer": answer}
    try:
        with jail.worker("verifier") as worker:
            failure = _prepare(worker, {"before": before, "after": after})
            if failure is not None:
                return _void(failure)
            result = worker.call("verify_images", arguments, databases=("before", "after"), limits=VERIFIER_LIMITS)
    except SandboxError as error:
        return _void(f"the verifier worker failed: {error}")
    replies = _replies([result.value]) if result.ok else _failed("the verifier broke", result)
    return _void(replies) if isinstance(replies, str) else _verdict(task, replies[0])


def _replies(value: JsonValue) -> list[_Reply] | str:
    try:
        return _REPLIES.validate_python(value)
    except ValidationError as error:
        return f"the verifier worker's reply is malformed: {error.error_count()} problems"


def judge(jail: Jail, task: TaskVersion, before: bytes, outcomes: Sequence[Outcome]) -> list[Verdict]:
    """Judge stated outcomes, such as mutants: each outcome's changes are applied to a copy of the initial rows.

    Outcomes share a worker, each in a namespace of its own. When a request breaks the worker, the outcomes of that
    request are judged again one by one, so that one bad outcome voids only itself.

    Args:
        jail: Where verifier workers are forked.
        task: The task version.
        before: Image of the database at reset.
        outcomes: What to judge.

    Returns:
        One verdict per outcome, in order.
    """
    verdicts: list[Verdict | None] = [_schema_verdict(task, outcome.answer) for outcome in outcomes]
    open_slots = [slot for slot, verdict in enumerate(verdicts) if verdict is None]
    for start in range(0, len(open_slots), BATCH):
        slots = open_slots[start : start + BATCH]
        found = _judge_batch(jail, task, before, [outcomes[slot] for slot in slots])
        for slot, verdict in zip(slots, found, strict=True):
            verdicts[slot] = verdict
    return [verdict for verdict in verdicts if verdict is not None]


def _judge_batch(jail: Jail, task: TaskVersion, before: bytes, outcomes: Sequence[Outcome]) -> list[Verdict]:
    arguments: dict[str, JsonValue] = {
        "task": _payload(task),
        "outcomes": [outcome.model_dump(mode="json") for outcome in outcomes],
    }
    try:
        with jail.worker("verifier") as worker:
            failure = _prepare(worker, {"before": before})
            if failure is not None:
                return [_void(failure) for _ in outcomes]
            result = worker.call("judge_outcomes", arguments, databases=("before",), limits=VERIFIER_LIMITS)
    except SandboxError as error:
        return [_void(f"the verifier worker failed: {error}") for _ in outcomes]
    replies = _replies(result.value) if result.ok else _failed("the verifier broke", result)
    if isinstance(replies, list) and len(replies) == len(outcomes):
        return [_verdict(task, reply) for reply in replies]
    if len(outcomes) > 1:
        return [_judge_batch(jail, task, before, [outcome])[0] for outcome in outcomes]
    return [_void(replies if isinstance(replies, str) else "the worker's reply has another length")]
