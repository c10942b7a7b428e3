"""After a signal work has a while to end in, and a save has as long as it takes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from argan import interrupt
from argan.errors import UserError

# A volume on which a checkpoint takes far longer than the grace: fsync goes on until a line comes in.
SLOW = """
import os, signal, sys, time
import torch
from pathlib import Path
from argan.training import checkpoint
from argan import interrupt
fsync = os.fsync
def slow(handle):
    print("writing", flush=True)
    sys.stdin.readline()
    fsync(handle)
with interrupt.{how} as heard:
    if "{how}" == "deferred_signals()":
        signal.raise_signal(signal.SIGTERM)
    os.fsync = slow
    checkpoint.save(Path(sys.argv[1]), 8, {{"x": torch.zeros(3)}}, {{}}, 1)
    os.fsync = fsync
    print("saved", flush=True)
    time.sleep(3600)
"""


@pytest.mark.parametrize("how", ["deferred_signals()", "time_limit(143)"])
def test_a_save_is_never_cut_off_and_what_hangs_after_it_is(tmp_path: Path, how: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW.format(how=how), str(tmp_path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"ARGAN_GRACE_SECONDS": "0.2"},
    )  # fmt: skip
    try:
        assert process.stdout and process.stdin and process.stdout.readline() == "writing\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(2)  # ten times the grace
        process.stdin.write("\n\n")  # for the file and its folder
        process.stdin.flush()
        assert process.stdout.read() == "writing\nsaved\n" and process.wait() == 143
    finally:
        process.kill()
        process.communicate()
    assert [path.name for path in tmp_path.iterdir()] == ["000000000008.safetensors"]


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_a_grace_that_is_none_is_reported(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARGAN_GRACE_SECONDS", text)
    with (
        pytest.raises(UserError, match=f"ARGAN_GRACE_SECONDS is '{text}'; write a number of seconds"),
        interrupt.deferred_signals(),
    ):
        pass
    monkeypatch.setenv("ARGAN_GRACE_SECONDS", "")
    assert interrupt.grace_seconds() == interrupt.GRACE
