"""What reaches the controller: as few commands as it takes, for any layout of the memory, to any place of the device."""

import contextlib
import os
import re
from errno import EFAULT
from pathlib import Path

import pytest

import guest
from dmabuf import TestBuffer, Udmabuf
from machine import monitor, software_controller
from token_fixtures import *  # noqa: F403
from token_words import GIB, KIB, MIB, Target, attachments, expect, fails, make_file, on_disk, opened, random_bytes, sgl_threshold, wait_for
from uring import Ring, dmabuf_descriptor

OWN_READS = "qid > 0 && opcode == 2 && ctrl_id == {}"
OLD, NEW = random_bytes(8 * MIB, seed=21), random_bytes(8 * MIB, seed=22)


@pytest.fixture(scope="module")
def big():
    """A controller that takes 2 MiB at once, the most that QEMU allows (mdts=9; 10, and 0 for no limit, "exceeds IOV_MAX"), and has 24 GiB."""
    return guest.Nvme("spare")


@pytest.fixture
def on_big(big):
    """on_big(base): 8 MiB of known content there."""
    targets = []

    def make(base=0):
        with Udmabuf(8 * MIB) as buffer, Ring() as ring, opened(big.device) as fd:
            buffer[:] = OLD
            ring.register_dmabuf(0, buffer, fd)
            assert ring.write_fixed(fd, 0, 8 * MIB, base) == 8 * MIB
        targets.append(Target(big.device, OLD, base))
        return targets[-1]

    yield make
    for target in targets:
        target.close()


@pytest.fixture(params=[0, 1, 32 * KIB], ids=["prp", "sgl", "as-it-suits"])
def lists(request):
    """Of addresses, for the controller."""
    with sgl_threshold(request.param):
        yield


@pytest.fixture(params=["contiguous", "4 MiB", "64 KiB", "4 KiB"])
def layout(request, vfio):
    """A buffer of 8 MiB in pieces of so much."""
    orders = {"4 MiB": 10, "64 KiB": 4, "4 KiB": 0}
    with vfio.export(8 * MIB) if request.param == "contiguous" else TestBuffer(8 * MIB, orders[request.param]) as buffer:
        yield buffer


def test_commands_are_as_large_as_the_device_allows(on_big, big, layout, lists, trace):
    target = on_big()
    layout.fill()
    with Ring() as ring:
        ring.register_dmabuf(0, layout, target.fd)
        controller = big.controller.name.removeprefix("nvme")
        with trace("nvme:nvme_setup_cmd", key="opcode", where=f"qid > 0 && ctrl_id == {controller}") as commands:
            assert ring.read_fixed(target.fd, 0, 8 * MIB, 0) == 8 * MIB
            expect(layout[:], OLD)
            layout[:] = NEW
            assert ring.write_fixed(target.fd, 0, 8 * MIB, 0) == 8 * MIB
        assert big.max_transfer == 2 * MIB
        assert commands.hits == 2 * 4, commands.by_key
        expect(on_disk(target, 8 * MIB), NEW)


@pytest.fixture(scope="module")
def large():
    with software_controller() as nvme:
        yield nvme


@pytest.mark.parametrize("order", [11, 10, 4, 0], ids=["contiguous", "4 MiB", "64 KiB", "4 KiB"])
def test_8_mib_are_one_command_where_the_device_takes_as_much(large, order, lists, trace):
    assert large.max_transfer == 8 * MIB
    controller = large.controller.name.removeprefix("nvme")
    with TestBuffer(8 * MIB, order) as buffer, Ring() as ring, opened(large.device) as fd:
        ring.register_dmabuf(0, buffer, fd)
        for base, content in (0, NEW), (12 * MIB, OLD):
            buffer[:] = content
            with trace("nvme:nvme_setup_cmd", key="opcode", where=f"qid > 0 && ctrl_id == {controller}") as commands:
                assert ring.write_fixed(fd, 0, 8 * MIB, base) == 8 * MIB
                buffer.fill()
                assert ring.read_fixed(fd, 0, 8 * MIB, base) == 8 * MIB
            assert commands.by_key == {1: 1, 2: 1}
            expect(buffer[:], content)
            with open(large.device, "rb", buffering=0) as plain:
                plain.seek(base)
                expect(plain.read(8 * MIB), content, "by an ordinary read")
        assert buffer.stats.segments == 8 * MIB // (4096 << order)


