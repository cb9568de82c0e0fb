"""Other people's drivers, as they are published, against the emulated instruments over TCP."""

import importlib.metadata
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hilcl.sim_backend.emulation.instrument import EmulatedInstrument
from hilcl.sim_backend.emulation.server import RunningServer, serve
from hilcl.sim_backend.emulation.smu_2400 import Smu2400
from hilcl.sim_backend.emulation.smu_2450 import Smu2450
from hilcl.sim_backend.emulation.smu_2600b import Smu2600B
from tests.sim_backend.emulation.bench import ManualClock, Node, divider

# These packages warn of their own affairs when imported and used, so they are imported where that is tolerated.
pytestmark = pytest.mark.filterwarnings("ignore")

DEVICE_TEST = "tests/instruments/keithley/test_keithley2400_with_device.py"

CONFTEST = """
import os
import pytest
from pymeasure.adapters import VISAAdapter

@pytest.fixture(scope="session")
def connected_device_address():
    return VISAAdapter(os.environ["DEVICE"], visa_library="@py", read_termination="\\n", write_termination="\\n")
"""


@pytest.fixture
def bench() -> Iterator[tuple[RunningServer, dict[str, EmulatedInstrument]]]:
    """A 2400 and a 2450 at the middle of a divider, a 2602B at 1 kΩ and at the middle of a divider."""
    clock = ManualClock()
    instruments: dict[str, EmulatedInstrument] = {
        "2400": Smu2400(divider(), clock),
        "2450": Smu2450(divider(), clock),
        "2602B": Smu2600B((Node(1000.0), divider()), clock),
    }
    with serve(instruments) as running:
        yield running, instruments


@pytest.fixture(scope="module")
def device_test(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PyMeasure's own tests for a 2400 on the bench: they are in its source distribution only."""
    folder = tmp_path_factory.mktemp("pymeasure")
    version = importlib.metadata.version("pymeasure")
    download = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"),
        *("--dest", str(folder), f"pymeasure=={version}"),
    ]
    done = subprocess.run(download, capture_output=True, check=False, text=True)
    if done.returncode:
        pytest.skip(f"PyMeasure's source distribution cannot be had here: {done.stderr.strip()[-200:]}")
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        member = archive.extractfile(f"pymeasure-{version}/{DEVICE_TEST}")
        assert member is not None
        (folder / "test_device.py").write_bytes(member.read())
    (folder / "conftest.py").write_text(CONFTEST)
    return folder


def test_pymeasure_device_tests_pass(
    bench: tuple[RunningServer, dict[str, EmulatedInstrument]], device_test: Path
) -> None:
    running, instruments = bench
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", "test_device.py"],
        cwd=device_test,
        env={**os.environ, "DEVICE": running.resources["2400"]},
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout
    assert instruments["2400"].outputs_on == (False,)


def test_pymeasure_keithley2400_sources_and_reads(bench: tuple[RunningServer, dict[str, EmulatedInstrument]]) -> None:
    from pymeasure.adapters import VISAAdapter
    from pymeasure.instruments.keithley import Keithley2400

    running, instruments = bench
    adapter = VISAAdapter(running.resources["2400"], visa_library="@py", read_termination="\n", write_termination="\n")
    smu = Keithley2400(adapter)
    try:
        assert "MODEL 2400" in smu.id
        smu.reset()
        smu.source_mode = "voltage"
        smu.compliance_current = 0.01
        smu.source_voltage = 1.5
        smu.enable_source()
        everything = smu.measure_all()
        assert everything["voltage"] == 1.5
        assert everything["current"] == pytest.approx((1.5 - 2.5) / 500)
        assert not everything["status"] & 8
        smu.compliance_current = 1e-3
        everything = smu.measure_all()
        assert (everything["voltage"], everything["current"]) == (pytest.approx(2.0), pytest.approx(-1e-3))
        assert everything["status"] & 8
        smu.source_mode = "current"
        smu.source_current = 0.0
        smu.compliance_voltage = 10
        smu.enable_source()
        assert smu.voltage == pytest.approx(2.5)
        smu.config_buffer(5)
        smu.start_buffer()
        smu.wait_for_buffer(timeout=5)
        assert smu.mean_voltage == pytest.approx(2.5)
        assert smu.check_errors() == []
        smu.ramp_to_current(1e-3, steps=3, pause=0)
        smu.shutdown()
        assert smu.ask("*OPC?") == "1"
        assert instruments["2400"].outputs_on == (False,)
    finally:
        adapter.close()


def test_pymeasure_keithley2450_sources_and_reads(bench: tuple[RunningServer, dict[str, EmulatedInstrument]]) -> None:
    from pymeasure.adapters import VISAAdapter
    from pymeasure.instruments.keithley import Keithley2450

    running, _ = bench
    adapter = VISAAdapter(running.resources["2450"], visa_library="@py", read_termination="\n", write_termination="\n")
    smu = Keithley2450(adapter)
    try:
        smu.reset()
        smu.apply_voltage(compliance_current=0.01)
        smu.measure_current()
        smu.source_voltage = 1.0
        smu.enable_source()
        assert smu.current == pytest.approx(-3e-3)
        assert smu.check_errors() == []
    finally:
        adapter.close()


