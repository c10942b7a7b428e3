"""The import picture: which package may import which, no circles, and no long chains. Read off the source; nothing is run."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from argan import dependencies

ROOT = dependencies.ROOT
LONGEST = 15  # modules in a chain of imports stay below
# Each package may import those above it in this list; argan/*.py, the files beside the packages, come before all of them.
LAYERS = (
    "config",
    "optics",
    "effects",
    "photos",
    "meadow",
    "networks",
    "training",
    "metrics",
    "inference",
    "evaluation",
    "registry",
    "",  # argan/__init__.py: `argan.load`
    "serving",
    "studio",
    "cli",
    "__main__",
)
# Frameworks of the pipeline, and what lies above the library; argan.cli alone may import them
FOREIGN = {"pipelines", "benchmarks", "dvc", "prefect"}
# Arrows that are still to go: (importing module, imported module)
EXCEPTIONS: set[tuple[str, str]] = set()


@cache
def sources() -> dict[str, tuple[bytes, bool]]:
    """Module name -> its source, and whether it is a package's `__init__`."""
    found = {}
    for package in ("argan", "pipelines"):
        for path in sorted((ROOT / package).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = (path.read_bytes(), path.name == "__init__.py")
    return found


@cache
def graph(at_import: bool) -> dict[str, list[str]]:
    """Module -> modules of ours that it imports; `at_import`: only those that happen while it is imported itself."""
    arrows = {}
    for name, (source, is_package) in sources().items():
        early, late = dependencies.imports(source, name, is_package=is_package)
        every = early if at_import else early | late
        arrows[name] = sorted(each for each in every if (name, each) not in EXCEPTIONS)
    return arrows


def room(module: str) -> str:
    """`optics` of argan.optics.gather; "" of argan itself."""
    return module.split(".")[1] if "." in module else ""


def level(module: str) -> int:
    """Higher = may import more. 0: a file beside the packages."""
    return LAYERS.index(room(module)) + 1 if room(module) in LAYERS else 0


def circle(arrows: dict[str, list[str]]) -> list[str]:
    """The modules of a circle, in order; empty where there is none."""
    finished: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name not in finished:
            for each in arrows[name]:
                if found := visit(each, [*path, name]):
                    return found
            finished.add(name)
        return []

    return next((found for name in arrows if (found := visit(name, []))), [])


def longest(arrows: dict[str, list[str]]) -> tuple[str, ...]:
    """The longest chain of imports; there must be no circle."""

    @cache
    def chain(name: str) -> tuple[str, ...]:
        return (name, *max((chain(each) for each in arrows[name]), key=len, default=()))

    return max((chain(name) for name in arrows), key=len)


def test_every_package_has_its_layer() -> None:
    packages = {path.parent.name for path in (ROOT / "argan").glob("*/__init__.py")}
    assert packages == set(LAYERS) - {"", "__main__"}, "a new package goes into LAYERS, one that went goes out of it"


def test_arrows_point_down() -> None:
    upward = [
        f"{name} imports {each}"
        for name, imported in graph(at_import=False).items()
        for each in imported
        if {name.split(".")[0], each.split(".")[0]} == {"argan"} and level(each) > level(name)
    ]
    assert not upward


@pytest.mark.parametrize("at_import", [True, False], ids=["at import", "in functions too"])
def test_no_circle(at_import: bool) -> None:
    assert not circle(graph(at_import))


def test_the_longest_chain_is_short() -> None:
    chain = longest(graph(at_import=True))
    print(f"{len(chain)} modules: {' > '.join(chain)}")
    assert len(chain) < LONGEST, " > ".join(chain)


def test_the_library_imports_no_pipeline() -> None:
    """Only the command line may import the pipeline and what drives it. Imports in functions and for type checkers count."""
    found = []
    for name, (source, _) in sources().items():
        if name.split(".")[0] == "argan" and room(name) != "cli":
            for node in ast.walk(ast.parse(source)):
                modules = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                found += [f"{name}: {each}" for each in modules if each.split(".")[0] in FOREIGN]
    assert not found


def test_the_command_line_is_imported_by_nobody() -> None:
    importers = [
        name
        for name, imported in graph(at_import=False).items()
        if any(room(each) == "cli" and each.startswith("argan.") for each in imported)
    ]
    assert all(name == "argan.__main__" or name.startswith("argan.cli") for name in importers)


def test_exceptions_are_still_needed() -> None:
    """Each line of EXCEPTIONS is an import that exists; one that was removed goes from the list."""
    for name, each in EXCEPTIONS:
        source, is_package = sources()[name]
        assert each in set.union(*dependencies.imports(source, name, is_package=is_package)), f"{name} > {each}"


def test_an_upward_arrow_and_a_circle_are_seen(tmp_path: Path) -> None:
    """The reading sees imports at the top, in functions, of names and of submodules, and relative ones."""
    (tmp_path / "argan" / "low").mkdir(parents=True)
    (tmp_path / "argan" / "__init__.py").touch()
    (tmp_path / "argan" / "low" / "__init__.py").touch()
    (tmp_path / "argan" / "high.py").touch()
    (tmp_path / "argan" / "low" / "other.py").touch()
    source = b"from argan import high\nfrom .other import name\ndef f():\n    import argan.low.other\n"
    early, late = dependencies.imports(source, "argan.low.part", root=tmp_path)
    assert (early, late) == ({"argan.high", "argan.low.other"}, {"argan.low.other", "argan.low", "argan"})
    assert circle({"a": ["b"], "b": ["c"], "c": ["a"]}) == ["a", "b", "c", "a"]
    assert circle({"a": ["b", "c"], "b": ["c"], "c": []}) == []
    assert longest({"a": ["b", "c"], "b": ["c"], "c": []}) == ("a", "b", "c")
