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

prints future_set_after "hello ...
... world"

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

dates=$("$examples/display_date" 2)
check "exit status of display_date" 0 $?
check "dates shown in two seconds" 2 \
  "$(printf '%s\n' "$dates" | grep -c '^[0-9]*-[0-9][0-9]-[0-9][0-9] [0-9:]*$')"

for signal in INT TERM; do
  # A shell starts background programs with SIGINT ignored, and signalfd does not see ignored signals; env can
  # undo that.
  mkfifo "$folder/says"
  if env --default-signal=INT true 2>/dev/null; then
    env --default-signal=INT "$examples/stop_on_signal" >"$folder/says" &
  else
    [ $signal = TERM ] || { rm "$folder/says"; continue; }
    "$examples/stop_on_signal" >"$folder/says" &
  fi
  pid=$!
  pids="$pids $pid"
  exec 3<"$folder/says"
  IFS= read -r first <&3
  check_has "stop_on_signal" "^pid [0-9]*: press Ctrl-C" "$first"
  stop $pid $signal
  IFS= read -r second <&3
  check "stop_on_signal" "got SIG$signal: exit" "$second"
  rm "$folder/says"
done
finish
