"""The documentation says what is true: links, names, codes and verbs exist, and what exists is documented."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import re
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

import envsynth
from envsynth.gates import all_gates

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAPER_MAP = DOCS / "reference" / "paper-map.md"
CODE = r"(?:SP1|EX2|VF3|DF4|SE5)\d\d"


def _generator():
    location = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(location)
    sys.modules["docs_generate"] = module
    location.loader.exec_module(module)
    return module


generate = _generator()


def _pages() -> list[Path]:
    top = sorted(ROOT.glob("*.md"))
    return top + sorted(DOCS.rglob("*.md"))


# ---------------------------------------------------------------------------------------------------------- paper map


def _rows() -> list[tuple[str, list[str]]]:
    """Rows of the paper map's tables with their section."""
    section, found = "", []
    for line in PAPER_MAP.read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section = line[3:]
        elif line.startswith("|") and not re.match(r"\|[-|]+$", line):
            cells = [cell.strip() for cell in line.strip("|").split(" | ")]
            if cells[0] != "in the paper":
                found.append((section, cells))
    return found


@cache
def _functions(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def _evidence_problem(token: str) -> str | None:
    """Why a piece of evidence does not exist, or None."""
    path, _, name = token.partition("::")
    if re.fullmatch(CODE, token):
        return None if token in generate.gate_pages() else "no such gate"
    if not (ROOT / path).exists():
        return "no such file"
    if name and name not in _functions(ROOT / path):
        return "no such test"
    return None if name or not path.startswith("tests/") else "names no test"


@pytest.mark.parametrize(
    ("section", "cells"), _rows(), ids=lambda value: value[0][:40] if isinstance(value, list) else None
)
def test_paper_map_row_is_true(section, cells):
    assert len(cells) == 3, f"{section}: a row needs three cells: {cells}"
    claim, here, evidence = cells
    paths = re.findall(r"`(envsynth/[\w/.]*)`", here)
    for path in paths:
        assert (ROOT / path).exists(), f"{claim}: {path} does not exist"
    tokens = re.findall(r"`([^`]+)`", evidence)
    for token in tokens:
        problem = _evidence_problem(token)
        assert problem is None, f"{claim}: {token}: {problem}"
    if here.startswith("not done because"):
        assert len(here) > len("not done because ") + 15, f"{claim}: no reason"
        assert evidence == "-", f"{claim}: evidence for what is not done"
    else:
        assert paths, f"{claim}: names no module and does not say 'not done because'"
        assert tokens, f"{claim}: names no test, gate or figure"


@pytest.mark.parametrize(
    "needed",
    [
        *(f"Equation {number}:" for number in range(1, 10)),
        *(f"Mechanism {number}:" for number in range(1, 4)),
        *(f"Core assumption {number}:" for number in range(1, 4)),
        *(f"Task kind {number}," for number in range(1, 5)),
        "Keep Routing",
        "Keep Sampling Mask",
        "pass@100",
        "trip-planning example",
        "Cold start",
        "Reasoning is dropped only when a new user message arrives",
        "Table 2",
        "Table 5",
        "Figure 3",
        "Figure 5",
        "Figure 6",
    ],
)
def test_paper_map_covers(needed):
    assert any(needed in cells[0] for _, cells in _rows())


@pytest.mark.parametrize(
    ("section", "count"),
    [
        ("Failure signatures", 3),
        ("Break conditions", 3),
        ("Design trade-offs", 3),
        ("First experiments", 3),
        ("Quick questions", 3),
        ("Open questions", 3),
        ("Limitations", 3),
        ("Confidence", 3),
        ("Next checks", 3),
    ],
)
def test_paper_map_section_is_complete(section, count):
    assert sum(name == section for name, _ in _rows()) >= count


def test_paper_map_notices_false_evidence():
    assert _evidence_problem("tests/docs/test_docs.py::test_that_nobody_wrote") == "no such test"
    assert _evidence_problem("tests/nowhere.py::test_x") == "no such file"
    assert _evidence_problem("tests/docs/test_docs.py") == "names no test"
    assert _evidence_problem("VF399") == "no such gate"


# ---------------------------------------------------------------------------------------------------------- reference


def test_generated_pages_are_up_to_date():
    assert generate.stale() == [], "run `make docs`"


def test_stale_pages_are_noticed(tmp_path):
    pages = generate.pages()
    for name, text in pages.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert generate.stale(tmp_path) == []
    (tmp_path / "reference/gates.md").write_text("old", encoding="utf-8")
    (tmp_path / "reference/schemas/Verdict.json").unlink()
    assert sorted(generate.stale(tmp_path)) == ["reference/gates.md", "reference/schemas/Verdict.json"]


def test_every_gate_code_in_the_code_is_documented():
    page = (DOCS / "reference" / "gates.md").read_text(encoding="utf-8")
    headings = set(re.findall(rf"^### ({CODE}):", page, re.MULTILINE))
    sources = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "envsynth").rglob("*.py")))
    used = set(re.findall(rf'"({CODE})"', sources))
    assert used <= headings
    assert {item.code for item in all_gates()} <= headings


