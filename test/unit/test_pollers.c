/* SPDX-License-Identifier: MIT
 *
 * The contract of a poller table, driven directly, without a loop. pollers: all.
 *
 * Where pollers may differ the test says so: `knows_files` are those that watch open files instead of numbers
 * and so cannot see that a number was closed; select and kqueue report an error or hang-up in the directions
 * that were asked for. libkqueue, through which kqueue.c is tested on Linux, has limits of its own (see
 * kqueue.c).
 */
#include "harness.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__)
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

enum { R = ALOOP_READABLE, W = ALOOP_WRITABLE, RW = R | W, ROOM = 64 };
static const int64_t MS = 1000000;
static const uint32_t TOKEN = 0xfedcba98u; /* all 32 bits count */

typedef struct bed {
  env_t *env;
  const aloop_poller_t *table;
  void *poller;
  bool on_virtual, on_select, on_kqueue, on_epoll;
  bool refuses_files; /* regular ones */
  bool knows_files;
  bool has_descriptor; /* of its own */
} bed_t;

/* ---- Fixture --------------------------------------------------------------------------------------------- */

static int setup(void **state) {
  if (test_setup(state) != 0) return -1;
  env_t *env = *state;
  aloop_free(env->loop); /* only its allocator and counts are wanted */
  env->loop = NULL;
  bed_t *bed = calloc(1, sizeof *bed);
  if (bed == NULL) return -1;
  bed->env = env;
  bed->table = aloop_poller_find(getenv("ALOOP_POLLER"));
  if (bed->table == NULL) return -1;
  bed->on_virtual = strcmp(bed->table->name, "virtual") == 0;
  bed->on_select = strcmp(bed->table->name, "select") == 0;
  bed->on_kqueue = strcmp(bed->table->name, "kqueue") == 0;
  bed->on_epoll = strcmp(bed->table->name, "epoll") == 0;
  bool on_uring = strcmp(bed->table->name, "uring") == 0;
  bed->refuses_files = bed->on_epoll || on_uring;
  bed->has_descriptor = bed->on_epoll || bed->on_kqueue || on_uring;
  bed->knows_files = bed->on_epoll || bed->on_kqueue;
  *state = bed;
  return bed->table->open(NULL, &env->allocator, &bed->poller);
}

static int teardown(void **state) {
  bed_t *bed = *state;
  void *env = bed->env;
  bed->env->fail_at = bed->env->fail_from = 0;
  bed->table->close(bed->poller);
  free(bed);
  return test_teardown(&env);
}

#undef T
#define T(TEST) cmocka_unit_test_setup_teardown(TEST, setup, teardown)

/* ---- Help ------------------------------------------------------------------------------------------------ */

static int64_t real_time(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* The clock that the poller's waits are measured on. */
static int64_t poller_time(const bed_t *bed) {
  return bed->table->now != NULL ? bed->table->now(bed->poller) : real_time();
}

static int update(bed_t *bed, int fd, uint32_t token, uint32_t before, uint32_t after) {
  return bed->table->update(bed->poller, fd, token, before, after);
}

static void watch(bed_t *bed, int fd, uint32_t token, uint32_t events) {
  assert_int_equal(update(bed, fd, token, 0, events), 0);
}

static int wait_for(bed_t *bed, aloop_poll_event_t *events, int capacity, int64_t timeout) {
  int count = bed->table->wait(bed->poller, events, capacity, timeout);
  assert_in_range(count, 0, capacity);
  for (int i = 0; i < count; i++)
    if (events[i].events & ~(uint32_t)RW) events[i].events = RW;
  return count;
}

/* The events of the only descriptor that is ready, which must be the one with this token; 0 if none is. */
static uint32_t look(bed_t *bed, uint32_t token) {
  aloop_poll_event_t events[ROOM];
  int count = wait_for(bed, events, ROOM, 0);
  if (count == 0) return 0;
  assert_int_equal(count, 1);
  assert_true(events[0].token == token);
  return events[0].events;
}

/* A wait that nothing ends lasts as long as it should. */
static void assert_waits(bed_t *bed, int64_t timeout) {
  aloop_poll_event_t events[ROOM];
  int64_t start = poller_time(bed);
  assert_int_equal(wait_for(bed, events, ROOM, timeout), 0);
  assert_true(poller_time(bed) - start >= timeout);
}

static void put(int fd) {
  assert_int_equal(write(fd, "x", 1), 1);
}

static void take(int fd) {
  char byte;
  assert_int_equal(read(fd, &byte, 1), 1);
}

static void close_both(const int fds[2]) {
  close(fds[0]);
  close(fds[1]);
}

/* Gives the open file another number. */
static int renumber(int fd, int number) {
  if (fd == number) return fd;
  assert_int_equal(dup2(fd, number), number);
  close(fd);
  return number;
}

/* The upper limit of descriptors of this process, raised if need be. */
static bool allow_fds(rlim_t wanted) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur >= wanted) return true;
  if (limit.rlim_max < wanted) return false;
  limit.rlim_cur = wanted;
  return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

/* ---- Readiness ------------------------------------------------------------------------------------------- */

static void reports_what_is_readable(void **state) {
  bed_t *bed = *state;
  int fds[2];
  make_socketpair(fds);
  watch(bed, fds[0], TOKEN, R);
  assert_int_equal(look(bed, TOKEN), 0);
  put(fds[1]);
  assert_int_equal(look(bed, TOKEN), R);
  take(fds[0]);
  assert_int_equal(look(bed, TOKEN), 0);
  close_both(fds);
}

