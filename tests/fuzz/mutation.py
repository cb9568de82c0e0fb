"""Inputs for a fuzzer: changed copies of kept ones, and noise. The same seed gives the same inputs."""

from collections.abc import Iterator, Sequence
from itertools import count
from random import Random

LONGEST_NOISE = 64
"""Bytes of an input without a model."""

WHOLE = (0, 1, 2, 4, 7, 8, 9, 10, 13, 32, 127, 128, 253, 254, 255)
"""Bytes at which something changes: counts, line ends, signs, the longest COBS run."""


def inputs(kept: Sequence[bytes], tokens: Sequence[bytes], generator: Random, longest: int) -> Iterator[bytes]:
    """Yield inputs of up to ``longest`` bytes without end: the kept ones as they are, then one in ten noise.

    The others are kept ones with a few changes; ``tokens`` are pieces that mean something to what is fuzzed.
    """
    yield from (each[:longest] for each in kept)
    words = [*tokens, b"\0", b"\xff"]
    for _ in count():
        if not kept or generator.random() < 0.1:
            yield noise(words, generator)[:longest]
            continue
        changed = bytearray(generator.choice(kept))
        # Mostly one change, so that most of the input still means something.
        for _ in range(1 + min(8, int(generator.expovariate(1.0)))):
            change(changed, kept, words, generator)
        yield bytes(changed[:longest])


def noise(words: Sequence[bytes], generator: Random) -> bytes:
    """Return random bytes, or words in random order."""
    length = generator.randrange(LONGEST_NOISE)
    if generator.random() < 0.5:
        return generator.randbytes(length)
    return b"".join(generator.choice(words) for _ in range(length // 4))


def change(data: bytearray, kept: Sequence[bytes], words: Sequence[bytes], generator: Random) -> None:
    """Make one random change to ``data``."""
    at, length = generator.randrange(len(data) + 1), 1 + int(generator.expovariate(0.2))
    match generator.randrange(9):
        case 0 if at < len(data):
            data[at] ^= 1 << generator.randrange(8)
        case 1 if at < len(data):
            data[at] = generator.choice(WHOLE)
        case 2:
            data[at:at] = generator.randbytes(length)
        case 3:
            del data[at : at + length]
        case 4:
            data[at:at] = data[at : at + length] * (1 + int(generator.expovariate(0.3)))
        case 5:
            data[at : at + generator.choice((0, length))] = generator.choice(words)
        case 6:
            other = generator.choice(kept)
            start = generator.randrange(len(other) + 1)
            data[at : at + length] = other[start : start + length]
        case 7:
            del data[at:]
        case _:
            data[at : at + length] = generator.choice(words)
