"""The calibration file: versioned JSON with identities, dates and a checksum, applied to its own board only."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from hilcl.arrays import BoolArray, FloatArray
from hilcl.calibration.errors import CalibrationError
from hilcl.calibration.json_text import checksum, parsed, read_text, replace_file, written
from hilcl.calibration.parameters import (
    CalibrationResult,
    MeterParameters,
    PotParameters,
    SourceParameters,
)
from hilcl.device_range import DeviceRange
from hilcl.errors import InputError
from hilcl.network import Network
from hilcl.potentiometer import Potentiometer

FORMAT = "hilcl calibration"
VERSION = 1

VALID_DAYS = 90.0
"""Days a calibration is good for unless told otherwise."""

WHOLE_COVARIANCE_UP_TO = 600
"""Parameters; beyond this only each edge's own covariance is written, for the file grows with the square."""

RESIDUALS_KEPT = 20_000
"""Residuals written to the file, evenly picked where there are more."""

CLOCK_SLACK = timedelta(days=1)
"""How far in the future a calibration may have been made: clocks differ."""

SAME_TABLE = 1e-6
"""Relative difference between a written table and the law beside it, beyond which one of them was changed."""

Row = list[float | None]
"""Numbers in a file, null for what is not there."""

Whole = Annotated[int, Field(strict=True, ge=0)]


class Record(BaseModel):
    """Base of every part of the file: unknown keys are errors, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NetworkRecord(Record):
    """The wiring of the board."""

    n_nodes: Whole
    edges: list[tuple[Whole, Whole]]
    inputs: list[Whole]
    outputs: list[Whole]
    labels: list[str] | None = None


class LawRecord(Record):
    """The nominal law of a potentiometer, resistances in ohms."""

    positions: Whole
    end_to_end: float
    wiper: float
    series: float
    denominator: Whole
    inverted: bool


class BoardRecord(Record):
    """Which board was calibrated: wiring, pots, and what every device on it said it is."""

    network: NetworkRecord
    pots: list[LawRecord]
    pot_of_edge: list[Whole]
    identities: dict[str, str]


class CovarianceRecord(Record):
    """A covariance: its ``lower`` triangle row by row, or only the ``blocks`` of each edge on its diagonal."""

    lower: list[list[float]] | None = None
    blocks: list[list[list[float]]] | None = None

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        if (self.lower is None) == (self.blocks is None):
            raise ValueError("needs either lower or blocks")
        return self


class PotsRecord(Record):
    """Fitted law of every edge: R(k) = R0 + RAB·x(k) + Σ INLj·sin(jπt); ``values`` a row per edge, in ``unit``."""

    unit: Literal["ohm"] = "ohm"
    names: list[str]
    values: list[list[float]]
    standard_uncertainties: list[list[float]]
    statistical: CovarianceRecord
    instrument: CovarianceRecord


class TableRecord(Record):
    """What every code of an edge is worth, in siemens, and its standard uncertainties; null is a code not to use."""

    edge: Whole
    siemens: Row
    u_statistical: Row
    u_instrument: Row


class MetersRecord(Record):
    """What each node's meter shows, gain·volts + offset; null at a node without one. Covariance: gains, offsets.

    ``leak_siemens``: what each meter puts between its node and ground.
    """

    gain: Row
    offset_volts: Row
    noise_volts: Row
    leak_siemens: float = Field(default=0.0, ge=0)
    statistical: CovarianceRecord
    instrument: CovarianceRecord


class SourcesRecord(Record):
    """What every terminal's source and ammeter do; covariance in the order of the keys."""

    gain: Row
    offset_volts: Row
    series_ohms: Row
    ammeter_gain: Row
    ammeter_offset_amperes: Row
    ammeter_noise_amperes: Row
    statistical: CovarianceRecord
    instrument: CovarianceRecord


class ResidualKindRecord(Record):
    """Residuals of one kind of reading."""

    kind: str
    unit: str
    count: Whole
    rms: float
    normalised_rms: float
    worst: float
    normalised_worst: float
    worst_at: str


