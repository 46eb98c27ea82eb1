"""Tests of one kind: see tests/README.md."""
