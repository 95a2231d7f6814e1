"""Fetching a file by TFTP as a firmware does: options, windows (RFC 7440), repeats, and how it gives up."""

from __future__ import annotations

from dataclasses import dataclass, field

from pxeserver.sim.effects import Clock, Close, Heard, Listen, Open, Peer, Play, Send, Stopped
from pxeserver.sim.firmware import TftpHabit
from pxeserver.wire import tftp
from pxeserver.wire.reader import WireError

PORT = 69
CHATTER_MAX = 200_000  # datagrams of one transfer that bring nothing new


class NoFile(Stopped):
    """The server has no such file (error 1)."""


def fetch(server: str, name: str, habit: TftpHabit, stage: str = "loader") -> Play[bytes]:
    """The content. Stopped(stage) when it does not come whole, NoFile when the server says that there is none."""
    if habit.probe:
        yield from _transfer(server, name, habit, habit.options, stage, probe=True)
        options = tuple(option for option in habit.options if option[0] != "tsize")
        return (yield from _transfer(server, name, habit, options, stage))
    return (yield from _transfer(server, name, habit, habit.options, stage))


@dataclass
class _Session:
    """One request and what came of it so far."""

    server: str
    request: bytes
    options: dict[str, str]
    stage: str
    name: str
    probe: bool
    peer: Peer | None = None
    blksize: int = tftp.DEFAULT_BLKSIZE
    windowsize: int = 1
    size: int | None = None
    content: bytearray = field(default_factory=bytearray)
    block: int = 0  # the last one that came in its turn
    in_window: int = 0
    said: bytes = b""
    complained: int = -1  # the block after which a gap was told already
    done: bool = False

    def fail(self, why: str) -> Stopped:
        return Stopped(self.stage, f'TFTP of "{self.name}" from {self.server}: {why}')

    def hear(self, message: tftp.Message) -> bytes:
        """What to answer, b"" for nothing. Raises Stopped."""
        if isinstance(message, tftp.Error):
            kind = NoFile if message.code == tftp.NOT_FOUND else Stopped
            raise kind(self.stage, self.fail(f"error {message.code} {message.message}").why)
        if isinstance(message, tftp.Oack) and self.block == 0:
            return self._agree(message)
        if isinstance(message, tftp.Data):
            return self._block(message)
        return b""

    def _agree(self, oack: tftp.Oack) -> bytes:
        for option, text in oack.options:
            if option not in self.options or not text.isdigit():
                raise self.fail(f"the server accepts {option}={text}, which was not asked for")
            value = int(text)
            if option in ("blksize", "windowsize") and not 0 < value <= int(self.options[option]):
                raise self.fail(f"the server wants {option} {value}, asked for was {self.options[option]}")
            if option == "blksize":
                self.blksize = value
            elif option == "windowsize":
                self.windowsize = value
            elif option == "tsize":
                self.size = value
        if self.probe:
            self.done = True
            return tftp.pack_error(tftp.BAD_OPTION, "User aborted the transfer")
        return tftp.pack_ack(0)

    def _block(self, data: tftp.Data) -> bytes:
        if self.probe:  # a server without options: the size stays unknown
            self.done = True
            return tftp.pack_error(tftp.NOT_DEFINED, "User aborted the transfer")
        if data.block != (self.block + 1) & 0xFFFF:
            if self.complained == self.block and self.windowsize > 1:
                return b""  # one word about each gap
            self.complained, self.in_window = self.block, 0
            return tftp.pack_ack(self.block)
        self.block += 1
        self.in_window += 1
        self.content += data.payload
        self.done = len(data.payload) < self.blksize
        if self.done or self.in_window >= self.windowsize:
            self.in_window = 0
            return tftp.pack_ack(self.block)
        return b""


def _transfer(
    server: str, name: str, habit: TftpHabit, options: tuple[tuple[str, int], ...], stage: str, *, probe: bool = False
) -> Play[bytes]:
    asked = {option: str(value) for option, value in options}
    session = _Session(server, tftp.pack_request(name, options=asked), asked, stage, name, probe)
    port: int = yield Open()
    try:
        yield from _converse(session, habit, port)
    except Stopped:
        yield Close(port)
        raise
    yield Close(port)
    if not probe and session.size is not None and session.size != len(session.content):
        raise session.fail(f"{len(session.content)} bytes came, {session.size} were announced")
    return bytes(session.content)


def _converse(session: _Session, habit: TftpHabit, port: int) -> Play[None]:
    session.said = session.request
    yield Send(session.request, (session.server, PORT), port)
    wait, tries, idle = habit.timeout, 0, 0
    until: float = (yield Clock()) + wait
    while not session.done:
        heard: Heard | None = yield Listen(port, until)
        if heard is None:
            tries += 1
            if tries >= habit.tries:
                what = "no answer" if session.peer is None else f"nothing more after block {session.block}"
                raise session.fail(f"{what} for {tries} tries")
            wait = min(wait * 2, habit.timeout_max)
            until = (yield Clock()) + wait
            session.in_window = 0
            yield Send(session.said, session.peer or (session.server, PORT), port)
            continue
        if session.peer is not None and heard.peer != session.peer:
            yield Send(tftp.pack_error(tftp.UNKNOWN_ID, "unknown transfer"), heard.peer, port)
            continue
        if heard.peer[0] != session.server:
            continue
        try:
            message = tftp.parse(heard.payload)
        except WireError:
            continue
        before = session.block, session.peer
        session.peer = heard.peer
        answer = session.hear(message)
        if answer:
            session.said = answer
            yield Send(answer, heard.peer, port)
        if (session.block, session.peer) != before:
            wait, tries, idle = habit.timeout, 0, 0
            until = heard.at + wait
        else:
            idle += 1
            if idle > CHATTER_MAX:
                raise session.fail("the server repeats itself without end")
