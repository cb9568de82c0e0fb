"""Instruments emulated on the wire, all connected to one exact circuit and one clock."""
