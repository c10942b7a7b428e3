"""What a person reads in MLflow's pages: Markdown for a registered model, for each version, and for a training run.

Pictures are artifacts of the run, under addresses that MLflow's own pages resolve. What comes from a data card or an error
passes `markdown`: MLflow renders links, pictures and frames of elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from argan.redact import markdown

if TYPE_CHECKING:
    from argan.evaluation.gate import Decision

LIMIT = 5000  # characters of a description: MLflow's column in PostgreSQL; SQLite would take more
UNKNOWN = (
    "The photographer's own; unknown to this registry. Ask whoever took the photographs before you share the model."
)
HEADLINES = (  # scores that are tags of a version
    "depth_spearman", "depth_side", "depth_sign_agreement", "depth_mask_auc", "kid", "fid", "precision", "recall", "sharpness_gap",
)  # fmt: skip
ENDS = ("_low", "_high", "_prior", "_mean", "_se")  # and what belongs to them
SHOWN = {  # plots/<domain>/<name>.png, the ones that a card shows
    "scenes": "Scenes out of nothing: all in focus, their disparity, and photos through wider and wider apertures.",
    "depth": "Test photographs, their depth and the estimate: worst, median and best.",
    "samples": "Scenes out of nothing: all in focus, their disparity, and the photo through the full aperture.",
}


@dataclass(frozen=True)
class VersionCard:
    """All that a version's card and tags tell. scores: the flat metrics; pictures: name -> path among the run's artifacts."""

    name: str
    number: str
    run_id: str
    experiment_id: str
    config: Mapping[str, Any]
    data: Mapping[str, str]  # facts of the data card
    scores: Mapping[str, Any]
    lineage: Mapping[str, str]
    pictures: Mapping[str, str]
    reason: str = ""  # of the gate
    against: str = ""  # the champion that was compared with
    comparisons: Sequence[Sequence[str]] = field(default=())  # rows of `argan.evaluation.gate.Decision`

    @property
    def training(self) -> Mapping[str, Any]:
        return self.config.get("training", {})

    @property
    def photos(self) -> Mapping[str, Any]:
        return self.config.get("photos", {})

    def tags(self) -> dict[str, str]:
        """What is searched for and listed; the tag `details` holds the rest as JSON, see `expand_details`."""
        known: dict[str, Any] = {
            "domain": self.config["domain"],
            "preset": self.training.get("preset"),
            "resolution": self.training.get("resolution"),
            "photos": self.photos.get("count"),
            "data_title": self.data.get("title"),
            "data_licence": self.data["Licence"],
            "data_revision": self.config["data"],
            **self.lineage,
            "gate": self.reason,
            "degenerate": ", ".join(self.scores.get("degenerate") or []) or "no",
            **{key: self.scores.get(key) for key in ("depth_spearman", "kid")},
        }
        rest: dict[str, Any] = {
            **{key: self.training.get(key) for key in ("recipe", "renderer", "seed")},
            "images_seen": self.config.get("summary", {}).get("images_seen"),
            "photos_learned_from": self.photos.get("train"),
            "data_source": self.data.get("Source"),
            "gate_against": self.against,
            "features": self.scores.get("features"),
            "picture": self.pictures.get("scenes") or self.pictures.get("samples"),
            **{f"{key}{end}": self.scores.get(f"{key}{end}") for key in HEADLINES for end in ("", *ENDS)},
        }
        told = {key: number(value) for key, value in rest.items() if value not in (None, "") and key not in known}
        known["details"] = json.dumps(told, separators=(",", ":"))
        return {key: number(value) for key, value in known.items() if value not in (None, "")}


def version_card(v: VersionCard) -> str:
    """The page of a version: what it makes, how good it is, what it learned from, how to load it, where it comes from."""
    t, summary = v.training, v.config.get("summary", {})
    made = f"{t.get('resolution')} × {t.get('resolution')} px · preset `{t.get('preset')}` · recipe `{t.get('recipe')}`"
    if seen := summary.get("images_seen"):
        made += f" · {seen:,} images seen in {summary.get('train_seconds', 0) / 60:.0f} minutes"
    learned = f"{v.photos['train']:,} flat photographs" if v.photos.get("train") else "flat photographs alone"
    domain = markdown(v.config["domain"])
    lead = f"**Scenes with depth, and the depth of photographs, learned from {learned} of *{domain}*.** {made}"
    if sick := v.scores.get("degenerate"):
        lead += f"\n\n**Degenerate: {markdown(', '.join(sick))}.** What it calls depth is none."
    return _fitted(
        [  # (the highest goes first where all is too long, text)
            (-1, lead),
            (3, _picture(v, "scenes") or _picture(v, "samples")),
            (1, _scores(v)),
            (0, _gate(v)),
            (6, _picture(v, "depth")),
            (0, _data(v)),
            (2, f"### What it is not\n\n{_limits(v)}"),
            (4, loading(v.name, v.number)),
            (5, _lineage(v)),
        ]
    )


def model_card(name: str, tags: Mapping[str, str], champion: str | None, run_id: str | None) -> str:
    """The page of a registered model: its champion in a picture and a few numbers. tags: the champion's, else the newest's."""
    domain = name.removeprefix("argan-")
    learned = (
        f"{int(count):,} flat photographs"
        if (count := tags.get("photos_learned_from", "")).isdecimal()
        else "photographs"
    )
    lead = (
        f"**AR-GAN for *{domain}***: makes scenes (an all-in-focus image and its depth), estimates the depth of a photograph, "
        f"and gives it bokeh. Learned from {learned}: no depth sensor, no stereo, no focal stack, no pretrained network."
    )
    told, picture = f"**No champion.** `argan models promote {domain} VERSION` makes one of the versions below.", ""
    if champion is not None:
        link = f"[version {champion}](#/models/{quote(name)}/versions/{champion})"
        facts = [f"{tags[key]} px" for key in ("resolution",) if key in tags]
        facts += [f"{text} **{_short(tags[key])}**{spread(tags, key)}" for key, text in _LISTED.items() if key in tags]
        told = f"**Champion:** {link}" + (f", {' · '.join(facts)}." if facts else ".")
        if "picture" in tags and run_id:
            picture = f"![scenes of the champion]({artifact(run_id, tags['picture'])})"
    rights = f"**Data:** {markdown(tags.get('data_title', domain)[:200])}"
    rights += f", {markdown(tags['data_source'][:300])}" if "data_source" in tags else ""
    rights += f". **Licence of the data:** {markdown(tags.get('data_licence', UNKNOWN)[:500])}"
    return _fitted([(-1, lead), (0, told), (3, picture), (1, rights), (2, loading(name, None))])


_LISTED = {"depth_spearman": "rank correlation of depth", "kid": "kernel distance"}


def run_note(v: VersionCard) -> str:
    """The description of a training run: which version it became."""
    page = f"#/models/{quote(v.name)}/versions/{v.number}"
    told = [f"Training of [{v.name} version {v.number}]({page}): {markdown(v.reason)}."]
    told += [_picture(v, "scenes"), _lineage(v)]
    return "\n\n".join(text for text in told if text)


def loading(name: str, number: str | None) -> str:
    """How the model is used; `number` None: whatever is champion."""
    reference = f"models:/{name}@champion" if number is None else f"models:/{name}/{number}"
    return f"""### Use it

