"""A checkpoint into host memory without tokens: this library against safetensors.numpy.load_file, with every byte summed.

    tests/bed/enter python3 /src/tests/bench/bounce.py BUILD DIRECTORY [--gib N] [--rounds N]

BUILD is the directory that `tests/bed/build` prints, as the tree names it: /cache/build-…; DIRECTORY is where the checkpoint is written to, which
takes twice its size of memory and its size of disk. Each load is a process of its own, in which the clock runs from the open file to the sum of the
last tensor. The second of the two ratios is to load_file with huge pages. The rivals take turns, and the figures are medians. "Warm": all of the file is in the page cache. "Cold": nothing is, and the device is
asked. CPU is that of the process, user and system; without the workers of the kernel. It needs root for dropping caches. It compares; it is no test.
"""
import argparse
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

HERE = Path(__file__).resolve()
UNIT = str(HERE.parent.parent / 'unit')
NAME = 'bench.safetensors'
MIB, GIB = 1 << 20, 1 << 30
HUGE = 'load_file, huge pages'   # which malloc(3) asks for
OWN = ('any', 'one thread', 'bounce memory')

# Prints seconds, processor seconds, and the sum of all bytes as numbers of 64 bits.
THEIRS = '''
import sys, numpy
from safetensors.numpy import load_file
from bounce import measured
measured(lambda: sum(int(tensor.view(numpy.uint64).sum(dtype=numpy.uint64)) for tensor in load_file(sys.argv[1]).values()))
'''


def measured(function):
    """Prints what the call took, and what it returns."""
    before, started = os.times(), time.perf_counter()
    result = function()
    seconds, after = time.perf_counter() - started, os.times()
    print(seconds, after.user + after.system - before.user - before.system, result % 2**64)


def own_load(build, path, how):
    """Reads the file into memory with a queue, and sums the tensors where they are."""
    import ctypes
    import json

    import numpy
    sys.path.insert(0, UNIT)
    from library import COPY_THREADS_NONE, WHOLE_BLOCKS, Library
    from library import Path as Way
    library = Library(Path(build) / 'meson/src/libfuse-dmabuf/libfuse-dmabuf.so.1')
    libc = ctypes.CDLL(None)
    libc.mmap.restype, libc.mmap.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
    options = {'one thread': {'copy_threads': COPY_THREADS_NONE}, 'bounce memory': {'path': Way.BOUNCE}}.get(how, {})

    def load():
        with library.file(path) as file, library.queue(**options) as queue, library.allocate('memory', file.size) as buffer:
            assert queue.read([(file, 0, buffer, 0, file.size)], WHOLE_BLOCKS) == file.size
            # The address that the library maps: the biggest private mapping of the process.
            start = max((line.split()[0].split('-') for line in Path('/proc/self/maps').read_text().splitlines() if line.split()[4] == '0'),
                        key=lambda ends: int(ends[1], 16) - int(ends[0], 16))
            data = numpy.frombuffer((ctypes.c_ubyte * file.size).from_address(int(start[0], 16)), numpy.uint8)
            header = 8 + int(data[:8].view(numpy.uint64)[0])
            tensors = json.loads(data[8:header].tobytes())
            return sum(int(data[header + from_:header + to].view(numpy.uint64).sum(dtype=numpy.uint64))
                       for from_, to in (one['data_offsets'] for one in tensors.values()))
    measured(load)


def run(*words, **environment):
    output = subprocess.run([sys.executable, *words], check=True, capture_output=True, text=True,
                            env={**os.environ, 'PYTHONPATH': str(HERE.parent), **environment})
    seconds, processor, total = output.stdout.split()
    return float(seconds), float(processor), total


def write_checkpoint(path, gib):
    """Tensors of 64 MiB, as in a model of some billion parameters."""
    import numpy
    from safetensors.numpy import save_file
    save_file({f'layer.{i}.weight': numpy.frombuffer(os.urandom(64 * MIB), numpy.float32) for i in range(gib * 16)}, path)
    os.sync()


# Memory that a hypervisor has taken back takes long to return: each load finds enough that another process has just used.
TOUCH = '''
import mmap, sys
memory = mmap.mmap(-1, int(sys.argv[1]), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_HUGEPAGE)
for at in range(0, len(memory), 4096):
    memory[at] = 1
'''


def put_into_state(path, state):
    if state == 'cold':
        Path('/proc/sys/vm/drop_caches').write_text('3', encoding='ascii')
    else:
        subprocess.run(['cat', path], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([sys.executable, '-c', TOUCH, str(2 * path.stat().st_size)], check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('build')
    parser.add_argument('directory', type=Path)
    parser.add_argument('--gib', type=int, default=1)
    parser.add_argument('--rounds', type=int, default=5)
    options = parser.parse_args()
    path = options.directory / NAME
    theirs = partial(run, '-c', THEIRS, str(path))
    rivals = {'load_file': theirs, HUGE: partial(theirs, GLIBC_TUNABLES='glibc.malloc.hugetlb=1')}
    rivals |= {f'own, {how}': partial(run, str(HERE), '--own', options.build, str(path), how) for how in OWN}
    try:
        write_checkpoint(path, options.gib)
        print(f'{"GiB/s (CPU s per GiB)":24}' + ''.join(f'{name:>24}' for name in rivals) + f'{"rate ÷ load_file":>24}{"CPU ÷ load_file":>24}', flush=True)
        for state in ('warm', 'cold'):
            found = {name: [] for name in rivals}
            for number in range(options.rounds):
                for name, load in [*rivals.items()][number % len(rivals):] + [*rivals.items()][:number % len(rivals)]:
                    put_into_state(path, state)
                    found[name].append(load())
            assert len({total for runs in found.values() for _s, _c, total in runs}) == 1, 'the sums differ'
            seconds, processor = ({name: statistics.median(one[i] for one in runs) for name, runs in found.items()} for i in (0, 1))
            ours = f'own, {OWN[0]}'
            rates = (f'{options.gib / seconds[name]:.2f} ({processor[name] / options.gib:.3f})' for name in rivals)
            ratios = (f'{a:.2f}, {b:.2f}' for a, b in ((seconds['load_file'] / seconds[ours], seconds[HUGE] / seconds[ours]),
                                                       (processor[ours] / processor['load_file'], processor[ours] / processor[HUGE])))
            print(f'{state:24}' + ''.join(f'{text:>24}' for text in (*rates, *ratios)), flush=True)
    finally:
        path.unlink(missing_ok=True)


if __name__ == '__main__':
    if sys.argv[1:2] == ['--own']:
        own_load(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
    else:
        main()
