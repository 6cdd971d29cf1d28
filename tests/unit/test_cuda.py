"""Memory of an NVIDIA GPU as a destination; test_gpu.py has what CUDA and HIP have in common. Without a GPU against simulated-cuda.c; FUSE_DMABUF_CUDA=real takes the machine's own driver and GPU,
and then what only a simulated one can be told to do is left out."""
import ctypes
import errno
import os
import random
import re

import pytest

from checkpoints import encode, sparse, tensor
from gpu import REAL, Cuda
from library import Exporter, Path, Reason

MIB = 1 << 20
CONTENT = random.Random(7).randbytes(5 * MIB + 4567)

simulated_only = pytest.mark.skipif(REAL, reason='a real driver cannot be told to do this')


@pytest.fixture(autouse=True)
def cuda(build, monkeypatch):
    """Programs that are started find the driver; in this process its name leads to the one that is there."""
    return Cuda(build / 'tests/unit', monkeypatch)


@pytest.fixture
def different(cuda):
    return cuda.words


@pytest.fixture
def path(tmp_path):
    (tmp_path / 'file').write_bytes(CONTENT)
    return tmp_path / 'file'


@pytest.fixture
def model(tmp_path):
    (tmp_path / 'model.safetensors').write_bytes(encode({'a': tensor('U8', [len(CONTENT)], 0, len(CONTENT))}, CONTENT))
    return tmp_path / 'model.safetensors'


def open_descriptors():
    return len(os.listdir('/proc/self/fd'))


def test_buffer_is_memory_of_the_gpu_and_a_dmabuf(library):
    with library.allocate('cuda', 5 * MIB + 1) as buffer:
        assert (buffer.exporter, buffer.size) == ('cuda', 5 * MIB + 4096)
        assert buffer.device_address and buffer.device_address % 4096 == 0
        assert os.lseek(buffer.fd, 0, os.SEEK_END) >= buffer.size and not os.get_inheritable(buffer.fd)
    with library.allocate('memory', 1) as buffer:
        assert buffer.device_address == 0


def test_copies_and_zeroing_are_done_when_they_return(library):
    with library.allocate('cuda', 3 * MIB) as buffer:
        buffer.fill(0xee)
        buffer.write(12345, CONTENT[:MIB])
        buffer.zero(12345 + 77, 1000)
        assert buffer.read(12345, MIB) == CONTENT[:77] + bytes(1000) + CONTENT[1077:MIB]
        assert buffer.read(12344, 1) + buffer.read(12345 + MIB, 1) == b'\xee\xee'
        assert buffer.read(7, 0) == b''
        with pytest.raises(OSError) as failure:
            buffer.write(3 * MIB - 10, bytes(11))
        assert failure.value.errno == errno.EFAULT


def test_a_small_buffer_begins_with_a_page(library):
    buffers = [library.allocate('cuda', 4096) for _ in range(5)]
    for i, buffer in enumerate(buffers):
        buffer.write(0, bytes([i]) * 4096)
    assert [buffer.device_address % 4096 for buffer in buffers] == [0] * 5
    assert [buffer.read(0, 4096) for buffer in buffers] == [bytes([i]) * 4096 for i in range(5)]
    for buffer in buffers:
        buffer.close()


@simulated_only
def test_an_allocation_in_the_middle_of_a_page(library, different):
    different('odd')
    with library.allocate('cuda', 3 * 4096) as buffer:
        assert buffer.device_address % 4096 == 0 and buffer.fd >= 0
        buffer.write(0, CONTENT[:3 * 4096])
        assert buffer.read(0, 3 * 4096) == CONTENT[:3 * 4096]


def test_bounce_brings_the_bytes_of_any_range(library, path):
    with library.file(path) as file, library.allocate('cuda', 6 * MIB) as buffer, library.channel(file, buffer, Path.BOUNCE) as channel:
        buffer.fill(0xee)
        for file_offset, at, length in (0, 0, len(CONTENT)), (12345, 100, 70001), (4096, 4096, 4096), (1, 5 * MIB, MIB):
            assert channel.read(file_offset, at, length) == length
            assert buffer.read(at, length) == CONTENT[file_offset:file_offset + length]


