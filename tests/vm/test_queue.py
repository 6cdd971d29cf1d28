"""Queues of libfuse-dmabuf on the kernel with tokens: vectors, many files and buffers, direct writes, and what ends in their middle."""
import errno
import os
import random
import select
import signal
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import pytest

import guest
from places import OwnMount, cache_of, mount, served, server_of, wait_until  # noqa: F401  (fixtures)
from test_nvme_life import in_flight, the_next_completion_is_lost

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'unit'))
from library import READ, SYNC, WHOLE_BLOCKS, WRITE, Library, Reason, State  # noqa: E402
from library import Path as Way  # noqa: E402

KIB, MIB = 1 << 10, 1 << 20


@pytest.fixture(scope='session')
def library():
    return Library()


@pytest.fixture
def make(library, mount):
    """make(name, content) is a file of the mount, opened by the library to be read and written; .source is behind it."""
    with ExitStack() as stack:
        def made(name, content):
            with (mount.source / name).open('wb') as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            file = stack.enter_context(library.file(bytes(mount.path / name), os.O_RDWR))
            file.source = mount.source / name
            return file
        yield made


@pytest.fixture
def allocate(library, request):
    """allocate(kind, size): a buffer of that kind."""
    with ExitStack() as stack:
        def allocated(kind, size):
            what = kind if kind != 'vfio' else f'vfio:{request.getfixturevalue("vram")}'
            return stack.enter_context(library.allocate(what, size))
        yield allocated


@pytest.fixture
def own(ext4, tmp_path):
    """A mount with a policy: own.policy(text) is in force when it returns."""
    policy = tmp_path / 'policy'

    def set_policy(text):
        policy.write_text(text)
        policy.chmod(0o600)
        if not hasattr(own, 'mounted'):
            own.mounted = OwnMount(ext4, tmp_path / 'mount', f'policy={policy}')
        else:
            os.kill(server_of(own.path), signal.SIGHUP)
            time.sleep(0.3)
    own = SimpleNamespace(policy=set_policy, path=tmp_path / 'mount', source=ext4)
    yield own
    if hasattr(own, 'mounted'):
        own.mounted.end()


def fails(number):
    return pytest.raises(OSError, match=rf'^\[Errno {number}\]')


def random_bytes(size, seed):
    return random.Random(seed).randbytes(size)


pytestmark = pytest.mark.filterwarnings('ignore:.*multi-threaded, use of fork')

RELEASED = 'dmabuf_token:dmabuf_token_release'
COMMANDS = 'nvme:nvme_setup_cmd'


# ----------------------------------------------------------------- vectors


