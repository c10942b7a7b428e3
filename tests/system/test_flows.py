"""The flows on a real Prefect server, worker and MLflow: schedules, kills, restarts, two at once, photos that arrive."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest
import yaml
from conftest import ROOT, Workspace
from PIL import Image
from servers import Bucket, Servers, serving

from argan.meadow import photographs

pytestmark = pytest.mark.pipeline
LEASE = {"ARGAN_GPU_LEASE": "60"}  # seconds; the shortest there is
NOTICE = 45  # seconds without a sign of life, which comes every 30
PATIENCE = 600.0  # nothing is decided by time: only what hangs ends here
ENDED = ("COMPLETED", "FAILED", "CANCELLED")  # what crashed is resumed


class Stack:
    """Servers, a worker, and a workspace in which everything is deployed."""

    def __init__(self, servers: Servers, workspace: Workspace) -> None:
        self.servers, self.workspace = servers, workspace

    def run(self, *command: str, code: int = 0, **changed: str) -> str:
        return self.workspace.run(*command, code=code, **self.servers.client, **LEASE, **changed)

    def ask(self, method: str, path: str, content: object = None) -> Any:
        """Prefect's answer; a server that is busy or restarts is asked again."""
        began = time.monotonic()
        while True:
            try:
                answer = self.servers.api(method, path, content).raise_for_status()
                return answer.json() if answer.content else None
            except httpx.HTTPError:
                if time.monotonic() - began > PATIENCE or "prefect" in self.servers.ended():
                    raise
                time.sleep(1)

    def restart(self) -> None:
        """Start what was killed; on a machine that is at its limit the first try may give up."""
        for _ in range(3):
            with suppress(AssertionError):
                self.servers.start()
                return
        self.servers.start()

    def start(self, deployment: str, **parameters: Any) -> str:
        found = self.ask("GET", f"/deployments/name/{deployment}")
        asked = {"parameters": parameters, "enforce_parameter_schema": False, "idempotency_key": str(uuid4())}
        return str(self.ask("POST", f"/deployments/{found['id']}/create_flow_run", asked)["id"])

    def state(self, run: str) -> dict[str, Any]:
        return dict(self.ask("GET", f"/flow_runs/{run}")["state"])

    def logs(self, run: str) -> str:
        query = {"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        lines: list[str] = []
        while page := self.ask("POST", "/logs/filter", query | {"offset": len(lines)}):
            lines += [line["message"] for line in page]
        return "\n".join(lines)

    def paused_training(self, run: str, words: str) -> psutil.Process:
        """The training process of `run`, stopped after its second checkpoint, once the run's log has `words`.

        However fast the machine is, it cannot end before the test goes on.
        """
        began, checkpoints = time.time(), self.workspace.folder / "checkpoints" / "meadow"
        self.until(lambda: sum(modified(file) > began for file in checkpoints.rglob("[0-9]*.safetensors")) > 1, run)
        training = next(
            process
            for process in psutil.process_iter(["cwd", "cmdline"])
            if process.info["cwd"] == str(self.workspace.folder)
            and "pipelines.train" in (process.info["cmdline"] or [])
            and process.info["cmdline"][0] != "/bin/sh"
        )
        training.suspend()
        self.until(lambda: words in self.logs(run), run)
        return training

    def until(self, what: Callable[[], Any], run: str | None = None) -> Any:
        """The first answer of `what` that is true; fails at once when a server or the worker is no more."""
        began = time.monotonic()
        while not (got := what()):
            if ended := self.servers.ended():
                pytest.fail(f"{', '.join(ended)} ended by itself\n{self.servers.logs()}")
            if time.monotonic() - began > PATIENCE:
                pytest.fail(f"{self.state(run) if run else ''}\n{self.logs(run) if run else ''}\n{self.servers.logs()}")
            time.sleep(0.25)
        return got

    def ends(self, run: str) -> dict[str, Any]:
        return dict(self.until(lambda: (s := self.state(run))["type"] in ENDED and s, run))

    def versions(self, name: str) -> int:
        file = self.servers.home / "mlflow" / "mlflow.db"
        with sqlite3.connect(next(iter(self.servers.home.rglob("mlflow*.db")), file)) as database:
            return int(database.execute("select count(*) from model_versions where name = ?", (name,)).fetchone()[0])


def drop(folder: Path, start: int, stop: int) -> None:
    pixels, _ = photographs(stop - start, 96, 11, start=start, depth=False)
    folder.mkdir(parents=True, exist_ok=True)
    for i, photo in enumerate(pixels, start):
        Image.fromarray(photo).save(folder / f"{i}.jpg", quality=92)


def modified(file: Path) -> float:
    """When a file was written; 0 when it was removed meanwhile."""
    try:
        return file.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def interrupt_pending(pid: int) -> bool:
    """Whether a stopped process has been sent SIGINT."""
    status = (Path("/proc") / str(pid) / "status").read_text()
    masks = re.findall(r"^(?:Sig|Shd)Pnd:\s*(\w+)", status, re.M)
    return any(int(mask, 16) >> (signal.SIGINT - 1) & 1 for mask in masks)


@pytest.fixture(scope="module")
def deployed(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    base = tmp_path_factory.mktemp("flows")
    workspace = finished.copy(base / "argan")
    drop(base / "first", 0, 60)
    workspace.run("python", "-m", "argan", "collection", "add", "mine", str(base / "first"))
    workspace.params(lambda p: (p["mine"].update(preset="quick"), p.update(domains=["meadow", "mine"])))
    file = workspace.folder / "prefect.yaml"
    deployments = yaml.safe_load(file.read_text())
    garden = next(d for d in deployments["deployments"] if d["name"] == "garden")
    garden["parameters"] = {"collection": "mine", "source": str(base / "dropped"), "enough": 100}
    garden["schedules"] = [{"cron": "* * * * *", "timezone": "UTC", "slug": "hourly"}]
    (base / "dropped").mkdir()
    file.write_text(yaml.safe_dump(deployments))
    with serving(base, **LEASE) as servers:
        made = Stack(servers, workspace)
        output = made.run("python", "-m", "pipelines.deploy", "--notice", str(NOTICE))
        assert "4 deployments; " in output and "; 0 runs" not in output  # with some packages nothing is ever scheduled
        yield made


@pytest.fixture
def stack(deployed: Stack) -> Stack:
    """The servers, all of them running: a test that failed may have left some killed."""
    if deployed.servers.ended():
        deployed.restart()
    return deployed


def test_from_photos_dropped_in_a_folder_to_a_registered_version_with_nobody_there(stack: Stack) -> None:
    dropped, arriving = (stack.workspace.folder.parent / name for name in ("dropped", "arriving"))
    began = time.monotonic()
    drop(arriving, 60, 130)
    (arriving / "broken.jpg").write_bytes((arriving / "60.jpg").read_bytes()[:500])
    arriving.rename(dropped)  # all at once, whenever the schedule fires
    stack.until(lambda: stack.versions("argan-mine") == 1)
    took = time.monotonic() - began
    print(f"from drop to version: {took:.0f} s, up to 60 of them for the schedule")

    def found() -> list[Any]:
        ask = {"flow_runs": {"name": {"any_": ["ingest-mine"]}}, "sort": "START_TIME_DESC"}
        runs = stack.ask("POST", "/flow_runs/filter", ask)
        return [r for r in runs if "version 1" in (r["state"]["message"] or "") and r["state_type"] == "COMPLETED"]

    run = stack.until(found)[0]
    assert run["created_by"]["type"] == "SCHEDULE" and run["auto_scheduled"]
    assert "mine: 70 new photos, 1 refused; 130 not learned from yet" in run["state"]["message"]
    garden = stack.ask("GET", "/deployments/name/ingest/garden")
    stack.ask("PATCH", f"/deployments/{garden['id']}", {"paused": True})
    params = yaml.safe_load((stack.workspace.folder / "params.yaml").read_text())
    assert params["mine"]["revision"] in (stack.workspace.folder / "dvc.lock").read_text()
    assert "up to date" in stack.run("dvc", "repro", "register@mine")
    made = stack.ask("POST", "/artifacts/filter", {})
    kinds = {artifact["key"]: artifact for artifact in made if artifact["key"]}
    assert {"arrived-mine", "retrained-mine", "scores-mine", "grid-mine", "scenes-mine"} <= set(kinds)
    assert "| broken.jpg | " in kinds["arrived-mine"]["data"]
    for name in ("grid-mine", "scenes-mine"):  # a browser gets the pictures
        picture = httpx.get(kinds[name]["data"], auth=stack.servers.auth, trust_env=False)
        assert picture.headers["content-type"] == "image/png", f"{kinds[name]['data']}: {picture.text}"
    # Where it comes from, both ways: from the flow run to the version and its run, from the version to the flow run
    assert kinds["retrained-mine"]["data"].count("?workflowType=machine_learning") == 2
    output = stack.run("python", "-m", "argan", "models", "show", "mine")
    flow = re.search(r"Prefect flow run +(\S+)", output)
    assert flow, output
    assert stack.ask("GET", f"/flow_runs/{flow[1]}")["state_type"] == "COMPLETED"
    assert re.search(r"photos in DVC +\S+", output), output

    # The same photos again, under other names: nothing is doubled, nothing retrained, and that is said
    for photo in list(dropped.glob("6*.jpg")):
        photo.rename(photo.with_name(f"again-{photo.name}"))
    ended = stack.ends(stack.start("ingest/garden", collection="mine", source=str(dropped), enough=1))
    assert ended["name"] == "Unchanged"
    assert "mine: 0 new photos" in ended["message"]
    assert stack.versions("argan-mine") == 1


def test_a_training_with_a_bad_day_loses_nothing_and_is_one_version(stack: Stack) -> None:
    """Cancelled, its worker killed with all it had started, the Prefect server restarted; with wrong runs in between."""
    stack.workspace.params(lambda p: p["train"].update(seed=1, images=960))
    before = stack.versions("argan-meadow")

    run = stack.start("retrain/meadow", domain="meadow")
    training = stack.paused_training(run, "left, loss")
    cancelling = {"state": {"type": "CANCELLING", "name": "Cancelling"}, "force": True}
    stack.ask("POST", f"/flow_runs/{run}/set_state", cancelling)
    stack.until(lambda: interrupt_pending(training.pid), run)
    training.resume()
    assert stack.ends(run)["name"] == "Cancelled"
    stack.until(lambda: "run the same command again to resume" in stack.logs(run), run)

    run = stack.start("retrain/meadow", domain="meadow")
    stack.paused_training(run, "resuming at")
    stack.servers.kill("worker")  # and every process below it, training too: nobody can tell anybody
    assert stack.state(run)["type"] == "RUNNING"
    stack.restart()

    wrong = [
        (stack.start("retrain/meadow", domain="medow"), "unknown domain 'medow' (did you mean 'meadow'?)"),
        (stack.start("retrain-all/all", domains=["meadow", "moon"]), "unknown domain 'moon'"),
        (stack.start("ingest/garden", collection="mine", source="/not/there"), "/not/there is not there"),
        (stack.start("ingest/garden", collection="train", source="/tmp"), "'train' is taken by another section"),
    ]
    for other, output in wrong:
        if other != wrong[0][0]:  # of that deployment one run at a time: it waits for the training
            ended = stack.ends(other)
            assert ended["type"] == "FAILED"
            assert output in ended["message"] and "\n" not in ended["message"]

    stack.until(lambda: stack.logs(run).count("resuming at") == 2, run)
    assert "resumed after a crash" in json.dumps(stack.ask("GET", f"/flow_run_states/?flow_run_id={run}"))
    stack.servers.kill("prefect")
    stack.restart()
    assert stack.ends(run)["type"] == "COMPLETED"
    ended = stack.ends(wrong[0][0])
    assert ended["type"] == "FAILED" and wrong[0][1] in ended["message"]
    assert stack.versions("argan-meadow") == before + 1
    assert (
        json.loads((stack.workspace.folder / "models/meadow/config.json").read_text())["summary"]["images_seen"] == 960
    )


def test_two_at_once_and_the_same_twice_are_one_version(stack: Stack) -> None:
    stack.workspace.params(lambda p: p["train"].update(seed=2, images=96))
    before = stack.versions("argan-meadow")
    runs = [stack.start("retrain-all/all", domains=["meadow"]), stack.start("retrain-all/all", domains=["meadow"])]
    assert {stack.ends(run)["message"] for run in runs} == {"all 1 are up to date: meadow"}
    ask = {"flow_runs": {"parent_flow_run_id": {"any_": runs}}}
    ends = [run["state"]["message"] for run in stack.ask("POST", "/flow_runs/filter", ask)]
    assert len(ends) == 2 and ends.count("meadow: nothing to do, all is up to date") == 1
    assert stack.versions("argan-meadow") == before + 1


def test_nothing_to_do_is_said_and_soon(stack: Stack) -> None:
    run = stack.start("retrain/meadow", domain="meadow")
    ended = stack.ends(run)
    took = stack.ask("GET", f"/flow_runs/{run}")["total_run_time"]
    print(f"nothing to do: {took:.1f} s")
    assert ended["name"] == "Unchanged"
    assert ended["message"] == "meadow: nothing to do, all is up to date"
    assert "nothing to do" in stack.run("python", "-m", "argan", "retrain", "meadow")


def test_many_domains_on_a_dask_cluster(stack: Stack) -> None:
    script = """
from distributed import LocalCluster
from pipelines.flows.retrain_all import retrain_all
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        state = retrain_all(dask=cluster.scheduler_address, return_state=True)
    print(state.message)
"""
    (stack.workspace.folder / "many.py").write_text(script)
    stack.workspace.params(lambda p: p["evaluate"].update(seed=1))  # both are evaluated and registered side by side
    output = stack.run("python", "many.py", PYTHONPATH=f"{stack.workspace.environment['PYTHONPATH']}:.")
    assert "all 2 are up to date: meadow, mine" in output
    assert "Traceback" not in output
    assert "up to date" in stack.run("dvc", "repro")
    ended = stack.ends(stack.start("retrain-all/all", dask="tcp://127.0.0.1:9"))
    assert ended["type"] == "FAILED" and ended["message"].startswith("no Dask scheduler answers at tcp://127.0.0.1:9")


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_the_pools_of_the_manual_are_whole(stack: Stack, kind: str) -> None:
    template = json.loads((ROOT / f"docs/pools/{kind}.json").read_text())
    placed = set(re.findall(r"{{ (\w+) }}", json.dumps(template["job_configuration"])))
    assert placed == set(template["variables"]["properties"])
    pool = {"name": f"argan-{kind}", "type": kind, "base_job_template": template}
    assert stack.ask("POST", "/work_pools/", pool)["type"] == kind


def test_reevaluation_judges_the_champion_and_tags_it(stack: Stack) -> None:
    ended = stack.ends(stack.start("reevaluate/champions", domains=["meadow"]))
    assert ended["message"] == "champions judged: meadow"
    output = json.loads((stack.workspace.folder / ".argan/reevaluated/meadow.json").read_text())
    assert output["scores"]["depth_spearman"].keys() == {"registered", "now"}
    if output["same_photos"]:
        assert output["scores"]["depth_spearman"]["now"] == pytest.approx(
            output["scores"]["depth_spearman"]["registered"], abs=1e-4
        )


def test_a_limit_that_does_not_exist_is_an_error(stack: Stack) -> None:
    limit = stack.ask("GET", "/v2/concurrency_limits/gpu")
    stack.ask("DELETE", "/v2/concurrency_limits/gpu")
    try:
        stack.workspace.params(lambda p: p["train"].update(seed=3))
        output = stack.run("python", "-m", "argan", "retrain", "meadow", code=2)
        assert "error: there is no concurrency limit 'gpu'" in output
        assert "there is no concurrency limit 'gpu'" in stack.run("python", "-m", "pipelines.deploy", code=2)
    finally:
        stack.ask("POST", "/v2/concurrency_limits/", {"name": "gpu", "limit": limit["limit"]})
        stack.workspace.params(lambda p: p["train"].update(seed=2))


def test_photos_in_a_bucket_come_once_and_what_is_wrong_is_one_line(
    stack: Stack, bucket: Bucket, tmp_path: Path
) -> None:
    drop(tmp_path / "photos", 200, 206)
    client = bucket.client()
    for file in sorted((tmp_path / "photos").iterdir()):
        client.upload_file(str(file), bucket.name, f"camera/{file.name}")
    client.put_object(Bucket=bucket.name, Key="camera/notes.txt", Body=b"no photo")
    source = f"s3://{bucket.name}/camera"
    ingest = ("python", "-m", "argan", "ingest", "mine", source, "--enough", "1000")
    output = stack.run(*ingest, **bucket.environment)
    assert "mine: 6 new photos, 0 refused; 6 not learned from yet, 1000 are enough" in output
    output = stack.run(*ingest, **bucket.environment)
    assert "6 photographs in s3://argan/camera, 0 of them not looked at before" in output
    assert "mine: 0 new photos" in output

    wrong = [
        ({"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, source, "AWS_SECRET_ACCESS_KEY is wrong"),
        ({}, "s3://nothing/camera", "the bucket nothing is not there"),
    ]
    for changed, where, line in wrong:
        output = stack.run(*ingest[:5], where, code=2, **bucket.environment | changed)
        assert f"error: {where} at {bucket.endpoint}: {line}" in output
        assert "Traceback" not in output and "wrong-secret" not in output


@pytest.mark.parametrize("cron", ["0 2 * * *", "30 2 * * *"])
def test_a_night_in_which_the_clock_changes_has_one_run(cron: str) -> None:
    from prefect.server.schemas.schedules import CronSchedule

    schedule = CronSchedule(cron=cron, timezone="Europe/Berlin")
    for changes in (datetime(2027, 3, 28, tzinfo=UTC), datetime(2027, 10, 31, tzinfo=UTC)):
        dates = asyncio.run(schedule.get_dates(7, start=changes - timedelta(days=3, hours=2)))
        days = [date.strftime("%d.%m.") for date in dates]
        assert len(set(days)) == 7  # each day once ...
        gaps = [(b - a) for a, b in pairwise(dates)]
        assert timedelta(hours=22) <= min(gaps) and max(gaps) <= timedelta(hours=26)  # ... and none left out


def test_an_orphaned_driver_lets_its_training_save(finished: Workspace, tmp_path: Path) -> None:
    """Whoever drives DVC is killed: what it started is interrupted, saves, and only then is the domain free."""
    workspace = finished.copy(tmp_path / "copy")
    workspace.params(lambda p: p["train"].update(seed=5, images=100_000))
    script = """
from pipelines.driver import Driver
with Driver("meadow", print) as dvc:
    dvc(["repro", "--single-item", "train@meadow"], lambda line: print(line, flush=True))
"""
    process = workspace.start("python", "-c", script)
    assert process.stdout is not None
    for line in process.stdout:
        if "left, loss" in line:
            break
    process.kill()
    process.wait()
    script = "from pipelines.driver import Driver\nwith Driver('meadow', print): print('free')"
    assert workspace.run("python", "-c", script).endswith("free\n")  # waits until all that was started has ended
    folder = next(
        p for p in (workspace.folder / "checkpoints/meadow").iterdir() if p.is_dir() and (p / "run.json").exists()
    )
    saved = sorted(int(p.stem) for p in folder.glob("*.safetensors") if p.stem.isdigit())
    assert saved and saved[-1] > 0
    left = [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(workspace.folder)]
    assert psutil.wait_procs(left, timeout=60)[1] == []
