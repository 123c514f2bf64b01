/* SPDX-License-Identifier: MIT
 *
 * Servers of several loops: one loop accepts and hands connections to the others, by least load.
 *
 * On every other loop the server has a branch, with a server object of that loop's own: counts of objects are
 * plain, so no thread may count one of another's. Between acceptor and branch there is a small ring of
 * connections, the words "close" and "abort" with the place in the order of connections where they were said,
 * and a lock around these. The acceptor writes and posts a call, one at a time, to the branch's loop, which
 * takes everything there is. The lock is held for a few stores, once or twice per connection, and never on the
 * way of bytes. It also says whether the loop may still be posted to: a branch is a guest of its loop
 * (core/guest.c), whose farewell, when the loop is closed, takes the lock once.
 *
 * Loads are not shared but told: the acceptor counts what it handed over, the branch what it took and what has
 * ended, in words of its own cache line which the acceptor reads when it has a connection to place. That costs
 * it a walk over all loops for each connection. The other way round a branch is silent, unless the acceptor has
 * said in one word which news it is waiting for: any (it is full, or no ring has room) or the last (it is
 * closed). Whoever changes a count reads that word afterwards, whoever sets the word reads the counts
 * afterwards, so no news is missed; they come through the wake-up descriptor, which needs no memory.
 *
 * No descriptor is lost. What lies in the ring of a branch that is over is the acceptor's again, which places
 * it elsewhere; with no acceptor any more, whoever is last closes it, branch or acceptor. A loop that fails to
 * take connections for want of memory rests like a server that cannot accept (accept.c), because least load
 * would send all of them to the one that drops them.
 *
 * The spread's memory belongs to no loop: each branch has a reference until it has left its loop, the server
 * one until it has ended. In the child of a fork there are no other threads and locks may be held for ever: a
 * spread that was made before is then one without branches, and connections in rings are the parent's.
 */
#include "net/spread.h"

#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

#include "core/memory.h"
#include "executor/executor.h"
#include "net/server.h"

enum { WAITING_MAX = 64 };

/* What news the acceptor wants to hear of. */
enum { WISH_NONE, WISH_ANY, WISH_LAST };

/* A branch: takes connections, does not now, never will again. */
enum { OPEN, RESTING, OVER };

typedef struct arrival {
  int fd;
  const aloop__driver_t *driver;
} arrival_t;

/* What the acceptor has written for a branch. */
typedef struct orders {
  arrival_t waiting[WAITING_MAX];
  size_t count;
  uint64_t close_at; /* connections up to this one are to be closed, aborted; 0: none */
  uint64_t abort_at;
  bool attached; /* there is a server, */
  bool closing;  /* and now it is closed */
} orders_t;

/* Parts that different threads write lie on different cache lines. */
struct aloop__branch {
  /* Both sides, under the lock. */
  pthread_mutex_t lock;
  orders_t orders;
  bool posted;  /* a call of `arrive` is on its way */
  bool retired; /* no connection is handed over any more, */
  bool gone;    /* nor is anything posted */
  char apart[ALOOP__CACHE_LINE];

  /* The acceptor. */
  uint64_t handed;
  bool unheard; /* there was no memory for the post */
  bool refused; /* its loop is being closed */
  char apart_too[ALOOP__CACHE_LINE];

  /* The branch's thread; the acceptor reads the first three. */
  _Atomic uint64_t taken;
  _Atomic uint64_t ended;
  _Atomic int state;
  bool begun; /* `server` is one */
  aloop__guest_t guest;
  aloop_server_t *server; /* memory for it first; a reference */
  aloop_t *loop;
  aloop__spread_t *spread;
  char apart_also[ALOOP__CACHE_LINE];
};

struct aloop__spread {
  /* Set before there are connections. */
  const aloop_protocol_t *table;
  void *arg;
  aloop_destroy_fn release;
  aloop__layer_t layer;
  const char *origin;
  unsigned forks;
  bool local; /* the own loop is one of them */
  size_t count;
  char apart[ALOOP__CACHE_LINE];

  /* All threads. */
  atomic_uint refs;
  atomic_bool news;
  _Atomic int wish; /* written by the acceptor */
  pthread_mutex_t lock;
  aloop_t *home; /* under the lock; NULL: nobody wants news */
  char apart_too[ALOOP__CACHE_LINE];

