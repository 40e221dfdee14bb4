"""Work in a thread: in order, one piece at a time, and no error is lost."""

from __future__ import annotations

import threading
import time

import pytest

from ocl_bench.evaluation.behind import Behind


def test_pieces_are_done_in_order_beside_the_caller() -> None:
    done: list[int] = []
    may_go_on = threading.Event()

    def first() -> None:
        assert may_go_on.wait(10)
        done.append(0)

    with Behind() as behind:
        behind.do(first)
        assert done == [], "the caller does not wait for it"
        may_go_on.set()
        for number in (1, 2, 3):
            behind.do(lambda number=number: done.append(number))  # type: ignore[misc]
    assert done == [0, 1, 2, 3]


def test_no_piece_waits_behind_another() -> None:
    """The next call waits for the last piece: what pieces hold stays bounded."""
    done: list[float] = []
    with Behind() as behind:
        for _ in range(3):
            behind.do(lambda: time.sleep(0.05) or done.append(time.monotonic()))
            assert len(done) >= 0
        assert len(done) == 2


@pytest.mark.parametrize("more", [0, 1])
def test_an_error_is_raised_by_the_next_call_or_at_the_end(more: int) -> None:
    def fail() -> None:
        raise ValueError("cannot be scored")

    with pytest.raises(ValueError, match="cannot be scored"), Behind() as behind:
        behind.do(fail)
        for _ in range(more):
            behind.do(lambda: pytest.fail("nothing is done after an error"))


def test_an_error_of_the_caller_goes_before() -> None:
    def fail() -> None:
        raise ValueError("late")

    with pytest.raises(KeyError, match="early"), Behind() as behind:
        behind.do(fail)
        raise KeyError("early")
