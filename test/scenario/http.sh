#!/bin/sh
# sh http.sh BUILD SOURCE: examples/servers/http and real clients: curl for each feature, raw bytes for what
# curl would never send, clients that vanish, load, and the graceful stop. (threads: yes)
. "$2/test/support/scenario.sh"
need curl
need_talk
host='Host: a\r\n'
close='Connection: close\r\n'

# ---- The site ----------------------------------------------------------------------------------------------

root=$folder/root
mkdir -p "$root/dir" "$root/plain/sub" "$root/.git"
echo "a small file" >"$root/small.txt"
echo "one" >"$root/1.txt"
echo "two" >"$root/2.txt"
: >"$root/empty.bin"
echo "<h1>index</h1>" >"$root/dir/index.html"
echo "secret" >"$root/.git/config"
echo "secret" >"$folder/secret.txt"
ln -s ../secret.txt "$root/out.txt"
ln -s / "$root/up"
mkfifo "$root/fifo"
echo "x" >"$root/plain/a b&c.txt"
echo "x" >"$root/plain/<b>\"q\".txt"
echo "x" >"$root/plain/a:b"
echo "x" >"$root/plain/.hidden"
yes middle | head -n 20000 >"$root/middle.txt"
head -c 16384 /dev/urandom >"$root/16k.bin"
head -c 104857600 /dev/urandom >"$root/big.bin"

start http --port 0 --root "$root"
base=http://127.0.0.1:$port

# curl, quietly, with a time limit.
get() {
  curl -sS -m 60 "$@"
}

# status CURL-ARGUMENT...: only the status of the answer.
status() {
  get -o /dev/null -w '%{http_code}' "$@"
}

# head CURL-ARGUMENT...: status line and header fields.
head_of() {
  get -o /dev/null -D - "$@" | tr -d '\r'
}

# raw TEXT: the answer to a request written out for printf.
raw() {
  # shellcheck disable=SC2059
  printf "$1" | talk "$port" | tr -d '\r'
}

# raw_status TEXT: its status.
raw_status() {
  raw "$1" | sed -n '1s/^HTTP\/1.1 \([0-9]*\) .*/\1/p'
}

# ---- GET and HEAD ------------------------------------------------------------------------------------------

check "a file" "a small file" "$(get "$base/small.txt")"
head=$(head_of "$base/small.txt")
check_has "the status line" '^HTTP/1.1 200 OK$' "$head"
check_has "the length" '^Content-Length: 13$' "$head"
check_has "the type" '^Content-Type: text/plain; charset=utf-8$' "$head"
check_has "the date" '^Date: [A-Z][a-z]*, [0-9][0-9] [A-Z][a-z]* [0-9]* [0-9:]* GMT$' "$head"
check_has "the age" '^Last-Modified: .* GMT$' "$head"
check_has "the tag" '^ETag: ".*"$' "$head"
check_has "ranges are offered" '^Accept-Ranges: bytes$' "$head"
check_has "another type" '^Content-Type: text/html; charset=utf-8$' "$(head_of "$base/dir/index.html")"
check_has "an unknown type" '^Content-Type: application/octet-stream$' "$(head_of "$base/big.bin")"
check "an empty file" "200 0" "$(get -o /dev/null -w '%{http_code} %{size_download}' "$base/empty.bin")"
check "a query is no part of the name" "a small file" "$(get "$base/small.txt?a=b/../c")"
check "an escaped name" "x" "$(get "$base/plain/a%20b%26c.txt")"

check_has "HEAD has the length of the file" '^Content-Length: 104857600$' \
  "$(get -I "$base/big.bin" | tr -d '\r')"
check "HEAD has no body" "" \
  "$(raw 'HEAD /small.txt HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n' | sed '1,/^$/d')"
check "HEAD of what is not there has no body" "" \
  "$(raw 'HEAD /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n' | sed '1,/^$/d')"

# ---- Connections -------------------------------------------------------------------------------------------

check "a connection is kept" "1 0 0 " \
  "$(get -w '%{num_connects} ' -o /dev/null "$base/1.txt" -o /dev/null "$base/big.bin" -o /dev/null "$base/")"
