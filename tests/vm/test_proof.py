"""The direct path is proven before it is trusted: an exporter whose memory is elsewhere than where it says loses no byte of anybody."""
import os
import random
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from dmabuf import TestBuffer
from places import mount, served  # noqa: F401  (fixtures)

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'unit'))
from library import READ, WRITE, Library, Proof, Proven, Reason  # noqa: E402
from library import Path as Way  # noqa: E402

KIB, MIB = 1 << 10, 1 << 20
SIZE = 4 * MIB
CONTENT = random.Random(18).randbytes(SIZE)


def fresh_library(directory):
    """A copy of the library, which knows no path: that of this process may know some from other tests."""
    Library()
    loaded = next(line.split()[-1] for line in Path('/proc/self/maps').read_text(encoding='utf-8').splitlines() if 'libfuse-dmabuf.so' in line)
    return Library(shutil.copy(loaded, directory))


@pytest.fixture
def programs(mount, tmp_path):
    """run(function): its result in a process of its own, which knows no path yet; what it warns of is run.warnings."""
    def run(function):
        read, write = os.pipe()
        errors_read, errors_write = os.pipe()
        child = os.fork()
        if not child:
            os.dup2(errors_write, 2)
            try:
                os.write(write, repr(function(fresh_library(tmp_path))).encode())
            except BaseException as error:   # pylint: disable=broad-exception-caught
                os.write(write, repr(f'{type(error).__name__}: {error}').encode())
            os._exit(0)
        os.close(write)
        os.close(errors_write)
        with open(read, 'rb') as result, open(errors_read, encoding='utf-8') as errors:
            answer = eval(result.read())   # pylint: disable=eval-used
            run.warnings = [line for line in errors.read().splitlines() if line.startswith('libfuse-dmabuf:')]
        os.waitpid(child, 0)
        return answer
    return run


def given_file(mount, name, content=CONTENT):
    with (mount.source / name).open('wb') as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    return bytes(mount.path / name)


def move(library, path, foreign, direction, way=Way.AUTO, **options):
    """Moves the whole file. Returns the names of path, reason and proof, and the counters' bytes."""
    with ExitStack() as stack:
        file = stack.enter_context(library.file(path, os.O_RDONLY if direction == READ else os.O_WRONLY))
        buffer = stack.enter_context(library.import_dmabuf(foreign.fileno()))
        queue = stack.enter_context(library.queue(way, **options))
        transfer = stack.enter_context(queue.submit(direction, [(file, 0, buffer, 0, foreign.size)]))
        transfer.wait()
        moved = transfer.bytes
        result = transfer.result()
        return moved, Way(result.path).name, Reason(result.reason).name, Proven(result.proven).name, queue.counters.bytes_direct


def test_right_path_is_proven(programs, mount):
    path = given_file(mount, 'right')
    with TestBuffer(SIZE) as foreign:
        assert programs(lambda library: move(library, path, foreign, READ)) == (SIZE, 'DIRECT', 'NONE', 'PROVEN', SIZE)
        assert foreign[:] == CONTENT and programs.warnings == []
        foreign[:] = CONTENT[::-1]
        assert programs(lambda library: move(library, path, foreign, WRITE)) == (SIZE, 'DIRECT', 'NONE', 'PROVEN', SIZE)
        assert (mount.source / 'right').read_bytes() == CONTENT[::-1] and programs.warnings == []


def test_memory_elsewhere_is_found_before_anything_else_is_read(programs, mount):
    path = given_file(mount, 'read')
    with TestBuffer(SIZE) as foreign:
        foreign.mislead()
        assert programs(lambda library: move(library, path, foreign, READ)) == (SIZE, 'BOUNCE', 'UNPROVEN', 'DISPROVED', 0)
        assert foreign[:] == CONTENT
        [warning] = programs.warnings
        assert 'direct reads between' in warning and 'exporter import' in warning and os.fsdecode(path) in warning


def test_without_bounce_it_is_an_error(programs, mount):
    path = given_file(mount, 'direct')
    with TestBuffer(SIZE) as foreign:
        foreign.mislead()
        said = programs(lambda library: move(library, path, foreign, READ, Way.DIRECT))
        assert 'OSError: [Errno 5]' in said and 'move other bytes' in said


def test_one_request_of_a_hundred_that_goes_elsewhere_is_found(programs, mount):
    """None of the eight samples is in the piece that is elsewhere; the mark of its request is."""
    size = 100 * MIB
    content = CONTENT * (size // SIZE)
    path = given_file(mount, 'hundred', content)
    with TestBuffer(size, chunk_order=8) as foreign:   # pieces of 1 MiB: one of them for each request
        foreign.mislead(every=63)
        moved, way, reason, proven, _direct = programs(lambda library: move(library, path, foreign, READ, chunk=MIB))
        assert (moved, way, reason, proven) == (size, 'BOUNCE', 'UNPROVEN', 'DISPROVED')
        for at in range(0, size, SIZE):
            assert foreign[at:at + SIZE] == CONTENT, at
        assert len(programs.warnings) == 1 and 'left a mark' in programs.warnings[0]
    (mount.source / 'hundred').unlink()


def test_writes_that_take_other_bytes_are_found(programs, mount):
    path = given_file(mount, 'write')
    with TestBuffer(SIZE) as foreign:
        foreign.mislead(directions=TestBuffer.FROM_BUFFER)
        assert programs(lambda library: move(library, path, foreign, READ))[1:4] == ('DIRECT', 'NONE', 'PROVEN')
        foreign[:] = CONTENT[::-1]
        assert programs(lambda library: move(library, path, foreign, WRITE)) == (SIZE, 'BOUNCE', 'UNPROVEN', 'DISPROVED', 0)
        assert (mount.source / 'write').read_bytes() == CONTENT[::-1]
        [warning] = programs.warnings
        assert 'direct writes between' in warning


def test_failed_write_leaves_no_bytes_that_nobody_has_written(programs, mount):
    path = given_file(mount, 'failed')
    with TestBuffer(SIZE) as foreign:
        foreign.mislead(directions=TestBuffer.FROM_BUFFER)
        foreign[:] = new = CONTENT[::-1]
        assert 'OSError: [Errno 5]' in programs(lambda library: move(library, path, foreign, WRITE, Way.DIRECT))
        found = (mount.source / 'failed').read_bytes()
        for at in range(0, SIZE, 4 * KIB):
            assert found[at:at + 4 * KIB] in (CONTENT[at:at + 4 * KIB], new[at:at + 4 * KIB]), at


def test_proof_can_be_asked_for_each_buffer_or_never(programs, mount):
    path = given_file(mount, 'asked')
    with TestBuffer(SIZE) as right, TestBuffer(SIZE) as wrong:
        wrong.mislead()

        def both(library, proof):
            return [move(library, path, foreign, READ, proof=proof)[1:4] for foreign in (right, wrong)]

        # Once: the device was proven with the first buffer, and marks find the second.
        for proof in (Proof.ONCE, Proof.ALWAYS):
            assert programs(lambda library: both(library, proof)) == [('DIRECT', 'NONE', 'PROVEN'), ('BOUNCE', 'UNPROVEN', 'DISPROVED')]
            assert wrong[:] == CONTENT
        wrong.fill(0)
        assert programs(lambda library: both(library, Proof.NEVER)) == [('DIRECT', 'NONE', 'NOT_PROVEN')] * 2
        assert wrong[:] != CONTENT
