"""Mounts that systemd makes, by fstab, by a unit, or when somebody looks there: it starts the server, and knows when it has ended."""
import os
import re
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from places import wait_until
from systemd import Systemd, cgroup_root

MANUAL = (Path(__file__).parents[2] / 'man/mount.fuse-dmabuf.8').read_text()


def example(path):
    """Of the manual, for that file."""
    return re.search(rf'Pa {path}\n.*?\n\.Bd -literal\n(.*?)\.Ed', MANUAL, re.DOTALL)[1]


BY_FSTAB, BY_UNIT, WRONG = '/mnt/models', '/mnt/unit', '/mnt/wrong'
FSTAB, UNIT = example('/etc/fstab'), example('/etc/systemd/system/mnt-models.mount').replace(BY_FSTAB, BY_UNIT)


@pytest.fixture(scope='module')
def installed(program, command):
    """mount(8) looks for the helper there only."""
    if not cgroup_root() or not os.access(cgroup_root(), os.W_OK):
        pytest.skip('there is no cgroup2 to write to: what systemd makes of the mounts was not tested')
    links = {Path('/sbin/mount.fuse-dmabuf'): program, Path('/usr/bin/fuse-dmabuf'): command}
    for link, to in links.items():
        link.symlink_to(to)
    yield
    for link in links:
        link.unlink()


@pytest.fixture(scope='module')
def new_systemd(installed, tmp_path_factory):
    """new_systemd() boots one: .run(…), .systemctl(…), .journal(unit). A directory is mounted at /data/models, by fstab, too."""
    begun, source = [], tmp_path_factory.mktemp('source')
    (source / 'file').write_text('data')
    for path in ('/data/models', BY_FSTAB, BY_UNIT, WRONG):
        Path(path).mkdir(parents=True, exist_ok=True)

    def begin():
        begun.append(Systemd(tmp_path_factory.mktemp('systemd'), f'{source} /data/models none bind 0 0\n{FSTAB}',
                             {'mnt-unit.mount': UNIT, 'mnt-wrong.mount': UNIT.replace(BY_UNIT, WRONG).replace('max_bytes', 'colour')}))
        return begun[-1]
    yield begin
    for systemd in begun:
        systemd.end()


@pytest.fixture(scope='module')
def systemd(new_systemd):
    return new_systemd()


@pytest.fixture
def started(systemd):
    """The unit of the manual: .server, its process."""
    systemd.systemctl('start', 'mnt-unit.mount')
    (server,) = systemd.processes_of('mnt-unit.mount')
    yield SimpleNamespace(server=server)
    systemd.systemctl('stop', 'mnt-unit.mount')


def is_running(pid):
    return os.path.exists(f'/proc/{pid}')


def state(systemd, unit='mnt-unit.mount'):
    return systemd.show(unit, 'ActiveState')


def is_mounted(systemd, path=BY_UNIT):
    return 'fuse-dmabuf' in systemd.run('findmnt', '-no', 'FSTYPE', path, check=False)


def test_fstab_line_of_the_manual_is_mounted_at_boot(systemd):
    assert state(systemd, 'mnt-models.mount') == 'active' and is_mounted(systemd, BY_FSTAB)
    assert systemd.run('cat', f'{BY_FSTAB}/file') == 'data'


def test_source_is_mounted_before_and_unmounted_after(systemd):
    for unit in ('mnt-models.mount', 'mnt-unit.mount'):
        assert 'data-models.mount' in systemd.show(unit, 'After').split() and 'data-models.mount' in systemd.show(unit, 'Requires').split()


def test_unit_of_the_manual_is_active_when_the_mount_is_usable(systemd, started):
    assert state(systemd) == 'active' and is_mounted(systemd)
    systemd.run('sh', '-c', f'test "$(cat {BY_UNIT}/file)" = data; echo new >{BY_UNIT}/new; rm /data/models/new')
    assert systemd.run('fuse-dmabuf', 'status', BY_UNIT).startswith(f'{BY_UNIT}: 0 tokens')


def test_server_is_in_the_cgroup_of_the_unit(systemd, started):
    assert systemd.show('mnt-unit.mount', 'ControlGroup') == '/system.slice/mnt-unit.mount'
    assert b'mount.fuse-dmabuf' in Path(f'/proc/{started.server}/cmdline').read_bytes()


def test_stop_unmounts_and_ends_the_server(systemd, started):
    systemd.systemctl('stop', 'mnt-unit.mount')
    assert not is_mounted(systemd) and state(systemd) == 'inactive'
    wait_until(lambda: not is_running(started.server))