  /* The acceptor. */
  aloop_server_t *server;
  aloop__list_t link; /* of its loop */
  size_t next;        /* whose turn it is among equals */
  aloop__branch_t branches[];
};

#define IS_APART(a, b) ALOOP__IS_APART(struct aloop__branch, a, b)
_Static_assert(IS_APART(gone, handed), "what the acceptor counts is its own");
_Static_assert(IS_APART(refused, taken), "what a branch counts is its own");
_Static_assert(offsetof(struct aloop__branch, spread) + sizeof(aloop__spread_t *) + ALOOP__CACHE_LINE <=
                   sizeof(struct aloop__branch),
               "branches are apart");
_Static_assert(ALOOP__IS_APART(struct aloop__spread, count, refs),
               "what is only read is not with what is written");
_Static_assert(ALOOP__IS_APART(struct aloop__spread, home, server), "the acceptor's words are its own");

/* ---- What both sides use --------------------------------------------------------------------------------- */

/* Whether this is the process with the other threads. */
static bool is_same_process(const aloop__spread_t *spread) {
  return spread->forks == aloop__current_forks_seen();
}

static void lock(const aloop__spread_t *spread, pthread_mutex_t *mutex) {
  if (is_same_process(spread)) pthread_mutex_lock(mutex);
}

static void unlock(const aloop__spread_t *spread, pthread_mutex_t *mutex) {
  if (is_same_process(spread)) pthread_mutex_unlock(mutex);
}

static void unref(aloop__spread_t *spread) {
  if (atomic_fetch_sub(&spread->refs, 1) > 1) return;
  if (spread->release != NULL) spread->release(spread->arg);
  aloop__layer_drop(&spread->layer);
  for (size_t i = 0; i < spread->count; i++) pthread_mutex_destroy(&spread->branches[i].lock);
  pthread_mutex_destroy(&spread->lock);
  aloop__executor_free_block(spread);
}

/* The first connection in the ring, which is nobody else's then; false: there is none. */
static bool pop(aloop__branch_t *branch, arrival_t *arrival) {
  orders_t *orders = &branch->orders;
  lock(branch->spread, &branch->lock);
  bool found = orders->count > 0;
  if (found) {
    *arrival = orders->waiting[0];
    orders->count--;
    for (size_t i = 0; i < orders->count; i++) orders->waiting[i] = orders->waiting[i + 1];
  }
  unlock(branch->spread, &branch->lock);
  return found;
}

/* Nobody is there to place them. */
static void discard(aloop__branch_t *branch) {
  arrival_t arrival;
  while (pop(branch, &arrival)) close(arrival.fd);
}

/* ---- In the branch's thread: telling the acceptor -------------------------------------------------------- */

/* False: there is none any more. */
static bool tell(aloop__spread_t *spread) {
  if (!is_same_process(spread)) return true;
  pthread_mutex_lock(&spread->lock);
  bool there = spread->home != NULL;
  if (there && !atomic_exchange(&spread->news, true)) aloop__wake_signal(spread->home);
  pthread_mutex_unlock(&spread->lock);
  return there;
}

/* A count has changed. */
static void tell_if_wanted(const aloop__branch_t *branch) {
  int wish = atomic_load(&branch->spread->wish);
  bool last = !branch->begun || branch->server->clients == 0;
  if (wish == WISH_ANY || (wish == WISH_LAST && last)) tell(branch->spread);
}

static void set_state(aloop__branch_t *branch, int state) {
  if (atomic_load_explicit(&branch->state, memory_order_relaxed) == OVER) return;
  atomic_store(&branch->state, state);
}

/* ---- In the branch's thread: its end --------------------------------------------------------------------- */

/* It is no guest any more. */
static void finish(aloop__branch_t *branch) {
  aloop_server_t *server = branch->server;
  if (branch->begun) {
    server->branch = NULL;
    aloop__object_unref(&server->object);
  } else {
    aloop__memory_release(branch->loop, server);
  }
  unref(branch->spread);
}

/* No more connections for this branch; those that wait are the acceptor's. */
static void retire(aloop__branch_t *branch, bool gone) {
  aloop__spread_t *spread = branch->spread;
  set_state(branch, OVER);
  lock(spread, &branch->lock);
  branch->retired = true;
  branch->gone = gone;
  unlock(spread, &branch->lock);
  if (!tell(spread)) discard(branch);
}

