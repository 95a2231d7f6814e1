"""The spec language of today's LinuxKit as frozen values: every key that its schema knows, and no other.

None means "not written": a container's absent field falls back to the image's label, an empty one does not.
Keys keep LinuxKit's spelling as aliases; Python names are the same words in snake case.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pxeserver import checked
from pxeserver.checked import Before, Between, field

T = TypeVar("T")


def _written(value: Any) -> Any:
    """A key with nothing behind it is a mistake, never a way to leave a field out."""
    if value is None:
        raise ValueError("must not be empty (null); leave the key out instead")
    return value


def _whole(value: Any) -> Any:
    """1.0 and 1e3 are whole numbers to LinuxKit's schema."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _ident(value: Any) -> Any:
    value = _whole(value)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("must be a number or the name of a container of this spec")
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 63:
        raise ValueError("must be below 9223372036854775808")
    return value


Opt = Annotated[T | None, Before(_written)]
Many = tuple[T, ...]
Strings = Many[str]
Texts = dict[str, str]
Ident = Annotated[int | str, Before(_ident)]
Int64 = Annotated[int, Before(_whole), Between(-(1 << 63), (1 << 63) - 1)]
Uint64 = Annotated[int, Before(_whole), Between(0, (1 << 64) - 1)]
Uint32 = Annotated[int, Before(_whole), Between(0, (1 << 32) - 1)]
Uint16 = Annotated[int, Before(_whole), Between(0, (1 << 16) - 1)]


class Part(checked.Part, keys=checked.camel):
    """What all parts of a spec are."""


class Kernel(Part):
    image: str = ""
    cmdline: str = ""
    binary: str = ""  # empty: `kernel`
    tar: Opt[str] = None  # absent: `kernel.tar`; "" or "none": no tar
    ucode: Opt[str] = None


class IdMapping(Part):
    container_id: Uint32 = field(default=0, key="containerID")
    host_id: Uint32 = field(default=0, key="hostID")
    size: Uint32 = 0


class Mount(Part):
    destination: str = ""
    type: str = ""
    source: str = ""
    options: Strings = ()
    uidmappings: Many[IdMapping] = field(default=(), key="uidmappings")
    gidmappings: Many[IdMapping] = field(default=(), key="gidmappings")


class Device(Part):
    path: str = ""
    type: str = ""
    major: Int64 = 0
    minor: Int64 = 0
    mode: str = ""


class DeviceRule(Part):
    allow: bool = False
    type: str = ""
    major: Opt[Int64] = None
    minor: Opt[Int64] = None
    access: str = ""


class Memory(Part):
    limit: Opt[Int64] = None
    reservation: Opt[Int64] = None
    swap: Opt[Int64] = None
    kernel: Opt[Int64] = None
    kernel_tcp: Opt[Int64] = field(default=None, key="kernelTCP")
    swappiness: Opt[Uint64] = None
    disable_oom_killer: Opt[bool] = field(default=None, key="disableOOMKiller")


class Cpu(Part):
    shares: Opt[Uint64] = None
    quota: Opt[Int64] = None
    period: Opt[Uint64] = None
    realtime_runtime: Opt[Int64] = None
    realtime_period: Opt[Uint64] = None
    cpus: str = ""
    mems: str = ""


class Pids(Part):
    limit: Int64 = 0


class WeightDevice(Part):
    major: Int64 = 0
    minor: Int64 = 0
    weight: Opt[Uint16] = None
    leaf_weight: Opt[Uint16] = None


class ThrottleDevice(Part):
    major: Int64 = 0
    minor: Int64 = 0
    rate: Uint64 = 0


class BlockIo(Part):
    weight: Opt[Uint16] = None
    leaf_weight: Opt[Uint16] = None
    weight_device: Many[WeightDevice] = ()
    throttle_read_bps_device: Many[ThrottleDevice] = ()
    throttle_write_bps_device: Many[ThrottleDevice] = ()
    throttle_read_iops_device: Many[ThrottleDevice] = field(default=(), key="throttleReadIOPSDevice")
    throttle_write_iops_device: Many[ThrottleDevice] = field(default=(), key="throttleWriteIOPSDevice")


