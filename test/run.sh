#!/bin/sh
# sh test/run.sh [STAGE...]: builds aloop in every way that matters and runs all its tests. Stages, the first four by default:
#
#   checks    gcc, internal invariants checked while running ("quick" is another name)
#   sanitize  clang with the address and undefined-behaviour sanitizers; the same tests. The fuzz targets are built
#   threads   the thread sanitizer; the tests in which threads meet
#   release   gcc -O2 without checks; the library as it is installed, with examples and benchmarks, on the poller that
#             is the default here
#
#   pollers   not by default: as checks, with every test on every poller. Of the stages above, checks leaves out what
#             does not come near to a poller on poll, select and kqueue, sanitize also on virtual and uring
#   plain     not by default: as checks, with a library that takes nothing from the system but what POSIX has
#
# Warnings are errors in all of them. On Debian and its relatives whatever is missing is installed first, as root or
# through sudo; elsewhere this script says what to install. Builds and logs go to build-test/ (or $ALOOP_TEST_DIR) and
# are used again by the next run. The last line is "N passed, N failed"; the result is 0 only if nothing failed.
set -u
CDPATH='' cd "$(dirname "$0")/.." || exit 2
exec </dev/null
source=$(pwd)
out=${ALOOP_TEST_DIR:-$source/build-test}
trap 'exit 130' HUP INT TERM
unset ALOOP_POLLER ALOOP_DEBUG
export LC_ALL=C
[ $# -gt 0 ] || set -- checks sanitize threads release
passed=0
failed=0

finish() {
  echo "$passed passed, $failed failed"
  [ "$failed" -eq 0 ]
  exit
}

give_up() {
  echo "test/run.sh: $*" >&2
  failed=$((failed + 1))
  finish
}

has() {
  command -v "$1" >/dev/null 2>&1
}

wants() {
  case " $stages " in *" $1 "*) true ;; *) false ;; esac
}

stages=
for stage in "$@"; do
  case $stage in
  quick | checks) stages="$stages checks" ;;
  sanitize | threads | release | pollers | plain) stages="$stages $stage" ;;
  *) give_up "unknown stage $stage; there are checks (or quick), sanitize, threads, release, pollers and plain" ;;
  esac
done
mkdir -p "$out" || give_up "cannot write to $out; set ALOOP_TEST_DIR to a folder that can be written to"

# ---- What is needed ----------------------------------------------------------------------------------------

# works COMMAND...: whether this compiler command makes a program that runs.
works() {
  printf '#include <stdio.h>\nint main(void) { return puts("") < 0; }\n' >"$out/probe.c"
  "$@" "$out/probe.c" -o "$out/probe" >/dev/null 2>&1 && $fixed "$out/probe" >/dev/null 2>&1
}

works_fuzz() {
  echo 'int LLVMFuzzerTestOneInput(const void *data, unsigned long size) { return data == 0 && size > 0; }' >"$out/probe.c"
  clang -fsanitize=fuzzer "$out/probe.c" -o "$out/probe" >/dev/null 2>&1
}

has_cmocka() {
  printf '#include <stdarg.h>\n#include <stddef.h>\n#include <stdint.h>\n#include <setjmp.h>\n#include <cmocka.h>\n
int main(void) { return 0; }\n' >"$out/probe.c"
  cc "$out/probe.c" -o "$out/probe" -lcmocka >/dev/null 2>&1 ||
    cc -I/usr/local/include "$out/probe.c" -o "$out/probe" -L/usr/local/lib -lcmocka >/dev/null 2>&1 ||
    cc -I/opt/homebrew/include "$out/probe.c" -o "$out/probe" -L/opt/homebrew/lib -lcmocka >/dev/null 2>&1
}

has_openssl() {
  printf '#include <openssl/ssl.h>\nint main(void) { return SSL_CTX_new(TLS_method()) == 0; }\n' >"$out/probe.c"
  has openssl && cc "$out/probe.c" -o "$out/probe" -lssl -lcrypto >/dev/null 2>&1
}

has_new_cmake() {
  echo 'cmake_minimum_required(VERSION 3.20)' >"$out/probe.cmake"
  has cmake && has ctest && cmake -P "$out/probe.cmake" >/dev/null 2>&1
}

# The sanitizers want their addresses where they expect them, which a kernel with much address randomization does not
# grant: programs under test start without it where that is allowed.
fixed=
if setarch "$(uname -m)" -R true 2>/dev/null; then
  fixed="setarch $(uname -m) -R"
fi

