"""What is special about memory of an AMD GPU, against simulated-hip.c. What it has in common with CUDA is in test_gpu.py."""
import errno
import os

import pytest

from checkpoints import tensor
from gpu import Hip, listed_by_a_program
from library import Path, Reason

MIB = 1 << 20


@pytest.fixture(autouse=True)
def hip(build, monkeypatch):
    return Hip(build / 'tests/unit', monkeypatch)


@pytest.fixture
def path(tmp_path):
    (tmp_path / 'file').write_bytes(bytes(range(256)) * 16 * 300)
    return tmp_path / 'file'


def reason_of(library, path, buffer):
    with library.file(path) as file, library.channel(file, buffer) as channel:
        assert (channel.path, channel.reason) == (Path.BOUNCE, Reason.NO_DMABUF)
        return channel.reason_text


def test_each_buffer_has_a_dmabuf_of_its_own(library):
    """HIP exports small allocations with their neighbours, and does not say where in the dma-buf they are."""
    for size in 4096, MIB, 2 * MIB, 3 * MIB:
        with library.allocate('hip', size) as buffer:
            assert buffer.size == size and buffer.fd >= 0
            assert os.lseek(buffer.fd, 0, os.SEEK_END) == (size + 2 * MIB - 1) // (2 * MIB) * 2 * MIB


def test_memory_with_neighbours_is_imported_without_a_dmabuf(library, hip, path):
    with hip.memory(MIB) as address, library.import_address(hip.exporter, address, MIB) as buffer:
        assert buffer.fd == -1
        assert 'with its neighbours: allocate at least 2 MiB at once' in reason_of(library, path, buffer)


def test_only_the_begin_of_an_allocation_has_a_dmabuf(library, hip, path):
    with hip.memory(4 * MIB) as address:
        with library.import_address(hip.exporter, address, MIB) as buffer:
            assert buffer.fd >= 0
        with library.import_address(hip.exporter, address + MIB, MIB) as buffer:
            assert buffer.fd == -1
            assert 'import from its begin' in reason_of(library, path, buffer)


def test_the_current_device_of_the_program_stays(library, hip, path):
    hip.call('hipSetDevice', 1)
    with library.file(path) as file, library.allocate('hip:0', MIB) as buffer, library.channel(file, buffer, Path.BOUNCE) as channel:
        assert channel.read(0, 0, 4096) == 4096
        buffer.zero(0, 4096)
        library.list_exporters()
    assert hip.current_device() == 1
    hip.call('hipSetDevice', 0)


def test_errors_that_the_library_handles_are_not_left_to_the_program(library, hip, path):
    hip.words('no-pin no-export')
    with library.file(path) as file, library.allocate('hip', MIB) as buffer, library.channel(file, buffer, Path.BOUNCE) as channel:
        assert channel.read(0, 0, 4096) == 4096
    for what in 'hip:99', 'hip:0000:ff:1f.7':
        with pytest.raises(OSError, match='amd-smi list') as failure:
            library.allocate(what, MIB)
        assert failure.value.errno == errno.ENODEV
    with pytest.raises(OSError):
        library.import_address(hip.exporter, 1 << 62, MIB)
    assert hip.functions.hipGetLastError() == 0


def test_memory_types_of_rocm_5(library, hip):
    hip.words('rocm-5')
    with hip.memory(4 * MIB) as address, library.import_address(hip.exporter, address, 4 * MIB) as buffer:
        assert buffer.fd >= 0


def test_load_verifies(load, checkpoint):
    content = bytes(range(256)) * 4096
    loaded = load(checkpoint({'a': tensor('U8', [len(content)], 0, len(content))}, content), 'hip', '--verify')
    assert (loaded.code, loaded.error) == (0, '')
    assert (loaded.summary['destination'], loaded.summary['verified']) == ('hip', True)


def test_a_runtime_before_rocm_7_exports_nothing(build, load, checkpoint, tmp_path, monkeypatch):
    (tmp_path / 'libamdhip64.so.5').symlink_to(build / 'tests/unit/libamdhip64-before-7.so')
    monkeypatch.setenv('LD_LIBRARY_PATH', str(tmp_path))
    first, _second = listed_by_a_program(build, 'hip')
    assert (first['has_dmabuf'], first['error'], first['text']) == (False, 0, 'it needs ROCm 7 or later')
    loaded = load(checkpoint({'a': tensor('U8', [1], 0, 1)}, b'x'), 'hip', '--verify')
    assert (loaded.code, loaded.summary['path']) == (0, 'bounce')
