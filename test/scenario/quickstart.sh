#!/bin/sh
# sh quickstart.sh BUILD SOURCE: what each of the quickstart examples prints.
. "$2/test/support/scenario.sh"

# prints NAME EXPECTED [ARGUMENT...]
prints() {
  name=$1 expected=$2
  shift 2
  output=$("$examples/$name" "$@" 2>&1)
  check "exit status of $name" 0 $?
  check "$name" "$expected" "$output"
}

prints hello_world "Hello World"

prints watch_fd "Received: abc"

missing=$(ls /zzz 2>&1)
code=$?
prints run_command "['ls /zzz' exited with $code]
[stderr]
$missing"

prints run_command "['echo hello; exit 3' exited with 3]
[stdout]
hello" 'echo hello; exit 3'

prints run_commands "APPLE
FIG
PEAR
'printf 'pear\\nfig\\napple\\n'' wrote 3 lines and exited with 0
'sort' wrote 3 lines and exited with 0
'tr a-z A-Z' wrote 3 lines and exited with 0"

# The last command does not read all: those before it are ended by the broken pipe, or told and exit.
check_has "a pipeline that ends early" "^'head -n 2' wrote 2 lines and exited with 0" \
  "$("$examples/run_commands" 'seq 1000000' 'cat' 'head -n 2' 2>/dev/null)"

prints subprocess_workers "one: done one
crash: end of file
two: done two
4 programs started" one crash two

prints sock_ops "$(printf 'HTTP/1.1 200 OK\r\nContent-Length: 13\r\nConnection: close\r\n\r')"

prints udp_client "try 1
try 2
The answer? 42"

prints future_set_after "hello ...
... world"

prints hello_task "hello
world
in 2 seconds"

prints tasks_and_timeouts "one: begins
one: given up before part 3, tidied up
one: ETIMEDOUT
two: ETIMEDOUT
three: begins
four: begins
four: given up before part 1, tidied up
four: changed my mind
three: no such file"

prints worker_thread "asked; meanwhile this thread does as it likes
2 * 2 = 4
3 * 3 = 9
4 * 4: cancelled"

prints run_in_executor "default thread pool: 100 random bytes
a pool of my own: 333332833333500000
the loop went on ticking"

prints gather "Task A: compute factorial(2), currently i=2
Task B: compute factorial(3), currently i=2
Task C: compute factorial(4), currently i=2
Task A: factorial(2) = 2
Task B: compute factorial(3), currently i=3
Task C: compute factorial(4), currently i=3
Task B: factorial(3) = 6
Task C: compute factorial(4), currently i=4
Task C: factorial(4) = 24
[2, 6, 24]"

prints async_generator "0
1
2
3
4
ticker: closed early
sum: 10"

prints worker_queue "20 jobs done by 3 workers
600 ms of sleep in less time"

primes=$("$examples/process_pool" | sed 's/process [0-9]*/process N/')
check "process_pool" "0 to 250000: 22044 primes
250000 to 500000: 19494 primes
worker process N was killed by signal 6 (SIGABRT) before its job was done; once more
500000 to 750000: 18700 primes
750000 to 1000000: 18260 primes
78498 primes below 1000000" "$primes"

# Which addresses localhost has, and whether they have a name, is the machine's affair.
found=$("$examples/resolve" -t 60 localhost 2>&1)
if [ $? -eq 0 ]; then
  check_has "resolve localhost" '^localhost has address \(127\.0\.0\.1\|::1\)$' "$found"
else
  check_has "resolve localhost" '^resolve: look up localhost: ' "$found"
fi
found=$("$examples/resolve" -t 60 127.0.0.1 2>&1)
if [ $? -eq 0 ]; then
  check_has "resolve 127.0.0.1" '^127\.0\.0\.1 is [a-z]' "$found"
else
  check_has "resolve 127.0.0.1" '^resolve: look up 127\.0\.0\.1: ' "$found"
fi
found=$("$examples/resolve" -t 0 localhost 2>&1)
check "exit status of resolve without time" 1 $?
check "resolve without time" "resolve: look up localhost: no answer after 0 ms" "$found"
for wrong in "" "-t" "-t soon localhost" "-t -1 localhost" "-t 1" "-x localhost"; do
  found=$("$examples/resolve" $wrong 2>&1)
  check "exit status of resolve $wrong" 2 $?
  check_has "resolve $wrong" "^usage: " "$found"
done

dates=$("$examples/display_date" 2)
check "exit status of display_date" 0 $?
check "dates shown in two seconds" 2 \
  "$(printf '%s\n' "$dates" | grep -c '^[0-9]*-[0-9][0-9]-[0-9][0-9] [0-9:]*$')"

# A shell starts background programs with SIGINT ignored. The handlers work all the same, and for as long as they are
# there only.
for signal in INT TERM; do
  mkfifo "$folder/says"
  "$examples/signals" >"$folder/says" &
  pid=$!
  pids="$pids $pid"
  exec 3<"$folder/says"
  IFS= read -r first <&3
  IFS= read -r second <&3
  check "signals" "Event loop running for 1 hour, press Ctrl+C to interrupt." "$first"
  check "signals" "pid $pid: send SIGINT or SIGTERM to exit." "$second"
  stop $pid $signal
  IFS= read -r third <&3
  check "signals" "got signal SIG$signal: exit" "$third"
  rm "$folder/says"
done

if has nc || has socat; then
  # A client that waits for its answer gets it, one that never asked is sent away.
  start graceful_shutdown
  printf 'hello\n' | talk "$port" >"$folder/hears" &
  asker=$!
  IFS= read -r line <&3
  check "graceful_shutdown" "working on hello" "$line"
  listen_to "$port" >"$folder/silence" &
  silent=$!
  stop "$pid"
  wait $asker
  check "what the client that asked hears" "HELLO" "$(cat "$folder/hears")"
  wait $silent
  check "what the client that did not ask hears" "" "$(cat "$folder/silence")"
  said=$(cat <&3)
  check_has "graceful_shutdown" "^SIGTERM: no new clients" "$said"
  check_has "graceful_shutdown" "^clients sent away: [01]$" "$said" # the silent one may have come too late
  check_has "graceful_shutdown" "^the backup is cancelled" "$said"
  check_has "graceful_shutdown" "^the threads have ended" "$said"

  # A second signal does not wait.
  start graceful_shutdown
  printf 'hello\n' | talk "$port" >"$folder/hears" &
  asker=$!
  IFS= read -r line <&3
  kill -INT "$pid"
  IFS= read -r line <&3
  check "the first signal" "SIGINT: no new clients" "$line"
  stop "$pid" INT
  wait $asker
  check "what a client hears from a server that ends at once" "" "$(cat "$folder/hears")"
  check "the second signal" "SIGINT: at once, then" "$(cat <&3)"
fi
finish
