"""One process at a time changes a model's champion: a lock made of tags, for all that the processes share is the registry."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow import MlflowClient

CLAIMS = "claim-"  # begins the tags by which processes wait for each other
# Seconds after which a claim is that of a process that was killed; what is done under one takes less than 1
STALE = 60.0
POLL = 0.1  # seconds between two looks at others' claims


@contextmanager
def exclusive(client: MlflowClient, name: str) -> Iterator[None]:
    """One process at a time changes a model's champion, wherever the processes are: all they share is the registry, which has no
    compare and set. Lamport's one-bit algorithm (The mutual exclusion problem II, 1986): each claims by a tag of its own, gives way
    to lower ones, and waits for higher ones.

    A claim that stays the same for STALE seconds was left by a kill and is removed. So what is inside must be shorter: a process
    that was suspended for longer and wakes up in it is the one case in which two may be there.
    """
    own = f"{CLAIMS}{time.time_ns():020d}-{secrets.token_hex(4)}"
    first_seen: dict[str, float] = {}

    def others(lower: bool) -> list[str]:
        now, tags = time.monotonic(), client.get_registered_model(name).tags
        claims = [tag for tag in tags if tag.startswith(CLAIMS) and tag != own and (tag < own) == lower]
        for tag in claims:
            if now - first_seen.setdefault(tag, now) > STALE:
                _release(client, name, tag)
        return claims

    try:
        while True:
            client.set_registered_model_tag(name, own, "a version is being made champion")
            if not others(lower=True):
                break
            _release(client, name, own)
            while others(lower=True):
                time.sleep(POLL)
        while others(lower=False):
            time.sleep(POLL)
        yield
    finally:
        _release(client, name, own)


def _release(client: MlflowClient, name: str, tag: str) -> None:
    from mlflow.exceptions import MlflowException

    with suppress(MlflowException):  # it is gone already
        client.delete_registered_model_tag(name, tag)