# Fills `needed` (without it nothing goes) and `useful` (tests that want it skip themselves) with Debian's package names.
look_around() {
  needed=
  useful=
  { has cc && has gcc && works gcc; } || needed="$needed gcc libc6-dev"
  has_new_cmake || needed="$needed cmake"
  has ninja || has make || needed="$needed ninja-build"
  has_cmocka || needed="$needed libcmocka-dev"
  if wants sanitize || wants threads; then
    has clang || needed="$needed clang"
    works clang -fsanitize=address,undefined || needed="$needed libclang-rt-dev"
  fi
  has_openssl || useful="$useful libssl-dev openssl"
  has clang || useful="$useful clang"
  has g++ || useful="$useful g++"
  for tool in pkg-config curl socat wrk strace; do
    has $tool || useful="$useful $tool"
  done
  has nc || useful="$useful netcat-openbsd"
  has dig || useful="$useful bind9-dnsutils"
  has ip || useful="$useful iproute2"
}

# Debian before 12 has the sanitizers' libraries in clang's own packages, without this name.
known_packages() {
  for package in "$@"; do
    apt-cache show "$package" >/dev/null 2>&1 && printf '%s ' "$package"
  done
}

install_packages() {
  as_root=
  if [ "$(id -u)" -ne 0 ]; then
    has sudo || return 1
    as_root=sudo
    [ -t 2 ] || as_root="sudo -n" # nobody is there to type a password
  fi
  echo "installing: $*"
  apt="$as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300"
  {
    $apt update
    packages=$(known_packages "$@")
    # shellcheck disable=SC2086
    $apt install -y --no-install-recommends $packages ||
      for package in $packages; do $apt install -y --no-install-recommends "$package"; done
  } >"$out/install.log" 2>&1
}

look_around
if [ -n "$needed$useful" ] && has apt-get; then
  # shellcheck disable=SC2086
  install_packages $needed $useful || echo "could not install everything; see $out/install.log" >&2
  look_around
fi
if [ -n "$needed" ]; then
  cat >&2 <<END
Some of what the tests are built with is not here. In Debian's names: $needed
Please install:
  Debian, Ubuntu:  apt-get install gcc g++ clang libclang-rt-dev cmake ninja-build libcmocka-dev pkg-config \\
                     curl socat netcat-openbsd bind9-dnsutils iproute2 wrk strace libssl-dev openssl
  Fedora:          dnf install gcc gcc-c++ clang compiler-rt libasan libubsan libtsan cmake ninja-build \\
                     libcmocka-devel pkgconf curl socat netcat bind-utils iproute wrk strace openssl-devel openssl
  Arch:            pacman -S gcc clang compiler-rt cmake ninja cmocka pkgconf curl socat openbsd-netcat bind strace \\
                     iproute2 openssl
  Alpine:          apk add gcc g++ clang compiler-rt musl-dev linux-headers cmake ninja cmocka-dev pkgconf \\
                     curl socat netcat-openbsd bind-tools iproute2 wrk strace util-linux openssl-dev openssl
  FreeBSD:         pkg install gcc cmake ninja cmocka pkgconf curl socat bind-tools wrk
  macOS:           xcode-select --install; brew install cmake ninja cmocka pkgconf curl socat wrk openssl
END
  give_up "missing:$needed"
fi
[ -z "$useful" ] || echo "not here, so tests that want them are skipped:$useful"

# ---- How to build ------------------------------------------------------------------------------------------

generator="Unix Makefiles"
has ninja && generator=Ninja
jobs=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
launcher=
if has ccache; then
  launcher=-DCMAKE_C_COMPILER_LAUNCHER=ccache
  # ccache fails where it cannot write, as in a home directory that is read-only.
  if [ -z "${CCACHE_DIR:-}" ] && ! [ -w "${HOME:-/nowhere}" ]; then
    export CCACHE_DIR="$out/ccache"
  fi
fi

# configure NAME OPTION...: a folder left by another state of affairs (another place, another compiler) is dropped.
configure() {
  folder=$out/$1
  shift
  set -- -S "$source" -B "$folder" -G "$generator" $launcher -DALOOP_WERROR=ON -DALOOP_BUILD_EXAMPLES=ON "$@"
  cmake "$@" && return
  [ -e "$folder/CMakeCache.txt" ] || return 1
  rm -rf "$folder"
  cmake "$@"
}

# build NAME OPTION...: into $out/NAME. What the compilers say is shown only if it fails.
build() {
  name=$1
  shift
  mkdir -p "$out/$name"
  { configure "$name" "$@" && cmake --build "$out/$name" -j "$jobs"; } >"$out/$name.build.log" 2>&1 && return
  awk '/FAILED:|CMake Error|error:|[*][*][*] / { on = 1 } on' "$out/$name.build.log" | head -n 100
  echo "stage $name: the build failed; all of it is in $out/$name.build.log"
  failed=$((failed + 1))
  return 1
}

