#!/bin/sh
# sh tls.sh BUILD SOURCE: TLS with real peers: openssl s_client and s_server in both versions, curl, and certificates
# that are no good. The servers are examples.
. "$2/test/support/scenario.sh"
need openssl
[ -x "$examples/https_get" ] || {
  echo "skipped: built without OpenSSL"
  exit 77
}
certs=$folder/certs
sh "$2/examples/certificates.sh" "$certs" || fail "certificates.sh"

# client PORT OPTION...: standard input to the server, and what comes back.
client() {
  to=$1
  shift
  timeout 20 openssl s_client -connect 127.0.0.1:"$to" -CAfile "$certs/ca.pem" -verify_return_error -servername localhost \
    "$@" 2>>"$folder/client.err"
}

start tcp_echo --port 0 --tls "$certs/server.pem" "$certs/server.key"
for version in tls1_2 tls1_3; do
  said=$folder/said.$version
  say_until hello "$said" | client "$port" -$version -quiet -no_ign_eof >"$said"
  check "$version" "hello" "$(cat "$said")"
  said=$(client "$port" -$version </dev/null)
  check_has "$version" "Verify return code: 0 (ok)" "$said"
  check_has "$version" "^New, TLSv1" "$said"

  # The first connection leaves a session that the second goes on with.
  say_until first "$folder/session.$version" | client "$port" -$version -sess_out "$folder/session.$version" >/dev/null
  check_has "resumption in $version" "^Reused, TLSv1" \
    "$(client "$port" -$version -sess_in "$folder/session.$version" </dev/null)"
done

check_has "an old version" "^New, (NONE)" "$(client "$port" -tls1_1 -cipher ALL:@SECLEVEL=0 </dev/null)"

# Whoever does not speak TLS is sent away, and the server goes on.
if has nc || has socat; then
  printf 'GET / HTTP/1.0\r\n\r\n' | talk "$port" >"$folder/garbage" 2>/dev/null
  say_until again "$folder/again" | client "$port" -quiet -no_ign_eof >"$folder/again"
  check "after garbage" "again" "$(cat "$folder/again")"
fi
stop "$pid"

# ---- HTTPS ---------------------------------------------------------------------------------------------------

mkdir "$folder/site"
head -c 104857600 /dev/urandom >"$folder/site/big"
echo "a small page" >"$folder/site/page"
start http --port 0 --root "$folder/site" --tls "$certs/server.pem" "$certs/server.key"
check "https_get" "a small page" "$("$examples/https_get" "https://localhost:$port/page" "$certs/ca.pem" 2>&1)"
check "https_get by address" "a small page" "$("$examples/https_get" "https://127.0.0.1:$port/page" "$certs/ca.pem" 2>&1)"
"$examples/https_get" "https://127.0.0.2:$port/page" "$certs/ca.pem" >/dev/null 2>&1
check "exit status of a refusal" 1 $?
if has curl; then
  get() { curl -sS --max-time 60 --cacert "$certs/ca.pem" "$@"; }
  check "100 MiB by curl" "$(hash "$folder/site/big")" "$(get "https://localhost:$port/big" | hash)"
  check_has "ALPN by curl" "ALPN.*http/1.1" "$(get -v -o /dev/null "https://localhost:$port/page" 2>&1)"
  check "100 MiB in TLS 1.2" "$(hash "$folder/site/big")" "$(get --tls-max 1.2 "https://localhost:$port/big" | hash)"
  check "a last answer in TLS 1.2" "a small page" "$(get --tls-max 1.2 -H 'Connection: close' "https://localhost:$port/page")"
fi
stop "$pid"

# ---- Servers that are refused ----------------------------------------------------------------------------------

# refused CERTIFICATE PATTERN: what https_get says about it.
refused() {
  start tcp_echo --port 0 --tls "$certs/$1.pem" "$certs/$1.key"
  said=$("$examples/https_get" "https://localhost:$port/" "$certs/ca.pem" 2>&1)
  check "exit status for $1" 1 $?
  check_has "$1" "$2" "$said"
  stop "$pid"
}

refused expired "certificate verify failed: certificate has expired"
refused wronghost "[Hh]ostname mismatch: the certificate is not for localhost"
refused selfsigned "certificate verify failed: self.signed certificate"

"$examples/tcp_echo" --port 0 --tls "$certs/server.pem" "$certs/other.key" 2>"$folder/said"
check "exit status for another's key" 1 $?
check_has "another's key" "key values mismatch" "$(cat "$folder/said")"

# ---- start_tls -------------------------------------------------------------------------------------------------

said=$("$examples/start_tls" "$certs/ca.pem" "$certs/server.pem" "$certs/server.key")
check "exit status of start_tls" 0 $?
check "start_tls" 'server: hears "STARTTLS" in clear
client: hears "go ahead" in clear
client: goes on with TLSv1.3
server: goes on with TLSv1.3
server: hears "a secret"
client: hears "understood"' "$said"
said=$("$examples/start_tls" "$certs/ca.pem" "$certs/expired.pem" "$certs/expired.key")
check "exit status of start_tls with an expired certificate" 1 $?
check_has "start_tls" "^client: certificate verify failed: certificate has expired" "$said"

# ---- openssl s_server ------------------------------------------------------------------------------------------

(cd "$folder/site" && exec openssl s_server -accept 127.0.0.1:0 -cert "$certs/server.pem" -key "$certs/server.key" \
  -cert_chain "$certs/ca.pem" -WWW >"$folder/s_server" 2>&1) &
pids="$pids $!"
eventually grep -q '^ACCEPT' "$folder/s_server" || fail "s_server does not listen"
port=$(sed -n 's/^ACCEPT .*:\([0-9]*\)$/\1/p' "$folder/s_server")
check "s_server" "a small page" "$("$examples/https_get" "https://localhost:$port/page" "$certs/ca.pem" 2>&1)"
check "100 MiB from s_server" "$(hash "$folder/site/big")" \
  "$("$examples/https_get" "https://localhost:$port/big" "$certs/ca.pem" 2>"$folder/said" | hash)"
finish
