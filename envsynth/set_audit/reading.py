"""Reads what is audited, and the suites that it must not contain."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from envsynth.errors import SpecError, SuiteError
from envsynth.set_audit.facts import TaskFacts, WorldFacts, normalised_words, task_facts, world_facts
from envsynth.set_audit.measured import Turn, read_turns
from envsynth.set_audit.overlap import window_digests
from envsynth.spec import EnvironmentSpec
from envsynth.store import Store, TaskQuery
from envsynth.suite.jsonl import SuiteReader
from envsynth.suite.targets import Pair, find_pairs

STORE = "store"
"""Name of the split that is all of a store."""
PROMPT_KEYS = ("prompt", "question", "problem", "instruction", "input", "text", "messages")
"""Keys of a JSON object whose texts are prompts; of `messages`, each `content` is one."""


@dataclass(frozen=True)
class Members:
    """The tasks under audit."""

    tasks: list[TaskFacts]
    """In order, one list after the other."""
    parents: dict[str, str | None]
    """Task version -> the one that it was hardened from, ancestors outside the lists included."""
    turns: list[Turn] = field(default_factory=list[Turn])
    """Hardening steps that led to them, as far as a store knows how often both versions were solved."""


@dataclass(kw_only=True)
class Reference:
    """A suite that the audited tasks must not contain."""

    name: str
    """As the user named it."""
    texts: int = 0
    """Prompts in it."""
    windows: dict[bytes, str] = field(default_factory=dict[bytes, str])
    """Hash of a window of words -> where it stands first."""
    programs: dict[tuple[str, str], str] = field(default_factory=dict[tuple[str, str], str])
    """Signature of a world with the skeleton of a program -> task."""
    contents: dict[str, str] = field(default_factory=dict[str, str])
    """What an actor meets -> task."""

    def add_text(self, words: Sequence[str], size: int, place: str) -> None:
        """Take in a prompt.

        Args:
            words: Its normalised words.
            size: Words of a window.
            place: Where it stands.
        """
        self.texts += 1
        for digest in window_digests(words, size):
            self.windows.setdefault(digest, place)

    def add_task(self, task: TaskFacts, size: int) -> None:
        """Take in a task.

        Args:
            task: Its facts.
            size: Words of a window.
        """
        self.add_text(task.words, size, f"task {task.name}")
        self.contents.setdefault(task.content, task.name)
        if task.program is not None:
            self.programs.setdefault((task.world.signature, task.program), task.name)


def read_members(targets: Sequence[str], store: str | Path | None = None, *, leaves_only: bool = True) -> Members:
    """Read the tasks to audit.

    Args:
        targets: What `find_pairs` takes, each a split of its own; all of the store when there is none.
        store: The store; the default store when None.
        leaves_only: Of all of a store, only tasks without a child.

    Returns:
        The tasks.

    Raises:
        SuiteError: a suite file is damaged.
        SpecNotFound: nothing has that name.
        SpecError: a target is there twice, or there is no task.
    """
    if twice := [name for number, name in enumerate(targets) if name in targets[:number]]:
        raise SpecError(f"{twice[0]!r} is there twice: name each list once")
    tasks: list[TaskFacts] = []
    parents: dict[str, str | None] = {}
    stored: list[TaskFacts] = []
    for name in targets:
        found = _named(name, store, parents)
        tasks += found
        stored += [] if Path(name).is_file() else found
    if stored or not targets:
        with Store.open(store, readonly=True) as opened:
            if not targets:
                tasks = stored = list(_stored(opened, leaves_only))
                parents.update((entry.hash, entry.parent) for entry in opened.task_entries())
            turns = read_turns(opened, [task.hash for task in stored])
    else:
        turns = []
    if not tasks:
        raise SpecError("there is no task to audit: `envsynth synthesize` makes some")
    return Members(tasks, parents, turns)


def _stored(opened: Store, leaves_only: bool) -> Iterator[TaskFacts]:
    """Tasks of a store, one environment in memory at a time."""
    home: WorldFacts | None = None
    for entry in opened.task_entries(TaskQuery(leaves_only=leaves_only)):
        if home is None or home.hash != entry.environment:
            home = world_facts(opened.environment(entry.environment))
        yield task_facts(opened.task(entry.hash), home, STORE)


def _named(name: str, store: str | Path | None, parents: dict[str, str | None]) -> list[TaskFacts]:
    if Path(name).suffix == ".jsonl":
        return list(_suite_file(Path(name), parents))
    found = list(_facts(find_pairs(name, store).pairs, name))
    parents.update((task.hash, task.parent) for task in found)
    return found


def _facts(pairs: Iterable[Pair], split: str) -> Iterator[TaskFacts]:
    homes: dict[str, WorldFacts] = {}
    for spec, task in pairs:
        if spec.hash not in homes:
            homes[spec.hash] = world_facts(spec)
        yield task_facts(task, homes[spec.hash], split)


def _suite_file(path: Path, parents: dict[str, str | None]) -> Generator[TaskFacts]:
    homes: dict[str, WorldFacts] = {}
    for entry in SuiteReader(path):
        if isinstance(entry.record, EnvironmentSpec):
            homes[entry.hash] = world_facts(entry.record)
        elif entry.kind in ("task", "ancestor"):
            task = cast("Any", entry.record)
            parents[entry.hash] = task.lineage.parent
            if entry.kind == "task":
                yield task_facts(task, homes[task.environment], str(path))


def read_reference(name: str, size: int, store: str | Path | None = None) -> Reference:
    """Read a suite that the audited tasks must not contain.

    A `.jsonl` file is a suite of ours, or has a prompt in each line: a text, or an object with one of `PROMPT_KEYS`. Any
    other file but `.json` is plain text: each line is a prompt, and the whole text is searched across its lines as well.
    Everything else is what `find_pairs` takes.

    Args:
        name: The file, or the name of tasks.
        size: Words of a window.
        store: The store; the default store when None.

    Returns:
        The suite.

    Raises:
        SuiteError: the file cannot be read or holds no prompt; the message names the line.
        SpecNotFound: nothing has that name.
    """
    path, found = Path(name), Reference(name=name)
    if path.suffix == ".jsonl" and _is_suite(path):
        for task in _suite_file(path, {}):
            found.add_task(task, size)
    elif path.suffix == ".jsonl":
        for number, text in _json_prompts(path):
            found.add_text(normalised_words(text), size, f"line {number}")
    elif path.suffix != ".json" and path.is_file():
        _add_plain(found, _text(path), size)
    else:
        for task in _facts(find_pairs(name, store).pairs, name):
            found.add_task(task, size)
    if not found.windows:
        raise SuiteError(f"{name} holds no prompt: nothing could be found in it, so nothing would be checked")
    return found


def _add_plain(found: Reference, text: str, size: int) -> None:
    for number, line in enumerate(text.splitlines(), 1):
        if words := normalised_words(line):
            found.add_text(words, size, f"line {number}")
    # A sentence may run over the end of a line.
    for digest in window_digests(normalised_words(text), size):
        found.windows.setdefault(digest, "the text, over the end of a line")


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise SuiteError(f"cannot read {path}: {error.strerror}: check the path") from error
    except UnicodeDecodeError as error:
        raise SuiteError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8") from error


def _is_suite(path: Path) -> bool:
    """Tell whether the first line that is not blank is the header of a suite file.

    Raises:
        SuiteError: the file cannot be read, or that line is not JSON.
    """
    try:
        with path.open("rb") as file:
            first = next((line for line in file if line.strip()), b"null")
    except OSError as error:
        raise SuiteError(f"cannot read {path}: {error.strerror}: check the path") from error
    value = _parsed(path, 1, first.decode("utf-8", "replace"))
    return isinstance(value, dict) and cast("dict[str, Any]", value).get("kind") == "suite"


def _parsed(path: Path, number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SuiteError(
            f"{path} line {number} is not JSON ({error}): one prompt per line, or save it as .txt"
        ) from error


def _json_prompts(path: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(_text(path).split("\n"), 1):
        if line.strip():
            texts = [text for text in _texts(_parsed(path, number, line)) if text.strip()]
            if not texts:
                raise SuiteError(
                    f"{path} line {number} has no prompt: a text, or an object with {', '.join(PROMPT_KEYS)}"
                )
            yield from ((number, text) for text in texts)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        content = cast("Mapping[str, Any]", value)
        for key in PROMPT_KEYS:
            found = content.get(key)
            for part in cast("list[Any]", found) if isinstance(found, list) else [found]:
                inner = cast("Mapping[str, Any]", part).get("content") if isinstance(part, dict) else part
                if isinstance(inner, str):
                    yield inner
