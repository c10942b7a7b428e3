"""Two processes over gloo train what one does; and what becomes of a job that loses one of them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from argan import processes
from argan.errors import UserError

WORKER = str(Path(__file__).with_name("worker.py"))
ENDLESS = {"images": 1_000_000}


def start(folder: Path, changes: dict[str, object], *how: str, **environment: str) -> subprocess.Popen[str]:
    """A small training in `folder`, `how`: "torchrun" or "launch" and a number of processes, or nothing for one."""
    folder.mkdir(exist_ok=True)
    run = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", how[1]] if "torchrun" in how else []
    return subprocess.Popen(
        [sys.executable, *run, WORKER, str(folder), json.dumps(changes), *(how if "launch" in how else ())],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"} | environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def ended(process: subprocess.Popen[str]) -> str:
    told, _ = process.communicate(timeout=300)
    return told


def result(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "result.safetensors")


def until(condition: object, process: subprocess.Popen[str]) -> None:
    while not condition():  # type: ignore[operator]
        assert process.poll() is None, ended(process)
        time.sleep(0.05)


def test_two_processes_and_parts_of_a_batch_give_the_weights_of_one(tmp_path: Path) -> None:
    runs = {
        "one": start(tmp_path / "one", {}),
        "two": start(tmp_path / "two", {}, "torchrun", "2"),
        "parts": start(tmp_path / "parts", {"accumulate": 2}, "launch", "2"),
    }
    told = {name: ended(process) for name, process in runs.items()}
    assert [process.returncode for process in runs.values()] == [0, 0, 0], told
    one = result(tmp_path / "one")
    for name in ("two", "parts"):
        assert "from 1" not in told[name], "the first process alone watches"
        assert told[name].count("row at") == 6
        for key, value in result(tmp_path / name).items():
            torch.testing.assert_close(value, one[key], rtol=1e-6, atol=1e-7, equal_nan=True, msg=f"{name}: {key}")


def test_a_killed_process_ends_the_job_and_the_next_run_resumes(tmp_path: Path) -> None:
    process = start(tmp_path, ENDLESS, "launch", "2")
    until(lambda: list((tmp_path / "checkpoints").glob("[0-9]*.safetensors")), process)
    os.kill(int((tmp_path / "pid1").read_text()), signal.SIGKILL)
    told = ended(process)
    assert process.returncode == 2
    assert told.count("error: ") == 1 and "Traceback" not in told, told
    assert re.search(r"error: a process of this training was lost.*run the same command again", told)

    # By torchrun, as one process, or as two: whoever goes on, goes on from there
    again = start(tmp_path, ENDLESS, "torchrun", "2")
    assert again.stdout is not None
    lines: list[str] = []
    while not lines or not lines[-1].startswith("row at"):
        lines.append(again.stdout.readline())
        assert lines[-1], "".join(lines)
    assert any(line.startswith("resuming at") for line in lines)
    os.killpg(again.pid, signal.SIGTERM)
    assert re.search(r"interrupted, saved at \d+ images", ended(again))
    assert again.returncode != 0


def test_a_signal_ends_all_of_them_after_the_same_step(tmp_path: Path) -> None:
    process = start(tmp_path, ENDLESS, "launch", "2")
    until(lambda: list((tmp_path / "checkpoints").glob("[0-9]*.safetensors")), process)
    process.send_signal(signal.SIGTERM)
    told = ended(process)
    assert process.returncode == 143, told
    assert re.search(r"interrupted, saved at \d+ images; run the same command again", told)
    assert "error" not in told and "Traceback" not in told


@pytest.mark.parametrize(
    ("changes", "environment", "words"),
    [
        ({"batch": 9}, {}, r"train\.batch 9 cannot be shared evenly by 2 processes x train\.accumulate 1"),
        ({}, {"ODD": "x"}, r"process 1 has other params, code or photos than process 0"),
    ],
)
def test_what_cannot_be_trained_together_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, object], environment: dict[str, str], words: str
) -> None:
    process = start(tmp_path, changes, "launch", "2", **environment)
    told = ended(process)
    assert process.returncode == 2
    assert re.search(words, told) and told.count("error: ") == 1 and "Traceback" not in told, told


def test_a_batch_is_cut_into_equal_parts_that_cover_it() -> None:
    slices = [s for rank in range(3) for s in processes.Processes(rank, 3).slices(12, 2)]
    assert [list(range(12))[s] for s in slices] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9], [10, 11]]
    with pytest.raises(UserError, match=r"train\.accumulate 5"):
        processes.Processes(0, 3).slices(12, 5)


def test_a_gpu_that_is_not_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"train\.device is cuda.*set train\.device to auto or cpu"):
        processes.device("cuda")
    assert processes.device("auto").type == "cpu"
    assert processes.wanted(torch.device("cpu"), 8, 1, print) == 1


def test_as_many_gpus_as_share_a_batch_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    said: list[str] = []
    assert processes.wanted(torch.device("cuda", 0), 32, 1, said.append) == 2
    assert "2 of 3 GPUs" in said[0]
