"""DVC's remote and MLflow's artifacts on a real S3 server."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import pytest
from conftest import Workspace
from servers import Bucket, Servers

pytestmark = pytest.mark.pipeline


def tree(folder: Path) -> dict[str, str]:
    found = sorted(p for p in folder.rglob("*") if p.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


OUTS = ("data/raw/meadow", "data/photos/meadow", "data/truth/meadow", "models/meadow", "reports/meadow")


@pytest.fixture
def shared(finished: Workspace, bucket: Bucket, tmp_path: Path) -> Workspace:
    """A finished workspace whose DVC remote is the bucket."""
    workspace = finished.copy(tmp_path / "copy")
    workspace.run("dvc", "remote", "add", "--default", "storage", f"s3://{bucket.name}/dvc")
    workspace.run("dvc", "remote", "modify", "storage", "endpointurl", bucket.endpoint)
    workspace.run("git", "commit", "-qam", "remote")
    return workspace


def test_push_clone_pull_is_the_same_to_the_byte(shared: Workspace, bucket: Bucket, tmp_path: Path) -> None:
    assert "pushed to s3://argan/dvc" in shared.run("python", "-m", "pipelines.storage", "push", **bucket.environment)
    clone = Workspace(tmp_path / "clone", shared.home, shared.connections)
    shared.run("git", "clone", "-q", str(shared.folder), str(clone.folder))
    assert "pulled from s3://argan/dvc" in clone.run("python", "-m", "pipelines.storage", "pull", **bucket.environment)
    for out in OUTS:
        assert tree(clone.folder / out) == tree(shared.folder / out) != {}
    assert "up to date" in clone.run("dvc", "repro")


def test_what_is_wrong_with_a_bucket_is_one_line_and_soon(shared: Workspace, bucket: Bucket) -> None:
    right = bucket.environment
    wrong = [
        (right | {"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, "s3://argan/dvc", "AWS_SECRET_ACCESS_KEY is wrong"),
        (right | {"AWS_ACCESS_KEY_ID": "nobody"}, "s3://argan/dvc", "AWS_ACCESS_KEY_ID is not known there"),
        (right, "s3://nothing/dvc", "the bucket nothing is not there; create it"),
        ({}, "s3://argan/dvc", "no credentials; set AWS_ACCESS_KEY_ID"),
    ]
    for environment, url, message in wrong:
        shared.run("dvc", "remote", "modify", "storage", "url", url)
        for command in ("push", "pull", "check"):
            began = time.monotonic()
            output = shared.run("python", "-m", "pipelines.storage", command, code=2, **environment)
            assert time.monotonic() - began < 300  # a client that tries again and again takes longer
            assert output.startswith(f"error: {url} at {bucket.endpoint}: ")
            assert message in output and output.count("\n") == 1
            assert "secret" not in output.replace("AWS_SECRET_ACCESS_KEY", "")
    shared.run("dvc", "remote", "modify", "storage", "endpointurl", "http://127.0.0.1:9")
    message = shared.run("python", "-m", "pipelines.storage", "push", code=2, **right)
    assert "cannot be reached" in message and message.count("\n") == 1


def test_services_refuse_a_bucket_they_cannot_use(bucket: Bucket, tmp_path: Path) -> None:
    servers = Servers(tmp_path / "services", tmp_path, tmp_path / "connections.txt", changed=bucket.environment)
    message = servers.start("--artifacts", "s3://nothing/mlflow", code=2)
    assert "the bucket nothing is not there" in message and message.count("\n") == 1
    message = servers.start("--artifacts", "s3://argan/mlflow", code=2, AWS_SECRET_ACCESS_KEY="wrong-secret")
    assert "AWS_SECRET_ACCESS_KEY is wrong" in message and message.count("\n") == 1


def test_a_model_registered_in_the_bucket_is_loaded_from_there(
    finished: Workspace, bucket: Bucket, team: Servers, tmp_path: Path
) -> None:
    workspace = finished.copy(tmp_path / "copy")
    # Whoever registers or loads speaks to MLflow alone, and knows no key of the bucket
    message = workspace.run("python", "-m", "pipelines.register", "meadow", **team.client)
    version = json.loads((workspace.folder / "registry/meadow.json").read_text())["version"]
    assert f"argan-meadow version {version}: ch" in message
    names = [o["Key"] for o in bucket.client().list_objects_v2(Bucket=bucket.name, Prefix="mlflow/")["Contents"]]
    assert any(name.endswith("/generator.safetensors") for name in names)
    reference = f"models:/argan-meadow/{version}"
    code = (
        f"import argan, hashlib; m = argan.load('{reference}');"
        "print(hashlib.sha256(m.sample(4, seed=1).images.tobytes()).hexdigest())"
    )
    loaded = workspace.run("python", "-c", code, **team.client).split()[-1]
    assert loaded == workspace.run("python", "-c", code.replace(reference, "meadow")).split()[-1]
