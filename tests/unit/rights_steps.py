"""Rounds of random steps: who does what, where. A round is known from its seed alone, whatever happens in it."""
import ast
import os
import re
import stat
import struct
from collections import deque
from dataclasses import dataclass

from rights_callers import APPEND_ONLY, CALLERS, IMMUTABLE, UTIME_NOW, UTIME_OMIT

DIRECTORIES = ('p', 'q', 'p/r')
NAMES = 'abcdef'
UIDS = (0, 1000, 1001, 1002, 1003, 100000, 100001)
GIDS = (0, 1000, 1001, 1003, 2000, 2001, 100000, 100001, 100002)
# Who changes something behind the mount, or through another mount of the same source.
ELSEWHERE = ('root', 'alice', 'bob', 'carol')
SLOTS = 4
STEPS = 220   # of a round, with those that make its files

DIRECTORY_MODES = (0o777, 0o777, 0o1777, 0o1777, 0o755, 0o775, 0o2775, 0o2777, 0o711, 0o733, 0o1775, 0o700, 0o707, 0o3777)
FILE_MODES = (0o644, 0o666, 0o664, 0o600, 0o777, 0o755, 0o604, 0o606, 0o4755, 0o4777, 0o6777, 0o2755, 0o2777, 0o2766, 0o4666, 0o2664, 0o6775, 0o1666, 0o773, 0)
OPENINGS = (os.O_RDONLY, os.O_RDONLY, os.O_WRONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR)
EXTRA_FLAGS = (0, 0, 0, 0, os.O_APPEND, os.O_APPEND, os.O_TRUNC, os.O_CREAT, os.O_CREAT, os.O_CREAT | os.O_EXCL, os.O_CREAT | os.O_TRUNC, os.O_NOATIME,
               os.O_NOFOLLOW, os.O_DIRECTORY, os.O_APPEND | os.O_TRUNC)
NOREPLACE, EXCHANGE = 1, 2
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16
ACL_ACCESS, ACL_DEFAULT = 'system.posix_acl_access', 'system.posix_acl_default'
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32

# What only looks, so that it may be as late as what the kernel remembers.
LOOKING = {'stat', 'access', 'readdir', 'readlink', 'getxattr', 'listxattr', 'pread'}
# What changes names of a directory, by whatever these names are at that time.
NAMING = {'unlink', 'rmdir', 'rename', 'mkdir', 'mknod', 'symlink'}
# What a caller does to its own process.
OWN = {'close', 'set_umask', 'become', 'set_flags'}
# What writes data by a descriptor.
WRITING = {'write', 'pwrite', 'pwrite_noappend', 'write_mapped', 'fallocate', 'copy'}


@dataclass(frozen=True)
class Step:
    where: str        # 'mount', 'other mount', or 'source': the file system itself
    who: str
    operation: str
    arguments: tuple
    is_noticed: bool = True   # the kernel is made to ask the servers for what it remembers, once the step is done

    def __str__(self):
        return f'{self.who} ({self.where}): {self.operation}({", ".join(self._word(index, value) for index, value in enumerate(self.arguments))})'

    def _word(self, index, value):
        if self.operation == 'open' and index == 2:
            return flag_names(value)
        if self.operation == 'set_times' and value in (UTIME_NOW, UTIME_OMIT):
            return 'UTIME_NOW' if value == UTIME_NOW else 'UTIME_OMIT'
        if (self.operation, index) in MODES:
            return oct(value)
        return re.sub(r"b'\\x02\\x00\\x00\\x00.*?(?<!\\)'", lambda found: acl_text(ast.literal_eval(found[0])), repr(value))

    def is_looking(self):
        """Whether the step asks for nothing but reading."""
        if self.operation == 'open':
            flags = self.arguments[2]
            return bool(flags & os.O_PATH) or not flags & (os.O_ACCMODE | os.O_TRUNC)
        return self.operation in LOOKING

    def is_harmless(self):
        """Whether the step changes nothing that others see."""
        if self.operation == 'open':
            return self.is_looking() and not self.arguments[2] & os.O_CREAT
        return self.operation in LOOKING | OWN

    def paths(self):
        """The paths that the step walks to."""
        if self.operation == 'symlink':
            return list(self.arguments[1:])
        words = [value[1] if isinstance(value, tuple) and value and value[0] == 'link' else value for value in self.arguments[:2]]
        found = [word for word in words if isinstance(word, str) and (word in DIRECTORIES or '/' in word)]
        return found[:1] if self.operation in ('setxattr', 'removexattr', 'getxattr') else found

    def truncates(self):
        return self.operation == 'truncate' or (self.operation == 'open' and bool(self.arguments[2] & os.O_TRUNC))

    def is_empty_chown(self):
        return self.operation == 'chown' and self.arguments[1:] == (-1, -1)

    def slot(self):
        """The descriptor that the step acts on, if it is one."""
        if self.operation in WRITING:
            return self.arguments[1 if self.operation == 'copy' else 0]
        target = self.arguments[0]
        return target[1] if isinstance(target, tuple) and target[0] != 'link' else None

    def follows(self):
        """Whether the step goes where a symbolic link leads."""
        return not (isinstance(self.arguments[0], tuple) and self.arguments[0][0] == 'link')

    def acts_on_files(self):
        """Whether a path of the step stands for the file that is remembered by this name."""
        return self.operation not in NAMING | OWN and bool(self.paths())


