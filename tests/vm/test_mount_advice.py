"""The page cache of a file on the mount is that of the file below: advice about it, what is asked of it, and writing it to disk (syncfs(2))."""
import ctypes
import fcntl
import os
import signal
import struct
from pathlib import Path
from types import SimpleNamespace

import pytest

from faults import overridden
from places import LIBC, OwnMount, cache_of, kind, outcome, pair, server_of, spot, wait_until  # noqa: F401  (fixtures)
from privileges import check
from token_words import make_file, opened, random_bytes

BLOCK = 4096
PAGES = 256
SIZE = PAGES * BLOCK
DATA = random_bytes(SIZE)
HALF = SIZE // 2
AHEAD = 32 * BLOCK   # not more than a device reads at once


def new_file(spot):
    """Clean and nowhere cached."""
    make_file(spot.source / 'file', DATA)
    file = SimpleNamespace(path=spot.path / 'file', source=spot.source / 'file')
    forget(file)
    return file


@pytest.fixture
def file(spot):
    return new_file(spot)


def forget(file):
    with opened(file.source, os.O_RDONLY) as fd:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    assert cache_of(file.source).cached == 0


def read_ahead(fd, start, length):
    check(LIBC.readahead(fd, ctypes.c_long(start), ctypes.c_size_t(length)))


def sync_range(fd, start, length, flags=7):
    """sync_file_range(2), by default as much as it can: wait, write and wait."""
    check(LIBC.sync_file_range(fd, ctypes.c_long(start), ctypes.c_long(length), flags))


def syncfs(fd):
    check(LIBC.syncfs(fd))


# Advice

def test_dontneed_frees_the_cache(file):
    with opened(file.path, os.O_RDONLY) as fd:
        assert os.pread(fd, SIZE, 0) == DATA and cache_of(file.source).cached == PAGES
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert cache_of(file.source).cached == 0
        assert os.pread(fd, SIZE, 0) == DATA


def test_dontneed_of_a_part_leaves_the_rest(file):
    with opened(file.path, os.O_RDONLY) as fd:
        os.pread(fd, SIZE, 0)
        os.posix_fadvise(fd, 0, HALF, os.POSIX_FADV_DONTNEED)
        assert cache_of(file.source, 0, HALF).cached == 0
        assert cache_of(file.source, HALF, HALF).cached == PAGES // 2


@pytest.mark.parametrize('ahead', [
    lambda fd: os.posix_fadvise(fd, 0, AHEAD, os.POSIX_FADV_WILLNEED), lambda fd: read_ahead(fd, 0, AHEAD),
], ids=['willneed', 'readahead'])
def test_reading_ahead_fills_the_cache_without_the_server(file, trace, ahead):
    with opened(file.path, os.O_RDONLY) as fd, trace('fuse:fuse_request_send', key='opcode') as requests:
        ahead(fd)
        assert cache_of(file.source, 0, AHEAD).cached == AHEAD // BLOCK
        assert os.pread(fd, SIZE, 0) == DATA
    assert requests.by_key == {}


def test_reading_ahead_wants_a_file_that_is_read(file):
    with opened(file.path, os.O_WRONLY) as fd:
        assert outcome(read_ahead, fd, 0, SIZE) == 'EBADF'


def test_random_keeps_the_kernel_from_reading_ahead(file):
    with opened(file.path, os.O_RDONLY) as fd:
        for advice, few in ((os.POSIX_FADV_RANDOM, True), (os.POSIX_FADV_NORMAL, False), (os.POSIX_FADV_RANDOM, True), (os.POSIX_FADV_SEQUENTIAL, False)):
            forget(file)
            os.posix_fadvise(fd, 0, 0, advice)
            assert os.pread(fd, BLOCK, 0) == DATA[:BLOCK]
            assert (cache_of(file.source).cached == 1) == few


def test_any_advice_is_taken(file):
    with opened(file.path, os.O_RDWR) as fd:
        for name in ('NORMAL', 'SEQUENTIAL', 'RANDOM', 'NOREUSE', 'WILLNEED', 'DONTNEED'):
            advice = getattr(os, f'POSIX_FADV_{name}')
            for start, length in ((0, 0), (100, 1000), (SIZE, BLOCK), (1 << 40, 0)):
                os.posix_fadvise(fd, start, length, advice)
            assert outcome(os.posix_fadvise, fd, 0, -1, advice) == 'EINVAL'
            assert os.pread(fd, SIZE, 0) == DATA


def test_no_other_advice_is_taken(file):
    with opened(file.path, os.O_RDWR) as fd:
        assert [outcome(os.posix_fadvise, fd, 0, 0, advice) for advice in (-1, 6, 99)] == ['EINVAL'] * 3


# What is cached

def counts(file):
    found = cache_of(file)
    return found.cached, found.dirty, found.writeback


