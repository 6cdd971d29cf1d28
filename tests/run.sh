#!/bin/bash
# run.sh [--no-vm] [pytest arguments]: sets everything up and runs the tests: tests/unit on this machine, then tests/vm in a virtual machine with
# the patched debug kernel. Needs root; everything it makes is in ${XDG_CACHE_HOME:-~root/.cache}/fuse-dmabuf.
#   tests/run.sh -k fuse                      only tests with "fuse" in their name
#   tests/run.sh tests/vm/test_bed.py -x      one file
#   tests/run.sh --no-vm                      only the unit tests
#   tests/run.sh --stress 3 [--seed N]        for so many minutes a mixture of tests at random, nothing else
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
none=5 selected=''
passed() {
  case $1 in 0) selected=1 ;; "$none") ;; *) exit "$1" ;; esac
}

# in_machine COMMAND...: runs it in a virtual machine. One that the emulator has stopped says nothing about what ran in it, so that gets another, once.
in_machine() {
  local status=0
  "$bed/vm" --kernel "$kernel" --build "$build" --timeout "$limit" "$@" || status=$?
  [ "$status" = 75 ] || return "$status"
  say "the emulator had stopped: the same again"
  "$bed/vm" --kernel "$kernel" --build "$build" --timeout "$limit" "$@"
}

# Two jobs, each with about half of the work. No file, no test.
token_tests() { [ ${#tokens[@]} -gt 0 ] || return "$none"; in_machine python3 -m pytest "${tokens[@]}" "${arguments[@]}"; }
other_tests() { [ ${#others[@]} -gt 0 ] || return "$none"; in_machine python3 -m pytest "${others[@]}" "${arguments[@]}"; }

# side_by_side: both jobs; what the second says comes after what the first says.
side_by_side() {
  local log second status=0 second_status=0
  scratch run
  log=$scratch/second
  set -m   # a process group of its own, so that all of it can be ended
  token_tests >"$log" 2>&1 &
  second=$!
  set +m
  # shellcheck disable=SC2064
  trap "kill -- -$second 2>/dev/null || true; rm -rf $scratch" EXIT
  other_tests || status=$?
  tail -n +1 -f --pid=$second "$log"
  wait $second || second_status=$?
  passed "$status"
  passed "$second_status"
}

build=$("$bed/build")
limit=2400   # seconds that a machine may take
if [ -n "$stress" ]; then
  kernel=$("$bed/kernel" debug)
  limit=$((stress * 60 + 1800))
  say "stress in the virtual machine"
  in_machine python3 tests/vm/stress.py "$stress" ${seed:+"$seed"}
  exit
fi

mapfile -t unit < <(paths_of unit)
if [ ${#unit[@]} -gt 0 ]; then
  say "unit tests"
  status=0
  "$bed/enter" env MESON_BUILD="/cache/$(basename "$build")/meson" python3 -m pytest "${unit[@]}" "${arguments[@]}" || status=$?
  passed "$status"
fi

tokens=() others=()
while read -r path; do
  case $path in
    */test_token_* | */test_nvme_*) tokens+=("$path") ;;
    *) others+=("$path") ;;
  esac
done < <(paths_of vm)
if [ -n "$vm" ] && [ $((${#tokens[@]} + ${#others[@]})) -gt 0 ]; then
  kernel=$("$bed/kernel" debug)
  say "tests in virtual machines"
  if [ ${#tokens[@]} -gt 0 ] && [ ${#others[@]} -gt 0 ]; then
    side_by_side
  else
    status=0
    if [ ${#tokens[@]} -gt 0 ]; then token_tests; else other_tests; fi || status=$?
    passed "$status"
  fi
fi
[ -n "$selected" ] || exit "$none"
