"""The package where nothing can be written: a read-only image, a home that is none."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import argan

PACKAGE = Path(argan.__file__).parent
COMPILED = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in sorted(PACKAGE.rglob("*.py"))
    if re.search(r"^from argan(\.jit import| import .*\bjit\b)", path.read_text(encoding="utf-8"), re.MULTILINE)
]
SCRIPT = """
import importlib, sys
import numpy as np
for name in sys.argv[1:]:
    importlib.import_module(name)
import argan
from argan.effects import bokeh
print(argan.__file__)
photo = np.full((8, 8, 3), 100, np.uint8)
print(bokeh.refocus(photo, np.zeros((8, 8), np.float32), 0.5).mean())
"""


def test_without_a_place_for_compiled_code(tmp_path: Path) -> None:
    """Root may write anywhere, so a file lies where each folder of compiled code would."""
    assert len(COMPILED) >= 4
    shutil.copytree(PACKAGE, tmp_path / "argan", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in {path.parent for path in (tmp_path / "argan").rglob("*.py")}:
        (folder / "__pycache__").touch()
    (tmp_path / "home").touch()
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("NUMBA_", "XDG_", "PYTHON"))}
    environment = kept | {"HOME": str(tmp_path / "home"), "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, *COMPILED],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == [str(tmp_path / "argan" / "__init__.py"), "100.0"]
