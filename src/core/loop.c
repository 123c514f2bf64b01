/* SPDX-License-Identifier: MIT
 *
 * The loop: its life, and the turn.
 *
 * One turn is the seven steps of `turn` below, in that order; each is a function of that name. Its promises:
 * - Only what was ready when step 6 began is run; what callbacks add waits for the next turn, so no turn is
 *   endless.
 * - Order within a turn: callbacks scheduled before it, posts of other threads, I/O (reader before writer),
 *   timers by deadline.
 * - While callbacks keep callbacks coming, most turns do not ask the kernel at all (a system call costs more
 *   than fifty callbacks), but I/O and timers are looked at after at most 20 microseconds. Looking at a clock
 *   every turn would cost as much as two callbacks, so it is looked at again after half of the turns that would
 *   still fit, if they were like the last ones, and after 64 at most; callbacks that are suddenly slow are
 *   noticed then.
 * - A stop ends the run after the batch; a stop with error ends it after the current callback and leaves the
 *   rest queued.
 *
 * A callback costs a few nanoseconds, so what is rare is not asked for with each. Two words say how far common
 * callbacks may go on: `run_end` to the end of the batch, `look_up` to the turn after which the loop looks
 * around. Whatever has to be seen sooner lowers one of them or both: a stop, writes put off until the turn is
 * over, debug mode, the first variable, lack of memory. What is left of the batch then runs carefully.
 *
 * A turn with one event costs 77 instructions: 18 to wait, the C library's among them, 23 to find and call its
 * watch, 36 for clocks, counters and to see that nothing else is to do. So an echo, which itself takes 94, has
 * 171 where each turn brings one and 117 where it brings fifty.
 *
 * The loop's memory is counted: its owner holds it until aloop_free, every object made on it as well.
 */
#include "core/loop.h"

#include <stdlib.h>
#include <string.h>

#include "core/clock.h"
#include "core/express.h"
#include "core/memory.h"
#include "core/report.h"
#include "poller/poller.h"

enum { BATCH = 256, STRIDE_MAX = 64, STALE_POLLS_MAX = 64 };

#define DEFAULT_SLOW ALOOP_MILLIS(100)

/* ---- Guards ---------------------------------------------------------------------------------------------- */

#define NO_LOOP "the loop is NULL"

bool aloop__loop_runs_here(const aloop_t *loop) {
  return aloop__loop_is_running(loop) &&
         (loop->fork_generation == aloop__current_forks_seen() || aloop_running_loop() == loop);
}

int aloop__loop_thread(aloop_t *loop) {
  if (ALOOP_UNLIKELY(loop == NULL)) return aloop__misuse(NULL, ALOOP_EINVAL, NO_LOOP);
  if (ALOOP_LIKELY((loop->guard & ALOOP__GUARD_DEBUG) == 0)) return 0;
  if (!aloop__loop_runs_here(loop) || pthread_equal(loop->thread, pthread_self())) return 0;
  return aloop__misuse(loop, ALOOP_ENOTLOOPTHREAD,
                       "called from a thread that does not run this loop; use aloop_call_soon_threadsafe");
}

int aloop__loop_enter(aloop_t *loop) {
  if (ALOOP_UNLIKELY(loop == NULL)) return aloop__misuse(NULL, ALOOP_EINVAL, NO_LOOP);
  if (ALOOP_LIKELY(loop->guard == 0)) return 0;
  if (loop->guard & ALOOP__GUARD_CLOSED) return aloop__misuse(loop, ALOOP_ECLOSED, "the loop is closed");
  return aloop__loop_thread(loop);
}

/* ---- Life ------------------------------------------------------------------------------------------------ */

void aloop__loop_vanish(aloop_t *loop) {
  aloop__mailbox_free(loop);
  aloop__memory_release(loop, loop->lag);
  aloop__memory_release(loop, loop);
}

static bool debug_wanted(int option) {
  if (option != 0) return option > 0;
  const char *set = getenv("ALOOP_DEBUG");
  return set != NULL && *set != '\0' && strcmp(set, "0") != 0;
}

