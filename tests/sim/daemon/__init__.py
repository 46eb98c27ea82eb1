"""Whole daemons (trio, TLS, SQLite) in one process, on a simulated network, in virtual time: see simulation.py."""
