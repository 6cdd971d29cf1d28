"""The programs in examples/ that use the library: built as their first lines say, and run on real files."""
import os
import random
import re
import select
import signal
import subprocess
import time
import zlib
from pathlib import Path

import pytest

EXAMPLES = sorted(path for path in (Path(__file__).resolve().parents[2] / 'examples').iterdir() if path.suffix in {'.c', '.cc'})
FLAGS = {'.c': '-std=c11 -Wall -Wextra -pedantic -Werror', '.cc': '-std=c++17 -Wall -Wextra -pedantic -Werror'}
COLUMNS = 100
MIB = 1 << 20


@pytest.fixture(scope='session')
def built(build, tmp_path_factory):
    """built(path) is the program of an example, made by the command in its first comment, with more warnings."""
    directory = tmp_path_factory.mktemp('examples')

    def make(path):
        if not (directory / path.stem).exists():
            compiler, arguments = re.search(r'^(?: \*|//)\t(cc|c\+\+) (.*)$', path.read_text(), re.MULTILINE).groups()
            (directory / path.name).write_bytes(path.read_bytes())
            subprocess.run(f'{compiler} {FLAGS[path.suffix]} {arguments}', shell=True, check=True, cwd=directory,
                           env=os.environ | {'PKG_CONFIG_PATH': str(build / 'meson-uninstalled')})
        return directory / path.stem
    return make


