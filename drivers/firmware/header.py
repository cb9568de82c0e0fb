"""wiring.h: the one header the firmware's wiring is in, written from a wiring and the chip catalogue.

Words are not described a second time: they come from ``hilcl.drivers.chips``, code 0 and code 1 of every wiper, and
that the codes between follow is checked.
"""

import re
from dataclasses import dataclass

from hilcl.drivers.chips import Chip, I2cFrame, SpiFrame, read_frames, write_frames
from hilcl.drivers.chips.layouts import X9250, Byte, Command10, Microchip, Register
from hilcl.drivers.firmware.boards import McuBoard
from hilcl.drivers.firmware.wiring import ADC_BITS, Group, Wiring

UNKNOWN_SPI_HZ = 4e6
"""Clock for chips whose greatest one the catalogue does not know."""

ONE_WIRE_HZ = 250e3
"""Chips with SDI and SDO on one pin: DS22060B, f_SCK for reads of an MCP41X1."""

HALF_PERIOD_US = 2
"""Half of an up/down chip's clock: X9C data sheet FN8222, t_IL and t_IH 1 µs, t_CYC 4 µs."""

_FLAGS = {"readable": 1, "nonvolatile": 2, "counter": 8}
_DIVIDERS = ((2, 0, 1), (4, 0, 0), (8, 1, 1), (16, 1, 0), (32, 2, 1), (64, 2, 0), (128, 3, 0))
_REFERENCES = {"aref": 0, "avcc": 1}


@dataclass(frozen=True)
class Reading:
    """How a code is read: the request, bytes of reply, and where the code lies in them."""

    kind: str = "NO_READ"
    request: bytes = b""
    reply: int = 0
    mask: int = 0
    shift: int = 0
    error_bit: bool = False


@dataclass(frozen=True)
class Writing:
    """How a code is written: base | code << shift, in so many bytes."""

    base: bytes
    shift: int


def address_in(group: Group, place: str | int) -> int | None:
    """Return the address a frame of the chips module needs for a chip at its place."""
    chip = group.chip
    if group.bus == "i2c":
        return int(place)
    # An SPI chip with an identifier has one select line each here, and its identifier pins low.
    return None if chip.address is None or chip.buses == ("spi", "i2c") else min(chip.address.all().values())


def writing(chip: Chip, wiper: int, address: int | None) -> Writing:
    """Return how a wiper is written.

    Raises ValueError for a chip whose words are not linear in the code, which the catalogue does not have.
    """
    payloads = [write_frames(chip, wiper, code, address=address)[-1] for code in range(chip.positions)]
    words = [int.from_bytes(frame.payload) for frame in payloads if isinstance(frame, SpiFrame | I2cFrame)]
    base, step = words[0], words[1] - words[0]
    shift = step.bit_length() - 1
    if any(word != base | code << shift for code, word in enumerate(words)):
        raise ValueError(f"{chip.name} lays its codes out in a way the firmware cannot")
    if words[-1] - base >= 1 << 16:
        raise ValueError(f"{chip.name} has codes that take more than two bytes of a word")
    first = payloads[0]
    length = len(first.payload) if isinstance(first, SpiFrame | I2cFrame) else 0
    return Writing(base.to_bytes(length), shift)


def reading(chip: Chip, wiper: int, address: int | None) -> Reading:
    """Return how a wiper is read back."""
    if not chip.readable:
        return Reading()
    frames = read_frames(chip, wiper, address=address)
    last = frames[-1]
    if isinstance(last, SpiFrame):
        first = frames[0]
        request = first.payload if isinstance(first, SpiFrame) else b""
        kind = "READ_SAME" if len(frames) == 1 else "READ_NEXT"
    else:
        first = frames[0]
        request = first.payload if isinstance(first, I2cFrame) else b""
        kind = "READ_COMBINED" if len(frames) == 1 else "READ_SPLIT"
    mask, shift, error_bit = 0xFF, 0, False
    match chip.layout:
        case Register():
            plain = chip.layout.read == "plain"
            shift = chip.layout.shift + (8 * (last.reply_bytes - 1 - wiper) if plain else 0)
            mask = 0xFF >> chip.layout.shift
        case Command10():
            shift, mask = chip.layout.shift, 0x3FF >> chip.layout.shift
        case Microchip():
            mask, error_bit = 0x1FF, chip.layout.error_bit
        case Byte() | X9250():
            pass
        case _:
            raise ValueError(f"{chip.name} is read in a way the firmware cannot")
    if last.reply_bytes > 3 or len(request) > 3 or (mask << shift) >= 1 << 16:
        raise ValueError(f"{chip.name} answers in a way the firmware cannot read")
    return Reading(kind, request, last.reply_bytes, mask, shift, error_bit)


