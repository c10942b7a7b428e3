"""What a training run could not log to its tracking server yet: a file beside its checkpoints, which outlives the process.

An event is a row of numbers, a picture, or the end of the run, with the time at which it came to be. Sent again with the same
time it is the same row to MLflow, so that a row whose receipt was lost on the way is there once and not twice.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from argan.files import sync

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Event:
    """One of `row`, `picture` (H, W, 3) uint8 and `end`, which may bring `tags` of the run."""

    images: int = 0
    row: Mapping[str, float] = field(default_factory=dict)
    picture: np.ndarray | Path | None = None
    end: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    time: int = field(default_factory=lambda: int(time.time() * 1000))  # milliseconds

    def pixels(self) -> np.ndarray:
        """The picture, from its file where it has been spooled."""
        import numpy as np

        from argan.photos import photo_file

        return photo_file.pixels(self.picture) if isinstance(self.picture, Path) else np.asarray(self.picture)


class Spool:
    """Events in `folder`, oldest first. Cut off by a kill or a power cut, it lacks what was being appended and nothing else."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file = folder, folder / "events.jsonl"

    def append(self, events: Sequence[Event]) -> list[Event]:
        """Write events down, and return them with their pictures in files. Raises OSError, on a full disk for one.

        On return they outlive a power cut. The pictures are on disk before the line that names them.
        """
        from PIL import Image

        fresh = not self.file.exists()
        self.folder.mkdir(parents=True, exist_ok=True)
        spooled = []
        for event in events:
            if event.picture is not None and not isinstance(event.picture, Path):
                place = self.folder / f"{event.images:012d}-{event.time}.png"
                with place.open("wb") as file:
                    Image.fromarray(event.picture).save(file, "PNG")
                    file.flush()
                    os.fsync(file.fileno())
                event = replace(event, picture=place)
            spooled.append(event)
        if any(event.picture for event in spooled):
            sync(self.folder)
        with self.file.open("a+b") as file:
            if file.tell() and self.file.read_bytes()[-1:] != b"\n":
                file.write(b"\n")  # the rest of a line that a kill cut off
            file.write("".join(json.dumps(_to_json(event)) + "\n" for event in spooled).encode())
            file.flush()
            os.fsync(file.fileno())
        if fresh:
            sync(self.folder)
            sync(self.folder.parent)
        return spooled

    def events(self, say: Callable[[str], None] = lambda line: None) -> list[Event]:
        """What was written down; what cannot be read, a picture or a line that a power cut tore for one, is left out and said."""
        try:
            lines = self.file.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        events = []
        for number, line in enumerate(lines, 1):
            try:
                events.append(self._event(line))
            except Exception as error:  # decoders meet broken files with anything
                reason = " ".join(str(error).split())[:160]
                say(f"warning: {self.file}, line {number} cannot be read ({reason}): left out of the log")
        return events

    def _event(self, line: str) -> Event:
        """Raises whatever is wrong with a line, or with the picture that it names."""
        fields: dict[str, Any] = json.loads(line)
        row = {str(key): float(value) for key, value in fields.get("row", {}).items()}
        tags = {str(key): str(value) for key, value in fields.get("tags", {}).items()}
        picture = self.folder / Path(fields["picture"]).name if fields.get("picture") else None
        event = Event(int(fields["images"]), row, picture, str(fields.get("end", "")), tags, int(fields["time"]))
        if picture:
            event.pixels()
        return event

    def clear(self) -> None:
        self.file.unlink(missing_ok=True)  # first: without it the pictures mean nothing
        shutil.rmtree(self.folder, ignore_errors=True)


def _to_json(event: Event) -> dict[str, Any]:
    fields: dict[str, Any] = {"images": event.images, "time": event.time}
    if event.row:
        fields["row"] = dict(event.row)
    if isinstance(event.picture, Path):
        fields["picture"] = event.picture.name
    if event.end:
        fields |= {"end": event.end, "tags": dict(event.tags)}
    return fields
