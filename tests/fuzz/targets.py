"""What is fuzzed: one target per parser, each a function of bytes that only ever fails with what it documents."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from hilcl.calibration.file import Calibration
from hilcl.calibration.json_text import checksum, parsed
from hilcl.drivers import instrument as instrument_module
from hilcl.drivers import potboard_protocol as wire
from hilcl.drivers.dialects import Scpi, Tsp, error_code
from hilcl.drivers.instrument import Identity
from hilcl.drivers.potboard_framing import REPLY, Frame, FrameDecoder, FramingError, cobs_decode, cobs_encode
from hilcl.drivers.potboard_text import TextError, parse_line
from hilcl.drivers.properties import Property, declared
from hilcl.drivers.registry import SOURCES, VOLTMETERS
from hilcl.drivers.scanner import ScannerSettings
from hilcl.drivers.smu import SmuSettings, reading_of
from hilcl.drivers.visa_session import LinkOptions
from hilcl.errors import HilclError
from hilcl.experiment import Experiment
from hilcl.sim_backend.emulation.daq6510 import Daq6510
from hilcl.sim_backend.emulation.dmm_34970a import Dmm34970A
from hilcl.sim_backend.emulation.instrument import EmulatedInstrument
from hilcl.sim_backend.emulation.port import Port
from hilcl.sim_backend.emulation.potboard import AdcModel, EmulatedPotBoard, PotModel, SourceModel, SwitchedPort
from hilcl.sim_backend.emulation.scpi import ScpiError, units
from hilcl.sim_backend.emulation.smu_2400 import Smu2400
from hilcl.sim_backend.emulation.smu_2450 import Smu2450
from hilcl.sim_backend.emulation.smu_2600b import Smu2600B
from hilcl.sim_backend.emulation.smu_b2900 import SmuB2900
from hilcl.store import Store
from hilcl.units import EXAMPLES, to_si
from tests.sim_backend.emulation.bench import ManualClock, Node, divider

CORPUS = Path(__file__).parent / "corpus"

Run = Callable[[bytes], None]


@dataclass(frozen=True)
class Target:
    """A parser to be fuzzed.

    ``make`` gets a scratch folder and returns the function that takes inputs of up to ``longest`` bytes; ``tokens``
    are pieces of its language. ``share`` is how many inputs it gets of those asked for: slow ones get fewer.
    """

    name: str
    make: Callable[[Path], Run]
    tokens: tuple[bytes, ...] = ()
    longest: int = 4096
    share: float = 1.0

    def corpus(self) -> dict[str, bytes]:
        """Return the inputs kept for this target, by file name."""
        folder = CORPUS / self.name
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())} if folder.is_dir() else {}


# The pot board.


def frames(_: Path) -> Run:
    """Bytes off the wire, in pieces whose size the first byte gives, to frames, requests and replies."""

    def run(data: bytes) -> None:
        size = max(1, data[0]) if data else 1
        decoder = FrameDecoder(250)
        for start in range(1, len(data), size):
            for frame in decoder.feed(data[start : start + size], start / 1000):
                _message(frame)
        with contextlib.suppress(FramingError):
            block = cobs_decode(data)
            assert cobs_decode(cobs_encode(block)) == block

    return run


def messages(_: Path) -> Run:
    """T, SEQ and payload, to the request and the reply they are."""

    def run(data: bytes) -> None:
        if len(data) >= 2:
            _message(Frame(data[0], data[1], data[2:]))
            _message(Frame(data[0] ^ REPLY, data[1], data[2:]))

    return run


def _message(frame: Frame) -> None:
    with contextlib.suppress(wire.ProtocolError):
        request = wire.decode_request(frame)
        # What was understood is understood alike when it is sent on.
        assert wire.decode_request(wire.request_frame(request, frame.seq)) == request
    with contextlib.suppress(wire.ProtocolError):
        reply = wire.decode_reply(frame)
        wire.reply_frame(frame.kind, frame.seq, reply)


def text(_: Path) -> Run:
    """A line of the pot board's text mode."""

    def run(data: bytes) -> None:
        with contextlib.suppress(TextError):
            parse_line(data.decode("latin-1"))

    return run