static void farewell(aloop__guest_t *guest) {
  aloop__branch_t *branch = ALOOP_CONTAINER_OF(guest, aloop__branch_t, guest);
  retire(branch, true);
  finish(branch);
}

/* Leaves the loop when nothing can come any more. */
static void leave_if_over(aloop__branch_t *branch) {
  aloop__spread_t *spread = branch->spread;
  if (branch->begun && branch->server->clients > 0) return;
  lock(spread, &branch->lock);
  bool over = branch->orders.closing && !branch->posted;
  if (over) branch->retired = branch->gone = true;
  unlock(spread, &branch->lock);
  if (!over) return;
  set_state(branch, OVER);
  aloop__guests_leave(branch->loop, &branch->guest);
  finish(branch);
}

void aloop__branch_set_open(aloop__branch_t *branch, bool open) {
  int state = open ? OPEN : RESTING;
  if (atomic_load_explicit(&branch->state, memory_order_relaxed) == state) return;
  set_state(branch, state);
  if (open) tell_if_wanted(branch);
}

void aloop__branch_closed(aloop__branch_t *branch) {
  retire(branch, false);
}

void aloop__branch_lost(aloop__branch_t *branch) {
  atomic_store(&branch->ended, atomic_load_explicit(&branch->ended, memory_order_relaxed) + 1);
  tell_if_wanted(branch);
  leave_if_over(branch);
}

/* ---- In the branch's thread: what arrives ---------------------------------------------------------------- */

static void begin(aloop__branch_t *branch) {
  const aloop__spread_t *spread = branch->spread;
  aloop__server_begin(branch->server, branch->loop, spread->table, spread->arg, spread->origin);
  branch->server->layer = aloop__layer_keep(&spread->layer);
  branch->server->branch = branch;
  branch->server->serving = true;
  aloop__object_ref(&branch->server->object);
  branch->begun = true;
}

static void take_in(aloop__branch_t *branch, const arrival_t *arrival) {
  if (aloop__accept_take(branch->server, arrival->driver, arrival->fd)) return;
  atomic_store(&branch->ended, atomic_load_explicit(&branch->ended, memory_order_relaxed) + 1);
  aloop__accept_failed(branch->server, arrival->fd, ALOOP_ENOMEM);
  close(arrival->fd);
}

/* What was said when no more connections than these had been handed over. */
static void obey(aloop__branch_t *branch, orders_t *orders, uint64_t taken) {
  bool close_now = orders->close_at != 0 && orders->close_at <= taken;
  bool abort_now = orders->abort_at != 0 && orders->abort_at <= taken;
  if (close_now) orders->close_at = 0;
  if (abort_now) orders->abort_at = 0;
  if (close_now) aloop_server_close_clients(branch->server);
  if (abort_now) aloop_server_abort_clients(branch->server);
}

static void take_orders(aloop__branch_t *branch, orders_t *orders) {
  lock(branch->spread, &branch->lock);
  branch->posted = false;
  *orders = branch->orders;
  if (branch->retired) {
    orders->count = 0;
  } else {
    branch->orders.count = 0;
    branch->orders.close_at = branch->orders.abort_at = 0;
  }
  unlock(branch->spread, &branch->lock);
}

static void take_next(aloop__branch_t *branch, const arrival_t *arrival, uint64_t taken) {
  if (is_same_process(branch->spread))
    take_in(branch, arrival);
  else
    close(arrival->fd);
  atomic_store(&branch->taken, taken);
}

/* The post. A branch that is over does not take what waits, but the words are for those that it has, too. */
static void arrive(aloop_t *loop, void *arg) {
  (void)loop;
  aloop__branch_t *branch = arg;
  orders_t orders;
  take_orders(branch, &orders);
  bool needed = orders.attached && (orders.count > 0 || !orders.closing);
  if (needed && !branch->begun) begin(branch);
  uint64_t taken = atomic_load_explicit(&branch->taken, memory_order_relaxed);
  for (size_t i = 0; i < orders.count; i++) {
    obey(branch, &orders, taken);
    take_next(branch, &orders.waiting[i], ++taken);
  }
  if (branch->begun) obey(branch, &orders, UINT64_MAX);
  if (orders.count > 0) tell_if_wanted(branch);
  if (orders.closing && branch->begun) aloop_server_close(branch->server);
  leave_if_over(branch);
}

