"""What the admin process serves for one fleet: the application, and the stream that keeps its pages live."""

from __future__ import annotations

from functools import partial

from pxeserver.config import Config
from pxeserver.fleet.fleet import Fleet
from pxeserver.serve.admin import Web
from pxeserver.web import sse
from pxeserver.web.app import create_app


def make_web(fleet: Fleet, config: Config) -> Web:
    """The web room's side of serve.admin; the command line hands it to the supervisor."""
    return Web(create_app(fleet, config), sse.Hub(partial(sse.look, fleet)).stream)
