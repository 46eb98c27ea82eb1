"""Everything a peer decides, as pure values: no I/O, no clock, no randomness (see README.md)."""
