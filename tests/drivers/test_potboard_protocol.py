"""Frames, messages and text of the pot board, against their definitions and the specification's worked examples."""

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilcl.drivers import potboard_protocol as wire
from hilcl.drivers.potboard_framing import (
    REPLY,
    Frame,
    FrameDecoder,
    FramingError,
    cobs_decode,
    cobs_encode,
    crc16,
    longest_encoded,
)
from hilcl.drivers.potboard_text import COMMANDS, Command, TextError, parse_line

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "potboard-protocol.md"

u8, u16, u32 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32))
i64 = st.integers(-(1 << 63), (1 << 63) - 1)
codes = st.lists(st.integers(0, 0xFFFE), min_size=1, max_size=40).map(tuple)
lines = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)
levels = st.lists(st.builds(wire.Level, u8, i64), max_size=8).map(tuple)
scans = st.one_of(
    st.builds(wire.Scan, u8, u8, st.integers(1, 0xFFFF), st.sampled_from(wire.WIDTHS), st.booleans()),
    st.builds(wire.Scan, u8, u8, st.integers(1, 0xFFFF), st.just(wire.SEVENS), st.just(False)),
)
writes = st.builds(wire.Write, u16, codes, st.booleans(), u32)
requests = st.one_of(
    st.builds(wire.Hello, u8, u8),
    st.builds(wire.Describe, st.sampled_from(wire.Kind), u8),
    st.just(wire.ReadCounters()),
    st.builds(wire.Stage, u16, codes),
    st.builds(wire.Commit, u16, st.booleans(), u32),
    writes,
    st.builds(wire.Read, u16, u16, st.booleans()),
    scans,
    st.builds(wire.Step, writes, levels, scans),
    st.builds(wire.SetSources, levels, u32),
    st.builds(wire.SetSwitches, st.lists(st.tuples(u8, st.booleans()), max_size=8).map(tuple), u32),
    st.builds(wire.Watchdog, u16),
    st.builds(wire.Safe, st.sampled_from(wire.SafeAction)),
    st.builds(wire.Text, lines),
    st.just(wire.Exit()),
)
written = st.builds(wire.Written, u16, st.sampled_from(wire.Verdict), u16)


@st.composite
def scanned(draw: st.DrawFn) -> wire.Scanned:
    width = draw(st.sampled_from((*wire.WIDTHS, wire.SEVENS)))
    sums = draw(st.lists(st.integers(0, wire.largest_sum(width)), max_size=9))
    if width == wire.SEVENS:
        return wire.Scanned(tuple(sums), None, width)
    squares = st.lists(st.integers(0, (1 << 64) - 1), min_size=len(sums), max_size=len(sums)).map(tuple)
    return wire.Scanned(tuple(sums), draw(st.none() | squares), width)


replies = st.one_of(
    st.tuples(
        st.just(wire.Opcode.HELLO),
        st.builds(wire.Greeting, u16, u16, u8, u8, u8, u8, u8, u16, u16, st.sampled_from(wire.Reason), lines, u8, u8),
    ),
    st.tuples(
        st.just(wire.Opcode.DESC),
        st.one_of(
            st.builds(wire.PotsDescription, lines, u16, u16, u16, u16, u16, *(st.booleans() for _ in range(4))),
            st.builds(wire.AdcDescription, u8, u8, u8, u32, i64, u32),
            st.builds(wire.SourceDescription, u8, i64, i64),
        ),
    ),
    st.tuples(st.just(wire.Opcode.COUNTERS), st.builds(wire.Counters, u16, u16, u16, u16)),
    st.tuples(st.just(wire.Opcode.STAGE), st.builds(wire.Staged, u16)),
    st.tuples(st.sampled_from([wire.Opcode.WRITE, wire.Opcode.COMMIT]), written),
    st.tuples(st.just(wire.Opcode.READ), st.builds(wire.Codes, st.lists(u16, max_size=30).map(tuple))),
    st.tuples(st.just(wire.Opcode.SCAN), scanned()),
    st.tuples(st.just(wire.Opcode.STEP), st.builds(wire.Stepped, written, scanned())),
    st.tuples(st.sampled_from([wire.Opcode.SOURCE, wire.Opcode.SWITCH, wire.Opcode.EXIT]), st.just(wire.Done())),
    st.tuples(st.just(wire.Opcode.WATCHDOG), st.builds(wire.Watching, u16, st.sampled_from(wire.Reason))),
    st.tuples(st.just(wire.Opcode.SAFE), st.builds(wire.Latched, st.sampled_from(wire.Reason))),
    st.tuples(st.just(wire.Opcode.TEXT), st.builds(wire.Answer, lines)),
)


