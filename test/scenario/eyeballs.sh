#!/bin/sh
# sh eyeballs.sh BUILD SOURCE: happy eyeballs in a network of its own, where addresses are silent, refused or unreachable
# and names are found late. examples/servers/socks5 connects to names for curl; what it fetches says by which address.
if [ -z "${ALOOP_IN_NAMESPACE:-}" ]; then
  for unshare in "unshare -rnm" "unshare -nm"; do
    # shellcheck disable=SC2086
    $unshare true 2>/dev/null || continue
    ALOOP_IN_NAMESPACE=1
    export ALOOP_IN_NAMESPACE
    # shellcheck disable=SC2093
    exec $unshare sh "$0" "$@"
  done
  echo "skipped: no network namespaces are allowed here"
  exit 77
fi
. "$2/test/support/scenario.sh"
need ip curl od

# ---- The network -------------------------------------------------------------------------------------------

# Two addresses of each family are this machine's, of which the second one refuses. What goes to fd0b::2 and 10.11.0.2
# leaves by one end of a cable for a machine that is not at the other: nobody says anything.
lay_network() {
  ip link set lo up && ip link add near type veth peer name far && ip link set near up && ip link set far up &&
    for address in 10.9.0.1/32 10.9.0.2/32; do ip addr add $address dev lo || return 1; done &&
    for address in fd09::1/128 fd09::2/128; do ip -6 addr add $address dev lo nodad || return 1; done &&
    ip addr add 10.11.0.1/24 dev near && ip -6 addr add fd0b::1/64 dev near nodad &&
    ip neigh add 10.11.0.2 lladdr 02:00:00:00:00:02 dev near nud permanent &&
    ip -6 neigh add fd0b::2 lladdr 02:00:00:00:00:02 dev near nud permanent &&
    ip -6 route add unreachable fd0c::/64 && ip -6 route add prohibit fd0d::/64
}
if ! lay_network >"$folder/said" 2>&1; then
  echo "skipped: the kernel does not lay this network: $(cat "$folder/said")"
  exit 77
fi
printf 'nameserver 127.0.0.1\noptions timeout:4 attempts:1\n' >"$folder/resolv.conf"
echo 'hosts: dns' >"$folder/nsswitch.conf"
if ! mount --bind "$folder/resolv.conf" /etc/resolv.conf 2>"$folder/said"; then
  echo "skipped: no name server of our own: $(cat "$folder/said")"
  exit 77
fi
[ ! -e /etc/nsswitch.conf ] || mount --bind "$folder/nsswitch.conf" /etc/nsswitch.conf

start "$1/test/name_server" --port 53 both.test=fd09::1,10.9.0.1 six.test=fd09::1 four.test=10.9.0.1 \
  silent6.test=fd0b::2,10.9.0.1 silent4.test=fd09::1,10.11.0.2 refused6.test=fd09::2,10.9.0.1 \
  unreachable6.test=fd0c::1,10.9.0.1 prohibited6.test=fd0d::1,10.9.0.1 nowhere6.test=fd0e::1,10.9.0.1 \
  late6.test=fd09::1@2500,10.9.0.1 late4.test=fd09::1,10.9.0.1@2500 soon6.test=fd09::1@20,10.9.0.1 \
  many.test=fd09::2,fd0c::1,fd09::1,10.9.0.2 nobody.test=fd09::2,10.9.0.2 unreachable.test=fd0c::1 \
  prohibited.test=fd0d::1 nowhere.test=fd0e::1 silent.test=fd0b::2,10.11.0.2
mkdir "$folder/4" "$folder/6"
echo four >"$folder/4/which"
echo six >"$folder/6/which"
start http --host 10.9.0.1 --port 8080 --root "$folder/4"
start http --host fd09::1 --port 8080 --root "$folder/6"
start socks5 --port 0 --connect-timeout 1
socks_pid=$pid socks_port=$port

# ---- Which address wins, and when --------------------------------------------------------------------------

# fetch NAME: sets $which, the family that answered, and $took, in ms.
fetch() {
  rm -f "$folder/fetched"
  took=$(curl -sS -m 5 --socks5-hostname "127.0.0.1:$socks_port" -w '%{time_total}' -o "$folder/fetched" \
    "http://$1:8080/which" 2>"$folder/said" | awk '{ printf "%d", $1 * 1000 }')
  which=$(cat "$folder/fetched" "$folder/said" 2>/dev/null)
}
# wins NAME FAMILY AT-LEAST AT-MOST: in ms. A machine that has much to do may be late, but not always.
wins() {
  for _ in 1 2 3 4 5; do
    fetch "$1"
    [ "$which" = "$2" ] && [ "$took" -le "$4" ] && break
  done
  check "who answers for $1" "$2" "$which"
  { [ "$took" -ge "$3" ] && [ "$took" -le "$4" ]; } || fail "$1 took $took ms, which is not from $3 to $4"
}
wins six.test six 0 200
wins four.test four 0 200
wins both.test six 0 200
wins silent6.test four 250 500  # the head start, and no more
wins silent4.test six 0 200
wins unreachable6.test four 0 200
wins prohibited6.test four 0 200
wins nowhere6.test four 0 200
wins late6.test four 50 250 # IPv4 waits a moment for IPv6 to be found, not for long
wins late4.test six 0 200
wins soon6.test six 20 250 # ... but for that long

# libkqueue, which is what kqueue is on Linux, takes the error of a failed connect for itself.
if [ "${ALOOP_POLLER:-}" != kqueue ]; then
  wins refused6.test four 0 200 # no head start for who has failed
  wins many.test six 0 200
fi

# An address is not looked up.
check "by address, IPv4" four "$(curl -sS -m 5 --socks5 "127.0.0.1:$socks_port" http://10.9.0.1:8080/which)"
check "by address, IPv6" six "$(curl -sS -m 5 --socks5 "127.0.0.1:$socks_port" "http://[fd09::1]:8080/which")"

# The losers are closed: no connection is still being tried.
trying() { awk '$4 == "02"' /proc/net/tcp /proc/net/tcp6 | grep -c .; }
fetch silent6.test
check "connections that are still tried" 0 "$(trying)"

# ---- When no address works ---------------------------------------------------------------------------------

# refuses NAME CODE: with that reply.
refuses() {
  request=$(printf '%s' "$1" | awk '{ printf "\\005\\001\\000\\003\\%03o%s\\037\\220", length($0), $0 }')
  # shellcheck disable=SC2059
  check "the reply for $1" "050005${2}0001000000000000" \
    "$(printf "\\005\\001\\000$request" | end_after_input "$socks_port" | od -An -v -tx1 | tr -d ' \n')"
}
[ "${ALOOP_POLLER:-}" = kqueue ] || refuses nobody.test 05
refuses prohibited.test 02
refuses nowhere.test 03
refuses unreachable.test 04
refuses unheard-of.test 04
refuses silent.test 06
check "connections that are still tried after the timeout" 0 "$(trying)"
stop "$socks_pid"
finish
