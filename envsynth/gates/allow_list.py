"""The allow-list of solution syntax. This text is sent into a sandbox worker; the host never parses untrusted source."""

from __future__ import annotations

import ast

NODES = (
    ast.Module, ast.FunctionDef, ast.arguments, ast.arg, ast.Return, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.For,
    ast.While, ast.If, ast.Expr, ast.Pass, ast.Break, ast.Continue, ast.Raise, ast.Try, ast.ExceptHandler, ast.Assert,
    ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Lambda, ast.IfExp, ast.Dict, ast.Set, ast.ListComp, ast.SetComp, ast.DictComp,
    ast.GeneratorExp, ast.comprehension, ast.Compare, ast.Call, ast.keyword, ast.FormattedValue, ast.JoinedStr,
    ast.Constant, ast.Attribute, ast.Subscript, ast.Starred, ast.Name, ast.List, ast.Tuple, ast.Slice, ast.NamedExpr,
    ast.Global, ast.Nonlocal, ast.Delete, ast.Yield, ast.YieldFrom, ast.Load, ast.Store, ast.Del, ast.boolop, ast.operator, ast.unaryop, ast.cmpop,
)  # fmt: skip
BANNED = {
    "eval", "exec", "compile", "open", "input", "globals", "locals", "vars", "breakpoint", "getattr", "setattr",
    "delattr", "memoryview", "help", "exit", "quit", "format_map",
}  # fmt: skip


PURE = ("collections", "datetime", "functools", "itertools", "json", "math", "re")
"""Standard modules that are logic and nothing else."""


def _imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or "."] if isinstance(node, ast.ImportFrom) else []


def violations(source: str) -> list[str]:
    """List what a solution may not contain, at most ten items."""
    found: list[str] = []
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        if names := _imports(node):
            found += [f"line {line}: import of {name} is not allowed" for name in names if name not in PURE]
        elif isinstance(node, ast.alias):
            continue
        elif not isinstance(node, NODES):
            found.append(f"line {line}: {type(node).__name__} is not allowed")
        elif isinstance(node, ast.Name) and (node.id in BANNED or node.id.startswith("__")):
            found.append(f"line {line}: name {node.id} is not allowed")
        elif isinstance(node, ast.Attribute) and (node.attr.startswith("_") or node.attr in BANNED):
            found.append(f"line {line}: attribute {node.attr} is not allowed")
    return found[:10]