static void reports_what_is_writable(void **state) {
  bed_t *bed = *state;
  int fds[2];
  make_pipe(fds);
  watch(bed, fds[1], TOKEN, W);
  assert_int_equal(look(bed, TOKEN), W);
  char block[4096] = {0};
  while (write(fds[1], block, sizeof block) > 0) continue;
  assert_int_equal(look(bed, TOKEN), 0);
  close_both(fds);
}

static void reports_both_directions_in_one_event(void **state) {
  bed_t *bed = *state;
  int fds[2];
  make_socketpair(fds);
  watch(bed, fds[0], TOKEN, RW);
  put(fds[1]);
  assert_int_equal(look(bed, TOKEN), RW);
  close_both(fds);
}

static void reports_only_what_was_asked_for(void **state) {
  bed_t *bed = *state;
  int fds[2];
  make_socketpair(fds);
  put(fds[1]);
  watch(bed, fds[0], TOKEN, W);
  assert_int_equal(look(bed, TOKEN), W);
  close_both(fds);
}

static void reports_an_always_ready_descriptor_each_time(void **state) {
  bed_t *bed = *state;
  int fds[2];
  make_socketpair(fds);
  put(fds[1]);
  watch(bed, fds[0], TOKEN, RW);
  for (int i = 0; i < 10; i++) assert_int_equal(look(bed, TOKEN), RW);
  close_both(fds);
}

static void tells_descriptors_apart(void **state) {
  bed_t *bed = *state;
  int a[2], b[2];
  make_socketpair(a);
  make_socketpair(b);
  watch(bed, a[0], 1, R);
  watch(bed, b[0], 2, W);
  put(a[1]);
  aloop_poll_event_t events[ROOM];
  assert_int_equal(wait_for(bed, events, ROOM, ALOOP_FOREVER), 2);
  int first = events[0].token == 1 ? 0 : 1;
  assert_true(events[first].token == 1 && events[first].events == R);
  assert_true(events[1 - first].token == 2 && events[1 - first].events == W);
  close_both(a);
  close_both(b);
}

static void reports_a_hang_up_of_a_socket(void **state) {
  bed_t *bed = *state;
  int fds[2];
  make_socketpair(fds);
  watch(bed, fds[0], TOKEN, RW);
  close(fds[1]);
  assert_int_equal(look(bed, TOKEN), RW);
  close(fds[0]);
}

static void reports_the_end_of_a_pipe_to_its_reader(void **state) {
  bed_t *bed = *state;
  int fds[2];
  make_pipe(fds);
  watch(bed, fds[0], TOKEN, R);
  close(fds[1]);
  assert_int_equal(look(bed, TOKEN) & R, R);
  close(fds[0]);
}

static void reports_the_end_of_a_pipe_to_its_writer(void **state) {
  bed_t *bed = *state;
  int fds[2];
  make_pipe(fds);
  char block[4096] = {0};
  while (write(fds[1], block, sizeof block) > 0) continue;
  watch(bed, fds[1], TOKEN, W);
  assert_int_equal(look(bed, TOKEN), 0);
  close(fds[0]);
  assert_int_equal(look(bed, TOKEN) & W, W);
  close(fds[1]);
}

static void make_tcp_pair(int fds[2]) {
  int listener = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t size = sizeof address;
  assert_int_equal(bind(listener, (struct sockaddr *)&address, size), 0);
  assert_int_equal(listen(listener, 1), 0);
  assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
  fds[0] = socket(AF_INET, SOCK_STREAM, 0);
  assert_int_equal(connect(fds[0], (struct sockaddr *)&address, size), 0);
  fds[1] = accept(listener, NULL, NULL);
  assert_true(fds[1] >= 0);
  close(listener);
}

static void reset_peer(int fd) {
  struct linger at_once = {.l_onoff = 1, .l_linger = 0};
  assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once), 0);
  close(fd);
}

static void reports_an_error_to_the_reader(void **state) {
  bed_t *bed = *state;
  int fds[2];
  make_tcp_pair(fds);
  watch(bed, fds[0], TOKEN, R);
  reset_peer(fds[1]);
  assert_int_equal(look(bed, TOKEN) & R, R);
  close(fds[0]);
}

static void reports_an_error_in_both_directions(void **state) {
  bed_t *bed = *state;
  int fds[2];
  make_tcp_pair(fds);
  watch(bed, fds[0], TOKEN, RW);
  reset_peer(fds[1]);
  assert_int_equal(look(bed, TOKEN), RW);
  close(fds[0]);
}

/* ---- Changes --------------------------------------------------------------------------------------------- */

static void a_change_keeps_the_token(void **state) {
  bed_t *bed = *state;
  int fds[2];
  make_socketpair(fds);
  put(fds[1]);
  static const uint32_t steps[] = {R, RW, W, R, W, RW, R};
  uint32_t before = 0;
  for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
    assert_int_equal(update(bed, fds[0], TOKEN, before, steps[i]), 0);
    assert_int_equal(look(bed, TOKEN), steps[i]);
    before = steps[i];
  }
  close_both(fds);
}

