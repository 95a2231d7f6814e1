"""iPXE's script language, as far as boot scripts use it: parsed here, carried out by `run`.

Known: echo set isset iseq goto :label chain kernel imgfetch initrd module imgargs imgfree boot sleep dhcp exit sanboot
shell prompt, `||`, `&&`, quotes, ${variables} with the types :uristring, :hexraw, :hexhyp.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import quote, urljoin

from pxeserver.sim.effects import Fetch, Fetched, Play, Say, Sleep, Stopped

MAGIC = b"#!ipxe"
STEPS_MAX = 10_000
SCRIPT_MAX = 1 << 20
_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
_DIGEST = re.compile(r"/b/([0-9a-f]{64})/")


@dataclass(frozen=True, slots=True)
class Got:
    """A file that the machine has: `digest` tells whether its URL names its content, and that was compared."""

    stage: str
    name: str
    size: int
    sha256: str
    digest: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """How a script ended. "image": it loaded something that is no script, `body` is its beginning."""

    how: Literal["boot", "exit", "local", "waits", "image"]
    text: str = ""
    url: str = ""
    body: bytes = b""


@dataclass
class State:
    """What iPXE remembers from one script to the next; `patience` is how many seconds it may yet sleep."""

    variables: dict[str, str]
    patience: float = 0.0
    kernel: Got | None = None
    initrds: list[Got] = field(default_factory=list)
    cmdline: str = ""
    echoed: list[str] = field(default_factory=list)
    trouble: str = ""  # of the last file that did not come
    steps: int = 0

    def free(self) -> None:
        self.kernel, self.cmdline = None, ""
        self.initrds.clear()


class _Failed(Exception):
    """A command failed: `||` may catch it."""


class _Ended(Exception):
    def __init__(self, end: End) -> None:
        super().__init__(end.how)
        self.end = end


class _Goto(Exception):
    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


def expand(text: str, variables: Mapping[str, str]) -> str:
    """${name} and ${name:type}, from the inside out; what is not set becomes nothing."""

    def value(match: re.Match[str]) -> str:
        name, _, kind = match[1].partition(":")
        found = variables.get(name, "")
        if kind == "uristring":
            return quote(found, safe="-_.!~*'()")
        if kind == "hexhyp":
            return found.replace(":", "-")
        if kind == "hexraw":
            return found.replace(":", "")
        return found

    while True:
        text, count = _VARIABLE.subn(value, text)
        if not count:
            return text


def split(line: str) -> list[str]:
    """Words of a command line; quotes and backslashes hold words together, # begins a comment."""
    words: list[str] = []
    word, open_quote, begun, at = "", "", False, 0
    while at < len(line):
        char = line[at]
        at += 1
        if char == "\\" and at < len(line):
            word, begun, at = word + line[at], True, at + 1
        elif open_quote:
            word, open_quote = (word, "") if char == open_quote else (word + char, open_quote)
        elif char in "'\"":
            open_quote, begun = char, True
        elif char.isspace():
            words, word, begun = ([*words, word] if begun else words), "", False
        elif char == "#" and not begun:
            break
        else:
            word, begun = word + char, True
    return [*words, word] if begun else words


def run(body: bytes, url: str, state: State) -> Play[End]:
    """Carry out a script that came from `url`; what it chains to is carried out as well."""
    while True:
        if not body.startswith(MAGIC):
            return End("image", url=url, body=body)
        try:
            chained = yield from _lines(body.decode("utf-8", "replace").splitlines(), url, state)
        except _Ended as ended:
            return ended.end
        if chained is None:
            return End("exit", "the script came to its end")
        url, body = chained


def _lines(lines: list[str], url: str, state: State) -> Play[tuple[str, bytes] | None]:
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        state.steps += 1
        if state.steps > STEPS_MAX:
            raise Stopped("script", f"the script went through {STEPS_MAX} lines without booting")
        if line.lstrip().startswith((":", "#")):
            continue
        try:
            chained = yield from _line(split(expand(line, state.variables)), lines, url, state)
        except _Goto as jump:
            at = jump.line
            continue
        except _Failed as failed:
            raise Stopped("script", f'"{line.strip()}" failed: {failed}') from None
        if chained is not None:
            return chained
    return None


def _line(words: list[str], lines: list[str], url: str, state: State) -> Play[tuple[str, bytes] | None]:
    """Commands joined by `||` and `&&`: each runs or not by how the last one that ran ended."""
    command: list[str] = []
    operator, failure = "", None
    for word in [*words, "\n"]:
        if word not in ("||", "&&", "\n"):
            command.append(word)
            continue
        if not operator or (operator == "||") == (failure is not None):
            failure = None
            if command:
                try:
                    chained = yield from _command(command, lines, url, state)
                except _Failed as failed:
                    failure = failed
                else:
                    if chained is not None:
                        return chained
        command, operator = [], word
    if failure is not None:
        raise failure
    return None