```python
import argan

model = argan.load("{reference}")
# or the downloaded folder of its files: MLflow is then not needed
scenes = model.sample(16, seed=1)  # images, photos, disparity
disparity = model.depth("photo.jpg")  # float32 (H, W), larger = nearer
```

```sh
argan sample {reference} --count 16 --seed 1
argan bokeh {reference} photo.jpg --aperture 1
```

`MLFLOW_TRACKING_URI` says where this registry is. The files are safetensors and JSON; nothing is pickled."""


def artifact(run_id: str, path: str) -> str:
    """The address of an artifact for MLflow's own pages."""
    return f"/get-artifact?path={quote(path, safe='')}&run_uuid={run_id}"


def data_facts(folder: Path, domain: str) -> dict[str, str]:
    """What is known of the photographs a model learned from, out of the data card that goes with it."""
    from argan.evaluation.report import data_card

    title, rows = data_card(folder / "data" / "card.md")
    told = {row[0]: row[1] for row in rows} | {"title": title.removeprefix("Data: ") or domain}
    if not told.get("Licence") or told["Licence"].startswith("Not stated"):
        told["Licence"] = UNKNOWN
    return told


def gate_rows(decision: Decision) -> list[list[str]]:
    """The gate's comparisons as rows of text, named as the report names the scores."""
    return [[_SCORE.get(row[0], row[0]), *row[1:]] for row in decision.rows()]


_SCORE = {
    "depth_spearman": "depth, rank correlation",
    "depth_sign_agreement": "near and far the right way round",
    "depth_mask_auc": "subject before background",
    "kid": "kernel distance, lower is better",
}


