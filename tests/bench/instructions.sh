#!/bin/bash
# instructions.sh [read|write] [--kernel DIR]: how many instructions a direct 4 KiB read and an overwrite take (or one of the two), on a raw device,
# on ext4 and through the mount, with ordinary registered buffers and with tokens; and how many requests the FUSE server gets meanwhile. Also what a
# direct 1 MiB read or write takes on the raw device, with tokens whose memory is in one piece and in pieces of 4 KiB.
# Takes four minutes, less with fewer rounds (ROUNDS=5; default 15). The machine has one CPU, and a clock that counts its instructions. The host
# changes the figures by a few percent: its threads decide how many requests each interrupt completes. profile.sh tells this apart.
set -euo pipefail
directions=()
case ${1-} in read | write) directions=("$1"); shift ;; esac
[ $# -gt 0 ] || set -- --kernel plain
exec "$(dirname "$0")/../bed/vm" --count "$@" --timeout 900 env ${ROUNDS:+"ROUNDS=$ROUNDS"} python3 tests/bench/instructions.py "${directions[@]}"
