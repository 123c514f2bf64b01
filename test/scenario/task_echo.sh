#!/bin/sh
# sh task_echo.sh BUILD SOURCE: examples/servers/task_echo, a task for each client, and clients of every kind.
. "$2/test/support/scenario.sh"
need_talk

start task_echo --port 0
check "a line comes back" "hello" "$(printf 'hello\n' | end_after_input "$port")"
check "so does the last one without an end" "one two" "$(printf 'one\ntwo' | end_after_input "$port" | tr '\n' ' ')"
check "nothing comes back from nothing" "" "$(end_after_input "$port" </dev/null)"

# The client sends everything before it reads: the server's write buffer fills up and its task waits.
head -c 1000000 /dev/urandom | od -An -v -tx1 >"$folder/sent"
end_after_input "$port" <"$folder/sent" >"$folder/received"
check "3 MB of lines come back unchanged" "$(hash "$folder/sent")" "$(hash "$folder/received")"

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

check "a line of 64 KiB comes back" 65537 "$({ head -c 65536 /dev/zero | tr '\0' x; echo; } | end_after_input "$port" | wc -c | tr -d ' ')"
check "a longer one does not" "This line is too long for me." \
  "$({ head -c 65537 /dev/zero | tr '\0' x; echo; } | end_after_input "$port")"

# Clients that go away in the middle are no reason to stop, nor to complain.
yes "a line" | head -c 10000000 >"$folder/much"
vanish "$port" "$folder/much"
check "the server is still there" "again" "$(printf 'again\n' | end_after_input "$port")"
if has socat; then
  check "socat is served" "hello" "$(printf 'hello\n' | socat -t 5 - TCP:127.0.0.1:"$port")"
fi
if has curl; then
  check_has "curl gets its request back" "^GET /page HTTP/1" \
    "$(curl -s --http0.9 --max-time 1 "http://127.0.0.1:$port/page")"
fi
stop "$pid"
check "what the server had to say" "" "$(cat "$folder/task_echo.err")"

# A client that stays is given a second.
start task_echo --port 0
listen_to "$port" >/dev/null 2>&1 &
client=$!
pids="$pids $client"
check "the server is there" "hello" "$(printf 'hello\n' | end_after_input "$port")"
stop "$pid" INT
wait $client
check "what the server had to say" "" "$(cat "$folder/task_echo.err")"

start task_echo --port 0
"$examples/task_echo" --port "$port" 2>"$folder/said"
check "exit status for a busy port" 1 $?
check_has "the message for a busy port" "in use" "$(cat "$folder/said")"
stop "$pid"

# The client of quickstart/, and a server that knows HTTP.
start http --port 0 --root "$2"
check_has "headers of a page" "^HTTP/1.[01] 200" "$("$examples/http_headers" 127.0.0.1 "$port" /README.md)"
check_has "headers of none" "^HTTP/1.[01] 404" "$("$examples/http_headers" localhost "$port" /nope)"
stop "$pid"
"$examples/http_headers" 127.0.0.1 "$port" 2>"$folder/said"
check "exit status without a server" 1 $?
# libkqueue takes the error of a failed connect for itself; the kernels that have a kqueue of their own do not.
[ "${ALOOP_POLLER:-}" = kqueue ] || check_has "the message without a server" "refused" "$(cat "$folder/said")"
finish
