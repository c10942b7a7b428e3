"""`argan models` and the pages a person reads, on a real MLflow: champions come, go and come back, and none is lost."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ROOT
from registered import model, register
from servers import Servers

from argan import cli, networks, registry
from argan.config import schema
from argan.config.schema import Mlflow
from argan.errors import UserError
from argan.files import write_json
from argan.registry import champions, history, pages
from argan.registry.catalogue_rest import RestCatalogue
from argan.registry.catalogue_sql import SqlCatalogue
from argan.registry.history import Change, encode_history, predecessor, read_history, succession
from argan.tensors import write_tensors
from benchmarks.many_models import fill

NAME = "argan-meadow"
MINUTES = timedelta(minutes=5)
BOUNDS = {"depth_spearman_low": 0.55, "depth_spearman_high": 0.65, "depth_spearman_prior": 0.4, "kid_se": 0.01}


@pytest.fixture
def here(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(database, tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Path:
    """Three versions of meadow, each better than the one before: 1, 2 and 3 were champions in turn."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copyfile(database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.chdir(folder)
        for number, depth in enumerate((0.5, 0.6, 0.7), 1):
            register(model(folder / "m", f"weights {number}"), depth_spearman=depth, **BOUNDS)
    return folder


@pytest.fixture
def three(here: Path, made: Path) -> Path:
    """A copy of `made`, files included."""
    shutil.copytree(made, here, dirs_exist_ok=True)
    places = {
        "model_versions": ("source", "storage_location"),
        "runs": ("artifact_uri",),
        "experiments": ("artifact_location",),
    }
    with closing(sqlite3.connect(here / "mlflow.db")) as database, database:
        for table, columns in places.items():
            for column in columns:
                database.execute(f"update {table} set {column} = replace({column}, ?, ?)", (str(made), str(here)))
    return here


