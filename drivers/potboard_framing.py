"""Frames of the pot-board protocol, sans I/O: COBS between zero bytes, a CRC, and resynchronisation after garbage.

COBS: S. Cheshire and M. Baker, "Consistent Overhead Byte Stuffing", IEEE/ACM Transactions on Networking 7 (1999) 159.
"""

import binascii
from dataclasses import dataclass

DELIMITER = 0
REPLY = 0x80
"""High bit of T in a reply."""

OVERHEAD = 4
"""Bytes of a decoded frame beside its payload: T, SEQ and two of CRC."""

GAP = 0.05
"""Seconds of silence after which the beginning of a frame is forgotten."""


class FramingError(ValueError):
    """Bytes that are no COBS block."""


def crc16(data: bytes) -> int:
    """Return CRC-16/CCITT-FALSE: polynomial 0x1021, initial 0xFFFF, nothing reflected; 0x29B1 for ``b"123456789"``."""
    return binascii.crc_hqx(data, 0xFFFF)


def cobs_encode(data: bytes) -> bytes:
    """Return ``data`` without zero bytes: at most one byte longer, and one more per 254 bytes."""
    encoded = bytearray()
    runs = data.split(b"\0")
    for number, run in enumerate(runs):
        last = number == len(runs) - 1
        start = 0
        while len(run) - start >= 254:
            encoded += b"\xff" + run[start : start + 254]
            start += 254
        rest = run[start:]
        # A full block stands for no zero byte, so nothing need follow one at the end of the data.
        if rest or not last or start == 0:
            encoded += bytes([len(rest) + 1]) + rest
    return bytes(encoded)


def cobs_decode(encoded: bytes) -> bytes:
    """Return the data of a COBS block.

    Raises FramingError if it holds a zero byte or ends within a run.
    """
    decoded = bytearray()
    position = 0
    while position < len(encoded):
        code = encoded[position]
        run = encoded[position + 1 : position + code]
        if code == 0 or len(run) != code - 1 or DELIMITER in run:
            raise FramingError("a zero byte, or a run cut short, in a COBS block")
        decoded += run
        position += code
        if code != 0xFF and position < len(encoded):
            decoded.append(0)
    return bytes(decoded)


def longest_encoded(decoded: int) -> int:
    """Return the most bytes COBS makes of ``decoded`` bytes."""
    return decoded + max(1, -(-decoded // 254))


@dataclass(frozen=True)
class Frame:
    """One frame: ``kind`` T, ``seq`` SEQ and the payload."""

    kind: int
    seq: int
    payload: bytes = b""

    @property
    def body(self) -> bytes:
        """T, SEQ, payload and the CRC over them, most significant byte first."""
        content = bytes((self.kind, self.seq)) + self.payload
        return content + crc16(content).to_bytes(2, "big")

    @property
    def crc(self) -> int:
        """The CRC the frame carries."""
        return crc16(bytes((self.kind, self.seq)) + self.payload)

    def encode(self) -> bytes:
        """Return the bytes on the wire: 00, COBS of the body, 00."""
        return b"\0" + cobs_encode(self.body) + b"\0"

    @property
    def wire_bytes(self) -> int:
        """Bytes on the wire."""
        return len(self.encode())


class FrameDecoder:
    """Bytes into frames. What is no frame is dropped and counted; memory is bounded by ``limit`` decoded bytes."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.crc_errors = 0
        self.overflows = 0
        self._partial = bytearray()
        self._dropping = False
        self._last = 0.0

    def feed(self, data: bytes, now: float = 0.0) -> list[Frame]:
        """Return the frames completed by ``data``, which came at ``now`` seconds of any clock."""
        if data and now - self._last > GAP and (self._partial or self._dropping):
            self.crc_errors += not self._dropping
            self.reset()
        if data:
            self._last = now
        frames: list[Frame] = []
        *ended, rest = data.split(b"\0")
        for piece in ended:
            self._keep(piece)
            frame = self._finish()
            if frame is not None:
                frames.append(frame)
        self._keep(rest)
        return frames

    def reset(self) -> None:
        """Forget the beginning of a frame."""
        self._partial.clear()
        self._dropping = False

    def _keep(self, piece: bytes) -> None:
        if self._dropping:
            return
        if len(self._partial) + len(piece) > longest_encoded(self.limit):
            self.overflows += 1
            self._partial.clear()
            self._dropping = True
        else:
            self._partial += piece

    def _finish(self) -> Frame | None:
        dropped = self._dropping
        encoded = bytes(self._partial)
        self.reset()
        if dropped or not encoded:
            return None
        try:
            body = cobs_decode(encoded)
        except FramingError:
            self.crc_errors += 1
            return None
        if len(body) > self.limit:
            self.overflows += 1
            return None
        # The CRC over data and CRC is 0, because it is sent most significant byte first.
        if len(body) < OVERHEAD or crc16(body) != 0:
            self.crc_errors += 1
            return None
        return Frame(body[0], body[1], body[2:-2])