static void a_change_can_change_the_token(void **state) {
  bed_t *bed = *state;
  int fds[2];
  make_socketpair(fds);
  put(fds[1]);
  watch(bed, fds[0], 1, RW);
  assert_int_equal(look(bed, 1), RW);
  assert_int_equal(update(bed, fds[0], 2, RW, RW), 0);
  assert_int_equal(look(bed, 2), RW);
  assert_int_equal(update(bed, fds[0], 3, RW, R), 0);
  assert_int_equal(look(bed, 3), R);
  close_both(fds);
}

static void is_silent_after_removal(void **state) {
  bed_t *bed = *state;
  int fds[2];
  make_socketpair(fds);
  put(fds[1]);
  watch(bed, fds[0], TOKEN, RW);
  assert_int_equal(update(bed, fds[0], TOKEN, RW, 0), 0);
  assert_int_equal(look(bed, TOKEN), 0);
  assert_waits(bed, 1 * MS);
  close_both(fds);
}

static void watches_again_under_another_token(void **state) {
  bed_t *bed = *state;
  int fds[2];
  make_socketpair(fds);
  put(fds[1]);
  watch(bed, fds[0], 1, RW);
  assert_int_equal(update(bed, fds[0], 1, RW, 0), 0);
  watch(bed, fds[0], 2, R);
  assert_int_equal(look(bed, 2), R);
  close_both(fds);
}

static void refuses_a_closed_descriptor(void **state) {
  bed_t *bed = *state;
  int fds[2];
  make_socketpair(fds);
  close_both(fds);
  assert_int_equal(update(bed, fds[0], TOKEN, 0, R), ALOOP_EBADF);
  assert_int_equal(update(bed, -1, TOKEN, 0, R), ALOOP_EBADF);
  assert_waits(bed, 1 * MS);
}

static void a_refused_descriptor_can_be_watched_once_open(void **state) {
  bed_t *bed = *state;
  int fds[2];
  make_socketpair(fds);
  close_both(fds);
  assert_int_equal(update(bed, fds[0], 1, 0, R), ALOOP_EBADF);
  make_socketpair(fds);
  put(fds[1]);
  watch(bed, fds[0], 2, R);
  assert_int_equal(look(bed, 2), R);
  close_both(fds);
}

static void treats_a_regular_file_as_it_documents(void **state) {
  bed_t *bed = *state;
  FILE *file = tmpfile();
  assert_non_null(file);
  assert_true(fputs("text", file) >= 0 && fflush(file) == 0);
  rewind(file);
  int rc = update(bed, fileno(file), TOKEN, 0, R);
  assert_int_equal(rc, bed->refuses_files ? ALOOP_EPERM : 0);
  assert_int_equal(look(bed, TOKEN), bed->refuses_files ? 0 : R);
  fclose(file);
}

/* ---- Closed behind our back ------------------------------------------------------------------------------ */

static void removal_after_close_succeeds(void **state) {
  bed_t *bed = *state;
  int fds[2];
  make_socketpair(fds);
  watch(bed, fds[0], TOKEN, RW);
  close_both(fds);
  assert_int_equal(update(bed, fds[0], TOKEN, RW, 0), 0);
  assert_int_equal(look(bed, TOKEN), 0);
  assert_waits(bed, 1 * MS);
}

static void a_closed_descriptor_is_reported_at_most_once(void **state) {
  bed_t *bed = *state;
  int fds[2];
  make_socketpair(fds);
  watch(bed, fds[0], TOKEN, R);
  close_both(fds);
  assert_int_equal(look(bed, TOKEN), bed->knows_files ? 0 : RW);
  for (int i = 0; i < 10; i++) assert_int_equal(look(bed, TOKEN), 0);
  assert_waits(bed, 1 * MS);
}

static void a_closed_descriptor_does_not_hide_the_others(void **state) {
  bed_t *bed = *state;
  int dead[2], alive[2];
  make_socketpair(dead);
  make_socketpair(alive);
  watch(bed, dead[0], 1, R);
  watch(bed, alive[0], 2, R);
  close_both(dead);
  put(alive[1]);
  aloop_poll_event_t events[ROOM];
  for (int i = 0; i < 3; i++) wait_for(bed, events, ROOM, 0);
  assert_int_equal(look(bed, 2), R);
  close_both(alive);
}

static void many_closed_descriptors_fit_few_places(void **state) {
  bed_t *bed = *state;
  int fds[10][2];
  for (int i = 0; i < 10; i++) make_socketpair(fds[i]);
  for (uint32_t i = 0; i < 10; i++) watch(bed, fds[i][0], i, RW);
  for (int i = 0; i < 10; i++) close_both(fds[i]);
  aloop_poll_event_t events[3];
  int reported = 0;
  for (int i = 0; i < 10; i++) reported += wait_for(bed, events, 3, 0);
  assert_int_equal(reported, bed->knows_files ? 0 : 10);
  assert_waits(bed, 1 * MS);
}

static void a_reused_number_works_after_removal(void **state) {
  bed_t *bed = *state;
  int old[2], new[2];
  make_socketpair(old);
  watch(bed, old[0], 1, RW);
  close_both(old);
  make_socketpair(new);
  new[0] = renumber(new[0], old[0]);
  assert_int_equal(update(bed, new[0], 1, RW, 0), 0);
  assert_int_equal(look(bed, 1), 0);
  watch(bed, new[0], 2, R);
  assert_int_equal(look(bed, 2), 0);
  put(new[1]);
  assert_int_equal(look(bed, 2), R);
  close_both(new);
}

