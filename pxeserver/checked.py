"""Frozen values with typed fields, made of the plain data of a file; every fault is told with its path.

A class says all there is to say by its annotations, which are read at the first check of such a value:

    class Kernel(Part):
        image: str = ""
        swap: Annotated[int, Between(0, 100)] = field(key="swapPercent", default=60)

Nothing is converted: text is text and a number a number; a list becomes the tuple, an enumeration's value its member.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import FrozenInstanceError
from enum import Enum
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

P = TypeVar("P", bound="Part")
Path = tuple[str | int, ...]


class Fault(NamedTuple):
    """`kind` is "unknown-key" (of the last part of `path`), "missing", "type" or "value"; `text` tells what must be."""

    path: Path
    kind: str
    text: str
    found: Any = None


class Before(NamedTuple):
    """Applied to what stands in the file, before its type is looked at; ValueError is a fault."""

    apply: Callable[[Any], Any]


class After(NamedTuple):
    """Applied to the checked value; ValueError is a fault."""

    apply: Callable[[Any], Any]


class Between(NamedTuple):
    """A number from `low` to `high`, both included."""

    low: int
    high: int | None = None

    def apply(self, value: int) -> int:
        if value < self.low or self.high is not None and value > self.high:
            raise ValueError(f"must be {self.low} " + ("or more" if self.high is None else f"to {self.high}"))
        return value


class Field(NamedTuple):
    """Of a Part: the key that stands in the file, and the value where it does not stand there."""

    key: str
    default: Any

    @property
    def required(self) -> bool:
        return self.default is _NOTHING


_NOTHING: Any = object()


def field(*, default: Any = _NOTHING, key: str = "") -> Any:
    """A field under a key that does not follow from its name."""
    return Field(key, default)


def same(name: str) -> str:
    """Keys that are the names."""
    return name


def camel(name: str) -> str:
    """oom_score_adj -> oomScoreAdj."""
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(field,))
class Part:
    """The base of such values; `keys` spells a field's name as the file does. Made by hand, it checks nothing."""

    _fields: ClassVar[dict[str, Field]] = {}
    _kinds: ClassVar[dict[str, Any]]  # of each class, from when it is first asked for
    _keys: ClassVar[Callable[[str], str]] = same

    def __init_subclass__(cls, keys: Callable[[str], str] | None = None) -> None:
        if keys is not None:
            cls._keys = staticmethod(keys)
        fields = dict(cls._fields)
        for name in cls.__dict__.get("__annotations__", {}):
            default = cls.__dict__.get(name, _NOTHING)
            if default is not _NOTHING:
                delattr(cls, name)  # a value stands in the instance, and nowhere else
            key, default = default if isinstance(default, Field) else ("", default)
            fields[name] = Field(key or cls._keys(name), default)
        cls._fields = fields

    def __init__(self, **given: Any) -> None:
        own = self.__dict__
        for name, info in self._fields.items():
            value = own[name] = given.pop(name, info.default)
            if value is _NOTHING:
                raise TypeError(f"{type(self).__name__} needs {name}")
        if given:
            raise TypeError(f"{type(self).__name__} has no {', '.join(given)}")

    def __setattr__(self, name: str, value: Any) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.__dict__ == other.__dict__

    def __hash__(self) -> int:
        return hash(tuple(self.__dict__.values()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in self.__dict__.items())})"


def fields(kind: type[Part]) -> Mapping[str, Field]:
    """By name, in their order."""
    return kind._fields


def kinds(kind: type[Part]) -> Mapping[str, Any]:
    """The type of each field, by name."""
    if "_kinds" not in kind.__dict__:
        kind._kinds = get_type_hints(kind, include_extras=True)
    return kind._kinds


def parts_in(kind: Any) -> list[type[Part]]:
    """The Parts inside a type such as `tuple[Mount, ...] | None`."""
    if isinstance(kind, type) and issubclass(kind, Part):
        return [kind]
    return [part for inner in get_args(kind) for part in parts_in(inner)]


def replace(part: P, **changes: Any) -> P:
    """The same value with other fields."""
    return type(part)(**{**part.__dict__, **changes})


def plain(value: Any, *, keys: bool = False, none: bool = True, defaults: bool = True) -> Any:
    """JSON data of a value; if so asked under the keys of the file, without what is None, without what says nothing."""
    if isinstance(value, Part):
        told = [
            (info.key if keys else name, value.__dict__[name])
            for name, info in value._fields.items()
            if defaults or value.__dict__[name] != info.default
        ]
        return {
            key: plain(item, keys=keys, none=none, defaults=defaults) for key, item in told if none or item is not None
        }
    if isinstance(value, list | tuple):
        return [plain(item, keys=keys, none=none, defaults=defaults) for item in value]
    if isinstance(value, Mapping):
        return {key: plain(item, keys=keys, none=none, defaults=defaults) for key, item in value.items()}
    return value.value if isinstance(value, Enum) else value


Check = Callable[[Any, Path, list[Fault]], Any]


