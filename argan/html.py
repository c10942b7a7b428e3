"""Pages that need nothing but themselves: style, pictures and all in one file, legible on a phone and in the dark."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image


@lru_cache(maxsize=1)
def templates() -> Environment:
    """The templates of argan/templates; what they are given is text, unless it is Markup."""
    loader = PackageLoader("argan")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def page(title: str, parts: Sequence[str]) -> str:
    """A whole page of HTML parts; the title is text."""
    return templates().get_template("page.html").render(title=title, main=Markup("".join(parts)))


def table(rows: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    """Rows of texts."""
    return str(_parts().table(rows, head))


def figure(source: str, caption: str) -> str:
    """A picture, by its `uri`, and what it shows."""
    return str(_parts().figure(source, caption))


def _parts() -> Any:
    return templates().get_template("parts.html").module


def uri(picture: NDArray[Any] | Path, kind: str = "JPEG") -> str:
    """Of pixels (H, W, 3), or of a PNG or GIF file as it is."""
    if isinstance(picture, Path):
        return _data(picture.suffix[1:].lower(), picture.read_bytes())
    out = io.BytesIO()
    Image.fromarray(np.asarray(picture)).save(out, kind, quality=85)
    return _data(kind.lower(), out.getvalue())


def _data(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
