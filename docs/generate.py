"""Write the generated pages: gates, command line, API, errors, JSON Schemas, and what stopped each hostile program.

`python docs/generate.py` writes them; `--check` writes nothing and exits with 1 when a page is out of date. Pages depend
on the code and the results that it keeps: no clock, no terminal width, no machine.
"""

from __future__ import annotations

import argparse
import ast
import enum
import importlib
import inspect
import json
import re
import runpy
import sys
import textwrap
import typing
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer

import envsynth
from envsynth import calibrate, delivery, errors, hardening, record, report, spec, trajectory
from envsynth.cli import app
from envsynth.gates import all_gates
from envsynth.sandbox import Failure
from envsynth.set_audit import all_rules

DOCS = Path(__file__).resolve().parent
NOTE = "<!-- Written by docs/generate.py: edit the code, then run `make docs`. -->\n"

ROOMS = {
    "SP1": "the spec: is the record itself sound, before anything is played?",
    "EX2": "execution: does it play as it should?",
    "VF3": "the verifier: is it neither loose nor strict?",
    "DF4": "difficulty: is it hard for a reason?",
    "SE5": "security: can it be cheated?",
    "ST6": "sets of tasks: do many tasks, each of them sound, make a sound set?",
}
"""First three characters of a code -> what its gates ask."""

CALLS = {
    "synthesize": "envsynth.pipeline.synthesize",
    "check": "envsynth.gates.check",
    "explain": "envsynth.gates.explain",
    "harden": "envsynth.hardening.harden",
    "calibrate": "envsynth.calibrate.calibrate",
    "list": "envsynth.store.Store.environment_entries",
    "show": "envsynth.store.Store.task",
    "tree": "envsynth.store.Store.lineage",
    "play": "envsynth.rollout.play",
    "export": "envsynth.suite.export_jsonl",
    "evaluate": "envsynth.evaluate.evaluate",
    "train": "envsynth.train.training.run_training",
    "experiment dsa-fidelity": "envsynth.train.fidelity.experiment.run_experiment",
    "experiment dsa-overhead": "envsynth.train.overhead.experiment.run_overhead",
    "demo": "envsynth.demo.run_demo",
    "doctor": "envsynth.doctor.examine",
    "stats": "envsynth.yields.stored_yields",
    "suite freeze": "envsynth.suite.freeze",
    "suite list": "envsynth.store.Store.suites",
    "suite import": "envsynth.suite.import_jsonl",
    "suite check": "envsynth.set_audit.audit_set",
    "policy show": "envsynth.policy.size.policy_size",
    "policy export": "envsynth.policy.huggingface.export_checkpoint",
    "policy import": "envsynth.policy.huggingface.import_huggingface",
}
"""Verb -> the Python call behind it."""

MODULES = (
    ("envsynth.pipeline", "From a category to stored environments."),
    ("envsynth.hardening", "Harder children, measured by the ladder."),
    ("envsynth.gates.catalogue", "The catalogue of gates."),
    ("envsynth.rollout.protocols", "What the episode loop needs of actors and environments."),
    ("envsynth.rollout.loop", "The one episode loop."),
    ("envsynth.actors.factory", "Actors by name."),
    ("envsynth.evaluate", "Pass rates of an actor."),
    ("envsynth.evaluate.staged", "Pass rates from two stages."),
    ("envsynth.calibrate", "How difficult tasks are for an actor, and where they go."),
    ("envsynth.environments.compact", "JSON in fewer tokens, exactly."),
    ("envsynth.policy.tokens", "The policy's tokenizer."),
    ("envsynth.policy.template", "Conversations as tokens."),
    ("envsynth.policy.huggingface", "Policies as Hugging Face folders."),
    ("envsynth.policy.size", "How large a policy is."),
    ("envsynth.author.procedural.nano", "The nano tier and its traces."),
    ("envsynth.lengths", "Lengths of episodes by tier."),
    ("envsynth.yields", "What synthesis brought."),
    ("envsynth.set_audit", "The audit of a set of tasks."),
    ("envsynth.plots", "Pictures of what synthesis brought."),
    ("envsynth.verifiers.verify", "Verdicts."),
    ("envsynth.sandbox", "Running code that nobody trusts."),
    ("envsynth.errors", "Every error."),
)
"""Modules shown whole on the API page, besides the public names."""


def _first(text: str | None) -> str:
    """The first paragraph of a docstring on one line."""
    return " ".join((text or "").strip().split("\n\n")[0].split())