static const aloop_poller_t *choose_poller(const aloop_options_t *options) {
  const char *name = options->poller;
  if (options->poller_table != NULL) return options->poller_table;
  if (name == NULL) name = getenv("ALOOP_POLLER");
  if (name != NULL && *name == '\0') name = NULL;
  return aloop_poller_find(name);
}

/* The table is read where it is, so it has to be as long as ours. */
static bool is_complete_poller(const aloop_poller_t *table) {
  return table->size >= sizeof *table && table->name != NULL && table->open != NULL && table->close != NULL &&
         table->update != NULL && table->wait != NULL;
}

/* The options in force. Returns NULL, or the rule that the caller has broken. */
static const char *take_options(const aloop_options_t *given, aloop_options_t *options,
                                aloop_allocator_t *allocator) {
  if (given != NULL && aloop__memory_copy_options(options, sizeof *options, given) < 0)
    return "set options.size to sizeof(aloop_options_t) and nothing behind it";
  aloop__current_adjust(options);
  if (options->allocator != NULL &&
      aloop__memory_copy_options(allocator, sizeof *allocator, options->allocator) < 0)
    return "set allocator.size to sizeof(aloop_allocator_t) and nothing behind it";
  if (allocator->resize == NULL || allocator->release == NULL) return "an allocator has both its functions set";
  if (options->poller_table != NULL && !is_complete_poller(options->poller_table))
    return "a poller table has its size, its name, and open, close, update and wait set";
  if (options->slow_callback_duration < 0) return "options.slow_callback_duration is negative";
  return NULL;
}

/* A poller that is more than the kernel offers gives way to the usual one. */
static int open_poller(aloop_t *loop) {
  int rc = loop->poller->open(loop->poller_arg, &loop->allocator, &loop->poller_state);
  if (rc != ALOOP_ENOTSUP) return rc;
  loop->poller_reason = aloop__poller_missing(loop->poller);
  if (loop->poller_reason == NULL) return rc;
  loop->poller = aloop_poller_find(NULL);
  return loop->poller->open(loop->poller_arg, &loop->allocator, &loop->poller_state);
}

/* Poller and wake-up descriptor. */
static int open_descriptors(aloop_t *loop) {
  int rc = open_poller(loop);
  if (rc < 0) return rc;
  rc = aloop__wake_open(loop);
  if (rc == 0) return 0;
  loop->poller->close(loop->poller_state);
  loop->poller_state = NULL;
  return rc;
}

static void set_up(aloop_t *loop, const aloop_options_t *options, const aloop_allocator_t *allocator) {
  memset(loop, 0, sizeof *loop);
  loop->allocator = *allocator;
  loop->head = loop->tail = ALOOP__FIRST_POSITION;
  loop->beside_head = -loop->head;
  loop->holds = 1;
  loop->wake.fd = loop->wake_write = -1;
  loop->slow_callback_duration =
      options->slow_callback_duration > 0 ? options->slow_callback_duration : DEFAULT_SLOW;
  loop->guard = debug_wanted(options->debug) ? ALOOP__GUARD_DEBUG : 0;
  loop->poller_arg = options->poller_table != NULL ? options->poller_arg : NULL;
  loop->fork_generation = aloop__current_forks();
  aloop__list_init(&loop->objects);
  aloop__timers_init(&loop->timers);
  aloop__mailbox_init(&loop->mailbox);
  aloop__guests_init(&loop->guests);
}

static void take_down(aloop_t *loop) {
  aloop__memory_release(loop, loop->ring);
  aloop__memory_release(loop, loop->contexts);
  aloop__memory_release(loop, loop->watches);
  loop->ring = NULL;
  loop->contexts = NULL;
  loop->watches = NULL;
  loop->watches_size = 0;
}

