"""The messages of errors in the source code, as templates: `group: the group {} does not exist.`"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from pathlib import Path

# Functions and classes that make errors of requests, and which argument is the message.
_REQUEST_ERRORS = {
    "invalid": 0,
    "conflict_error": 0,
    "APIError": 1,
    "NoSuchRowError": 0,
    "RowExistsError": 0,
    "VoucherError": 0,
    "ImportLineError": 1,
}
_VALUE_ERRORS = {"ConfigurationError": 0, "NoKeyError": 0, "KeyExistsError": 0}

Functions = ast.FunctionDef | ast.AsyncFunctionDef


def messages_of(path: Path, *, values: bool = False) -> set[str]:
    """The messages of a module, with `{}` for what varies; with `values` those of invalid values,
    too.
    """
    tree = ast.parse(path.read_text("utf-8"))
    makers = _REQUEST_ERRORS | (_VALUE_ERRORS if values else {})
    constants = _assigned(tree.body)
    found: set[str] = set()
    for function in [n for n in ast.walk(tree) if isinstance(n, Functions)]:
        names = constants | _assigned(ast.walk(function))
        for call in [node for node in ast.walk(function) if isinstance(node, ast.Call)]:
            name = call.func.id if isinstance(call.func, ast.Name) else ""
            if name in makers and len(call.args) > makers[name]:
                found |= set(_texts(call.args[makers[name]], names))
    return {text for text in found if any(char.isalpha() for char in text.replace("{}", ""))}


def _assigned(nodes: Iterable[ast.AST]) -> dict[str, list[ast.expr]]:
    """What is assigned to each name, also by `message, field = ...`."""
    found: dict[str, list[ast.expr]] = {}
    for node in nodes:
        if not isinstance(node, ast.Assign):
            continue
        pairs = [(node.targets[0], node.value)]
        if isinstance(node.targets[0], ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = list(zip(node.targets[0].elts, node.value.elts, strict=False))
        for target, value in pairs:
            if isinstance(target, ast.Name):
                found.setdefault(target.id, []).append(value)
    return found


def _texts(node: ast.expr, names: dict[str, list[ast.expr]]) -> Iterator[str]:
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr():
            yield template(node)
        case ast.IfExp():
            yield from _texts(node.body, names)
            yield from _texts(node.orelse, names)
        case ast.Name():
            for value in names.get(node.id, ()):
                if not isinstance(value, ast.Name):
                    yield from _texts(value, {})


def template(node: ast.JoinedStr) -> str:
    """The text of an f-string, with `{}` for its expressions; two of them in a row are one."""
    parts = [str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values]
    text = "".join(parts)
    while "{}{}" in text:
        text = text.replace("{}{}", "{}")
    return text