def _cell(text: object) -> str:
    """A text as a cell of a table: markup escaped outside of code spans."""
    parts = " ".join(str(text).split()).replace("|", "\\|").split("`")
    return "`".join(
        part if index % 2 else part.replace("<", "&lt;").replace("~", "\\~") for index, part in enumerate(parts)
    )


# -------------------------------------------------------------------------------------------------------------- gates


def gate_pages() -> dict[str, tuple[str, str]]:
    """Code -> title and text; DF402 is run by the hardening loop, because it compares two versions."""
    pages = {item.code: (item.title, inspect.getdoc(item.run) or "") for item in (*all_gates(), *all_rules())}
    if "DF402" not in pages:
        text = (
            "Compare the ladder of a child with the ladder of its parent: it must need a skill that its parent did not "
            "need, and more skills in all.\n\nThe hardening loop runs it, because it looks at two versions; `envsynth "
            "check` looks at one. Why: nobody's word that a task became harder is believed. Fix: another operator."
        )
        assert "DF402" in inspect.getsource(hardening)
        pages["DF402"] = ("a child is harder than its parent", text)
    text = (
        "Play parent and child with an actor, the same number of episodes each: the child's pass rate must be lower by "
        f"Fisher's exact one-sided test at {calibrate.ALPHA:.0%}.\n\nThe hardening loop runs it in place of DF402 when it is "
        "given an actor (`envsynth harden --actor`). Why: the ladder knows solvers of our own family; what is harder for "
        "an actor only that actor shows. Fix: another operator, or more episodes (`--commit`)."
    )
    pages[calibrate.ActorMeasure.code] = ("a child is harder for the measuring actor", text)
    return pages


def gates_page() -> str:
    """Render the catalogue of gates."""
    pages = gate_pages()
    lines = [
        NOTE,
        "# Gates",
        "",
        "A gate is a lint rule for environments. A code never changes its meaning. `envsynth explain CODE` shows the same "
        "page; [Gates](../concepts/gates.md) says how they work together.",
    ]
    for room, question in ROOMS.items():
        codes = sorted(code for code in pages if code.startswith(room))
        lines += ["", f"## {room}xx, {question}"]
        for code in codes:
            title, text = pages[code]
            text = re.sub(r"\s*\bWhy: ", "\n\n**Why**: ", re.sub(r"\s*\bFix: ", "\n\n**Fix**: ", text))
            paragraphs = [" ".join(part.split()) for part in text.strip().split("\n\n")]
            capital = [part[:1].upper() + part[1:] for part in paragraphs]
            lines += ["", f"### {code}: {title} {{#{code.lower()}}}", "", "\n\n".join(capital)]
    return "\n".join(lines) + "\n"


# ---------------------------------------------------------------------------------------------------------------- cli


def commands_of(group: typer.Typer, prefix: str = "") -> Iterator[tuple[str, Callable[..., object]]]:
    """Verbs with their functions; read from the functions themselves, because that is the same in every typer."""
    for command in group.registered_commands:
        assert command.callback is not None
        yield prefix + (command.name or command.callback.__name__), command.callback
    for other in group.registered_groups:
        assert other.typer_instance is not None
        yield from commands_of(other.typer_instance, f"{prefix}{other.name} ")


def _type_name(annotation: Any) -> str:
    choices = [item for item in typing.get_args(annotation) if item is not type(None)]
    return (
        _type_name(choices[0])
        if choices
        else {"str": "TEXT", "int": "INTEGER"}.get(annotation.__name__, annotation.__name__.upper())
    )


def _parameter(item: inspect.Parameter, annotation: Any) -> tuple[str, str, str]:
    """Return how a parameter is written, its default, and its help."""
    kind, info = typing.get_args(annotation)
    needed = item.default is inspect.Parameter.empty
    default = "required" if needed else f"`{item.default}`"
    if isinstance(info, typer.models.ArgumentInfo):
        name = item.name.upper()
        return (f"`{name}`" if needed else f"`[{name}]`"), "" if item.default is None else default, info.help or ""
    first = (
        [info.default] if isinstance(info.default, str) else []
    )  # inside Annotated, typer takes the first name for a default
    written = [*first, *(info.param_decls or ())] or ["--" + item.name.replace("_", "-")]
    names = ", ".join(written).replace("/", " / ")
    if kind is bool:
        return f"`{names}`", "on" if item.default else "", info.help or ""
    many = " (repeatable)" if "list" in str(kind) else ""
    return f"`{names} {_type_name(kind)}`", "" if item.default is None else default, (info.help or "") + many


