"""The replicated store: entries, last-write-wins merge, batches of new entries, delta sync."""
