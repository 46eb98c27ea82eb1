"""Links to other nodes: TLS, the listener, the dialler, one reader and one writer per link."""
