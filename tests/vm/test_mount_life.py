"""Starting and ending the server."""
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest

import guest
from places import open_files_of, server_of, sh, wait_until

HELPER = '/sbin/mount.fuse-dmabuf'


def mount_with(*words):
    return subprocess.run(['mount', '-t', 'fuse-dmabuf', *map(str, words)], text=True, capture_output=True, check=False, timeout=60)


def helper(*words):
    return subprocess.run([HELPER, *map(str, words)], text=True, capture_output=True, check=False, timeout=60)


def is_running(pid):
    return os.path.exists(f'/proc/{pid}')


@pytest.fixture
def target(tmp_path):
    path = tmp_path / 'target'
    path.mkdir()
    yield path
    guest.unmount_all(path)


def test_help_and_version():
    assert helper('--help').stdout.startswith('Usage: mount -t fuse-dmabuf SRC MNT')
    assert helper('--version').stdout.startswith('mount.fuse-dmabuf ')


def test_mount_is_usable_when_the_command_returns(ext4, target):
    (ext4 / 'file').write_text('x')
    assert mount_with(ext4, target).returncode == 0
    assert (target / 'file').read_text() == 'x'


def test_mount_table_names_source_and_type(mount):
    assert guest.run('findmnt', '-no', 'SOURCE,FSTYPE', mount.path).split() == [str(mount.source), 'fuse.fuse-dmabuf']


@pytest.mark.parametrize('options, words', [('defaults,noauto,nofail,_netdev,x-systemd.automount,tokens=allow', []), ('max_bytes=64G', ['-a'])],
                         ids=['by name', 'at boot'])
def test_fstab_line(ext4, target, tmp_path, options, words):
    (tmp_path / 'fstab').write_text(f'{ext4} {target} fuse-dmabuf {options} 0 0\n')
    guest.run('mount', '-T', tmp_path / 'fstab', *(words or [target]))
    assert os.path.ismount(target)


@pytest.mark.parametrize('words, message', [
    (['-o', 'colour=blue'], 'unknown option "colour=blue"'),
    (['-o', 'tokens=some'], 'tokens=some: must be tokens=allow or tokens=deny'),
    (['-o', 'max_bytes=much'], 'max_bytes=much: must be a number of bytes'),
    (['-o', 'max_bytes=99999999999T'], 'max_bytes=99999999999T: must be a number of bytes'),
    (['-o', 'log=loud'], 'log=loud: must be'),
    (['-o'], "option requires an argument -- 'o'"),
    (['third'], 'needs a source directory and a mountpoint'),
    (['-x'], "invalid option -- 'x'"),
])
def test_wrong_invocation_gives_one_clear_line(ext4, target, words, message):
    result = helper(ext4, target, *words)
    assert message in result.stderr and result.stderr.count('\n') == 1
    assert result.returncode == 1
    assert not os.path.ismount(target)


def test_remount_is_refused_by_a_line_that_says_what_to_do(mount):
    """By mount(8), which finds neither source nor type in fstab, and takes both from the mount table."""
    result = subprocess.run(['mount', '-o', 'remount,ro', mount.path], text=True, capture_output=True, check=False, timeout=60)
    assert result.returncode and f'remount is not possible: umount {mount.path} and mount it again' in result.stderr
    (mount.path / 'file').write_text('still writable')


@pytest.mark.parametrize('source, mountpoint, message', [
    ('missing', 'target', 'source {tmp}/missing: No such file or directory'),
    ('file', 'target', 'source {tmp}/file: Not a directory'),
    ('target', 'missing', 'mountpoint {tmp}/missing: No such file or directory'),
    ('target', 'file', 'mountpoint {tmp}/file: Not a directory'),
])
def test_wrong_directory_gives_one_clear_line(target, tmp_path, source, mountpoint, message):
    (tmp_path / 'file').touch()
    result = helper(tmp_path / source, tmp_path / mountpoint)
    assert result.stderr == f'mount.fuse-dmabuf: {message.format(tmp=tmp_path)}\n'
    assert result.returncode == 32


def test_users_may_not_mount(ext4):
    result = subprocess.run([HELPER, ext4, '/mnt'], user=1000, text=True, capture_output=True, check=False)
    assert result.stderr == 'mount.fuse-dmabuf: only root can mount\n' and result.returncode == 1


