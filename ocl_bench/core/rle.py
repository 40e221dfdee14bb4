"""COCO's compressed run-length code, read with checks.

`pycocotools` trusts its input, so that a damaged code would be read as some other mask.
"""

from __future__ import annotations


def unpack_runs(counts: bytes) -> list[int]:
    """Lengths of the runs of a compressed COCO run-length code.

    A number is written in groups of 5 bits, lowest first, each as one character from 48 on; bit 5 says that more
    follow, the highest bit of the last group is the sign. From the fourth run on it is the difference to the last run
    but one. Raises ValueError for other characters and for a code that ends within a number.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        group = character - 48
        if not 0 <= group < 64:
            raise ValueError(f"run-length code with the character {chr(character)!r}")
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("run-length code ends within a number")
    return runs