class UnidentifiableRecord(Record):
    """A parameter that the readings do not determine, why, and what would change that."""

    name: str
    reason: str
    remedy: str
    edges: list[Whole]
    nodes: list[Whole]


class FindingRecord(Record):
    """A fault found while calibrating."""

    kind: str
    sentence: str
    edges: list[Whole]
    nodes: list[Whole]


class ResidualsRecord(Record):
    """Residuals in standard deviations, with the kind (V or A) and the node or terminal of each reading."""

    normalised: list[float]
    kinds: str
    places: list[Whole]


class FitRecord(Record):
    """How the fit went."""

    chi_square: float
    degrees_of_freedom: int
    readings: Whole
    outliers: Whole
    iterations: Whole
    converged: bool
    kinds: list[ResidualKindRecord]
    unidentifiable: list[UnidentifiableRecord]
    findings: list[FindingRecord]
    residuals: ResidualsRecord


class VerificationRecord(Record):
    """Fresh codes and drives against the calibration; null where there were no such readings."""

    patterns: Whole
    readings: Whole
    reduced_chi_square: float | None
    within_95: float | None
    volts_rms: float | None
    volts_worst: float | None
    amperes_rms: float | None
    amperes_worst: float | None
    passed: bool


class EffortRecord(Record):
    """What the calibration took."""

    patterns: Whole
    drives: Whole
    seconds: float


