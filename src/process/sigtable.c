/* SPDX-License-Identifier: MIT
 *
 * Signals of the process. Dispositions belong to a process and not to a loop, so there has to be one table for
 * all loops: it is this file's, and beside the policy and the count of forks (core/current.c) the only global
 * state of the library.
 *
 * Per signal number there is a list of the loops that want to hear of it, and what was installed before. The
 * first link to come saves the disposition and installs `on_signal`; the last one to go puts it back, exactly,
 * unless somebody has installed something else since: that is then theirs to keep. Nothing is installed for
 * signals without a link.
 *
 * `on_signal` runs in any thread at any moment. It takes no lock: it walks the list through atomic pointers,
 * sets a bit per loop and writes to the loop's descriptor if the bit was clear. So a million arrivals cost one
 * wake-up, and one that comes after the loop has taken the bits wakes it again. Handlers that walk are counted;
 * whoever unlinks something waits for the count to fall to zero, so nothing they look at is released under
 * them. The wait is short because a handler that is counted cannot be held up: it blocks all signals (no other
 * handler can jump out of it) and thread cancellation (write is a cancellation point). Changes are made under a
 * mutex, with signals blocked, so a thread never waits for a handler that interrupted it.
 *
 * What was there before is called outside of that, with the signal mask it asked for. It may take its time, or
 * jump. A handler that nobody subscribes to any more but is called all the same, by somebody who saved its
 * address, passes the signal on likewise. Not so if what was there before had been installed over on_signal: it
 * may call on_signal in turn, without end.
 *
 * Fork: handlers are inherited, and so are the loops' descriptors, which the parent reads. A sink knows its
 * process; in another one nobody writes to its descriptor, and the signal only leaves its mark for
 * aloop_after_fork to find. A child that shares our memory (vfork) leaves no mark either. The mutex is held
 * across fork, so the child finds the table whole; counts of threads that did not come along are forgotten, and
 * marks too, as the system does with pending signals.
 */
#include "process/sigtable.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include "core/loop.h"

#ifdef NSIG
_Static_assert(NSIG <= ALOOP__SIGNALS, "a bit for every signal");
#endif
_Static_assert(ATOMIC_INT_LOCK_FREE == 2 && ATOMIC_POINTER_LOCK_FREE == 2, "signal handlers take no locks");

enum { YIELDS = 100, NAP_NS = 50000 };

typedef struct slot {
  _Atomic(aloop__siglink_t *) links;
  atomic_int walkers; /* handlers at work on the list, or reading `earlier` */
  atomic_int chains;  /* links that want `earlier` to be called */
  atomic_bool usable; /* `earlier` may be called */
  atomic_bool spent;  /* ... and was, with SA_RESETHAND */
  bool installed;     /* on_signal is the disposition, or lies beneath somebody else's */
  struct sigaction earlier;
} slot_t;

static slot_t slots[ALOOP__SIGNALS];
static atomic_uint generation; /* of forks */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t prepare_forks = PTHREAD_ONCE_INIT;

/* ---- In signal context ----------------------------------------------------------------------------------- */

static void mark(aloop__sigsink_t *sink, int signum) {
  bool mine = atomic_load(&sink->owner) == getpid();
  if (!mine && atomic_load(&sink->generation) == atomic_load(&generation)) return; /* vfork */
  uint32_t bit = UINT32_C(1) << (signum & 31);
  uint32_t before = atomic_fetch_or(&sink->pending[signum >> 5], bit);
  if ((before & bit) == 0 && mine) aloop__wake_write(atomic_load(&sink->wake));
}

/* Marks every loop that wants to know. Returns whether `earlier` is to be called, and a copy of it. */
static bool walk(slot_t *slot, int signum, struct sigaction *earlier) {
  atomic_fetch_add(&slot->walkers, 1);
  aloop__siglink_t *first = atomic_load(&slot->links);
  for (aloop__siglink_t *at = first; at != NULL; at = atomic_load(&at->next)) mark(at->sink, signum);
  bool chain = (first == NULL || atomic_load(&slot->chains) > 0) && atomic_load(&slot->usable);
  if (chain) *earlier = slot->earlier;
  atomic_fetch_sub(&slot->walkers, 1);
  return chain;
}

