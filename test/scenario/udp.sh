#!/bin/sh
# sh udp.sh BUILD SOURCE: examples/servers/udp_echo, asked by socat and nc.
. "$2/test/support/scenario.sh"

has socat || need nc
by_socat() { printf '%s' "$2" | socat -T 1 - "UDP:127.0.0.1:$1"; }
by_nc() { printf '%s' "$2" | nc -u -w 1 127.0.0.1 "$1"; }

start udp_echo --port 0
for tool in socat nc; do
  has $tool || continue
  check "a datagram comes back to $tool" "hello" "$("by_$tool" "$port" hello)"
  check "another client's too" "I am another" "$("by_$tool" "$port" 'I am another')"
done
long=$(head -c 9000 /dev/zero | tr '\0' 'x')
if has socat; then
  check "9000 bytes in one datagram come back" "$long" \
    "$(printf '%s' "$long" | socat -b 20000 -T 1 - "UDP:127.0.0.1:$port")"
fi
"$examples/udp_echo" --port "$port" 2>"$folder/said"
check "exit status for a busy port" 1 $?
check_has "the message for a busy port" "in use" "$(cat "$folder/said")"
"$examples/udp_echo" --port banana 2>"$folder/said"
check "exit status for a wrong port" 2 $?
stop "$pid"

start udp_echo --port 0
stop "$pid" INT
finish
