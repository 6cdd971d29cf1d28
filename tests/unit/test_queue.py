"""Queues by the C interface, on this machine's own io_uring and without it: vectors, event loops, cancelling, threads, and what runs out."""
import ctypes
import errno
import os
import random
import re
import resource
import select
import signal
import struct
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import pytest

from checkpoints import encode, tensor
from children import in_child
from ext4 import new_ext4
from library import READ, SYNC, WHOLE_BLOCKS, WRITE, Path, Reason, State
from server import Server, wait_until

KIB, MIB = 1 << 10, 1 << 20
LIBC = ctypes.CDLL(None, use_errno=True)

pytestmark = pytest.mark.filterwarnings('ignore:.*multi-threaded, use of fork')


def fails(number):
    return pytest.raises(OSError, match=rf'^\[Errno {number}\]')


def forbid_io_uring():
    """io_uring_setup(2) fails with EPERM from now on in this process, as in a container of Docker."""
    load_number, equals, allow, refuse = 0x20, 0x15, 0x7fff0000, 0x00050000 | errno.EPERM
    program = b''.join(struct.pack('=HBBI', *step) for step in (
        (load_number, 0, 0, 0), (equals, 0, 1, 425), (6, 0, 0, refuse), (6, 0, 0, allow)))
    steps = ctypes.create_string_buffer(program, len(program))
    assert LIBC.prctl(38, 1, 0, 0, 0) == 0   # PR_SET_NO_NEW_PRIVS
    assert LIBC.prctl(22, 2, struct.pack('HxxxxxxP', 4, ctypes.addressof(steps)), 0, 0) == 0   # PR_SET_SECCOMP


@pytest.fixture(params=['io_uring', 'system calls'])
def everywhere(request):
    """everywhere(function) runs it with io_uring, or in a process that may not use it."""
    def run(function):
        if request.param == 'io_uring':
            function()
        else:
            in_child(lambda: (forbid_io_uring(), function()))
    return run


@pytest.fixture(scope='module')
def ext4(tmp_path_factory):
    """Direct requests, holes and limits are real there."""
    with new_ext4(tmp_path_factory, 48 * MIB, 0) as directory:
        yield directory


@pytest.fixture
def cuda(build, monkeypatch):
    """A simulated GPU."""
    monkeypatch.delenv('SIMULATED_CUDA', raising=False)
    ctypes.CDLL(str(build / 'tests/unit/libcuda.so.1'))


def descriptors():
    return len(os.listdir('/proc/self/fd'))


# ----------------------------------------------------------------- vectors


