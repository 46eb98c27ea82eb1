"""Frames: whole, byte by byte, split anywhere, with junk behind, too long, of no known kind."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import Fault, RemoteFault
from protocol.limits import FRAME_BYTES_MAX
from protocol.wire.frames import HEADER, Framer, Kind, frame

from .samples import fault_of

Frames = list[tuple[Kind, bytes]]
some_frames = st.lists(st.tuples(st.sampled_from(Kind), st.binary(max_size=20)), max_size=5)


def written(frames: Frames) -> bytes:
    return b"".join(frame(kind, payload) for kind, payload in frames)


def fed(chunks: list[bytes]) -> Frames:
    framer = Framer()
    return [found for chunk in chunks for found in framer.feed(chunk)]


@given(some_frames)
def test_frames_come_out_as_they_went_in(frames: Frames) -> None:
    """Fed whole and fed byte by byte, the frames are the same and in order."""
    stream = written(frames)
    assert fed([stream]) == frames
    assert fed([bytes([byte]) for byte in stream]) == frames


@given(some_frames, st.lists(st.integers(0, 125)), st.binary(max_size=4))
def test_splits_and_an_unfinished_tail_change_nothing(frames: Frames, cuts: list[int], tail: bytes) -> None:
    """However the stream is cut, and whatever unfinished header stands behind it."""
    stream = written(frames) + tail
    ends = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    assert fed([stream[a:b] for a, b in pairwise(ends)]) == frames


def test_the_longest_frame_passes() -> None:
    """The limit itself is allowed, so that no sender has to guess."""
    longest = bytes(FRAME_BYTES_MAX)
    assert fed([frame(Kind.ENVELOPE, longest)]) == [(Kind.ENVELOPE, longest)]


@pytest.mark.parametrize("length", [FRAME_BYTES_MAX + 1, 2**32 - 1])
def test_a_frame_that_claims_too_much_is_refused_by_its_header(length: int) -> None:
    """Up to 4 GiB may be claimed: five bytes are enough to refuse it, and the stream stays refused."""
    framer = Framer()
    assert framer.feed(HEADER.pack(length, Kind.ENVELOPE)[:4]) == []
    for chunk in (b"\x01", b"", frame(Kind.HELLO, b"")):
        with pytest.raises(RemoteFault) as refused:
            framer.feed(chunk)
        assert fault_of(refused.value) == (
            Fault.TOO_LARGE,
            f"a frame of {length} bytes; the limit is {FRAME_BYTES_MAX}",
        )


@pytest.mark.parametrize("kind", [4, 0x16, 255])
def test_an_unknown_kind_is_malformed(kind: int) -> None:
    """Refused when its header is there, before its bytes are waited for."""
    with pytest.raises(RemoteFault) as refused:
        fed([HEADER.pack(100, kind)])
    assert fault_of(refused.value) == (Fault.MALFORMED, f"a frame of unknown kind {kind}")


@given(st.binary(max_size=40))
def test_noise_is_frames_or_a_fault(noise: bytes) -> None:
    """Bytes of anybody make frames that would be written just so, or raise RemoteFault, and nothing else."""
    try:
        frames = fed([noise])
    except RemoteFault as fault:
        assert fault.fault in (Fault.TOO_LARGE, Fault.MALFORMED)
    else:
        assert noise.startswith(written(frames))
