/* SPDX-License-Identifier: MIT
 *
 * Signal handlers against a model: thousands of random sequences of adding, removing, raising, running and
 * closing, on two loops, also from inside handlers. The model knows which call comes next, to the turn, and
 * whether a signal's disposition must be ours or the default at any moment.
 *
 * pollers: all
 */
#include <signal.h>

#include "harness.h"

enum { LOOPS = 2, SIGNALS = 3, SLOTS = 5, QUEUE = LOOPS * SIGNALS * SLOTS, SEQUENCES = 600, OPS = 60 };

static const int numbers[SIGNALS] = {SIGUSR1, SIGUSR2, SIGWINCH}; /* in the order of their numbers */

typedef struct slot {
  int loop, signal;
  bool present;
  unsigned order; /* of adding */
  bool queued;
} slot_t;

typedef struct model {
  env_t *env;
  aloop_t *loops[LOOPS];
  slot_t slots[LOOPS][SIGNALS][SLOTS];
  bool marked[LOOPS][SIGNALS]; /* arrived and not yet taken */
  bool written[LOOPS];         /* the wake-up is readable */
  slot_t *queue[LOOPS][QUEUE];
  int head[LOOPS], tail[LOOPS];
  unsigned order;
  unsigned random;
  int depth;
  long calls;
} model_t;

static model_t m;

static unsigned below(unsigned limit) {
  m.random = m.random * 1103515245 + 12345;
  return (m.random >> 16) % limit;
}

static int present(int loop, int signal) {
  int count = 0;
  for (int i = 0; i < SLOTS; i++) count += m.slots[loop][signal][i].present;
  return count;
}

static bool anybody(int signal) {
  return present(0, signal) + present(1, signal) > 0;
}

/* ---- What the model does --------------------------------------------------------------------------------- */

static void unqueue(slot_t *slot) {
  int kept = m.head[slot->loop];
  for (int i = kept; i < m.tail[slot->loop]; i++)
    if (m.queue[slot->loop][i] != slot) m.queue[slot->loop][kept++] = m.queue[slot->loop][i];
  m.tail[slot->loop] = kept;
  slot->queued = false;
}

/* With a loop's last handler goes its sink, with the last one for a signal the mark. */
static void forget(slot_t *slot) {
  slot->present = false;
  unqueue(slot);
  if (present(slot->loop, slot->signal) == 0) m.marked[slot->loop][slot->signal] = false;
  int left = 0;
  for (int i = 0; i < SIGNALS; i++) left += present(slot->loop, i);
  if (left == 0) m.written[slot->loop] = false;
}

static slot_t *next_after(int loop, int signal, unsigned order) {
  slot_t *next = NULL;
  for (int i = 0; i < SLOTS; i++) {
    slot_t *slot = &m.slots[loop][signal][i];
    if (slot->present && slot->order > order && (next == NULL || slot->order < next->order)) next = slot;
  }
  return next;
}

static void take_marks(int loop) {
  m.written[loop] = false;
  for (int i = 0; i < SIGNALS; i++) {
    if (!m.marked[loop][i]) continue;
    m.marked[loop][i] = false;
    for (slot_t *at = next_after(loop, i, 0); at != NULL; at = next_after(loop, i, at->order)) {
      if (at->queued) continue;
      at->queued = true;
      m.queue[loop][m.tail[loop]++] = at;
    }
  }
}

/* ---- What both do ---------------------------------------------------------------------------------------- */

static void act(void);

static void on_signal(aloop_t *loop, int signum, void *arg) {
  slot_t *slot = arg;
  assert_ptr_equal(loop, m.loops[slot->loop]);
  assert_int_equal(signum, numbers[slot->signal]);
  assert_true(slot->present);
  assert_true(m.head[slot->loop] < m.tail[slot->loop]);
  assert_ptr_equal(m.queue[slot->loop][m.head[slot->loop]], slot);
  m.head[slot->loop]++;
  slot->queued = false;
  m.calls++;
  m.depth++;
  if (m.depth < 3)
    for (unsigned n = below(3); n > 0; n--) act();
  m.depth--;
}

static slot_t *some_slot(void) {
  return &m.slots[below(LOOPS)][below(SIGNALS)][below(SLOTS)];
}

