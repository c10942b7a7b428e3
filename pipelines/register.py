"""Register: models/<domain>/ as a version of the MLflow model argan-<domain>; the receipt goes to registry/<domain>.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from argan import registry
from argan.config.schema import Params
from argan.errors import UserError
from argan.evaluation import gate
from argan.evaluation.gate import GATE_SPLIT, Decision, Scores
from argan.files import write_json
from pipelines import champion
from pipelines.stage import run_stage, say


def register(domain: str, params: Params) -> None:
    registry.deliver(Path("checkpoints") / domain, params.mlflow, say)
    metrics = _read(Path("metrics") / f"{domain}.json", domain)
    report = Path("reports") / domain
    new = Scores.from_json(_read(report / "scores.json", domain))
    if new.split != GATE_SPLIT:
        raise UserError(
            f"{report}/scores.json holds scores of {new.split} photos, and the gate judges on {GATE_SPLIT} photos; "
            f"run `dvc repro evaluate@{domain}`"
        )

    def decide(holder: Path | None) -> Decision:
        if holder is None or new.degenerate:
            return gate.decide(new, None, params.register_)
        try:
            return gate.decide(new, _champion(holder, new.judged_on, domain, params), params.register_)
        except UserError as error:
            return Decision(False, f"not comparable: the champion cannot be judged on these photos: {error}")

    receipt = registry.register(
        Path("models") / domain, metrics, Path("plots") / domain, report, params.mlflow, decide, say, _lineage(domain)
    )
    write_json(Path("registry") / f"{domain}.json", receipt)


def _champion(folder: Path, judged_on: str, domain: str, params: Params) -> Scores:
    """The champion's scores on the validation photos of today: those it was registered with, or new ones. Raises UserError."""
    scores = champion.registered_scores(folder)
    if scores.judged_on == judged_on:
        return scores
    say(f"{domain}: judging the champion on the photos of today")
    return champion.rescore(folder, domain, params)


def _lineage(domain: str) -> dict[str, str]:
    """What DVC calls the photographs and the model: `dvc.lock` of some commit names both."""
    import yaml

    try:
        stages = yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))["stages"]
        known = [out for name in ("crop", "train") for out in stages.get(f"{name}@{domain}", {}).get("outs", [])]
        outs = {out["path"]: str(out["md5"]) for out in known}
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return {}  # run by hand, without DVC
    named = {"dvc_photos": f"data/photos/{domain}", "dvc_model": f"models/{domain}"}
    return {key: outs[path] for key, path in named.items() if path in outs}


def _read(path: Path, domain: str) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(f"{path} is missing or damaged ({error}); run `dvc repro evaluate@{domain}`") from error


if __name__ == "__main__":
    run_stage(register)
