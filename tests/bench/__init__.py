"""The benchmark: what this build does in a second and what that costs, beside Redis (see README.md)."""
