"""What exporters say on a machine without their drivers, memory of the caller, and fuse-dmabuf exporters."""
import ctypes
import errno
import json
import mmap
import os
import random
import subprocess
from ctypes import c_bool, c_char_p, c_int, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path

import pytest

from checkpoints import sparse
from library import Buffer

MEMORY, UDMABUF, HEAP, DRM, VFIO, CUDA, HIP, IMPORT = range(8)
PAGE = mmap.PAGESIZE
HUGE_PAGES = Path('/sys/kernel/mm/hugepages')


class Memory(ctypes.Structure):
    _fields_ = [('size', c_size_t), ('exporter', c_int), ('number', c_uint32), ('bytes', c_uint64), ('device', c_char_p), ('page_size', c_uint64)]


class Info(ctypes.Structure):
    _fields_ = [('size', c_size_t), ('exporter', c_int), ('name', c_char_p), ('what', c_char_p), ('device', c_char_p), ('bytes', c_uint64),
                ('has_dmabuf', c_bool), ('error', c_int), ('text', c_char_p)]


LIST = ctypes.CFUNCTYPE(c_int, c_void_p, ctypes.POINTER(Info))


@pytest.fixture(scope='session')
def calls(build):
    """Functions that library.py does not need. A list looks for CUDA and HIP once in a process: other tests want the simulated ones."""
    for name in ('libcuda.so.1', 'libamdhip64.so.6'):
        ctypes.CDLL(str(build / 'tests/unit' / name))
    return ctypes.CDLL(str(build / 'src/libfuse-dmabuf/libfuse-dmabuf.so.1'))


@pytest.fixture
def create(calls, library):
    """create(exporter, bytes, ...): a buffer."""
    return lambda exporter, size, **members: Buffer(library, lambda handle: calls.fdmabuf_buffer_create(
        ctypes.byref(Memory(size=ctypes.sizeof(Memory), exporter=exporter, bytes=size, **members)), handle))


@pytest.fixture
def import_address(calls, library):
    return lambda exporter, address, size: Buffer(library, lambda handle: calls.fdmabuf_buffer_import_address(
        exporter, c_uint64(address), c_uint64(size), handle))


def fails(number, text=''):
    return pytest.raises(OSError, match=rf'^\[Errno {number}\].*{text}')


