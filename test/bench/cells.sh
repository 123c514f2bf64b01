# What run.sh measures: every cell on every peer in turn, and that in rounds, so that a noisy moment hits all alike.
# shellcheck shell=sh disable=SC2154,SC2034 # they are those of run.sh

# One scenario on every peer in turn; adds their lines to the results.
rotate() { # key, arguments of the programs
  key=$1
  shift
  wanted "$key" || return 0
  for peer in $peers; do
    use_peer "$peer"
    if line=$(timeout 120 "$program" "$@"); then
      [ -z "$line" ] || printf '%s %s\n' "$peer" "${line#* }" >>"$results"
    else
      say "$peer failed: $*"
    fi
  done
}

each_round() { # what a round does
  for round in $(seq "$rounds"); do
    say "round $round of $rounds"
    "$1"
  done
}

# What only computes is the same on every poller.
rotate_computing() {
  all_peers=$peers
  peers=
  for peer in $all_peers; do
    [ "$peer" = aloop_uring ] || peers="$peers $peer"
  done
  rotate "$@"
  peers=$all_peers
}

# ---- In one process ----

callbacks_and_timers() { # how often each program repeats what it does
  rotate chain chain --repeat "$1"
  rotate_computing burst burst --repeat "$1"
  rotate_computing timers timers --repeat "$1"
  rotate_computing rearm rearm --repeat "$1"
  rotate_computing restart restart --repeat "$1"
}

threads() {
  rotate posts/1 posts --repeat "$1" --producers 1
  rotate posts/4 posts --repeat "$1" --producers 4
  rotate pingpong pingpong --repeat "$1"
  rotate lookup lookup --repeat "$1"
  rotate jobs/1 jobs --repeat "$1" --size 1
  rotate jobs/1000 jobs --repeat "$1" --size 1000
}

pipe_cell() { rotate "pipe/$2/$3" pipe --size "$2" --depth "$3" --repeat "$1"; }

udp_cell() { rotate "udp/64/$2" udp --depth "$2" --count 50000 --repeat "$1"; }

programs_started() {
  for size in 0 1024; do
    for depth in 1 16; do rotate "spawn/$depth/$size" spawn --depth $depth --size $size --count 32 --repeat "$1"; done
  done
}

# The bare switch between coroutines prints lines of several peers.
switches() {
  if wanted switch && [ -x "$programs/bench_switch" ]; then "$programs/bench_switch" >>"$results"; fi
}

in_process() {
  callbacks_and_timers "$1"
  rotate_computing fire fire --repeat "$1"
  threads "$1"
  for cell in 1 64; do udp_cell "$1" $cell; done
  rotate blast/64/1 blast --size 64 --seconds "$seconds"
  rotate blast/1200/32 blast --size 1200 --depth 32 --seconds "$seconds"
  for size in 64 65536; do pipe_cell "$1" $size 1; done
  pipe_cell "$1" 64 100
  pipe_cell "$1" 65536 16
  rotate pair/64/100 pair --size 64 --depth 100 --repeat "$1"
  programs_started "$1"
  rotate loop loop --repeat "$1"
  rotate_computing memory memory
  rotate_computing tasks tasks --repeat "$1"
  rotate_computing sync sync --repeat "$1"
  switches
}

# ---- With a server and a client ----

# With 10 000 connections an answer takes a tenth of a second.
echo_cell() { # connections, bytes, depth
  time=$seconds
  [ "$1" -lt 10000 ] || time=$long_seconds
  rotate "echo/$1/$2/$3" echo --connections "$1" --size "$2" --depth "$3" --seconds "$time"
}

unix_cell() { rotate "unix/$1/64/1" unix --connections "$1" --size 64 --seconds "$seconds"; }

bulk_cells() { for way in push pull file relay; do rotate "$way/1" $way --seconds "$seconds"; done; }

relay_cell() { rotate "relay/$1/64/1" relay --size 64 --connections "$1" --seconds "$seconds"; }

network() {
  for connections in 1 50; do unix_cell $connections; done
  for size in 64 1024 16384; do
    for connections in 1 50 1000 10000; do echo_cell $connections $size 1; done
  done
  for connections in 1 50 1000 10000; do echo_cell $connections 64 16; done
  for size in 1024 16384; do echo_cell 50 $size 16; done
  rotate churn churn --seconds "$seconds"
  bulk_cells
  for connections in 1 50; do relay_cell $connections; done
}

# The echo server in three ways to write it.
styles() {
  all_peers=$peers
  peers="aloop_sock aloop_task"
  echo_cell 1 64 1
  echo_cell 50 64 1
  echo_cell 50 64 16
  peers=$all_peers
}

all_cells() {
  in_process 1
  network
  styles
  rotate idle idle --connections 9000
}

few_cells() {
  callbacks_and_timers 1
  rotate posts/1 posts --repeat 1 --producers 1
  rotate pingpong pingpong --repeat 1
  rotate jobs/1000 jobs --repeat 1 --size 1000
  udp_cell 1 64
  pipe_cell 1 64 1
  rotate loop loop --repeat 1
  rotate_computing memory memory
  rotate_computing tasks tasks --repeat 1
  unix_cell 50
  for cell in "1 64 1" "50 64 1" "50 64 16" "50 16384 1"; do
    # shellcheck disable=SC2086 # three words
    echo_cell $cell
  done
  rotate churn churn --seconds "$seconds"
  bulk_cells
  relay_cell 1
  rotate idle idle --connections 2000
}
