#!/bin/sh
# sh dns_forwarder.sh BUILD SOURCE: examples/servers/dns_forwarder between dig and a name server in which things go wrong.
. "$2/test/support/scenario.sh"
need dig

start "$1/test/name_server" one.test=127.0.0.9 two.test=::1,127.0.0.1,127.0.0.2 lost.test=lose,127.0.0.3 \
  forged.test=forge,127.0.0.4 malformed.test=malform,127.0.0.5 late.test=127.0.0.6@700 big.test=truncate \
  silent.test=ignore
server_pid=$pid server_port=$port
server="127.0.0.1:$server_port"
start dns_forwarder --port 0 --timeout 500 "$server"
forwarder_pid=$pid

# ask NAME [TYPE]: the addresses, one after the other.
dig_here() {
  dig +tries=1 +time=10 -p "$port" @127.0.0.1 "$@"
}
ask() {
  dig_here +short "$@" | sort | tr '\n' ' '
}
# status_of NAME: NOERROR, NXDOMAIN, ...
status_of() {
  dig_here "$@" | sed -n 's/.*status: \([A-Z]*\).*/\1/p'
}
# asked NAME: how often the name server was.
asked() {
  grep -c " $1 " "$folder/name_server.err"
}

check "an address" "127.0.0.9 " "$(ask one.test)"
check "two addresses" "127.0.0.1 127.0.0.2 " "$(ask two.test)"
check "an address of IPv6" "::1 " "$(ask two.test AAAA)"
check "letters may be small or not" "127.0.0.9 " "$(ask OnE.TeSt)"
check "an answer without addresses" NOERROR "$(status_of one.test AAAA)"
check "a name that does not exist" NXDOMAIN "$(status_of none.test)"

# ---- What goes wrong on the way ----------------------------------------------------------------------------

check "a question that gets lost is asked again" "127.0.0.3 " "$(ask lost.test)"
check "how often" 2 "$(asked lost.test)"
check "under the same id" 1 "$(sed -n 's/ lost.test .*//p' "$folder/name_server.err" | sort -u | wc -l)"
check "an answer that comes after the first deadline" "127.0.0.6 " "$(ask late.test)"
check "forged answers are not passed on" "127.0.0.4 " "$(ask forged.test)"
check "malformed ones neither" "127.0.0.5 " "$(ask malformed.test)"
check "and no other question is asked for them" "1 1" "$(asked forged.test) $(asked malformed.test)"
check_has "what is truncated stays so" '^;; flags: qr.* tc ' "$(dig_here +ignore big.test)"
before=$(date +%s)
check "without an answer there is an error" SERVFAIL "$(status_of silent.test)"
[ $(($(date +%s) - before)) -le 4 ] || fail "three tries of half a second took $(($(date +%s) - before)) s"
check "after three tries" 3 "$(asked silent.test)"

# Many at once: the questions that get no answer do not hold up the others.
for i in 1 2 3 4 5 6 7 8; do
  ask silent.test >"$folder/silent.$i" &
  ask two.test >"$folder/two.$i" &
done
for i in 1 2 3 4 5 6 7 8; do
  # shellcheck disable=SC2317
  answered() { [ -s "$folder/two.$i" ]; }
  eventually answered || fail "question $i of eight gets no answer"
  check "question $i of eight" "127.0.0.1 127.0.0.2 " "$(cat "$folder/two.$i")"
done

# ---- What is no question -----------------------------------------------------------------------------------

if has socat; then
  # say BYTES: the answer to them, in hexadecimal.
  # shellcheck disable=SC2059
  say() { printf "$1" | socat -T 1 - "UDP:127.0.0.1:$port" | od -An -v -tx1 | tr -d ' \n'; }
  rest='\000\000\000\000\000\000'
  check "two questions" 123481810000000000000000 "$(say "\\022\\064\\001\\000\\000\\002$rest")"
  check "a name that does not end" 123481810000000000000000 \
    "$(say "\\022\\064\\001\\000\\000\\001$rest\\077a")"
  check "an update" 1234a8840000000000000000 "$(say "\\022\\064\\050\\000\\000\\001$rest")"
  check "an answer gets no answer" "" "$(say "\\022\\064\\201\\200\\000\\001$rest")"
  check "neither does less than a head" "" "$(say '\022\064\001')"
fi
stop "$forwarder_pid"

# ---- Several resolvers -------------------------------------------------------------------------------------

start "$1/test/name_server" one.test=ignore
mute_pid=$pid mute_port=$port
start dns_forwarder --port 0 --timeout 300 "127.0.0.1:$mute_port" "$server"
check "the second one answers" "127.0.0.9 " "$(ask one.test)"
stop "$pid"

# A port where nobody is: the kernel says so, and the deadline counts all the same.
kill -KILL "$mute_pid"
start dns_forwarder --port 0 --timeout 300 "127.0.0.1:$mute_port"
check "nobody there" SERVFAIL "$(status_of one.test)"
stop "$pid"
start dns_forwarder --port 0 --timeout 300 --tries 2 "127.0.0.1:$mute_port" "$server"
check "somebody at the second try" "127.0.0.9 " "$(ask one.test)"
stop "$pid" INT

# Of all addresses of this machine the answer must come from the one that was asked.
start dns_forwarder --host 0.0.0.0 --port 0 "$server"
if dig +tries=1 +time=10 -p "$server_port" @127.0.0.1 -b 127.0.0.2 one.test >/dev/null 2>&1; then
  check "the address that was asked answers" "127.0.0.9" "$(dig +tries=1 +time=5 +short -p "$port" @127.0.0.2 one.test)"
fi
stop "$pid"

"$examples/dns_forwarder" 2>"$folder/said"
check "exit status without a resolver" 2 $?
check_has "the message without a resolver" "usage:" "$(cat "$folder/said")"
"$examples/dns_forwarder" --tries none "$server" 2>"$folder/said"
check "exit status for a wrong number" 2 $?
start dns_forwarder --port 0 "$server"
"$examples/dns_forwarder" --port "$port" "$server" 2>"$folder/said"
check "exit status for a busy port" 1 $?
check_has "the message for a busy port" "in use" "$(cat "$folder/said")"
stop "$pid"
kill -KILL "$server_pid"
finish
