"""One TFTP read transfer: windows out, acknowledgements in, a retransmission timeout that follows the path.

RFC 1350 with windows (RFC 7440). At window 1 a duplicate ACK never causes a resend (the sorcerer's apprentice); with
larger windows it does once per position, because there it means that the first block was lost.

`_readable` runs for every block at window 1. Each microsecond there is a tenth of the server's throughput, so its
steps are few: the ACK that is due is compared as bytes, the path is measured every few milliseconds only, and instead
of a timer per transfer the server asks each now and then whether it is `overdue`.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import repeat
from os import read, write
from typing import Literal

from pxeserver.serve.blocks import Blocks
from pxeserver.serve.express import express
from pxeserver.serve.udp import SEGMENTS_MAX, SOL_UDP, UDP_MAX, UDP_SEGMENT
from pxeserver.wire import tftp

RTO_FIRST, RTO_MAX = 1.0, 3.0  # seconds
RTO_MIN = 0.05  # window 1; wider windows take longer to arrive, so they get twice that
GIVE_UP = 30.0  # without progress
LAST_TRIES = 5  # resends of a last block whose ACK is missing: many clients leave without sending it
MEASURE = 0.005  # seconds between looks at how long the path takes

_ACKS = tuple(map(struct.Struct("!HH").pack, repeat(tftp.ACK), range(1 << 16)))  # by block number
_READ_MAX = 64  # datagrams at a time of one client
_DATAGRAM_MAX = 256  # of what a client says after its request only an ERROR's text can be longer

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
    """Owns `sock` (connected to the peer) and `blocks`; calls `ended` once. Times are those of the loop.

    Whoever made it calls `expired` when it is `overdue`.
    """

    __slots__ = (
        *("over", "peer", "request"),
        *("_acked", "_batch", "_began", "_blocks", "_count", "_due", "_ended", "_fd", "_frames", "_loop"),
        *("_measure_at", "_moved", "_name", "_packets", "_rto", "_segmented", "_sent", "_sock", "_srtt", "_step"),
        *("_terms", "_tries", "_variance", "_wait", "_windowsize"),
    )

    def __init__(
        self,
        sock: socket.socket,
        name: str,
        request: tftp.Request,
        blocks: Blocks,
        terms: tftp.Terms,
        ended: Callable[[Transfer, Outcome], None],
    ) -> None:
        self._loop = express()
        self._sock, self._fd = sock, sock.fileno()
        self.peer: tuple[str, int] = sock.getpeername()[:2]
        self.request = request
        self._name = name
        self._blocks = blocks
        self._count = blocks.count
        self._frames, self._packets = blocks.frames, blocks.packets
        self._terms = terms
        self._windowsize = terms.windowsize
        self._step = terms.blksize + 4  # bytes of a packet
        self._batch = min(SEGMENTS_MAX, max(1, UDP_MAX // self._step))  # packets by one call
        self._ended = ended
        self._acked = -1 if terms.oack else 0  # -1: the OACK, which counts as block 0, is out
        self._sent = 0
        self._began = self._moved = self._measure_at = self._loop.time()
        self._srtt = self._variance = 0.0
        self._rto = min(float(terms.timeout), RTO_MAX) if terms.timeout else RTO_FIRST
        self._wait = self._rto  # seconds after `_moved` at which what is out is sent again
        self._tries = 0  # sends of what is out now, less one
        self._due: bytes | None = None  # the ACK of all that is out, if that was sent once and kept blocks follow it
        self._segmented: bool | None = None if terms.windowsize > 1 else False  # None: not tried yet
        self.over = False

    @property
    def untouched(self) -> bool:
        """True while the client has not acknowledged anything."""
        return self._acked <= 0 and self._moved == self._began

    def start(self) -> None:
        self._loop.watch(self._fd, self._readable)
        self._send()

    def _readable(self, now: float) -> bool:
        """A datagram of the client's has come. True when the transfer is over."""
        try:
            raw = read(self._fd, _DATAGRAM_MAX)
        except OSError as error:
            return self._failed(error)
        if raw != self._due:
            return self._read_all(raw, now)
        if now > self._measure_at:
            self._measure(now)
        self._moved = now
        self._acked = sent = self._sent
        if self._windowsize != 1:
            self._next_window(sent)
            return False
        self._sent = end = sent + 1
        try:
            write(self._fd, self._frames[sent])
        except OSError:
            pass  # as good as a lost packet: it is sent again
        self._due = _ACKS[end & 0xFFFF] if end < self._count else None
        return False

    def _next_window(self, sent: int) -> None:
        """The window behind block `sent`, whose ACK was due."""
        end = self._sent = min(sent + self._windowsize, self._count)
        self._due = _ACKS[end & 0xFFFF] if end < self._count else None
        if not self._segmented:
            self._transmit(self._frames[sent:end])
            return
        step, batch, packets = self._step, self._batch, self._packets
        try:
            for start in range(sent, end, batch):
                write(self._fd, packets[start * step : min(start + batch, end) * step])
        except OSError:
            pass  # if the kernel does not cut these up any more, `_transmit` will see it when it sends them again

    def _read_all(self, raw: bytes, now: float) -> bool:
        """What came, and what waits behind it: we are only called for what comes, not for what is left."""
        for _ in range(_READ_MAX):
            whole = self._heard(raw, now)
            if whole or self.over:
                break  # what may be left was said before the client saw what is out now
            try:
                raw = read(self._fd, _DATAGRAM_MAX)
            except OSError as error:
                return self._failed(error)
        return self.over

    def _failed(self, error: OSError) -> bool:
        if not isinstance(error, ConnectionRefusedError):
            return False  # nothing there
        if self._sent == self._count:  # ICMP: nobody there any more
            self.end("done", "the client left without the last acknowledgement")
        else:
            self.end("probe" if self._acked < 0 else "aborted", "the client closed its port")
        return True

    def _heard(self, raw: bytes, now: float) -> bool:
        """True for the ACK of all that is out."""
        if len(raw) < 4 or raw[0] != 0:
            return False
        if raw[1] == tftp.ACK:
            return self._acknowledged(int.from_bytes(raw[2:4], "big"), now)
        if raw[1] == tftp.ERROR:
            text = raw[4:].partition(b"\0")[0].decode("utf-8", "replace")
            probing = self._acked <= 0 and any(name == "tsize" for name, _ in self._terms.oack)
            self.end("probe" if probing else "aborted", f"error {int.from_bytes(raw[2:4], 'big')} {text}".rstrip())
        return False

    def _acknowledged(self, block: int, now: float) -> bool:
        """True if nothing is missing of what was out."""
        step = (block - self._acked) & 0xFFFF
        if step == 0:
            if self._windowsize > 1 and self._tries == 0 and now - self._moved > self._srtt / 2:
                self._again(now)
                self._send()
            return False
        if step > self._sent - self._acked:
            return False  # an old one, or nonsense
        if self._tries == 0 and now > self._measure_at:
            self._measure(now)
        self._acked += step
        whole = self._acked == self._sent
        self._moved = now
        self._wait = self._rto
        self._tries = 0 if whole else 1  # part of the next window is a resend: its time says nothing about the path
        if self._acked < self._count:
            self._send()
        else:
            self.end("done")
        return whole

    def _send(self) -> None:
        """What is out now: the OACK, or the window behind the last acknowledged block."""
        number = min(self._windowsize, self._count - self._acked) if self._acked >= 0 else 0
        self._sent = max(0, self._acked) + number
        fresh = self._tries == 0 and self._sent < len(self._frames)
        self._due = _ACKS[self._sent & 0xFFFF] if fresh else None
        if self._acked < 0:
            self._say(tftp.pack_oack(self._terms.oack))
            return
        try:
            window = self._blocks.window(self._acked + 1, number)
        except OSError as error:
            self._say(tftp.pack_error(tftp.NOT_DEFINED, "cannot read the file"))
            self.end("unreadable", str(error))
            return
        self._transmit(window)

    def _say(self, raw: bytes) -> None:
        """One packet that is not a block, and so must not be cut into segments of a block's size."""
        if self._segmented:
            self._segment(0)
            self._segmented = None
        try:
            write(self._fd, raw)
        except OSError:
            pass

    def _segment(self, size: int) -> bool:
        try:
            self._sock.setsockopt(SOL_UDP, UDP_SEGMENT, size)
        except OSError:
            return False
        return True

    def _transmit(self, window: Sequence[bytes | memoryview]) -> None:
        """Many blocks by one call where the kernel cuts them up. A failed send is a lost packet: it is sent again."""
        if self._segmented is None:
            self._segmented = self._segment(self._step)
        try:
            if self._segmented:
                for start in range(0, len(window), self._batch):
                    self._sock.sendmsg(window[start : start + self._batch])
                return
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EMSGSIZE, errno.EIO, errno.EOPNOTSUPP):
                return
            self._segmented = False  # the device or the path does not take segments of this size
            self._segment(0)
        try:
            for frame in window:
                write(self._fd, frame)
        except OSError:
            pass

    def overdue(self, now: float) -> bool:
        return now - self._moved >= self._wait

    def expired(self, now: float) -> None:
        """Send again what is out, or give up."""
        if self._readable(now) or self._moved == now:
            return
        self._again(now)
        if self._sent == self._count and self._tries > LAST_TRIES:
            self.end("done", "the last acknowledgement never came")
        elif now - self._moved > GIVE_UP:
            self.end("lost", f"no answer for {GIVE_UP:.0f} s")
        else:
            self._send()

    def _again(self, now: float) -> None:
        """What is out is to be sent once more: the wait for its ACK doubles."""
        self._tries += 1
        self._wait = now - self._moved + min(self._rto * 2**self._tries, RTO_MAX)

    def _measure(self, now: float) -> None:
        """RFC 6298's estimate. What has just been acknowledged was sent once, when the transfer last moved."""
        self._measure_at = now + MEASURE
        sample = now - self._moved
        if self._srtt == 0.0:
            self._srtt, self._variance = sample, sample / 2
        else:
            self._variance += (abs(self._srtt - sample) - self._variance) / 4
            self._srtt += (sample - self._srtt) / 8
        least = RTO_MIN if self._windowsize == 1 else 2 * RTO_MIN
        self._rto = self._wait = min(max(self._srtt + 4 * self._variance, least), RTO_MAX)

    def end(self, result: Result, text: str = "") -> None:
        """Close everything and tell; further calls do nothing."""
        if self.over:
            return
        self.over = True
        self._loop.unwatch(self._fd)
        self._sock.close()
        self._fd = -1  # the number may soon be another's
        size = self._blocks.size
        self._blocks.close()
        done = size if result == "done" else min(size, max(0, self._acked) * self._terms.blksize)
        seconds = self._moved - self._began
        self._ended(self, Outcome(self._name, self.peer, result, done, size, seconds, text))
