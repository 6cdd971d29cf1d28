"""Tokens that end while the library reads: the server dies and its mount returns, or not; and the broker revokes."""
import errno
import json
import os
import signal
import sys
from pathlib import Path

import pytest

import guest
from places import OwnMount, server_of, wait_until

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / 'unit'))
from library import SYNC, WRITE, Library, Reason  # noqa: E402
from library import Path as Way  # noqa: E402

SIZE = 1 << 19
CONTENT = os.urandom(SIZE)
UNTOUCHED = 0xee


@pytest.fixture(scope='session')
def library():
    return Library()


@pytest.fixture
def own(ext4, tmp_path):
    """A mount with a file: .file."""
    (ext4 / 'file').write_bytes(CONTENT)
    os.sync()
    own = OwnMount(ext4, tmp_path / 'mount')
    own.file = own.path / 'file'
    yield own
    own.end()


@pytest.fixture
def buffer(library):
    with library.allocate('udmabuf', SIZE) as buffer:
        buffer.fill(UNTOUCHED)
        yield buffer


class Reader:
    """A channel that reads in small requests; .at(n, function) does something when it reports progress for the nth time, or waits."""

    def __init__(self, library, file, buffer, way, mount_wait=60_000):
        self.buffer = buffer
        self.file = library.file(os.fsencode(file))
        self.channel = library.channel(self.file, buffer, way, depth=2, chunk=16384, mount_wait=mount_wait)
        self.channel.on_progress(self._progress)
        self._calls, self._waits, self._when = 0, 0, {}

    def at(self, call, function):
        self._when['call', call] = function

    def at_wait(self, call, function):
        self._when['wait', call] = function

    def _progress(self, done, total):
        if self.channel.is_waiting:
            self._waits += 1
            what = 'wait', self._waits
        else:
            self._calls += 1
            what = 'call', self._calls
        self._when.pop(what, lambda: None)()
        return 0

    def read(self, start=0, end=SIZE):
        assert self.channel.read(start, start, end - start) == end - start
        assert self.buffer.read(start, end - start) == CONTENT[start:end], 'wrong bytes'
        return self.channel.counters

    def fails(self, number, text):
        with pytest.raises(OSError, match=rf'(?s)^\[Errno {number}\].*{text}'):
            self.channel.read(0, 0, SIZE)

    def close(self):
        self.channel.close()
        self.file.close()


@pytest.fixture
def reader(library, own, buffer):
    """reader(way, …) reads the file."""
    made = []

    def make(way=Way.DIRECT, path=None, **options):
        made.append(Reader(library, path or own.file, buffer, way, **options))
        return made[-1]
    yield make
    for one in made:
        one.close()


def test_read_goes_on_when_the_mount_has_returned(own, reader):
    reading = reader()
    reading.at(1, own.restart)
    counters = reading.read()
    assert (counters.reopens, counters.tokens, counters.bytes_direct, counters.bytes_copied) == (1, 2, SIZE, 0)
    assert (reading.channel.path, reading.channel.reason) == (Way.DIRECT, Reason.NONE)


def test_read_waits_for_the_mount(own, reader):
    reading = reader()
    reading.at(1, own.kill)
    reading.at_wait(3, own.take_away)
    reading.at_wait(6, own.mount)
    assert reading.read().reopens == 1


def test_server_that_ends_on_request_counts_as_well(own, reader):
    """SIGTERM: the server takes the mount away itself."""
    server = server_of(own.path)
    reading = reader()
    reading.at(1, lambda: (os.kill(server, signal.SIGTERM), wait_until(lambda: not os.path.exists(f'/proc/{server}'))))
    reading.at_wait(1, own.mount)
    assert reading.read().reopens == 1


def test_forced_umount_counts_as_well(own, reader):
    reading = reader()
    reading.at(1, lambda: guest.run('umount', '-f', '-l', own.path))
    reading.at_wait(1, own.mount)
    assert reading.read().reopens == 1


def test_partial_blocks_come_as_well(own, reader):
    reading = reader(Way.AUTO)
    reading.at(4, own.restart)
    counters = reading.read(100, SIZE - 100)
    assert counters.reopens == 1 and counters.bytes_copied == 2 * 4096 - 200


