"""Field types that messages share, with their bounds."""

from __future__ import annotations

from typing import Annotated

import msgspec

from ..limits import KEY_BYTES_MAX, VALUE_BYTES_MAX

Counter = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
Stamp = Annotated[int, msgspec.Meta(ge=0, le=(1 << 62) - 1)]
"""A hybrid logical clock reading; the bound leaves room to tick on behind the largest."""
Id32 = Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
KeyBytes = Annotated[bytes, msgspec.Meta(max_length=KEY_BYTES_MAX)]
ValueBytes = Annotated[bytes, msgspec.Meta(max_length=VALUE_BYTES_MAX)]
Head = tuple[Id32, Counter, Counter]
"""(node, lineage, head): all that this origin wrote up to seq `head` is covered."""
