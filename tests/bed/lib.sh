# Shared by the scripts of the test bed: where things are, and how to say that something is missing.
# shellcheck shell=bash

bed=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck disable=SC2034
checkout=$(cd "$bed/../.." && pwd)

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
[ -t 2 ] || say() { printf '==> %s\n' "$*" >&2; }
die() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 2; }

# minutes SECONDS: as people say it.
minutes() { printf '%d:%02d minutes' $(($1 / 60)) $(($1 % 60)); }

# timed NAME COMMAND...: runs it, and says how long that took.
timed() {
  local since=$SECONDS status=0
  "${@:2}" || status=$?
  say "$1: $(minutes $((SECONDS - since)))"
  return "$status"
}

umask 022
trap 'exit 130' INT   # Ctrl-C is no failure to be explained
[ "$(id -u)" = 0 ] || die "needs root (chroot, mounts): run it with sudo"

# Everything in the cache belongs to root, so it lies in root's home, however sudo treats HOME.
root_home=$(getent passwd 0 | cut -d: -f6)
# shellcheck disable=SC2034
cache=${XDG_CACHE_HOME:-$root_home/.cache}/fuse-dmabuf
mkdir -p "$cache"

# need_space GIB WHAT: stop before a build that cannot end well.
need_space() {
  local free
  free=$(($(df --output=avail -k "$cache" | tail -n 1) / 1048576))
  [ "$free" -ge "$1" ] || die "$2 needs $1 GiB free in $cache, but there are $free: free some, or point XDG_CACHE_HOME elsewhere"
}

# need_command COMMAND PACKAGE: the host's part is small; what is missing is installed, and said.
need_command() {
  command -v "$1" >/dev/null && return
  say "installing $2 on this machine"
  { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "$2"; } \
    >"$cache/apt-install.log" 2>&1 || die "cannot install $2 (see $cache/apt-install.log): is the package mirror reachable?"
}

# again_if_stopped COMMAND...: runs it, and once more when it says that the emulator had stopped (tests/bed/vm): that tells nothing about what ran there.
again_if_stopped() {
  local status=0
  "$@" || status=$?
  [ "$status" = 75 ] || return "$status"
  say "the emulator had stopped: the same again"
  "$@"
}

# lock FILE: one run at a time, until this script and what it started have ended.
lock() {
  exec 9>"$1"
  flock --nonblock 9 || { say "waiting for another run that holds $1"; flock 9; }
}

# lock_one_of FILE...: as lock, with the first of them that is free. Sets $locked to its place among them.
lock_one_of() {
  local file waited=''
  while true; do
    locked=0
    for file; do
      locked=$((locked + 1))
      exec 9>"$file"
      ! flock --nonblock 9 || return 0
    done
    [ -n "$waited" ] || say "waiting for another run that holds $1"
    waited=1
    sleep 1
  done
}

# scratch NAME: makes a directory for this run alone and sets $scratch to it. The caller removes it; that of a run that was killed goes here.
scratch() {
  local old
  while read -r old; do
    flock --nonblock "$old" rm -rf --one-file-system "$old" || true
  done < <(find "$cache" -maxdepth 1 -type d -name "$1.????????" -mmin +1)
  scratch=$(mktemp -d "$cache/$1.XXXXXXXX")
  exec 8<"$scratch"
  flock 8
}

# The patches of the queue in their order, as paths below fuse-kernel-patches; none without a queue.
queue() {
  local series=$checkout/fuse-kernel-patches/series
  [ ! -e "$series" ] || sed -E 's/#.*//; s/[[:space:]]+$//; /^$/d' "$series"
}

# The name of the newest unpacked kernel source, a directory in $cache/kernel.
kernel_source() {
  local source
  source=$(find "$cache/kernel" -maxdepth 1 -type d -name 'source-*' ! -name '*.part' | sort -V | tail -n 1)
  [ -n "$source" ] || die "no kernel source yet: run tests/bed/kernel --configure plain"
  basename "$source"
}

# The Debian mirror of this machine, whatever format its apt sources are written in.
debian_mirror() {
  local release
  release=$(. /etc/os-release && echo "${VERSION_CODENAME:-stable}")
  apt-get --print-uris update | sed -nE "s,^'(.*)/dists/($release|stable|testing|unstable|sid)/InRelease'.*,\1,p" | head -n 1
}

# The machine's proxy and trust settings for apt, as configuration lines.
apt_settings() {
  apt-config dump Acquire --format '%F "%v";%n' | grep -E '::(Proxy|Proxy-Auto-Detect|CaInfo|Check-Valid-Until|Check-Date)[ :]' || true
}

# shellcheck disable=SC2034
debian_keyring=/usr/share/keyrings/debian-archive-keyring.gpg
