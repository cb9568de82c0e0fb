import dataclasses
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilcl.calibration.apply import watch_reference
from hilcl.calibration.errors import CalibrationError
from hilcl.calibration.file import Calibration, same_instrument
from hilcl.calibration.json_text import checksum, parsed, replace_file, written
from hilcl.network import Network
from hilcl.potentiometer import Potentiometer
from tests.calibration.samples import IDENTITIES, MADE, POT, calibration, meters, network, pots, result

SOON = MADE + timedelta(days=1)


def changed(path: Path, change: dict[str, Any], *, honest: bool = False) -> Path:
    """Change values of a file by their dotted keys; ``honest`` writes the checksum anew."""
    document = json.loads(path.read_text())
    for key, value in change.items():
        *parents, last = [int(part) if part.isdigit() else part for part in key.split(".")]
        place: Any = document
        for parent in parents:
            place = place[parent]
        place[last] = value
    if honest:
        document["checksum"] = checksum(document)
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "board.json"
    assert calibration().save(path) is None
    return path


@pytest.mark.parametrize("terms", [0, 2])
def test_what_is_saved_is_loaded(tmp_path: Path, terms: int) -> None:
    measured = pots(terms=terms)
    usable = np.ones((12, POT.positions), dtype=np.bool_)
    usable[:, :5] = False
    before = calibration(
        pots=measured, meters=meters(unread=(2,)), usable=usable, comment="Ω", temperature_celsius=23.5
    )
    before.save(tmp_path / "board.json")
    after = Calibration.load(tmp_path / "board.json")
    assert after.model_copy(update={"checksum": ""}) == before
    assert (after.pot_parameters.values == measured.values).all()
    np.testing.assert_array_equal(after.pot_parameters.statistical, measured.statistical)
    np.testing.assert_array_equal(after.pot_parameters.instrument, measured.instrument)
    np.testing.assert_allclose(after.meter_parameters.gain[[0, 1, 3]], meters().gain[[0, 1, 3]], rtol=1e-11)
    assert np.isnan(after.meter_parameters.gain[2])
    np.testing.assert_allclose(after.table[:, 5:], measured.table[:, 5:], rtol=1e-11)
    assert np.isnan(after.table[:, :5]).all()
    assert after.network == network()
    assert after.created == MADE
    assert after.device_range.g_max == pytest.approx(measured.table[:, 5:].max(axis=1))


def test_what_meters_put_between_node_and_ground_is_kept(tmp_path: Path) -> None:
    leaky = dataclasses.replace(meters(unread=(2,)), leak=1e-7)
    calibration(meters=leaky).save(tmp_path / "board.json")
    loaded = Calibration.load(tmp_path / "board.json")
    assert loaded.meter_parameters.leak == 1e-7
    load = watch_reference(loaded).load
    assert load[2] == 0.0
    assert (np.delete(load, 2) == 1e-7).all()


def test_the_parts_of_the_uncertainty_stay_apart(file: Path) -> None:
    loaded = Calibration.load(file)
    statistical, instrument = loaded.table_u
    np.testing.assert_allclose(statistical, pots().table_statistical, rtol=1e-3)
    np.testing.assert_allclose(instrument, pots().table_instrument, rtol=1e-3)
    assert (instrument > 1.05 * statistical).all()


def test_a_large_covariance_keeps_each_edge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hilcl.calibration.file.WHOLE_COVARIANCE_UP_TO", 10)
    calibration().save(tmp_path / "board.json")
    loaded = Calibration.load(tmp_path / "board.json").pot_parameters
    np.testing.assert_allclose(loaded.table_u, pots().table_u)
    assert loaded.instrument[0, 2] == 0.0


def test_numbers_of_one_list_stand_on_one_line(file: Path) -> None:
    lines = file.read_text().splitlines()
    assert next(line for line in lines if line.strip().startswith('"gain"')).count(",") == 7
    assert '  "created": "2026-05-01T12:00:00Z",' in lines


