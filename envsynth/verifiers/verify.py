"""One verdict for one episode, and many verdicts for stated outcomes; either from a fresh verifier worker."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from envsynth.errors import SandboxError, SpecError
from envsynth.sandbox import CallResult, Failure, Family, Jail, Limits, Source, Worker
from envsynth.sandbox.requests import Request, call, open_image
from envsynth.spec import Outcome, TaskVersion
from envsynth.trajectory import CheckResult, Verdict, void_verdict
from envsynth.verifiers.strict import SchemaCheck

T = TypeVar("T")

VERIFIER_LIMITS = Limits(soft_s=5.0, hard_s=10.0, cpu_s=60)
"""What one request to a verifier worker may use."""

BATCH = 64
"""Outcomes in one request; each request has the whole time limit."""

BATCH_BYTES = 16 << 20
"""Size of the database images in one request, of which all but the first need not fit."""


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
def verifier_family() -> Family:
    """The family of all verifier workers: they start with the kernel, and nothing of any task."""
    return Family("verifier", (Source(name="verifier_kernel", text=kernel_source()),))


_UNTOLD = "the answer does not conform to its schema"


def _schema_verdicts(
    task: TaskVersion, answers: Sequence[dict[str, JsonValue] | None], *, brief: bool
) -> list[Verdict | None]:
    """Judge the form of answers on the host; None for one that conforms. Brief: without saying what is wrong."""
    try:
        check = SchemaCheck(task.answer_schema)
        if brief:
            fit = [answer is not None and check.fits(answer) for answer in answers]
            return [None if fits else _malformed(_UNTOLD) for fits in fit]
        problems = ["no final answer was given" if answer is None else check.problem(answer) for answer in answers]
    except SpecError as error:
        return [void_verdict(f"broken verifier: answer_schema: {error}")] * len(answers)
    return [None if problem is None else _malformed(problem) for problem in problems]


def _malformed(problem: str) -> Verdict:
    return Verdict(status="fail", score=0.0, checks=(CheckResult(id="answer.schema", ok=False, reason=problem),))


def _payload(task: TaskVersion) -> dict[str, JsonValue]:
    verifier = task.verifier
    return {
        "form": verifier.form,
        "definitions": verifier.definitions,
        "atoms": [{"id": atom.id, "kind": atom.kind, "expression": atom.expression} for atom in verifier.atoms],
        "program": verifier.program,
    }


def _failed(step: str, result: CallResult) -> Verdict:
    detail = ": ".join(part for part in (result.error_type, result.message) if part)
    told = f"{step}: {result.status.value}" + (f" ({detail})" if detail else "")
    return void_verdict(told, result.status.value)


def _verdict(task: TaskVersion, reply: _Reply) -> Verdict:
    if reply.broken is not None:
        return void_verdict(f"broken verifier: {reply.broken}")
    quotes = {atom.id: atom.quote for atom in task.verifier.atoms}
    expected = [*quotes, "frame"] if task.verifier.form == "atoms" else ["program"]
    if [check[0] for check in reply.checks] != expected:
        return void_verdict("broken verifier: the worker's reply does not list the task's checks")
    checks = [_check(name, ok, reason, quotes.get(name, "")) for name, ok, reason in reply.checks]
    passed = all(check.ok for check in checks)
    status = "pass" if passed else "fail"
    return Verdict(status=status, score=1.0 if passed else 0.0, checks=(_check("answer.schema", True, "", ""), *checks))


@functools.lru_cache(maxsize=4096)
def _check(name: str, ok: bool, reason: str, quote: str) -> CheckResult:
    """One record for equal ones: they are frozen, and the episodes of a group share most."""
    return CheckResult(id=name, ok=ok, reason=reason, quote=quote)


BENCH_REQUESTS = 400
"""Requests after which a bench takes a fresh worker."""


class Bench:
    """A verifier worker that judges many batteries of outcomes, of tasks whose verifiers an author of ours compiled.

    Only for measuring and for mutation tests; what can become a reward is judged in a worker of its own.

    Args:
        jail: Where the worker is forked.
    """

    def __init__(self, jail: Jail) -> None:
        self._jail = jail
        self._worker: Worker | None = None
        self._left = 0
        self._opened: tuple[Request, CallResult] | None = None  # what its worker has open, of the last requests

    def run(self, requests: Sequence[Request]) -> list[CallResult] | None:
        """Run requests; after a failure the next ones get a fresh worker.

        The first one opens the initial database. Most batteries of an environment begin alike: it stays open, and is sent
        and opened again only when it is another one.

        Returns:
            Their results; None when one failed or the worker died. That may be for what the worker did before, such as
            using up its processor time, so only a worker of its own can say what these requests are worth.

        Raises:
            SandboxError: no worker can be had.
        """
        if self._worker is None or self._left <= 0 or not self._worker.alive:
            self.close()
            self._worker, self._left = self._jail.ready_worker(verifier_family()), BENCH_REQUESTS
        self._left -= len(requests)
        known = self._opened if self._opened is not None and self._opened[0] == requests[0] else None
        results = self._worker.run(requests if known is None else requests[1:], VERIFIER_LIMITS)
        if not all(result.ok for result in results):
            self.close()
            return None
        if known is not None:
            return [known[1], *results]
        self._opened = requests[0], results[0]
        return results

    def close(self) -> None:
        """End the worker; a later request takes another."""
        worker, self._worker, self._opened = self._worker, None, None
        if worker is not None:
            worker.close()


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
    return verify_all(jail, task, before, [(after, answer)])[0]


Ending = tuple[bytes, dict[str, JsonValue] | None]
"""Image of the database at the end of an episode, and its final answer."""


def verify_all(
    jail: Jail, task: TaskVersion, before: bytes, endings: Sequence[Ending], bench: Bench | None = None
) -> list[Verdict]:
    """Judge episodes of one task that began alike; those of a batch share a fresh worker.

    All differences are computed before anything of the task runs. When a request breaks the worker, its episodes are
    judged again one by one, each in a fresh worker, so that one bad ending voids only itself.

    Args:
        jail: Where verifier workers are forked.
        task: The task version; its verifier runs in those workers only.
        before: Image of the database at reset.
        endings: How the episodes ended.
        bench: Whose worker judges, where no verdict becomes a reward; a fresh one when None.

    Returns:
        One verdict per episode, in order. Void, never a score, when the verifier, its worker or an image is broken.
    """

    def judge_some(some: Sequence[Ending]) -> list[Verdict]:
        # Episodes that end with equal databases share one; whoever changed nothing shares the initial one.
        places = {before: 0}
        ended = [places.setdefault(image, len(places)) for image, _ in some]
        arguments: dict[str, JsonValue] = {
            "task": _payload(task),
            "answers": [answer for _, answer in some],
            "places": list[JsonValue](ended),
        }
        images = {"before" if place == 0 else f"after{place}": image for image, place in places.items()}
        requests: list[Request] = [open_image(name, image) for name, image in images.items()]
        return _ask(jail, task, [*requests, call("verify_images", arguments, *images)], len(some), bench)

    def judge_all(all_: Sequence[Ending]) -> list[Verdict]:
        sizes = [len(image) for image, _ in all_]
        return _by_batches(task, all_, [answer for _, answer in all_], sizes, judge_some, brief=bench is not None)

    if bench is None:
        return judge_all(endings)
    # Who lacks a skill that is not needed ends as the whole solution does: on a bench, equal endings are judged once.
    keys = [(image, repr(answer)) for image, answer in endings]
    different = dict(zip(keys, endings, strict=True))
    found = dict(zip(different, judge_all(list(different.values())), strict=True))
    return [found[key] for key in keys]


def _by_batches(
    task: TaskVersion,
    items: Sequence[T],
    answers: Sequence[dict[str, JsonValue] | None],
    sizes: Sequence[int],
    judge_some: Callable[[Sequence[T]], list[Verdict]],
    *,
    brief: bool,
) -> list[Verdict]:
    """Judge what has a well-formed answer, in batches; a batch that breaks is judged one by one."""
    verdicts = _schema_verdicts(task, answers, brief=brief)
    open_slots = [slot for slot, verdict in enumerate(verdicts) if verdict is None]
    for slots in _batches(open_slots, sizes):
        found = judge_some([items[slot] for slot in slots])
        if len(slots) > 1 and found[0].cause is not None:
            found = [judge_some([items[slot]])[0] for slot in slots]
        for slot, verdict in zip(slots, found, strict=True):
            verdicts[slot] = verdict
    return [verdict for verdict in verdicts if verdict is not None]


def _batches(slots: Sequence[int], sizes: Sequence[int]) -> Iterator[list[int]]:
    """Cut slots into batches of at most `BATCH` and about `BATCH_BYTES`."""
    batch: list[int] = []
    for slot in slots:
        if len(batch) == BATCH or (batch and sum(sizes[other] for other in batch) + sizes[slot] > BATCH_BYTES):
            yield batch
            batch = []
        batch.append(slot)
    if batch:
        yield batch


def _ask(jail: Jail, task: TaskVersion, requests: list[Request], count: int, bench: Bench | None) -> list[Verdict]:
    """Send requests to a fresh verifier worker, or to a bench; the last one's result must be `count` replies."""
    try:
        results = None if bench is None else bench.run(requests)
        if results is None:
            with jail.ready_worker(verifier_family()) as worker:
                results = worker.run(requests, VERIFIER_LIMITS)
    except SandboxError as error:
        return [void_verdict(f"the verifier worker failed: {error}", error.failure)] * count
    for request, result in zip(requests, results, strict=True):
        if not result.ok:
            step = f"the {request['name']} image was not opened" if request["op"] == "open" else "the verifier broke"
            return [_failed(step, result)] * count
    try:
        replies = _REPLIES.validate_python(results[-1].value)
    except ValidationError as error:
        problem = f"the verifier worker's reply is malformed: {error.error_count()} problems"
        return [void_verdict(problem, Failure.BAD_RESULT.value)] * count
    if len(replies) != count:
        return [void_verdict("the verifier worker's reply has another length", Failure.BAD_RESULT.value)] * count
    return [_verdict(task, reply) for reply in replies]


def judge(
    jail: Jail, task: TaskVersion, before: bytes, outcomes: Sequence[Outcome], bench: Bench | None = None
) -> list[Verdict]:
    """Judge stated outcomes, such as mutants: each outcome's changes are applied to a copy of the initial rows.

    Outcomes share a worker, each in a namespace of its own. When a request breaks the worker, the outcomes of that
    request are judged again one by one, so that one bad outcome voids only itself.

    Args:
        jail: Where verifier workers are forked.
        task: The task version.
        before: Image of the database at reset.
        outcomes: What to judge.
        bench: Whose worker judges, where no verdict becomes a reward; a fresh one when None.

    Returns:
        One verdict per outcome, in order.
    """

    def judge_some(some: Sequence[Outcome]) -> list[Verdict]:
        arguments: dict[str, JsonValue] = {
            "task": _payload(task),
            "outcomes": [outcome.model_dump(mode="json") for outcome in some],
        }
        requests: list[Request] = [open_image("before", before)]
        return _ask(jail, task, [*requests, call("judge_outcomes", arguments, "before")], len(some), bench)

    answers = [outcome.answer for outcome in outcomes]
    return _by_batches(task, outcomes, answers, [0] * len(outcomes), judge_some, brief=bench is not None)
