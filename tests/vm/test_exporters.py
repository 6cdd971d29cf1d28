"""The exporters of the kernel: what each gives is loaded and saved byte by byte on both paths, and leaves nothing behind."""
import errno
import json
import os
import random
import re
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy
import pytest
from safetensors.numpy import save_file

import guest
from places import mount, served  # noqa: F401  (fixtures)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'unit'))
import checkpoints  # noqa: E402
from library import WHOLE_BLOCKS, Library  # noqa: E402
from library import Path as Way  # noqa: E402

MIB = 1 << 20
SIZE = 2 * MIB
CONTENT = random.Random(18).randbytes(MIB + 4567)
UNTOUCHED = 0xee
COMMAND = '/usr/bin/fuse-dmabuf'
HUGE_PAGES = Path('/sys/kernel/mm/hugepages/hugepages-2048kB')
SHARED_HUGE_PAGES = Path('/sys/kernel/mm/transparent_hugepage/shmem_enabled')
DMABUFS = Path('/sys/kernel/debug/dma_buf/bufinfo')


def fails(number, text=''):
    return pytest.raises(OSError, match=rf'^\[Errno {number}\].*{text}')


def count(name):
    return int((HUGE_PAGES / name).read_text())


@pytest.fixture(scope='session')
def library():
    return Library()


@pytest.fixture
def huge_pages():
    """Four of 2 MiB, all of which are free again afterwards."""
    (HUGE_PAGES / 'nr_hugepages').write_text('4')
    assert count('nr_hugepages') == 4
    yield
    assert (count('free_hugepages'), count('resv_hugepages'), count('surplus_hugepages')) == (4, 0, 0)
    (HUGE_PAGES / 'nr_hugepages').write_text('0')
    assert count('nr_hugepages') == 0


def dmabufs():
    return DMABUFS.read_text().splitlines()[-1]


@pytest.fixture
def nothing_left():
    """No dma-buf, and no descriptor of this process."""
    before = dmabufs(), set(os.listdir('/proc/self/fd'))
    yield
    assert (dmabufs(), set(os.listdir('/proc/self/fd'))) == before


# what: the name of the exporter
KINDS = {
    'memory': 'memory', 'memory:2M': 'memory', 'udmabuf': 'udmabuf', 'udmabuf:2M': 'udmabuf', 'heap': 'heap', 'drm:card0': 'drm', 'vfio': 'vfio',
}


@pytest.fixture(params=KINDS)
def what(request, nothing_left):
    """The text for each kind of memory."""
    if request.param.endswith(':2M'):
        request.getfixturevalue('huge_pages')
    return f'vfio:{request.getfixturevalue("vram")}' if request.param == 'vfio' else request.param


@pytest.fixture
def file(library, mount):
    (mount.source / 'file').write_bytes(CONTENT)
    os.sync()
    with library.file(bytes(mount.path / 'file'), os.O_RDWR) as file:
        yield file


@pytest.fixture(scope='module')
def model(served):
    source, name = numpy.random.default_rng(18), 'model.safetensors'
    save_file({'a': source.standard_normal((255, 333)).astype(numpy.float32), 'b': source.integers(0, 2, 1001).astype(bool)}, served.source / name)
    os.sync()
    return served.path / name


@pytest.mark.parametrize('way', ['direct', 'bounce'])
def test_checkpoint_is_loaded(model, what, way):
    if way == 'direct' and what.startswith('memory'):
        way = 'auto'
    loaded = checkpoints.load(COMMAND, model, what, '--path', way, '--verify')
    assert (loaded.code, loaded.error) == (0, '')
    assert loaded.summary['destination'] == what and loaded.summary['verified']
    if way == 'direct':
        assert loaded.summary['bytes_copied'] == 0