def test_server_that_ended_between_two_reads(own, reader):
    reading = reader()
    reading.read(0, 65536)
    own.restart()
    assert reading.read().reopens == 1


def test_mount_that_does_not_return_is_an_error_and_the_channel_can_be_used_again(own, reader):
    reading = reader(mount_wait=300)
    reading.at(1, own.kill)
    reading.fails(errno.ENOTCONN, 'not returned within 300 ms .*the FUSE server of this mount has ended')
    own.take_away()
    reading.fails(errno.ENOTCONN, 'not returned within 300 ms .*no such file')
    own.mount()
    assert reading.read().reopens == 1


def test_directory_behind_the_mount_is_not_the_mount(own, reader, ext4):
    """It is mounted on itself, so without the mount the path leads to the same file, but by no broker."""
    own.end()
    itself = OwnMount(ext4, ext4)
    try:
        reading = reader(path=ext4 / 'file', mount_wait=300)
        reading.at(1, lambda: (itself.kill(), itself.take_away()))
        reading.fails(errno.ENOTCONN, 'no new FUSE mount at its path')
    finally:
        itself.end()


def replace(own):
    (own.source / 'other').write_bytes(CONTENT)
    (own.source / 'other').rename(own.source / 'file')


def change_in_secret(own):
    """As rsync(1) does: size and time of modification are what they were."""
    times = (own.source / 'file').stat()
    (own.source / 'file').write_bytes(CONTENT[::-1])
    os.utime(own.source / 'file', ns=(times.st_atime_ns, times.st_mtime_ns))


# what happens to the file while the mount is away: what is said
CHANGES = {
    'changed in secret': (change_in_secret, 'was changed meanwhile'),
    'given another mode': (lambda own: (own.source / 'file').chmod(0o640), 'was changed meanwhile'),
    'replaced': (replace, 'but with another file at this path'),
    'longer': (lambda own: os.truncate(own.source / 'file', SIZE + 1), 'was resized meanwhile'),
    'written to': (lambda own: (own.source / 'file').write_bytes(CONTENT), 'was written to meanwhile'),
}


@pytest.mark.parametrize('way', [Way.AUTO, Way.DIRECT])
@pytest.mark.parametrize('change', CHANGES)
def test_file_that_is_not_the_same_is_refused(own, reader, change, way):
    make, said = CHANGES[change]
    reading = reader(way)
    reading.at(1, lambda: (own.kill(), own.take_away(), make(own), own.mount()))
    reading.fails(errno.ESTALE, said)


def test_file_that_was_read_meanwhile_is_the_same(own, reader):
    reading = reader()
    reading.at(1, lambda: (own.kill(), own.take_away(), (own.source / 'file').read_bytes(), own.mount()))
    assert reading.read().reopens == 1


def test_change_after_the_return_is_found_as_well(own, reader):
    """Part of the bytes came before it, on either mount."""
    def change():
        with (own.path / 'file').open('r+b') as file:
            file.write(b'changed')
    reading = reader()
    reading.at(1, own.restart)
    reading.at(10, change)
    reading.fails(errno.ESTALE, 'was written to while it was read')


def test_write_goes_on_when_the_mount_has_returned(own, library, buffer):
    """With a new token, and with the partial blocks."""
    content, calls = CONTENT[::-1], []
    buffer.write(0, content)

    def progress(told):
        calls.append(told.state)
        if len(calls) == 2:
            own.restart()
        return 0
    with library.file(os.fsencode(own.file), os.O_RDWR) as file, library.queue(depth=2, chunk=16384) as queue, \
         queue.submit(WRITE, [(file, 100, buffer, 100, SIZE - 200)], SYNC, progress) as transfer:
        transfer.wait()
        assert transfer.bytes == SIZE - 200
        assert (queue.counters.reopens, queue.counters.tokens) == (1, 2)
        assert queue.counters.bytes_direct == SIZE - 2 * 4096 and queue.counters.bytes_copied == 2 * 4096 - 200
    assert (own.source / 'file').read_bytes() == CONTENT[:100] + content[100:-100] + CONTENT[-100:]