# Where optimization would only make the build longer; with lines for the reports, without variables.
flags() {
  echo "-DCMAKE_C_FLAGS_RELWITHDEBINFO=$1 -g1"
}

# run NAME OPTION...: ctest in $out/NAME. Only failures and the summary are shown; the log has everything. Whole
# programs under load can meet a machine that stands still for seconds, so a failed test gets one more try; that it
# needed one is said, because it is a bug to be found. Whole programs mostly wait for each other, so twice as many tests
# run as there are processors.
run() {
  name=$1
  shift
  # shellcheck disable=SC2086
  $fixed ctest --test-dir "$out/$name" -j $((jobs * 2)) --output-on-failure --no-tests=error --no-label-summary --timeout 120 \
    --repeat until-pass:2 "$@" 2>&1 |
    tee "$out/$name.test.log" | awk '!/^ *Start +[0-9]+:/ && !/ Passed +[0-9.]+ sec$/'
  counts=$(sed -n 's/.*tests passed, \([0-9]*\) tests failed out of \([0-9]*\).*/\1 \2/p' "$out/$name.test.log")
  if [ -z "$counts" ]; then
    echo "stage $name: ctest did not finish"
    failed=$((failed + 1))
    return
  fi
  bad=${counts% *}
  skipped=$(grep -c '\*\*\*Skipped' "$out/$name.test.log")
  good=$((${counts#* } - bad - skipped))
  twice=$(awk '/[*][*][*](Failed|Timeout|Exception)/ { for (i = 1; i < NF; i++) if ($i == "Test") failed[$(i + 2)] = 1 }
    / Passed +[0-9.]+ sec/ { for (i = 1; i < NF; i++) if ($i == "Test" && $(i + 2) in failed) print $(i + 2) }' "$out/$name.test.log")
  # shellcheck disable=SC2086
  [ -z "$twice" ] || echo "stage $name: passed at the second try only:" $twice
  passed=$((passed + good))
  failed=$((failed + bad))
  echo "stage $name: $good passed, $bad failed, $skipped skipped, $(($(date +%s) - began)) s"
}

# run_near NAME POLLER|POLLER...: all tests, but on these pollers only what comes near to one.
run_near() {
  run "$1" -LE "^($2)\$"
  run "$1" -L "^($2)\$" -R '^test_(pollers|ugly|watch|stream|write|accept|connect|sock|torture_net)|^(echo|unix|udp)'
}

# ---- The stages --------------------------------------------------------------------------------------------

export UBSAN_OPTIONS="print_stacktrace=1"
export ASAN_OPTIONS="detect_stack_use_after_return=1:allocator_may_return_null=1"
export TSAN_OPTIONS="second_deadlock_stack=1:suppressions=$source/test/threads.supp"

for stage in $stages; do
  began=$(date +%s)
  echo "stage $stage"
  case $stage in
  checks)
    build checks -DCMAKE_C_COMPILER=gcc -DALOOP_CHECKS=ON "$(flags -O1)" && run_near checks 'poll|select|kqueue'
    ;;
  pollers)
    build checks -DCMAKE_C_COMPILER=gcc -DALOOP_CHECKS=ON "$(flags -O1)" && run checks
    ;;
  plain)
    build plain -DCMAKE_C_COMPILER=gcc -DALOOP_CHECKS=ON -DALOOP_PLAIN=ON "$(flags -O1)" &&
      run plain -LE '^(select|virtual|package|fuzz)$'
    ;;
  sanitize)
    fuzz=OFF
    works_fuzz && fuzz=ON
    build sanitize -DCMAKE_C_COMPILER=clang -DALOOP_CHECKS=ON -DALOOP_SANITIZE=address,undefined \
      -DALOOP_BUILD_FUZZ=$fuzz "$(flags -O0)" && run_near sanitize 'poll|select|kqueue|virtual|uring'
    ;;
  threads)
    compiler=clang
    works clang -fsanitize=thread || compiler=gcc
    build threads -DCMAKE_C_COMPILER=$compiler -DALOOP_CHECKS=ON -DALOOP_SANITIZE=thread "$(flags -O0)" &&
      run threads -L '^threads$' -LE '^(poll|select|kqueue)$'
    ;;
  release)
    build release -DCMAKE_C_COMPILER=gcc -DCMAKE_BUILD_TYPE=Release "-DCMAKE_C_FLAGS_RELEASE=-O2 -DNDEBUG" \
      -DALOOP_BUILD_BENCH=ON && run release -LE '^(poll|select|kqueue|uring|virtual|fuzz)$'
    ;;
  esac
done
finish