/* ---- In the acceptor's thread: writing to a branch ------------------------------------------------------- */

/* Posts what was written, under the lock. A loop that is being closed says so itself, soon. */
static int post(aloop__branch_t *branch) {
  if (branch->posted || branch->gone) return 0;
  int rc = aloop_call_soon_threadsafe_from(branch->loop, arrive, branch, branch->spread->origin);
  branch->posted = rc == 0;
  branch->unheard = rc == ALOOP_ENOMEM;
  if (branch->unheard && branch->spread->server != NULL) aloop__object_stall(&branch->spread->server->object);
  return rc;
}

/* False: its loop is closed, or it has been closed itself. */
static bool send_to(aloop__branch_t *branch, const aloop__driver_t *driver, int fd) {
  orders_t *orders = &branch->orders;
  lock(branch->spread, &branch->lock);
  bool sent = !branch->retired;
  if (sent) {
    ALOOP_CHECK(orders->count < WAITING_MAX);
    orders->waiting[orders->count++] = (arrival_t){fd, driver};
    sent = post(branch) != ALOOP_ECLOSED;
    if (!sent) orders->count--;
  }
  unlock(branch->spread, &branch->lock);
  branch->refused = !sent;
  if (sent) branch->handed++;
  return sent;
}

bool aloop__spread_resume(aloop__spread_t *spread) {
  bool done = true;
  for (size_t i = 0; i < spread->count && is_same_process(spread); i++) {
    aloop__branch_t *branch = &spread->branches[i];
    if (!branch->unheard) continue;
    pthread_mutex_lock(&branch->lock);
    branch->unheard = false;
    done = post(branch) != ALOOP_ENOMEM && done;
    pthread_mutex_unlock(&branch->lock);
  }
  return done;
}

/* ---- In the acceptor's thread: least load ---------------------------------------------------------------- */

/* Taken and waiting. */
static uint64_t load_of(const aloop__branch_t *branch) {
  return branch->handed - atomic_load(&branch->ended);
}

/* Whether there is room for another one, of branches that are open or else for those that rest. */
static bool has_room(const aloop__branch_t *branch, int state) {
  return !branch->refused && atomic_load(&branch->state) <= state &&
         branch->handed - atomic_load(&branch->taken) < WAITING_MAX;
}

size_t aloop__spread_clients(const aloop__spread_t *spread) {
  uint64_t sum = 0;
  if (!is_same_process(spread)) return 0;
  for (size_t i = 0; i < spread->count; i++) sum += load_of(&spread->branches[i]);
  return (size_t)sum;
}

size_t aloop__spread_loops(const aloop__spread_t *spread) {
  return spread->count + spread->local;
}

/* The best of those after the last choice, so that equals take turns; among them the own loop, which has the
 * accepting to do as well, comes last. NULL: the own loop, if that is one, or none. */
static aloop__branch_t *choose(aloop__spread_t *spread, int state) {
  aloop__branch_t *best = NULL;
  uint64_t least = spread->local ? spread->server->clients + 1 : UINT64_MAX;
  for (size_t i = 0; i < spread->count && is_same_process(spread); i++) {
    aloop__branch_t *branch = &spread->branches[(spread->next + i) % spread->count];
    if (!has_room(branch, state) || load_of(branch) >= least) continue;
    least = load_of(branch);
    best = branch;
  }
  return best;
}

aloop__spread_place_t aloop__spread_place(aloop__spread_t *spread, const aloop__driver_t *driver, int fd) {
  for (;;) {
    aloop__branch_t *branch = choose(spread, OPEN);
    if (branch == NULL && !spread->local) branch = choose(spread, RESTING);
    if (branch == NULL) return spread->local ? ALOOP__SPREAD_HERE : ALOOP__SPREAD_NOWHERE;
    spread->next = (size_t)(branch - spread->branches) + 1;
    if (send_to(branch, driver, fd)) return ALOOP__SPREAD_AWAY;
  }
}

static bool has_place(aloop__spread_t *spread) {
  size_t limit = spread->server->max_clients;
  if (limit > 0 && aloop__server_population(spread->server) >= limit) return false;
  return spread->local || choose(spread, OPEN) != NULL;
}

