"""Rules for the source of verifiers and tools. This text is sent into a sandbox worker; the host never parses source."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # both texts are loaded into one namespace
    from envsynth.gates.allow_list import violations

RUNS_TEXT = {"eval", "exec", "compile", "__import__"}
REACHES_OUT = {"open", "input", "globals", "breakpoint", "getattr", "setattr", "delattr", "exit", "quit"}
PURE_MODULES = (
    "__future__", "bisect", "calendar", "collections", "copy", "dataclasses", "datetime", "decimal", "enum", "fractions",
    "functools", "graphlib", "heapq", "itertools", "json", "math", "numbers", "operator", "re", "statistics", "string",
    "typing", "unicodedata", "zoneinfo",
)  # fmt: skip
"""Standard modules that are logic and data and nothing else."""
OF_TOOLS = (*PURE_MODULES, "random", "hashlib", "base64", "textwrap", "uuid", "sqlite3")
"""What tools may import besides: their draws are seeded per episode, and EX203 and EX205 see what is not."""
MAKES_TEXT = {"str", "repr", "format", "dumps", "join"}
CHANGES = {
    "lower",
    "upper",
    "casefold",
    "strip",
    "lstrip",
    "rstrip",
    "replace",
    "title",
    "removeprefix",
    "removesuffix",
}
SEARCHES = {"search", "match", "fullmatch", "findall", "find", "index", "count", "startswith", "endswith"}
EXECUTES = {"execute", "executemany", "executescript"}


def lint_task(solution: str, sources: list[str], texts: list[str]) -> dict[str, list[str]]:
    """Check a task's solution and the sources of its verifier; `texts` are the answer's fields of type text."""
    return {
        "solution": _guarded(violations, solution),
        "verifier": _guarded(_verifier_violations, sources, texts),
    }


def lint_tools(tools: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Check tools `{name, source, texts}`; `texts` are a tool's parameters of type text."""
    return {tool["name"]: _guarded(_tool_violations, tool["source"], tool["texts"]) for tool in tools}


def _guarded(rules: Callable[..., list[str]], *given: Any) -> list[str]:
    """What rules find; source that is no Python is a finding."""
    try:
        return rules(*given)
    except (SyntaxError, ValueError, RecursionError) as error:
        return [f"could not be checked: {type(error).__name__}: {error}"]


def _verifier_violations(sources: list[str], texts: list[str]) -> list[str]:
    """List what the sources of a verifier may not do, at most ten items; `texts` are the answer's fields of type text."""
    found: list[str] = []
    for source in sources:
        tree = ast.parse(source.strip())
        held = _holders(tree, texts)
        for node in ast.walk(tree):
            found += [*_both(node, PURE_MODULES), *_searches(node, texts, held), *_lenient(node)]
    return list(dict.fromkeys(found))[:10]


def _tool_violations(source: str, texts: list[str]) -> list[str]:
    """List what a tool's source may not do, at most ten items; `texts` are its parameters of type text."""
    tree = ast.parse(source)
    found: list[str] = []
    for node in ast.walk(tree):
        found += [*_both(node, OF_TOOLS), *_scripts(node)]
        if isinstance(node, ast.FunctionDef):
            found += _injections(node, texts)
    return list(dict.fromkeys(found))[:10]


def _both(node: ast.AST, modules: tuple[str, ...]) -> list[str]:
    """Other ways in and out: code from text, imports, files, the interpreter's own names."""
    line = getattr(node, "lineno", 0)
    found: list[str] = []
    if isinstance(node, ast.Import | ast.ImportFrom):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or "."]
        found += [f"line {line}: import of {name}" for name in names if name.split(".")[0] not in modules]
    elif isinstance(node, ast.Name) and node.id in RUNS_TEXT:
        found.append(f"line {line}: {node.id} runs text as code")
    elif isinstance(node, ast.Name) and node.id in REACHES_OUT:
        found.append(f"line {line}: {node.id} reaches beyond logic and data")
    elif isinstance(node, ast.Attribute) and node.attr.startswith("__") and node.attr.endswith("__"):
        found.append(f"line {line}: {node.attr} reaches into the interpreter")
    return found


def _searches(node: ast.AST, texts: list[str], held: set[str]) -> list[str]:
    """Looking for a text, or a pattern, within the text of an answer."""
    line = getattr(node, "lineno", 0)
    if isinstance(node, ast.Compare):
        left = node.left
        for operator, right in zip(node.ops, node.comparators, strict=True):
            within = _is_text(right, texts, held) or (_is_written(right) and _is_text(left, texts, held))
            if isinstance(operator, ast.In | ast.NotIn) and within:
                return [f"line {line}: looks for a text within the answer's text"]
            left = right
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in SEARCHES:
        owner = node.func.value
        module = isinstance(owner, ast.Name) and owner.id == "re"
        if any(_is_text(item, texts, held) for item in (node.args if module else [owner])):
            return [f"line {line}: {node.func.attr} looks for a part of the answer's text"]
    return []


