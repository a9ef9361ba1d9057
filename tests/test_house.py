"""House rules that linters cannot check: sizes, names, light imports, the tree of errors, no machine in the texts."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from envsynth import errors

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "envsynth"
MAX_FILE_LINES = 400
"""Lines of a module that are not blank."""
MAX_FUNCTION_LINES = 60
"""Lines of a function without its docstring."""
LONG_FILES = ("envsynth/cli.py", "envsynth/verifiers/kernel.py")
"""One file each by design: the command line stays thin, and the kernel travels to workers as one text."""
BANNED_FILES = ("utils.py", "helpers.py", "common.py", "base.py")
HEAVY = (
    "torch",
    "triton",
    "pydantic",
    "sqlmodel",
    "sqlalchemy",
    "alembic",
    "gymnasium",
    "openai",
    "typer",
    "rich",
    "numpy",
)
TEXT_SUFFIXES = (
    ".py",
    ".md",
    ".toml",
    ".yml",
    ".yaml",
    ".svg",
    ".html",
    ".css",
    ".js",
    ".j2",
    ".json",
    ".txt",
    ".mako",
    ".cfg",
    ".sh",
    "",
)
FORBIDDEN = (
    "/" + "work/",
    "/" + "root/",
    "pypi" + ".org",
    "files.python" + "hosted",
    "nexus" + ".",
    "artifact" + "ory",
    "--index" + "-url",
)
"""Paths of a machine and hosts of a package registry; written in parts, so that this file does not hold them."""
ATTACKS = dict.fromkeys(("tests/sandbox/hostile_programs.py", "tests/sandbox/grammar_targets.py"), ("/" + "root/",))
"""Hostile programs try the paths of real machines; that is what they are for."""


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _tracked() -> list[Path]:
    """Text files that belong to the repository."""
    done = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        found = [
            path
            for part in ("envsynth", "tests", "docs")
            for path in (ROOT / part).rglob("*")
            if "__pycache__" not in path.parts
        ]
    else:
        found = [ROOT / name for name in done.stdout.split("\0") if name]
    return sorted(path for path in found if path.is_file() and path.suffix in TEXT_SUFFIXES)


def file_lines(text: str) -> int:
    """Lines that are not blank."""
    return sum(bool(line.strip()) for line in text.splitlines())


def long_functions(text: str) -> list[str]:
    """Functions above the limit, with their lines; the many arguments of a kernel, one a line, are none of its length."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            is_doc = (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            )
            is_kernel = any(ast.unparse(item).startswith("triton.jit") for item in node.decorator_list)
            begin = first.lineno - 1 if is_kernel else node.lineno
            lines = node.end_lineno - begin + 1 - (first.end_lineno - first.lineno + 1 if is_doc else 0)
            if lines > MAX_FUNCTION_LINES:
                found.append(f"{node.name}: {lines}")
    return found


@pytest.mark.parametrize("path", _modules(), ids=_name)
def test_module_is_short_and_well_named(path):
    text = path.read_text(encoding="utf-8")
    if _name(path) not in LONG_FILES:
        assert file_lines(text) <= MAX_FILE_LINES, "make it a package of the same name"
    assert long_functions(text) == []
    assert path.name not in BANNED_FILES, "name it after what it is about"
    classes = [node.name for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
    assert [name for name in classes if name.endswith("Manager")] == []


def test_size_limits_see_what_is_too_long():
    body = "\n".join(f"    x{index} = {index}" for index in range(MAX_FUNCTION_LINES))
    assert long_functions(f"def f():\n{body}\n") == [f"f: {MAX_FUNCTION_LINES + 1}"]
    kernel = f"@triton.jit\ndef f(\n    x,\n    y,\n):\n{body}\n"
    assert long_functions(kernel) == [f"f: {MAX_FUNCTION_LINES + 1}"]
    assert long_functions(kernel.replace(f"    x{MAX_FUNCTION_LINES - 1} = {MAX_FUNCTION_LINES - 1}\n", "")) == []
    assert file_lines("a\n\n \nb\n") == 2


def _loaded_by(code: str) -> list[str]:
    probe = f"import sys; {code}; print(' '.join(name for name in {HEAVY!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", probe], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_import_envsynth_is_light():
    assert _loaded_by("import envsynth; dir(envsynth); envsynth.__version__") == []


def test_text_wing_never_loads_torch():
    names = "envsynth.pipeline, envsynth.suite, envsynth.evaluate, envsynth.cli, envsynth.view"
    loaded = _loaded_by(f"import {names}; import envsynth; [getattr(envsynth, name) for name in envsynth.__all__]")
    assert "pydantic" in loaded  # the probe sees what is loaded
    assert [name for name in loaded if name in ("torch", "triton")] == []


def test_every_error_is_in_the_tree_of_its_module():
    tree = inspect.getdoc(errors) or ""
    classes = [
        (name, value)
        for name, value in vars(errors).items()
        if inspect.isclass(value) and issubclass(value, errors.EnvsynthError)
    ]
    assert len(classes) > 10
    for name, value in classes:
        assert re.search(rf"(?:[├└]── |^ *){name}\b", tree, re.MULTILINE), f"{name} is not drawn"
        assert name == "EnvsynthError" or any(
            issubclass(value, base) for base in (ValueError, RuntimeError, KeyError, TimeoutError, ImportError)
        ), f"{name} is no standard exception"


def test_every_error_of_the_tree_exists():
    tree = inspect.getdoc(errors) or ""
    for name in re.findall(r"[├└]── (\w+)", tree):
        assert hasattr(errors, name), name


@pytest.mark.parametrize("path", _tracked(), ids=_name)
def test_text_names_no_machine_and_no_registry(path):
    text = path.read_text(encoding="utf-8").lower()
    assert [item for item in FORBIDDEN if item in text and item not in ATTACKS.get(_name(path), ())] == []


def test_forbidden_texts_are_noticed():
    assert any(item in "see /" + "work/notes" for item in FORBIDDEN)


def test_precommit_hooks_work_offline():
    settings = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    repos = settings["repos"]
    assert [repo["repo"] for repo in repos] == ["local"], "a hook repository must be downloaded"
    for hook in repos[0]["hooks"]:
        assert hook["language"] in ("system", "pygrep"), hook["id"]


@pytest.mark.parametrize("hook", ["detect-private-key", "check-merge-conflict"])
def test_precommit_patterns_match_what_they_are_for(hook):
    settings = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    entry = next(item["entry"] for item in settings["repos"][0]["hooks"] if item["id"] == hook)
    bad = {
        "detect-private-key": ["-----BEGIN " + "RSA PRIVATE KEY-----", "-----BEGIN " + "PRIVATE KEY-----"],
        "check-merge-conflict": ["<" * 7 + " HEAD", ">" * 7 + " branch"],
    }
    for text in bad[hook]:
        assert re.search(entry, text), text
    assert not re.search(entry, "# an ordinary line ======= of code")
