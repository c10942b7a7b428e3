"""A trained model as a folder of files: `models/<domain>/`, which `argan.inference.model` reads."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from argan import networks, visualization
from argan.config.schema import PLACEMENT, Training
from argan.effects.iris import Iris
from argan.files import swapped, write_json, write_text
from argan.inference.novelty import NOVELTY_FILE, NoveltyDetector
from argan.photos.store import Photos
from argan.tensors import write_tensors
from argan.training.job import TrainingResult
from argan.training.samples import sample_sheet
from argan.training.sign import Verdict

FROM_STORE = ("card.md", "quality.json", "report.html")  # about the photos, copied into the model


@dataclass(frozen=True)
class TrainedModel:
    """Everything a model's folder is written from."""

    domain: str
    config: Training
    store: Photos
    result: TrainingResult
    verdict: Verdict | None
    estimator: networks.Estimator
    novelty: NoveltyDetector
    mlflow: dict[str, str]  # reference of the run
    git_revision: str

    @property
    def summary(self) -> dict[str, Any]:
        """What the training took, and its warnings."""
        result = self.result
        trial = (
            self.config.sign_images if self.verdict else 0
        )  # with the other sign: in the seconds, and not in the model
        return {
            "train_seconds": round(result.seconds, 1),
            "images_per_second": round((result.images + trial) / max(result.seconds, 1e-9), 2),
            "images_seen": result.images,
            "health": result.health,
        }

    @property
    def metadata(self) -> dict[str, Any]:
        """The content of config.json."""
        config = self.config
        return {
            "domain": self.domain,
            "training": config.model_dump(exclude=set(PLACEMENT)),
            "data": self.store.fingerprint,
            "photos": {"count": len(self.store), "train": len(self.store.rows("train"))},
            "prior": {"radius": config.prior_radius, "slope": config.prior_slope, "below": config.prior_below},
            "sign": asdict(self.verdict) if self.verdict else None,
            "summary": self.summary,
            "mlflow": self.mlflow,
            "git_revision": self.git_revision,
        }


def write_model(model: TrainedModel, folder: Path) -> None:
    """Write the folder; it appears complete or not at all. Raises UserError where it cannot be written."""
    metadata, generator = model.metadata, model.result.generator
    header = {key: metadata[key] for key in ("domain", "training")}
    lens = Iris.load(model.store.folder)
    with swapped(folder) as new:
        write_tensors(new / "generator.safetensors", generator.state_dict(), header)
        write_tensors(new / "estimator.safetensors", model.estimator.state_dict(), header)
        model.novelty.save(new / NOVELTY_FILE)
        write_json(new / "config.json", metadata)
        pd.DataFrame(model.result.history).to_csv(new / "history.csv", index=False)
        (new / "samples").mkdir()
        visualization.write_png(new / "samples" / "samples.png", sample_sheet(generator, model.config))
        if lens:
            lens.save(new)
        write_text(new / "card.md", card(metadata, generator.mixture.shares, lens))
        (new / "data").mkdir()
        for name in FROM_STORE:
            shutil.copyfile(model.store.folder / name, new / "data" / name)


def card(metadata: dict[str, Any], shares: list[float], lens: Iris | None = None) -> str:
    """The model's card: what it is, how it was made, what it is not for. `shares` of learned apertures, else none."""
    t, s, domain = metadata["training"], metadata["summary"], metadata["domain"]
    return f"""# argan-{domain}

Scenes (an all-in-focus image and its disparity) learned from {metadata["photos"]["train"]} flat photographs of the domain
*{domain}*: no depth sensor, no stereo, no focal stack, no pretrained network. With it, a depth estimator distilled
from generated photographs alone.

| | |
|---|---|
| preset, resolution | {t["preset"]}, {t["resolution"]} px |
| recipe, renderer, seed | {t["recipe"]}, {t["renderer"]}, {t["seed"]} |
| apertures | {_apertures(t, shares)} |
| sign of depth | {_sign(metadata.get("sign"))} |
| images seen | {s["images_seen"]} in {s["train_seconds"] / 60:.1f} minutes ({s["images_per_second"]:.0f}/s) |
| photos (fingerprint) | {metadata["photos"]["count"]} (`{metadata["data"]}`) |
| code revision | `{metadata["git_revision"] or "unknown"}` |

{lens.summary if lens else "Aperture not known."}

Use: `argan sample {domain}`, `argan depth {domain} PHOTO`, `argan bokeh {domain} PHOTO`. Disparity is
signed, 0 in the focal plane, larger = nearer, as a fraction of the image's width; it is relative, no measure in metres.

Method: aperture rendering GAN (Kaneko, CVPR 2021). Files: safetensors, JSON, CSV and PNG; nothing is pickled.
"""


def _apertures(training: dict[str, Any], shares: list[float]) -> str:
    """Through which apertures scenes were photographed in training, and what was learned of them."""
    interval = "" if training["apertures"] == "bernoulli" else f", {training['aperture_min']:g} to 1 of the full one"
    learned = f": {', '.join(f'{share:.0%}' for share in shares)}, from the smallest up" if shares else ""
    return f"{training['apertures']}{interval}{learned}; closed in {training['aperture_zero']:.0%}"


def _sign(verdict: dict[str, Any] | None) -> str:
    """Where the sign of depth is from."""
    return f"learned from the photographs: {Verdict(**verdict)}" if verdict else "given by the prior"
