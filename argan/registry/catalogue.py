"""The registry, read without MLflow, whose import takes longer than all the rest."""

from __future__ import annotations

from argan.errors import UserError
from argan.registry.catalogue_rest import RestCatalogue
from argan.registry.catalogue_sql import SqlCatalogue
from argan.registry.connection import check_reachable, sqlite_file
from argan.registry.entities import Catalogue


def open_catalogue(uri: str) -> Catalogue:
    """Of the registry at `uri`. Raises UserError when it cannot be reached or is of no kind that we read."""
    file = sqlite_file(uri)
    if file is not None and not file.exists():
        raise UserError(f"there is no registry at {file.absolute()}; run `dvc repro` first, or set MLFLOW_TRACKING_URI")
    if uri.startswith("databricks"):
        raise UserError("argan models reads a registry of one's own: a database, or a server's http address")
    check_reachable(uri)
    return RestCatalogue(uri) if uri.startswith("http") else SqlCatalogue(uri)