static void call_earlier(slot_t *slot, const struct sigaction *earlier, int signum, siginfo_t *info,
                         void *context) {
  bool plain = (earlier->sa_flags & SA_SIGINFO) == 0;
  if (plain && (earlier->sa_handler == SIG_DFL || earlier->sa_handler == SIG_IGN)) return;
  if ((earlier->sa_flags & (int)SA_RESETHAND) != 0 && atomic_exchange(&slot->spent, true)) return;
  if (plain)
    earlier->sa_handler(signum);
  else
    earlier->sa_sigaction(signum, info, context);
}

static void on_signal(int signum, siginfo_t *info, void *context) {
  if (signum <= 0 || signum >= ALOOP__SIGNALS) return;
  int saved = errno, cancel;
  sigset_t all, mask;
  struct sigaction earlier;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &mask);
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
  bool chain = walk(&slots[signum], signum, &earlier);
  pthread_setcancelstate(cancel, &cancel);
  pthread_sigmask(SIG_SETMASK, &mask, NULL);
  errno = saved;
  if (!chain) return;
  call_earlier(&slots[signum], &earlier, signum, info, context);
  errno = saved;
}

/* ---- The lock -------------------------------------------------------------------------------------------- */

/* What the thread had before it took the lock. */
typedef struct held {
  sigset_t mask;
  int cancel;
} held_t;

static held_t held_for_fork;

static held_t lock(void) {
  held_t held;
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &held.mask);
  pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &held.cancel);
  pthread_mutex_lock(&mutex);
  return held;
}

static void unlock(held_t held) {
  pthread_mutex_unlock(&mutex);
  pthread_setcancelstate(held.cancel, &held.cancel);
  pthread_sigmask(SIG_SETMASK, &held.mask, NULL);
}

static void before_fork(void) {
  held_for_fork = lock();
}

static void after_fork_in_parent(void) {
  unlock(held_for_fork);
}

static void forget_marks(aloop__sigsink_t *sink) {
  for (int i = 0; i < ALOOP__SIGSINK_WORDS; i++) atomic_store(&sink->pending[i], 0);
}

static void after_fork_in_child(void) {
  atomic_fetch_add(&generation, 1);
  for (int i = 0; i < ALOOP__SIGNALS; i++) {
    atomic_store(&slots[i].walkers, 0);
    for (aloop__siglink_t *at = atomic_load(&slots[i].links); at != NULL; at = atomic_load(&at->next))
      forget_marks(at->sink);
  }
  unlock(held_for_fork);
}

static void install_fork_handlers(void) {
  pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child);
}

/* Until no handler is at work that may have seen what was there before. One that begins now sees the change.
 * After some patience it naps: a thread with a real-time priority would keep a lesser one from ending. */
static void wait_for_walkers(slot_t *slot) {
  for (int i = 0; atomic_load(&slot->walkers) > 0; i++) {
    if (i < YIELDS)
      sched_yield();
    else
      nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
  }
}

/* ---- Dispositions ---------------------------------------------------------------------------------------- */

static bool is_ours(const struct sigaction *action) {
  return (action->sa_flags & SA_SIGINFO) != 0 && action->sa_sigaction == on_signal;
}

/* Remembers what on_signal is about to replace. If on_signal lies somewhere beneath it already, calling it
 * might come back here. */
static void save(slot_t *slot, const struct sigaction *present) {
  atomic_store(&slot->usable, false);
  wait_for_walkers(slot);
  slot->earlier = *present;
  atomic_store(&slot->spent, false);
  atomic_store(&slot->usable, !slot->installed);
}

