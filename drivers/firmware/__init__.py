"""Reference firmware for a pot board: sources in C, wiring as data, and how it is built, flashed and checked."""

VERSION = "1.0"
"""Version of the firmware, the last field of its identity."""
