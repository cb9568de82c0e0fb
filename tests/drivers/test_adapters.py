"""Lab objects of other packages as sources and meters: objects with the same surface stand in for them."""

import math
from typing import Any, ClassVar

import numpy as np
import pytest

from hilcl.devices import SourceBank, Voltmeter
from hilcl.drivers.adapters import (
    AdaptedMeterChannel,
    AdaptedSource,
    AdaptedSourceChannel,
    AdaptedVoltmeter,
    assign,
    fetch,
    identity_of,
    pymeasure_keithley2400,
    qcodes_keithley2450,
    qcodes_keithley2600_channel,
    tm_devices_2600b,
)
from hilcl.errors import BoardError, InputError

Log = list[tuple[str, Any]]


def logged(name: str) -> property:
    """A property that logs what is assigned, as PyMeasure's controls do on the wire."""

    def get(self: Any) -> Any:
        self.log.append((f"{name}?", None))
        return self.state[name]

    def set_(self: Any, value: Any) -> None:
        self.log.append((name, value))
        self.state[name] = value

    return property(get, set_)


class PyMeasureLike:
    id = "KEITHLEY INSTRUMENTS INC.,MODEL 2400,1,1"
    source_mode = logged("source_mode")
    source_voltage = logged("source_voltage")
    source_current = logged("source_current")
    source_enabled = logged("source_enabled")
    compliance_current = logged("compliance_current")
    compliance_voltage = logged("compliance_voltage")
    voltage = logged("voltage")
    current = logged("current")

    def __init__(self) -> None:
        self.log: Log = []
        self.state: dict[str, Any] = {"voltage": 1.25, "current": 1e-3, "source_enabled": False}


class Parameter:
    """A QCoDeS parameter: called to read, called with a value to set."""

    def __init__(self, name: str, value: Any, log: Log) -> None:
        self.name, self.value, self.log = name, value, log

    def __call__(self, *values: Any) -> Any:
        if values:
            self.log.append((self.name, values[0]))
            self.value = values[0]
            return None
        return self.value


class Node:
    pass


def qcodes_like(**parameters: Any) -> tuple[Any, Log]:
    log: Log = []
    root = Node()
    for path, value in parameters.items():
        parent: Any = root
        *parents, name = path.split("__")
        for step in parents:
            if not hasattr(parent, step):
                setattr(parent, step, Node())
            parent = getattr(parent, step)
        setattr(parent, name, Parameter(path.replace("__", "."), value, log))
    return root, log


def test_a_pymeasure_object_is_a_source_bank() -> None:
    lab = PyMeasureLike()
    source = AdaptedSource(
        "smu", {"1": pymeasure_keithley2400(lab, 0.01, 6.0)}, identity=identity_of(lab), limit_volts=5.0
    )
    assert isinstance(source, SourceBank)
    assert (source.identity, source.channels) == (PyMeasureLike.id, ("1",))
    source.drive(np.array([1.5]))
    assert lab.log == [
        ("source_mode", "voltage"),
        ("compliance_current", 0.01),
        ("compliance_current?", None),
        ("source_voltage", 1.5),
        ("source_enabled", True),
        ("source_enabled?", None),
    ]
    readings = source.read()
    assert (readings.volts[0], readings.amperes[0], readings.in_compliance[0]) == (1.25, 1e-3, False)
    lab.log.clear()
    source.drive(np.array([2.0]))
    assert lab.log == [("source_voltage", 2.0)]
    lab.log.clear()
    source.drive(np.array([math.nan]))
    source.drive(np.array([math.nan]))
    assert lab.log == [
        ("source_current", 0.0),
        ("source_mode", "current"),
        ("compliance_voltage", 6.0),
        ("compliance_voltage?", None),
        ("source_enabled", True),
        ("source_enabled?", None),
    ]
    lab.log.clear()
    source.close()
    source.close()
    assert lab.log == [("source_enabled", False), ("source_enabled?", None)]