int aloop_new(const aloop_options_t *options, aloop_t **out) {
  aloop_options_t copy = {.size = sizeof copy};
  aloop_allocator_t allocator = aloop__memory_default;
  const char *fault = out != NULL ? take_options(options, &copy, &allocator) : "there is no place for the loop";
  if (fault != NULL) return aloop__misuse(NULL, ALOOP_EINVAL, fault);
  const aloop_poller_t *poller = choose_poller(&copy);
  if (poller == NULL) return aloop__misuse(NULL, ALOOP_EINVAL, "this build has no poller of that name");
  aloop_t *loop = allocator.resize(allocator.user, NULL, sizeof *loop);
  if (loop == NULL) return ALOOP_ENOMEM;
  set_up(loop, &copy, &allocator);
  aloop__express_allow(false);
  loop->poller = poller;
  int rc = aloop__ready_grow(loop);
  if (rc == 0) rc = open_descriptors(loop);
  if (rc < 0) {
    take_down(loop);
    aloop__loop_drop(loop);
    return rc;
  }
  loop->born_time = aloop__clock_monotonic();
  loop->born_ticks = aloop__clock_ticks();
  *out = loop;
  return 0;
}

/* Ends every object; what an end makes meanwhile is ended too. One without a reference is being destroyed, by
 * whoever called us. */
static void close_objects(aloop_t *loop) {
  aloop__list_t seen;
  aloop__list_init(&seen);
  while (!aloop__list_empty(&loop->objects)) {
    aloop__object_t *object = ALOOP_CONTAINER_OF(loop->objects.next, aloop__object_t, link);
    aloop__list_remove(&object->link);
    aloop__list_append(&seen, &object->link);
    if (object->refs == 0) continue;
    aloop__object_ref(object);
    object->kind->close(object);
    aloop__object_unref(object);
  }
  /* Objects that somebody still holds go back to the list. */
  while (!aloop__list_empty(&seen)) {
    aloop__list_t *node = seen.next;
    aloop__list_remove(node);
    aloop__list_append(&loop->objects, node);
  }
}

static void drop_ready(aloop_t *loop) {
  while (loop->head != loop->tail) {
    aloop__entry_t *entry = &loop->ring[loop->head++ & loop->mask];
    loop->beside_head--;
    if (aloop__entry_waits(entry)) aloop__ready_drop(loop, entry);
  }
}

int aloop_close(aloop_t *loop) {
  int rc = aloop__loop_thread(loop);
  if (rc < 0) return rc;
  if (aloop__loop_runs_here(loop))
    return aloop__misuse(loop, ALOOP_ERUNNING, "a running loop cannot be closed");
  if (loop->guard & ALOOP__GUARD_CLOSED) return 0;
  aloop__loop_hold(loop); /* what ends may free it */
  loop->guard |= ALOOP__GUARD_CLOSED;
  aloop__ready_set_limit(loop);
  aloop__mailbox_close(loop);
  close_objects(loop);
  aloop__guests_close(loop);
  for (int i = ALOOP__ROOMS - 1; i >= 0; i--) {
    if (loop->rooms[i] != NULL) loop->rooms[i]->close(loop, loop->rooms[i]);
    loop->rooms[i] = NULL;
  }
  drop_ready(loop);
  aloop__timers_close(loop);
  aloop__watch_close(loop);
  aloop__map_clear(loop, &loop->context);
  aloop__watch_note(&loop->wake, 0); /* the poller goes too, and need not be told */
  aloop__wake_close(loop);
  loop->poller->close(loop->poller_state);
  loop->poller_state = NULL;
  take_down(loop);
  aloop__loop_drop(loop);
  return 0;
}

bool aloop_is_closed(const aloop_t *loop) {
  return !aloop__loop_ok(loop) || (loop->guard & ALOOP__GUARD_CLOSED) != 0;
}

void aloop_free(aloop_t *loop) {
  if (loop == NULL || aloop_close(loop) < 0) return;
  aloop__current_forget(loop);
  aloop__loop_drop(loop);
}

/* ---- The turn -------------------------------------------------------------------------------------------- */

/* Step 1. */
ALOOP_INLINE int64_t work_out_timeout(aloop_t *loop, int64_t limit) {
  if (loop->head != loop->tail || loop->attention != 0) return 0;
  if (loop->timers.heap_size == 0 || limit == 0) return limit;
  int64_t wait = aloop__timers_next(loop) - aloop_update_time(loop);
  if (wait < 0) wait = 0;
  return limit >= 0 && limit < wait ? limit : wait;
}

/* The kernel was asked a moment ago. */
ALOOP_INLINE void note_poll_age(aloop_t *loop) {
  loop->poll_turn = loop->turns;
  loop->look_up = 0;
}

