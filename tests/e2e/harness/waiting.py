"""Waiting for a condition with a deadline: the only place of the suite that lets time pass."""

import time

STEP_SECONDS = 0.1


class DeadlinePassed(AssertionError):
    """A condition did not come true in time; the text says what was seen last."""


def wait_until(condition, deadline=30.0, what="the condition"):
    """Calls `condition` until it returns something true, and returns that.

    `deadline`: seconds. The last value seen is part of the failure, so let a condition return what it looked at.
    """
    end = time.monotonic() + deadline
    seen = condition()
    while not seen:
        if time.monotonic() > end:
            raise DeadlinePassed(f"{what} was not met within {deadline:g} s, last seen: {seen!r}")
        time.sleep(STEP_SECONDS)
        seen = condition()
    return seen


def wait_equal(read, expected, deadline=30.0, what="the value"):
    """Calls `read` until it returns `expected`; fails with the difference that pytest prints for the last value."""
    end = time.monotonic() + deadline
    seen = read()
    while seen != expected and time.monotonic() < end:
        time.sleep(STEP_SECONDS)
        seen = read()
    assert seen == expected, f"{what} is {seen!r:.500} after {deadline:g} s, expected {expected!r:.500}"
