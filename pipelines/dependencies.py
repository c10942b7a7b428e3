"""The code that each stage of dvc.yaml depends on, derived from what its module imports.

`python -m pipelines.dependencies` says whether dvc.yaml is right, exit 2 where not; with `--write` it writes the lists, each
between its two markers, and leaves every other byte as it is.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from argan import dependencies
from argan.config.schema import STAGES
from argan.errors import UserError
from argan.files import write_text
from pipelines.stage import run_command, say

BEGIN, END = "# code: `python -m pipelines.dependencies --write`", "# end of code"

# What stages import and nothing that they write depends on, and why.
SHARED = {
    "pipelines.__init__": "sets the environment",
    "argan.locks": "lets one process work at a time",
    "pipelines.stage": "runs a stage and ends it",
    "argan.__init__": "names the parts of the package",
    "argan.dependencies": "tells which code this is",
    "argan.errors": "the class of an error",
}
# Files that modules read and do not import
READS = {"argan.config.schema": ("argan/config/presets",), "argan.html": ("argan/templates",)}
REPORT = "for the report of `argan collection show`"
SOURCES = {
    "argan.photos.sources": "downloads weights, whose hash is pinned beside their address, and opens users' photos"
}
REGISTRY = {"argan.registry": "keeps what a stage wrote, under a name"}
USERS = {  # reached through argan.inference.model
    "argan.effects": "for a user's photo; scenes are photographed by the renderer that trained them",
    "argan.inference.novelty": "for a user's photo",
    "argan.photos.photograph": "opens a user's photo; a model is judged on the store",
}
NO_OUTPUT: dict[str, dict[str, str]] = {
    "fetch": dict.fromkeys(("argan.html", "argan.effects.iris", "argan.photos.quality", "argan.photos.report"), REPORT),
    "crop": {},
    "train": SOURCES | REGISTRY,
    "evaluate": SOURCES | REGISTRY | USERS,
    "register": SOURCES | USERS,
}


def code(stage: str, root: Path = dependencies.ROOT) -> list[str]:
    """The source files a stage depends on, and what they read, relative to the top folder, in order."""
    modules = dependencies.closure((f"pipelines.{stage}",), SHARED | NO_OUTPUT[stage], root)
    read = [path for name in modules for path in READS.get(name, ())]
    return sorted([*read, *(path.relative_to(root).as_posix() for path in modules.values())])


def written(text: str, root: Path = dependencies.ROOT) -> str:
    """dvc.yaml with the lists of code as they are now. Raises UserError where a stage's markers are not there."""
    for stage in STAGES:
        block = re.compile(
            rf"^(  {stage}:\n(?:(?:    .*)?\n)*?(      ){re.escape(BEGIN)}\n)(?:      - .*\n)*(      {re.escape(END)}\n)",
            re.MULTILINE,
        )
        if (found := block.search(text)) is None:
            raise UserError(
                f"dvc.yaml: the stage {stage} lacks the lines '{BEGIN}' and '{END}' among its deps, with nothing "
                "but the list between them; put them there"
            )
        lines = "".join(f"{found[2]}- {path}\n" for path in code(stage, root))
        text = f"{text[: found.end(1)]}{lines}{text[found.start(3) :]}"
    return text


def main(arguments: list[str]) -> None:
    if arguments not in ([], ["--write"]):
        raise UserError("usage: python -m pipelines.dependencies [--write]")
    path = Path("dvc.yaml")
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): run in the top folder of the repository") from error
    if (right := written(text)) == text:
        say("dvc.yaml lists the code that its stages import")
    elif arguments:
        write_text(path, right)
        say("dvc.yaml: the lists of code are written")
    else:
        raise UserError(
            "dvc.yaml does not list the code that its stages import; run `python -m pipelines.dependencies --write`"
        )


if __name__ == "__main__":
    run_command(lambda: main(sys.argv[1:]))
