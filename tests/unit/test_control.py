"""fuse-dmabuf status and revoke: what they ask of a server, and what they make of its silence."""
import contextlib
import os
import signal
import socket
import subprocess
import time

import pytest

from server import wait_until


@pytest.fixture
def run(command):
    """run(…): the command, to its end."""
    return lambda *words: subprocess.run([command, *words], text=True, errors='surrogateescape', capture_output=True, check=False, timeout=120)


@pytest.fixture
def asked(pretend, tmp_path):
    """asked(answer): what a server that gives that answer is asked. It has the number of tmp_path, a tmpfs, and so that is its mountpoint."""
    return lambda answer: pretend(os.minor(os.stat(tmp_path).st_dev), answer)


# The words


@pytest.mark.parametrize('words, which', [
    (['--token', '5'], {'token': 5}), (['--token=9223372036854775807'], {'token': 2**63 - 1}),
    (['--path', '/'], {'path': '/'}), (['--path', '/models/a b/*.tmp'], {'path': '/models/a b/*.tmp'}), (['--path=/ä'], {'path': '/ä'}),
    (['--uid', 'root'], {'uid': 0}), (['--uid', '1234'], {'uid': 1234}), (['--uid', '4294967294'], {'uid': 2**32 - 2}),
    (['--all'], {'all': True}), (['--all', '--timeout', '5'], {'all': True})])
@pytest.mark.parametrize('first', [True, False], ids=['mountpoint first', 'mountpoint last'])
def test_revoke_asks_for_what_the_words_say(run, asked, tmp_path, words, which, first):
    server = asked({'ok': True, 'revoked': 3})
    result = run('revoke', *([tmp_path, *words] if first else [*words, tmp_path]))
    assert (result.stdout, result.stderr, result.returncode) == ('3 tokens revoked\n', '', 0)
    assert server.requests == [{'command': 'revoke', **which}]


@pytest.mark.parametrize('words, message', [
    (['--path', 'models'], '--path models: give a pattern in UTF-8 that begins with /'), (['--path', ''], '--path : give a pattern'),
    (['--path', b'/\xff'], 'give a pattern in UTF-8'), (['--path'], '--path: unknown option, or its value is missing'),
    (['--token', ''], '--token : give the number'), (['--token', '5x'], '--token 5x: give the number'), (['--token', '9223372036854775808'], 'give the number'),
    (['--uid', 'nobody-here'], '--uid nobody-here: there is no such user'), (['--uid', '4294967295'], 'there is no such user'),
    (['--all', '--path', '/'], 'one of --token, --path, --uid and --all'), (['--all', '--all'], 'one of --token, --path, --uid and --all'), ([], 'one of --token'),
    (['--all', 'another'], 'give one MOUNTPOINT'), (['-t', '5'], '-t: unknown option'), (['--everything'], '--everything: unknown option'),
    (['--all', '--timeout', '0'], '--timeout 0: give seconds from 1 to 86400'), (['--all', '--timeout', '86401'], 'give seconds'),
    (['--all', '--timeout', '5s'], '--timeout 5s: give seconds'), (['--timeout', '5'], 'one of --token')])
def test_revoke_asks_nothing_with_wrong_words(run, asked, tmp_path, words, message):
    server = asked({'ok': True, 'revoked': 3})
    result = run('revoke', tmp_path, *words)
    assert message in result.stderr and result.stderr.count('\n') == 1 and not result.stdout and result.returncode == 2
    assert server.requests == []


@pytest.mark.parametrize('words', [['-h'], ['--help'], ['status', '-h'], ['status', '--help'], ['revoke', '-h'], ['revoke', '--help'], ['load', '-h'], ['load', '--help']])
def test_help(run, words):
    result = run(*words)
    assert result.stdout.startswith('usage: fuse-dmabuf') and not result.stderr and not result.returncode


@pytest.mark.parametrize('word', ['-V', '--version'])
def test_version(run, word):
    assert run(word).stdout.startswith('fuse-dmabuf ')


def test_tokens_that_a_path_has_passed_over_are_told(run, asked, tmp_path):
    asked({'ok': True, 'revoked': 1, 'unknown': 2})
    result = run('revoke', tmp_path, '--path', '/models')
    assert result.stdout == '1 tokens revoked\n' and 'the path of 2 tokens is not known' in result.stderr and result.returncode == 1


# The answer


