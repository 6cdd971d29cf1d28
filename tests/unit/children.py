"""Parts of tests that need a process of their own."""
import os
import traceback


def in_child(function):
    """Runs it in a process of its own, and fails as it does."""
    child = os.fork()
    if not child:
        status = 1
        try:
            function()
            status = 0
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, 'see what the child has printed'
