"""The library by its C interface, as far as it goes without a special kernel."""
import errno
import os
import random

import pytest

from library import WHOLE_BLOCKS, Path, Reason

CONTENT = random.Random(5).randbytes(3 * 1024 * 1024 + 4567)
UNTOUCHED = 0xee


@pytest.fixture
def path(tmp_path):
    (tmp_path / 'file').write_bytes(CONTENT)
    return tmp_path / 'file'


def fails(number):
    return pytest.raises(OSError, match=rf'^\[Errno {number}\]')


def expect_range(buffer, at, wanted):
    """The range holds the bytes, and all around it is untouched."""
    assert buffer.read(at, len(wanted)) == wanted, 'wrong bytes in the range'
    around = buffer.read(0, at) + buffer.read(at + len(wanted), buffer.size - at - len(wanted))
    assert around == bytes([UNTOUCHED]) * len(around), 'bytes around the range have changed'


def test_file_tells_its_size_and_block_size(library, path):
    with library.file(path) as file:
        assert file.size == len(CONTENT)
        assert file.block_size >= 512 and file.block_size & (file.block_size - 1) == 0
        os.truncate(path, 100)
        assert file.size == 100


def test_file_without_o_direct_is_taken(library):
    with library.file('/proc/self/status'.encode()) as file, library.allocate('memory', 65536) as buffer:
        assert not file.is_direct
        with library.channel(file, buffer) as channel:
            assert channel.path == Path.BOUNCE


def test_pread_takes_any_range(library, path):
    with library.file(path) as file:
        assert file.pread(1000, 12345) == CONTENT[12345:13345]
        assert file.pread(1000, len(CONTENT) - 7) == CONTENT[-7:]
        assert file.pread(10, 1 << 50) == b''


def go_elsewhere(path, monkeypatch):
    monkeypatch.chdir('/')


def rename_over_it(path, monkeypatch):
    path.with_name('other').write_bytes(b'other')
    path.with_name('other').rename(path)


def unlink(path, monkeypatch):
    path.unlink()


@pytest.mark.parametrize('event', [go_elsewhere, rename_over_it, unlink])
def test_file_stays_what_was_opened_wherever_its_path_leads(library, path, monkeypatch, event):
    monkeypatch.chdir(path.parent)
    with library.file(b'file', os.O_RDWR) as file, library.allocate('memory', 1 << 20) as buffer, library.queue() as queue:
        event(path, monkeypatch)
        assert file.pread(1000, 12345) == CONTENT[12345:13345]
        assert queue.read([(file, 4096, buffer, 0, 10000)]) == 10000
        assert buffer.read(0, 10000) == CONTENT[4096:14096]
        buffer.write(0, b'new')
        assert queue.write([(file, 77, buffer, 0, 3)]) == 3
        file.resize(len(CONTENT) + 10)
        file.sync()
        assert file.pwrite(b'end', len(CONTENT)) == 3
        assert file.pread(5, 76) == CONTENT[76:77] + b'new' + CONTENT[80:81]
        assert (file.size, file.pread(20, len(CONTENT))) == (len(CONTENT) + 10, b'end' + bytes(7))


def test_buffer_is_rounded_up_to_pages(library):
    with library.allocate('memory', 5000) as buffer:
        assert (buffer.size, buffer.fd, buffer.exporter) == (8192, -1, 'memory')


def test_buffer_copies_and_zeroes_within_its_bounds(library):
    with library.allocate('memory', 4096) as buffer:
        buffer.fill(UNTOUCHED)
        buffer.write(100, b'hello')
        assert buffer.read(99, 7) == b'\xeehello\xee'
        buffer.zero(101, 3)
        assert buffer.read(99, 7) == b'\xeeh\0\0\0o\xee'
        for call in (lambda: buffer.write(4090, bytes(7)), lambda: buffer.read(4097, 0), lambda: buffer.zero(1, 4096),
                     lambda: buffer.zero(2**64 - 1, 2)):
            with fails(errno.EFAULT):
                call()


def test_buffer_needs_a_size_that_exists(library):
    for what, size, number in (('memory', 0, errno.EINVAL), ('memory', 1 << 62, errno.ENOMEM), ('memory', 2**64 - 1, errno.EINVAL)):
        with fails(number):
            library.allocate(what, size)


def test_udmabuf_says_what_is_missing(library):
    if os.path.exists('/dev/udmabuf'):
        pytest.skip('this machine has it')
    with pytest.raises(OSError, match='modprobe udmabuf'):
        library.allocate('udmabuf', 4096)