class HugepageLimit(Part):
    page_size: Uint64 = 0  # bytes
    limit: Uint64 = 0  # bytes


class Priority(Part):
    name: str = ""
    priority: Uint32 = 0


class Network(Part):
    class_id: Opt[Uint32] = field(default=None, key="classID")
    priorities: Many[Priority] = ()


class Resources(Part):
    devices: Many[DeviceRule] = ()
    memory: Opt[Memory] = None
    cpu: Opt[Cpu] = None
    pids: Opt[Pids] = None
    blockio: Opt[BlockIo] = None
    hugepage_limits: Many[HugepageLimit] = ()
    network: Opt[Network] = None


class Interface(Part):
    name: str = ""
    add: str = ""
    peer: str = ""
    create_in_root: bool = False


class BindNs(Part):
    cgroup: Opt[str] = None
    ipc: Opt[str] = None
    mnt: Opt[str] = None
    net: Opt[str] = None
    pid: Opt[str] = None
    user: Opt[str] = None
    uts: Opt[str] = None


class Runtime(Part):
    """What LinuxKit's `service` does around a container before and after runc."""

    cgroups: Opt[Strings] = None
    mounts: Opt[Many[Mount]] = None
    mkdir: Opt[Strings] = None
    interfaces: Opt[Many[Interface]] = None
    bind_ns: BindNs = field(default=BindNs(), key="bindNS")
    namespace: Opt[str] = None


class ContainerConfig(Part):
    """All fields of a container but its name and image: what the label org.mobyproject.config may hold too."""

    capabilities: Opt[Strings] = None
    capabilities_add: Opt[Strings] = field(default=None, key="capabilities.add")
    ambient: Opt[Strings] = None
    mounts: Opt[Many[Mount]] = None
    binds: Opt[Strings] = None
    binds_add: Opt[Strings] = field(default=None, key="binds.add")
    devices: Opt[Many[Device]] = None
    tmpfs: Opt[Strings] = None
    command: Opt[Strings] = None
    env: Opt[Strings] = None
    cwd: str = ""
    net: str = ""
    pid: str = ""
    ipc: str = ""
    uts: str = ""
    userns: str = ""
    hostname: str = ""
    readonly: Opt[bool] = None
    masked_paths: Opt[Strings] = None
    readonly_paths: Opt[Strings] = None
    uid: Opt[Ident] = None
    gid: Opt[Ident] = None
    additional_gids: Opt[Many[Ident]] = None
    no_new_privileges: Opt[bool] = None
    oom_score_adj: Opt[Int64] = None
    rootfs_propagation: Opt[str] = None
    cgroups_path: Opt[str] = None
    resources: Opt[Resources] = None
    sysctl: Opt[Texts] = None
    rlimits: Opt[Strings] = None
    uid_mappings: Opt[Many[IdMapping]] = None
    gid_mappings: Opt[Many[IdMapping]] = None
    annotations: Opt[Texts] = None
    runtime: Opt[Runtime] = None


class ContainerSpec(ContainerConfig):
    """One entry of onboot, onshutdown or services."""

    name: str
    image: str


class VolumeSpec(Part):
    name: str = ""
    image: str = ""
    readonly: bool = False
    format: Opt[Literal["oci", "filesystem"]] = None
    platforms: Strings = ()


class FileSpec(Part):
    path: str = ""
    directory: bool = False
    symlink: str = ""
    contents: Opt[str] = None
    source: str = ""
    metadata: str = ""
    optional: bool = False
    mode: str = ""
    uid: Opt[Ident] = None
    gid: Opt[Ident] = None


class Trust(Part):
    """Which images must be signed, or pinned by digest; see trust.py. LinuxKit accepts it and does nothing."""

    image: Strings = ()
    org: Strings = ()


class Spec(Part):
    """A whole recipe, or several appended."""

    kernel: Kernel = Kernel()
    init: Strings = ()
    onboot: Many[ContainerSpec] = ()
    onshutdown: Many[ContainerSpec] = ()
    services: Many[ContainerSpec] = ()
    volumes: Many[VolumeSpec] = ()
    files: Many[FileSpec] = ()
    trust: Trust = Trust()


SECTIONS = ("onboot", "onshutdown", "services")
