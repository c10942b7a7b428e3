"""The Markdown of MLflow's pages, from templates: of a registered model, of each version, of a training run.

Pictures are artifacts of the run, under addresses that MLflow's own pages resolve. What comes from a data card or an error
passes the filter `foreign`: MLflow renders links, pictures and frames of elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from argan.redact import markdown
from argan.registry.card import UNKNOWN_LICENCE, VersionCard

if TYPE_CHECKING:
    from jinja2 import Environment, Template

LIMIT = 5000  # characters of a description: MLflow's column in PostgreSQL; SQLite would take more
# Sections in their order: the highest number goes first where all are too long
VERSION_SECTIONS = {
    "lead": -1,
    "scenes": 3,
    "scores": 1,
    "gate": 0,
    "depth": 6,
    "data": 0,
    "limits": 2,
    "use": 4,
    "lineage": 5,
}
MODEL_SECTIONS = {"lead": -1, "champion": 0, "picture": 3, "data": 1, "use": 2}
CAPTIONS = {  # plots/<domain>/<name>.png, the ones that a card shows
    "scenes": "Scenes out of nothing: all in focus, their disparity, and photos through wider and wider apertures.",
    "depth": "Test photographs, their depth and the estimate: worst, median and best.",
    "samples": "Scenes out of nothing: all in focus, their disparity, and the photo through the full aperture.",
}
DATA_ROWS = {  # fact of the data card -> how it reads
    "Source": "source",
    "Licence": "licence",
    "Citation": "cite",
    "photos": "photos",
    "splits": "splits",
    "taken": "taken",
}
MODEL_SCORES = {"depth_spearman": "rank correlation of depth", "kid": "kernel distance"}


def version_page(card: VersionCard) -> str:
    """The page of a version: what it makes, how good it is, what it learned from, how to load it, where it comes from."""
    from argan.evaluation.report import JUDGED_ON, depth_rows, photograph_rows

    counted = (("images", "generated"), ("images_real", "test"))
    return _fit(
        _templates().get_template("version.md"),
        VERSION_SECTIONS,
        **_of_card(card),
        depth_rows=depth_rows(card.scores),
        photograph_rows=photograph_rows(card.scores) if card.scores.get("kid") is not None else [],
        counts=[f"{card.scores[key]:,} {text}" for key, text in counted if card.scores.get(key)],
        judged_on=JUDGED_ON,
        data_rows=_data_rows(card),
        reference=f"models:/{card.name}/{card.number}",
    )


def model_page(name: str, tags: Mapping[str, str], champion: str | None, run_id: str | None) -> str:
    """The page of a registered model: its champion in a picture and a few numbers. tags: the champion's, else the newest's."""
    count = tags.get("photos_learned_from", "")
    facts = [f"{tags['resolution']} px"] if "resolution" in tags else []
    facts += [
        f"{text} **{_short(tags[key])}**{_spread(tags, key)}" for key, text in MODEL_SCORES.items() if key in tags
    ]
    return _fit(
        _templates().get_template("model.md"),
        MODEL_SECTIONS,
        name=name,
        domain=name.removeprefix("argan-"),
        tags=tags,
        champion=champion,
        run_id=run_id,
        learned=f"{int(count):,} flat photographs" if count.isdecimal() else "photographs",
        facts=facts,
        unknown=UNKNOWN_LICENCE,
        reference=f"models:/{name}@champion",
    )


def run_page(card: VersionCard) -> str:
    """The description of a training run: which version it became."""
    return _templates().get_template("run.md").render(_of_card(card)).strip()


@lru_cache(maxsize=1)
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("argan.registry")
    environment = Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"foreign": markdown, "thousands": "{:,}".format, "urlquote": quote}
    environment.globals |= {"table": _table, "artifact": _artifact}
    return environment


def _fit(template: Template, sections: Mapping[str, int], **variables: Any) -> str:
    """The sections in order, without the least important ones where all of them are too long for MLflow."""
    context = template.new_context(variables)
    texts = {name: "".join(template.blocks[name](context)).strip("\n") for name in sections}
    kept = [name for name in sections if texts[name]]
    while len(page := "\n\n".join(texts[name] for name in kept)) > LIMIT and len(kept) > 1:
        kept.remove(max(kept, key=lambda name: sections[name]))
    return page if len(page) <= LIMIT else page[: LIMIT - 1] + "…"


def _of_card(card: VersionCard) -> dict[str, Any]:
    """What the templates of versions and runs share."""

    def picture(key: str) -> str:
        if key not in card.pictures:
            return ""
        return f"![{key}]({_artifact(card.run_id, card.pictures[key])})\n\n*{CAPTIONS[key]}*"

    run = f"#/experiments/{card.experiment_id}/runs/{card.run_id}"
    return {
        "card": card,
        "training": dict.fromkeys(("resolution", "preset", "recipe", "prior")) | dict(card.training),
        "photos": {"train": 0} | dict(card.photos),
        "scores": dict.fromkeys(("degenerate", "depth_reference", "features")) | dict(card.scores),
        "summary": {"images_seen": 0, "train_seconds": 0} | dict(card.config.get("summary", {})),
        "picture": picture,
        "run_page": run,
        "lineage_rows": _lineage_rows(card, run),
    }


def _data_rows(card: VersionCard) -> list[list[str]]:
    rows = [[text, markdown(card.data[key][:500])] for key, text in DATA_ROWS.items() if card.data.get(key)]
    if "photos" not in card.data and card.photos.get("count"):
        rows.append(["photos", f"{card.photos['count']:,}, {card.photos.get('train', 0):,} of them learned from"])
    return [*rows, ["revision", f"`{card.config['data']}`"]]


def _lineage_rows(card: VersionCard, run: str) -> list[list[str]]:
    rows = [["MLflow run", f"[{card.run_id}]({run})"]]
    if flow := card.lineage.get("prefect_flow_run"):
        url = card.lineage.get("prefect_url", "")
        rows.append(["Prefect flow run", f"[{flow}]({url})" if url.startswith("http") else f"`{flow}`"])
    if photos := card.lineage.get("dvc_photos"):
        rows.append(["photographs in DVC", f"`{photos}`: `git log -S {photos} -- dvc.lock` names the commits"])
    revisions = {"git_revision": card.config.get("git_revision")} | dict(card.lineage)
    titles = {"dvc_model": "model in DVC", "git_revision": "code in Git"}
    return rows + [[title, f"`{revisions[key]}`"] for key, title in titles.items() if revisions.get(key)]


def _artifact(run_id: str, path: str) -> str:
    """The address of an artifact for MLflow's own pages."""
    return f"/get-artifact?path={quote(path, safe='')}&run_uuid={run_id}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], gap: str = " &emsp;| ") -> str:  # MLflow's tables have no gaps
        return "| " + gap.join(cell.replace("|", "/").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(head), line(["---"] * len(head), " | "), *map(line, rows)])


def _spread(tags: Mapping[str, str], key: str) -> str:
    """The interval of a score, in brackets, or its standard error; empty where neither is known."""
    if f"{key}_low" in tags and f"{key}_high" in tags:
        return f" ({_short(tags[f'{key}_low'])} to {_short(tags[f'{key}_high'])})"
    return f" ± {_short(tags[f'{key}_se'])}" if f"{key}_se" in tags else ""


def _short(text: str) -> str:
    try:
        return f"{float(text):.3f}" if abs(float(text)) < 100 else f"{float(text):.0f}"
    except ValueError:  # written by hand
        return markdown(text[:20])
