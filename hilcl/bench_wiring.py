"""The wiring of an experiment file, checked against its network before any instrument is touched."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from hilcl.bench_section import BenchSection, PotBoardInstrument, PythonInstrument, ScannerInstrument, SmuInstrument
from hilcl.errors import ExperimentError
from hilcl.network import Network
from hilcl.pot_bank_section import BankInstrument

SMU_CHANNELS = {
    "keithley2400": ("1",),
    "keithley2450": ("1",),
    "keithley2600b": ("a", "b"),
    "keysight-b2900": ("1", "2"),
}
"""Channel names of each SMU family, in order; a model may lack the second."""

Place = tuple[str, str]
"""An instrument and one of its channels."""


@dataclass(frozen=True)
class BenchWiring:
    """What is connected to what, by instrument: edges of pots in order, nodes by channel name.

    −1 is an unused pot. ``switches`` give, by pot board and switch, the node whose source the switch connects.
    """

    pots: Mapping[str, tuple[int, ...]]
    sources: Mapping[str, Mapping[str, int]]
    meters: Mapping[str, Mapping[str, int]]
    switches: Mapping[str, Mapping[str, int]]
    grounded: tuple[int, ...]

    def source_at(self, node: int) -> Place | None:
        """Return the instrument and channel that drive a node."""
        return _place(self.sources, node)

    def meter_at(self, node: int) -> Place | None:
        """Return the instrument and channel that read a node, a source's own reading not counted."""
        return _place(self.meters, node)

    def pot_of(self, edge: int) -> tuple[str, int]:
        """Return the instrument and the number of the pot on an edge."""
        return next((name, edges.index(edge)) for name, edges in self.pots.items() if edge in edges)


def bench_wiring(bench: BenchSection, network: Network) -> BenchWiring:
    """Return the wiring a [bench] section describes.

    Raises ExperimentError naming the instrument, channel, node or edge that is wired twice, wrongly or not at all.
    """
    given = bench.wiring
    for key, table in (
        ("pots", given.pots),
        ("sources", given.sources),
        ("meters", given.meters),
        ("switches", given.switches),
    ):
        for name in table:
            if name not in bench.instruments:
                known = ", ".join(bench.instruments)
                raise ExperimentError(f"bench.wiring.{key} names {name!r}, which is none of the instruments: {known}")
    unused = [
        name
        for name in bench.instruments
        if not any(name in table for table in (given.pots, given.sources, given.meters, given.switches))
    ]
    if unused:
        raise ExperimentError(
            f"{unused[0]} is listed in bench.instruments but wired to nothing: wire it in bench.wiring or leave it out"
        )
    wiring = BenchWiring(
        pots=_pots(bench, network),
        sources={name: _named(bench, name, each, "sources") for name, each in given.sources.items()},
        meters={name: _named(bench, name, each, "meters") for name, each in given.meters.items()},
        switches={name: _named(bench, name, each, "switches") for name, each in given.switches.items()},
        grounded=tuple(given.grounded),
    )
    _check_nodes(bench, wiring, network)
    _check_sources(wiring, network)
    _check_meters(bench, wiring, network)
    _check_switches(bench, wiring, network)
    return wiring


def _place(table: Mapping[str, Mapping[str, int]], node: int) -> Place | None:
    return next(((name, channel) for name, nodes in table.items() for channel, at in nodes.items() if at == node), None)


def _pots(bench: BenchSection, network: Network) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for name, edges in bench.wiring.pots.items():
        if isinstance(bench.instruments[name], SmuInstrument | ScannerInstrument):
            raise ExperimentError(f"bench.wiring.pots names {name}, which has no pots: name a pot board")
        if edges == "all" and len(bench.wiring.pots) > 1:
            raise ExperimentError(f'bench.wiring.pots.{name} is "all", but there are others: list the edges of each')
        found[name] = tuple(range(network.n_edges)) if edges == "all" else tuple(edges)
    wired = [edge for edges in found.values() for edge in edges if edge >= 0]
    beyond = [edge for edge in wired if edge >= network.n_edges]
    if beyond:
        raise ExperimentError(f"bench.wiring.pots wires edge {beyond[0]}, but edges end at {network.n_edges - 1}")
    if twice := _repeated(wired):
        raise ExperimentError(f"bench.wiring.pots wires two pots to edge {twice[0]}: each edge takes one")
    missing = sorted(set(range(network.n_edges)) - set(wired))
    if missing:
        more = f" ({len(missing)} edges have none)" if len(missing) > 1 else ""
        raise ExperimentError(f"edge {missing[0]} has no pot in bench.wiring.pots{more}: wire one to it")
    return found


def _named(bench: BenchSection, name: str, wires: list[int] | dict[str, int], key: str) -> dict[str, int]:
    """Return nodes by channel name, unused channels left out."""
    instrument = bench.instruments[name]
    where = f"bench.wiring.{key}.{name}"
    if isinstance(instrument, ScannerInstrument) and key != "meters":
        raise ExperimentError(f"{where}: a {instrument.driver} is a meter and drives nothing")
    if key == "switches" and not isinstance(instrument, PotBoardInstrument):
        raise ExperimentError(f"{where}: {name} has no clamp switches: name a pot board")
    if isinstance(instrument, BankInstrument):
        raise ExperimentError(f"{where}: {name} has pots only: name an instrument with {key}")
    known = SMU_CHANNELS[instrument.driver] if isinstance(instrument, SmuInstrument) else None
    if isinstance(wires, dict):
        numbered = isinstance(instrument, ScannerInstrument | PotBoardInstrument)
        wrong = [each for each in wires if (each not in known if known else numbered and not each.isdecimal())]
        if wrong:
            has = f"channels {' and '.join(known)}" if known else "channels with numbers"
            raise ExperimentError(f"{where} wires channel {wrong[0]!r}, but a {instrument.driver} has {has}")
        return dict(wires)
    if isinstance(instrument, ScannerInstrument):
        raise ExperimentError(f'{where} must name the channels, such as {{ "101:104" = [4, 5, 6, 7] }}')
    names = known or tuple(str(index) for index in range(len(wires)))
    if len(wires) > len(names):
        raise ExperimentError(
            f"{where} lists {len(wires)} nodes, but a {instrument.driver} has {len(names)} channels at most"
        )
    return {channel: node for channel, node in zip(names, wires, strict=False) if node >= 0}


