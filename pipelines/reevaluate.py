"""Reevaluate: the champion of a domain on the photos of today -> .argan/reevaluated/<domain>.json and tags of its version.

`python -m pipelines.reevaluate DOMAIN`. Photos, extractor and code change while a champion stays; what it was registered with
then says little. Nothing is promoted or demoted here: the gate does that, when a new model comes.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path

import torch

from argan import evaluation, registry
from argan.errors import UserError
from argan.files import write_json
from argan.gate import PRIMARY, Scores
from argan.params import Params
from pipelines import CACHE, run, say

OUT = Path(".argan/reevaluated")
SCORES = tuple(dict.fromkeys((*PRIMARY, "depth_sign_agreement")))


def reevaluate(domain: str, params: Params) -> None:
    champion = registry.download(f"models:/argan-{domain}@champion", params.mlflow)
    photos, truth = (Path("data") / kind / domain for kind in ("photos", "truth"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    now = evaluation.judge(champion, photos, truth, params.evaluate, cache=CACHE, device=device).scores()
    try:
        then = Scores.of(json.loads((champion / "evaluation" / "scores.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, UserError):
        then = Scores("unknown photos")
    rows = {name: (_mean(getattr(then, name)), _mean(getattr(now, name))) for name in SCORES}
    same = then.judged_on == now.judged_on
    told = {"judged_on": now.judged_on, "same_photos": same, "degenerate": list(now.degenerate)}
    told["scores"] = {name: {"registered": old, "now": new} for name, (old, new) in rows.items() if new is not None}
    tags = {"reevaluated": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "reevaluated_on": now.judged_on}
    tags |= {f"reevaluated_{name}": f"{new:.4g}" for name, (_, new) in rows.items() if new is not None}
    told["version"] = registry.tag(f"argan-{domain}", "champion", tags, params.mlflow)
    write_json(OUT / f"{domain}.json", told)
    where = "the photos it was registered with" if same else "other photos than it was registered with"
    say(f"argan-{domain} version {told['version']}, champion, judged anew on {where}")
    for name, (old, new) in rows.items():
        if new is not None:
            say(f"{domain}: {name} {new:.4f}" + (f", {old:.4f} when registered" if old is not None else ""))
    if now.degenerate:
        raise UserError(
            f"{domain}: the champion is degenerate on the photos of today: {', '.join(now.degenerate)}; retrain it"
        )


def _mean(values: tuple[float, ...] | None) -> float | None:
    known = [value for value in values or () if not math.isnan(value)]
    return sum(known) / len(known) if known else None


if __name__ == "__main__":
    run(reevaluate)
