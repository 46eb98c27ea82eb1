"""The version of this distribution, read by the build and by `peernode version`."""

VERSION = "0.1.0"
