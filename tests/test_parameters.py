"""The ids of tests are the same in each collection.

The processes of a run (pytest-xdist) collect the tests one after the other and must find the same
ids. A parameter made from a clock or from chance agrees now and then only.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
CHANGING_MODULES = {"random", "secrets", "time", "uuid"}
CHANGING_CALLS = {"getpid", "id", "now", "object", "today", "urandom", "utcnow"}
SEEDED = {"Random"}


def is_changing(node: ast.AST, names: set[str]) -> bool:
    """Whether the expression calls a clock or chance, or reads one of the names."""
    for part in ast.walk(node):
        match part:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=module), attr=attribute)) if (
                module in CHANGING_MODULES or attribute in CHANGING_CALLS
            ) and attribute not in SEEDED:
                return True
            case ast.Call(func=ast.Name(id=function)) if function in CHANGING_CALLS:
                return True
            case ast.Name(id=name) if name in names:
                return True
    return False


def changing_parameters(source: str) -> Iterator[int]:
    """The lines of the decorators whose values differ from one collection to the next."""
    tree = ast.parse(source)
    names: set[str] = set()
    for statement in tree.body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ) if is_changing(value, names):
                names.add(name)
    for part in ast.walk(tree):
        if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            for decorator in part.decorator_list:
                if is_changing(decorator, names):
                    yield decorator.lineno


def test_parameters_of_tests_are_the_same_in_each_collection() -> None:
    found = [
        f"{path.relative_to(TESTS)}:{line}"
        for path in sorted(TESTS.rglob("*.py"))
        for line in changing_parameters(path.read_text("utf-8"))
    ]
    assert not found, "Give the parameter as a difference and add the time within the test."


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("@parametrize([int(time.time()) - 3600])\ndef test(): ...", [1]),
        ("@parametrize([uuid.uuid4()], ids=str)\ndef test(): ...", [1]),
        ("@parametrize([datetime.now(UTC)])\nasync def test(): ...", [1]),
        ("NOW = time.time()\n@parametrize([NOW - 1])\ndef test(): ...", [2]),
        ("NOW = time.time()\nAGO = NOW - 60\n@parametrize([AGO])\ndef test(): ...", [3]),
        ("@parametrize([timedelta(hours=1)])\ndef test(): return time.time()", []),
    ],
)
def test_parameters_that_change_are_found(source: str, lines: list[int]) -> None:
    assert list(changing_parameters(source)) == lines
