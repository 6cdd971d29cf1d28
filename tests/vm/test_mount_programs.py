"""Programs that people use on a file system give on the mount what they give on ext4."""
import os
import subprocess

import pytest

from places import mount, served, sh  # noqa: F401  (fixtures)

ODD_TREE = r'''
mkdir -p tree/empty tree/deep/er tree/shared tree/private
head -c 300000 /dev/urandom >tree/data
: >tree/nothing
truncate -s 1M tree/hole; printf end >>tree/hole
ln tree/data tree/deep/same-data
ln -s ../data tree/deep/link; ln -s nowhere tree/dangling
mkfifo tree/fifo; mknod tree/null c 1 3
printf 'blank and line feed' >"tree/a b
c"
printf x >tree/"$(printf %255s | tr ' ' n)"
chmod 4755 tree/nothing; chmod 2775 tree/shared; chmod 1777 tree/private
chown 1000:2000 tree/data; chown -h 1001:2001 tree/dangling
touch -d '1971-02-03 04:05:06.123456789' tree/data; touch -h -d 2040-01-01 tree/dangling
setfacl -m u:1234:rw,g:77:r tree/hole; setfacl -d -m u:1234:rwx tree/shared
setfattr -n user.colour -v blue tree/data; setfattr -n trusted.secret -v 1 tree/deep
setcap cap_net_raw+ep tree/nothing
touch -d 2001-01-01 tree/deep/er tree/deep tree/empty tree
'''

# Everything that rsync sees. Then what it does not: xattrs of all namespaces.
COMPARE = r'''
rsync -aHAXn --delete --itemize-changes --checksum "$1/" "$2/"
diff <(cd "$1" && getfattr -Rhd -m - . | sort) <(cd "$2" && getfattr -Rhd -m - . | sort)
'''


def differences(one, other):
    return subprocess.run(['bash', '-c', COMPARE, 'compare', one, other], text=True, capture_output=True, check=False).stdout


@pytest.fixture
def odd_tree(tmp_path):
    """One of everything that a directory may hold."""
    sh(tmp_path, ODD_TREE)
    return tmp_path / 'tree'


def test_cp_a_onto_the_mount(odd_tree, mount):
    sh(mount.path, f'cp -a {odd_tree} copy')
    assert differences(odd_tree, mount.path / 'copy') == ''
    assert differences(odd_tree, mount.source / 'copy') == ''


def test_cp_a_from_the_mount(odd_tree, mount, tmp_path):
    sh(mount.source, f'cp -a {odd_tree} tree')
    sh(mount.path, f'cp -a tree {tmp_path}/back')
    assert differences(odd_tree, tmp_path / 'back') == ''


def test_rsync_onto_the_mount(odd_tree, mount):
    sh(mount.path, f'rsync -aHAX {odd_tree}/ copy/')
    assert differences(odd_tree, mount.source / 'copy') == ''


def test_rsync_of_changes(odd_tree, mount):
    sh(mount.path, f'rsync -aHAX {odd_tree}/ copy/')
    sh(odd_tree, 'rm -r empty dangling; printf more >>hole; mkdir -p new/er; ln data new/er/third')
    sh(mount.path, f'rsync -aHAX --delete --inplace {odd_tree}/ copy/')
    assert differences(odd_tree, mount.source / 'copy') == ''


def test_tar_out_and_in(odd_tree, mount):
    sh(mount.path, f'mkdir copy; tar -C {odd_tree} --xattrs --acls --sparse -c . | tar -C copy --xattrs --acls --same-owner -xp')
    sh(mount.path, f'cmp copy/hole {odd_tree}/hole; cmp copy/data {odd_tree}/data')


def test_git_clone_commit_and_fsck(mount, tmp_path):
    git = 'git -c user.name=x -c user.email=x@example.org -c init.defaultBranch=main'
    sh(tmp_path, f'''
        {git} init -q origin; cd origin
        mkdir d1 d2; for i in 1 2 3 4 5 6; do seq ${{i}}000 >d$((i % 2 + 1))/f$i; done
        ln -s d1 link; printf '#!/bin/sh\n' >run; chmod +x run
        {git} add -A; {git} commit -qm first''')
    sh(mount.path, f'''
        {git} clone -q {tmp_path}/origin clone; cd clone
        test -z "$({git} status --porcelain)"
        {git} mv d1 moved; echo new >d2/new; {git} add -A; {git} commit -qm second
        {git} fsck --full --strict''')
    sh(mount.source / 'clone', 'git -c safe.directory=* fsck --full --strict')


def test_find_and_rm_of_a_deep_tree(mount):
    sh(mount.path, '''
        deep=$(yes directory/ | head -n 25 | tr -d '\\n'); mkdir -p "$deep"; echo x >"$deep/file"
        test "$(find . -name file | wc -l)" = 1
        rm -r directory''')
    assert os.listdir(mount.source) == []


def test_programs_run_from_the_mount(mount):
    assert sh(mount.path, 'cp /bin/echo run; ./run it runs') == 'it runs\n'
    assert sh(mount.path, r"printf '#!/bin/sh\necho script\n' >script; chmod +x script; ./script") == 'script\n'