class Model:
    """Files and buffers, and what has to be in them. A round moves ranges at random, none of which overlap where they are written to."""

    def __init__(self, library, directory, source, stack):
        self.source = source
        self.files = [self.file(library, directory / f'{i}', stack) for i in range(3)]
        self.buffers = [self.buffer(library, what, stack) for what in ('memory', 'cuda', 'memory')]
        self.copied = 0

    def file(self, library, path, stack):
        path.write_bytes(self.source.randbytes(self.source.randrange(300 * KIB)))
        file = stack.enter_context(library.file(os.fsencode(path), os.O_RDWR))
        return file, bytearray(path.read_bytes()), path

    def buffer(self, library, what, stack):
        buffer = stack.enter_context(library.allocate(what, 256 * KIB))
        buffer.write(0, self.source.randbytes(256 * KIB))
        return buffer, bytearray(buffer.read(0, 256 * KIB))

    def spans(self, count, limit):
        """So many that do not overlap: (begin, length), in any order; now and then of whole blocks, or contiguous."""
        unit = self.source.choice([1, 1, 512, 4096])
        cuts = sorted(self.source.randrange(limit // unit) * unit for _ in range(2 * count))
        spans = [(begin, end - begin) for begin, end in zip(cuts[::2], cuts[1::2])]
        if self.source.random() < 0.3:
            spans = [(begin, end - begin) for begin, end in zip(cuts, cuts[1:])]
        self.source.shuffle(spans)
        return spans

    def parts(self, direction):
        """(file, offset, buffer, offset, length), by number."""
        found = []
        written_to, read_from = (self.files, self.buffers) if direction == WRITE else (self.buffers, self.files)
        for i in range(len(written_to)):
            for at, length in self.spans(self.source.randrange(1, 12), 256 * KIB):
                other = self.source.randrange(len(read_from))
                start = self.source.randrange(256 * KIB - length + 1)
                if self.source.random() < 0.4:   # where direct requests are possible
                    start = min((start & ~4095) + at % 4096, 256 * KIB - length)
                found.append((i, at, other, start, length) if direction == WRITE else (other, start, i, at, length))
        self.source.shuffle(found)
        return found

    def expect(self, direction, parts):
        """Does the same; the number of bytes."""
        moved = 0
        for file, at, buffer, to, length in parts:
            content, memory = self.files[file][1], self.buffers[buffer][1]
            if direction == READ:
                got = max(min(length, len(content) - at), 0)
                memory[to:to + got] = content[at:at + got]
                moved += got
            elif length:
                content.extend(bytes(max(at + length - len(content), 0)))
                content[at:at + length] = memory[to:to + length]
                moved += length
        return moved

    def check(self):
        for file, content, path in self.files:
            assert path.read_bytes() == content, f'{path} has other bytes'
            assert file.size == len(content)
        for number, (buffer, memory) in enumerate(self.buffers):
            assert buffer.read(0, len(memory)) == memory, f'buffer {number} has other bytes'


@pytest.mark.parametrize('kind', ['ext4', 'tmpfs'])
def test_vectors_do_what_a_model_does(library, ext4, tmp_path, cuda, everywhere, kind):
    directory = tmp_path if kind == 'tmpfs' else ext4

    def run():
        source = random.Random(17)
        with ExitStack() as stack:
            model = Model(library, directory, source, stack)
            for number in range(25):
                direction, before = source.choice([READ, WRITE]), sum(len(file[1]) for file in model.files)
                parts = model.parts(direction)
                moved = model.expect(direction, parts)
                real = [(model.files[file][0], at, model.buffers[buffer][0], to, length) for file, at, buffer, to, length in parts]
                with library.queue(depth=source.randrange(1, 20), chunk=source.choice([4096, 65536, 0])) as queue:
                    with queue.submit(direction, real, source.choice([0, SYNC]) if direction == WRITE else 0) as transfer:
                        transfer.wait()
                        assert transfer.bytes == moved, (number, before)
                        results = [transfer.result(i) for i in range(len(real))]
                    assert queue.counters.bytes_copied + queue.counters.bytes_direct_io == moved
                assert sum(result.done for result in results) == moved
                assert {result.error for result in results} == {0}
                # A GPU's memory has no pages.
                assert all(result.path == Path.BOUNCE or result.path == Path.DIRECT_IO and parts[i][2] != 1 for i, result in enumerate(results))
                model.check()
    everywhere(run)


def test_whole_blocks_of_neighbours(library, ext4):
    """Each asks for the blocks around it, which are the same ones."""
    content = os.urandom(64 * KIB)
    (ext4 / 'file').write_bytes(content)
    with library.file(bytes(ext4 / 'file')) as file, library.allocate('memory', 64 * KIB) as buffer, library.queue() as queue:
        parts = [(file, at, buffer, at, 700) for at in range(0, 60_000, 701)]
        assert queue.read(parts, WHOLE_BLOCKS) == 700 * len(parts)
        for _file, at, _buffer, to, length in parts:
            assert buffer.read(to, length) == content[at:at + length]


def test_nothing_to_do_is_done_at_once(library, ext4):
    (ext4 / 'empty').touch()
    with library.file(bytes(ext4 / 'empty'), os.O_RDWR) as file, library.allocate('memory', 4096) as buffer, library.queue() as queue:
        assert queue.read([]) == 0
        assert queue.write([(file, 0, buffer, 0, 0)], SYNC) == 0
        assert queue.read([(file, 2**63, buffer, 1 << 60, 0)]) == 0
        with queue.submit(READ, [(file, 0, buffer, 0, 4096)]) as transfer:
            assert transfer.state == State.FINISHED and transfer.bytes == 0


def test_mistakes_are_told_before_anything_moves(library, ext4):
    (ext4 / 'file').write_bytes(b'x' * 8192)
    with library.file(bytes(ext4 / 'file')) as file, library.file(bytes(ext4 / 'file'), os.O_WRONLY) as written, \
         library.allocate('memory', 8192) as buffer, library.queue() as queue:
        good = (file, 0, buffer, 0, 4096)
        for number, direction, parts, flags in (
                (errno.EBADF, WRITE, [good], 0), (errno.EBADF, READ, [(written, 0, buffer, 0, 1)], 0),
                (errno.EFAULT, READ, [good, (file, 0, buffer, 4097, 4096)], 0), (errno.EFAULT, READ, [(file, 0, buffer, 2**64 - 1, 4096)], 0),
                (errno.EINVAL, READ, [good], SYNC), (errno.EINVAL, WRITE, [(written, 0, buffer, 0, 1)], WHOLE_BLOCKS),
                (errno.EINVAL, READ, [good], 4), (errno.EINVAL, WRITE, [(written, 2**63 - 1, buffer, 0, 1)], 0), (errno.EINVAL, 2, [good], 0)):
            with fails(number):
                queue.submit(direction, parts, flags)
        assert buffer.read(0, 8192) == bytes(8192)
        assert queue.counters.requests == 0


def test_a_queue_without_io_uring_says_so(library, ext4):
    """Where the kernel would have tokens, too: the buffer is a dma-buf."""
    def run():
        (ext4 / 'file').write_bytes(b'x' * 4096)
        forbid_io_uring()
        with library.file(bytes(ext4 / 'file')) as file, library.allocate('memory', 4096) as buffer, library.queue() as queue:
            assert queue.read([(file, 0, buffer, 0, 4096)]) == 4096
            result = queue.check((file, 0, buffer, 0, 4096))
            assert (result.path, result.reason) == (Path.DIRECT_IO, Reason.NO_DMABUF)
            with fails(errno.EOPNOTSUPP), library.queue(Path.DIRECT) as direct:
                direct.read([(file, 0, buffer, 0, 4096)])
    in_child(run)


def test_too_many_descriptors_are_called_that(library):
    def run():
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, lowest))
        with pytest.raises(OSError, match=rf'^\[Errno {errno.EMFILE}\].*ulimit -n'):
            library.queue()
    in_child(run)


