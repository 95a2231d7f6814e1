"""`specs lint`: what a spec does that will, or may, go wrong on a machine, though it can be built.

Pure but for the files that the spec itself takes in. Base images are looked at only as far as they are given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from pxeserver.errors import PxeServerError, UsageError, Where, did_you_mean
from pxeserver.linuxkit import lintboot, lintfiles, lintsecrets
from pxeserver.linuxkit.lintbase import Base, Finding, Rule, subject
from pxeserver.linuxkit.loader import Loaded

RULES: tuple[Rule, ...] = (*lintboot.RULES, *lintfiles.RULES, *lintsecrets.RULES)


def lint(
    loaded: Loaded,
    bases: Mapping[str, Base] | None = None,
    *,
    pinned: Iterable[str] = (),
    ignored: Iterable[str] = (),
) -> tuple[Finding, ...]:
    """Every finding, in the order of the file. `bases` and `pinned` by expanded references.

    UsageError as a build raises it for a spec or label that cannot be used, "lint-unknown-rule" for one to ignore.
    """
    skipped = checked(ignored)
    target = subject(loaded, bases or {}, frozenset(pinned))
    found = {
        Finding(rule.slug, rule.level, p.where, p.text, p.fix)
        for rule in RULES
        if rule.slug not in skipped
        for p in rule.check(target)
    }
    return tuple(sorted(found, key=_order))


def _order(finding: Finding) -> tuple[str, int, int, str, str]:
    where = finding.where
    return (where.file, where.line or 0, where.column or 0, finding.rule, finding.text)


def checked(names: Iterable[str]) -> frozenset[str]:
    """The names, when all are rules; UsageError "lint-unknown-rule" with the nearest."""
    known = [rule.slug for rule in RULES]
    for name in names:
        if name not in known:
            raise UsageError(
                "lint-unknown-rule", f'no rule "{name}"{did_you_mean(name, known)}', hint=f"rules: {', '.join(known)}"
            )
    return frozenset(names)


def refused(error: PxeServerError) -> Finding:
    """A spec that cannot even be built, as a finding: the slug is the error's."""
    return Finding(error.slug, "error", error.where or Where(), error.message, error.hint)
