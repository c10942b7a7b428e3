"""What a piece of code depends on: the project's own modules that it imports, directly or through others, read off the source.

Nothing is imported or run, so it takes milliseconds and needs no torch. Followed are imports at the top of a module and inside
functions; those under `if TYPE_CHECKING:` never happen and are not. Importing a module runs its packages' `__init__` as well:
what that imports at its top counts, what its functions import counts only where something of the package itself is named.
Modules that are only named in strings (importlib, `python -m`) are not seen.
"""

from __future__ import annotations

import ast
import gc
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("argan", "pipelines")


def closure(roots: Sequence[str], without: Mapping[str, str] | None = None, root: Path = ROOT) -> dict[str, Path]:
    """Module name -> source file of all that `roots` depend on, themselves included, in the order of names.

    without: name -> the reason why it does not count; a package's name leaves out all that is in it, `<package>.__init__` its
    own file alone. What is left out is not followed either, unless it is one of the roots. `root` is the folder that holds the
    packages. Raises ValueError for a name that is no module.
    """
    without = without or {}
    for name in (*roots, *without):
        if _file(name.removesuffix(".__init__"), root) is None:
            raise ValueError(f"there is no module {name} in {root}")
    followed: dict[str, bool] = {}  # whether what its functions import counts
    pending = [(name, True) for name in roots]
    while pending:
        name, with_functions = pending.pop()
        path = _file(name, root)
        if (
            path is None
            or (name not in roots and _is_excluded(name, without))
            or (name in followed and followed[name] >= with_functions)
        ):
            continue
        followed[name] = with_functions
        at_import, later = _imports(path.read_bytes(), name, path.name == "__init__.py")
        for base, names in (*at_import, *(later if with_functions else ())):
            submodules = [f"{base}.{each}" for each in names if _file(f"{base}.{each}", root)]
            pending += [(each, True) for each in submodules]
            pending.append((base, len(submodules) < len(names) or not names))
        pending += [(parent, False) for parent in _parents(name)]
    counted = sorted(name for name in followed if not _is_excluded(name, without))
    return {name: path for name in counted if (path := _file(name, root)) is not None}


def imports(source: bytes, module: str, *, is_package: bool = False, root: Path = ROOT) -> tuple[set[str], set[str]]:
    """Names of our modules that a source imports itself: when it is imported, and when a function of it is called."""
    at_import, later = _imports(source, module, is_package)
    return _named(at_import, root) - {module}, _named(later, root) - {module}


def _named(imports: Iterable[Import], root: Path) -> set[str]:
    names = set()
    for base, attributes in imports:
        submodules = [f"{base}.{each}" for each in attributes if _file(f"{base}.{each}", root)]
        names.update(submodules if attributes and len(submodules) == len(attributes) else [*submodules, base])
    return names


def revision(modules: Mapping[str, Path]) -> str:
    """A short hash of the source of modules, as `closure` gives them: another one wherever a byte of one is another."""
    digest = hashlib.sha256()
    for name, path in modules.items():
        source = path.read_bytes()
        digest.update(f"{name} {len(source)}\n".encode())
        digest.update(source)
    return digest.hexdigest()[:8]


def _is_excluded(name: str, without: Iterable[str]) -> bool:
    return any(name == each or name.startswith(f"{each}.") or f"{name}.__init__" == each for each in without)


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts))]


def _file(module: str, root: Path) -> Path | None:
    """The source of a module of ours; None where there is none."""
    if module.split(".")[0] not in PACKAGES:
        return None
    path = root.joinpath(*module.split("."))
    return next((p for p in (path / "__init__.py", path.with_suffix(".py")) if p.is_file()), None)


Import = tuple[str, tuple[str, ...]]  # `from base import names`; no names: the module itself


@lru_cache(maxsize=512)  # by the source: a file that changed is read anew
def _imports(source: bytes, module: str, is_package: bool) -> tuple[tuple[Import, ...], tuple[Import, ...]]:
    """Imports of our packages that happen when the module is imported, and those that happen when a function of it is called."""
    collected: dict[bool, list[Import]] = {False: [], True: []}
    package = module if is_package else module.rpartition(".")[0]
    with _without_collection():
        body = ast.parse(source).body
    for node, later in _statements(body, False):
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            if base.split(".")[0] in PACKAGES:
                collected[later].append((base, tuple(alias.name for alias in node.names)))
        else:
            for alias in node.names:
                if alias.name.split(".")[0] in PACKAGES:
                    collected[later].append((alias.name, ()))
                    if alias.asname is None:  # binds the outermost package, through which anything of it may be named
                        collected[later] += [(parent, ()) for parent in _parents(alias.name)]
    return tuple(collected[False]), tuple(collected[True])


def _statements(body: Iterable[ast.AST], later: bool) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """The import statements of a block, and whether they wait for a call; expressions hold none and are passed over."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node, later
        elif isinstance(node, ast.If) and _for_type_checkers(node.test):
            yield from _statements(node.orelse, later)
        else:
            inner = later or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for name in ("body", "orelse", "finalbody", "handlers", "cases"):
                blocks = getattr(node, name, ())
                if isinstance(blocks, list):
                    yield from _statements(blocks, inner)


def _for_type_checkers(test: ast.expr) -> bool:
    return "TYPE_CHECKING" in (getattr(test, "id", ""), getattr(test, "attr", ""))  # or typing.TYPE_CHECKING


@contextmanager
def _without_collection() -> Iterator[None]:
    """A syntax tree is many small objects, none of them garbage: looking for it takes two fifths of the time of parsing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
