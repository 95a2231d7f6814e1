"""Which images a trust section means."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pxeserver.errors import UsageError
from pxeserver.linuxkit import lint, loader, trust

Load = Callable[..., loader.Loaded]
D = "@sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("section", "ref", "meant"),
    [
        ("org: [linuxkit]", "linuxkit/init", True),
        ("org: [linuxkit]", "linuxkit/init:v1", True),
        ("org: [linuxkit]", "linuxkit/a/b", True),
        ("org: [linuxkit]", "ghcr.io/linuxkit/init", True),
        ("org: [linuxkit]", "linuxkits/init", False),
        ("org: [linuxkit]", "other/linuxkit", False),
        ("org: [library]", "nginx", True),
        ("org: [nginx]", "nginx", False),
        ("org: [ghcr.io/linuxkit]", "ghcr.io/linuxkit/init", True),
        ("org: [ghcr.io/linuxkit/]", "ghcr.io/linuxkit/init", True),
        ("org: [ghcr.io/linuxkit]", "linuxkit/init", False),
        ("org: [ghcr.io/linux]", "ghcr.io/linuxkit/init", False),
        ("org: [ghcr.io]", "ghcr.io/linuxkit/init", False),
        ("image: [linuxkit/init]", "linuxkit/init", True),
        ("image: [linuxkit/init]", "docker.io/linuxkit/init:v1", True),
        ("image: [docker.io/linuxkit/init]", f"linuxkit/init{D}", True),
        ("image: [linuxkit/init]", "linuxkit/init2", False),
        ("image: [linuxkit/init]", "ghcr.io/linuxkit/init", False),
        ("image: ['linuxkit/init:v1']", "linuxkit/init:v1", True),
        ("image: ['linuxkit/init:v1']", f"linuxkit/init:v1{D}", True),
        ("image: ['linuxkit/init:v1']", "linuxkit/init:v2", False),
        ("image: ['linuxkit/init:v1']", "linuxkit/init", False),
        (f"image: ['linuxkit/init{D}']", f"linuxkit/init:v1{D}", True),
        ("image: [nginx]", "nginx:alpine", True),
    ],
)
def test_what_is_meant(load: Load, section: str, ref: str, meant: bool) -> None:
    loaded = load(f"init: ['{ref}']\ntrust: {{{section}}}")
    assert bool(trust.covered(loaded)) is meant


def test_every_place_an_image_is_used_in(load: Load) -> None:
    loaded = load(
        "kernel: {image: a/k}\ninit: [b/i, a/i]\nvolumes: [{name: v, image: a/v}]\n"
        "onboot: [{name: o, image: a/o}]\nonshutdown: [{name: d, image: a/d}]\nservices: [{name: s, image: b/s}]\n",
        "trust:\n  org: [a]\n",
        "trust:\n  image:\n    - b/s:2\n    - b/s\n",
    )
    found = trust.covered(loaded)
    assert list(found) == ["kernel", "init[1]", "volume[0]", "onboot[0]", "onshutdown[0]", "services[0]"]
    _, rule = found["services[0]"]
    assert (str(rule), str(rule.where)) == ("trust.image: b/s", "3.yml:4:7: trust.image[1]")


def test_strict_trusts_everybody_as_linuxkit_does(load: Load) -> None:
    loaded = load("init: [a/i]\ntrust: {org: [a], image: ['!!']}", strict=True)
    assert (trust.covered(loaded), loaded.warnings) == ({}, ())


def test_a_line_that_names_no_image(load: Load) -> None:
    with pytest.raises(UsageError) as caught:
        trust.covered(load("init: [a/i]\ntrust: {image: [A/I]}"))
    assert (caught.value.slug, str(caught.value.where)) == ("bad-reference", "1.yml:2:17: trust.image[0]")


def test_the_form_of_2017_has_it_too(load: Load) -> None:
    loaded = load("init: linuxkit/init\nsystem: [{name: s, image: x}]\ntrust: {org: [linuxkit]}")
    assert list(trust.covered(loaded)) == ["init[0]"]


def test_lint_tells_of_lines_that_mean_nothing(load: Load) -> None:
    loaded = load(
        "kernel: {image: linuxkit/kernel}\ninit: [x]\ntrust: {org: [linuxkt, linuxkit], image: [linuxkit/init]}"
    )
    found = [f for f in lint.lint(loaded) if f.rule == "trust-unused"]
    assert [str(f.where) for f in found] == ["1.yml:3:15: trust.org[0]", "1.yml:3:43: trust.image[0]"]
