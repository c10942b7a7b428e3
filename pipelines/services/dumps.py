"""A database into a file and back, and the rows of its tables, by which a copy is checked."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from argan.errors import UserError
from pipelines.services.databases import NAMES, Databases
from pipelines.services.postgres import tool


def dump(databases: Databases, name: str, target: Path) -> dict[str, int]:
    """The database as it is at one moment, into a file; the rows of each table at that moment."""
    if databases.base is None:
        with (
            closing(sqlite3.connect(databases.file(name), timeout=60)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)
            copy.execute("pragma journal_mode = delete")
            return rows_of_file(copy, databases.file(name))
    with closing(databases.connect(name)) as database:
        database.execute("begin isolation level repeatable read read only")
        snapshot = database.execute("select pg_export_snapshot()").fetchone()[0]
        rows = rows_of_postgres(database)
        _run(databases, name, "pg_dump", "--format=custom", f"--snapshot={snapshot}", "--no-owner", f"--file={target}")
    return rows


def load_files(databases: Databases, dumps: Path, rows: Mapping[str, Mapping[str, int]]) -> None:
    """SQLite's dumps in the place of its files, checked by the rows of every table. Raises UserError."""
    for name in NAMES:
        file = databases.file(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        (dumps / f"{name}.sqlite").replace(file)
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as database:
            _check_rows(name, rows_of_file(database, file), rows[name])


def load_postgres(databases: Databases, dumps: Path, rows: Mapping[str, Mapping[str, int]]) -> None:
    """PostgreSQL's dumps into empty databases, checked by the rows of every table. Raises UserError."""
    for name in NAMES:
        source = str(dumps / f"{name}.postgresql")
        _run(databases, name, "pg_restore", "--exit-on-error", "--no-owner", f"--dbname={databases.name(name)}", source)
        with closing(databases.connect(name)) as database:
            _check_rows(name, rows_of_postgres(database), rows[name])


def rows_of_file(database: sqlite3.Connection, file: Path) -> dict[str, int]:
    """The rows of each table of a SQLite file. Raises UserError where it is damaged."""
    verdict = database.execute("pragma integrity_check").fetchone()[0]
    if verdict != "ok":
        raise UserError(f"{file} is damaged ({verdict}); bring it back from an earlier backup (make restore)")
    tables = [row[0] for row in database.execute("select name from sqlite_master where type = 'table'")]
    return {t: database.execute(f'select count(*) from "{t}"').fetchone()[0] for t in sorted(tables)}


def rows_of_postgres(database: Any) -> dict[str, int]:
    """The rows of each table of a PostgreSQL database."""
    from psycopg import sql

    tables_query = (
        "select table_name from information_schema.tables where table_schema = 'public' and table_type = 'BASE TABLE'"
    )
    tables = sorted(row[0] for row in database.execute(tables_query))
    count = sql.SQL("select count(*) from {}")
    return {t: database.execute(count.format(sql.Identifier(t))).fetchone()[0] for t in tables}


def _check_rows(name: str, rows: Mapping[str, int], expected: Mapping[str, int]) -> None:
    if rows != expected:
        differing = sorted(table for table in {*rows, *expected} if rows.get(table) != expected.get(table))
        raise UserError(
            f"the {name} database came back with other rows in {', '.join(differing)}; nothing was replaced"
        )


def _run(databases: Databases, name: str, program: str, *arguments: str) -> None:
    """A program of PostgreSQL on one of the databases; the password goes through the environment."""
    done = subprocess.run(
        [tool(program), "--no-password", *arguments],
        env={**os.environ, **databases.variables(name)},
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        lines = (
            [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["no message"]
        )
        raise UserError(f"{program} on the {name} database ({databases.description}) failed: {lines[0].strip()[:300]}")
