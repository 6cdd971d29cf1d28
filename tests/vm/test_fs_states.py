"""States of a whole filesystem: full, over quota, frozen, read-only, shut down, to be unmounted."""

import contextlib
import ctypes
import fcntl
import os
import select
import struct
import time
from errno import EDQUOT, EIO, ENODEV, ENOSPC, ENXIO

import pytest

import guest
from filesystems import MOUNT, ROOT
from token_fixtures import *  # noqa: F403
from token_words import KIB, MIB, empty_ring, expect, expect_untouched, fails, let_go, make_file, opened, random_bytes
from uring import WRITE_FIXED

READ_ONLY = os.O_RDONLY | os.O_DIRECT
A = random_bytes(64 * KIB, seed=1)
NEW = random_bytes(MIB, seed=9)
USER = 1234

DIRECTLY = pytest.mark.parametrize("place", ["ext4", "xfs"], indirect=True, scope="module")


@pytest.fixture
def make(small):
    """make(*parts): the path of a new file, for the application."""
    backing = small.backing / "file"

    def make(*parts):
        make_file(backing, *parts)
        return small.path / "file"

    yield make
    with contextlib.suppress(OSError):  # of a filesystem that was shut down
        backing.unlink()


@pytest.fixture
def broken(small, filesystems):
    """A filesystem that nobody can use afterwards."""
    yield small
    let_go()
    filesystems.clear()


@contextlib.contextmanager
def full(small, left):
    """No space but about so many bytes."""
    filler = small.backing / "filler"
    with opened(filler, os.O_RDWR | os.O_CREAT) as fd:
        state = os.statvfs(small.backing)
        os.posix_fallocate(fd, 0, state.f_bavail * state.f_frsize - 8 * MIB)
        size = os.fstat(fd).st_size
        with contextlib.suppress(OSError):
            while True:
                os.posix_fallocate(fd, size, 64 * KIB)
                size += 64 * KIB
        os.ftruncate(fd, size - left)
        os.fsync(fd)
    try:
        yield
    finally:
        filler.unlink()
        guest.run("sync", "-f", small.backing)


def write_until_it_fails(write):
    """Megabytes of NEW after A: how many bytes were written, and the errno."""
    done = 0
    while done < 64 * MIB:
        try:
            done += write(0, MIB, 64 * KIB + done)
        except OSError as error:
            return done, error.errno
    return done, 0


def expect_written(path, done):
    """A, then so much of NEW as was reported. A write that failed may have left more."""
    with opened(path, os.O_RDONLY) as fd:
        expect(os.pread(fd, 64 * KIB, 0), A)
        for start in range(0, done, MIB):
            size = min(MIB, done - start)
            expect(os.pread(fd, size, 64 * KIB + start), NEW[:size], f"after {start}")


