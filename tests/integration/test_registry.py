"""Runs and versions on a real MLflow: idempotent, gated, told without secrets, and quick to say that a server is away."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from registered import METRICS, model, register

from argan import registry
from argan.config import schema
from argan.config.schema import Mlflow
from argan.errors import UserError
from argan.evaluation.bootstrap import compare
from argan.evaluation.gate import Decision


@pytest.fixture
def here(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # By its full path: MLflow keeps a store open per URI for the life of the process.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    for name in ("mlflow.db", "other.db"):
        shutil.copyfile(database, tmp_path / name)
    return tmp_path


def test_the_same_model_is_the_same_version(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, again = register(model(here / "m")), register(model(here / "m"))
    assert first["version"] == again["version"] == "1"
    assert first["aliases"] == ["challenger", "champion"] == again["aliases"]
    assert first["name"] == "argan-meadow"
    assert first["tracking_uri"] == f"sqlite:///{here}/mlflow.db"
    assert registry.is_registered(first, Mlflow())
    assert not registry.is_registered(first | {"version": "2"}, Mlflow())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here}/other.db")
    assert not registry.is_registered(first, Mlflow())


def test_the_hash_of_a_model_is_of_its_weights_and_parameters(tmp_path: Path) -> None:
    first = registry.model_hash(model(tmp_path / "m"))
    assert registry.model_hash(model(tmp_path / "same", data="other photographs")) == first
    changes: dict[str, Callable[[Path], object]] = {
        "generator": lambda folder: (folder / "generator.safetensors").write_text("other"),
        "estimator": lambda folder: (folder / "estimator.safetensors").write_text("other"),
        "both, exchanged": _exchange_weights,
        "training": lambda folder: _edit_config(folder, training={"seed": 1}),
        "domain": lambda folder: _edit_config(folder, domain="birds"),
    }
    hashes = {first}
    for name, change in changes.items():
        change(folder := model(tmp_path / name))
        hashes.add(registry.model_hash(folder))
    assert len(hashes) == 1 + len(changes)


def _exchange_weights(folder: Path) -> None:
    generator, estimator = (folder / f"{name}.safetensors" for name in ("generator", "estimator"))
    generator.rename(folder / "kept")
    estimator.rename(generator)
    (folder / "kept").rename(estimator)


def _edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_registering_again_keeps_what_the_gate_said(here: Path) -> None:
    receipt = register(model(here / "m"))
    first = client(here).get_model_version("argan-meadow", "1")
    again = register(model(here / "m"))
    version = client(here).get_model_version("argan-meadow", "1")
    assert version.tags["gate"] == "the first healthy model" and version.description == first.description
    assert (receipt["reason"], again["reason"]) == ("the first healthy model", "is the champion already")


def test_the_champion_moves_when_the_gate_says_so(here: Path) -> None:
    register(model(here / "m", "first"))
    worse = register(model(here / "m", "worse"), depth_spearman=0.5)
    assert (worse["version"], worse["aliases"]) == ("2", ["challenger"])
    assert worse["reason"] == "depth: worse"
    assert worse["comparison"]["depth_spearman"]["gain"] == pytest.approx(-0.1)
    assert registry.download("models:/argan-meadow@champion") == registry.download("models:/argan-meadow/1")
    assert registry.download("models:/argan-meadow@challenger") == registry.download("models:/argan-meadow/2")

    better = register(model(here / "m", "better"), depth_spearman=0.7)
    assert (better["version"], better["aliases"]) == ("3", ["challenger", "champion"])
    champion = registry.download("models:/argan-meadow@champion")
    assert (champion / "generator.safetensors").read_text() == "better"  # an old version's files are never written over


def test_a_champion_whose_files_are_gone_stops_no_registration(here: Path) -> None:
    register(model(here / "m", "first"))
    shutil.rmtree(registry.download("models:/argan-meadow@champion"))
    second = register(model(here / "m", "second"), depth_spearman=0.9)
    assert (second["version"], second["aliases"]) == ("2", ["challenger"])
    assert "not comparable: models:/argan-meadow/1: its files are gone" in second["reason"]


def test_a_folder_with_a_space_in_its_name(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "my photos"
    folder.mkdir()
    shutil.copyfile(database, folder / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    monkeypatch.chdir(folder)
    register(model(folder / "m", "first"))
    assert register(model(folder / "m", "second"), depth_spearman=0.9)["aliases"] == ["challenger", "champion"]


def test_a_version_shows_card_scores_pictures_and_reason(here: Path) -> None:
    (here / "plots").mkdir()
    (here / "plots" / "grid.png").write_bytes(b"png")
    receipt = register(model(here / "m"))
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{here}/mlflow.db")
    version = client.get_model_version(receipt["name"], receipt["version"])
    assert "| rank correlation (higher is better) &emsp;| 0.600 " in version.description
    assert "scale-invariant" not in version.description  # what is not known is not told
    assert f"samples.png&run_uuid={receipt['run_id']})" in version.description
    assert version.tags["gate"] == "the first healthy model"
    output = (registry.download("models:/argan-meadow@champion") / "evaluation" / "report.html").read_text()
    assert output == "<h1>report</h1><h2>Champion</h2><p>the first healthy model</p>"
    assert version.tags["data_revision"] == "abc"
    run = client.get_run(receipt["run_id"])
    assert run.data.params["images"] == str(schema.training("quick").images)
    assert run.data.metrics["eval/depth_spearman"] == 0.6
    # Trained against another MLflow (or none): the curves came along.
    assert [m.step for m in client.get_metric_history(receipt["run_id"], "loss_d")] == [32, 64]


def test_a_run_is_resumed_while_its_server_has_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = schema.training("quick")

    def start() -> registry.TrainingRun:
        return registry.start_run(Mlflow(), "meadow", config, "abc", here / "checkpoints", say=lambda line: None)

    run = start()
    run.log_row(32, {"images": 32, "loss_d": 0.5, "penalty": float("nan")})
    run.log_picture(32, np.zeros((8, 8, 3), np.uint8))
    run.end("KILLED")
    again = start()
    assert again.id == run.id
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{here}/other.db")
    assert start().id != run.id


def test_training_outlives_its_server(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    messages: list[str] = []
    run = registry.start_run(
        Mlflow(), "meadow", schema.training("quick"), "abc", here / "checkpoints", say=messages.append
    )
    reach = registry.connection.check_reachable

    def away(uri: str) -> None:
        raise UserError("away")

    monkeypatch.setattr(registry.connection, "check_reachable", away)
    run.log_row(32, {"loss_d": 0.5})
    run.log_row(64, {"loss_d": 0.4})
    assert messages == ["warning: not logged yet, nothing is lost: away"]
    monkeypatch.setattr(registry.connection, "check_reachable", reach)
    run._retry_at = 0.0  # the wait before a server is tried again: over, however long the refusal above took here
    run.log_row(96, {"loss_d": 0.3})
    assert [m.step for m in run.client.get_metric_history(run.id, "loss_d")] == [32, 64, 96]


def test_an_end_is_written_down_before_a_server_that_may_hang_is_asked(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = registry.start_run(Mlflow(), "meadow", schema.training("quick"), "abc", here / "checkpoints", say=print)
    run.log_row(32, {"loss_d": 0.5})
    reach, there = registry.connection.check_reachable, []

    def asked(uri: str) -> None:
        there.extend(event.end for event in run.spool.events())
        reach(uri)

    monkeypatch.setattr(registry.connection, "check_reachable", asked)
    run.end("KILLED")
    assert there == ["KILLED"]
    assert run.client.get_run(run.id).info.status == "KILLED" and not run.spool.events()


@pytest.mark.parametrize(
    ("uri", "redacted"),
    [
        ("http://user:secret@localhost:5000/", "http://localhost:5000"),
        ("https://user:secret@mlflow.example.org/base", "https://mlflow.example.org/base"),
        ("postgresql+psycopg://user:secret@db:5432/mlflow?password=secret", "postgresql+psycopg://db:5432/mlflow"),
        ("postgresql+psycopg://user:secret@/mlflow?host=/run/pg", "postgresql+psycopg:///mlflow"),
        ("http://user:sec?re/t@host", "http://host"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("http://[::1]:5000", "http://[::1]:5000"),
    ],
)
def test_secrets_stay_out_of_receipts(uri: str, redacted: str) -> None:
    assert registry.redacted_uri(uri) == redacted


@pytest.mark.parametrize(
    "uri",
    ["http://127.0.0.1:9", "postgresql+psycopg://u:secret@127.0.0.1:9/x", "sqlite:////no/such/folder/m.db", "./mlruns"],
)
def test_a_server_that_is_away_is_said_in_a_line_and_soon(
    here: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    began = time.perf_counter()
    with pytest.raises(UserError) as caught:
        register(model(here / "m"))
    assert time.perf_counter() - began < 10
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "MLFLOW_TRACKING_URI" in str(caught.value)


def test_a_file_that_is_no_database(here: Path) -> None:
    (here / "mlflow.db").write_text("this is no database, only a text that is long enough to be read as a header")
    with pytest.raises(UserError, match="not a database"):
        register(model(here / "m"))


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("models:/argan-meadow", "no registry reference"),
        ("models:/argan-meadow@champoin", "is not in the MLflow"),
        ("models:/argan-meadow/7", "is not in the MLflow"),
        ("models:/argan-medow@champion", "is not in the MLflow"),
    ],
)
def test_references_that_name_nothing(here: Path, reference: str, reason: str) -> None:
    register(model(here / "m"))
    with pytest.raises(UserError, match=reason):
        registry.download(reference)


def test_no_registry_is_made_by_asking_for_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(UserError, match="there is no registry"):
        registry.download("models:/argan-meadow@champion")
    assert list(tmp_path.iterdir()) == []


def test_a_half_written_model_is_not_registered(here: Path) -> None:
    folder = model(here / "m")
    (folder / "config.json").write_text('{"domain": "mea')
    with pytest.raises(UserError, match=r"config.json is damaged"):
        register(folder)
    (folder / "estimator.safetensors").unlink()
    with pytest.raises(UserError, match=r"estimator.safetensors is not there"):
        register(folder)


# ---- Two at once -----------------------------------------------------------------------------------------------------


def client(here: Path) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{here}/mlflow.db")


def test_a_version_is_compared_with_the_champion_of_the_moment_it_would_succeed(here: Path) -> None:
    """Two registrations of one domain, the second while the gate of the first looks at a champion that then is none."""
    register(model(here / "first", "first"), depth_spearman=0.5)
    met: list[str] = []
    inner: list[dict[str, Any]] = []

    def decide(champion: Path | None) -> Decision:
        assert champion is not None
        met.append((champion / "generator.safetensors").read_text())
        if not inner:
            inner.append(register(model(here / "other", "other"), depth_spearman=0.9))
        better = compare(
            [0.7] * 3, [json.loads((champion / "evaluation" / "scores.json").read_text())["depth_spearman"]] * 3
        )
        return Decision(better.verdict == "better", f"depth: {better.verdict}", {"depth_spearman": better})

    lines: list[str] = []
    folder = model(here / "m", "mine")
    receipt = registry.register(folder, METRICS, Path("plots"), here / "none", Mlflow(), decide, lines.append)
    assert inner[0]["aliases"] == ["challenger", "champion"]
    assert met == ["first", "other"] and receipt["aliases"] == ["challenger"] and receipt["reason"] == "depth: worse"
    found = client(here).get_registered_model("argan-meadow")
    assert str(found.aliases["champion"]) == inner[0]["version"] != receipt["version"]
    assert "another version became champion meanwhile" in " ".join(lines)
    assert not [tag for tag in found.tags if tag.startswith("claim-")]
    version = client(here).get_model_version("argan-meadow", receipt["version"])
    assert version.tags["gate"] == "depth: worse"


def test_many_processes_change_a_champion_one_at_a_time(here: Path) -> None:
    from argan.registry import claims

    register(model(here / "m"))
    inside: list[int] = []
    most, errors = [0], []

    def work() -> None:
        try:
            for _ in range(3):
                with claims.exclusive(client(here), "argan-meadow"):
                    inside.append(1)
                    most[0] = max(most[0], len(inside))
                    client(here).get_registered_model("argan-meadow")
                    inside.pop()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, errors) == ([1], [])


@pytest.mark.parametrize("claim", ["claim-0-lower", "claim-9-higher"])
def test_others_claims_are_waited_for_and_those_of_killed_processes_removed(
    here: Path, monkeypatch: pytest.MonkeyPatch, claim: str
) -> None:
    from argan.registry import claims

    register(model(here / "m"))
    client(here).set_registered_model_tag("argan-meadow", claim, "")
    clock = [0.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(claims.time, "sleep", lambda seconds: clock.__setitem__(0, clock[0] + 10))
    with claims.exclusive(client(here), "argan-meadow"):
        assert clock[0] > claims.STALE
    tags = client(here).get_registered_model("argan-meadow").tags
    assert not [tag for tag in tags if tag.startswith("claim-")]


# ---- Files from elsewhere --------------------------------------------------------------------------------------------


@pytest.fixture
def remote(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A registered version whose files are elsewhere for all that the registry knows; the artifact store's folder."""
    import mlflow.artifacts

    register(model(here / "m"))
    store = registry.download("models:/argan-meadow/1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    monkeypatch.setattr("argan.registry.version_files.urlsplit", lambda source: type("Parts", (), {"scheme": "s3"}))
    for name in ("download_artifacts", "list_artifacts"):
        called.pop(name, None)
        monkeypatch.setattr(mlflow.artifacts, name, counted(name, getattr(mlflow.artifacts, name)))
    return store


called: dict[str, int] = {}


def counted(name: str, function: Any) -> Any:
    def call(**named: Any) -> Any:
        called[name] = called.get(name, 0) + 1
        return function(**named)

    return call


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("pinned", [True, False])
def test_a_copy_that_is_not_complete_is_fetched_again(remote: Path, here: Path, pinned: bool) -> None:
    if not pinned:  # as versions of before
        client(here).delete_model_version_tag("argan-meadow", "1", "manifest_sha256")
        (remote / "manifest.json").unlink()
    there = content(remote)
    copy = registry.download("models:/argan-meadow/1")
    assert copy != remote and content(copy) == there
    assert registry.download("models:/argan-meadow/1") == copy and called["download_artifacts"] == 1
    assert pinned == (called["list_artifacts"] < 5), "what has a list needs no questions to the store"
    (copy / "estimator.safetensors").unlink()
    assert content(registry.download("models:/argan-meadow/1")) == there
    (copy / "generator.safetensors").write_text("weight")
    assert content(registry.download("models:/argan-meadow/1")) == there
    if pinned:
        (copy / "generator.safetensors").write_text("Weights")  # of the same length
        assert content(registry.download("models:/argan-meadow/1")) == there
        (copy / "manifest.json").write_text("{}")
        assert content(registry.download("models:/argan-meadow/1")) == there
    copy.rename(copy.with_name(f".{copy.name}.old"))  # a kill between the two renames
    before = called["download_artifacts"]
    assert content(registry.download("models:/argan-meadow/1")) == there and called["download_artifacts"] == before
    assert [path.name for path in (here / "cache" / "argan").iterdir()] == [copy.parent.name]


def test_a_download_that_comes_incomplete_is_reported_and_not_kept(remote: Path, here: Path) -> None:
    (remote / "estimator.safetensors").write_text("other")
    with pytest.raises(
        UserError, match=r"models:/argan-meadow/1 did not come complete.*estimator.safetensors is damaged"
    ):
        registry.download("models:/argan-meadow/1")
    assert list((here / "cache" / "argan").iterdir()) == []


def test_a_receipt_never_holds_the_password_of_its_registry(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow itself knows the database by a URI without one; ours holds one, and the champion's judge quotes it."""
    from argan.registry import registration

    real = f"sqlite:///{here}/mlflow.db"
    secret = "http://operator:hunter2@mlflow.example.org:5000/?token=hunter2"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", secret)
    monkeypatch.setattr(registration, "connect", lambda uri: registry.connection.connect(real))
    register(model(here / "m", "first"))

    def decide(champion: Path | None) -> Decision:
        raise UserError(f"{secret} does not answer")

    receipt = registry.register(
        model(here / "m", "second"), METRICS, Path("plots"), here / "none", Mlflow(), decide, print
    )
    assert receipt["tracking_uri"] == "http://mlflow.example.org:5000"
    assert "does not answer" in receipt["reason"] and "hunter2" not in json.dumps(receipt)
    found = client(here).get_model_version("argan-meadow", receipt["version"])
    assert "hunter2" not in json.dumps(found.tags) + found.description
