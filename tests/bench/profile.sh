#!/bin/bash
# profile.sh [read|write [BUFFER BUFFER]] [options of profile.py] [-- options of tests/bed/vm]: prints in which functions of the kernel the
# instructions of a direct request are spent, with two buffers side by side: memory and token, or others of those that requests.c knows.
# The options of profile.py are --place raw|ext4|FUSE, --size BYTES, --depth REQUESTS, --requests and --rounds. Takes a minute.
# The counts are exact. Functions that are called once for several requests differ from run to run, as in instructions.sh.
set -euo pipefail
arguments=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do arguments+=("$1"); shift; done
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- --kernel plain
exec "$(dirname "$0")/../bed/vm" --profile "$@" --timeout 900 python3 tests/bench/profile.py "${arguments[@]}"
