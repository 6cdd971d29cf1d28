"""fuse-dmabuf load, as far as it goes without a special kernel: into host memory, by the bounce path."""
import os
import pty
import random
import re
import signal
import subprocess
import time

import numpy
import pytest
from safetensors.numpy import save_file

from checkpoints import encode, sparse, tensor

MIB = 1 << 20


@pytest.fixture
def model(tmp_path):
    """A file by the writer that everybody uses: several dtypes, 5 MiB and some."""
    source, path = numpy.random.default_rng(1), tmp_path / 'model.safetensors'
    save_file({
        'embed': source.standard_normal((1000, 333)).astype(numpy.float16),
        'layer.0': source.standard_normal((512, 1024)).astype(numpy.float32),
        'layer.1': source.standard_normal((256, 1024)).astype(numpy.float64),
        'ids': source.integers(-2**62, 2**62, 77),
        'mask': source.integers(0, 2, (13, 7)).astype(bool),
        'scalar': numpy.array(3.5),
    }, path, metadata={'format': 'pt'})
    return path


def test_summary_tells_what_was_done(model, load):
    loaded = load(model, 'memory', '--verify')
    size = model.stat().st_size
    assert (loaded.code, loaded.error) == (0, '')
    assert loaded.summary | {'file': str(model), 'destination': 'memory', 'path': 'direct-io', 'tensors': 6, 'bytes': size, 'bytes_copied': size,
                             'bytes_cached': size, 'bytes_direct_io': 0, 'requests': 0, 'bytes_direct': 0, 'bytes_zeroed': 0, 'tokens': 0, 'reopens': 0, 'verified': True,
                             'reason': 'the buffer is ordinary memory, not a dma-buf'} == loaded.summary
    assert loaded.summary['seconds'] > 0 and loaded.summary['bytes_per_second'] > 0
    assert loaded.summary['user_seconds'] >= 0 and loaded.summary['system_seconds'] >= 0


def test_summary_is_one_line_without_json(model, command):
    output = subprocess.run([command, 'load', model, '--into', 'memory'], check=True, text=True, capture_output=True)
    assert output.stderr == ''
    assert re.fullmatch(r'.*: 6 tensors, \d+ bytes into memory by the direct-io path \(the buffer is ordinary memory.*\), .* MiB/s, CPU .*\n',
                        output.stdout)


@pytest.mark.parametrize('options', [('--depth', 1, '--chunk', '4K'), ('--depth', 256, '--chunk', '64M'), ('--chunk', '12288'), ('--depth', 3)])
def test_any_depth_and_chunk_give_the_same_bytes(model, load, options):
    loaded = load(model, 'memory', '--verify', *options)
    assert (loaded.code, loaded.summary['bytes']) == (0, model.stat().st_size)


def test_name_of_the_file_need_not_be_text(model, load):
    odd = model.with_name(os.fsdecode(b'\xff\x01'))
    model.rename(odd)
    loaded = load(odd)
    assert (loaded.code, loaded.summary['file']) == (0, None)


def test_file_that_ends_in_a_block_is_taken(checkpoint, load):
    data = random.Random(3).randbytes(MIB + 1)
    loaded = load(checkpoint({'a': tensor('U8', [len(data)], 0, len(data))}, data), 'memory', '--verify')
    assert loaded.code == 0


def test_memory_besides_the_destination_is_bounded(tmp_path, load):
    size = 512 * MIB
    loaded = load(sparse(tmp_path / 'big.safetensors', size), 'memory', '--depth', 256, '--chunk', '1G')
    assert loaded.code == 0
    assert loaded.peak - size < 64 * MIB


# arguments: part of the message
BAD_USAGE = {
    '': 'give one FILE',
    'FILE': 'give a destination',
    'FILE FILE --into memory': 'give one FILE',
    'FILE --into': '--into needs a value',
    'FILE --into floppy': 'no such exporter',
    'FILE --into memory:1': 'is not the size of a huge page',
    'FILE --into udmabuf:1': 'is not the size of a huge page',
    'FILE --into vfio': 'write vfio:DOMAIN:BUS:DEV.FN',
    'FILE --into vfio:03:00.0': 'write vfio:DOMAIN:BUS:DEV.FN',
    'FILE --into vfio:0000:03:00.0/../..': 'write vfio:DOMAIN:BUS:DEV.FN',
    'FILE --into vfio:ffff:ff:1f.7': 'lspci -D',
    'FILE --into memory --path both': 'use auto, direct or bounce',
    'FILE --into memory --path direct': 'direct path impossible: the buffer is ordinary memory',
    'FILE --into memory --depth 0': 'from 1 to 256',
    'FILE --into memory --depth 257': 'from 1 to 256',
    'FILE --into memory --depth -1': 'from 1 to 256',
    'FILE --into memory --depth many': 'from 1 to 256',
    'FILE --into memory --proof twice': 'once, always or never',
    'FILE --into memory --copy-threads 257': 'from 0 to 256',
    'FILE --into memory --chunk 5000': 'multiple of 4K',
    'FILE --into memory --chunk 2G': 'up to 1024M',
    'FILE --into memory --chunk 99999999999999999999G': 'multiple of 4K',
    'FILE --into memory --chunk 17179869184G': 'multiple of 4K',
    'FILE --into memory --chunk 1T': 'multiple of 4K',
    'FILE --into memory --wait': '--wait needs a value',
    'FILE --into memory --wait 3601': 'from 0 to 3600',
    'FILE --into memory --wait 0.5': 'from 0 to 3600',
    'FILE --into memory --wait -1': 'from 0 to 3600',
    'FILE --into memory --speed': '--speed: unknown option',
}