def test_file_without_a_path_cannot_return(own, reader):
    with own.file.open() as opened:
        own.file.unlink()
        reading = reader(path=f'/proc/self/fd/{opened.fileno()}')
        reading.at(1, own.kill)
        reading.fails(errno.ENOTCONN, 'has no path')


def test_returned_mount_that_gives_no_token_is_read_without(own, reader):
    reading = reader(Way.AUTO)
    reading.at(1, lambda: own.restart('tokens=deny'))
    counters = reading.read()
    assert counters.reopens == 1 and counters.bytes_direct + counters.bytes_direct_io + counters.bytes_copied == SIZE
    assert (reading.channel.path, reading.channel.reason) == (Way.DIRECT_IO, Reason.REFUSED)
    assert 'the mount has returned and gives no token: broker refused' in reading.channel.reason_text


def test_returned_mount_that_gives_no_token_is_an_error_where_bounce_is_forbidden(own, reader):
    reading = reader(Way.DIRECT)
    reading.at(1, lambda: own.restart('tokens=deny'))
    reading.fails(errno.ESTALE, 'the mount has returned and gives no token: broker refused')


def test_two_channels_of_one_file(own, library, buffer, reader):
    reading = reader()
    with library.channel(reading.file, buffer, Way.DIRECT) as other:
        reading.at(1, own.restart)
        assert reading.read().reopens == 1
        assert other.read(0, 0, SIZE) == SIZE
        assert (other.counters.tokens, other.counters.reopens) == (2, 0)


def test_bounce_of_a_passthrough_file_needs_no_server(own, reader):
    """The kernel reads the file behind it, without asking."""
    reading = reader(Way.BOUNCE)
    reading.at(1, own.kill)
    assert reading.read().reopens == 0


def revoked(own):
    mount, = json.loads(guest.run('fuse-dmabuf', 'status', own.path, '--json'))['mounts']
    return [token['revoked'] for token in mount['tokens']]


def revoke(own):
    assert guest.run('fuse-dmabuf', 'revoke', own.path, '--all').startswith('1 ')


def test_revoked_token_is_asked_for_once(own, reader):
    reading = reader(Way.AUTO)
    reading.at(1, lambda: revoke(own))
    counters = reading.read()
    assert (counters.tokens, counters.reopens, counters.bytes_direct) == (2, 0, SIZE)
    assert reading.channel.path == Way.DIRECT


def test_token_that_is_revoked_twice_in_a_read_is_not_asked_for_again(own, reader):
    reading = reader(Way.AUTO)
    reading.at(1, lambda: revoke(own))
    reading.at(8, lambda: revoke(own))
    counters = reading.read()
    assert counters.tokens == 2 and 0 < counters.bytes_direct_io + counters.bytes_copied < SIZE
    assert (reading.channel.path, reading.channel.reason) == (Way.DIRECT_IO, Reason.REVOKED)
    reading = reader(Way.DIRECT)
    reading.at(1, lambda: revoke(own))
    reading.at(8, lambda: revoke(own))
    reading.fails(errno.ESTALE, 'gave no new one: the next token was revoked as well')


def test_policy_decides_about_the_new_token(own, reader, tmp_path):
    policy = tmp_path / 'policy'
    policy.write_text('max_tokens = 4;')
    policy.chmod(0o600)
    own.end()
    own.mount(f'policy={policy}')
    policy.write_text('rules = ( { allow = "none"; } );')
    bouncing, direct = reader(Way.AUTO), reader(Way.DIRECT)
    bouncing.at(1, lambda: (os.kill(server_of(own.path), signal.SIGHUP), wait_until(lambda: all(revoked(own)))))
    bouncing.read()
    assert (bouncing.channel.path, bouncing.channel.reason) == (Way.DIRECT_IO, Reason.REVOKED)
    assert 'the broker ended the token and gave no new one: broker refused' in bouncing.channel.reason_text
    direct.fails(errno.ESTALE, 'gave no new one: broker refused')