@pytest.fixture
def pages():
    """Eight pages of the test's own, in the middle of which is a hole of two."""
    memory = mmap.mmap(-1, 8 * PAGE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.munmap(c_void_p(address + 3 * PAGE), c_size_t(2 * PAGE)) == 0
    yield address
    # The object unmaps the whole when it ends, which is allowed with holes.


def test_memory_of_the_caller(import_address, library, tmp_path):
    """At any address and of any length; what is around it does not change, and it is still there afterwards."""
    content = random.Random(3).randbytes(100_001)
    (tmp_path / 'file').write_bytes(content)
    memory = ctypes.create_string_buffer(b'\xee' * 200_000, 200_000)
    address = ctypes.addressof(memory) + 77
    with import_address(MEMORY, address, len(content)) as buffer, library.file(bytes(tmp_path / 'file')) as file, library.queue() as queue:
        assert (buffer.size, buffer.fd, buffer.exporter, buffer.device_address) == (len(content), -1, 'memory', 0)
        assert queue.read([(file, 0, buffer, 0, len(content))]) == len(content)
        assert buffer.read(5, 10) == content[5:15]
        with fails(errno.EFAULT):
            buffer.read(len(content), 1)
    assert memory.raw == b'\xee' * 77 + content + b'\xee' * (200_000 - 77 - len(content))


def test_memory_that_is_not_there_is_not_imported(import_address, pages):
    for address, size in ((pages, 4 * PAGE), (pages + 2 * PAGE + 1, PAGE), (pages + 4 * PAGE, PAGE), (8, 16), (1 << 63, PAGE)):
        with fails(errno.EFAULT, 'not memory of this process'):
            import_address(MEMORY, address, size)
    for _ in range(2):   # the memory is still there when its buffer is freed
        import_address(MEMORY, pages, 3 * PAGE).close()
    import_address(MEMORY, pages + 6 * PAGE - 1, 2 * PAGE + 1).close()


def test_exporters_of_the_kernel_import_no_addresses(import_address, pages):
    for exporter in (UDMABUF, HEAP, DRM, VFIO, IMPORT, 99):
        with fails(errno.EINVAL):
            import_address(exporter, pages, PAGE)
    for address, size in ((pages, 0), (2**64 - 1, 2)):
        with fails(errno.EINVAL):
            import_address(MEMORY, address, size)


@pytest.mark.parametrize('what', ['memory:', 'memory:2', 'memory:2m', 'memory:2M ', 'memory:0M', 'memory:-2M', 'memory:+2M', 'memory: 2M', 'memory:x',
                                  'memory:99999999999999999999M', 'memory:2MB', 'memory:3M', 'memory:1K', 'udmabuf:2m', 'heap:', 'heap:.', 'heap:..',
                                  'heap:a/b', 'heap:../null', f'heap:{"a" * 300}', 'drm:', 'drm:card', 'drm:cardx', 'drm:card0/../null', 'drm:../null',
                                  'drm:controlD64', 'drm:card0-HDMI-A-1', 'drm:renderD', 'drm:0000:03:00', f'drm:card{"1" * 40}',
                                  'vfio:', 'vfio:000:03:00.0', 'vfio:0000:03:00.0x', 'vfio:123456789:03:00.0', 'vfio:0000:03:00', 'vfio:0000:03/00.0'])
def test_text_that_names_nothing(library, what):
    if what.startswith('drm:') and 'without libdrm' in problem_of(library, 'drm'):
        pytest.skip('built without libdrm')
    with fails(errno.EINVAL):
        library.allocate(what, PAGE)


def problem_of(library, what):
    try:
        library.allocate(what, PAGE).close()
    except OSError as error:
        return str(error)
    return ''


@pytest.mark.parametrize('address', ['0000:ff:1f.7', '10000:e1:00.0', '12345678:00:00.0'])
def test_domain_of_a_pci_device_has_four_digits_or_more(library, address):
    with fails(errno.ENODEV, f'no PCI device {address}'):
        library.allocate(f'vfio:{address}', PAGE)
    assert address in problem_of(library, f'drm:{address}')


@pytest.mark.parametrize('what, number, text', [
    ('heap', errno.EOPNOTSUPP, 'CONFIG_DMABUF_HEAPS'),
    ('udmabuf', errno.EOPNOTSUPP, 'modprobe udmabuf'),
    ('udmabuf:2M', errno.EOPNOTSUPP, 'modprobe udmabuf'),
])
def test_missing_driver_is_named(library, what, number, text):
    device = {'heap': '/dev/dma_heap', 'udmabuf': '/dev/udmabuf'}[what.split(':')[0]]
    if os.path.exists(device):
        pytest.skip('this machine has it')
    with fails(number, text):
        library.allocate(what, PAGE)


def test_missing_node_is_named(library):
    if 'without libdrm' in problem_of(library, 'drm'):
        pytest.skip('built without libdrm')
    with fails(errno.ENODEV, '/dev/dri/renderD191: "fuse-dmabuf exporters"'):
        library.allocate('drm:renderD191', PAGE)
    if not os.path.exists('/dev/dri'):
        with fails(errno.EOPNOTSUPP, 'no node in /dev/dri'):
            library.allocate('drm', PAGE)


def test_page_size_of_a_struct_is_a_power_of_two(create):
    for page_size in (1, PAGE // 2, PAGE + 1, 3 << 20):
        with fails(errno.EINVAL, 'no page has'):
            create(MEMORY, PAGE, page_size=page_size)
    with create(MEMORY, 5 * PAGE - 1, page_size=PAGE) as buffer:
        assert buffer.size == 5 * PAGE


def test_page_size_that_this_machine_lacks(library, create):
    with fails(errno.EOPNOTSUPP, 'no huge pages of 512G: "ls /sys/kernel/mm/hugepages"'):
        library.allocate('memory:512G', PAGE)
    with fails(errno.EINVAL, 'takes no page size'):
        create(HEAP, PAGE, page_size=2 << 20)


def test_huge_pages_that_are_not_reserved(library):
    """The cure in the text is what has to be written where."""
    directory = HUGE_PAGES / 'hugepages-2048kB'
    if not directory.exists() or int((directory / 'nr_overcommit_hugepages').read_text()):
        pytest.skip('this machine has no such pages, or makes them when they are asked for')
    reserved, free = (int((directory / name).read_text()) for name in ('nr_hugepages', 'free_hugepages'))
    with fails(errno.ENOSPC, rf'{free + 3} huge pages of 2M are needed, {free} are free: reserve them with '
                             rf'"echo {reserved + 3} > {directory}/nr_hugepages"'):
        library.allocate('memory:2M', ((free + 2) << 21) + 1)


def test_memory_asks_for_transparent_huge_pages(library):
    """Without them each page of a new buffer costs a fault."""
    setting = Path('/sys/kernel/mm/transparent_hugepage/enabled')
    if not setting.exists() or '[never]' in setting.read_text():
        pytest.skip('this machine has none')
    before = Path('/proc/self/smaps').read_text().count(' hg')
    with library.allocate('memory', 8 << 20):
        assert Path('/proc/self/smaps').read_text().count(' hg') == before + 1


def listed(calls):
    """What fdmabuf_exporters() tells: (exporter, name, what, bytes, has_dmabuf, error, text)."""
    seen = []

    def tell(_, info):
        info = info.contents
        assert info.size == ctypes.sizeof(Info)
        seen.append((info.exporter, info.name.decode(), info.what.decode(), info.bytes, info.has_dmabuf, info.error, info.text.decode()))
        return 0
    assert calls.fdmabuf_exporters(LIST(tell), None) == 0
    return seen


def test_each_exporter_is_listed(calls, library):
    """What is listed without an error can be allocated; what is not says why, and what to do."""
    seen = listed(calls)
    assert {MEMORY, UDMABUF, HEAP, DRM, VFIO} <= {entry[0] for entry in seen}
    for _exporter, name, what, size, has_dmabuf, error, text in seen:
        assert what == name or what.startswith(f'{name}:')
        assert bool(error) == bool(text) and '\n' not in text
        if error:
            assert error < 0 and size == 0 and not has_dmabuf
        elif name not in ('cuda', 'hip'):
            with library.allocate(what, PAGE if name != 'vfio' else 0) as buffer:
                assert (buffer.exporter, buffer.fd >= 0) == (name, has_dmabuf)
    assert next(entry for entry in seen if entry[2] == 'memory')[3] > 1 << 20


def test_list_ends_when_the_function_says_so(calls):
    seen = []

    @LIST
    def third(_, info):
        seen.append(info.contents.what)
        return 7 if len(seen) == 3 else 0
    assert (calls.fdmabuf_exporters(third, None), len(seen)) == (7, 3)


def run(command, *options):
    return subprocess.run([command, 'exporters', *options], text=True, capture_output=True, check=False)


def test_command_lists_what_the_library_lists(command, calls):
    finished = run(command, '--json')
    assert (finished.returncode, finished.stderr) == (0, '')
    entries = json.loads(finished.stdout)['exporters']
    # Another test may have loaded a simulated runtime into this process.
    assert [(entry['exporter'], entry['what'], entry['dmabuf'], entry['error'], entry['problem']) for entry in entries
            if entry['exporter'] not in ('cuda', 'hip')] == [
        (name, what, has_dmabuf, error, text) for _exporter, name, what, _size, has_dmabuf, error, text in listed(calls)
        if name not in ('cuda', 'hip')]
    assert all(entry['bytes'] is None or entry['bytes'] > 0 for entry in entries)


def test_command_prints_a_table(command):
    finished = run(command)
    assert (finished.returncode, finished.stderr) == (0, '')
    heading, *lines = finished.stdout.splitlines()
    assert heading.split() == ['WHAT', 'DEVICE', 'FREE', 'DMA-BUF', 'PROBLEM']
    entries = json.loads(run(command, '--json').stdout)['exporters']
    assert len(lines) == len(entries)
    problem = heading.index('PROBLEM')
    for line, entry in zip(lines, entries, strict=True):
        assert line.split()[0] == entry['what'] and line[problem:] == entry['problem']
        assert line[:problem].split()[-1] == ('-' if entry['error'] else 'yes' if entry['dmabuf'] else 'no')


@pytest.mark.parametrize('arguments', [['--jsn'], ['cuda'], ['--json', 'x']])
def test_command_refuses_what_it_does_not_know(command, arguments):
    finished = run(command, *arguments)
    assert (finished.returncode, finished.stdout, finished.stderr.count('\n')) == (2, '', 1)
    assert 'fuse-dmabuf exporters --help' in finished.stderr


def test_command_whose_output_is_lost_fails(command):
    with open('/dev/full', 'w') as full:
        assert subprocess.run([command, 'exporters'], stdout=full, stderr=subprocess.DEVNULL, check=False).returncode == 1


AMD, INTEL = '0000:03:00.0', '0000:04:00.0'
NODES = f'card0=ast@0000:02:00.0,card1=amdgpu@{AMD},renderD128=amdgpu@{AMD},card2=xe@{INTEL},renderD130=xe@{INTEL}'
VRAM = 64 << 20


@pytest.fixture
def gpus(build, monkeypatch):
    """gpus(nodes) lets the commands of this test see simulated-drm.c's nodes."""
    simulation = build / 'tests/unit/simulated-drm.so'
    if not simulation.exists():
        pytest.skip('built without libdrm_amdgpu')
    monkeypatch.setenv('LD_PRELOAD', str(simulation))
    return lambda nodes=NODES: monkeypatch.setenv('SIMULATED_DRM', nodes)


def nodes_of(command):
    entries = json.loads(run(command, '--json').stdout)['exporters']
    return [(entry['what'], entry['device'], entry['bytes'], entry['error'], entry['problem']) for entry in entries if entry['exporter'] == 'drm']


def test_nodes_that_give_memory_are_listed(command, gpus):
    """Each device once, by the kind of node that its driver gives memory by."""
    gpus()
    assert nodes_of(command) == [('drm:renderD128', f'drm amdgpu {AMD}', VRAM - (3 << 20), 0, ''),
                                 ('drm:renderD130', f'drm xe {INTEL}', VRAM - (1 << 20), 0, ''),
                                 ('drm:card0', 'drm ast 0000:02:00.0', None, 0, '')]


def test_nodes_that_give_none_say_why(command, gpus):
    gpus('renderD128=locked,renderD129=xe,card1=v3d')
    (locked, xe, v3d) = nodes_of(command)
    assert locked[0] == 'drm:renderD128' and locked[3] == -errno.EACCES and 'add this user to the group of the device' in locked[4]
    assert xe[:2] == ('drm:renderD129', 'drm xe renderD129') and xe[3] == -errno.ENODEV and 'no video memory' in xe[4]
    assert v3d[3] == -errno.EOPNOTSUPP and 'no dumb buffers' in v3d[4]


@pytest.fixture
def model(checkpoint):
    return checkpoint({'a': {'dtype': 'U8', 'shape': [300_007], 'data_offsets': [0, 300_007]}}, random.Random(7).randbytes(300_007))


@pytest.mark.parametrize('what', ['drm', 'drm:renderD128', f'drm:{AMD}', 'drm:renderD130', f'drm:{INTEL}', 'drm:card0', 'drm:0000:02:00.0'])
def test_video_memory_takes_a_checkpoint(load, gpus, model, what):
    """The simulation ends a program that calls a driver in the wrong way, or does not free."""
    gpus()
    loaded = load(model, what, '--verify')
    assert (loaded.code, loaded.error) == (0, '')


@pytest.mark.parametrize('what, text', [
    ('drm:renderD129', 'drm: no node /dev/dri/renderD129'),
    ('drm:card1', 'card1 is a card node, and amdgpu gives memory by its render node: use drm:renderDNUMBER'),
    ('drm:renderD131', 'renderD131 is a render node, and vgem gives memory by its card node only: use drm:cardNUMBER'),
    ('drm:0000:05:00.0', 'drm: PCI device 0000:05:00.0 has no node in /dev/dri that gives memory'),
    ('drm:renderD132', 'permission denied: run as root'),
])
def test_device_that_gives_no_memory(load, gpus, model, what, text):
    gpus(f'{NODES},renderD131=vgem,renderD132=locked')
    loaded = load(model, what)
    assert loaded.code == 2 and text in loaded.error and loaded.error.count('\n') == 1


def test_first_device_with_memory_is_taken(load, gpus, model):
    """Those that nobody may open, or without memory of their own, are passed over; if there is no other, the last error is told."""
    for others, code in ((',renderD130=xe', 0), ('', 2)):
        gpus(f'renderD128=locked,renderD129=xe{others}')
        loaded = load(model, 'drm', '--verify')
        assert loaded.code == code and ('no video memory' in loaded.error) == bool(code)


@pytest.mark.parametrize('what, text', [('drm:renderD128', 'switch on "Resizable BAR"'), ('drm:renderD130', 'has 64 MiB that other devices can reach')])
def test_video_memory_that_is_too_small(load, gpus, tmp_path, what, text):
    gpus()
    big = sparse(tmp_path / 'big.safetensors', VRAM + 1)
    loaded = load(big, what)
    assert loaded.code == 2 and text in loaded.error
