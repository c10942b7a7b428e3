"""The databases behind the two servers: SQLite files, or `prefect` and `mlflow` in the PostgreSQL that ARGAN_DATABASE_URL names."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from argan.errors import UserError
from argan.redact import redacted

if TYPE_CHECKING:
    from sqlalchemy import URL

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
    def description(self) -> str:
        """Fit for a log: no user, no password."""
        return "SQLite files" if self.base is None else f"PostgreSQL at {self._base().host}:{self._base().port or 5432}"

    @property
    def identity(self) -> str:
        """What must be the same from one start to the next."""
        return "sqlite" if self.base is None else redacted(self._base().render_as_string())

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
        variables: dict[str, Any] = {
            "PGHOST": url.host,
            "PGPORT": url.port,
            "PGUSER": url.username,
            "PGPASSWORD": url.password,
            "PGDATABASE": url.database,
        }
        variables |= {"PGSSLMODE": url.query.get("sslmode")}
        return {k: str(v) for k, v in variables.items() if v is not None}

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
            raise UserError(f"{self.description} cannot be used ({reason(error)}); {_way_out(str(error))}") from error

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
        """A statement that creates or drops databases. Raises UserError."""
        from psycopg import Error, errors, sql

        with closing(self.connect(None)) as server:
            try:
                server.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))
            except errors.ObjectInUse as error:
                raise UserError(
                    f"{self.description}: {reason(error)}; end what uses it, servers on other machines for one; nothing was changed"
                ) from error
            except Error as error:
                command = statement.partition(";")[0].format(*names)
                raise UserError(
                    f"{self.description}: {command} failed ({reason(error)}); give its user the right, or do it by hand"
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
        query = "select version_num from alembic_version"
        if self.base is None:
            if not self.file(name).exists():
                return None
            try:
                with closing(sqlite3.connect(f"{self.file(name).as_uri()}?mode=ro", uri=True, timeout=10)) as database:
                    row = database.execute(query).fetchone()
            except sqlite3.OperationalError as error:
                if "no such table" in str(error):
                    return None
                raise UserError(f"{self.file(name)} cannot be read ({error}); fix its permissions") from error
            except sqlite3.DatabaseError as error:
                raise UserError(
                    f"{self.file(name)} is damaged or no database ({error}); bring it back from a backup (make restore)"
                ) from error
            return str(row[0]) if row else None
        import psycopg

        with closing(self.connect(name)) as database:
            try:
                row = database.execute(query).fetchone()
            except psycopg.errors.UndefinedTable:
                return None
            return str(row[0]) if row else None


def reason(error: Exception) -> str:
    """PostgreSQL's own words, in one line; they name user and host, never the password."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    fatal = [line.partition("FATAL:")[2].strip() for line in lines if "FATAL:" in line]
    return (fatal or lines or [type(error).__name__])[0][:200]


def _way_out(message: str) -> str:
    if "password authentication" in message or "no password supplied" in message:
        return "fix user or password in ARGAN_DATABASE_URL"
    if "does not exist" in message:
        return "create it, or fix ARGAN_DATABASE_URL"
    if "too many clients" in message or "remaining connection slots" in message:
        return "raise its max_connections"
    return "start it, or fix host and port in ARGAN_DATABASE_URL"
