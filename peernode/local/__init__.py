"""The local faces of a daemon: one method table, and the Unix socket that serves it."""