def tokens(number, path='/models/model.safetensors'):
    """A status with so many."""
    token = {'path': path, 'uid': 1000, 'pid': 4711, 'bytes': 1 << 30, 'exporter': 'udmabuf', 'direction': 'read', 'age': 1.5, 'revoked': False,
             'requests': 1, 'read_bytes': 1 << 30, 'write_bytes': 0, 'peer_bytes': 0, 'maps': 1, 'invalidations': 0}
    return {'ok': True, 'pid': 1, 'source': '/source', 'mountpoint': '/mountpoint', 'all': {}, 'limits': {},
            'tokens': [{'id': i, **token} for i in range(number)]}


def test_answer_is_not_taken_byte_by_byte(command, asked, tmp_path):
    """A server has as many as 65536 tokens, and ten seconds to tell of them: 17 MB, which took longer."""
    asked(tokens(65536))
    begun = time.monotonic()
    subprocess.run([command, 'status', tmp_path], stdout=subprocess.DEVNULL, check=True)
    assert time.monotonic() - begun < 10


def test_terminal_is_told_nothing_by_names(run, asked, tmp_path):
    """Neither by the control characters of ASCII nor by those that have two bytes in UTF-8."""
    asked(tokens(1, '/a\n\x1b[31m\x7f\x9b31m\u00e4'))
    assert run('status', tmp_path).stdout.endswith(' /a??[31m??31m\u00e4\n')
    result = run('load', tmp_path / 'a\n\x1b[31m\x9b31m\u00e4', '--into', 'memory')
    assert 'a??[31m?' in result.stderr and '31m\u00e4: ' in result.stderr and result.stderr.count('\n') == 1 and '\x9b' not in result.stderr


@pytest.mark.parametrize('words', [['-h'], ['-V'], ['status', '-h'], ['load', '-h'], ['revoke', '--all', '{}'], ['status', '{}'], ['status', '--json', '{}']])
@pytest.mark.parametrize('output', ['>/dev/full', '>&-'])
def test_what_cannot_be_written_is_told(command, asked, tmp_path, words, output):
    asked({'ok': True, 'revoked': 3, 'mountpoint': '/', 'source': '/', 'tokens': []})
    result = subprocess.run(['sh', '-c', f'"$0" "$@" {output}', command, *[word.format(tmp_path) for word in words]],
                            text=True, stderr=subprocess.PIPE, check=False)
    assert 'cannot be written' in result.stderr and result.stderr.count('\n') == 1 and result.returncode == 1


# Silence


@contextlib.contextmanager
def stopped(server):
    server.process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: {state[0] for state in server.threads('State').values()} == {'T'})
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize('words', [['revoke', '--all'], ['status']], ids=['revoke', 'status'])
def test_server_that_is_stopped_is_named_and_not_waited_for(serve, run, words):
    server = serve()
    with stopped(server):
        result = run(*words, server.target)
    assert result.stderr == f'fuse-dmabuf: the server (pid {server.process.pid}) does not answer\n'
    assert not result.stdout and result.returncode == 1
    assert run(*words, server.target).returncode == 0


def test_more_clients_than_a_stopped_server_has_room_for_are_told(serve, run):
    server = serve()
    path = str(server.socket)   # which asks the server
    with stopped(server), contextlib.ExitStack() as stack:
        with pytest.raises(BlockingIOError):
            while True:
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(path)
        for words in (['revoke', '--all'], ['status']):
            result = run(*words, server.target)
            assert result.stderr == f'fuse-dmabuf: {path}: the server does not answer\n' and result.returncode == 1


def test_revocation_that_takes_long_is_waited_for_as_long_as_the_server_lives(command, asked, tmp_path):
    """As with DMA in flight. It has answered others meanwhile, more than once."""
    def answer(request):
        if request['command'] == 'ping':
            return {'ok': True}
        wait_until(lambda: server.requests.count({'command': 'ping'}) == 2, seconds=60)
        return {'ok': True, 'revoked': 3}
    server = asked(answer)
    assert subprocess.check_output([command, 'revoke', '--all', tmp_path], text=True) == '3 tokens revoked\n'


def test_timeout_ends_the_waiting(run, asked, tmp_path):
    asked(lambda request: {'ok': True} if request['command'] == 'ping' else None)
    result = run('revoke', '--all', tmp_path, '--timeout', '1')
    assert result.stderr == 'fuse-dmabuf: no answer within 1 seconds; the server continues with the request\n'
    assert not result.stdout and result.returncode == 1


def test_server_that_ends_meanwhile_has_not_answered(run, asked, tmp_path):
    server = asked(lambda request: server.end())
    result = run('revoke', '--all', tmp_path)
    assert result.stderr == 'fuse-dmabuf: the server has not answered\n' and result.returncode == 1
