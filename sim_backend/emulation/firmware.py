"""The pot board's firmware itself, compiled and run by an emulated AVR, behind the interface of the emulated board.

avr8js (npm) executes the binary; what is on the microcontroller's pins is modelled beside it, in avr8js/. Time is the
microcontroller's own, counted in cycles: it runs when bytes come, and sleeps through the time between.
"""

import contextlib
import json
import logging
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from hilcl.arrays import FloatArray, IntArray
from hilcl.drivers.chips.layouts import AddressData, Max5481
from hilcl.drivers.firmware.build import Built, build
from hilcl.drivers.firmware.header import address_in, pot_flags
from hilcl.drivers.firmware.wiring import ADC_BITS, Group, Wiring
from hilcl.errors import BoardError, InputError
from hilcl.sim_backend.emulation.port import OPEN, Applied, Clock, Port
from hilcl.sim_backend.emulation.potboard import AdcModel, PotModel, SourceModel, SwitchedPort
from hilcl.sim_backend.emulation.potboard_wire import NoWireFaults, PotBoardServer, WireFaults

AVR8JS = "avr8js"
AVR8JS_VERSION = "0.21.0"

LONGEST_JUMP = 0.1
"""Seconds of real time that pass at most between two looks of a served board at the clock.

A computer that is busy elsewhere then does not make the firmware believe that its host fell silent.
"""


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ran:
    """What came of a command: the bytes sent, and cycles when the last byte came, when the answer began and ended.

    ``baud`` is the rate at which the firmware sends and hears.
    """

    sent: bytes
    cycles: int
    arrived: int
    first_sent: int
    last_sent: int
    overruns: int
    baud: float
    reports: tuple[str, ...]


def find_avr8js() -> Path:
    """Return the folder of the npm package avr8js: of this Python environment, of the working folder, or system-wide.

    Raises InputError where it is not installed.
    """
    here = Path.cwd()
    candidates = [
        Path(sys.prefix) / "lib" / "node_modules",
        *(folder / "node_modules" for folder in (here, *here.parents)),
        Path("/usr/local/lib/node_modules"),
        Path("/usr/lib/node_modules"),
    ]
    for folder in candidates:
        if (folder / AVR8JS / "package.json").is_file():
            return folder / AVR8JS
    raise InputError(
        f"avr8js is not installed: `npm install --global --prefix {sys.prefix} {AVR8JS}@{AVR8JS_VERSION}` puts it "
        "beside hilcl"
    )


def machine_config(wiring: Wiring, image: Path, *, noise: float = 0.0, seed: int = 0) -> dict[str, Any]:
    """Return what the emulator must know of a board: the firmware's image, and what is on which pin."""
    chips: list[dict[str, Any]] = []
    pots: list[tuple[int, int]] = []
    for group in wiring.groups:
        for index, place in enumerate(group.places):
            pots += [(len(chips), wiper) for wiper in range(group.chip.wipers)]
            chips.append(_chip(wiring, group, place, f"{index + 1} of {len(group.places)}"))
    dacs: list[str] = list(dict.fromkeys(source.select for source in wiring.sources))
    board = wiring.board
    return {
        "hex": str(image),
        "mcu": board.mcu,
        "clock": board.clock,
        "seed": seed,
        "ports": sorted({pin[0] for pin in board.pins.values()}),
        "chips": chips,
        "pots": pots,
        "dacs": [{"label": name, "pins": {"select": _pin(wiring, name)}} for name in dacs],
        "sources": [
            {"dac": dacs.index(source.select), "channel": source.channel, "volts": source.volts}
            for source in wiring.sources
        ],
        "switches": [_pin(wiring, name) for name in wiring.switches],
        "switch_level": int(wiring.active_high),
        "adc": None
        if wiring.adc is None
        else {"pins": [board.analog[name] for name in wiring.adc.channels], "span": wiring.adc.volts, "noise": noise},
    }


def _pin(wiring: Wiring, name: str) -> dict[str, Any]:
    port = wiring.board.pins[name]
    return {"port": port[0], "bit": int(port[1])}


