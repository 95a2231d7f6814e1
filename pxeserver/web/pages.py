"""The pages: read the fleet, make a view value, render it. Complete without JavaScript, live with it (sse.py).

`blueprint` is registered by create_app; forms.py has the views that change something.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, current_app, g, render_template, request, send_from_directory
from flask.blueprints import BlueprintSetupState
from flask.typing import ResponseReturnValue
from jinja2 import FileSystemLoader, StrictUndefined
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter

from pxeserver import __version__, units
from pxeserver.boot.styles import STYLES
from pxeserver.config import Config
from pxeserver.errors import NotFound, PxeServerError
from pxeserver.fleet.values import ExplainOrder, MachineRow
from pxeserver.local.loaders import LoaderSet
from pxeserver.mac import Mac
from pxeserver.resources import shipped
from pxeserver.web import forms, sse
from pxeserver.web.forms import Notes, fleet
from pxeserver.web.listed import Listed
from pxeserver.web.view import Choice, ChoiceGroup, choices
from pxeserver.web.view_fleet import filter_of, fleet_page
from pxeserver.web.view_pages import boot_page, boots_page, image_page, images_page, machine_page
from pxeserver.when import rfc3339

log = logging.getLogger(__name__)

BOOTS_SHOWN = 100
# how often the ages in words are drawn anew; events come by themselves
AGES = "every 15s"
AGES_MOVING = "every 2s"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # no-referrer would make a form's Origin "null"
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
NAV = (("fleet", "Fleet", "/"), ("boots", "Boots", "/boots"), ("images", "Images", "/images"))

blueprint = Blueprint("pages", __name__)


class PagePath(BaseConverter):
    """Any path that the API does not own: its errors are not pages."""

    regex = "(?!api(/|$)).+"
    part_isolating = False


@blueprint.record_once
def _set_up(state: BlueprintSetupState) -> None:
    """Templates, filters and keys of this application; a user's own templates come first."""
    app = state.app
    config: Config = app.config["CONFIG"]
    app.jinja_loader = FileSystemLoader(
        [*(Path(f) / "web" for f in config.images.templates), shipped("templates") / "web"]
    )
    app.jinja_env.undefined = StrictUndefined
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.filters |= {"rfc3339": rfc3339, "when": units.when, "age": units.age}
    app.url_map.converters["page"] = PagePath
    app.config["LISTED"] = Listed(app.config["FLEET"])
    app.config["NOTES"] = Notes()
    app.config["CSRF_KEY"] = hmac.digest(app.config["FLEET"].secret(), b"forms", "sha256")


@blueprint.before_request
def _moment() -> None:
    """The moment that a live page shows, taken before its data: a change in between is told again, never lost."""
    if request.method == "GET" and request.endpoint != "pages.static_file":
        g.cursor = sse.cursor(fleet())


@blueprint.after_request
def _headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response


@blueprint.get("/")
def fleet_view() -> ResponseReturnValue:
    wanted = filter_of(request.args)
    page = fleet_page(
        _machines(),
        wanted,
        policy=current_app.config["CONFIG"].dhcp.unknown,
        images=len(fleet().images()),
        choices=_choices(),
    )
    return _page("fleet.html", "fleet", page, live=f"fleet from:body, {AGES}")


@blueprint.get("/machines/<target>")
def machine_view(target: str) -> ResponseReturnValue:
    config: Config = current_app.config["CONFIG"]
    page = machine_page(
        fleet().show(target),
        fleet().explain(target, ExplainOrder()),
        time.time(),
        choices=_choices(),
        styles=tuple(Choice(s.name, f"{s.name}: {s.about}") for s in STYLES.values()),
        loaders=[loader.name for loader in LoaderSet(config.data / "loaders").list()],
    )
    ages = AGES_MOVING if page.status.slug == "booting" else AGES
    return _page("machine.html", "fleet", page, live=_live(page.key, ages))


@blueprint.get("/boots")
def boots_view() -> ResponseReturnValue:
    page = boots_page(fleet().boots(limit=BOOTS_SHOWN), time.time())
    return _page("boots.html", "boots", page, live=f"fleet from:body, {AGES}")


@blueprint.get("/boots/<ident>")
def boot_view(ident: str) -> ResponseReturnValue:
    page = boot_page(fleet().boot(ident), time.time())
    ages = AGES_MOVING if page.boot.status.slug == "booting" else AGES
    return _page("boot.html", "boots", page, live=_live(page.mac, ages))


@blueprint.get("/images")
def images_view() -> ResponseReturnValue:
    page = images_page(fleet().images(), fleet().view().newest, _machines())
    return _page("images.html", "images", page, live="fleet from:body")