def test_every_cut_off_file_is_refused(file: Path) -> None:
    whole = file.read_bytes()
    for length in [0, 1, len(whole) // 3, len(whole) // 2, len(whole) - 2]:
        file.write_bytes(whole[:length])
        with pytest.raises(CalibrationError, match=r"board.json"):
            Calibration.load(file)


@pytest.mark.parametrize(
    "change",
    [
        {"pots.values.0.1": 9999.0},
        {"tables.3.siemens.7": 1e-4},
        {"valid_until": "2099-01-01T00:00:00Z"},
        {"board.identities.pots": "another"},
        {"extra": 1},
        {"checksum": None},
    ],
)
def test_an_edited_file_is_refused(file: Path, change: dict[str, Any]) -> None:
    with pytest.raises(CalibrationError, match="changed after it was written"):
        Calibration.load(changed(file, change))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pots.values.0.1": 9999.0}, "not those of the fitted law"),
        ({"tables.3.siemens.7": -1e-4}, "not positive"),
        ({"tables.3.siemens": [1e-4]}, "tables, edge 3 has 1 entries"),
        ({"meters.gain": [1.0]}, "meters has 1 entries"),
        ({"board.pot_of_edge": [0]}, "pot_of_edge has 1 entries, but 12"),
        ({"board.pot_of_edge.2": 5}, "the board cannot be"),
        ({"board.network.inputs": [0, 0]}, "the board cannot be"),
        ({"pots.statistical": {"blocks": [[[1.0]]]}}, "a covariance has another size"),
        ({"pots.instrument.lower.1": [1.0]}, "a covariance has another size"),
        ({"pots.statistical": {}}, "needs either lower or blocks"),
        ({"comment": 5}, "comment"),
        ({"unknown": 5}, "unknown"),
        ({"created": "yesterday"}, "created"),
        ({"tables": []}, "tables has 0 entries"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(file: Path, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(CalibrationError, match=reason):
        Calibration.load(changed(file, change, honest=True))


def test_other_versions_and_other_files_are_refused(file: Path, tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="version 2 of the calibration format"):
        Calibration.load(changed(file, {"version": 2}, honest=True))
    for text in ("[]", "{}", "3", '{"format": "other"}', '{"a": 1, "a": 2}', '{"a": NaN}', "[" * 100_000):
        file.write_text(text)
        with pytest.raises(CalibrationError):
            Calibration.load(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CalibrationError, match="not text"):
        Calibration.load(file)
    with pytest.raises(CalibrationError, match=r"no calibration file .*missing.json"):
        Calibration.load(tmp_path / "missing.json")
    with pytest.raises(CalibrationError, match="cannot be read"):
        Calibration.load(tmp_path)


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail_otherwise(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("any") / "board.json"
    path.write_bytes(content)
    with pytest.raises(CalibrationError):
        Calibration.load(path)


def test_the_old_calibration_is_kept_under_its_date(file: Path) -> None:
    old = file.read_text()
    archive = calibration(1, created=MADE + timedelta(days=3)).save(file)
    assert archive == file.with_name("board.2026-05-01T12-00-00.json")
    assert archive.read_text() == old
    assert Calibration.load(file).created == MADE + timedelta(days=3)
    assert calibration(2).save(file, keep_old=False) is None


def test_a_file_that_is_no_calibration_is_not_replaced(file: Path) -> None:
    file.write_text("my notes")
    with pytest.raises(CalibrationError, match="move it away"):
        calibration().save(file)
    assert file.read_text() == "my notes"


def test_a_failed_write_leaves_the_old_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = file.read_text()

    def fails(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fails)
    with pytest.raises(CalibrationError, match="No space left"):
        calibration(1).save(file, keep_old=False)
    assert file.read_text() == old
    assert [each.name for each in file.parent.iterdir()] == ["board.json"]


def test_a_killed_write_leaves_the_old_file(file: Path) -> None:
    old = file.read_text()
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from hilcl.calibration.json_text import replace_file\n"
        "os.fsync = lambda handle: os.kill(os.getpid(), 9)\n"
        "replace_file(Path(sys.argv[1]), 'new')\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(file)], capture_output=True, check=False)
    assert done.returncode == -9
    assert file.read_text() == old


def test_a_link_stays_a_link_and_modes_stay(tmp_path: Path) -> None:
    target, link = tmp_path / "real.json", tmp_path / "link.json"
    target.write_text("old")
    target.chmod(0o640)
    link.symlink_to(target)
    replace_file(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o640
    with pytest.raises(CalibrationError, match="cannot be written"):
        replace_file(tmp_path / "nowhere" / "file.json", "new")


def test_it_applies_to_its_own_board() -> None:
    updated = IDENTITIES | {"source a": "KEITHLEY,2450,04312345,1.8.0"}
    calibration().check_applies(network(), POT, IDENTITIES, now=SOON)
    calibration().check_applies(network(), [POT] * 12, updated, now=SOON)
    calibration(valid_days=None).check_applies(network(), POT, IDENTITIES, now=MADE + timedelta(days=9999))
    calibration().check_applies(network(), POT, IDENTITIES, now=MADE + timedelta(days=100), accept_expired=True)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"network": Network.crossbar(3, 4)}, "it has|its edge 0|its inputs"),
        ({"network": Network.crossbar(4, 4)}, "7 nodes and 12 edges, the board 8 and 16"),
        ({"network": Network(7, network().edges[::-1], range(4), range(4, 7))}, r"its edge 0 joins nodes \[0, 4\]"),
        ({"network": Network(7, network().edges, [0, 1], range(4, 7))}, "inputs or outputs"),
        ({"pots": dataclasses.replace(POT, end_to_end=50e3)}, "end_to_end = 50000, but"),
        ({"pots": dataclasses.replace(POT, inverted=True)}, "edge 0 has a pot with inverted"),
        ({"pots": [POT] * 11 + [Potentiometer(128, 10e3, 75.0, 1200.0)]}, "edge 11 has a pot with positions = 128"),
        (
            {"identities": IDENTITIES | {"source a": "KEITHLEY,2450,999,1.7.12"}},
            "source a is .*999.* made with .*04312345",
        ),
        ({"identities": {"pots": IDENTITIES["pots"]}}, "nothing as source a"),
        ({"identities": IDENTITIES | {"meter": "x"}}, "'x' as meter, which the calibration does not know"),
        ({"now": MADE + timedelta(days=91)}, "expired on 2026-07-30"),
        ({"now": MADE - timedelta(days=2)}, "in the future"),
    ],
)
def test_it_is_refused_on_another_board_or_too_late(arguments: dict[str, Any], reason: str) -> None:
    given_to: dict[str, Any] = {"network": network(), "pots": POT, "identities": IDENTITIES, "now": SOON} | arguments
    with pytest.raises(CalibrationError, match=reason):
        calibration().check_applies(**given_to)


def test_the_file_is_named_where_it_is_refused() -> None:
    with pytest.raises(CalibrationError, match=r"the calibration lab/board\.json was made on 2026-05-01 and expired"):
        calibration().check_applies(
            network(), POT, IDENTITIES, now=datetime(2027, 1, 1, tzinfo=UTC), path=Path("lab/board.json")
        )


@pytest.mark.parametrize(
    ("then", "here", "same"),
    [
        ("A,B,1,2.0", "A,B,1,2.1", True),
        ("A,B,1,2.0", "A,B,2,2.0", False),
        ("A,B,1", "A,B,2", False),
        ("simulated, seed 7", "simulated, seed 8", False),
        ("", "A,B,1,2", False),
    ],
)
def test_only_the_firmware_may_differ(then: str, here: str, same: bool) -> None:
    assert same_instrument(then, here) is same


def test_residuals_are_picked_evenly_where_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hilcl.calibration.file.RESIDUALS_KEPT", 5)
    record = Calibration.of(result(), identities=IDENTITIES).fit.residuals
    assert record.kinds == "VVVVA"
    assert record.normalised[0] == round(float(result().report.normalised[0]), 3)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_what_is_written_is_what_is_read_and_has_the_same_checksum(document: dict[str, Any]) -> None:
    again = parsed(written(document), Path("file.json"))
    assert again == document
    assert checksum(again) == checksum(document)


@given(st.dictionaries(st.text(), VALUES, min_size=1, max_size=4), st.data())
def test_every_change_of_a_value_changes_the_checksum(document: dict[str, Any], data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(document)))
    other = data.draw(VALUES)
    same = json.dumps(other, sort_keys=True) == json.dumps(document[key], sort_keys=True)
    assert (checksum(document | {key: other}) == checksum(document)) == (same or key == "checksum")
