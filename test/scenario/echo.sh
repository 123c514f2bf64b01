#!/bin/sh
# sh echo.sh BUILD SOURCE: examples/servers/tcp_echo and clients that end their side first.
. "$2/test/support/scenario.sh"
need_talk

start tcp_echo --port 0
check "a short text comes back" "hello" "$(printf hello | end_after_input "$port")"
check "nothing comes back from nothing" "" "$(end_after_input "$port" </dev/null)"

# The client sends everything before it reads, so the server's write buffer fills up and it has to stop reading.
head -c 8388608 /dev/urandom >"$folder/sent"
end_after_input "$port" <"$folder/sent" >"$folder/received"
check "8 MiB come back unchanged" "$(hash "$folder/sent")" "$(hash "$folder/received")"

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

# Clients that go away in the middle are no reason to stop.
vanish "$port"
check "the server is still there" "again" "$(printf again | end_after_input "$port")"
stop "$pid"

start tcp_echo --port 0
stop "$pid" INT

"$examples/tcp_echo" --port banana 2>"$folder/said"
check "exit status for a wrong port" 2 $?
check_has "the message for a wrong port" "--port" "$(cat "$folder/said")"
start tcp_echo --port 0
"$examples/tcp_echo" --port "$port" 2>"$folder/said"
check "exit status for a busy port" 1 $?
check_has "the message for a busy port" "in use" "$(cat "$folder/said")"
stop "$pid"
finish