def _chip(wiring: Wiring, group: Group, place: str | int, label: str) -> dict[str, Any]:
    chip = group.chip
    match chip.layout:
        case AddressData():
            bits = chip.layout.address_bits + chip.layout.data_bits
        case Max5481():
            bits = 24
        case _:
            bits = 24 if chip.layout.name == "x9250" else 16
    pins = {}
    if group.bus != "i2c":
        pins["select"] = _pin(wiring, str(place))
    if group.bus == "updown":
        pins |= {"up": _pin(wiring, group.up_down), "clock": _pin(wiring, group.clock)}
    return {
        "name": chip.name,
        "label": label,
        "bus": group.bus,
        "pins": pins,
        "address": place if group.bus == "i2c" else None,
        "identifier": (address_in(group, place) or 0) & 0x0F,
        "layout": chip.layout.model_dump(),
        "bits": bits,
        "wipers": chip.wipers,
        "positions": chip.positions,
        "spi_mode": chip.clock.spi_mode if group.bus == "spi" else None,
        "max_hz": chip.clock.max_hz,
        "power_on": chip.positions // 3 if chip.power_on == "memory" else chip.power_on,
        "memory": chip.memory is not None,
        "guard": chip.guard,
        "unlock": [payload.hex() for payload in chip.unlock],
        "forbidden": [{"mask": each.mask, "value": each.value, "why": each.why} for each in chip.forbidden],
    }


def models_of(wiring: Wiring) -> tuple[list[PotModel], list[AdcModel], list[SourceModel]]:
    """Return the same board for the emulator in Python: its pots, ADC and sources."""
    pots = []
    for group in wiring.groups:
        flags = pot_flags(group.chip)
        pots.append(
            PotModel(
                group.chip.name,
                group.count,
                group.chip.positions - 1,
                group.power_on,
                group.safe,
                readback=flags["readable"],
                nonvolatile=flags["nonvolatile"],
                counter=flags["counter"],
            )
        )
    adcs = []
    if wiring.adc is not None:
        conversion = round(wiring.adc_conversion * 1e6) / 1e6
        adcs = [AdcModel(len(wiring.adc.channels), ADC_BITS, 0, wiring.adc.volts, conversion)]
    return pots, adcs, [SourceModel(0.0, source.volts, source.switch) for source in wiring.sources]


