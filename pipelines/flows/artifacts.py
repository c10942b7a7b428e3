"""Artifacts of a retraining, for Prefect's pages: what came of it, its scores beside the champion's, its pictures."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote

from prefect.artifacts import create_image_artifact, create_markdown_artifact, create_table_artifact

from argan.redact import markdown

PICTURES = {  # plots/<domain>/<name>.png, those that are there
    "scenes": "Scenes: all in focus, their depth, and photos through wider and wider apertures",
    "grid": "Generated photographs",
    "depth": "Depth of test photos beside exact depth",
}
WIDTH = 1000  # pixels of a picture that is kept in Prefect's database, where no MLflow server shows it


def publish_retraining(domain: str) -> str:
    """Make the artifacts of a domain's newest version; the line that sums it up."""
    receipt = json.loads(Path(f"registry/{domain}.json").read_text(encoding="utf-8"))
    scores = json.loads(Path(f"metrics/{domain}.json").read_text(encoding="utf-8"))
    name, version, uri = receipt["name"], receipt["version"], receipt["tracking_uri"]
    line = f"{name} version {version}: {'champion' if 'champion' in receipt['aliases'] else 'challenger'} ({receipt['reason']})"
    compared = score_rows(receipt.get("comparison") or {}, scores)
    create_table_artifact(
        key=f"scores-{domain}", table=compared, description=f"{markdown(line)}. Last column: the gate's verdict."
    )
    pictures = {
        key: Path(f"plots/{domain}/{key}.png") for key in PICTURES if Path(f"plots/{domain}/{key}.png").exists()
    }
    lines = [f"# {markdown(domain)}\n\n**{markdown(line)}**\n"]
    if uri.startswith("http"):
        page = f"{uri}/#/models/{name}/versions/{version}?workflowType=machine_learning"
        lines.append(f"[{name} version {version}]({page}) in MLflow: how good it is, its files, how to load it.\n")
        if "experiment_id" in receipt:
            run = (
                f"{uri}/#/experiments/{receipt['experiment_id']}/runs/{receipt['run_id']}?workflowType=machine_learning"
            )
            lines.append(f"[The training's run]({run}) in MLflow: its curves, its pictures over the steps.\n")
    else:
        lines.append(f"Registered in {markdown(uri)}; `make registry` shows it.\n")
    for key, file in pictures.items():
        if not uri.startswith("http"):
            url = data_uri(file)
        else:
            path = quote(f"plots/{receipt['model_hash']}/{file.name}", safe="")
            url = f"{uri}/get-artifact?path={path}&run_uuid={receipt['run_id']}"
            about = f"{PICTURES[key]}: {domain} version {version}"
            create_image_artifact(key=f"{key}-{domain}", image_url=url, description=about)
        lines.append(f"## {PICTURES[key]}\n\n![{key}]({url})\n")
    lines.append(f"The full report: `reports/{domain}/report.html`\n")
    create_markdown_artifact(key=f"retrained-{domain}", markdown="\n".join(lines), description=markdown(line))
    return line


def score_rows(comparison: dict[str, Any], scores: dict[str, Any]) -> list[dict[str, Any]]:
    """A row a score: those that the gate compared with the champion first, with the gain's interval."""
    compared = [
        {
            "score": name,
            "new": round(c["new"], 4),
            "champion": round(c["old"], 4),
            "gain": f"{c['gain']:+.4f} ({c['low']:+.4f} to {c['high']:+.4f})",
            "verdict": c["verdict"],
        }
        for name, c in comparison.items()
    ]
    others = {k: v for k, v in scores.items() if isinstance(v, float) and k not in comparison}
    return compared + [
        {"score": k, "new": round(v, 4), "champion": "", "gain": "", "verdict": ""} for k, v in others.items()
    ]


def data_uri(file: Path) -> str:
    """A picture as a data URI, small enough for a database."""
    from PIL import Image

    from argan.photos import photo_file

    picture = Image.fromarray(photo_file.pixels(file))
    picture.thumbnail((WIDTH, 4 * WIDTH))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def publish_arrivals(name: str, source: str, arrivals: dict[str, Any], line: str) -> None:
    """What came into a collection, and what was refused and why."""
    rows = [f"| {markdown(photo)} | {markdown(why)} |" for photo, why in list(arrivals["refused"].items())[:100]]
    table = ["| refused | why |", "|---|---|", *rows] if rows else []
    page = f"The collection's report: `data/collections/{name}/preview/report.html`"
    text = "\n".join(
        [f"# {markdown(name)}", "", f"From {markdown(source)}. **{markdown(line)}**", "", page, "", *table]
    )
    create_markdown_artifact(key=f"arrived-{name}", markdown=text, description=markdown(line))
