# What the scenario scripts share. Each starts with:
#
#     . "$2/test/support/scenario.sh"
#
# and gets: $examples (where the programs are), $folder (its own, removed at the end), and the functions below.
# A failed check is reported and counted, and the script goes on; `finish` says how it ended.
set -u
examples=$1/examples
folder=$(mktemp -d "${TMPDIR:-/tmp}/aloop-scenario-XXXXXX") || exit 1
pids=
failures=0
LC_ALL=C
export LC_ALL

clean_up() {
  # shellcheck disable=SC2086
  [ -z "$pids" ] || kill -KILL $pids 2>/dev/null
  chmod -R u+rwX "$folder"
  rm -rf "$folder"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM

has() {
  command -v "$1" >/dev/null 2>&1
}

# need TOOL...: skips the whole script if one of them is not here.
need() {
  for tool in "$@"; do
    has "$tool" && continue
    echo "skipped: $tool is not here"
    exit 77
  done
}

fail() {
  echo "FAIL: $*" >&2
  failures=$((failures + 1))
}

# check WHAT EXPECTED ACTUAL
check() {
  [ "$2" = "$3" ] || fail "$1: expected \"$2\", got \"$3\""
}

# check_has WHAT PATTERN TEXT: some line of the text matches the basic regular expression.
check_has() {
  printf '%s\n' "$3" | grep -q -- "$2" || fail "$1: no line matches \"$2\" in: $3"
}

# start PROGRAM [OPTION...]: runs an example server, or that of another path, and waits until it listens; sets $pid and
# $port. Its other output is in $folder/PROGRAM.err.
start() {
  case $1 in
  */*) program=${1##*/} path=$1 ;;
  *) program=$1 path=$examples/$1 ;;
  esac
  shift
  rm -f "$folder/started"
  mkfifo "$folder/started"
  "$path" "$@" >"$folder/started" 2>>"$folder/$program.err" 3<&- &
  pid=$!
  pids="$pids $pid"
  exec 3<"$folder/started"
  line=
  IFS= read -r line <&3
  port=$(printf '%s\n' "$line" | sed -n 's/.*:\([0-9][0-9]*\).*/\1/p')
  if [ -z "$port" ]; then
    fail "$program $* does not listen; it says: $line $(cat "$folder/$program.err")"
    finish
  fi
}

# stop PID [SIGNAL]: ends a server by a signal, which must leave no error behind.
stop() {
  kill -s "${2:-TERM}" "$1"
  wait "$1"
  check "exit status after ${2:-TERM}" 0 $?
}

# eventually COMMAND...: until it succeeds, at most some seconds.
eventually() {
  tries=0
  until "$@"; do
    tries=$((tries + 1))
    [ $tries -lt 200 ] || return 1
    sleep 0.05
  done
}

# say_until TEXT FILE...: the text, and the end as soon as one of the files is not empty: a client that leaves once it
# has got what it came for.
say_until() {
  printf '%s\n' "$1"
  shift
  some_has_come() {
    for file in "$@"; do [ ! -s "$file" ] || return 0; done
    return 1
  }
  eventually some_has_come "$@"
}

# talk PORT: standard input to the server, its answer to standard output, until the server closes.
# end_after_input also tells the server that no more will come; listen_to says nothing at all.
if has nc && nc -h 2>&1 | grep -q -- '-N'; then
  talk() { nc -w 20 127.0.0.1 "$1"; }
  end_after_input() { nc -N -w 20 127.0.0.1 "$1"; }
  listen_to() { nc -d -w 20 127.0.0.1 "$1"; }
else
  talk() { socat -t 20 -,ignoreeof TCP:127.0.0.1:"$1"; }
  end_after_input() { socat -t 20 - TCP:127.0.0.1:"$1"; }
  listen_to() { socat -u -T 20 TCP:127.0.0.1:"$1" -; }
fi

# vanish PORT [FILE]: a client that sends FILE (all the zeros there are), and is killed as soon as it got an answer.
vanish() {
  rm -f "$folder/vanishing"
  mkfifo "$folder/vanishing"
  talk "$1" <"${2:-/dev/zero}" >"$folder/vanishing" 2>/dev/null &
  client=$!
  head -c 1000 <"$folder/vanishing" >/dev/null
  kill -KILL $client 2>/dev/null
  wait $client 2>/dev/null
}

# need_talk: skips the script if there is neither an nc that can half-close nor socat.
need_talk() {
  { has nc && nc -h 2>&1 | grep -q -- '-N'; } || need socat
}

# hash FILE...: of the contents of all of them, one after the other.
hash() {
  if has sha1sum; then cat "$@" | sha1sum; else cat "$@" | cksum; fi
}

# Reports what went wrong, with what the servers said, and ends the script.
finish() {
  if [ "$failures" -gt 0 ]; then
    for said in "$folder"/*.err; do
      [ ! -s "$said" ] || sed "s|^|$(basename "$said" .err): |" "$said" >&2
    done
    echo "$failures checks failed on ${ALOOP_POLLER:-the default poller}" >&2
    exit 1
  fi
  exit 0
}
