#!/bin/sh
# sh unix.sh BUILD SOURCE: examples/servers/unix_echo with nc, socat and, for descriptors, Python as its clients.
. "$2/test/support/scenario.sh"
cd "$folder" || exit 1

# echo_to ADDRESS: standard input there and back. nc knows paths only.
if has nc && nc -h 2>&1 | grep -q -- '-N'; then
  echo_by_nc() { nc -N -w 20 -U "$1"; }
else
  echo_by_nc() { return 77; }
fi
echo_by_socat() { socat -t 20 - "$1"; }

# start_on [OPTION] PATH: sets $pid; the server's words are in $folder/said.
start_on() {
  rm -f said
  "$examples/unix_echo" "$@" >said 2>>unix_echo.err &
  pid=$!
  pids="$pids $pid"
  eventually grep -qs listening said || fail "unix_echo $* does not listen: $(cat unix_echo.err)"
}

head -c 4194304 /dev/urandom >sent
echo_by_nc nowhere </dev/null >/dev/null 2>&1
if [ $? != 77 ]; then
  start_on here
  check "by nc" "hello" "$(printf hello | echo_by_nc here)"
  echo_by_nc here <sent >received
  check "4 MiB by nc" "$(hash sent)" "$(hash received)"
  check_has "whose process" "^process .* of user $(id -u)\$" "$(cat said)"
  stop "$pid"
  [ ! -e here ] || fail "the file is still there"
fi

if has socat; then
  start_on here
  check "by socat" "hello" "$(printf hello | echo_by_socat UNIX-CONNECT:here)"
  echo_by_socat UNIX-CONNECT:here <sent >received
  check "4 MiB by socat" "$(hash sent)" "$(hash received)"
  stop "$pid" INT
  if [ "$(uname)" = Linux ]; then
    start_on "@aloop-scenario-$$"
    check "an abstract name" "hello" "$(printf hello | echo_by_socat "ABSTRACT-CONNECT:aloop-scenario-$$")"
    stop "$pid"
  fi
fi

# await_silence ADDRESS: nobody answers any more. The kernel may need a moment to end what a killed process had asked
# of io_uring.
await_silence() {
  has socat || return 0
  for _ in $(seq 100); do
    echo | socat -u - "$1" 2>/dev/null || return 0
  done
}

# A server that is alive is not replaced, a dead one is, and a file that is no socket never.
start_on here
"$examples/unix_echo" here 2>why
check "exit status for a living server's path" 1 $?
check_has "the message" "here: another socket" "$(cat why)"
kill -KILL "$pid"
wait "$pid" 2>/dev/null
[ -S here ] || fail "a killed server leaves its file"
await_silence UNIX-CONNECT:here
start_on here
stop "$pid"
echo precious >file
"$examples/unix_echo" file 2>why
check "exit status for a file's path" 1 $?
check "the file" precious "$(cat file)"
long=$(printf '%0200d' 0)
"$examples/unix_echo" "$long" 2>why
check "exit status for a long path" 1 $?
check_has "the limit" "at most 10[0-9]" "$(cat why)"

# Datagrams: a client has a name of its own, so that it can be answered. nc makes one.
long=$(head -c 9000 /dev/zero | tr '\0' 'x')
start_on --datagram here
if has socat; then
  check "a datagram by socat" "hello" "$(printf hello | socat -T 1 - UNIX-SENDTO:here,bind=mine)"
  rm -f mine
  check "9000 bytes in one datagram" "$long" "$(printf '%s' "$long" | socat -b 20000 -T 1 - UNIX-SENDTO:here,bind=mine)"
  rm -f mine
  check "no answer without a name" "" "$(printf hello | socat -T 1 - UNIX-SENDTO:here)"
fi
if has nc && nc -h 2>&1 | grep -q -- '-N'; then
  check "a datagram by nc" "hello" "$(printf hello | nc -w 1 -u -U here)"
fi
"$examples/unix_echo" --datagram here 2>why
check "exit status for a living endpoint's path" 1 $?
check_has "the message" "here: another socket" "$(cat why)"
kill -KILL "$pid"
wait "$pid" 2>/dev/null
[ -S here ] || fail "a killed endpoint leaves its file"
await_silence UNIX-SENDTO:here
start_on --datagram here
stop "$pid"
[ ! -e here ] || fail "the file of datagrams is still there"
if has socat && [ "$(uname)" = Linux ]; then
  start_on --datagram "@aloop-scenario-$$"
  check "an abstract name" "hello" \
    "$(printf hello | socat -T 1 - "ABSTRACT-SENDTO:aloop-scenario-$$,bind=aloop-client-$$")"
  stop "$pid"
fi

# Messages; their type has the number 5 on Linux and the BSDs.
if has socat && [ "$(uname)" = Linux ]; then
  start_on --seqpacket here
  check "a message by socat" "hello" "$(printf hello | socat -t 1 - UNIX-CONNECT:here,type=5)"
  stop "$pid"
  [ ! -e here ] || fail "the file of messages is still there"
fi
if has python3 && [ "$(uname)" = Linux ]; then
  start_on --seqpacket here
  check "messages stay apart" "[b'one', b'', b'three']" "$(python3 - <<'PROGRAM'
import socket
peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
peer.connect('here')
for word in (b'one', b'', b'three'):
    peer.send(word)
print([peer.recv(100) for i in range(3)])
PROGRAM
)"
  stop "$pid"
fi

if has python3; then
  start_on here
  check "descriptors there and back" "2 [b'one', b'two']" "$(python3 - <<'PROGRAM'
import os, socket
peer = socket.socket(socket.AF_UNIX)
peer.connect('here')
fds = []
for word in (b'one', b'two'):
    out, into = os.pipe()
    os.write(into, word)
    fds.append(out)
socket.send_fds(peer, [b'take'], fds)
data, back, flags, address = socket.recv_fds(peer, 10, 10)
print(len(back), [os.read(fd, 10) for fd in back])
PROGRAM
)"
  stop "$pid"
fi
finish
