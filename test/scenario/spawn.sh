#!/bin/sh
# sh spawn.sh BUILD SOURCE: examples/servers/tcp_spawn with commands that read, write, end early, or cannot run.
. "$2/test/support/scenario.sh"
need_talk

start tcp_spawn --port 0 sort
check "sorted by a command" "a
b" "$(printf 'b\na\n' | end_after_input "$port")"
check "sorted for the next client" "x" "$(echo x | end_after_input "$port")"
stop "$pid"

# The client sends everything before it reads: both directions have to hold back.
start tcp_spawn --port 0 cat
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
stop "$pid"

# A client that goes away takes its command with it.
start tcp_spawn --port 0 sh -c 'echo $$; exec cat /dev/zero'
rm -f "$folder/talk"
mkfifo "$folder/talk"
talk "$port" </dev/null >"$folder/talk" 2>/dev/null &
client=$!
exec 4<"$folder/talk"
IFS= read -r command <&4
kill -0 "$command" || fail "the command is not there"
kill -KILL $client
exec 4<&-
gone() { ! kill -0 "$command" 2>/dev/null; }
eventually gone || fail "the command outlives its client"
stop "$pid"

# One that ends by itself ends the connection, and what it does not read is no error.
start tcp_spawn --port 0 echo enough
check "a command that does not read" "enough" "$(end_after_input "$port" <"$folder/sent")"
check "and another time" "enough" "$(end_after_input "$port" </dev/null)"
stop "$pid"

start tcp_spawn --port 0 /no/such/command
check "no command, no answer" "" "$(end_after_input "$port" </dev/null 2>/dev/null)"
said() { grep -q "cannot execute /no/such/command: no such entry" "$folder/tcp_spawn.err"; }
eventually said || fail "nobody said why"
: >"$folder/tcp_spawn.err"
stop "$pid"

"$examples/tcp_spawn" 2>"$folder/said"
check "exit status without a command" 2 $?
check_has "the message without a command" "usage" "$(cat "$folder/said")"
finish
