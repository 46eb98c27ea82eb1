"""The shape of method parameters, and how they are read."""

from __future__ import annotations

from functools import cache
from typing import Self

import msgspec


class Params(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Named parameters; given by position they come in the order of the fields."""

    @classmethod
    def read(cls, params: object) -> Self:
        """Check what a client sent. Raises msgspec.ValidationError or TypeError, which say what is wrong."""
        given = cls._named(params)
        for name in bytes_fields(cls):
            value = given.get(name)
            if isinstance(value, str):
                given[name] = value.encode()
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


@cache
def bytes_fields(params: type[Params]) -> tuple[str, ...]:
    """Strings are accepted for these and mean their UTF-8."""
    return tuple(f.name for f in msgspec.structs.fields(params) if f.type in (bytes, bytes | None))
