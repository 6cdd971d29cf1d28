"""What memory of CUDA and of HIP has in common. FUSE_DMABUF_CUDA=real takes the machine's own NVIDIA driver and GPU, and leaves HIP out."""
import ctypes
import errno
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path as FilePath

import pytest

from gpu import REAL, Cuda, Hip, listed_by, listed_by_a_program
from library import Path, Reason

MIB = 1 << 20
PAGE = os.sysconf('SC_PAGE_SIZE')
CONTENT = random.Random(11).randbytes(3 * MIB + 4567)

simulated_only = pytest.mark.skipif(REAL, reason='a real driver cannot be told to do this')


@pytest.fixture(params=[Cuda] if REAL else [Cuda, Hip], ids=lambda runtime: runtime.name)
def gpu(request, build, monkeypatch):
    return request.param(build / 'tests/unit', monkeypatch)


@pytest.fixture
def path(tmp_path):
    (tmp_path / 'file').write_bytes(CONTENT)
    return tmp_path / 'file'


def why_no_dmabuf(library, path, buffer):
    with library.file(path) as file, library.channel(file, buffer) as channel:
        assert (channel.path, channel.reason) == (Path.BOUNCE, Reason.NO_DMABUF)
        return channel.reason_text


@contextmanager
def fails(number, text):
    with pytest.raises(OSError, match=text) as failure:
        yield
    assert failure.value.errno == number


def test_memory_is_described_by_a_struct_as_well(library, gpu):
    with library.create(gpu.exporter, 5 * MIB + 1) as buffer:
        assert (buffer.exporter, buffer.size) == (gpu.name, 5 * MIB + PAGE)
    with fails(errno.ENODEV, 'device 99'):
        library.create(gpu.exporter, MIB, number=99)
    with fails(errno.EINVAL, f'{gpu.name} takes no page size'):
        library.create(gpu.exporter, MIB, page_size=2 * MIB)


@simulated_only
def test_a_device_by_number_and_by_address(library, gpu):
    for members in {'number': 1}, {'device': b'0000:03:00.0'}:
        with library.create(gpu.exporter, MIB, **members) as buffer:
            gpu.words('broken')
            with fails(errno.EIO, r'copying to 0000:03:00\.0 \(Simulated GPU 1\): an illegal memory access'):
                buffer.write(0, b'x')
            gpu.words('')


def test_a_whole_allocation_is_imported(library, gpu):
    with gpu.memory(4 * MIB) as address:
        with library.import_address(gpu.exporter, address, 4 * MIB) as buffer:
            assert (buffer.exporter, buffer.size, buffer.device_address) == (gpu.name, 4 * MIB, address)
            assert buffer.fd >= 0 and not os.get_inheritable(buffer.fd)
            buffer.fill(0xee)
            buffer.write(12345, CONTENT[:MIB])
            buffer.zero(12345 + 77, 1000)
        with library.import_address(gpu.exporter, address, 4 * MIB) as buffer:   # the memory is not freed
            assert buffer.read(12344, MIB + 2) == b'\xee' + CONTENT[:77] + bytes(1000) + CONTENT[1077:MIB] + b'\xee'


def test_an_imported_part_is_at_its_place(library, gpu):
    with gpu.memory(4 * MIB) as address, library.import_address(gpu.exporter, address, 4 * MIB) as whole:
        whole.fill(0xee)
        for offset, size in (0, PAGE), (3 * PAGE, 5 * PAGE), (10 * PAGE + 8, 1001), (4 * MIB - 1, 1):
            with library.import_address(gpu.exporter, address + offset, size) as part:
                assert (part.size, part.device_address) == (size, address + offset)
                part.write(0, CONTENT[:size])
                with fails(errno.EFAULT, 'outside the buffer'):
                    part.write(1, CONTENT[:size])
            assert whole.read(offset, size) == CONTENT[:size]
            assert offset == 0 or whole.read(offset - 1, 1) == b'\xee'


def test_a_part_of_a_page_has_no_dmabuf_and_bounces(library, gpu, path):
    with gpu.memory(4 * MIB) as address:
        for offset, size in (512, 3 * MIB), (0, 3 * MIB + 4567):
            with library.import_address(gpu.exporter, address + offset, size) as buffer:
                assert buffer.fd == -1
                assert 'the middle of a page' in why_no_dmabuf(library, path, buffer)
                with library.file(path) as file, library.channel(file, buffer, Path.BOUNCE) as channel:
                    length = min(size, len(CONTENT))
                    assert channel.read(0, 0, length) == length
                    assert buffer.read(0, length) == CONTENT[:length]


@simulated_only
@pytest.mark.parametrize('words', ['no-export', 'no-dmabuf'])
def test_imported_memory_that_is_not_exported_bounces(library, gpu, path, words):
    gpu.words(words)
    with gpu.memory(4 * MIB) as address, library.import_address(gpu.exporter, address, 4 * MIB) as buffer:
        assert buffer.fd == -1 and 'exports no dma-buf' in why_no_dmabuf(library, path, buffer)
        buffer.write(0, CONTENT)
        assert buffer.read(0, len(CONTENT)) == CONTENT


