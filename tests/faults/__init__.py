"""Attacks on the program, and what it lost: `python -m tests.faults`."""
