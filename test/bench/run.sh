#!/bin/sh
# Benchmarks of aloop beside its peers: builds, runs everything in rotation, prints medians as Markdown tables.
#
#     sh test/bench/run.sh                everything (about 10 minutes)
#     sh test/bench/run.sh quick          a few of each kind (about 2 minutes)
#     sh test/bench/run.sh count          system calls and instructions per request (about 2 minutes)
#     sh test/bench/run.sh tls [count]    TLS alone (about 2 minutes), as after everything else; its counts
#     sh test/bench/run.sh compare REV    the library of revision REV beside the working tree, about 4 minutes
#
# The environment may set BUILD (default: build-bench in the repository), ROUNDS, SECONDS_EACH, PEERS ("aloop
# uv"), ONLY (a pattern of scenario names: "echo/*" or "timers"), STAT=best (best runs instead of medians). All
# results stay in $BUILD/bench-*.txt; "run.sh table NAME" prints those of full, quick, count, compare again.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
build=${BUILD:-$root/build-bench}
programs=$build/test/bench
mode=${1:-full}

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

# Which programs take part, ours first, the limit last.
find_peers() {
  peers=
  for peer in ${PEERS:-aloop uv ev event asio raw}; do
    if [ -x "$programs/bench_$peer" ]; then
      peers="$peers $peer"
    else
      say "$peer is left out: not found (Debian: libuv1-dev libev-dev libevent-dev libasio-dev g++)"
    fi
  done
}

wanted() { # by ONLY
  # shellcheck disable=SC2254 # a pattern is meant
  case $1 in ${ONLY:-*}) return 0 ;; esac
  return 1
}

# One scenario on every peer in turn; adds their lines to the results.
rotate() {
  name=$1
  shift
  wanted "$name" || return 0
  for peer in $peers; do
    if line=$(timeout 120 "$programs/bench_$peer" "$@"); then
      [ -z "$line" ] || printf '%s %s\n' "$peer" "${line#* }" >>"$results"
    else
      say "$peer failed: $*"
    fi
  done
}

in_process() {
  rotate chain chain
  rotate burst burst
  rotate timers timers --repeat "$1"
  rotate fire fire --repeat "$1"
  rotate rearm rearm --repeat "$1"
  for depth in 1 64; do rotate "udp/64/$depth" udp --depth "$depth" --repeat "$1"; done
  rotate blast/64/1 blast --size 64 --seconds "$seconds"
  rotate blast/1200/32 blast --size 1200 --depth 32 --seconds "$seconds"
  rotate posts/1 posts --repeat "$1" --producers 1
  rotate posts/4 posts --repeat "$1" --producers 4
  rotate lookup lookup
  rotate jobs/1 jobs --repeat "$1" --size 1
  rotate jobs/1000 jobs --repeat "$1" --size 1000
  for cell in 64/1 64/100 65536/1 65536/16; do
    rotate "pipe/$cell" pipe --size "${cell%/*}" --depth "${cell#*/}" --repeat "$1"
  done
  for size in 0 1024; do
    for depth in 1 16; do rotate "spawn/$depth/$size" spawn --depth $depth --size $size --count 32 --repeat "$1"; done
  done
  rotate loop loop
  rotate tasks tasks --repeat "$1"
  rotate sync sync --repeat "$1"
}

echo_cell() { rotate "echo/$1/$2/$3" echo --connections "$1" --size "$2" --depth "$3" --seconds "$seconds"; }

unix_cell() { rotate "unix/$1/64/1" unix --connections "$1" --size 64 --seconds "$seconds"; }

network() {
  for connections in 1 50; do unix_cell $connections; done
  for size in 64 1024 16384; do
    for connections in 1 50 1000; do echo_cell $connections $size 1; done
  done
  for connections in 1 50 1000; do echo_cell $connections 64 16; done
  rotate churn churn --seconds "$seconds"
  for way in push pull file relay; do rotate "$way/1" $way --seconds "$seconds"; done
  for connections in 1 50; do
    rotate "relay/$connections/64/1" relay --size 64 --connections $connections --seconds "$seconds"
  done
}

table() { awk -v peers="$peers" -v columns="$1" -v stat="${STAT:-median}" -f "$here/table.awk" "$results"; }

begin() { # name of the results, rounds, seconds
  results=$build/bench-$1.txt
  rounds=${ROUNDS:-$2}
  seconds=${SECONDS_EACH:-$3}
  : >"$results"
}

run_full() {
  begin full 5 0.5
  for round in $(seq "$rounds"); do
    say "round $round of $rounds"
    in_process 3
    network
    rotate idle idle --connections 9000
  done
  table peers
  run_tls full
}

run_quick() {
  begin quick 3 0.2
  for round in $(seq "$rounds"); do
    say "round $round of $rounds"
    in_process 1
    unix_cell 1
    unix_cell 50
    echo_cell 1 64 1
    echo_cell 50 64 1
    echo_cell 50 64 16
    echo_cell 50 16384 1
    rotate churn churn --seconds "$seconds"
    for way in push pull file relay; do rotate "$way/1" $way --seconds "$seconds"; done
    rotate relay/1/64/1 relay --size 64 --connections 1 --seconds "$seconds"
    rotate idle idle --connections 2000
  done
  table peers
}

