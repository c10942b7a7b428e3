"""Pages that need nothing but themselves: style, pictures and all in one file, legible on a phone and in the dark."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

STYLE = """
:root{color-scheme:light dark;--ink:#1c1c1a;--soft:#6b6b66;--paper:#faf9f6;--card:#fff;--line:#e4e2dc;
  --good:#2c6e49;--bad:#a63d2f}
@media(prefers-color-scheme:dark){:root{--ink:#eceae4;--soft:#a09e97;--paper:#161614;--card:#20201d;--line:#34332f;
  --good:#7cc79b;--bad:#ef8f80}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.5 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:24px 16px 64px}
h1{font-size:1.7rem;margin:0 0 4px}
h2{font-size:1.15rem;margin:40px 0 8px}
p{margin:6px 0;max-width:70ch}
.soft{color:var(--soft)}
.verdict{border-left:5px solid var(--good);background:var(--card);padding:12px 16px; margin:16px 0;
  border-radius:0 8px 8px 0}
.verdict.bad{border-color:var(--bad)}
.verdict b{color:var(--good)}
.verdict.bad b{color:var(--bad)}
table{border-collapse:collapse;width:100%;background:var(--card);border-radius:8px}
td,th{padding:6px 12px;border-bottom:1px solid var(--line);text-align:left;vertical-align:middle}
td:first-child{color:var(--soft);width:34%;min-width:9rem;overflow-wrap:anywhere}
td+td{min-width:3.5rem}
.sheet{display:grid;grid-template-columns:repeat(auto-fill,minmax(72px,1fr));gap:4px}
.sheet img,td img{width:100%;display:block;border-radius:3px; aspect-ratio:1;object-fit:cover}
td img{width:56px}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(220px,1fr));gap:16px}
figure{margin:12px 0;max-width:760px}
figcaption{color:var(--soft);font-size:.9rem;margin-top:4px}
.map{width:100%;border-radius:8px;display:block;image-rendering:auto}
.group{display:flex;gap:4px;margin:4px 0;flex-wrap:wrap}
.group img{width:72px;border-radius:3px}
svg{width:100%;height:auto}
svg text{font-size:10px;text-anchor:middle}
svg rect{opacity:.6}
.wide{overflow-x:auto}
th{font-weight:600;font-size:.9rem;white-space:nowrap}
"""


def page(title: str, parts: Sequence[str]) -> str:
    """A whole page of HTML parts; the title is text."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = f"<body><main>{''.join(parts)}</main></body>"
    return f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>{body}</html>\n'


def table(rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Rows of texts."""
    top = f"<thead><tr>{''.join(f'<th>{escape(cell)}</th>' for cell in head)}</tr></thead>" if head else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<div class=wide><table>{top}{body}</table></div>"


def figure(source: str, caption: str) -> str:
    """A picture, by its `uri`, and what it shows."""
    told = escape(caption, quote=True)
    return f'<figure><img class=map loading=lazy alt="{told}" src="{source}"><figcaption>{told}</figcaption></figure>'


def uri(picture: NDArray[Any] | Path, kind: str = "JPEG") -> str:
    """Of pixels (H, W, 3), or of a PNG or GIF file as it is."""
    if isinstance(picture, Path):
        return _data(picture.suffix[1:].lower(), picture.read_bytes())
    out = io.BytesIO()
    Image.fromarray(np.asarray(picture)).save(out, kind, quality=85)
    return _data(kind.lower(), out.getvalue())


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