def test_sloppy_mount_ignores_unknown_options(ext4, target):
    assert mount_with('-s', ext4, target, '-o', 'colour=blue').returncode == 0


def test_read_only_mount(ext4, target):
    (ext4 / 'file').write_text('x')
    assert mount_with(ext4, target, '-o', 'ro').returncode == 0
    with pytest.raises(OSError, match='Read-only'):
        (target / 'file').write_text('y')


def test_restrictions_of_the_source_hold_on_the_mount(ext4, target, tmp_path):
    (tmp_path / 'bound').mkdir()
    guest.run('mount', '--bind', '-o', 'nosuid,noexec,ro', ext4, tmp_path / 'bound')
    try:
        assert mount_with(tmp_path / 'bound', target, '-o', 'suid,dev').returncode == 0
        options = guest.run('findmnt', '-no', 'OPTIONS', target).strip().split(',')
        assert {'nosuid', 'noexec', 'ro'} <= set(options) and 'nodev' not in options
    finally:
        guest.run('umount', tmp_path / 'bound')


def test_directory_can_be_mounted_on_itself(ext4):
    (ext4 / 'file').write_text('x')
    assert mount_with(ext4, ext4).returncode == 0
    assert (ext4 / 'file').read_text() == 'x'
    guest.run('umount', ext4)


def test_mount_below_its_own_source_is_not_entered_by_the_server(ext4):
    (ext4 / 'below').mkdir()
    assert mount_with(ext4, ext4 / 'below').returncode == 0
    assert os.listdir(ext4 / 'below/below') == []
    guest.run('umount', ext4 / 'below')


def test_umount_ends_the_server(mount):
    server = server_of(mount.path)
    guest.run('umount', mount.path)
    wait_until(lambda: not is_running(server))


def test_umount_is_refused_while_a_file_is_open(mount):
    with open(mount.path / 'file', 'w'):
        assert subprocess.run(['umount', mount.path], capture_output=True, check=False).returncode == 32
        assert os.path.ismount(mount.path)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize('busy', [False, True], ids=['idle', 'busy'])
def test_signal_ends_server_and_mount(mount, number, busy):
    server = server_of(mount.path)
    work = subprocess.Popen(['bash', '-c', 'cd "$1"; while echo x >file-$((i++ % 50)); do read x <file-0; done 2>/dev/null', 'work', mount.path]) if busy else None
    if busy:
        wait_until(lambda: (mount.source / 'file-9').exists())
    os.kill(server, number)
    wait_until(lambda: not is_running(server))
    assert not os.path.ismount(mount.path)
    if busy:
        work.wait(60)


def test_killed_server_leaves_a_mount_that_says_so_and_can_be_replaced(mount):
    (mount.path / 'file').write_text('x')
    server = server_of(mount.path)
    with open(mount.path / 'file') as file:
        os.kill(server, signal.SIGKILL)
        wait_until(lambda: not is_running(server))
        guest.wait_for_end_of_mount(mount.path)
        with pytest.raises(OSError, match='not connected'):
            os.fsync(file.fileno())
    with pytest.raises(OSError, match='not connected'):
        os.listdir(mount.path)
    assert 'its FUSE server has ended: umount it first' in mount_with(mount.source, mount.path).stderr
    guest.run('umount', mount.path)
    guest.mount_server(mount.source, mount.path)
    assert (mount.path / 'file').read_text() == 'x'


def test_foreground_server_tells_on_stderr_and_ends_on_ctrl_c(ext4, target):
    with subprocess.Popen([HELPER, ext4, target, '-f', '-o', 'log=info'], text=True, stderr=subprocess.PIPE) as server:
        wait_until(lambda: os.path.ismount(target))
        sh(target, 'echo x >file; cat file')
        server.send_signal(signal.SIGINT)
        said = server.stderr.read()
    assert server.returncode == 0
    assert f'{ext4} is mounted' in said and 'unmounted' in said
    assert not os.path.ismount(target)


def test_quiet_server_says_nothing(ext4, target):
    with subprocess.Popen([HELPER, ext4, target, '-f', '-o', 'log=warning'], text=True, stderr=subprocess.PIPE) as server:
        wait_until(lambda: os.path.ismount(target))
        server.terminate()
        assert server.stderr.read() == ''