def test_no_space_in_the_middle_of_a_write(small, make, token, udmabuf):
    """And when there is space again the same token goes on."""
    udmabuf[:MIB] = NEW
    path = make(A)
    write = token(path).write
    with full(small, left=MIB + MIB // 2):
        done, number = write_until_it_fails(write)
        assert number == ENOSPC
        expect_written(path, done)
    assert write(0, MIB, 64 * KIB + done) == MIB
    expect_written(path, done + MIB)


def test_quota_that_is_used_up_in_the_middle_of_a_write(small, make, token, udmabuf, request):
    """The user's, whose file it is, also behind the server."""
    path = make(A)
    os.chown(small.backing / "file", USER, USER)
    set_quota(small, "3m")
    request.addfinalizer(lambda: set_quota(small, "0"))
    udmabuf[:MIB] = NEW
    write = token(path).write
    os.seteuid(USER)
    try:
        done, number = write_until_it_fails(write)
    finally:
        os.seteuid(0)
    assert number == EDQUOT
    assert done <= 3 * MIB
    expect_written(path, done)
    set_quota(small, "0")
    assert write(0, MIB, 64 * KIB + done) == MIB


def set_quota(small, limit):
    guest.run("xfs_quota", "-x", "-f", "-c", f"limit -u bhard={limit} {USER}", small.backing)


def test_a_frozen_filesystem_is_not_written(make, token, ring, udmabuf):
    """A write waits for the thaw."""
    path = make(A)
    udmabuf[: 64 * KIB] = NEW[: 64 * KIB]
    read = token(path)
    assert read.write(0, 4096, 0) == 4096
    guest.run("fsfreeze", "--freeze", ROOT)
    try:
        number = ring.prepare(WRITE_FIXED, read.fd, 0, 64 * KIB, 0)
        ring.submit()
        with pytest.raises(TimeoutError):
            ring.wait(0.5)
    finally:
        guest.run("fsfreeze", "--unfreeze", ROOT)
    assert ring.wait() == (number, 64 * KIB)
    with opened(path, os.O_RDONLY) as fd:
        expect(os.pread(fd, 64 * KIB, 0), NEW[: 64 * KIB])


def test_a_frozen_filesystem_is_read(make, token, udmabuf):
    path = make(A)
    read = token(path, READ_ONLY)
    guest.run("fsfreeze", "--freeze", ROOT)
    try:
        assert read(0, 64 * KIB, 0) == 64 * KIB
    finally:
        guest.run("fsfreeze", "--unfreeze", ROOT)
    expect(udmabuf[: 64 * KIB], A)


@DIRECTLY
def test_remounted_read_only(make, token, ring, udmabuf):
    """A token is an open file: one that may write forbids it, one that only reads goes on."""
    path = make(A)
    token(path)
    with pytest.raises(RuntimeError, match="busy"):
        guest.run("mount", "-o", "remount,ro", ROOT)
    empty_ring(ring)


def remount_read_only(seconds=10):
    """What earlier tests have deleted may still be open for a moment."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return guest.run("mount", "-o", "remount,ro", ROOT)
        except RuntimeError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.1)


@DIRECTLY
def test_read_only_filesystem_is_read(make, ring, udmabuf):
    path = make(A)
    with opened(path, READ_ONLY) as fd:
        ring.register_dmabuf(0, udmabuf, fd)
        remount_read_only()
        try:
            assert ring.read_fixed(fd, 0, 64 * KIB, 0) == 64 * KIB
            expect(udmabuf[: 64 * KIB], A)
        finally:
            guest.run("mount", "-o", "remount,rw", ROOT)
        ring.unregister(0)


def test_no_unmount_while_a_token_exists(small, make, ring, udmabuf, filesystems):
    """The registration keeps the file open, also when the application has closed it."""
    with opened(make(A), READ_ONLY) as fd:
        ring.register_dmabuf(0, udmabuf, fd)
    target = MOUNT if small.mount else ROOT
    with pytest.raises(RuntimeError, match="busy"):
        guest.run("umount", target)
    ring.close()
    let_go()
    filesystems.clear()
    assert not os.path.ismount(target)


def test_shutdown(broken, make, token, ring, udmabuf):
    """Requests and registrations fail, and nothing hangs."""
    path = make(A)
    read = token(path)
    assert read(0, 64 * KIB, 0) == 64 * KIB
    udmabuf.fill()
    shut_down(ROOT)
    with fails(EIO):
        read(0, 64 * KIB, 0)
    with fails(EIO):
        read.write(0, 64 * KIB, 0)
    with fails(EIO):
        ring.register_dmabuf(1, udmabuf, read.fd)
    expect_untouched(udmabuf)


def shut_down(path):
    FS_IOC_SHUTDOWN, NOLOGFLUSH = 0x8004587D, 2
    with opened(path, os.O_RDONLY) as fd:
        fcntl.ioctl(fd, FS_IOC_SHUTDOWN, struct.pack("=I", NOLOGFLUSH))


class ErrorsOf:
    """Who is told of errors of a filesystem: fanotify(7), FAN_FS_ERROR."""

    FAN_REPORT_FID, FAN_MARK_ADD, FAN_MARK_FILESYSTEM, FAN_FS_ERROR, AT_FDCWD = 0x200, 0x1, 0x100, 0x8000, -100
    _libc = ctypes.CDLL(None, use_errno=True)

    def __init__(self, path):
        self.fd = self._check(self._libc.fanotify_init(self.FAN_REPORT_FID, os.O_RDONLY))
        self._check(self._libc.fanotify_mark(
            self.fd, self.FAN_MARK_ADD | self.FAN_MARK_FILESYSTEM, ctypes.c_uint64(self.FAN_FS_ERROR), self.AT_FDCWD, os.fsencode(path),
        ))  # fmt: skip

    def _check(self, result):
        if result < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return result

    def number(self, seconds=1):
        """Reports until none comes for so long: they come by a worker."""
        found = 0
        while select.select([self.fd], [], [], seconds)[0]:
            events = os.read(self.fd, 65536)
            while events:
                found += 1
                events = events[struct.unpack_from("=I", events)[0] :]
        return found

    def close(self):
        os.close(self.fd)


@DIRECTLY
def test_refusals_are_no_errors_of_the_filesystem(broken, make, ring, moving):
    """Whoever watches it for corruption is not told that a token was refused, by a hole, a move or its end; but of what is an error."""
    path = make(A, 64 * KIB, A)
    with contextlib.closing(ErrorsOf(broken.backing)) as errors, opened(path, READ_ONLY) as fd:
        ring.register_dmabuf(0, moving, fd)
        assert ring.read_fixed(fd, 0, 128 * KIB, 0) == 64 * KIB
        with fails(ENXIO):
            ring.read_fixed(fd, 0, 64 * KIB, 64 * KIB)
        moving.move()
        assert ring.read_fixed(fd, 0, 64 * KIB, 128 * KIB) == 64 * KIB
        moving.revoke()
        with fails(ENODEV):
            ring.read_fixed(fd, 0, 64 * KIB, 0)
        assert errors.number() == 0
        ring.unregister(0)
        shut_down(broken.backing)
        assert errors.number() > 0
