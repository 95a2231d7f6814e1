"""What the pages' forms do: one use case, then a redirect to a page with a note of what changed and how to undo it.

No cookie: a form carries a token that only a page of ours could have given, and a note waits under a random name
that stands in the address.
"""

from __future__ import annotations

import hmac
import secrets
import shlex
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import ParamSpec

from flask import Response, current_app, redirect, request
from flask.typing import ResponseReturnValue

from pxeserver.errors import Refused, UsageError
from pxeserver.fleet.fleet import Fleet
from pxeserver.fleet.values import AssignOrder, Change, MachineEdit
from pxeserver.web.view import machine_href

P = ParamSpec("P")
DAY = 86400
NOTES_MAX = 200


@dataclass(frozen=True, slots=True)
class Note:
    """What a form did, shown above the page it leads to."""

    tone: str
    text: str
    more: tuple[str, ...] = ()
    undo: str = ""


@dataclass
class Notes:
    """The latest notes by random name: a page that reloads itself keeps showing its own."""

    _kept: OrderedDict[str, Note] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def keep(self, note: Note) -> str:
        name = secrets.token_urlsafe(9)
        with self._lock:
            self._kept[name] = note
            while len(self._kept) > NOTES_MAX:
                self._kept.popitem(last=False)
        return name

    def get(self, name: str) -> Note | None:
        with self._lock:
            return self._kept.get(name)


def fleet() -> Fleet:
    found: Fleet = current_app.config["FLEET"]
    return found


def csrf_token(day: int | None = None) -> str:
    """Today's token: made with the fleet's key, so that a restart does not spoil an open form."""
    number = int(time.time()) // DAY if day is None else day
    key: bytes = current_app.config["CSRF_KEY"]
    return hmac.digest(key, f"pages {number}".encode(), "sha256").hex()[:32]


def check_csrf() -> None:
    """Refuse a form that no page of ours gave out today or yesterday, or that another site sent."""
    given = request.form.get("csrf", "")
    today = int(time.time()) // DAY
    fresh = any(hmac.compare_digest(given.encode(), csrf_token(day).encode()) for day in (today, today - 1))
    if not fresh or request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise Refused(
            "form-expired",
            "this form is not one that the server gave out lately",
            hint="reload the page and send the form again",
        )


def action(work: Callable[P, tuple[str, Note]]) -> Callable[P, ResponseReturnValue]:
    """A form's view: token checked, the work done, the browser sent (303) to the address that it returns."""

    def view(*args: P.args, **kwargs: P.kwargs) -> Response:
        check_csrf()
        where, note = work(*args, **kwargs)
        notes: Notes = current_app.config["NOTES"]
        mark = "&" if "?" in where else "?"
        response = redirect(f"{where}{mark}note={notes.keep(note)}", 303)
        assert isinstance(response, Response)
        return response

    view.__name__ = work.__name__
    return view


@action
def assign(target: str) -> tuple[str, Note]:
    (change,) = fleet().assign([target], _order(request.form.get("image", "")))
    return machine_href(change.mac), note_of([change])


@action
def unassign(target: str) -> tuple[str, Note]:
    (change,) = fleet().unassign([target])
    return machine_href(change.mac), note_of([change])


@action
def pin(target: str) -> tuple[str, Note]:
    change = fleet().pin(target, style=request.form.get("style", ""), loader=request.form.get("loader", ""))
    return machine_href(change.mac), note_of([change])


@action
def rename(target: str) -> tuple[str, Note]:
    change = fleet().set_machine(target, MachineEdit(name=request.form.get("name", "").strip()))
    return machine_href(change.mac), note_of([change])


@action
def adopt(target: str) -> tuple[str, Note]:
    """An unknown machine gets a name, an image, or both; it goes back to the list, which has the next one."""
    name, image = request.form.get("name", "").strip(), request.form.get("image", "")
    if not name and not image:
        raise UsageError(
            "adopt-nothing", "neither a name nor an image was given", hint="go back and fill in one of them"
        )
    changes: list[Change] = []
    if name:
        changes.append(fleet().set_machine(target, MachineEdit(name=name)))
    if image:
        changes += fleet().assign([target], _order(image))
    return "/", note_of(changes)


def _order(what: str) -> AssignOrder:
    if not what:
        raise UsageError("image-missing", "no image was chosen", hint="go back and choose one")
    form = request.form
    follow = form.get("follow") == "1"
    if follow:
        image = fleet().view().images.get(what)
        what = image.spec if image else what
    try:
        args = tuple(shlex.split(form.get("args", "")))
    except ValueError as error:
        raise UsageError("args-quotes", f"the arguments cannot be split: {error}", hint="close every quote") from None
    reason, force = form.get("reason", "").strip(), form.get("force") == "1"
    return AssignOrder(what, follow=follow, args=args, reason=reason, by="page", force=force)


def note_of(changes: Sequence[Change]) -> Note:
    """Before and after of every field, what the machine gets, the undo of the last change, warnings."""
    last = changes[-1]
    diffs = [d for change in changes for d in change.changes]
    lines = [f"{d.field}: {d.before or 'none'} → {d.after or 'none'}" for d in diffs]
    if last.gets:
        lines.append(f"It gets {last.gets}.")
    warnings = [f"Note: {w}" for change in changes for w in change.warnings]
    undo = [change.undo for change in reversed(changes) if change.undo]
    title = last.name or last.mac
    text = f"{title} changed" if diffs else f"{title}: nothing to change"
    return Note("warn" if warnings else "ok", text, (*lines, *warnings), "; ".join(undo))
