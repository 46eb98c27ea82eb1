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

RANGES_MAX = 64
"""Gaps remembered in what is covered of one origin; more are left to sync."""

CREDENTIAL_CERTIFICATES_MAX = 18
"""A path of 16 inviters, the leaf and the root."""

CERTIFICATE_BYTES_MAX = 2048
"""Ours are some 450 bytes."""

PATH_LENGTH_MAX = 16
"""How many inviters may stand between the cluster key and a member (a handshake costs 9 ms at 16)."""

BATCH_BYTES_MAX = 512 * 1024
"""Payload of one batch: half a frame leaves room for the largest value that overshoots it."""

KEYSPACE_CHARS_MAX = 128
"""A keyspace's name stands in the key of its definition, four bytes a character."""

KEYSPACES_MAX = 1024
"""Definitions: every node holds all of them in memory. Who creates does not go beyond, but several at once may."""

KEYSPACES_REMEMBERED_MAX = 64
"""Keyspaces without a definition whose id is not reckoned anew with each request."""

VOTERS_MAX = 7
"""Voters of a keyspace: seven survive three, and each one more costs every write a message."""

SYNC_CHUNK_BYTES_MAX = 256 * 1024
"""One chunk of a sync session: the sender reads it in one go, the receiver commits it in one go."""

SYNC_ROWS_MAX = 2048
"""Rows of one chunk, so that many tiny rows do not make one long pause."""

SYNC_LOOKS_MAX = 20_000
"""Rows that are read and passed over for one chunk: some 50 ms."""

HEARTBEAT_HEADS_MAX = 32
"""Heads announced in one heartbeat; the rest waits for the next."""

HEARTBEAT_STREAMS_MAX = 32
"""Gossip streams announced in one heartbeat; the rest waits for the next."""

GOSSIP_STREAMS_MAX = 8 * 1024
"""Streams that are followed: two runs of each member; 416 KiB on the wire."""

GOSSIP_KEPT_BYTES_MAX = 16 << 20
"""Messages kept for peers that lack them: some seconds of a busy cluster; older ones are left to sync."""

GOSSIP_AHEAD_MAX = 1024
"""Numbers remembered beyond a gap of one stream; what is missing before them is then given up."""

GOSSIP_WANT_MAX = 64
"""Messages asked for at a time, and how far back a stream that is new to us is wanted."""

GOSSIP_ANSWER_BYTES_MAX = 512 * 1024
"""One answer to such a question: more is asked for again."""

HEARTBEAT_ECHOES_MAX = 64
"""Echoed clocks in one heartbeat: one a link of the mesh."""

HEARTBEAT_REPORTS_MAX = 64
"""Members that one heartbeat reports as closed or unreachable: one a link of the mesh."""

SCAN_ITEMS_MAX = 1000
"""Items of one page of a scan, whatever the caller asks for."""

SCAN_BYTES_MAX = 512 * 1024
"""Bytes of one page of a scan: it must fit into one frame of the local socket."""

WRITES_WAITING_MAX = 10_000
"""Writes that wait for a node to settle after its start."""

VOIDED_MAX = 16
"""Declarations in a member's record that entries of its lineages carry wrong stamps; the oldest go first."""

RESERVED_SEQS = 4096
"""Numbers reserved for writes that are answered before they are durable: a restart skips what is left of them."""

RESERVED_MS = 4000
"""How far ahead stamps are reserved for them: a restart begins that much in the future, within what peers merge."""

BATCH_ITEMS_MAX = 1000
"""Items of one atomic batch of a client: one commit, one answer."""

REQUEST_ID_BYTES_MIN = 16
"""Made by clients at random: shorter ones would meet by chance."""

REQUESTS_KEPT_MS = 10 * 60 * 1000
"""How long a request can be repeated: longer than any client retries."""

REQUEST_ITEMS_KEPT_MAX = 100_000
"""Versions in the results that are kept for that, some 30 MiB; beyond it the oldest go early."""

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

COMMIT_STEPS_MAX = 1024
"""Steps of transactions under one signature."""

COMMIT_STEPS_BYTES_MAX = 400 * 1024
"""And their bytes: half a frame leaves room for the step that overshoots it."""

TXN_OPS_MAX = 1000
"""Keys of one transaction in one keyspace: its votes name them all."""

TXN_BYTES_MAX = 512 * 1024
"""Keys and values of one transaction: PREPARE is one frame."""

TXN_SHARDS_MAX = 16
"""Coordinated keyspaces of one transaction."""

TXN_TASKS_MAX = 4096
"""Transactions that one node coordinates at a time."""

TXN_RECORDS_MAX = 200_000
"""Transactions that a voter keeps until everybody knows their outcome: beyond that it does not vote."""

TXNS_FORGOTTEN_MAX = 50_000
"""Outcomes remembered for steps that come late: ten seconds of a very busy cluster."""

OUTCOMES_OWED_MAX = 20_000
"""Outcomes that a node still spreads; for older ones a voter takes over."""

READ_KEYS_MAX = 1000
"""Keys of one linearizable read."""

COMMIT_STATES_MAX = 100
"""Transactions in one answer to the question what is in doubt: more than a person reads."""

STATE_KEYS_MAX = 8
"""Keys of each that are told."""

SURVEY_COMMITS_MAX = 500
"""Commits in one answer to a voter that takes over: some 100 KB."""

SURVEY_VALUES_MAX = 1000
"""Entries that are held and not covered yet, in such an answer; with more of them a sync session is soon over."""

SURVEY_VALUES_BYTES_MAX = 300 * 1024
"""And their bytes: with as many heads as there can be they still fit a frame."""

INQUIRIES_MAX = 64
"""Such questions that one node has open."""

OUTCOME_SEEN_S = 10.0
"""An outcome that is not forgotten so long after its beginning has nobody who spreads it: a voter takes over."""

REQUEST_ID_BYTES_MAX = 64
"""A client's name for a request."""
