"""Where a model comes from, as tags: the Git commit, the flow run of Prefect, what DVC calls its inputs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

from argan.registry.connection import redacted_uri

BREAKS_MARKDOWN = frozenset("|()[]`<>\"' \n")


def revision() -> str:
    """The Git commit of this folder, `+` when code or params are changed since; empty without Git."""
    try:
        commit = _git("rev-parse", "--short=12", "HEAD")
        dirty = _git("status", "--porcelain", "-uno", "--", "*.py", "params.yaml")
    except (OSError, subprocess.SubprocessError):
        return ""
    return commit + ("+" if dirty else "")


def prefect_tags() -> dict[str, str]:
    """Which flow run of Prefect this process works for, as tags; the flows say so in the environment."""
    tags = {"prefect_flow_run": os.environ.get("ARGAN_PREFECT_RUN"), "prefect_url": os.environ.get("ARGAN_PREFECT_URL")}
    return {key: redacted_uri(value) for key, value in tags.items() if value}


def printable(lineage: Mapping[str, str]) -> dict[str, str]:
    """Lineage as it may be shown: addresses without secrets, and nothing that would break a Markdown cell."""
    values = {key: redacted_uri(value) if "://" in value else value for key, value in lineage.items() if value}
    return {key: value for key, value in values.items() if not set(value) & BREAKS_MARKDOWN}


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.strip()
