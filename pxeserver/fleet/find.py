"""The machine that a person means: MAC in any spelling, name, id, a piece of its MAC, or the beginning of its UUID.

The beginning of a name is not enough: `assign web-1` must not reach web-10.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pxeserver.errors import NotFound, Refused, did_you_mean
from pxeserver.mac import looks_like_mac, parse_mac
from pxeserver.model import Machine


def find(text: str, machines: Iterable[Machine]) -> Machine:
    """Exactly one machine, or NotFound "machine-not-found" with the nearest name, or Refused "machine-ambiguous".

    What fits exactly wins: MAC, then name (any case), then id (`7` or `#7`); last the pieces.
    """
    text = text.strip()
    known = list(machines)
    if looks_like_mac(text):
        mac = parse_mac(text)
        for machine in known:
            if mac in machine.macs:
                return machine
        raise NotFound(
            "machine-not-found",
            f"no machine has the MAC {mac}",
            hint=f"pxeserver machines add NAME {mac}, or let it boot once",
        )
    low = text.lower()
    number = text.removeprefix("#")
    exact = [m for m in known if low and m.name.lower() == low] or [
        m for m in known if number.isdecimal() and str(m.id) == number
    ]
    hits = exact or [m for m in known if _piece(m, low)]
    if len(hits) == 1:
        return hits[0]
    if hits:
        raise Refused(
            "machine-ambiguous",
            f'"{text}" fits {len(hits)} machines: {_listed(hits)}',
            hint="write the whole name or MAC",
        )
    names = [n for m in known for n in (m.name, m.mac) if n]
    raise NotFound("machine-not-found", f'no machine "{text}"{did_you_mean(text, names)}', hint="pxeserver machines ls")


def _piece(machine: Machine, low: str) -> bool:
    """4 characters or more: the beginning or end of a MAC, separators aside, or the beginning of the UUID."""
    bare = low.replace(":", "").replace("-", "").replace(".", "")
    if len(bare) < 4:
        return False
    macs = [mac.replace(":", "") for mac in machine.macs]
    return any(m.startswith(bare) or m.endswith(bare) for m in macs) or machine.facts.get("uuid", "").startswith(low)


def _listed(found: Sequence[Machine], limit: int = 8) -> str:
    machines = sorted(found, key=lambda m: (not m.name, m.name, m.mac))
    shown = ", ".join(f"{m.name} ({m.mac})" if m.name else m.mac for m in machines[:limit])
    return shown + (f" and {len(machines) - limit} more" if len(machines) > limit else "")
