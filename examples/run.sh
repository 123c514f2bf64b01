#!/bin/sh
# sh examples/run.sh [OPTION...]: builds libaloop and its examples in build-examples/, and serves the bundled
# site with the HTTP server of examples/servers/http on 127.0.0.1, port 8080, or another one if that is taken.
# Ctrl-C stops it.
#
# The options are those of the server and come last, so they win: --port 9000, --root DIR, --threads N; --help
# lists them.
#
# On Debian and its relatives whatever is missing is installed first, as root or through sudo; elsewhere this
# script says what to install.
set -eu
source=$(CDPATH='' cd "$(dirname "$0")/.." && pwd)
build=${ALOOP_EXAMPLES_DIR:-$source/build-examples}
log=$build/build.log
mkdir -p "$build"

has() {
  command -v "$1" >/dev/null 2>&1
}

# A compiler may be there without its headers.
has_compiler() {
  has cc && echo '#include <stdio.h>
int main(void) { return 0; }' | cc -x c -o /dev/null - 2>/dev/null
}

has_cmake() {
  has cmake && echo 'cmake_minimum_required(VERSION 3.20)' >"$build/probe.cmake" &&
    cmake -P "$build/probe.cmake" >/dev/null 2>&1
}

missing() {
  has_compiler || printf ' gcc libc6-dev'
  has_cmake || printf ' cmake'
  has make || has ninja || printf ' make'
}

install_packages() {
  as_root=
  [ "$(id -u)" -eq 0 ] || as_root=sudo
  $as_root apt-get -q update &&
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends "$@"
}

packages=$(missing)
if [ -n "$packages" ] && has apt-get && { [ "$(id -u)" -eq 0 ] || has sudo; }; then
  echo "installing:$packages"
  # shellcheck disable=SC2086
  install_packages $packages >"$log" 2>&1 || tail -n 20 "$log" >&2
  packages=$(missing)
fi
if [ -n "$packages" ]; then
  cat >&2 <<END
A C compiler, CMake 3.20 or newer and make are needed. Missing, in Debian's names:$packages
Please install them, as root:
  Debian, Ubuntu:  apt-get install gcc libc6-dev cmake make
  Fedora:          dnf install gcc cmake make
  Arch:            pacman -S gcc cmake make
  Alpine:          apk add gcc musl-dev linux-headers cmake make
  FreeBSD:         pkg install cmake
  macOS:           xcode-select --install; brew install cmake
END
  exit 1
fi

echo "building in $build"
compile() {
  cmake -S "$source" -B "$build" -DCMAKE_BUILD_TYPE=Release -DALOOP_BUILD_TESTS=OFF -DALOOP_BUILD_EXAMPLES=ON &&
    cmake --build "$build" -j "$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)"
}
if ! compile >"$log" 2>&1; then
  tail -n 50 "$log" >&2
  echo "the build failed; all of it is in $log" >&2
  exit 1
fi
echo "open the address below in a browser, or with curl; press Ctrl-C to stop"
exec "$build/examples/http" --port-fallback --root "$source/examples/servers/http/site" "$@"
