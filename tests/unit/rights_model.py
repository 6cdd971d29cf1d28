"""A differential tester of rights: each step is done on a plain file system and on a mount, and both must answer, and become, the same."""
import os
import stat
import time
from collections import Counter
from itertools import count
from random import Random

from rights_callers import CALLERS, Worker, exists_here
from rights_steps import ACL_DEFAULT, DIRECTORIES, NAMING, WRITING, Round

SET_ID = stat.S_ISUID | stat.S_ISGID
# Seconds for finding the steps that a mismatch needs.
SHRINKING = 40
TOLD = 40   # steps before a mismatch that are told


class Mismatch(Exception):
    """The mount and the plain file system differ."""

    def __init__(self, verdict, step, plain, there, details=()):
        super().__init__(verdict)
        self.verdict, self.step, self.plain, self.there, self.details = verdict, step, plain, there, list(details)
        self.index = None

    def signature(self):
        return self.verdict, self.step.operation, self.plain[0], self.there[0]

    def __str__(self):
        return '\n'.join([f'{self.step.where} {self.verdict}: step {self.index}, {self.step}',
                          f'  on the plain file system: {" ".join(map(str, self.plain))}',
                          f'  on the {self.step.where}: {" ".join(map(str, self.there))}', *(f'  {line}' for line in self.details)])


class RoundOver(Exception):
    """The two differ from here on, for a reason that is documented."""


class View:
    """A place where callers act, and what the kernel may remember of it."""

    def __init__(self, directory, is_mount, remembers_names=False, altered=lambda caller: caller):
        self.directory, self.is_mount, self.remembers_names = directory, is_mount, remembers_names
        self.workers, self._altered = {}, altered
        self.is_stale = self.names_are_stale = False

    def end(self):
        for worker in self.workers.values():
            worker.end()

    def begin(self, names, directory):
        """Starts who was never needed before: that takes its time."""
        for name in names:
            if name not in self.workers:
                self.workers[name] = Worker(self._altered(CALLERS[name]), self.directory)
            self.workers[name].send('begin', directory)
        for name in names:
            assert self.workers[name].receive()[0] == 'done', name
        self.is_stale = self.names_are_stale = False

    def refresh(self, names, paths):
        """Has the kernel ask the server for what it remembers of these paths, and of what these callers have open."""
        if paths:
            self.workers['root'].ask('forget_names', paths)
        for name in names:
            self.workers[name].ask('forget_attributes')
        self.is_stale = self.names_are_stale = False


