"""The file params.yaml: read and validated, and the one change the program makes to it itself, a collection's revision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock

from argan.config.schema import NAME, SOURCES, Params, nearest, validated
from argan.errors import UserError
from argan.files import write_text

SECTIONS = {field.alias or name for name, field in Params.model_fields.items()} - {"known"}
# The section of a new collection, behind all that is there
NEW_SECTION = """
# Photographs of `argan collection show {name}`.
{name}:
  source: collection
  preset: "64" # quick is 32 px; 64, 128 and 256 want one GPU
  revision: {revision}
"""


def load(path: str | Path = "params.yaml") -> Params:
    """Read and check params.yaml. Raises UserError with the file, the parameter, the reason and the nearest valid name."""
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is not there; run in the top folder of the repository") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold a mapping of sections, not {type(content).__name__}")
    known = {}
    for name in [key for key in content if key not in SECTIONS]:
        section = content.pop(name)
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise UserError(f"{path}: '{name}' is no domain name: use small letters, digits, - and _")
        if not isinstance(section, dict) or "source" not in section:
            raise UserError(
                f"{path}: unknown section '{name}'{nearest(name, SECTIONS)}; a domain's section must say its 'source'"
            )
        if (source := section["source"]) not in SOURCES:
            raise UserError(
                f"{path}: {name}.source: unknown source '{source}'{nearest(source, SOURCES)}; known: {', '.join(SOURCES)}"
            )
        known[name] = validated(SOURCES[source], section, name, str(path))
    params = validated(Params, {**content, "known": known}, "", str(path))
    for name in params.domains:
        params.training(name)
    return params


def record_revision(name: str, revision: Callable[[], str], path: str | Path = "params.yaml") -> bool:
    """Write a collection's revision into its section, which is created if missing; every other byte stays as it is.

    `revision` is called while the file is locked. Returns whether the section is new. Raises UserError when the name belongs to
    something else, or the file cannot be written.
    """
    path = Path(path)
    with FileLock(path.with_name(f".{path.name}.lock")):
        check_collection_name(name, load(path))
        text, digest = path.read_text(encoding="utf-8"), revision()
        content = yaml.safe_load(text)
        new = name not in content
        section = {"source": "collection", "preset": "64"} if new else content[name]
        expected = content | {name: section | {"revision": digest}}
        scalar = digest if yaml.safe_load(digest) == digest else f"'{digest}'"  # digits alone would be a number
        if new:
            text = f"{text.rstrip()}\n{NEW_SECTION.format(name=name, revision=scalar)}"
        else:
            start, end = _position(text, name, "revision")
            text = f"{text[:start]}{scalar}{text[end:]}"
        if yaml.safe_load(text) != expected:  # an alias, for one: other sections would change with it
            raise UserError(
                f"{path} is written in a way that cannot be changed safely; write {name}.revision: '{digest}' there"
            )
        write_text(path, text)
    return new


def _position(text: str, section: str, key: str) -> tuple[int, int]:
    """Where the value of `section`.`key` begins and ends in a YAML text; (0, 0) where the section itself does not hold it."""
    node: Any = yaml.compose(text, yaml.SafeLoader)
    for name in (section, key):
        node = next((value for each, value in node.value if each.value == name), None)
        if node is None:
            return 0, 0
    return node.start_mark.index, node.end_mark.index


def check_collection_name(name: str, params: Params) -> None:
    """Raises UserError when `name` cannot be a collection's: no domain name, or another section's."""
    if not NAME.fullmatch(name) or yaml.safe_load(name) != name:  # `on` and `2024` are not even words in YAML
        raise UserError(
            f"'{name}' is no name for a collection: use small letters, digits, - and _, "
            "but no number, date, on, off, yes, no or null"
        )
    if (
        name in SECTIONS
        or (name in SOURCES and name != "collection")
        or (name in params.known and params.known[name].source != "collection")
    ):
        raise UserError(f"'{name}' is taken by another section of params.yaml; choose another name for the collection")