def test_every_gate_page_says_why_and_how_to_fix():
    for code, (_, text) in generate.gate_pages().items():
        assert "Why: " in text, code
        assert "Fix: " in text, code


def test_every_public_name_is_in_the_reference():
    page = (DOCS / "reference" / "api.md").read_text(encoding="utf-8")
    for name in envsynth.__all__:
        assert f"`{name}`" in page, name


def test_every_error_is_in_the_reference():
    page = (DOCS / "reference" / "errors.md").read_text(encoding="utf-8")
    errors = importlib.import_module("envsynth.errors")
    for name, value in vars(errors).items():
        if isinstance(value, type) and issubclass(value, errors.EnvsynthError):
            assert f"| `{name}` |" in page, name


def test_every_verb_is_documented_and_names_a_python_call():
    page = (DOCS / "reference" / "cli.md").read_text(encoding="utf-8")
    verbs = [name for name, _ in generate.commands_of(generate.app)]
    assert sorted(verbs) == sorted(generate.CALLS)
    for verb in verbs:
        assert f"## envsynth {verb}\n" in page
        module, _, name = generate.CALLS[verb].rpartition(".")
        owner, _, attribute = module.rpartition(".")
        home = (
            importlib.import_module(module)
            if attribute[0].islower()
            else getattr(importlib.import_module(owner), attribute)
        )
        assert callable(getattr(home, name)), generate.CALLS[verb]


@pytest.mark.parametrize("name", generate.SCHEMAS)
def test_published_schema_describes_every_field(name):
    schema = json.loads((DOCS / "reference" / "schemas" / f"{name}.json").read_text(encoding="utf-8"))
    for title, part in {name: schema, **schema.get("$defs", {})}.items():
        assert part.get("additionalProperties") is False or "properties" not in part, f"{title} accepts unknown keys"
        for field, value in part.get("properties", {}).items():
            assert value.get("description"), f"{title}.{field} has no meaning"


# -------------------------------------------------------------------------------------------------------------- links


def _slug(heading: str) -> str:
    explicit = re.search(r"\{#([\w-]+)\}\s*$", heading)
    if explicit:
        return explicit.group(1)
    text = re.sub(r"[^\w\s-]", "", re.sub(r"[`*]", "", heading).lower())
    return re.sub(r"[\s]+", "-", text.strip())


@cache
def _anchors(path: Path) -> frozenset[str]:
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    anchors = {_slug(line.lstrip("#").strip()) for line in text.splitlines() if line.startswith("#")}
    return frozenset(anchors | set(re.findall(r"^::: ([\w.]+)", text, re.MULTILINE)))


def broken_links(page: Path) -> list[str]:
    """Links of a page that lead nowhere inside the repository."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    bad = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        place, _, anchor = target.partition("#")
        found = (page.parent / place).resolve() if place else page
        if not found.is_file() or (anchor and found.suffix == ".md" and anchor not in _anchors(found)):
            bad.append(target)
    return bad


@pytest.mark.parametrize("page", _pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_resolve(page):
    assert broken_links(page) == []


def test_broken_links_are_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("# One\n[a](#one) [b](#two) [c](gone.md) [d](https://example.org/x)\n", encoding="utf-8")
    assert broken_links(page) == ["#two", "gone.md"]


def _nav_files(node) -> list[str]:
    if isinstance(node, str):
        return [node]
    values = node.values() if isinstance(node, dict) else node
    return [name for value in values for name in _nav_files(value)]


def test_navigation_names_every_page_once():
    settings = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = _nav_files(settings["nav"])
    pages = [str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")]
    assert sorted(listed) == sorted(pages)


def test_glossary_of_contributing_has_the_words_of_the_house():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = " ".join(re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE))
    for word in (
        "environment",
        "world",
        "task",
        "suite",
        "episode",
        "observation",
        "action",
        "turn",
        "trajectory",
        "verdict",
        "gate",
        "actor",
        "author",
    ):
        assert re.search(rf"\b{word}\b", rows), word