/* The kernel was asked: counts start anew, the cached time is old. */
ALOOP_INLINE void note_poll(aloop_t *loop) {
  loop->polls++;
  note_poll_age(loop);
  loop->now_age = 0;
  loop->poll_ticks = aloop__clock_ticks();
}

/* Step 2. Returns the number of events, or the poller's error. */
ALOOP_INLINE int poll_events(aloop_t *loop, int64_t timeout, aloop_poll_event_t *batch, bool posted_to) {
  if (ALOOP_UNLIKELY(posted_to) && timeout != 0 && !aloop__mailbox_sleep(loop))
    timeout = aloop__mailbox_stand_off(loop, timeout);
  uint64_t begun = timeout != 0 ? aloop__clock_ticks() : 0;
  int n = loop->poller->wait(loop->poller_state, batch, BATCH, timeout);
  note_poll(loop);
  if (ALOOP_UNLIKELY(timeout == 0)) return n;
  loop->idle_ticks += loop->poll_ticks - begun;
  if (ALOOP_UNLIKELY(posted_to)) aloop__mailbox_awake(loop);
  return n;
}

/* Step 3. The very first post is noticed one turn late, by its wake-up. */
ALOOP_INLINE void take_mailbox(aloop_t *loop, bool posted_to) {
  if (ALOOP_UNLIKELY(posted_to)) aloop__mailbox_take(loop);
}

/* Step 4. */
ALOOP_INLINE void queue_timers(aloop_t *loop) {
  if (loop->timers.heap_size > 0) aloop__timers_queue_due(loop, aloop_update_time(loop));
}

/* The rest of a callback's surroundings: what it set in its context ends with it. */
ALOOP_INLINE void leave_context(aloop_t *loop) {
  if (ALOOP_UNLIKELY(loop->context != NULL)) aloop__map_clear(loop, &loop->context);
}

static void report_slow(aloop_t *loop, const char *origin, int64_t duration) {
  aloop_error_context_t context = aloop__report_context("a callback was slow", 0);
  context.origin = origin;
  context.duration = duration;
  aloop__report(loop, &context);
}

/* Debug mode: a callback with a clock around it. */
static ALOOP_NOINLINE void call_timed(aloop_t *loop, aloop_callback_fn fn, void *arg, const char *origin) {
  int64_t begun = aloop__clock_monotonic();
  fn(loop, arg);
  int64_t duration = aloop__clock_monotonic() - begun;
  leave_context(loop);
  if (duration >= loop->slow_callback_duration) report_slow(loop, origin, duration);
}

/* Runs the deque up to a position, with all that may be to do for a callback. */
static ALOOP_NOINLINE void run_carefully(aloop_t *loop, uint64_t end) {
  while (loop->head != end && loop->stop_error == 0) {
    aloop__entry_t entry = loop->ring[loop->head & loop->mask];
    loop->context = aloop__ready_take_context(loop, loop->head++);
    if (ALOOP_UNLIKELY(loop->guard & ALOOP__GUARD_DEBUG) && aloop__entry_waits(&entry)) {
      call_timed(loop, entry.fn, entry.arg, aloop__timers_origin(loop, &entry));
    } else {
      entry.fn(loop, entry.arg);
      leave_context(loop);
    }
  }
}

/* Whether callbacks can be run without looking for a context or at a clock. What changes it interrupts them. */
ALOOP_INLINE bool is_plain(const aloop_t *loop) {
  return ALOOP_LIKELY(loop->contexts == NULL) && ALOOP_LIKELY((loop->guard & ALOOP__GUARD_DEBUG) == 0);
}

/* The same with the least of ceremony: at least one entry, and as many as nothing interrupts. No callback has a
 * context before the first one is opened, which interrupts. Returns the head. */
ALOOP_INLINE uint64_t run_plainly(aloop_t *loop, uint64_t head, uint64_t end) {
  loop->run_end = end;
  do {
    const aloop__entry_t *entry = &loop->ring[head & loop->mask];
    loop->head = ++head;
    entry->fn(loop, entry->arg);
  } while (head != loop->run_end);
  leave_context(loop);
  return head;
}