check_has "Connection: close is obeyed" '^Connection: close$' \
  "$(head_of -H 'Connection: close' "$base/small.txt")"
check "HTTP/1.0 closes" "a small file" "$(raw 'GET /small.txt HTTP/1.0\r\n\r\n' | sed '1,/^$/d')"
check_has "HTTP/1.0 may keep the connection" '^Connection: keep-alive$' \
  "$(raw 'GET /1.txt HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2.txt HTTP/1.0\r\n\r\n')"

# Requests that come together are answered in order, be the answer copied, sent by sendfile, or a refusal.
many=
for target in /1.txt /middle.txt /none; do many="${many}GET $target HTTP/1.1\r\n${host}\r\n"; done
many="${many}POST /1.txt HTTP/1.1\r\n${host}Content-Length: 5\r\n\r\n12345"
many="${many}GET /2.txt HTTP/1.1\r\n${host}${close}\r\n"
check "pipelined requests" "1 one 20000 middle 1 <h1>404 1 <h1>405 1 two " \
  "$(raw "$many" | grep -o '^one\|^middle\|^two\|^<h1>4[0-9]*' | uniq -c | awk '{ printf "%s %s ", $1, $2 }')"
check "what follows the last request is ignored" 1 \
  "$(raw "GET /1.txt HTTP/1.1\r\n${host}${close}\r\nGET /2.txt HTTP/1.1\r\n${host}\r\n" | grep -c '^HTTP')"

# A client that asks for much and reads late: the server has to wait, and to remember the requests it was not
# able to answer.
count=3000
awk -v count=$count 'BEGIN {
  while (--count) printf "GET /16k.bin HTTP/1.1\r\nHost: a\r\n\r\n"
  printf "GET /16k.bin HTTP/1.0\r\n\r\n"
}' >"$folder/requests"
talk "$port" <"$folder/requests" | { sleep 0.3 && cat >"$folder/answers"; }
check "a late reader gets every answer" $count "$(grep -ao 'HTTP/1.1 200 OK' "$folder/answers" | wc -l)"
size=$(wc -c <"$folder/answers")
[ "$size" -gt $((count * 16384)) ] || fail "a late reader got only $size bytes"
rm "$folder/answers"

# Half-close: the client says that no more will come, and still gets its answer.
check "an answer after the client's end" 1 \
  "$(printf 'GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n' | end_after_input "$port" | grep -c 'a small file')"

# ---- Ranges and conditions ---------------------------------------------------------------------------------

check "the first bytes" "a sma" "$(get -r 0-4 "$base/small.txt")"
check "the bytes from here" "file" "$(get -r 8- "$base/small.txt")"
check "the last bytes" "file" "$(get -r -5 "$base/small.txt")"
head=$(head_of -r 2-4 "$base/small.txt")
check_has "206" '^HTTP/1.1 206 Partial Content$' "$head"
check_has "which part" '^Content-Range: bytes 2-4/13$' "$head"
head=$(head_of -r 13- "$base/small.txt")
check_has "416" '^HTTP/1.1 416 Range Not Satisfiable$' "$head"
check_has "how long it is" '^Content-Range: bytes \*/13$' "$head"
check "several ranges get the whole" 200 "$(status -r 0-1,3-4 "$base/small.txt")"
check "what is no range gets the whole" 200 "$(status -H 'Range: bytes=4-2' "$base/small.txt")"
get -r 52428800-62914559 -o "$folder/part" "$base/big.bin"
check "ten megabytes from the middle" \
  "$(dd if="$root/big.bin" bs=1048576 skip=50 count=10 2>/dev/null | cksum)" "$(cksum <"$folder/part")"
head -c 1000000 "$root/big.bin" >"$folder/part"
get -C - -o "$folder/part" "$base/big.bin"
cmp "$root/big.bin" "$folder/part" || fail "a resumed download is not the file"