@pytest.mark.parametrize('way', [Way.AUTO, Way.BOUNCE])
def test_ranges_come_and_go(library, file, what, way):
    """Read at random places and written back elsewhere; nothing around them changes."""
    source, wanted = random.Random(3), bytearray(CONTENT)
    with library.allocate(what, SIZE) as buffer, library.queue(way) as queue:
        assert buffer.exporter == KINDS.get(what, 'vfio') and buffer.size == SIZE
        assert (buffer.fd >= 0) == (buffer.exporter != 'memory')
        for _ in range(4):
            start, length = source.randrange(MIB // 2), source.choice([1, 4096, source.randrange(300_000)])
            at = start % 4096 + 4096 * source.randrange(100)
            buffer.fill(UNTOUCHED)
            assert queue.read([(file, start, buffer, at, length)]) == length
            assert buffer.read(at, length) == wanted[start:start + length]
            around = buffer.read(0, at) + buffer.read(at + length, SIZE - at - length)
            assert around == bytes([UNTOUCHED]) * len(around)
            start = source.randrange(MIB // 8) * 4096 % (MIB // 2) + at % 4096
            assert queue.write([(file, start, buffer, at, length)]) == length
            wanted[start:start + length] = buffer.read(at, length)
            assert file.pread(len(wanted), 0) == wanted
        assert queue.read([(file, 0, buffer, 0, SIZE)], WHOLE_BLOCKS) == len(CONTENT)
        buffer.zero(100, 50)
        assert buffer.read(0, len(CONTENT)) == wanted[:100] + bytes(50) + wanted[150:]


def test_new_memory_has_no_bytes_of_others(library, what):
    if what.startswith('vfio'):
        pytest.skip('the content of a BAR stays')
    with library.allocate(what, SIZE) as buffer:
        assert buffer.read(0, SIZE) == bytes(SIZE)


def test_sizes_are_rounded_up_to_pages(library, huge_pages):
    for name, page in (('udmabuf', 4096), ('heap:system', 4096), ('drm', 4096), ('udmabuf:2M', 2 * MIB), ('memory:2M', 2 * MIB)):
        with library.allocate(name, 5000) as buffer:
            assert buffer.size == max(8192, page)


@pytest.mark.parametrize('exporter', ['udmabuf', 'memory'])
def test_huge_pages_that_are_not_reserved(library, exporter):
    """The command line in the text does what it says."""
    with fails(errno.ENOSPC, '3 huge pages of 2M are needed, 0 are free') as failure:
        library.allocate(f'{exporter}:2M', 5 * MIB)
    subprocess.run(['sh', '-ec', re.search(r'"(.*)"', str(failure.value)).group(1)], check=True)
    try:
        with library.allocate(f'{exporter}:2M', 5 * MIB) as buffer:
            assert buffer.size == 6 * MIB
            with fails(errno.ENOSPC, '1 huge pages of 2M are needed, 0 are free'):
                library.allocate(f'{exporter}:2M', 1)
            (HUGE_PAGES / 'nr_hugepages').write_text('4')
            with fails(errno.ENOSPC, '3 huge pages of 2M are needed, 1 are free: reserve them with "echo 6 >'):
                library.allocate(f'{exporter}:2M', 5 * MIB)
    finally:
        (HUGE_PAGES / 'nr_hugepages').write_text('0')
    assert count('nr_hugepages') == 0


@contextmanager
def shared_huge_pages(setting):
    before = re.search(r'\[(\w+)\]', SHARED_HUGE_PAGES.read_text()).group(1)
    SHARED_HUGE_PAGES.write_text(setting)
    try:
        yield
    finally:
        SHARED_HUGE_PAGES.write_text(before)


def transparent():
    return int(re.search(r'ShmemHugePages: +(\d+) kB', Path('/proc/meminfo').read_text()).group(1)) << 10


@pytest.mark.parametrize('setting, pages', [('never', 0), ('advise', 2), ('always', 2)])
def test_udmabuf_takes_transparent_huge_pages(library, setting, pages):
    before = transparent()
    with shared_huge_pages(setting), library.allocate('udmabuf', 4 * MIB) as buffer:
        buffer.fill(1)
        assert transparent() - before == pages * 2 * MIB


def card():
    return f'drm:{next(Path("/dev/dri").glob("card*")).name}'


def test_render_node_without_memory(library):
    node = next(Path('/dev/dri').glob('renderD*')).name
    with fails(errno.EINVAL, f'{node} is a render node, and vgem gives memory by its card node only: use drm:cardNUMBER'):
        library.allocate(f'drm:{node}', SIZE)


def test_dumb_buffer_has_less_than_four_gib(library):
    with fails(errno.ENOSPC, 'less than 4 GiB'):
        library.allocate('drm', 1 << 32)


def test_missing_heap_and_node(library):
    with fails(errno.ENODEV, 'no dma-heap cma: "ls /dev/dma_heap"'):
        library.allocate('heap:cma', SIZE)
    with fails(errno.ENODEV, 'no node /dev/dri/card63'):
        library.allocate('drm:card63', SIZE)


def listed(*words):
    """{what: entry}"""
    output = subprocess.run([*words, COMMAND, 'exporters', '--json'], text=True, stdout=subprocess.PIPE, check=True).stdout
    return {entry['what']: entry for entry in json.loads(output)['exporters']}


def test_exporters_of_this_machine(vram, huge_pages, nothing_left):
    entries = listed()
    vfio = f'vfio:{vram}'
    for name, dmabuf in (('memory', False), ('memory:2M', False), ('udmabuf', True), ('udmabuf:2M', True), ('heap:system', True),
                         (card(), True), (vfio, True)):
        assert (entries[name]['dmabuf'], entries[name]['error'], entries[name]['problem']) == (dmabuf, 0, '')
    bar = os.path.getsize(f'/sys/bus/pci/devices/{vram}/resource2')
    assert [entries[name]['bytes'] for name in ('memory:2M', 'udmabuf:2M', 'heap:system', card(), vfio)] == [8 * MIB, 8 * MIB, None, None, bar]
    assert entries['memory']['bytes'] > 64 * MIB and entries['udmabuf']['bytes'] > 64 * MIB
    assert entries[card()]['device'] == f'drm vgem {card()[4:]}'
    assert not any(name.startswith('drm:render') for name in entries)


def test_exporters_without_huge_pages():
    assert [name for name in listed() if name.endswith('M')] == []


def test_exporters_of_a_user_who_may_open_nothing(vram):
    """Each says which file to give this user access to."""
    entries = listed('setpriv', '--reuid=65534', '--regid=65534', '--clear-groups')
    assert entries['memory']['error'] == 0
    for name, file in (('udmabuf', '/dev/udmabuf'), ('heap:system', '/dev/dma_heap/system'), (card(), f'/dev/dri/{card()[4:]}'),
                       (f'vfio:{vram}', '/dev/vfio/')):
        assert entries[name]['error'] == -errno.EACCES and f'{file}' in entries[name]['problem']
        assert 'permission denied: run as root' in entries[name]['problem']
