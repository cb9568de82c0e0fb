"""What the chips of a bench stand: the file's pots against the catalogue's figures and ratings."""

import numpy as np

from hilcl.bench_board import BenchLimits
from hilcl.drivers.chips import Chip
from hilcl.drivers.chips import chip as catalogued
from hilcl.errors import ExperimentError, InputError
from hilcl.preparation import Preparation


def check_ratings(preparation: Preparation) -> None:
    """Raise ExperimentError where the pots are not what the catalogue says, or could be driven beyond its ratings."""
    pots = preparation.experiment.board.pots
    if pots is None or pots.chip is None:
        return
    try:
        chip = catalogued(pots.chip)
        option = chip.option(pots.end_to_end)
    except InputError as error:
        raise ExperimentError(f"{preparation.experiment.source}, board.pots.chip: {error}") from error
    where = f"{preparation.experiment.source}, [board.pots]"
    if pots.positions != chip.positions:
        raise ExperimentError(f"{where}: positions is {pots.positions}, but a {chip.name} has {chip.positions} codes")
    denominator = pots.denominator or pots.positions
    if denominator != chip.denominator:
        raise ExperimentError(
            f"{where}: the denominator is {denominator}, but that of a {chip.name} is {chip.denominator}: set it"
        )
    span = _span(preparation)
    if span > chip.span:
        raise ExperimentError(f"{where}: {span:g} V across a {chip.name} is more than the {chip.span:g} V it stands")
    reach, widest = _reach(preparation), _widest(chip)
    if reach > widest:
        raise ExperimentError(
            f"{where}: the volts of all samples and 0 V, where outputs are off, lie {reach:g} V apart, but the pins of "
            f"a {chip.name} stand {widest:g} V: scale the data down"
        )
    amperes = span * float(preparation.device_range.g_max.max())
    if amperes > option.wiper_current * (1 + 1e-9):
        raise ExperimentError(
            f"{where}: a wiper of the {chip.name} could carry {amperes * 1e3:.3g} mA at {span:g} V, above its rating "
            f"of {option.wiper_current * 1e3:.3g} mA: {_lowest_code(preparation, span, option.wiper_current)}"
        )
    if chip.power_max is not None and amperes * span > chip.power_max:
        raise ExperimentError(
            f"{where}: a {chip.name} could turn {amperes * span * 1e3:.3g} mW into heat at {span:g} V, above its "
            f"rating of {chip.power_max * 1e3:.3g} mW: raise lowest_code, add a series resistor or lower the volts"
        )
    if not chip.free_edge:
        raise ExperimentError(f"{where}: a {chip.name} cannot be an edge of a network: {chip.notes}")


def bench_limits(preparation: Preparation) -> BenchLimits:
    """Return what may be driven and carried: the file's [limits], and the rating of a chip it names."""
    limits, pots = preparation.experiment.limits, preparation.experiment.board.pots
    amperes = np.inf if limits.amperes_per_pot is None else limits.amperes_per_pot
    if pots is not None and pots.chip is not None:
        amperes = min(amperes, catalogued(pots.chip).option(pots.end_to_end).wiper_current)
    return BenchLimits(
        volts=np.inf if limits.volts is None else limits.volts,
        amperes_per_pot=amperes,
        watts_per_pot=np.inf if limits.watts_per_pot is None else limits.watts_per_pot,
    )


def _span(preparation: Preparation) -> float:
    """Return the greatest span of the volts in one sample, V."""
    train, test = preparation.data.train, preparation.data.test
    tasks = [train] if test is None else [train, test]
    return max(float(np.ptp(np.hstack([task.inputs, task.targets]), axis=1).max()) for task in tasks)


def _reach(preparation: Preparation) -> float:
    """Return the span of all volts of all samples and 0 V, V: the supplies of the chips do not follow the samples."""
    train, test = preparation.data.train, preparation.data.test
    tasks = [train] if test is None else [train, test]
    volts = np.concatenate([values.ravel() for task in tasks for values in (task.inputs, task.targets)])
    return float(max(volts.max(), 0.0) - min(volts.min(), 0.0))


def _widest(chip: Chip) -> float:
    """Return the greatest distance between two pins of the tracks of a chip, V, whatever its supplies."""
    single = 0.0 if chip.supply.single is None else chip.supply.single[1]
    dual = 0.0 if chip.supply.dual is None else 2 * chip.supply.dual[1]
    return max(chip.span, single, dual)


def _lowest_code(preparation: Preparation, span: float, amperes: float) -> str:
    table = None if preparation.pots is None else preparation.pots.conductances()
    usable = [] if table is None else np.flatnonzero(table * span <= amperes).tolist()
    if not usable:
        return "lower the volts or add a series resistor"
    return f"set lowest_code to {usable[0]}, add a series resistor or lower the volts"
