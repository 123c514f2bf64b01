#!/bin/sh
# sh tls_trouble.sh BUILD SOURCE: TLS with real peers that make trouble: no certificate, a revoked one, silence, one byte
# after the other, garbage, an end that is not taken. tls_peer.c says what became of each connection.
. "$2/test/support/scenario.sh"
need openssl
peer=$1/test/tls_peer
[ -x "$peer" ] || {
  echo "skipped: built without OpenSSL"
  exit 77
}
certs=$folder/certs
sh "$2/examples/certificates.sh" "$certs" || fail "certificates.sh"

# serve OPTION...: starts the server, whose further lines go to $folder/said.
serve() {
  start "$peer" serve "$certs/server.pem" "$certs/server.key" "$@"
  : >"$folder/said"
  cat <&3 >>"$folder/said" &
  pids="$pids $!"
}

# says WHAT PATTERN [TIMES]: a line of the server's, now or soon.
says() {
  reached() { [ "$(grep -c -- "$1" "$folder/said")" -ge "$2" ]; }
  eventually reached "$2" "${3:-1}" || fail "$1: no line matches \"$2\" in: $(cat "$folder/said")"
}

# s_client OPTION...: standard input to the server, what comes back to standard output, failures to standard error.
s_client() {
  openssl s_client -connect 127.0.0.1:"$port" -CAfile "$certs/ca.pem" -verify_return_error -verify_quiet \
    -servername localhost -quiet "$@"
}

# attempt NAME OPTION...: a client in the background that says hello and stays until it gets something. What it got and
# what it says about it are in $folder/NAME.got and $folder/NAME.words, after `await_attempts`. That it is connecting, as
# OpenSSL 3.4 and later say, is nothing that it got.
attempts=
attempt() {
  name=$1
  shift
  say_until hello "$folder/$name.got" "$folder/$name.words" |
    s_client -no_ign_eof "$@" 2>&1 >"$folder/$name.got" | grep --line-buffered -v '^Connecting to' >"$folder/$name.words" &
  attempts="$attempts $!"
}
await_attempts() {
  # shellcheck disable=SC2086
  wait $attempts
  attempts=
}

# got NAME TEXT; words NAME PATTERN
got() {
  check "what $1 gets" "$2" "$(cat "$folder/$1.got")"
}
words() {
  check_has "what $1 hears" "$2" "$(cat "$folder/$1.words")"
}

# ---- Certificates of clients -----------------------------------------------------------------------------------

serve --ca "$certs/ca.pem"
for version in tls1_2 tls1_3; do
  attempt "known.$version" -$version -cert "$certs/client.pem" -key "$certs/client.key"
  attempt "nobody.$version" -$version
  attempt "stranger.$version" -$version -cert "$certs/selfsigned.pem" -key "$certs/selfsigned.key"
done
said=$(echo again | "$peer" connect "$port" "$certs/ca.pem" --own "$certs/client.pem" "$certs/client.key")
check_has "our own client" "^got again" "$said"
said=$(echo again | "$peer" connect "$port" "$certs/ca.pem")
check "exit status without a certificate" 1 $?
check_has "our own client without" "^\(lost\|failed\) ETLS_ALERT: the peer says: .*certificate required" "$said"
await_attempts
for version in tls1_2 tls1_3; do
  got "known.$version" hello
  got "nobody.$version" ""
  words "nobody.$version" "alert \(certificate required\|handshake failure\)"
  got "stranger.$version" ""
  words "stranger.$version" "alert unknown ca"
done
says "with a certificate" "^made [1-9]" 3
says "without" "^failed ETLS: TLS failed: peer did not return a certificate" 3
says "with a stranger's" "^failed ETLS_VERIFY: certificate verify failed: self.signed certificate" 2
stop "$pid"

serve --ca "$certs/ca.pem" --optional --crl "$certs/crl.pem"
attempt unknown
attempt good -cert "$certs/client.pem" -key "$certs/client.key"
attempt revoked -cert "$certs/revoked_client.pem" -key "$certs/revoked_client.key"
await_attempts
got unknown hello
got good hello
got revoked ""
words revoked "alert certificate revoked"
says "none where it is optional" "^made 0"
says "revoked" "^failed ETLS_VERIFY: certificate verify failed: certificate revoked"
stop "$pid"

# ---- Revoked ---------------------------------------------------------------------------------------------------

start "$examples/tcp_echo" --port 0 --tls "$certs/revoked.pem" "$certs/revoked.key"
said=$(echo hello | "$peer" connect "$port" "$certs/ca.pem" --crl "$certs/crl.pem")
check "exit status for revoked" 1 $?
check_has "revoked" "^failed ETLS_VERIFY: certificate verify failed: certificate revoked" "$said"
check_has "nobody knows that it is revoked" "^got hello" "$(echo hello | "$peer" connect "$port" "$certs/ca.pem")"
stop "$pid"

# ---- Handshakes that do not end, or never begin ----------------------------------------------------------------

need_talk
serve --handshake 300
listen_to "$port" </dev/null >/dev/null &
pids="$pids $!"
# A record of 16383 bytes begins, and comes one by one.
{
  printf '\026\003\001\077\377'
  for _ in 1 2 3 4 5 6 7 8 9 10; do
    sleep 0.1
    printf '\001'
  done
} | talk "$port" >/dev/null 2>&1 &
pids="$pids $!"
says "silence, and one byte after the other" "^failed ETIMEDOUT: the TLS handshake took too long" 2
stop "$pid"

serve
printf 'GET / HTTP/1.0\r\n\r\n' | talk "$port" >/dev/null 2>&1
says "HTTP" "^failed ETLS: TLS failed: http request"
printf '\200\056\001\003\001xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx' | talk "$port" >/dev/null 2>&1
head -c 20000 /dev/zero | talk "$port" >/dev/null 2>&1
says "garbage" "^failed ETLS: TLS failed:" 3
end_after_input "$port" </dev/null >/dev/null 2>&1
says "an end" "^failed ECONNRESET: the peer closed the connection during the TLS handshake"
attempt after
await_attempts
got after hello
stop "$pid"

# ---- An end that is not taken ----------------------------------------------------------------------------------

# The client reads until its output is full, and then no more.
flood=40000000
serve --shutdown 300 --flood $flood
mkfifo "$folder/full"
exec 4<>"$folder/full"
s_client </dev/null >"$folder/full" 2>/dev/null &
pids="$pids $!"
says "an end that is not taken" "^lost ETIMEDOUT: the peer took nothing while the TLS connection was closing"
exec 4<&-
stop "$pid"

serve --shutdown 30000 --flood $flood
check "an end that is taken" "$(head -c $flood /dev/zero | hash)" "$(s_client </dev/null 2>/dev/null | hash)"
says "an end that is taken" "^lost 0:"
stop "$pid"

# ---- Load ------------------------------------------------------------------------------------------------------

mkdir "$folder/site"
echo "a small page" >"$folder/site/page"
start http --port 0 --root "$folder/site" --tls "$certs/server.pem" "$certs/server.key"
if has wrk; then
  report=$(wrk -t 1 -c 20 -d 1 "https://127.0.0.1:$port/page" 2>&1)
  check_has "wrk" '^Requests/sec:' "$report"
  check "errors under load" "" "$(printf '%s\n' "$report" | grep 'Socket errors\|Non-2xx')"
fi
stop "$pid"
finish
