"""Register: models/<domain>/ as a version of the MLflow model argan-<domain>; the receipt goes to registry/<domain>.json."""

from __future__ import annotations

import json
from pathlib import Path

from argan import registry
from argan.errors import UserError
from argan.files import write_json
from argan.params import Params
from pipelines import run, say


def register(domain: str, params: Params) -> None:
    scores = Path("metrics") / f"{domain}.json"
    try:
        metrics = json.loads(scores.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{scores} is missing or damaged ({error}); run `dvc repro evaluate@{domain}`") from error
    receipt = registry.register(
        Path("models") / domain, metrics, Path("plots") / domain, params.mlflow, params.register_, say
    )
    write_json(Path("registry") / f"{domain}.json", receipt)


if __name__ == "__main__":
    run(register)
