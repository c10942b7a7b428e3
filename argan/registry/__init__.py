"""Runs and registered models. The only package that knows MLflow.

A training run (runs.py) holds what was logged while training ran; a version (registration.py) of the registered model
`argan-<domain>` points at plain files (safetensors, JSON, Markdown, pictures) among that run's artifacts. Nothing is pickled and
no MLflow flavour is used. `challenger` is the newest version; `champion` moves only when the gate (gate.py) says that the new
one is better.

MLflow takes seconds to import, so it is imported where it is first needed.
"""

from __future__ import annotations

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# A server that is away is said to be within seconds; MLflow's own defaults retry for many minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from argan.registry.catalogue import open_catalogue
from argan.registry.connection import redacted_uri, tracking_uri
from argan.registry.curation import delete, promote, rollback
from argan.registry.lineage import revision
from argan.registry.registration import is_registered, model_hash, register, tag
from argan.registry.runs import TrainingRun, deliver, open_run, start_run
from argan.registry.version_files import download

__all__ = [
    "TrainingRun",
    "delete",
    "deliver",
    "download",
    "is_registered",
    "model_hash",
    "open_catalogue",
    "open_run",
    "promote",
    "redacted_uri",
    "register",
    "revision",
    "rollback",
    "start_run",
    "tag",
    "tracking_uri",
]
