"""How much `argan serve` does, and what it holds: python -m benchmarks.serve_load MODEL PHOTO"""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import psutil

REQUESTS = 100


def everything(server: psutil.Process) -> list[psutil.Process]:
    """The server and its workers; what they share is counted once (PSS, of Linux alone)."""
    return [server, *server.children(recursive=True)]


def main(model: str, photo: str) -> None:
    command = [sys.executable, "-m", "argan", "serve", model, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().split(" at ")[1].split(";")[0]
    content, server = Path(photo).read_bytes(), psutil.Process(process.pid)
    limits = httpx.Limits(max_connections=64)
    with httpx.Client(base_url=address, timeout=120, trust_env=False, limits=limits) as client:
        domain = client.get("/v1/models").json()[0]["domain"]

        def once(what: str) -> float:
            start = time.perf_counter()
            sent = {"json": {"count": 1}} if what == "sample" else {"content": content}
            client.post(f"/v1/{domain}/{what}", **sent).raise_for_status()
            return time.perf_counter() - start

        print("| | at once | a second | median | 95 % | held |\n|---|---|---|---|---|---|")
        for what in ("sample", "depth", "bokeh"):
            for at_once in (1, 4, 16):
                with ThreadPoolExecutor(at_once) as pool:
                    list(pool.map(once, [what] * at_once))
                    start = time.perf_counter()
                    took = list(pool.map(once, [what] * REQUESTS))
                    rate = REQUESTS / (time.perf_counter() - start)
                held = sum(process.memory_full_info().pss for process in everything(server)) / 2**20
                half, most = (1000 * np.quantile(took, q) for q in (0.5, 0.95))
                print(
                    f"| {what} | {at_once} | {rate:.1f} | {half:.0f} ms | {most:.0f} ms | {held:.0f} MiB |", flush=True
                )
    process.terminate()
    process.wait(60)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
