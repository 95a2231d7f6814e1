"""Registry credentials as docker keeps them: ~/.docker/config.json and its helpers."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_HUB = "https://index.docker.io/v1/"


@dataclass(frozen=True, slots=True)
class Login:
    user: str
    secret: str

    @property
    def token(self) -> str:
        """The refresh token, when that is what the secret is (docker writes <token> for the user)."""
        return self.secret if self.user == "<token>" else ""


def login(registry: str, environ: Mapping[str, str] = os.environ) -> Login | None:
    """What docker would send to `registry` (host[:port], docker.io for the hub); None = nothing is known."""
    folder = environ.get("DOCKER_CONFIG") or str(Path(environ.get("HOME") or "~").expanduser() / ".docker")
    try:
        config = json.loads((Path(folder) / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict):
        return None
    keys = (_HUB, "docker.io", "index.docker.io") if registry == "docker.io" else (registry, f"https://{registry}")
    helper = next((h for k in keys if (h := (config.get("credHelpers") or {}).get(k))), config.get("credsStore"))
    for key in keys:
        found = _ask(str(helper), key) if helper else None
        found = found or _plain((config.get("auths") or {}).get(key))
        if found:
            return found
    return None


def _plain(entry: Any) -> Login | None:
    if not isinstance(entry, dict):
        return None
    if entry.get("identitytoken"):
        return Login("<token>", str(entry["identitytoken"]))
    try:
        user, _, secret = base64.b64decode(str(entry.get("auth") or "")).decode().partition(":")
    except ValueError:
        return None
    user, secret = user or str(entry.get("username") or ""), secret or str(entry.get("password") or "")
    return Login(user, secret.rstrip("\0")) if user else None


def _ask(helper: str, key: str) -> Login | None:
    """docker-credential-HELPER get; a helper that is missing or knows nothing is no error, as with docker."""
    try:
        done = subprocess.run(
            [f"docker-credential-{helper}", "get"], input=key.encode(), capture_output=True, timeout=30, check=True
        )
        answer = json.loads(done.stdout)
        return Login(str(answer["Username"]), str(answer["Secret"]))
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None
