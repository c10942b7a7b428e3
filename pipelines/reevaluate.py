"""Reevaluate: a champion on the validation photos of today -> .argan/reevaluated/<domain>.json and tags of its version.

`python -m pipelines.reevaluate DOMAIN`. Photos, extractor and code change while a champion stays; what it was registered with
then says little. Nothing is promoted or demoted here: the gate does that, when a new model comes, and it judges on validation
photos too: test photos are for the published scores alone.
"""

from __future__ import annotations

from datetime import UTC, datetime

from argan import registry
from argan.config.schema import Params
from argan.errors import UserError
from argan.evaluation.gate import PRIMARY, mean_score
from argan.files import write_json
from pipelines import REEVALUATED, champion
from pipelines.stage import run_stage, say

SCORES = tuple(dict.fromkeys((*PRIMARY, "depth_sign_agreement")))


def reevaluate(domain: str, params: Params) -> None:
    folder = registry.download(f"models:/argan-{domain}@champion", params.mlflow)
    now, then = champion.rescore(folder, domain, params), champion.registered_scores(folder)
    rows = {name: (mean_score(getattr(then, name)), mean_score(getattr(now, name))) for name in SCORES}
    same = then.judged_on == now.judged_on
    result = {"judged_on": now.judged_on, "same_photos": same, "degenerate": list(now.degenerate)}
    result |= {"split": now.split, "registered_split": then.split}
    result["scores"] = {name: {"registered": old, "now": new} for name, (old, new) in rows.items() if new is not None}
    tags = {
        "reevaluated": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "reevaluated_on": now.judged_on,
        "reevaluated_split": now.split,
    }
    tags |= {f"reevaluated_{name}": f"{new:.4g}" for name, (_, new) in rows.items() if new is not None}
    result["version"] = registry.tag(f"argan-{domain}", "champion", tags, params.mlflow)
    write_json(REEVALUATED / f"{domain}.json", result)
    where = "the photos it was registered with" if same else "other photos than it was registered with"
    say(f"argan-{domain} version {result['version']}, champion, judged anew on {now.split} photos, {where}")
    registered = "when registered" + (f", on {then.split} photos" if then.split != now.split else "")
    for name, (old, new) in rows.items():
        if new is not None:
            say(f"{domain}: {name} {new:.4f}" + (f", {old:.4f} {registered}" if old is not None else ""))
    if now.degenerate:
        raise UserError(
            f"{domain}: the champion is degenerate on the photos of today: {', '.join(now.degenerate)}; retrain it"
        )


if __name__ == "__main__":
    run_stage(reevaluate)