def spi_registers(chip: Chip, clock: int) -> tuple[int, int]:
    """Return SPCR and SPSR: master, most significant bit first, the chip's mode and the fastest clock it takes."""
    limit = chip.clock.max_hz or UNKNOWN_SPI_HZ
    if re.fullmatch(r"MCP41[3-6]1", chip.name):
        limit = min(limit, ONE_WIRE_HZ)
    return _registers(limit, chip.clock.spi_mode or 0, clock)


def _registers(limit: float, mode: int, clock: int) -> tuple[int, int]:
    _, rate, double = next((each for each in _DIVIDERS if clock / each[0] <= limit), _DIVIDERS[-1])
    return 0x50 | mode << 2 | rate, double


def render(wiring: Wiring) -> str:
    """Return the text of wiring.h."""
    groups = wiring.groups
    adcs = 0 if wiring.adc is None else len(wiring.adc.channels)
    spi = bool(wiring.sources) or any(group.bus == "spi" for group in groups)
    i2c = [group.chip for group in groups if group.bus == "i2c"]
    lines = [
        "/* The wiring of one board. Written by `hilcl firmware build`; it can be edited by hand, too. */",
        "#ifndef WIRING_H",
        "#define WIRING_H",
        "",
        f'#define IDENTITY "{_c_text(wiring.identity)}"',
        f"#define BAUD {wiring.baud}UL",
        f"#define POTS {wiring.pots}",
        f"#define POT_GROUPS {len(groups)}",
        f"#define ADCS {adcs}",
        f"#define ADC_GROUPS {int(adcs > 0)}",
        f"#define ADC_MOST_BITS {ADC_BITS if adcs else 0}",
        f"#define SOURCES {len(wiring.sources)}",
        f"#define SWITCHES {len(wiring.switches)}",
        f"#define USES_SPI {int(spi)}",
        f"#define USES_I2C {int(bool(i2c))}",
        f"#define USES_COUNTERS {int(any(group.bus == 'updown' for group in groups))}",
        "",
        '#include "potboard.h"',
        '#include "wires.h"',
        "",
        "#if POTS",
        "static const struct pot_group pot_groups[] PROGMEM __attribute__((unused)) = {",
        *(f"    {_pot_group(group)}," for group in groups),
        "};",
        "#endif",
    ]
    if wiring.adc is not None:
        span = round(wiring.adc.volts * 1e9)
        lines += [
            "",
            "static const struct adc_group adc_groups[] PROGMEM __attribute__((unused)) = {",
            f"    {{0, {adcs}, {ADC_BITS}, 0, INT64_C({span}), {round(wiring.adc_conversion * 1e6)}}},",
            "};",
        ]
    if wiring.sources:
        lines += [
            "",
            "static const struct source sources[] PROGMEM __attribute__((unused)) = {",
            *(
                f"    {{{'NO_SWITCH' if each.switch is None else each.switch}, 0, INT64_C({round(each.volts * 1e9)})}},"
                for each in wiring.sources
            ),
            "};",
        ]
    lines += ["", "#ifdef __AVR__", "", *_hardware(wiring, spi=spi, i2c=i2c), "", "#endif", "#endif", ""]
    return "\n".join(lines)


