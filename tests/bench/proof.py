"""What the proof of the direct path costs: the load of the demo, 340 MB from the mount into PCI memory, in processes that know nothing of the path.

    tests/bed/vm --kernel plain python3 tests/bench/proof.py [--rounds N] [--into udmabuf]
    tests/bed/vm --kernel plain --count python3 tests/bench/proof.py --rounds 3

Loads with and without a proof take turns. With --count only the processor's time says something: waiting is not counted. "once" is the default: eight blocks are compared, and later reads are watched by marks.
"""
import argparse
import os
import resource
import statistics
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / name) for name in ('vm', 'bed', 'unit')]
import guest  # noqa: E402
from library import READ, WHOLE_BLOCKS, Library, Proof, Proven  # noqa: E402
from library import Path as Way  # noqa: E402

MIB = 1 << 20
SIZE = 340_000_000


def load(path, into, proof):
    """Seconds of the load and of the processor, bytes that were compared, and what was proven."""
    library = Library()
    with library.file(path) as file, library.allocate(into, -(-SIZE // 4096) * 4096) as buffer, library.queue(Way.DIRECT, proof=proof) as queue:
        part = file, 0, buffer, 0, SIZE
        queue.check(part, flags=WHOLE_BLOCKS)   # makes the token, as the command does before it begins
        started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
        with queue.submit(READ, [part], WHOLE_BLOCKS) as transfer:
            transfer.wait()
            seconds, after = time.monotonic() - started, resource.getrusage(resource.RUSAGE_SELF)
            processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            assert transfer.bytes == SIZE
            return (seconds, processor), queue.counters.bytes_proven, Proven(transfer.result().proven).name


def in_a_process(*arguments):
    read, write = os.pipe()
    if not os.fork():
        os.write(write, repr(load(*arguments)).encode())
        os._exit(0)
    os.close(write)
    with open(read, 'rb') as answer:
        said = eval(answer.read())   # pylint: disable=eval-used
    os.wait()
    return said


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--rounds', type=int, default=15)
    parser.add_argument('--into', default='vfio')
    arguments = parser.parse_args()
    guest.load_modules()
    source = guest.make_ext4(guest.Nvme().device, '/mnt/nvme')
    with (source / 'model').open('wb') as file:
        for at in range(0, SIZE, MIB):
            file.write(os.urandom(min(MIB, SIZE - at)))
        os.fsync(file.fileno())
    into = f'vfio:{guest.bind_vfio(guest.find_vram())}' if arguments.into == 'vfio' else arguments.into
    path = bytes(guest.mount_server(source, '/mnt/fuse') / 'model')
    times = {Proof.NEVER: [], Proof.ONCE: []}
    for number in range(arguments.rounds + 1):
        for proof, seconds in times.items():
            took, compared, proven = in_a_process(path, into, proof)
            if number:   # the first round warms the caches
                seconds.append(took)
        print(f'{number:3} {compared:,} bytes compared, {proven}', flush=True)
    for i, what in enumerate(('load', 'processor')):
        never, once = (statistics.median(took[i] for took in times[proof]) * 1000 for proof in (Proof.NEVER, Proof.ONCE))
        print(f'{SIZE:,} bytes into {into}, {what}: {never:.2f} ms without a proof, {once:.2f} ms with one, {once / never:.4f}')


main()
