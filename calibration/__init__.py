"""Calibration: learning what the board really is."""