/* The mask is that of the earlier handler, which may be called under it. Whether children become zombies is not
 * ours to change. */
static int install(const slot_t *slot, int signum) {
  const struct sigaction *earlier = &slot->earlier;
  struct sigaction ours = {.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK};
  ours.sa_flags |= earlier->sa_flags & (int)(SA_NODEFER | SA_NOCLDWAIT);
  ours.sa_sigaction = on_signal;
  ours.sa_mask = earlier->sa_mask;
  return sigaction(signum, &ours, NULL) == 0 ? 0 : ALOOP_EINVAL;
}

/* Puts back what was there before. */
static void restore(slot_t *slot, int signum) {
  struct sigaction present, earlier = slot->earlier;
  if (sigaction(signum, NULL, &present) < 0 || !is_ours(&present)) return;
  if (atomic_load(&slot->spent)) earlier = (struct sigaction){.sa_handler = SIG_DFL};
  if (sigaction(signum, &earlier, NULL) == 0) slot->installed = false;
}

bool aloop__sigtable_catchable(int signum) {
  struct sigaction present;
  return signum > 0 && signum < ALOOP__SIGNALS && signum != SIGKILL && signum != SIGSTOP &&
         sigaction(signum, NULL, &present) == 0;
}

/* ---- Links ----------------------------------------------------------------------------------------------- */

static void unlink_from(slot_t *slot, aloop__siglink_t *link) {
  _Atomic(aloop__siglink_t *) *at = &slot->links;
  while (atomic_load(at) != link) at = &atomic_load(at)->next;
  atomic_store(at, atomic_load(&link->next));
  atomic_fetch_sub(&slot->chains, link->chain);
}

/* The link is there before the signal handler is: no arrival finds the one without the other. */
static int add_locked(slot_t *slot, aloop__siglink_t *link) {
  struct sigaction present;
  if (sigaction(link->signum, NULL, &present) < 0) return ALOOP_EINVAL;
  bool ours = is_ours(&present);
  if (!ours) save(slot, &present);
  atomic_store(&link->next, atomic_load(&slot->links));
  atomic_store(&slot->links, link);
  atomic_fetch_add(&slot->chains, link->chain);
  int rc = ours ? 0 : install(slot, link->signum);
  slot->installed = slot->installed || rc == 0;
  if (rc < 0) unlink_from(slot, link);
  return rc;
}

int aloop__sigtable_add(aloop__siglink_t *link) {
  pthread_once(&prepare_forks, install_fork_handlers);
  held_t held = lock();
  int rc = add_locked(&slots[link->signum], link);
  if (rc < 0) wait_for_walkers(&slots[link->signum]);
  unlock(held);
  return rc;
}

void aloop__sigtable_chain(aloop__siglink_t *link, bool chain) {
  atomic_fetch_add(&slots[link->signum].chains, (int)chain - (int)link->chain);
  link->chain = chain;
}

void aloop__sigtable_remove(aloop__siglink_t *link) {
  slot_t *slot = &slots[link->signum];
  held_t held = lock();
  bool last = atomic_load(&slot->links) == link && atomic_load(&link->next) == NULL;
  if (last) restore(slot, link->signum);
  unlink_from(slot, link);
  wait_for_walkers(slot);
  unlock(held);
}

/* ---- Sinks ----------------------------------------------------------------------------------------------- */

static bool is_marked(aloop__sigsink_t *sink) {
  uint32_t any = 0;
  for (int i = 0; i < ALOOP__SIGSINK_WORDS; i++) any |= atomic_load(&sink->pending[i]);
  return any != 0;
}

void aloop__sigsink_open(aloop__sigsink_t *sink, int wake) {
  atomic_store(&sink->wake, wake);
  atomic_store(&sink->owner, getpid()); /* before the generation, or it would look like vfork for a moment */
  atomic_store(&sink->generation, atomic_load(&generation));
  if (is_marked(sink)) aloop__wake_write(wake);
}