static void a_change_brings_a_reused_number_back(void **state) {
  bed_t *bed = *state;
  static const uint32_t changes[][2] = {{R, R}, {R, RW}, {RW, R}, {W, R}, {RW, RW}};
  for (size_t i = 0; i < sizeof changes / sizeof changes[0]; i++) {
    int old[2], new[2];
    aloop_poll_event_t events[ROOM];
    make_socketpair(old);
    watch(bed, old[0], TOKEN, changes[i][0]);
    close_both(old);
    wait_for(bed, events, ROOM, 0); /* poll and select find out, and fall silent */
    make_socketpair(new);
    new[0] = renumber(new[0], old[0]);
    put(new[1]);
    assert_int_equal(update(bed, new[0], TOKEN, changes[i][0], changes[i][1]), 0);
    assert_int_equal(look(bed, TOKEN), changes[i][1]);
    assert_int_equal(update(bed, new[0], TOKEN, changes[i][1], 0), 0);
    close_both(new);
  }
}

/* A file that lives on in a duplicate after its watched number was closed. Pollers that know numbers only are rid of
 * it. epoll goes on reporting its old token, which the loop recognises (test_ugly.c); it must never report another. */
typedef struct ghost {
  int number; /* once watched under token 1 */
  int fds[2]; /* the duplicate, and the other end */
} ghost_t;

static ghost_t make_ghost(bed_t *bed) {
  if (bed->on_kqueue) skip(); /* libkqueue cannot; on the BSDs close() removes what was watched */
  int fds[2];
  make_socketpair(fds);
  watch(bed, fds[0], 1, RW);
  ghost_t ghost = {.number = fds[0], .fds = {dup(fds[0]), fds[1]}};
  close(fds[0]);
  put(fds[1]);
  assert_int_equal(update(bed, ghost.number, 1, RW, 0), 0);
  return ghost;
}

/* What is reported under the other token, in a few calls. */
static uint32_t look_past_ghosts(bed_t *bed, uint32_t token) {
  aloop_poll_event_t events[ROOM];
  uint32_t seen = 0;
  for (int call = 0; call < 3; call++) {
    int count = wait_for(bed, events, ROOM, 0);
    for (int i = 0; i < count; i++) {
      assert_true(events[i].token == token || (bed->on_epoll && events[i].token == 1));
      if (events[i].token == token) seen |= events[i].events;
    }
  }
  return seen;
}

static void a_ghost_does_not_speak_for_the_next_owner_of_its_number(void **state) {
  bed_t *bed = *state;
  ghost_t ghost = make_ghost(bed);
  int fds[2];
  make_socketpair(fds);
  fds[0] = renumber(fds[0], ghost.number);
  watch(bed, fds[0], 2, R);
  assert_int_equal(look_past_ghosts(bed, 2), 0);
  put(fds[1]);
  assert_int_equal(look_past_ghosts(bed, 2), R);
  close_both(fds);
  close_both(ghost.fds);
}

static void a_ghost_that_comes_back_to_its_number_is_no_ghost(void **state) {
  bed_t *bed = *state;
  ghost_t ghost = make_ghost(bed);
  assert_int_equal(dup2(ghost.fds[0], ghost.number), ghost.number);
  watch(bed, ghost.number, 2, R);
  assert_int_equal(look(bed, 2), R);
  assert_int_equal(update(bed, ghost.number, 2, R, 0), 0);
  assert_int_equal(look(bed, 2), 0);
  assert_waits(bed, 1 * MS);
  close(ghost.number);
  close_both(ghost.fds);
}

/* ---- Waiting --------------------------------------------------------------------------------------------- */

static void never_wakes_early(void **state) {
  bed_t *bed = *state;
  for (int i = 0; i < 100; i++) assert_waits(bed, 1500000);
  for (int64_t timeout = 1; timeout <= 2 * MS; timeout = timeout * 3 + 1) assert_waits(bed, timeout);
}

static int bell; /* the handler writes a byte here, unless it is -1 */

static void ring(int signal) {
  (void)signal;
  int error = errno;
  if (bell >= 0 && write(bell, "x", 1) < 0) bell = -1;
  errno = error;
}

/* SIGALRM every millisecond: the first may come before the wait begins. */
static void start_ringing(int fd) {
  bell = fd;
  struct sigaction action = {.sa_handler = ring, .sa_flags = SA_RESTART};
  assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
  struct itimerval every = {.it_interval.tv_usec = 1000, .it_value.tv_usec = 1000};
  assert_int_equal(setitimer(ITIMER_REAL, &every, NULL), 0);
}

static void stop_ringing(void) {
  struct itimerval never = {0};
  setitimer(ITIMER_REAL, &never, NULL);
  signal(SIGALRM, SIG_DFL);
}

static void a_signal_interrupts_a_wait_for_ever(void **state) {
  bed_t *bed = *state;
  aloop_poll_event_t events[ROOM];
  start_ringing(-1);
  int count = bed->table->wait(bed->poller, events, ROOM, ALOOP_FOREVER);
  stop_ringing();
  assert_int_equal(count, 0);
}

static void a_signal_interrupts_a_finite_wait(void **state) {
  bed_t *bed = *state;
  aloop_poll_event_t events[ROOM];
  start_ringing(-1);
  int count = bed->table->wait(bed->poller, events, ROOM, 3600000 * MS);
  stop_ringing();
  assert_int_equal(count, 0);
}

