"""Evaluate: models/<domain>/ on held-out photos -> metrics/<domain>.json and plots/<domain>/."""

from __future__ import annotations

import json
from pathlib import Path

from argan import evaluation, registry
from argan.checkpoint import write_json
from argan.params import Params
from argan.photos import swapped
from pipelines import run, say


def evaluate(domain: str, params: Params) -> None:
    model = Path("models") / domain
    with swapped(Path("plots") / domain) as plots:
        metrics = evaluation.evaluate(
            model, Path("data/photos") / domain, Path("data/truth") / domain, plots, params.evaluate
        )
    write_json(Path("metrics") / f"{domain}.json", metrics)
    run_id = json.loads((model / "config.json").read_text(encoding="utf-8"))["mlflow"]["run_id"]
    if tracked := registry.open_run(params.mlflow, run_id, say):
        tracked.scores(metrics)
    say(f"{domain}: " + ", ".join(f"{k} {v:.4g}" for k, v in metrics.items() if isinstance(v, float)))


if __name__ == "__main__":
    run(evaluate)