def test_a_range_that_is_no_allocation_is_not_imported(library, gpu):
    with gpu.memory(4 * MIB) as address:
        for offset, size in (0, 64 * MIB), (4 * MIB - PAGE, PAGE + 64 * MIB):
            with fails(errno.EFAULT, 'are more than the allocation has, which ends at .*: import each allocation on its own'):
                library.import_address(gpu.exporter, address + offset, size)
        with fails(errno.EINVAL, '0 bytes'):
            library.import_address(gpu.exporter, address, 0)
    with fails(errno.EFAULT, 'is no memory that (CUDA|HIP) has allocated'):
        library.import_address(gpu.exporter, 1 << 62, PAGE)


def test_host_memory_is_not_imported(library, gpu):
    memory = ctypes.create_string_buffer(4 * PAGE)
    address = ctypes.addressof(memory) // PAGE * PAGE + PAGE
    with fails(errno.EFAULT, 'is no memory that .* has allocated|is host memory'):
        library.import_address(gpu.exporter, address, PAGE)
    with gpu.pinned(ctypes.c_void_p(address), PAGE), fails(errno.EFAULT, 'is host memory: import it with FDMABUF_EXPORTER_MEMORY'):
        library.import_address(gpu.exporter, address, PAGE)


@simulated_only
def test_copies_of_several_threads_do_not_wait_for_each_other(library, gpu):
    with library.allocate(gpu.name, 4 * MIB) as buffer:
        gpu.words('together')
        with ThreadPoolExecutor(2) as threads:
            list(threads.map(lambda i: buffer.write(i * MIB, CONTENT[:MIB]), range(2)))
        gpu.words('')
        assert buffer.read(0, 2 * MIB) == CONTENT[:MIB] * 2


def test_many_threads_copy_to_one_buffer(library, gpu):
    piece, count = 64 << 10, 40
    with library.allocate(gpu.name, count * piece) as buffer, ThreadPoolExecutor(24) as threads:
        def copy(i):
            data = CONTENT[i * 1000:][:piece]
            for _ in range(20):
                buffer.write(i * piece, data)
                assert buffer.read(i * piece, piece) == data
                buffer.zero(i * piece, piece)
            buffer.write(i * piece, data)
        list(threads.map(copy, range(count)))
        assert all(buffer.read(i * piece, piece) == CONTENT[i * 1000:][:piece] for i in range(count))


LEAVES_NOTHING = """
import os, sys
from concurrent.futures import ThreadPoolExecutor
from library import Exporter, Library, Path
library, name, path = Library(sys.argv[1]), *sys.argv[2:]
exporter = Exporter[name.upper()]
with library.file(os.fsencode(path)) as file, library.allocate(name, 4 << 20) as buffer:
    with ThreadPoolExecutor(24) as threads:
        list(threads.map(lambda i: buffer.write(i * 1000, b'x' * 1000), range(200)))
    with library.import_address(exporter, buffer.device_address, 1 << 20) as part, library.channel(file, part, Path.BOUNCE) as channel:
        assert channel.read(0, 0, 100000) == 100000
    for address in buffer.device_address, 1 << 62:
        try:
            library.import_address(exporter, address, 8 << 20)
        except OSError:
            pass
    library.list_exporters()
"""


@simulated_only
@pytest.mark.parametrize('words', ['', 'no-pin', 'no-export', 'unordered'])
def test_nothing_is_left(build, gpu, path, words):
    gpu.words(words)
    command = [sys.executable, '-c', LEAVES_NOTHING, build / 'src/libfuse-dmabuf/libfuse-dmabuf.so.1', gpu.name, path]
    done = subprocess.run(command, capture_output=True, text=True, cwd=FilePath(__file__).parent)
    assert (done.returncode, done.stderr) == (0, '')


@simulated_only
def test_devices_are_listed(library, gpu):
    first, second = listed_by(library, gpu.name)
    assert (first['what'], second['what']) == (f'{gpu.name}:0', f'{gpu.name}:1')
    assert (first['device'], second['device']) == ('0000:0a:00.0 (Simulated GPU 0)', '0000:03:00.0 (Simulated GPU 1)')
    assert (first['exporter'], first['has_dmabuf'], first['error'], first['text']) == (gpu.exporter, True, 0, '')
    gpu.words('no-dmabuf')
    assert not listed_by(library, gpu.name)[0]['has_dmabuf'] and 'it needs' in listed_by(library, gpu.name)[0]['text']


@simulated_only
def test_what_can_be_allocated_is_listed_if_a_context_is_there(library, gpu):
    with library.allocate(gpu.name, 4 * MIB):
        first, second = listed_by(library, gpu.name)
        assert first['bytes'] > MIB and second['bytes'] == (0 if gpu.name == 'cuda' else first['bytes'])


@simulated_only
def test_what_keeps_devices_away_is_listed(library, gpu):
    gpu.words('no-device')
    only, = listed_by(library, gpu.name)
    assert (only['what'], only['device'], only['has_dmabuf'], only['error']) == (gpu.name, '', False, -errno.ENODEV)
    assert 'lists the devices' in only['text'] and 'no CUDA-capable device' in only['text']


@simulated_only
def test_a_missing_library_is_listed(build, gpu, monkeypatch):
    monkeypatch.delenv('LD_LIBRARY_PATH')
    only, = listed_by_a_program(build, gpu.name)
    assert only['error'] == -errno.EOPNOTSUPP and 'install' in only['text'] and only['text'].startswith(f'{gpu.name}: lib')
