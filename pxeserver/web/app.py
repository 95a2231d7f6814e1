"""The Flask application of the admin process: REST API and pages over one Fleet."""

from __future__ import annotations

import secrets

from flask import Flask

from pxeserver.config import Config
from pxeserver.fleet.fleet import Fleet
from pxeserver.web import access, api, pages, problems

BODY_MAX = 1 << 20  # bytes of a request body


def create_app(fleet: Fleet, config: Config) -> Flask:
    """The application; `app.config["FLEET"]` and `["CONFIG"]` are what views work on.

    The front sets REMOTE_ADDR to the peer's address, or to access.UNIX_PEER for the Unix socket.
    """
    app = Flask("pxeserver", static_folder=None, template_folder=None)
    app.config.update(FLEET=fleet, CONFIG=config, SECRET_KEY=secrets.token_bytes(32), MAX_CONTENT_LENGTH=BODY_MAX)
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]
    access.guard(app, config)
    problems.install(app)
    app.register_blueprint(api.blueprint)
    app.register_blueprint(pages.blueprint)
    return app