def test_stop_of_a_mount_that_is_in_use_leaves_it_whole(systemd, started):
    with subprocess.Popen(['nsenter', f'--target={systemd.pid}', '--mount', '--root', 'sh', '-c', f'exec <{BY_UNIT}/file; echo; exec sleep 1000'],
                          stdout=subprocess.PIPE) as user:
        user.stdout.readline()
        systemd.systemctl('stop', 'mnt-unit.mount', check=False, stderr=subprocess.DEVNULL)
        assert is_mounted(systemd) and state(systemd) == 'active' and systemd.processes_of('mnt-unit.mount') == [started.server]
        assert systemd.run('cat', f'{BY_UNIT}/file') == 'data'
        user.kill()


def test_server_lives_on_when_systemd_reads_its_units_again_or_itself(systemd, started):
    for word in ('daemon-reload', 'daemon-reexec'):
        systemd.systemctl(word)
        assert systemd.processes_of('mnt-unit.mount') == [started.server] and state(systemd) == 'active'


def test_restart_puts_a_killed_server_right(systemd, started):
    os.kill(started.server, signal.SIGKILL)
    wait_until(lambda: not is_running(started.server))
    assert systemd.run('cat', f'{BY_UNIT}/file', check=False, stderr=subprocess.DEVNULL) == ''
    systemd.systemctl('restart', 'mnt-unit.mount')
    assert systemd.run('cat', f'{BY_UNIT}/file') == 'data' and len(systemd.processes_of('mnt-unit.mount')) == 1


def test_unit_ends_with_a_server_that_is_told_to_end(systemd, started):
    systemd.systemctl('kill', 'mnt-unit.mount')
    wait_until(lambda: state(systemd) == 'inactive')
    assert not is_mounted(systemd) and not is_running(started.server)


def test_reload_is_refused_and_the_mount_stays(systemd, started):
    systemd.systemctl('reload', 'mnt-unit.mount', check=False, stderr=subprocess.DEVNULL)
    assert any('remount is not possible' in message for _, _, message in systemd.journal('mnt-unit.mount'))
    assert is_mounted(systemd) and systemd.processes_of('mnt-unit.mount') == [started.server]


def test_wrong_option_fails_the_unit_and_the_journal_has_the_reason(systemd):
    with pytest.raises(subprocess.CalledProcessError):
        systemd.systemctl('start', 'mnt-wrong.mount', stderr=subprocess.DEVNULL)
    assert state(systemd, 'mnt-wrong.mount') == 'failed'
    wait_until(lambda: systemd.journal('mnt-wrong.mount'))
    ((who, priority, message),) = systemd.journal('mnt-wrong.mount')
    assert (who, priority) == ('mount', 3) and message.startswith('mount.fuse-dmabuf: unknown option "colour=64G"')


def test_journal_has_what_the_server_says_as_the_units(systemd, started):
    systemd.systemctl('stop', 'mnt-unit.mount')
    wait_until(lambda: not is_running(started.server))

    def said():
        return [(priority, message) for who, priority, message in systemd.journal('mnt-unit.mount') if who == 'mount.fuse-dmabuf']
    wait_until(lambda: (6, 'unmounted') in said())
    assert any(priority == 6 and message.startswith('/data/models is mounted') for priority, message in said())


def test_mounts_end_in_order_when_the_machine_does(new_systemd):
    systemd = new_systemd()
    systemd.systemctl('start', 'mnt-unit.mount')
    systemd.power_off()
    for unit in ('mnt-models.mount', 'mnt-unit.mount'):
        assert ('mount.fuse-dmabuf', 6, 'unmounted') in systemd.journal(unit)


# Automounts


@pytest.fixture
def waiting(installed, tmp_path):
    """A mountpoint at which systemd waits: its .path, and .run(…) for commands there."""
    if not os.path.exists('/dev/autofs'):
        pytest.skip('this kernel has no autofs: automounting was not tested')
    for name in ('source', 'target', 'systemd'):
        (tmp_path / name).mkdir()
    (tmp_path / 'source/file').write_text('data')
    # Where it has to wait for itself, the wait ends.
    fstab = f'{tmp_path}/source {tmp_path}/target fuse-dmabuf x-systemd.automount,x-systemd.mount-timeout=20 0 0\n'
    systemd = Systemd(tmp_path / 'systemd', fstab)
    systemd.path = tmp_path / 'target'
    yield systemd
    systemd.end()


def mounts(systemd):
    return systemd.run('findmnt', '-rno', 'FSTYPE', systemd.path).split()


def test_look_at_it_mounts_it(waiting):
    assert mounts(waiting) == ['autofs']
    assert waiting.run('cat', waiting.path / 'file') == 'data'
    assert mounts(waiting) == ['autofs', 'fuse.fuse-dmabuf']


def test_mount_by_hand_is_not_taken_for_a_look_at_it(waiting):
    """Else there would be two, one over the other."""
    waiting.run('mount', waiting.path)
    assert mounts(waiting) == ['autofs', 'fuse.fuse-dmabuf']
