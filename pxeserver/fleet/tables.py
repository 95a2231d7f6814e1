"""The tables, typed. `migrations.py` makes them; a test compares the two.

Everything a list page needs stands in `machine` and `boot`, so that it never reads `event`.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Integer, LargeBinary, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

# SQLite numbers rows only for a column declared INTEGER
RowId = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    type_annotation_map = {str: Text, float: Float(53), bytes: LargeBinary, dict[str, Any]: JSON, list[str]: JSON}


class MetaRow(Base):
    """One row per fact about the database itself: `schema`, `generation`, `secret`."""

    __tablename__ = "meta"
    key: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger)
    blob: Mapped[bytes | None]


class MachineRecord(Base):
    """model.Machine, when it was added and when it was last heard of."""

    __tablename__ = "machine"
    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(default="")  # "" = none; unique otherwise, whatever the case
    known: Mapped[bool]
    labels: Mapped[dict[str, Any]] = mapped_column(default=dict)
    vars: Mapped[dict[str, Any]] = mapped_column(default=dict)
    cmdline: Mapped[list[str]] = mapped_column(default=list)
    template: Mapped[str] = mapped_column(default="")
    pin_style: Mapped[str] = mapped_column(default="")
    pin_loader: Mapped[str] = mapped_column(default="")
    arch: Mapped[str] = mapped_column(default="")
    memory_mib: Mapped[int | None]
    facts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    ip: Mapped[str] = mapped_column(default="")
    created: Mapped[float]
    seen: Mapped[float]
    boot: Mapped[str] = mapped_column(default="")  # id of the latest boot, "" before the first


class MacRecord(Base):
    """A MAC belongs to one machine; position 0 is the one people see."""

    __tablename__ = "mac"
    mac: Mapped[str] = mapped_column(primary_key=True)
    machine: Mapped[int] = mapped_column(RowId, ForeignKey("machine.id", ondelete="CASCADE"))
    position: Mapped[int]


class AssignmentRecord(Base):
    """Every assignment ever made; the one in force has no end."""

    __tablename__ = "assignment"
    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    machine: Mapped[int] = mapped_column(RowId, ForeignKey("machine.id", ondelete="CASCADE"))
    spec: Mapped[str]
    image: Mapped[str]
    revision: Mapped[int]
    follow: Mapped[bool]
    args: Mapped[list[str]]
    at: Mapped[float]
    by: Mapped[str] = mapped_column("by_whom")
    reason: Mapped[str]
    ended: Mapped[float | None]


class BootRow(Base):
    """A boot with its stages ({stage: {at, last, count, bytes, seconds, peer}}) and how many events of each kind."""

    __tablename__ = "boot"
    id: Mapped[str] = mapped_column(primary_key=True)
    machine: Mapped[int | None] = mapped_column(RowId, ForeignKey("machine.id", ondelete="SET NULL"))
    mac: Mapped[str]
    image: Mapped[str]
    spec: Mapped[str]
    revision: Mapped[int]
    style: Mapped[str]
    loader: Mapped[str]
    started: Mapped[float]
    last: Mapped[float]
    moved: Mapped[float]  # when the latest new stage was reached
    ended: Mapped[float]
    stage: Mapped[str]
    stages: Mapped[dict[str, Any]]
    counts: Mapped[dict[str, Any]]
    result: Mapped[str]


class EventRow(Base):
    """model.Event as it came."""

    __tablename__ = "event"
    id: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=True)
    at: Mapped[float]
    kind: Mapped[str]
    mac: Mapped[str]
    boot: Mapped[str]
    stage: Mapped[str]
    peer: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    seconds: Mapped[float]
    text: Mapped[str]
    data: Mapped[dict[str, Any]]