def cli_page() -> str:
    """Render the reference of the command line."""
    lines = [
        NOTE,
        "# Command line",
        "",
        "Data go to stdout; progress and messages go to stderr. With `--json`, stdout is JSON. `NO_COLOR=1` switches colours "
        "off. An interrupted run keeps what it finished; the same command goes on.",
        "",
        "| exit code | meaning |",
        "|---|---|",
        "| 0 | good |",
        "| 1 | an error: one line that says what, which value, and what to do |",
        "| 2 | wrong usage |",
        "| 3 | a gate failed |",
        "| 130 | interrupted |",
        "",
        "| verb | what it does | Python call |",
        "|---|---|---|",
    ]
    commands = list(commands_of(app))
    for name, command in commands:
        anchor = "envsynth-" + name.replace(" ", "-")
        lines.append(f"| [`{name}`](#{anchor}) | {_cell(_first(inspect.getdoc(command)))} | `{CALLS[name]}` |")
    for name, command in commands:
        lines += [
            "",
            f"## envsynth {name}",
            "",
            _first(inspect.getdoc(command)),
            "",
            "| parameter | default | meaning |",
            "|---|---|---|",
        ]
        hints = typing.get_type_hints(command, include_extras=True)
        for item in inspect.signature(command).parameters.values():
            lines.append("| " + " | ".join(_cell(part) for part in _parameter(item, hints[item.name])) + " |")
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------------------------ schemas


def _attribute_texts(cls: type) -> dict[str, str]:
    """The docstring of each field of a class, its bases included."""
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not base.__module__.startswith("envsynth"):
            continue
        tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        body = tree.body[0].body if isinstance(tree.body[0], ast.ClassDef) else []
        for left, right in pairwise(body):
            target = (
                left.target
                if isinstance(left, ast.AnnAssign)
                else left.targets[0]
                if isinstance(left, ast.Assign)
                else None
            )
            if isinstance(target, ast.Name) and isinstance(right, ast.Expr) and isinstance(right.value, ast.Constant):
                texts[target.id] = " ".join(str(right.value.value).split())
    return texts


def _record_classes() -> dict[str, Any]:
    """All records by class name, the public suite among them."""
    homes = (spec, delivery, trajectory, report, sys.modules[envsynth.Suite.__module__])
    classes = [value for home in homes for value in vars(home).values() if inspect.isclass(value)]
    return {value.__name__: value for value in classes if issubclass(value, record.Record)}


SCHEMAS = ("EnvironmentSpec", "TaskVersion", "Trajectory", "Group", "Verdict", "GateReport", "Suite")
"""Records whose JSON Schema is published."""


def schema_of(name: str) -> dict[str, Any]:
    """Return the JSON Schema of a record, each field with its docstring."""
    classes = _record_classes()
    schema: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema"} | classes[
        name
    ].model_json_schema()
    for title, part in {name: schema, **schema.get("$defs", {})}.items():
        texts = _attribute_texts(classes[title]) if title in classes else {}
        for field, value in part.get("properties", {}).items():
            if field in texts:
                value["description"] = texts[field]
    return schema


def _type_of(part: dict[str, Any]) -> str:
    """The type of a field in words."""
    if "$ref" in part:
        return part["$ref"].rsplit("/", 1)[1]
    if "anyOf" in part:
        return " or ".join(dict.fromkeys(_type_of(item) for item in part["anyOf"]))
    if "enum" in part or "const" in part:
        return ", ".join(json.dumps(item) for item in part.get("enum", [part.get("const")]))
    kind = str(part.get("type", "any JSON value"))
    within = part.get("items") or part.get("additionalProperties")
    words = {"array": "list", "object": "map"}
    if "prefixItems" in part:
        return "[" + ", ".join(_type_of(item) for item in part["prefixItems"]) + "]"
    return words.get(kind, kind) + (f" of {_type_of(within)}" if isinstance(within, dict) else "")


def schemas_page(schemas: dict[str, dict[str, Any]]) -> str:
    """Render the tables of all records."""
    lines = [
        NOTE,
        "# Records",
        "",
        "Records are frozen, refuse unknown keys with the path of the key, and are identified by a content hash: BLAKE2b with "
        "16 bytes over canonical JSON (sorted keys, no spaces, no NaN). The files below are JSON Schema, draft 2020-12. "
        "[Records](../../concepts/records.md) says how they belong together.",
        "",
        "| record | schema |",
        "|---|---|",
    ]
    lines += [f"| [{name}](#{name.lower()}) | [{name}.json]({name}.json) |" for name in schemas]
    parts: dict[str, dict[str, Any]] = {}
    for name, schema in schemas.items():
        parts.setdefault(name, schema)
    for schema in schemas.values():
        for name, part in schema.get("$defs", {}).items():
            parts.setdefault(name, part)
    for name, part in parts.items():
        lines += ["", f"## {name}", "", _first(part.get("description"))]
        if "enum" in part:
            lines += ["", "One of " + ", ".join(f"`{item}`" for item in part["enum"]) + "."]
        if part.get("properties"):
            required = part.get("required", [])
            lines += ["", "| field | type | required | meaning |", "|---|---|---|---|"]
            for field, value in part["properties"].items():
                needed = "yes" if field in required else ""
                lines.append(
                    f"| `{field}` | {_cell(_type_of(value))} | {needed} | {_cell(value.get('description', ''))} |"
                )
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------------------------ api and errors


