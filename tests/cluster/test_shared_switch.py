"""A switch of the whole process: on with the first thread, off with the last."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from frieze.cluster.shared_switch import SharedSwitch
from tolerances import AMPLE


class Lamp:
    """What there is one of."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.is_broken = False

    def turn_on(self) -> Callable[[], None]:
        if self.is_broken:
            raise OSError("no current")
        self.told.append("on")
        return lambda: self.told.append("off")


def test_the_first_turns_on_and_the_last_off_and_it_may_begin_again() -> None:
    lamp = Lamp()
    switch = SharedSwitch(lamp.turn_on)
    for times in (1, 2):
        with switch, switch:
            assert lamp.told == ["on", "off"] * (times - 1) + ["on"]
        assert lamp.told == ["on", "off"] * times


def test_it_is_on_for_all_threads_until_the_last_has_left() -> None:
    lamp, leave, inside = Lamp(), threading.Event(), threading.Barrier(4)
    switch = SharedSwitch(lamp.turn_on)

    def stay() -> None:
        with switch:
            inside.wait(AMPLE)
            leave.wait(AMPLE)

    threads = [threading.Thread(target=stay) for _ in range(3)]
    for thread in threads:
        thread.start()
    inside.wait(AMPLE)
    with switch:
        pass
    assert lamp.told == ["on"]
    leave.set()
    for thread in threads:
        thread.join()
    assert lamp.told == ["on", "off"]


def test_who_enters_while_it_is_turned_on_waits_until_it_is() -> None:
    turning, may_turn, seen = threading.Event(), threading.Event(), []
    is_on = False

    def turn_on() -> Callable[[], None]:
        nonlocal is_on
        turning.set()
        assert may_turn.wait(AMPLE)
        is_on = True
        return lambda: None

    switch = SharedSwitch(turn_on)

    def look() -> None:
        with switch:
            seen.append(is_on)

    first, second = threading.Thread(target=look), threading.Thread(target=look)
    first.start()
    assert turning.wait(AMPLE)
    second.start()
    assert not seen
    may_turn.set()
    first.join()
    second.join()
    assert seen == [True, True]


def test_an_error_inside_turns_it_off_and_one_of_turning_leaves_it_off() -> None:
    lamp = Lamp()
    switch = SharedSwitch(lamp.turn_on)
    with pytest.raises(ArithmeticError), switch:
        raise ArithmeticError
    assert lamp.told == ["on", "off"]
    lamp.is_broken = True
    with pytest.raises(OSError, match="no current"), switch:
        lamp.told.append("inside")
    lamp.is_broken = False
    with switch:
        pass
    assert lamp.told == ["on", "off"] * 2
