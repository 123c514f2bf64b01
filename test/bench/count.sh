# The mode "count": system calls (strace) and user-space instructions (callgrind) per operation. Both are exact to a few
# percent on a machine that others use, too.
#
# What a program does in one process and one thread, and measures as CPU time of that thread, is counted from one call of
# its clock to the next (see bench.c), after a first run that does not count. All else is the difference of two runs that
# differ in length only, divided by the difference in operations: what starting, connecting and ending cost goes away.
# shellcheck shell=sh disable=SC2154,SC2034 # they are those of run.sh

need_tools() {
  for tool in strace valgrind; do
    command -v $tool >/dev/null 2>&1 || { say "count needs $tool (Debian: strace valgrind)"; exit 1; }
  done
}

callgrind() { # callgrind's options and the program with its arguments; prints how many instructions it saw
  timeout -k 5 120 valgrind --tool=callgrind --callgrind-out-file=/dev/null "$@" 2>&1 >/dev/null |
    awk '/Collected :/ { print $NF }'
}

# Prints lines "NAME CALLS" of what strace wrote. Of all clocks only that of CPU time, by which we measure, is a call.
calls_of() { awk '$1 ~ /^[0-9.]+$/ && $NF != "total" && $NF != "clock_gettime" { print $NF, $4 }' "$1"; }

# Reads two such lists with an empty line between them; adds a line to the results.
subtract_calls() { # key, operations that the second has more
  awk -v peer="$peer" -v key="$1" -v n="$2" '
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

add_instructions() { # key, instructions, operations
  awk -v peer="$peer" -v key="$1" -v all="$2" -v n="$3" \
    'BEGIN { printf "%s count/%s instructions=%.1f\n", peer, key, all / n }' >>"$results"
}

# ---- In one process ----

# A scenario that a peer does not have prints nothing.
has_scenario() { # its name
  [ -n "$("$program" "$1" --count 64 --depth 1 --size 64 --repeat 1 2>/dev/null)" ]
}

# What only computes is the same on every poller. Programs with threads and io_uring hang under valgrind, which thinks
# that io_uring_enter does not block.
each_with() { # scenario, what to do with its peers
  scenario=$1
  shift
  for peer in $peers; do
    case $peer/$1 in aloop_uring/computed_part_of | *uring/longer_instructions_of) continue ;; esac
    use_peer "$peer"
    if has_scenario "$scenario"; then "$@"; fi
  done
}

measured_part() { # key, operations, first call of the clock, pairs of calls, arguments of the program
  key=$1 operations=$2 first=$3 pairs=$4
  shift 4
  wanted "$key" || return 0
  say "$key"
  each_with "$1" measured_part_of "$@" --count "$operations" --repeat 1 --collect "$first" --pairs "$pairs"
}

computed_part() { # the same where no descriptors are used
  key=$1 operations=$2 first=$3
  shift 3
  wanted "$key" || return 0
  say "$key"
  each_with "$1" computed_part_of "$@" --count "$operations" --repeat 1 --collect "$first" --pairs 1
}

computed_part_of() { measured_part_of "$@"; }

measured_part_of() { add_instructions "$key" "$(callgrind --collect-atstart=no "$program" "$@")" "$operations"; }

# Each program does everything twice, so the operations count twice.
longer_instructions() { # key, operations of the shorter run, of the longer, arguments
  key=$1 short=$2 long=$3
  shift 3
  wanted "$key" || return 0
  say "$key, instructions"
  each_with "$1" longer_instructions_of "$@" --repeat 1
}

longer_instructions_of() {
  less=$(callgrind "$program" "$@" --count "$short")
  more=$(callgrind "$program" "$@" --count "$long")
  add_instructions "$key" $((more - less)) $((2 * (long - short)))
}

# What the client of a scenario calls is taken off.
longer_calls() { # key, operations of the shorter run, of the longer, calls of the client per operation, arguments
  key=$1 short=$2 long=$3 client="$4"
  shift 4
  wanted "$key" || return 0
  say "$key, calls"
  each_with "$1" longer_calls_of "$@" --repeat 1
}

longer_calls_of() {
  { traced_calls "$short" "$@"; echo; traced_calls "$long" "$@"; } | subtract_calls "$key" $((2 * (long - short)))
}

traced_calls() { # operations, the program's arguments
  operations=$1
  shift
  timeout 120 strace -f -c -o "$build/bench-strace.txt" "$program" "$@" --count "$operations" >/dev/null
  calls_of "$build/bench-strace.txt"
  for call in $client; do echo "$call -$((2 * operations))"; done
}