# ---- compare ----

# The benchmark of the working tree, linked with the library of another revision, becomes the peer "aloop_old".
build_old() {
  old=$build/compare
  rm -rf "$old"
  mkdir -p "$old/source"
  (cd "$root" && git archive "$1") | tar -x -C "$old/source"
  build_tree "$old/source" "$old/build"
  ${CC:-cc} -O2 -g -DNDEBUG -std=c11 -D_GNU_SOURCE -I "$old/source/include" "$here/bench.c" \
    "$here/bench_aloop.c" \
    -o "$programs/bench_aloop_old" -L "$old/build" "-Wl,-rpath,$old/build" -laloop -lpthread ||
    { say "the library of $1 lacks something that the benchmarks use"; exit 1; }
}

run_compare() {
  [ $# -eq 1 ] || { say "usage: run.sh compare REVISION"; exit 2; }
  build_old "$1"
  begin compare 5 0.3
  peers="aloop_old aloop"
  for round in $(seq "$rounds"); do
    say "round $round of $rounds"
    in_process 3
    network
    rotate idle idle --connections 2000
  done
  table old
}

# ---- count ----

# Starts a server under a tool; the client makes $1 requests in mode $2 on $3 connections with depth $4; ends it.
serve_counted() {
  requests=$1 client=$2 connections=$3 depth=$4
  shift 4
  rm -f "$build/bench-port"
  "$@" "$programs/bench_$peer" serve >"$build/bench-port" 2>"$build/bench-tool.txt" &
  tool=$!
  until [ -s "$build/bench-port" ]; do
    kill -0 "$tool" 2>/dev/null || { cat "$build/bench-tool.txt" >&2; exit 1; }
    sleep 0.05
  done
  read -r port pid <"$build/bench-port"
  "$programs/bench_client" "$client" --port "$port" --connections "$connections" --depth "$depth" \
    --size 64 --requests "$requests"
  sleep 0.1
  kill "$pid"
  wait "$tool" 2>/dev/null || true
}

# Prints "CALLS name=CALLS ..." of such a run.
count_calls() {
  serve_counted "$@" strace -f -c -o "$build/bench-strace.txt"
  awk '$1 ~ /^[0-9.]+$/ && $NF != "total" { print $NF, $4 }' "$build/bench-strace.txt"
}

count_instructions() {
  serve_counted "$@" valgrind --tool=callgrind --callgrind-out-file=/dev/null
  awk '/Collected :/ { print $NF }' "$build/bench-tool.txt"
}

# Reads the calls of two runs with an empty line between them; adds the difference to the results.
per_request() { # peer, key, requests
  awk -v peer="$1" -v key="$2" -v n="$3" '
    NF == 0 { second = 1; next }
    { calls[$1] += second ? $2 : -$2 }
    END {
      for (name in calls) {
        total += calls[name]
        if (calls[name] > 0.004 * n) line = line sprintf(" call_%s=%.3f", name, calls[name] / n)
      }
      printf "%s count/%s calls=%.3f%s\n", peer, key, total / n, line
    }' >>"$results"
}

# Two runs of different length: what starting and connecting costs is in both and goes away.
count_cell() { # key, mode, connections, depth
  key=$1 short=2000 long=22000
  shift
  for peer in $peers; do
    { count_calls $short "$@"; echo; count_calls $long "$@"; } | per_request "$peer" "$key" $((long - short))
    less=$(count_instructions $short "$@")
    more=$(count_instructions $long "$@")
    awk -v peer="$peer" -v key="$key" -v n=$((long - short)) -v d=$((more - less)) \
      'BEGIN { printf "%s count/%s instructions=%.1f\n", peer, key, d / n }' >>"$results"
  done
}

run_count() {
  for tool in strace valgrind; do
    command -v $tool >/dev/null 2>&1 || { say "count needs $tool (Debian: strace valgrind)"; exit 1; }
  done
  begin count 1 0
  for depth in 1 16; do
    for connections in 1 50; do
      say "$connections connections, $depth deep"
      count_cell "$connections/$depth" echo $connections $depth
    done
  done
  say "connect, 1 byte, close"
  count_cell churn churn 32 1
  count_tls
  table peers
}

# shellcheck source=test/bench/tls.sh
. "$here/tls.sh"

case $mode in
full | quick | count | compare | tls | table) ;;
*) sed -n '2,9p' "$0" >&2; exit 2 ;;
esac
[ $# -gt 0 ] && shift
if [ "$mode" = table ]; then
  find_peers 2>/dev/null
  results=$build/bench-$1.txt
  [ "$1" = compare ] && peers="aloop_old aloop"
  case $1 in tls*) peers="aloop event asio nginx" ;; esac
  table "$([ "$1" = compare ] && echo old || echo peers)"
  exit
fi
mkdir -p "$build"
build_tree "$root" "$build" -DALOOP_BUILD_BENCH=ON
find_peers
"run_$mode" "$@"
