"""Before and after a run of the pipeline: is everything in place, did the registry keep what was registered, what was made.

`python -m pipelines.workspace prepare | finish | registry`, as the Makefile does.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
import webbrowser
from pathlib import Path
from typing import Any

from argan import registry
from argan.config import params
from argan.config.schema import Params
from argan.errors import UserError
from pipelines.services import auth as basic_auth
from pipelines.stage import fail, run_command, say

LOCAL = Path(".dvc/config.local")
TABLE = {  # score -> how it reads; those with a baseline beside them first
    "depth_spearman": "depth, rank correlation (higher is better)",
    "depth_side": "depth, scale-invariant error (lower)",
    "depth_sign_agreement": "near and far the right way round",
    "depth_mask_auc": "flower against background",
    "fid": "pictures, Frechet distance (lower)",
    "kid": "pictures, kernel distance (lower)",
    "sharpness_gap": "sharpness of focused image over photos",
}


def prepare() -> Params:
    """Check what can be checked before any work. Raises UserError."""
    settings = params.load()
    if not Path("dvc.yaml").exists() or not Path(".dvc").is_dir():
        raise UserError("dvc.yaml or .dvc is not there: run in the top folder of the repository")
    for domain in settings.domains:
        settings.domain(domain)
    if not settings.domains:
        raise UserError(f"params.yaml: domains is empty; name at least one of {', '.join(sorted(settings.known))}")
    git, no_scm = _git(), LOCAL.exists() and "no_scm" in LOCAL.read_text(encoding="utf-8")
    if not git and not no_scm:
        say(
            "This is no Git repository: DVC works without one here, except for experiments and comparisons of revisions."
        )
        _dvc("config", "--local", "core.no_scm", "true")
    elif git and no_scm:
        _dvc("config", "--local", "--unset", "core.no_scm")
    return settings


def _git() -> bool:
    try:
        return subprocess.run(["git", "rev-parse", "--git-dir"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _dvc(*arguments: str) -> None:
    if subprocess.run([sys.executable, "-m", "dvc", *arguments], check=False).returncode:
        raise UserError(f"dvc {' '.join(arguments)} failed: its message is above")


def is_unregistered(domain: str, settings: Params) -> bool:
    """Whether the receipt names a version that the MLflow in use does not hold (another one, or its database is gone).

    DVC cannot see that, so the register stage would pass for unchanged.
    """
    receipt = _json(Path("registry") / f"{domain}.json")
    return receipt is not None and not registry.is_registered(receipt, settings.mlflow)


def finish() -> None:
    """Register again what the registry has lost, and say what was made and how to look at it."""
    settings = params.load()
    for domain in settings.domains:
        if is_unregistered(domain, settings):
            say(f"{domain}: the MLflow in use does not have the registered version; registering it again")
            _dvc("repro", "--quiet", "--force", "--single-item", f"register@{domain}")
    for domain in settings.domains:
        _summarize(domain)
    uri = registry.tracking_uri(settings.mlflow)
    name = f"argan-{settings.domains[0]}"
    page = f"see {page_of(uri, name)}" if uri.startswith("http") else "make registry"
    say(f"\nRegistry page:   {page}")
    say(f"A new picture:   argan sample {settings.domains[0]} --count 16 --seed 1 --out scenes")


def _summarize(domain: str) -> None:
    config, scores = _json(Path("models") / domain / "config.json"), _json(Path("metrics") / f"{domain}.json")
    receipt = _json(Path("registry") / f"{domain}.json")
    if config is None or scores is None or receipt is None:
        raise UserError(f"{domain}: not everything was made; run `dvc repro` and read what it says")
    summary = config["summary"]
    say(f"\n{domain}: generator and depth estimator in models/{domain}, learned from flat photographs alone")
    minutes, speed = summary["train_seconds"] / 60, summary["images_per_second"]
    say(f"in {minutes:.1f} minutes ({summary['images_seen']} images seen, {speed:.0f}/s).")
    say(f"\n  {'':44}{'model':>9}{'center prior':>15}{'mean depth':>13}")
    for key, title in TABLE.items():
        if scores.get(key) is not None:
            cells = [scores.get(f"{key}{baseline}") for baseline in ("", "_prior", "_mean")]
            say(
                f"  {title:44}"
                + "".join(
                    f"{'' if c is None else format(c, '.3f'):>{w}}" for c, w in zip(cells, (9, 15, 13), strict=True)
                )
            )
    say(
        f"  degenerate: {', '.join(scores.get('degenerate') or []) or 'nothing'}; pictures judged by {scores.get('features')}"
    )
    say(
        "\nPictures:        "
        + "\n                 ".join(str(p) for p in sorted(Path("plots").joinpath(domain).glob("*.png")))
    )
    say(f"Report:          {Path('reports') / domain / 'report.html'}")
    say(
        f"Registered:      {receipt['name']} version {receipt['version']}, {' and '.join(receipt['aliases'])} ({receipt['reason']})"
    )


def page_of(server: str, name: str) -> str:
    """The page of a registered model: MLflow opens in another view without the last part."""
    return f"{registry.redacted_uri(server)}/#/models/{name}?workflowType=machine_learning"


def serve(port: int = 5000) -> None:
    """Show the registry page: start MLflow's server over the local database and open a browser where there is one."""
    settings = params.load()
    uri, name = registry.tracking_uri(settings.mlflow), f"argan-{settings.domains[0]}"
    if uri.startswith("http"):
        say(f"The registry has a server already: {page_of(uri, name)}")
        return
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise UserError(f"port {port} is taken; choose another: make registry PORT={port + 1}")
    address = f"http://127.0.0.1:{port}"
    say(f"Starting MLflow's server, some 20 seconds; Ctrl-C ends it. Page: {page_of(address, name)}")
    environment = os.environ | basic_auth.environment(*basic_auth.allowed([port]))
    environment |= {
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # its workers take 2 GB
    }
    environment.pop(basic_auth.AUTH, None)
    options = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--app-name", basic_auth.APP]
    command = [sys.executable, "-m", "mlflow", "server", *options]
    server = subprocess.Popen(command, env=environment)
    try:
        while server.poll() is None:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=2).close()
                break
            except OSError:
                time.sleep(0.5)
        if sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
            webbrowser.open(page_of(address, name))
        server.wait()
    finally:
        server.terminate()


def _json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def main(arguments: list[str]) -> None:
    match arguments:
        case ["prepare"]:
            run_command(prepare)
        case ["finish"]:
            run_command(finish)
        case ["registry", port] if port.isdigit():
            run_command(lambda: serve(int(port)))
        case _:
            fail("usage: python -m pipelines.workspace prepare | finish | registry PORT")


if __name__ == "__main__":
    main(sys.argv[1:])
