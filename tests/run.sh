#!/bin/bash
# run.sh [--no-vm] [pytest arguments]: sets everything up and runs the tests: tests/unit on this machine, then tests/vm in a virtual machine with
# the patched debug kernel. Needs root; everything it makes is in ${XDG_CACHE_HOME:-~root/.cache}/fuse-dmabuf.
#   tests/run.sh -k fuse                      only tests with "fuse" in their name
#   tests/run.sh tests/vm/test_bed.py -x      one file
#   tests/run.sh --no-vm                      only the unit tests
#   tests/run.sh --fuzz=100000 --storm=9 --moves=5000 --mix=1000   more of what is done at random
#   tests/run.sh --parallel                   with processors that run at the same time, not in turns: slower, and sees other races
#   tests/run.sh --stress 3 [--seed N]        for so many minutes a mixture of tests at random, nothing else, with such processors
set -euo pipefail
# shellcheck source=bed/lib.sh
. "$(dirname "$0")/bed/lib.sh"

# Paths are those of the tree and the guest, where the checkout is /src.
vm=1 parallel='' stress='' seed='' arguments=() paths=() previous=''
for argument; do
  file=$(realpath -m -- "${argument%%::*}")
  case $previous,$argument in
    *,--no-vm) vm='' ;;
    *,--parallel) parallel=1 ;;
    *,--stress | *,--seed) ;;
    --stress,*) stress=$argument ;;
    --seed,*) seed=$argument ;;
    -[a-zA-Z],* | *,-*) arguments+=("$argument") ;;   # an option, or the value of a short one, such as -k
    *) case $file in "$checkout"/tests*) ;; *) die "$argument: no such test" ;; esac
       paths+=("/src${file#"$checkout"}${argument#"${argument%%::*}"}") ;;
  esac
  previous=$argument
done
case $previous in --stress | --seed) die "$previous wants a number" ;; esac

# paths_of PART: which of the wanted paths are in it; all of its files when none was named, or the whole.
paths_of() {
  local path
  for path in "${paths[@]:-/src/tests}"; do
    case $path in
      /src/tests | /src/tests/"$1") (cd "$checkout/tests/$1" && printf "/src/tests/$1/%s\n" test_*.py) ;;
      /src/tests/"$1"/*) echo "$path" ;;
    esac
  done
}

# pytest's exit code 5: no test was selected. That is an error only when no part selects any.
none=5 selected='' failed=''
# A part that fails keeps none of the others from saying what they found.
ended() {
  case $1 in 0) selected=1 ;; "$none") ;; *) failed=$1 ;; esac
}

# in_machine TOPOLOGY COMMAND...: runs it in a virtual machine.
in_machine() { again_if_stopped "$bed/vm" --kernel "$kernel" --build "$build" --timeout "$limit" ${parallel:+--parallel} --topology "$@"; }

unit_tests() { timed "unit tests" "$bed/enter" env MESON_BUILD="/cache/$(basename "$build")/meson" python3 -m pytest "${unit[@]}" "${arguments[@]}"; }
# Whatever goes by libraries and programs goes by an IOMMU, too, as on most servers.
other_tests() { timed "tests in a virtual machine" in_machine viommu python3 -m pytest "${others[@]}" "${arguments[@]}"; }
token_tests() { timed "tests of tokens and NVMe" in_machine p2p python3 -m pytest "${tokens[@]}" "${arguments[@]}"; }

# begin FUNCTION: runs it beside all else; `end FUNCTION` says what it said, and ends as it did.
declare -A beside=()
begin() {
  set -m   # a process group of its own, so that all of it can be ended
  "$1" >"$scratch/$1" 2>&1 &
  beside[$1]=$!
  set +m
}
end() {
  tail -n +1 -f --pid="${beside[$1]}" "$scratch/$1"
  wait "${beside[$1]}"
}
end_all() {
  local pid
  for pid in "${beside[@]}"; do kill -- "-$pid" 2>/dev/null || true; done
  wait
  rm -rf "$scratch"
}

build=$("$bed/build")
limit=3000   # seconds that a machine may take
if [ -n "$stress" ]; then
  kernel=$("$bed/kernel" debug)
  limit=$((stress * 60 + 1800))
  parallel=1
  say "stress in the virtual machine"
  in_machine p2p python3 tests/vm/stress.py "$stress" ${seed:+"$seed"}
  exit
fi

mapfile -t unit < <(paths_of unit)
tokens=() others=()
while [ -n "$vm" ] && read -r path; do
  case $path in
    # These find neither more nor less with an IOMMU, and the other machine has less time left.
    */test_token_limits.py | */test_token_selftest.py) others+=("$path") ;;
    */test_token_* | */test_nvme_* | */test_uring_ends.py | */test_fs_states.py) tokens+=("$path") ;;
    # What passthrough files do as the files below does not depend on an IOMMU, and this machine has less to do.
    */test_mount_flags.py | */test_mount_writes.py | */test_mount_advice.py | */test_mount_stores.py) tokens+=("$path") ;;
    *) others+=("$path") ;;
  esac
done < <(paths_of vm)

# job NAME COMMAND...
job() {
  local status=0
  say "$1"
  "${@:2}" || status=$?
  ended "$status"
}
if [ $((${#tokens[@]} + ${#others[@]})) -gt 0 ]; then kernel=$("$bed/kernel" debug); fi
scratch run
trap end_all EXIT
if [ ${#tokens[@]} -gt 0 ]; then begin token_tests; fi
if [ ${#unit[@]} -gt 0 ]; then
  if [ ${#others[@]} -gt 0 ]; then begin other_tests; fi
  job "unit tests" unit_tests
fi
if [ ${#others[@]} -gt 0 ]; then job "tests in a virtual machine" ${beside[other_tests]+end} other_tests; fi
if [ ${#tokens[@]} -gt 0 ]; then job "tests of tokens and NVMe, in a virtual machine beside it" end token_tests; fi
[ -z "$failed" ] || exit "$failed"
[ -n "$selected" ] || exit "$none"