def potboard(_: Path) -> Run:
    """Bytes to a whole emulated board, text and binary, in pieces whose size the first byte gives."""

    def run(data: bytes) -> None:
        switched = SwitchedPort(divider())
        board = EmulatedPotBoard(
            [PotModel("AD5206", 2, 255, 128, 20, readback=False), PotModel("AD5272", 1, 1023, 512, 30, counter=True)],
            lambda codes: None,
            adcs=[AdcModel(2, bits=12, span=4.096)],
            read_nodes=lambda: np.array([1.25, 2.5]),
            sources=[SourceModel(0.0, 5.0, switch=0, series=10.0), SourceModel(-5.0, 5.0)],
            ports=(divider(), divider()),
            switches={1: switched},
            clock=ManualClock(),
        )
        size = max(1, data[0]) if data else 1
        for start in range(1, len(data), size):
            board.feed(data[start : start + size], start / 1000)
        assert ((board.codes >= 0) & (board.codes <= [255, 255, 1023])).all()

    return run


# Instruments.


def scpi(_: Path) -> Run:
    """A program message, to its units."""

    def run(data: bytes) -> None:
        with contextlib.suppress(ScpiError):
            list(units(data.decode("latin-1")))

    return run


EMULATED: dict[str, Callable[[], EmulatedInstrument]] = {
    "keithley2400": lambda: Smu2400(divider(), ManualClock()),
    "keithley2450": lambda: Smu2450(divider(), ManualClock()),
    "keysight-b2900": lambda: SmuB2900((Node(), divider()), ManualClock()),
    "daq6510": lambda: Daq6510(_terminals(), ManualClock()),
    "34970a": lambda: Dmm34970A(_terminals(), ManualClock()),
    "keithley2600b": lambda: Smu2600B((Node(), divider()), ManualClock(), instruction_limit=100_000),
}
"""The emulated instruments by the names of their drivers."""


def _terminals() -> dict[int, Port]:
    return {101: divider(), 102: Node()}


def instruments(_: Path) -> Run:
    """Lines to an emulated SCPI instrument; the first byte says to which."""
    makers = [make for name, make in EMULATED.items() if name != "keithley2600b"]

    def run(data: bytes) -> None:
        _talk(makers[data[0] % len(makers)] if data else makers[0], data[1:])

    return run


def tsp(_: Path) -> Run:
    """Lines to an emulated instrument that runs Lua."""
    return lambda data: _talk(EMULATED["keithley2600b"], data)


def _talk(make: Callable[[], EmulatedInstrument], data: bytes) -> None:
    instrument = make()
    for line in data.decode("latin-1").split("\n"):
        reply = instrument.handle(line)
        assert reply is None or isinstance(reply, str)


class _Owner:
    """What owns a property, in so far as its answers need one."""

    label, address = "smu1 channel a", "a"

    def exchange(self, commands: list[str], questions: list[str]) -> list[str]:
        return []

    @property
    def model(self) -> Any:
        return None


def replies(_: Path) -> Run:
    """An answer of an instrument, to every function that takes one."""
    owner = _Owner()
    kinds: list[type] = [
        *SOURCES.values(),
        *(driver.channel_class for driver in SOURCES.values()),
        *VOLTMETERS.values(),
    ]
    every = [each for kind in kinds for each in declared(kind).values() if each.query is not None]
    # Properties that parse alike are tried once.
    properties = list({_parser(each): each for each in every}.values())

    def run(data: bytes) -> None:
        answer = as_answer(data)
        error_code(answer)
        for dialect in (Scpi(), Tsp()):
            for field in dialect.split(answer, 3):
                error_code(field)
        with contextlib.suppress(ValueError):
            str(Identity.parse(answer))
        volts, _, amperes = answer.partition(",")
        with contextlib.suppress(ValueError):
            reading_of(volts, amperes, in_compliance=False)
        for each in properties:
            with contextlib.suppress(HilclError):
                each.decode(owner, answer)

    return run


def _parser(prop: Property[Any]) -> object:
    parse = prop._parse
    cells = tuple(repr(cell.cell_contents) for cell in getattr(parse, "__closure__", None) or ())
    return (getattr(parse, "__code__", parse), cells)


