"""The commit protocol alone, in a model of everything around it."""