count_in_process() {
  measured_part chain 20000 2 1 chain
  computed_part burst 20000 2 burst
  computed_part timers/start 100000 3 timers
  computed_part timers/cancel 100000 4 timers
  computed_part fire 100000 2 fire
  computed_part rearm 200000 2 rearm
  computed_part restart 200000 2 restart
  longer_instructions posts/1 10000 30000 posts --producers 1
  longer_instructions posts/4 10000 30000 posts --producers 4
  longer_instructions pingpong 100 600 pingpong
  longer_calls pingpong 100 600 "" pingpong
  longer_instructions lookup 100 600 lookup
  longer_instructions jobs/1 100 600 jobs --size 1
  longer_instructions jobs/1000 4000 12000 jobs --size 1000
  for cell in 64/1 64/100 65536/1 65536/16; do
    measured_part "pipe/$cell" 8000 2 1 pipe --size "${cell%/*}" --depth "${cell#*/}"
    longer_calls "pipe/$cell" 1600 8000 "" pipe --size "${cell%/*}" --depth "${cell#*/}"
  done
  measured_part pair/64/100 8000 2 1 pair --size 64 --depth 100
  longer_calls pair/64/100 1600 8000 "" pair --size 64 --depth 100
  measured_part udp/64/1 6400 12800 6400 udp --depth 1
  measured_part udp/64/64 6400 200 100 udp --depth 64
  for depth in 1 64; do longer_calls "udp/64/$depth" 640 6400 "sendto recvfrom" udp --depth $depth; done
  longer_calls spawn 16 48 "" spawn
  measured_part loop 200 2 1 loop
  longer_calls loop 10 200 "" loop
  computed_part tasks/create 20000 2 tasks
  computed_part tasks/ready 20000 6 tasks
  computed_part tasks/pending 20000 10 tasks
  computed_part tasks/future 20000 14 tasks
  computed_part sync/lock 20000 2 sync
  computed_part sync/hand_over 20000 6 sync
  computed_part sync/queue 20000 10 sync
  computed_part sync/limit 20000 14 sync
  computed_part sync/group 20000 18 sync
}

# ---- With a server and a client ----

# Starts the server under a tool, has the client make so many requests, and ends it in that way.
serve_counted() { # requests, what ends the server (is given its pid), the tool
  requests=$1 finish=$2
  shift 2
  rm -f "$build/bench-port" "$build/bench-socket"
  # shellcheck disable=SC2086 # options
  "$@" "$program" serve $server_options >"$build/bench-port" 2>"$build/bench-tool.txt" &
  tool=$!
  until [ -s "$build/bench-port" ]; do
    kill -0 "$tool" 2>/dev/null || { cat "$build/bench-tool.txt" >&2; return 1; }
    sleep 0.05
  done
  read -r port pid <"$build/bench-port"
  # shellcheck disable=SC2086
  timeout 120 "$programs/bench_client" $client_options --port "$port" --requests "$requests" || say "$peer: no answers"
  sleep 0.1
  $finish "$pid"
  wait "$tool" 2>/dev/null || true
}

served_calls() { # requests
  serve_counted "$1" kill strace -f -c -o "$build/bench-strace.txt"
  calls_of "$build/bench-strace.txt"
}

# Asks valgrind from outside, for it keeps signals back while a program waits in io_uring_enter.
dump_and_kill() {
  timeout 10 vgdb --pid="$1" dump >/dev/null 2>&1 || true
  kill -9 "$1"
}

served_instructions() { # requests
  rm -f "$build"/bench-callgrind.*
  serve_counted "$1" dump_and_kill valgrind --tool=callgrind --callgrind-out-file="$build/bench-callgrind"
  awk '/^totals:/ { print $2 }' "$build/bench-callgrind.1"
}

count_served() { # key, requests of the shorter run, of the longer, the server's options, the client's
  key=$1 short=$2 long=$3 server_options=$4 client_options=$5
  wanted "$key" || return 0
  say "$key"
  for peer in $peers; do
    use_peer "$peer"
    { served_calls "$short"; echo; served_calls "$long"; } | subtract_calls "$key" $((long - short))
    less=$(served_instructions "$short")
    more=$(served_instructions "$long")
    add_instructions "$key" $((more - less)) $((long - short))
  done
}

count_network() {
  for connections in 1 50; do
    for depth in 1 16; do
      count_served "echo/$connections/64/$depth" 2000 22000 "" \
        "echo --connections $connections --size 64 --depth $depth"
    done
  done
  count_served echo/50/16384/1 1000 4000 "" "echo --connections 50 --size 16384"
  for connections in 1 50; do
    count_served "unix/$connections/64/1" 2000 22000 "--path $build/bench-socket" \
      "echo --connections $connections --size 64 --path $build/bench-socket"
  done
  count_served churn 2000 12000 "" "churn --connections 32 --size 1"
}

run_count() {
  need_tools
  begin count 1 0
  count_in_process
  count_network
  count_tls
  table peers
}
