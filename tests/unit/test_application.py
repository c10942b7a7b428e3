"""The application of `argan serve` and its limits, request by request, without a server and without workers."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from argan.serving.application import JOBS, application
from argan.serving.http_limits import Admission

BODY = {"type": "http.request", "body": b"photo", "more_body": False}
HALF = {"type": "http.request", "body": b"pho", "more_body": True}
GONE = {"type": "http.disconnect"}
SCOPE = {"type": "http", "method": "POST", "path": "/", "headers": []}


class StubPool:
    """A worker that answers every job with its kind."""

    count, waiting, running = 1, 0, 0

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def run(self, job: dict[str, Any], seconds: float) -> dict[str, Any]:
        (Path(job["folder"]) / "answer").write_text(job["kind"])
        return {"media": "text/plain"}


def metrics(client: TestClient) -> set[str]:
    """The labels of all requests counted so far."""
    lines = client.get("/metrics").text.splitlines()
    return {line.split(" ")[0] for line in lines if line.startswith("argan_request")}


def test_metric_labels_come_from_a_short_list_whatever_is_requested() -> None:
    with TestClient(application(StubPool(), [{"domain": "meadow"}]), base_url="http://localhost") as client:  # type: ignore[arg-type]
        client.post("/v1/meadow/depth", content=b"photo")
        client.post("/v1/roses/depth")
        client.post("/v1/meadow/other")
        client.get("/elsewhere")
        client.get("/metrics")
        expected = metrics(client)
        assert 'argan_requests_total{domain="meadow",status="200",what="depth"}' in expected
        for i in range(20):
            for path in (f"/v1/domain{i}/depth", f"/v1/meadow/job{i}", f"/v1/meadow/depth/{i}", f"/page{i}"):
                assert client.post(path, content=b"photo").status_code == 404
        assert metrics(client) == expected


@pytest.mark.parametrize("job", JOBS)
def test_an_answer_is_that_of_the_job(job: str) -> None:
    client = TestClient(application(StubPool(), [{"domain": "meadow"}]), base_url="http://localhost")  # type: ignore[arg-type]
    body: dict[str, Any] = {"json": {"count": 2}} if job == "sample" else {"content": b"photo"}
    assert client.post(f"/v1/meadow/{job}", **body).text == job


@pytest.mark.parametrize("messages", [[BODY, GONE], [HALF, GONE], [GONE]], ids=["waiting", "sending", "before"])
def test_a_client_that_leaves_gives_back_its_slot(messages: list[dict[str, Any]]) -> None:
    cancelled = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        try:
            await asyncio.Event().wait()  # work that never ends by itself
        except asyncio.CancelledError:
            cancelled.append(scope)
            raise

    async def refuse(message: Any) -> None:
        raise AssertionError(message)

    async def run() -> None:
        admission = Admission(app, slots=1, expensive=lambda scope: True)
        for _ in range(3):
            pending = iter(messages)

            async def receive(pending: Any = pending) -> Any:
                return next(pending, GONE)

            async with asyncio.timeout(10):
                await admission(SCOPE, receive, refuse)
        assert admission.used == 0
        assert len(cancelled) == 3

    asyncio.run(run())


def test_a_fault_of_the_application_gives_back_its_slot() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        raise RuntimeError("a fault")

    async def run() -> None:
        admission = Admission(app, slots=1, expensive=lambda scope: True)
        for _ in range(2):
            messages: asyncio.Queue[Any] = asyncio.Queue()
            messages.put_nowait(BODY)
            with pytest.raises(RuntimeError):
                await admission(SCOPE, messages.get, None)  # type: ignore[arg-type]
        assert admission.used == 0

    asyncio.run(run())


def test_more_requests_than_slots_are_refused_before_their_bodies() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.Event().wait()

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await asyncio.Event().wait()

    async def run() -> None:
        admission = Admission(app, slots=1, expensive=lambda scope: True)
        first = asyncio.create_task(admission(SCOPE, receive, send))
        await asyncio.sleep(0)
        await admission(SCOPE, lambda: asyncio.sleep(0, GONE), send)
        assert sent[0]["status"] == 503
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert admission.used == 0

    asyncio.run(run())