def test_why_it_bounces(library, path):
    """What the kernel says, here one without tokens, and not that the buffer has no dma-buf."""
    with library.file(path) as file, library.allocate('cuda', 6 * MIB) as buffer, library.channel(file, buffer) as channel:
        assert (channel.path, channel.reason) in ((Path.BOUNCE, Reason.KERNEL), (Path.BOUNCE, Reason.NOT_DIRECT))


def test_load_verifies(model, load):
    loaded = load(model, 'cuda', '--verify')
    assert (loaded.code, loaded.error) == (0, '')
    assert (loaded.summary['destination'], loaded.summary['path'], loaded.summary['verified']) == ('cuda', 'bounce', True)
    assert loaded.summary['bytes'] == model.stat().st_size


def test_bounce_memory_is_given_back(library, path):
    with library.file(path) as file:
        before = open_descriptors()
        for _ in range(30):
            with library.allocate('cuda', 6 * MIB) as buffer, library.channel(file, buffer, Path.BOUNCE) as channel:
                assert channel.read(0, 0, len(CONTENT)) == len(CONTENT)
        assert open_descriptors() <= before + (20 if REAL else 0)   # a real driver opens some of its own the first time


@simulated_only
@pytest.mark.parametrize('words', ['no-pin', 'no-dmabuf', 'no-export', 'pcie', 'unordered', 'unordered no-flush', 'odd', 'mapped'])
def test_load_on_other_machines(model, load, different, words):
    different(words)
    loaded = load(model, 'cuda:1', '--verify')
    assert (loaded.code, loaded.error) == (0, '')


@simulated_only
@pytest.mark.parametrize('words, why', [('no-dmabuf', r'Simulated GPU 0\) exports no dma-buf: it needs NVIDIA'),
                                        ('no-export', r'Simulated GPU 0\) exports no dma-buf: operation not supported')])
def test_without_a_dmabuf_it_says_why(library, path, different, words, why):
    different(words)
    with library.file(path) as file, library.allocate('cuda', 6 * MIB) as buffer:
        assert buffer.fd == -1
        with library.channel(file, buffer) as channel:
            assert (channel.path, channel.reason) == (Path.BOUNCE, Reason.NO_DMABUF)
            assert re.search(why, channel.reason_text)
        with pytest.raises(OSError, match=why):
            library.channel(file, buffer, Path.DIRECT)


@simulated_only
def test_the_flag_for_the_bar_is_used_where_it_is_needed(library, different):
    different('pcie')
    with library.allocate('cuda', 4096) as buffer:
        assert buffer.fd >= 0


@simulated_only
def test_errors_of_the_driver_are_told(library, path, different):
    with library.file(path) as file, library.allocate('cuda', 6 * MIB) as buffer, library.channel(file, buffer, Path.BOUNCE) as channel:
        different('broken')
        with pytest.raises(OSError, match='copying to 0000:0a:00.0 .Simulated GPU 0.: an illegal memory access was encountered .CUDA error 700') as failure:
            channel.read(0, 0, MIB)
        assert failure.value.errno == errno.EIO
        for call in lambda: buffer.zero(0, 1), lambda: buffer.read(0, 1):
            with pytest.raises(OSError, match='CUDA error 700'):
                call()
        different('')
        assert channel.read(0, 0, MIB) == MIB and buffer.read(0, MIB) == CONTENT[:MIB]