# -------------------------------------------------------- writes, and their limits


def cached(path):
    """(cached, dirty) pages, as cachestat(2) counts them."""
    found = (ctypes.c_uint64 * 5)()
    with open(path, 'rb') as file:
        if LIBC.syscall(451, file.fileno(), (ctypes.c_uint64 * 2)(0, 0), found, 0):
            pytest.skip('this kernel has no cachestat(2)')
    return found[0], found[1]


@pytest.mark.parametrize('sync', [0, SYNC])
def test_sync_leaves_nothing_in_the_page_cache_only(library, ext4, sync):
    path = ext4 / f'sync-{sync}'
    path.touch()
    with library.file(bytes(path), os.O_RDWR) as file, library.allocate('memory', MIB) as buffer, library.queue() as queue:
        assert queue.write([(file, 100, buffer, 0, 20_000), (file, 40_000, buffer, 0, 20_000)], sync) == 40_000
        assert (cached(path)[1] == 0) == bool(sync), 'partial blocks go by the page cache'
        without_sync = queue.counters.requests
        assert queue.write([(file, 100, buffer, 0, 20_000), (file, 40_000, buffer, 0, 20_000)], 0) == 40_000
        assert queue.counters.requests == 2 * without_sync - bool(sync)   # one for the file


def test_partial_blocks_keep_what_is_around_them(library, ext4):
    """Of a file that is in the page cache, where others write to the same blocks at the same time."""
    path, content = ext4 / 'neighbours', bytearray(b'.' * 100_000)
    path.write_bytes(content)
    with library.file(bytes(path), os.O_RDWR) as file, library.allocate('memory', MIB) as buffer, library.queue() as queue, path.open('r+b') as other:
        buffer.fill(ord('w'))
        for i in range(50):
            at, length = 4096 * (i % 20) + 100 + i, 3 + 37 * i
            other.seek(at - 50)
            other.write(b'o' * 50)
            other.flush()
            assert queue.write([(file, at, buffer, 7, length)]) == length
            content[at - 50:at + length] = b'o' * 50 + b'w' * length
            assert path.read_bytes() == content