touch -t 202001010000 "$root/small.txt"
head=$(head_of "$base/small.txt")
modified=$(printf '%s\n' "$head" | sed -n 's/^Last-Modified: //p')
tag=$(printf '%s\n' "$head" | sed -n 's/^ETag: //p')
check "304 for the same date" 304 "$(status -H "If-Modified-Since: $modified" "$base/small.txt")"
check "304 has no body" "" "$(get -H "If-Modified-Since: $modified" "$base/small.txt")"
check "200 for an older date" 200 \
  "$(status -H 'If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT' "$base/small.txt")"
check "304 for the same tag" 304 "$(status -H "If-None-Match: $tag" "$base/small.txt")"
check "200 for another tag" 200 "$(status -H 'If-None-Match: "x"' "$base/small.txt")"
check "412 for another tag" 412 "$(status -H 'If-Match: "x"' "$base/small.txt")"
check "the part of the same file" 206 "$(status -r 0-1 -H "If-Range: $tag" "$base/small.txt")"
check "the part of a file as old" 206 "$(status -r 0-1 -H "If-Range: $modified" "$base/small.txt")"
check "the whole of another file" 200 "$(status -r 0-1 -H 'If-Range: "x"' "$base/small.txt")"

# ---- Directories -------------------------------------------------------------------------------------------

check "the index of a directory" "<h1>index</h1>" "$(get "$base/dir/")"
head=$(head_of "$base/dir?q=1")
check_has "a directory without slash" '^HTTP/1.1 301 ' "$head"
check_has "is sent to the one with it" '^Location: /dir/?q=1$' "$head"
check "and curl goes there" "<h1>index</h1>" "$(get -L "$base/dir")"
check_has "a redirect stays here" '^Location: /plain/$' "$(head_of --path-as-is "$base//plain")"
listing=$(get "$base/plain/")
check_has "a listing" 'href="./sub/">sub/</a>' "$listing"
check_has "a link with escapes" 'href="./a%20b%26c.txt">a b&amp;c.txt</a>' "$listing"
check_has "no script from a name" 'href="./%3Cb%3E%22q%22.txt">&lt;b&gt;&quot;q&quot;.txt</a>' "$listing"
check_has "no scheme from a name" 'href="./a%3Ab"' "$listing"
check "hidden names are not listed" 0 "$(printf '%s\n' "$listing" | grep -c hidden)"
check_has "a listing leads up" 'href="../"' "$listing"
check "but not from the root" 0 "$(get "$base/" | grep -c 'href="../"')"

# ---- What is refused ---------------------------------------------------------------------------------------

check "nothing there" 404 "$(status "$base/none")"
check "nothing in a file" 404 "$(status "$base/small.txt/x")"
check "a file is no directory" 404 "$(status "$base/small.txt/")"
check "hidden" 404 "$(status "$base/.git/config")"
check "an encoded slash" 404 "$(status "$base/dir%2findex.html")"
check "a link out of the root" 403 "$(status "$base/out.txt")"
check "a directory link out of the root" 403 "$(status "$base/up/etc/passwd")"
check "neither file nor directory" 403 "$(status "$base/fifo")"
if [ "$(id -u)" -ne 0 ]; then
  chmod 000 "$root/1.txt"
  check "not to be read" 403 "$(status "$base/1.txt")"
  chmod 600 "$root/1.txt"
fi
for climb in /../secret.txt /dir/../../secret.txt /%2e%2e/secret.txt /.%2E/secret.txt /dir/%2e%2e/%2e./x \
  /. /.. /%2e /%00 /small.txt%00.html /% /%4 /%zz; do
  check "$climb" 400 "$(status --path-as-is "$base$climb")"
done
head=$(head_of -d x "$base/small.txt")
check_has "POST" '^HTTP/1.1 405 Method Not Allowed$' "$head"
check_has "says what is allowed" '^Allow: GET, HEAD$' "$head"
for method in PUT DELETE OPTIONS PATCH TRACE; do
  check "$method" 405 "$(status -X $method "$base/small.txt")"
