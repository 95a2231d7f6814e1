"""The database: versions, two processes at once, locked, full, foreign, readable by its owner alone."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from fleetlab import MAC, MAC2, NOW, Clock, build, make_config, make_fleet, stage
from sqlalchemy import inspect

from pxeserver.checked import replace
from pxeserver.config import Config, Database
from pxeserver.errors import PxeServerError, Refused, UsageError
from pxeserver.fleet import database as database_module
from pxeserver.fleet import migrations
from pxeserver.fleet.database import DatabaseError, open_database
from pxeserver.fleet.fleet import Fleet, open_fleet
from pxeserver.fleet.tables import Base
from pxeserver.fleet.values import MachineEdit
from pxeserver.model import Stage


def test_the_migrated_tables_are_the_declared_ones(tmp_path: Path) -> None:
    database = open_database(make_config(tmp_path))
    found = inspect(database.engine)
    assert set(found.get_table_names()) == set(Base.metadata.tables)
    for name, table in Base.metadata.tables.items():
        columns = {c["name"]: c for c in found.get_columns(name)}
        assert set(columns) == {c.name for c in table.columns}
        for column in table.columns:
            shape = (columns[column.name]["nullable"], columns[column.name]["type"].compile(database.engine.dialect))
            nullable = column.nullable or (column.primary_key and columns[column.name]["nullable"])
            assert shape == (nullable, column.type.compile(database.engine.dialect)), (name, column.name)
        declared = {(k.parent.name, k.target_fullname) for k in table.foreign_keys}
        real = {
            (k["constrained_columns"][0], f"{k['referred_table']}.{k['referred_columns'][0]}")
            for k in found.get_foreign_keys(name)
        }
        assert declared == real
    database.close()


def test_migration_keeps_what_is_there_and_runs_once(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    fleet = open_fleet(config, Clock())
    fleet.add_machine(MachineEdit("web-1", (MAC,)))
    secret = fleet.secret()
    later = (*migrations.STEPS, ("ALTER TABLE machine ADD COLUMN room TEXT NOT NULL DEFAULT 'r1'",))
    writers = fleet.database.engine.execution_options(pxe_write=True)
    assert migrations.migrate(writers, later) == len(migrations.STEPS)
    assert migrations.migrate(writers, later) == len(later)
    with fleet.database.read() as conn:
        assert conn.exec_driver_sql("SELECT name, room FROM machine").all() == [("web-1", "r1")]
    fleet.close()
    with pytest.raises(Refused) as caught:
        open_fleet(config)
    assert caught.value.slug == "database-newer"
    assert len(secret) == 32


def test_every_version_can_be_reached_from_the_first(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    raw = sqlite3.connect(tmp_path / "fleet.db")
    words = migrations._TYPES["sqlite"]
    for statement in migrations.STEPS[0]:
        raw.execute(statement.format(**words))
    raw.execute("INSERT INTO meta (key, number) VALUES ('schema', 1)")
    values = "(1, 'web-1', 1, '{}', '{}', '[]', '', '', '', '', NULL, '{}', '', 1.0, 2.0, '')"
    raw.execute(f"INSERT INTO machine VALUES {values}")
    raw.execute(f"INSERT INTO mac VALUES ('{MAC}', 1, 0)")
    raw.commit()
    raw.close()
    fleet = open_fleet(config)
    assert fleet.find("web-1").macs == (MAC,)
    fleet.close()


def test_a_step_that_fails_leaves_the_version_before(tmp_path: Path) -> None:
    database = open_database(make_config(tmp_path))
    broken = (*migrations.STEPS, ("CREATE TABLE extra (id INTEGER)", "CREATE TABLE machine (id INTEGER)"))
    writers = database.engine.execution_options(pxe_write=True)
    with pytest.raises(Exception, match="machine already exists"):
        migrations.migrate(writers, broken)
    assert "extra" not in inspect(database.engine).get_table_names()
    with database.read() as conn:
        assert migrations.version(conn) == len(migrations.STEPS)
    database.close()


def test_sqlite_is_set_up_for_two_processes(tmp_path: Path) -> None:
    database = open_database(make_config(tmp_path))
    with database.read() as conn:
        found = {
            p: conn.exec_driver_sql(f"PRAGMA {p}").scalar() for p in ("journal_mode", "synchronous", "foreign_keys")
        }
    assert found == {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1}
    database.close()


def test_the_key_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        fleet = make_fleet(tmp_path)
        fleet.secret()
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.glob("fleet.db*")}
    finally:
        os.umask(old)
    assert modes and set(modes.values()) == {0o600}
    fleet.close()


def _work(data: str, first: int, count: int, secrets: multiprocessing.SimpleQueue[bytes]) -> None:
    fleet = open_fleet(make_config(Path(data)), Clock())
    secrets.put(fleet.secret())
    for n in range(first, first + count):
        mac = f"52:54:00:00:01:{n:02x}"
        fleet.record([stage(Stage.OFFER, n, mac, f"{n:016x}")])
        fleet.set_machine(mac, MachineEdit(name=f"m{n}"))
    fleet.close()


def test_two_processes_write_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    """Both open, migrate and make the key at the same moment too."""
    make_config(tmp_path)
    context = multiprocessing.get_context("spawn")
    secrets: multiprocessing.SimpleQueue[bytes] = context.SimpleQueue()
    workers = [context.Process(target=_work, args=(str(tmp_path), n * 40, 40, secrets)) for n in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert secrets.get() == secrets.get()
    fleet = make_fleet(tmp_path)
    assert [m.name for m in fleet.machines()] == sorted(f"m{n}" for n in range(80))
    assert len(fleet.events(limit=1000)) == 80
    assert fleet.generation() > 160
    fleet.close()


def test_a_killed_writer_leaves_a_whole_database(tmp_path: Path) -> None:
    make_fleet(tmp_path).close()
    code = (
        "import sys, os; sys.path.insert(0, sys.argv[2])\n"
        "from fleetlab import *\n"
        "fleet = make_fleet(Path(sys.argv[1]))\n"
        "with fleet.database.write() as conn:\n"
        "    conn.exec_driver_sql(\"INSERT INTO event VALUES (1, 1.0, 'x', '', '', '', '', 0, 0.0, '', '{}')\")\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    tests = str(Path(__file__).parent.parent)
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path), tests]).returncode == -9
    fleet = make_fleet(tmp_path)
    fleet.record([stage(Stage.OFFER)])
    assert len(fleet.events()) == 1
    fleet.close()


def test_a_locked_database_is_an_error_with_a_name_and_readers_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY_MS", 50)
    fleet = make_fleet(tmp_path)
    other = sqlite3.connect(tmp_path / "fleet.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(DatabaseError) as caught:
        fleet.record([stage(Stage.OFFER)])
    assert caught.value.slug == "database-locked"
    assert fleet.machines() == () and fleet.view().machines == {}
    other.execute("ROLLBACK")
    other.close()
    fleet.record([stage(Stage.OFFER)])
    assert len(fleet.machines()) == 1
    fleet.close()


def test_a_full_disk_is_an_error_with_a_name_and_nothing_half_written(tmp_path: Path) -> None:
    fleet = make_fleet(tmp_path)
    with fleet.database.read() as conn:
        pages = conn.exec_driver_sql("PRAGMA page_count").scalar()
        conn.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    big = [stage(Stage.OFFER, n, text="x" * 4000) for n in range(9)]
    with pytest.raises(DatabaseError) as caught:
        fleet.record(big)
    assert caught.value.slug == "database-full" and caught.value.http_status == 503
    assert fleet.events() == () and fleet.machines() == ()
    with fleet.database.read() as conn:
        conn.exec_driver_sql("PRAGMA max_page_count=1000000")
    fleet.record(big)
    assert len(fleet.events()) == 9
    fleet.close()


def test_a_data_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")
    with pytest.raises(DatabaseError) as caught:
        open_fleet(replace(Config(), server=replace(make_config(tmp_path).server, data=str(tmp_path / "data"))))
    assert caught.value.slug == "database-open"


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    config = make_config(tmp_path)
    (tmp_path / "fleet.db").write_text("this is not a database, it is far too much text" * 100)
    with pytest.raises(DatabaseError) as caught:
        open_fleet(config)
    assert caught.value.slug == "database-error"


@pytest.mark.parametrize(
    ("url", "slug", "not_shown"),
    [
        ("mysql://u:geheim@h/x", "database-url", "geheim"),
        ("nonsense", "database-url", "!"),
        ("postgresql+nodriver://u:geheim@h/x", "database-driver", "geheim"),
    ],
)
def test_urls_that_cannot_be(tmp_path: Path, url: str, slug: str, not_shown: str) -> None:
    config = replace(make_config(tmp_path), database=Database(url=url))
    with pytest.raises(UsageError) as caught:
        open_fleet(config)
    assert caught.value.slug == slug
    assert not_shown not in caught.value.render()


def test_another_sqlite_file_by_url(tmp_path: Path) -> None:
    config = replace(make_config(tmp_path), database=Database(url=f"sqlite:///{tmp_path}/other.db"))
    fleet = open_fleet(config)
    fleet.add_machine(MachineEdit("web-1", (MAC,)))
    fleet.close()
    assert (tmp_path / "other.db").exists() and not (tmp_path / "fleet.db").exists()


def test_the_generation_moves_with_every_write_that_matters(tmp_path: Path) -> None:
    fleet, other = make_fleet(tmp_path), make_fleet(tmp_path)
    seen = [other.generation()]

    def moved() -> bool:
        seen.append(other.generation())
        return seen[-1] > seen[-2]

    assert not moved()
    fleet.add_machine(MachineEdit("web-1", (MAC,)))
    assert moved() and not moved()
    build(tmp_path)
    assert moved() and not moved()
    assert list(other.view().newest) == ["web"]
    assert other.view() is other.view()
    fleet.record([stage(Stage.OFFER, 0, MAC2)])
    assert moved() and MAC2 in other.view().by_mac
    fleet.remove_machine("web-1")
    assert moved() and MAC not in other.view().by_mac
    fleet.close()
    other.close()


def test_our_errors_pass_through_a_transaction_and_undo_it(tmp_path: Path) -> None:
    fleet: Fleet = make_fleet(tmp_path)
    with pytest.raises(PxeServerError, match="stop"), fleet.database.write() as conn:
        conn.exec_driver_sql(f"UPDATE meta SET number = {NOW}")
        raise PxeServerError("stop", "stop")
    assert fleet.generation() < NOW
    fleet.close()
