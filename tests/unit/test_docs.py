"""The pages name what is there: links, files, and functions of the code."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    str(page.relative_to(ROOT))
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "data" / "README.md")
)
TOP = r"(?:argan|pipelines|benchmarks|tests|examples|docs)"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith("http")]
    targets = [
        ((ROOT / page).parent / link.partition("#")[0], link.partition("#")[2]) for link in links if link[0] != "#"
    ]
    assert not [str(path) for path, _ in targets if not path.exists()]
    for path, heading in targets:
        if heading:
            titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]


@pytest.mark.parametrize("page", PAGES)
def test_files_exist(page: str) -> None:
    named = re.findall(rf"`({TOP}/[\w./-]+)`", (ROOT / page).read_text(encoding="utf-8"))
    assert not [each for each in named if not (ROOT / each).exists()]


@pytest.mark.parametrize("page", PAGES)
def test_names_exist(page: str) -> None:
    """`argan.training.losses.sign_loss` is a module, or something in one."""
    missing = []
    for name in sorted(
        set(re.findall(r"`(argan(?:\.[a-z_0-9]+)+(?:\.[A-Z]\w+)?)`", (ROOT / page).read_text(encoding="utf-8")))
    ):
        parent, _, last = name.rpartition(".")
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            if not hasattr(importlib.import_module(parent), last):
                missing.append(name)
    assert not missing


def test_the_ways_through_the_code_name_no_file_twice() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    photo, parameter = text.split("\n## ")[1:]
    for way in (photo, parameter):
        files = re.findall(r"^\|[^|`]*\|? ?`([\w./]+)` \|", way, re.MULTILINE)
        assert len(files) > 10
        assert len(files) == len(set(files))
        assert not [each for each in files if not (ROOT / each).is_file()]
