"""Errors: one shape in the terminal and over REST."""

from __future__ import annotations

import pytest

from pxeserver.errors import NotFound, PxeServerError, Refused, Where, did_you_mean, from_problem, nearest

# those of the tree itself; rooms derive their own from them
KINDS = [PxeServerError, *(k for k in PxeServerError.__subclasses__() if k.__module__ == "pxeserver.errors")]


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_the_way_over_rest(kind: type[PxeServerError]) -> None:
    error = kind("some-slug", "it broke", hint="mend it", where=Where("f.yml", 3, 4, "a.b"))
    back = from_problem(error.problem())
    assert type(back) is kind
    assert (back.slug, back.message, back.hint, str(back)) == ("some-slug", "it broke", "mend it", str(error))


def test_exit_codes_tell_the_kinds_apart() -> None:
    codes = [k.exit_code for k in KINDS]
    assert len(set(codes)) == len(codes)


def test_a_terminal_shows_slug_place_and_hint() -> None:
    error = Refused("in-use", "image web is assigned", hint="unassign it first", where=Where("a.yml", 2))
    assert error.render() == "error[in-use]: a.yml:2: image web is assigned\n  hint: unassign it first"
    assert NotFound("x", "y").render() == "error[x]: y"


def test_the_nearest_name() -> None:
    assert nearest("webb", ["db", "web"]) == "web"
    assert did_you_mean("zzz", ["db", "web"]) == ""
