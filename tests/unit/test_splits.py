"""Which split does what: training photos teach, validation photos choose, and test photos do neither."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
import yaml

from argan import registry
from argan.config import params
from argan.errors import UserError
from argan.evaluation.gate import Scores
from argan.photos import report, sharpness
from argan.photos.store import COLUMNS, sha256, write
from pipelines import champion, reevaluate, register, train

NOW = Scores("validation photos b", (0.7, 0.8, 0.6), (1.0, 1.0, 1.0), None, (0.1, 0.2))
THEN = Scores("photos a", (0.9, 0.9), (1.0, 1.0), None, (0.3, 0.4))  # test photos', as registered before


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder; in `champion` a version as it was registered before the gate judged on validation photos."""
    settings = Path("params.yaml").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(settings, encoding="utf-8")
    (tmp_path / "champion" / "evaluation").mkdir(parents=True)
    (tmp_path / "champion" / "evaluation" / "scores.json").write_text(json.dumps(THEN.to_json()))
    monkeypatch.setattr(champion, "rescore", lambda folder, domain, settings: NOW)
    return tmp_path


def test_a_champion_with_scores_of_test_photos_is_judged_anew(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = params.load()
    assert register._champion(here / "champion", NOW.judged_on, "meadow", settings) == NOW
    assert "judging the champion" in capsys.readouterr().out
    same = replace(NOW, depth_spearman=(0.1, 0.2, 0.3))
    (here / "champion" / "evaluation" / "scores.json").write_text(json.dumps(same.to_json()))
    assert register._champion(here / "champion", NOW.judged_on, "meadow", settings) == same


def test_scores_of_test_photos_register_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "deliver", lambda *args: None)
    monkeypatch.setattr(registry, "register", lambda *args: pytest.fail("registered"))
    for path, content in (("metrics/meadow.json", {}), ("reports/meadow/scores.json", THEN.to_json())):
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"scores\.json holds scores of test photos.*dvc repro evaluate@meadow"):
        register.register("meadow", params.load())


def test_reevaluation_says_which_photos_it_judged_on(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tags: dict[str, str] = {}

    def tag(name: str, alias: str, given: dict[str, str], settings: Any) -> str:
        tags.update(given)
        return "3"

    monkeypatch.setattr(registry, "download", lambda reference, settings: here / "champion")
    monkeypatch.setattr(registry, "tag", tag)
    reevaluate.reevaluate("meadow", params.load())
    assert tags["reevaluated_split"] == "validation" and tags["reevaluated_on"] == "validation photos b"
    assert tags["reevaluated_depth_spearman"] == "0.7"
    output = json.loads((here / ".argan/reevaluated/meadow.json").read_text())
    assert (output["split"], output["registered_split"], output["same_photos"]) == ("validation", "test", False)
    assert output["scores"]["depth_spearman"] == {"registered": pytest.approx(0.9), "now": pytest.approx(0.7)}
    message = capsys.readouterr().out
    assert "judged anew on validation photos, other photos than it was registered with" in message
    assert "depth_spearman 0.7000, 0.9000 when registered, on test photos" in message


def test_test_photos_teach_nothing_and_set_no_threshold(
    here: Path, photos: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, sign, health, likeness and the verdict on the photographs are the same whatever the test photos are."""
    small = {
        "images": 16, "batch": 8, "latent": 8, "generator_channels": 4, "discriminator_channels": 8, "channels_max": 16,
        "log_every": 8, "checkpoint_every": 16, "estimator_images": 16, "estimator_channels": 8, "sign": "photographs",
        "sign_images": 8,
    }  # fmt: skip
    content = yaml.safe_load((here / "params.yaml").read_text(encoding="utf-8"))
    content["train"] |= small
    content["crop"] |= {"photos_min": 5, "defocus_min": 0.0, "centered_min": 0.0}
    (here / "params.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    settings = params.load()
    splits = ["train"] * 30 + ["validation"] * 10 + ["test"] * 10
    monkeypatch.setattr(registry, "start_run", lambda *args: MagicMock(**{"reference.return_value": {}}))
    found = []
    for turned in (False, True):
        pixels = photos.copy()
        if turned:
            pixels[40:] = 255 - pixels[40:] // 2
        index = pd.DataFrame(dict.fromkeys(COLUMNS, 32) | {"source": map(str, range(50)), "split": splits})
        index["sha256"] = [sha256(photo) for photo in pixels]
        index["sharpness"] = [sharpness.pack(sharpness.sharpness(photo)) for photo in pixels]
        store = here / "data/photos/meadow"
        write(store, pixels, index, pd.DataFrame({"source": [], "reason": []}))
        output = report.write(store, report.About("noise"), settings.crop.floors)
        train.train("meadow", settings)
        model = here / "models/meadow"
        files = {path.name: path.read_bytes() for path in model.glob("*.safetensors")}
        config = json.loads((model / "config.json").read_text())
        sides = {name: value for name, value in config["sign"].items() if name != "seconds"}
        found.append((files, sides, config["summary"]["health"], {**output, "shorter_side": None}, config["data"]))
    assert {"generator.safetensors", "estimator.safetensors", "likeness.safetensors"} <= found[0][0].keys()
    assert found[0][:4] == found[1][:4]
    assert found[0][4] != found[1][4], "other photographs they are"