def test_both_descriptors_tell_what_is_cached(file):
    with opened(file.path, os.O_RDWR) as fd, opened(file.source, os.O_RDWR) as below:
        assert counts(fd) == counts(below) == (0, 0, 0)
        os.pread(fd, HALF, 0)
        assert counts(fd) == counts(below) != (0, 0, 0)
        os.pwrite(fd, DATA, SIZE)
        assert counts(fd) == counts(below) and cache_of(fd, SIZE).dirty == PAGES
        os.fsync(fd)
        assert counts(fd) == counts(below) and cache_of(fd).dirty == 0


def test_what_is_cached_is_told_to_those_who_may_write(file):
    os.chmod(file.source, 0o644)
    with opened(file.path, os.O_RDONLY) as fd:
        assert cache_of(fd).cached == 0


# Writing to disk

def is_on_disk(file):
    found = cache_of(file.source)
    return found.cached > 0 and found.dirty == found.writeback == 0


def test_syncfs_leaves_no_page_dirty(file):
    with opened(file.path, os.O_RDWR) as fd:
        os.pwrite(fd, DATA, 0)
        assert cache_of(file.source).dirty > 0
        syncfs(fd)
    assert is_on_disk(file)


def test_syncfs_reaches_files_that_are_closed(file, spot):
    """By whatever descriptor on the mount."""
    with opened(file.path, os.O_RDWR) as fd:
        os.pwrite(fd, DATA, 0)
    with opened(spot.path, os.O_RDONLY) as fd:
        syncfs(fd)
    assert is_on_disk(file)


def test_syncfs_writes_names(spot, kind, trace):
    """The journal or the log."""
    event = {'ext4': 'jbd2:jbd2_start_commit', 'xfs': 'xfs:xfs_log_force'}[kind]
    with opened(spot.path, os.O_RDONLY) as fd:
        syncfs(fd)
        with trace(event, key='dev') as seen:
            (spot.path / 'directory').mkdir()
            syncfs(fd)
    assert seen.hits > 0


def test_syncfs_tells_the_error_of_the_file_system_below(spot, kind):
    with opened(spot.path, os.O_RDONLY) as fd:
        with overridden({'ext4': 'ext4_sync_fs', 'xfs': 'xfs_fs_sync_fs'}[kind], value=-5):
            assert outcome(syncfs, fd) == 'EIO'
        syncfs(fd)


def test_sync_file_range_writes_that_part(file):
    with opened(file.path, os.O_RDWR) as fd:
        os.pwrite(fd, DATA, 0)
        assert cache_of(file.source, 0, HALF).dirty == PAGES // 2
        sync_range(fd, 0, HALF)
        found = cache_of(file.source, 0, HALF)
        assert (found.dirty, found.writeback) == (0, 0)
        sync_range(fd, 0, 0)
        assert is_on_disk(file)


def test_sync_file_range_refuses_what_makes_no_sense(file):
    with opened(file.path, os.O_RDWR) as fd:
        assert [outcome(sync_range, fd, *wrong) for wrong in ((0, 0, 8), (-1, 1, 7), (0, -1, 7))] == ['EINVAL'] * 3


def test_hints_for_the_lifetime_of_what_is_written_reach_the_file_below(file):
    F_GET_RW_HINT, F_SET_RW_HINT, SHORT = 1035, 1036, 2
    with opened(file.path, os.O_RDWR) as fd, opened(file.source, os.O_RDWR) as below:
        fcntl.fcntl(fd, F_SET_RW_HINT, struct.pack('=Q', SHORT))
        assert [struct.unpack('=Q', fcntl.fcntl(each, F_GET_RW_HINT, bytes(8))) for each in (fd, below)] == [(SHORT,)] * 2


# Servers that do not answer

only_ext4 = pytest.mark.parametrize('kind', ['ext4'], indirect=True, scope='module')


@pytest.fixture
def own(pair, tmp_path):
    """A mount of its own, with a file that is open, and has dirty pages."""
    mount = OwnMount(pair.source, tmp_path / 'own')
    with opened(mount.path / 'own', os.O_RDWR | os.O_CREAT) as mount.fd:
        os.pwrite(mount.fd, DATA, 0)
        yield mount
    mount.end()
    (pair.source / 'own').unlink()


@pytest.fixture
def stopped(own):
    """Its server has read no request of those that follow."""
    server = server_of(own.path)
    os.kill(server, signal.SIGSTOP)
    wait_until(lambda: state_of(server) == 'T')
    yield own
    os.kill(server, signal.SIGCONT)


def state_of(process):
    return Path(f'/proc/{process}/stat').read_text().rpartition(')')[2].split()[0]


@only_ext4
def test_sync_does_not_wait_for_a_server_that_takes_no_request(stopped):
    os.sync()


@only_ext4
def test_nobody_waits_for_a_server_that_was_killed(own):
    own.kill()
    assert outcome(syncfs, own.fd) in (None, 'ENOTCONN', 'ECONNABORTED')
    os.sync()