def as_answer(data: bytes) -> str:
    """Return bytes off the wire as a session hands them to a driver."""
    return data.decode("ascii", "backslashreplace").strip()


class _Link:
    """Stands for a session: an emulated instrument answers, but other answers are put in the place of some of its."""

    def __init__(self, emulated: EmulatedInstrument, others: dict[int, str], *_: object) -> None:
        self._emulated, self._others, self._count = emulated, others, 0

    def query(self, message: str, timeout: float | None = None) -> str:
        answer = self._emulated.handle(message)
        self._count += 1
        return self._others.get(self._count, "" if answer is None else answer)

    def write(self, message: str) -> None:
        self._emulated.handle(message)

    def close(self) -> None:
        """Nothing to close."""


def drivers(_: Path) -> Run:
    """Answers to a driver: the first byte chooses it; in every line, the first byte says which answer is replaced."""
    names = list(EMULATED)
    link = LinkOptions(retries=0, reconnecting=0.0)

    def use(name: str) -> None:
        if name in SOURCES:
            smu = SOURCES[name]("smu", "fuzz", SmuSettings(5.0, 0.01), link=link)
            try:
                smu.open()
                smu.drive(np.full(len(smu.channels), 1.0))
                smu.read()
                smu.drive(np.full(len(smu.channels), np.nan))
                smu.read()
                smu.close()
            finally:
                smu.abandon()
        else:
            meter = VOLTMETERS[name]("dmm", "fuzz", ("101", "102"), ScannerSettings(), link=link)
            try:
                meter.open()
                meter.read(2)
                meter.close()
            finally:
                meter.abandon()

    def run(data: bytes) -> None:
        name = names[data[0] % len(names)] if data else names[0]
        others = {line[0] % 32: as_answer(line[1:]) for line in data[1:].split(b"\n") if line}
        session = partial(_Link, EMULATED[name](), others)
        with (
            mock.patch.object(instrument_module, "VisaSession", session),
            contextlib.suppress(HilclError),
        ):
            use(name)

    return run


# Files.


def experiment(folder: Path) -> Run:
    """The text of an experiment file."""
    path = folder / "experiment.toml"

    def run(data: bytes) -> None:
        with contextlib.suppress(HilclError):
            Experiment.parse(data.decode("utf-8", "replace"), path)

    return run


def json_text(folder: Path) -> Run:
    """Text that is to be JSON."""
    path = folder / "board.json"

    def run(data: bytes) -> None:
        with contextlib.suppress(HilclError):
            document = parsed(data.decode("utf-8", "replace"), path)
            # Infinite numbers and deep nesting have no checksum; whoever reads a calibration expects that.
            with contextlib.suppress(ValueError, RecursionError):
                checksum(document)

    return run


def calibration(folder: Path) -> Run:
    """A calibration file, as it is and with the checksum that its values have; one that loads is used."""
    path = folder / "board.json"

    def load() -> None:
        with contextlib.suppress(HilclError):
            loaded = Calibration.load(path)
            now = loaded.created + timedelta(days=1)
            loaded.check_applies(loaded.network, loaded.potentiometers, loaded.board.identities, now=now)
            assert loaded.pot_parameters is not None
            assert loaded.meter_parameters is not None
            assert loaded.source_parameters is not None
            assert loaded.device_range is not None

    def run(data: bytes) -> None:
        path.write_bytes(data)
        load()
        with contextlib.suppress(ValueError, RecursionError):
            document = json.loads(data)
            if isinstance(document, dict):
                path.write_text(json.dumps({**document, "checksum": checksum(document)}), "utf-8")
                load()

    return run


def store(folder: Path) -> Run:
    """A store's file, read and then opened for writing."""
    path = folder / "runs.sqlite"

    def clear() -> None:
        for each in folder.glob("runs.sqlite*"):
            each.unlink()

    def run(data: bytes) -> None:
        clear()
        path.write_bytes(data)
        for writable in (False, True):
            with contextlib.suppress(HilclError), Store(path, writable=writable) as opened:
                for name in opened.names():
                    _read_run(opened, name)

    return run


