import pytest
from pydantic import ValidationError

from hilcl.bench_section import BenchSection
from hilcl.bench_targets import Target, bench_targets

INSTRUMENTS = {
    "board": {
        "driver": "potboard", "resource": "/dev/ttyACM0", "baud": 9600, "serial": "7", "turnaround": "1 s",
        "boot_time": "2 s",
    },
    "two": {"driver": "keithley2600b", "resource": "TCPIP::a::INSTR", "compliance": "1 mA", "model": "2602B"},
    "reads": {"driver": "keysight-b2900", "resource": "GPIB::1::INSTR", "compliance": "1 mA", "timeout": "9 s"},
    "scanner": {"driver": "daq6510", "resource": "GPIB::2::INSTR"},
    "spi": {"driver": "spi", "resource": "/dev/spidev0", "chips": [{"chip": "AD5206", "select": 1}]},
    "i2c": {
        "driver": "i2c", "resource": "/dev/i2c-1", "chips": [{"chip": "AD5272", "address": 44}], "safe_codes": [9],
    },
    "updown": {
        "driver": "updown", "resource": "/dev/gpiochip0", "up": 1, "clock": 2, "chips": [{"chip": "AD5220", "line": 3}],
    },
    "kernel": {"driver": "iio", "chips": [{"device": "1-002c", "channels": [0]}]},
    "lab": {"driver": "python"},
}  # fmt: skip
BENCH = {
    "instruments": INSTRUMENTS,
    "wiring": {
        "pots": {"board": "all"},
        "sources": {"two": [-1, 3]},
        "meters": {"reads": {"2": 0}, "scanner": {"101": 1}},
    },
}


def targets() -> dict[str, Target]:
    return {target.name: target for target in bench_targets(BenchSection.model_validate(BENCH))}


def test_every_instrument_is_a_target_in_order() -> None:
    assert list(targets()) == list(INSTRUMENTS)
    kinds = [target.kind for target in targets().values()]
    assert kinds == ["potboard", "smu", "smu", "meter", "bank", "bank", "bank", "bank", "python"]


def test_the_channels_that_are_used_are_the_ones_to_switch_off() -> None:
    found = targets()
    assert found["two"].channels == ("b",)
    assert found["reads"].channels == ("2",)


def test_an_smu_wired_to_nothing_is_switched_off_whole() -> None:
    wiring = {"pots": {"board": "all"}, "sources": {"two": {"A": 3}}}
    bench = BenchSection.model_validate(BENCH | {"wiring": wiring})
    assert {target.name: target for target in bench_targets(bench)}["two"].channels == ("a", "b")


def test_how_to_reach_an_instrument_is_kept() -> None:
    board, reads = targets()["board"], targets()["reads"]
    assert (board.resource, board.baud, board.serial) == ("/dev/ttyACM0", 9600, "7")
    assert (board.turnaround, board.boot_time) == (1.0, 2.0)
    assert (reads.resource, reads.timeout, reads.visa) == ("GPIB::1::INSTR", 9.0, "@py")


@pytest.mark.parametrize("name", INSTRUMENTS)
def test_a_target_reaches_another_process_whole(name: str) -> None:
    target = targets()[name]
    assert Target.model_validate_json(target.model_dump_json()) == target


@pytest.mark.parametrize(("text", "seconds"), [("off", None), ("30 s", 30.0), ("2 s", 2.0), ("1 h", 3600.0)])
def test_the_guard_is_a_silence_or_off(text: str, seconds: float | None) -> None:
    assert BenchSection.model_validate(BENCH | {"guard": text}).guard == seconds


@pytest.mark.parametrize("value", ["1 s", "2 h", "30", 30, True, "on"])
def test_other_guards_are_refused(value: object) -> None:
    with pytest.raises(ValidationError, match="guard"):
        BenchSection.model_validate(BENCH | {"guard": value})
