"""What a machine gets now, and why: assignment or policy -> image and command line. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from pxeserver.boot import cmdline
from pxeserver.boot.token import Token
from pxeserver.config import Config
from pxeserver.errors import did_you_mean
from pxeserver.mac import Mac
from pxeserver.model import Assignment, Digest, FleetView, Image, Machine, Policy, Reason

Action = Literal["boot", "wait", "local", "ignore", "refuse"]

NO_OFFER = "no-offer"
LOCAL_BOOT_VAR = "local_boot"  # a machine's var: how it leaves for its own disk; see templates/ipxe/local.ipxe.j2


class Profile(NamedTuple):
    """`action` is what the script will do; `image` is set for "boot" only; `problem` says why "refuse"."""

    action: Action
    policy: Policy | None  # None: the machine has an assignment
    image: Image | None
    assignment: Assignment | None
    reasons: tuple[Reason, ...]
    problem: str = ""
    cmdline_parts: tuple[cmdline.Part, ...] = ()


def profile(machine: Machine | None, mac: Mac, view: FleetView, config: Config, bound: Token | None = None) -> Profile:
    """The profile with its command line (without what the script adds: BOOTIF, pxeserver.url, initrd).

    `bound` is the token of the boot under way: it keeps the image that it began with (see `choose`).
    """
    chosen = choose(machine, mac, view, config, bound)
    if chosen.image is None:
        return chosen
    layers = [("default", config.defaults.cmdline)]
    if machine is not None:
        layers.append(("machine", machine.cmdline))
    if chosen.assignment is not None:
        layers.append(("--arg", chosen.assignment.args))
    return chosen._replace(cmdline_parts=cmdline.edit(layers, chosen.image.cmdline))


def choose(machine: Machine | None, mac: Mac, view: FleetView, config: Config, bound: Token | None = None) -> Profile:
    """The profile without a command line: all that answering a packet needs, and cheap enough for each packet.

    A boot keeps the assignment that its token names as long as the view knows that one (`FleetView.past` holds the ones
    replaced lately). When it does not, the boot takes the present assignment as a whole: never one's image with the
    other's arguments.
    """
    who = Reason("machine", _name(machine, mac))
    assignment = view.assignments.get(machine.id) if machine is not None else None
    if bound is not None and bound.image:
        kept = _bound(machine, assignment, view, bound, who)
        if kept is not None:
            return kept
    if assignment is not None:
        return _assigned(machine, assignment, view, who)
    return _policy(view, config, who)


def _name(machine: Machine | None, mac: Mac) -> str:
    if machine is None or not machine.known:
        return f"{mac}, not known"
    return f"{machine.name or machine.mac} ({mac})"


def _bound(
    machine: Machine | None, now: Assignment | None, view: FleetView, bound: Token, who: Reason
) -> Profile | None:
    image = view.image_by_prefix(bound.image)
    if image is None:
        return None
    if bound.revision == 0:
        if now is not None:
            return None
        why = Reason("image", f"{image.short}, with which this boot began")
        return Profile("boot", Policy.DEFAULT, image, None, (who, why))
    candidates = ((now,) if now is not None else ()) + (view.past.get(machine.id, ()) if machine is not None else ())
    assignment = next((a for a in candidates if a.revision == bound.revision), None)
    if assignment is None:
        return None
    why = Reason("image", f"{image.short}, assigned (revision {assignment.revision}) when this boot began")
    return Profile("boot", None, image, assignment, (who, why))


def assigned_image(assignment: Assignment, view: FleetView) -> Digest:
    """The image that an assignment means now, whether it is in the store or not."""
    return view.newest.get(assignment.spec, assignment.image) if assignment.follow else assignment.image


def _assigned(machine: Machine | None, assignment: Assignment, view: FleetView, who: Reason) -> Profile:
    digest = assigned_image(assignment, view)
    how = f"newest build of {assignment.spec}, which it follows" if assignment.follow else "assigned"
    image = view.images.get(digest)
    if image is None:
        problem = f"its image {assignment.spec}@{digest.removeprefix('sha256:')[:12]} is not in the store"
        return Profile("refuse", None, None, assignment, (who, Reason("image", problem)), problem)
    if machine is not None and machine.arch and machine.arch != image.arch:
        problem = f"{image.short} is for {image.arch}, this machine is {machine.arch}"
        return Profile("refuse", None, None, assignment, (who, Reason("image", problem)), problem)
    why = Reason("image", f"{image.short}, {how} (revision {assignment.revision})")
    return Profile("boot", None, image, assignment, (who, why))


def _policy(view: FleetView, config: Config, who: Reason) -> Profile:
    policy = view.policy
    if policy is not Policy.DEFAULT:
        action: Action = "wait" if policy is Policy.WAIT else "local" if policy is Policy.LOCAL else "ignore"
        return Profile(action, policy, None, None, (who, _BY_POLICY[policy]))
    spec = config.defaults.spec
    image = view.images.get(view.newest.get(spec, ""))
    if image is None:
        problem = f'the default spec "{spec}" was never built{_near(spec, view.newest)}' if spec else "no default spec"
        why = Reason("policy", f"no assignment, dhcp.unknown is default, but {problem}: it waits")
        return Profile("wait", policy, None, None, (who, why), problem)
    return Profile("boot", policy, image, None, (who, Reason("image", f"{image.short}, newest of the default spec")))


_BY_POLICY = {policy: Reason("policy", f"no assignment, dhcp.unknown is {policy.value}") for policy in Policy}


def _near(spec: str, newest: Mapping[str, str]) -> str:
    return did_you_mean(spec, newest)