/* Runs the deque up to a position. */
ALOOP_INLINE void run_ready(aloop_t *loop, uint64_t end) {
  uint64_t head = loop->head;
  if (head != end && is_plain(loop) && ALOOP_LIKELY(loop->stop_error == 0)) head = run_plainly(loop, head, end);
  if (ALOOP_UNLIKELY(head != end)) run_carefully(loop, end);
}

/* The watch of an event where it is not one that waits for this direction and no other; NULL: nobody wants it.
 * Returns false if it is gone. */
static ALOOP_NOINLINE bool find_watch(const aloop_t *loop, const aloop_poll_event_t *event, uint32_t direction,
                                      aloop__watch_t **found) {
  aloop__watch_t *watch = aloop__watch_find(loop, event->fd);
  *found = NULL;
  if (watch == NULL || aloop__watch_generation(watch) != event->token) return false;
  if (aloop__watch_interest(watch) & direction) *found = watch;
  return true;
}

/* Calls one side of a watch if it still wants that; it is looked up only now, so that whatever stopped it
 * meanwhile counts. Returns false if the watch is gone. */
ALOOP_INLINE bool deliver(aloop_t *loop, const aloop_poll_event_t *event, uint32_t direction, bool timed) {
  uint32_t fd = (uint32_t)event->fd;
  aloop__watch_t *watch = fd < (uint32_t)loop->watches_size ? loop->watches[fd] : NULL;
  if (ALOOP_UNLIKELY(watch == NULL) ||
      ALOOP_UNLIKELY((watch->state ^ event->token) != direction << ALOOP__WATCH_INTEREST_AT)) {
    aloop__watch_t *other;
    bool known = find_watch(loop, event, direction, &other);
    if (other == NULL) return known;
    watch = other;
  }
  loop->beside_head++; /* before the function is looked up, which saves a register */
  aloop_callback_fn fn = direction == ALOOP_READABLE ? watch->ops->readable : watch->ops->writable;
  if (ALOOP_UNLIKELY(timed)) {
    call_timed(loop, fn, watch, aloop__watch_origin(watch, direction));
    return true;
  }
  fn(loop, watch);
  leave_context(loop);
  return true;
}

/* An event that nobody waits for. If a callback of this batch stopped a watch, that is why; a poller that goes
 * on reporting without such a reason is opened anew (see watch.c). */
static ALOOP_NOINLINE void drop_event(aloop_t *loop) {
  loop->stale++;
  if (loop->stop_poll == loop->polls || loop->stale_poll == loop->polls) return;
  loop->stale_run = loop->stale_poll + 1 == loop->polls ? loop->stale_run + 1 : 1;
  loop->stale_poll = loop->polls;
  if (loop->stale_run < STALE_POLLS_MAX) return;
  loop->stale_run = 0;
  aloop__loop_rebuild(loop);
}

static void complete(aloop_t *loop, const aloop_poll_event_t *event) {
  loop->beside_head++;
  if (ALOOP_UNLIKELY(loop->guard & ALOOP__GUARD_DEBUG)) {
    call_timed(loop, loop->requests->completed, (void *)event, NULL);
    return;
  }
  loop->requests->completed(loop, (void *)event);
  leave_context(loop);
}

/* An event that is anything but that a descriptor can be read. */
static ALOOP_NOINLINE void deliver_other(aloop_t *loop, const aloop_poll_event_t *event) {
  enum { BOTH = ALOOP_READABLE | ALOOP_WRITABLE };
  uint32_t events = event->events;
  bool found = true, timed = (loop->guard & ALOOP__GUARD_DEBUG) != 0;
  if (ALOOP_LIKELY(events == ALOOP__COMPLETED) && ALOOP_LIKELY(loop->requests != NULL)) {
    complete(loop, event);
    return;
  }
  if (events & ~(uint32_t)BOTH) events = BOTH;
  if (events & ALOOP_READABLE) found = deliver(loop, event, ALOOP_READABLE, timed);
  if (events & ALOOP_WRITABLE && loop->stop_error == 0) found = deliver(loop, event, ALOOP_WRITABLE, timed);
  if (!found) drop_event(loop);
}

/* Calls what the batch is for, reader before writer of the same descriptor. A fatal stop makes the batch end
 * here; the rest comes with the next poll. */
