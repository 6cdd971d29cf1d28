#!/bin/bash
# The main job, from nothing to a table: builds the patched kernel and the project, boots a virtual machine with an NVMe device and a PCI device
# whose BAR plays VRAM, loads a checkpoint from a FUSE mount straight into the BAR, and compares what arrived there with the checkpoint.
# Needs root; everything it makes is in ${XDG_CACHE_HOME:-~root/.cache}/fuse-dmabuf.
set -euo pipefail
# shellcheck source=../tests/bed/lib.sh
. "$(dirname "$0")/../tests/bed/lib.sh"

need_space 2 "the demo's checkpoint and devices"
scratch demo
work=$scratch
trap 'rm -rf "$work"' EXIT
trap 'exit 143' TERM HUP
mkdir "$work/results"

build=$("$bed/build")
kernel=$("$bed/kernel" plain)
say "making a checkpoint with the shapes of GPT-2"
"$bed/enter" examples/make-checkpoint.py "/cache/$(basename "$work")/results/model.safetensors"
say "loading it in the virtual machine"
load() {
  rm -f "$work/vram"   # nothing of an earlier attempt counts
  "$bed/vm" --kernel "$kernel" --build "$build" --timeout 900 --vram "$work/vram" --results "$work/results" \
    python3 -u /src/examples/demo-guest.py /results/model.safetensors
}
again_if_stopped load

# The guest has ended; its word is not needed for this.
size=$(stat -c %s "$work/results/model.safetensors")
checkpoint=$(sha256sum <"$work/results/model.safetensors")
memory=$(head -c "$size" "$work/vram" | sha256sum)
echo
printf 'sha256 of %-26s %s\n' "the checkpoint" "${checkpoint%% *}" "the memory behind the BAR" "${memory%% *}"
[ "$checkpoint" = "$memory" ] || die "the memory behind the BAR does not hold the checkpoint"
echo "Equal: the BAR holds the checkpoint, byte for byte."
