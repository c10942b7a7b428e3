"""Whether a database is migrated to the installed packages, and how it gets there.

It is read from its `alembic_version` and the migrations that the installed packages bring, without importing either package.
Nothing migrates a database that holds something unless it is asked to.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from argan.errors import UserError
from pipelines.services.databases import NAMES, Databases

# `mlflow db upgrade URL` would show the URL's password to every user of the machine
UPGRADE_MLFLOW = "import os, mlflow.store.db.utils as u; u._upgrade_db(u.create_sqlalchemy_engine(os.environ['URL']))"
UPGRADE = {"prefect": ["-m", "prefect", "server", "database", "upgrade", "--yes"], "mlflow": ["-c", UPGRADE_MLFLOW]}


def check(databases: Databases) -> None:
    """Raises UserError for a database that the installed packages cannot work with as it is."""
    revisions = {name: databases.revision(name) for name in NAMES}
    check_known(databases, revisions)
    for name, revision in revisions.items():
        if revision not in (None, head := _head(name, databases.base is not None)):
            raise UserError(
                f"the {name} database ({databases.description}) is not migrated to the installed {installed(name)} (it is at "
                f"{revision}, wanted is {head}); back up, then run: python -m pipelines.services migrate"
            )


def check_known(databases: Databases, revisions: Mapping[str, str | None]) -> None:
    """Raises UserError for a migration that the installed packages do not have."""
    for name, revision in revisions.items():
        if revision is not None and revision not in known_revisions(name, databases.base is not None):
            raise UserError(
                f"the {name} database is at migration {revision}, which the installed {installed(name)} does not know: another "
                f"version made it; install that one, or restore a backup of before"
            )


def migrate(databases: Databases, environment: dict[str, str]) -> None:
    """Bring both databases to the installed packages' migrations. Raises UserError with the tool's last message."""
    databases.create()
    for name in NAMES:
        if databases.revision(name) == _head(name, databases.base is not None):
            continue
        done = subprocess.run(
            [sys.executable, *UPGRADE[name]],
            env=environment | {"URL": databases.connection("mlflow")},
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            raise UserError(f"the {name} database cannot be migrated: {lines[-1].strip() if lines else 'no message'}")


def installed(name: str) -> str:
    """A package and its version."""
    return f"{name} {version(name)}"


def known_revisions(name: str, postgres: bool) -> dict[str, str]:
    """Migration -> the one before it, of the installed package. Raises UserError."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the package {name} is not installed: run `make setup`")
    top = Path(next(iter(spec.submodule_search_locations)))
    folder = {
        "prefect": f"server/database/_migrations/versions/{'postgresql' if postgres else 'sqlite'}",
        "mlflow": "store/db_migrations/versions",
    }[name]
    revisions = {}
    for file in (top / folder).glob("*.py"):
        text = file.read_text(encoding="utf-8")
        if match := re.search(r"^revision(?:: *\w+)? *= *[\"'](\w+)[\"']", text, re.M):
            down = re.search(r"^down_revision(?:: *[^=]+)? *= *(.+)$", text, re.M)
            revisions[match[1]] = down[1] if down else ""
    return revisions


def _head(name: str, postgres: bool) -> str:
    """The newest migration of the installed package. Raises UserError."""
    revisions = known_revisions(name, postgres)
    earlier = " ".join(revisions.values())
    heads = [revision for revision in revisions if revision not in earlier]
    if len(heads) != 1:
        raise UserError(
            f"the installed packages name {len(heads)} newest migrations; run `make setup` for the tested set"
        )
    return heads[0]
