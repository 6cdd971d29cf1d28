"""How long an exporter takes to move a buffer with one token, and with many: they share a map, so it should be as long.

    tests/bed/vm --kernel plain python3 tests/bench/exporter.py [--tokens N] [--moves N]

The two buffers take turns in one boot; a read goes before each move, as there is nothing to give back otherwise. Absolute times are those of an emulated machine.
"""
import argparse
import contextlib
import statistics
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / name) for name in ('vm', 'bed')]
import guest  # noqa: E402
from dmabuf import TestBuffer  # noqa: E402
from token_words import opened  # noqa: E402
from uring import Ring, dmabuf_descriptor  # noqa: E402

SIZE = 64 << 10   # small: the move copies it
GOAL = 2


def register(ring, buffer, fd, count):
    for first in range(0, count, 1024):
        ring.update(first, [dmabuf_descriptor(buffer, fd)] * min(1024, count - first))


def timed_move(ring, buffer, fd):
    """In microseconds."""
    assert ring.read_fixed(fd, 0, SIZE, 0) == SIZE
    started = time.perf_counter_ns()
    buffer.move()
    return (time.perf_counter_ns() - started) / 1000


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--tokens', type=int, default=4000)
    parser.add_argument('--moves', type=int, default=300)
    options = parser.parse_args()
    guest.load_modules()
    with contextlib.ExitStack() as stack:
        fd = stack.enter_context(opened(guest.Nvme().device))
        sides = []
        for count in 1, options.tokens:
            buffer, ring = stack.enter_context(TestBuffer(SIZE)), stack.enter_context(Ring(slots=count))
            register(ring, buffer, fd, count)
            sides.append((count, ring, buffer, []))
        for _ in range(options.moves):
            for _, ring, buffer, times in sides:
                times.append(timed_move(ring, buffer, fd))
        for count, _, buffer, times in sides:
            stats = buffer.stats
            print(f'{count:>6} tokens: {statistics.median(times):8.1f} µs a move (median of {len(times)}), '
                  f'{stats.maps} maps, {stats.attaches} attachments')   # fmt: skip
        ratio = statistics.median(sides[1][3]) / statistics.median(sides[0][3])
        print(f'ratio {ratio:.2f}, goal {GOAL}: {"reached" if ratio <= GOAL else "missed"}')
        assert all(buffer.stats.dirty == 0 for _, _, buffer, _ in sides)


if __name__ == '__main__':
    main()
