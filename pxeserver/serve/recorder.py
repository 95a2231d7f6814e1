"""What each MAC did lately, and the events of it: begins boots, seals tokens, counts cycles. In memory, on the loop.

Every method takes what was seen and the time; none waits and none fails. The database hears of it by `emit`, later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from pxeserver.boot import token as tokens
from pxeserver.boot.answer import Arrival
from pxeserver.boot.decide import BootRequest, Decision, discovers_after
from pxeserver.boot.token import Token
from pxeserver.config import Config
from pxeserver.mac import Mac
from pxeserver.model import STAGES, Digest, Event, Recent, Result, Stage
from pxeserver.serve.offer import Offer
from pxeserver.serve.trails import Random, Table, Trail

MACS_MAX = 50_000  # remembered at once; the ones silent for longest go first
WAIT_NOTE = 30.0  # a waiting machine asks every few seconds; it is written down this often
_ORDER = {stage: n for n, stage in enumerate(STAGES)}

File = Literal["loader", "kernel", "initrd", "uki"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A file on its way to a machine: `bytes` of `size` went out, `why` it ended early."""

    name: str
    peer: str
    bytes: int
    size: int
    seconds: float
    why: str = ""


class Recorder:
    """`key` seals tokens; `emit` takes events and must not block; `random(n)` gives n bytes.

    `emit_offers` may take offers as they are, to be made events later.
    """

    def __init__(
        self,
        key: bytes,
        config: Config,
        emit: Callable[[Event], None],
        *,
        emit_offers: Callable[[Sequence[Offer]], None] | None = None,
        random: Callable[[int], bytes] | None = None,
        maximum: int = MACS_MAX,
    ) -> None:
        self.key, self.config, self.emit = key, config, emit
        self._emit_offers = emit_offers or self._emit_each
        self._random = random or Random()
        self._trails: Table[Trail] = Table(maximum)
        self._by_ip: Table[Mac] = Table(maximum)
        self._ignored: Table[float] = Table(maximum)

    # --- looking ---

    def recent(self, mac: Mac) -> Recent | None:
        trail = self._trails.get(mac)
        return trail.recent if trail is not None else None

    def mac_of(self, address: str) -> Mac | None:
        """Whose address this is, by what DHCP and HTTP showed."""
        return self._by_ip.get(address)

    def before(self, request: BootRequest, now: float) -> Recent:
        """What to decide on: the MAC's past, or a boot that begins with this packet (kept only when it is answered).

        After the script stage no loader asks DHCP again: a DISCOVER then means that the machine started anew.
        """
        recent = self.recent(request.mac)
        if recent is None or self.over_by(recent, request.opening, now):
            return self._begin(now, recent)
        return recent

    def over_by(self, recent: Recent, opening: bool, now: float) -> bool:
        """True if a packet that comes now begins another boot; `opening` if it is what a machine says first."""
        if now - recent.last > self.config.boot.silence_seconds:
            return True
        return opening and _ORDER[recent.stage] >= _ORDER[Stage.SCRIPT]

    def _begin(self, now: float, before: Recent | None = None) -> Recent:
        """A new boot; the style that the firmware took last time is kept, and so is a loader that goes in circles."""
        boot = self._random(8).hex()
        if before is None:
            return Recent(boot, now, now)
        return Recent(boot, now, now, style=before.style, loader=before.loader, loader_cycles=before.loader_cycles)

    def seal(self, boot: str, mac: Mac, image: Digest = "", revision: int = 0) -> str:
        """The token of a boot, binding an image (its digest, "" for none) and an assignment's revision."""
        return tokens.seal(self.key, Token(boot, mac, tokens.image_prefix(image), revision))

    def began(self, token: Token) -> bool:
        """True if this token's boot has asked for its kernel: from then on its image is settled.

        A boot that is not in memory (another server's, or before a restart) counts as settled.
        """
        recent = self.recent(token.mac)
        return recent is None or recent.boot != token.boot or _ORDER[recent.stage] >= _ORDER[Stage.KERNEL]

    def under_way(self, mac: Mac, now: float) -> bool:
        """True between the kernel and `up` of a boot that was heard of lately: when secrets may be given."""
        recent = self.recent(mac)
        if recent is None or now - recent.last > self.config.boot.stuck_seconds:
            return False
        return _ORDER[Stage.KERNEL] <= _ORDER[recent.stage] < _ORDER[Stage.UP]

    def asker(self, token: Token) -> str:
        """The address that asked for this boot's first script, "" if that is not remembered."""
        trail = self._trails.get(token.mac)
        return trail.peer if trail is not None and trail.recent.boot == token.boot else ""

    def over(self, token: Token) -> bool:
        """True if this token's boot is up, or was followed by another: it opens nothing any more."""
        recent = self.recent(token.mac)
        return recent is not None and (recent.boot != token.boot or recent.stage is Stage.UP)

    # --- DHCP ---

    def answered(
        self,
        request: BootRequest,
        decision: Decision,
        recent: Recent,
        raw: bytes,
        arrival: Arrival,
        now: float,
    ) -> None:
        """An answer went out; `recent` is what `before` gave, `raw` the client's packet."""
        mac = request.mac
        trail = self._trail(mac, recent)
        # what DHCPv4 tries in turn is left alone by DHCPv6, which firmware speaks between two rounds of it
        style, discovers = recent.style, recent.discovers
        if request.version == 4:
            style, discovers = decision.style, discovers_after(recent, now) if request.opening else 0
        trail.recent = recent._replace(
            last=now,
            image=decision.image,
            revision=decision.revision,
            style=style,
            discovers=discovers,
        )
        trail.offered = decision.loader
        self._emit_offers((Offer(now, recent.boot, mac, request.uuid, raw, request, decision, arrival),))

    def first(
        self, mac: Mac, style: str, loader: str, bound: tuple[Digest, int], past: Recent | None, now: float
    ) -> str:
        """The boot that begins with such an answer; `bound` to image and revision. `offers` writes the answer down."""
        boot = self._random(8).hex()
        again = (past.loader, 0.0, past.loader_cycles) if past is not None else ()
        self._trails.remember(mac, Trail(Recent(boot, now, now, *bound, style, 1, *again), loader))
        return boot

    def offers(self, sent: Sequence[Offer]) -> None:
        """First answers that went out."""
        self._emit_offers(sent)

    def forget(self, mac: Mac) -> None:
        """The answer that its boot began with did not go out."""
        self._trails.pop(mac, None)

    def ignored(self, request: BootRequest, decision: Decision, now: float) -> None:
        """A machine that our policy leaves alone is still seen, once per silence."""
        if now - self._ignored.get(request.mac, 0.0) < self.config.boot.silence_seconds:
            return
        self._ignored.remember(request.mac, now)
        text = decision.reasons[-1].text if decision.reasons else ""
        data = {"what": "ignored", "why": decision.why, "arch": request.arch.goarch, "uuid": request.uuid}
        self._event(now, "", request.mac, "note", text=text, data=data)

    def addressed(self, mac: Mac, address: str) -> None:
        """DHCP showed that this machine asks for, or has, this address."""
        if address and address != "0.0.0.0":
            self._by_ip.remember(address, mac)

    def other_server(self, mac: Mac, server: str, says: str, now: float) -> None:
        """Another DHCP server told this machine what to boot: once for each boot and server."""
        trail = self._trails.get(mac)
        if trail is None or server in trail.rivals or now - trail.recent.last > self.config.boot.silence_seconds:
            return
        trail.rivals |= {server}
        data = {"what": "other-server", "server": server}
        self._event(now, trail.recent.boot, mac, "note", peer=server, text=f"{server} {says}", data=data)

    def system_heard(self, mac: Mac, address: str, now: float) -> None:
        """A DHCP request without a word of PXE: the system of a boot whose initrd was sent a moment ago."""
        recent = self.recent(mac)
        if recent is None or recent.stage is not Stage.INITRD or now - recent.last > self.config.boot.stuck_seconds:
            return
        self._reach(mac, recent.boot, Stage.NETWORK, now)
        self._event(now, recent.boot, mac, "network", Stage.NETWORK, address, data={"ip": address})

    # --- transfers ---

    def sent(self, mac: Mac, boot: str, file: File, delivery: Delivery, now: float) -> None:
        """A file went out whole. `boot` "" means the MAC's current one (TFTP has no token)."""
        trail = self._trails.get(mac)
        boot = boot or (trail.recent.boot if trail is not None else "")
        data = {}
        if file == "loader":
            if trail is not None and trail.offered and PurePosixPath(delivery.name).name != trail.offered:
                self._reach(mac, boot, None, now)
                self._delivered(mac, boot, "note", None, delivery, now, {"what": "file", "file": delivery.name})
                return
            if trail is not None and trail.recent.boot == boot:
                cycles = trail.recent.loader_cycles + 1
                trail.recent = trail.recent._replace(
                    loader=delivery.name, loader_at=now, loader_cycles=cycles, discovers=0
                )
            data = {"loader": delivery.name}
        if file == "uki":
            self._whole_image(mac, boot, delivery, now)
            return
        self._reach(mac, boot, Stage(file), now)
        self._delivered(mac, boot, file, Stage(file), delivery, now, data)

    def _whole_image(self, mac: Mac, boot: str, delivery: Delivery, now: float) -> None:
        """Kernel and initrd in one file: both stages, the bytes with the first. The answer told the image."""
        trail = self._reach(mac, boot, Stage.INITRD, now)
        recent = trail.recent if trail is not None else None
        data = {}
        if recent is not None and recent.image:
            data = {"image": tokens.image_prefix(recent.image), "revision": str(recent.revision)}
        self._delivered(mac, boot, "kernel", Stage.KERNEL, delivery, now, data)
        self._event(now, boot, mac, "initrd", Stage.INITRD, delivery.peer, text="in the same file")

    def asked(self, token: Token, file: File, now: float) -> None:
        """The first byte of a file is on its way. From the kernel's on, the boot's image is settled."""
        self._reach(token.mac, token.boot, Stage.KERNEL if file in ("kernel", "uki") else None, now)

    def handed(self, token: Token, file: File, name: str, peer: str, proxy: str, now: float) -> None:
        """A proxy sends the file: that it was asked for is all that we know, and counts as its stage, once."""
        for stage in (Stage.KERNEL, Stage.INITRD) if file == "uki" else (Stage(file),):
            recent = self.recent(token.mac)
            known = recent is not None and recent.boot == token.boot and _ORDER[recent.stage] >= _ORDER[stage]
            self._reach(token.mac, token.boot, stage, now)
            if not known:
                text = f"{name}, handed to {proxy}"
                self._event(now, token.boot, token.mac, stage.value, stage, peer, text=text, data={"proxy": proxy})

    def stopped(self, mac: Mac, boot: str, file: File, delivery: Delivery, now: float) -> None:
        """A transfer ended early."""
        recent = self.recent(mac)
        boot = boot or (recent.boot if recent is not None else "")
        data = {
            "what": "stopped",
            "file": "kernel" if file == "uki" else file,
            "name": delivery.name,
            "size": str(delivery.size),
        }
        self._delivered(mac, boot, "note", None, delivery, now, data)

    def _delivered(
        self, mac: Mac, boot: str, kind: str, stage: Stage | None, what: Delivery, now: float, data: Mapping[str, str]
    ) -> None:
        text = what.why or what.name
        self.emit(Event(now, kind, mac, boot, stage, what.peer, what.bytes, what.seconds, text, data))

    # --- scripts and the booted system ---

    def enter(self, mac: Mac, now: float) -> Recent:
        """The current boot of a MAC that asks for a script without a token; begins one if there is none."""
        recent = self.recent(mac)
        if recent is None or now - recent.last > self.config.boot.silence_seconds:
            recent = self._begin(now, recent)
            self._trail(mac, recent)
        return recent

    def current(self, macs: Sequence[Mac], now: float, *, known: bool) -> str:
        """The token of the boot that a running system belongs to; begins one for a `known` machine, else "".

        The system may have been silent for longer than a boot is: it was unpacking itself.
        """
        for mac in macs:
            recent = self.recent(mac)
            if recent is not None:
                return self.seal(recent.boot, mac, recent.image, recent.revision)
        return self.seal(self.enter(macs[0], now).boot, macs[0]) if known else ""

    def script(
        self,
        token: Token,
        action: str,
        peer: str,
        now: float,
        *,
        size: int = 0,
        text: str = "",
        data: Mapping[str, str] | None = None,
    ) -> None:
        """A script of `size` bytes was given; `action` is entry or what the profile says. Repeats are thinned out."""
        self.addressed(token.mac, peer)
        trail = self._reach(token.mac, token.boot, Stage.SCRIPT, now, script=True)
        if trail is not None:
            trail.peer = trail.peer or peer
            pause = min(WAIT_NOTE, self.config.boot.stuck_seconds / 3)
            same = (action, token.image) == (trail.action, trail.image)
            if same and action in ("wait", "refuse", "boot") and now - trail.noted < pause:
                return
            if action == "entry" and trail.action in ("wait", "refuse"):
                return  # the two steps of asking again
            trail.action, trail.image, trail.noted = action, token.image, now
        more = {**(data or {}), "action": action}
        if action == "local":
            more["result"] = Result.LOCAL.value
        self._event(now, token.boot, token.mac, "script", Stage.SCRIPT, peer, size, text=text, data=more)

    def queued(self, token: Token, peer: str, now: float, seconds: int, why: str, data: Mapping[str, str]) -> None:
        """The link is full: the machine asks again after so many seconds. The boot gets its image when it is let in."""
        self.addressed(token.mac, peer)
        trail = self._reach(token.mac, token.boot, Stage.SCRIPT, now, script=True)
        if trail is not None:
            trail.action = "queued"
        facts = {key: value for key, value in data.items() if key not in ("image", "revision")}
        more = {**facts, "action": "queued", "seconds": str(seconds)}
        self._event(now, token.boot, token.mac, "queued", Stage.SCRIPT, peer, text=why, data=more)

    def reported(self, token: Token, stage: Stage, peer: str, now: float, data: Mapping[str, str], text: str) -> None:
        """The booted system says how far it is."""
        self._reach(token.mac, token.boot, stage, now)
        self._event(now, token.boot, token.mac, stage.value, stage, peer, text=text, data=data)

    def said(self, token: Token, kind: str, peer: str, now: float, text: str, data: Mapping[str, str]) -> None:
        """The booted system sends a log, a cause or a note."""
        self._reach(token.mac, token.boot, None, now)
        self._event(now, token.boot, token.mac, kind, None, peer, text=text, data=data)

    # --- inside ---

    def _emit_each(self, sent: Sequence[Offer]) -> None:
        for offer in sent:
            self.emit(offer.event())

    def _trail(self, mac: Mac, recent: Recent) -> Trail:
        trail = self._trails.get(mac)
        if trail is None or trail.recent.boot != recent.boot:
            trail = Trail(recent)
        self._trails.remember(mac, trail)
        return trail

    def _reach(self, mac: Mac, boot: str, stage: Stage | None, now: float, *, script: bool = False) -> Trail | None:
        """Note life of this boot, a stage if it goes further, a script. None when the MAC is at another boot."""
        trail = self._trails.get(mac)
        if trail is None:
            if not boot:
                return None
            trail = self._trail(mac, Recent(boot, now, now))  # begun by another server, or before a restart
        if trail.recent.boot != boot:
            return None
        recent = trail.recent
        trail.recent = recent._replace(
            last=now,
            discovers=0 if script else recent.discovers,
            loader_cycles=0 if script else recent.loader_cycles,
            script_at=now if script else recent.script_at,
            stage=stage if stage is not None and _ORDER[stage] > _ORDER[recent.stage] else recent.stage,
        )
        self._trails.move_to_end(mac)
        return trail

    def _event(
        self,
        now: float,
        boot: str,
        mac: Mac,
        kind: str,
        stage: Stage | None = None,
        peer: str = "",
        count: int = 0,
        seconds: float = 0.0,
        text: str = "",
        data: Mapping[str, str] | None = None,
    ) -> None:
        kept = {key: value for key, value in (data or {}).items() if value}
        self.emit(Event(now, kind, mac, boot, stage, peer, count, seconds, text, kept))
