"""The boot HTTP routes: scripts, files, phone-home. What a machine may ask; no fleet data but its own.

GET       /boot/TOKEN/script.ipxe, /boot/script.ipxe?mac=..&platform=..
GET HEAD  /boot/TOKEN/loader/NAME, /b/HEX/NAME?boot=TOKEN
POST      /boot/TOKEN/event, /boot/TOKEN/log;  GET POST /boot/TOKEN/up
GET HEAD  /boot/TOKEN/metadata, /boot/TOKEN/config.cpio, /healthz
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace

from pxeserver.boot import personal
from pxeserver.boot import token as tokens
from pxeserver.boot.answer import SCRIPT
from pxeserver.boot.token import Token
from pxeserver.errors import PxeServerError
from pxeserver.images.personal import initrd
from pxeserver.local.interfaces import neighbour
from pxeserver.model import Machine, Stage
from pxeserver.serve.gate import Gate
from pxeserver.serve.http import Request, Response, Sent
from pxeserver.serve.loaderfiles import find_loader, is_autoexec
from pxeserver.serve.openfiles import OpenFile, OpenFiles
from pxeserver.serve.proxies import networks, seen_through
from pxeserver.serve.recorder import Delivery, File, Recorder
from pxeserver.serve.scripts import Scripts
from pxeserver.serve.site import Site

log = logging.getLogger("pxeserver.boot")

REPORTED = (Stage.NETWORK, Stage.CONTAINERD, Stage.UP)  # stages that a booted system may report
TEXT_MAX = 64 << 10
_FILE_TYPE = "application/octet-stream"
_LOADER_TYPES = {".efi": "application/efi", ".iso": "application/vnd.efi-iso", ".img": "application/vnd.efi-img"}
_NO_STORE = (("Cache-Control", "no-store"),)
_FOREVER = (("Cache-Control", "public, max-age=31536000, immutable"),)

_NOT_FOUND = Response(404, b"not found\n", headers=_NO_STORE)
_DONE = Response(204)


class BootRoutes:
    """`routes(request)` is the front's handler; it never waits."""

    def __init__(
        self,
        site: Site,
        recorder: Recorder,
        health: Callable[[], dict[str, object]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._site = site
        self._recorder = recorder
        self._health = health
        self._clock = clock
        self.gate = Gate()
        self.files = OpenFiles()
        self.proxies = networks(site.config.http.proxies)
        self._scripts = Scripts(site, recorder, self.gate, clock)

    def __call__(self, request: Request) -> Response:
        request = seen_through(request, self.proxies)
        match request.path.strip("/").split("/"):
            case ["healthz"]:
                return self._only(request, "GET", "HEAD") or _json(self._health())
            case ["b", hex_digest, _]:
                return self._only(request, "GET", "HEAD") or self._blob(request, hex_digest)
            case ["boot", name] if name == SCRIPT:
                return self._only(request, "GET", "HEAD") or self._scripts.nameless(request)
            case ["boot", sealed, *rest]:
                token = tokens.open(self._recorder.key, sealed)
                if token is not None:
                    return self._of_boot(request, sealed, token, rest)
        return _NOT_FOUND

    def _of_boot(self, request: Request, sealed: str, token: Token, rest: list[str]) -> Response:
        match rest:
            case [name] if name == SCRIPT:
                return self._only(request, "GET", "HEAD") or self._scripts.of_boot(request, sealed, token)
            case ["loader", *path] if path:
                return self._only(request, "GET", "HEAD") or self._loader(request, sealed, token, "/".join(path))
            case ["up"]:
                return self._only(request, "GET", "POST") or self._up(request, token)
            case ["event"]:
                return self._only(request, "POST") or self._event(request, token)
            case ["log"]:
                return self._only(request, "POST") or self._log(request, token)
            case [name] if name == personal.NAME:
                return self._only(request, "GET", "HEAD") or self._config(request, sealed, token)
            case ["metadata"]:
                return self._only(request, "GET", "HEAD") or self._metadata(token)
        return _NOT_FOUND

    def _only(self, request: Request, *methods: str) -> Response | None:
        if request.method in methods:
            return None
        return Response(405, b"method not allowed\n", headers=(("Allow", ", ".join(methods)),))

    # --- files ---

    def _blob(self, request: Request, hex_digest: str) -> Response:
        """A file of a built image. The digest alone decides the bytes; the token is for the record."""
        found = self._site.blob(hex_digest)
        if found is None:
            return _NOT_FOUND
        path, kind = found
        type_ = _LOADER_TYPES[".efi"] if kind == "uki" else _FILE_TYPE
        token = tokens.open(self._recorder.key, request.query.get("boot", ""))
        if request.via and self._site.config.http.x_accel:
            return self._handed_over(request, hex_digest, type_, token, kind)
        try:
            file = self.files.take(path)
        except OSError:
            return _NOT_FOUND
        return self._file(request, file, hex_digest, type_, token, kind, hex_digest[:12])

    def _handed_over(self, request: Request, hex_digest: str, type_: str, token: Token | None, what: File) -> Response:
        """The proxy sends the file itself; whether it arrives only its log knows."""
        if token is not None and request.method == "GET":
            now = self._clock()
            self._recorder.handed(token, what, hex_digest[:12], request.peer, request.via, now)
            self.gate.begun(token.mac, now)
            self.gate.ended(token.mac, now, last=False)
        headers = (*_FOREVER, ("ETag", f'"{hex_digest}"'))
        if f'"{hex_digest}"' in request.head.headers.get("if-none-match", ""):
            return Response(304, headers=headers)
        location = self._site.config.http.x_accel + hex_digest
        return Response(200, b"", type_, (*headers, ("X-Accel-Redirect", location)))

    def _loader(self, request: Request, sealed: str, token: Token, path: str) -> Response:
        if is_autoexec(path):
            return self._scripts.of_boot(request, sealed, token)
        found = find_loader(self._site.config.data / "loaders", path)
        if found is None:
            return _NOT_FOUND
        stat = found.stat()
        kind = _LOADER_TYPES.get(found.suffix.lower(), _FILE_TYPE)
        try:
            file = OpenFile.at(found)
        except OSError:
            return _NOT_FOUND
        return self._file(request, file, f"{stat.st_mtime_ns:x}-{stat.st_size:x}", kind, token, "loader", found.name)

    def _file(
        self, request: Request, file: OpenFile, etag: str, kind: str, token: Token | None, what: File, name: str
    ) -> Response:
        headers = _NO_STORE if what == "loader" else _FOREVER
        if token is None:
            return Response(file=file, type=kind, etag=etag, headers=headers)
        if request.method == "GET":
            self._recorder.asked(token, what, self._clock())
            if what != "loader":
                self.gate.begun(token.mac, self._clock())

        def sent(result: Sent) -> None:
            if what != "loader":
                last = what in ("initrd", "uki") and result.to_the_end
                self.gate.ended(token.mac, self._clock(), last=last)
            moved = Delivery(name, request.peer, result.first + result.sent, result.size, result.seconds)
            if result.to_the_end:
                self._recorder.sent(token.mac, token.boot, what, moved, self._clock())
            elif result.sent < result.wanted:
                broken = replace(moved, why="the machine closed the connection, or took nothing more")
                self._recorder.stopped(token.mac, token.boot, what, broken, self._clock())

        return Response(file=file, type=kind, etag=etag, headers=headers, sent=sent)

    # --- phone-home ---

    def _up(self, request: Request, token: Token) -> Response:
        self._recorder.reported(token, Stage.UP, request.peer, self._clock(), {"ip": request.peer}, "")
        return _DONE

    def _event(self, request: Request, token: Token) -> Response:
        """`stage=` or `cause=` with `text=` and `memory=` (MiB), as a form or a query."""
        given = {**request.query, **request.form}
        text = given.get("text", "")[:TEXT_MAX]
        data = {"ip": request.peer, "memory": given.get("memory", "")}
        if given.get("stage") in REPORTED:
            self._recorder.reported(token, Stage(given["stage"]), request.peer, self._clock(), data, text)
        elif given.get("cause"):
            cause = {"cause": given["cause"][:60], **data}
            self._recorder.said(token, "cause", request.peer, self._clock(), text, cause)
        else:
            return Response(400, b"stage= must be network, containerd or up; or say cause=\n")
        return _DONE

    def _log(self, request: Request, token: Token) -> Response:
        text = request.body[:TEXT_MAX].decode("utf-8", "replace")
        self._recorder.said(token, "log", request.peer, self._clock(), text, {})
        return _DONE

    def _metadata(self, token: Token) -> Response:
        """What the booted system may know of itself."""
        return Response(200, self._described(token), "application/json", _NO_STORE)

    def _described(self, token: Token) -> bytes:
        image = self._site.view.image_by_prefix(token.image) if token.image else None
        return personal.metadata(self._site.machine(token.mac), token.mac, token.boot, image)

    def _is(self, machine: Machine, token: Token, peer: str) -> bool:
        """Whether this is who began the boot, by its address, and no other machine of the fleet, by its MAC."""
        if self._recorder.asker(token) not in ("", peer):
            return False
        other = self._site.view.machine(neighbour(peer) or "")
        return other is None or other.id == machine.id

    def _config(self, request: Request, sealed: str, token: Token) -> Response:
        """The machine's own files; to the machine alone, and until it is up."""
        machine = self._site.machine(token.mac)
        if machine is None or self._recorder.over(token):
            return _NOT_FOUND
        if not self._is(machine, token, request.peer):
            log.warning("%s asked for the files of %s: not given", request.peer, token.mac)
            return _NOT_FOUND
        url = f"{self._site.base_url(request.own)}/boot/{sealed}"
        try:
            archive = initrd(personal.files(machine, self._described(token), url))
        except PxeServerError as error:
            return Response(409, f"{error}\n".encode(), headers=_NO_STORE)
        if request.method == "GET":
            text, data = f"{personal.NAME}, {len(archive)} bytes", {"what": "config"}
            self._recorder.said(token, "note", request.peer, self._clock(), text, data)
        return Response(200, archive, _FILE_TYPE, _NO_STORE)


def _json(body: dict[str, object]) -> Response:
    return Response(200, json.dumps(body, indent=1).encode() + b"\n", "application/json", _NO_STORE)
