"""Models that nobody trained, and their registration: for tests of the registry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from argan import registry
from argan.config import schema
from argan.config.schema import Mlflow
from argan.evaluation.bootstrap import compare
from argan.evaluation.gate import Decision
from argan.evaluation.report import GATE

METRICS: dict[str, Any] = {
    "fid": 10.0, "kid": 0.1, "features": "efficientnet-lite0", "images": 64, "depth_spearman": 0.6, "depth_sign_agreement": 0.9,
    "depth_side": None, "degenerate": [],
}  # fmt: skip


def model(folder: Path, content: str = "weights", data: str = "abc", run_id: str | None = None) -> Path:
    """A folder that looks like a model's; `content` stands for the generator's weights."""
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    (folder / "generator.safetensors").write_text(content)
    (folder / "estimator.safetensors").write_text(f"estimator of {content}")
    training = schema.training("quick").model_dump()
    config = {"domain": "meadow", "training": training, "data": data, "mlflow": {"run_id": run_id}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "card.md").write_text("# argan-meadow\n")
    (folder / "history.csv").write_text("images,loss_d,penalty\n32,0.5,\n64,0.4,0.1\n")
    (folder / "samples" / "samples.png").write_bytes(b"png")
    return folder


def register(folder: Path, **metrics: Any) -> dict[str, Any]:
    """With a gate that goes by depth alone, out of what the champion was registered with."""
    metrics = METRICS | metrics
    report = folder.with_name("report")
    report.mkdir(exist_ok=True)
    (report / "scores.json").write_text(json.dumps(metrics))
    (report / "report.html").write_text(f"<h1>report</h1>{GATE}")

    def decide(champion: Path | None) -> Decision:
        old = json.loads((champion / "evaluation" / "scores.json").read_text()) if champion else None
        if old is None:
            return Decision(True, "the first healthy model")
        found = compare([metrics["depth_spearman"]] * 3, [old["depth_spearman"]] * 3)
        return Decision(found.verdict == "better", f"depth: {found.verdict}", {"depth_spearman": found})

    return registry.register(folder, metrics, Path("plots"), report, Mlflow(), decide, say=lambda line: None)