def _command(words: list[str], lines: list[str], url: str, state: State) -> Play[tuple[str, bytes] | None]:
    name, *arguments = words
    flags, plain = _options(arguments)
    match name:
        case "echo":
            state.echoed.append(" ".join(arguments))
            yield Say("screen", state.echoed[-1])
        case "set":
            state.variables[plain[0]] = " ".join(plain[1:])
        case "isset":
            if not plain or not plain[0]:
                raise _Failed("not set")
        case "iseq":
            if len(plain) != 2 or plain[0] != plain[1]:
                raise _Failed("not equal")
        case "goto":
            raise _Goto(_label(lines, plain))
        case "imgfree":
            state.free()
        case "dhcp" | "ifopen" | "ifconf" | "prompt" | "colour" | "console" | "cpair":
            pass
        case "kernel" | "imgselect":
            state.kernel = yield from _image("kernel", url, plain[0], state)
            state.cmdline = " ".join(plain[1:])
        case "initrd" | "module" | "imgfetch":
            state.initrds.append((yield from _image("initrd", url, plain[0], state)))
        case "imgargs":
            state.cmdline = " ".join(plain[1:])
        case "chain":
            if "autofree" in flags:
                state.free()
            return (yield from _chain(url, plain[0], state))
        case "sleep":
            yield from _sleep(float(plain[0]), state)
        case "boot":
            if state.kernel is None:
                raise _Failed("no image to boot")
            raise _Ended(End("boot"))
        case "exit" | "shell":
            raise _Ended(End("local" if name == "exit" else "exit", f"the script ends with {' '.join(words)}"))
        case "sanboot":
            raise _Ended(End("local", "the script boots the machine's own disk"))
        case _:
            raise _Failed("no such command")
    return None


_WITH_VALUE = frozenset({"name", "timeout", "drive", "n"})


def _options(arguments: list[str]) -> tuple[frozenset[str], list[str]]:
    """Names of the leading options, and the words behind them."""
    flags: list[str] = []
    at = 0
    while at < len(arguments) and arguments[at].startswith("-") and arguments[at] != "-":
        flags.append(arguments[at].lstrip("-").partition("=")[0])
        at += 2 if flags[-1] in _WITH_VALUE and "=" not in arguments[at] else 1
    return frozenset(flags), arguments[at:]


def _label(lines: list[str], words: list[str]) -> int:
    wanted = words[0] if words else ""
    for number, line in enumerate(lines):
        if line.lstrip().startswith(":") and line.strip()[1:].split()[:1] == [wanted]:
            return number
    raise _Failed(f"no label {wanted}")


def _sleep(seconds: float, state: State) -> Play[None]:
    """A machine that is told to wait does so while its patience lasts."""
    state.patience -= seconds
    if state.patience < 0:
        raise _Ended(End("waits", " / ".join([*state.echoed[-3:], *([state.trouble] if state.trouble else [])])))
    state.echoed.clear()
    yield Sleep(seconds)


def _fetched(stage: str, there: str, keep: int, state: State) -> Play[Fetched]:
    got: Fetched = yield Fetch("GET", there, keep)
    if got.status != 200:
        state.trouble = f"{there.partition('?')[0]}: {got.why or f'HTTP {got.status}'}"
        yield Say(stage, state.trouble)
        raise _Failed(state.trouble)
    return got


def _chain(url: str, target: str, state: State) -> Play[tuple[str, bytes]]:
    there = urljoin(url, target)
    got = yield from _fetched("script", there, SCRIPT_MAX, state)
    yield Say("script", f"{there.partition('?')[0]}: {got.size} bytes")
    return there, got.body


def _image(stage: str, url: str, target: str, state: State) -> Play[Got]:
    """A file is taken in whole; if its address names its digest, that is compared."""
    there = urljoin(url, target)
    got = yield from _fetched(stage, there, 0, state)
    named = _DIGEST.search(there)
    if named is not None and named[1] != got.sha256:
        raise Stopped(stage, f"{there}: the {got.size} bytes that came have the digest {got.sha256[:12]}...")
    digest = ", digest right" if named is not None else ""
    yield Say(stage, f"{there.partition('?')[0]}: {got.size} bytes{digest}")
    return Got(stage, there.partition("?")[0].rpartition("/")[2], got.size, got.sha256, named is not None)