@pytest.fixture
def small(tmp_path_factory):
    with new_ext4(tmp_path_factory, 12 * MIB, 0) as directory:
        yield directory


def test_no_space_in_the_middle_says_how_far_it_came(library, small, everywhere):
    """And the rest can be written when there is some."""
    size, path = 16 * MIB, small / 'file'

    def fill(depth):
        (small / 'ballast').write_bytes(bytes(4 * MIB))
        with library.file(bytes(path), os.O_RDWR | os.O_CREAT) as file, library.allocate('memory', size) as buffer, \
             library.queue(depth=depth, chunk=MIB) as queue:
            content = os.urandom(size)
            buffer.write(0, content)
            half = size // 2 + 77
            with queue.submit(WRITE, [(file, half, buffer, half, size - half), (file, 0, buffer, 0, half)]) as transfer:
                transfer.wait()
                with fails(errno.ENOSPC):
                    assert transfer.bytes
                assert 'free some space' in transfer.error
                second, first = transfer.result(0), transfer.result(1)
            assert first.done < half and second.done == 0 and (depth > 1 or first.done > MIB)
            assert (first.error, second.error) == (-errno.ENOSPC, -errno.ENOSPC)
            assert file.pread(first.done, 0) == content[:first.done]
            (small / 'ballast').unlink()
            done, rest = first.done, 2 * MIB + 99
            assert queue.write([(file, done, buffer, done, rest)], SYNC) == rest
            assert file.pread(done + rest, 0) == content[:done + rest]
        path.unlink()
    everywhere(lambda: (fill(1), fill(16)))


def test_many_files_and_buffers_cost_one_thread_and_few_descriptors(library, ext4, cuda):
    """Two for a file, one for a dma-buf, one for a queue, and two more for the descriptor that a loop waits for."""
    before, tasks = descriptors(), os.listdir('/proc/self/task')
    with ExitStack() as stack:
        buffers = [stack.enter_context(library.allocate(what, 64 * 8192)) for what in ('memory', 'memory', 'cuda', 'cuda')]
        with_buffers, files = descriptors(), []
        for i in range(64):
            (ext4 / f'{i}').write_bytes(bytes([i]) * 5000)
            files.append(stack.enter_context(library.file(bytes(ext4 / f'{i}'))))
        queue = stack.enter_context(library.queue())
        parts = [(file, 0, buffer, 8192 * i, 5000) for i, file in enumerate(files) for buffer in buffers]
        assert queue.read(parts) == 64 * 4 * 5000
        assert descriptors() == with_buffers + 2 * 64 + 1
        assert queue.fd >= 0
        assert descriptors() == with_buffers + 2 * 64 + 3
        assert threads_beside(tasks) == []
        for i in range(64):
            assert {bytes(buffer.read(8192 * i, 5000)) for buffer in buffers} == {bytes([i]) * 5000}
    assert descriptors() == before


def threads_beside(tasks):
    """Names of this process's other threads; without the kernel's workers."""
    names = []
    for task in set(os.listdir('/proc/self/task')) - set(tasks):
        with suppress(OSError), open(f'/proc/self/task/{task}/comm') as comm:
            names.append(comm.read())
    return [name for name in names if not name.startswith('iou-wrk')]


# ---------------------------------------------------- event loops and other waits


