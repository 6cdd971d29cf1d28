"""A mount whose server dies, and which returns, while the library reads: as far as it goes without tokens."""
import errno
import os
import random
import select
import subprocess
import threading
import time
from contextlib import ExitStack

import pytest

from library import READ, WRITE, Path, State

CONTENT = random.Random(6).randbytes(1 << 20)

pytestmark = pytest.mark.skipif(not os.path.exists('/dev/fuse'), reason='this machine has no FUSE')


class Mount:
    """The server's mount of a directory, in the foreground."""

    def __init__(self, server, source, path):
        self.server, self.source, self.path = server, source, path
        path.mkdir()
        self.begin()

    def begin(self):
        self.process = subprocess.Popen([self.server, self.source, self.path, '-f'], stderr=subprocess.DEVNULL)
        while not os.path.ismount(self.path):
            assert self.process.poll() is None, 'the server does not start'
            time.sleep(0.01)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def take_away(self):
        subprocess.run(['umount', '-l', self.path], check=False, capture_output=True)

    def restart(self):
        self.kill()
        self.take_away()
        self.begin()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()
        self.take_away()


@pytest.fixture
def mount(build, tmp_path):
    """A mount of a mount: there the kernel allows no passthrough, so each read needs the server. .file is on it."""
    server, source = build / 'src/mount.fuse-dmabuf/mount.fuse-dmabuf', tmp_path / 'source'
    source.mkdir()
    (source / 'file').write_bytes(CONTENT)
    with Mount(server, source, tmp_path / 'inner') as inner, Mount(server, inner.path, tmp_path / 'mount') as outer:
        outer.file = outer.path / 'file'
        yield outer


@pytest.fixture
def reading(library, mount):
    """reading(first, mount_wait) reads the file in small requests, and does something after the first: the counters."""
    with ExitStack() as stack:
        def read(first, mount_wait=60_000, then=lambda: None):
            file = stack.enter_context(library.file(mount.file))
            buffer = stack.enter_context(library.allocate('memory', len(CONTENT)))
            channel = stack.enter_context(library.channel(file, buffer, Path.BOUNCE, depth=2, chunk=16384, mount_wait=mount_wait))
            steps = {False: [first], True: [lambda: None, lambda: None, then]}

            def progress(done, total):
                left = steps[channel.is_waiting]
                if left:
                    left.pop(0)()
                return 0
            channel.on_progress(progress)
            assert channel.read(0, 0, len(CONTENT)) == len(CONTENT)
            assert buffer.read(0, len(CONTENT)) == CONTENT
            return channel.counters
        yield read


def replace(file):
    file.with_name('other').write_bytes(CONTENT)
    file.with_name('other').rename(file)


def test_read_goes_on_when_the_mount_has_returned(mount, reading):
    assert reading(mount.restart).reopens == 1


def test_read_waits_for_the_mount(mount, reading):
    def begin():
        mount.take_away()
        mount.begin()
    assert reading(mount.kill, then=begin).reopens == 1


def test_mount_that_does_not_return_is_an_error(mount, reading):
    with pytest.raises(OSError, match=rf'^\[Errno {errno.ENOTCONN}\].* has not returned within 200 ms'):
        reading(mount.kill, mount_wait=200)


def change_in_secret(file):
    """As rsync(1) does: size and time of modification are what they were."""
    times = file.stat()
    file.write_bytes(CONTENT[::-1])
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


# what happens to the file meanwhile: what is said
CHANGES = {
    'changed in secret': (change_in_secret, 'was changed meanwhile'),
    'replaced': (replace, 'another file at this path'),
    'longer': (lambda file: os.truncate(file, len(CONTENT) + 1), 'was resized meanwhile'),
    'written to': (lambda file: file.write_bytes(CONTENT), 'was written to meanwhile'),
}


@pytest.mark.parametrize('change', CHANGES)
def test_file_that_is_not_the_same_is_refused(mount, reading, change):
    make, said = CHANGES[change]

    def restart():
        mount.kill()
        mount.take_away()
        make(mount.source / 'file')
        mount.begin()
    with pytest.raises(OSError, match=rf'^\[Errno {errno.ESTALE}\].*{said}'):
        reading(restart)


def test_relative_path_is_found_again(mount, reading, monkeypatch):
    """The working directory stays on the mount that has ended."""
    monkeypatch.chdir(mount.path)
    mount.file = mount.file.relative_to(mount.path)
    assert reading(mount.kill, then=lambda: (mount.take_away(), mount.begin())).reopens == 1


class Steps:
    """A progress function that does something when it is called the nth time while the transfer runs."""

    def __init__(self, **steps):
        self.states, self._steps = [], {int(number[1:]): function for number, function in steps.items()}

    def __call__(self, told):
        self.states.append(State(told.state))
        if told.state == State.RUNNING:
            self._steps.pop(self.states.count(State.RUNNING), lambda: None)()
        return 0


