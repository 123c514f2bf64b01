#!/bin/sh
# sh chat.sh BUILD SOURCE: examples/servers/chat, with listeners of whom one does not listen.
. "$2/test/support/scenario.sh"
need_talk

# join NAME: somebody who says what is written to descriptor 4, 5, ... of $folder/NAME.says, and hears into $folder/NAME.
join() {
  mkfifo "$folder/$1.says"
  end_after_input "$port" <"$folder/$1.says" >"$folder/$1" &
  pids="$pids $!"
}
heard() {
  grep -q -- "$2" "$folder/$1"
}
hears() {
  eventually heard "$1" "$2" || fail "$1 does not hear \"$2\" but: $(tail -n 3 "$folder/$1")"
}

start chat --port 0
chat_pid=$pid
before=$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$pid/status" 2>/dev/null)

# What joe hears is not read by anybody, so he stops reading, too. He comes first: a process holds open what was open
# when it began, and the others want to leave.
# shellcheck disable=SC2216
talk "$port" </dev/null | sleep 60 &
joe=$!
pids="$pids $joe"
join ann
exec 4>"$folder/ann.says"
# Who comes next is announced to who is there; so ann has to be there.
# shellcheck disable=SC2317
ann_hears_another() { end_after_input "$port" </dev/null >/dev/null && heard ann 'has come'; }
eventually ann_hears_another || fail "nobody comes"
join bob
exec 5>"$folder/bob.says"
hears ann ' has come$'
echo "anybody there?" >&5
hears ann '[0-9]: anybody there?$'
echo "two" >&4
hears bob '[0-9]: two$'
heard ann ': two$' && fail "ann hears herself"
printf 'half' >&4
printf ' a line\nand another\n' >&4
hears bob ': half a line$'
hears bob ': and another$'
printf '%01500d\n' 7 >&4
hears bob ': 0*7$'
check "a long line is cut" "1000 500" \
  "$(sed -n 's/^[0-9]*: \(00*7*\)$/\1/p' "$folder/bob" | awk '{ printf "%s%s", sep, length; sep = " " }')"

# Joe is dropped when his share of memory is used up, and the others miss nothing. A piece is no longer than that share,
# and sent when bob has the one before it: he is no laggard.
awk 'BEGIN { for (i = 0; i < 1500; i++) printf "%0127d\n", i }' >"$folder/piece"
pieces=0
# shellcheck disable=SC2317
bob_has_all() { tail -n 1 "$folder/bob" | grep -q ": end of $pieces$\|did not listen$"; }
until heard bob ' did not listen$' || [ $pieces -ge 200 ]; do
  pieces=$((pieces + 1))
  { cat "$folder/piece" && echo "end of $pieces"; } >&4
  eventually bob_has_all || break
done
hears bob ' did not listen$'
hears bob ": end of $pieces$"
check "the lines that bob hears meanwhile" $((pieces * 1500)) "$(grep -c ': [0-9]\{127\}$' "$folder/bob")"
if [ -n "$before" ]; then
  after=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$chat_pid/status")
  [ $((after - before)) -lt 16384 ] || fail "the server grew by $((after - before)) KiB for somebody who did not listen"
fi
kill -KILL $joe
echo "still here" >&5
hears ann ': still here$'

bob=$(sed -n 's/^\([0-9]*\): still here$/\1/p' "$folder/ann")
exec 5>&-
hears ann "^\* $bob has gone\$"
exec 4>&-
stop "$chat_pid"

start chat --port 0
stop "$pid" INT
"$examples/chat" --port banana 2>"$folder/said"
check "exit status for a wrong port" 2 $?
check_has "the message for a wrong port" "--port" "$(cat "$folder/said")"
finish