def test_crc_has_the_published_check_value() -> None:
    assert crc16(b"123456789") == 0x29B1


@pytest.mark.parametrize(
    ("data", "encoded"),
    [
        (b"", "01"),
        (b"\0", "01 01"),
        (b"\0\0", "01 01 01"),
        (b"\x11\x22\0\x33", "03 11 22 02 33"),
        (b"\x11\0\0\0", "02 11 01 01 01"),
        (bytes(range(1, 255)), "ff" + bytes(range(1, 255)).hex()),
        (bytes(range(256)), "01 ff" + bytes(range(1, 255)).hex() + "02 ff"),
        (bytes(range(1, 256)), "ff" + bytes(range(1, 255)).hex() + "02 ff"),
        (bytes(range(2, 256)) + b"\0", "ff" + bytes(range(2, 256)).hex() + "01 01"),
    ],
)
def test_cobs_encodes_published_examples(data: bytes, encoded: str) -> None:
    assert cobs_encode(data) == bytes.fromhex(encoded)
    assert cobs_decode(bytes.fromhex(encoded)) == data


@given(st.binary(max_size=1200) | st.lists(st.just(7), min_size=250, max_size=770).map(bytes))
def test_cobs_brings_back_any_data_without_zeros(data: bytes) -> None:
    encoded = cobs_encode(data)
    assert 0 not in encoded
    assert len(encoded) <= longest_encoded(len(data))
    assert cobs_decode(encoded) == data


@pytest.mark.parametrize("encoded", [b"\x03\x11", b"\0", b"\x03\x11\0"])
def test_cobs_refuses_what_it_never_makes(encoded: bytes) -> None:
    with pytest.raises(FramingError):
        cobs_decode(encoded)


@given(requests, st.integers(1, 255))
def test_requests_come_back(request_: wire.Request, seq: int) -> None:
    frame = wire.request_frame(request_, seq)
    assert FrameDecoder(4096).feed(frame.encode()) == [frame]
    assert wire.decode_request(frame) == request_


@given(replies, u8)
def test_replies_come_back(reply: tuple[wire.Opcode, wire.Reply], seq: int) -> None:
    frame = wire.reply_frame(reply[0], seq, reply[1])
    assert FrameDecoder(4096).feed(frame.encode()) == [frame]
    assert frame.kind == reply[0] | REPLY
    assert wire.decode_reply(frame) == reply[1]


@given(st.sampled_from(wire.Opcode), st.sampled_from([each for each in wire.Status if each]), u16)
def test_refusals_come_back(opcode: wire.Opcode, status: wire.Status, detail: int) -> None:
    refusal = wire.Refusal(status, detail)
    assert wire.decode_reply(wire.reply_frame(opcode, 3, refusal)) == refusal


@given(u8, st.binary(max_size=60))
def test_any_payload_is_a_message_or_a_protocol_error(kind: int, payload: bytes) -> None:
    for decode in (wire.decode_request, wire.decode_reply):
        # Nothing but a ProtocolError may come of it.
        with contextlib.suppress(wire.ProtocolError):
            assert decode(Frame(kind, 1, payload)) is not None


@given(st.lists(requests, min_size=1, max_size=4), st.data())
def test_frames_arrive_however_the_bytes_are_cut(messages: list[wire.Request], data: st.DataObject) -> None:
    frames = [wire.request_frame(message, seq) for seq, message in enumerate(messages, 1)]
    stream = b"".join(frame.encode() for frame in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    decoder = FrameDecoder(4096)
    got = [
        frame
        for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True)
        for frame in decoder.feed(stream[start:stop])
    ]
    assert got == frames
    assert (decoder.crc_errors, decoder.overflows) == (0, 0)


@given(st.binary(max_size=300), st.integers(1, 40))
def test_a_frame_after_garbage_is_found(garbage: bytes, piece: int) -> None:
    frame = wire.request_frame(wire.Watchdog(2000), 9)
    stream = garbage + frame.encode()
    decoder = FrameDecoder(64)
    got = [each for start in range(0, len(stream), piece) for each in decoder.feed(stream[start : start + piece])]
    assert got[-1] == frame


@given(requests, st.data())
def test_one_flipped_bit_never_makes_another_frame(message: wire.Request, data: st.DataObject) -> None:
    stream = bytearray(wire.request_frame(message, 5).encode())
    place = data.draw(st.integers(1, len(stream) - 2))
    stream[place] ^= 1 << data.draw(st.integers(0, 7))
    assert wire.request_frame(message, 5) not in FrameDecoder(4096).feed(bytes(stream))