@pytest.fixture
def slow(program, build, tmp_path, request):
    """Two block devices .file and .other with .content: loops of files on a mount without passthrough, so that each read needs its server.

    While .stopped() lasts they do not answer, as a device does not that has hung.
    """
    for name in ('source', 'target'):
        (tmp_path / name).mkdir()
    server = Server(program, tmp_path / 'source', tmp_path / 'target', tmp_path / 'log', 'log=info', preload=build / 'tests/unit/no-passthrough.so')
    request.addfinalizer(server.end)
    assert server.process.poll() is None, server.said()
    server.content = random.Random(8).randbytes(MIB)
    for name in ('file', 'other'):
        (server.source / name).write_bytes(server.content)
        device = subprocess.run(['losetup', '--direct-io=on', '--find', '--show', server.target / name], capture_output=True, text=True, check=False)
        if device.returncode:
            pytest.skip(f'no loop device: {device.stderr}')
        path = device.stdout.strip()
        # Detached now, the device ends when it is closed, also by the end of a process that is killed.
        request.addfinalizer(partial(os.close, os.open(path, os.O_RDONLY)))
        subprocess.run(['losetup', '--detach', path], check=True)
        setattr(server, name, path.encode())

    @contextmanager
    def stopped():
        server.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            server.process.send_signal(signal.SIGCONT)
    server.stopped = stopped
    return server


def is_readable(queue, seconds=0.0):
    return bool(select.select([queue.fd], [], [], seconds)[0])


def take(queue, transfer):
    """As an event loop does when a transfer has finished."""
    assert queue.next() == transfer.handle.value
    bytes_ = transfer.bytes
    transfer.close()
    return bytes_


def test_descriptor_is_readable_when_there_is_something_to_do(library, slow, everywhere):
    def run():
        with library.file(slow.file) as file, library.allocate('memory', MIB) as buffer, library.queue(chunk=64 * KIB) as queue:
            assert not is_readable(queue) and queue.poll() == 0 and not is_readable(queue)
            for _ in range(3):
                polls = 0
                transfer = queue.submit(READ, [(file, 0, buffer, 0, MIB)])
                while not queue.poll():
                    polls += 1
                    assert is_readable(queue, 20), 'the loop would hang'
                assert is_readable(queue) and transfer.state == State.FINISHED
                assert polls <= 20, 'a request each, and little more'
                assert take(queue, transfer) == MIB
                assert not is_readable(queue) and queue.poll() == 0 and not is_readable(queue, 0.05), 'a loop would turn without end'
            assert buffer.read(0, MIB) == slow.content
    everywhere(run)


def test_descriptor_is_silent_while_the_device_works(library, slow):
    with library.file(slow.file) as file, library.allocate('memory', MIB) as buffer, library.queue() as queue:
        assert queue.fd >= 0
        with slow.stopped():
            transfer = queue.submit(READ, [(file, 0, buffer, 0, MIB)])
            queue.poll()
            assert not is_readable(queue, 0.3)
        while not queue.poll():
            assert is_readable(queue, 20)
        assert take(queue, transfer) == MIB


def test_descriptor_of_a_queue_after_a_wait(library, ext4):
    """What a wait has left is sent before it returns, so that the descriptor tells of it."""
    (ext4 / 'after').write_bytes(b'x' * 12288)
    with library.file(bytes(ext4 / 'after')) as file, library.allocate('memory', 12288) as buffer, library.queue(depth=1, chunk=4096) as queue:
        waiting = [queue.submit(READ, [(file, at, buffer, at, 4096)]) for at in (0, 4096, 8192)]
        while waiting:
            assert queue.wait(20_000) >= 1
            while (finished := queue.next()) is not None:
                transfer, = (one for one in waiting if one.handle.value == finished)
                waiting.remove(transfer)
                assert transfer.bytes == 4096
                transfer.close()
            assert not waiting or is_readable(queue, 20), 'the loop would hang'


