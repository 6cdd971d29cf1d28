"""Memory runs out: each allocation on the way fails once. The call says ENOMEM or does without, and nothing of it stays; no wrong byte."""

import contextlib
import os
import re
from errno import ECANCELED, EFAULT, ENOMEM
from pathlib import Path

import pytest

import guest
import machine
from dmabuf import TestBuffer
from faults import PAGES, each_failure, failures, injection, marked, this_thread, workers
from token_fixtures import *  # noqa: F403
from token_words import BUFFER_SIZE, KIB, MIB, SLOTS, Target, expect, fails, on_disk, random_bytes, read_and_compare, setting, sgl_threshold, wait_for
from uring import IOSQE_ASYNC, READ_FIXED, WRITE_FIXED, Ring, dmabuf_descriptor
from uring_words import DEPTH, SIZE, Transfer, both_ways, buffer_is_free

# ECANCELED is io_uring's own: there was no memory to give the request to a worker.
OWN_ERRORS = {-ENOMEM, -ECANCELED}


@pytest.fixture(autouse=True)
def _injection():
    with injection():
        yield


def nothing_is_held(buffer, ring):
    wait_for(lambda: buffer.stats.attaches == buffer.stats.detaches, ring)
    assert buffer.stats.maps == buffer.stats.unmaps


def test_registration(ring, target, moving):
    """A slot has its token, or is as empty as before."""

    def register():
        return ring.register_dmabuf(0, moving, target.fd)

    def unregister(result):
        read_and_compare(ring, target, moving, (0, 64 * KIB, 0))
        ring.unregister(0)
        with fails(EFAULT):
            ring.read_fixed(target.fd, 0, SIZE, target.base)

    errors, failed = each_failure(register, unregister)
    assert errors >= 4, f"token, its counts, the slot's node and its buffer are allocated, but of {failed} failures {errors} were told"
    nothing_is_held(moving, ring)


def test_replacement(ring, target, moving, udmabuf):
    """A token that cannot be made leaves the one that is there."""
    ring.register_dmabuf(0, moving, target.fd)
    errors = 0
    for failing in failures():
        there = udmabuf
        try:
            with failing:
                ring.register_dmabuf(0, udmabuf, target.fd)
        except OSError as error:
            assert error.errno == ENOMEM
            errors, there = errors + 1, moving
        read_and_compare(ring, target, there, (0, 64 * KIB, 0))
        if failing.has_failed:
            ring.register_dmabuf(0, moving, target.fd)
    assert errors >= 4
    wait_for(lambda: moving.stats.attaches == moving.stats.detaches, ring)


def test_several_registrations_in_one_call(ring, file, moving):
    """The call says how many it made; these work, and those behind are empty."""
    descriptors = [dmabuf_descriptor(moving, file.fd) for _ in range(4)]
    for failing in failures():
        done = 0
        with contextlib.suppress(OSError), failing:
            done = ring.update(0, descriptors)
        for slot in range(4):
            moving.fill()
            with contextlib.nullcontext() if slot < done else fails(EFAULT, what=f"slot {slot} of {done}"):
                assert ring.read_fixed(file.fd, 0, SIZE, 0, slot) == SIZE
                expect(moving[:SIZE], file.content[:SIZE])
        ring.unregister_all()
        ring.register_sparse(SLOTS)
    assert done == 4
    nothing_is_held(moving, ring)


@both_ways
@pytest.mark.parametrize("flags", [0, IOSQE_ASYNC], ids=["inline", "worker"])
def test_requests(ring, target, moving, opcode, flags):
    """Also those that have to map the buffer anew, because it has moved; a worker does that."""
    length = MIB + 64 * KIB   # of several commands
    ring.register_dmabuf(0, moving, target.fd)
    content = random_bytes(length, seed=opcode)
    outcomes = []
    for failing in failures(workers if flags else this_thread):
        if flags:   # there is a worker, or there would be none to arm
            assert ring.read_fixed(target.fd, 0, SIZE, target.base, flags=flags) == SIZE
        moving[:length] = content if opcode == WRITE_FIXED else bytes(length)
        moving.move()
        ring.prepare(opcode, target.fd, 0, length, target.base, flags=flags)
        with failing:
            with contextlib.suppress(BlockingIOError):   # the ring may lack memory for the request itself
                ring.submit()
            if flags:
                result = ring.wait().res
        if not flags:
            while ring.unsubmitted():
                ring.submit()
            result = ring.wait().res
        outcomes.append(result)
        assert result in OWN_ERRORS or 0 < result <= length, f"allocation {failing.number}: {result}"
        done = max(result, 0)
        if opcode == READ_FIXED:
            expect(moving[:done], target.content[:done], f"allocation {failing.number}")
        else:
            expect(on_disk(target, done), content[:done], f"allocation {failing.number}")
    print(failing.number - 1, "allocations:", outcomes)
    assert outcomes[-1] == length
    assert -ENOMEM in outcomes or not flags, f"{failing.number - 1} allocations, and none was needed"
    moving.move()   # waits for whoever still has the memory
    assert moving.stats.dirty == 0


