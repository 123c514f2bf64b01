#!/bin/sh
# sh misuse.sh BUILD SOURCE: every function of aloop.h is called wrongly by some test/unit/test_misuse_*.c, or has a line
# with the reason in misuse.txt. The plain form and the one with _from count as one, because a macro hides the plain one.
set -eu
cd "$2"
LC_ALL=C
export LC_ALL
list=test/package/misuse.txt
status=0

called=$(cat test/unit/test_misuse_*.c | grep -o '\<aloop_[a-z_0-9]*\>' | sed 's/_from$//' | sort -u)
declared=$(awk '/^ALOOP_API / { sub(/[(].*/, ""); sub(/.*[ *]/, ""); sub(/_from$/, ""); print }' include/aloop.h | sort -u)
for name in $declared; do
  if printf '%s\n' "$called" | grep -qx "$name"; then
    if grep -q "^$name never " $list; then
      echo "$list: $name is called by a test now: remove its line" >&2
      status=1
    fi
  elif ! grep -q "^$name never [^ ]" $list; then
    echo "misuse: $name is misused by no test/unit/test_misuse_*.c, and $list does not say why" >&2
    status=1
  fi
done
exit $status
