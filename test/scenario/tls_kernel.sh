#!/bin/sh
# sh tls_kernel.sh BUILD SOURCE: kernel TLS with real peers, where the kernel has it (modprobe tls; test/kernel/run.sh starts
# one that has): what it encrypts is counted in /proc/net/tls_stat, and what it may not encrypt is not.
. "$2/test/support/scenario.sh"
need openssl curl
stat=/proc/net/tls_stat
[ -x "$examples/https_get" ] && [ -r $stat ] || {
  echo "skipped: this kernel has no TLS, or the build no OpenSSL"
  exit 77
}
certs=$folder/certs
sh "$2/examples/certificates.sh" "$certs" || fail "certificates.sh"
mkdir "$folder/site"
head -c "${KERNEL_TLS_SIZE:-1048576}" /dev/urandom >"$folder/site/big"
echo "a small page" >"$folder/site/page"
big=$(hash "$folder/site/big")
exchanges=no
! grep -q TlsTxRekeyOk $stat || exchanges=yes

# How many connections the kernel has sent for.
count() {
  awk '/^TlsTx(Sw|Device) / { sum += $2 } END { print sum + 0 }' $stat
}

errors() {
  awk '/Error/ { sum += $2 } END { print sum + 0 }' $stat
}

# counted WHAT EXPECTED BEFORE
counted() {
  check "$1: connections in the kernel" "$2" $(($(count) - $3))
}

client() {
  timeout 20 openssl s_client -connect 127.0.0.1:"$port" -CAfile "$certs/ca.pem" -servername localhost "$@" 2>>"$folder/client.err"
}

fetch() {
  curl -sS --max-time 100 --cacert "$certs/ca.pem" "$@" "https://localhost:$port/big" | hash
}

# serve WHEN VERSION KERNEL: a file by hash, with each cipher, new and resumed; KERNEL is 1 if the kernel shall do it.
serve() {
  start http --port 0 --root "$folder/site" --tls "$certs/server.pem" "$certs/server.key" $1
  case $2 in
  tls1_2) versions='--tlsv1.2 --tls-max 1.2' option=--ciphers ciphers='ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256
ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-RSA-AES256-GCM-SHA384 ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305' ;;
  *) versions=--tlsv1.3 option=--tls13-ciphers ciphers='TLS_AES_128_GCM_SHA256 TLS_AES_256_GCM_SHA384 TLS_CHACHA20_POLY1305_SHA256' ;;
  esac
  for cipher in $ciphers; do
    before=$(count)
    check "$1 $2 $cipher" "$big" "$(fetch $versions $option "$cipher")"
    counted "$1 $2 $cipher" "$3" "$before"
  done
  # The server closes while much is still on its way to a client that is slower.
  check "$1 $2, closed" "$big" "$(fetch $versions -H 'Connection: close')"
  request='GET /page HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n'
  before=$(count)
  for how in -sess_out -sess_in; do
    printf "$request" | client -$2 -ign_eof -msg $how "$folder/session" >"$folder/answer"
    check_has "$1 $2 $how" '^a small page' "$(cat "$folder/answer")"
    check_has "$1 $2 $how" '^<<<.*Alert.*close_notify' "$(cat "$folder/answer")"
  done
  check_has "$1 $2 resumption" '^Reused, TLSv1' "$(cat "$folder/answer")"
  counted "$1 $2 resumption" $((2 * $3)) "$before"
  stop "$pid"
}

complete=0
[ $exchanges = no ] || complete=1
serve "" tls1_2 1
serve "" tls1_3 $complete
serve "--kernel-tls always" tls1_3 1
serve "--kernel-tls never" tls1_2 0
serve "--kernel-tls never" tls1_3 0

# New keys, which the client asks for by a K and only announces by a k. Each line waits for what the one before has led to.
lines() {
  eventually grep -q 'Verify return code' "$folder/said" || return
  keys=0
  for line in one K two k three K four; do
    printf '%s\n' $line
    case $line in
    [kK]) keys=$((keys + 1)) && eventually updated $keys || return ;;
    *) eventually grep -qx $line "$folder/said" || return ;;
    esac
  done
  echo Q
}

updated() {
  [ "$(grep -c KEYUPDATE "$folder/keys")" = "$1" ]
}

# echoes WHEN KERNEL EXPECTED
echoes() {
  start tcp_echo --port 0 --tls "$certs/server.pem" "$certs/server.key" $1
  before=$(count)
  : >"$folder/said"
  : >"$folder/keys"
  lines | timeout 60 openssl s_client -connect 127.0.0.1:"$port" -tls1_3 >"$folder/said" 2>"$folder/keys"
  check "new keys $1" "$3" "$(echo $(grep -x 'one\|two\|three\|four' "$folder/said"))"
  counted "new keys $1" "$2" "$before"
  stop "$pid"
}

echoes "" $complete "one two three four"
echoes "--kernel-tls never" 0 "one two three four"
if [ $exchanges = yes ]; then
  echoes "--kernel-tls always" 1 "one two three four"
  check_has "new keys in the kernel" "^TlsTxRekeyOk[[:space:]]*[1-9]" "$(cat $stat)"
else
  echoes "--kernel-tls always" 1 "one"
fi
check "errors of the kernel" 0 "$(errors)"
finish
