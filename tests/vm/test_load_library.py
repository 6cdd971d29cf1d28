"""libfuse-dmabuf on the kernel with tokens: ranges, ends of files, holes, every kind of file and buffer."""
import errno
import os
import random
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

import guest
from dmabuf import TestBuffer, Udmabuf
from places import mount, served  # noqa: F401  (fixtures)
from token_words import PUNCH_HOLE, ZERO_RANGE, fallocate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'unit'))
from library import WHOLE_BLOCKS, Library, Reason  # noqa: E402
from library import Path as Way  # noqa: E402

MIB, GIB = 1 << 20, 1 << 30
CONTENT = random.Random(11).randbytes(MIB // 2 + 4567)
SIZE = MIB   # of a buffer: small, because an emulated processor looks at each byte of it
UNTOUCHED = 0xee


@pytest.fixture(scope='session')
def library():
    return Library()


@pytest.fixture
def udmabuf(library):
    with library.allocate('udmabuf', SIZE) as buffer:
        buffer.fill(UNTOUCHED)
        yield buffer


@pytest.fixture(params=['udmabuf', 'vfio', 'import'])
def buffer(request, library):
    """Each kind, full of 0xee."""
    with ExitStack() as stack:
        if request.param == 'import':
            foreign = stack.enter_context(Udmabuf(SIZE))
            made = stack.enter_context(library.import_dmabuf(foreign.fileno()))
        else:
            what = 'udmabuf' if request.param == 'udmabuf' else f'vfio:{request.getfixturevalue("vram")}'
            made = stack.enter_context(library.allocate(what, SIZE))
        made.fill(UNTOUCHED)
        assert made.size == SIZE and made.exporter == request.param
        yield made


@pytest.fixture
def file(library, mount):
    """A file on the mount, opened by the library; .write(data) sets its content, .path and .source are its two paths."""
    with ExitStack() as stack:
        class Opened:
            path, source = mount.path / 'file', mount.source / 'file'

            def write(self, content):
                self.source.write_bytes(content)
                os.sync()
                return stack.enter_context(library.file(bytes(self.path)))
        yield Opened()


def fails(number):
    return pytest.raises(OSError, match=rf'^\[Errno {number}\]')


def expect_range(buffer, at, wanted, margin=0):
    """The range holds the bytes, and all around it is untouched, but for margin bytes."""
    assert buffer.read(at, len(wanted)) == wanted, 'wrong bytes in the range'
    before, after = max(at - margin, 0), min(at + len(wanted) + margin, buffer.size)
    around = buffer.read(0, before) + buffer.read(after, buffer.size - after)
    assert around == bytes([UNTOUCHED]) * len(around), 'bytes around the range have changed'


def test_whole_file(library, file, buffer):
    with library.channel(file.write(CONTENT), buffer, Way.DIRECT) as channel:
        assert (channel.path, channel.reason, channel.reason_text) == (Way.DIRECT, Reason.NONE, '')
        assert channel.read(0, 0, SIZE, WHOLE_BLOCKS) == len(CONTENT)
        expect_range(buffer, 0, CONTENT, margin=4096)
        assert (channel.counters.bytes_direct, channel.counters.bytes_copied) == (len(CONTENT), 0)


def test_any_range_comes_and_nothing_else_changes(library, file, buffer):
    source, opened = random.Random(3), file.write(CONTENT)
    with library.channel(opened, buffer, chunk=65536) as channel:
        for round_ in range(8):
            start, length = source.randrange(len(CONTENT)), source.choice([1, 4096, source.randrange(300_000)])
            # Half of them where a direct read is possible.
            at = start % 4096 + 4096 * source.randrange(100) if round_ % 2 else source.randrange(SIZE // 2)
            wanted = CONTENT[start:start + length]
            assert channel.read(start, at, length) == len(wanted)
            expect_range(buffer, at, wanted)
            buffer.fill(UNTOUCHED)
        counters = channel.counters
        assert counters.bytes_direct > 0 and counters.bytes_copied > 0


def test_forbidden_copy_is_an_error(library, file, udmabuf):
    with library.channel(file.write(CONTENT), udmabuf, Way.DIRECT) as channel:
        for start, at, length in ((1, 1, 4096), (0, 1, 4096), (0, 0, 100)):
            with fails(errno.EINVAL):
                channel.read(start, at, length)
        expect_range(udmabuf, 0, b'')
        assert channel.read(1, 1, 4096, WHOLE_BLOCKS) == 4096
        assert channel.counters.bytes_copied == 0


def test_small_files(library, mount, buffer):
    """Empty, one byte, and around the sizes of blocks."""
    for length in (0, 1, 511, 512, 513, 4095, 4096, 4097):
        (mount.source / f'{length}').write_bytes(CONTENT[:length])
        with library.file(bytes(mount.path / f'{length}')) as opened, library.channel(opened, buffer, Way.DIRECT) as channel:
            buffer.write(0, bytes([UNTOUCHED]) * 16384)
            assert channel.read(0, 0, SIZE, WHOLE_BLOCKS) == length
            assert buffer.read(0, length) == CONTENT[:length]
            assert buffer.read(8192, 8192) == bytes([UNTOUCHED]) * 8192
            assert (channel.counters.bytes_direct, channel.counters.bytes_copied) == (length, 0)


def test_destination_too_small(library, file, udmabuf):
    with library.channel(file.write(CONTENT), udmabuf) as channel, fails(errno.EFAULT):
        channel.read(0, SIZE - MIB // 4, SIZE)


def test_holes_and_unwritten_extents(library, file, buffer):
    """Every other block is missing, in runs of different length; behind them the file goes on."""
    opened, wanted = file.write(CONTENT), bytearray(CONTENT)
    for i, (start, length) in enumerate(((0, 4096), (8192, 4096), (20480, 65536), (MIB // 4 - 4096, 8192), (MIB // 2, 4096))):
        wanted[start:start + length] = bytes(length)
        fallocate(file.source, (PUNCH_HOLE, ZERO_RANGE)[i % 2], start, length)
    os.sync()
    with library.channel(opened, buffer, Way.DIRECT, depth=4, chunk=65536) as channel:
        assert channel.read(0, 0, SIZE, WHOLE_BLOCKS) == len(CONTENT)
        expect_range(buffer, 0, bytes(wanted), margin=4096)
        assert channel.counters.bytes_zeroed >= 81920 and channel.counters.bytes_copied == 0


def test_sparse_file_beyond_32_bits(library, mount, buffer):
    """Offsets in the file past 4 GiB, and a file that is mostly hole."""
    far = 5 * GIB + 4096 * 7
    with (mount.source / 'sparse').open('wb') as source:
        source.seek(far)
        source.write(CONTENT)
    os.sync()
    assert (mount.source / 'sparse').stat().st_blocks * 512 < 2 * MIB
    with library.file(bytes(mount.path / 'sparse')) as opened, library.channel(opened, buffer, Way.DIRECT) as channel:
        assert opened.size == far + len(CONTENT)
        assert channel.read(far - MIB // 4, 0, SIZE, WHOLE_BLOCKS) == MIB // 4 + len(CONTENT)
        expect_range(buffer, 0, bytes(MIB // 4) + CONTENT, margin=4096)
        assert channel.counters.bytes_copied == 0
        buffer.fill(UNTOUCHED)
        assert channel.read(far + 4096, 4096, 8192) == 8192
        expect_range(buffer, 4096, CONTENT[4096:12288])


def test_file_that_shrinks_and_grows(library, file, udmabuf):
    opened, short = file.write(CONTENT), MIB // 4 + 100
    with library.channel(opened, udmabuf, Way.DIRECT) as channel:
        os.truncate(file.path, short)
        assert channel.read(0, 0, SIZE, WHOLE_BLOCKS) == short
        expect_range(udmabuf, 0, CONTENT[:short], margin=4096)
        with file.path.open('ab') as appended:
            appended.write(CONTENT[short:])
        assert channel.read(0, 0, SIZE, WHOLE_BLOCKS) == len(CONTENT)
        expect_range(udmabuf, 0, CONTENT, margin=4096)


def test_kinds_of_files(library, nvme, file, buffer):
    """The caller need not know which kind it has."""
    file.write(CONTENT)
    for path in (nvme.device, file.source, file.path):
        with library.file(os.fsencode(path)) as opened, library.channel(opened, buffer, Way.DIRECT) as channel:
            length = min(opened.size, len(CONTENT) // 4096 * 4096)
            assert channel.read(0, 0, length) == length
            assert buffer.read(0, length) == opened.pread(length, 0), path
            assert channel.counters.bytes_direct == length


def test_two_files_into_one_buffer(library, file, udmabuf, mount):
    """As a checkpoint of several shards: a channel for each, open at the same time."""
    half = MIB // 4
    first = file.write(CONTENT[:half])
    (mount.source / 'second').write_bytes(CONTENT[half:2 * half])
    with library.file(bytes(mount.path / 'second')) as second, library.channel(first, udmabuf, Way.DIRECT) as one, \
         library.channel(second, udmabuf, Way.DIRECT) as other:
        assert (one.read(0, 0, half), other.read(0, half, half)) == (half, half)
    expect_range(udmabuf, 0, CONTENT[:2 * half])


def test_imported_memory_that_moves(library, file):
    """Nothing of it is seen by the caller."""
    with TestBuffer(SIZE) as foreign, library.import_dmabuf(foreign.fileno()) as buffer, \
         library.channel(file.write(CONTENT), buffer, Way.DIRECT, chunk=65536) as channel:
        channel.on_progress(lambda done, total: foreign.move() or 0)
        assert channel.read(0, 0, SIZE, WHOLE_BLOCKS) == len(CONTENT)
        assert buffer.read(0, len(CONTENT)) == CONTENT
        assert foreign.stats.moves > 0 and channel.counters.retries == 0


def test_imported_memory_that_the_cpu_cannot_reach(library, file, vram):
    """vfio-pci's dma-buf has no mmap: direct reads work, and what needs the CPU says why it does not."""
    opened = file.write(CONTENT)
    with library.allocate(f'vfio:{vram}', SIZE) as owner, library.import_dmabuf(owner.fd) as buffer:
        with library.channel(opened, buffer) as channel:
            assert channel.path == Way.DIRECT
            assert channel.read(0, 0, SIZE, WHOLE_BLOCKS) == len(CONTENT)
            assert owner.read(0, len(CONTENT)) == CONTENT
            with fails(errno.EOPNOTSUPP):
                channel.read(1, 1, 100)
        with fails(errno.EOPNOTSUPP), library.channel(opened, buffer, Way.BOUNCE):
            pass


def test_closing_ends_the_token(library, file, udmabuf, trace):
    opened = file.write(CONTENT)
    with trace('dmabuf_token:dmabuf_token_release') as released:
        with library.channel(opened, udmabuf, Way.DIRECT) as channel:
            channel.read(0, 0, 4096)
    assert released.hits == 1
