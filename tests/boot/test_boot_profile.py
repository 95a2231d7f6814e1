"""What a machine gets: assignments, following, policies, and a boot that keeps what it began with."""

from __future__ import annotations

from dataclasses import replace

from pxeserver.boot.cmdline import join
from pxeserver.boot.profile import Profile, choose, profile
from pxeserver.boot.token import Token, image_prefix
from pxeserver.config import Config, Defaults
from pxeserver.model import Assignment, Blob, FleetView, Image, Machine, Policy

MAC = "52:54:00:77:00:01"
CONFIG = Config()
WEB = Config(defaults=Defaults(spec="web"))


def reasons(found: Profile) -> str:
    return " / ".join(reason.text for reason in found.reasons)


def newer(image: Image) -> Image:
    return replace(image, digest="sha256:" + "cd" * 32, kernel=Blob("sha256:" + "33" * 32, 1))


def test_the_command_line_is_layered(view: FleetView, machine: Machine) -> None:
    machine = replace(machine, cmdline=("quiet=no", "a=machine"))
    found = profile(machine, MAC, view, Config(defaults=Defaults(cmdline=("a=default", "b=default"))))
    assert [(part.text, part.origin) for part in found.cmdline_parts] == [
        ("console=ttyS0", "image"),
        ("quiet=no", "machine"),
        ("a=machine", "machine"),
        ("b=default", "default"),
        ("debug", "--arg"),
    ]
    assert found.action == "boot" and found.policy is None


def test_an_assignment_is_bound_by_digest_or_follows_its_spec(view: FleetView, machine: Machine, image: Image) -> None:
    view = replace(view, images={**view.images, newer(image).digest: newer(image)}, newest={"web": newer(image).digest})
    assert choose(machine, MAC, view, CONFIG).image == image
    follows = replace(view, assignments={1: replace(view.assignments[1], follow=True)})
    found = choose(machine, MAC, follows, CONFIG)
    assert found.image == newer(image) and "follows" in reasons(found)
    assert choose(machine, MAC, replace(follows, newest={}), CONFIG).image == image


def test_an_image_that_is_gone_is_told_not_replaced(view: FleetView, machine: Machine) -> None:
    found = choose(machine, MAC, replace(view, images={}), CONFIG)
    assert (found.action, found.image) == ("refuse", None)
    assert "web@abababababab is not in the store" in found.problem


def test_an_image_for_another_processor_is_refused(view: FleetView, machine: Machine) -> None:
    found = choose(replace(machine, arch="arm64"), MAC, view, CONFIG)
    assert found.action == "refuse" and "is for amd64, this machine is arm64" in found.problem
    assert choose(replace(machine, arch="amd64"), MAC, view, CONFIG).action == "boot"


def test_policies(view: FleetView, image: Image) -> None:
    nobody = replace(view, machines={}, by_mac={}, assignments={})
    for policy, action in ((Policy.WAIT, "wait"), (Policy.LOCAL, "local"), (Policy.IGNORE, "ignore")):
        found = choose(None, MAC, replace(nobody, policy=policy), CONFIG)
        assert profile(None, MAC, replace(nobody, policy=policy), CONFIG) == found
        assert (found.action, found.policy, found.image) == (action, policy, None)
    default = replace(nobody, policy=Policy.DEFAULT)
    found = profile(None, MAC, default, WEB)
    assert (found.action, found.image) == ("boot", image)
    assert join(found.cmdline_parts) == "console=ttyS0 quiet"


def test_a_default_spec_that_was_never_built_makes_machines_wait(view: FleetView) -> None:
    nobody = replace(view, assignments={}, policy=Policy.DEFAULT)
    found = choose(None, MAC, nobody, Config(defaults=Defaults(spec="webb")))
    assert found.action == "wait" and found.problem.endswith('"webb" was never built - did you mean "web"?')
    assert choose(None, MAC, nobody, CONFIG).problem == "no default spec"


# --- a boot keeps what it began with ---


def reassigned(view: FleetView, image: Image, *, remembered: bool) -> FleetView:
    old = view.assignments[1]
    return replace(
        view,
        images={**view.images, newer(image).digest: newer(image)},
        assignments={1: Assignment(1, "web", newer(image).digest, 4, args=("new",))},
        past={1: (old,)} if remembered else {},
    )


def test_a_boot_under_way_keeps_its_image_with_its_own_arguments(
    view: FleetView, machine: Machine, image: Image
) -> None:
    bound = Token("00" * 8, MAC, image_prefix(image.digest), 3)
    kept = profile(machine, MAC, reassigned(view, image, remembered=True), CONFIG, bound)
    assert kept.image == image and "debug" in join(kept.cmdline_parts) and "new" not in join(kept.cmdline_parts)
    assert profile(machine, MAC, view, CONFIG, bound).image == image


def test_a_boot_whose_assignment_is_forgotten_takes_the_new_one_whole(
    view: FleetView, machine: Machine, image: Image
) -> None:
    bound = Token("00" * 8, MAC, image_prefix(image.digest), 3)
    found = profile(machine, MAC, reassigned(view, image, remembered=False), CONFIG, bound)
    assert (
        found.image == newer(image) and "new" in join(found.cmdline_parts) and "debug" not in join(found.cmdline_parts)
    )


def test_a_boot_by_policy_keeps_its_image_until_the_machine_is_assigned(
    view: FleetView, machine: Machine, image: Image
) -> None:
    view = replace(view, images={**view.images, newer(image).digest: newer(image)}, newest={"web": newer(image).digest})
    default = replace(view, assignments={}, policy=Policy.DEFAULT)
    bound = Token("00" * 8, MAC, image_prefix(image.digest), 0)
    assert choose(machine, MAC, default, WEB, bound).image == image
    assert choose(machine, MAC, default, WEB).image == newer(image)
    assert choose(machine, MAC, view, CONFIG, bound).assignment == view.assignments[1]


def test_a_token_that_binds_nothing_or_something_lost_changes_nothing(view: FleetView, machine: Machine) -> None:
    for bound in (Token("00" * 8, MAC), Token("00" * 8, MAC, "ee" * 16, 3)):
        assert choose(machine, MAC, view, CONFIG, bound) == choose(machine, MAC, view, CONFIG)