static void *write_one(void *arg) {
  put(*(int *)arg);
  return NULL;
}

static void a_huge_timeout_is_a_long_wait(void **state) {
  bed_t *bed = *state;
  int fds[2];
  make_socketpair(fds);
  watch(bed, fds[0], TOKEN, R);
  static const int64_t huge[] = {INT64_MAX, INT64_MAX - 1, INT64_MAX / 2, INT64_C(1) << 53, 86400000 * MS + 1};
  for (size_t i = 0; i < sizeof huge / sizeof huge[0]; i++) {
    aloop_poll_event_t events[ROOM];
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, write_one, &fds[1]), 0);
    int count = 0;
    while (count == 0) count = wait_for(bed, events, ROOM, huge[i]); /* the virtual clock jumps ahead */
    pthread_join(thread, NULL);
    assert_int_equal(count, 1);
    assert_int_equal(events[0].events, R);
    take(fds[0]);
  }
  close_both(fds);
}

static void another_thread_ends_a_wait_for_ever(void **state) {
  bed_t *bed = *state;
  int fds[2];
  make_socketpair(fds);
  watch(bed, fds[0], TOKEN, R);
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, write_one, &fds[1]), 0);
  aloop_poll_event_t events[ROOM];
  assert_int_equal(wait_for(bed, events, ROOM, ALOOP_FOREVER), 1);
  pthread_join(thread, NULL);
  close_both(fds);
}

static void the_backend_descriptor_tells_when_a_wait_would_not_block(void **state) {
  bed_t *bed = *state;
  if (bed->table->backend_fd == NULL) skip();
  if (bed->table->flags & ALOOP_POLLER_ONE_THREAD) { /* for a host it is another one */
    bed->table->close(bed->poller);
    assert_int_equal(bed->table->open(bed, &bed->env->allocator, &bed->poller), 0);
  }
  int fds[2];
  make_socketpair(fds);
  struct pollfd backend = {.fd = bed->table->backend_fd(bed->poller), .events = POLLIN};
  watch(bed, fds[0], TOKEN, R);
  assert_int_equal(poll(&backend, 1, 0), 0);
  put(fds[1]);
  assert_int_equal(poll(&backend, 1, 0), 1);
  close_both(fds);
}

static void a_peer_that_has_finished_does_not_make_a_full_socket_busy(void **state) {
  bed_t *bed = *state;
  int fds[2];
  char bytes[4096] = {0};
  make_socketpair(fds);
  while (write(fds[0], bytes, sizeof bytes) > 0) continue;
  assert_int_equal(shutdown(fds[1], SHUT_WR), 0);
  watch(bed, fds[0], TOKEN, W);
  assert_int_equal(look(bed, TOKEN), 0);
  assert_int_equal(look(bed, TOKEN), 0);
  assert_waits(bed, 1 * MS);
  while (read(fds[1], bytes, sizeof bytes) > 0) continue;
  for (int i = 0; i < 3; i++) assert_int_equal(look(bed, TOKEN), W);
  assert_int_equal(update(bed, fds[0], TOKEN, W, 0), 0);
  close_both(fds);
}

static void an_edge_is_told_once(void **state) {
  bed_t *bed = *state;
  if ((bed->table->flags & ALOOP_POLLER_EDGES) == 0) skip();
  int fds[2];
  make_socketpair(fds);
  watch(bed, fds[0], TOKEN, R | ALOOP_EDGES);
  for (int i = 0; i < 3; i++) { /* nothing is read */
    put(fds[1]);
    assert_int_equal(look(bed, TOKEN), R);
    assert_int_equal(look(bed, TOKEN), 0);
  }
  assert_int_equal(update(bed, fds[0], TOKEN, R | ALOOP_EDGES, R), 0);
  for (int i = 0; i < 3; i++) assert_int_equal(look(bed, TOKEN), R);
  close_both(fds);
}

/* ---- Many ------------------------------------------------------------------------------------------------ */

static void few_places_starve_nobody(void **state) {
  bed_t *bed = *state;
  enum { N = 50, PLACES = 7 };
  int fds[N][2];
  for (int i = 0; i < N; i++) make_socketpair(fds[i]);
  for (uint32_t i = 0; i < N; i++) watch(bed, fds[i][0], i, W);
  for (int round = 0; round < 3; round++) {
    bool seen[N] = {0};
    int different = 0;
    for (int call = 0; call < 2 * N / PLACES + 2; call++) {
      aloop_poll_event_t events[PLACES];
      int count = wait_for(bed, events, PLACES, 0);
      assert_int_equal(count, PLACES);
      for (int i = 0; i < count; i++) {
        different += !seen[events[i].token];
        seen[events[i].token] = true;
      }
    }
    assert_int_equal(different, N);
  }
  for (int i = 0; i < N; i++) close_both(fds[i]);
}

