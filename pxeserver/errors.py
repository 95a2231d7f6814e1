"""Every failure a person can meet: one tree, one shape, stable slugs.

    PxeServerError            slug, message, hint, where; exit code 1, HTTP 500
    +-- UsageError            the request itself makes no sense      exit 2, HTTP 400
    +-- NotFound              what it names does not exist           exit 3, HTTP 404
    +-- Refused               it exists, but this must not be done   exit 4, HTTP 409
    +-- Unreachable           a server or a peer does not answer     exit 5, HTTP 502
    +-- Partial               some targets done, some not            exit 6, HTTP 207
    +-- TimedOut              waited long enough                     exit 7, HTTP 504

CLI, REST and logs print the same slug: `error[image-not-found]: no image "webb"`.
Messages do not end with a period. Every slug is listed in docs/errors.md (a test compares).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Where:
    """A place in a user's file: 1-based line and column, dotted field path."""

    file: str = ""
    line: int | None = None
    column: int | None = None
    field: str = ""

    def __str__(self) -> str:
        place = self.file
        if self.line is not None:
            place += f":{self.line}"
            if self.column is not None:
                place += f":{self.column}"
        return f"{place}: {self.field}" if place and self.field else place or self.field


class PxeServerError(Exception):
    """A failure with a stable slug, a message for a person, and what to do about it."""

    exit_code = 1
    http_status = 500

    def __init__(self, slug: str, message: str, *, hint: str = "", where: Where | None = None) -> None:
        super().__init__(message)
        self.slug = slug
        self.message = message
        self.hint = hint
        self.where = where

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where and str(self.where) else self.message
        return f"error[{self.slug}]: {text}"

    def render(self) -> str:
        """The two lines a terminal shows: what is wrong and where, then the hint."""
        return f"{self}\n  hint: {self.hint}" if self.hint else str(self)

    def problem(self) -> dict[str, object]:
        """RFC 9457 problem details, as the REST API sends them."""
        body: dict[str, object] = {
            "type": self.slug,
            "title": self.message,
            "status": self.http_status,
            "exit_code": self.exit_code,
        }
        if self.hint:
            body["hint"] = self.hint
        if self.where:
            body["where"] = str(self.where)
        return body


class UsageError(PxeServerError):
    exit_code, http_status = 2, 400


class NotFound(PxeServerError):
    exit_code, http_status = 3, 404


class Refused(PxeServerError):
    exit_code, http_status = 4, 409


class Unreachable(PxeServerError):
    exit_code, http_status = 5, 502


class Partial(PxeServerError):
    exit_code, http_status = 6, 207


class TimedOut(PxeServerError):
    exit_code, http_status = 7, 504


_BY_EXIT: dict[int, type[PxeServerError]] = {
    c.exit_code: c for c in (PxeServerError, UsageError, NotFound, Refused, Unreachable, Partial, TimedOut)
}


def from_problem(body: dict[str, object]) -> PxeServerError:
    """The exception that a problem body of our REST API stands for (inverse of `problem`)."""
    kind = _BY_EXIT.get(int(str(body.get("exit_code", 1))), PxeServerError)
    error = kind(str(body.get("type", "unknown")), str(body.get("title", "")), hint=str(body.get("hint", "")))
    if body.get("where"):
        error.where = Where(file=str(body["where"]))
    return error


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name most like `name`, or "" when none is near."""
    hits = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return hits[0] if hits else ""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """' - did you mean "x"?' or ''; appended to messages that name an unknown thing."""
    near = nearest(name, known)
    return f' - did you mean "{near}"?' if near else ""
