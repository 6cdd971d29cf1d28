"""Flags of an open file that fcntl(2) changes, and writes that wait for the disk: on ext4 and on mounts of it, with the same expectations.

Where passthrough is possible the kernel keeps the flags of the open for the data, unless it has this project's patches: tests/vm/test_mount_flags.py.
"""
import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import re
import shutil
from types import SimpleNamespace

import pytest

from ext4 import new_ext4, on_mount, on_mount_without_passthrough, served  # noqa: F401  (fixtures)
from privileges import LIBC
from rights_places import opening
from test_rights_limits import append_only

BLOCK = 4096


@pytest.fixture(scope='module')
def ext4(tmp_path_factory):
    with new_ext4(tmp_path_factory, 64 << 20, reserved=0) as directory:
        yield directory


@pytest.fixture(scope='module')
def on_mount_of_a_mount(on_mount, program, tmp_path_factory):
    """Too deep a stack for passthrough: data goes through this server, and from there to a file of FUSE."""
    with served(on_mount, program, tmp_path_factory) as target:
        yield target
        assert 'on a stack of filesystems' in target.with_suffix('.log').read_text()


THROUGH_THE_SERVER = ['on_mount_without_passthrough', 'on_mount_of_a_mount']
everywhere = pytest.mark.parametrize('place', ['ext4', 'on_mount', *THROUGH_THE_SERVER], indirect=True)
without_passthrough = pytest.mark.parametrize('place', ['ext4', *THROUGH_THE_SERVER], indirect=True)


@pytest.fixture
def place(request, ext4):
    """An empty directory: .path, and .source behind it. A test cannot tell where."""
    name = re.sub(r'\W+', '-', request.node.name)
    (ext4 / name).mkdir()
    yield SimpleNamespace(path=request.getfixturevalue(request.param) / name, source=ext4 / name)
    shutil.rmtree(ext4 / name)


@pytest.fixture
def file(place):
    """Holds two blocks of dots: .path, .source."""
    (place.source / 'file').write_bytes(b'.' * 2 * BLOCK)
    return SimpleNamespace(path=place.path / 'file', source=place.source / 'file')


def set_flags(fd, flags):
    fcntl.fcntl(fd, fcntl.F_SETFL, flags)


def memory_of(content):
    """Aligned, as O_DIRECT wants it."""
    memory = mmap.mmap(-1, len(content))
    memory[:] = content
    return memory


# O_APPEND


WRITES = {'write': lambda fd, data, offset: (os.lseek(fd, offset, os.SEEK_SET), os.write(fd, data)), 'pwrite': os.pwrite}


@without_passthrough
@pytest.mark.parametrize('way', WRITES)
def test_write_goes_to_its_place_when_o_append_is_cleared(file, way):
    with opening(file.path, os.O_RDWR | os.O_APPEND) as fd:
        os.write(fd, b'appended')
        set_flags(fd, 0)
        WRITES[way](fd, b'placed', 100)
        set_flags(fd, os.O_APPEND)
        WRITES[way](fd, b' too', 100)
    assert file.source.read_bytes() == b'.' * 100 + b'placed' + b'.' * (2 * BLOCK - 106) + b'appended too'


@without_passthrough
@pytest.mark.parametrize('way', WRITES)
@pytest.mark.parametrize('other', ['path', 'source'])
def test_write_appends_to_what_others_have_written_when_o_append_is_set(file, way, other):
    with opening(file.path) as fd, opening(getattr(file, other)) as writer:
        os.write(fd, b'first')
        set_flags(fd, os.O_APPEND)
        os.pwrite(writer, b'of another', 2 * BLOCK)
        WRITES[way](fd, b', appended', 0)
    assert file.source.read_bytes() == b'first' + b'.' * (2 * BLOCK - 5) + b'of another, appended'


@without_passthrough
@pytest.mark.parametrize('flags', [0, os.O_APPEND], ids=['opened without', 'opened with'])
def test_mapped_pages_go_to_their_place_although_the_file_appends(file, flags):
    with opening(file.path, os.O_RDWR | flags) as fd:
        set_flags(fd, os.O_APPEND)
        with mmap.mmap(fd, 2 * BLOCK) as memory:
            memory[BLOCK:BLOCK + 6] = b'mapped'
            os.write(fd, b'appended')
            memory.flush()
    assert file.source.read_bytes() == b'.' * BLOCK + b'mapped' + b'.' * (BLOCK - 6) + b'appended'


@everywhere
def test_copy_goes_to_its_place_when_o_append_is_cleared(file):
    with opening(file.path, os.O_RDWR | os.O_APPEND) as fd, opening(file.path, os.O_RDONLY) as reader:
        with pytest.raises(OSError, match='Bad file descriptor'):
            os.copy_file_range(reader, fd, 10, 0, 3 * BLOCK)
        os.write(fd, b'appended')
        set_flags(fd, 0)
        assert os.copy_file_range(reader, fd, 8, 2 * BLOCK, 100) == 8
    assert file.source.read_bytes() == b'.' * 100 + b'appended' + b'.' * (2 * BLOCK - 108) + b'appended'