def test_many_transfers_in_one_loop(library, slow, ext4, everywhere):
    """With poll(2); two queues, and each transfer is returned once."""
    def run():
        source, loop = random.Random(3), select.poll()
        with ExitStack() as stack:
            files = [stack.enter_context(library.file(path)) for path in (slow.file, slow.other)]
            buffers = [stack.enter_context(library.allocate('memory', MIB)) for _ in range(2)]
            queues = {}
            for _ in range(2):
                queue = stack.enter_context(library.queue(depth=4, chunk=32 * KIB))
                queues[queue.fd] = queue
                loop.register(queue.fd, select.POLLIN)
            waiting, polls = {}, 0
            for i in range(30):
                queue = source.choice(list(queues.values()))
                at, length = source.randrange(MIB), source.randrange(100 * KIB)
                transfer = queue.submit(READ, [(files[i % 2], at, buffers[i // 2 % 2], 0, min(length, MIB))])
                waiting[transfer.handle.value] = transfer, min(length, MIB - at)
            while waiting:
                ready = loop.poll(20_000)
                assert ready, 'the loop hangs'
                for fd, _ in ready:
                    polls += 1
                    queues[fd].poll()
                    while (finished := queues[fd].next()) is not None:
                        transfer, length = waiting.pop(finished)
                        assert transfer.bytes == length
                        transfer.close()
            assert polls < 200 and loop.poll(0) == []
    everywhere(run)


def test_waiting_takes_no_processor(library, slow, ext4):
    """Not even with a transfer that has finished, and that nobody has asked for."""
    (ext4 / 'quick').write_bytes(b'x' * 4096)
    with library.file(slow.file) as file, library.file(bytes(ext4 / 'quick')) as quick, library.allocate('memory', MIB) as buffer, \
         library.queue() as queue, ExitStack() as stack:
        with slow.stopped():
            transfer = stack.enter_context(queue.submit(READ, [(file, 0, buffer, 0, MIB)]))
            assert queue.wait(100) == 0
            with queue.submit(READ, [(quick, 0, buffer, 0, 4096)]) as finished:
                assert queue.wait(20_000) == 1 and finished.bytes == 4096
                before, started = time.thread_time(), time.monotonic()
                with fails(errno.ETIMEDOUT):
                    transfer.wait(500)
                assert time.monotonic() - started >= 0.49 and time.thread_time() - before < 0.1
                with fails(errno.EAGAIN):
                    assert transfer.bytes
                assert transfer.state == State.RUNNING
                assert queue.wait(0) == 1
        transfer.wait()
        assert transfer.bytes == MIB and buffer.read(0, MIB) == slow.content


def test_cancelling_waits_for_what_the_device_has(library, slow):
    with library.file(slow.file) as file, library.allocate('memory', MIB) as buffer, library.queue(depth=4, chunk=32 * KIB) as queue, \
         ExitStack() as stack:
        with slow.stopped():
            transfer = stack.enter_context(queue.submit(READ, [(file, 0, buffer, 0, MIB)]))
            other = stack.enter_context(queue.submit(READ, [(file, 0, buffer, 0, 4096)]))
            transfer.cancel(0)
            assert transfer.state in (State.CANCELLING, State.FINISHED)
            with fails(errno.ETIMEDOUT):
                transfer.cancel(200)
            assert transfer.state == State.CANCELLING
        transfer.cancel()
        assert transfer.state == State.FINISHED and 'cancelled' in transfer.error
        with fails(errno.ECANCELED):
            assert transfer.bytes
        result = transfer.result()
        # A bounced read brings nothing after that; a server that is being stopped may have answered some requests before.
        assert result.error == -errno.ECANCELED and result.done < MIB
        assert buffer.read(0, result.done) == slow.content[:result.done]
        transfer.cancel()
        other.wait()
        assert other.bytes == 4096
        assert queue.read([(file, 0, buffer, 0, MIB)]) == MIB


def test_closing_a_queue_cancels_its_transfers(library, slow):
    file, buffer, queue = library.file(slow.file), library.allocate('memory', MIB), library.queue(depth=2, chunk=32 * KIB)
    with slow.stopped():
        transfers = [queue.submit(READ, [(file, 0, buffer, 0, MIB)]) for _ in range(2)]
        threading.Timer(0.3, slow.process.send_signal, (signal.SIGCONT,)).start()
        before = time.thread_time()
        queue.close()
        assert time.thread_time() - before < 0.15
    file.close()
    buffer.close()
    for transfer in transfers:
        with fails(errno.ECANCELED):
            assert transfer.bytes
        transfer.close()


def test_progress_function_cancels_in_a_loop(library, slow):
    """The descriptor tells when the requests have been taken back."""
    seen = []
    with library.file(slow.file) as file, library.allocate('memory', MIB) as buffer, library.queue(depth=2, chunk=32 * KIB) as queue:
        assert queue.fd >= 0

        def progress(told):
            seen.append((State(told.state), told.in_flight))
            return True
        transfer = queue.submit(READ, [(file, 0, buffer, 0, MIB)], progress=progress)
        while not queue.poll():
            assert is_readable(queue, 20)
        with fails(errno.ECANCELED):
            take(queue, transfer)
    assert seen[0][0] == State.RUNNING and seen[-1] == (State.FINISHED, 0) and len(seen) < 10


def test_signal_is_told_to_the_progress_function(library, slow):
    """Which cancels, and is told how many requests are still waited for."""
    seen, caught = [], []

    def progress(told):
        seen.append((State(told.state), told.in_flight))
        return bool(caught)
    before = signal.signal(signal.SIGALRM, lambda *_: caught.append(time.monotonic()))
    try:
        with library.file(slow.file) as file, library.allocate('memory', MIB) as buffer, library.queue(depth=4, chunk=32 * KIB) as queue:
            with slow.stopped(), queue.submit(READ, [(file, 0, buffer, 0, MIB)], progress=progress) as transfer:
                signal.setitimer(signal.ITIMER_REAL, 0.25)
                with fails(errno.ETIMEDOUT):
                    transfer.wait(1000)
                assert caught and time.monotonic() - caught[0] > 0.6
                slow.process.send_signal(signal.SIGCONT)
                transfer.wait()
                with fails(errno.ECANCELED):
                    assert transfer.bytes
    finally:
        signal.signal(signal.SIGALRM, before)
    states = [state for state, _ in seen]
    assert states == sorted(states) and set(states) == {State.RUNNING, State.CANCELLING, State.FINISHED}
    assert 0 < max(in_flight for state, in_flight in seen if state == State.CANCELLING) <= 4
    assert 5 <= len(seen) < 100, 'every 100 ms'


def requests_of(device):
    """Those that the device has."""
    with open(f'/sys/block/{os.path.basename(device.decode())}/inflight') as inflight:
        return sum(int(number) for number in inflight.read().split())


def test_command_says_what_it_waits_for_after_ctrl_c(slow, command):
    """And ends as soon as the device has let go of the memory."""
    length = MIB - 256
    checkpoint = encode({'a': tensor('U8', [length], 0, length)}, bytes(length), pad=248)
    with open(slow.file, 'r+b') as device:   # which keeps the header in the page cache, and only that
        device.write(checkpoint)
        device.flush()
        os.fsync(device.fileno())
        for advice in (os.POSIX_FADV_DONTNEED, os.POSIX_FADV_RANDOM):
            os.posix_fadvise(device.fileno(), 0, 0, advice)
        os.pread(device.fileno(), 1, 0)
        with slow.stopped():
            process = subprocess.Popen([command, 'load', slow.file, '--into', 'memory'], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            wait_until(lambda: requests_of(slow.file))
            process.send_signal(signal.SIGINT)
            said = process.stderr.readline()
            assert re.search(r'waiting for \d+ requests that the device has', said), said
            assert process.poll() is None
        assert 'interrupted' in process.communicate(timeout=20)[1]
        assert process.returncode == 130


# ------------------------------------------------------------ threads and forks


def in_threads(*functions):
    """Runs them at the same time, and raises what one of them has."""
    errors = []

    def guarded(function):
        try:
            function()
        except BaseException as error:
            errors.append(error)
    threads = [threading.Thread(target=guarded, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_two_threads_share_a_file_and_a_buffer(library, ext4):
    """A queue each; each has every other page of both."""
    size = 64 * 4096
    (ext4 / 'shared').write_bytes(bytes(size))
    with library.file(bytes(ext4 / 'shared'), os.O_RDWR) as file, library.allocate('memory', size) as buffer:
        def work(number):
            source, mine = random.Random(number), range(4096 * number, size, 8192)
            with library.queue(depth=3, chunk=4096) as queue:
                for _ in range(40):
                    pages = source.sample(mine, 10)
                    content = {at: source.randbytes(4000) for at in pages}
                    for at in pages:
                        buffer.write(at + 50, content[at])
                    assert queue.write([(file, at + 50, buffer, at + 50, 4000) for at in pages]) == 40_000
                    for at in pages:
                        buffer.zero(at, 4096)
                    assert queue.read([(file, at + 50, buffer, at + 50, 4000) for at in pages]) == 40_000
                    for at in pages:
                        assert buffer.read(at + 50, 4000) == content[at]
        in_threads(lambda: work(0), lambda: work(1))


def test_file_and_buffer_end_while_a_queue_of_another_thread_knows_them(library, ext4, cuda):
    """Nothing of them is kept: neither their descriptors nor their memory."""
    (ext4 / 'known').write_bytes(os.urandom(8192))
    turns, before = 150, descriptors()
    ready, gone = threading.Semaphore(0), threading.Semaphore(0)
    known, stays = [], library.file(bytes(ext4 / 'known'))

    def read():
        with library.queue() as queue, library.allocate('memory', 8192) as own:
            for _ in range(turns):
                file, buffer = library.file(bytes(ext4 / 'known')), library.allocate('cuda', 32 * MIB)
                assert queue.read([(file, 0, buffer, 0, 8192), (stays, 0, buffer, 0, 8192), (file, 0, own, 0, 8192)]) == 3 * 8192
                known.append((file, buffer))
                ready.release()
                assert queue.read([(stays, 0, own, 0, 8192)]) == 8192
                gone.acquire()
                # In use here: the other file, and the queue's own things.
                assert descriptors() <= before + 4

    def end():
        for _ in range(turns):
            ready.acquire()
            for one in known.pop():
                one.close()
            gone.release()
    in_threads(read, end)
    stays.close()


def test_queue_stays_the_parents_after_a_fork(library, slow, cuda):
    with library.file(slow.file) as file, library.allocate('memory', MIB) as buffer, library.queue(chunk=64 * KIB) as queue, ExitStack() as stack:
        assert queue.read([(file, 0, buffer, 0, MIB)]) == MIB
        finished = queue.submit(READ, [(file, 0, buffer, 0, MIB)])
        finished.wait()
        assert is_readable(queue)
        stack.enter_context(slow.stopped())
        running = queue.submit(READ, [(file, 0, buffer, 0, MIB)])

        def child():
            part = (file, 0, buffer, 0, 4096)
            for call in (lambda: queue.read([part]), lambda: queue.submit(WRITE, [part]), lambda: queue.check(part), queue.poll, lambda: queue.wait(0),
                         lambda: running.wait(0), lambda: running.cancel(0), lambda: queue.fd):
                with fails(errno.ECHILD):
                    call()
            assert queue.next() is None
            running.close()
            finished.close()
            queue.close()
            os.kill(slow.process.pid, signal.SIGCONT)
            with library.queue() as own:
                buffer.fill(0)
                assert own.read([(file, 0, buffer, 0, MIB)]) == MIB
                assert buffer.read(0, MIB) == slow.content
            file.close()
            buffer.close()
        in_child(child)
        assert queue.wait(20_000) >= 1
        running.wait()
        assert running.bytes == MIB and is_readable(queue)
        assert {queue.next(), queue.next()} == {running.handle.value, finished.handle.value}
        running.close()
        finished.close()
        assert not is_readable(queue)
        assert queue.read([(file, 0, buffer, 0, MIB)]) == MIB and buffer.read(0, MIB) == slow.content
