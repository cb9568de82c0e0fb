"""Reference firmware for a pot board: its sources in C, its wiring as data, and how it is built and flashed."""