def test_qcodes_keithley2450_sources_reads_and_sweeps(
    bench: tuple[RunningServer, dict[str, EmulatedInstrument]],
) -> None:
    from qcodes.instrument_drivers.Keithley import Keithley2450

    running, instruments = bench
    smu = Keithley2450("smu2450", running.resources["2450"], visalib="@py")
    try:
        smu.reset()
        smu.source_function("voltage")
        smu.sense_function("current")
        smu.source.limit(0.1)
        smu.source.voltage(1.0)
        smu.output_enabled(True)
        assert smu.sense.current() == pytest.approx(-3e-3)
        assert smu.source.limit_tripped() is False
        smu.source.limit(1e-3)
        assert smu.sense.current() == pytest.approx(-1e-3)
        assert smu.source.limit_tripped() is True
        smu.source.limit(0.1)
        smu.source.sweep_setup(0, 2.5, 6)
        assert smu.sense.sweep() == pytest.approx([-5e-3, -4e-3, -3e-3, -2e-3, -1e-3, 0.0])
        smu.source_function("current")
        smu.sense_function("voltage")
        smu.source.current(0)
        smu.source.limit(10)
        smu.output_enabled(True)
        assert smu.sense.voltage() == 2.5
        smu.output_enabled(False)
        assert smu.ask("SYST:ERR?").startswith("0,")
        assert instruments["2450"].outputs_on == (False,)
    finally:
        smu.close()


def test_qcodes_keithley2602b_sources_reads_and_sweeps(
    bench: tuple[RunningServer, dict[str, EmulatedInstrument]],
) -> None:
    from qcodes.dataset import LinSweep
    from qcodes.instrument_drivers.Keithley import Keithley2602B

    running, instruments = bench
    smu = Keithley2602B("smu2602b", running.resources["2602B"], visalib="@py")
    try:
        assert smu.get_idn()["model"] == "2602B"
        smu.smua.mode("voltage")
        smu.smua.limiti(0.1)
        smu.smua.volt(1.25)
        smu.smua.output("on")
        assert smu.smua.curr() == pytest.approx(1.25e-3)
        assert str(smu.smua.curr.measurement_status) == "No error occured."
        assert smu.smua.res() == pytest.approx(1000.0)
        smu.smua.limiti(1e-4)
        assert smu.smua.volt() == pytest.approx(0.1)
        assert str(smu.smua.volt.measurement_status) == "Reached current compliance limit."
        smu.smua.limiti(0.1)
        smu.smub.mode("current")
        smu.smub.curr(0)
        smu.smub.output("on")
        assert smu.smub.volt() == 2.5
        smu.smub.mode("voltage")
        smu.smua.setup_fastsweep(LinSweep(smu.smua.volt, 0, 1, 5), LinSweep(smu.smub.volt, 0, 0.5, 2))
        assert smu.smua.fastsweep().ravel() == pytest.approx([0, 2.5e-4, 5e-4, 7.5e-4, 1e-3] * 2)
        smu.smua.timetrace_npts(4)
        smu.smua.timetrace_dt(0.1)
        assert smu.smua.timetrace() == pytest.approx([1e-3] * 4)
        smu.snapshot(update=True)
        smu.reset()
        assert smu.ask("errorqueue.count") == "0.0000000000000000e+00"
        assert instruments["2602B"].outputs_on == (False, False)
    finally:
        smu.close()


@pytest.mark.parametrize("raise_errors", [False, True])
def test_keithley2600_sources_reads_and_sweeps(
    bench: tuple[RunningServer, dict[str, EmulatedInstrument]], raise_errors: bool
) -> None:
    from keithley2600 import Keithley2600
    from keithley2600.keithley_driver import KeithleyError

    running, instruments = bench
    smu = Keithley2600(
        running.resources["2602B"],
        visa_library="@py",
        raise_keithley_errors=raise_errors,
        write_termination="\n",
        timeout=10_000,
    )
    try:
        assert smu.connected
        smu.apply_voltage(smu.smua, 2.0)
        assert smu.smua.measure.i() == pytest.approx(2e-3)
        smu.apply_current(smu.smub, 0.0)
        assert smu.measure_voltage(smu.smub) == 2.5
        volts, amperes = smu.voltage_sweep_single_smu(smu.smua, [0, 0.5, 1.0], 0.001, -1, pulsed=False)
        assert volts == pytest.approx([0, 0.5, 1])
        assert amperes == pytest.approx([0, 5e-4, 1e-3])
        swept = smu.voltage_sweep_dual_smu(smu.smua, smu.smub, [0, 1], [1, 2], 0.001, 0, pulsed=True)
        assert swept == (
            pytest.approx([0, 1]),
            pytest.approx([0, 1e-3]),
            pytest.approx([1, 2]),
            pytest.approx([-3e-3, -1e-3]),
        )
        if raise_errors:
            with pytest.raises(KeithleyError, match="Parameter too big"):
                smu.smua.source.levelv = 1000
        else:
            smu.smua.source.levelv = 1000
            assert [entry[:2] for entry in smu.read_error_queue()] == [(1102, "Parameter too big")]
        assert smu.smua.source.levelv == 2
        smu.reset()
        assert instruments["2602B"].outputs_on == (False, False)
    finally:
        smu.disconnect()