def test_qcodes_parameters_are_called() -> None:
    lab, log = qcodes_like(
        output_enabled=False,
        source__function="voltage",
        source__voltage=0.0,
        source__current=0.0,
        source__limit=0.0,
        source__limit_tripped=True,
        sense__function="current",
    )
    source = AdaptedSource("smu", {"1": qcodes_keithley2450(lab, 0.01, 6.0)}, identity="x", limit_volts=5.0)
    source.start_drive(np.array([1.5])).result(10)
    assert log == [
        ("source.function", "voltage"),
        ("sense.function", "current"),
        ("source.limit", 0.01),
        ("source.voltage", 1.5),
        ("output_enabled", True),
    ]
    readings = source.start_read().result(10)
    assert math.isnan(readings.volts[0])
    assert readings.in_compliance[0]
    log.clear()
    source.close()
    assert log == [("source.voltage", 0.0), ("output_enabled", False)]


def test_words_for_on_and_off_are_the_labs_own() -> None:
    lab, log = qcodes_like(output="off", mode="voltage", volt=0.5, curr=1e-3, limiti=0.0, limitv=0.0)
    source = AdaptedSource("smu", {"a": qcodes_keithley2600_channel(lab, 0.01, 6.0)}, identity="x", limit_volts=5.0)
    source.drive(np.array([math.nan]))
    assert log == [("mode", "current"), ("curr", 0.0), ("limitv", 6.0), ("output", "on")]
    assert source.read().volts[0] == 0.5
    source.close()
    assert log[-1] == ("output", "off")


def test_tm_devices_paths_go_through_items_and_understand_answers_as_text() -> None:
    class Smu:
        log: ClassVar[Log] = []
        state: ClassVar[dict[str, Any]] = {"output": "0.00000e+00"}

        class Source:
            def __setattr__(self, name: str, value: Any) -> None:
                Smu.log.append((name, value))
                Smu.state[name] = f"{value:.5e}"

            def __getattr__(self, name: str) -> Any:
                return "false" if name == "compliance" else Smu.state.get(name, "")

        class Measure:
            def v(self) -> str:
                return "1.25000e+00"

            def i(self) -> str:
                return "1.00000e-03"

        source, measure = Source(), Measure()

    lab = Node()
    lab.commands = Node()  # type: ignore[attr-defined]
    lab.commands.smu = {"a": Smu()}  # type: ignore[attr-defined]
    source = AdaptedSource("smu", {"a": tm_devices_2600b(lab, "a", 0.01, 6.0)}, identity="x", limit_volts=5.0)
    source.drive(np.array([1.5]))
    assert Smu.log == [("func", 1), ("limiti", 0.01), ("levelv", 1.5), ("output", 1)]
    readings = source.read()
    assert (readings.volts[0], readings.amperes[0], readings.in_compliance[0]) == (1.25, 1e-3, False)
    source.close()
    assert Smu.log[-2:] == [("levelv", 0.0), ("output", 0)]


def test_a_limit_the_lab_driver_does_not_take_keeps_the_output_off() -> None:
    lab = PyMeasureLike()
    stubborn = AdaptedSourceChannel(
        lab, "source_enabled", "source_voltage", free=(), limits=(("voltage", 0.01),), read_volts="voltage"
    )
    type(lab).voltage = property(lambda self: 1.25, lambda self, value: None)
    try:
        source = AdaptedSource("smu", {"1": stubborn}, identity="x", limit_volts=5.0)
        with pytest.raises(BoardError, match=r"told voltage = 0.01 but has 1.25"):
            source.drive(np.array([1.0]))
        assert ("source_enabled", True) not in lab.log
        source.close()
    finally:
        type(lab).voltage = logged("voltage")


