"""Options of the tests in the virtual machine; here, so that tests/run.sh can give them to the unit tests, too."""
import os
import sys

# In the virtual machine: where tests/bed/build put the bytecode of what follows. For all of python3 it would have to be there for each of its own modules.
if 'BED_BYTECODE' in os.environ:
    sys.pycache_prefix = os.environ['BED_BYTECODE']


def pytest_addoption(parser):
    parser.addoption('--fuzz', type=int, default=5000, metavar='N', help='make N calls in test_token_fuzz.py')
    parser.addoption('--moves', type=int, default=300, metavar='N', help='make N moves under random reads and writes in test_token_moves.py')
    parser.addoption('--storm', type=int, default=1, metavar='N', help='do N times as much in test_broker_storms.py and test_many_files.py')
    parser.addoption('--requests', choices=['read', 'io_uring'], default='read', help='how requests come to FUSE servers that know both ways')
    parser.addoption('--mix', type=int, default=15, metavar='N', help='disturb N times in test_token_mix.py')
    parser.addoption('--rights', type=int, default=20, metavar='N', help='compare rights in test_rights_random.py for N seconds')
    parser.addoption('--rights-seed', default='1', metavar='SEED[/ROUND]', help='which random steps test_rights_random.py does; random: others each time')