bool aloop__spread_wants(aloop__spread_t *spread) {
  bool wants = has_place(spread);
  int wish = wants ? WISH_NONE : WISH_ANY;
  if (atomic_load_explicit(&spread->wish, memory_order_relaxed) == wish) return wants;
  atomic_store(&spread->wish, wish);
  return wants || has_place(spread);
}

/* ---- In the acceptor's thread: news ---------------------------------------------------------------------- */

static bool is_over(const aloop__branch_t *branch) {
  return atomic_load(&branch->state) == OVER;
}

/* How many of those that wait, the first ones, a word about clients was meant for. */
static uint64_t to_end(aloop__branch_t *branch) {
  const orders_t *orders = &branch->orders;
  lock(branch->spread, &branch->lock);
  uint64_t last = orders->close_at > orders->abort_at ? orders->close_at : orders->abort_at;
  uint64_t before = branch->handed - orders->count;
  unlock(branch->spread, &branch->lock);
  return last > before ? last - before : 0;
}

/* What waited for a branch that is over goes to another one, while there is a server. */
static void take_back(aloop__spread_t *spread, aloop__branch_t *branch) {
  arrival_t arrival;
  for (uint64_t ending = to_end(branch); pop(branch, &arrival); ending -= ending > 0) {
    branch->handed--;
    if (ending > 0)
      close(arrival.fd);
    else
      aloop__accept_place(spread->server, arrival.driver, arrival.fd);
  }
}

static void hear(aloop__spread_t *spread) {
  aloop_server_t *server = spread->server;
  bool left = spread->local || !is_same_process(spread);
  aloop__object_ref(&server->object);
  for (size_t i = 0; i < spread->count && is_same_process(spread); i++) {
    if (is_over(&spread->branches[i]))
      take_back(spread, &spread->branches[i]);
    else
      left = true;
  }
  if (server->closed)
    aloop__server_settle(server);
  else if (left)
    aloop__accept_retry(server);
  else
    aloop_server_close(server);
  aloop__object_unref(&server->object);
}

void aloop__spread_woken(aloop_t *loop, aloop__room_t *room) {
  (void)loop;
  aloop__list_t *spreads = &((aloop__net_t *)(void *)room)->spreads;
  for (aloop__list_t *at = spreads->next, *next; at != spreads; at = next) {
    aloop__spread_t *spread = ALOOP_CONTAINER_OF(at, aloop__spread_t, link);
    next = at->next;
    if (atomic_exchange(&spread->news, false)) hear(spread);
  }
}

/* ---- In the acceptor's thread: beginning and end --------------------------------------------------------- */

const char *aloop__spread_fault(aloop_t *const *loops, size_t count) {
  if (count > 0 && loops == NULL) return "options.loops is not set";
  for (size_t i = 0; i < count; i++) {
    if (loops[i] == NULL) return "one of options.loops is NULL";
    for (size_t j = 0; j < i; j++)
      if (loops[j] == loops[i]) return "options.loops names a loop twice";
  }
  return NULL;
}

/* The memory of a branch, which is no guest yet. */
static int open_branch(aloop__spread_t *spread, aloop_t *loop) {
  aloop__branch_t *branch = &spread->branches[spread->count];
  branch->server = aloop__memory_zero(loop, sizeof *branch->server);
  if (branch->server == NULL) return ALOOP_ENOMEM;
  if (pthread_mutex_init(&branch->lock, NULL) != 0) {
    aloop__memory_release(loop, branch->server);
    return ALOOP_ENOMEM;
  }
  atomic_init(&branch->taken, 0);
  atomic_init(&branch->ended, 0);
  atomic_init(&branch->state, OPEN);
  branch->guest.farewell = farewell;
  branch->loop = loop;
  branch->spread = spread;
  spread->count++;
  return 0;
}

/* From here on the branch can be left in its own thread only. */
static int join(aloop__branch_t *branch) {
  aloop__spread_t *spread = branch->spread;
  atomic_fetch_add(&spread->refs, 1);
  if (!aloop__guests_join(branch->loop, &branch->guest)) {
    atomic_fetch_sub(&spread->refs, 1);
    return ALOOP_ECLOSED;
  }
  lock(spread, &branch->lock);
  int rc = post(branch);
  unlock(spread, &branch->lock);
  return rc;
}

