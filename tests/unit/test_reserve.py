"""Blocks that ext4 keeps for root: a mount, whose server is root, hands them to nobody."""
import errno
import mmap
import os
import subprocess

import pytest

from ext4 import new_ext4, on_mount, on_mount_without_passthrough  # noqa: F401  (fixtures)
from places import end_of, start_as

BLOCK, RESERVED = 4096, 1000
LONG = 'x' * 200 + '{}'


@pytest.fixture(scope='module')
def ext4(tmp_path_factory):
    with new_ext4(tmp_path_factory, 32 << 20, reserved=RESERVED) as directory:
        directory.chmod(0o777)
        yield directory


@pytest.fixture(params=['ext4', 'on_mount', 'on_mount_without_passthrough'])
def full(request):
    """All that users may have is in use; a test cannot tell where."""
    root = request.getfixturevalue(request.param)
    end_of(start_as(1000, lambda: prepare(root)))
    yield root
    subprocess.run(f'rm -r {root}/[a-k]*', shell=True, check=True)


def prepare(root):
    """What the tests work with, and a file that fills the rest."""
    (root / 'data').write_bytes(b'x' * BLOCK)
    (root / 'empty').touch()
    (root / 'few-names').mkdir()
    for i in range(60):
        os.link(root / 'data', root / f'f{i}')
    os.sync()   # what is written later has its place already
    fd = os.open(root / 'filler', os.O_CREAT | os.O_WRONLY)
    size, step = 0, 16 << 20
    while step >= BLOCK:
        try:
            os.posix_fallocate(fd, size, step)
            size += step
        except OSError as error:
            assert error.errno == errno.ENOSPC
            step //= 2
    os.close(fd)


def write(root):
    fd = os.open(root / 'empty', os.O_WRONLY)
    os.write(fd, b'x' * 16 * BLOCK)
    os.fsync(fd)


def write_directly(root):
    fd = os.open(root / 'empty', os.O_WRONLY | os.O_DIRECT)
    os.pwritev(fd, [mmap.mmap(-1, 16 * BLOCK)], 0)


def allocate(root):
    fd = os.open(root / 'empty', os.O_WRONLY)
    os.posix_fallocate(fd, 0, 16 * BLOCK)


def copy(root):
    source, target = os.open(root / 'data', os.O_RDONLY), os.open(root / 'empty', os.O_WRONLY)
    for i in range(16):
        os.copy_file_range(source, target, BLOCK, 0, i * BLOCK)
    os.fsync(target)


def make_directories(root):
    for i in range(16):
        (root / f'directory-{i}').mkdir()


def set_large_attributes(root):
    """More than has room in the inode."""
    for name in ('data', 'empty', 'few-names', 'filler'):
        os.setxattr(root / name, 'user.large', os.urandom(2000))


def link(root):
    """The directory needs another block for so many names."""
    for i in range(60):
        os.link(root / 'empty', root / 'few-names' / LONG.format(i))


def rename(root):
    for i in range(60):
        os.rename(root / f'f{i}', root / 'few-names' / LONG.format(i))


@pytest.mark.parametrize('way', [write, write_directly, allocate, copy, make_directories, set_large_attributes, link, rename])
def test_user_gets_no_block_of_the_reserve(full, way):
    def use():
        with pytest.raises(OSError, match='No space left'):
            way(full)
    end_of(start_as(1000, use))
    assert os.statvfs(full).f_bavail == 0
    assert os.statvfs(full).f_bfree >= RESERVED


@pytest.mark.parametrize('full', ['on_mount_without_passthrough'], indirect=True)   # elsewhere a page without a block cannot be changed
def test_pages_that_were_mapped_get_no_block_of_the_reserve_although_the_file_appends(full):
    def use():
        fd = os.open(full / 'empty', os.O_RDWR | os.O_APPEND)
        os.truncate(fd, 16 * BLOCK)
        pages = mmap.mmap(fd, 16 * BLOCK)
        pages[:] = b'x' * len(pages)
        with pytest.raises(OSError, match='No space left'):
            pages.flush()
    end_of(start_as(1000, use))
    assert os.statvfs(full).f_bfree >= RESERVED
