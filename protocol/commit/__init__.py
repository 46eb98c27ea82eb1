"""Coordinated writes: two-phase commit whose decision stands at a majority of fixed voters."""
