"""What a machine that asks for its script gets now, with the token that binds it; the same for iPXE and for GRUB."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pxeserver.boot import grub, script
from pxeserver.boot import profile as profiles
from pxeserver.boot import token as tokens
from pxeserver.boot.profile import Profile
from pxeserver.boot.token import Token
from pxeserver.errors import PxeServerError
from pxeserver.local.interfaces import neighbour
from pxeserver.mac import Mac
from pxeserver.model import Machine
from pxeserver.serve.recorder import Recorder
from pxeserver.serve.site import Site


@dataclass(frozen=True, slots=True)
class Handout:
    """`token` binds the profile's image and assignment."""

    machine: Machine | None
    profile: Profile
    token: Token

    @property
    def bound(self) -> dict[str, str]:
        """For the record: which image, by which assignment."""
        image = self.profile.image
        return {"image": image.digest, "revision": str(self.token.revision)} if image is not None else {}


def handout(site: Site, token: Token, began: bool, *macs: Mac) -> Handout:
    """`began`: the image of the token's boot is settled. `macs` are further ones that the machine told."""
    machine = site.machine(token.mac, *macs)
    profile = profiles.profile(machine, token.mac, site.view, site.config, token if began else None)
    image = profile.image.digest if profile.image is not None else ""
    revision = profile.assignment.revision if profile.assignment is not None else 0
    return Handout(machine, profile, replace(token, image=tokens.image_prefix(image), revision=revision))


def current(recorder: Recorder, mac: Mac, now: float) -> Token:
    """The token of the boot that this MAC is at; begins one if there is none."""
    recent = recorder.enter(mac, now)
    return Token(recent.boot, mac, tokens.image_prefix(recent.image), recent.revision)


def grub_config(site: Site, recorder: Recorder, path: str, peer: str, own: str, now: float) -> bytes | None:
    """GRUB's configuration for who asks TFTP for `path`; None for another file, or for nobody that is known.

    `peer` and `own` are the addresses of the two; a name without a MAC is answered by the peer's.
    """
    named = grub.asked(path)
    if named is None or not own:
        return None
    mac = named or recorder.mac_of(peer) or neighbour(peer)
    if not mac:
        return None
    token = current(recorder, mac, now)
    given = handout(site, token, recorder.began(token))
    poll = site.config.boot.poll_seconds
    sealed = tokens.seal(recorder.key, given.token)
    context = script.ScriptContext(site.base_url(own), sealed, mac, script.EFI, poll)
    action, problem = given.profile.action, given.profile.problem
    try:
        text = grub.render(given.profile, given.machine, context, own)
    except PxeServerError as error:
        action, problem = "refuse", str(error)
        text = grub.failure(error.message, given.machine, context, own)
    data: Mapping[str, str] = {**given.bound, "firmware": "efi"}
    recorder.script(given.token, action, peer, now, size=len(text), text=problem, data=data)
    return text.encode("ascii")
