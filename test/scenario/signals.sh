#!/bin/sh
# sh signals.sh BUILD SOURCE: signals to the example servers: what is under way is finished, the second signal does not
# wait, and stopping a process for a while (SIGSTOP) does it no harm. (threads: yes)
. "$2/test/support/scenario.sh"
need curl
need_talk

root=$folder/root
mkdir "$root"
echo "a small file" >"$root/small.txt"
head -c 16777216 /dev/urandom >"$root/big.bin"

# download RATE FILE: begins one in the background; sets $download.
download() {
  curl -sS -m 60 --limit-rate "$1" -o "$2" "http://127.0.0.1:$port/big.bin" 2>"$folder/curl.says" &
  download=$!
  pids="$pids $download"
  eventually test -s "$2" || fail "the download does not begin"
}

# shellcheck disable=SC2317
refused() {
  ! curl -s -m 20 -o "$folder/small" "http://127.0.0.1:$port/small.txt"
}

# ends_within SECONDS PID
ends_within() {
  before=$(date +%s)
  wait "$2"
  check "exit status of the server" 0 $?
  [ $(($(date +%s) - before)) -le "$1" ] || fail "the server takes more than $1 s to end"
}

# ---- Under way ---------------------------------------------------------------------------------------------

for signal in TERM INT; do
  for threads in 1 3; do
    start http --port 0 --root "$root" --threads $threads
    download 16M "$folder/file"
    kill -s $signal "$pid"
    eventually refused || fail "there are new connections after SIG$signal"
    wait "$download"
    check "exit status of the download after SIG$signal" 0 $?
    cmp "$root/big.bin" "$folder/file" || fail "what is downloaded after SIG$signal is not the file"
    ends_within 8 "$pid"
    rm -f "$folder/file"
  done
done

# ---- The second signal -------------------------------------------------------------------------------------

for second in INT TERM; do
  start http --port 0 --root "$root" --threads 2
  download 1M "$folder/file"
  kill -s TERM "$pid"
  eventually refused || fail "there are new connections after SIGTERM"
  kill -s $second "$pid"
  ends_within 5 "$pid"
  kill "$download" && wait "$download" 2>/dev/null
  rm -f "$folder/file"
done

# A storm of signals is as good as two. All of it comes while the server stands still: what comes when the server has
# closed its loop finds the disposition from before, which ends the process.
start tcp_echo --port 0
kill -s STOP "$pid"
for _ in 1 2 3 4 5 6 7 8 9 10; do
  kill -s INT "$pid"
  kill -s TERM "$pid"
done
kill -s CONT "$pid"
ends_within 5 "$pid"

# ---- SIGSTOP and SIGCONT -----------------------------------------------------------------------------------

start tcp_echo --port 0
for i in 1 2 3; do
  kill -s STOP "$pid"
  printf 'again %s' $i | end_after_input "$port" >"$folder/echo" &
  client=$!
  kill -s CONT "$pid"
  wait $client
  check "an echo after a while of standstill" "again $i" "$(cat "$folder/echo")"
done
stop "$pid"
finish
