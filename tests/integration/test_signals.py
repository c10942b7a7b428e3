"""Signals end a process in time, whatever it does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.pipeline
def test_a_step_that_takes_too_long_is_left_in_the_middle(tmp_path: Path) -> None:
    """Handlers wait until torch is back; a spot instance's notice does not."""
    script = """
import torch
from argan import interrupt
from pipelines.stage import run_command, say
def work():
    with interrupt.deferred_signals(lambda: say("left")):
        say("begins")
        for _ in range(10**9):
            torch.linalg.svd(torch.rand(3000, 3000))
run_command(work)
"""
    for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
        process = subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"ARGAN_GRACE_SECONDS": "0.5"},
        )
        assert process.stdout is not None and process.stdout.readline() == "begins\n"
        process.send_signal(number)
        assert process.communicate(timeout=60)[0] == "left\n" and process.returncode == code


@pytest.mark.pipeline
def test_what_is_left_to_do_after_a_signal_ends_in_time() -> None:
    script = """
import signal, time
from pipelines import stage
def work():
    try:
        signal.raise_signal(signal.{})
    except KeyboardInterrupt as error:
        with stage.grace_period(error):
            pass  # in time
        with stage.grace_period(error):
            print("saved", flush=True)
            time.sleep(3600)
stage.run_command(work)
"""
    for name, code in (("SIGTERM", 143), ("SIGINT", 130)):
        environment = os.environ | {"ARGAN_GRACE_SECONDS": "0.5"}
        process = subprocess.run(
            [sys.executable, "-c", script.format(name)], capture_output=True, text=True, env=environment
        )
        assert (process.stdout, process.stderr, process.returncode) == ("saved\n", "", code)
