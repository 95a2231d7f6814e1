"""How an open boot stands at a moment: it moves, it waits, it is stuck, or it went as far as it can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pxeserver.model import Result, Stage


def waiting(boot: Mapping[str, Any]) -> bool:
    """It has a script that asks again and again: until an image is assigned, or until the link has room."""
    return not boot["image"] and boot["stage"] == Stage.SCRIPT and boot["result"] == Result.OPEN


def settled(boot: Mapping[str, Any], now: float, stuck_seconds: float) -> Result:
    """The result of a row of `boot` at `now`: what is recorded, or what its silence means.

    An image without an agent ends at `network`. A waiting machine is stuck only when it stops asking.
    """
    if boot["result"] != Result.OPEN:
        return Result(boot["result"])
    if now - (boot["last"] if waiting(boot) else boot["moved"]) <= stuck_seconds:
        return Result.OPEN
    return Result.NETWORK_ONLY if boot["stage"] == Stage.NETWORK else Result.STUCK
