"""The shape of method parameters, and how they are read."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Self

import msgspec


class Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Named parameters; given by position they come in the order of the fields."""

    @classmethod
    def read(cls, params: object) -> Self:
        """Check what a client sent. Raises msgspec.ValidationError or TypeError, which say what is wrong."""
        given = cls._named(params)
        for name in bytes_fields(cls):
            if isinstance(given.get(name), str):  # msgspec would take it for base64
                given = {**given, name: as_bytes(given[name])}
        return msgspec.convert(given, cls)

    @classmethod
    def _named(cls, params: object) -> dict[str, object]:
        if isinstance(params, list):
            if len(params) == 1 and isinstance(params[0], dict):
                return params[0]
            fields = cls.__struct_fields__
            if len(params) > len(fields):
                raise TypeError(f"at most {len(fields)} parameters: {', '.join(fields)}")
            return dict(zip(fields, params, strict=False))
        if isinstance(params, dict):
            return params
        raise TypeError("parameters are a map, or a list by position")


class NoParams(Params, frozen=True):
    pass


def each(given: dict[str, object], name: str, read: Callable[[object], object]) -> dict[str, object]:
    """The parameters, with `read` done to each thing in a list; what is no list is left for the check to name."""
    listed = given.get(name)
    return {**given, name: [read(one) for one in listed]} if isinstance(listed, list) else given


def as_bytes(value: object) -> Any:
    """A string means its UTF-8; whatever is neither is left for the check to name."""
    return value.encode() if isinstance(value, str) else value


@cache
def bytes_fields(params: type[Params]) -> tuple[str, ...]:
    """Strings are accepted for these and mean their UTF-8."""
    return tuple(f.name for f in msgspec.structs.fields(params) if f.type in (bytes, bytes | None))
