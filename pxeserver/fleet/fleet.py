"""The fleet behind one interface: `open_fleet(config) -> Fleet`. Safe to use from several threads and processes."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence

from sqlalchemy import insert, select

from pxeserver import __version__
from pxeserver.config import Config
from pxeserver.fleet import record, rows, view
from pxeserver.fleet.database import Database, open_database
from pxeserver.fleet.find import find
from pxeserver.fleet.prune import prune
from pxeserver.fleet.tables import MetaRow
from pxeserver.fleet.values import Status
from pxeserver.images.catalogue import Catalogue
from pxeserver.images.store import Store
from pxeserver.model import Digest, Event, FleetView, Image, Machine

PRUNE_SECONDS = 3600


class Fleet:
    """Machines, assignments, boots and events, and the images they refer to. `clock` gives Unix seconds."""

    def __init__(
        self, database: Database, catalogue: Catalogue, config: Config, clock: Callable[[], float] = time.time
    ) -> None:
        self.database, self.catalogue, self.config, self.clock = database, catalogue, config, clock
        self._lock = threading.Lock()  # guards what follows
        self._stamp: object = None
        self._images: tuple[Image, ...] = ()
        self._image_moves = 0
        self._view: FleetView | None = None
        self._pruned = 0.0

    def close(self) -> None:
        self.database.close()

    # --- what deciding needs ---

    def generation(self) -> int:
        """Moves whenever what a machine would get may have changed. One small read; made to be polled."""
        self.images()
        with self.database.read() as conn:
            return rows.generation(conn) + self._image_moves

    def view(self) -> FleetView:
        """The picture to decide on; the same object until the generation moves."""
        images = self.images()
        with self.database.read() as conn:
            generation = rows.generation(conn) + self._image_moves
            if self._view is None or self._view.generation != generation:
                self._view = view.read(conn, images, self.config, generation)
            return self._view

    def images(self) -> tuple[Image, ...]:
        """Built images, newest first; read anew when the store's index changed."""
        with self._lock:
            stamp = self.catalogue.stamp()
            if stamp != self._stamp:
                self._images = self.catalogue.list()
                self._stamp = stamp
                self._image_moves += 1
            return self._images

    def secret(self) -> bytes:
        """The key that seals boot tokens: 32 bytes, made by whoever asks first."""
        query = select(MetaRow.blob).where(MetaRow.key == "secret")
        with self.database.read() as conn:
            found = conn.execute(query).scalar()
        if found is None:
            with self.database.write() as conn:
                found = conn.execute(query).scalar()
                if found is None:
                    found = secrets.token_bytes(32)
                    conn.execute(insert(MetaRow).values(key="secret", number=0, blob=found))
        return bytes(found)

    # --- what happened ---

    def record(self, events: Sequence[Event]) -> None:
        """Write events down, all or none. DatabaseError when it cannot be done now: keep them and try again."""
        images = self.images()

        def resolve(text: str) -> tuple[Digest, str] | None:
            want = "sha256:" + text.removeprefix("sha256:")
            hit = next((i for i in images if len(want) >= 39 and i.digest.startswith(want)), None)
            return None if hit is None else (hit.digest, hit.spec)

        with self.database.write() as conn:
            record.record(conn, events, resolve, self.config.boot.stuck_seconds)
            now = self.clock()
            if now - self._pruned > PRUNE_SECONDS and prune(conn, now - self.config.boot.keep_days * 86400):
                self._pruned = now

    # --- machines ---

    def status(self) -> Status:
        """Who this is; cheap."""
        view = self.view()
        return Status(__version__, str(self.config.data), view.generation, len(view.machines), len(view.images))

    def find(self, text: str) -> Machine:
        """The one machine that `text` means; see find.py."""
        return find(text, self.view().machines.values())


def open_fleet(config: Config, clock: Callable[[], float] = time.time) -> Fleet:
    """The fleet of `config`, its database migrated. DatabaseError, UsageError (url), Refused (newer database)."""
    return Fleet(open_database(config), Catalogue(Store(config.data / "store")), config, clock)