def test_only_a_dmabuf_can_be_imported(library, path):
    with path.open() as file, fails(errno.EINVAL):
        library.import_dmabuf(file.fileno())
    with fails(errno.EINVAL):
        library.import_dmabuf(-1)


def test_any_range_comes_and_nothing_else_changes(library, path):
    source = random.Random(9)
    with library.file(path) as file, library.allocate('memory', 1 << 20) as buffer:
        for _ in range(60):
            start, at = source.randrange(len(CONTENT)), source.randrange(1 << 19)
            length = source.choice([1, 511, 4096, source.randrange(1 << 19)])
            buffer.fill(UNTOUCHED)
            with library.channel(file, buffer, depth=source.randrange(1, 5), chunk=source.choice([4096, 65536])) as channel:
                wanted = CONTENT[start:start + length]
                assert channel.read(start, at, length, source.choice([0, WHOLE_BLOCKS])) == len(wanted)
                expect_range(buffer, at, wanted)
                assert channel.counters.bytes_copied == len(wanted)


def test_reads_stop_at_the_end_of_the_file(library, path):
    with library.file(path) as file, library.allocate('memory', 1 << 20) as buffer, library.channel(file, buffer) as channel:
        buffer.fill(UNTOUCHED)
        assert channel.read(len(CONTENT) - 4567, 0, 1 << 30) == 4567
        expect_range(buffer, 0, CONTENT[-4567:])
        assert channel.read(len(CONTENT), 0, 1) == 0
        assert channel.read(2**63, 0, 1) == 0


@pytest.mark.parametrize('content', [b'', b'x'])
def test_tiny_files(library, path, content):
    path.write_bytes(content)
    with library.file(path) as file, library.allocate('memory', 4096) as buffer, library.channel(file, buffer) as channel:
        buffer.fill(UNTOUCHED)
        assert channel.read(0, 0, 4096) == len(content)
        expect_range(buffer, 0, content)


def test_destination_too_small(library, path):
    with library.file(path) as file, library.allocate('memory', 4096) as buffer, library.channel(file, buffer) as channel:
        with fails(errno.EFAULT):
            channel.read(0, 0, 4097)


def test_sparse_file_beyond_32_bits(library, path):
    far = (5 << 30) + 123
    with path.open('wb') as file:
        file.seek(far)
        file.write(CONTENT[:10000])
    with library.file(path) as file, library.allocate('memory', 1 << 20) as buffer, library.channel(file, buffer) as channel:
        buffer.fill(UNTOUCHED)
        assert channel.read(far - 1000, 5, 1 << 19) == 11000
        expect_range(buffer, 5, bytes(1000) + CONTENT[:10000])


def test_reason_for_bounce_is_told(library, path):
    with library.file(path) as file, library.allocate('memory', 4096) as buffer:
        with library.channel(file, buffer) as channel:
            assert (channel.path, channel.reason) == (Path.DIRECT_IO if file.is_direct else Path.BOUNCE, Reason.NO_DMABUF)
        with library.channel(file, buffer, Path.BOUNCE) as channel:
            assert (channel.path, channel.reason, channel.reason_text) == (Path.BOUNCE, Reason.ASKED, 'bounce was asked for')
        with fails(errno.EOPNOTSUPP), library.channel(file, buffer, Path.DIRECT):
            pass


def test_progress_counts_up_to_the_total(library, path):
    seen = []
    with library.file(path) as file, library.allocate('memory', 4 << 20) as buffer, library.channel(file, buffer, chunk=65536) as channel:
        channel.on_progress(lambda done, total: seen.append((done, total)) or 0)
        channel.read(0, 0, len(CONTENT))
    assert seen == sorted(seen) and seen[-1] == (len(CONTENT), len(CONTENT))
    assert {total for _, total in seen} == {len(CONTENT)}


def test_progress_function_cancels(library, path):
    with library.file(path) as file, library.allocate('memory', 4 << 20) as buffer, library.channel(file, buffer, chunk=65536) as channel:
        channel.on_progress(lambda done, total: 1)
        with fails(errno.ECANCELED):
            channel.read(0, 0, len(CONTENT))
        channel.on_progress(lambda done, total: 0)
        assert channel.read(0, 0, len(CONTENT)) == len(CONTENT)


def test_nothing_is_left_open(library, path):
    def descriptors():
        return len(os.listdir('/proc/self/fd'))
    before = descriptors()
    for _ in range(20):
        with library.file(path) as file, library.allocate('memory', 4096) as buffer, library.channel(file, buffer) as channel:
            channel.read(10, 10, 100)
            file.pread(10, 10)
    assert descriptors() == before
