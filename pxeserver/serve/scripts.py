"""Which script a machine is given. Rendered once per question: the same one in the same world has the same answer.

A waiting machine asks every few seconds, thousands of them all the time. The memory of answers lasts until the fleet,
the configuration or a template changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from pxeserver.boot import facts, script
from pxeserver.boot import token as tokens
from pxeserver.boot.admission import Wait
from pxeserver.boot.answer import SCRIPT
from pxeserver.boot.profile import Profile
from pxeserver.boot.token import Token
from pxeserver.errors import PxeServerError
from pxeserver.model import Machine
from pxeserver.serve.gate import Gate
from pxeserver.serve.handout import current, handout
from pxeserver.serve.http import Request, Response
from pxeserver.serve.recorder import Recorder
from pxeserver.serve.site import Site

ANSWERS_MAX = 10_000  # remembered; each takes about 2 KiB
_LOOK = 1.0  # seconds between looks at the templates' times
_TYPE = "text/plain; charset=utf-8"
_NO_STORE = (("Cache-Control", "no-store"),)


@dataclass(frozen=True, slots=True)
class Answer:
    """A rendered script and what is written down of it; `render` makes the one that tells it to wait."""

    response: Response
    action: str
    token: Token | None = None
    problem: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    render: Callable[[Wait], str] | None = None  # set when the script loads an image


class Scripts:
    """Lives on the loop; `clock` gives Unix seconds."""

    def __init__(self, site: Site, recorder: Recorder, gate: Gate, clock: Callable[[], float]) -> None:
        self._site, self._recorder, self._gate, self._clock = site, recorder, gate, clock
        self._answers: dict[tuple[str, str, str, bool], Answer] = {}
        self._world: tuple[object, ...] = ()
        self._stamp: object = None
        self._looked = 0.0

    def nameless(self, request: Request) -> Response:
        """For an iPXE that has no token: who it is follows from the MACs it tells, asked for if it told none."""
        told = facts.parse(request.head.query)
        if told is None or not told.macs:
            return self._entry(request.own, "", None).response
        mac = next((mac for mac in told.macs if self._recorder.recent(mac) is not None), told.macs[0])
        token = current(self._recorder, mac, self._clock())
        return self.of_boot(request, tokens.seal(self._recorder.key, token), token)

    def of_boot(self, request: Request, sealed: str, token: Token) -> Response:
        """Without facts the small script that asks again with them; else the machine's own."""
        now = self._clock()
        self._look_around(now)
        began = self._recorder.began(token)
        key = (sealed, request.own, request.head.query, began)
        answer = self._answers.get(key)
        if answer is None:
            told = facts.parse(request.head.query)
            if told is None:
                answer = self._entry(request.own, sealed, token)
            else:
                answer = self._own(request.own, token, told, began)
            if len(self._answers) >= ANSWERS_MAX:
                del self._answers[next(iter(self._answers))]
            self._answers[key] = answer
        bound = answer.token or token
        if answer.render is not None:
            site = self._site
            wait = self._gate.ask(token.mac, site.named(request.own), site.config.http, now)
            if wait is not None:
                self._recorder.queued(bound, request.peer, now, wait.seconds, wait.reason, answer.data)
                return _response(answer.render(wait))
        size = len(answer.response.body)
        self._recorder.script(bound, answer.action, request.peer, now, size=size, text=answer.problem, data=answer.data)
        return answer.response

    def _look_around(self, now: float) -> None:
        """Forget the answers when what they follow from has changed."""
        world = (self._site.view, self._site.config, self._site.http_port)
        same = len(self._world) == len(world) and all(a is b for a, b in zip(world, self._world, strict=True))
        if same and 0 <= now - self._looked < _LOOK:
            return
        self._looked = now
        stamp = script.stamp(self._site.templates)
        if not same or stamp != self._stamp:
            self._answers.clear()
            self._world, self._stamp = world, stamp

    def _own(self, own: str, token: Token, told: facts.Facts, began: bool) -> Answer:
        site = self._site
        given = handout(site, token, began, *told.macs)
        machine, profile, token = given.machine, given.profile, given.token
        sealed = tokens.seal(self._recorder.key, token)
        poll = site.config.boot.poll_seconds
        context = script.ScriptContext(site.base_url(own), sealed, token.mac, told.platform, poll, told.data)
        data = {**told.data, **given.bound}
        try:
            text = script.render(profile, machine, context, site.templates)
        except PxeServerError as error:
            text = script.failure(error, context, machine)
            return Answer(_response(text), "refuse", token, str(error), data)
        render = self._waiting(profile, machine, context) if profile.action == "boot" else None
        return Answer(_response(text), profile.action, token, profile.problem, data, render)

    def _waiting(
        self, profile: Profile, machine: Machine | None, context: script.ScriptContext
    ) -> Callable[[Wait], str]:
        def render(wait: Wait) -> str:
            try:
                return script.render(profile, machine, context, self._site.templates, wait=wait)
            except PxeServerError as error:
                return script.failure(error, context, machine)

        return render

    def _entry(self, own: str, sealed: str, token: Token | None) -> Answer:
        """The script that asks again with facts."""
        site = self._site
        mac = token.mac if token is not None else ""
        poll = site.config.boot.poll_seconds
        context = script.ScriptContext(site.base_url(own), sealed, mac, poll_seconds=poll)
        try:
            text = script.entry(f"{context.boot_url}/{SCRIPT}", poll_seconds=poll, templates=site.templates)
        except PxeServerError as error:
            return Answer(_response(script.failure(error, context)), "refuse", problem=str(error))
        return Answer(_response(text), "entry")


def _response(text: str) -> Response:
    return Response(200, text.encode(), _TYPE, _NO_STORE)
