"""A discrete-event simulator of many pure nodes: see swarm.py."""
