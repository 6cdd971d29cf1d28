"""fuse-dmabuf load: from a file on the mount straight into memory of a device."""
import errno
import json
import os
import pty
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
from safetensors.numpy import save_file

import guest
from fuse_server import FuseServer, refuse
from places import OwnMount, mount, served, wait_until  # noqa: F401  (fixtures)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'unit'))
import checkpoints  # noqa: E402
from checkpoints import small_tensors, sparse, tensor  # noqa: E402

MIB = 1 << 20
COMMAND = '/usr/bin/fuse-dmabuf'
# Requests that carry file data through the server: <linux/fuse.h> READ.
DATA = 'opcode == 15'


def load(file, into, *options):
    """.code, .summary, .error, .peak (bytes)"""
    return checkpoints.load(COMMAND, file, into, *options)


@pytest.fixture(params=['udmabuf', 'vfio'])
def into(request):
    """Each destination as the command names it."""
    if request.param == 'udmabuf':
        return 'udmabuf'
    return f'vfio:{request.getfixturevalue("vram")}'


@pytest.fixture(scope='module')
def model(served):
    """A checkpoint by the writer that everybody uses: some 2 MiB, several dtypes, no size a multiple of anything. .path on the
    mount, .source on ext4 behind it."""
    source, name = numpy.random.default_rng(1), 'model.safetensors'
    save_file({
        'embed': source.standard_normal((501, 333)).astype(numpy.float16),
        'layer.0': source.standard_normal((255, 1024)).astype(numpy.float32),
        'layer.1': source.standard_normal((127, 1023)).astype(numpy.float64),
        'ids': source.integers(-2**62, 2**62, 77),
        'mask': source.integers(0, 2, (13, 7)).astype(bool),
    }, served.source / name)
    os.sync()
    return SimpleNamespace(path=served.path / name, source=served.source / name, size=(served.source / name).stat().st_size)