def test_what_is_too_long_is_counted_and_dropped_in_bounded_memory() -> None:
    decoder = FrameDecoder(20)
    for _ in range(100):
        assert decoder.feed(b"\x55" * 1000) == []
        assert len(decoder._partial) <= longest_encoded(20)
    frame = wire.request_frame(wire.Watchdog(1), 1)
    assert decoder.feed(frame.encode()) == [frame]
    assert decoder.overflows == 1


def test_silence_within_a_frame_drops_what_had_come() -> None:
    frame = wire.request_frame(wire.Watchdog(2000), 1)
    data = frame.encode()
    decoder = FrameDecoder(64)
    assert decoder.feed(data[:5], 10.0) == []
    assert decoder.feed(b"", 10.04) == []
    assert decoder.feed(data[5:], 10.049) == [frame]
    assert decoder.feed(data[:5], 20.0) == []
    assert decoder.feed(data[5:], 20.06) == []
    assert decoder.crc_errors == 2  # the beginning, and the rest that makes no frame of its own
    assert decoder.feed(data, 20.07) == [frame]


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("*IDN?", Command("*IDN?")),
        ("*idn?\r", Command("*IDN?")),
        ("SYST:ERR?", Command("SYSTem:ERRor?")),
        (":system:error?", Command("SYSTem:ERRor?")),
        ("POT 3,128", Command("POT", (3, 128))),
        ("pot? 3", Command("POT?", (3,))),
        ("MEAS? 0", Command("MEASure?", (0,))),
        ("SOUR 1, -2.5e-1", Command("SOURce", (1,), -0.25)),
        ("SOUR 1,float", Command("SOURce", (1,), None)),
        ("ROUT:CLOS 2", Command("ROUTe:CLOSe", (2,))),
        ("SAFE:CLE", Command("SAFE:CLEar")),
    ],
)
def test_lines_are_understood(line: str, command: Command) -> None:
    assert parse_line(line) == command


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("NOPE", -113),
        ("SYSTE:ERR?", -113),
        ("POT 3", -109),
        ("POT", -109),
        ("SAFE 1", -108),
        ("POT 1,2,3", -108),
        ("POT a,b", -104),
        ("POT 1.5,2", -104),
        ("SOUR 0,inf", -104),
    ],
)
def test_other_lines_have_an_error_code(line: str, code: int) -> None:
    with pytest.raises(TextError) as caught:
        parse_line(line)
    assert caught.value.code == code


@given(st.text(max_size=100))
def test_any_text_is_a_command_or_an_error(text: str) -> None:
    # Nothing but a TextError may come of it.
    with contextlib.suppress(TextError):
        command = parse_line(text)
        assert command is None or command.name in COMMANDS


EXAMPLES: dict[str, Frame] = {
    "HELLO": wire.request_frame(wire.Hello(), 0),
    "HELLO reply": wire.reply_frame(
        wire.Opcode.HELLO,
        0,
        wire.Greeting(1, 2, 1, 1, 1, 1, 1, 250, 500, wire.Reason.NONE, "lab,board,7,1.0"),
    ),
    "WRITE": wire.request_frame(wire.Write(0, (64, 0), settling=100), 1),
    "WRITE reply": wire.reply_frame(
        wire.Opcode.WRITE, 1, wire.Written(2, wire.Verdict.VERIFIED, wire.stage_crc([(0, 64), (1, 0)]))
    ),
    "WRITE refused": wire.reply_frame(wire.Opcode.WRITE, 1, wire.Refusal(wire.Status.RANGE, 1)),
    "SCAN": wire.request_frame(wire.Scan(0, 1, 4, scatter=True), 2),
    "SCAN reply": wire.reply_frame(wire.Opcode.SCAN, 2, wire.Scanned((4003,), (3,))),
    "SOURCE": wire.request_frame(wire.SetSources((wire.Level(0, 2_500_000_000), wire.Level(1, wire.FLOAT))), 3),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_specification_shows_the_bytes_that_are_sent(name: str) -> None:
    found = re.findall(rf"^{name}: ((?:[0-9a-f]{{2}} ?)+)$", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert found == [EXAMPLES[name].encode().hex(" ")]


def test_the_specification_lists_every_opcode_status_and_command() -> None:
    text = GUIDE.read_text(encoding="utf-8")
    for opcode in wire.Opcode:
        assert f"| {opcode:02X} | {opcode.name} |" in text
    for status in wire.Status:
        assert f"| {status:d} | {status.name} |" in text
    for command in COMMANDS:
        assert f"`{command}" in text