def _hardware(wiring: Wiring, *, spi: bool, i2c: list[Chip]) -> list[str]:
    board = wiring.board
    lines = []
    if spi:
        lines += [f"#define SPI_{line.upper()} {_pin(board, board.spi[line])}" for line in ("ss", "mosi", "sck")]
    if i2c:
        hertz = 400e3 if all((chip.clock.max_hz or 100e3) >= 400e3 for chip in i2c) else 100e3
        lines.append(f"#define I2C_TWBR {round((board.clock / hertz - 16) / 2)} /* {hertz / 1e3:g} kHz */")
    if wiring.adc is not None:
        lines += [
            f"#define ADC_REFERENCE {_REFERENCES[wiring.adc.reference] << 6}",
            f"#define ADC_PRESCALER {wiring.adc.prescaler.bit_length() - 1} /* {wiring.adc.prescaler} */",
            "static const struct adc_wire adc_wires[] PROGMEM __attribute__((unused)) = {"
            + ", ".join(f"{{{board.analog[name]}}}" for name in wiring.adc.channels)
            + "};",
        ]
    if wiring.switches:
        lines += [
            f"#define SWITCH_ACTIVE_HIGH {str(wiring.active_high).lower()}",
            "static const struct pin switch_pins[] PROGMEM __attribute__((unused)) = {"
            + ", ".join(_pin(board, name) for name in wiring.switches)
            + "};",
        ]
    if wiring.sources:
        spcr, spsr = _registers(20e6, 0, board.clock)
        lines += [
            f"#define SOURCE_SPCR 0x{spcr:02X}",
            f"#define SOURCE_SPSR {spsr}",
            "static const struct source_wire source_wires[] PROGMEM __attribute__((unused)) = {",
            *(
                f"    {{{_pin(board, each.select)}, {each.channel}, INT64_C({round(each.volts * 1e9)})}},"
                for each in wiring.sources
            ),
            "};",
        ]
    lines += [
        "",
        "static const struct pot_bus pot_buses[] PROGMEM __attribute__((unused)) = {",
        *(f"    {_pot_bus(board, group)}," for group in wiring.groups),
        "};",
        "",
        "static const struct pot_wire pot_wires[] PROGMEM __attribute__((unused)) = {",
        *(
            f"    {_pot_wire(board, group, index, place, wiper)},"
            for index, group in enumerate(wiring.groups)
            for place, wiper in group.pots()
        ),
        "};",
    ]
    return lines


def pot_flags(chip: Chip) -> dict[str, bool]:
    """Return the flags of DESC by name."""
    return {"readable": chip.readable, "nonvolatile": chip.memory is not None, "counter": chip.buses == ("updown",)}


def _pot_group(group: Group) -> str:
    flags = sum(_FLAGS[name] for name, is_set in pot_flags(group.chip).items() if is_set)
    numbers = (group.first, group.count, group.chip.positions - 1, group.power_on, group.safe, flags)
    return f'{{{", ".join(map(str, numbers))}, "{_c_text(group.chip.name)}"}}'


def _pot_bus(board: McuBoard, group: Group) -> str:
    chip = group.chip
    if group.bus == "updown":
        fields: list[object] = ["COUNTER_BUS", "false", 0, 0, 0, 0, "NO_READ", 0, 0, chip.positions - 1, 0]
        fields += ["false", "false", 0, 0]
        fields += [_pin(board, group.up_down), _pin(board, group.clock), HALF_PERIOD_US]
    else:
        address = address_in(group, group.places[0])
        write, read = writing(chip, 0, address), reading(chip, 0, address)
        spcr, spsr = spi_registers(chip, board.clock) if group.bus == "spi" else (0, 0)
        unlock = chip.unlock[0] if chip.unlock else b""
        if len(chip.unlock) > 1 or len(unlock) not in {0, 2}:
            raise ValueError(f"{chip.name} is unlocked in a way the firmware cannot")
        short = group.bus == "spi" and len(write.base) == 2 and not chip.guard
        fields = ["SPI_BUS" if group.bus == "spi" else "I2C_BUS", str(short).lower(), f"0x{spcr:02X}", spsr]
        fields += [len(write.base), write.shift, read.kind, len(read.request), read.reply, f"0x{read.mask:X}"]
        fields += [read.shift, str(read.error_bit).lower()]
        fields += [str(chip.guard).lower(), len(unlock), f"0x{int.from_bytes(unlock):04X}", "NO_PIN", "NO_PIN", 0]
    return f"{{{', '.join(map(str, fields))}}}"


def _pot_wire(board: McuBoard, group: Group, index: int, place: str | int, wiper: int) -> str:
    select = f"{{0, 0x{int(place):02X}}}" if group.bus == "i2c" else _pin(board, str(place))
    if group.bus == "updown":
        return f"{{{select}, {index}, {{0}}, 0, {{0}}, 0}}"
    address = address_in(group, place)
    write, read = writing(group.chip, wiper, address), reading(group.chip, wiper, address)
    return f"{{{select}, {index}, {_bytes(write.base)}, {read.shift}, {_bytes(read.request)}, 0}}"


def _bytes(values: bytes) -> str:
    return "{" + (", ".join(f"0x{value:02X}" for value in values) or "0") + "}"


def _pin(board: McuBoard, name: str) -> str:
    port = board.pins[name]
    return f"PIN({port[0]}, {port[1]})"


def _c_text(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
