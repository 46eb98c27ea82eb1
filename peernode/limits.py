"""Every bound of the runtime, named once, with its reason (those of the protocol are in protocol/limits.py)."""

GROUP_ROWS_MAX = 512
"""Rows of one transaction: more hold up the first one's acknowledgement."""

GROUP_BYTES_MAX = 1 << 20
"""Bytes of one transaction, for the same reason."""

CACHE_BYTES_MAX = 64 << 20
"""Entries kept in memory above SQLite."""

ENTRY_OVERHEAD_BYTES = 340
"""What a cached entry takes beside its key and value (measured)."""

LINK_QUEUE_BYTES_MAX = 4 << 20
"""Bulk waiting for one peer; beyond that it is shed, and sync brings it later."""

LINK_CONTROL_BYTES_MAX = 2 << 20
"""Control messages waiting for one peer: one that does not even read these is cut off."""

SEND_BYTES_MAX = 256 * 1024
"""One write to a link: large enough to be cheap, small enough for control to overtake bulk."""

RECEIVE_BYTES_MAX = 64 * 1024
"""One read from a link or a client."""

STRANGERS_MAX = 64
"""Connections that have not proved who they are; one more ends the oldest that has said nothing."""

HANDSHAKE_S = 5.0
"""From the first byte of a connection to an established link."""

CONNECT_S = 3.0
"""A joiner's TCP connect that takes longer will not succeed on the networks that we are made for."""

BACKLOG_MAX = 4096
"""Connections that wait to be accepted. Members ask a paused process twice a second whether it answers; when its
backlog is full their SYNs are dropped, and then a pause looks like a lost host."""

CLOSE_S = 1.0
"""For the last words on a link, or to a client."""

JOIN_ATTEMPT_S = 5.0
"""One whole join conversation."""

CLIENT_REQUESTS_MAX = 1024
"""Unanswered requests of one client; beyond that its socket is not read."""

CLIENT_BYTES_MAX = 8 << 20
"""Unread answers of one client, and requests in flight; beyond that its socket is not read."""

CLIENTS_BYTES_MAX = 128 << 20
"""The same for all clients together; beyond that only clients are read that hold nothing yet."""

CLIENTS_TURN_S = 0.0001
"""After so long no new round of requests begins before links and timers had their turn: some five of one client."""

CLIENTS_MAX = 1024
"""Clients of the local socket at a time."""

MESSAGE_BYTES_MAX = 1 << 20
"""One request of a client."""

CLOSE_WAIT_S = 2.0
"""How long a stopping daemon waits for acknowledgements of its goodbye."""

HANDOVER_S = 10.0
"""How long `leave` waits for peers to take over what only this node holds; a plain stop waits CLOSE_WAIT_S."""

FIRST_SYNC_S = 2.0
"""A node that was a member before does not wait longer for peers before it is ready."""

TTL_CACHE_BYTES_MAX = 64 << 20
"""The local TTL cache: as much as the entries above SQLite may take."""

TTL_CACHE_ENTRIES_MAX = 100_000
"""Its keys are kept in order, which costs 10 us a new key at this size, and ten times that at ten times it."""

TTL_CACHE_OVERHEAD_BYTES = 560
"""What an entry takes there beside its key and value (measured, each expiring in a second of its own)."""

TTL_CACHE_DEFAULT_TTL_MS = 300_000
"""Five minutes bound how long a value may be stale that nobody invalidates."""

TTL_CACHE_SWEEP_MAX = 32
"""Expired entries that one call drops on its way: each costs 10 us."""

TTL_CACHE_SWEEP_S = 1.0
"""How often expired entries are looked for; they wait in buckets of one second, so more often finds none."""

TTL_CACHE_GLOB_KEYS_PER_S_MAX = 1_000_000
"""Keys that globs are matched against: 0.2 us each, so that a flood of globs takes a fifth of a core."""

CLIENT_NOTICE_BYTES_MAX = 1 << 20
"""Unread bytes of one client beyond which its notifications are counted, not kept."""

CLIENT_SUBSCRIPTIONS_MAX = 256
"""Subscriptions of one client at a time."""

LOCK_TTL_MS_MIN = 100
"""A shorter lease could be over before the answer that grants it."""

LOCK_TTL_MS_MAX = 24 * 3600 * 1000
"""So long a dead holder is waited for at most."""

LOCK_LATE_SHARE = 0.02
"""So much longer than its lease a lock stands before it is taken over: two clocks may differ in their pace."""

LOCKS_WATCHED_MAX = 10_000
"""Locks whose lease this node observes for those who want them; one that is forgotten is observed anew."""
