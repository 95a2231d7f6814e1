"""Names of base images."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pxeserver.errors import PxeServerError, UsageError, Where
from pxeserver.linuxkit import reference
from pxeserver.linuxkit.reference import Reference

HEX = "a" * 64


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("tiny", "docker.io/library/tiny"),
        ("tiny:1", "docker.io/library/tiny:1"),
        ("lab/tiny:1", "docker.io/lab/tiny:1"),
        ("localhost/tiny", "localhost/tiny"),
        ("reg.example/tiny", "reg.example/tiny"),
        ("reg:5000/tiny", "reg:5000/tiny"),
        ("a/b/c:1", "a/b/c:1"),
        (f"lab/tiny@sha256:{HEX}", f"docker.io/lab/tiny@sha256:{HEX}"),
    ],
)
def test_expand(given: str, wanted: str) -> None:
    assert reference.expand(given) == wanted
    assert reference.expand(wanted) == wanted


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("tiny", Reference("docker.io", "library/tiny")),
        ("reg:5000/a/b:v1", Reference("reg:5000", "a/b", "v1")),
        (f"x:1@sha256:{HEX}", Reference("docker.io", "library/x", "1", f"sha256:{HEX}")),
        ("a/b/c:1", Reference("docker.io", "a/b/c", "1")),
        ("[::1]:5000/x", Reference("[::1]:5000", "x")),
        ("localhost/x", Reference("localhost", "x")),
    ],
)
def test_parse(given: str, wanted: Reference) -> None:
    assert reference.parse(given) == wanted


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", "it is empty"),
        ("lab/Bad:1", '"Bad"'),
        ("lab/x:", '"" is no tag'),
        ("lab/x:a b", '"a b" is no tag'),
        ("lab/x:" + "t" * 129, "is no tag"),
        ("lab/x@sha256:12", '"sha256:12" is no digest'),
        ("lab/x@", '"" is no digest'),
        ("lab//x", "an empty part"),
        ("reg.example/", "an empty part"),
        ("reg.example/../x", '".." may hold'),
        ("lab/../../x:1", '".." may hold'),
        ("lab/.x", '".x" may hold'),
        ("lab/x-", '"x-" may hold'),
        ("lab/x___y", '"x___y" may hold'),
        ("-bad-.example/x", "is no registry"),
        ("@pkg:./x", "could not be found"),
        ("https://reg.example/x", "leave out https://"),
        ("lab/" + "x" * 300, "255"),
    ],
)
def test_what_names_no_image_is_refused_with_its_fault(given: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        reference.parse(given, Where("f", 1, 2, "init[0]"))
    assert caught.value.slug == "bad-reference"
    assert words in caught.value.render() and "f:1:2: init[0]" in str(caught.value)


@given(st.text(max_size=60) | st.text("abA.:/@-_[]5\n", max_size=40))
def test_any_text_is_a_reference_or_a_fault(text: str) -> None:
    try:
        parsed = reference.parse(text)
    except PxeServerError:
        return
    assert reference.parse(str(parsed)) == parsed
    assert reference.parse(reference.expand(text)) == parsed
