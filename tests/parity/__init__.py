"""Proof, number for number, against the reference implementation.

`python -m tests.parity DIR` runs every case of a folder; see `__main__`. The cases whose
files are small are in `CASES`.
"""

from pathlib import Path

CASES = Path(__file__).parent / "cases"