static void finds_the_ready_ones_among_very_many(void **state) {
  bed_t *bed = *state;
  const int pairs = bed->on_select ? 450 : 1000;
  if (!allow_fds(3000)) skip();
  int(*fds)[2] = calloc((size_t)pairs, sizeof *fds);
  assert_non_null(fds);
  for (int i = 0; i < pairs; i++) {
    make_socketpair(fds[i]);
    watch(bed, fds[i][0], (uint32_t)i, R);
  }
  for (int i = 0; i < pairs; i += 97) {
    put(fds[i][1]);
    assert_int_equal(look(bed, (uint32_t)i), R);
    take(fds[i][0]);
  }
  for (int i = 0; i < pairs; i++) put(fds[i][1]);
  int found = 0;
  for (int count = 1; count > 0;) {
    static aloop_poll_event_t events[4096]; /* more than a poller takes at once */
    count = wait_for(bed, events, 4096, 0);
    found += count;
    for (int i = 0; i < count; i++) take(fds[events[i].token][0]);
  }
  assert_int_equal(found, pairs);
  for (int i = 0; i < pairs; i++) {
    assert_int_equal(update(bed, fds[i][0], (uint32_t)i, R, 0), 0);
    close_both(fds[i]);
  }
  free(fds);
}

static void only_select_refuses_high_numbers(void **state) {
  bed_t *bed = *state;
  if (!allow_fds(FD_SETSIZE + 100)) skip();
  int fds[2];
  make_socketpair(fds);
  int last = fcntl(fds[0], F_DUPFD, FD_SETSIZE - 1), high = fcntl(fds[0], F_DUPFD, FD_SETSIZE);
  put(fds[1]);
  assert_int_equal(update(bed, high, 1, 0, R), bed->on_select ? ALOOP_ERANGE : 0);
  assert_int_equal(look(bed, 1), bed->on_select ? 0 : R);
  assert_int_equal(update(bed, high, 1, R, 0), 0);
  close(high);
  watch(bed, last, 2, R);
  assert_int_equal(look(bed, 2), R);
  close(last);
  close_both(fds);
}

/* What the poller should say about a socket pair's end. */
typedef struct model {
  int fds[2];
  uint32_t events;
  uint32_t token;
  int waiting; /* bytes to read */
} model_t;

static void assert_agrees(bed_t *bed, const model_t *models, int count) {
  aloop_poll_event_t events[ROOM];
  int expected = 0, found = wait_for(bed, events, ROOM, 0);
  for (int i = 0; i < count; i++) {
    uint32_t want = models[i].events & (uint32_t)(W | (models[i].waiting > 0 ? R : 0));
    if (want == 0) continue;
    expected++;
    int at = 0;
    while (at < found && events[at].token != models[i].token) at++;
    assert_true(at < found);
    assert_int_equal(events[at].events, want);
  }
  assert_int_equal(found, expected);
}

static void random_step(bed_t *bed, model_t *model, uint32_t *next_token) {
  uint32_t after = (uint32_t)rand() & RW;
  switch (rand() % 6) {
  case 0: /* open */
    if (model->fds[0] < 0) make_socketpair(model->fds);
    break;
  case 1: /* close, most of the time after removal */
    if (model->fds[0] < 0) break;
    if (rand() % 4 == 0) close_both(model->fds);
    assert_int_equal(update(bed, model->fds[0], model->token, model->events, 0), 0);
    if (fcntl(model->fds[0], F_GETFD) >= 0) close_both(model->fds);
    *model = (model_t){.fds = {-1, -1}};
    break;
  case 2: /* send */
    if (model->fds[0] < 0) break;
    put(model->fds[1]);
    model->waiting++;
    break;
  case 3: /* receive */
    if (model->waiting == 0) break;
    take(model->fds[0]);
    model->waiting--;
    break;
  default: /* change */
    if (model->fds[0] < 0) break;
    if (model->events == 0) model->token = ++*next_token;
    assert_int_equal(update(bed, model->fds[0], model->token, model->events, after), 0);
    model->events = after;
  }
}

static void agrees_with_a_model_over_random_steps(void **state) {
  bed_t *bed = *state;
  enum { N = 20 };
  model_t models[N];
  for (int i = 0; i < N; i++) models[i] = (model_t){.fds = {-1, -1}};
  uint32_t next_token = 0;
  srand(1);
  for (int step = 0; step < 5000; step++) {
    random_step(bed, &models[rand() % N], &next_token);
    assert_agrees(bed, models, N);
  }
  for (int i = 0; i < N; i++)
    if (models[i].fds[0] >= 0) close_both(models[i].fds);
}

/* ---- Memory ---------------------------------------------------------------------------------------------- */

static void open_survives_every_failing_allocation(void **state) {
  bed_t *bed = *state;
  env_t *env = bed->env;
  void *poller = NULL;
  int rc = ALOOP_ENOMEM;
  for (long n = 1; rc != 0; n++) {
    long live = env->live;
    env->fail_at = env->calls + n;
    rc = bed->table->open(NULL, &env->allocator, &poller);
    if (rc == 0) break;
    assert_int_equal(rc, ALOOP_ENOMEM);
    assert_int_equal(env->live, live);
  }
  env->fail_at = 0;
  bed->table->close(poller);
}

static void open_tells_when_descriptors_are_short(void **state) {
  bed_t *bed = *state;
  struct rlimit before, none;
  getrlimit(RLIMIT_NOFILE, &before);
  none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
  setrlimit(RLIMIT_NOFILE, &none);
  void *poller = NULL;
  int rc = bed->table->open(NULL, &bed->env->allocator, &poller);
  setrlimit(RLIMIT_NOFILE, &before);
  assert_int_equal(rc, bed->has_descriptor ? ALOOP_EMFILE : 0);
  if (rc == 0) bed->table->close(poller);
}

