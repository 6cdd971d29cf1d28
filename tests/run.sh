#!/bin/bash
# run.sh [--no-vm] [pytest arguments]: sets everything up and runs the tests: tests/unit on this machine, then tests/vm in a virtual machine with
# the patched debug kernel. Needs root; everything it makes is in ${XDG_CACHE_HOME:-~root/.cache}/fuse-dmabuf.
#   tests/run.sh -k fuse                      only tests with "fuse" in their name
#   tests/run.sh tests/vm/test_bed.py -x      one file
#   tests/run.sh --no-vm                      only the unit tests
#   tests/run.sh --stress 3 [--seed N]        the tests of tokens for so many minutes, mixed at random, nothing else
set -euo pipefail
# shellcheck source=bed/lib.sh
. "$(dirname "$0")/bed/lib.sh"

# Paths are those of the tree and the guest, where the checkout is /src.
vm=1 stress='' seed='' arguments=() paths=() previous=''
for argument; do
  file=$(realpath -m -- "${argument%%::*}")
  case $previous,$argument in
    *,--no-vm) vm='' ;;
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

# paths_of PART: which of the wanted paths are in it; all of it when none was named.
paths_of() {
  local path
  [ ${#paths[@]} -gt 0 ] || { echo "/src/tests/$1"; return; }
  for path in "${paths[@]}"; do
    case $path in /src/tests/"$1"*) echo "$path" ;; /src/tests) echo "/src/tests/$1" ;; esac
  done
}

# pytest's exit code 5: no test was selected. That is an error only when the other part selects none either.
none=5 selected=''
passed() {
  case $1 in 0) selected=1 ;; "$none") ;; *) exit "$1" ;; esac
}

build=$("$bed/build")
if [ -n "$stress" ]; then
  kernel=$("$bed/kernel" debug)
  say "stress in the virtual machine"
  exec "$bed/vm" --kernel "$kernel" --build "$build" --timeout "$((stress * 60 + 1800))" python3 tests/vm/stress.py "$stress" ${seed:+"$seed"}
fi
mapfile -t unit < <(paths_of unit)
if [ ${#unit[@]} -gt 0 ]; then
  say "unit tests"
  status=0
  "$bed/enter" env MESON_BUILD="/cache/$(basename "$build")/meson" python3 -m pytest "${unit[@]}" "${arguments[@]}" || status=$?
  passed "$status"
fi
mapfile -t guest < <(paths_of vm)
if [ -n "$vm" ] && [ ${#guest[@]} -gt 0 ]; then
  kernel=$("$bed/kernel" debug)
  say "tests in the virtual machine"
  status=0
  "$bed/vm" --kernel "$kernel" --build "$build" python3 -m pytest "${guest[@]}" "${arguments[@]}" || status=$?
  passed "$status"
fi
[ -n "$selected" ] || exit "$none"
