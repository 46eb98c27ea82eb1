"""Bytes to messages and back: frames, codec, signed envelope, message registry, HELLO (see ../README.md)."""
