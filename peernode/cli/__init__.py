"""The command line. Commands load when they are called, so that a client command starts fast."""

from .root import main

__all__ = ["main"]
