"""What was taken in, to look at: `report.html`, which needs nothing but itself, `card.md` and `quality.json`, beside a store."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from argan.config.schema import Floors
from argan.effects.iris import ANGLES, Iris
from argan.files import write_json, write_text
from argan.html import figure, page, table, uri
from argan.photos import photo_file, quality, sharpness
from argan.photos.quality import Sharpness
from argan.photos.store import SPLITS, Photos

Pixels = NDArray[np.uint8]
Originals = Callable[[str], Path | None]  # source of a refused photo -> its file, where there still is one

CONTACT, EXAMPLES, GROUPS, MEMBERS, REFUSED, THUMBNAILS = 96, 8, 12, 6, 200, 40
AVERAGED = 1000  # photos of which the mean is shown
TILE = 96  # pixels of a picture on the page: all of them together stay under 2 MB


@dataclass(frozen=True)
class About:
    """Where the photographs come from and what may be done with them."""

    title: str
    homepage: str = ""
    licence: str = ""
    citation: str = ""
    splits: str = ""


def write(folder: Path, about: About, floors: Floors, originals: Originals = lambda source: None) -> dict[str, Any]:
    """Measure the store in `folder` and write quality.json, report.html and card.md into it. Returns what quality.json holds."""
    store = Photos.open(folder)
    quarantine = pd.read_csv(folder / "quarantine.csv", keep_default_na=False, dtype=str)
    focus = quality.sharpness_of(store)
    numbers = quality.measure(store, floors, quarantine, focus)
    write_json(folder / "quality.json", numbers)
    write_text(folder / "card.md", _card(about, numbers))
    write_text(folder / "report.html", _page(about, numbers, store, quarantine, focus, originals))
    return numbers


# ---- the card ----


def _card(about: About, numbers: dict[str, Any]) -> str:
    lines = [f"# Data: {about.title}", ""]
    lines += [f"**{name}**: {text}  " for name, text in _rights(about) if text]
    lines += [
        "",
        "| | |",
        "|---|---|",
        *(f"| {name} | {text.replace('|', '/')} |" for name, text in facts(numbers)),
        "",
    ]
    lines += [
        "Photos are cut square and scaled down once by area averaging, never scaled up. Published masks and exact depth"
    ]
    lines += ["judge a model; none of them is trained on.", ""]
    lines += [f"**Not fit for training.** {why}" for why in numbers["unfit"]] or ["Fit for training."]
    lines += ["", *numbers["warnings"]] if numbers["warnings"] else []
    return "\n".join(lines) + "\n"


def _rights(about: About) -> list[tuple[str, str]]:
    return [
        ("Source", about.homepage),
        ("Licence", about.licence or "Not stated. Ask whoever took the photographs before you share a model of them."),
        ("Citation", about.citation),
        ("Splits", about.splits),
    ]


def facts(numbers: dict[str, Any]) -> list[tuple[str, str]]:
    """The numbers of quality.json in words, (name, text) each."""
    side = numbers["shorter_side"]
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in numbers["refused_kinds"].items())
    small = ", their own size: less blur shows than at 128" if numbers["measured_at"] < sharpness.SIZE else ""
    rows = [
        ("photos", f"{numbers['photos']:,} of {numbers['size']} x {numbers['size']} px"),
        ("splits", ", ".join(f"{numbers[split]:,} {split}" for split in SPLITS)),
        ("refused", f"{numbers['refused']:,}" + (f" ({kinds})" if kinds else "")),
        (
            "with defocus",
            f"{numbers['defocus']:.0%} of the photos to learn from, at {numbers['measured_at']} px{small}",
        ),
        ("middle sharper than border by", f"{numbers['centered']:+.3f}"),
    ]
    if side:
        rows.append(("shorter side of the originals", f"{side[2]:,} px in the median, {side[0]:,} to {side[4]:,}"))
    if "near_duplicate_groups" in numbers:
        photos, groups = numbers["near_duplicates"], numbers["near_duplicate_groups"]
        rows.append(("near duplicates", f"{photos:,} photos, {groups:,} times several alike, none across splits"))
    if numbers["aperture_known"]:
        rows.append(
            ("aperture", f"f/{numbers['aperture_median']:.2g} in the median, known of {numbers['aperture_known']:,}")
        )
    if numbers["focal_length_known"]:
        lens = f"{numbers['focal_length_median']:.3g} mm in the median, known of {numbers['focal_length_known']:,}"
        rows.append(("focal length", lens))
    if numbers["taken"]:
        rows.append(("taken", " to ".join(dict.fromkeys(numbers["taken"]))))
    if numbers["cameras"]:
        rows.append(("cameras", ", ".join(f"{name} ({count:,})" for name, count in numbers["cameras"].items())))
    return rows


# ---- the page ----


def _page(
    about: About,
    numbers: dict[str, Any],
    store: Photos,
    quarantine: pd.DataFrame,
    focus: Sharpness,
    originals: Originals,
) -> str:
    unfit = "".join(f"<p>{escape(why)}</p>" for why in numbers["unfit"])
    verdict = (
        f'<div class="verdict bad"><b>Not fit for training.</b>{unfit}</div>'
        if unfit
        else '<div class="verdict"><b>Fit for training.</b> Enough photos, defocus to learn from, subjects in the middle.</div>'
    )
    warnings = "".join(f"<p>{escape(warning)}</p>" for warning in numbers["warnings"])
    parts = [
        f"<h1>{escape(about.title)}</h1><p class=soft>The photographs, as a model will see them.</p>{verdict}{warnings}",
        table(facts(numbers)),
        "<h2>Where photos are in focus</h2>" + _focus(store, focus, numbers),
        "<h2>Contact sheet</h2>" + _sheet(store, _evenly(len(store), CONTACT)),
        _examples(store, focus),
        _groups(store),
        _camera(store.index),
        _iris(store.folder),
        _refused(quarantine, originals),
        "<h2>Source and licence</h2>" + table([(name, text) for name, text in _rights(about) if text]),
    ]
    return page(f"{about.title}: photographs", parts)


def _focus(store: Photos, focus: Sharpness, numbers: dict[str, Any]) -> str:
    reach = max(float(np.abs(focus.map).max()), 1e-6)
    level = cv2.resize((focus.map / reach * 0.5 + 0.5).astype(np.float32), (256, 256), interpolation=cv2.INTER_CUBIC)
    heat = cv2.cvtColor(
        cv2.applyColorMap((level.clip(0, 1) * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB
    )
    mean = np.zeros(store.pixels.shape[1:], np.float64)
    averaged = _evenly(len(focus.rows), AVERAGED)
    for i in averaged:
        mean += store.pixels[focus.rows[i]]
    average = cv2.resize((mean / max(len(averaged), 1)).astype(np.uint8), (256, 256), interpolation=cv2.INTER_CUBIC)
    words = "sharper" if numbers["centered"] > 0 else "no sharper"
    pictures = (
        figure(uri(heat, "PNG"), "Sharpness over the frame, mean of the photos: yellow is sharper"),
        figure(uri(average), "The mean photo"),
    )
    return (
        f"<p>{numbers['defocus']:.0%} of the photos have both sharp and soft parts; in those the middle is {words} than the border "
        f"({numbers['centered']:+.3f}, where 1 is the sharpest part of a photo).</p><div class=pair>{''.join(pictures)}</div>"
    )


def _evenly(count: int, most: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int)).tolist() if count else []


def _sheet(store: Photos, rows: Sequence[int]) -> str:
    return "<div class=sheet>" + "".join(_photo(store, row) for row in rows) + "</div>"


def _photo(store: Photos, row: int) -> str:
    name = escape(str(store.index["source"].iloc[row]), quote=True)
    return f'<img loading=lazy alt="{name}" title="{name}" src="{uri(_tile(np.asarray(store.pixels[row])))}">'


def _tile(pixels: Pixels) -> Pixels:
    if len(pixels) > TILE:
        return np.asarray(cv2.resize(pixels, (TILE, TILE), interpolation=cv2.INTER_AREA), np.uint8)
    return pixels


def _examples(store: Photos, focus: Sharpness) -> str:
    order = focus.rows[np.argsort(-focus.defocus, kind="stable")].tolist()
    if len(order) < 2 * EXAMPLES:
        return ""
    most, least = order[:EXAMPLES], order[-EXAMPLES:]
    return (
        f"<h2>Most defocus</h2>{_sheet(store, most)}<h2>Least defocus</h2>"
        f"<p class=soft>Evenly sharp, evenly soft, or with too few edges to tell.</p>{_sheet(store, least)}"
    )


def _groups(store: Photos) -> str:
    if "group" not in store.index:
        return ""
    groups: dict[str, list[int]] = {}
    for row, name in enumerate(store.index["group"]):
        groups.setdefault(name, []).append(row)
    rows = [members for members in groups.values() if len(members) > 1]
    if not rows:
        return ""
    shown = sorted(rows, key=lambda members: (-len(members), members))[:GROUPS]
    note = f"<p class=soft>{len(rows):,} times several alike; those are in one split together.</p>"
    return (
        "<h2>Near duplicates</h2>"
        + note
        + "".join(
            "<div class=group>" + "".join(_photo(store, row) for row in members[:MEMBERS]) + "</div>"
            for members in shown
        )
    )


def _camera(index: pd.DataFrame) -> str:
    out = []
    for name, title, edges, labels in (
        ("aperture", "Aperture", [0, 1.7, 2.4, 3.4, 4.8, 6.8, 9.5, 1e3], ["f/1.4", "2", "2.8", "4", "5.6", "8", "11+"]),
        (
            "focal_length",
            "Focal length, mm",
            [0, 20, 30, 42, 60, 100, 170, 1e5],
            ["<20", "24", "35", "50", "85", "135", "170+"],
        ),
    ):
        if name in index and len(values := index[name].dropna()):
            out.append(_bars(f"{title} ({len(values):,} photos)", labels, np.histogram(values, edges)[0].tolist()))
    if "taken" in index and len(dates := index["taken"].dropna()):
        years = dates.str[:4].value_counts().sort_index().tail(20)
        names = [f"'{year[2:]}" for year in years.index] if len(years) > 8 else years.index.tolist()  # as many as fit
        out.append(_bars(f"Year ({len(dates):,} photos)", names, years.tolist()))
    return f"<h2>What the cameras say</h2><div class=pair>{''.join(out)}</div>" if out else ""


def _iris(folder: Path) -> str:
    iris = Iris.load(folder)
    if iris is None:
        return ""
    return (
        f"<h2>Shape of the aperture</h2><p>{escape(iris.summary)}</p>{_outline(iris.outline) if iris.outline else ''}"
    )


def _outline(outline: Sequence[float]) -> str:
    """The outline, filled as a highlight is, within the circle of the same area."""
    points = " ".join(
        f"{60 + 44 * radius * math.cos(angle):.1f},{60 + 44 * radius * math.sin(angle):.1f}"
        for radius, angle in zip(outline, ANGLES.tolist(), strict=True)
    )
    caption = "The iris, and dashed the circle of the same area"
    svg = (
        f'<svg viewBox="0 0 120 120" role="img" aria-label="{caption}" style="max-width:160px">'
        f'<polygon points="{points}" fill="currentColor" opacity=".35"/>'
        '<circle cx="60" cy="60" r="44" fill="none" stroke="currentColor" stroke-dasharray="3 3"/></svg>'
    )
    return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"


def _bars(title: str, labels: Sequence[str], counts: Sequence[int]) -> str:
    width, most = 320 / len(labels), max(*counts, 1)
    bars = []
    for i, (label, n) in enumerate(zip(labels, counts, strict=True)):
        tall, middle = 84 * n / most, (i + 0.5) * width
        bars.append(
            f'<rect x="{middle - width / 2 + 2:.1f}" y="{104 - tall:.1f}" width="{width - 4:.1f}" height="{tall:.1f}"/>'
        )
        bars.append(f'<text x="{middle:.1f}" y="118">{escape(str(label))}</text>')
        bars.append(f'<text x="{middle:.1f}" y="{100 - tall:.1f}">{n or ""}</text>')
    label = escape(title, quote=True)
    svg = f'<svg viewBox="0 0 320 124" role="img" aria-label="{label}" fill="currentColor">{"".join(bars)}</svg>'
    return f"<figure>{svg}<figcaption>{label}</figcaption></figure>"


def _refused(quarantine: pd.DataFrame, originals: Originals) -> str:
    if quarantine.empty:
        return "<h2>Refused</h2><p>None.</p>"
    rows = []
    for i, (source, reason) in enumerate(
        quarantine[["source", "reason"]].head(REFUSED).itertuples(index=False, name=None)
    ):
        picture = _thumbnail(originals(source)) if i < THUMBNAILS else None
        image = f'<img alt="" src="{uri(picture)}">' if picture is not None else ""
        rows.append(f"<tr><td>{escape(source)}</td><td>{escape(reason)}</td><td>{image}</td></tr>")
    more = (
        f"<p class=soft>and {len(quarantine) - REFUSED:,} more in quarantine.csv</p>"
        if len(quarantine) > REFUSED
        else ""
    )
    return f"<h2>Refused</h2><table>{''.join(rows)}</table>{more}"


def _thumbnail(path: Path | None) -> Pixels | None:
    """Of a photo that was refused, where enough of it can be read."""
    if path is None or not path.is_file():
        return None
    try:
        return photo_file.pixels(path, TILE)
    except (photo_file.PhotoError, OSError):  # damaged, which is why it was refused
        return None
