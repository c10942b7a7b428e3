"""pyproject.toml declares what the code imports, and nothing that it does not."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.metadata import packages_distributions
from typing import Any

import pytest
from conftest import ROOT

OURS = {"argan", "pipelines", "benchmarks"}
NOT_IMPORTED = {  # declared, and why nothing imports it
    "albucore": "the one version that albumentations runs with",
    "pyarrow": "how pandas reads and writes Parquet",
}


def normalized(requirement: str) -> str:
    """The name of a distribution without version and extras, as package indexes spell it."""
    name = re.match(r"[\w.-]+", requirement)
    assert name is not None
    return re.sub(r"[-_.]+", "-", name[0]).lower()


@cache
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def declared(*extras: str) -> set[str]:
    optional = project()["optional-dependencies"]
    requirements = [*project()["dependencies"], *(each for extra in extras for each in optional[extra])]
    return {normalized(requirement) for requirement in requirements}


@cache
def imported(*folders: str) -> dict[str, list[str]]:
    """Top-level package that is no part of Python or of this project -> the files that import it."""
    found: dict[str, list[str]] = {}
    for path in sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                modules = [node.module]
            for package in {module.split(".")[0] for module in modules} - OURS - sys.stdlib_module_names:
                found.setdefault(package, []).append(str(path.relative_to(ROOT)))
    return found


@cache
def installed() -> Mapping[str, list[str]]:
    return packages_distributions()


def distributions(package: str) -> set[str]:
    return {normalized(name) for name in installed().get(package, [package])}


@pytest.mark.parametrize("folder", ["argan", "pipelines"])
def test_what_is_imported_is_declared(folder: str) -> None:
    extras = [name for name in project()["optional-dependencies"] if name != "dev"]
    known = declared(*extras)
    missing = {package: files for package, files in imported(folder).items() if not distributions(package) & known}
    assert not missing


def test_what_is_declared_is_imported() -> None:
    extras = [name for name in project()["optional-dependencies"] if name != "dev"]
    used = {name for package in imported("argan", "pipelines") for name in distributions(package)}
    assert declared(*extras) - used == set(NOT_IMPORTED)
