"""The wiring of the build guide's board as a picture: `python docs/images/make_pot_board.py`."""

from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

INK, CHIP, BOARD = "#222222", "#e8eef7", "#dff0e4"


def box(axes: Axes, x: float, y: float, width: float, height: float, title: str, colour: str = CHIP) -> None:
    """Draw a chip with its name."""
    axes.add_patch(Rectangle((x, y), width, height, facecolor=colour, edgecolor=INK, linewidth=1.2))
    axes.text(x + width / 2, y + height - 0.18, title, ha="center", va="top", fontsize=9, weight="bold")


def pin(axes: Axes, x: float, y: float, name: str, *, left: bool) -> None:
    """Draw a pin with its name inside the chip."""
    axes.plot([x - 0.25, x] if left else [x, x + 0.25], [y, y], color=INK, linewidth=1)
    axes.text(x + (0.08 if left else -0.08), y, name, ha="left" if left else "right", va="center", fontsize=7)


def wire(axes: Axes, points: list[tuple[float, float]], label: str = "", colour: str = INK) -> None:
    """Draw a wire through points, with a label at its beginning."""
    axes.plot(*zip(*points, strict=True), color=colour, linewidth=1.1, solid_joinstyle="round")
    if label:
        x, y = points[0]
        axes.text(x + 0.06, y + 0.07, label, fontsize=6.5, color=colour)


def resistor(axes: Axes, x: float, y: float, label: str) -> None:
    """Draw a resistor that begins at x."""
    axes.add_patch(Rectangle((x, y - 0.09), 0.5, 0.18, facecolor="white", edgecolor=INK, linewidth=1))
    axes.text(x + 0.25, y + 0.14, label, ha="center", fontsize=6.5)


def draw(axes: Axes) -> None:
    """Draw the whole board."""
    blue, red, green = "#1f5fa8", "#b03030", "#2c7a3f"
    box(axes, 0.0, 0.0, 2.6, 8.6, "Arduino Mega 2560", BOARD)
    right = {
        7.8: "D51 MOSI", 7.4: "D52 SCK", 7.0: "D50 MISO", 6.4: "D22 … D29", 5.0: "D30, D31", 3.6: "D32 … D35",
        2.2: "A0 … A8", 0.9: "5 V", 0.5: "GND",
    }  # fmt: skip
    for y, name in right.items():
        pin(axes, 2.6, y, name, left=False)
    box(axes, 5.4, 5.9, 2.6, 2.4, "8 × MCP4251-104")
    for y, name in ((7.8, "SDI"), (7.4, "SCK"), (7.0, "SDO"), (6.4, "CS")):
        pin(axes, 5.4, y, name, left=True)
        wire(axes, [(2.85, y), (5.15, y)], colour=blue)
    axes.text(3.0, 6.48, "D22: pots 0, 1;  D23: pots 2, 3;  …", fontsize=6.5, color=blue)
    axes.text(3.0, 6.12, "10 kΩ from each CS to 5 V", fontsize=6.5, color=blue)
    for y, name in ((7.6, "P0W"), (7.2, "P0B"), (6.6, "P1W"), (6.2, "P1B")):
        pin(axes, 8.0, y, name, left=False)
    for high, low, pot in ((7.6, 7.2, "0"), (6.6, 6.2, "1")):
        wire(axes, [(8.25, high), (8.6, high)])
        resistor(axes, 8.6, high, "2.2 kΩ")
        wire(axes, [(9.1, high), (9.8, high)], "")
        wire(axes, [(8.25, low), (9.8, low)])
        axes.text(9.9, (high + low) / 2, f"edge of pot {pot}:\nnode to node", fontsize=7, va="center")
    axes.text(5.55, 6.02, "VDD, SHDN: 5 V;  VSS: GND", fontsize=6)
    box(axes, 5.4, 4.3, 2.6, 1.2, "2 × MCP4922")
    pin(axes, 5.4, 5.0, "CS", left=True)
    wire(axes, [(2.85, 5.0), (5.15, 5.0)], colour=blue)
    axes.text(3.0, 5.08, "D30: sources 0, 1;  D31: 2, 3", fontsize=6.5, color=blue)
    axes.text(5.44, 4.38, "SDI, SCK as above;  LDAC: GND;  VREF: 5 V", fontsize=6)
    pin(axes, 8.0, 4.9, "VOUTA, VOUTB", left=False)
    box(axes, 9.2, 3.0, 2.2, 2.5, "74HC4066")
    pin(axes, 9.2, 4.9, "1Y … 4Y", left=True)
    wire(axes, [(8.25, 4.9), (8.95, 4.9)], colour=red)
    pin(axes, 9.2, 3.6, "1E … 4E", left=True)
    wire(axes, [(2.85, 3.6), (8.95, 3.6)], colour=green)
    axes.text(
        3.0, 3.68, "D32: switch of source 0, … D35: of source 3;  10 kΩ from each to GND", fontsize=6.5, color=green
    )
    pin(axes, 11.4, 4.9, "1Z … 4Z", left=False)
    wire(axes, [(11.65, 4.9), (12.2, 4.9)], colour=red)
    axes.text(12.25, 4.9, "nodes 0, 8 (inputs)\nand 2, 6 (outputs)", fontsize=7, va="center")
    wire(axes, [(2.85, 2.2), (11.2, 2.2)])
    axes.text(3.0, 2.28, "A0 to node 0, A1 to node 1, … A8 to node 8; 1 nF from each to GND", fontsize=6.5)
    axes.text(11.3, 2.2, "all nine nodes", fontsize=7, va="center")
    wire(axes, [(2.85, 0.9), (11.2, 0.9)], colour=red)
    wire(axes, [(2.85, 0.5), (11.2, 0.5)])
    axes.text(3.0, 0.98, "to every chip, with 100 nF between the two at each", fontsize=6.5, color=red)
    axes.set_xlim(-0.2, 14.0)
    axes.set_ylim(-0.2, 8.8)
    axes.set_aspect("equal")
    axes.axis("off")


if __name__ == "__main__":
    figure, axes = plt.subplots(figsize=(12.5, 8))
    draw(axes)
    figure.savefig(Path(__file__).with_name("pot-board.png"), dpi=110, bbox_inches="tight")
