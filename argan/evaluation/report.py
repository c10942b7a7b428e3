"""The report of one model, `report.html`: what it makes, how good it is beside its baselines, and what it learned from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from argan.files import write_text
from argan.html import templates, uri

Metrics = Mapping[str, Any]

JUDGED_ON = (
    "The gate judges on validation photographs; every other number is of test photographs, which choose nothing."
)
GATE = "<!-- gate -->"  # where registration puts the decision; see `with_gate`
BASELINES = ("", "_prior", "_mean", "_luminance")
DEPTH = {  # score -> how it reads
    "spearman": "rank correlation (higher is better)",
    "side": "scale-invariant error (lower)",
    "delta1": "within a factor of 1.25 (higher)",
    "sign_agreement": "near and far the right way round",
    "mask_auc": "subject before background, AUC",
}
SCENES = {
    "sharpness_gap": "sharpness of the focused image over its photo, log",
    "scene_defocus_gap": "the same where it is out of focus",
    "scene_depth_std": "spread of depth in a scene, of its range",
    "scene_depth_alike": "likeness of depth from scene to scene",
    "optics_blur_disparity": "blur follows depth, rank correlation",
    "optics_blur_aperture": "scenes that blur more as the aperture opens",
    "optics_refocus": "scenes whose sharp plane moves with the focus",
    "optics_epipolar": "light field off its straight lines",
}
PICTURES = (
    ("scenes.png", "Generated scenes: all in focus, their disparity, and photos through wider and wider apertures"),
    ("light_field.gif", "The camera goes round the rim of its aperture: near and far move against each other"),
    ("refocus.png", "The focal plane moves from far to near"),
    ("depth.png", "Test photographs, their depth and the estimate: worst, median and best"),
    ("interpolation.png", "From one scene to another: image above, disparity below"),
    ("grid.png", "Generated photographs"),
    ("training.png", "Training"),
)


def distance_names(features: str) -> tuple[str, str]:
    """What `fid` and `kid` are to be called: FID and KID are Inception's alone."""
    if features.startswith("inception"):
        return "FID", "KID"
    return f"Fréchet distance ({features})", f"kernel distance ({features})"


def write(path: Path, model: Path, photos: Path, plots: Path, metrics: Metrics) -> None:
    """Write the page. model, photos: folders of the model and of the store it was judged on; plots: of the pictures."""
    try:
        config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = {}
    data_title, data_rows = data_card(photos / "card.md")
    text = (
        templates()
        .get_template("evaluation.html")
        .render(
            title=f"argan-{config.get('domain', model.name)}",
            subtitle=_subtitle(config, metrics),
            metrics=metrics,
            gate=Markup(GATE),
            pictures={name: (uri(plots / name), caption) for name, caption in PICTURES if (plots / name).exists()},
            depth_rows=depth_rows(metrics),
            photograph_rows=photograph_rows(metrics),
            floor_images=metrics.get("fid_images") or metrics["images"],
            scene_rows=[[text, _number(metrics[key])] for key, text in SCENES.items() if metrics.get(key) is not None],
            training_rows=_training(config, metrics),
            data_title=data_title,
            data_rows=data_rows,
        )
    )
    write_text(path, text)


def with_gate(text: str, reason: str, champion: bool, rows: Sequence[Sequence[str]]) -> str:
    """The page with the gate's decision. rows: score, this model's, the champion's, gain, interval, verdict."""
    template = templates().get_template("gate.html")
    decision = template.render(champion=champion, reason=reason, rows=rows, judged_on=JUDGED_ON)
    return text.replace(GATE, decision.strip(), 1)


def _subtitle(config: Mapping[str, Any], metrics: Metrics) -> str:
    size = config.get("training", {}).get("resolution")
    seen = metrics.get("images_seen")
    parts = [f"{size} x {size} px" if size else "", f"{seen:,} images seen" if seen else ""]
    return ", ".join([*(part for part in parts if part), f"judged on {metrics['images_real']:,} test photographs"])


def depth_rows(metrics: Metrics) -> list[list[str]]:
    """Score, this model's, its 95 % interval, the baselines': of what is known."""
    rows = []
    for score, text in DEPTH.items():
        if metrics.get(f"depth_{score}") is None:
            continue
        low, high = (metrics.get(f"depth_{score}_{end}") for end in ("low", "high"))
        spread = "" if low is None else f"{low:.3f} to {high:.3f}"
        ours, *others = (_number(metrics.get(f"depth_{score}{who}")) for who in BASELINES)
        rows.append([text, ours, spread, *others])
    return rows


def photograph_rows(metrics: Metrics) -> list[list[str]]:
    """Score, of the generated photographs, of real ones in their place."""
    fid, kid = distance_names(metrics["features"])
    error = "" if metrics.get("kid_se") is None else f" ± {metrics['kid_se']:.2g}"
    rows = [
        [f"{kid}, lower is better", _number(metrics["kid"]) + error, _number(metrics.get("kid_floor"))],
        [f"{fid}, lower is better", _number(metrics["fid"]), _number(metrics.get("fid_floor"))],
        ["precision: generated ones that look real", _number(metrics.get("precision")), ""],
        ["recall: real ones that could be generated", _number(metrics.get("recall")), ""],
    ]
    return [row for row in rows if row[1]]


def _training(config: Mapping[str, Any], metrics: Metrics) -> list[list[str]]:
    training = config.get("training", {})
    rows = [[name, str(training[name])] for name in ("preset", "recipe", "renderer", "seed") if name in training]
    if metrics.get("train_seconds"):
        rows.append(
            ["trained for", f"{metrics['train_seconds'] / 60:.1f} minutes, {metrics['images_per_second']} images/s"]
        )
    rows += [[name.replace("_", " "), str(config[name])] for name in ("git_revision", "data") if config.get(name)]
    return rows


def data_card(path: Path) -> tuple[str, list[list[str]]]:
    """Title and facts of a data card, whose Markdown is our own: a title, bold names, a table. Empty where there is none."""
    rows, titles = [], []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if line.startswith("|"):
            if len(cells) == 2 and set(cells[0]) - set("-"):
                rows.append(cells)
        elif found := re.match(r"\*\*(.+?)\*\*:? ?(.*)", line):
            rows.append([found[1], found[2].strip()])
        elif line.startswith("# "):
            titles.append(line[2:])
    return titles[0] if titles else "", rows


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}"
