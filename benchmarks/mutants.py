"""Do the unit tests notice mistakes? `make mutants COUNT=100 SEED=0` plants one at a time and prints those that survive.

A mutant is a one-token mistake (a comparison, an operator, a constant, a removed statement, a negated condition, swapped
arguments) somewhere in argan/ or pipelines/. It is made in a copy of the tree, never in the working tree, and run against the
unit tests nearest to its file by imports, until the first failure. Same seed and code, same mutants. Code that no unit test
imports, directly or through one other module, is not sampled.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

from argan import dependencies

ROOT = dependencies.ROOT
HOPS = 2  # of a test to a module: imports it, or imports one that does; a package's __init__ is no hop
FACTOR, SECONDS = 4, 90  # a mutant may take so many times as long as the tests without it, and so many seconds more
COMPILED = "argan.jit"  # modules that import it are compiled, into the code of their callers too
# Either operator of a pair may take the other's place
COMPARISONS = (("<", "<="), (">", ">="), ("<", ">="), (">", "<="), ("==", "!="), ("is", "is not"), ("in", "not in"))
ARITHMETIC = (("and", "or"), ("+", "-"), ("*", "/"), ("//", "*"), ("%", "*"), ("&", "|"))


@dataclass(frozen=True)
class Mutant:
    """Bytes `start` to `stop` of a file replaced by `after`; `file`: its path from the top folder."""

    file: str
    source: bytes
    start: int
    stop: int
    after: bytes

    @property
    def mutated(self) -> bytes:
        return self.source[: self.start] + self.after + self.source[self.stop :]

    def is_code(self) -> bool:
        """Whether it compiles, and to something else than the source without it."""
        try:
            return ast.dump(ast.parse(self.mutated)) != ast.dump(ast.parse(self.source))
        except SyntaxError:
            return False

    def __str__(self) -> str:
        """file:line, and the line without and with the mistake."""
        begin, end = self.source.rfind(b"\n", 0, self.start) + 1, self.source.find(b"\n", self.stop)
        lines = self.source[begin:end], self.mutated[begin : end + len(self.mutated) - len(self.source)]
        before, after = (" ".join(line.decode().split()) for line in lines)
        number = self.source.count(b"\n", 0, self.start) + 1
        return f"{self.file}:{number}\n    - {before}\n    + {after}"


def mutants(file: str, source: bytes) -> Iterator[Mutant]:
    """All mutants of a file, in order; a few of them are no code."""
    begins = [0, *(i + 1 for i, byte in enumerate(source) if byte == ord("\n"))]
    for node in computing(ast.parse(source)):
        for start, stop, after in changes(node, source, begins):
            yield Mutant(file, source, start, stop, after)


def changes(node: ast.AST, source: bytes, begins: list[int]) -> Iterator[tuple[int, int, bytes]]:
    """Where to change the source (start, stop) and to what; `begins`: where its lines begin."""

    def span(at: ast.expr | ast.stmt) -> tuple[int, int]:
        return begins[at.lineno - 1] + at.col_offset, begins[(at.end_lineno or 0) - 1] + (at.end_col_offset or 0)

    operands: list[ast.expr] = []
    match node:
        case ast.Compare(left=first, comparators=others):
            operands = [first, *others]
        case ast.BinOp(left=first, right=second):
            operands = [first, second]
        case ast.BoolOp(values=values):
            operands = values
        case ast.Constant(value=bool() as value):
            yield *span(node), str(not value).encode()
        case ast.Constant(value=int() as value):
            yield *span(node), str(value + 1).encode()
        case ast.Constant(value=float() as value):
            yield *span(node), repr(value * 2 or 1.0).encode()
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            start, stop = span(test)
            yield start, stop, b"not (" + source[start:stop] + b")"
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Continue() | ast.Break():
            yield *span(node), b"pass"
        case ast.Call(func=function, args=[first, second, *_]) if ast.unparse(function) not in ("max", "min"):
            (a, b), (c, d) = span(first), span(second)
            yield a, d, source[c:d] + source[b:c] + source[a:b]
    for left, right in pairwise(operands):
        start, stop = span(left)[1], span(right)[0]
        token = source[start:stop].strip(b" ()")  # no operator where a line breaks or a comment stands
        at = source.index(token, start)
        for pair in COMPARISONS + ARITHMETIC:
            if token.decode() in pair:
                yield at, at + len(token), pair[pair[0] == token.decode()].encode()


def computing(node: ast.AST) -> Iterator[ast.AST]:
    """The node and those in it, without annotations, formats, imports for type checkers and `__main__`."""
    if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "__name__ == '__main__'"):
        return
    yield node
    for name, value in ast.iter_fields(node):
        if name not in ("annotation", "returns", "format_spec"):
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, ast.AST):
                    yield from computing(each)


def module(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path, root: Path) -> set[str]:
    """Names of the modules of ours that a file imports."""
    is_package = path.name == "__init__.py"
    return set().union(*dependencies.imports(path.read_bytes(), module(path, root), is_package=is_package, root=root))


def nearest_tests(paths: list[Path], root: Path = ROOT) -> dict[Path, list[str]]:
    """File -> the unit tests with the fewest hops to it, no more than HOPS; those that reach the least come first."""
    files = {module(path, root): path for path in paths}
    arrows = {name: imports(path, root) & set(files) for name, path in files.items()}
    found: dict[Path, dict[str, int]] = {}
    for test in sorted((root / "tests/unit").glob("test_*.py")):
        label = str(test.relative_to(root))
        pending = [(1, name) for name in imports(test, root) & set(files)]
        while pending:
            pending.sort(reverse=True)
            hops, name = pending.pop()
            hops_of = found.setdefault(files[name], {})
            if label not in hops_of and hops <= HOPS:
                hops_of[label] = hops
                pending += [(hops + (files[name].name != "__init__.py"), each) for each in arrows[name]]
    reach = Counter(test for hops_of in found.values() for test in hops_of)
    nearest = {path: min(hops_of.values(), default=0) for path, hops_of in found.items()}
    return {
        path: sorted(
            (test for test, hops in found[path].items() if hops == nearest[path]), key=lambda test: reach[test]
        )
        for path in found
        if found[path]
    }


def passes(tests: list[str], tree: Path, limit: float | None, compiled: Path | None = None) -> bool:
    """Whether the tests of `tree` pass within `limit` seconds; `compiled`: a folder for numba's code instead of the tree's."""
    environment = {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    environment |= {"NUMBA_CACHE_DIR": str(compiled)} if compiled else {}
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
        cwd=tree,
        env=os.environ | environment,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        return process.wait(limit) == 0
    except subprocess.TimeoutExpired:
        return False
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def copy_tree(tree: Path) -> None:
    """The working tree's files as Git sees them, and numba's compiled code, with their times."""
    listed = subprocess.check_output(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, text=True).splitlines()
    for path in [*(ROOT / name for name in listed), *(ROOT / "argan").rglob("*.nb[ic]")]:
        if path.is_file():
            target = tree / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mutants", description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    survivors, seconds = [], dict[tuple[str, ...], float]()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        tree = Path(folder, "tree")
        copy_tree(tree)
        paths = [path for package in ("argan", "pipelines") for path in sorted((tree / package).rglob("*.py"))]
        tests_of = nearest_tests(paths, tree)
        tested = [path for path in paths if path in tests_of]
        every = [each for path in tested for each in mutants(str(path.relative_to(tree)), path.read_bytes())]
        random.Random(options.seed).shuffle(every)
        sample = list(islice((mutant for mutant in every if mutant.is_code()), options.count))
        print(
            f"{len(sample)} of {len(every):,} in {len(tested)} files; {len(paths) - len(tested)} have no unit test",
            flush=True,
        )
        for number, mutant in enumerate(sample, 1):
            path = tree / mutant.file
            tests, status, began = tests_of[path], path.stat(), time.monotonic()
            if tuple(tests) not in seconds:
                if not passes(tests, tree, None):
                    sys.exit(f"error: without any mutant there are failures in {' '.join(tests)}")
                seconds[tuple(tests)] = time.monotonic() - began
            limit = FACTOR * seconds[tuple(tests)] + SECONDS
            path.write_bytes(mutant.mutated)
            with tempfile.TemporaryDirectory(dir=folder) as own:
                survived = passes(tests, tree, limit, Path(own) if COMPILED in imports(path, tree) else None)
            path.write_bytes(mutant.source)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # compiled code knows its source by its time
            survivors += [mutant] if survived else []
            took = time.monotonic() - began
            print(f"[{number}/{len(sample)}, {took:.0f} s] {'SURVIVED' if survived else 'caught'} {mutant}", flush=True)
    print(f"\n{len(survivors)} survived:", *survivors, sep="\n")
    print(f"{100 * (1 - len(survivors) / max(len(sample), 1)):.0f} % caught (seed {options.seed})")


if __name__ == "__main__":
    main()