ALOOP_INLINE void run_io(aloop_t *loop, const aloop_poll_event_t *event, int count, bool timed) {
  loop->events += (uint64_t)count;
  loop->batch_end = event + count;
  do {
    if (ALOOP_UNLIKELY(event->events != ALOOP_READABLE))
      deliver_other(loop, event);
    else if (ALOOP_UNLIKELY(!deliver(loop, event, ALOOP_READABLE, timed)))
      drop_event(loop);
  } while (++event < loop->batch_end);
}

/* What was put off until nothing more runs in this turn. */
static ALOOP_NOINLINE void tell_turn_over(aloop_t *loop) {
  loop->attention &= ~(uint32_t)ALOOP__TURN_END;
  for (int i = 0; i < ALOOP__ROOMS; i++)
    if (loop->rooms[i] != NULL && loop->rooms[i]->turn_over != NULL)
      loop->rooms[i]->turn_over(loop, loop->rooms[i]);
}

/* Step 6. */
ALOOP_INLINE void end_turn(aloop_t *loop) {
  if (ALOOP_UNLIKELY(loop->attention & ALOOP__TURN_END)) tell_turn_over(loop);
  if (ALOOP_UNLIKELY(loop->attention & ALOOP__STALLED)) aloop__object_resume_stalled(loop);
#if ALOOP_CHECKS
  ALOOP_CHECK(aloop__timers_check(&loop->timers));
#endif
}

/* The poller has failed. One that belongs to another thread is opened anew for this one. */
static ALOOP_NOINLINE int lost_poller(aloop_t *loop, int error) {
  return error == ALOOP_EEXIST && (loop->poller->flags & ALOOP_POLLER_ONE_THREAD) != 0
             ? aloop__loop_rebuild(loop)
             : error;
}

static int turn(aloop_t *loop, int64_t limit, aloop_poll_event_t *batch) {
  bool posted_to = aloop__mailbox_in_use(&loop->mailbox);
  int count = poll_events(loop, work_out_timeout(loop, limit), batch, posted_to);
  if (ALOOP_UNLIKELY(count < 0)) return lost_poller(loop, count);
  take_mailbox(loop, posted_to);
  uint64_t scheduled = loop->tail;
  queue_timers(loop);
  uint64_t timers = loop->tail;
  /* Step 5: what is ready now, in the order of the essay above; what these callbacks add waits. */
  run_ready(loop, scheduled);
  if (count > 0 && ALOOP_LIKELY(loop->stop_error == 0))
    run_io(loop, batch, count, (loop->guard & ALOOP__GUARD_DEBUG) != 0);
  run_ready(loop, timers);
  loop->turns++;
  end_turn(loop);
  return 0;
}

/* The clock has to be looked at: whether the kernel may go on waiting for its turn, and until when. */
static ALOOP_NOINLINE bool may_skip_on(aloop_t *loop) {
  uint64_t limit = aloop__clock_ticks_20us();
  uint64_t spent = aloop__clock_ticks() - loop->poll_ticks;
  if (spent >= limit) return false;
  /* Half of the turns that would fit at their pace so far. */
  uint64_t twice = (limit - spent) * (loop->turns - loop->poll_turn), stride = STRIDE_MAX;
  if (twice < 2 * STRIDE_MAX * spent) stride = twice / (2 * spent);
  loop->look_up = loop->turns + (stride > 0 ? stride : 1);
  return true;
}

/* Whether a turn that has callbacks to run can do without asking the kernel: it was asked a moment ago. */
ALOOP_INLINE bool may_skip_poll(aloop_t *loop) {
  return loop->turns < loop->look_up || (loop->attention == 0 && may_skip_on(loop));
}

/* Turn after turn of callbacks, of which there is at least one. */
static ALOOP_NOINLINE void plain_turns(aloop_t *loop) {
  uint64_t head = loop->head, end = loop->tail;
  do {
    head = run_plainly(loop, head, end);
    if (ALOOP_UNLIKELY(head != end)) {
      run_carefully(loop, end);
      head = loop->head;
    }
    loop->turns++;
    end = loop->tail;
  } while (head != end && loop->turns < loop->look_up);
}

