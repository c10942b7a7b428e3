"""The whole pipeline in a small workspace: made once, looked at, interrupted, changed, and run by Prefect."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import ROOT, SMALL, Workspace
from PIL import Image

import argan
from argan.config import params
from argan.errors import UserError
from argan.meadow import photographs
from pipelines.train import train
from pipelines.workspace import prepare

pytestmark = pytest.mark.pipeline
KEYS = [
    "fid", "kid", "features", "images", "depth_spearman", "depth_spearman_prior", "depth_side", "depth_side_prior",
    "depth_sign_agreement", "depth_mask_auc", "sharpness_gap", "degenerate", "train_seconds", "images_per_second", "images_seen",
]  # fmt: skip


def weights(workspace: Workspace) -> dict[str, str]:
    files = sorted((workspace.folder / "models" / "meadow").glob("*.safetensors"))
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_everything_that_was_promised_is_there(finished: Workspace) -> None:
    top = finished.folder
    pixels = np.load(top / "data/photos/meadow/photos.npy", mmap_mode="r")
    index = pd.read_parquet(top / "data/photos/meadow/index.parquet")
    assert pixels.dtype == np.uint8
    assert pixels.shape == (200, 32, 32, 3)
    assert index["split"].value_counts().to_dict() == {"train": 136, "validation": 32, "test": 32}
    assert index["sha256"].is_unique

    # Exact depth exists of held-out photos alone, and is no dependency of training.
    truth = pd.read_parquet(top / "data/truth/meadow/index.parquet")
    disparity = np.load(top / "data/truth/meadow/disparity.npy")
    assert disparity.shape == (64, 32, 32)
    assert set(index["split"].iloc[truth["photo"]]) == {"validation", "test"}
    lock = (top / "dvc.lock").read_text()
    train = lock[lock.index("  train@meadow:") :].split("\n  evaluate@")[0].split("\n  register@")[0]
    assert "truth" not in train.split("outs:")[0]

    for name in ("generator.safetensors", "estimator.safetensors", "config.json", "card.md", "samples/samples.png"):
        assert (top / "models/meadow" / name).stat().st_size > 0
    assert not [p for p in (top / "models").rglob("*") if p.suffix in (".pt", ".pth", ".pkl", ".ckpt")]
    metrics = json.loads((top / "metrics/meadow.json").read_text())
    assert [key for key in KEYS if key not in metrics] == []
    assert metrics["images_seen"] == 320
    assert isinstance(metrics["degenerate"], list)
    assert (top / "plots/meadow/grid.png").exists()
    assert pd.read_csv(top / "plots/meadow/training.csv")["images"].iloc[-1] == 320
    receipt = json.loads((top / "registry/meadow.json").read_text())
    assert receipt["name"] == "argan-meadow"
    assert "challenger" in receipt["aliases"]
    assert receipt["tracking_uri"] == "sqlite:///mlflow.db"


def test_nothing_reached_for_the_outside(finished: Workspace) -> None:
    assert not finished.connections.exists(), finished.connections.read_text()


def test_git_sees_only_what_belongs_in_it(finished: Workspace) -> None:
    made = finished.run("git", "show", "--stat=200", "--name-only", "--format=").split()
    assert sorted(made) == ["dvc.lock", "metrics/meadow.json", "registry/meadow.json"]


def test_a_second_run_has_nothing_to_do_and_says_so(finished: Workspace) -> None:
    began = os.times()
    finished.run("python", "-m", "pipelines.workspace", "prepare")
    assert "up to date" in finished.run("dvc", "repro")
    output = finished.run("python", "-m", "pipelines.workspace", "finish")
    ended = os.times()
    seconds = ended.children_user + ended.children_system - began.children_user - began.children_system
    assert seconds < 40  # of computing, whatever else the machine does; 4 on a quiet one
    assert "argan-meadow version 1" in output
    assert "plots/meadow/grid.png" in output
    assert "make registry" in output
    assert re.search(r"depth, rank correlation.*-?\d\.\d{3} +-?\d\.\d{3} +-?\d\.\d{3}", output)
    assert finished.run("git", "status", "--porcelain") == ""


def test_what_dvc_shows(finished: Workspace, tmp_path: Path) -> None:
    workspace = finished.copy(tmp_path / "copy")
    dag = workspace.run("dvc", "dag", "--dot")
    for edge in ("fetch@meadow", "crop@meadow", "train@meadow", "evaluate@meadow", "register@meadow"):
        assert edge in dag
    assert "depth_spearman" in workspace.run("dvc", "metrics", "show")
    plots = json.loads(workspace.run("dvc", "plots", "show", "--json"))
    assert not plots.get("errors")
    assert {"losses", "disparity"} <= set(plots["data"])
    assert any(name.endswith("grid.png") for name in plots["data"])

    output = workspace.run("dvc", "exp", "run", "-S", "train.seed=1", "-S", "train.images=64")
    assert "train@meadow" in output
    assert "fetch@meadow' didn't change" in output
    changes = workspace.run("dvc", "metrics", "diff", "--md")
    assert "fid" in changes
    assert "train.seed" in workspace.run("dvc", "params", "diff")
    assert workspace.run("dvc", "exp", "show", "--csv").count("\n") >= 2


def test_killed_in_training_and_run_again_gives_the_same_weights(finished: Workspace, tmp_path: Path) -> None:
    workspace = finished.copy(tmp_path / "copy")
    for made in ("models/meadow", ".dvc/cache"):  # the second: DVC remembers what was made, and would bring it back
        shutil.rmtree(workspace.folder / made)
    expected = weights(finished)
    checkpoints = workspace.folder / "checkpoints" / "meadow"
    for folder in [entry for entry in checkpoints.iterdir() if entry.is_dir()]:
        shutil.rmtree(folder)
    for reached in (64, 320):  # images seen when the kill comes; the last one falls into what follows training
        process = workspace.start("dvc", "repro", "train@meadow")
        while not [p for p in checkpoints.rglob("*.safetensors") if p.stem.isdigit() and int(p.stem) >= reached]:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    output = workspace.run("dvc", "repro")
    assert "resuming at 320 of 320 images" in output
    assert weights(workspace) == expected
    assert "version 1" in output  # the same weights are the same version


def test_a_sign_learned_from_the_photographs_is_in_the_model_and_its_card(finished: Workspace, tmp_path: Path) -> None:
    workspace = finished.copy(tmp_path / "copy")
    workspace.params(lambda content: content["train"].update(sign="photographs", sign_images=64))
    output = workspace.run("python", "-m", "pipelines.train", "meadow")
    for side in ("behind", "before"):
        assert f"64 images with what is out of focus {side} the subject" in output
    model = workspace.folder / "models" / "meadow"
    verdict = json.loads((model / "config.json").read_text())["sign"]
    assert verdict["side"] == max(("behind", "before"), key=lambda side: verdict[side])
    card = (model / "card.md").read_text(encoding="utf-8")
    assert f"learned from the photographs: what is out of focus lies {verdict['side']} the subject" in card
    assert pd.read_csv(model / "history.csv")["images"].is_monotonic_increasing
    assert "resuming at 320 of 320 images" in workspace.run("python", "-m", "pipelines.train", "meadow")
    assert argan.load(model).sample(1, seed=0).images.shape == (1, 32, 32, 3)


def test_interrupted_training_says_how_to_go_on(finished: Workspace, tmp_path: Path) -> None:
    workspace = finished.copy(tmp_path / "copy")
    workspace.params(lambda content: content["train"].update(seed=5, images=100_000))
    process = workspace.start("python", "-m", "pipelines.train", "meadow")
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += line
        if "left, loss" in line and "left, loss" not in output.removesuffix(line):
            process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    assert "starting fresh" in output
    assert "run the same command again to resume" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p["train"].update(recpie="modern"), "train.recpie' (did you mean 'recipe'?)"),
        (lambda p: p["meadow"].update(photos="many"), "meadow.photos"),
        (lambda p: p["meadow"].update(photos=64), "photos 64 must be more than validation 32 + test 32"),
        (lambda p: p.update(domains=["medow"]), "unknown domain 'medow' (did you mean 'meadow'?)"),
        (lambda p: p.update(domains=[]), "domains is empty"),
        (lambda p: p.update(evaluat=p.pop("evaluate")), "evaluat"),
    ],
)
def test_bad_parameters_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["meadow"] |= SMALL["meadow"]
    change(content)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        prepare()
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_commands_report_bad_parameters_without_a_traceback(finished: Workspace, tmp_path: Path) -> None:
    workspace = finished.copy(tmp_path / "copy")
    workspace.params(lambda p: p.update(domains=["medow"]))
    output = workspace.run("python", "-m", "pipelines.workspace", "prepare", code=2)
    assert "unknown domain 'medow' (did you mean 'meadow'?)" in output and output.count("\n") == 1
    assert "Traceback" not in workspace.run("dvc", "repro", code=255)


def test_a_damaged_photo_store_is_one_line(
    finished: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = finished.copy(tmp_path / "copy")
    file = workspace.folder / "data/photos/meadow/photos.npy"
    content = file.read_bytes()
    file.unlink()  # DVC may have linked it to its cache
    file.write_bytes(content[:1000])
    monkeypatch.chdir(workspace.folder)
    with pytest.raises(UserError, match=r"^data/photos/meadow is damaged") as caught:
        train("meadow", params.load())
    assert "\n" not in str(caught.value)


def test_what_another_registry_lacks_is_registered_there(finished: Workspace, tmp_path: Path) -> None:
    workspace = finished.copy(tmp_path / "copy")
    other = f"sqlite:///{workspace.folder}/other.db"
    assert "up to date" in workspace.run("dvc", "repro", MLFLOW_TRACKING_URI=other)
    output = workspace.run("python", "-m", "pipelines.workspace", "finish", MLFLOW_TRACKING_URI=other)
    assert "does not have the registered version" in output
    receipt = json.loads((workspace.folder / "registry/meadow.json").read_text())
    assert receipt["tracking_uri"] == other
    with sqlite3.connect(workspace.folder / "other.db") as database:
        assert database.execute("select name, version from model_versions").fetchall() == [("argan-meadow", 1)]


def test_a_tracking_server_that_is_away_loses_nothing(finished: Workspace, tmp_path: Path) -> None:
    workspace = finished.copy(tmp_path / "copy")
    away = {"MLFLOW_TRACKING_URI": "http://user:secret@127.0.0.1:9"}
    output = workspace.run("python", "-m", "pipelines.register", "meadow", code=2, **away)
    assert output.startswith("error: MLflow at http://127.0.0.1:9 cannot be used")
    assert output.count("\n") == 1
    assert "secret" not in output
    assert (workspace.folder / "registry/meadow.json").exists()


def test_a_folder_without_git_works(make_workspace: Callable[..., Workspace]) -> None:
    workspace = make_workspace(git=False)
    assert "no Git repository" in workspace.run("python", "-m", "pipelines.workspace", "prepare")
    assert workspace.run("python", "-m", "pipelines.workspace", "prepare") == ""  # said once
    workspace.run("dvc", "repro", "crop@meadow")
    assert (workspace.folder / "data/photos/meadow/photos.npy").exists()


def test_the_prefect_flow_runs_the_five_stages(finished: Workspace, tmp_path: Path) -> None:
    workspace = finished.copy(tmp_path / "copy")
    workspace.params(lambda content: content["evaluate"].update(seed=1))
    retrain = "from pipelines.flows.retrain import retrain_command; retrain_command('meadow')"
    process, output, asked = workspace.start("python", "-c", retrain), "", False
    for line in process.stdout or ():
        output += line
        server = re.search(r"temporary server on (http://127.0.0.1:\d+)", output)
        if "python -m pipelines.evaluate meadow" in line:  # the stage's own lines are in the run's log
            assert server, output
            for path in (
                "/api/csrf-token?client=theirs",
                "/api/admin/settings",
            ):  # nobody else reads or cancels the run
                assert httpx.get(f"{server[1]}{path}", trust_env=False).status_code == 401
            assert httpx.post(f"{server[1]}/api/flow_runs/filter", json={}, trust_env=False).status_code == 401
            asked = True
    assert process.wait() == 0 and asked, output
    with sqlite3.connect(workspace.folder / ".prefect" / "prefect.db") as database:
        runs = dict(database.execute("select name, state_name from task_run").fetchall())
        flows = database.execute("select name, state_name from flow_run").fetchall()
    same, done = ("fetch", "crop", "train"), ("evaluate", "register", "summary")
    assert runs == {f"{stage}@meadow": "Unchanged" for stage in same} | {
        f"{stage}@meadow": "Completed" for stage in done
    }
    assert flows == [("retrain-meadow", "Completed")]
    assert not workspace.connections.exists(), workspace.connections.read_text()
    assert "up to date" in workspace.run("dvc", "repro")
    assert workspace.run("python", "-c", retrain) == "meadow: nothing to do, all is up to date\n"

    # A stage that fails: its own line, and no traceback.
    workspace.params(lambda content: content["crop"].update(refused_max=0.0))
    raw = workspace.folder / "data/raw/meadow/photos.npy"
    pixels = np.load(raw)
    pixels[3] = 7
    raw.unlink()
    np.save(raw, pixels)
    workspace.run("dvc", "commit", "-f", "fetch@meadow")
    command = f"from pipelines.stage import run_command; {retrain.replace('; ', '; run_command(lambda: ')})"
    output = workspace.run("python", "-c", command, code=2)
    assert "error: crop@meadow: data/raw/meadow: 1 of 200 photos refused" in output
    assert "Traceback" not in output
    unknown = command.replace("('meadow')", "('medow')")
    assert "unknown domain 'medow'" in workspace.run("python", "-c", unknown, code=2)


def test_a_photographers_own_photos_from_folder_to_registry_and_more_of_them_later(
    make_workspace: Callable[..., Workspace], tmp_path: Path
) -> None:
    folder, workspace = tmp_path / "photos", make_workspace()
    folder.mkdir()
    pixels, _ = photographs(170, 96, 11, depth=False)
    for i, photo in enumerate(pixels[:150]):
        Image.fromarray(photo).save(folder / f"{i}.jpg", quality=92)
    (folder / "broken.jpg").write_bytes((folder / "0.jpg").read_bytes()[:500])
    pixels_file, index_file = (
        workspace.folder / f"data/photos/mine/{name}" for name in ("photos.npy", "index.parquet")
    )

    def commit(words: str) -> None:
        workspace.run("git", "add", "-A")
        workspace.run("git", "commit", "-qm", words)

    output = workspace.run("python", "-m", "argan", "collection", "add", "mine", str(folder))
    assert "150 new photos of 151, 1 refused; 150 in all" in output
    assert "refused: broken.jpg: " in output
    workspace.params(lambda content: (content["mine"].update(preset="quick"), content.update(domains=["mine"])))
    output = workspace.run("dvc", "repro")
    assert "mine: 150 photos of 32 x 32 px, 150 decoded now" in output
    assert "no depth is known of any photo" in output
    measured = (workspace.folder / "data/photos/mine/iris.json").read_bytes()
    assert (workspace.folder / "models/mine/iris.json").read_bytes() == measured
    assert "Aperture not known: " in (workspace.folder / "models/mine/card.md").read_text()
    commit("first")
    assert "data/collections" not in workspace.run("git", "ls-files")
    first, revision = pixels_file.read_bytes(), params.load(workspace.folder / "params.yaml").known["mine"]
    before = pd.read_parquet(index_file).set_index("file_sha256")["split"]
    receipt = json.loads((workspace.folder / "registry/mine.json").read_text())
    assert receipt["name"] == "argan-mine"
    with sqlite3.connect(workspace.folder / "mlflow.db") as database:
        at = database.execute("select storage_location from model_versions").fetchall()
    kept = {path.name for path in Path(str(at[0][0]).removeprefix("file://")).rglob("*")}
    assert {"report.html", "quality.json", "generator.safetensors", "scores.json"} <= kept

    # More photos: only they are decoded, no photo changes its split, and what was is in the cache still
    for i, photo in enumerate(pixels[150:], 150):
        Image.fromarray(photo).save(folder / f"{i}.jpg", quality=92)
    assert "20 new photos of 171, 0 refused; 170 in all" in workspace.run(
        "python", "-m", "argan", "collection", "add", "mine", str(folder)
    )
    output = workspace.run("dvc", "repro")
    assert "mine: 170 photos of 32 x 32 px, 20 decoded now" in output
    assert "judging the champion on the photos of today" in output
    second = json.loads((workspace.folder / "registry/mine.json").read_text())
    assert second["version"] == "2" and re.search(r"kid(: cannot tell|: worse|) \(", second["reason"])
    after = pd.read_parquet(index_file).set_index("file_sha256")["split"]
    assert after.reindex(before.index).equals(before)
    commit("second")
    workspace.run("git", "checkout", "-q", "HEAD~1")
    workspace.run("dvc", "checkout")
    assert params.load(workspace.folder / "params.yaml").known["mine"] == revision
    assert pixels_file.read_bytes() == first
    assert len(list((workspace.folder / "data/raw/mine/photos").rglob("*.jpg"))) == 150
    assert "up to date" in workspace.run("dvc", "repro")

    # Photos that cannot teach depth stop before training
    workspace.params(lambda content: content["crop"].update(photos_min=130, defocus_min=0.99))
    output = workspace.run("dvc", "repro", "train@mine", code=255)
    assert re.search(r"error: mine: AR-GAN cannot learn .*at least 130 are needed.*No defocus: .*report.html", output)
