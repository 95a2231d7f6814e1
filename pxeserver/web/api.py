"""REST API, /api/v1: the fleet's use cases over HTTP, JSON in and out. docs/api.md lists the routes (tested)."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, json

from pxeserver.fleet.fleet import Fleet
from pxeserver.serial import to_json

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")


def fleet() -> Fleet:
    found: Fleet = current_app.config["FLEET"]
    return found


def answer(value: object, status: int = 200) -> Response:
    """A value as JSON; the names are those of fleet/values.py and model.py."""
    return Response(json.dumps(to_json(value)) + "\n", status, mimetype="application/json")


@blueprint.get("/status")
def status() -> Response:
    return answer(fleet().status())