@contextlib.contextmanager
def seen_by_the_controller(log):
    """[kind of list, ...] that the emulated controller walks: prp or sgl."""
    kinds = []
    monitor().console(f"logfile /run{log}")
    monitor().console("log trace:pci_nvme_map_*")
    try:
        yield kinds
    finally:
        monitor().console("trace-event pci_nvme_map_* off")
        monitor().console("log none")
    kinds += re.findall(r"pci_nvme_map_(prp|sgl) ", log.read_text())


@pytest.mark.parametrize("threshold, kind", [(0, "prp"), (1, "sgl")])
def test_the_controller_gets_the_kind_of_list_that_was_asked_for(on_big, vfio, tmp_path, threshold, kind):
    target = on_big()
    log = Path(f"/results/controller-{kind}.log")
    with vfio.export(8 * MIB) as buffer, Ring() as ring, opened(target.path) as fd:
        ring.register_dmabuf(0, buffer, fd)
        with sgl_threshold(threshold), seen_by_the_controller(log) as kinds:
            assert ring.read_fixed(fd, 0, 8 * MIB, 0) == 8 * MIB
    assert kinds.count(kind) >= 4
    assert set(kinds) == {kind}


def test_a_request_for_as_much_as_the_kernel_moves_at_once(on_big):
    """MAX_RW_COUNT, a page less than 2 GiB, arrives completely; more is refused, as for every registered buffer."""
    target, most = on_big(), 2 * GIB - 4096
    with TestBuffer(3 * GIB, chunk_order=10, backed=64 * MIB) as buffer, Ring() as ring:
        ring.register_dmabuf(0, buffer, target.fd)
        with fails(EFAULT):
            ring.read_fixed(target.fd, 0, most + 512, 0)
        assert ring.read_fixed(target.fd, GIB, most, 0, timeout=120) == most
        expect(buffer[3 * GIB - 4096 - 8 * MIB : 3 * GIB - 4096], bytes(8 * MIB), "the end, where nothing was written")


def test_memory_of_a_token_grows_with_the_pieces_of_its_buffer(file, trace):
    """At most 64 KiB for 1 GiB in pieces of 4 MiB, beside what it takes to look at the counters."""
    ours = f"common_pid == {os.getpid()}"
    with TestBuffer(GIB, chunk_order=10, backed=64 * MIB) as buffer, Ring() as ring, contextlib.ExitStack() as stack:
        counts = [stack.enter_context(trace(f"kmem:{event}", where=ours, sums=["bytes_alloc"])) for event in ("kmalloc", "kmem_cache_alloc")]
        pages = stack.enter_context(trace("kmem:mm_page_alloc", key="order", where=ours))

        def allocated():
            """(by the slab allocator, in pages), in bytes"""
            return sum(count.update().sums["bytes_alloc"] for count in counts), sum((4096 << order) * hits for order, hits in pages.update().by_key.items())

        taken = []
        for slot in range(4):   # the least: now and then an allocation fills up stores that others use, too
            first, second = allocated(), allocated()
            ring.register_dmabuf(slot, buffer, file.fd)
            assert ring.read_fixed(file.fd, 0, MIB, 0, slot) == MIB
            taken.append([(third - two) - (two - one) for one, two, third in zip(first, second, allocated())])
            ring.unregister(slot)   # the map goes, so that the next token needs one
            wait_for(lambda: not attachments(), ring)
        print(taken)
        assert buffer.stats.segments == 256
        assert min(slab for slab, _ in taken) <= 64 * KIB
        assert min(in_pages for _, in_pages in taken) <= 64 * KIB