def api_page() -> str:
    """Render the page of public names."""
    names = [name for name in envsynth.__all__ if name != "__version__"]
    lines = [
        NOTE,
        "# Python API",
        "",
        "`import envsynth` loads these names on first use; it never loads torch. `__version__` is the version.",
        "",
        "| name | what it is |",
        "|---|---|",
    ]
    places = {name: f"{getattr(envsynth, name).__module__}.{name}" for name in names}
    for name in names:
        anchor = places[name]
        lines.append(f"| [`{name}`](#{anchor}) | {_cell(_first(inspect.getdoc(getattr(envsynth, name))))} |")
    lines += ["", "## Public names"]
    for name in names:
        lines += ["", f"::: {places[name]}", "    options:", "      heading_level: 3"]
    lines += ["", "## Modules"]
    for module, summary in MODULES:
        importlib.import_module(module)
        lines += ["", f"### {module}", "", summary, "", f"::: {module}", "    options:", "      heading_level: 4"]
        lines += ["      show_root_heading: false", "      show_root_toc_entry: false"]
    return "\n".join(lines) + "\n"


def _enum_table(cls: type[enum.Enum], name: str) -> list[str]:
    texts = _attribute_texts(cls)
    rows = [f"| `{item.value}` | {_cell(texts.get(item.name, ''))} |" for item in cls]
    return [f"| {name} | meaning |", "|---|---|", *rows]


def errors_page() -> str:
    """Render the tree of errors and the closed sets of outcomes."""
    doc = inspect.getdoc(errors) or ""
    tree = "\n".join(line[4:] for line in doc.splitlines() if line.startswith("    "))
    lines = [
        NOTE,
        "# Errors and outcomes",
        "",
        "A message says what happened, which value, and what to do. Each class is also a standard exception, so callers may "
        "catch either. All of them survive pickling.",
        "",
        "```text",
        tree,
        "```",
        "",
        "| error | meaning |",
        "|---|---|",
    ]
    for name, value in vars(errors).items():
        if inspect.isclass(value) and issubclass(value, errors.EnvsynthError):
            lines.append(f"| `{name}` | {_cell(_first(inspect.getdoc(value)))} |")
    lines += [
        "",
        "## Wrong answer, broken verifier",
        "",
        "They are different facts. A wrong answer is a `Verdict` with status `fail` and score 0. A broken verifier, a failed "
        "reset or a dead sandbox is a verdict with status `void` and no score; see "
        "[ADR-0005](../adr/0005-void-is-not-zero.md).",
        "",
        "## Why an episode ended",
        "",
        *_enum_table(trajectory.StopReason, "stop"),
        "",
        "## How a sandboxed call ended",
        "",
        *_enum_table(Failure, "status"),
    ]
    return "\n".join(lines) + "\n"


# --------------------------------------------------------------------------------------------------------------- main


def pages() -> dict[str, str]:
    """Return every generated page by its path below `docs/`."""
    schemas = {name: schema_of(name) for name in SCHEMAS}
    found = {
        "reference/gates.md": gates_page(),
        "reference/cli.md": cli_page(),
        "reference/api.md": api_page(),
        "reference/errors.md": errors_page(),
        "reference/schemas/index.md": schemas_page(schemas),
        "concepts/contained.md": runpy.run_path(str(DOCS / "contained.py"))["page"](NOTE),
    }
    for name, schema in schemas.items():
        found[f"reference/schemas/{name}.json"] = json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
    return found


def stale(folder: Path = DOCS) -> list[str]:
    """Return the generated pages that are missing or out of date below a folder."""
    return [
        name
        for name, text in pages().items()
        if not (folder / name).exists() or (folder / name).read_text(encoding="utf-8") != text
    ]


def main() -> int:
    """Write the pages, or with `--check` say which are out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a page is out of date")
    if parser.parse_args().check:
        old = stale()
        for name in old:
            print(f"out of date: docs/{name}; run `make docs`")
        return 1 if old else 0
    for name, text in pages().items():
        path = DOCS / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