def test_direct_from_the_mount_into_device_memory(model, vram, trace):
    with trace('fuse:fuse_request_send', key='opcode', where=DATA) as requests, \
         trace('nvme:nvme_setup_cmd', key='opcode', where='qid > 0 && opcode == 2') as commands, \
         trace('dmabuf_token:dmabuf_token_release', sums=['read_bytes']) as tokens:
        loaded = load(model.path, f'vfio:{vram}', '--path', 'direct')
    assert (loaded.code, loaded.error) == (0, '')
    assert loaded.summary['path'] == 'direct' and loaded.summary['reason'] == ''
    assert (loaded.summary['bytes'], loaded.summary['bytes_direct'], loaded.summary['bytes_copied']) == (model.size, model.size, 0)
    assert loaded.summary['tokens'] == 1
    # Eight blocks came twice, to prove the path.
    assert (tokens.hits, tokens.sums['read_bytes'] // 4096) == (1, model.size // 4096 + 8)
    assert loaded.summary['proof'] == 'proven'
    assert commands.hits >= model.size // (512 * 1024)
    # The header is read in the ordinary way, which passes by the server as well.
    assert requests.hits == 0


@pytest.mark.parametrize('words', ['', 'unordered'])
def test_direct_into_memory_of_a_gpu(model, monkeypatch, words):
    """tests/unit/simulated-cuda.c, whose memory is a udmabuf. Unordered: what came by DMA is seen after a flush."""
    monkeypatch.setenv('LD_LIBRARY_PATH', '/usr/lib/bed')
    monkeypatch.setenv('SIMULATED_CUDA', words)
    loaded = load(model.path, 'cuda', '--path', 'direct', '--verify')
    assert (loaded.code, loaded.error) == (0, '')
    assert (loaded.summary['bytes_direct'], loaded.summary['bytes_copied']) == (model.size, 0)


@pytest.mark.parametrize('options', [(), ('--depth', 1, '--chunk', '64K'), ('--depth', 64, '--chunk', '64M')])
def test_direct_bytes_are_right(model, into, options):
    loaded = load(model.path, into, '--path', 'direct', '--verify', *options)
    assert (loaded.code, loaded.error) == (0, '')
    assert loaded.summary['verified'] and loaded.summary['retries'] == 0


def test_bounce_bytes_are_right(model, into):
    loaded = load(model.path, into, '--path', 'bounce', '--verify')
    assert (loaded.code, loaded.error) == (0, '')
    assert (loaded.summary['path'], loaded.summary['reason']) == ('bounce', 'bounce was asked for')
    assert (loaded.summary['bytes_copied'], loaded.summary['bytes_direct'], loaded.summary['tokens']) == (model.size, 0, 0)


def test_direct_from_ext4_without_a_server(model, into):
    loaded = load(model.source, into, '--path', 'direct', '--verify')
    assert (loaded.code, loaded.summary['bytes_copied']) == (0, 0)


@pytest.fixture
def scripted(served, tmp_path):
    """Mounts the directory with a server whose broker does what a test says: scripted(refuse(EPERM)) is the mount's path."""
    with ExitStack() as stack:
        yield lambda broker: stack.enter_context(FuseServer(served.source, tmp_path, broker)) and tmp_path


# what the broker does: the reason that the command gives
REFUSALS = {
    'knows no tokens': (errno.ENOSYS, 'the FUSE server or its backing filesystem has no dma-buf tokens for this file'),
    'forbids it': (errno.EPERM, 'broker refused: Operation not permitted'),
    'has no bytes left': (errno.EDQUOT, 'broker refused: Disk quota exceeded'),
}


@pytest.mark.parametrize('refusal', REFUSALS)
def test_refused_token_means_direct_io_with_the_same_bytes(scripted, model, refusal):
    number, reason = REFUSALS[refusal]
    path = scripted(refuse(number)) / model.path.name
    loaded = load(path, 'udmabuf', '--verify')
    assert (loaded.code, loaded.error) == (0, '')
    assert (loaded.summary['path'], loaded.summary['reason']) == ('direct-io', reason)
    assert loaded.summary['bytes_direct_io'] + loaded.summary['bytes_cached'] == model.size
    assert loaded.summary['bytes_copied'] == loaded.summary['bytes_cached']

    loaded = load(path, 'udmabuf', '--path', 'direct')
    assert (loaded.code, loaded.error) == (2, f'fuse-dmabuf: {path}: direct path impossible: {reason}\n')


def test_file_that_is_not_on_nvme_gets_no_token(model, tmp_path):
    copy = tmp_path / 'copy.safetensors'
    copy.write_bytes(model.source.read_bytes())
    loaded = load(copy, 'udmabuf', '--verify')
    assert (loaded.code, loaded.summary['bytes_direct']) == (0, 0) and loaded.summary['path'] in ('direct-io', 'bounce')
    assert loaded.summary['reason'] in ('the filesystem or its device has no dma-buf tokens for this file', 'file is not O_DIRECT capable')


def test_ten_thousand_tensors(mount, into):
    small_tensors(mount.source / 'many.safetensors', 10_000)
    loaded = load(mount.path / 'many.safetensors', into, '--path', 'direct', '--verify')
    assert (loaded.code, loaded.summary['tensors'], loaded.summary['bytes_copied']) == (0, 10_000, 0)
    assert loaded.summary['retries'] == 0


@pytest.mark.parametrize('path', ['direct', 'bounce'])
def test_memory_besides_the_destination_is_bounded(mount, vram, path):
    """The BAR is no memory of the process, so the whole peak counts."""
    sparse(mount.source / 'big.safetensors', 80 * MIB)
    loaded = load(mount.path / 'big.safetensors', f'vfio:{vram}', '--path', path, '--depth', 256, '--chunk', '16M')
    assert (loaded.code, loaded.error) == (0, '')
    assert loaded.peak < 64 * MIB


def test_holes_are_zeros(mount, into):
    """A tensor without blocks on the disk between two that have some, and one whose blocks are reserved but unwritten."""
    parts = [numpy.random.default_rng(i).bytes(70_000) for i in range(3)]
    gap = MIB + 5000
    data = parts[0] + bytes(gap) + parts[1] + bytes(gap) + parts[2]
    header, position = {}, 0
    for name, length in (('a', 70_000), ('hole', gap), ('b', 70_000), ('unwritten', gap), ('c', 70_000)):
        header[name] = tensor('U8', [length], position, position + length)
        position += length
    path = mount.source / 'holes.safetensors'
    path.write_bytes(checkpoints.encode(header, data))
    begin = path.stat().st_size - len(data)
    guest.run('fallocate', '--punch-hole', '-o', begin + 70_000, '-l', gap, path)
    guest.run('fallocate', '--zero-range', '-o', begin + 140_000 + gap, '-l', gap, path)
    os.sync()
    loaded = load(mount.path / path.name, into, '--path', 'direct', '--verify')
    assert (loaded.code, loaded.error) == (0, '')
    assert loaded.summary['bytes_zeroed'] >= 2 * MIB and loaded.summary['bytes_copied'] == 0


def test_data_still_in_the_page_cache(mount, model):
    """Written through the mount and not yet on the disk."""
    copy = mount.path / 'fresh.safetensors'
    copy.write_bytes(model.source.read_bytes())
    assert load(copy, 'udmabuf', '--path', 'direct', '--verify').code == 0


def test_device_that_is_not_bound_to_vfio_pci(model, nvme):
    loaded = load(model.path, f'vfio:{nvme.pci}')
    assert loaded.code == 2 and loaded.error.count('\n') == 1
    assert f'{nvme.pci} is bound to nvme, not to vfio-pci: bind it with "echo vfio-pci > ' in loaded.error


def test_cure_for_an_unbound_device_works(model, vram):
    """The command line in the message does what it says."""
    driver = Path(f'/sys/bus/pci/devices/{vram}/driver')
    (driver / 'unbind').write_text(vram)
    try:
        loaded = load(model.path, f'vfio:{vram}')
        assert loaded.code == 2 and f'{vram} is bound to no driver: bind it with' in loaded.error
        cure = re.search(r'"(.*)"', loaded.error).group(1).split('; ', 1)[1]   # vfio-pci is built in: no modprobe
        subprocess.run(['sh', '-ec', cure], check=True)
        assert load(model.path, f'vfio:{vram}', '--verify').code == 0
    finally:
        guest.bind_vfio(vram)


def test_destination_too_small(ext4, vram):
    loaded = load(sparse(ext4 / 'big.safetensors', 4096 * MIB), f'vfio:{vram}')
    assert loaded.code == 2 and loaded.error.count('\n') == 1
    assert re.search(rf'BAR 2 of {vram} has \d+ MiB, 4097 MiB are needed: choose a device with a bigger BAR', loaded.error)


def test_udmabuf_beyond_its_limit_names_the_switch(ext4):
    limit = Path('/sys/module/udmabuf/parameters/size_limit_mb')
    usual = limit.read_text()
    limit.write_text('8')
    try:
        loaded = load(sparse(ext4 / 'big.safetensors', 16 * MIB), 'udmabuf')
    finally:
        limit.write_text(usual)
    assert loaded.code == 2
    assert f'more than its limit of 8 MiB: raise it with "echo 17 > {limit}"' in loaded.error


def test_destination_in_use(model, vram):
    group = next(Path('/dev/vfio').glob('*[0-9]'))
    holder = os.open(group, os.O_RDWR)
    try:
        loaded = load(model.path, f'vfio:{vram}')
    finally:
        os.close(holder)
    assert loaded.code == 2 and 'in use: end the program that has device' in loaded.error


def start_slowly(file, into, *options):
    """Starts a load of many small requests on a terminal; returns when its progress bar is seen."""
    terminal, end = pty.openpty()
    process = subprocess.Popen([COMMAND, 'load', file, '--into', into, '--path', 'direct', '--chunk', '4K', '--depth', '2',
                                *map(str, options)],
                               stdout=subprocess.PIPE, stderr=end)
    os.close(end)
    read_until(terminal, b'loading')
    return process, terminal


def read_until(terminal, words):
    seen = b''
    while words not in seen:
        seen += os.read(terminal, 4096)


def rest_of(terminal):
    seen = b''
    try:
        while True:
            seen += os.read(terminal, 4096)
    except OSError:   # EIO: the other end is closed
        os.close(terminal)
    return seen.decode()


@pytest.fixture
def own_mount(ext4, tmp_path):
    """A mount that the test may end, with a checkpoint that takes a while: .file."""
    size = 24 * MIB
    (ext4 / 'long.safetensors').write_bytes(checkpoints.encode({'a': tensor('U8', [size], 0, size)}, os.urandom(size)))
    os.sync()
    own = OwnMount(ext4, tmp_path / 'mount')
    own.file = own.path / 'long.safetensors'
    yield own
    own.end()


def test_interrupt_leaves_nothing_behind(own_mount, into):
    process, terminal = start_slowly(own_mount.file, into)
    process.send_signal(signal.SIGINT)
    seen = rest_of(terminal)
    assert process.wait() == 130
    assert process.stdout.read() == b''
    process.stdout.close()
    assert 'fuse-dmabuf: interrupted by Interrupt' in seen
    # The device and the file are free again at once, and so is the mount.
    assert load(own_mount.file, into, '--chunk', '4M').code == 0
    guest.unmount(own_mount.path)


def end_of(process, terminal):
    """Exit code, what it said on the terminal, and the summary."""
    seen, output = rest_of(terminal), process.stdout.read()
    process.stdout.close()
    return process.wait(), seen, json.loads(output) if output else None


@pytest.mark.parametrize('wait, said', [(0, 'has ended: mount it again'), (1, 'has not returned within 1000 ms')])
def test_server_that_dies_for_good_is_an_error_in_one_line(own_mount, wait, said):
    process, terminal = start_slowly(own_mount.file, 'udmabuf', '--wait', wait)
    own_mount.kill()
    code, seen, summary = end_of(process, terminal)
    assert (code, summary) == (1, None)
    assert said in seen and seen.count('fuse-dmabuf:') == 1


def test_server_that_dies_and_returns_does_no_harm(own_mount, into):
    process, terminal = start_slowly(own_mount.file, into, '--wait', 60, '--verify', '--json')
    own_mount.kill()
    read_until(terminal, b'waiting for the mount')
    own_mount.take_away()
    own_mount.mount()
    code, seen, summary = end_of(process, terminal)
    assert code == 0 and 'fuse-dmabuf:' not in seen
    assert summary | {'path': 'direct', 'reason': '', 'bytes_copied': 0, 'tokens': 2, 'reopens': 1, 'verified': True} == summary


def test_returned_mount_is_in_the_line_of_the_summary(own_mount):
    process, terminal = start_slowly(own_mount.file, 'udmabuf', '--wait', 60)
    own_mount.restart()
    rest_of(terminal)
    with process.stdout:
        assert ', 2 tokens, went on after its mount had gone and returned' in process.stdout.read().decode()
    assert process.wait() == 0


def revoke(own_mount):
    """The one token that there is, or soon will be, and none that comes after it."""
    live = []

    def there_is_one():
        tokens = json.loads(guest.run('fuse-dmabuf', 'status', own_mount.path, '--json'))['mounts'][0]['tokens']
        live[:] = [token['id'] for token in tokens if not token['revoked']]
        return live
    wait_until(there_is_one)
    assert guest.run('fuse-dmabuf', 'revoke', own_mount.path, '--token', live[0]).startswith('1 ')


def test_revoked_token_is_made_again_once(own_mount):
    process, terminal = start_slowly(own_mount.file, 'udmabuf', '--verify', '--json')
    revoke(own_mount)
    code, _, summary = end_of(process, terminal)
    assert code == 0
    assert summary | {'path': 'direct', 'bytes_copied': 0, 'tokens': 2, 'reopens': 0, 'verified': True} == summary
    process, terminal = start_slowly(own_mount.file, 'udmabuf')
    revoke(own_mount)
    revoke(own_mount)
    code, seen, _ = end_of(process, terminal)
    assert code == 1 and re.search('the broker ended the token and gave no new one: the (next token was revoked as well|new token was revoked at once)', seen)
