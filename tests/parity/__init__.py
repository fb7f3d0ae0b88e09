"""Proof, number for number, against the reference implementation.

`python -m tests.parity DIR` runs every case of a folder; see `__main__`.
"""
