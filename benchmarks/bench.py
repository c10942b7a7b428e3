"""Speed and memory on this machine, each number beside what it is measured against, all in one run.

Every time is a median, and every ratio the median over rounds that take both sides in turn, so that whatever else the machine
does falls on both. Memory is the peak of what torch allocates above the start of a call, from its profiler's log of every
allocation: the same in every run, which a process's resident size is not.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from argan.errors import UserError
from argan.files import write_json
from benchmarks.bench_cost import cost
from benchmarks.bench_metrics import frechet
from benchmarks.bench_optics import optics
from benchmarks.bench_photos import ingest, meadow
from benchmarks.bench_step import choices, step
from benchmarks.bench_use import bokeh, depth, sample
from benchmarks.timing import Numbers

PARTS: dict[str, Callable[[], Numbers]] = {
    "optics": optics,
    "step": step,
    "choices": choices,
    "cost": cost,
    "meadow": meadow,
    "sample": sample,
    "depth": depth,
    "bokeh": bokeh,
    "ingest": ingest,
    "frechet": frechet,
}


def run(json: Path | None = None, only: list[str] | None = None) -> Numbers:
    """Measure all parts, or those named; show a table; write `json`. Raises UserError for an unknown part."""
    for name in only or []:
        if name not in PARTS:
            near = difflib.get_close_matches(name, PARTS, 1)
            hint = f" (did you mean '{near[0]}'?)" if near else ""
            raise UserError(f"--only: unknown part '{name}'{hint}; there are {', '.join(PARTS)}")
    numbers: Numbers = {}
    for name in only or PARTS:
        part = PARTS[name]()
        _show(name, part)
        numbers |= part
    if json is not None:
        write_json(json, {name: round(value, 4) for name, value in numbers.items()})
    return numbers


def _show(part: str, numbers: Numbers) -> None:
    table = Table(title=f"argan bench: {part}", show_header=False, title_justify="left")
    for name, value in numbers.items():
        table.add_row(name, f"{value:.3g}")
    Console().print(table)
