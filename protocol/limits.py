"""Every bound of the protocol, named once, with its reason (the runtime's are in peernode/limits.py)."""

FRAME_BYTES_MAX = 1 << 20
"""One frame on a link: the largest value four times over, and still small enough to buffer per peer."""

KEY_BYTES_MAX = 1024
"""A key is an index term, not a document."""

VALUE_BYTES_MAX = 256 * 1024
"""A value travels in one frame beside others and is held in memory by every reader."""

NAME_CHARS_MAX = 63
"""A node name is a DNS label, so that it can be one."""

TAGS_MAX = 32
"""Tags travel in every member record."""

TAG_CHARS_MAX = 128
"""One key or value of a tag."""

ADDRESS_CHARS_MAX = 255
"""A DNS name's own bound; the port comes on top."""

MEMBERS_MAX = 4096
"""A full table of signed records: about 8 MiB."""

ORIGINS_MAX = 8 * 1024
"""Entries of a version vector: members times the lineages that each ever had; 416 KiB on the wire."""

CREDENTIAL_CERTIFICATES_MAX = 18
"""A path of 16 inviters, the leaf and the root."""

CERTIFICATE_BYTES_MAX = 2048
"""Ours are some 450 bytes."""

PATH_LENGTH_MAX = 16
"""How many inviters may stand between the cluster key and a member (a handshake costs 9 ms at 16)."""

BATCH_BYTES_MAX = 512 * 1024
"""Payload of one batch: half a frame leaves room for the largest value that overshoots it."""

SYNC_CHUNK_BYTES_MAX = 256 * 1024
"""One chunk of a sync session: the sender reads it in one go, the receiver commits it in one go."""

SYNC_ROWS_MAX = 2048
"""Rows of one chunk, so that many tiny rows do not make one long pause."""

HEARTBEAT_HEADS_MAX = 32
"""Heads announced in one heartbeat; the rest waits for the next."""

HEARTBEAT_ECHOES_MAX = 64
"""Echoed clocks in one heartbeat: one a link of the mesh."""

HEARTBEAT_REPORTS_MAX = 64
"""Members that one heartbeat reports as closed or unreachable: one a link of the mesh."""

SCAN_ITEMS_MAX = 1000
"""Items of one page of a scan, whatever the caller asks for."""

SCAN_BYTES_MAX = 512 * 1024
"""Bytes of one page of a scan: it must fit into one frame of the local socket."""

TTL_MS_MAX = 100 * 365 * 24 * 3600 * 1000
"""A hundred years: beyond that the caller means for ever."""

CLOSE_TEXT_CHARS_MAX = 500
"""Why a link is closed, in words for the other side's log."""

SEEDS_MAX = 32
"""Addresses that are dialled without knowing who is there."""

TICKETS_MAX = 256
"""Live tickets of one issuer."""

TICKET_USES_MAX = 1000
"""Uses of one ticket."""

TICKET_TTL_MS_MAX = 7 * 24 * 3600 * 1000
"""A forgotten ticket is an open door."""

TICKET_ADDRESSES_MAX = 8
"""A ticket is pasted by hand."""

LINK_FRAMES_PER_S_MAX = 10_000
"""One verified signature costs 0.1 ms, so that many would fill a core."""

LINK_FRAMES_BURST_MAX = 20_000
"""What a link may send at once after a quiet spell."""

STAGED_BYTES_MAX = 32 << 20
"""Rows waiting for the disk: beyond that writers are told `overloaded`, and batches of peers are left to sync."""

WALK_REPLACED_MAX = 100_000
"""Keys overwritten while one sync session reads past them; beyond that the session begins anew."""