def _read_run(opened: Store, name: str) -> None:
    readers: Iterator[Callable[[str], object]] = iter(
        (opened.run, opened.history, opened.checkpoint, opened.events, opened.intent, opened.writer)
    )
    for reader in readers:
        with contextlib.suppress(HilclError):
            reader(name)


def quantities(_: Path) -> Run:
    """A quantity with its unit."""

    def run(data: bytes) -> None:
        given = data.decode("utf-8", "replace")
        for unit in ("ohm", "siemens/volt**2", "1/kelvin", ""):
            # The function raises what pydantic turns into a sentence with the key.
            with contextlib.suppress(ValueError):
                value = to_si(given, unit)
                assert np.isfinite(value), EXAMPLES[unit]

    return run


def _words(*given: str) -> tuple[bytes, ...]:
    return tuple(each.encode() for each in given)


NUMBERS = _words("0", "1", "-1", "9.9e37", "9.91e37", "nan", "inf", "-inf", "1e400", "1e-400", "65536", "1" * 400, "٣")
SCPI = _words(
    *(";", ":", "?", ",", "*RST", "*CLS", "*IDN?", ":OUTP ON", ":READ?", ":SYST:ERR?", ":FORM REAL,32", ":INIT"),
    *(":SOUR:VOLT ", ":SENS:CURR:PROT ", "(@101,102)", "(@1:9)", "(@)", "MIN", "MAX", "DEF", "ON", "OFF", " V", "#HFF"),
    *("'", '"', "(", ")", "#", "\n", "\t", "\r"),
)
LUA = _words(
    *("smua", "smub", ".source", ".measure", ".levelv", ".output", ".iv()", " = ", "print(", ")", "{}", "nil", "'x'"),
    *("for i=1,9 do ", " end", "while true do ", "function f() ", "string.rep('x',1e9)", "loadscript a", "endscript"),
    *("..", "[[", "]]", "--", "\n", "smua.nvbuffer1", "printbuffer(1,2,", "error(", "pcall(", "errorqueue.next()"),
)
TOML = _words(
    *("[", "]", "[[", "]]", "{", "}", "=", ",", ".", '"', "'", '"""', "\n", "#", "\\u0000", "true", "1979-05-27"),
    *(
        "[board]\n",
        "[bench]\n",
        "[simulation]\n",
        "board.network.kind = ",
        '"10 kΩ"',
        '"1 mS"',
        "[[0, 1]]",
        "1_0",
        "0x",
    ),
)
JSON = _words("{", "}", "[", "]", ",", ":", '"', "null", "true", "NaN", "Infinity", "\\ud800", '"checksum"', "-0", "[[")
UNITS = _words("Ω", "kΩ", "m", "µ", "V", "A", "%", "ppm/K", "/", "*", "**2", "²", "^", "°", "degC", " ", "e", "E5", "S")
SQLITE = _words("SQLite format 3\0", "CREATE TABLE ", "runs", "steps", "null", "PK\x03\x04")

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("frames", frames),
        Target("messages", messages, longest=1024),
        Target(
            "text", text, _words("POT ", "SOUR ", "MEAS?", "ROUT:CLOS ", "FLOAT", "SAFE", ",", ";", "*IDN?") + NUMBERS
        ),
        Target("potboard", potboard, _words("POT 0,1\n", "SOUR 0,1\n", "MEAS? 0\n", "\n", "SAFE\n"), share=0.1),
        Target("scpi", scpi, SCPI + NUMBERS),
        Target("instruments", instruments, SCPI + NUMBERS, share=0.02),
        Target("tsp", tsp, LUA + NUMBERS, share=0.002),
        Target("replies", replies, _words(",", ";", "\t", '"', "No error", "+", "ON", "true", "VOLT:DC") + NUMBERS),
        Target("drivers", drivers, _words("\n", ",", ";", "\t", '0,"No error"', "1;") + NUMBERS, share=0.01),
        Target("experiment", experiment, TOML + NUMBERS, share=0.2),
        Target("json", json_text, JSON + NUMBERS),
        Target("calibration", calibration, JSON + NUMBERS, longest=1 << 16, share=0.02),
        Target("store", store, SQLITE, longest=1 << 17, share=0.02),
        Target("units", quantities, UNITS + NUMBERS, longest=256),
    )
}
"""The targets by name."""
