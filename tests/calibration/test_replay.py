import numpy as np
import numpy.typing as npt
import pytest

from hilcl.board import free_drives
from hilcl.calibration.errors import CalibrationError
from hilcl.calibration.file import Calibration
from hilcl.calibration.replay import Replay, replay
from hilcl.device_range import DeviceRange
from hilcl.sim_backend import SimulatedBoard
from tests.calibration.samples import calibration, network

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

NOISE = 3e-5


def run(known: Calibration, *, epochs: int = 12, fault: int | None = None) -> tuple[FloatArray, IntArray, FloatArray]:
    """Inputs, codes and measured outputs of a run on a board drawn from its calibration; a fault breaks edge 5."""
    generator = np.random.default_rng(4)
    covariance, laws = known.pot_parameters.covariance, known.pot_parameters
    errors = generator.multivariate_normal(np.zeros(len(covariance)), covariance).reshape(laws.values.shape)
    table = 1 / np.einsum("mkq,mq->mk", laws.law, laws.values + errors)
    inputs = generator.uniform(0, 2, (6, 4))
    codes = generator.integers(0, table.shape[1], (epochs, 12))
    outputs = []
    for epoch in range(epochs):
        if epoch == fault:
            table[5] *= 0.9
        board = SimulatedBoard(network(), table[np.arange(12), codes[epoch]])
        measured = board.respond(free_drives(inputs, 3)).potentials[:, 4:]
        outputs.append(measured + NOISE * generator.standard_normal(measured.shape))
    return inputs, codes, np.array(outputs)


def replayed(known: Calibration, *, fault: int | None = None, every: int = 1) -> Replay:
    inputs, codes, outputs = run(known, fault=fault)
    twin = SimulatedBoard(network(), 2e-4, DeviceRange.from_table(known.table))
    return replay(known, twin, inputs, np.zeros((6, 3)), codes, outputs, every=every)


def test_a_board_that_is_what_it_was_stays_with_its_twin() -> None:
    found = replayed(calibration())
    assert found.parted is None
    ratio = found.differences / found.sigma
    assert 0.5 < np.sqrt((ratio**2).mean()) < 2.0
    lines = found.lines(network())
    assert lines[-1] == "Measurement and twin agree within their uncertainty."
    assert lines[0].startswith("Replayed 12 epochs of 6 samples")
    assert [line.split(":")[0] for line in lines[1:4]] == ["  node 4", "  node 5", "  node 6"]


def test_the_epoch_in_which_they_part_is_named() -> None:
    found = replayed(calibration(), fault=7)
    assert found.parted is not None
    epoch, sample, output = found.parted
    assert 7 <= epoch <= 8
    assert output == 2  # edge 5 joins node 1 and node 6
    text = found.lines(network())[-1]
    assert f"They part in epoch {epoch}: node 6 in sample {sample} is" in text


def test_losses_are_those_of_the_outputs() -> None:
    found = replayed(calibration())
    np.testing.assert_allclose(found.measured_loss, (found.measured**2).mean(axis=(1, 2)))
    np.testing.assert_allclose(found.twin_loss, (found.twin**2).mean(axis=(1, 2)))


def test_epochs_may_be_skipped_but_not_the_last() -> None:
    assert replayed(calibration(), every=5).epochs.tolist() == [0, 5, 10, 11]


def test_a_run_of_another_board_is_refused() -> None:
    known = calibration()
    inputs, codes, outputs = run(known)
    twin = SimulatedBoard(network(), 2e-4, DeviceRange.from_table(known.table))
    for wrong in (codes[:, :11], codes[:5]):
        with pytest.raises(CalibrationError, match="name a run of this board"):
            replay(known, twin, inputs, np.zeros((6, 3)), wrong, outputs)
    for odd in (codes + 129, codes - 129):
        with pytest.raises(CalibrationError, match="codes that the calibration does not know"):
            replay(known, twin, inputs, np.zeros((6, 3)), odd, outputs)
