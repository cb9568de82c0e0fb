"""The exact network, device imperfections, and the simulated board."""

from hilcl.sim_backend.board import SimulatedBoard
from hilcl.sim_backend.imperfections import Imperfections, MeterDefects, PotDefects, SourceDefects
from hilcl.sim_backend.stacked import StackedBoards, StackedContrast, StackedStep

__all__ = [
    "Imperfections",
    "MeterDefects",
    "PotDefects",
    "SimulatedBoard",
    "SourceDefects",
    "StackedBoards",
    "StackedContrast",
    "StackedStep",
]
