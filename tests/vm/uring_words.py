"""The words of the tests of io_uring: kinds of rings, and transfers in both directions that know what they should have done."""

import pytest

from token_words import KIB, expect, on_disk, random_bytes, wait_for
from uring import DEFER_TASKRUN, IOPOLL, READ_FIXED, SINGLE_ISSUER, SQPOLL, WRITE_FIXED

SIZE, DEPTH = 16 * KIB, 64
DEFERRED = SINGLE_ISSUER | DEFER_TASKRUN
INTERRUPT_RINGS = {"plain": 0, "defer-taskrun": DEFERRED, "sqpoll": SQPOLL}
POLLED_RINGS = {"iopoll": IOPOLL, "iopoll-defer-taskrun": IOPOLL | DEFERRED, "iopoll-sqpoll": IOPOLL | SQPOLL}
RINGS = INTERRUPT_RINGS | POLLED_RINGS

# Each ring with files that it can do: a FUSE file cannot be polled, as any FUSE file.
RINGS_AND_FILES = [
    *((flags, "raw") for flags in RINGS.values()), *((flags, "fuse") for flags in INTERRUPT_RINGS.values()), (IOPOLL, "ext4"),
]  # fmt: skip
every_ring = pytest.mark.parametrize("flags, target", RINGS_AND_FILES, indirect=["target"], ids=lambda value: _name(value))
both_ways = pytest.mark.parametrize("opcode", [READ_FIXED, WRITE_FIXED], ids=["read", "write"])


def _name(value):
    return {flags: name for name, flags in RINGS.items()}.get(value, value)


class Transfer:
    """DEPTH requests in one direction: number i is between place i of the buffer and place DEPTH - 1 - i of the file."""

    def __init__(self, opcode, target, buffer):
        self.opcode, self.target, self.buffer = opcode, target, buffer
        self.new = random_bytes(DEPTH * SIZE, seed=opcode)
        if opcode == WRITE_FIXED:
            buffer[: DEPTH * SIZE] = self.new
        else:
            buffer.fill()
        self.before = buffer[: DEPTH * SIZE]

    def prepare(self, ring, i, slot=0, flags=0):
        where = self.target.base + (DEPTH - 1 - i) * SIZE
        return ring.prepare(self.opcode, self.target.fd, i * SIZE, SIZE, where, slot, flags=flags)

    def start(self, ring, slot=0, flags=0):
        """{user_data: i}; what ties requests together is not for the last one."""
        numbers = {self.prepare(ring, i, slot, flags if i < DEPTH - 1 else 0): i for i in range(DEPTH)}
        ring.submit()
        return numbers

    def finish(self, ring, numbers):
        """All of them succeed."""
        results = ring.wait_all(DEPTH)
        assert results.keys() == numbers.keys(), "not each request ended once"
        assert set(results.values()) == {SIZE}, {numbers[number]: result for number, result in results.items() if result != SIZE}
        self.check(range(DEPTH))

    def finish_some(self, ring, numbers, *allowed):
        """Each succeeds or fails with one of these results; returns how many succeeded."""
        results = ring.wait_all(DEPTH)
        assert set(results.values()) <= {SIZE, *allowed}, set(results.values())
        done = [numbers[number] for number, result in results.items() if result == SIZE]
        self.check(done)
        return len(done)

    def check(self, done):
        """What was done is right, what was not has had its effect or none."""
        there = self._destination()
        for i in range(DEPTH):
            moved, old = self._expected(i)
            place = i if self.opcode == READ_FIXED else DEPTH - 1 - i
            found = there[place * SIZE : (place + 1) * SIZE]
            if i in done or found != old:
                expect(found, moved, f"request {i}")

    def _destination(self):
        return self.buffer[: DEPTH * SIZE] if self.opcode == READ_FIXED else on_disk(self.target, DEPTH * SIZE)

    def _expected(self, i):
        """(as it is after request i, as it was before it)"""
        file = self.target.content[(DEPTH - 1 - i) * SIZE : (DEPTH - i) * SIZE]
        memory = self.before[i * SIZE : (i + 1) * SIZE]
        return (file, memory) if self.opcode == READ_FIXED else (memory, file)


def buffer_is_free(buffer, ring=None):
    """Closes the buffer, and waits until it is really gone: nobody else has it any more."""
    buffer.map.close()
    buffer.close_fd()
    wait_for(lambda: buffer.stats.released, ring)
    stats = buffer.stats
    assert (stats.maps, stats.attaches, stats.dirty) == (stats.unmaps, stats.detaches, 0)
