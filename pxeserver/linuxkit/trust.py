"""The spec's trust section: which base images must be signed, or pinned by digest.

trust:
  image: [linuxkit/kernel, "linuxkit/init:v1"]     a repository, or one tag of it
  org: [linuxkit, ghcr.io/example]                 all repositories of an organisation, in any registry or in one
"""

from __future__ import annotations

from dataclasses import dataclass

from pxeserver.errors import Where
from pxeserver.linuxkit import plan, reference
from pxeserver.linuxkit.entries import Use
from pxeserver.linuxkit.loader import Loaded


@dataclass(frozen=True, slots=True)
class Rule:
    """One line of a trust section."""

    kind: str  # "image" or "org"
    text: str
    where: Where

    def __str__(self) -> str:
        return f"trust.{self.kind}: {self.text}"

    def covers(self, ref: str) -> bool:
        """Whether the image `ref` (expanded) is meant."""
        asked = reference.parse(ref)
        if self.kind == "org":
            owner = asked.path.partition("/")[0]
            return self.text == owner or asked.name.startswith(f"{self.text.rstrip('/')}/") and "/" in self.text
        named = reference.parse(self.text, self.where)
        return named.name == asked.name and named.tag in ("", asked.tag) and named.digest in ("", asked.digest)


def rules(loaded: Loaded) -> tuple[Rule, ...]:
    """Every line of all sources; none in strict mode, where trust means as little as to LinuxKit."""
    if loaded.strict:
        return ()
    return tuple(
        Rule(kind, text, part.doc.where(("trust", kind, i)))
        for part in loaded.parts
        for kind in ("image", "org")
        for i, text in enumerate(getattr(part.spec.trust, kind))
    )


def covered(loaded: Loaded) -> dict[str, tuple[Use, Rule]]:
    """Location -> use and the first rule that means its image. UsageError "bad-reference" for a line of nonsense."""
    found: dict[str, tuple[Use, Rule]] = {}
    every = rules(loaded)
    for use in plan.uses(loaded):
        rule = next((r for r in every if r.covers(use.ref)), None)
        if rule is not None:
            found[use.location] = (use, rule)
    return found
