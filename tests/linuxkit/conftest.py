"""Loading specs from text, planning them over made-up images, and comparing whole files with goldens."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from pxeserver.linuxkit import loader, plan
from pxeserver.linuxkit.entries import ContainerEntry, ImageDefaults, Plan
from pxeserver.linuxkit.label import LABEL

GOLDEN = Path(__file__).parent / "golden"

Golden = Callable[[str, bytes], None]


@pytest.fixture
def golden(update_goldens: bool) -> Golden:
    """Compare bytes with a file under golden/, or write it with --update-goldens."""

    def check(name: str, got: bytes) -> None:
        file = GOLDEN / name
        if update_goldens:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(got)
        assert got == file.read_bytes()

    return check


@pytest.fixture
def load() -> Callable[..., loader.Loaded]:
    """load("text", "more text", strict=True): sources are called 1.yml, 2.yml, ..."""

    def make(*texts: str | bytes, strict: bool = False, folder: Path | None = None) -> loader.Loaded:
        sources = [loader.SpecSource(f"{i}.yml", text, folder) for i, text in enumerate(texts, 1)]
        return loader.load(sources, strict=strict)

    return make


@pytest.fixture
def planned(load: Callable[..., loader.Loaded]) -> Callable[..., Plan]:
    """planned("text", labels={"x": {...}}): every image has the command /run, and maybe a label."""

    def make(*texts: str, labels: Mapping[str, Any] | None = None, strict: bool = False, **kw: Any) -> Plan:
        loaded = load(*texts, strict=strict, **kw)
        given = {ref: v if isinstance(v, str) else json.dumps(v) for ref, v in (labels or {}).items()}
        images = {}
        for use in plan.uses(loaded):
            name = use.ref.rpartition("/")[2]
            images[use.ref] = ImageDefaults(cmd=("/run",), labels={LABEL: given[name]} if name in given else {})
        return plan.plan(loaded, images, lambda path: "missing" not in str(path))

    return make


@pytest.fixture
def config_of(planned: Callable[..., Plan]) -> Callable[..., dict[str, Any]]:
    """config.json of one service with image x and these fields (YAML flow text without braces)."""

    def make(fields: str = "", label: Any = None, strict: bool = False) -> dict[str, Any]:
        text = f"services: [{{name: s, image: x{', ' if fields else ''}{fields}}}]"
        made = planned(text, labels={} if label is None else {"x": label}, strict=strict)
        (entry,) = (e for e in made.entries if isinstance(e, ContainerEntry))
        body: dict[str, Any] = json.loads(entry.config_json)
        return body

    return make
