"""The least time one training step of a bench can take, by its instruments, links and settling: docs/bench.md."""

from hilcl.bench_section import AnyInstrument, PotBoardInstrument, ScannerInstrument, SmuInstrument
from hilcl.drivers import potboard_protocol as wire
from hilcl.drivers.potboard_framing import OVERHEAD
from hilcl.errors import ExperimentError
from hilcl.preparation import Preparation
from hilcl.settling import settling_of
from hilcl.sim_backend.emulation import daq6510, dmm_34970a, smu_2400
from hilcl.sim_backend.emulation.potboard import FRAME_LIMIT, AdcModel
from hilcl.sim_backend.emulation.timed_link import BITS_PER_BYTE

RELAY_SECONDS = {"daq6510": daq6510.RELAY_SECONDS, "34970a": dmm_34970a.RELAY_SECONDS}


def critical_path(preparation: Preparation) -> float:
    """Return the seconds of one full-batch step where everything that can run in parallel does.

    The pots are written once. Each sample is driven twice, free and nudged; each time the sources are told (one round
    trip), the board settles, and the slowest meter measures and answers (one round trip). In the free phase an SMU
    behind an open relay measures after that, to see that the relay was open.

    Raises ExperimentError without a [bench] section.
    """
    experiment, wiring = preparation.experiment, preparation.wiring
    if experiment.bench is None or wiring is None:
        raise ExperimentError(f"{experiment.source} has no [bench] section, so its steps take no time")
    bench, simulation = experiment.bench, experiment.simulation
    cycle, trip = 1 / simulation.line_frequency, simulation.round_trip
    reads = {
        name: _reading(instrument, len(wiring.meters.get(name, {})), bench.averages, cycle, trip)
        for name, instrument in bench.instruments.items()
        if name in wiring.sources or name in wiring.meters
    }
    networked = any(isinstance(bench.instruments[name], SmuInstrument) for name in wiring.sources)
    writes = [
        wire_bytes(len(edges)) * BITS_PER_BYTE / instrument.line_baud
        for name, edges in wiring.pots.items()
        if isinstance(instrument := bench.instruments[name], PotBoardInstrument)
    ]
    watching = [
        reads[name]
        for name in wiring.sources
        if isinstance(smu := bench.instruments[name], SmuInstrument) and smu.free_mode == "relay"
    ]
    drive = (
        (trip if networked else 0.0)
        + settling_of(bench.settle, preparation.network)(preparation.initial)
        + max(reads.values(), default=0.0)
    )
    samples = preparation.data.train.n_samples
    return max(writes, default=0.0) + samples * (2 * drive + max(watching, default=0.0))


def wire_bytes(pots: int) -> int:
    """Return the bytes on a pot board's line that write so many pots, question and answer together, codes below 256."""
    room = (FRAME_LIMIT - 7) // 2
    written = wire.reply_frame(wire.Opcode.WRITE, 1, wire.Written(pots, wire.Verdict.VERIFIED, 1))
    write = wire.Write(0, (1,) * pots)
    if len(write.encode()) + OVERHEAD <= FRAME_LIMIT:
        return len(wire.request_frame(write, 1).encode()) + len(written.encode())
    total = len(wire.request_frame(wire.Commit(1), 1).encode()) + len(written.encode())
    for first in range(0, pots, room):
        stage = wire.Stage(first, (1,) * min(room, pots - first))
        staged = wire.reply_frame(wire.Opcode.STAGE, 1, wire.Staged(pots))
        total += len(wire.request_frame(stage, 1).encode()) + len(staged.encode())
    return total


def _reading(instrument: AnyInstrument, meters: int, averages: int, cycle: float, trip: float) -> float:
    """Return the seconds from asking an instrument for its readings to its answer."""
    match instrument:
        case SmuInstrument():
            # All its channels at once.
            own = smu_2400.READING_OVERHEAD + smu_2400.AUTO_DELAY if instrument.driver == "keithley2400" else 0.0
            return trip + (averages if meters else 1) * (instrument.nplc * cycle + own)
        case ScannerInstrument():
            # One channel after the other: they share one converter.
            per_channel = RELAY_SECONDS[instrument.driver] + (instrument.delay or 0.0) + instrument.nplc * cycle
            return trip + averages * meters * per_channel
        case PotBoardInstrument() if meters:
            scan = wire.request_frame(wire.Scan(0, meters, averages, 4, scatter=averages > 1), 1)
            answer = wire.Scanned((1,) * meters, (1,) * meters if averages > 1 else None, 4)
            size = len(scan.encode()) + len(wire.reply_frame(wire.Opcode.SCAN, 1, answer).encode())
            return size * BITS_PER_BYTE / instrument.line_baud + averages * meters * AdcModel(meters).conversion
        case _:
            return 0.0