/* Turns of callbacks that keep callbacks coming: steps 3, 5 and 6, until the clock is to be looked at or
 * somebody wants attention. */
ALOOP_INLINE void skipping_turns(aloop_t *loop) {
  take_mailbox(loop, aloop__mailbox_in_use(&loop->mailbox));
  if (loop->head != loop->tail && is_plain(loop)) {
    plain_turns(loop);
  } else {
    do {
      run_carefully(loop, loop->tail);
      loop->turns++;
    } while (loop->head != loop->tail && loop->turns < loop->look_up);
  }
  end_turn(loop);
}

/* Whether no callback is waiting, nor a post that was left for later. */
ALOOP_INLINE bool is_idle(const aloop_t *loop) {
  return loop->head == loop->tail && ALOOP_LIKELY(!loop->mailbox.more);
}

/* No callback is ready, nothing is due, posted or asked for: the kernel alone can bring something. */
ALOOP_INLINE bool is_quiet(const aloop_t *loop) {
  uint32_t other = loop->attention | loop->timers.heap_size | loop->guard;
  return ((loop->head ^ loop->tail) | other) == 0 && !aloop__mailbox_in_use(&loop->mailbox);
}

/* The same when is_quiet has said no: perhaps only for what was put off until the end of the turn. */
static ALOOP_NOINLINE bool is_quiet_at_last(aloop_t *loop) {
  if (loop->attention & ALOOP__TURN_END) tell_turn_over(loop);
  return is_quiet(loop);
}

/* What is left of `turn` when is_quiet has answered all its questions. */
ALOOP_INLINE int quiet_turn(aloop_t *loop, int64_t limit, aloop_poll_event_t *batch) {
  if (limit != 0) loop->idle_ticks -= aloop__clock_ticks();
  int count = loop->poller->wait(loop->poller_state, batch, BATCH, limit);
  loop->poll_ticks = aloop__clock_ticks();
  if (limit != 0) loop->idle_ticks += loop->poll_ticks;
  loop->polls++;
  loop->turns++;
  if (ALOOP_LIKELY(count > 0))
    run_io(loop, batch, count, false);
  else if (count < 0)
    return lost_poller(loop, count);
  return 0;
}

/* Turns of a loop that has nothing but connections. Most turns of a server are like this. */
ALOOP_INLINE int quiet_turns(aloop_t *loop, aloop_poll_event_t *batch) {
  int rc;
  do rc = quiet_turn(loop, ALOOP_FOREVER, batch);
  while (ALOOP_LIKELY(rc == 0) && (ALOOP_LIKELY(is_quiet(loop)) || is_quiet_at_last(loop)));
  note_poll_age(loop);
  return rc;
}

/* One such turn. */
ALOOP_INLINE int single_turn(aloop_t *loop, int64_t limit, aloop_poll_event_t *batch) {
  if (!is_quiet(loop)) return turn(loop, limit, batch);
  int rc = quiet_turn(loop, limit, batch);
  note_poll_age(loop);
  end_turn(loop);
  return rc;
}

/* ---- Running --------------------------------------------------------------------------------------------- */

enum { OVER = ALOOP__STOPPING | ALOOP__INHERITED };

void aloop__loop_inherit(aloop_t *loop) {
  aloop__loop_attend(loop, ALOOP__INHERITED);
  aloop__loop_interrupt(loop);
  loop->stop_error = ALOOP_ECHILD;
  loop->batch_end = NULL;
  for (int i = 0; i < ALOOP__ROOMS; i++)
    if (loop->rooms[i] != NULL && loop->rooms[i]->forked != NULL) loop->rooms[i]->forked(loop, loop->rooms[i]);
}

/* A child's own run, inside the callback that forked. */
static ALOOP_NOINLINE void forget_inherited_run(aloop_t *loop) {
  loop->attention &= ~(uint32_t)ALOOP__INHERITED;
  if (loop->stop_error == ALOOP_ECHILD) loop->stop_error = 0;
}

/* The callback that forked has returned in the child. The poller and the wake-up descriptor are the parent's;
 * or the child has its own, and no run has used them yet. */
static ALOOP_NOINLINE int end_inherited_run(aloop_t *loop) {
  loop->attention &= ~(uint32_t)OVER;
  loop->stop_error = 0;
  aloop__loop_set_running(loop, false);
  return ALOOP_ECHILD;
}