MODES = {('open', 3), ('chmod', 1), ('mkdir', 1), ('mknod', 1), ('make', 1), ('set_umask', 0)}


def flag_names(flags):
    """As open(2) calls them."""
    names = [name for name in ('O_WRONLY', 'O_RDWR', 'O_APPEND', 'O_TRUNC', 'O_CREAT', 'O_EXCL', 'O_NOATIME', 'O_NOFOLLOW', 'O_PATH')
             if flags & getattr(os, name)]
    if flags & os.O_DIRECTORY:
        names.append('O_TMPFILE' if flags & os.O_TMPFILE == os.O_TMPFILE else 'O_DIRECTORY')
    return '|'.join(names) or 'O_RDONLY'


def acl_text(value):
    """As getfacl(1) says it, in short: u::7,u:1000:6,g::5,m::7,o::0."""
    names = {USER_OBJ: 'u:', USER: 'u:', GROUP_OBJ: 'g:', GROUP: 'g:', MASK: 'm:', OTHER: 'o:'}
    entries = struct.iter_unpack('<HHI', value[4:])
    return ','.join(f'{names[tag]}{who if tag in (USER, GROUP) else ""}:{permissions}' for tag, permissions, who in entries)


def acl(entries):
    return struct.pack('<I', 2) + b''.join(struct.pack('<HHI', *entry) for entry in entries)


def file_capability(permitted, effective):
    return struct.pack('<IIIII', 0x02000000 | effective, permitted, 0, 0, 0)


