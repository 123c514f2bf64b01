#!/bin/sh
# sh stdin_echo.sh BUILD SOURCE: standard streams of every kind, and what becomes of those who share them.
. "$2/test/support/scenario.sh"
echo_lines=$examples/stdin_echo

printf 'one\ntwo\nthree' >"$folder/input"
numbered="     1  one
     2  two
     3  three"
seq 200000 >"$folder/long"
awk '{ printf "%6d  %s\n", NR, $0 }' "$folder/long" >"$folder/long.expected"

# same NAME EXPECTED_FILE ACTUAL_FILE
same() {
  cmp -s "$2" "$3" || fail "$1: $3 differs from $2"
}

# Input: a file, a pipe, /dev/null, a file that is already read in part, a FIFO, an endless device.
check "from a file" "$numbered" "$("$echo_lines" <"$folder/input")"
check "from a pipe" "$numbered" "$(cat "$folder/input" | "$echo_lines")"
check "from /dev/null" "" "$("$echo_lines" </dev/null)"
check "from an empty pipe" "" "$(true | "$echo_lines")"
check "from where the one before stopped" "     1  two
     2  three" "$({ read -r _ && "$echo_lines"; } <"$folder/input")"
mkfifo "$folder/fifo"
cat "$folder/input" >"$folder/fifo" &
check "from a FIFO" "$numbered" "$("$echo_lines" <"$folder/fifo")"
count=$({ "$echo_lines" </dev/zero; echo $? >"$folder/status"; } | head -c 9 | wc -c)
check "from an endless device, until nobody reads" 9 $((count))
check "exit status when nobody reads" 0 "$(cat "$folder/status")"

# Output: a file, appended to a file, a FIFO, /dev/null.
"$echo_lines" <"$folder/long" >"$folder/out"
check "exit status to a file" 0 $?
same "to a file" "$folder/long.expected" "$folder/out"
{ echo head; "$echo_lines" <"$folder/input"; echo; echo tail; } >"$folder/out"
check "between others in one file" "head
$numbered
tail" "$(cat "$folder/out")"
echo first >"$folder/out"
"$echo_lines" <"$folder/input" >>"$folder/out"
check "appended to a file" "first
$numbered" "$(cat "$folder/out")"
"$echo_lines" <"$folder/long" >/dev/null
check "exit status to /dev/null" 0 $?
"$echo_lines" <"$folder/long" | cat >"$folder/out"
same "from a file to a pipe" "$folder/long.expected" "$folder/out"
cat "$folder/long" | "$echo_lines" >"$folder/out"
same "from a pipe to a file" "$folder/long.expected" "$folder/out"
cat "$folder/long" | "$echo_lines" | { sleep 0.2; cat; } >"$folder/out"
same "to a slow reader" "$folder/long.expected" "$folder/out"
cat "$folder/input" | "$echo_lines" >"$folder/fifo" &
check "to a FIFO" "$numbered" "$(cat "$folder/fifo")"

# Two programs read one pipe after the other and write one pipe together: neither finds it non-blocking.
{
  cat "$folder/long" | "$echo_lines"
  status=$?
  seq 100000 || echo "the pipe was left non-blocking" >&2
  exit $status
} 2>"$folder/shared.err" | { sleep 0.2; cat; } >"$folder/out"
seq 100000 | cat "$folder/long.expected" - >"$folder/expected"
same "a shared output" "$folder/expected" "$folder/out"
check "complaints of those who share it" "" "$(cat "$folder/shared.err")"

# A reader that leaves is no failure, and no signal.
{ "$echo_lines" <"$folder/long"; echo $? >"$folder/status"; } | head -n 1 >/dev/null
check "exit status when the reader leaves" 0 "$(cat "$folder/status")"

# What cannot be a stream is named.
"$echo_lines" </ 2>"$folder/said" >/dev/null
check "exit status for a directory" 1 $?
check "what it says of a directory" "stdin_echo: fd 0 is a directory" "$(cat "$folder/said")"
"$echo_lines" <"$folder/input" 3>/dev/null 1<"$folder/input" 2>"$folder/said"
check_has "what it says of the wrong direction" "fd 1 is not open for writing" "$(cat "$folder/said")"

# Sockets and terminals, where socat can make them.
if has socat; then
  check "on sockets" "$numbered" "$(socat -t 10 - EXEC:"$echo_lines" <"$folder/input")"
  socat -t 0.1 - EXEC:"$echo_lines",pty,raw,echo=0 <"$folder/fifo" >"$folder/out" 2>/dev/null &
  pid=$!
  exec 4>"$folder/fifo"
  echo typed >&4
  eventually grep -q typed "$folder/out"
  check "on a terminal" "     1  typed" "$(tr -d '\r' <"$folder/out")"
  exec 4>&-
  wait $pid
fi
finish
