"""Who is a member, where, and in which state: the table, the heartbeats, the dials."""