def test_daemon_logs_to_syslog(ext4, target):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind('/dev/log')
        try:
            syslog.settimeout(20)
            guest.mount_server(ext4, target)
            said = syslog.recv(4096).decode()
        finally:
            os.unlink('/dev/log')
    assert re.fullmatch(rf'<30>.* mount.fuse-dmabuf\[{server_of(target)}\]: {ext4} is mounted, protocol 7\.\d+', said), said


def test_daemon_holds_nothing_of_its_starter(ext4, target):
    """Whoever reads the output of mount must see its end, and no directory may stay busy."""
    with open(ext4 / 'kept', 'w') as kept:
        assert subprocess.run(['mount', '-t', 'fuse-dmabuf', ext4, target], pass_fds=[kept.fileno()], cwd=ext4, capture_output=True,
                              timeout=30, check=True).stdout == b''
    server = server_of(target)
    assert os.readlink(f'/proc/{server}/cwd') == '/'
    assert {os.readlink(f'/proc/{server}/fd/{fd}') for fd in (0, 1, 2)} == {'/dev/null'}
    assert str(ext4 / 'kept') not in open_files_of(server)


NEEDED = {'cap_chown', 'cap_dac_override', 'cap_dac_read_search', 'cap_fowner', 'cap_fsetid', 'cap_setuid', 'cap_setgid', 'cap_mknod', 'cap_setfcap',
          'cap_sys_admin', 'cap_sys_resource'}
OWN = {'cap_dac_override', 'cap_dac_read_search', 'cap_setuid', 'cap_setgid', 'cap_sys_admin'}   # the others only for a caller who has them


def status_of(thread):
    return dict(line.split(':\t') for line in (thread / 'status').read_text().splitlines() if ':\t' in line)


def names_of(capabilities):
    words = subprocess.run(['capsh', f'--decode={capabilities}'], text=True, capture_output=True, check=True).stdout.strip().split('=')[1]
    return set(words.split(',')) - {''}


def test_server_keeps_only_the_privileges_it_needs(mount):
    """In none of its threads, so that there is none to get more from; and none of the programs that it could start would get any of them."""
    sh(mount.path, 'echo x >file; ls; cat file')
    subprocess.run(['fuse-dmabuf', 'status', mount.path], check=True, capture_output=True)
    threads = [status_of(thread) for thread in Path(f'/proc/{server_of(mount.path)}/task').iterdir()]
    assert len(threads) >= 4   # the first, who reads the requests, and the two of control
    for status in threads:
        assert names_of(status['CapPrm']) == NEEDED and names_of(status['CapEff']) <= OWN
        assert names_of(status['CapInh']) == names_of(status['CapAmb']) == set()
        assert status['NoNewPrivs'] == '1'
    assert any(names_of(status['CapEff']) == set() for status in threads)   # who waits for clients of the control socket


LIMITED = ['setpriv', '--bounding-set=-sys_resource', '--inh-caps=-sys_resource', 'prlimit', '--nofile=100:100']


def test_limit_of_open_files_is_said_and_the_mount_recovers(ext4, target):
    for i in range(120):
        (ext4 / f'{i}').touch()
    with subprocess.Popen([*LIMITED, HELPER, ext4, target, '-f'], text=True, stderr=subprocess.PIPE) as server:
        try:
            wait_until(lambda: os.path.ismount(target))
            held = []
            with pytest.raises(OSError, match='Too many open files in system'):
                for i in range(120):
                    held.append(os.open(target / f'{i}', os.O_RDONLY))
            for fd in held:
                os.close(fd)
            wait_until(lambda: sh('/', f'echo 2 >/proc/sys/vm/drop_caches; cat {target}/119 || true; echo ok') == 'ok\n')
            assert sh(target, 'cat 119; echo ok') == 'ok\n'
        finally:
            server.terminate()
        assert 'descriptors are not enough for the files in use' in server.stderr.read()


def test_server_at_its_limit_ends_in_order(ext4, target):
    for i in range(120):
        (ext4 / f'{i}').touch()
    with subprocess.Popen([*LIMITED, HELPER, ext4, target, '-f'], text=True, stderr=subprocess.PIPE) as server:
        wait_until(lambda: os.path.ismount(target))
        held = []
        with pytest.raises(OSError, match='Too many open files in system'):
            for i in range(120):
                held.append(os.open(target / f'{i}', os.O_RDONLY))
        server.terminate()
        said = server.stderr.read()
        for fd in held:
            os.close(fd)
    assert server.returncode == 0 and 'unmounted' in said
