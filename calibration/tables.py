"""Calibrations as plain text for a terminal."""

from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np

from hilcl.calibration.apply import relative_uncertainty
from hilcl.calibration.compare import Comparison
from hilcl.calibration.file import Calibration
from hilcl.network import Network

MOST_ROWS = 12
"""Rows of a list that is cut off, with a note, unless all were asked for."""


def text_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Return the lines of a table: headings, a rule, the rows; the first ``left`` columns flush left, others right."""
    widths = [max(len(row[column]) for row in [headings, *rows]) for column in range(len(headings))]

    def line(cells: Sequence[str]) -> str:
        placed = [
            cell.ljust(width) if number < left else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(placed).rstrip()

    return [line(headings), "  ".join("─" * width for width in widths).rstrip(), *(line(row) for row in rows)]


def calibration_lines(calibration: Calibration, *, every_edge: bool = False, now: datetime | None = None) -> list[str]:
    """Return the summary of a calibration: what, when, how well, what is not known, and a table of the edges."""
    network, board = calibration.network, calibration.board
    effort, fit = calibration.effort, calibration.fit
    moment = now or datetime.now(UTC)
    lines = [
        f"Calibration of {network!r}, made on {calibration.created:%Y-%m-%d %H:%M} UTC by hilcl {calibration.hilcl}."
    ]
    if calibration.comment:
        lines.append(calibration.comment)
    if calibration.valid_until is None:
        lines.append("It does not expire.")
    else:
        verb = "It expired on" if moment > calibration.valid_until else "It is valid until"
        lines.append(f"{verb} {calibration.valid_until:%Y-%m-%d %H:%M} UTC.")
    if calibration.temperature_celsius is not None:
        lines.append(f"Temperature {calibration.temperature_celsius:.1f} °C.")
    lines += [f"  {role}: {identity}" for role, identity in sorted(board.identities.items())]
    lines.append(
        f"{effort.patterns} patterns of codes, {effort.drives} drives, {fit.readings} readings in "
        f"{duration(effort.seconds)}" + (f", {fit.outliers} of them outliers." if fit.outliers else ".")
    )
    lines.append(
        f"Fit: chi-square {fit.chi_square:.4g} for {fit.degrees_of_freedom} degrees of freedom "
        f"({fit.chi_square / max(fit.degrees_of_freedom, 1):.3f} each), {fit.iterations} iterations"
        + ("." if fit.converged else ", NOT converged.")
    )
    lines += [
        f"  {kind.kind}: rms {quantity(kind.rms, kind.unit)} ({kind.normalised_rms:.2f} σ), "
        f"worst {quantity(kind.worst, kind.unit)} at {kind.worst_at} ({kind.normalised_worst:.1f} σ)"
        for kind in fit.kinds
    ]
    lines += accuracy_lines(calibration)
    lines += verification_lines(calibration)
    lines += [f"FAULT: {finding.sentence}" for finding in fit.findings]
    lines += [f"Not determined: {each.name}, {each.reason}: {each.remedy}" for each in fit.unidentifiable]
    lines += ["", *edge_table(calibration, every_edge=every_edge), "", *meter_table(calibration)]
    return lines


def accuracy_lines(calibration: Calibration) -> list[str]:
    """Return how well the conductances are known, over all codes that may be used."""
    relative = relative_uncertainty(calibration)
    rms = float(np.sqrt(np.nanmean(relative**2)))
    edge, code = (int(place) for place in np.unravel_index(np.nanargmax(relative), relative.shape))
    worst = percent(float(relative[edge, code]))
    where = f"at worst {worst} at code {code} of {edge_name(calibration.network, edge)}"
    return [f"Standard uncertainty of a conductance: {percent(rms)} rms over all codes, {where}."]


def verification_lines(calibration: Calibration) -> list[str]:
    """Return how fresh codes and drives compared with the calibration."""
    seen = calibration.verification
    if seen is None:
        return ["Not verified on fresh codes."]
    parts = []
    if seen.volts_rms is not None and seen.volts_worst is not None:
        parts.append(f"{quantity(seen.volts_rms, 'V')} rms, {quantity(seen.volts_worst, 'V')} worst")
    if seen.amperes_rms is not None and seen.amperes_worst is not None:
        parts.append(f"{quantity(seen.amperes_rms, 'A')} rms, {quantity(seen.amperes_worst, 'A')} worst")
    if seen.within_95 is not None:
        parts.append(f"{percent(seen.within_95)} within their 95 % intervals")
    verdict = "passed" if seen.passed else "FAILED"
    return [f"Verification on {seen.patterns} fresh patterns {verdict}: " + "; ".join(parts) + "."]


def edge_table(calibration: Calibration, *, every_edge: bool = False) -> list[str]:
    """Return the edges with their fitted law, the least certain first unless all are asked for."""
    pots, relative = calibration.pot_parameters, relative_uncertainty(calibration)
    worst = np.nanmax(relative, axis=1)
    order = range(len(worst)) if every_edge else np.argsort(-worst, kind="stable")[:MOST_ROWS].tolist()
    u = pots.standard_uncertainties
    rows = [
        [
            str(edge),
            " – ".join(str(node) for node in calibration.board.network.edges[edge]),
            with_uncertainty(pots.values[edge, 0], u[edge, 0]),
            with_uncertainty(pots.values[edge, 1], u[edge, 1]),
            *(f"{codes:.2f}" for codes in pots.inl_codes[edge]),
            siemens(float(np.nanmin(calibration.table[edge]))),
            siemens(float(np.nanmax(calibration.table[edge]))),
            percent(float(np.sqrt(np.nanmean(relative[edge] ** 2)))),
            percent(float(worst[edge])),
        ]
        for edge in order
    ]
    bows = [f"{name} (codes)" for name in pots.names[2:]]
    headings = ["edge", "nodes", "R0 (Ω)", "RAB (Ω)", *bows, "smallest g", "largest g", "u rms", "u worst"]
    lines = text_table(headings, rows, left=2)
    if len(rows) < len(worst):
        lines.append(f"… and {len(worst) - len(rows)} better known edges")
    return lines


def meter_table(calibration: Calibration) -> list[str]:
    """Return gain, offset and noise of every meter."""
    meters, network = calibration.meter_parameters, calibration.network
    u, count = np.sqrt(np.diagonal(meters.covariance)), len(meters.gain)
    rows = [
        [
            network.name(node),
            f"{1e2 * (meters.gain[node] - 1):+.4f} ± {1e2 * u[node]:.4f} %",
            f"{1e3 * meters.offset[node]:+.4f} ± {1e3 * u[count + node]:.4f} mV",
            quantity(float(meters.noise[node]), "V"),
        ]
        for node in np.flatnonzero(np.isfinite(meters.gain)).tolist()
    ]
    unread = [network.name(node) for node in np.flatnonzero(~np.isfinite(meters.gain)).tolist()]
    lines = text_table(["meter at", "gain error", "offset", "noise"], rows) if rows else []
    return lines + ([f"Without a meter: {', '.join(unread)}."] if unread else [])


def comparison_lines(comparison: Comparison, *, every_edge: bool = False) -> list[str]:
    """Return how a board moved between two calibrations."""
    earlier, later, network = comparison.earlier, comparison.later, comparison.earlier.network
    dates = f"{earlier.created:%Y-%m-%d %H:%M} to {later.created:%Y-%m-%d %H:%M} UTC"
    lines = [f"{network!r}: {dates}, {duration(comparison.days * 86400)}."]
    lines += [f"Exchanged: {device}." for device in comparison.devices]
    degrees = [each.temperature_celsius for each in (earlier, later)]
    if degrees[0] is not None and degrees[1] is not None:
        lines.append(f"Temperature {degrees[0]:.1f} °C, then {degrees[1]:.1f} °C.")
    lines.append(
        f"All tracks together: {100 * comparison.common:+.3g} ± {100 * comparison.common_u:.2g} % in resistance."
    )
    moved = comparison.moved
    if moved:
        lines.append(f"{len(moved)} of {network.n_edges} edges moved beyond their uncertainty.")
    else:
        lines.append("No edge moved beyond its uncertainty.")
    order = comparison.edges if every_edge else sorted(comparison.edges, key=lambda each: -each.sigmas)[:MOST_ROWS]
    rows = [
        [
            str(each.edge),
            " – ".join(str(node) for node in earlier.board.network.edges[each.edge]),
            f"{100 * each.relative:+.3g} %",
            str(each.code),
            percent(each.relative_rms),
            f"{each.sigmas:.1f} σ",
            "moved" if each.moved else "",
        ]
        for each in order
    ]
    lines += ["", *text_table(["edge", "nodes", "largest change of g", "at code", "rms", "in units", ""], rows, left=2)]
    if len(rows) < len(comparison.edges):
        lines.append(f"… and {len(comparison.edges) - len(rows)} edges that moved less")
    channels = [each for each in comparison.meters if each.moved]
    lines += [
        f"The meter at {network.name(each.node)} moved: gain {100 * each.gain:+.4f} %, "
        f"offset {1e3 * each.offset:+.4f} mV ({each.sigmas:.1f} σ)."
        for each in channels
    ]
    return lines


def edge_name(network: Network, edge: int) -> str:
    """Return how messages call an edge: its number and its ends."""
    first, second = (network.name(int(node)) for node in network.edges[edge])
    return f"edge {edge} between {first} and {second}"


def percent(value: float) -> str:
    """Return a share in per cent with three digits."""
    return f"{100 * value:.3g} %"


def siemens(value: float) -> str:
    """Return a conductance in micro-, milli- or nanosiemens."""
    return quantity(value, "S")


def quantity(value: float, unit: str) -> str:
    """Return a value with the prefix that suits it, four digits: 12.35 mV."""
    if not np.isfinite(value):
        return "–"
    for factor, prefix in ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p")):
        if abs(value) >= 0.9995 * factor:
            return f"{value / factor:.4g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def with_uncertainty(value: float, u: float) -> str:
    """Return a value with its standard uncertainty, both to the second digit of that: 1204.31 ± 0.42."""
    if not (np.isfinite(u) and u > 0):
        return f"{value:.6g}"
    digits = min(12, max(0, 1 - int(np.floor(np.log10(u)))))
    return f"{value:.{digits}f} ± {u:.{digits}f}"


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    for size, name in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {name}"
    return f"{seconds:.3g} s"