def _check_nodes(bench: BenchSection, wiring: BenchWiring, network: Network) -> None:
    for key, table in (("sources", wiring.sources), ("meters", wiring.meters), ("switches", wiring.switches)):
        for name, nodes in table.items():
            for channel, node in nodes.items():
                if node >= network.n_nodes:
                    raise ExperimentError(
                        f"bench.wiring.{key}.{name} wires channel {channel} to node {node}, but nodes end at "
                        f"{network.n_nodes - 1}"
                    )
        if twice := _repeated(node for nodes in table.values() for node in nodes.values()):
            places = [
                f"{name} channel {channel}"
                for name, nodes in table.items()
                for channel, node in nodes.items()
                if node == twice[0]
            ]
            raise ExperimentError(
                f"{network.name(twice[0])} has two {key}, {' and '.join(places)}: each node takes one of them"
            )
    for name in sorted(set(wiring.sources) & set(wiring.meters)):
        both = sorted(set(wiring.sources[name]) & set(wiring.meters[name]))
        # The sources and the ADC of a pot board are numbered apart.
        if both and not isinstance(bench.instruments[name], PotBoardInstrument):
            raise ExperimentError(
                f"{name} channel {both[0]} is wired twice, as a source and as a meter: each channel takes one wire"
            )


def _check_sources(wiring: BenchWiring, network: Network) -> None:
    terminals = set(network.terminals.tolist())
    driven = {node for nodes in wiring.sources.values() for node in nodes.values()}
    for node in (*sorted(driven), *wiring.grounded):
        if node not in terminals:
            raise ExperimentError(
                f"bench.wiring drives node {node}, which is neither input nor output of board.network: correct one"
            )
    for node in wiring.grounded:
        if node in driven:
            raise ExperimentError(f"{network.name(node)} is grounded and has a source: leave one out of bench.wiring")
    if twice := _repeated(wiring.grounded):
        raise ExperimentError(f"bench.wiring.grounded lists node {twice[0]} twice")
    for node in network.terminals.tolist():
        if node not in driven and node not in wiring.grounded:
            raise ExperimentError(f"{network.name(node)} has no source in bench.wiring: wire a channel to it")
    for node in network.outputs.tolist():
        if node in wiring.grounded:
            raise ExperimentError(f"{network.name(node)} is grounded, but an output has to float: give it a source")


def _check_meters(bench: BenchSection, wiring: BenchWiring, network: Network) -> None:
    """Raise where the rule would lack a node's potential: without it the voltages of its edges are unknown."""
    for node in range(network.n_nodes):
        if node in wiring.grounded or wiring.meter_at(node) is not None:
            continue
        place = wiring.source_at(node)
        touching = np.flatnonzero((network.edges == node).any(axis=1)).tolist()
        lacks = f"so the rule lacks the voltages of edges {', '.join(map(str, touching))}"
        if place is None:
            raise ExperimentError(f"{network.name(node)} has no meter in bench.wiring, {lacks}: wire a channel to it")
        instrument = bench.instruments[place[0]]
        if isinstance(instrument, PotBoardInstrument):
            raise ExperimentError(
                f"{network.name(node)} has no meter in bench.wiring, and the sources of {place[0]} do not measure, "
                f"{lacks}: wire a meter channel to it"
            )
        if (
            isinstance(instrument, SmuInstrument)
            and instrument.free_mode != "zero_amp"
            and node in network.outputs.tolist()
        ):
            raise ExperimentError(
                f"{network.name(node)} has no meter in bench.wiring, and {place[0]} is cut off from it while it floats "
                f"by {instrument.free_mode}, {lacks}: wire a meter channel to it, or float by zero_amp"
            )


def _check_switches(bench: BenchSection, wiring: BenchWiring, network: Network) -> None:
    switched = {node: name for name, nodes in wiring.switches.items() for node in nodes.values()}
    for node, name in switched.items():
        place = wiring.source_at(node)
        instrument = None if place is None else bench.instruments[place[0]]
        if not (isinstance(instrument, SmuInstrument) and instrument.free_mode == "relay"):
            raise ExperimentError(
                f"bench.wiring.switches.{name} has a switch at {network.name(node)}, whose source does not float by "
                'free_mode = "relay": set that, or leave the switch out'
            )
    outputs = network.outputs.tolist()
    for name, nodes in wiring.sources.items():
        instrument = bench.instruments[name]
        if isinstance(instrument, SmuInstrument) and instrument.free_mode == "relay":
            for node in nodes.values():
                if node in outputs and node not in switched:
                    raise ExperimentError(
                        f"{network.name(node)} floats by a relay, but bench.wiring.switches has none for it: name it"
                    )
    for name in bench.instruments:
        if isinstance(bench.instruments[name], PythonInstrument) and name in wiring.switches:
            raise ExperimentError(f"bench.wiring.switches.{name}: only a pot board's switches can be named here")


def _repeated(numbers: Iterable[int]) -> list[int]:
    listed = list(numbers)
    return sorted({number for number in listed if listed.count(number) > 1})
