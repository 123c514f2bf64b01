#!/bin/sh
# sh coroutines.sh BUILD SOURCE: what the unit tests of coroutines cannot see from inside. They pass with ucontext alone,
# and, where a cross compiler and qemu are there, on aarch64; gdb walks the frames of a suspended call to the
# coroutine's first; C++ exceptions pass through frames that were suspended; valgrind has nothing to say. What is
# missing is skipped.
set -eu
source=$2
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
trap 'exit 1' HUP INT TERM
cd "$temporary"
LC_ALL=C
export LC_ALL
done=0

fail() {
  echo "coroutines: $*" >&2
  exit 1
}

has() {
  command -v "$1" >/dev/null 2>&1
}

# What is built here needs no more of the system than this.
defines="-D_GNU_SOURCE -DALOOP_HAVE_PPOLL=1 -DALOOP_HAVE_UCONTEXT=1"
flags="-std=c11 -O1 -g $defines -I$source/include -I$source/src"
[ "$(uname)" = Linux ] || flags="-std=c11 -O1 -g -I$source/include -I$source/src"

# compile COMPILER FOLDER "FLAGS" FILE...
compile() {
  compiler=$1 folder=$2 more=$3
  shift 3
  mkdir -p "$folder"
  for file in "$@"; do
    # shellcheck disable=SC2086
    "$compiler" $flags $more -c "$file" -o "$folder/$(basename "$file" .c).o" || fail "$folder: $file does not compile"
  done
}

