#!/bin/sh
# sh proxy.sh BUILD SOURCE: examples/servers/tcp_proxy in front of tcp_echo and of the HTTP server.
. "$2/test/support/scenario.sh"
need_talk

start tcp_echo --port 0
echo_pid=$pid echo_port=$port
start tcp_proxy --port 0 "127.0.0.1:$echo_port"
proxy_pid=$pid proxy_port=$port

# The end of the client's data must reach the target, or its answer would never end.
check "a short text through the proxy" "hello" "$(printf hello | end_after_input "$proxy_port")"

head -c 8388608 /dev/urandom >"$folder/sent"
end_after_input "$proxy_port" <"$folder/sent" >"$folder/received"
check "8 MiB there and back" "$(hash "$folder/sent")" "$(hash "$folder/received")"

if has curl; then
  head -c 12582912 /dev/urandom >"$folder/large"
  start http --port 0 --root "$folder"
  http_pid=$pid
  start tcp_proxy --port 0 "localhost:$port"
  curl -sS -m 60 -o "$folder/fetched" "http://127.0.0.1:$port/large"
  check "12 MiB for curl" "$(hash "$folder/large")" "$(hash "$folder/fetched")"
  stop "$pid"
  stop "$http_pid"
fi

# A real client that asks twice over one connection.
if command -v curl >/dev/null 2>&1; then
  start http --port 0 --root "$folder"
  http_pid=$pid
  start tcp_proxy --port 0 "127.0.0.1:$port"
  url=http://127.0.0.1:$port/sent
  curl -sS -m 60 -o "$folder/first" -o "$folder/second" "$url" "$url" || fail "curl failed: $?"
  check "8 MiB through curl" "$(hash "$folder/sent")" "$(hash "$folder/first")"
  check "and once more" "$(hash "$folder/sent")" "$(hash "$folder/second")"
  stop "$pid"
  stop "$http_pid"
fi

# A client that does not read: what is on its way must stay in the kernel's buffers, not in the proxy.
if [ -r "/proc/$proxy_pid/status" ]; then
  head -c 134217728 /dev/zero >"$folder/zeros"
  start http --port 0 --root "$folder"
  http_pid=$pid
  start tcp_proxy --port 0 "127.0.0.1:$port"
  before=$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$pid/status")
  size=$(printf 'GET /zeros HTTP/1.0\r\n\r\n' | talk "$port" | { sleep 1 && wc -c; })
  after=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$pid/status")
  [ "$size" -gt 134217728 ] || fail "only $size bytes came through to a slow reader"
  grown=$((after - before)) # the sanitizers take some for themselves, but far less than what was held back
  [ $grown -lt 16384 ] || fail "the proxy grew by $grown KiB for a client that did not read"
  stop "$pid"
  stop "$http_pid"
  rm "$folder/zeros"
fi

# Connections that go away, on either side.
vanish "$proxy_port"
check "the proxy is still there" "again" "$(printf again | end_after_input "$proxy_port")"
stop "$echo_pid"
check "no answer without a target" "" "$(printf hello | end_after_input "$proxy_port" 2>/dev/null)"
kill -0 "$proxy_pid" || fail "the proxy died with its target"
# libkqueue takes the error of a failed connect for itself; the kernels that have a kqueue of their own do not.
[ "${ALOOP_POLLER:-}" = kqueue ] || check_has "the proxy says why" "cannot connect" "$(cat "$folder/tcp_proxy.err")"
stop "$proxy_pid"

"$examples/tcp_proxy" nowhere 2>"$folder/said"
check "exit status without a port" 2 $?
check_has "the message without a port" "usage:" "$(cat "$folder/said")"
finish