class Trial:
    """Does the steps of rounds in all views, and compares."""

    def __init__(self, plain, source, mount, other, remembers_names, altered=lambda caller: caller):
        self.callers = [name for name, caller in CALLERS.items() if exists_here(caller)]
        self._plain = View(plain, False)
        self._views = {'plain': self._plain, 'source': View(source, False),
                       'mount': View(mount, True, remembers_names, altered),
                       'other mount': View(other, True, remembers_names)}
        self.done, self.over, self._number, self._numbers = 0, Counter(), 0, count(1)

    def end(self):
        try:
            self._remove()
        finally:
            for view in self._views.values():
                view.end()

    # Rounds

    def search(self, seed, first, seconds):
        """Does rounds for so long, beginning with round `first`. AssertionError: a mismatch, told as fully as somebody needs who repeats it."""
        deadline = time.monotonic() + seconds
        for number in count(first):
            steps = Round(Random(f'{seed}/{number}'), self.callers).steps
            try:
                self.run(steps)
            except Mismatch as mismatch:
                raise AssertionError(self._story(seed, number, steps, mismatch)) from None
            if time.monotonic() > deadline:
                return

    def run(self, steps):
        """One round, in directories of its own. Mismatch: as it says."""
        self._begin(steps)
        for index, step in enumerate(steps):
            try:
                self._do(step)
            except Mismatch as mismatch:
                mismatch.index = index
                raise
            except RoundOver as reason:
                self.over[str(reason)] += 1
                return

    def _begin(self, steps):
        self._remove()
        self._number = next(self._numbers)
        name = f'round-{self._number}'
        for view in (self._plain, self._views['source']):
            os.mkdir(view.directory / name)
            os.chmod(view.directory / name, 0o1777)
        used = {name: {step.who for step in steps if step.where == name} for name in self._views}
        used['plain'] = set().union(*used.values())
        for place, view in self._views.items():
            view.begin({'root', *used[place]}, name)
        self._active, self._known_paths, self.flags_are_set = used['mount'], set(), False
        self._last, self._opened_flags, self.opened_before_flags = {}, {}, set()

    def _remove(self):
        if self._number:
            for view in (self._plain, self._views['source']):
                answer = view.workers['root'].ask('remove_tree', f'round-{self._number}')
                assert answer[0] == 'done', answer
        self._number = 0

    def _story(self, seed, number, steps, mismatch):
        steps = steps[:mismatch.index + 1]
        told = [f'{index}: {step}' for index, step in enumerate(steps)][-TOLD:]
        smallest, again = self.shrink(steps, mismatch)
        return '\n'.join([str(mismatch), '', f'To repeat it: --rights-seed={seed}/{number}. The last steps were', *told, '',
                          f'These {len(smallest)} steps are enough:', *map(str, smallest), str(again)])

    def shrink(self, steps, mismatch):
        """The fewest steps that were found to end in the same mismatch, and the mismatch they end in."""
        deadline, size = time.monotonic() + SHRINKING, len(steps) // 2
        while size and time.monotonic() < deadline:
            at = 0
            while at < len(steps) - 1 and time.monotonic() < deadline:
                fewer = steps[:at] + steps[at + size:]
                again = self._ends_alike(fewer, mismatch)
                if again:
                    steps, mismatch = fewer[:again.index + 1], again
                else:
                    at += size
            size //= 2
        return steps, mismatch

    def _ends_alike(self, steps, mismatch):
        try:
            self.run(steps)
        except Mismatch as again:
            return again if again.signature() == mismatch.signature() else None
        return None

    # Steps

    def _do(self, step):
        view = self._views[step.where]
        if view.names_are_stale and step.acts_on_files():
            self._refresh(view)
        plain, there, *_ = self._ask(step, *self._views_of(step))
        if plain != there:
            there = self._judge(step, view, plain, there)
        self.done += 1
        if step.operation == 'open' and there[0] == 'done':
            self._opened_flags[step.who, step.arguments[0]] = step.arguments[2]
            self.opened_before_flags.discard((step.who, step.arguments[0]))
        if step.operation == 'set_inode_flags' and step.arguments[1]:
            self.flags_are_set = True
            self.opened_before_flags.update(self._opened_flags)
        if view.is_mount and there[0] == 'done' and (plain[0] == 'done' or step.is_empty_chown()):
            self._settle_set_id_bits(step)
        if step.is_harmless():
            return
        if step.operation != 'make':
            self._compare(step, plain, there)
        self._make_others_stale(step)

    def _views_of(self, step):
        """First the plain file system, then where the step is done. The callers of all places are alike, so all have the same umask."""
        views = [self._plain, self._views[step.where]]
        if step.operation == 'set_umask':
            views += [view for view in self._views.values() if view not in views and step.who in view.workers]
        return views

    @staticmethod
    def _ask(step, *views):
        workers = [view.workers[step.who] for view in views]
        for worker in workers:
            worker.send(step.operation, *step.arguments)
        return [worker.receive() for worker in workers]

    def _judge(self, step, view, plain, there):
        """What the mount says in the end. Mismatch: it differs without excuse. RoundOver: with one."""
        copied_nothing = step.operation == 'copy' and there == ('done', 0)   # of a file that was empty
        # Of two names that it takes for those of one file the kernel renames none, and asks nobody.
        renamed_nothing = step.operation == 'rename' and there == ('done', None) and self._state_of('source') == self._last
        may_lag = there[0] == 'refused' or copied_nothing or renamed_nothing or (step.is_looking() or self._opens_special_file(step)) and (view.is_stale or plain[0] == 'done')
        if view.is_mount and may_lag:
            if there[0] == 'done' and step.operation == 'open':
                for place in (self._plain, view):
                    place.workers[step.who].ask('close', step.arguments[0])
            self._refresh(view, step.who)
            there, = self._ask(step, view)
        if plain == there:
            return there
        if self._walked_by_memory(step, view, plain, there):
            raise RoundOver(WALKED)
        for sentence, explains in KNOWN_ANSWERS.items():
            if explains(self, step, plain, there):
                # What only one of both has done makes all that follows differ.
                if plain[0] != there[0] and (step.operation in WRITING | {'open', 'set_flags'} or step.is_empty_chown()):
                    raise RoundOver(sentence)
                return there
        verdict = ('answers otherwise' if plain[0] == there[0] == 'done' else 'refuses otherwise' if plain[0] == there[0] else
                   'grants what the plain file system refuses' if there[0] == 'done' else 'refuses what the plain file system grants')
        raise Mismatch(verdict, step, plain, there)

    def _state_of(self, place):
        return self._views[place].workers['root'].ask('snapshot')[1]

    def _opens_special_file(self, step):
        """Whether it is a pipe, a socket or a device, which the kernel opens itself, by what it remembers."""
        if step.operation != 'open':
            return False
        answer, value = self._plain.workers['root'].ask('stat', step.arguments[1])
        return answer == 'done' and not stat.S_ISREG(value[0]) and not stat.S_ISDIR(value[0])

    def _refresh(self, view, *who):
        # Also without a memory of names a directory that has moved is only found in its new place by who looks it up; rename(2) says ESTALE.
        view.refresh({*who, *self._active} & view.workers.keys(), sorted(self._known_paths) if view.remembers_names or who else ())

    def _walked_by_memory(self, step, view, plain, there):
        """Whether the caller came through a directory that is closed by now, which the kernel has not asked for since."""
        if not (view.remembers_names and view.is_stale and there[0] == 'done' and plain == ('refused', 'EACCES')):
            return False
        worker = self._plain.workers[step.who]
        for path in step.paths():
            parents = path.split('/')[:-2 if step.operation in NAMING and not self._is_empty_rename(step) else -1]
            above = ['/'.join(parents[:i + 1]) for i in range(len(parents))]
            if any(worker.ask('access', directory, os.X_OK) != ('done', True) for directory in above) or stat.S_ISLNK(self._mode_of(path)):
                return True
        return False

    def _is_empty_rename(self, step):
        """Whether both names are of one file, so that the kernel has nothing to do."""
        return step.operation == 'rename' and len({(status.st_dev, status.st_ino) for status in map(os.lstat, map(self._below_mount, step.paths()))}) == 1

    def _mode_of(self, path):
        answer, value = self._plain.workers['root'].ask('stat', ('link', path))
        return value[0] if answer == 'done' else 0

    def _below_mount(self, path):
        return self._views['source'].directory / f'round-{self._number}' / path

    def _settle_set_id_bits(self, step):
        """Makes both files the same after what is known to treat these bits, and file capabilities, differently: neither has them."""
        view = self._views[step.where]
        sentence = next((sentence for sentence, differs in KNOWN_STATES.items() if differs(step, view)), None)
        if sentence is None:
            return
        paths = [self._path_of(place, step) for place in (self._plain, view)]
        plain, there = modes = [os.stat(path, follow_symlinks=step.follows()).st_mode for path in paths]
        # The mount has bits that the plain file system has not only where nothing was done at all.
        known = plain & ~SET_ID == there & ~SET_ID and (step.is_empty_chown() or not there & ~plain)
        try:
            for path, mode in zip(paths, modes):
                if known and mode != plain & there:
                    os.chmod(path, stat.S_IMODE(plain & there))
                if step.is_empty_chown() and 'security.capability' in os.listxattr(path, follow_symlinks=step.follows()):
                    os.removexattr(path, 'security.capability')
        except PermissionError:   # immutable or append-only
            raise RoundOver(sentence) from None

    def _path_of(self, view, step):
        """Where root finds the file that a step acts on."""
        if step.slot() is not None:
            worker = view.workers[step.who]
            return f'/proc/{worker.pid}/fd/{worker.ask("descriptor", step.slot())[1]}'
        path = step.paths()[0]
        return self._below_mount(path) if view.is_mount else view.directory / f'round-{self._number}' / path

    def _compare(self, step, plain, there):
        roots = [view.workers['root'] for view in (self._plain, self._views['source'])]
        for root in roots:
            root.send('snapshot')
        wanted, found = (root.receive()[1] for root in roots)
        if wanted != found:
            if self._appended(step, wanted, found):
                raise RoundOver(APPENDS)
            raise Mismatch('leaves another state', step, plain, there, differences(wanted, found))
        self._known_paths.update(found)
        self._last = found

    def opened_to_append(self, step):
        return step.operation in WRITING and bool(self._opened_flags.get((step.who, step.slot()), 0) & os.O_APPEND)

    def _appended(self, step, wanted, found):
        """Whether all that differs is what was appended by a descriptor that was opened for that."""
        if not self.opened_to_append(step):
            return False
        differing = [path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path)]
        contents = [(self._last.get(path, {}).get('content'), found.get(path, {}).get('content')) for path in differing]
        return all(None not in pair and pair[1].startswith(pair[0]) for pair in contents)

    def _make_others_stale(self, step):
        """What one view has changed, the kernel does not know of in the others."""
        names_change = step.operation in NAMING | {'link', 'open', 'make'}
        for place, view in self._views.items():
            if not view.is_mount or place == step.where:
                continue
            view.is_stale = True
            view.names_are_stale |= names_change and view.remembers_names
            # Through a directory that is another by now every step would lead elsewhere.
            if step.is_noticed or (names_change and not set(step.paths()).isdisjoint(DIRECTORIES)):
                self._refresh(view)


