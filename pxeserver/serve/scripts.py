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
from pxeserver.serve.http import Request, Response, Sent
from pxeserver.serve.recorder import Recorder
from pxeserver.serve.site import Site

ANSWERS_MAX = 10_000  # remembered; each takes about 2 KiB
_LOOK = 1.0  # seconds between looks at the templates' times
_TYPE = "text/plain; charset=utf-8"
_NO_STORE = (("Cache-Control", "no-store"),)


@dataclass(frozen=True, slots=True)
class Rendered:
    """A script and what is written down of it; `render` makes the one that tells the machine to wait."""

    text: str
    action: str
    token: Token | None = None
    problem: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    render: Callable[[Wait], str] | None = None  # set when the script loads an image


@dataclass(frozen=True, slots=True)
class Answer:
    """What a question gets. It is written down when the response is out: by then the machine works on it already."""

    rendered: Rendered
    bound: Token
    response: Response


class Scripts:
    """Lives on the loop; `clock` gives Unix seconds."""

    def __init__(self, site: Site, recorder: Recorder, gate: Gate, clock: Callable[[], float]) -> None:
        self._site, self._recorder, self._gate, self._clock = site, recorder, gate, clock
        self._answers: dict[tuple[str, str, str, str, bool], Answer] = {}
        self._world: tuple[object, object, int] = (None, None, 0)
        self._stamp: object = None
        self._looked = 0.0

    def nameless(self, request: Request) -> Response:
        """For an iPXE that has no token: who it is follows from the MACs it tells, asked for if it told none."""
        told = facts.parse(request.head.query)
        if told is None or not told.macs:
            return _response(self._entry(request.own, "", None).text)
        mac = next((mac for mac in told.macs if self._recorder.recent(mac) is not None), told.macs[0])
        token = current(self._recorder, mac, self._clock())
        return self.of_boot(request, tokens.seal(self._recorder.key, token), token)

    def of_boot(self, request: Request, sealed: str, token: Token) -> Response:
        """Without facts the small script that asks again with them; else the machine's own."""
        now = self._clock()
        self._look_around(now)
        began = self._recorder.began(token)
        key = (sealed, request.own, request.head.query, request.peer, began)
        answer = self._answers.get(key)
        if answer is None:
            if len(self._answers) >= ANSWERS_MAX:
                del self._answers[next(iter(self._answers))]
            answer = self._answers[key] = self._answer(request, sealed, token, began)
        if answer.rendered.render is not None:
            site = self._site
            wait = self._gate.ask(token.mac, site.named(request.own), site.config.http, now)
            if wait is not None:
                self._recorder.queued(answer.bound, request.peer, now, wait.seconds, wait.reason, answer.rendered.data)
                return _response(answer.rendered.render(wait))
        return answer.response

    def _answer(self, request: Request, sealed: str, token: Token, began: bool) -> Answer:
        told = facts.parse(request.head.query)
        own = request.own
        made = self._entry(own, sealed, token) if told is None else self._own(own, token, told, began)
        bound, peer, recorder, clock = made.token or token, request.peer, self._recorder, self._clock

        def sent(result: Sent) -> None:
            recorder.script(bound, made.action, peer, clock(), size=result.size, text=made.problem, data=made.data)

        return Answer(made, bound, _response(made.text, sent))

    def _look_around(self, now: float) -> None:
        """Forget the answers when what they follow from has changed."""
        site = self._site
        view, config, port = self._world
        same = view is site.view and config is site.config and port == site.http_port
        if same and 0 <= now - self._looked < _LOOK:
            return
        self._looked = now
        stamp = script.stamp(site.templates)
        if not same or stamp != self._stamp:
            self._answers.clear()
            self._world, self._stamp = (site.view, site.config, site.http_port), stamp

    def _own(self, own: str, token: Token, told: facts.Facts, began: bool) -> Rendered:
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
            return Rendered(text, "refuse", token, str(error), data)
        render = self._waiting(profile, machine, context) if profile.action == "boot" else None
        return Rendered(text, profile.action, token, profile.problem, data, render)

    def _waiting(
        self, profile: Profile, machine: Machine | None, context: script.ScriptContext
    ) -> Callable[[Wait], str]:
        def render(wait: Wait) -> str:
            try:
                return script.render(profile, machine, context, self._site.templates, wait=wait)
            except PxeServerError as error:
                return script.failure(error, context, machine)

        return render

    def _entry(self, own: str, sealed: str, token: Token | None) -> Rendered:
        """The script that asks again with facts."""
        site = self._site
        mac = token.mac if token is not None else ""
        poll = site.config.boot.poll_seconds
        context = script.ScriptContext(site.base_url(own), sealed, mac, poll_seconds=poll)
        try:
            text = script.entry(f"{context.boot_url}/{SCRIPT}", poll_seconds=poll, templates=site.templates)
        except PxeServerError as error:
            return Rendered(script.failure(error, context), "refuse", problem=str(error))
        return Rendered(text, "entry")


def _response(text: str, sent: Callable[[Sent], None] | None = None) -> Response:
    return Response(200, text.encode(), _TYPE, _NO_STORE, sent=sent)
