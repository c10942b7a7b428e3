"""How long the questions to a large registry take: python -m benchmarks.many_models [DOMAINS VERSIONS]

The registry is made, not trained: 50 domains with 100 versions each by default, whose cards and tags are those of real ones, in
a SQLite file, asked as such and through a real server. Every command is timed whole, from the start of the process to its end.
"""

from __future__ import annotations

import os
import random
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from argan.config.schema import training

TIMES = 5


def version(domain: str, number: int, chance: random.Random) -> tuple[dict[str, str], str]:
    """Tags and card of a version that nobody trained."""
    from argan.registry import pages
    from argan.registry.card import VersionCard

    depth, kid = chance.uniform(0.4, 0.8), chance.uniform(0.05, 0.5)
    scores = {
        "depth_spearman": depth,
        "depth_spearman_low": depth - 0.02,
        "depth_spearman_high": depth + 0.02,
        "degenerate": [],
    }
    scores |= {
        "depth_spearman_prior": 0.4,
        "kid": kid,
        "kid_se": kid / 50,
        "fid": 900 * kid,
        "features": "efficientnet-lite0@128",
    }
    config = {
        "domain": domain,
        "training": training("quick").model_dump(),
        "data": f"{number:016x}",
        "photos": {"count": 10000, "train": 8000},
        "summary": {"images_seen": 66000, "train_seconds": 600.0},
    }
    made = VersionCard(
        name=f"argan-{domain}", number=str(number), run_id=f"{chance.getrandbits(128):032x}", experiment_id="1", config=config,
        data={"title": domain, "Licence": "Made by this program: free to use."}, scores=scores, lineage={"git_revision": "0" * 12},
        pictures={"scenes": "plots/0/scenes.png", "depth": "plots/0/depth.png"}, reason="depth_spearman: cannot tell",
    )  # fmt: skip
    return made.tags() | {"model_hash": f"{chance.getrandbits(64):016x}"}, pages.version_page(made)


def fill(uri: str, domains: int, versions: int) -> list[str]:
    """Make the registry in a database, through MLflow's own tables; the domains' names. The champion is a version in the middle."""
    from mlflow import MlflowClient
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersion, SqlModelVersionTag, SqlRegisteredModel
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import insert

    from argan.registry import champions

    client, store = MlflowClient(uri, registry_uri=uri), SqlAlchemyStore(uri)
    chance, now = random.Random(0), int(time.time() * 1000)
    names = [f"many-{i:02}" for i in range(domains)]
    for domain in names:
        of = {"workspace": "default", "name": f"argan-{domain}"}
        rows, tags = [], []
        for number in range(1, versions + 1):
            told, text = version(domain, number, chance)
            files = f"mlflow-artifacts:/1/{domain}/{number}"
            rows.append(of | {
                "version": number, "creation_time": now, "last_updated_time": now, "description": text, "current_stage": "None",
                "source": files, "storage_location": files, "run_id": f"{chance.getrandbits(128):032x}", "status": "READY",
            })  # fmt: skip
            tags += [of | {"version": number, "key": key, "value": value} for key, value in told.items()]
        with store.ManagedSessionMaker(read_only=False) as session:
            session.execute(insert(SqlRegisteredModel), [of | {"creation_time": now, "last_updated_time": now}])
            session.execute(insert(SqlModelVersion), rows)
            session.execute(insert(SqlModelVersionTag), tags)
        client.set_registered_model_alias(of["name"], "challenger", str(versions))
        champions.set_champion(client, of["name"], str(versions // 2), "gate")
    return names


def timed(command: list[str], uri: str) -> tuple[float, float]:
    """Wall clock and processor seconds of a command, medians."""
    walls, works = [], []
    for _ in range(TIMES):
        before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, env={**os.environ, "MLFLOW_TRACKING_URI": uri}, check=True, stdout=subprocess.DEVNULL)
        walls.append(time.perf_counter() - began)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        works.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(walls), statistics.median(works)


def asked(question: Callable[[], object]) -> tuple[float, float]:
    """The same of a question in this process."""
    walls, works = [], []
    for _ in range(TIMES):
        began, worked = time.perf_counter(), time.process_time()
        question()
        walls.append(time.perf_counter() - began)
        works.append(time.process_time() - worked)
    return statistics.median(walls), statistics.median(works)


@contextmanager
def server(uri: str, folder: Path) -> Iterator[str]:
    """MLflow's server over a database, on a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--port", port, "--workers", "1"]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--artifacts-destination", str(folder / "artifacts")], env=environment, stdout=log, stderr=log
        )
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(240):
            try:
                urllib.request.urlopen(f"{address}/health", timeout=2).close()
                break
            except OSError:
                if process.poll() is not None:
                    raise SystemExit((folder / "server.log").read_text()[-2000:]) from None
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait()


def main(domains: int = 50, versions: int = 100) -> None:
    with tempfile.TemporaryDirectory(prefix="argan-") as place:
        folder = Path(place)
        uri = f"sqlite:///{folder}/mlflow.db"
        began = time.perf_counter()
        names = fill(uri, domains, versions)
        size = (folder / "mlflow.db").stat().st_size / 1e6
        print(
            f"{domains} domains, {domains * versions} versions: {size:.0f} MB, made in {time.perf_counter() - began:.0f} s\n"
        )
        print("| | asked | wall, s | processor, s |\n|---|---|---|---|")
        row("python -c pass", "-", timed([sys.executable, "-c", "pass"], uri))
        row("python -c 'import mlflow'", "-", timed([sys.executable, "-c", "import mlflow"], uri))
        with server(uri, folder) as address:
            for where, at in (("SQLite file", uri), ("server", address)):
                for words in (["list"], ["list", names[-1]], ["show", names[-1]], ["show", names[-1], str(versions)]):
                    row(
                        f"argan models {' '.join(words)}",
                        where,
                        timed([sys.executable, "-m", "argan", "models", *words], at),
                    )
                row("the gate's look-up", where, asked(lambda at=at: gate(at, names[-1])))  # type: ignore[misc]


def gate(uri: str, domain: str) -> None:
    """What registration asks of the registry before it can judge: is the model there already, and who is champion."""
    from mlflow import MlflowClient

    from argan.registry import champions

    client, name = MlflowClient(uri, registry_uri=uri), f"argan-{domain}"
    client.search_model_versions(f"name = '{name}' and tags.model_hash = '{0:016x}'")
    assert champions.ensure_champion(client, name, print) is not None


def row(what: str, where: str, seconds: tuple[float, float]) -> None:
    print(f"| `{what}` | {where} | {seconds[0]:.2f} | {seconds[1]:.2f} |", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
