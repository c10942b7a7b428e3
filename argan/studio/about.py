"""A model's own words: its card, its scores and its pictures, as HTML."""

from __future__ import annotations

import json
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from argan.inference.model import Model

SCORES = {  # metric: (what it says, the metric of its baseline or None)
    "depth_spearman": ("Depth in the right order (1 is perfect)", "depth_spearman_prior"),
    "depth_sign_agreement": ("Scenes the right way round, near and far", "depth_sign_agreement_prior"),
    "depth_mask_auc": ("Subject told from its background (1 is perfect)", None),
    "kid": ("Generated photos against real ones, kernel distance (0 is perfect)", "kid_floor"),
    "fid": ("The same, Fréchet distance (lower is better)", None),
    "sharpness_gap": ("Sharpness gained over the photos", None),
}
CAPTIONS = {
    "samples": "Scenes as training ended",
    "scenes": "Scenes: in focus, disparity, through wider and wider apertures",
    "grid": "Photos the model made",
    "depth": "Depth of photographs it never saw",
    "refocus": "Refocused",
}

LICENCE = (
    "<h3>Licence</h3><p>The software is free under the MIT licence. A model is made of the photographs it learned from: "
    "their licences say how it may be passed on.</p>"
)


def about_html(model: Model, reference: str) -> str:
    """HTML to be put into the page. The card's own HTML is shown as text, never run."""
    from markdown_it import MarkdownIt

    file = model.folder / "card.md" if model.folder else None
    text = (
        file.read_text(encoding="utf-8") if file and file.exists() else f"# {model.domain}\n\nThis model has no card."
    )
    parts = [
        f'<article class="card">{MarkdownIt("commonmark", {"html": False}).enable("table").render(text)}</article>'
    ]
    if scores := _scores(model):
        rows = "".join(
            f"<tr><td>{escape(what)}</td><td>{value}</td><td>{base}</td></tr>" for what, value, base in scores
        )
        head = "<tr><th>Measured on photos it never saw</th><th>Model</th><th>Baseline</th></tr>"
        parts.append(
            f'<h3>Scores</h3><div class="wide"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'
        )
    for path in pictures(model):
        caption = escape(CAPTIONS.get(path.stem, path.stem.replace("_", " ").capitalize()), quote=True)
        source = f"studio/card/{quote(path.name)}?model={quote(reference, safe='')}"
        parts.append(f'<figure><img src="{source}" alt="{caption}"><figcaption>{caption}</figcaption></figure>')
    parts.append(LICENCE)
    return "\n".join(parts)


def pictures(model: Model) -> list[Path]:
    """PNG files that show what the model does: of its evaluation where there is one, else of its training."""
    if model.folder is None:
        return []
    plots = model.folder.parent.parent / "plots" / model.domain
    named = [plots / f"{name}.png" for name in ("scenes", "depth", "refocus")] if _in_models_folder(model) else []
    return [path for path in named if path.exists()] or sorted((model.folder / "samples").glob("*.png"))


def _in_models_folder(model: Model) -> bool:
    return model.folder is not None and model.folder.parent.name == "models"


def _scores(model: Model) -> list[tuple[str, str, str]]:
    file = (
        model.folder.parent.parent / "metrics" / f"{model.domain}.json"
        if model.folder and _in_models_folder(model)
        else None
    )
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file else {}
    except (OSError, ValueError):
        return []

    def number(name: str | None) -> str:
        value = found.get(name) if name else None
        return f"{value:.3g}" if isinstance(value, int | float) else "–"

    return [(what, number(name), number(base)) for name, (what, base) in SCORES.items() if found.get(name) is not None]