def differences(wanted, found):
    for path in sorted(wanted.keys() | found.keys()):
        plain, there = wanted.get(path), found.get(path)
        if plain is None or there is None:
            yield f'{path}: only on the {"mount" if plain is None else "plain file system"}: {plain or there}'
        elif plain != there:
            for name in sorted(plain.keys() | there.keys()):
                if plain.get(name) != there.get(name):
                    shown = [oct(facts[name]) if name == 'mode' else facts.get(name) for facts in (plain, there)]
                    yield f'{path}: {name} is {shown[0]} on the plain file system, {shown[1]} on the mount'


def chown_asks_nobody(_, step, plain, there):
    return step.is_empty_chown() and (plain, there) == (('refused', 'EPERM'), ('done', None))


def copy_is_refused_for_another_reason(trial, step, plain, there):
    return trial.flags_are_set and step.operation == 'copy' and (plain, there) == (('refused', 'EBADF'), ('refused', 'EPERM'))


def write_would_take_bits(trial, step, plain, there):
    """Of a file that is append-only or immutable no bits and no file capabilities are taken."""
    return trial.flags_are_set and (step.operation in WRITING or step.is_empty_chown()) and (plain[0], there) == ('done', ('refused', 'EPERM'))


def opened_before_flags(trial, step, plain, there):
    if step.operation == 'open':
        return bool(trial.opened_before_flags) and (plain[0], there) == ('done', ('refused', 'EBUSY'))
    writes = {'write_mapped': 'EACCES', 'pwrite_noappend': 'EPERM'}
    return (step.who, step.slot()) in trial.opened_before_flags and plain == ('refused', writes.get(step.operation))