def test_whatever_a_lab_driver_raises_becomes_one_sentence_and_all_channels_are_tried() -> None:
    class Broken:
        @property
        def source_enabled(self) -> bool:
            raise ZeroDivisionError("no such thing\nat all")

        @source_enabled.setter
        def source_enabled(self, value: bool) -> None:
            raise TimeoutError

    good = PyMeasureLike()
    channels = {
        "bad": AdaptedSourceChannel(Broken(), "source_enabled", "source_voltage", free=()),
        "good": pymeasure_keithley2400(good, 0.01, 6.0),
    }
    source = AdaptedSource("smu", channels, identity="x", limit_volts=5.0)
    with pytest.raises(
        BoardError, match=r"smu channel bad: 'source_enabled' of the lab's own driver failed .TimeoutError"
    ):
        source.close()
    assert good.log[-2] == ("source_enabled", False)


def test_an_output_that_stays_on_is_said() -> None:
    lab, _ = qcodes_like(output="on", volt=0.0)
    lab.output = lambda *values: "on"
    channel = AdaptedSourceChannel(lab, "output", "volt", free=(), on="on", off="off")
    source = AdaptedSource("smu", {"a": channel}, identity="x", limit_volts=5.0)
    with pytest.raises(BoardError, match="smu channel a still has its output on"):
        source.make_safe()
    lab.output = lambda *values: "off"
    with pytest.raises(BoardError, match="did not switch its output on"):
        source.drive(np.array([0.0]))
    with pytest.raises(BoardError, match="cannot read channel a, whose output is off"):
        source.read()
    source.close()


def test_levels_are_checked() -> None:
    source = AdaptedSource(
        "smu", {"1": pymeasure_keithley2400(PyMeasureLike(), 0.01, 6.0)}, identity="x", limit_volts=5.0
    )
    with pytest.raises(InputError, match="6 V is beyond limit_volts = 5 V"):
        source.drive(np.array([-6.0]))
    with pytest.raises(InputError, match="1 channels"):
        source.drive(np.array([1.0, 2.0]))
    source.close()
    with pytest.raises(InputError, match="at least one channel"):
        AdaptedSource("smu", {}, identity="x", limit_volts=5.0)
    with pytest.raises(InputError, match="positive"):
        AdaptedSource("smu", {"1": pymeasure_keithley2400(None, 1, 1)}, identity="x", limit_volts=math.inf)


def test_lab_meters_are_a_voltmeter() -> None:
    lab, log = qcodes_like(relay=0, volt=1.0)
    values = iter([1.0, 3.0, 5.0])
    lab.volt = lambda: next(values)
    meter = AdaptedVoltmeter(
        "dmm", {"101": AdaptedMeterChannel(lab, "volt", before=(("relay", 101),), resolution=1e-3)}, identity="lab"
    )
    assert isinstance(meter, Voltmeter)
    assert (meter.identity, meter.channels) == ("lab", ("101",))
    found = meter.read(2)
    assert found.volts[0] == 2.0
    assert found.volts_u[0] == pytest.approx(math.hypot(1.0, 1e-3 / math.sqrt(12)))
    assert log == [("relay", 101), ("relay", 101)]
    assert meter.start_read().result(10).volts[0] == 5.0
    with pytest.raises(BoardError, match="dmm channel 101: 'volt'"):
        meter.read()
    meter.make_safe()
    meter.close()
    with pytest.raises(InputError):
        AdaptedVoltmeter("dmm", {}, identity="x")


def test_paths() -> None:
    root = Node()
    root.items = {"a": {"b": 1}}  # type: ignore[attr-defined]
    assert fetch(root, "items[a][b]") == 1
    assign(root, "items[a][b]", 2)
    assert fetch(root, "items[a][b]") == 2
    with pytest.raises(InputError, match="no path"):
        fetch(root, "")


def test_identities_of_other_packages() -> None:
    class Qcodes:
        def get_idn(self) -> dict[str, str | None]:
            return {"vendor": "Keithley", "model": "2450", "serial": "1", "firmware": None}

    assert identity_of(Qcodes(), "get_idn") == "Keithley,2450,1,"
    with pytest.raises(BoardError, match="Qcodes: 'id' of the lab's own driver failed"):
        identity_of(Qcodes())
