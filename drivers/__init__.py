"""Drivers: what talks to hardware."""
