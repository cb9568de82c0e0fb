import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilcl.sim_backend.emulation.bench_port import BenchPort, MeterError
from hilcl.sim_backend.emulation.port import OPEN, Applied
from hilcl.sim_backend.imperfections import SourceDefects
from tests.sim_backend.emulation.bench import Node

VOLTS = st.floats(-10.0, 10.0)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(VOLTS, st.floats(-0.01, 0.01), st.floats(0.0, 100.0))
def test_a_source_has_its_offset_series_resistance_and_limit(level: float, offset: float, series: float) -> None:
    node = Node()
    port = BenchPort(
        node, generator(), source=SourceDefects(series=series, offset=0.01, compliance=0.02), source_offset=offset
    )
    port.apply(Applied("voltage", level, limit=0.1, series=1.0))
    assert node.applied[-1] == Applied("voltage", level + offset, limit=0.02, series=1.0 + series)
    port.apply(Applied("voltage", level, limit=0.001))
    assert node.applied[-1].limit == 0.001


@pytest.mark.parametrize("applied", [OPEN, Applied("current", 0.0, limit=2.0), Applied("current", 1e-3, limit=2.0)])
def test_only_a_voltage_has_the_sources_errors(applied: Applied) -> None:
    node = Node()
    port = BenchPort(node, generator(), source=SourceDefects(series=5.0, offset=1.0), source_offset=0.5)
    port.apply(applied)
    assert node.applied[-1] == applied


def test_a_port_without_errors_changes_nothing() -> None:
    node = Node(500.0, 2.5)
    port = BenchPort(node, generator())
    assert port.see() == node.see()
    port.apply(Applied("voltage", 1.0))
    assert node.applied[-1] == Applied("voltage", 1.0)
    assert port.see() == node.see()


@given(VOLTS, st.floats(0.9, 1.1), st.floats(-0.1, 0.1))
def test_a_meter_has_its_gain_and_offset(volts: float, gain: float, offset: float) -> None:
    node = Node(volts=volts)
    seen = BenchPort(node, generator(), meter=MeterError(gain=gain, offset=offset)).see()
    assert seen.volts == pytest.approx(gain * volts + offset, abs=1e-12)
    assert seen.amperes == 0.0


@given(VOLTS, st.floats(1e-6, 0.1))
def test_readings_lie_on_the_meters_steps(volts: float, resolution: float) -> None:
    seen = BenchPort(Node(volts=volts), generator(), meter=MeterError(resolution=resolution)).see().volts
    assert seen / resolution == pytest.approx(round(seen / resolution), abs=1e-6)
    assert abs(seen - volts) <= resolution / 2 * (1 + 1e-9)


def test_noise_is_drawn_from_the_ports_own_generator() -> None:
    ports = [BenchPort(Node(volts=1.0), generator(seed), meter=MeterError(noise=0.01)) for seed in (1, 1, 2)]
    one, twin, other = ([port.see().volts for _ in range(400)] for port in ports)
    assert one == twin
    assert one != other
    # Six standard errors of a mean and of a standard deviation of 400 readings.
    assert np.mean(one) == pytest.approx(1.0, abs=6 * 0.01 / 20)
    assert np.std(one) == pytest.approx(0.01, rel=6 / np.sqrt(800))


def test_without_noise_nothing_is_drawn() -> None:
    port = BenchPort(Node(volts=1.0), generator(3), meter=MeterError(gain=1.01))
    before = port.generator.bit_generator.state
    port.see()
    assert port.generator.bit_generator.state == before
