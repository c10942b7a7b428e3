"""params.yaml: every mistake is named, with its file, its place and the nearest right name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from filelock import FileLock, Timeout

from argan.config import params, schema
from argan.errors import UserError

GOOD = {"domains": ["meadow"], "train": {"seed": 1}, "meadow": {"source": "meadow", "preset": "quick"}}


def load(tmp_path: Path, **changes: object) -> schema.Params:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump({**GOOD, **changes}))
    return params.load(path)


def test_the_committed_file_is_right() -> None:
    settings = params.load(Path(__file__).parents[2] / "params.yaml")
    assert settings.domains == ["meadow"] and settings.training("meadow").preset == "quick"


@pytest.mark.parametrize("preset", schema.PRESETS)
def test_every_preset_is_whole(preset: str) -> None:
    training = schema.training(preset)
    assert preset == "quick" or training.resolution == int(preset)


def test_the_train_section_overrides_the_preset(tmp_path: Path) -> None:
    training = load(tmp_path, train={"seed": 7, "images": 10}).training("meadow")
    assert (training.seed, training.images, training.batch) == (7, 10, schema.preset_values("quick")["batch"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"train": {"imagess": 3}}, r"'train\.imagess' \(did you mean 'images'\?\)"),
        ({"train": {"images": "many"}}, r"train\.images: .*valid integer, got 'many'"),
        ({"train": {"images": True}}, r"train\.images: .*valid integer, got True"),
        ({"train": {"learning_rate": float("nan")}}, r"train\.learning_rate"),
        ({"train": {"layers": 8}}, r"train\.layers: must be odd"),
        ({"train": [1]}, r"train: .*dictionary"),
        ({"domains": ["medow"]}, r"unknown domain 'medow' \(did you mean 'meadow'\?\)"),
        ({"domains": "meadow"}, r"domains: .*list"),
        ({"trian": {"seed": 1}}, r"unknown section 'trian' \(did you mean 'train'\?\)"),
        ({"meadow": {"source": "meadow", "preset": "qick"}}, r"meadow\.preset: .*'quick'"),
        ({"meadow": {"source": "meadow", "photo": 3}}, r"'meadow\.photo' \(did you mean 'photos'\?\)"),
        ({"Mea dow": {"source": "meadow"}}, r"'Mea dow' is no domain name"),
    ],
)
def test_mistakes_are_named_in_one_line(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        load(tmp_path, **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["a: [", "- 1\n- 2\n", "", "\x00"])
def test_what_is_no_mapping_is_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(content)
    with pytest.raises(UserError, match=r"params\.yaml"):
        params.load(path)


def test_a_prior_without_a_direction_cannot_tell_the_sign() -> None:
    for flat in (
        {"prior_slope": 0.0},
        {"prior_radius": 0.7},
        {"prior_sign": 0.0, "prior_slope": 0.0, "sign": "photographs"},
    ):
        with pytest.raises(UserError, match="tells no sign"):
            schema.training("quick", flat)
    schema.training("quick", {"prior_slope": 0.0, "prior_sign": 0.0})


def test_a_missing_file_says_where_to_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not there"):
        params.load(tmp_path / "params.yaml")


def test_a_revision_is_asked_for_and_written_while_nobody_else_may(tmp_path: Path) -> None:
    load(tmp_path)

    def revision() -> str:
        with pytest.raises(Timeout):
            FileLock(tmp_path / ".params.yaml.lock").acquire(timeout=0)
        return "0" * 16

    assert params.record_revision("mine", revision, tmp_path / "params.yaml")


def test_nothing_can_be_changed_after_loading(tmp_path: Path) -> None:
    training = load(tmp_path).training("meadow")
    with pytest.raises(ValueError, match="frozen"):
        training.seed = 5  # type: ignore[misc]