static void a_failing_allocation_changes_nothing(void **state) {
  bed_t *bed = *state;
  env_t *env = bed->env;
  int fds[2];
  if (!allow_fds(600)) skip();
  make_socketpair(fds);
  put(fds[1]);
  watch(bed, fds[0], 1, R);
  int high = fcntl(fds[0], F_DUPFD, 500);
  int rc = ALOOP_ENOMEM;
  for (long n = 1; rc != 0; n++) {
    env->fail_at = env->calls + n;
    rc = update(bed, high, 2, 0, R);
    env->fail_at = 0;
    if (rc == 0) break;
    assert_int_equal(rc, ALOOP_ENOMEM);
    assert_int_equal(look(bed, 1), R);
  }
  assert_int_equal(update(bed, fds[0], 1, R, 0), 0);
  assert_int_equal(look(bed, 2), R);
  close(high);
  close_both(fds);
}

static void many_descriptors_survive_every_failing_allocation(void **state) {
  bed_t *bed = *state;
  env_t *env = bed->env;
  enum { N = 60 };
  int fds[N][2];
  for (int i = 0; i < N; i++) {
    make_socketpair(fds[i]);
    env->fail_from = env->calls + 1;
    int rc = update(bed, fds[i][0], (uint32_t)i, 0, R);
    env->fail_from = 0;
    if (rc != 0) assert_int_equal(rc, ALOOP_ENOMEM);
    if (rc != 0) watch(bed, fds[i][0], (uint32_t)i, R);
  }
  for (int i = 0; i < N; i++) {
    put(fds[i][1]);
    assert_int_equal(look(bed, (uint32_t)i), R);
    take(fds[i][0]);
  }
  for (int i = 0; i < N; i++) close_both(fds[i]);
}

/* ---- Single pollers -------------------------------------------------------------------------------------- */

static void the_virtual_clock_jumps_to_the_nanosecond(void **state) {
  bed_t *bed = *state;
  if (!bed->on_virtual) skip();
  static const int64_t jumps[] = {1, 999, 1500000, 3600000000000, 1};
  for (size_t i = 0; i < sizeof jumps / sizeof jumps[0]; i++) {
    aloop_poll_event_t events[ROOM];
    int64_t start = poller_time(bed);
    assert_int_equal(wait_for(bed, events, ROOM, jumps[i]), 0);
    assert_true(poller_time(bed) - start == jumps[i]);
  }
}

static void the_virtual_clock_stands_still_while_descriptors_are_ready(void **state) {
  bed_t *bed = *state;
  if (!bed->on_virtual) skip();
  int fds[2];
  make_socketpair(fds);
  watch(bed, fds[0], TOKEN, R);
  put(fds[1]);
  int64_t start = poller_time(bed);
  aloop_poll_event_t events[ROOM];
  for (int i = 0; i < 100; i++) assert_int_equal(wait_for(bed, events, ROOM, 3600000 * MS), 1);
  assert_true(poller_time(bed) == start);
  close_both(fds);
}

static void the_virtual_clock_lets_a_busy_program_end(void **state) {
  bed_t *bed = *state;
  if (!bed->on_virtual) skip();
  int64_t start = poller_time(bed);
  while (poller_time(bed) < start + 10 * MS) continue; /* a callback that computes for 10 ms */
  start = poller_time(bed);
  aloop_poll_event_t events[ROOM];
  while (poller_time(bed) < start + 10 * MS) /* callbacks that schedule each other for 10 ms */
    wait_for(bed, events, ROOM, 0);
}

static void the_virtual_clock_stops_at_the_end_of_time(void **state) {
  bed_t *bed = *state;
  if (!bed->on_virtual) skip();
  aloop_poll_event_t events[ROOM];
  for (int i = 0; i < 3; i++) assert_int_equal(wait_for(bed, events, ROOM, INT64_MAX), 0);
  for (int i = 0; i < 20000; i++) assert_true(poller_time(bed) == INT64_MAX);
}

static void the_virtual_clock_has_patience_with_real_peers(void **state) {
  bed_t *bed = *state;
  if (!bed->on_virtual) skip();
  int fds[2], wake[2];
  make_pipe(fds);
  make_pipe(wake);
  watch(bed, wake[0], 1, R);
  watch(bed, fds[0], 2, R);
  aloop_poll_event_t events[ROOM];
  int64_t start = poller_time(bed);
  start_ringing(fds[1]);
  int count = bed->table->wait(bed->poller, events, ROOM, 3600000 * MS);
  stop_ringing();
  assert_int_equal(count, 1);
  assert_true(events[0].token == 2);
  assert_true(poller_time(bed) == start);
  close_both(fds);
  close_both(wake);
}

static void the_virtual_clock_loses_its_patience(void **state) {
  bed_t *bed = *state;
  if (!bed->on_virtual) skip();
  int fds[2], wake[2];
  make_pipe(fds);
  make_pipe(wake);
  watch(bed, wake[0], 1, R);
  watch(bed, fds[0], 2, R);
  int64_t start = real_time();
  for (int i = 0; i < 1000; i++) assert_waits(bed, 3600000 * MS);
  assert_true(real_time() - start < 5000 * MS); /* with 10 ms each it would be 10 s */
  close_both(fds);
  close_both(wake);
}

