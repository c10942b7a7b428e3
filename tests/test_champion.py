"""Who is judged on what: the gate, registration and reevaluation know validation photos alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from argan import params, registry
from argan.errors import UserError
from argan.gate import Scores
from pipelines import champion, reevaluate, register

NOW = Scores("validation photos b", (0.7, 0.8, 0.6), (1.0, 1.0, 1.0), None, (0.1, 0.2))
THEN = Scores("photos a", (0.9, 0.9), (1.0, 1.0), None, (0.3, 0.4))  # test photos', as registered before


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder; in `champion` a version as it was registered before the gate judged on validation photos."""
    settings = Path("params.yaml").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(settings, encoding="utf-8")
    (tmp_path / "champion" / "evaluation").mkdir(parents=True)
    (tmp_path / "champion" / "evaluation" / "scores.json").write_text(json.dumps(THEN.told()))
    monkeypatch.setattr(champion, "today", lambda folder, domain, settings: NOW)
    return tmp_path


def test_a_champion_with_scores_of_test_photos_is_judged_anew(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = params.load()
    assert register._champion(here / "champion", NOW.judged_on, "meadow", settings) == NOW
    assert "judging the champion" in capsys.readouterr().out
    same = replace(NOW, depth_spearman=(0.1, 0.2, 0.3))
    (here / "champion" / "evaluation" / "scores.json").write_text(json.dumps(same.told()))
    assert register._champion(here / "champion", NOW.judged_on, "meadow", settings) == same


def test_scores_of_test_photos_register_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "deliver", lambda *args: None)
    monkeypatch.setattr(registry, "register", lambda *args: pytest.fail("registered"))
    for path, content in (("metrics/meadow.json", {}), ("reports/meadow/scores.json", THEN.told())):
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
    told = json.loads((here / ".argan/reevaluated/meadow.json").read_text())
    assert (told["split"], told["registered_split"], told["same_photos"]) == ("validation", "test", False)
    assert told["scores"]["depth_spearman"] == {"registered": pytest.approx(0.9), "now": pytest.approx(0.7)}
    said = capsys.readouterr().out
    assert "judged anew on validation photos, other photos than it was registered with" in said
    assert "depth_spearman 0.7000, 0.9000 when registered, on test photos" in said
