"""The durable store: SQLite, one writer, group commit (see ../README.md)."""