done
check "an unknown method" 501 "$(status -X BREW "$base/small.txt")"
check "a chunked body" 501 "$(status -H 'Transfer-Encoding: chunked' -d x "$base/small.txt")"
check "a large body" 413 "$(head -c 200000 /dev/zero | status -H Expect: --data-binary @- "$base/small.txt")"
check "a large body that waits" 413 \
  "$(head -c 2000000 /dev/zero | status -H 'Expect: 100-continue' --data-binary @- "$base/small.txt")"
codes='%{http_code} %{num_connects} '
check "a small body does no harm" "405 1 200 0 " "$(get -w "$codes" -o /dev/null -d hello "$base/1.txt" \
  --next -sS -m 60 -w "$codes" -o /dev/null "$base/1.txt")"
long=$(head -c 9000 /dev/zero | tr '\0' a)
check "a long target" 414 "$(status "$base/$long")"
check "a long field" 431 "$(status -H "X-Long: $long$long" "$base/")"
check "many fields" 431 \
  "$(awk 'BEGIN { for (i = 0; i < 150; i++) print "header = \"X-" i ": 1\"" }' | status -K - "$base/")"
check "an expectant small body" 405 "$(status -H 'Expect: 100-continue' -d x "$base/small.txt")"

# bad REQUEST: it is answered with 400.
bad() {
  check "$1" 400 "$(raw_status "$1")"
}
get="GET / HTTP/1.1\r\n${host}"
post="POST / HTTP/1.1\r\n${host}"
bad 'nonsense\r\n\r\n'
bad 'GET /\r\n\r\n'
bad 'GET / HTTP/1.1\r\n\r\n'
bad 'GET / HTTP/1.1\nHost: a\n\n'
bad "GET  / HTTP/1.1\r\n${host}\r\n"
bad "GET /\t HTTP/1.1\r\n${host}\r\n"
bad "GET / HTTP/1.1 \r\n${host}\r\n"
bad "GET / FTP/1.1\r\n${host}\r\n"
bad "GET * HTTP/1.1\r\n${host}${close}\r\n"
bad "GET /\303\251 HTTP/1.1\r\n${host}\r\n"
bad "${get}Host: b\r\n\r\n"
bad "${get} folded\r\n\r\n"
bad "${get}a : b\r\n\r\n"
bad "${get}no colon\r\n\r\n"
bad "${get}a: \000\r\n\r\n"
bad "${get}a: b\rc\r\n\r\n"
bad "${post}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"
bad "${post}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
bad "${post}Content-Length: -5\r\n\r\nhello"
bad '\026\003\001\002\000\001\000\001\374\003\003' # how TLS begins
check "HTTP/2" 505 "$(raw_status 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n')"
check "a refusal ends the connection" 1 \
  "$(raw 'nonsense\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n' | grep -c '^HTTP')"

# ---- Large files, and clients that vanish ------------------------------------------------------------------

get -o "$folder/one" "$base/big.bin" &
first=$!
get "$base/big.bin" | cmp - "$root/big.bin" || fail "100 MiB are not what was sent"
wait $first
check "100 MiB at the same time" "$(hash "$root/big.bin")" "$(hash "$folder/one")"
rm "$folder/one"

printf 'GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\nGET /1.txt' >"$folder/requests"
for _ in 1 2 3 4 5; do
  get "$base/big.bin" 2>/dev/null | head -c 100000 >/dev/null
  printf 'GET /big' | end_after_input "$port"
  vanish "$port" "$folder/requests"
