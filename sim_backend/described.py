"""The imperfections that the [simulation] section of an experiment file describes."""

import numpy as np

from hilcl.experiment import SimulationSection
from hilcl.sim_backend.imperfections import Imperfections, MeterDefects, PotDefects, SourceDefects


def imperfections_of(section: SimulationSection) -> Imperfections:
    """Return the imperfections a [simulation] section describes."""
    pots, meters, sources = section.pots, section.meters, section.sources
    return Imperfections(
        pots=PotDefects(
            tolerance=pots.tolerance,
            wiper_spread=pots.wiper_spread,
            series_spread=pots.series_spread,
            inl=pots.inl_codes,
            temperature_coefficient=pots.temperature_coefficient,
            temperature_rise=pots.temperature_rise,
            stuck=dict(pots.stuck),
            opened=tuple(pots.opened),
        ),
        meters=MeterDefects(
            gain=meters.gain,
            offset=meters.offset,
            noise=meters.noise,
            resolution=meters.volts_per_count,
            input_resistance=np.inf if meters.input_resistance is None else meters.input_resistance,
        ),
        sources=SourceDefects(
            series=sources.series,
            offset=sources.offset,
            compliance=np.inf if sources.compliance is None else sources.compliance,
        ),
    )