def test_devices_that_are_not_there(library):
    for what, number, text in (('cuda:99', errno.ENODEV, 'device 99 .*nvidia-smi -L'), ('cuda:0000:ff:1f.7', errno.ENODEV, 'nvidia-smi -L'),
                               ('cuda:first', errno.EINVAL, 'write cuda:NUMBER'), ('cuda:', errno.EINVAL, 'write cuda:NUMBER'),
                               ('cuda:-1', errno.EINVAL, 'write cuda:NUMBER'), ('cuda:99999999999999999999', errno.EINVAL, 'write cuda:NUMBER')):
        with pytest.raises(OSError, match=text) as failure:
            library.allocate(what, 4096)
        assert failure.value.errno == number, what


def test_a_device_by_its_pci_address(library):
    address = '0000:03:00.0'
    if REAL:
        vendor = next(device for device in os.scandir('/sys/bus/pci/drivers/nvidia') if device.name.count(':') == 2)
        address = vendor.name
    with library.allocate(f'cuda:{address}', 4096) as buffer:
        assert buffer.exporter == 'cuda'


@simulated_only
def test_without_a_gpu(library, different):
    different('no-device')
    with pytest.raises(OSError, match='no CUDA-capable device is detected') as failure:
        library.allocate('cuda', 4096)
    assert failure.value.errno == errno.ENODEV


def test_more_than_the_gpu_has(tmp_path, library, load):
    with pytest.raises(OSError, match=r'MiB free of \d+ MiB, 104857600 MiB are needed') as failure:
        library.allocate('cuda', 100 << 40)
    assert failure.value.errno == errno.ENOSPC
    loaded = load(sparse(tmp_path / 'big.safetensors', 200 << 30), 'cuda')
    assert (loaded.code, loaded.error.count('\n')) == (2, 1)
    assert 'are needed: end programs that use the device, or choose another device' in loaded.error


def test_no_size_is_told(library):
    with pytest.raises(OSError, match='cuda: give a size') as failure:
        library.allocate('cuda', 0)
    assert failure.value.errno == errno.EINVAL


@simulated_only
def test_without_a_driver(model, load, monkeypatch):
    monkeypatch.delenv('LD_LIBRARY_PATH')
    loaded = load(model, 'cuda')
    assert (loaded.code, loaded.error.count('\n')) == (2, 1)
    assert "install NVIDIA's driver" in loaded.error


def test_a_part_of_whole_pages_has_a_dmabuf(library, cuda):
    with cuda.memory(4 * MIB) as address, library.import_address(cuda.exporter, address + MIB, 2 * MIB) as buffer:
        assert buffer.fd >= 0


@simulated_only
def test_a_range_may_consist_of_mappings_side_by_side(library, cuda, different):
    """Memory of cuMemMap(), as of PyTorch's expandable segments."""
    different('mapped')
    with cuda.memory(MIB) as address:
        with library.import_address(cuda.exporter, address + 4096, 100 * 4096) as buffer:
            assert buffer.fd >= 0
            buffer.write(0, CONTENT[:100 * 4096])
            assert buffer.read(0, 100 * 4096) == CONTENT[:100 * 4096]
        with pytest.raises(OSError, match='there is no memory at') as failure:
            library.import_address(cuda.exporter, address, 2 * MIB)
        assert failure.value.errno == errno.EFAULT


def test_memory_of_another_context_is_used_in_it(library, cuda):
    context, popped = ctypes.c_void_p(), ctypes.c_void_p()
    cuda.call('cuInit', 0)
    cuda.call('cuCtxCreate_v2', ctypes.byref(context), 0, 0)
    address = cuda.allocate(4 * MIB)
    cuda.call('cuCtxPopCurrent_v2', ctypes.byref(popped))
    with library.import_address(Exporter.CUDA, address, 4 * MIB) as buffer:
        buffer.write(5, CONTENT[:MIB])
        assert buffer.read(5, MIB) == CONTENT[:MIB]
    cuda.call('cuCtxPushCurrent_v2', context)
    cuda.free(address)
    cuda.call('cuCtxPopCurrent_v2', ctypes.byref(popped))
    cuda.call('cuCtxDestroy_v2', context)