class Round:
    """The steps of one round: first those that make its files, then the random ones."""

    def __init__(self, chance, available):
        self._chance = chance
        self._callers = chance.sample(available, 3) + [chance.choice(['alice', 'bob'])]
        self._recent = deque(maxlen=3)
        self._kept = {who: {} for who in self._callers}
        self._focus = None
        self.steps = list(self._population())
        while len(self.steps) < STEPS:
            self.steps += self._scene() if self._chance.random() < 0.15 else [self._step()]

    # The files

    def _population(self):
        for path in DIRECTORIES:
            yield self._make(path, stat.S_IFDIR | self._chance.choice(DIRECTORY_MODES), b'')
        for parent in DIRECTORIES:
            for name in NAMES:
                if self._chance.random() < 0.6:
                    yield self._make_something(f'{parent}/{name}')

    def _make_something(self, path):
        kind = self._chance.choices(['file', 'link', 'directory', 'fifo', 'device'], [12, 2, 2, 1, 1])[0]
        if kind == 'file':
            return self._make(path, stat.S_IFREG | self._chance.choice(FILE_MODES), self._data())
        if kind == 'link':
            return self._make(path, stat.S_IFLNK, os.path.relpath(self._any_path(), os.path.dirname(path)))
        if kind == 'directory':
            return self._make(path, stat.S_IFDIR | self._chance.choice(DIRECTORY_MODES), b'')
        return self._make(path, (stat.S_IFIFO if kind == 'fifo' else stat.S_IFCHR) | self._chance.choice(FILE_MODES), b'')

    def _make(self, path, mode, content):
        attributes = []
        if self._chance.random() < 0.25:
            attributes.append((ACL_ACCESS, self._acl(UIDS, GIDS)))
        if stat.S_ISDIR(mode) and self._chance.random() < 0.2:
            attributes.append((ACL_DEFAULT, self._acl(UIDS, GIDS)))
        if stat.S_ISREG(mode) and self._chance.random() < 0.15:
            attributes.append(('security.capability', file_capability(1 << 10, 1)))
        return Step('source', 'root', 'make', (path, mode, self._chance.choice(UIDS), self._chance.choice(GIDS), content, tuple(attributes)))

    # Values

    def _data(self):
        return self._chance.randbytes(2).hex().encode() * self._chance.choice([1, 1, 2, 8])

    def _any_path(self):
        if self._chance.random() < 0.08:
            return self._chance.choice(DIRECTORIES)
        return f'{self._chance.choice(DIRECTORIES)}/{self._chance.choice(NAMES)}'

    def _path(self):
        """Often one that was in use shortly before, so that callers meet."""
        if self._focus and self._chance.random() < 0.8:
            return self._focus
        path = self._chance.choice(self._recent) if self._recent and self._chance.random() < 0.65 else self._any_path()
        if path not in self._recent:
            self._recent.append(path)
        return path

    def _directory(self):
        return self._chance.choice(DIRECTORIES) if self._chance.random() < 0.8 else self._path()

    def _acl(self, uids, gids):
        def permissions():
            return self._chance.choice([7, 6, 4, 5, 2, 3, 1, 0])
        named = [(USER, permissions(), uid) for uid in sorted(self._chance.sample(uids, min(len(uids), self._chance.choice([0, 1, 1, 2]))))]
        groups = [(GROUP, permissions(), gid) for gid in sorted(self._chance.sample(gids, min(len(gids), self._chance.choice([0, 1, 2]))))]
        nobody = 0xffffffff
        mask = [(MASK, permissions() | self._chance.choice([0, 7]), nobody)] * bool(named or groups)
        return acl([(USER_OBJ, permissions(), nobody), *named, (GROUP_OBJ, permissions(), nobody), *groups, *mask, (OTHER, permissions(), nobody)])

    def _mode(self):
        return self._chance.choice(FILE_MODES if self._chance.random() < 0.8 else DIRECTORY_MODES)

    def _ids(self, who, ids):
        """What this caller could write, and now and then what it could not."""
        return CALLERS[who].ids(ids) or [0, 1]

    # Steps

    def _scene(self):
        """Somebody's file is another's, or is protected otherwise, when it is used the next time."""
        who, self._focus = self._chance.choice(self._callers), self._path()
        if self._chance.random() < 0.7:
            caller = CALLERS[who]
            yield Step('source', 'root', 'chown', (self._focus, caller.uid if caller.fsuid is None else caller.fsuid, self._chance.choice(GIDS)))
        if self._chance.random() < 0.8:
            yield self._step('mount', who, {'open': 1})
        yield self._step('source', 'root', {'chmod': 4, 'chown': 4, 'setxattr': 2, 'set_inode_flags': 1, 'rename': 2}, is_noticed=False)
        for _ in range(self._chance.choice([1, 2])):
            yield self._step('mount', who)
        self._focus = None

    def _step(self, where=None, who=None, kinds=None, is_noticed=None):
        """Whatever is not given is chosen."""
        where = where or self._chance.choices(['mount', 'source', 'other mount'], [13, 5, 1])[0]
        self._who = who or (self._chance.choice(self._callers) if where == 'mount' else self._chance.choices(ELSEWHERE, [3, 1, 1, 1])[0])
        self._kept_here = self._kept[self._who] if where == 'mount' else {}
        kinds = kinds or self._kinds(where)
        kind = self._chance.choices(list(kinds), list(kinds.values()))[0]
        operation, *arguments = getattr(self, f'_{kind}')()
        if is_noticed is None:
            is_noticed = self._chance.random() < 0.4
        return Step(where, self._who, operation, tuple(arguments), is_noticed)

    def _kinds(self, where):
        """What can be done there, and how often it is."""
        if where != 'mount':
            return SOURCE_STEPS if where == 'source' and self._who == 'root' else PATH_STEPS
        return {kind: weight for kind, weight in MOUNT_STEPS.items()
                if (self._kept_here or kind not in NEED_DESCRIPTOR) and (CALLERS[self._who].changes or kind != 'become')}

    def _slot(self):
        slots = [slot for slot in self._kept_here if self._focus in (None, self._kept_here[slot])]
        slot = self._chance.choice(slots or list(self._kept_here))
        if self._kept_here[slot] not in self._recent:
            self._recent.append(self._kept_here[slot])
        return slot

    def _target(self, ways=('fd', 'fd', 'fd', 'proc', 'empty')):
        """A path, or one of the caller's descriptors."""
        if self._kept_here and self._chance.random() < 0.6:
            return self._chance.choice(ways), self._slot()
        return ('link', self._path()) if self._chance.random() < 0.2 else self._path()

    def _open(self):
        slot, path = self._chance.randrange(SLOTS), self._path()
        roll = self._chance.random()
        if roll < 0.12:
            flags = os.O_PATH | self._chance.choice([0, os.O_NOFOLLOW])
        elif roll < 0.2:
            path, flags = self._directory(), os.O_TMPFILE | self._chance.choice([os.O_RDWR, os.O_WRONLY])
        elif roll < 0.27:
            path, flags = self._directory(), os.O_RDONLY | os.O_DIRECTORY
        else:
            flags = self._chance.choice(OPENINGS) | self._chance.choice(EXTRA_FLAGS)
        self._kept_here[slot] = path
        return 'open', slot, path, flags, self._mode()

    def _close(self):
        slot = self._slot()
        del self._kept_here[slot]
        return 'close', slot

    def _pread(self):
        return 'pread', self._slot(), 100, 0

    def _write(self):
        return 'write', self._slot(), self._data()

    def _pwrite(self):
        return 'pwrite', self._slot(), self._data(), self._chance.choice([0, 2, 20])

    def _pwrite_noappend(self):
        return 'pwrite_noappend', self._slot(), self._data(), 0

    def _write_mapped(self):
        return 'write_mapped', self._slot(), self._data()

    def _set_flags(self):
        return 'set_flags', self._slot(), self._chance.choice([0, os.O_APPEND, os.O_NOATIME])

    def _fallocate(self):
        mode = self._chance.choice([0, KEEP_SIZE, KEEP_SIZE | PUNCH_HOLE, ZERO_RANGE])
        return 'fallocate', self._slot(), mode, self._chance.choice([0, 3]), self._chance.choice([2, 30])

    def _copy(self):
        return 'copy', self._slot(), self._slot(), self._chance.choice([3, 100]), self._chance.choice([0, 40])

    def _chmod(self):
        return 'chmod', self._target(), self._mode()

    def _chown(self):
        uid, gid = (self._chance.choice(self._ids(self._who, ids)) for ids in (UIDS, GIDS))
        target = self._target()
        return self._chance.choice([('chown', target, uid, gid), ('chown', target, -1, gid), ('chown', target, -1, gid), ('chown', target, uid, -1),
                                    ('chown', target, -1, -1)])

    def _set_times(self):
        explicit = self._chance.randrange(2, 1000)
        times = self._chance.choice([(None, None), (UTIME_NOW, UTIME_NOW), (UTIME_NOW, UTIME_OMIT), (UTIME_OMIT, UTIME_NOW), (explicit, explicit),
                                     (explicit, UTIME_OMIT), (UTIME_OMIT, explicit), (explicit, UTIME_NOW), (UTIME_OMIT, UTIME_OMIT)])
        return 'set_times', self._target(), *times

    def _truncate(self):
        target = self._target(('fd', 'fd', 'proc'))
        return 'truncate', target[1] if target[0] == 'link' else target, self._chance.choice([0, 1, 5, 50])

    def _attribute_target(self):
        return self._target(('fd', 'fd', 'proc'))

    def _setxattr(self):
        target, flags = self._attribute_target(), self._chance.choice([0, 0, 0, os.XATTR_CREATE, os.XATTR_REPLACE])
        kind = self._chance.choices(['acl', 'default', 'user', 'trusted', 'capability', 'security'], [6, 2, 4, 1, 2, 1])[0]
        if kind in ('acl', 'default'):
            value = self._acl(self._ids(self._who, UIDS), self._ids(self._who, GIDS))
            return 'setxattr', target, ACL_ACCESS if kind == 'acl' else ACL_DEFAULT, value, flags
        if kind == 'capability':
            return 'setxattr', target, 'security.capability', file_capability(self._chance.choice([1, 1 << 10]), self._chance.choice([0, 1])), flags
        return 'setxattr', target, f'{kind}.{self._chance.choice("xy")}', self._data(), flags

    def _attribute(self):
        return self._chance.choice(['user.x', 'user.y', 'trusted.x', 'security.capability', 'security.x', ACL_ACCESS, ACL_ACCESS, ACL_DEFAULT])

    def _removexattr(self):
        return 'removexattr', self._attribute_target(), self._attribute()

    def _getxattr(self):
        return 'getxattr', self._attribute_target(), self._attribute()

    def _listxattr(self):
        return 'listxattr', self._attribute_target()

    def _stat(self):
        return 'stat', self._attribute_target()

    def _access(self):
        return 'access', self._path(), self._chance.choice([1, 2, 4, 6])

    def _link(self):
        target = self._target(('proc', 'empty'))
        return 'link', target[1] if target[0] == 'link' else target, self._path()

    def _symlink(self):
        new = self._path()
        return 'symlink', os.path.relpath(self._any_path(), os.path.dirname(new)), new

    def _rename(self):
        return 'rename', self._path(), self._path(), self._chance.choice([0, 0, 0, NOREPLACE, EXCHANGE])

    def _unlink(self):
        return 'unlink', self._path()

    def _rmdir(self):
        return 'rmdir', self._path()

    def _mkdir(self):
        return 'mkdir', self._path(), self._mode()

    def _mknod(self):
        kind = self._chance.choice([stat.S_IFREG, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR])
        return 'mknod', self._path(), kind | self._mode(), os.makedev(1, 3) if kind == stat.S_IFCHR else 0

    def _readdir(self):
        return 'readdir', self._directory()

    def _readlink(self):
        return 'readlink', self._path()

    def _set_umask(self):
        return 'set_umask', self._chance.choice([0, 0o022, 0o077, 0o002, 0o027])

    def _become(self):
        return ('become', self._chance.choice(UIDS), self._chance.choice(GIDS), tuple(self._chance.sample(GIDS, self._chance.choice([0, 1, 2]))),
                tuple(self._chance.sample(['fowner', 'fsetid', 'dac_override', 'chown', 'setfcap', 'sys_admin'], self._chance.choice([0, 0, 1, 2]))))

    def _set_inode_flags(self):
        return 'set_inode_flags', self._path(), self._chance.choice([0, 0, IMMUTABLE, APPEND_ONLY])


PATH_STEPS = {'chmod': 7, 'chown': 6, 'setxattr': 6, 'removexattr': 3, 'set_times': 2, 'truncate': 2, 'link': 2, 'symlink': 1, 'rename': 4, 'unlink': 4,
              'rmdir': 1, 'mkdir': 2, 'mknod': 2}
SOURCE_STEPS = PATH_STEPS | {'set_inode_flags': 3}
NEED_DESCRIPTOR = {'close': 2, 'pread': 1, 'write': 7, 'pwrite': 4, 'pwrite_noappend': 1, 'write_mapped': 2, 'set_flags': 2, 'fallocate': 3, 'copy': 2}
MOUNT_STEPS = PATH_STEPS | NEED_DESCRIPTOR | {'open': 18, 'getxattr': 1, 'listxattr': 1, 'stat': 2, 'access': 1, 'readdir': 2, 'readlink': 1, 'set_umask': 1,
                                             'become': 4}
