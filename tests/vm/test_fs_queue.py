"""A queue of libfuse-dmabuf that writes to a filesystem which is full, or over quota."""
import errno
import os
import random
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

import guest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'unit'))
from library import WRITE, Library  # noqa: E402
from library import Path as Way  # noqa: E402

KIB, MIB = 1 << 10, 1 << 20
USER = 1235


def fails(number):
    return pytest.raises(OSError, match=rf'^\[Errno {number}\]')


@pytest.fixture(scope='session')
def library():
    return Library()


@pytest.fixture(scope='module')
def small(filesystems):
    """A filesystem of 320 MiB with quotas, and the server's mount of it: .backing, .path."""
    return SimpleNamespace(backing=filesystems.hold('small-ext4'), path=filesystems.mount())


@contextmanager
def filler(small):
    """No more than 1 MiB, beside what only root has on ext4 itself."""
    state, path = os.statvfs(small.backing), small.backing / 'filler'
    with path.open('wb') as file:
        os.posix_fallocate(file.fileno(), 0, state.f_bavail * state.f_frsize - MIB)
        os.fsync(file.fileno())
    try:
        yield
    finally:
        path.unlink()
        guest.run('sync', '-f', small.backing)


@contextmanager
def quota(small):
    """No more than 1 MiB for the user."""
    def limit(size):
        guest.run('xfs_quota', '-x', '-f', '-c', f'limit -u bhard={size} {USER}', small.backing)
    limit('1m')
    try:
        yield
    finally:
        limit('0')


@pytest.mark.parametrize('number', [errno.ENOSPC, errno.EDQUOT])
def test_no_space_in_the_middle_of_a_write(library, small, number):
    """It says how far it came; the rest can be written when there is space, with the same token."""
    size, content = 2 * MIB, random.Random(5).randbytes(2 * MIB)
    (small.backing / 'file').touch()
    if number == errno.EDQUOT:
        os.chown(small.backing / 'file', USER, USER)
    with library.allocate('udmabuf', size) as buffer, library.file(bytes(small.path / 'file'), os.O_RDWR) as file, \
         library.queue(Way.DIRECT, chunk=256 * KIB, depth=2) as queue:
        buffer.write(0, content)
        queue.check((file, 0, buffer, 0, 4096), WRITE)
        with filler(small) if number == errno.ENOSPC else quota(small):
            os.seteuid(USER if number == errno.EDQUOT else 0)
            try:
                with queue.submit(WRITE, [(file, MIB, buffer, MIB, MIB), (file, 0, buffer, 0, MIB)]) as transfer:
                    transfer.wait()
                    with fails(number):
                        assert transfer.bytes
                    second, first = transfer.result(0), transfer.result(1)
            finally:
                os.seteuid(0)
        done = first.done + second.done * (first.done == MIB)
        assert 0 < done < size and second.error == -number
        assert file.pread(done, 0) == content[:done]
        assert queue.write([(file, done, buffer, done, size - done)]) == size - done
        assert queue.counters.tokens == 1 and queue.counters.bytes_copied == 0
        assert file.pread(size, 0) == content
    (small.backing / 'file').unlink()
