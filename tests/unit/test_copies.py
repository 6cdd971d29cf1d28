"""Copies on the mount (copy_file_range), which the server makes: large ones go in steps, so that nobody has to wait for their end."""
import os
import signal
import subprocess
import time

import pytest

from server import wait_until

MIB = 1 << 20
STEP = 128 * MIB
SIZE = 3 * STEP + 5


@pytest.fixture
def large(serve):
    """A file with data at the ends of the steps, and nothing between."""
    target = serve().target
    with open(target / 'large', 'wb') as file:
        for offset in (0, STEP - 3, 2 * STEP - 3, SIZE - 3):
            os.pwrite(file.fileno(), b'data', offset)
        os.ftruncate(file.fileno(), SIZE)
    return target / 'large'


def test_large_copy_stops_after_a_step(large):
    with open(large, 'rb') as source, open(large.with_name('copy'), 'w+b') as target:
        assert os.copy_file_range(source.fileno(), target.fileno(), SIZE) == STEP
        assert os.fstat(target.fileno()).st_size == STEP
        assert os.copy_file_range(source.fileno(), target.fileno(), SIZE, 3 * STEP, 0) == 5
        assert os.copy_file_range(source.fileno(), target.fileno(), SIZE, SIZE, 0) == 0


def test_large_copy_is_complete_when_it_is_gone_on_with(large):
    copy = large.with_name('copy')
    with open(large, 'rb') as source, open(copy, 'wb') as target:
        while os.copy_file_range(source.fileno(), target.fileno(), SIZE):
            pass
    subprocess.run(['cmp', large, copy], check=True)


def copy_for_ever(source, target):
    child = os.fork()
    if child:
        return child
    fds = os.open(source, os.O_RDONLY), os.open(target, os.O_WRONLY | os.O_CREAT)
    while True:
        os.copy_file_range(*fds, 16 << 30, 0, 0)


def test_program_that_is_killed_while_it_copies_ends_in_time(large):
    os.truncate(large, 16 << 30)
    copy = large.with_name('copy')
    child = copy_for_ever(large, copy)
    try:
        wait_until(lambda: copy.exists() and os.stat(large.parent.with_name('source') / 'copy').st_size)
    finally:
        os.kill(child, signal.SIGKILL)
        killed = time.monotonic()
        os.waitpid(child, 0)
    assert time.monotonic() - killed < 5
    assert copy.stat().st_size <= STEP
