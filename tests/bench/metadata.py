"""Metadata and data of the mount against other passthrough servers, in turn on one directory: operations per second, and processor time of each.

    tests/bed/enter python3 /src/tests/bench/metadata.py BUILD [--files N] [--rounds N] [--io-uring] [--libfuse] [--floor] [--other NAME=COMMAND]

With --io-uring the kernel offers to pass requests by io_uring while this server is mounted (it does not without: no other of them could), and the same
server that reads them is shown, too.
BUILD is the directory that tests/bed/build prints, inside the tree (/cache/build-…). The others are bindfs; with --libfuse the examples of
libfuse, built by libfuse-examples, which have a descriptor of each file, so that --files must be less than `ulimit -n`; and those whose COMMAND
is given, with {source} and {target} in it, which stays in the foreground.
--floor adds a server that only answers (floor.c): none can be faster. Where other work disturbs the rates, the microseconds of
processor time, of program and server together, still say something; or put chrt --fifo 10 before python3.
It compares; it is no test. Absolute figures are those of the machine at that moment. results.txt has those of one.
"""
import argparse
import contextlib
import mmap
import os
import random
import shlex
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

DATA = 64 << 20


def create(root, files):
    for i in range(files):
        os.close(os.open(f'{root}/d{i % 100}/{i}', os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
    return files


def stat(root, files):
    for i in range(files):
        os.stat(f'{root}/d{i % 100}/{i}')
    return files


def readdir(root, files):
    return sum(len(list(os.scandir(f'{root}/d{i}'))) for i in range(100))


def open_close(root, files):
    for i in range(files):
        os.close(os.open(f'{root}/d{i % 100}/{i}', os.O_RDONLY))
    return files


def unlink(root, files):
    for i in range(files):
        os.unlink(f'{root}/d{i % 100}/{i}')
    return files


def read_sequential(root, files):
    buffer, size = bytearray(1 << 20), 0
    with open(f'{root}/data', 'rb', buffering=0) as data:
        while got := data.readinto(buffer):
            size += got
    return size >> 20


def read_random(root, files):
    buffer = mmap.mmap(-1, 4096)
    places = random.Random(1)
    fd = os.open(f'{root}/data', os.O_RDONLY)
    for _ in range(files):
        os.preadv(fd, [buffer], places.randrange(DATA >> 12) << 12)
    os.close(fd)
    return files


OPERATIONS = [create, stat, readdir, open_close, read_sequential, read_random, unlink]
DATA_OPERATIONS = {read_sequential, read_random}
OWN, READING, FLOOR = 'fuse-dmabuf', 'reading', 'floor'
OFFERED = Path('/sys/module/fuse/parameters/enable_uring')
# How many times as fast as the best other the mount should be; data passes by all servers that have passthrough by the kernel, or nearly.
GOAL, DATA_GOAL = 1.2, 0.95
DROP_BEFORE = {stat, readdir, open_close}   # what the kernel remembers is not the server's work


def processor_time(*pids):
    """Seconds, of all threads that live."""
    return sum(int(path.read_text(encoding='ascii').split()[0]) for pid in pids for path in Path(f'/proc/{pid}/task').glob('*/schedstat')) / 1e9


def drop_caches():
    Path('/proc/sys/vm/drop_caches').write_text('2', encoding='ascii')


@contextlib.contextmanager
def io_uring_offered(offered):
    """To what is mounted meanwhile."""
    before = OFFERED.read_text(encoding='ascii') if OFFERED.exists() else 'N'
    if before.strip() != 'NY'[offered]:
        OFFERED.write_text('NY'[offered], encoding='ascii')
    try:
        yield
    finally:
        if OFFERED.exists():
            OFFERED.write_text(before, encoding='ascii')


@contextlib.contextmanager
def mounted(command, source, target):
    """The server runs and shows the source."""
    words = [word.format(source=source, target=target) for word in shlex.split(command)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        deadline = time.monotonic() + 20
        while not os.path.ismount(target):
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f'{command}: does not mount (exit code {server.poll()})')
            time.sleep(0.02)
        try:
            yield server.pid
        finally:
            subprocess.run(['umount', target], check=True)


def measure(root, files, server, operations):
    """{operation: (per second, microseconds of processor time)} of one round."""
    found = {}
    for operation in operations:
        if operation in DROP_BEFORE:
            drop_caches()
        used, began = processor_time(server, os.getpid()), time.perf_counter()
        count = operation(root, files)
        took = time.perf_counter() - began
        found[operation] = count / took, (processor_time(server, os.getpid()) - used) / count * 1e6
    return found


def prepare(source):
    for i in range(100):
        os.mkdir(f'{source}/d{i}')
    Path(f'{source}/data').write_bytes(os.urandom(DATA))


def run(servers, files, rounds, by_io_uring):
    """{server: [{operation: figures} of each round]}. Each round begins with another server."""
    results = {name: [] for name in servers}
    with tempfile.TemporaryDirectory() as directory:
        source, target = f'{directory}/source', f'{directory}/target'
        os.mkdir(source)
        os.mkdir(target)
        prepare(source)
        names = list(servers)
        for first in range(rounds):
            for name in names[first % len(names):] + names[:first % len(names)]:
                operations = [op for op in OPERATIONS if name != FLOOR or op not in DATA_OPERATIONS]
                with io_uring_offered(by_io_uring and name == OWN), mounted(servers[name], source, target) as server:
                    results[name].append(measure(target, files, server, operations))
    return results


def show(results):
    rivals = [name for name in results if name not in {OWN, READING, FLOOR}]
    print(f'{"per second (µs)":20}' + ''.join(f'{name:>20}' for name in results) + '   own ÷ best other  goal')
    for operation in OPERATIONS:
        cells = ''
        for name, rounds in results.items():
            rates, times = zip(*[found[operation] for found in rounds if operation in found] or [(float('nan'),) * 2])
            cells += f'{statistics.median(rates):12,.0f} ({statistics.median(times):5.1f})'
        median = {name: statistics.median(found[operation][0] for found in rounds) for name, rounds in results.items() if name in [OWN, *rivals]}
        ratio = median[OWN] / max(median[name] for name in rivals)
        unit = ' MiB' if operation is read_sequential else ''
        goal = DATA_GOAL if operation in DATA_OPERATIONS else GOAL
        print(f'{operation.__name__ + unit:20}{cells}{ratio:12.2f}{goal:13} {"reached" if ratio >= goal else "missed"}')


def make_floor(directory):
    libfuse = subprocess.run(['pkg-config', '--cflags', '--libs', 'fuse3'], check=True, text=True, capture_output=True).stdout.split()
    subprocess.run(['cc', '-O2', '-o', f'{directory}/floor', Path(__file__).with_name('floor.c'), *libfuse], check=True)
    return f'{directory}/floor {{target}}'


def make_libfuse(directory):
    subprocess.run([Path(__file__).with_name('libfuse-examples'), directory], check=True)
    return {
        'passthrough_hp': f'{directory}/passthrough_hp --foreground {{source}} {{target}}',
        'passthrough_ll': f'{directory}/passthrough_ll -f -o allow_other,source={{source}} {{target}}',
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('build', help='directory that tests/bed/build prints')
    parser.add_argument('--files', type=int, default=100_000)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--io-uring', action='store_true')
    parser.add_argument('--libfuse', action='store_true')
    parser.add_argument('--floor', action='store_true')
    parser.add_argument('--other', action='append', default=[], metavar='NAME=COMMAND')
    options = parser.parse_args()
    own = f'{options.build}/install/usr/sbin/mount.fuse-dmabuf {{source}} {{target}} -f -o log=warning'
    servers = {OWN: own} | ({READING: own} if options.io_uring else {}) | {'bindfs': 'bindfs -f -o allow_other {source} {target}'}
    servers |= dict(other.split('=', 1) for other in options.other)
    with tempfile.TemporaryDirectory() as directory:
        if options.libfuse:
            servers |= make_libfuse(directory)
        if options.floor:
            servers[FLOOR] = make_floor(directory)
        show(run(servers, options.files, options.rounds, options.io_uring))


if __name__ == '__main__':
    main()
