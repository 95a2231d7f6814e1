"""The engine under the fleet: SQLite tuned for two processes, PostgreSQL by a URL; its failures as our own errors.

SQLite: WAL (readers never wait for the writer), BEGIN IMMEDIATE for writers (two writers take turns instead of
failing half way), a busy timeout, synchronous=NORMAL (a power cut may lose the last moments, never the file).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import SQLAlchemyError as AnySqlError

from pxeserver.config import Config
from pxeserver.errors import PxeServerError, UsageError
from pxeserver.fleet import migrations

BUSY_MS = 5000  # how long a writer waits for its turn
_ADVISORY_KEY = 0x70786573  # any fixed number: PostgreSQL's writers take turns by it, as SQLite's do by the file lock


class DatabaseError(PxeServerError):
    """The database cannot be read or written now; nothing of the transaction happened."""

    http_status = 503


class Database:
    """`read()` and `write()` transactions on one migrated database."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._writers = engine.execution_options(pxe_write=True)
        self._turn = threading.Lock()  # threads of one process queue here, not in SQLite's busy loop

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent snapshot."""
        with _as_our_errors(), self.engine.begin() as conn:
            yield conn

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """All of the block or nothing; writers take turns, over processes too."""
        with self._turn, _as_our_errors(), self._writers.begin() as conn:
            yield conn

    def migrate(self) -> int:
        with self._turn, _as_our_errors():
            return migrations.migrate(self._writers)

    def close(self) -> None:
        self.engine.dispose()


def open_database(config: Config) -> Database:
    """The configured database, migrated to this program's version."""
    url = config.database.url
    if url:
        try:
            name = make_url(url).get_backend_name()
        except ArgumentError:
            name = ""
        if name not in ("sqlite", "postgresql"):
            raise UsageError(
                "database-url",
                f'database.url "{_without_password(url)}" is neither SQLite nor PostgreSQL',
                hint="postgresql+psycopg://USER:PASSWORD@HOST/NAME, or leave it empty for SQLite in the data folder",
            )
    else:
        url = f"sqlite:///{_sqlite_file(config.data / 'fleet.db')}"
    try:
        engine = create_engine(url, pool_pre_ping=not url.startswith("sqlite"))
    except (ImportError, ArgumentError) as error:
        raise UsageError(
            "database-driver", f"no driver for this database: {error}", hint="pip install 'pxeserver[postgresql]'"
        ) from None
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _on_connect)
    event.listen(engine, "begin", _on_begin)
    database = Database(engine)
    try:
        database.migrate()
    except BaseException:
        database.close()
        raise
    return database


def _sqlite_file(path: Path) -> Path:
    """The file, made readable by its owner alone before SQLite writes the token key into it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
    except OSError as error:
        raise DatabaseError(
            "database-open", f"cannot open {path}: {error.strerror}", hint="see server.data, or run as its owner"
        ) from None
    return path


def _on_connect(raw: Any, _record: object) -> None:
    raw.isolation_level = None  # the driver's own BEGIN rules are off: _on_begin says it
    for pragma in (f"busy_timeout={BUSY_MS}", "journal_mode=WAL", "foreign_keys=ON", "synchronous=NORMAL"):
        raw.execute(f"PRAGMA {pragma}").close()


def _on_begin(conn: Connection) -> None:
    """Writers wait for their turn before they read anything, migrations too."""
    write = conn.get_execution_options().get("pxe_write", False)
    if conn.dialect.name == "sqlite":
        conn.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
    elif write:
        conn.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_ADVISORY_KEY})")


@contextmanager
def _as_our_errors() -> Iterator[None]:
    try:
        yield
    except DBAPIError as error:
        raise _named(error.orig or error) from error
    except AnySqlError as error:
        raise DatabaseError("database-error", f"the database failed: {error}") from error
    except sqlite3.Error as error:
        raise _named(error) from error


def _named(error: BaseException) -> DatabaseError:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    low = text.lower()
    if "locked" in low or "busy" in low:
        return DatabaseError(
            "database-locked", "another program holds the database", hint="try again; see: fuser -v fleet.db"
        )
    if "full" in low or "disk i/o" in low:
        return DatabaseError("database-full", f"the database cannot grow: {text}", hint="free space in server.data")
    if "readonly" in low or "read-only" in low or "unable to open" in low:
        return DatabaseError("database-open", f"cannot use the database: {text}", hint="run as its owner")
    return DatabaseError("database-error", f"the database failed: {text}")


def _without_password(url: str) -> str:
    head, at, tail = url.rpartition("@")
    return f"{head.partition('://')[0]}://...@{tail}" if at else url
