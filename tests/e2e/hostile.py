"""A member that breaks the rules: the genuine keys of a node that does not run, and a blocking TLS socket."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

import msgspec

from peernode.daemon.folder import Folder
from peernode.daemon.serve import root_pem
from peernode.net.tls import Contexts
from protocol.identity.certificates import leaf_identity
from protocol.identity.keys import Ed25519Keys
from protocol.membership.record import MemberRecord
from protocol.node import build_registry
from protocol.types import NodeId, Payload
from protocol.wire.envelope import DOMAIN, Envelope, Header
from protocol.wire.frames import Framer, Kind, frame
from protocol.wire.hello import HELLO_DOMAIN, Close, Handshake, Hello, Signed, read_close

encode = msgspec.msgpack.encode


class Hostile:
    """Dials one daemon. `folder`: of an enrolled node that does not run."""

    def __init__(self, folder: Path, address: str, timeout_s: float = 10.0) -> None:
        opened = Folder(folder)
        self.keys = Ed25519Keys(opened.node_key(b""), opened.grant())
        self.context = Contexts(opened.chain_file, opened.key_file, root_pem(opened)).dial
        opened.close()
        self._address, self._timeout_s = address, timeout_s
        self._registry = build_registry()
        self._framer = Framer()
        self._frames: list[tuple[Kind, bytes]] = []
        self.run = time.time_ns() // 1_000_000
        self.seq = 0
        self.sock: socket.socket | None = None

    def __enter__(self) -> Hostile:
        return self

    def __exit__(self, *_: object) -> None:
        if self.sock is not None:
            self.sock.close()

    # Getting in

    def connect(self) -> NodeId:
        """TCP and TLS; who is there."""
        plain = dial(self._address, self._timeout_s)
        self.sock = secured = self.context.wrap_socket(plain)
        leaf = secured.getpeercert(binary_form=True)
        assert leaf is not None
        return leaf_identity(leaf, self.keys.cluster_id)

    def hello(self, **changes: object) -> Hello:
        """An honest HELLO, but for the changes."""
        nonce = Random(self.run).randbytes(16)
        cluster, node = self.keys.cluster_id, self.keys.node_id
        honest = Hello(1, 1, cluster, node, self.run, self.run - 1, self.run, nonce)
        return msgspec.structs.replace(honest, **changes)

    def send_hello(self, hello: Hello, sign: Callable[[bytes], bytes] | None = None) -> None:
        body = encode(hello)
        self.send(frame(Kind.HELLO, encode(Signed(body, (sign or self.keys.sign)(HELLO_DOMAIN + body)))))

    def shake_hands(self) -> None:
        """Until the link is up, as an honest member does it."""
        handshake = Handshake(self.keys, self._registry, self.hello(), self.connect(), dialled=True)
        self.send(handshake.hello())
        established = None
        while established is None:
            answer, established = handshake.receive(*self.receive())
            self.send(answer)

    # Saying things

    def send(self, raw: bytes) -> None:
        assert self.sock is not None
        self.sock.sendall(raw)

    def record(self, address: str, **changes: object) -> MemberRecord:
        """An honest record, but for the changes."""
        credential = list(self.keys.credential)
        honest = MemberRecord(
            "mallory", address, "0", 1, 1, self.run, False, [], credential, [], bytes(16), True
        )
        return msgspec.structs.replace(honest, **changes)

    def seal(
        self, message: Payload, sign: Callable[[bytes], bytes] | None = None, **changes: object
    ) -> bytes:
        """A signed frame of this link, honest but for the changes to its header."""
        self.seq += 1
        honest = Header(
            v=1,
            cluster_id=self.keys.cluster_id,
            type=self._registry.route_of(message).number,
            origin=self.keys.node_id,
            run=self.run,
            seq=self.seq,
            hlc=0,
            policy_epoch=0,
            payload=msgspec.Raw(encode(message)),
        )
        body = encode(msgspec.structs.replace(honest, **changes))
        return frame(Kind.ENVELOPE, encode(Envelope(body, (sign or self.keys.sign)(DOMAIN + body))))

    # Hearing things

    def receive(self) -> tuple[Kind, bytes]:
        """The next frame. Raises ConnectionError when the daemon has hung up."""
        assert self.sock is not None
        while not self._frames:
            chunk = self.sock.recv(65536)
            if not chunk:
                raise ConnectionError("the daemon hung up")
            self._frames = self._framer.feed(chunk)
        return self._frames.pop(0)

    def told(self) -> Close:
        """What the daemon says when it hangs up; whatever it says before is not heard."""
        while True:
            kind, payload = self.receive()
            if kind is Kind.CLOSE:
                return read_close(payload)

    def is_cut(self) -> bool:
        """Whether nothing more comes; waits for it."""
        assert self.sock is not None
        try:
            while self.sock.recv(65536):
                pass
        except (ConnectionError, ssl.SSLError):
            pass
        return True


def dial(address: str, timeout_s: float = 10.0) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=timeout_s)
