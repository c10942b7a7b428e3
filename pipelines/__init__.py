"""What DVC runs: one module per stage, thin. Each reads params.yaml, calls argan, and writes its outputs whole.

A stage is run as `python -m pipelines.<stage> <domain>` in the top folder of the repository.
"""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

# Nothing here phones home; set before anything that would is imported.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "1")
# Threads that wait for one another spin, and hold up whatever else wants their core (OpenMP's own count is 300,000). With this one
# `quick` learns 38 images a second beside two busy processes on two cores, for 3, and alone 2 % slower: docs/results.md.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

PACKAGES = ("dvc", "mlflow", "pandas", "pydantic", "torch", "yaml")  # some of those that every command needs
CACHE = Path(".argan/features")  # of evaluation; may be deleted at any time
REEVALUATED = Path(".argan/reevaluated")  # a champion's scores of today, <domain>.json


def missing_packages() -> str:
    """A line that names what this Python lacks and the way out; empty where it lacks nothing."""
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if not missing:
        return ""
    return (
        f"{sys.executable} lacks the packages {', '.join(missing)}: run `make setup`, then `source .venv/bin/activate`"
    )


# While `python -m pipelines.<command>` looks for its module, before anything of it is imported
if sys.argv[:1] == ["-m"] and (line := missing_packages()):
    print(f"error: {line}", file=sys.stderr)
    sys.exit(2)