# rooms COMPILER: what lies below tasks, once per compiler.
rooms() {
  compile "$1" "rooms-$1" "" "$source"/src/core/*.c "$source"/src/poller/*.c "$source"/src/future/*.c
}

cat >program.c <<'END'
#include <fenv.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include "task/coroutine.h"
static int count;
static void stop_here(aloop__coroutine_t *self) { aloop__coroutine_suspend(self); }
static void run_it(aloop__coroutine_t *self, void *arg) {
  double kept[12];
  jmp_buf back;
  for (int i = 0; i < 12; i++) kept[i] = i + *(int *)arg;
  fesetround(FE_UPWARD);
  while (setjmp(back) == 0) {
    stop_here(self);
    count++;
    longjmp(back, 1);
  }
  for (int i = 0; i < 12; i++) count += (int)kept[i];
  if (fegetround() != FE_UPWARD) count = -1000;
}
int main(void) {
  aloop_t *loop;
  if (aloop_new(NULL, &loop) < 0) return 1;
  for (const aloop__switch_t *const *way = aloop__switch_ways(); *way != NULL; way++) {
    aloop__stacks_t stacks;
    aloop__stacks_init(&stacks, loop);
    stacks.how = *way;
    for (int i = 0; i < 200; i++) {
      aloop__coroutine_t *one, *two;
      int first = 1, second = 2;
      count = 0;
      if (aloop__coroutine_new(&stacks, 0, run_it, &first, &one) < 0) return 2;
      if (aloop__coroutine_new(&stacks, 0, run_it, &second, &two) < 0) return 2;
      aloop__coroutine_resume(one);
      aloop__coroutine_resume(two);
      if (fegetround() != FE_TONEAREST) return 3;
      aloop__coroutine_resume(one);
      aloop__coroutine_resume(two);
      if (!aloop__coroutine_ended(one) || !aloop__coroutine_ended(two) || count != 2 + 2 * 66 + 36) return 4;
      aloop__coroutine_free(one);
      aloop__coroutine_free(two);
    }
    aloop__stacks_close(&stacks);
    printf("%s ", (*way)->name);
  }
  aloop_free(loop);
  return 0;
}
END

# program COMPILER NAME EXPECTED RUNNER FLAGS
program() {
  compile "$1" "$2" "$5" "$source/src/task/switch.c" "$source/src/task/stacks.c" "$source/src/task/coroutine.c"
  # shellcheck disable=SC2086
  "$1" $flags $5 program.c "$2"/*.o "rooms-$1"/*.o -o "$2/program" -lpthread -lm || fail "$2: does not link"
  # shellcheck disable=SC2086
  said=$($4 "$2/program") || fail "$2: the program ends with $?"
  [ "$said" = "$3" ] || fail "$2: ran with \"$said\", not \"$3\""
  done=$((done + 1))
}

rooms cc
case $(uname -m) in
x86_64 | aarch64 | arm64) program cc native "assembly ucontext " "" "" ;;
esac
program cc ucontext "ucontext " "" -DALOOP_UCONTEXT=1

if has aarch64-linux-gnu-gcc && has qemu-aarch64; then
  rooms aarch64-linux-gnu-gcc
  program aarch64-linux-gnu-gcc aarch64 "assembly ucontext " qemu-aarch64 -static
  program aarch64-linux-gnu-gcc aarch64-guarded "assembly ucontext " qemu-aarch64 "-static -mbranch-protection=standard"
fi

if has valgrind && [ -x native/program ] && [ -e /usr/include/valgrind/memcheck.h ]; then
  program cc watched "assembly ucontext " "valgrind -q --error-exitcode=9" -DALOOP_HAVE_VALGRIND=1
fi

if has gdb && [ -x native/program ]; then
  frames=$(gdb -batch -nx -ex 'break stop_here' -ex run -ex 'break aloop__switch_assembly' -ex continue -ex 'stepi 12' -ex bt \
    native/program 2>&1) || frames=
  case $frames in
  *"ptrace"* | "") ;; # not allowed here
  *"stop_here"*"run_it"*"switch_entry"*) # of aloop__switch_entry, which gdb takes for a name of Ada
    case $frames in
    *"Backtrace stopped"* | *"switch_entry"*"main ("*) fail "gdb does not stop at the first frame: $frames" ;;
    esac
    done=$((done + 1))
    ;;
  *) fail "gdb does not see the frames: $frames" ;;
  esac
fi

if has c++ && [ -x native/program ]; then
  cat >throws.cc <<'END'
#include <cstdio>
#include <stdexcept>
extern "C" {
typedef struct aloop__coroutine aloop__coroutine_t;
void aloop__coroutine_suspend(aloop__coroutine_t *self);
void run_throwing(aloop__coroutine_t *self, void *arg);
}
struct counted {
  int *count;
  ~counted() { ++*count; }
};
static void throw_later(aloop__coroutine_t *self, int *count, int depth) {
  counted here{count};
  if (depth > 0) return throw_later(self, count, depth - 1);
  aloop__coroutine_suspend(self);
  throw std::runtime_error("thrown");
}
void run_throwing(aloop__coroutine_t *self, void *arg) {
  int *count = static_cast<int *>(arg);
  for (int i = 0; i < 3; i++) {
    try {
      throw_later(self, count, 9);
    } catch (const std::exception &) {
      *count += 100;
    }
  }
}
END
  cat >catches.c <<'END'
#include "task/coroutine.h"
void run_throwing(aloop__coroutine_t *self, void *arg);
int main(void) {
  aloop_t *loop;
  if (aloop_new(NULL, &loop) < 0) return 1;
  aloop__stacks_t stacks;
  aloop__stacks_init(&stacks, loop);
  aloop__coroutine_t *one, *two;
  int first = 0, second = 0;
  if (aloop__coroutine_new(&stacks, 0, run_throwing, &first, &one) < 0) return 2;
  if (aloop__coroutine_new(&stacks, 0, run_throwing, &second, &two) < 0) return 2;
  while (!aloop__coroutine_ended(one)) {
    aloop__coroutine_resume(one);
    aloop__coroutine_resume(two);
  }
  int right = first == 330 && second == 330 && aloop__coroutine_ended(two);
  aloop__coroutine_free(one);
  aloop__coroutine_free(two);
  aloop__stacks_close(&stacks);
  aloop_free(loop);
  return right ? 0 : 3;
}
END
  # shellcheck disable=SC2086
  if ! { cc $flags -c catches.c -o catches.o && c++ -O1 -g -c throws.cc -o throws.o &&
    c++ catches.o throws.o native/*.o rooms-cc/*.o -o throws -lpthread; }; then
    fail "the C++ program does not compile"
  fi
  ./throws || fail "exceptions: the program ends with $?"
  done=$((done + 1))
fi
echo "coroutines: $done kinds of program ran"