class FirmwareMachine:
    """An emulated microcontroller that runs the firmware. Not for several threads at once.

    ``changed`` gets codes (P,), the switches that are closed and the sources' volts whenever the firmware has changed
    one of them; ``read_nodes`` returns the volts (A,) at the ADC's pins. ``spend`` gets the seconds the processor was
    awake.
    Raises InputError where Node.js or avr8js is not installed, BoardError where they fail.
    """

    def __init__(
        self,
        wiring: Wiring,
        image: Path,
        changed: Callable[[IntArray, Sequence[bool], Sequence[float]], None],
        read_nodes: Callable[[], FloatArray],
        *,
        spend: Callable[[float], None] | None = None,
        noise: float = 0.0,
        seed: int = 0,
    ) -> None:
        node = shutil.which("node")
        if node is None:
            raise InputError("Node.js is not installed: install it with `apt-get install nodejs npm`")
        self.wiring = wiring
        self.reports: list[str] = []
        self._changed, self._read_nodes, self._spend = changed, read_nodes, spend
        self._last: tuple[Any, ...] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="hilcl-firmware-")
        config = Path(self._folder.name) / "machine.json"
        config.write_text(json.dumps(machine_config(wiring, image, noise=noise, seed=seed)), encoding="utf-8")
        script = Path(str(files("hilcl.sim_backend.emulation") / "avr8js" / "machine.mjs"))
        self._process = subprocess.Popen(
            [node, str(script), str(find_avr8js()), str(config)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def feed(self, data: bytes, until: int = 0) -> Ran:
        """Deliver bytes at the host's rate, and run until all is answered and ``until`` cycles have passed in total."""
        return self._do({"op": "feed", "data": data.hex(), "until": until})

    def send(self, data: bytes) -> Ran:
        """Put bytes on the line and return at once: they arrive while ``run`` runs."""
        return self._do({"op": "send", "data": data.hex()})

    def run(self, cycles: int) -> Ran:
        """Run for so many cycles, whatever the firmware is doing."""
        return self._do({"op": "run", "cycles": cycles})

    def reset(self, *, power: bool = False) -> Ran:
        """Pull the reset pin, or interrupt the supply of everything; then boot."""
        self._do({"op": "reset", "power": power})
        return self.feed(b"")

    def host_baud(self, baud: int | None) -> None:
        """Let the host use another baud rate; None: always the firmware's own."""
        self._do({"op": "baud", "baud": baud})

    def fault(self, pot: int, *, code: int | None = None, dead: bool = False) -> None:
        """Let a pot be stuck at a code, or its chip be dead; neither repairs it."""
        self._do({"op": "fault", "pot": pot, "code": code, "dead": dead})

    def close(self) -> None:
        """End the emulator; may be called twice."""
        process = self._process
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._folder.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _do(self, command: Mapping[str, Any]) -> Ran:
        self._put(command)
        while True:
            answer = self._get()
            self._take(answer)
            if answer.get("ask") != "volts":
                break
            self._put({"volts": np.asarray(self._read_nodes(), dtype=float).tolist()})
        self.reports += answer["reports"]
        return Ran(
            bytes.fromhex(answer["sent"]),
            answer["cycles"],
            answer["arrived"],
            answer["first_sent"],
            answer["last_sent"],
            answer["overruns"],
            answer["baud"],
            tuple(answer["reports"]),
        )

    def _take(self, answer: Mapping[str, Any]) -> None:
        state = (answer["codes"], answer["closed"], answer["levels"])
        if state != self._last:
            self._last = state
            self._changed(np.array(answer["codes"], dtype=np.int64), answer["closed"], answer["levels"])
        if self._spend is not None and answer["awake"] > 0:
            self._spend(answer["awake"] / self.wiring.board.clock)

    def _put(self, message: Mapping[str, Any]) -> None:
        pipe = self._process.stdin
        try:
            if pipe is None:
                raise BrokenPipeError
            pipe.write(json.dumps(message).encode() + b"\n")
            pipe.flush()
        except (OSError, ValueError) as cause:
            raise self._gone() from cause

    def _get(self) -> dict[str, Any]:
        pipe = self._process.stdout
        try:
            line = b"" if pipe is None else pipe.readline()
            if line:
                answer: dict[str, Any] = json.loads(line)
                return answer
        except (OSError, ValueError) as cause:
            raise self._gone() from cause
        raise self._gone()

    def _gone(self) -> BoardError:
        told = ""
        if self._process.stderr is not None and not self._process.stderr.closed and self._process.poll() is not None:
            lines = [
                line for line in self._process.stderr.read().decode(errors="replace").splitlines() if "Error" in line
            ]
            told = f" ({lines[0].strip()})" if lines else ""
        return BoardError(f"the emulated microcontroller has ended{told}: check the installation of Node.js and avr8js")


class FirmwareBoard:
    """The firmware as a board for ``PotBoardServer``, with what EmulatedPotBoard offers: ``feed``, ``tick``, ``codes``.

    ``set_codes``, ``read_nodes``, ``ports``, ``switches`` and ``clock`` as for EmulatedPotBoard. The host's baud rate
    is that of the wiring until ``host_baud`` changes it. Times given to ``feed`` and ``tick`` are seconds of any clock.
    Raises InputError for a wiring the ports do not fit, and where the compiler or the emulator is not installed.
    """

    def __init__(
        self,
        wiring: Wiring,
        set_codes: Callable[[IntArray], None],
        *,
        read_nodes: Callable[[], FloatArray] | None = None,
        ports: Sequence[Port] = (),
        switches: Mapping[int, SwitchedPort] | None = None,
        clock: Clock | None = None,
        noise: float = 0.0,
        seed: int = 0,
        built: Built | None = None,
    ) -> None:
        self.wiring = wiring
        self._ports, self._switches = tuple(ports), dict(switches or {})
        owned = [source.switch for source in wiring.sources if source.switch is not None]
        if len(self._ports) != len(wiring.sources):
            raise InputError(f"{len(wiring.sources)} sources of the pot board need as many ports")
        if not set(self._switches) <= set(range(len(wiring.switches))) - set(owned):
            raise InputError("a switch of the pot board that serves an instrument is not one of its own sources'")
        if wiring.adc is not None and read_nodes is None:
            raise InputError("the ADC of the pot board needs nodes to read")
        self._set_codes = set_codes
        self._lock = threading.RLock()
        self._codes: IntArray | None = None
        self._closed: tuple[bool, ...] = ()
        self._levels: tuple[float, ...] = ()
        self._epoch: float | None = None
        self._ended = False
        self._build = None if built is not None else tempfile.TemporaryDirectory(prefix="hilcl-firmware-")
        if built is None and self._build is not None:
            built = build(wiring, Path(self._build.name))
        if built is None:
            raise InputError("there is no firmware to run")
        self.machine = FirmwareMachine(
            wiring,
            built.hex,
            self._changed,
            read_nodes or (lambda: np.empty(0)),
            spend=None if clock is None else clock.spend,
            noise=noise,
            seed=seed,
        )
        self._host_baud: int | None = wiring.baud
        self.machine.host_baud(wiring.baud)
        self.machine.feed(b"")

    @property
    def identity(self) -> str:
        """Maker, model, serial number and firmware, as the firmware says."""
        return self.wiring.identity

    @property
    def codes(self) -> IntArray:
        """Codes the chips hold, (P,)."""
        with self._lock:
            return np.zeros(0, dtype=np.int64) if self._codes is None else self._codes.copy()

    @property
    def baud(self) -> float:
        """The baud rate the firmware uses at present."""
        with self._lock:
            return self.machine.feed(b"").baud

    @property
    def outputs_on(self) -> tuple[bool, ...]:
        """Which sources drive something else than 0 V, and then which switches are closed for other instruments."""
        with self._lock:
            driving = [self._connected(index) and self._levels[index] != 0 for index in range(len(self._ports))]
            return (*driving, *(self._switches[switch].closed for switch in sorted(self._switches)))

    @property
    def reports(self) -> tuple[str, ...]:
        """What the chips were sent against their data sheets; nothing if all is well."""
        return tuple(self.machine.reports)

    def feed(self, data: bytes, now: float) -> bytes:
        """Take bytes that came at ``now`` seconds, and return the answer."""
        with self._lock:
            self._sleep(now)
            return self.machine.feed(data).sent

    def host_baud(self, rate: int | None) -> None:
        """Take the host's baud rate, None where the line has none: then it is always the firmware's."""
        with self._lock:
            if rate != self._host_baud:
                self._host_baud = rate
                self.machine.host_baud(rate)

    def tick(self, now: float) -> None:
        """Let the time until ``now`` pass. An emulator that has ended is told once; its host hears nothing more."""
        with self._lock:
            if self._ended:
                return
            try:
                self._sleep(now)
            except BoardError as error:
                self._ended = True
                log.error("%s", error)

    def reset(self) -> None:
        """Start again, as after a brown-out of the microcontroller and the chips."""
        with self._lock:
            self.machine.reset(power=True)
            self._epoch = None

    def close(self) -> None:
        """End the emulator; may be called twice."""
        with self._lock:
            self.machine.close()
            if self._build is not None:
                self._build.cleanup()

    def _sleep(self, now: float) -> None:
        """Let the processor's clock catch up with the caller's; it is ahead after it had work to do."""
        if self._epoch is None:
            self._epoch = now - self.machine.feed(b"").cycles / self.wiring.board.clock
        self.machine.feed(b"", round((now - self._epoch) * self.wiring.board.clock))

    def _connected(self, source: int) -> bool:
        switch = self.wiring.sources[source].switch
        return switch is None or self._closed[switch]

    def _changed(self, codes: IntArray, closed: Sequence[bool], levels: Sequence[float]) -> None:
        if self._codes is None or not np.array_equal(codes, self._codes):
            self._codes = codes
            self._set_codes(codes)
        if (tuple(closed), tuple(levels)) != (self._closed, self._levels):
            self._closed, self._levels = tuple(closed), tuple(levels)
            wanted = [
                Applied("voltage", self._levels[source]) if self._connected(source) else OPEN
                for source in range(len(self._ports))
            ]
            for opening in (True, False):
                for port, applied in zip(self._ports, wanted, strict=True):
                    if (applied is OPEN) == opening:
                        port.apply(applied)
                for switch, switched in self._switches.items():
                    if self._closed[switch] != opening:
                        switched.set(self._closed[switch])


class SteadyClock:
    """Seconds of real time in which no gap is longer than LONGEST_JUMP."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._now = 0.0

    def __call__(self) -> float:
        """Return the seconds since the start."""
        before, self._last = self._last, time.monotonic()
        self._now += min(self._last - before, LONGEST_JUMP)
        return self._now


class FirmwareServer:
    """Serves the firmware until ``close``, like PotBoardServer; ``port`` is what pySerial opens."""

    def __init__(self, board: FirmwareBoard, *, tcp: int | None = None, faults: WireFaults | None = None) -> None:
        self.board = board
        wire = NoWireFaults() if faults is None else faults
        self._server = PotBoardServer(board, tcp=tcp, faults=wire, now=SteadyClock())  # type: ignore[arg-type]
        self.port = self._server.port

    def close(self) -> None:
        """End the service and the emulator; may be called twice."""
        self._server.close()
        self.board.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