class Calibration(Record):
    """What a board really is, with its uncertainty, its provenance and the time it holds.

    Make one with ``of`` or ``load``. ``created`` and ``valid_until`` are in UTC. Everything is in SI units but
    ``temperature_celsius``.
    """

    format: Literal["hilcl calibration"] = "hilcl calibration"
    version: Literal[1] = 1
    checksum: str = ""
    hilcl: str
    created: AwareDatetime
    valid_until: AwareDatetime | None
    comment: str
    temperature_celsius: float | None
    board: BoardRecord
    effort: EffortRecord
    verification: VerificationRecord | None
    fit: FitRecord
    meters: MetersRecord
    sources: SourcesRecord
    pots: PotsRecord
    tables: list[TableRecord]

    @classmethod
    def of(
        cls,
        result: CalibrationResult,
        *,
        identities: Mapping[str, str],
        usable: BoolArray | None = None,
        created: datetime | None = None,
        valid_days: float | None = VALID_DAYS,
        temperature_celsius: float | None = None,
        comment: str = "",
    ) -> "Calibration":
        """Return the file of a result.

        ``identities`` names each device that the calibration depends on: {"source a": "KEITHLEY,2450,04312345,1.7.12"}.
        ``usable`` (M, K) is False for codes that must not be written. ``valid_days`` None never expires.
        """
        now = (created or datetime.now(UTC)).astimezone(UTC).replace(microsecond=0)
        pots, report = result.pots, result.report
        laws = list(dict.fromkeys(pots.pots))
        table = pots.table if usable is None else np.where(usable, pots.table, np.nan)
        return cls(
            hilcl=version("hilcl"),
            created=now,
            valid_until=None if valid_days is None else now + timedelta(days=valid_days),
            comment=comment,
            temperature_celsius=temperature_celsius,
            board=BoardRecord(
                network=_network_record(result.network),
                pots=[_law_record(law) for law in laws],
                pot_of_edge=[laws.index(pot) for pot in pots.pots],
                identities=dict(identities),
            ),
            effort=EffortRecord(patterns=result.n_patterns, drives=result.n_drives, seconds=round(result.seconds, 3)),
            verification=_verification_record(result),
            fit=FitRecord(
                chi_square=report.chi_square,
                degrees_of_freedom=report.dof,
                readings=report.n_readings,
                outliers=report.n_outliers,
                iterations=report.iterations,
                converged=report.converged,
                kinds=[ResidualKindRecord(**vars(kind)) for kind in report.residuals],
                unidentifiable=[
                    UnidentifiableRecord(**{**vars(each), "edges": list(each.edges), "nodes": list(each.nodes)})
                    for each in report.unidentifiable
                ],
                findings=[
                    FindingRecord(**{**vars(each), "edges": list(each.edges), "nodes": list(each.nodes)})
                    for each in report.findings
                ],
                residuals=_residuals_record(result),
            ),
            meters=MetersRecord(
                gain=_row(result.meters.gain),
                offset_volts=_row(result.meters.offset),
                noise_volts=_row(result.meters.noise),
                leak_siemens=max(0.0, float(result.meters.leak)),
                statistical=_covariance_record(result.meters.statistical, 1),
                instrument=_covariance_record(result.meters.instrument, 1),
            ),
            sources=SourcesRecord(
                gain=_row(result.sources.gain),
                offset_volts=_row(result.sources.offset),
                series_ohms=_row(result.sources.series),
                ammeter_gain=_row(result.sources.ammeter_gain),
                ammeter_offset_amperes=_row(result.sources.ammeter_offset),
                ammeter_noise_amperes=_row(result.sources.ammeter_noise),
                statistical=_covariance_record(result.sources.statistical, 1),
                instrument=_covariance_record(result.sources.instrument, 1),
            ),
            pots=PotsRecord(
                names=list(pots.names),
                values=pots.values.tolist(),
                standard_uncertainties=pots.standard_uncertainties.tolist(),
                statistical=_covariance_record(pots.statistical, len(pots.names)),
                instrument=_covariance_record(pots.instrument, len(pots.names)),
            ),
            tables=[
                TableRecord(
                    edge=edge,
                    siemens=_row(row),
                    u_statistical=_row(np.where(np.isnan(row), np.nan, pots.table_statistical[edge]), 4),
                    u_instrument=_row(np.where(np.isnan(row), np.nan, pots.table_instrument[edge]), 4),
                )
                for edge, row in enumerate(table)
            ],
        )

    @classmethod
    def load(cls, path: Path) -> "Calibration":
        """Read a calibration file and check that it is whole and unchanged.

        Raises CalibrationError, in one sentence with the remedy, for every file that is not.
        """
        document = parsed(read_text(path), path)
        if document.get("format") != FORMAT:
            raise CalibrationError(f"{path} is not a calibration file: make one with `hilcl calibrate`")
        if document.get("version") != VERSION:
            raise CalibrationError(
                f"{path} has version {document.get('version')!r} of the calibration format, this hilcl reads "
                f"{VERSION}: use the hilcl that wrote it, or calibrate again"
            )
        try:
            unchanged = document.get("checksum") == checksum(document)
        except (ValueError, RecursionError):
            unchanged = False
        if not unchanged:
            raise CalibrationError(
                f"{path} was changed after it was written, its checksum is another: take a copy, or calibrate again"
            )
        try:
            return cls.model_validate(document)
        except ValidationError as cause:
            problem = cause.errors()[0]
            where = ".".join(str(part) for part in problem["loc"]) or "it"
            message = problem["msg"].removeprefix("Value error, ")
            raise CalibrationError(
                f"{path} cannot be used, {where}: {message[:1].lower()}{message[1:]}: calibrate again"
            ) from cause

    def save(self, path: Path, *, keep_old: bool = True) -> Path | None:
        """Write the file whole or not at all, and return where the calibration it replaces was put, or None.

        With ``keep_old`` that one stays beside it under its date: ``board.json`` becomes
        ``board.2026-05-01T12-00-00.json``.

        Raises CalibrationError where the file cannot be written, or what is there is not a calibration.
        """
        document = self.model_dump(mode="json")
        document["checksum"] = checksum(document)
        archive = None
        if path.exists():
            archive = _archive(path) if keep_old else None
        replace_file(path, written(document))
        return archive

    @property
    def network(self) -> Network:
        """The wiring."""
        record = self.board.network
        return Network(record.n_nodes, record.edges, record.inputs, record.outputs, labels=record.labels)

    @property
    def potentiometers(self) -> tuple[Potentiometer, ...]:
        """The nominal law of each edge."""
        laws = [Potentiometer(**law.model_dump()) for law in self.board.pots]
        return tuple(laws[number] for number in self.board.pot_of_edge)

    @property
    def pot_parameters(self) -> PotParameters:
        """The fitted law of every edge with its covariance."""
        values, terms = np.array(self.pots.values), len(self.pots.names)
        return PotParameters(
            self.potentiometers,
            tuple(self.pots.names),
            values,
            _matrix(self.pots.statistical, values.size, terms),
            _matrix(self.pots.instrument, values.size, terms),
        )

    @property
    def meter_parameters(self) -> MeterParameters:
        """Gain and offset of every node's meter."""
        count, record = self.board.network.n_nodes, self.meters
        return MeterParameters(
            _array(record.gain),
            _array(record.offset_volts),
            _matrix(record.statistical, 2 * count, 1),
            _matrix(record.instrument, 2 * count, 1),
            _array(record.noise_volts),
            record.leak_siemens,
        )

    @property
    def source_parameters(self) -> SourceParameters:
        """Gain, offset and series resistance of every terminal's source, gain and offset of its ammeter."""
        record = self.sources
        return SourceParameters(
            _array(record.gain),
            _array(record.offset_volts),
            _array(record.series_ohms),
            _array(record.ammeter_gain),
            _array(record.ammeter_offset_amperes),
            _matrix(record.statistical, 5 * len(record.gain), 1),
            _matrix(record.instrument, 5 * len(record.gain), 1),
            _array(record.ammeter_noise_amperes),
        )

    @property
    def table(self) -> FloatArray:
        """Conductance of every code, (M, K) in siemens, NaN for codes not to use."""
        return np.array([_array(row.siemens) for row in self.tables])

    @property
    def table_u(self) -> tuple[FloatArray, FloatArray]:
        """Statistical and instrument standard uncertainty of ``table``, each (M, K) in siemens."""
        return (
            np.array([_array(row.u_statistical) for row in self.tables]),
            np.array([_array(row.u_instrument) for row in self.tables]),
        )

    @property
    def device_range(self) -> DeviceRange:
        """The calibrated table as what the devices can take."""
        return DeviceRange.from_table(self.table)

    def check_applies(
        self,
        network: Network,
        pots: Potentiometer | Sequence[Potentiometer],
        identities: Mapping[str, str],
        *,
        now: datetime | None = None,
        accept_expired: bool = False,
        path: Path | None = None,
    ) -> None:
        """Raise CalibrationError where this calibration is not one of the given board, or holds no longer.

        ``identities`` as in ``of``; an instrument's last field, its firmware version, may differ. ``path`` names the
        file in the message.
        """
        name = "the calibration" if path is None else f"the calibration {path}"
        self._check_wiring(network, name)
        self._check_pots(network, pots, name)
        for role in sorted(set(identities) | set(self.board.identities)):
            then, here = self.board.identities.get(role), identities.get(role)
            if then is None or here is None:
                side = f"has {here!r} as {role}, which {name} does not know" if then is None else ""
                side = side or f"has nothing as {role}, which was {then!r} in {name}"
                raise CalibrationError(f"the bench {side}: calibrate this bench")
            if not same_instrument(then, here):
                raise CalibrationError(
                    f"{role} is {here!r}, but {name} was made with {then!r}: connect that one, or calibrate this bench"
                )
        moment = now or datetime.now(UTC)
        if self.created > moment + CLOCK_SLACK:
            raise CalibrationError(
                f"{name} was made on {self.created:%Y-%m-%d}, which is in the future: set this computer's clock"
            )
        if self.valid_until is not None and moment > self.valid_until and not accept_expired:
            raise CalibrationError(
                f"{name} was made on {self.created:%Y-%m-%d} and expired on {self.valid_until:%Y-%m-%d}: "
                "calibrate again, or allow an expired one"
            )

    def _check_wiring(self, network: Network, name: str) -> None:
        own = self.network
        if own == network:
            return
        if own.n_nodes != network.n_nodes or own.n_edges != network.n_edges:
            difference = (
                f"it has {own.n_nodes} nodes and {own.n_edges} edges, the board {network.n_nodes} and {network.n_edges}"
            )
        elif (own.edges != network.edges).any():
            edge = int(np.flatnonzero((own.edges != network.edges).any(axis=1))[0])
            difference = (
                f"its edge {edge} joins nodes {own.edges[edge].tolist()}, the board's {network.edges[edge].tolist()}"
            )
        else:
            difference = "its inputs or outputs are others"
        raise CalibrationError(f"{name} is that of another board, {difference}: calibrate this board")

    def _check_pots(self, network: Network, pots: Potentiometer | Sequence[Potentiometer], name: str) -> None:
        here = [pots] * network.n_edges if isinstance(pots, Potentiometer) else list(pots)
        for edge, (then, now) in enumerate(zip(self.potentiometers, here, strict=True)):
            for key in ("positions", "end_to_end", "wiper", "series", "divisor", "inverted"):
                old, new = getattr(then, key), getattr(now, key)
                if old != new:
                    raise CalibrationError(
                        f"edge {edge} has a pot with {key} = {new:g}, but {name} was made with {old:g}: "
                        "correct [board.pots], or calibrate this board"
                    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        try:
            network = self.network
            pots = self.potentiometers
        except (InputError, IndexError) as cause:
            raise ValueError(f"the board cannot be: {cause}") from cause
        edges, nodes, terminals = network.n_edges, network.n_nodes, len(network.terminals)
        terms = len(self.pots.names)
        codes = max(pot.positions for pot in pots) if pots else 0
        shapes = [
            ("board.pot_of_edge", len(self.board.pot_of_edge), edges),
            ("pots.values", len(self.pots.values), edges),
            ("tables", len(self.tables), edges),
            *(("pots.values", len(row), terms) for row in self.pots.values),
            *(
                (f"tables, edge {row.edge}", len(numbers), codes)
                for row in self.tables
                for numbers in (row.siemens, row.u_statistical, row.u_instrument)
            ),
            *(("meters", len(row), nodes) for row in (self.meters.gain, self.meters.offset_volts)),
            ("meters.noise_volts", len(self.meters.noise_volts), nodes),
            *(
                (f"sources.{key}", len(getattr(self.sources, key)), terminals)
                for key in SourcesRecord.model_fields
                if key not in {"statistical", "instrument"}
            ),
        ]
        for what, found, needed in shapes:
            if found != needed:
                raise ValueError(f"{what} has {found} entries, but {needed} are needed")
        if terms < 2:
            raise ValueError("a law needs R0 and RAB at least")
        # Building the matrices checks their sizes; numbers beyond reason are refused below, not warned of.
        with np.errstate(all="ignore"):
            fitted, table = self.pot_parameters.table, self.table
        _ = self.meter_parameters, self.source_parameters
        used = ~np.isnan(table)
        if not used.any(axis=1).all() or (table[used] <= 0).any():
            raise ValueError("tables hold an edge without a usable code, or a conductance that is not positive")
        with np.errstate(all="ignore"):
            same = np.abs(fitted[used] / table[used] - 1) < SAME_TABLE
        if not same.all():
            raise ValueError("the tables are not those of the fitted law")
        return self


def same_instrument(then: str, here: str) -> bool:
    """Return whether two identities are of one device: the last of four fields, its firmware version, may differ."""
    old, new = then.split(","), here.split(",")
    return then == here or (len(old) == len(new) == 4 and old[:3] == new[:3])


def _archive(path: Path) -> Path | None:
    """Give the calibration at a path a second name with its date, and return that."""
    try:
        created = Calibration.load(path).created
    except CalibrationError as cause:
        raise CalibrationError(
            f"{path} is there and is not a usable calibration: move it away, or choose another name"
        ) from cause
    archive = path.with_name(f"{path.stem}.{created.astimezone(UTC):%Y-%m-%dT%H-%M-%S}{path.suffix}")
    if not archive.exists():
        replace_file(archive, read_text(path))
    return archive


def _network_record(network: Network) -> NetworkRecord:
    return NetworkRecord(
        n_nodes=network.n_nodes,
        edges=[(int(first), int(second)) for first, second in network.edges],
        inputs=network.inputs.tolist(),
        outputs=network.outputs.tolist(),
        labels=None if network.labels is None else list(network.labels),
    )


def _law_record(pot: Potentiometer) -> LawRecord:
    return LawRecord(
        positions=pot.positions,
        end_to_end=pot.end_to_end,
        wiper=pot.wiper,
        series=pot.series,
        denominator=pot.divisor,
        inverted=pot.inverted,
    )


def _verification_record(result: CalibrationResult) -> VerificationRecord | None:
    seen = result.verification
    if seen is None:
        return None
    return VerificationRecord(
        patterns=seen.n_patterns,
        readings=seen.n_readings,
        reduced_chi_square=_number(seen.reduced_chi_square),
        within_95=_number(seen.within_95),
        volts_rms=_number(seen.volts_rms),
        volts_worst=_number(seen.volts_worst),
        amperes_rms=_number(seen.amperes_rms),
        amperes_worst=_number(seen.amperes_worst),
        passed=seen.passed,
    )


def _residuals_record(result: CalibrationResult) -> ResidualsRecord:
    report = result.report
    count = min(len(report.normalised), len(report.reading_kinds), len(report.reading_places))
    kept = np.unique(np.linspace(0, max(count - 1, 0), min(count, RESIDUALS_KEPT)).round().astype(np.int64))
    return ResidualsRecord(
        normalised=[round(float(value), 3) for value in report.normalised[kept]],
        kinds="".join(report.reading_kinds[number][:1] for number in kept),
        places=[int(report.reading_places[number]) for number in kept],
    )


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _row(values: FloatArray, digits: int = 12) -> Row:
    return [float(f"{value:.{digits}g}") if np.isfinite(value) else None for value in values.tolist()]


def _array(row: Row) -> FloatArray:
    return np.array([np.nan if value is None else value for value in row], dtype=np.float64)


def _covariance_record(covariance: FloatArray, block: int) -> CovarianceRecord:
    """Return a covariance as a record: only its blocks where nothing else is there, or where it is too large."""
    size = len(covariance)
    if (np.diagonal(covariance) < 0).any():
        # A part that is a difference of two large ones may be rounded below zero.
        variances, axes = np.linalg.eigh(covariance)
        covariance = (axes * np.maximum(variances, 0.0)) @ axes.T
    inside = np.kron(np.eye(size // block), np.ones((block, block))) > 0
    if size > WHOLE_COVARIANCE_UP_TO or not covariance[~inside].any():
        starts = range(0, size, block)
        return CovarianceRecord(blocks=[covariance[at : at + block, at : at + block].tolist() for at in starts])
    return CovarianceRecord(lower=[covariance[row, : row + 1].tolist() for row in range(size)])


def _matrix(record: CovarianceRecord, size: int, block: int) -> FloatArray:
    """Return the matrix (size, size) of a record; raises ValueError where it has another size or is not symmetric."""
    matrix = np.zeros((size, size))
    if record.lower is not None:
        if [len(row) for row in record.lower] != list(range(1, size + 1)):
            raise ValueError(f"a covariance has another size than {size}")
        for number, row in enumerate(record.lower):
            matrix[number, : number + 1] = matrix[: number + 1, number] = row
    else:
        blocks = np.array(record.blocks, dtype=np.float64)
        if blocks.shape != (size // block, block, block):
            raise ValueError(f"a covariance has another size than {size}")
        for number, part in enumerate(blocks):
            at = number * block
            matrix[at : at + block, at : at + block] = part
    if (np.diagonal(matrix) < 0).any():
        raise ValueError("a variance is negative")
    return matrix


def file_summary(calibration: Calibration) -> dict[str, Any]:
    """Return what a run that used a calibration should note about it, as JSON values."""
    return {
        "created": calibration.created.isoformat(),
        "checksum": calibration.checksum or checksum(calibration.model_dump(mode="json")),
        "hilcl": calibration.hilcl,
    }