static int begin_run(aloop_t *loop) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  if (loop->fork_generation != aloop__current_forks_seen())
    return aloop__misuse(loop, ALOOP_ECHILD,
                         "the loop was made before fork; call aloop_after_fork in the child");
  if (aloop__loop_is_running(loop)) return aloop__misuse(loop, ALOOP_ERUNNING, "this loop is already running");
  if (aloop__current_running != NULL)
    return aloop__misuse(loop, ALOOP_ERUNNING, "a loop is running in this thread");
  if (ALOOP_UNLIKELY(aloop__watch_interest(&loop->wake) == 0)) rc = aloop__wake_listen(loop);
  if (ALOOP_UNLIKELY(rc < 0)) return rc;
  aloop__current_running = loop;
  if (ALOOP_UNLIKELY(loop->attention & ALOOP__INHERITED)) forget_inherited_run(loop);
  loop->thread = pthread_self();
  aloop__loop_set_running(loop, true);
  loop->run_started = aloop__clock_ticks();
  return 0;
}

static int end_run(aloop_t *loop, int rc) {
  if (ALOOP_UNLIKELY(loop->attention & ALOOP__INHERITED)) return end_inherited_run(loop);
  if (loop->poller->flush != NULL) loop->poller->flush(loop->poller_state);
  aloop__current_running = NULL;
  if (aloop__mailbox_in_use(&loop->mailbox)) aloop__mailbox_rest(loop);
  loop->run_ticks += aloop__clock_ticks() - loop->run_started;
  aloop__loop_set_running(loop, false);
  loop->attention &= ~(uint32_t)ALOOP__STOPPING;
  int stop_error = loop->stop_error;
  if (stop_error == 0) return rc;
  loop->stop_error = 0;
  aloop__wake_again(loop);
  return stop_error;
}

int aloop_run_forever(aloop_t *loop) {
  int rc = begin_run(loop);
  if (rc < 0) return rc;
  aloop_poll_event_t batch[BATCH];
  aloop__map_t *base = loop->context;
  loop->context = NULL;
  do {
    if (!is_idle(loop) && may_skip_poll(loop)) {
      do skipping_turns(loop);
      while (!is_idle(loop) && may_skip_poll(loop));
      if (loop->attention & OVER) break;
    }
    rc = is_quiet(loop) ? quiet_turns(loop, batch) : turn(loop, ALOOP_FOREVER, batch);
  } while (rc >= 0 && (loop->attention & OVER) == 0);
  loop->context = base;
  return end_run(loop, rc);
}

int aloop_run_once(aloop_t *loop, int64_t timeout) {
  int rc = begin_run(loop);
  if (rc < 0) return rc;
  aloop_poll_event_t batch[BATCH];
  aloop__map_t *base = loop->context;
  uint64_t before = aloop__loop_callbacks(loop);
  loop->context = NULL;
  rc = single_turn(loop, timeout >= 0 || timeout == ALOOP_FOREVER ? timeout : 0, batch);
  loop->context = base;
  uint64_t ran = aloop__loop_callbacks(loop) - before;
  return end_run(loop, rc < 0 ? rc : ran > INT32_MAX ? INT32_MAX : (int)ran);
}

int aloop_stop(aloop_t *loop) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  aloop__loop_attend(loop, ALOOP__STOPPING);
  aloop__loop_armed(loop);
  return 0;
}

int aloop_stop_with_error(aloop_t *loop, int error) {
  int rc = aloop__loop_enter(loop);
  if (rc < 0) return rc;
  if (error >= 0) return aloop__misuse(loop, ALOOP_EINVAL, "aloop_stop_with_error takes a negative code");
  aloop__loop_attend(loop, ALOOP__STOPPING);
  aloop__loop_interrupt(loop);
  loop->stop_error = error;
  loop->batch_end = NULL;
  return 0;
}

bool aloop_is_running(const aloop_t *loop) {
  if (loop == NULL) aloop__misuse(NULL, ALOOP_EINVAL, NO_LOOP);
  return loop != NULL && aloop__loop_runs_here(loop);
}