def test_change_after_the_return_is_found_as_well(mount, library):
    """Part of the bytes came before it, on either mount."""
    def change():
        with mount.file.open('r+b') as file:
            file.write(b'changed')
    steps = Steps(_2=mount.restart, _20=change)
    with library.file(mount.file) as file, library.allocate('memory', len(CONTENT)) as buffer, library.queue(depth=2, chunk=16384) as queue, \
         queue.submit(READ, [(file, 0, buffer, 0, len(CONTENT))], progress=steps) as transfer:
        transfer.wait()
        with pytest.raises(OSError, match=rf'^\[Errno {errno.ESTALE}\].* while it was read'):
            assert transfer.bytes
        assert queue.read([(file, 0, buffer, 0, 7)]) == 7 and buffer.read(0, 7) == b'changed'


def test_write_goes_on_when_the_mount_has_returned(mount, library):
    """Partial blocks, and what makes it durable, too."""
    content, steps = random.Random(9).randbytes(len(CONTENT)), Steps(_2=mount.restart)
    with library.file(mount.file, os.O_RDWR) as file, library.allocate('memory', len(CONTENT)) as buffer, \
         library.queue(depth=2, chunk=16384) as queue:
        buffer.write(0, content)
        with queue.submit(WRITE, [(file, 77, buffer, 77, len(CONTENT) - 100)], progress=steps) as transfer:
            transfer.wait()
            assert transfer.bytes == len(CONTENT) - 100
        assert queue.counters.reopens == 1
        wanted = CONTENT[:77] + content[77:-23] + CONTENT[-23:]
        assert file.pread(len(wanted), 0) == wanted and (mount.source / 'file').read_bytes() == wanted


def test_relative_path_serves_all_descriptors_again(mount, library, monkeypatch):
    """Reads by the page cache as well, which once opened the path when they were needed first."""
    monkeypatch.chdir(mount.path)
    with library.file(b'file') as file, library.allocate('memory', len(CONTENT)) as buffer, library.queue() as queue:
        monkeypatch.chdir('/')
        mount.restart()
        with pytest.raises(OSError, match=rf'^\[Errno {errno.ENOTCONN}\]'):
            file.pread(10, 0)
        assert queue.read([(file, 1, buffer, 1, 5000)]) == 5000 and buffer.read(1, 5000) == CONTENT[1:5001]
        assert file.pread(10, 5) == CONTENT[5:15]


def test_queues_of_two_threads_do_not_close_each_others_descriptors(mount, library):
    """One finds the file on the new mount first, while the other has requests on the old one. Afterwards nothing of the old one is open."""
    before, errors = len(os.listdir('/proc/self/fd')), []
    with library.file(mount.file) as file, library.allocate('memory', 2 * len(CONTENT)) as buffer:
        stop = threading.Event()

        def read(at, counters):
            try:
                with library.queue(depth=3, chunk=16384) as queue:
                    while not stop.is_set():
                        assert queue.read([(file, 0, buffer, at, len(CONTENT))]) == len(CONTENT)
                        assert buffer.read(at, len(CONTENT)) == CONTENT
                        buffer.zero(at, len(CONTENT))
                    counters.append(queue.counters.reopens)
            except BaseException as error:
                errors.append(error)
        reopens = []
        threads = [threading.Thread(target=read, args=(at, reopens)) for at in (0, len(CONTENT))]
        for thread in threads:
            thread.start()
        for _ in range(3):
            time.sleep(0.2)
            mount.restart()
            # What others open would have the numbers that were closed.
            others = [os.open('/dev/null', os.O_RDONLY) for _ in range(4)]
            time.sleep(0.2)
            for other in others:
                os.close(other)
        stop.set()
        for thread in threads:
            thread.join()
        assert errors == []
        assert len(reopens) == 2 and sum(reopens) >= 3
        assert len(os.listdir('/proc/self/fd')) == before + 2
    assert len(os.listdir('/proc/self/fd')) == before


def test_loop_waits_for_the_mount_without_turning(mount, library):
    """The descriptor is readable when it is time to look for the mount, and the wait can be cancelled."""
    def polls(queue, until, seconds):
        count, deadline = 0, time.monotonic() + seconds
        while not until() and (left := deadline - time.monotonic()) > 0:
            if select.select([queue.fd], [], [], left)[0]:
                queue.poll()
                count += 1
        return count
    with library.file(mount.file) as file, library.allocate('memory', len(CONTENT)) as buffer, library.queue(depth=2, chunk=16384) as queue:
        mount.kill()
        transfers = [queue.submit(READ, [(file, 0, buffer, 0, len(CONTENT))]) for _ in range(2)]
        queue.poll()
        assert polls(queue, lambda: all(transfer.state == State.WAITING for transfer in transfers), 20) < 20
        assert 3 <= polls(queue, lambda: False, 1) <= 25, 'a look every 100 ms'
        transfers[0].cancel(0)
        assert transfers[0].state == State.FINISHED and queue.next() == transfers[0].handle.value
        mount.take_away()
        mount.begin()
        polls(queue, lambda: transfers[1].state == State.FINISHED, 20)
        assert transfers[1].bytes == len(CONTENT) and buffer.read(0, len(CONTENT)) == CONTENT
        for transfer in transfers:
            transfer.close()
