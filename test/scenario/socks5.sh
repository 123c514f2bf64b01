#!/bin/sh
# sh socks5.sh BUILD SOURCE: examples/servers/socks5, used by curl and by bytes written by hand.
# shellcheck disable=SC2059,SC2086
. "$2/test/support/scenario.sh"
need curl od
need_talk

mkdir "$folder/root"
head -c 12582912 /dev/urandom >"$folder/root/big.bin"
echo "a small file" >"$folder/root/small.txt"
start http --port 0 --root "$folder/root"
http_pid=$pid http_port=$port
start socks5 --port 0 --connect-timeout 3
socks_pid=$pid socks_port=$port

# fetch OPTION... URL: through the server.
fetch() {
  curl -sS -m 60 "$@"
}
named="--socks5-hostname 127.0.0.1:$socks_port"
numbered="-4 --socks5 127.0.0.1:$socks_port" # curl looks up the name, and newer ones take ::1 first
for way in "$named http://localhost:$http_port" "$numbered http://localhost:$http_port" \
  "$named http://127.0.0.1:$http_port"; do
  check "a small file, $way" "a small file" "$(fetch $way/small.txt)"
  fetch -o "$folder/big.bin" $way/big.bin
  check "12 MiB, $way" "$(hash "$folder/root/big.bin")" "$(hash "$folder/big.bin")"
done

# Several at a time, each its own file.
clients=
for i in 1 2 3 4 5 6 7 8; do
    fetch $named -o "$folder/big.$i" "http://localhost:$http_port/big.bin" &
  clients="$clients $!"
done
wait $clients
for i in 1 2 3 4 5 6 7 8; do
  cmp -s "$folder/root/big.bin" "$folder/big.$i" || fail "client $i of eight got something else"
done

# ---- Both ways, and the end of each ------------------------------------------------------------------------

start tcp_echo --port 0
echo_pid=$pid echo_port=$port
greeting='\005\001\000'
# request PORT: to 127.0.0.1, as printf wants it.
request() {
  printf '\\005\\001\\000\\001\\177\\000\\000\\001\\%03o\\%03o' $(($1 / 256)) $(($1 % 256))
}
to_echo=$(request "$echo_port")

# Everything in one go, so bytes for the target come along with the request. The answers before the echo are
# the method (2 bytes) and the reply (10 bytes).
{ printf "$greeting$to_echo" && cat "$folder/root/big.bin"; } | end_after_input "$socks_port" >"$folder/answer"
check "the method and the reply" "05 00 05 00 00 01 7f 00 00 01" \
  "$(head -c 10 "$folder/answer" | od -An -v -tx1 | sed 's/^ *//')"
check "12 MiB there and back" "$(hash "$folder/root/big.bin")" "$(tail -c +13 "$folder/answer" | hash -)"

# A client that does not read: what is on its way must stay in the kernel's buffers, not in the server.
head -c 134217728 /dev/zero >"$folder/root/zeros"
if [ -r "/proc/$socks_pid/status" ]; then
  before=$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$socks_pid/status")
    size=$(fetch $named "http://127.0.0.1:$http_port/zeros" | { sleep 1 && wc -c; })
  after=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$socks_pid/status")
  check "the bytes that come to a slow reader" 134217728 "$size"
  grown=$((after - before)) # the sanitizers take some for themselves, but far less than what was held back
  [ $grown -lt 16384 ] || fail "the server grew by $grown KiB for a client that did not read"
fi

# ---- Refusals ----------------------------------------------------------------------------------------------

# answer BYTES: what the server says to them, in hexadecimal, up to the end of the connection.
answer() {
  printf "$1" | end_after_input "$socks_port" | od -An -v -tx1 | tr -d ' \n'
}
# refuses WHAT CODE REQUEST
refuses() {
  check "the reply to $1" "0500""05${2}0001000000000000" "$(answer "$greeting$3")"
}
check "no method in common" 05ff "$(answer '\005\001\002')"
check "SOCKS 4 gets no answer" "" "$(answer '\004\001\000\120\177\000\000\001\000')"
check "HTTP gets no answer" "" "$(answer 'GET / HTTP/1.0\r\n\r\n')"
long=$(head -c 70 /dev/zero | tr '\0' a) # longer than a label may be, so that nobody needs to be asked for it
refuses "a name nobody knows" 04 "\\005\\001\\000\\003\\106$long\\000\\120"
refuses "the command BIND" 07 '\005\002\000\001\177\000\000\001\000\120'
refuses "the command UDP ASSOCIATE" 07 '\005\003\000\001\000\000\000\000\000\000'
refuses "a type of address that there is not" 08 '\005\001\000\002\177\000\000\001\000\120'
refuses "port 0" 01 '\005\001\000\001\177\000\000\001\000\000'
refuses "a name with a zero" 01 '\005\001\000\003\003a\000b\000\120'
refuses "another version" 01 '\004\001\000\001\177\000\000\001\000\120'
stop "$echo_pid"
# libkqueue takes the error of a failed connect for itself; the kernels that have a kqueue of their own do not.
[ "${ALOOP_POLLER:-}" = kqueue ] || refuses "a port where nobody listens" 05 "$to_echo"
fetch $named "http://127.0.0.1:$echo_port/" 2>/dev/null && fail "curl takes a refusal for an answer"

# ---- Clients that go away, or never speak ------------------------------------------------------------------

printf "$greeting$(request "$http_port")GET /zeros HTTP/1.0\r\n\r\n" >"$folder/request"
for _ in 1 2 3 4 5; do vanish "$socks_port" "$folder/request"; done
check "the server is still there" "a small file" "$(fetch $named "http://127.0.0.1:$http_port/small.txt")"
stop "$http_pid"
stop "$socks_pid"

start socks5 --port 0 --handshake-timeout 1
check "a silent client is sent away" "" "$(listen_to "$port")"
drip() {
  printf "$greeting"
  for piece in 005 001 000 003 100 141 142; do
    sleep 0.3
    printf "\\$piece"
  done
}
check "so is one that never comes to the end" 0500 "$(drip | talk "$port" | od -An -v -tx1 | tr -d ' \n')"
stop "$pid" INT

"$examples/socks5" --port banana 2>"$folder/said"
check "exit status for a wrong port" 2 $?
check_has "the message for a wrong port" "--port" "$(cat "$folder/said")"
"$examples/socks5" extra 2>"$folder/said"
check "exit status for an extra word" 2 $?
finish