def client(here: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{here}/mlflow.db", registry_uri=f"sqlite:///{here}/mlflow.db")


def argan(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> str:
    """What a command prints; checks its exit code, and that what is wrong is told in one line."""
    argv, sys.argv = sys.argv, ["argan", "models", *words]
    try:
        with pytest.raises(SystemExit) as ended:
            cli.main()
    finally:
        sys.argv = argv
    output = capsys.readouterr()
    assert int(ended.value.code or 0) == code, output
    if code == 2:
        assert output.err.startswith("error: ") and output.err.count("\n") == 1
        return output.err
    return output.out


def champion(here: Path) -> int | None:
    found = {m.name: m for m in registry.open_catalogue(f"sqlite:///{here}/mlflow.db").models()}
    return found[NAME].champion


# ---- The history ----


def test_a_rollback_goes_back_and_further_back() -> None:
    log = [Change(v, "", how) for v, how in [(1, "gate"), (3, "gate"), (5, "promote")]]
    assert predecessor(log, {1, 3, 5}, 5) == 3
    log.append(Change(3, "", "rollback"))
    assert succession(log) == [1, 3]
    assert predecessor(log, {1, 3, 5}, 3) == 1
    log.append(Change(6, "", "gate"))
    assert predecessor(log, {1, 3, 5, 6}, 6) == 3
    assert predecessor(log, {1, 6}, 6) == 1  # 3 was deleted
    assert predecessor(log, {6}, 6) is None
    assert predecessor([], {1, 2}, None) is None


def test_the_newest_changes_are_kept() -> None:
    changes = [Change(version, "2026-01-01 00:00 UTC", "gate") for version in range(1, history.KEPT + 21)]
    kept = read_history({"champions": encode_history(changes)})
    assert kept == changes[20:] and len(kept) == history.KEPT
    assert len(encode_history(changes)) <= 5000


def test_times_are_utc_wherever_the_machine_is(
    three: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        argan(capsys, "rollback", "meadow")
        when = read_history(client(three).get_registered_model(NAME).tags)[-1].when
        assert abs(datetime.strptime(when, "%Y-%m-%d %H:%M UTC").replace(tzinfo=UTC) - datetime.now(UTC)) < MINUTES
        created = client(three).get_model_version(NAME, "2").creation_timestamp / 1000
        assert f"registered {datetime.fromtimestamp(created, UTC):%Y-%m-%d %H:%M}" in argan(
            capsys, "show", "meadow", "2"
        )
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_damaged_history_is_none() -> None:
    assert read_history({"champions": "[[1]]"}) == read_history({"champions": "{"}) == read_history({}) == []


# ---- The command ----


def test_list_show_promote_rollback(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = argan(capsys)
    assert output == argan(capsys, "list")
    assert "meadow  3         3       32  0.7000 (0.5500 to 0.6500)  0.1000 ± 0.0100" in output
    output = argan(capsys, "list", "meadow")
    assert [row.split()[0] for row in output.splitlines()] == ["version", "3", "2", "1"]
    assert "challenger, champion" in output
    output = argan(capsys, "show", "meadow", "2")
    assert "0.6000 (0.5500 to 0.6500)" in output and "gate: depth: better" in output and "data revision" in output

    assert argan(capsys, "rollback", "meadow") == "meadow: version 2 is champion, version 3 was\n"
    assert argan(capsys, "rollback", "meadow") == "meadow: version 1 is champion, version 2 was\n"
    assert "no champion before version 1 is left" in argan(capsys, "rollback", "meadow", code=2)
    assert argan(capsys, "promote", "meadow", "3") == "meadow: version 3 is champion, version 1 was\n"
    assert "is the champion already" in argan(capsys, "promote", "meadow", "champion")
    assert champion(three) == 3
    changes = read_history(client(three).get_registered_model(NAME).tags)
    assert [(c.version, c.how) for c in changes] == [
        (1, "gate"), (2, "gate"), (3, "gate"), (2, "rollback"), (1, "rollback"), (3, "promote"),
    ]  # fmt: skip


def test_compare_tells_intervals_and_goes_photo_by_photo(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    random = np.random.default_rng(0)
    old = random.uniform(0.4, 0.6, 50)
    both = {"1": old, "2": old + 0.1 + random.normal(0, 0.01, 50)}
    for number, values in both.items():
        register(model(here / "m", number), depth_spearman=float(values.mean()), **BOUNDS)
    for number, values in both.items():
        scores = {"judged_on": "these", "depth_spearman": values.tolist(), "degenerate": []}
        scores |= dict.fromkeys(("depth_mask_auc", "kid", "depth_sign_agreement"))
        version = registry.download(f"models:/{NAME}/{number}")
        (version / "evaluation" / "scores.json").write_text(json.dumps(scores))
    output = argan(capsys, "compare", "meadow", "1", "2")
    assert "version 1" in output and "version 2" in output and "(0.5500 to 0.6500)" in output
    gain = next(row for row in output.splitlines() if "2 is better" in row)
    assert "depth, rank correlation" in gain and "+0.10" in gain and "50" in gain
    assert "1 is better" not in output
    (version / "evaluation" / "scores.json").write_text("{")
    assert "not photo by photo: the scores of version 2" in argan(capsys, "compare", "meadow", "1", "2")


def test_the_champion_is_never_deleted(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is the champion, and a champion is not deleted" in argan(capsys, "delete", "meadow", "3", "--yes", code=2)
    argan(capsys, "rollback", "meadow")
    output = argan(capsys, "delete", "meadow", "3", "--yes")
    assert "version 3 is deleted" in output and "mlflow gc" in output
    assert champion(three) == 2
    aliases = client(three).get_registered_model(NAME).aliases
    assert {alias: int(version) for alias, version in aliases.items()} == {"champion": 2, "challenger": 2}
    assert "has no version 3" in argan(capsys, "show", "meadow", "3", code=2)


# ---- What happens in MLflow's own pages ----


def test_a_champion_deleted_in_mlflow_is_told_and_the_one_before_comes_back(
    three: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client(three).delete_model_version(NAME, "3")
    way = (
        "meadow: no champion: version 3 was deleted in MLflow; `argan models rollback meadow` makes version 2 champion"
    )
    assert way in argan(capsys, "list")
    assert way in argan(capsys, "show", "meadow", code=2)
    with pytest.raises(UserError, match=r"version 3 was deleted in MLflow; `argan models rollback meadow`"):
        registry.download(f"models:/{NAME}@champion")
    # The gate compares with the one before, which is champion meanwhile
    worse = register(model(three / "m", "weights 4"), depth_spearman=0.55)
    assert worse["aliases"] == ["challenger"] and champion(three) == 2
    changes = read_history(client(three).get_registered_model(NAME).tags)
    assert (changes[-1].version, changes[-1].how) == (2, "restored")
    assert "no champion" not in argan(capsys, "list")


def test_the_gate_gives_a_removed_alias_back_to_the_version_that_had_it(three: Path) -> None:
    client(three).delete_registered_model_alias(NAME, "champion")
    lines: list[str] = []
    assert int(champions.ensure_champion(client(three), NAME, lines.append).version) == 3
    assert champion(three) == 3 and "version 3 is champion again" in lines[1]


def test_an_alias_taken_away_or_given_in_mlflow(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mlflow = client(three)
    mlflow.delete_registered_model_alias(NAME, "champion")
    assert "the alias was taken from version 3 in MLflow; `argan models promote meadow 3`" in argan(capsys, "list")
    mlflow.set_registered_model_alias(NAME, "champion", "1")
    assert "meadow  1         3       32  0.5000" in argan(capsys, "list")  # numbers of 1, not of 3
    argan(capsys, "promote", "meadow", "2")
    argan(capsys, "rollback", "meadow")
    assert champion(three) == 1


def test_an_archived_champion_is_told(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(FutureWarning):
        client(three).transition_model_version_stage(NAME, "3", "Archived")
    output = argan(capsys, "list")
    assert (
        "its champion, version 3, is archived in MLflow and still in use; `argan models rollback meadow` makes version 2"
        in output
    )
    argan(capsys, "rollback", "meadow")
    assert "archived" not in argan(capsys, "list")


def test_a_champion_whose_run_is_deleted(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = client(three).get_model_version(NAME, "3").run_id
    client(three).delete_run(run)
    assert f"`mlflow runs restore --run-id {run}` brings it back" in argan(capsys, "show", "meadow")
    messages: list[str] = []
    assert champions.ensure_champion(client(three), NAME, messages.append).version == 3
    assert "mlflow gc" in messages[0]


def test_a_version_without_files_is_not_promoted(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(registry.download(f"models:/{NAME}/1"))
    assert "its files are gone" in argan(capsys, "promote", "meadow", "1", code=2)
    assert champion(three) == 3


def test_all_deleted(three: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in "123":
        client(three).delete_model_version(NAME, number)
    assert "`argan models promote meadow VERSION` makes another, or the next healthy model" in argan(capsys, "list")
    assert argan(capsys, "list", "meadow").startswith("version")
    assert register(model(three / "m", "weights 4"))["aliases"] == ["challenger", "champion"]


# ---- Bad input ----


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["show", "medow"], "did you mean 'meadow'?"),
        (["list", "birds"], "there is: meadow"),
        (["show", "meadow", "9"], "meadow has no version 9; there is 1 to 3"),
        (["show", "meadow", "best"], "'best' is no version of meadow"),
        (["show", "meadow", "99999999999999999999"], "has no version"),
        (["promote", "meadow", "0"], "has no version 0"),
        (["compare", "meadow", "champion", "3"], "both version 3"),
        (["delete", "meadow", "-1", "--yes"], "no such option"),
        (["rollback", "birds"], "no models of the domain 'birds'"),
        (["promote", "meadow"], "missing"),
    ],
)
def test_bad_input(three: Path, capsys: pytest.CaptureFixture[str], words: list[str], reason: str) -> None:
    assert reason.lower() in argan(capsys, *words, code=2).lower()
    assert champion(three) == 3


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("http://127.0.0.1:9", "cannot be used"),
        ("sqlite:////no/such/folder/m.db", "there is no registry at"),
        ("postgresql+psycopg://u:secret@127.0.0.1:9/x", "cannot be used"),
        ("./mlruns", "keeps no registry in a folder"),
        ("databricks", "a registry of one's own"),
    ],
)
def test_a_registry_that_is_not_there(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, uri: str, reason: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    output = argan(capsys, "list", code=2)
    assert reason in output and "secret" not in output


def test_a_database_that_is_not_migrated(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sqlite3.connect(here / "old.db").execute("create table registered_models (name text)").connection.close()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here}/old.db")
    assert "is not that of an MLflow of this version" in argan(capsys, "list", code=2)


def test_an_empty_registry(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no models yet" in argan(capsys, "list")
    assert "it is empty" in argan(capsys, "show", "meadow", code=2)


# ---- The pages ----


def test_a_card_tells_what_a_person_wants_to_know(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGAN_PREFECT_RUN", "0193-abc")
    monkeypatch.setenv("ARGAN_PREFECT_URL", "http://user:secret@127.0.0.1:4200/runs/flow-run/0193-abc")
    (here / "plots").mkdir()
    for name in ("scenes", "depth", "grid"):
        (here / "plots" / f"{name}.png").write_bytes(b"png")
    folder = model(here / "m")
    (folder / "data").mkdir()
    (folder / "data" / "card.md").write_text(
        "# Data: Garden\n\n**Licence**: CC BY 4.0  \n\n| | |\n|---|---|\n| photos | 200 of 32 x 32 px |\n"
    )
    receipt = register(folder, **BOUNDS)
    mlflow = client(here)
    version = mlflow.get_model_version(NAME, "1")
    picture = f"plots%2F{receipt['model_hash']}%2Fscenes.png&run_uuid={receipt['run_id']}"
    for text in (
        "### How good it is",
        "| rank correlation (higher is better) &emsp;| 0.600 &emsp;| 0.550 to 0.650 &emsp;| 0.400 &emsp;|",
        "### What it learned from: Garden",
        "| licence &emsp;| CC BY 4.0 |",
        "### What it is not",
        "no measure in metres",
        f'argan.load("models:/{NAME}/1")',
        "[0193-abc](http://127.0.0.1:4200/runs/flow-run/0193-abc)",
        "The first healthy model.",
        picture,
        "depth.png",
    ):
        assert text in version.description
    wanted = {
        "preset": "quick",
        "resolution": "32",
        "data_revision": "abc",
        "prefect_flow_run": "0193-abc",
        "data_licence": "CC BY 4.0",
    }
    assert wanted.items() <= version.tags.items()
    run = mlflow.get_run(receipt["run_id"]).data.tags
    assert run["registered"] == f"{NAME} version 1" and run["prefect_flow_run"] == "0193-abc"
    assert f"#/models/{NAME}/versions/1" in run["mlflow.note.content"]
    whole = mlflow.get_registered_model(NAME)
    assert (
        "[version 1]" in whole.description
        and "CC BY 4.0" in whole.description
        and "rank correlation of depth **0.600**" in whole.description
    )
    assert whole.tags["champion"] == "1" and whole.tags["depth_spearman"] == "0.6"
    assert not any(
        "secret" in text for text in [version.description, whole.description, *version.tags.values(), *run.values()]
    )


HOSTILE = '<script>alert(1)</script> ![x](http://evil/x.png) [y](javascript:alert(1)) | <iframe src="//evil"> `a` **b** \x1b[31m'


def test_a_hostile_data_card_is_text_and_no_page_is_too_long(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = model(here / "m")
    (folder / "data").mkdir()
    output = f"# Data: {HOSTILE}\n\n**Source**: {HOSTILE * 40}  \n**Licence**: {HOSTILE * 40}  \n**Citation**: {HOSTILE * 40}  \n"
    (folder / "data" / "card.md").write_text(output)
    register(folder)
    for page in (
        client(here).get_model_version(NAME, "1").description,
        client(here).get_registered_model(NAME).description,
    ):
        assert len(page) <= pages.LIMIT
        assert "<" not in page and "](http://evil" not in page and "](javascript" not in page
        assert "alert" in page
    assert all(len(value) <= 5000 for value in client(here).get_registered_model(NAME).tags.values())
    assert "\x1b" not in argan(capsys, "list") + argan(capsys, "show", "meadow")


def test_pictures_over_the_steps_are_in_the_run(here: Path) -> None:
    run = registry.start_run(Mlflow(), "meadow", schema.training("quick"), "abc", here / "checkpoints", say=print)
    for images in (32, 64):
        run.log_picture(images, np.zeros((8, 8, 3), np.uint8))
    names = [file.path for file in run.client.list_artifacts(run.id, "images")]
    for step in (32, 64):
        assert any(f"step%{step}%" in name or f"step+{step}+" in name for name in names), names


# ---- Loading ----


def test_a_model_is_loaded_where_there_is_no_mlflow(here: Path) -> None:
    """The files of a version need torch and safetensors, and neither MLflow nor a database."""
    config = schema.training(
        "quick", {"latent": 8, "generator_channels": 4, "channels_max": 16, "estimator_channels": 8}
    )
    folder = model(here / "m")
    write_tensors(folder / "generator.safetensors", networks.build_generator(config).state_dict())
    student = networks.Estimator(config.estimator_channels, config.disparity_max)
    write_tensors(folder / "estimator.safetensors", student.state_dict())
    write_json(folder / "config.json", {"domain": "meadow", "training": config.model_dump(), "data": "abc"})
    register(folder)
    shutil.copytree(registry.download(f"models:/{NAME}@champion"), here / "alone")
    (here / "mlflow.db").unlink()
    script = """
import sys

for name in ("mlflow", "sqlalchemy", "prefect", "dvc", "pickle5", "cloudpickle"):
    sys.modules[name] = None
import numpy as np
import torch
import argan

def refuse(*arguments, **named):
    raise AssertionError("weights are safetensors")

torch.load = torch.jit.load = refuse
model = argan.load("alone")
assert model.sample(2, seed=1).images.shape == (2, 32, 32, 3)
assert model.depth(np.zeros((40, 60, 3), np.uint8)).shape == (40, 60)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=here, env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, check=False
    )
    assert done.returncode == 0
    assert {file.suffix for file in (here / "alone").rglob("*") if file.is_file()} <= {
        ".safetensors",
        ".json",
        ".md",
        ".csv",
        ".png",
        ".html",
    }


# ---- Many ----


def test_many_models_in_a_file_are_few_questions(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = fill(f"sqlite:///{here}/mlflow.db", 12, 6)
    asked: list[str] = []
    ask = SqlCatalogue._query
    monkeypatch.setattr(SqlCatalogue, "_query", lambda self, *q, **given: (asked.extend(q), ask(self, *q, **given))[1])
    output = argan(capsys, "list")
    assert [row.split()[:3] for row in output.splitlines()[1:]] == [[name, "3", "6"] for name in names]
    assert len(asked) == 4


def test_the_list_reads_without_mlflow(three: Path) -> None:
    script = """
import sys

for name in ("mlflow", "torch", "scipy", "pandas", "numpy", "prefect", "dvc"):
    sys.modules[name] = None
from argan import cli

sys.argv = ["argan", "models", *sys.argv[1:]]
cli.main()
"""
    environment = {"PYTHONPATH": str(ROOT), "MLFLOW_TRACKING_URI": f"sqlite:///{three}/mlflow.db"}
    for words in ([], ["list", "meadow"], ["show", "meadow"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *words],
            cwd=three,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "0.7000 (0.5500 to 0.6500)" in done.stdout


def test_sql_reads_what_the_installed_mlflow_holds(three: Path) -> None:
    """MLflow's own tables are read: each column is there, and the answers are those of MLflow's client."""
    from mlflow.store.model_registry.dbmodels import models as registry_tables
    from mlflow.store.tracking.dbmodels import models as tracking_tables

    columns = {
        registry_tables.SqlRegisteredModel: {"workspace", "name"},
        registry_tables.SqlRegisteredModelTag: {"workspace", "name", "key", "value"},
        registry_tables.SqlRegisteredModelAlias: {"workspace", "name", "alias", "version"},
        registry_tables.SqlModelVersion: {
            "workspace", "name", "version", "current_stage", "creation_time", "run_id", "source",
        },
        registry_tables.SqlModelVersionTag: {"workspace", "name", "version", "key", "value"},
        tracking_tables.SqlRun: {"run_uuid", "lifecycle_stage"},
    }  # fmt: skip
    for table, read in columns.items():
        assert read <= {column.name for column in table.__table__.columns}, table.__tablename__
    catalogue, mlflow = registry.open_catalogue(f"sqlite:///{three}/mlflow.db"), client(three)
    (model_,) = catalogue.models()
    expected = mlflow.get_registered_model(NAME)
    assert dict(model_.tags) == expected.tags and model_.newest == 3
    assert dict(model_.aliases) == {alias: int(version) for alias, version in expected.aliases.items()}
    for version in catalogue.versions(NAME):
        found = mlflow.get_model_version(NAME, str(version.number))
        assert found.tags.items() <= version.tags.items()
        assert (version.created, version.run_id, version.source) == (
            found.creation_timestamp,
            found.run_id,
            found.source,
        )
        assert not catalogue.is_deleted(version.run_id)
    assert catalogue.is_deleted("0" * 32)


@pytest.mark.pipeline
def test_a_server_answers_as_its_database_does(
    servers: Servers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Versions of two domains in a real server: the list is one request; what is changed there is seen here."""
    monkeypatch.chdir(tmp_path)
    for name, value in servers.client.items():
        monkeypatch.setenv(name, value)
    fill(f"sqlite:///{servers.home}/mlflow/mlflow.db", 3, 8)
    for number, depth in enumerate((0.5, 0.6), 1):
        register(model(tmp_path / "m", f"weights {number}"), depth_spearman=depth, **BOUNDS)
    asked: list[str] = []
    ask = RestCatalogue._get
    monkeypatch.setattr(
        RestCatalogue, "_get", lambda self, path, **given: (asked.append(path), ask(self, path, **given))[1]
    )
    output = argan(capsys, "list")
    assert asked == ["registered-models/search"]
    assert [row.split()[:3] for row in output.splitlines() if row.startswith("many-")] == [
        [f"many-0{i}", "4", "8"] for i in range(3)
    ]
    ours = next(row for row in output.splitlines() if row.startswith("meadow"))
    assert "0.6000 (0.5500 to 0.6500)" in ours
    newest = int(ours.split()[2])
    direct = registry.open_catalogue(f"sqlite:///{servers.home}/mlflow/mlflow.db")
    over = registry.open_catalogue(servers.mlflow)
    assert over.models() == direct.models()
    assert over.versions(NAME) == direct.versions(NAME)
    assert f"gate: {'depth: better'}" in argan(capsys, "show", "meadow")
    assert "depth, rank correlation" in argan(capsys, "compare", "meadow", str(newest - 1), str(newest))
    assert f"version {newest - 1} is champion" in argan(capsys, "rollback", "meadow")
    mlflow = _remote(servers)
    for number in (newest - 1, newest):  # the server tells the newest archived one alone
        with pytest.warns(FutureWarning):
            mlflow.transition_model_version_stage(NAME, str(number), "Archived")
    assert f"its champion, version {newest - 1}, is archived" in argan(capsys, "list")
    mlflow.delete_model_version(NAME, str(newest - 1))
    assert f"version {newest - 1} was deleted in MLflow" in argan(capsys, "list")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", servers.prefect)  # a server, but another
    assert "does not answer as MLflow of this version does" in argan(capsys, "list", code=2)


def _remote(servers: Servers) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(servers.mlflow, registry_uri=servers.mlflow)


def test_a_version_names_its_photographs_and_model_in_dvc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.register import _lineage

    monkeypatch.chdir(tmp_path)
    assert _lineage("meadow") == {}
    (tmp_path / "dvc.lock").write_text(
        "stages:\n  crop@meadow:\n    outs:\n    - path: data/photos/meadow\n      md5: aa.dir\n"
        "  train@meadow:\n    outs:\n    - path: models/meadow\n      md5: bb.dir\n"
    )
    assert _lineage("meadow") == {"dvc_photos": "aa.dir", "dvc_model": "bb.dir"}
    assert _lineage("birds") == {}
    (tmp_path / "dvc.lock").write_text("stages: [")
    assert _lineage("meadow") == {}
