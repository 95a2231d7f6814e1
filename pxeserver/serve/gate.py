"""Who is loading its image and who was told to wait: what `boot.admission` decides on. In memory, on the loop."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pxeserver.boot.admission import WAIT_MAX, Load, Wait, admit
from pxeserver.config import Http
from pxeserver.mac import Mac

PLACE_SECONDS = 60.0  # a machine that has its script and asks for nothing gives its place up
RUNNING_SECONDS = 900.0  # ... and one whose download shows no end
QUEUE_SECONDS = 2 * WAIT_MAX  # a machine that waits and is not heard again has gone
_RECENT = 0.1  # weight of the last machine in the mean of how long they load
_SAMPLE = 0.5  # seconds between looks at a card's counter


@dataclass(slots=True)
class _Place:
    since: float
    last: float
    running: int = 0


class Rates:
    """Mbit/s that go out of each interface, from the kernel's counters."""

    def __init__(self, table: Path = Path("/proc/thread-self/net/dev")) -> None:
        self._table = table
        self._seen: dict[str, tuple[float, int, float]] = {}  # time, bytes, rate

    def of(self, interface: str, now: float) -> float:
        at, before, rate = self._seen.get(interface, (0.0, -1, 0.0))
        if before >= 0 and now - at < _SAMPLE:
            return rate
        count = self._sent(interface)
        rate = (count - before) * 8 / 1e6 / (now - at) if before >= 0 and count >= before else 0.0
        self._seen[interface] = now, count, rate
        return rate

    def _sent(self, interface: str) -> int:
        try:
            rows = self._table.read_text().splitlines()[2:]
        except OSError:
            return 0
        cells = next((row.split(":")[1].split() for row in rows if row.split(":")[0].strip() == interface), [])
        return int(cells[8]) if len(cells) > 8 else 0


class Gate:
    """Counts places by machine. `counts`: machines let in, times that one was told to wait, places given up."""

    def __init__(self, rate: Callable[[str, float], float] | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self._rate = rate or Rates().of
        self._loading: OrderedDict[str, _Place] = OrderedDict()  # by the last sign of life
        self._queued: OrderedDict[str, tuple[int, float]] = OrderedDict()  # times told, the last one
        self._seconds = 0.0

    def ask(self, mac: Mac, interface: str, limits: Http, now: float) -> Wait | None:
        """A machine asks for the script that boots its image: None, and it has a place from now on; or it waits."""
        if mac not in self._loading:
            told, _ = self._queued.get(mac, (0, 0.0))
            wait = admit(mac, told, self.load(interface, limits, now), limits)
            if wait is not None:
                self.counts["told-to-wait"] += 1
                self._queued[mac] = told + 1, now
                self._queued.move_to_end(mac)
                return wait
            self.counts["let-in"] += 1
        self._queued.pop(mac, None)
        self._touch(mac, now)
        return None

    def load(self, interface: str, limits: Http, now: float) -> Load:
        self._expire(now)
        mbit = self._rate(interface, now) if limits.link_mbit else 0.0
        return Load(len(self._loading), len(self._queued), self._seconds, mbit)

    def health(self, now: float) -> dict[str, int]:
        """For `/healthz`: machines that load, machines that wait, and how often one was told to."""
        self._expire(now)
        told = self.counts["told-to-wait"]
        return {"loading": len(self._loading), "queued": len(self._queued), "told_to_wait": told}

    def begun(self, mac: Mac, now: float) -> None:
        """A kernel or an initrd is on its way."""
        self._touch(mac, now).running += 1

    def ended(self, mac: Mac, now: float, *, last: bool) -> None:
        """That is over; `last`: the initrd was sent to its end, so that the place is free."""
        place = self._loading.get(mac)
        if place is None:
            return
        place.running = max(0, place.running - 1)
        if not last:
            self._touch(mac, now)
            return
        took = now - place.since
        self._seconds += (took - self._seconds) * (_RECENT if self._seconds else 1.0)
        del self._loading[mac]

    def _touch(self, mac: Mac, now: float) -> _Place:
        place = self._loading.get(mac)
        if place is None:
            place = self._loading[mac] = _Place(now, now)
        else:
            self._loading.move_to_end(mac)
        place.last = now
        return place

    def _expire(self, now: float) -> None:
        """Both are in order of time, so only the first ones are looked at; running downloads go behind the others."""
        for _ in range(len(self._loading)):
            mac, place = next(iter(self._loading.items()))
            if now - place.last < PLACE_SECONDS:
                break
            if place.running and now - place.since < RUNNING_SECONDS:
                self._touch(mac, now)
                continue
            del self._loading[mac]
            self.counts["gone"] += 1
        while self._queued:
            mac, (_, last) = next(iter(self._queued.items()))
            if now - last < QUEUE_SECONDS:
                break
            del self._queued[mac]
