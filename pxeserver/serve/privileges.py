"""What a process gives up once its ports are bound, and what it raises for itself before."""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import resource
from pathlib import Path

from pxeserver.errors import UsageError

_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522
# chown, dac_override, dac_read_search, fowner: root's way with files, so that a data folder of another user still works
_FILES = 0b1111


class _Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Data(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def find_user(name: str) -> pwd.struct_passwd:
    """The account of `server.user`; UsageError("no-user")."""
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise UsageError(
            "no-user", f'server.user is "{name}", and there is no such user', hint=f"useradd --system {name}"
        ) from None


def prepare_data(folder: Path, user: str) -> None:
    """Make the data folder if it is missing, and give it to the user who will write there."""
    if folder.is_dir():
        return
    folder.mkdir(parents=True, mode=0o755)
    if user and os.geteuid() == 0:
        account = find_user(user)
        os.chown(folder, account.pw_uid, account.pw_gid)


def raise_file_limit() -> None:
    """Each transfer and connection takes a descriptor: allow as many as the hard limit does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def drop(user: str) -> None:
    """Become `user`; as root without one keep the rights over files alone; as anybody else keep nothing."""
    if os.geteuid() != 0:
        _keep_capabilities(0)
    elif user:
        account = find_user(user)
        os.setgroups([g.gr_gid for g in grp.getgrall() if user in g.gr_mem])
        os.setresgid(account.pw_gid, account.pw_gid, account.pw_gid)
        os.setresuid(account.pw_uid, account.pw_uid, account.pw_uid)
    else:
        _keep_capabilities(_FILES)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def _keep_capabilities(low: int) -> None:
    """Give up every capability but the first 32 ones' bits in `low` (capset(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = _Header(_CAPABILITY_VERSION_3, 0)
    data = (_Data * 2)(_Data(low, low, 0), _Data(0, 0, 0))
    if libc.capset(ctypes.byref(header), ctypes.byref(data)) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