/* Says something to every branch. */
static void say(aloop__spread_t *spread, void (*write)(aloop__branch_t *branch)) {
  for (size_t i = 0; i < spread->count && is_same_process(spread); i++) {
    aloop__branch_t *branch = &spread->branches[i];
    pthread_mutex_lock(&branch->lock);
    write(branch);
    post(branch);
    pthread_mutex_unlock(&branch->lock);
  }
}

static void write_attached(aloop__branch_t *branch) {
  branch->orders.attached = true;
}

static void write_closing(aloop__branch_t *branch) {
  branch->orders.closing = true;
}

static void write_close(aloop__branch_t *branch) {
  branch->orders.close_at = branch->handed;
}

static void write_abort(aloop__branch_t *branch) {
  branch->orders.abort_at = branch->handed;
}

void aloop__spread_drop(aloop__spread_t *spread) {
  if (spread == NULL) return;
  say(spread, write_closing);
  unref(spread);
}

/* Branches from `joined` on never were. */
static void undo(aloop__spread_t *spread, size_t joined) {
  for (size_t i = joined; i < spread->count; i++) {
    aloop__memory_release(spread->branches[i].loop, spread->branches[i].server);
    pthread_mutex_destroy(&spread->branches[i].lock);
  }
  spread->count = joined;
  aloop__spread_drop(spread);
}

static aloop__spread_t *allocate(size_t count) {
  aloop__spread_t *spread = aloop__executor_new_block(sizeof *spread + count * sizeof spread->branches[0]);
  if (spread == NULL || pthread_mutex_init(&spread->lock, NULL) == 0) return spread;
  aloop__executor_free_block(spread);
  return NULL;
}

int aloop__spread_new(aloop_t *loop, aloop_t *const *loops, size_t count, aloop__spread_t **out) {
  *out = NULL;
  if (count == 0) return 0;
  aloop__spread_t *spread = allocate(count);
  if (spread == NULL) return ALOOP_ENOMEM;
  atomic_init(&spread->refs, 1);
  atomic_init(&spread->news, false);
  atomic_init(&spread->wish, WISH_NONE);
  spread->forks = aloop__current_forks();
  aloop__list_init(&spread->link);
  size_t joined = 0;
  int rc = 0;
  for (size_t i = 0; i < count && rc == 0; i++) {
    if (loops[i] == loop)
      spread->local = true;
    else
      rc = open_branch(spread, loops[i]);
  }
  while (rc == 0 && joined < spread->count) {
    rc = join(&spread->branches[joined]);
    joined += rc != ALOOP_ECLOSED;
  }
  if (rc < 0)
    undo(spread, joined);
  else
    *out = spread;
  return rc;
}

void aloop__spread_attach(aloop__spread_t *spread, aloop_server_t *server) {
  aloop_t *loop = server->object.loop;
  spread->table = server->table;
  spread->arg = server->arg;
  spread->layer = aloop__layer_keep(&server->layer);
  spread->origin = server->object.origin;
  spread->server = server;
  server->spread = spread;
  aloop__object_ref(&server->object);
  aloop__list_append(&aloop__net_of(loop)->spreads, &spread->link);
  lock(spread, &spread->lock);
  spread->home = loop;
  unlock(spread, &spread->lock);
  say(spread, write_attached);
}

void aloop__spread_release_with(aloop__spread_t *spread, aloop_destroy_fn release) {
  spread->release = release;
}

size_t aloop__spread_end_clients(aloop__spread_t *spread, bool abort) {
  size_t count = aloop__spread_clients(spread);
  if (count > 0) say(spread, abort ? write_abort : write_close);
  return count;
}

void aloop__spread_close(aloop__spread_t *spread) {
  atomic_store(&spread->wish, WISH_LAST);
  say(spread, write_closing);
}

void aloop__spread_detach(aloop__spread_t *spread) {
  aloop_server_t *server = spread->server;
  lock(spread, &spread->lock);
  spread->home = NULL;
  unlock(spread, &spread->lock);
  aloop__list_remove(&spread->link);
  for (size_t i = 0; i < spread->count; i++)
    if (is_over(&spread->branches[i])) discard(&spread->branches[i]);
  server->spread = NULL;
  spread->server = NULL;
  unref(spread);
  aloop__object_unref(&server->object);
}
