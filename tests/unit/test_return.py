"""A mount whose server dies, and which returns, while the library reads: as far as it goes without tokens."""
import errno
import os
import random
import subprocess
import time
from contextlib import ExitStack

import pytest

from library import Path

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
    def restart():
        mount.kill()
        mount.take_away()
        mount.begin()
    assert reading(restart).reopens == 1


def test_read_waits_for_the_mount(mount, reading):
    def begin():
        mount.take_away()
        mount.begin()
    assert reading(mount.kill, then=begin).reopens == 1


def test_mount_that_does_not_return_is_an_error(mount, reading):
    with pytest.raises(OSError, match=rf'^\[Errno {errno.ENOTCONN}\].* has not returned within 200 ms'):
        reading(mount.kill, mount_wait=200)


# what happens to the file meanwhile: what is said
CHANGES = {
    'replaced': (replace, 'another file at this path'),
    'longer': (lambda file: os.truncate(file, len(CONTENT) + 1), 'the file has changed'),
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