def test_unregistration_needs_no_memory(ring, target, moving):
    for failing in failures():
        ring.register_dmabuf(0, moving, target.fd)
        with failing:
            ring.unregister(0)
    nothing_is_held(moving, ring)


@pytest.mark.parametrize("target", ["ext4", "fuse"], indirect=True)
def test_the_end_of_ring_and_file_needs_no_memory(target, moving):
    for failing in failures():
        fd = target.open()
        ring = Ring()
        ring.register_dmabuf(0, moving, fd)
        with failing:
            ring.close()
            os.close(fd)
        target.fds.remove(fd)
        wait_for(lambda: moving.stats.attaches == moving.stats.detaches)
    buffer_is_free(moving)


def test_fdinfo_of_the_ring(ring, file, moving):
    """All of the slots, or an error."""
    ring.register_dmabuf(0, moving, file.fd)
    path = Path(f"/proc/self/fdinfo/{ring.fd}")
    whole = path.read_bytes()
    assert b"dma-buf" in whole or b"dmabuf" in whole

    def check(found):
        words = lambda text: re.findall(rb".*dma-?buf.*", text)   # noqa: E731 (its positions in the queues change)
        assert words(found) == words(whole)

    each_failure(path.read_bytes, check)


def submit_with_failures(ring):
    with marked():
        while ring.unsubmitted():
            with contextlib.suppress(BlockingIOError, MemoryError):   # the ring's own, and the interpreter's
                ring.submit()


@pytest.mark.parametrize("probability", [1, 10])
@both_ways
@pytest.mark.parametrize("flags", [0, IOSQE_ASYNC], ids=["inline", "worker"])
@pytest.mark.parametrize("target", ["raw", "ext4", "fuse"], indirect=True)
def test_many_requests_of_which_some_have_no_memory(target, moving, opcode, probability, flags):
    """Their workers, too, while the buffer moves."""
    succeeded = failed = 0
    with injection(probability), Ring(DEPTH) as ring:
        ring.register_dmabuf(0, moving, target.fd)
        for _ in range(6):
            transfer = Transfer(opcode, target, moving)
            numbers = {transfer.prepare(ring, i, 0, flags): i for i in range(DEPTH)}
            submit_with_failures(ring)
            moving.move()
            done = transfer.finish_some(ring, numbers, *OWN_ERRORS)
            succeeded, failed = succeeded + done, failed + DEPTH - done
            if opcode == WRITE_FIXED:
                target.content = on_disk(target, BUFFER_SIZE)
    assert succeeded
    if probability == 10:
        assert failed
    wait_for(lambda: moving.stats.attaches == moving.stats.detaches)
    assert moving.stats.dirty == 0


@pytest.mark.parametrize("threshold, length", [(0, 136 * KIB), (1, 18 * 64 * KIB)], ids=["prp", "sgl"])
def test_lists_of_addresses_for_the_controller(trace, threshold, length):
    """A controller that has just come has none in stock; a command whose list cannot be had is sent later, and lets the buffer move meanwhile.

    The lists are too long for those that share a page. For smaller pieces the map has lists that commands use.
    """
    with TestBuffer(16 * MIB, chunk_order=4) as moving:
        lists_that_cannot_be_had(moving, trace, threshold, length)


def lists_that_cannot_be_had(moving, trace, threshold, length):
    content = random_bytes(moving.size, seed=5)
    Path(guest.Nvme("spare").device).write_bytes(content)
    with machine.rebound(guest.Nvme("spare").pci):
        pass
    spare = guest.Nvme("spare")
    target = Target(spare.device, content)
    with contextlib.ExitStack() as stack:
        stack.enter_context(sgl_threshold(threshold))
        stack.enter_context(setting(spare.namespace / "queue/nomerges", 2))   # what is submitted together goes together, however large it is
        failed = stack.enter_context(trace(stack.enter_context(guest.returns_of("dma_pool_alloc")), where="result == 0"))
        # Little else of a submission takes whole pages: most requests get as far as to their list.
        stack.enter_context(injection(80, [PAGES]))
        ring = stack.enter_context(Ring(DEPTH))
        ring.register_dmabuf(0, moving, target.fd)
        for _ in range(8):
            ring.read_fixed(target.fd, 0, 4 * KIB, 0)   # maps the buffer, for which a worker would be needed
            moving.fill()
            numbers = {ring.prepare(READ_FIXED, target.fd, place, length, place): place for place in range(0, moving.size - length, length)[:DEPTH]}
            submit_with_failures(ring)
            moving.move()
            for number, result in ring.wait_all(len(numbers)).items():
                assert result in (length, *OWN_ERRORS)
                if result > 0:
                    place = numbers[number]
                    expect(moving[place : place + length], content[place : place + length])
        target.close()
    print(failed.hits, "lists could not be had")
    assert failed.hits
    wait_for(lambda: moving.stats.attaches == moving.stats.detaches)
    assert moving.stats.dirty == 0
