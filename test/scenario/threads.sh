#!/bin/sh
# sh threads.sh BUILD SOURCE: examples/servers/threads, both ways of sharing connections out. (threads: yes)
. "$2/test/support/scenario.sh"
need_talk
head -c 1048576 /dev/urandom >"$folder/sent"

# Eight clients at a time: each gets its own megabyte back, whichever loop it is on.
crowd() {
  clients=
  for i in 1 2 3 4 5 6 7 8; do
    end_after_input "$port" <"$folder/sent" >"$folder/received.$i" &
    clients="$clients $!"
  done
  # shellcheck disable=SC2086
  wait $clients
  for i in 1 2 3 4 5 6 7 8; do
    cmp -s "$folder/sent" "$folder/received.$i" || fail "client $i of eight got something else back"
  done
}

# end: stops the server gracefully; sets $said to what its loops said.
end() {
  stop "$pid"
  said=$(cat <&3)
}

# accepted LOOP: how many connections a loop has got, by what it said last.
accepted() {
  printf '%s\n' "$said" | sed -n "s/^loop $1: .* \([0-9]*\) accepted.*/\1/p" | tail -n 1
}

start threads --port 0 --threads 3
check "a short text comes back" "hello" "$(printf hello | end_after_input "$port")"
crowd
end
check "every connection has a loop" 9 $(($(accepted 1) + $(accepted 2) + $(accepted 3)))
check_has "the first loop hands over" "^loop 1: .* [1-9][0-9]* handed over" "$said"

start threads --port 0 --threads 2 --reuse-port
crowd
check "a short text comes back" "hello" "$(printf hello | end_after_input "$port")"
kill -USR1 "$pid"
end
check "every connection has a loop" 9 $(($(accepted 1) + $(accepted 2)))
check_has "no loop hands over" "^loop 1: .* 0 handed over" "$said"

# Clients that stay are no reason to stay: a second signal ends them at once.
start threads --port 0
stop "$pid" INT
finish