def check(kind: Any, data: Any, faults: list[Fault]) -> Any:
    """The value of type `kind` that `data` says. What is wrong is added to `faults`, in the order of the fields; the
    value means nothing then."""
    return _check(kind)(data, (), faults)


_checks: dict[Any, Check] = {}


def _check(kind: Any) -> Check:
    if kind not in _checks:
        _checks[kind] = _made(kind)
    return _checks[kind]


def _made(kind: Any) -> Check:
    if kind is Any:
        return lambda value, path, faults: value
    if kind in _SIMPLE:
        return _simple(kind, _SIMPLE[kind])
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _annotated(_check(inner[0]), inner[1:])
    if origin in (Union, UnionType):
        return _union(inner)
    if origin is tuple:
        return _list(_check(inner[0]))
    if origin is dict or origin is Mapping:
        return _map(_check(inner[1]))
    if origin is Literal:
        return _one_of({option: option for option in inner})
    if isinstance(kind, type) and issubclass(kind, Part):
        return _part(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return _one_of({member.value: member for member in kind})
    raise TypeError(f"{kind} is no type of a field")


_SIMPLE = {str: "must be text", int: "must be a whole number", bool: "must be true or false"}


def _simple(kind: type, text: str) -> Check:
    def check(value: Any, path: Path, faults: list[Fault]) -> Any:
        if type(value) is not kind:  # True is no number
            faults.append(Fault(path, "type", text, value))
        return value

    return check


def _annotated(inner: Check, rules: tuple[Any, ...]) -> Check:
    before = [rule.apply for rule in rules if isinstance(rule, Before)]
    after = [rule.apply for rule in rules if isinstance(rule, After | Between)]

    def check(value: Any, path: Path, faults: list[Fault]) -> Any:
        count = len(faults)
        try:
            for apply in before:
                value = apply(value)
            value = inner(value, path, faults)
            if len(faults) == count:
                for apply in after:
                    value = apply(value)
        except ValueError as error:
            faults.append(Fault(path, "value", str(error), value))
        return value

    return check


def _union(options: tuple[Any, ...]) -> Check:
    """The first option that nothing is wrong with; if there is none, what is wrong inside of the one that fits best."""
    others = tuple(option for option in options if option is not NoneType)
    if len(others) < len(options):
        inner = _check(others[0]) if len(others) == 1 else _union(others)
        return lambda value, path, faults: None if value is None else inner(value, path, faults)
    checks = [_check(option) for option in options]

    def check(value: Any, path: Path, faults: list[Fault]) -> Any:
        missed: list[Fault] = []
        for one in checks:
            found: list[Fault] = []
            checked = one(value, path, found)
            if not found:
                return checked
            if isinstance(value, dict | list) and len(found[0].path) > len(path):
                missed = missed or found
        text = "must be " + " or ".join(_called(option) for option in options)
        faults += missed or [Fault(path, "type", text, value)]
        return value

    return check


def _called(kind: Any) -> str:
    text = _SIMPLE.get(kind)
    return text.removeprefix("must be ") if text else "a list" if get_origin(kind) is tuple else "a map"


def _list(inner: Check) -> Check:
    def check(value: Any, path: Path, faults: list[Fault]) -> Any:
        if not isinstance(value, list | tuple):
            faults.append(Fault(path, "type", "must be a list", value))
            return value
        return tuple([inner(item, (*path, i), faults) for i, item in enumerate(value)])

    return check


def _map(inner: Check) -> Check:
    def check(value: Any, path: Path, faults: list[Fault]) -> Any:
        if not isinstance(value, Mapping):
            faults.append(Fault(path, "type", "must be a map", value))
            return value
        for key in value:
            if not isinstance(key, str):
                faults.append(Fault((*path, str(key)), "type", "must be text", key))
        return {key: inner(item, (*path, key), faults) for key, item in value.items()}

    return check


def _one_of(options: Mapping[Any, Any]) -> Check:
    *first, last = (repr(option) for option in options)
    text = f"must be {', '.join(first)}{' or ' if first else ''}{last}"

    def check(value: Any, path: Path, faults: list[Fault]) -> Any:
        for option, meant in options.items():
            if type(value) is type(option) and value == option:
                return meant
        faults.append(Fault(path, "value", text, value))
        return value

    return check


def _part(kind: type[Part]) -> Check:
    own = kind._fields
    names = {info.key: name for name, info in own.items()}
    checks: dict[str, Check] = {}

    def check(value: Any, path: Path, faults: list[Fault]) -> Any:
        if not isinstance(value, dict):
            faults.append(Fault(path, "type", "must be a map", value))
            return value
        count, given = len(faults), {}
        for name, (key, default) in own.items():
            if key in value:
                if name not in checks:
                    checks[name] = _check(kinds(kind)[name])
                given[name] = checks[name](value[key], (*path, key), faults)
            elif default is _NOTHING:
                faults.append(Fault((*path, key), "missing", "is required", value))
        faults += [Fault((*path, key), "unknown-key", "is not known") for key in value if key not in names]
        return value if len(faults) > count else kind(**given)

    return check
