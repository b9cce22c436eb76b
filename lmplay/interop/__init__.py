"""Doors to other tools: what reads and writes their formats."""
