#!/bin/bash
# instructions.sh [--kernel DIR]: how many instructions a direct 4 KiB read takes, on the raw device, on ext4 and through the mount, with ordinary
# registered buffers and with tokens. Takes three minutes. The machine has one CPU, and a clock that counts its instructions: what other
# programs do on the host does not change the figures.
set -euo pipefail
[ $# -gt 0 ] || set -- --kernel plain
exec "$(dirname "$0")/../bed/vm" --count "$@" --timeout 900 python3 tests/bench/instructions.py
