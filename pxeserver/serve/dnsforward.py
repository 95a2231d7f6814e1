"""Asking others for names that are not ours: each query from a port and with a number that nobody can guess.

The answer counts only if it comes from the server that was asked, with that number and that very question (RFC 5452).
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from pxeserver.config import upstream
from pxeserver.local.interfaces import Interface
from pxeserver.wire import dns
from pxeserver.wire.dns import Answer, Query

IN_FLIGHT = 256
WAIT = 2.0  # seconds for each upstream
ROUNDS = 2
_ANSWER_MAX = 65535
_FAILED = Answer(dns.SERVFAIL, authoritative=False)


def may_ask(peer: str, interfaces: Iterable[Interface]) -> bool:
    """Forwarding is for the neighbourhood: private addresses and our own subnets. We are nobody's open resolver."""
    address = ipaddress.ip_address(peer.partition("%")[0])
    if address.is_private or address.is_loopback or address.is_link_local:
        return True
    return any(address in own.network for i in interfaces for own in i.own)


class Forwarder:
    """At most IN_FLIGHT at once; `running` are the tasks under way."""

    def __init__(self, counts: Counter[str], wait: float = WAIT) -> None:
        self.running: set[asyncio.Task[None]] = set()
        self._counts = counts
        self._wait = wait

    def forward(
        self, query: Query, raw: bytes, upstreams: Sequence[str], later: Callable[[bytes], None], stream: bool
    ) -> None:
        """`later` is called with the answer, or with one that says that there is none."""
        if len(self.running) >= IN_FLIGHT:
            self._counts["forward-full"] += 1
            later(_failed(query, stream))
            return
        self._counts["forwarded"] += 1
        task = asyncio.get_running_loop().create_task(self._ask(query, raw, upstreams, later, stream))
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    async def _ask(
        self, query: Query, raw: bytes, upstreams: Sequence[str], later: Callable[[bytes], None], stream: bool
    ) -> None:
        for text in tuple(upstreams) * ROUNDS:
            server = upstream(text)
            sent = secrets.token_bytes(2) + raw[2:]
            try:
                async with asyncio.timeout(self._wait):
                    answer = await (_by_tcp if stream else _by_udp)(server, sent, query.question)
            except (OSError, EOFError, TimeoutError):
                continue
            later(query.ident + answer[2:])
            return
        self._counts["forward-failed"] += 1
        later(_failed(query, stream))


def _failed(query: Query, stream: bool) -> bytes:
    return dns.reply(query, _FAILED, recursion=True, limit=0 if stream else query.size)


def is_answer(answer: bytes, sent: bytes, question: bytes) -> bool:
    """Whether these bytes answer what was sent: the number, the direction, and the question to the letter."""
    if len(answer) < dns.HEADER or answer[:2] != sent[:2] or not answer[2] & 0x80:
        return False
    if answer[4:6] == b"\0\0" and answer[3] & 15 in (dns.FORMERR, dns.SERVFAIL, dns.NOTIMP, dns.REFUSED):
        return len(answer) == dns.HEADER  # some say no without repeating the question
    return answer[4:6] == b"\0\1" and answer[dns.HEADER : dns.HEADER + len(question)] == question


async def _by_udp(server: tuple[str, int], sent: bytes, question: bytes) -> bytes:
    """From a fresh port, chosen by the kernel at random; connected, so that only that server is heard."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC) as sock:
        sock.connect(server)
        await loop.sock_sendall(sock, sent)
        while True:
            answer = await loop.sock_recv(sock, _ANSWER_MAX)
            if is_answer(answer, sent, question):
                return answer


async def _by_tcp(server: tuple[str, int], sent: bytes, question: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(len(sent).to_bytes(2, "big") + sent)
        await writer.drain()
        answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
    finally:
        writer.close()
    if not is_answer(answer, sent, question):
        raise EOFError("an answer to another question")
    return answer