@pytest.mark.parametrize('arguments', BAD_USAGE)
def test_bad_usage_is_one_line(model, command, arguments):
    words = [str(model) if word == 'FILE' else word for word in arguments.split()]
    result = subprocess.run([command, 'load', *words], text=True, capture_output=True)
    assert (result.returncode, result.stdout) == (2, '')
    assert result.stderr.startswith('fuse-dmabuf: ') and result.stderr.count('\n') == 1
    assert BAD_USAGE[arguments] in result.stderr


def test_help_and_version(command):
    def output(*words):
        return subprocess.run([command, *words], check=True, text=True, capture_output=True).stdout
    assert 'fuse-dmabuf load FILE' in output('load', '--help') and 'load' in output('--help') == output('-h')
    assert re.fullmatch(r'fuse-dmabuf \d+\.\d+\.\d+\n', output('--version'))
    assert subprocess.run([command], capture_output=True).returncode == 2
    assert b'no command "save"' in subprocess.run([command, 'save'], capture_output=True).stderr


def test_missing_file(tmp_path, load):
    loaded = load(tmp_path / 'none')
    assert (loaded.code, loaded.error) == (2, f'fuse-dmabuf: {tmp_path}/none: no such file\n')


@pytest.mark.parametrize('make', [os.mkdir, os.mkfifo])
def test_neither_file_nor_device(tmp_path, load, make):
    make(tmp_path / 'odd')
    loaded = load(tmp_path / 'odd')
    assert loaded.code == 2 and 'neither a regular file nor a block device' in loaded.error


def test_no_permission(model, command):
    model.chmod(0)
    for directory in (model.parent, *model.parent.parents):
        if directory.is_relative_to('/tmp') and directory.name:
            directory.chmod(0o755)
    result = subprocess.run([command, 'load', model, '--into', 'memory'], text=True, capture_output=True, user=65534)
    assert result.returncode == 2
    assert 'permission denied: make it readable for this user (uid 65534)' in result.stderr


def test_summary_that_cannot_be_written_is_an_error(model, command):
    with open('/dev/full', 'w') as full:
        assert subprocess.run([command, 'load', model, '--into', 'memory'], stdout=full, stderr=subprocess.DEVNULL).returncode == 1


def on_terminal(words):
    """Starts a command with a terminal as its standard error."""
    terminal, end = pty.openpty()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=end)
    os.close(end)
    return process, terminal


def read_terminal(terminal, until=None):
    text = b''
    try:
        while until is None or until not in text:
            text += os.read(terminal, 4096)
    except OSError:   # EIO: the other end is closed
        pass
    return text.decode()


def test_progress_bar_on_a_terminal_only(model, command):
    process, terminal = on_terminal([command, 'load', model, '--into', 'memory', '--verify'])
    text = read_terminal(terminal)
    os.close(terminal)
    assert process.wait() == 0
    process.stdout.close()
    assert re.search(r'\rloading \[#+ *\] +\d+%', text) and '\rverifying [' in text
    assert text.endswith('\r\x1b[K')


@pytest.mark.parametrize(('number', 'code'), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signal_ends_it_cleanly(tmp_path, command, number, code):
    path = sparse(tmp_path / 'big.safetensors', 3 << 30)
    process, terminal = on_terminal([command, 'load', path, '--into', 'memory', '--chunk', '4K', '--depth', '1'])
    seen = read_terminal(terminal, until=b'loading')
    process.send_signal(number)
    began = time.monotonic()
    seen += read_terminal(terminal)
    os.close(terminal)
    assert process.wait() == code
    assert time.monotonic() - began < 5
    assert process.stdout.read() == b''
    process.stdout.close()
    assert 'fuse-dmabuf: interrupted by' in seen


def test_wrong_bytes_are_found(tmp_path, command):
    """The file changes after its first block was loaded: the command must not say that all is right."""
    size = 32 * MIB
    header = {'first': tensor('U8', [size], 0, size), 'second': tensor('U8', [size], size, 2 * size)}
    path = tmp_path / 'model.safetensors'
    path.write_bytes(encode(header, bytes(2 * size)))
    process, terminal = on_terminal([command, 'load', path, '--into', 'memory', '--verify', '--json', '--chunk', '4K', '--depth', '1'])
    seen = read_terminal(terminal, until=b'loading')
    with path.open('r+b') as file:
        file.seek(len(encode(header)) + 7)
        file.write(b'x')
    seen += read_terminal(terminal)
    os.close(terminal)
    assert process.wait() == 1
    assert process.stdout.read() == b''
    process.stdout.close()
    assert 'tensor "first": byte 7 is wrong' in seen and '1 of 2 tensors are wrong' in seen