def flag_is_without_effect(_, step, plain, there):
    return step.operation == 'set_flags' and (plain, there) == (('refused', 'EPERM'), ('done', None))


def flags_are_unknown(trial, step, plain, there):
    """Of refusals the reason may be another: the kernel itself finds one before the server is asked."""
    if not trial.flags_are_set:
        return False
    if step.operation == 'access':
        return (plain, there) == (('done', False), ('done', True))
    if step.operation == 'removexattr' and step.arguments[1] == ACL_DEFAULT:   # a file has none
        return (plain, there) == (('refused', 'EPERM'), ('done', None))
    if step.operation == 'copy' and there == ('done', 0):   # nothing was there to copy
        return plain == ('refused', 'EPERM')
    return plain in [('refused', 'EPERM'), ('refused', 'EACCES' if step.operation == 'write_mapped' else None)] and there[0] == 'refused'


# Where the mount differs and is documented to.
WALKED = 'Which directories may be searched is remembered for as long as the option cache says.'
APPENDS = 'What was opened with O_APPEND appends for ever, also after fcntl(2) and with RWF_NOAPPEND: the backing file was opened so.'
KNOWN_ANSWERS = {
    'With chown(-1, -1), which changes no owner, the kernel does not ask the server: nobody is refused, and nothing happens.': chown_asks_nobody,
    'That a file is immutable or append-only the kernel does not know: access(2) does not tell, and of two errors another may come first.':
        flags_are_unknown,
    'fcntl(2) sets O_NOATIME and clears O_APPEND by what the kernel remembers, and without effect: the backing file keeps its flags.':
        flag_is_without_effect,
    'Where fcntl(2) could not clear O_APPEND on the plain file system, because the file is append-only, the server says so when a copy begins.':
        copy_is_refused_for_another_reason,
    'A file that was open before it became append-only stays with passthrough: nobody else may open it for writing, and before Linux 7.3 it is mapped; '
    'a write that is not to append appends.':
        opened_before_flags,
    'A write to an append-only file whose set-ID bits it would take is refused, also where the writer would keep them: see KNOWN_STATES.':
        write_would_take_bits,
}
# After which steps set-user-ID and set-group-ID bits may differ.
KNOWN_STATES = {
    'A write takes them also where the writer has CAP_FSETID, or is in the group of the file: backing files have nobody\'s rights.':
        lambda step, view: step.operation in WRITING,
    'chmod() takes set-group-ID as long as the kernel does not know that the file is of a group of the caller by now.':
        lambda step, view: step.operation == 'chmod' and view.is_stale,
    'truncate(2) to nothing takes them also from a file of XFS that is empty, as an open that truncates does: they come as the same request.':
        lambda step, view: step.operation == 'truncate' and step.arguments[1] == 0,
    'Truncating takes set-group-ID without group execution also where CAP_FSETID of another user namespace would keep it.':
        lambda step, view: bool(CALLERS[step.who].namespace) and step.truncates(),
    'chown(-1, -1) takes none: the kernel does not ask the server.': lambda step, view: step.is_empty_chown(),
}
