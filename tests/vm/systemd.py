"""A systemd of one's own: the first process of its namespaces, which starts what a test writes down for it, and nothing else but its journal."""
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

from places import wait_until

TARGET = '''[Unit]
DefaultDependencies=no
Wants=systemd-journald.service local-fs.target
After=systemd-journald.service local-fs.target
'''

# As a container: what it makes in /dev, /run and /etc is its own. $1: the directory that it gets.
START = r'''
mount --bind "$1/dev" /mnt
for name in null zero full random urandom tty fuse autofs udmabuf; do
  ! test -e /dev/$name || { touch /mnt/$name; mount --bind /dev/$name /mnt/$name; }
done
touch /mnt/console; ln -s /proc/self/fd /mnt/fd; mkdir -p /mnt/shm
mount --rbind /mnt /dev; umount -R /mnt
mount --bind "$1/run" /run
mount --bind "$1/units" /etc/systemd/system
test -e /etc/fstab || touch /etc/fstab
mount --bind "$1/fstab" /etc/fstab
mount -t cgroup2 cgroup2 /sys/fs/cgroup
exec env -i container=test PATH="$PATH" /lib/systemd/systemd --system --unit=test.target --show-status=no
'''


def cgroup_root():
    """None without a cgroup2 that is mounted."""
    return next((Path(line.split()[1]) for line in Path('/proc/self/mounts').read_text().splitlines() if line.split()[2] == 'cgroup2'), None)


class Systemd:
    def __init__(self, directory, fstab='', units=None):
        self.directory = Path(directory)
        for name in ('dev', 'run', 'units'):
            (self.directory / name).mkdir()
        (self.directory / 'fstab').write_text(fstab)
        for name, text in {'test.target': TARGET, **(units or {})}.items():
            (self.directory / 'units' / name).write_text(text)
        # Not below that of a process: a group that has members gets no children that are limited.
        self.cgroup = Path(tempfile.mkdtemp(prefix='systemd-', dir=cgroup_root()))
        self._process = subprocess.Popen(
            ['unshare', '--cgroup', '--mount', '--propagation', 'private', '--pid', '--fork', '--kill-child', '--mount-proc', 'sh', '-euc', START, 'start', self.directory],
            preexec_fn=lambda: (self.cgroup / 'cgroup.procs').write_text('0'), stdin=subprocess.DEVNULL)
        try:
            wait_until(lambda: self._process.poll() is not None or self.is_up())
            assert self._process.poll() is None, 'systemd has not started'
        except BaseException:
            self.end()
            raise

    def is_up(self):
        return (self.directory / 'run/systemd/private').exists() and self.systemctl('is-active', 'test.target', check=False) == 'active\n'

    @property
    def pid(self):
        """Of its first process, as it is called here."""
        return int(subprocess.check_output(['ps', '-o', 'pid=', '--ppid', f'{self._process.pid}']))

    def start(self, *words, **options):
        """A command there."""
        inside = ['nsenter', f'--target={self.pid}', '--cgroup', '--mount', '--pid', '--root', '--wd']
        return subprocess.Popen([*inside, *map(str, words)], text=True, stdout=subprocess.PIPE, **options)

    def run(self, *words, check=True, **options):
        """The same to its end; what it prints."""
        with self.start(*words, **options) as command:
            said, _ = command.communicate(timeout=300)
        if check and command.returncode:
            raise subprocess.CalledProcessError(command.returncode, words, said)
        return said

    def systemctl(self, *words, **options):
        return self.run('systemctl', *words, **options)

    def show(self, unit, name):
        return self.systemctl('show', '--property', name, '--value', unit).rstrip('\n')

    def processes_of(self, unit):
        """Those in its cgroup, as they are called here."""
        return [int(word) for word in (self.cgroup / self.show(unit, 'ControlGroup').strip('/') / 'cgroup.procs').read_text().split()]

    def journal(self, unit):
        """(who, priority, message) of all that it has said."""
        text = subprocess.run(['journalctl', '--directory', self.directory / 'run/log/journal', '--output=json', f'_SYSTEMD_UNIT={unit}'],
                              text=True, capture_output=True, check=True).stdout
        entries = [json.loads(line) for line in text.splitlines()]
        return [(entry['SYSLOG_IDENTIFIER'], int(entry['PRIORITY']), entry['MESSAGE']) for entry in entries]

    def power_off(self):
        """In order, to its last process."""
        self.systemctl('poweroff')
        self._process.wait(120)

    def end(self):
        """However it is."""
        self._process.kill()   # and its child by that, and all of the namespace
        self._process.wait()
        groups = [self.cgroup, *self.cgroup.rglob('*/')]
        deadline = time.monotonic() + 20
        for group in sorted(groups, reverse=True):
            while group.exists():
                try:
                    group.rmdir()
                except OSError:
                    assert time.monotonic() < deadline, f'{group}: {(group / "cgroup.procs").read_text()}'
                    time.sleep(0.05)
