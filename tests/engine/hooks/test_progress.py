"""Tests for afmlib.engine.hooks.progress."""

import pytest

from afmlib.engine.hooks.progress import ProgressHook, duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (59.6, "1:00 min"), (200, "3:20 min"), (7500, "2:05 h")],
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("every", "num_images", "text"),
    [
        (100, 0, "checkpoint in 10 s"),
        (100, 150, "checkpoint in 5 s"),
        (100, 200, "checkpoint in 5 s"),
        (None, 50, "checkpoint in 20 s"),
        (100, 250, "saved"),
    ],
)
def test_progress_names_next_checkpoint(every, num_images, text):
    from rich.console import Console

    hook = ProgressHook("run", Console(quiet=True), every)

    assert hook._next_checkpoint(num_images, total=250, rate=10.0) == text
