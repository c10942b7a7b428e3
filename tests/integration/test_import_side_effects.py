"""What an import brings along."""

from __future__ import annotations

import os
import subprocess
import sys

from conftest import ROOT


def test_metrics_and_pictures_do_not_need_torch() -> None:
    code = "import sys, argan.metrics, argan.visualization; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_library_stays_at_home_and_brings_no_torch() -> None:
    """Its import asks for its newest version on the net and loads torch, unless it is configured not to."""
    code = (
        "import sys, urllib.request as u; u.OpenerDirector.open = lambda *_, **__: sys.exit('asked the net');"
        "import argan.photos.crop; assert 'torch' not in sys.modules; assert 'albumentations.pytorch' not in sys.modules"
    )
    environment = {k: v for k, v in os.environ.items() if k != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_flows_know_no_torch() -> None:
    modules = "pipelines.flows.retrain_all, pipelines.flows.ingest, pipelines.flows.reevaluate"
    script = f"import sys, {modules}; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"