def number(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else ", ".join(value) if isinstance(value, list) else str(value)


def spread(tags: Mapping[str, str], key: str) -> str:
    """The interval of a score, in brackets, or its standard error; empty where neither is known."""
    if f"{key}_low" in tags and f"{key}_high" in tags:
        return f" ({_short(tags[f'{key}_low'])} to {_short(tags[f'{key}_high'])})"
    return f" ± {_short(tags[f'{key}_se'])}" if f"{key}_se" in tags else ""


def _short(told: str) -> str:
    try:
        return f"{float(told):.3f}" if abs(float(told)) < 100 else f"{float(told):.0f}"
    except ValueError:  # written by hand
        return markdown(told[:20])


def _scores(v: VersionCard) -> str:
    from argan.evaluation.report import depth_rows, photograph_rows

    told = ["### How good it is"]
    if rows := depth_rows(v.scores):
        head = ["depth of test photographs", "this model", "95 %", "prior alone", "mean depth", "brightness"]
        told.append(_table(head, rows))
        if v.scores.get("depth_reference"):
            told.append(f"Exact depth is not known: judged by the answer of {markdown(v.scores['depth_reference'])}.")
    else:
        told.append("Of these photographs no depth is known: nothing to score against.")
    if v.scores.get("kid") is not None:
        told.append(_table(["photographs", "generated", "real against real"], photograph_rows(v.scores)))
    counted = (("images", "generated"), ("images_real", "test"))
    counts = " and ".join(f"{v.scores[key]:,} {text}" for key, text in counted if v.scores.get(key))
    report = f"The whole report: [report.html]({_run(v)}/artifacts) in `evaluation/`."
    told.append((f"Judged on {counts} photographs. " if counts else "") + report)
    return "\n\n".join(told)


def _gate(v: VersionCard) -> str:
    from argan.evaluation.report import JUDGED_ON

    champion = f"Against the champion, version {v.against}" if v.against else "Against the champion"
    told = [f"### {champion if v.comparisons else 'The gate'}", f"{markdown(v.reason[:1].upper() + v.reason[1:])}."]
    if v.comparisons:
        told.append(_table(["score", "this model", "champion", "gain", "95 %", "verdict"], v.comparisons))
        told.append(JUDGED_ON)
    return "\n\n".join(told)


def _data(v: VersionCard) -> str:
    named = {
        "Source": "source",
        "Licence": "licence",
        "Citation": "cite",
        "photos": "photos",
        "splits": "splits",
        "taken": "taken",
    }
    rows = [[text, markdown(v.data[key][:500])] for key, text in named.items() if v.data.get(key)]
    if "photos" not in v.data and v.photos.get("count"):
        rows.append(["photos", f"{v.photos['count']:,}, {v.photos.get('train', 0):,} of them learned from"])
    rows.append(["revision", f"`{v.config['data']}`"])
    return f"### What it learned from: {markdown(v.data['title'][:200])}\n\n" + _table(["", ""], rows)


def _limits(v: VersionCard) -> str:
    told = [
        "Disparity is signed, 0 in the focal plane, a fraction of the image's width: relative, no measure in metres.",
        f"It knows photographs like those it learned from, at {v.training.get('resolution')} px; `argan depth` warns of others.",
    ]
    if v.training.get("prior"):
        told.append("That the subject is in focus and the rest behind it is a prior's word, not the photographs'.")
    if features := v.scores.get("features"):
        told.append(f"Distances of photographs are by {markdown(features)}: compare them with no other extractor's.")
    return " ".join(told)


def _lineage(v: VersionCard) -> str:
    rows = [["MLflow run", f"[{v.run_id}]({_run(v)})"]]
    if flow := v.lineage.get("prefect_flow_run"):
        url = v.lineage.get("prefect_url", "")
        rows.append(["Prefect flow run", f"[{flow}]({url})" if url.startswith("http") else f"`{flow}`"])
    if photos := v.lineage.get("dvc_photos"):
        rows.append(["photographs in DVC", f"`{photos}`: `git log -S {photos} -- dvc.lock` names the commits"])
    named = {"dvc_model": "model in DVC", "git_revision": "code in Git"}
    known = {"git_revision": v.config.get("git_revision")} | dict(v.lineage)
    rows += [[text, f"`{known[key]}`"] for key, text in named.items() if known.get(key)]
    return "### Where it comes from\n\n" + _table(["", ""], rows)


def _run(v: VersionCard) -> str:
    return f"#/experiments/{v.experiment_id}/runs/{v.run_id}"


def _picture(v: VersionCard, key: str) -> str:
    return f"![{key}]({artifact(v.run_id, v.pictures[key])})\n\n*{SHOWN[key]}*" if key in v.pictures else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], gap: str = " &emsp;| ") -> str:  # MLflow's tables have no gaps
        return "| " + gap.join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(head), line(["---"] * len(head), " | "), *map(line, rows)])


def _fitted(sections: Sequence[tuple[int, str]]) -> str:
    """The sections in order, without the least important ones where all of them are too long for MLflow."""
    kept = [(order, text) for order, text in sections if text]
    while len(told := "\n\n".join(text for _, text in kept)) > LIMIT and len(kept) > 1:
        kept.remove(max(kept, key=lambda section: section[0]))
    return told if len(told) <= LIMIT else told[: LIMIT - 1] + "…"