@blueprint.get("/images/<digest>")
def image_view(digest: str) -> ResponseReturnValue:
    page = image_page(fleet().catalogue.get(digest), fleet().view().newest, _machines())
    return _page("image.html", "images", page, live=f"fleet from:body, {AGES}")


for _verb in (forms.assign, forms.unassign, forms.pin, forms.rename, forms.adopt):
    _rule = f"/machines/<target>/{_verb.__name__}"
    blueprint.add_url_rule(_rule, endpoint=_verb.__name__, view_func=_verb, methods=["POST"])


@blueprint.get(sse.PATH)
def events() -> ResponseReturnValue:
    """Only the check that this visitor may listen: the front, which has the loop, puts the stream in its place."""
    return Response(mimetype=sse.TYPE)


@blueprint.get("/static/<version>/<name>")
def static_file(version: str, name: str) -> ResponseReturnValue:
    """The address carries the content's hash, so that a browser never asks twice for the same."""
    response = send_from_directory(_static_folder(), name, max_age=365 * 86400)
    response.headers["Cache-Control"] = "public, max-age=31536000, immutable" if version == _hash(name) else "no-cache"
    return response


@blueprint.get("/favicon.ico")
def favicon() -> ResponseReturnValue:
    return send_from_directory(_static_folder(), "icon.svg", max_age=86400)


@blueprint.get("/<page:path>")
def nowhere(path: str) -> ResponseReturnValue:
    raise NotFound("page-not-found", f"there is no page /{path}", hint="the fleet's page lists every machine")


@blueprint.errorhandler(PxeServerError)
def _failed(error: PxeServerError) -> ResponseReturnValue:
    body, status = problem_page(error.problem())
    return body, status, {"WWW-Authenticate": 'Basic realm="pxeserver", charset="UTF-8"'} if status == 401 else {}


@blueprint.errorhandler(HTTPException)
def _refused(error: HTTPException) -> ResponseReturnValue:
    title = (error.name or "error").lower()
    return problem_page({"type": title.replace(" ", "-"), "title": title, "status": error.code or 500})


@blueprint.errorhandler(Exception)
def _bug(error: Exception) -> ResponseReturnValue:
    """A fault of ours: named in the log, not shown to the other side."""
    log.exception("%s %s failed", request.method, request.path, exc_info=error)
    return problem_page(
        {
            "type": "internal-error",
            "title": "the server failed to answer",
            "hint": "see the server's log",
            "status": 500,
        }
    )


def problem_page(problem: Mapping[str, object]) -> tuple[str, int]:
    """An error as a page, in the shape that the API has: type, title, status, hint, where."""
    whole = {"hint": "", "where": "", **problem}
    body = _render("error.html", "", problem=whole, back=request.referrer if _own(request.referrer) else "/")
    return body, int(str(problem["status"]))


def _own(address: str | None) -> bool:
    return bool(address and address.startswith(request.host_url))


def _page(template: str, section: str, page: object, *, live: str) -> str:
    return _render(template, section, page=page, live=live)


def _render(template: str, section: str, *, live: str = "", **values: Any) -> str:
    refresh = request.args.get("refresh", "")
    note = current_app.config["NOTES"].get(request.args.get("note", ""))
    return render_template(
        template,
        **values,
        live=live,
        section=section,
        nav=NAV,
        now=time.time(),
        zone=time.strftime("%Z"),
        version=__version__,
        cursor=g.get("cursor", ""),
        events=sse.PATH,
        csrf=forms.csrf_token(),
        note=note,
        refresh=int(refresh) if refresh.isascii() and refresh.isdigit() and 0 < int(refresh[:4]) <= 3600 else 0,
        here=_here,
        static=_static,
    )


def _live(mac: Mac, ages: str) -> str:
    """What makes a page of one machine fetch itself again."""
    return f"{sse.topic(mac)} from:body, resync from:body, {ages}"


def _here(**changes: object) -> str:
    """This page's address with some of the query changed; None takes a name out."""
    query = {**request.args.to_dict(), **changes}
    text = urlencode({k: v for k, v in query.items() if v is not None})
    return f"{request.path}?{text}" if text else request.path


def _machines() -> tuple[MachineRow, ...]:
    listed: Listed = current_app.config["LISTED"]
    return listed.machines()


def _choices() -> tuple[ChoiceGroup, ...]:
    view = fleet().view()
    return choices(view.images.values(), view.newest, time.time())


def _static_folder() -> Path:
    return shipped("templates") / "web" / "static"


@cache
def _hash(name: str) -> str:
    return hashlib.sha256((_static_folder() / name).read_bytes()).hexdigest()[:12]


def _static(name: str) -> str:
    return f"/static/{_hash(name)}/{name}"