done
check "the server is still there" "a small file" "$(get "$base/small.txt")"
if [ -d "/proc/$pid/fd" ]; then
  # shellcheck disable=SC2317
  few_descriptors() { [ "$(find "/proc/$pid/fd" -type l -lname "*/root/*" | wc -l)" -eq 0 ]; }
  eventually few_descriptors || fail "files stay open after their clients went away: $(ls -l "/proc/$pid/fd")"
fi

# ---- Load --------------------------------------------------------------------------------------------------

# load URL: some seconds of it. wrk's exit status says nothing, but its report does.
load() {
  report=$(wrk -t 1 -c 50 -d 1 "$1" 2>&1)
  check_has "wrk $1" '^Requests/sec:' "$report"
  check "errors under load of $1" "" "$(printf '%s\n' "$report" | grep 'Socket errors\|Non-2xx')"
}
if has wrk; then
  load "$base/small.txt"
  load "$base/middle.txt"
else
  echo "no wrk here: not tried under load"
fi
stop "$pid"

# ---- Time limits -------------------------------------------------------------------------------------------

start http --port 0 --root "$root" --idle-timeout 1
check "a silent client is sent away" "" "$(listen_to "$port")"
drip() {
  for piece in G E T ' ' / x y z; do
    printf '%s' "$piece"
    sleep 0.2
  done
}
check_has "a request that never ends is refused" '^HTTP/1.1 408 ' "$(drip | talk "$port")"
stop "$pid"

# ---- The graceful stop -------------------------------------------------------------------------------------

# idle_client NAME: asks for a file, gets it, and then keeps the connection without a word.
idle_client() {
  mkfifo "$folder/$1.says"
  talk "$port" <"$folder/$1.says" >"$folder/$1.hears" &
  pids="$pids $!"
  exec 4>"$folder/$1.says"
  printf 'GET /1.txt HTTP/1.1\r\nHost: a\r\n\r\n' >&4
  eventually test -s "$folder/$1.hears" || fail "the idle client $1 gets no answer"
}

start http --port 0 --root "$root"
curl -sS --limit-rate 120M -o "$folder/slow" "http://127.0.0.1:$port/big.bin" &
download=$!
idle_client first
eventually test -s "$folder/slow" || fail "the download does not start"
stop "$pid"
wait $download
check "a download during the stop" 0 $?
cmp "$root/big.bin" "$folder/slow" || fail "a download during the stop is not the file"

start http --port 0 --root "$root"
idle_client second
before=$(date +%s)
stop "$pid" INT
[ $(($(date +%s) - before)) -lt 5 ] || fail "an idle connection holds up the stop"
exec 4>&-

# The second signal does not wait for anybody.
start http --port 0 --root "$root"
curl -sS --limit-rate 1M -o "$folder/slower" "http://127.0.0.1:$port/big.bin" 2>/dev/null &
pids="$pids $!"
eventually test -s "$folder/slower" || fail "the slow download does not start"
kill -TERM "$pid"
before=$(date +%s)
sleep 0.2
stop "$pid"
[ $(($(date +%s) - before)) -lt 5 ] || fail "the second signal does not end the server at once"

# ---- Several threads ---------------------------------------------------------------------------------------

start http --port 0 --root "$root" --threads 4
base=http://127.0.0.1:$port
for client in 1 2 3 4 5 6 7 8; do
  check "client $client of four threads" "a small file" "$(get "$base/small.txt")"
done
if has wrk; then load "$base/small.txt"; fi
"$examples/http" --port "$port" --threads 2 --root "$root" 2>"$folder/said"
check "a second server does not share the port" 1 $?
stop "$pid"

# ---- The command line --------------------------------------------------------------------------------------

# refuses STATUS PATTERN OPTION...
refuses() {
  wanted=$1 pattern=$2
  shift 2
  "$examples/http" "$@" >"$folder/said" 2>&1
  check "exit status of http $*" "$wanted" $?
  check_has "http $*" "$pattern" "$(cat "$folder/said")"
}
refuses 2 "70000" --port 70000
refuses 2 "threads" --threads 0
refuses 2 "idle-timeout" --idle-timeout soon
refuses 2 "bogus" --bogus
refuses 2 "extra" extra
refuses 1 "no such" --root "$folder/none"
refuses 1 "irectory" --root "$root/small.txt"
refuses 0 "usage" --help
start http --port 0 --root "$root"
busy=$port
refuses 1 "in use" --port "$busy" --root "$root"
first=$pid
start http --port "$busy" --port-fallback --root "$root"
check_has "the server tells of another port" "$busy is in use" "$(cat "$folder/http.err")"
check "the other port works" "a small file" "$(get "http://127.0.0.1:$port/small.txt")"
stop "$pid"
stop "$first"
finish
