"""A checkpoint into the memory of an NVIDIA GPU: this loader by bounce, from the mount and without it, and what PyTorch users have.

    python3 tests/bench/cuda.py FILE=DIRECTORY ... [--gib N] [--rounds N] [--command fuse-dmabuf]

Each FILE=DIRECTORY is a name for the table and a directory to write the checkpoint to (a mount, its source, a tmpfs). It needs the GPU, its driver,
PyTorch with CUDA and safetensors, and root for dropping caches. The rivals take turns; the figures are medians, and "CPU" is seconds of
processor time of the loading process, user and system. The GPU's context exists before the clock runs.
It compares; it is no test. results-cuda.txt has what it printed on one machine.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

NAME = 'bench.safetensors'

# Prints seconds and processor seconds. The sum makes sure that every byte has arrived.
PYTORCH = '''
import resource, sys, time, torch
from safetensors.torch import load_file
torch.zeros(1, device="cuda")
def used():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
cpu, began = used(), time.perf_counter()
tensors = load_file(sys.argv[1], device="cuda") if sys.argv[2] == "gpu" else {k: v.cuda() for k, v in load_file(sys.argv[1]).items()}
torch.cuda.synchronize()
print(time.perf_counter() - began, used() - cpu)
assert len(tensors) == int(sys.argv[3])
'''


def drop_caches():
    os.sync()
    Path('/proc/sys/vm/drop_caches').write_text('3', encoding='ascii')


def write_checkpoint(path, gib):
    """Tensors of 64 MiB, as in a model of some billion parameters; the number of them."""
    import torch
    from safetensors.torch import save_file
    count = gib * 16
    save_file({f'layer.{i}.weight': torch.randint(-2**31, 2**31 - 1, (4096, 4096), dtype=torch.int32) for i in range(count)}, path)
    return count


def own(command, path, *options):
    output = subprocess.run([command, 'load', path, '--into', 'cuda', '--json', *options], check=True, capture_output=True, text=True).stdout
    summary = json.loads(output)
    return summary['seconds'], summary['user_seconds'] + summary['system_seconds']


def pytorch(path, how, count):
    words = subprocess.run([sys.executable, '-c', PYTORCH, path, how, str(count)], check=True, capture_output=True, text=True).stdout.split()
    return float(words[0]), float(words[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('places', nargs='+', metavar='FILE=DIRECTORY')
    parser.add_argument('--gib', type=int, default=4)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--command', default='fuse-dmabuf')
    arguments = parser.parse_args()
    print(f'{"GiB/s (CPU s per GiB)":24}' + ''.join(f'{name:>26}' for name in (
        'fuse-dmabuf, 1M chunks', 'fuse-dmabuf, 4M chunks', 'load_file(device="cuda")', 'load_file(), .cuda()')), flush=True)
    for place in arguments.places:
        name, directory = place.split('=', 1)
        path = os.path.join(directory, NAME)
        count = write_checkpoint(path, arguments.gib)
        size = os.path.getsize(path) / (1 << 30)
        rivals = [lambda: own(arguments.command, path), lambda: own(arguments.command, path, '--chunk', '4M'),
                  lambda: pytorch(path, 'gpu', count), lambda: pytorch(path, 'cpu', count)]
        found = [[] for _ in rivals]
        for first in range(arguments.rounds):
            for i in range(len(rivals)):
                drop_caches()
                which = (first + i) % len(rivals)
                found[which].append(rivals[which]())
        cells = [(size / statistics.median(s for s, _ in runs), statistics.median(c for _, c in runs) / size) for runs in found]
        print(f'{name:24}' + ''.join(f'{rate:17.2f} ({cpu:5.3f})' + ' ' for rate, cpu in cells), flush=True)
        os.unlink(path)


if __name__ == '__main__':
    main()
