"""Two processes over gloo train what one does; and what becomes of a job that loses one of them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from worker import train

import pipelines.train
from argan.config.schema import training
from argan.errors import UserError
from argan.training import device, distributed
from argan.training.device import configure_device, select_device

WORKER = str(Path(__file__).parents[1] / "worker.py")


def start(folder: Path, changes: list[dict[str, object]], by: str, **environment: str) -> subprocess.Popen[str]:
    """Small trainings in `folder` by two processes, which `by` starts: "torchrun" or "launch"."""
    folder.mkdir(exist_ok=True)
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if by == "torchrun" else []
    return subprocess.Popen(
        [sys.executable, *run, WORKER, str(folder), json.dumps(changes), *(["launch", "2"] if by == "launch" else [])],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=300)
    return output


def until(condition: Callable[[], object], process: subprocess.Popen[str]) -> None:
    while not condition():
        assert process.poll() is None, ended(process)
        time.sleep(0.05)


SHORT = {"images": 48}
LEARNED = SHORT | {"sign": "photographs", "sign_images": 32}


@pytest.mark.pipeline
def test_two_processes_and_parts_of_a_batch_give_the_weights_of_one(tmp_path: Path) -> None:
    process = start(tmp_path / "two", [SHORT, SHORT | {"accumulate": 2}, LEARNED], "torchrun")
    torch.set_default_dtype(torch.float64)
    try:
        train(tmp_path / "one", SHORT, distributed.Processes())
        train(tmp_path / "learned", LEARNED, distributed.Processes())
    finally:
        torch.set_default_dtype(torch.float32)
    output = ended(process)
    assert process.returncode == 0, output
    assert "from 1" not in output, "the first process alone watches"
    assert output.count("row at") == 2 * 3 + 1  # rows of trials are not watched here
    for run, alone in (("0", "one"), ("1", "one"), ("2", "learned")):
        one = load_file(tmp_path / alone / "result.safetensors")
        two = load_file(tmp_path / "two" / run / "result.safetensors")
        for key, value in two.items():
            torch.testing.assert_close(value, one[key], rtol=1e-6, atol=1e-7, equal_nan=True, msg=f"{run}: {key}")


@pytest.mark.pipeline
def test_a_killed_process_ends_the_job_and_the_next_run_resumes_until_a_signal(tmp_path: Path) -> None:
    endless: list[dict[str, object]] = [{"images": 1_000_000}]
    process = start(tmp_path, endless, "launch")
    until(lambda: list((tmp_path / "0" / "checkpoints").glob("[0-9]*.safetensors")), process)
    os.kill(int((tmp_path / "pid1").read_text()), signal.SIGKILL)
    output = ended(process)
    assert process.returncode == 2
    lines = [line for line in output.splitlines() if not line.startswith("row at")]
    assert lines, output
    for line in lines:  # by the process that is left, by whoever started both, or by both
        assert re.match(
            r"error: (a process of this|process 1 of 2 was killed by SIGKILL).*the same command again", line
        )

    again = start(tmp_path, endless, "launch")
    assert again.stdout is not None
    lines = []
    while not lines or not lines[-1].startswith("row at"):
        lines.append(again.stdout.readline())
        assert lines[-1], "".join(lines)
    assert any(line.startswith("resuming at") for line in lines)
    again.send_signal(signal.SIGTERM)
    output = ended(again)
    assert again.returncode == 143, output
    assert re.search(r"interrupted, saved at \d+ images; run the same command again", output)
    assert "error" not in output and "Traceback" not in output


@pytest.mark.pipeline
def test_machines_that_differ_are_refused_in_one_line(tmp_path: Path) -> None:
    process = start(tmp_path, [{}], "launch", ODD="x")
    output = ended(process)
    assert process.returncode == 2
    assert re.search(r"process 1 has other params, code or photos than process 0", output)
    assert output.count("error: ") == 1 and "Traceback" not in output, output


def test_a_batch_is_cut_into_equal_parts_that_cover_it() -> None:
    slices = [s for rank in range(3) for s in distributed.Processes(rank, 3).slices(12, 2)]
    assert [list(range(12))[s] for s in slices] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]
    with pytest.raises(
        UserError, match=r"train\.batch 12 cannot be shared evenly by 3 processes x train\.accumulate 5"
    ):
        distributed.Processes(0, 3).slices(12, 5)


def test_a_gpu_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"train\.device is cuda.*set train\.device to auto or cpu"):
        select_device("cuda")
    assert select_device("auto").type == "cpu"
    assert distributed.process_count(torch.device("cpu"), 8, 1, print) == 1


def test_as_many_gpus_as_share_a_batch_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    messages: list[str] = []
    assert distributed.process_count(torch.device("cuda", 0), 32, 1, messages.append) == 2
    assert "2 of 3 GPUs" in messages[0]


MAKES_A_CONTEXT = (
    "_lazy_init", "init", "set_device", "current_device", "mem_get_info", "memory_reserved", "memory_allocated",
    "get_device_properties", "get_device_capability", "get_device_name", "is_bf16_supported", "synchronize", "empty_cache",
)  # fmt: skip


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two GPUs that can be counted, and nothing else."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in MAKES_A_CONTEXT:
        monkeypatch.setattr(torch.cuda, name, lambda *_, name=name, **__: pytest.fail(f"torch.cuda.{name} was called"))


@pytest.mark.usefixtures("two_gpus")
def test_who_launches_the_processes_takes_nothing_of_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(distributed, "launch", lambda *given: started.append(given) or 0)
    params = SimpleNamespace(training=lambda domain: training("quick", {"device": "cuda"}))
    pipelines.train.train("meadow", params)  # type: ignore[arg-type]
    assert started == [(2, ["-m", "pipelines.train", "meadow"])]


@pytest.mark.usefixtures("two_gpus")
def test_more_processes_than_gpus_are_refused_by_one_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    for rank in range(2):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        assert select_device("auto") == torch.device("cuda", rank)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(device, "REPORT_SECONDS", 0.0)
    refused = {}
    for rank in range(4):
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        with pytest.raises((UserError, SystemExit)) as ended:
            select_device("cuda")
        refused[rank] = ended.value
    assert re.search(r"4 processes.*2 GPUs.*--nproc-per-node 2", str(refused[0]))
    assert [type(error) for error in refused.values()] == [UserError, SystemExit, SystemExit, SystemExit]
    assert {error.code for error in refused.values() if isinstance(error, SystemExit)} == {2}
    assert select_device("cpu").type == "cpu"


@pytest.mark.parametrize(("precision", "tf32"), [("auto", True), ("bfloat16", True), ("float32", False)])
def test_how_a_gpu_computes_is_chosen_and_said(monkeypatch: pytest.MonkeyPatch, precision: str, tf32: bool) -> None:
    taken: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)
    for place, name in ((torch.backends.cudnn, "allow_tf32"), (torch.backends.cudnn, "benchmark")):
        monkeypatch.setattr(place, name, getattr(place, name))  # put back afterwards
    before, config = torch.get_float32_matmul_precision(), training("quick", {"precision": precision})
    try:
        assert configure_device(config, torch.device("cpu")) == "" and not taken
        torch.set_float32_matmul_precision("high")
        description = configure_device(config, torch.device("cuda", 1))
        assert taken == [torch.device("cuda", 1)]
        assert torch.get_float32_matmul_precision() == "highest"
        assert torch.backends.cudnn.benchmark and torch.backends.cudnn.allow_tf32 is tf32
        kind = {"auto": "TF32", "bfloat16": "bfloat16", "float32": "float32"}[precision]
        assert (
            description.startswith(f"convolutions in {kind}")
            and "cudnn.benchmark" in description
            and "\n" not in description
        )
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_gpu_that_cannot_be_used_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(device: torch.device) -> None:
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy\nmore")

    monkeypatch.setattr(torch.cuda, "set_device", broken)
    with pytest.raises(UserError, match=r"cuda:1 cannot be used \(CUDA error.*busy more\).*train\.device to cpu"):
        configure_device(training("quick"), torch.device("cuda", 1))