def _holders(tree: ast.AST, texts: list[str]) -> set[str]:
    """Variables that hold a text of the answer."""
    held: set[str] = set()
    for _ in range(2):
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and _is_text(node.value, texts, held):
                held |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return held


def _is_text(node: ast.AST, texts: list[str], held: set[str]) -> bool:
    """Whether an expression is a text of the answer: a field of type text, or something made a text."""
    if isinstance(node, ast.Name):
        return node.id in held
    if isinstance(node, ast.Subscript):
        return _is_answer(node.value) and isinstance(node.slice, ast.Constant) and node.slice.value in texts
    if isinstance(node, ast.JoinedStr):
        return _mentions(node, "answer")
    return isinstance(node, ast.Call) and _call_gives_text(node, texts, held)


def _call_gives_text(node: ast.Call, texts: list[str], held: set[str]) -> bool:
    function = node.func
    if isinstance(function, ast.Attribute) and function.attr in CHANGES:
        return _is_text(function.value, texts, held)
    getter = isinstance(function, ast.Attribute) and function.attr == "get" and _is_answer(function.value)
    looked_up = (
        isinstance(function, ast.Name) and function.id == "lookup" and node.args[:1] != [] and _is_answer(node.args[0])
    )
    if getter or looked_up:
        last = node.args[0 if getter else -1]
        return isinstance(last, ast.Constant) and last.value in texts
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    return name in MAKES_TEXT and any(_mentions(item, "answer") for item in node.args)


def _is_answer(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id == "answer"


def _is_written(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _lenient(node: ast.AST) -> list[str]:
    """Exceptions that end in a pass, and programs that do not look at what has changed."""
    line = getattr(node, "lineno", 0)
    if isinstance(node, ast.ExceptHandler) and any(_says_pass(inner) for inner in ast.walk(node)):
        return [f"line {line}: an exception ends in a pass"]
    if isinstance(node, ast.FunctionDef) and node.name == "verify" and _ignores_changes(node):
        return [f"line {line}: verify reads neither after nor diff: whatever an actor changes, it passes"]
    return []


def _mentions(node: ast.AST, name: str) -> bool:
    return any(isinstance(inner, ast.Name) and inner.id == name for inner in ast.walk(node))


def _says_pass(node: ast.AST) -> bool:
    if isinstance(node, ast.Return):
        return _is_true(node.value) or _is_ok(node.value)
    return False


def _is_true(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


def _is_ok(node: ast.AST | None) -> bool:
    if not isinstance(node, ast.Dict):
        return False
    pairs = zip(node.keys, node.values, strict=True)
    return any(isinstance(key, ast.Constant) and key.value == "ok" and _is_true(value) for key, value in pairs)


def _ignores_changes(node: ast.FunctionDef) -> bool:
    names = [argument.arg for argument in node.args.args][2:]
    return not any(_mentions(statement, name) for statement in node.body for name in names)


# -------------------------------------------------------------------------------------------------------------- tools


def _scripts(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "executescript":
        return [f"line {node.lineno}: executescript runs several statements and ends the call's savepoint"]
    return []


def _injections(function: ast.FunctionDef, texts: list[str]) -> list[str]:
    """SQL that is put together from arguments: an actor would write it."""
    arguments = [item.arg for item in (*function.args.args[1:], *function.args.kwonlyargs)]
    tainted = _texts_of(function, {name for name in arguments if name in texts})
    found: list[str] = []
    for node in ast.walk(function):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in EXECUTES:
            names = sorted(_names_in_text(node.args[0], tainted)) if node.args else []
            found += [f"line {node.lineno}: SQL is put together from the argument {name}" for name in names[:1]]
    return found


def _texts_of(function: ast.FunctionDef, arguments: set[str]) -> set[str]:
    """Arguments, and variables that are built from their text, by assignments in order of lines, twice for loops."""
    tainted = set(arguments)
    statements = [node for node in ast.walk(function) if isinstance(node, ast.Assign | ast.AugAssign)]
    for _ in range(2):
        for node in sorted(statements, key=lambda item: item.lineno):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if _names_in_text(node.value, tainted):
                tainted |= {target.id for target in targets if isinstance(target, ast.Name)}
    return tainted


def _names_in_text(node: ast.AST, tainted: set[str]) -> set[str]:
    """Names whose text becomes part of this expression's text: joined, formatted or as it is."""
    if isinstance(node, ast.Name):
        return {node.id} & tainted
    found: set[str] = set()
    for part in _parts(node):
        found |= _names_in_text(part, tainted)
    return found


def _parts(node: ast.AST) -> list[ast.expr]:
    """Parts of an expression that become part of its text."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mod):
        return [node.left, node.right]
    if isinstance(node, ast.JoinedStr):
        return [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ("format", "replace"):
        return [node.func.value, *node.args]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "str":
        return node.args
    if isinstance(node, ast.IfExp):
        return [node.body, node.orelse]
    return node.elts if isinstance(node, ast.Tuple) else []
