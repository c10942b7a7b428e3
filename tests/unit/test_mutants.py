"""The mistakes that `make mutants` plants, and the tests it holds them against."""

from __future__ import annotations

import pytest

from benchmarks import mutants


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a < b", {"a <= b", "a >= b"}),
        ("a is not b", {"a is b"}),
        ("a in (b)", {"a not in (b)"}),
        ("x = a and b or c", {"x = a or b or c", "x = a and b and c"}),
        ("x = a + b", {"x = a - b"}),
        ("x = 3", {"x = 4"}),
        ("x = 0.0", {"x = 1.0"}),
        ("x = True", {"x = False"}),
        ("x += y", {"pass"}),
        ("f()", {"pass"}),
        ("x = f(a, b, c)", {"x = f(b, a, c)"}),
        ("x = 'é' if a else b", {"x = 'é' if not (a) else b"}),
        ("if a:\n    raise b", {"if not (a):\n    raise b", "if a:\n    pass"}),
        ("x: Literal[3]", set()),
        ("'''a docstring'''\nif TYPE_CHECKING:\n    f(a, b)", set()),
    ],
)
def test_each_mistake_is_one_token(source: str, expected: set[str]) -> None:
    found = mutants.mutants("module.py", source.encode())
    assert {each.mutated.decode() for each in found if each.is_code()} == expected


def test_a_mistake_is_shown_with_its_line() -> None:
    source = b"def f():\n    return a  <  b\n\n"
    assert str(next(mutants.mutants("module.py", source))) == "module.py:2\n    - return a < b\n    + return a <= b"


def test_the_nearest_tests_judge() -> None:
    tests = mutants.nearest_tests(
        [*(mutants.ROOT / "argan").rglob("*.py"), *(mutants.ROOT / "pipelines").rglob("*.py")]
    )
    assert "tests/unit/test_files.py" in tests[mutants.ROOT / "argan" / "files.py"]
    assert "tests/unit/test_imports.py" in tests[mutants.ROOT / "argan" / "dependencies.py"]
