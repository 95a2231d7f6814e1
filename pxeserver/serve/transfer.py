"""One TFTP read transfer: windows out, acknowledgements in, a retransmission timeout that follows the path.

RFC 1350 with windows (RFC 7440). At window 1 a duplicate ACK never causes a resend (the sorcerer's apprentice); with
larger windows it does once per position, because there it means that the first block was lost.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pxeserver.serve.blocks import Blocks
from pxeserver.wire import tftp

_SOL_UDP, _UDP_SEGMENT, _SEGMENTS_MAX, _UDP_MAX = 17, 103, 64, 65000
RTO_FIRST, RTO_MAX = 1.0, 3.0  # seconds
RTO_MIN = 0.05  # window 1; wider windows take longer to arrive, so they get twice that
GIVE_UP = 30.0  # without progress
LAST_TRIES = 5  # resends of a last block whose ACK is missing: many clients leave without sending it

Result = Literal["done", "probe", "aborted", "lost", "replaced", "stopped", "unreadable"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a transfer ended. `bytes` were acknowledged; "probe": the client only wanted to know the size."""

    name: str
    peer: tuple[str, int]
    result: Result
    bytes: int
    size: int
    seconds: float
    text: str = ""


class Transfer:
    """Owns `sock` (connected to the peer) and `blocks`; calls `ended` once."""

    def __init__(
        self,
        sock: socket.socket,
        name: str,
        request: tftp.Request,
        blocks: Blocks,
        terms: tftp.Terms,
        ended: Callable[[Transfer, Outcome], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self.peer: tuple[str, int] = sock.getpeername()[:2]
        self.request = request
        self._name = name
        self._blocks = blocks
        self._terms = terms
        self._ended = ended
        self._acked = -1 if terms.oack else 0  # -1: the OACK, which counts as block 0, is out
        self._sent = 0
        self._began = self._moved = self._sent_at = self._loop.time()
        self._srtt = self._variance = 0.0
        self._rto = float(terms.timeout) if terms.timeout else RTO_FIRST
        self._tries = 0  # sends of what is out now, less one
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._segmented: bool | None = None if terms.windowsize > 1 else False  # None: not tried yet
        self.over = False

    @property
    def untouched(self) -> bool:
        """True while the client has not acknowledged anything."""
        return self._acked <= 0 and self._moved == self._began

    def start(self) -> None:
        self._loop.add_reader(self._sock, self._readable)
        self.send()

    def send(self) -> None:
        """What is out now: the OACK, or the window behind the last acknowledged block."""
        now = self._sent_at = self._loop.time()
        if self._acked < 0:
            self._say(tftp.pack_oack(self._terms.oack))
        else:
            number = min(self._terms.windowsize, self._blocks.count - self._acked)
            self._sent = self._acked + number
            try:
                window = self._blocks.window(self._acked + 1, number)
            except OSError as error:
                self._say(tftp.pack_error(tftp.NOT_DEFINED, "cannot read the file"))
                self.end("unreadable", str(error))
                return
            self._transmit(window)
        self._arm(now + min(self._rto * 2**self._tries, RTO_MAX))

    def _say(self, raw: bytes) -> None:
        """One packet that is not a block, and so must not be cut into segments of a block's size."""
        if self._segmented:
            self._segment(0)
            self._segmented = None
        try:
            self._sock.send(raw)
        except OSError:
            pass

    def _segment(self, size: int) -> bool:
        try:
            self._sock.setsockopt(_SOL_UDP, _UDP_SEGMENT, size)
        except OSError:
            return False
        return True

    def _transmit(self, window: memoryview) -> None:
        """Whole blocks, by the window. A failed send is a lost packet: the timeout covers it."""
        step = self._terms.blksize + 4
        if self._segmented is None:
            self._segmented = self._segment(step)
        try:
            if self._segmented:
                batch = step * min(_SEGMENTS_MAX, max(1, _UDP_MAX // step))
                for start in range(0, len(window), batch):
                    self._sock.send(window[start : start + batch])
                return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EMSGSIZE, errno.EIO, errno.EOPNOTSUPP):
                return
            self._segmented = False  # the device or the path does not take segments of this size
            self._segment(0)
        try:
            for start in range(0, len(window), step):
                self._sock.send(window[start : start + step])
        except OSError:
            pass

    def _arm(self, deadline: float) -> None:
        """The timer is left alone when it fires early enough: moving it for every ACK would cost more than the ACK."""
        self._deadline = deadline
        if self._timer is not None and self._timer.when() <= deadline:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(deadline, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = self._loop.time()
        if now < self._deadline - 0.001:
            self._arm(self._deadline)
            return
        self._tries += 1
        if self._sent == self._blocks.count and self._tries > LAST_TRIES:
            self.end("done", "the last acknowledgement never came")
        elif now - self._moved > GIVE_UP:
            self.end("lost", f"no answer for {GIVE_UP:.0f} s")
        else:
            self.send()

    def _readable(self) -> None:
        try:
            raw = self._sock.recv(1024)
        except ConnectionRefusedError:  # ICMP: nobody there any more
            if self._sent == self._blocks.count:
                self.end("done", "the client left without the last acknowledgement")
            else:
                self.end("probe" if self._acked < 0 else "aborted", "the client closed its port")
            return
        except OSError:
            return
        if len(raw) >= 4 and raw[0] == 0 and raw[1] == tftp.ACK:
            self._acknowledged(int.from_bytes(raw[2:4], "big"))
        elif len(raw) >= 4 and raw[0] == 0 and raw[1] == tftp.ERROR:
            text = raw[4:].partition(b"\0")[0].decode("utf-8", "replace")
            probing = self._acked <= 0 and any(name == "tsize" for name, _ in self._terms.oack)
            self.end("probe" if probing else "aborted", f"error {int.from_bytes(raw[2:4], 'big')} {text}".rstrip())

    def _acknowledged(self, block: int) -> None:
        step = (block - self._acked) & 0xFFFF
        now = self._loop.time()
        if step == 0:
            if self._terms.windowsize > 1 and self._tries == 0 and now - self._sent_at > self._srtt / 2:
                self._tries = 1
                self.send()
            return
        if step > self._sent - self._acked:
            return  # an old one, or nonsense
        if self._tries == 0:
            self._measure(now - self._sent_at)
        whole = self._acked + step == self._sent
        self._acked += step
        self._moved = now
        self._tries = 0
        if self._acked >= self._blocks.count:
            self.end("done")
            return
        self.send()
        if not whole:
            self._tries = 1  # part of this window is a resend: its time says nothing about the path

    def _measure(self, sample: float) -> None:
        """RFC 6298's estimate."""
        if self._srtt == 0.0:
            self._srtt, self._variance = sample, sample / 2
        else:
            self._variance += (abs(self._srtt - sample) - self._variance) / 4
            self._srtt += (sample - self._srtt) / 8
        least = RTO_MIN if self._terms.windowsize == 1 else 2 * RTO_MIN
        self._rto = min(max(self._srtt + 4 * self._variance, least), RTO_MAX)

    def end(self, result: Result, text: str = "") -> None:
        """Close everything and tell; further calls do nothing."""
        if self.over:
            return
        self.over = True
        self._loop.remove_reader(self._sock)
        if self._timer is not None:
            self._timer.cancel()
        self._sock.close()
        size = self._blocks.size
        self._blocks.close()
        done = size if result == "done" else min(size, max(0, self._acked) * self._terms.blksize)
        seconds = self._moved - self._began
        self._ended(self, Outcome(self._name, self.peer, result, done, size, seconds, text))