#if defined(__linux__) && defined(SYS_epoll_pwait2)
/* In a child: makes epoll_pwait2 fail, then waits; exit code 0 if all was well. */
static void wait_without_pwait2(bed_t *bed, int error) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_epoll_pwait2, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {.len = 4, .filter = code};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) _exit(77);
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) _exit(77);
  aloop_poll_event_t events[1];
  for (int i = 0; i < 5; i++) {
    int64_t start = real_time();
    if (bed->table->wait(bed->poller, events, 1, 1500000) != 0) _exit(1);
    if (real_time() - start < 1500000) _exit(2);
  }
  _exit(0);
}

static void epoll_does_without_epoll_pwait2(void **state) {
  bed_t *bed = *state;
  if (!bed->on_epoll) skip();
  static const int errors[] = {ENOSYS, EPERM};
  for (int i = 0; i < 2; i++) {
    pid_t child = fork();
    if (child == 0) wait_without_pwait2(bed, errors[i]);
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) skip();
    assert_int_equal(status, 0);
  }
}
#else
static void epoll_does_without_epoll_pwait2(void **state) {
  (void)state;
  skip();
}
#endif

static void a_child_closes_its_copy_without_harm(void **state) {
  bed_t *bed = *state;
#ifdef HARNESS_LIBKQUEUE
  if (bed->on_kqueue) skip(); /* its child may only exec */
#endif
  int fds[2];
  make_socketpair(fds);
  watch(bed, fds[0], TOKEN, R);
  pid_t child = fork();
  if (child == 0) {
    bed->table->close(bed->poller);
    _exit(0);
  }
  int status = -1;
  assert_int_equal(waitpid(child, &status, 0), child);
  put(fds[1]);
  assert_int_equal(look(bed, TOKEN), R);
  close_both(fds);
}

/* ---- The list -------------------------------------------------------------------------------------------- */

static void each_name_finds_its_table(void **state) {
  bed_t *bed = *state;
  bool listed = false;
  for (const char *const *name = aloop_poller_names(); *name != NULL; name++) {
    const aloop_poller_t *table = aloop_poller_find(*name);
    assert_non_null(table);
    assert_string_equal(table->name, *name);
    assert_int_equal(table->size, sizeof *table);
    listed = listed || table == bed->table;
  }
  assert_true(listed);
}

static void auto_is_the_best(void **state) {
  (void)state;
  const aloop_poller_t *best = aloop_poller_find(aloop_poller_names()[0]);
  assert_ptr_equal(aloop_poller_find(NULL), best);
  assert_ptr_equal(aloop_poller_find("auto"), best);
  assert_string_not_equal(best->name, "virtual");
}

static void an_unknown_name_finds_nothing(void **state) {
  (void)state;
  assert_null(aloop_poller_find("carrier pigeon"));
  assert_null(aloop_poller_find(""));
}

TESTS(T(reports_what_is_readable), T(reports_what_is_writable), T(reports_both_directions_in_one_event),
      T(reports_only_what_was_asked_for), T(reports_an_always_ready_descriptor_each_time),
      T(tells_descriptors_apart), T(reports_a_hang_up_of_a_socket), T(reports_the_end_of_a_pipe_to_its_reader),
      T(reports_the_end_of_a_pipe_to_its_writer), T(reports_an_error_to_the_reader),
      T(reports_an_error_in_both_directions), T(a_change_keeps_the_token), T(a_change_can_change_the_token),
      T(is_silent_after_removal), T(watches_again_under_another_token), T(refuses_a_closed_descriptor),
      T(a_refused_descriptor_can_be_watched_once_open), T(treats_a_regular_file_as_it_documents),
      T(removal_after_close_succeeds), T(a_closed_descriptor_is_reported_at_most_once),
      T(a_closed_descriptor_does_not_hide_the_others), T(many_closed_descriptors_fit_few_places),
      T(a_reused_number_works_after_removal), T(a_change_brings_a_reused_number_back),
      T(a_ghost_does_not_speak_for_the_next_owner_of_its_number),
      T(a_ghost_that_comes_back_to_its_number_is_no_ghost), T(never_wakes_early),
      T(a_signal_interrupts_a_wait_for_ever), T(a_signal_interrupts_a_finite_wait),
      T(a_huge_timeout_is_a_long_wait), T(another_thread_ends_a_wait_for_ever),
      T(the_backend_descriptor_tells_when_a_wait_would_not_block),
      T(a_peer_that_has_finished_does_not_make_a_full_socket_busy), T(an_edge_is_told_once),
      T(few_places_starve_nobody), T(finds_the_ready_ones_among_very_many), T(only_select_refuses_high_numbers),
      T(agrees_with_a_model_over_random_steps), T(open_survives_every_failing_allocation),
      T(open_tells_when_descriptors_are_short), T(a_failing_allocation_changes_nothing),
      T(many_descriptors_survive_every_failing_allocation), T(the_virtual_clock_jumps_to_the_nanosecond),
      T(the_virtual_clock_stands_still_while_descriptors_are_ready),
      T(the_virtual_clock_lets_a_busy_program_end), T(the_virtual_clock_stops_at_the_end_of_time),
      T(the_virtual_clock_has_patience_with_real_peers), T(the_virtual_clock_loses_its_patience),
      T(epoll_does_without_epoll_pwait2), T(a_child_closes_its_copy_without_harm), T(each_name_finds_its_table),
      T(auto_is_the_best), T(an_unknown_name_finds_nothing))