static void add(void) {
  slot_t *slot = some_slot();
  int rc = aloop_add_signal_handler(m.loops[slot->loop], numbers[slot->signal], on_signal, slot,
                                    below(4) == 0 ? ALOOP_SIGNAL_CHAIN : 0);
  assert_int_equal(rc, 0);
  if (!slot->present) slot->order = ++m.order;
  slot->present = true;
}

static void remove_one(void) {
  slot_t *slot = some_slot();
  int rc = aloop_remove_signal_handler(m.loops[slot->loop], numbers[slot->signal], on_signal, slot);
  assert_int_equal(rc, slot->present);
  if (slot->present) forget(slot);
}

static void remove_all(void) {
  int loop = (int)below(LOOPS), signal = (int)below(SIGNALS);
  int rc = aloop_remove_signal_handler(m.loops[loop], numbers[signal], NULL, NULL);
  assert_int_equal(rc, present(loop, signal));
  for (int i = 0; i < SLOTS; i++)
    if (m.slots[loop][signal][i].present) forget(&m.slots[loop][signal][i]);
}

static void arrive(void) {
  int signal = (int)below(SIGNALS);
  if (!anybody(signal)) return;
  raise(numbers[signal]);
  for (int i = 0; i < LOOPS; i++)
    if (present(i, signal) > 0) m.marked[i][signal] = m.written[i] = true;
}

static void run(void) {
  int loop = (int)below(LOOPS);
  if (m.depth > 0) return;
  bool heard = m.written[loop];
  if (below(16) == 0) aloop_stop(m.loops[loop]);
  int rc = aloop_run_once(m.loops[loop], 0);
  assert_true(rc >= 0);
  assert_int_equal(m.head[loop], m.tail[loop]); /* all that was queued has run, or was removed */
  m.head[loop] = m.tail[loop] = 0;
  /* The kernel was asked before the calls were made. */
  if (heard && m.written[loop]) take_marks(loop);
}

static void make_loop(int loop) {
  aloop_options_t options = {.size = sizeof options, .allocator = &m.env->allocator, .debug = 1};
  assert_int_equal(aloop_new(&options, &m.loops[loop]), 0);
  aloop_set_slow_callback_duration(m.loops[loop], ALOOP_SECONDS(3600));
}

static void end_loop(int loop) {
  aloop_free(m.loops[loop]);
  for (int i = 0; i < SIGNALS; i++)
    for (int j = 0; j < SLOTS; j++)
      if (m.slots[loop][i][j].present) forget(&m.slots[loop][i][j]);
}

static void close_and_begin_anew(void) {
  int loop = (int)below(LOOPS);
  if (m.depth > 0) return;
  end_loop(loop);
  make_loop(loop);
}

static void act(void) {
  static void (*const acts[])(void) = {
      add,    add,    add,    add, add, add, remove_one, remove_one, remove_all, arrive,
      arrive, arrive, arrive, run, run, run, run,        run,        run,        close_and_begin_anew};
  acts[below(sizeof acts / sizeof acts[0])]();
  for (int i = 0; i < SIGNALS; i++) {
    struct sigaction action;
    assert_int_equal(sigaction(numbers[i], NULL, &action), 0);
    assert_int_equal(action.sa_handler != SIG_DFL, anybody(i));
  }
}

static void random_sequences_go_as_the_model_says(void **state) {
  m.env = *state;
  m.calls = 0;
  for (unsigned i = 0; i < SEQUENCES; i++) {
    env_t *env = m.env;
    long calls = m.calls;
    m = (model_t){.env = env, .random = i * 7919 + 1, .calls = calls};
    for (int j = 0; j < LOOPS; j++) {
      for (int k = 0; k < SIGNALS * SLOTS; k++)
        m.slots[j][k / SLOTS][k % SLOTS] = (slot_t){.loop = j, .signal = k / SLOTS};
      make_loop(j);
    }
    for (int j = 0; j < OPS; j++) act();
    for (int j = 0; j < LOOPS; j++) end_loop(j);
  }
  assert_true(m.calls > SEQUENCES);
}

TESTS(T(random_sequences_go_as_the_model_says))
