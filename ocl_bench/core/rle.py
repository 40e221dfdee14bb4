"""COCO's compressed run-length code, read with checks.

`pycocotools` trusts its input: it reads a damaged code as some other mask.
"""

from __future__ import annotations


def unpack_runs(counts: bytes) -> list[int]:
    """Lengths of the runs of a compressed COCO run-length code; the first run is one of zeros and may be empty.

    A number is written in groups of 5 bits, lowest first, each as one character from 48 on. Bit 5 says that another
    group follows. The highest bit of the last group is the sign. From the fourth run on, the number is the difference
    to the last run but one.

    Args:
        counts: `counts` of a mask of `pycocotools`, whose runs go down the columns.

    Raises:
        ValueError: for characters that are not part of the code, and for a code that ends within a number.

    Example:
        >>> unpack_runs(b"242")  # the mask [[0, 1, 1, 0], [0, 1, 1, 0]]
        [2, 4, 2]
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
        if group & 16:  # negative, in two's complement of the bits read so far
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("run-length code ends within a number")
    return runs
