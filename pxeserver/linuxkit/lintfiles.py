"""Lint rules about the tree: what a tmpfs hides, modes of folders, mount points, and what containers lack."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from pxeserver.linuxkit import files, reference
from pxeserver.linuxkit.entries import TreeEntry
from pxeserver.linuxkit.lintbase import Container, Problem, Rule, Subject

_MOUNTED = {"run": "a tmpfs", "tmp": "a tmpfs", "var": "a tmpfs", "dev": "devtmpfs", "proc": "proc", "sys": "sysfs"}
# there in every container: its own mounts, and what the builder adds to each image
_THERE = ("/dev", "/proc", "/sys", "/etc/hosts", "/etc/resolv.conf", "/etc/mtab")


def _shadowed(subject: Subject) -> Iterator[Problem]:
    for item, at in _items(subject):
        top = posixpath.normpath(at).partition("/")[0]
        if top in _MOUNTED:
            yield Problem(
                subject.loaded.place("files", item, "path"),
                f"/{at} is never seen: init mounts {_MOUNTED[top]} on /{top}",
                f"put it elsewhere (etc/...), or let a container copy it to /{top}",
            )


def _items(subject: Subject) -> Iterator[tuple[int, str]]:
    """(index, path without leading slashes) of the files section."""
    for i, item in enumerate(subject.loaded.spec.files):
        yield i, item.path.lstrip("/")


def _folder_mode(subject: Subject) -> Iterator[Problem]:
    own = {posixpath.normpath(path) for _, path in _items(subject)}
    closed: dict[int, list[TreeEntry]] = {}
    for entry in subject.files:
        implied = entry.kind == "dir" and posixpath.normpath(entry.path) not in own
        if implied and entry.path.partition("/")[0] not in _MOUNTED and files.closes(entry.path, entry.mode):
            closed.setdefault(subject.item(entry), []).append(entry)
    for index, folders in closed.items():
        item, first = subject.loaded.spec.files[index], folders[0].path
        yield Problem(
            subject.loaded.place("files", index, "mode" if item.mode else "path"),
            f"{' and '.join(f'/{f.path}' for f in folders)} will be {folders[0].mode:04o}, after the mode "
            f"{item.mode or '0600'} of this file: other users cannot look inside",
            f'put {{path: {first}, directory: true, mode: "0755"}} before it, or give the file mode: "0644"',
        )


def mount_points(container: Container) -> Iterator[tuple[str, tuple[str | int, ...]]]:
    """(destination, where it is written) of mounts whose mount point the image itself must have."""
    merged = container.merged
    wanted = [(text.partition(":")[0], "tmpfs", i) for i, text in enumerate(merged.tmpfs or ())]
    wanted += [(text.split(":")[1], "binds", i) for i, text in enumerate(merged.binds or ()) if ":" in text]
    wanted += [(m.destination, "mounts", i) for i, m in enumerate(merged.mounts or ()) if m.destination]
    every = {posixpath.normpath(destination) for destination, _, _ in wanted}
    for destination, field, index in wanted:
        path = posixpath.normpath(destination)
        above = {path, *_above(path)}
        if path != "/" and above.isdisjoint(_THERE) and (above - {path}).isdisjoint(every):
            yield path, (field, index)


def _above(path: str) -> Iterator[str]:
    while path not in ("/", ""):
        path = posixpath.dirname(path)
        yield path


def _added(subject: Subject, path: str) -> bool:
    """Whether the files section puts something there into some container's root."""
    return any(f.path.startswith("containers/") and posixpath.normpath(f.path).endswith(path) for f in subject.files)


def _mount_point(subject: Subject, known: bool) -> Iterator[Problem]:
    for container in subject.containers:
        if not container.merged.readonly or (container.base is not None) is not known:
            continue
        for path, at in mount_points(container):
            base = container.base
            if _added(subject, path) or (base is not None and path.lstrip("/") in base.paths()):
                continue
            if base is not None:
                text = f"{container.own.image} has no {path}, and in a read-only container it cannot be made"
            else:
                text = f"{path} must exist in {container.own.image}: in a read-only container it cannot be made"
            yield Problem(
                container.place(*at),
                f'{text}; without it "{container.own.name}" does not start',
                "make it in the base image, or leave readonly out",
            )


def _missing(subject: Subject) -> Iterator[Problem]:
    return _mount_point(subject, known=True)


def _unsure(subject: Subject) -> Iterator[Problem]:
    return _mount_point(subject, known=False)


def _foreign(subject: Subject) -> Iterator[Container]:
    """Containers whose base image is here and was not made for LinuxKit."""
    return (c for c in subject.containers if c.base is not None and not c.labelled)


def _no_capabilities(subject: Subject) -> Iterator[Problem]:
    for container in _foreign(subject):
        if container.merged.capabilities is None and container.own.uid in (None, 0, "", "root"):
            yield Problem(
                container.place(),
                f'"{container.own.name}" runs as root without any capability: it cannot bind a port below 1024, change '
                "owners or become another user",
                "capabilities: [CAP_NET_BIND_SERVICE, ...], or [] when it needs none",
            )


def _no_resolver(subject: Subject) -> Iterator[Problem]:
    for container in _foreign(subject):
        hidden = any(d.startswith("/etc") for d, _ in _all_mounts(container))
        if container.section == "services" and container.merged.net in ("", "host", "root") and not hidden:
            yield Problem(
                container.place(),
                f'"{container.own.name}" cannot resolve names: its /etc/resolv.conf is empty',
                "binds: [/etc/resolv.conf:/etc/resolv.conf]",
            )


def _all_mounts(container: Container) -> Iterator[tuple[str, str]]:
    for text in container.merged.binds or ():
        source, _, rest = text.partition(":")
        yield rest.partition(":")[0], source
    for mount in container.merged.mounts or ():
        yield mount.destination, mount.source


def _repeated(subject: Subject) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for container in subject.containers:
        if container.base is None:
            continue
        ref = reference.expand(container.own.image)
        first = seen.setdefault(container.base.digest, ref)
        if first != ref:
            yield Problem(
                container.place("image"),
                f"the initrd carries this image twice: {ref} is the same as {first}",
                f"write {first} here too",
            )


RULES = (
    Rule("file-shadowed", "error", "a file below a folder that is mounted over when the system starts", _shadowed),
    Rule("folder-mode", "warning", "a folder that others cannot enter, because of the mode of a file", _folder_mode),
    Rule("mount-point-missing", "error", "a read-only container whose image lacks a mount point", _missing),
    Rule("mount-point-unsure", "warning", "the same where the image is not here, so that nobody can tell", _unsure),
    Rule("no-capabilities", "warning", "an ordinary image run as root without any capability", _no_capabilities),
    Rule("no-resolver", "warning", "an ordinary image with network, but no /etc/resolv.conf", _no_resolver),
    Rule("image-repeated", "warning", "one image under two names, which the initrd then carries twice", _repeated),
)
