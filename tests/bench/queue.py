"""What queues of libfuse-dmabuf cost: scattered tensors against one read, many files and buffers, and processor time against bounce.

    tests/bed/vm --kernel plain --count python3 tests/bench/queue.py [--rounds N]

All ways take turns in one boot, and the figures are medians of the rounds. With --count a nanosecond is an instruction, whatever else runs on the
machine, and the device costs none; a copy of memory is cheaper than it really is. Without, times are those of an emulated machine: look at ratios.
"""
import argparse
import os
import random
import re
import resource
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / name) for name in ('vm', 'bed', 'unit')]
import guest  # noqa: E402
from library import WHOLE_BLOCKS, Library, ranges_of  # noqa: E402
from library import Path as Way  # noqa: E402

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
TENSORS, TENSOR = 10_000, 4 * KIB
COPIED = 64 * MIB


def counted(queue, call):
    """.bytes, .requests of the queue and .commands of the device; apart from the times, because counting commands takes some."""
    requests = queue.counters.requests
    with guest.trace('nvme:nvme_setup_cmd', where='qid > 0 && opcode == 2') as seen:
        moved = call()
    return SimpleNamespace(bytes=moved, requests=queue.counters.requests - requests, commands=seen.hits)


def timed(call):
    """(seconds, processor seconds), those of the kernel's workers among them."""
    before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    call()
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def reader(queue, parts, flags=0):
    """A function that reads them; Python's part of the work is done before."""
    ranges = ranges_of(parts)
    return lambda: queue.library.check(queue.library.read(queue.handle, ranges, len(ranges), flags))


def in_turn(rounds, **calls):
    """{name: what is counted(), with the medians of .seconds and .processor}. Each call is a queue and a function."""
    # This makes the tokens, too, and maps the buffers.
    found = {name: counted(queue, call) for name, (queue, call) in calls.items()}
    times = {name: [] for name in calls}
    for _ in range(rounds):
        for name, (_queue, call) in calls.items():
            times[name].append(timed(call))
    for name, one in found.items():
        one.seconds, one.processor = map(statistics.median, zip(*times[name]))
    return found


def table(title, measured, base):
    print(f'\n{title}\n{"":34}{"bytes":>12}{"requests":>10}{"commands":>10}{"time":>9}{"processor":>11}{"ms":>9}')
    for name, one in measured.items():
        seconds, processor = one.seconds / measured[base].seconds, one.processor / measured[base].processor
        print(f'{name.replace("_", " "):34}{one.bytes:>12,}{one.requests:>10,}{one.commands:>10,}{seconds:>9.2f}{processor:>11.3f}'
              f'{one.processor * 1000:>9.2f}')


def write(path, size):
    with path.open('wb') as file:
        for at in range(0, size, MIB):
            file.write(os.urandom(min(MIB, size - at)))
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path.name


def scattered(library, source, mount, rounds):
    """10 000 tensors of 4 KiB: all of a file, in another order; and every other 4 KiB of a file."""
    name, size = write(source / 'tensors', 2 * TENSORS * TENSOR), TENSORS * TENSOR
    with library.file(bytes(mount / name)) as file, library.allocate('udmabuf', 2 * size) as buffer, library.queue(Way.DIRECT) as queue:
        places = random.Random(1).sample(range(TENSORS), TENSORS)
        shuffled = reader(queue, [(file, i * TENSOR, buffer, place * TENSOR, TENSOR) for i, place in enumerate(places)])
        gaps = reader(queue, [(file, 2 * i * TENSOR, buffer, i * TENSOR, TENSOR) for i in range(TENSORS)])
        measured = in_turn(
            rounds,
            one_read_of_the_tensors=(queue, reader(queue, [(file, 0, buffer, 0, size)])),
            the_tensors_in_another_order=(queue, shuffled),
            one_read_with_the_gaps=(queue, reader(queue, [(file, 0, buffer, 0, 2 * size)])),
            the_tensors_without_the_gaps=(queue, gaps))
    table(f'{TENSORS:,} tensors of 4 KiB; time and processor by the first line', measured, 'one_read_of_the_tensors')


def anonymous_memory():
    return int(re.search(r'RssAnon:\s+(\d+)', Path('/proc/self/status').read_text())[1])


def many(library, source, mount):
    """64 files and 4 buffers in one queue."""
    names = [write(source / f'{i}', 64 * KIB) for i in range(64)]
    with ExitStack() as stack:
        begin, memory = len(os.listdir('/proc/self/fd')), anonymous_memory()
        files = [stack.enter_context(library.file(bytes(mount / name))) for name in names]
        with_files = len(os.listdir('/proc/self/fd'))
        buffers = [stack.enter_context(library.allocate('udmabuf', MIB)) for _ in range(4)]
        with_buffers = len(os.listdir('/proc/self/fd'))
        queue = stack.enter_context(library.queue(Way.DIRECT))
        parts = [(file, j * 16 * KIB, buffer, i * 16 * KIB, 16 * KIB) for i, file in enumerate(files) for j, buffer in enumerate(buffers)]
        read = reader(queue, parts)
        (first, _), (second, _) = timed(read), timed(read)
        counters = queue.counters
        print(f'\n64 files and 4 buffers in one queue\n{"descriptors of files":34}{with_files - begin:>12}\n{"descriptors of buffers":34}'
              f'{with_buffers - with_files:>12}\n{"descriptors of the queue":34}{len(os.listdir("/proc/self/fd")) - with_buffers:>12}\n'
              f'{"memory, KiB":34}{anonymous_memory() - memory:>12}\n{"tokens made, kept":34}{counters.tokens:>8}{counters.tokens_kept:>4}\n'
              f'{"first read by the second":34}{first / second:>12.1f}')


def copies(library, source, mount, rounds):
    """Processor seconds of a GiB by each path, of a file on the mount."""
    name = write(source / 'big', COPIED)
    with library.file(bytes(mount / name)) as file, library.allocate('udmabuf', COPIED) as buffer, library.queue(Way.DIRECT) as direct, \
         library.queue(Way.BOUNCE) as bounce:
        part = file, 0, buffer, 0, COPIED
        measured = in_turn(rounds, bounce=(bounce, reader(bounce, [part])), direct=(direct, reader(direct, [part], WHOLE_BLOCKS)))
    table(f'{COPIED // MIB} MiB of the mount into host memory; time and processor by bounce', measured, 'bounce')
    for name, one in measured.items():
        print(f'{name:34}{one.processor * GIB / COPIED:>12.4f} processor seconds per GiB')


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--rounds', type=int, default=5)
    rounds = parser.parse_args().rounds
    guest.load_modules()
    source = guest.make_ext4(guest.Nvme().device, '/mnt/nvme')
    mount = guest.mount_server(source, '/mnt/fuse')
    library = Library()
    scattered(library, source, mount, rounds)
    many(library, source, mount)
    copies(library, source, mount, rounds)


main()