@without_passthrough
@pytest.mark.parametrize('when', ['before', 'after'])
@pytest.mark.parametrize('way', [*WRITES, 'copy'])
def test_append_only_file_stays_so_when_o_append_is_cleared(file, when, way):
    """Whatever refuses it. The content tells."""
    content = file.source.read_bytes()
    with contextlib.ExitStack() as stack:
        if when == 'before':
            stack.enter_context(append_only(file.source))
        fd = stack.enter_context(opening(file.path, os.O_RDWR | os.O_APPEND))
        if when == 'after':
            stack.enter_context(append_only(file.source))
        with contextlib.suppress(OSError):
            set_flags(fd, 0)
        with contextlib.suppress(OSError):
            os.copy_file_range(fd, fd, 4, 10, 0) if way == 'copy' else WRITES[way](fd, b'lost', 0)
    assert file.source.read_bytes().startswith(content)


# O_DIRECT


@pytest.mark.parametrize('place', ['ext4', 'on_mount_without_passthrough'], indirect=True)
def test_unaligned_range_is_written_and_read_when_o_direct_is_cleared(file):
    with opening(file.path, os.O_RDWR | os.O_DIRECT) as fd:
        os.pwritev(fd, [memory_of(b'd' * BLOCK)], 0)
        set_flags(fd, 0)
        assert os.pwrite(fd, b'odd', 5) == 3 and os.pread(fd, 7, 3) == b'ddodddd'
    assert file.source.read_bytes() == b'dddddodd'.ljust(BLOCK, b'd') + b'.' * BLOCK


@everywhere
def test_aligned_range_is_written_and_read_when_o_direct_is_set(file):
    with opening(file.path) as fd:
        os.pwrite(fd, b'odd', 5)
        set_flags(fd, os.O_DIRECT)
        memory = memory_of(b'd' * BLOCK)
        assert os.pwritev(fd, [memory], BLOCK) == BLOCK and os.preadv(fd, [memory], 0) == BLOCK
        assert memory[:] == b'.....odd'.ljust(BLOCK, b'.')
    assert file.source.read_bytes() == b'.....odd'.ljust(BLOCK, b'.') + b'd' * BLOCK


@everywhere
@pytest.mark.parametrize('flags', [(os.O_DIRECT, 0), (0, 0)], ids=['cleared', 'never set'])
def test_unaligned_range_is_copied_without_o_direct(file, flags):
    with opening(file.path, os.O_RDWR | flags[0]) as fd:
        set_flags(fd, flags[1])
        (file.path.parent / 'other').write_bytes(b'another file')
        with opening(file.path.parent / 'other', os.O_RDWR | flags[0]) as other:
            set_flags(other, flags[1])
            assert os.copy_file_range(other, fd, 5, 3, 7) == 5
    assert file.source.read_bytes() == b'.......ther '.ljust(2 * BLOCK, b'.')


# Writes that wait for the disk


def unwritten_pages(path):
    """How many pages of the file are not on the disk yet."""
    CACHESTAT = 451
    counts = (ctypes.c_uint64 * 5)()   # cached, dirty, being written, evicted, evicted lately
    with opening(path, os.O_RDONLY) as fd:
        if LIBC.syscall(CACHESTAT, fd, (ctypes.c_uint64 * 2)(0, 0), counts, 0) < 0:
            assert ctypes.get_errno() == errno.ENOSYS
            pytest.skip('this kernel has no cachestat(2): whether writes waited for the disk was not tested')
    return counts[1] + counts[2]


@everywhere
@pytest.mark.parametrize('flags', [os.O_SYNC, os.O_DSYNC, os.O_SYNC | os.O_APPEND, 0], ids=['O_SYNC', 'O_DSYNC', 'O_SYNC and O_APPEND', 'neither'])
def test_write_of_a_file_opened_for_that_waits_for_the_disk(place, flags):
    with opening(place.path / 'file', os.O_CREAT | os.O_WRONLY | flags) as fd:
        os.write(fd, b'x' * BLOCK)
        assert unwritten_pages(place.source / 'file') == (0 if flags else 1)
        set_flags(fd, os.O_APPEND)
        os.write(fd, b'x' * BLOCK)
        assert unwritten_pages(place.source / 'file') == (0 if flags else 2)
        set_flags(fd, 0)
        os.pwrite(fd, b'x' * BLOCK, 0)
        assert unwritten_pages(place.source / 'file') == (0 if flags else 2)


@everywhere
@pytest.mark.parametrize('flags', [os.RWF_DSYNC, os.RWF_SYNC], ids=['RWF_DSYNC', 'RWF_SYNC'])
def test_single_write_waits_for_the_disk(file, flags):
    with opening(file.path) as fd:
        os.fsync(fd)   # of what the file held before
        os.pwritev(fd, [b'x' * BLOCK], 0, flags)
        assert unwritten_pages(file.source) == 0


@everywhere
@pytest.mark.parametrize('flags', [os.RWF_DSYNC, os.RWF_SYNC], ids=['RWF_DSYNC', 'RWF_SYNC'])
def test_single_write_to_an_append_only_file_waits_for_the_disk(file, flags):
    """The kernel does not keep pages of such a file, and leaves the waiting to the server."""
    with append_only(file.source), opening(file.path, os.O_WRONLY | os.O_APPEND) as fd:
        os.fsync(fd)
        os.pwritev(fd, [b'x' * BLOCK], 0, flags)
        assert unwritten_pages(file.source) == 0
