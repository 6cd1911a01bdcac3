"""Attacks on the program, with a report of losses: `python -m tests.faults`."""