@pytest.mark.parametrize('kind', ['udmabuf', 'vfio'])
def test_vectors_do_what_a_model_does(library, make, allocate, kind):
    """Of whole blocks and of others, in both directions, over files and buffers."""
    source, size = random.Random(21), 256 * KIB
    files = [[make(f'{i}', random_bytes(size - i * 777, i)), bytearray(random_bytes(size - i * 777, i))] for i in range(3)]
    buffers = [[allocate(kind if i else 'udmabuf', size), bytearray(random_bytes(size, 10 + i))] for i in range(2)]
    for buffer, memory in buffers:
        buffer.write(0, bytes(memory))
    with library.queue(chunk=64 * KIB, depth=5) as queue:
        for round_ in range(6):
            direction, unit = round_ % 2, source.choice([1, 512, 4096])
            parts = []
            for i in range(len(files if direction == WRITE else buffers)):
                cuts = sorted(source.randrange(size // unit) * unit for _ in range(8))
                for at, end in zip(cuts[::2], cuts[1::2]):
                    other = source.randrange(len(buffers if direction == WRITE else files))
                    start = min((source.randrange(size - (end - at) + 1) & ~4095) + at % 4096, size - (end - at))
                    parts.append((i, at, other, start, end - at) if direction == WRITE else (other, start, i, at, end - at))
            source.shuffle(parts)
            moved = 0
            for file, at, buffer, to, length in parts:
                content, memory = files[file][1], buffers[buffer][1]
                if direction == READ:
                    length = max(min(length, len(content) - at), 0)
                    memory[to:to + length] = content[at:at + length]
                elif length:
                    content.extend(bytes(max(at + length - len(content), 0)))
                    content[at:at + length] = memory[to:to + length]
                moved += length
            real = [(files[file][0], at, buffers[buffer][0], to, length) for file, at, buffer, to, length in parts]
            assert (queue.read if direction == READ else queue.write)(real) == moved
            for file, content in files:
                assert file.source.read_bytes() == content, f'a file has other bytes after round {round_}'
            for buffer, memory in buffers:
                assert buffer.read(0, size) == memory, f'a buffer has other bytes after round {round_}'
        counters = queue.counters
        assert counters.bytes_direct > counters.bytes_copied > 0 and counters.tokens == 6


@pytest.mark.parametrize('direction, opcode', [(READ, 2), (WRITE, 1)])
@pytest.mark.parametrize('kind', ['udmabuf', 'vfio'])
def test_pieces_that_are_contiguous_in_the_file_are_few_commands(library, nvme, make, allocate, trace, kind, direction, opcode):
    """Wherever they are in the buffer: here in pages, from its end."""
    size, page = MIB, 4 * KIB
    content = random_bytes(size, 3)
    file, buffer = make('file', content if direction == READ else bytes(size)), allocate(kind, size)
    wanted = b''.join(content[at:at + page] for at in reversed(range(0, size, page)))
    if direction == WRITE:
        buffer.write(0, wanted)
    parts = [(file, at, buffer, size - page - at, page) for at in range(0, size, page)]
    random.Random(1).shuffle(parts)
    with library.queue(Way.DIRECT) as queue:
        queue.check(parts[0], direction)
        with trace(COMMANDS, key='opcode', where=f'qid > 0 && opcode == {opcode}') as commands:
            assert (queue.read if direction == READ else queue.write)(parts) == size
        assert (queue.counters.bytes_direct, queue.counters.bytes_copied) == (size, 0)
        assert queue.counters.requests <= 1.1 * max(1, size // (4 * MIB)) + queue.counters.retries
        # A list of pages may need shorter commands than one place.
        assert commands.hits <= 1.1 * size / nvme.max_transfer
    assert (buffer.read(0, size) == wanted) if direction == READ else (file.source.read_bytes() == content)


def test_ten_files_in_four_buffers(library, make, allocate, vram):
    """One queue, a token for each pair, and none is made twice."""
    size, part = 32 * KIB, 8 * KIB
    content = [random_bytes(size, i) for i in range(10)]
    files, buffers = [make(f'{i}', content[i]) for i in range(10)], [allocate('udmabuf', 10 * part) for _ in range(3)] + [allocate('vfio', 10 * part)]
    parts = [(file, j * part, buffer, i * part, part) for i, file in enumerate(files) for j, buffer in enumerate(buffers)]
    with library.queue(Way.DIRECT) as queue:
        for _ in range(2):
            assert queue.read(parts) == len(parts) * part
            for j, buffer in enumerate(buffers):
                assert buffer.read(0, 10 * part) == b''.join(one[j * part:(j + 1) * part] for one in content)
                buffer.zero(0, 10 * part)
        assert (queue.counters.tokens, queue.counters.tokens_kept, queue.counters.retries) == (40, 40, 0)
        with queue.submit(READ, parts) as transfer:
            transfer.wait()
            assert {(transfer.result(i).path, transfer.result(i).reason) for i in range(len(parts))} == {(Way.DIRECT, Reason.NONE)}


def test_token_that_was_used_least_recently_is_given_up(library, make, allocate, trace):
    files, buffer = [make(f'{i}', random_bytes(16 * KIB, i)) for i in range(4)], allocate('udmabuf', 64 * KIB)
    with library.queue(Way.DIRECT, tokens=2) as queue:
        def read(*numbers):
            before = queue.counters.tokens
            assert queue.read([(files[i], 0, buffer, i * 16 * KIB, 16 * KIB) for i in numbers]) == len(numbers) * 16 * KIB
            assert queue.counters.tokens_kept <= 2
            return queue.counters.tokens - before
        with trace(RELEASED) as released:
            assert [read(i) for i in (0, 1, 0, 2, 0, 1)] == [1, 1, 0, 1, 0, 1]
        assert released.hits == 2
        buffer.zero(0, 64 * KIB)
        assert read(0, 1, 2, 3) >= 2
        assert buffer.read(0, 64 * KIB) == b''.join(file.source.read_bytes() for file in files)


def test_no_more_tokens_than_the_broker_allows(library, own, allocate):
    own.policy('max_tokens = 2;')
    for i in range(4):
        (own.source / f'{i}').write_bytes(random_bytes(16 * KIB, i))
    buffer = allocate('udmabuf', 64 * KIB)
    with ExitStack() as stack:
        files = [stack.enter_context(library.file(bytes(own.path / f'{i}'))) for i in range(4)]
        queue = stack.enter_context(library.queue(Way.DIRECT))
        for _ in range(2):
            assert queue.read([(file, 0, buffer, i * 16 * KIB, 16 * KIB) for i, file in enumerate(files)]) == 64 * KIB
            assert buffer.read(0, 64 * KIB) == b''.join(random_bytes(16 * KIB, i) for i in range(4))
            buffer.zero(0, 64 * KIB)
        assert queue.counters.tokens_kept == 2


# ------------------------------------------------------------------- writes


def test_direct_writes_with_partial_blocks(library, make, allocate):
    """The ends go by the page cache; the bytes around them, and an ordinary reader's, are right at any time."""
    size = 256 * KIB
    content, file, buffer = bytearray(random_bytes(size, 1)), make('file', random_bytes(size, 1)), allocate('udmabuf', 2 * size)
    new = random_bytes(2 * size, 2)
    buffer.write(0, new)
    with library.queue(chunk=64 * KIB) as queue:
        for at, length in ((100, 200), (4095, 2), (4096, 4096), (1, 100_000), (77, size), (size - 5000, 70_000), (size + 500_000, 9000),
                           (0, 3 * 4096 + 1)):
            to = at % 4096 + 4096 * (at % 3)
            before = queue.counters
            assert queue.write([(file, at, buffer, to, length)]) == length
            after = queue.counters
            content.extend(bytes(max(at + length - len(content), 0)))
            content[at:at + length] = new[to:to + length]
            whole = max((at + length) // 4096 * 4096 - -(-at // 4096) * 4096, 0)
            assert after.bytes_direct - before.bytes_direct == whole
            assert after.bytes_copied - before.bytes_copied == length - whole
            assert file.source.read_bytes() == content and file.pread(len(content), 0) == content
        result = queue.check((file, 512, buffer, 512, 512), WRITE)
        assert (result.path, result.reason) == (Way.BOUNCE, Reason.PARTIAL_BLOCK)
    with library.queue(Way.DIRECT) as queue:
        for at, to, length in ((512, 512, 512), (0, 512, 4096), (0, 0, 4097)):
            with fails(errno.EINVAL):
                queue.write([(file, at, buffer, to, length)])
        assert queue.write([(file, 4096, buffer, 0, 4096)]) == 4096


@pytest.mark.parametrize('sync', [0, SYNC])
def test_sync_makes_it_durable(library, make, allocate, trace, sync):
    file, buffer = make('file', b''), allocate('udmabuf', 128 * KIB)
    with library.queue() as queue:
        with trace(COMMANDS, key='opcode', where='qid > 0 && opcode == 0') as flushes:
            assert queue.write([(file, 0, buffer, 0, 65_000), (file, 80_000, buffer, 80_000, 100)], sync) == 65_100
            assert (cache_of(file.source).dirty == 0) == bool(sync)
        assert (flushes.hits > 0) == bool(sync)


# ------------------------------------------------- tokens that end, or do not


def test_revoked_in_the_middle_of_a_write(library, mount, make, allocate):
    """A new token goes on."""
    size, content, asked = 512 * KIB, random_bytes(512 * KIB, 6), []
    file, buffer = make('file', bytes(size)), allocate('udmabuf', size)
    buffer.write(0, content)

    def progress(told):
        if not asked:
            asked.append(guest.run('fuse-dmabuf', 'revoke', served_by(mount), '--all'))
        return 0
    with library.queue(Way.DIRECT, chunk=16 * KIB, depth=2) as queue, \
         queue.submit(WRITE, [(file, 0, buffer, 0, size)], progress=progress) as transfer:
        transfer.wait()
        assert transfer.bytes == size and asked[0].startswith('1 ')
        assert (queue.counters.tokens, queue.counters.bytes_direct, queue.counters.bytes_copied) == (2, size, 0)
    assert file.source.read_bytes() == content


def served_by(mount):
    return mount.path.parent


def test_direction_that_the_policy_denies(library, own, allocate):
    """Goes without the token where that is allowed, and else an error each time; the other direction stays direct."""
    own.policy('rules = ( { allow = "read"; } );')
    (own.source / 'file').write_bytes(bytes(64 * KIB))
    buffer, content = allocate('udmabuf', 64 * KIB), random_bytes(64 * KIB, 7)
    buffer.write(0, content)
    with library.file(bytes(own.path / 'file'), os.O_RDWR) as file, library.queue() as queue, library.queue(Way.DIRECT) as direct:
        part = (file, 0, buffer, 0, 64 * KIB)
        for _ in range(2):
            with queue.submit(WRITE, [part]) as transfer:
                transfer.wait()
                assert transfer.bytes == 64 * KIB
                result = transfer.result()
                assert (result.path, result.reason, result.text) == (Way.DIRECT_IO, Reason.REFUSED, b'the token does not allow writing')
        assert (own.source / 'file').read_bytes() == content
        with queue.submit(READ, [part]) as transfer:
            transfer.wait()
            assert (transfer.result().path, transfer.result().reason) == (Way.DIRECT, Reason.NONE)
        assert (queue.counters.bytes_direct, queue.counters.bytes_direct_io, queue.counters.bytes_copied) == (64 * KIB, 128 * KIB, 0)
        for _ in range(2):
            with fails(errno.EACCES):
                direct.write([part])
        assert direct.read([part]) == 64 * KIB
        own.policy('rules = ( { allow = "read-write"; } );')
        assert direct.write([part]) == 64 * KIB
        assert (direct.counters.bytes_direct, direct.counters.bytes_copied) == (128 * KIB, 0)


def test_idle_token_ends_with_its_file_or_buffer(library, make, allocate, trace):
    """In whichever thread that is, and while the queue stays open."""
    first, second = make('first', bytes(16 * KIB)), make('second', bytes(16 * KIB))
    buffers = [library.allocate('udmabuf', 16 * KIB) for _ in range(2)]
    with library.queue(Way.DIRECT) as queue:
        with trace(RELEASED) as released:
            assert queue.read([(file, 0, buffer, 0, 16 * KIB) for file in (first, second) for buffer in buffers]) == 64 * KIB
            assert queue.counters.tokens_kept == 4
            buffers[0].close()
            assert queue.counters.tokens_kept == 2
            closing = threading.Thread(target=first.close)
            closing.start()
            closing.join()
            assert queue.counters.tokens_kept == 1
            assert queue.read([(second, 0, buffers[1], 0, 16 * KIB)]) == 16 * KIB
        assert released.hits == 3
        assert queue.counters.tokens == 4
    buffers[1].close()


def test_tokens_stay_the_parents_after_a_fork(library, make, allocate, trace):
    file, buffer = make('file', random_bytes(64 * KIB, 8)), allocate('udmabuf', 64 * KIB)
    with library.queue(Way.DIRECT) as queue:
        assert queue.read([(file, 0, buffer, 0, 64 * KIB)]) == 64 * KIB
        with trace(RELEASED) as released:
            child = os.fork()
            if not child:
                status = 1
                try:
                    with fails(errno.ECHILD):
                        queue.read([(file, 0, buffer, 0, 4096)])
                    queue.close()
                    file.close()
                    buffer.close()
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            buffer.zero(0, 64 * KIB)
            assert queue.read([(file, 0, buffer, 0, 64 * KIB)]) == 64 * KIB
            assert buffer.read(0, 64 * KIB) == file.source.read_bytes()
        assert (released.hits, queue.counters.tokens, queue.counters.retries) == (0, 1, 0)


# ---------------------------------------------------- event loops and cancelling


def test_loop_around_direct_reads(library, make, allocate):
    """Threads with a queue each, for one file and one buffer."""
    size, errors = 256 * KIB, []
    file, buffer = make('file', random_bytes(size, 9)), allocate('udmabuf', 2 * size)

    def read(at):
        try:
            with library.queue(Way.DIRECT, chunk=32 * KIB, depth=3) as queue:
                for _ in range(3):
                    polls = 0
                    transfer = queue.submit(READ, [(file, 0, buffer, at, size)])
                    while not queue.poll():
                        assert select.select([queue.fd], [], [], 60)[0], 'the loop hangs'
                        polls += 1
                    assert polls <= 2 * size // (32 * KIB) and queue.next() == transfer.handle.value
                    assert transfer.bytes == size
                    transfer.close()
                    assert not select.select([queue.fd], [], [], 0)[0]
        except BaseException as error:
            errors.append(error)
    threads = [threading.Thread(target=read, args=(at,)) for at in (0, size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert buffer.read(0, 2 * size) == 2 * file.source.read_bytes()


def test_cancelling_waits_for_the_command_that_the_device_has(library, nvme, make, allocate):
    """The controller loses it, and gives it back after the block layer's time-out. Until then it may write to the memory."""
    file, buffer, seen = make('file', random_bytes(64 * KIB, 10)), allocate('udmabuf', 64 * KIB), []

    def progress(told):
        seen.append((State(told.state), told.in_flight))
        return 0
    with library.queue(Way.DIRECT, chunk=16 * KIB, depth=1) as queue:
        assert queue.read([(file, 0, buffer, 0, 64 * KIB)], WHOLE_BLOCKS) == 64 * KIB
        with the_next_completion_is_lost(nvme, missed_after_ms=1500), \
             queue.submit(READ, [(file, 0, buffer, 0, 64 * KIB)], progress=progress) as transfer:
            wait_until(lambda: in_flight(nvme) == 1)
            transfer.cancel(0)
            assert transfer.state == State.CANCELLING
            with fails(errno.ETIMEDOUT):
                transfer.wait(300)
            assert in_flight(nvme) == 1
            transfer.wait()
            with fails(errno.ECANCELED):
                assert transfer.bytes
            assert transfer.result().done <= 16 * KIB
        assert (State.CANCELLING, 1) in seen and seen[-1] == (State.FINISHED, 0)
        assert queue.read([(file, 0, buffer, 0, 64 * KIB)]) == 64 * KIB and buffer.read(0, 64 * KIB) == file.source.read_bytes()
