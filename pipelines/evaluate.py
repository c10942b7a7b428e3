"""Evaluate: models/<domain>/ on test photos -> metrics/<domain>.json, plots/<domain>/ and reports/<domain>/.

And on validation photos -> reports/<domain>/scores.json, by which the gate chooses.
"""

from __future__ import annotations

from pathlib import Path

import torch

from argan.config.schema import Params
from argan.evaluation.evaluate import evaluate_model
from argan.files import swapped, write_json
from pipelines import CACHE
from pipelines.stage import run_stage, say


def evaluate(domain: str, params: Params) -> None:
    with swapped(Path("plots") / domain) as plots, swapped(Path("reports") / domain) as report:
        metrics = evaluate_model(
            Path("models") / domain,
            Path("data/photos") / domain,
            Path("data/truth") / domain,
            plots,
            params.evaluate,
            report_folder=report,
            cache=CACHE,
            device=torch.device("cuda" if torch.cuda.is_available() else "cpu"),
            log=lambda line: say(f"{domain}: {line}"),
        )
    write_json(Path("metrics") / f"{domain}.json", metrics)
    say(f"{domain}: see reports/{domain}/report.html")
    say(f"{domain}: " + ", ".join(f"{k} {v:.4g}" for k, v in metrics.items() if isinstance(v, float)))


if __name__ == "__main__":
    run_stage(evaluate)
