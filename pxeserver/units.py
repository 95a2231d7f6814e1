"""Times and sizes in words: the same in the command line's tables and on the pages."""

from __future__ import annotations

import time


def when(at: float | None) -> str:
    """Unix seconds as local time for people; 'never' for 0 or None."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at else "never"


def age(at: float | None, now: float | None = None) -> str:
    """How long ago: '12s', '5m', '3h', '9d'; 'never' for 0 or None."""
    if not at:
        return "never"
    seconds = max(0.0, (time.time() if now is None else now) - at)
    return f"{seconds:.0f}s" if seconds < 10 else duration(seconds)


def duration(seconds: float) -> str:
    """'0.3s', '12s', '5m', '3h', '9d': one unit, the largest that fits at least twice."""
    if seconds < 9.95:
        return f"{seconds:.1f}s" if seconds else "0s"
    for size, unit in ((172800, "d"), (7200, "h"), (120, "m")):
        if seconds >= size:
            return f"{seconds / {'d': 86400, 'h': 3600, 'm': 60}[unit]:.0f}{unit}"
    return f"{seconds:.0f}s"


def size(count: int) -> str:
    """'0 B', '12.3 MiB': powers of 1024."""
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1023.95 or unit == "TiB":
            break
    return f"{value:.1f} {unit}"
