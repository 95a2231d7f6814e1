"""What a bad network does to datagrams: loss, delay, doubles, a wrong order; decided by a seeded random."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Faults:
    """Chances from 0 to 1 for each datagram in each direction; `delay` and `late` in seconds.

    A datagram out of order is one that comes `late` seconds after its time, behind others.
    """

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay: float = 0.0
    late: float = 0.03

    def fate(self, rng: random.Random) -> tuple[float, ...]:
        """Seconds until each copy arrives: none when it is lost, two when it is doubled."""
        if rng.random() < self.loss:
            return ()
        after = self.delay + (self.late if rng.random() < self.reorder else 0.0)
        return (after, after + self.late) if rng.random() < self.duplicate else (after,)


NONE = Faults()
