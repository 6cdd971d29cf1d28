"""Descriptors are the server's, and for all users: none can have them all."""
import errno
import os

import pytest

from places import end_of, start_as, wait_until

DESCRIPTORS, MANY, FEW = 400, 400, 5


@pytest.fixture
def limited(serve, tmp_path):
    """A mount whose server may have few descriptors, with files and directories that are open to all."""
    server = serve(descriptors=DESCRIPTORS)
    for path in (tmp_path, *list(tmp_path.parents)[:-2]):
        path.chmod(0o755)
    server.source.chmod(0o777)
    for i in range(MANY):
        (server.source / f'{i}').touch()
        (server.source / f'{i}').chmod(0o666)
    return server


def opened(path, flags, most=MANY):
    """As many as can be, and no more than that."""
    held = []
    try:
        while len(held) < most:
            held.append(os.open(path(len(held)), flags, 0o600))
    except OSError as error:
        assert error.errno == errno.ENFILE
    return held


def files(server):
    return lambda i: server.target / f'{i}'


WAYS = {'write': (files, os.O_RDWR), 'read': (files, os.O_RDONLY), 'create': (lambda server: lambda i: server.target / f'new-{i}', os.O_CREAT | os.O_RDWR),
        'unnamed': (lambda server: lambda i: server.target, os.O_TMPFILE | os.O_RDWR), 'directory': (lambda server: lambda i: server.target, os.O_DIRECTORY)}


@pytest.fixture(params=WAYS)
def greedy(request, limited):
    """A user who has opened in that way all that can be: the server, and that user's process."""
    reader, writer = os.pipe()
    path, flags = WAYS[request.param]

    def open_all():
        held = opened(path(limited), flags)
        assert len(held) < MANY
        os.write(writer, b'x')
        os.read(go, 1)
    go, end = os.pipe()
    child = start_as(1000, lambda: (os.close(end), open_all()))
    os.close(writer)
    os.close(go)
    told = os.read(reader, 1)
    yield limited
    os.close(reader)
    os.close(end)
    end_of(child)
    assert told


def open_few(server, flags=os.O_RDWR):
    held = opened(files(server), flags, FEW)
    assert len(held) == FEW
    for fd in held:
        os.close(fd)


def test_others_and_root_can_open_when_one_user_has_what_it_may(greedy):
    end_of(start_as(1001, lambda: open_few(greedy)))
    open_few(greedy)
    assert 'uid 1000 has ' in greedy.said() and 'descriptors are not enough' not in greedy.said()


def test_user_can_open_again_what_was_closed(limited):
    def count():
        held = opened(files(limited), os.O_RDWR)
        for fd in held:
            os.close(fd)
        return len(held)

    def use():
        first = count()
        assert DESCRIPTORS / 4 < first < MANY
        wait_until(lambda: count() == first)   # the server hears of the end of an open a moment later
        wait_until(lambda: count() == first)
    end_of(start_as(1000, use))
