#!/bin/sh
# Benchmarks of aloop beside its peers: builds, runs everything in rotation, prints medians as Markdown tables.
#
#     sh test/bench/run.sh                everything (about 13 minutes)
#     sh test/bench/run.sh quick          a few of each kind (about 3 minutes)
#     sh test/bench/run.sh count          system calls and instructions per operation (about 12 minutes)
#     sh test/bench/run.sh tls [count]    TLS alone (about 2 minutes), as after everything else; its counts
#     sh test/bench/run.sh compare REV    the library of revision REV beside the working tree (about 6 minutes)
#     sh test/bench/run.sh table NAME     the tables of the last full, quick, count, tls, tls-count or compare again
#     sh test/bench/run.sh readme         the tables of the README, from the last full and the last count
#
# The environment may set BUILD (default: build-bench in the repository), ROUNDS, SECONDS_EACH, PEERS ("aloop
# uv"), ONLY (a pattern of scenario names: "echo/*" or "timers"), STAT=best (best runs instead of medians). All
# results stay in $BUILD/bench-*.txt.
#
# Here: building, the peers, the modes. cells.sh lists what is measured, tls.sh that with TLS, count.sh counts,
# compare.sh builds another revision.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
build=${BUILD:-$root/build-bench}
programs=$build/test/bench

say() { printf '%s\n' "$*" >&2; }

build_tree() { # source, build folder, further options
  source=$1 tree=$2
  shift 2
  generator=
  command -v ninja >/dev/null 2>&1 && [ ! -f "$tree/CMakeCache.txt" ] && generator="-G Ninja"
  # shellcheck disable=SC2086 # the generator is two words or none
  if ! { cmake -S "$source" -B "$tree" $generator -DCMAKE_BUILD_TYPE=RelWithDebInfo -DALOOP_BUILD_TESTS=OFF \
    -DALOOP_BUILD_EXAMPLES=OFF "$@" && cmake --build "$tree" -j2; } >"$build/bench-build.log" 2>&1; then
    cat "$build/bench-build.log" >&2
    exit 1
  fi
}

# Sets $program to that of a peer. aloop is measured as it comes, aloop_uring (or _epoll, _poll, _select) on that poller.
own_poller=${ALOOP_POLLER:-}
use_peer() {
  unset ALOOP_POLLER
  case $1 in
  aloop_uring | aloop_epoll | aloop_poll | aloop_select)
    program=$programs/bench_aloop
    export ALOOP_POLLER="${1#aloop_}"
    ;;
  *)
    program=$programs/bench_$1
    [ -z "$own_poller" ] || export ALOOP_POLLER="$own_poller"
    ;;
  esac
}

# Which programs take part, ours first, the limits last.
find_peers() {
  peers=
  for peer in ${PEERS:-aloop aloop_uring uv ev event asio raw uring}; do
    use_peer "$peer"
    if [ ! -x "$program" ]; then
      say "$peer is left out: not found (Debian: libuv1-dev libev-dev libevent-dev libasio-dev g++)"
    elif ! "$program" loop --count 1 --repeat 1 >/dev/null 2>&1; then
      say "$peer is left out: it does not run here (io_uring wants Linux 6.12)"
    else
      peers="$peers $peer"
    fi
  done
}

wanted() { # by ONLY
  # shellcheck disable=SC2254 # a pattern is meant
  case $1 in ${ONLY:-*}) return 0 ;; esac
  return 1
}

begin() { # name of the results, rounds, seconds
  results=$build/bench-$1.txt
  rounds=${ROUNDS:-$2}
  seconds=${SECONDS_EACH:-$3}
  long_seconds=$(awk -v s="$seconds" 'BEGIN { print 3 * s }')
  : >"$results"
}

table() { # columns, and for other tables than all: their file and the results
  columns=$1 rows=${2:-rows.awk}
  shift $(($# > 2 ? 2 : $#))
  [ $# -gt 0 ] || set -- "$results"
  awk -v peers="$peers" -v columns="$columns" -v stat="${STAT:-median}" -f "$here/table.awk" -f "$here/$rows" "$@"
}

. "$here/cells.sh"
. "$here/count.sh"
. "$here/compare.sh"
. "$here/tls.sh"

run_full() {
  begin full 3 0.2
  each_round all_cells
  table peers
  run_tls full
}

run_quick() {
  begin quick 3 0.2
  each_round few_cells
  table peers
}

run_table() { # name of results
  results=$build/bench-$1.txt
  columns=peers
  case $1 in
  compare) peers="aloop_old aloop" columns=old ;;
  tls*) peers="aloop event asio nginx" ;;
  esac
  table $columns
}

# From the results of "full", which ends with TLS, and of "count".
run_readme() {
  for results in full count; do
    [ -f "$build/bench-$results.txt" ] || { say "there are no results: run.sh $results comes first"; exit 1; }
  done
  with_tls=
  [ ! -f "$build/bench-tls.txt" ] || with_tls=$build/bench-tls.txt
  table plain readme.awk "$build/bench-full.txt" "$build/bench-count.txt" ${with_tls:+"$with_tls"}
}

mode=${1:-full}
[ $# -gt 0 ] && shift
case $mode in
full | quick | count | tls | readme) ;;
compare | table) [ $# -eq 1 ] || mode=wrong ;;
*) mode=wrong ;;
esac
[ "$mode" != wrong ] || { sed -n '2,11p' "$0" >&2; exit 2; }
mkdir -p "$build"
[ "$mode" = table ] || [ "$mode" = readme ] || build_tree "$root" "$build" -DALOOP_BUILD_BENCH=ON
find_peers
"run_$mode" "$@"
