"""A photographer's style: from a folder of their photographs to one of your own, finished with their depth of field.

    python examples/style.py ~/Pictures/garden garden photo.jpg

Run it in the top folder of the repository. It takes the photographs in as a collection, learns depth from them, and gives
photo.jpg their bokeh. (`quick` is 32 px and minutes on a CPU; 64 px takes a CPU two days and a GPU, by prediction, an hour or
two.) Every step is a command that you could type; run it again and what is done is not done again. It writes params.yaml
anew, without its comments.
"""

import subprocess
import sys
from pathlib import Path

import yaml


def argan(*arguments: str) -> None:
    print("$ argan", *arguments, flush=True)
    subprocess.run([sys.executable, "-m", "argan", *arguments], check=True)


def main(folder: str, name: str, photo: str, preset: str = "quick") -> None:
    # 1. The photographs, upright, in sRGB, without duplicates. It also makes the section `name` in params.yaml.
    argan("collection", "add", name, folder)

    # 2. What to learn: this collection, at this preset. `argan collection show` says whether there is blur to learn from.
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["domains"] = sorted({*params["domains"], name})
    params[name]["preset"] = preset
    Path("params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))

    # 3. Fetch, crop, train, evaluate, register. `argan retrain NAME` is the same as a flow, with its pages to watch.
    subprocess.run([sys.executable, "-m", "dvc", "repro", f"register@{name}"], check=True)

    # 4. The photograph: depth, depth of field, and a look around it.
    argan("depth", name, photo, "--out", "finished")
    argan("bokeh", name, photo, "--aperture", "1", "--out", "finished")
    argan("lightfield", name, photo, "--size", "512", "--out", "finished")
    print("look in finished/")


if __name__ == "__main__":
    main(*sys.argv[1:])