def test_parts_of_every_size_and_place(on_big, layout, lists):
    target = on_big()
    with Ring() as ring:
        ring.register_dmabuf(0, layout, target.fd)
        for place, length, start in (0, 512, 0), (512, 4096, 512), (4096 - 512, 1024, 0), (64 * KIB - 512, MIB, 4096), (4 * MIB - 512, 1024, MIB), \
                                    (3 * MIB + 512, 2 * MIB, 512), (512, 8 * MIB - 512, 512):  # fmt: skip
            layout.fill()
            assert ring.read_fixed(target.fd, place, length, start) == length
            expect(layout[place : place + length], OLD[start : start + length], f"{length} bytes to {place}")
            expect(layout[:place] + layout[place + length :], bytes([0xEE]) * (8 * MIB - length), "what is beside")


def test_places_of_the_device_beyond_32_bits(on_big, moving):
    for base in (4 * GIB - 4096, 20 * GIB):
        target = on_big(base)
        with Ring() as ring:
            ring.register_dmabuf(0, moving, target.fd)
            assert ring.read_fixed(target.fd, 0, moving.size, base) == moving.size
            expect(moving[:], OLD[: moving.size])


def test_a_buffer_of_64_gib(file):
    """64 MiB of memory are behind it, again and again."""
    size = 64 * GIB
    with TestBuffer(size, chunk_order=10, backed=64 * MIB) as buffer, Ring() as ring:
        ring.register_dmabuf(0, buffer, file.fd)
        for place in (0, 4 * GIB - 512 * KIB, 33 * GIB + 512, size - MIB):
            buffer[place : place + MIB] = bytes(MIB)
            assert ring.read_fixed(file.fd, place, MIB, 0) == MIB
            expect(buffer[place : place + MIB], file.content[:MIB], f"read to {place}")
            buffer[place : place + MIB] = NEW[:MIB]
            assert ring.write_fixed(file.fd, place, MIB, MIB) == MIB
            expect(on_disk(file, MIB, MIB), NEW[:MIB])
        assert buffer.stats.maps == 1
        assert buffer.stats.segments == size // (4 * MIB)


def test_thousands_of_tokens_of_one_controller(ext4, little):
    """256 for each of 8 files; any of them works, and all of them end."""
    files = [Target(ext4 / f"{i}", make_file(ext4 / f"{i}", random_bytes(64 * KIB, seed=i))) for i in range(8)]
    with Ring(slots=2048) as ring:
        for i, file in enumerate(files):
            assert ring.update(256 * i, [dmabuf_descriptor(little, file.fd)] * 256) == 256
        assert attachments() == 1, "they share it"
        for slot in range(0, 2048, 77):
            file = files[slot // 256]
            assert ring.read_fixed(file.fd, 0, 64 * KIB, 0, slot) == 64 * KIB
            expect(little[: 64 * KIB], file.content, f"slot {slot}")
        ring.unregister_all()
        wait_for(lambda: not attachments(), ring)
    for file in files:
        file.close()


def test_requests_go_by_the_queue_of_their_processor(nvme, file, udmabuf, trace):
    """No queue, and no lock of one, is shared by two processors, if the controller has enough of them."""
    queues = {int(path.name) + 1: (path / "cpu_list").read_text().strip() for path in Path("/sys/block", nvme.namespace.name, "mq").iterdir()}
    for _ in range(int(Path("/sys/module/nvme/parameters/poll_queues").read_text())):   # the last ones
        del queues[max(queues)]
    assert sorted(queues.values()) == [str(cpu) for cpu in range(os.cpu_count())], queues
    before = os.sched_getaffinity(0)
    try:
        for queue, cpu in queues.items():
            os.sched_setaffinity(0, {int(cpu)})
            with Ring() as ring:
                ring.register_dmabuf(0, udmabuf, file.fd)
                with trace("nvme:nvme_setup_cmd", key="qid", where=OWN_READS.format(nvme.controller.name.removeprefix("nvme"))) as commands:
                    for _ in range(16):
                        assert ring.read_fixed(file.fd, 0, 4 * KIB, 0) == 4 * KIB
                assert commands.by_key == {queue: 16}
    finally:
        os.sched_setaffinity(0, before)
