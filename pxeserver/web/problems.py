"""Failures as RFC 9457 problem details under /api/; a page's failures are drawn by the pages."""

from __future__ import annotations

import logging

from flask import Flask, Response, json, request
from werkzeug.exceptions import HTTPException

from pxeserver.errors import PxeServerError, UsageError, did_you_mean

log = logging.getLogger(__name__)

API = "/api/"
_SLUGS = {404: "no-such-route", 405: "method-not-allowed", 413: "body-too-large"}


def install(app: Flask) -> None:
    """Error handlers for everything under /api/."""
    app.register_error_handler(PxeServerError, _ours)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _bug)


def response(body: dict[str, object], status: int) -> Response:
    """`body` as application/problem+json."""
    return Response(json.dumps(body) + "\n", status, mimetype="application/problem+json")


def _ours(error: PxeServerError) -> Response:
    if not request.path.startswith(API):
        return Response(error.render() + "\n", error.http_status, mimetype="text/plain")
    answer = response(error.problem(), error.http_status)
    if error.http_status == 401:
        answer.headers["WWW-Authenticate"] = 'Basic realm="pxeserver", charset="UTF-8"'
    return answer


def _http(error: HTTPException) -> Response:
    status = error.code or 500
    if not request.path.startswith(API) or error.response is not None:
        return Response(error.get_response().get_data(), status, error.get_response().headers)
    body: dict[str, object] = {
        "type": _SLUGS.get(status, f"http-{status}"),
        "title": error.description or error.name,
        "status": status,
        "exit_code": UsageError.exit_code if status < 500 else PxeServerError.exit_code,
    }
    answer = response(body, status)
    for name, value in error.get_headers():
        if name.lower() == "allow":
            answer.headers[name] = value
    return answer


def _bug(error: Exception) -> Response:
    """A fault of ours: named in the log, not shown to the other side."""
    log.exception("%s %s failed", request.method, request.path, exc_info=error)
    return _ours(PxeServerError("internal-error", "the server failed to answer", hint="see the server's log"))


def unknown_parameter(name: str, known: tuple[str, ...]) -> UsageError:
    """The error for a query parameter that no route takes."""
    return UsageError(
        "parameter-unknown",
        f'unknown parameter "{name}"{did_you_mean(name, known)}',
        hint="known here: " + (", ".join(known) or "none"),
    )