@pytest.fixture
def start(build, built):
    """start(name, argument, …) starts an example."""
    def run(name, *arguments, **options):
        program = built(next(path for path in EXAMPLES if path.stem == name))
        environment = os.environ | {'LD_LIBRARY_PATH': str(build / 'src/libfuse-dmabuf')}
        return subprocess.Popen([program, *map(str, arguments)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    return run


@pytest.fixture
def run(start):
    """run(name, argument, …) runs an example to its end: (exit status, output, errors)."""
    def complete(*words, **options):
        process = start(*words, **options)
        output, error = process.communicate()
        return process.returncode, output, error.decode()
    return complete


@pytest.fixture
def file(tmp_path):
    """A file that ends in the middle of a block."""
    path = tmp_path / 'file'
    path.write_bytes(random.Random(1).randbytes(3 * MIB + 1234))
    return path


@pytest.fixture
def big(tmp_path):
    """A file without data on the disk, which takes a while to copy."""
    path = tmp_path / 'big'
    with path.open('wb') as created:
        created.truncate(2 << 30)
    return path


@pytest.mark.parametrize('path', EXAMPLES, ids=lambda path: path.name)
def test_example_compiles_as_it_says(path, built):
    assert built(path).exists()


@pytest.mark.parametrize('path', EXAMPLES, ids=lambda path: path.name)
def test_example_says_how_to_run_it(path):
    text = path.read_text()
    assert re.match(r'(/\*|//) SPDX-License-Identifier: .*\n(/\*|//)', text)
    assert re.search(rf'^(?: \*|//)\t(?:.* \| )?\./{path.stem}\b', text, re.MULTILINE)
    assert [line for line in text.splitlines() if len(line.expandtabs(8)) > COLUMNS] == []


@pytest.mark.parametrize('path', EXAMPLES, ids=lambda path: path.name)
def test_example_explains_its_usage(path, run):
    code, output, error = run(path.stem, '-x', *'abcdef')
    assert (code, output) == (2, b'')
    assert f'usage: {path.stem} ' in error


# What each example does first with a file that does not exist.
MISSING = {'load-one-file': ['{}'], 'load-shards': ['{}'], 'cancel': ['{}', '-'], 'load-range': ['{}', '0', '1'], 'save': ['{}/file'],
           'event-loop': []}


@pytest.mark.parametrize('path', EXAMPLES, ids=lambda path: path.name)
def test_missing_file_is_an_error(path, run, tmp_path):
    missing = tmp_path / 'none'
    names = tmp_path / 'names'
    names.write_text(f'{missing}\n')
    with names.open() as stdin:
        code, output, error = run(path.stem, *(word.format(missing) for word in MISSING[path.stem]), stdin=stdin)
    assert (code, output) == (1, b'')
    assert re.fullmatch(rf'{path.stem}: {missing}\S*: no such (file|directory)\n', error)


@pytest.mark.parametrize('path', EXAMPLES, ids=lambda path: path.name)
def test_unknown_exporter_is_an_error(path, run, file, tmp_path):
    words = {'load-shards': ['-e', 'floppy', file], 'cancel': [file, '-', 'floppy'], 'load-range': [file, 0, 1, 'floppy'],
             'save': [tmp_path / 'new', 1, 'floppy'], 'event-loop': ['floppy'], 'load-one-file': [file, 'floppy']}
    names = tmp_path / 'names'
    names.write_text(f'{file}\n')
    with names.open() as stdin:
        code, output, error = run(path.stem, *words[path.stem], stdin=stdin)
    assert (code, output) == (1, b'')
    assert error.startswith(f'{path.stem}: floppy: no such exporter')
    assert not (tmp_path / 'new').exists()


def test_one_file_is_loaded(run, file):
    content = file.read_bytes()
    assert run('load-one-file', file) == (0, content, f'{len(content)} bytes are in the buffer (memory)\n')


def test_one_file_that_cannot_be_printed(start, file):
    with open('/dev/full', 'w') as full:
        process = start('load-one-file', file)
        process.stdout.close()
        error = process.stderr.read()
        process.stderr.close()
        assert full and process.wait() != 0 and b'are in the buffer' in error


def test_hundred_shards_are_spread_over_two_buffers(run, tmp_path):
    source = random.Random(2)
    content = {tmp_path / f'shard-{i}': source.randbytes(source.choice([0, 1, 4096, source.randrange(100000)])) for i in range(100)}
    for path, data in content.items():
        path.write_bytes(data)
    code, output, error = run('load-shards', *content)
    assert (code, error) == (0, '')
    used = {'0': [], '1': []}
    for line, (path, data) in zip(output.decode().splitlines(), content.items(), strict=True):
        length, number, offset, checksum, reason = re.fullmatch(
            rf'{path}: (\d+) bytes in buffer ([01]) at (\d+), checksum ([0-9a-f]{{8}}), (?:bounce|direct I/O): (.*)', line).groups()
        assert (int(length), int(checksum, 16)) == (len(data), zlib.adler32(data))
        assert int(offset) % 512 == 0 and 'ordinary memory' in reason
        used[number].append((int(offset), int(offset) + len(data)))
    for places in used.values():
        assert len(places) > 30
        assert all(end <= begin for (_, end), (begin, _) in zip(places, places[1:]))


def test_one_shard_leaves_a_buffer_unused(run, file):
    code, output, _ = run('load-shards', '-e', 'memory', file)
    assert code == 0 and b' bytes in buffer 0 at 0, ' in output


@pytest.mark.parametrize('size', [1, 511, 4096, 4097, MIB, MIB + 1, 10000001])
def test_any_size_is_saved(run, tmp_path, size):
    path = tmp_path / 'saved'
    assert run('save', path, size) == (0, f'{path}: {size} bytes saved and compared\n'.encode(), '')
    assert path.read_bytes() == (bytes(range(251)) * (size // 251 + 1))[:size]


def test_a_file_is_not_overwritten(run, file):
    before = file.read_bytes()
    code, _, error = run('save', file)
    assert (code, file.read_bytes()) == (1, before) and 'File exists' in error


def test_a_full_filesystem_is_an_error(run, tmp_path):
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=1M', 'tmpfs', tmp_path], check=True)
    try:
        code, output, error = run('save', tmp_path / 'saved', 2 * MIB)
        assert (code, output, list(tmp_path.iterdir())) == (1, b'', [])
        assert 'No space left on device: free some space' in error
    finally:
        subprocess.run(['umount', tmp_path], check=True)


def read_line(stream):
    """A line that has to come soon."""
    assert select.select([stream], [], [], 10)[0]
    return stream.readline().decode()


def test_files_are_loaded_while_names_are_read(start, tmp_path):
    paths = [tmp_path / str(i) for i in range(20)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes(i * 100000))
    process = start('event-loop', stdin=subprocess.PIPE, bufsize=0)
    with process:
        # One that is there alone, one that is missing, and a name in two parts.
        process.stdin.write(f'{paths[1]}\n'.encode())
        assert read_line(process.stdout) == f'{paths[1]}: 100000 bytes\n'
        process.stdin.write(b'/none\n')
        assert read_line(process.stderr) == 'event-loop: /none: no such file\n'
        process.stdin.write(f'\n{paths[2]}'.encode()[:-1])
        time.sleep(0.1)
        process.stdin.write(b'2\n')
        assert read_line(process.stdout) == f'{paths[2]}: 200000 bytes\n'
        # Many at the same time, the last one without a newline.
        process.stdin.write('\n'.join(map(str, paths)).encode())
        process.stdin.close()
        lines = process.stdout.read().decode().splitlines()
        assert sorted(lines) == sorted(f'{path}: {i * 100000} bytes' for i, path in enumerate(paths))
    assert process.returncode == 1


def test_event_loop_succeeds(run, file, tmp_path):
    (tmp_path / 'names').write_text(f'{file}\n')
    with (tmp_path / 'names').open() as names:
        assert run('event-loop', stdin=names) == (0, f'{file}: {file.stat().st_size} bytes\n'.encode(), '')


def test_event_loop_waits_without_using_the_processor(start):
    process = start('event-loop', stdin=subprocess.PIPE)
    with process:
        time.sleep(0.5)
        ticks = Path(f'/proc/{process.pid}/stat').read_text().rsplit(') ', 1)[1].split()[11:13]
        process.stdin.close()
    assert process.returncode == 0
    assert sum(map(int, ticks)) < 20


def expect_cancelled(output, size):
    """Ranges that add up to the file; the last one did not get to its end."""
    ranges = [re.fullmatch(r'range (\d): (\d+) of (\d+) bytes(: Operation canceled)?', line).groups() for line in output.decode().splitlines()]
    assert [int(number) for number, *_ in ranges] == list(range(8))
    assert sum(int(length) for _, _, length, _ in ranges) == size
    for _, done, length, error in ranges:
        assert int(done) <= int(length) and bool(error) == (int(done) < int(length))
    assert ranges[-1][3]


def is_catching(process, number):
    mask = re.search(r'^SigCgt:\s*([0-9a-f]+)', Path(f'/proc/{process.pid}/status').read_text(), re.MULTILINE)[1]
    return int(mask, 16) >> (number - 1) & 1


def test_transfer_without_a_limit_is_not_cancelled(run, file):
    code, output, error = run('cancel', file, '-')
    assert (code, error) == (0, '')
    assert sum(int(re.fullmatch(r'range \d: (\d+) of \1 bytes', line)[1]) for line in output.decode().splitlines()) == file.stat().st_size


def test_time_limit_cancels_a_transfer(run, big):
    began = time.monotonic()
    code, output, error = run('cancel', big, 0.05)
    assert (code, time.monotonic() - began < 5) == (1, True)
    assert 'cancel: the transfer was cancelled\n' in error
    expect_cancelled(output, 2 << 30)


def test_interrupt_cancels_a_transfer(start, big):
    process = start('cancel', big, '-')
    while not is_catching(process, signal.SIGINT):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    output, error = process.communicate()
    assert process.returncode == 130 and b'cancel: the transfer was cancelled\n' in error
    expect_cancelled(output, 2 << 30)


@pytest.mark.parametrize(('offset', 'length'), [(0, 1), (1, 1), (4095, 2), (12345, 2 * MIB), (MIB, MIB)])
def test_any_range_is_loaded(run, file, offset, length):
    assert run('load-range', file, offset, length) == (0, file.read_bytes()[offset:offset + length], '')


def test_range_beyond_the_end_is_an_error(run, file):
    code, output, error = run('load-range', file, 3 * MIB, MIB)
    assert (code, output) == (1, file.read_bytes()[3 * MIB:])
    assert error == f'load-range: {file}: ends after 1234 bytes of the range\n'


def test_bad_number_is_an_error(run, file):
    assert run('load-range', file, 'x', 1)[0] == 1


@pytest.mark.skipif(not os.path.exists('/dev/udmabuf'), reason='/dev/udmabuf is missing')
def test_other_memory_gives_the_same(run, file):
    assert run('load-one-file', file, 'udmabuf')[:2] == (0, file.read_bytes())
