/* SPDX-License-Identifier: MIT
 *
 * What programs do to a loop's descriptors although they should not, and what kernels answer, seen through
 * add_reader and add_writer. pollers: all.
 *
 * Whatever happens, the loop must not spin (an idle stretch takes a handful of polls), must not call a callback
 * for a file that it was not given for, and must go on serving the others. How much a poller notices differs:
 * poll and select meet a closed number and tell its owner once, epoll and kqueue never hear of it again.
 */
#include "crowd.h"
#include "dgrams.h"
#include "harness.h"
#include "peers.h"

#include <errno.h>
#include <fcntl.h>
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

enum { R = ALOOP_READABLE, W = ALOOP_WRITABLE, FEW = 6 };

/* ---- Help ------------------------------------------------------------------------------------------------ */

/* A reader of one byte at a time, and what became of it. */
typedef struct reader {
  int fd;
  int calls;
  int bytes;
  int error; /* of the last read; 0: none */
} reader_t;

static void read_one(aloop_t *loop, void *arg) {
  (void)loop;
  reader_t *reader = arg;
  char byte;
  ssize_t got = read(reader->fd, &byte, 1);
  reader->calls++;
  reader->error = got < 0 ? errno : 0;
  if (got > 0) reader->bytes++;
}

static void count(aloop_t *loop, void *arg) {
  (void)loop;
  ++*(int *)arg;
}

static void stop(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_stop(loop);
}

static void put(int fd) {
  assert_int_equal(write(fd, "x", 1), 1);
}

static void close_both(const int fds[2]) {
  close(fds[0]);
  close(fds[1]);
}

static aloop_metrics_t metrics(aloop_t *loop) {
  aloop_metrics_t now = {.size = sizeof now};
  assert_int_equal(aloop_metrics(loop, &now), 0);
  return now;
}

/* Runs the loop for 20 ms of its time and returns how often it asked the poller. */
static int rest(aloop_t *loop) {
  uint64_t before = metrics(loop).polls;
  aloop_call_later(loop, ALOOP_MILLIS(20), stop, NULL);
  assert_int_equal(aloop_run_forever(loop), 0);
  return (int)(metrics(loop).polls - before);
}

/* As many turns as it takes to find out that events come for nothing, and some more. */
static void wonder(aloop_t *loop) {
  for (int i = 0; i < 200; i++) assert_true(aloop_run_once(loop, 0) >= 0);
}

/* Runs turns while there is something to do. */
static void look(aloop_t *loop) {
  for (int i = 0; i < 5; i++) assert_true(aloop_run_once(loop, 0) >= 0);
}

/* Opens a pair of sockets, the first of them under this number, which is free. */
static void make_pair_at(int number, int fds[2]) {
  make_socketpair(fds);
  if (fds[0] == number) return;
  assert_int_equal(fds[1] == number, 0);
  assert_int_equal(dup2(fds[0], number), number);
  close(fds[0]);
  fds[0] = number;
}

static bool tells_of_closed(const env_t *env) {
  return on_poller(env, "poll") || on_poller(env, "select") || on_poller(env, "virtual") ||
         on_poller(env, "uring");
}

/* ---- Closed behind our back ------------------------------------------------------------------------------ */

static void a_descriptor_closed_behind_our_back_does_not_spin(void **state) {
  env_t *env = *state;
  int fds[2];
  make_socketpair(fds);
  reader_t reader = {.fd = fds[0]};
  assert_int_equal(aloop_add_reader(env->loop, fds[0], read_one, &reader), 0);
  close_both(fds);
  assert_in_range(rest(env->loop), 1, FEW);
  assert_int_equal(reader.calls, tells_of_closed(env) ? 1 : 0);
  if (reader.calls > 0) assert_int_equal(reader.error, EBADF);
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), 1);
}

static void its_removal_later_disturbs_nobody(void **state) {
  env_t *env = *state;
  int dead[2], alive[2];
  make_socketpair(dead);
  make_socketpair(alive);
  reader_t reader = {.fd = alive[0]};
  int calls = 0;
  aloop_add_reader(env->loop, dead[0], count, &calls);
  aloop_add_writer(env->loop, dead[0], count, &calls);
  aloop_add_reader(env->loop, alive[0], read_one, &reader);
  close_both(dead);
  assert_int_equal(aloop_remove_reader(env->loop, dead[0]), 1);
  assert_int_equal(aloop_remove_writer(env->loop, dead[0]), 1);
  assert_int_equal(aloop_remove_writer(env->loop, dead[0]), 0);
  put(alive[1]);
  look(env->loop);
  assert_int_equal(reader.bytes, 1);
  assert_int_equal(calls, 0);
  aloop_remove_reader(env->loop, alive[0]);
  close_both(alive);
}

static void the_others_are_served_meanwhile(void **state) {
  env_t *env = *state;
  int dead[2], alive[2];
  make_socketpair(dead);
  make_socketpair(alive);
  reader_t reader = {.fd = alive[0]};
  int calls = 0;
  aloop_add_reader(env->loop, dead[0], count, &calls);
  aloop_add_reader(env->loop, alive[0], read_one, &reader);
  close_both(dead);
  for (int i = 1; i <= 3; i++) {
    put(alive[1]);
    look(env->loop);
    assert_int_equal(reader.bytes, i);
  }
  aloop_remove_reader(env->loop, dead[0]);
  aloop_remove_reader(env->loop, alive[0]);
  close_both(alive);
}

static void a_closed_descriptor_is_refused(void **state) {
  env_t *env = *state;
  int fds[2], calls = 0;
  make_socketpair(fds);
  close_both(fds);
  assert_int_equal(aloop_add_reader(env->loop, fds[0], count, &calls), ALOOP_EBADF);
  assert_int_equal(aloop_add_writer(env->loop, fds[0], count, &calls), ALOOP_EBADF);
  assert_int_equal(aloop_add_reader(env->loop, -1, count, &calls), ALOOP_EBADF);
  assert_int_equal(metrics(env->loop).watches, 0);
}

static void a_closed_descriptor_is_refused_where_it_was_watched(void **state) {
  env_t *env = *state;
  int fds[2], calls = 0;
  make_socketpair(fds);
  assert_int_equal(aloop_add_reader(env->loop, fds[0], count, &calls), 0);
  close_both(fds);
  assert_int_equal(aloop_add_reader(env->loop, fds[0], count, &calls), ALOOP_EBADF);
  assert_int_equal(aloop_add_writer(env->loop, fds[0], count, &calls), ALOOP_EBADF);
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), 1);
}

/* ---- Number reused --------------------------------------------------------------------------------------- */

static void a_reused_number_is_the_new_file_after_removal(void **state) {
  env_t *env = *state;
  int old[2], new[2], calls = 0;
  make_socketpair(old);
  aloop_add_reader(env->loop, old[0], count, &calls);
  close_both(old);
  make_pair_at(old[0], new);
  assert_int_equal(aloop_remove_reader(env->loop, new[0]), 1);
  reader_t reader = {.fd = new[0]};
  assert_int_equal(aloop_add_reader(env->loop, new[0], read_one, &reader), 0);
  put(new[1]);
  look(env->loop);
  assert_int_equal(reader.bytes, 1);
  assert_int_equal(calls, 0);
  aloop_remove_reader(env->loop, new[0]);
  close_both(new);
}

static void a_reused_number_is_the_new_file_without_removal(void **state) {
  env_t *env = *state;
  int old[2], new[2], calls = 0;
  make_socketpair(old);
  aloop_add_reader(env->loop, old[0], count, &calls);
  aloop_add_writer(env->loop, old[0], count, &calls);
  close_both(old);
  make_pair_at(old[0], new);
  reader_t reader = {.fd = new[0]};
  assert_int_equal(aloop_add_reader(env->loop, new[0], read_one, &reader), 0);
  assert_int_equal(aloop_remove_writer(env->loop, new[0]), 1);
  put(new[1]);
  look(env->loop);
  assert_int_equal(reader.bytes, 1);
  assert_int_equal(calls, 0);
  aloop_remove_reader(env->loop, new[0]);
  close_both(new);
}

/* Of two readers that are ready in the same turn the first to run closes the other's descriptor and opens another
 * under its number. */
typedef struct rival {
  int fds[2];
  struct rival *other;
  int calls;
  reader_t next; /* reads from the number after it */
  int next_peer;
} rival_t;

static void replace_the_other(aloop_t *loop, void *arg) {
  rival_t *winner = arg, *loser = winner->other;
  int fds[2];
  winner->calls++;
  assert_int_equal(aloop_remove_reader(loop, winner->fds[0]), 1);
  assert_int_equal(aloop_remove_reader(loop, loser->fds[0]), 1);
  close(loser->fds[0]);
  make_pair_at(loser->fds[0], fds);
  loser->next.fd = fds[0];
  loser->next_peer = fds[1];
  assert_int_equal(aloop_add_reader(loop, fds[0], read_one, &loser->next), 0);
}

static void a_number_reused_within_the_turn_gets_no_old_event(void **state) {
  env_t *env = *state;
  rival_t rivals[2] = {{.other = &rivals[1]}, {.other = &rivals[0]}};
  for (int i = 0; i < 2; i++) {
    make_socketpair(rivals[i].fds);
    put(rivals[i].fds[1]);
    aloop_add_reader(env->loop, rivals[i].fds[0], replace_the_other, &rivals[i]);
  }
  look(env->loop);
  assert_int_equal(rivals[0].calls + rivals[1].calls, 1);
  rival_t *loser = &rivals[rivals[0].calls];
  assert_int_equal(loser->next.calls, 0);
  put(loser->next_peer);
  look(env->loop);
  assert_int_equal(loser->next.bytes, 1);
  aloop_remove_reader(env->loop, loser->fds[0]);
  close(loser->next_peer);
  for (int i = 0; i < 2; i++) close_both(rivals[i].fds);
}

/* ---- The number comes back as the library's own ------------------------------------------------------------ */

enum { LEFT = 40 };

/* Watches pairs of sockets and closes them without a word. */
static void leave_behind(env_t *env, int *calls) {
  int fds[LEFT][2];
  for (int i = 0; i < LEFT; i++) {
    make_socketpair(fds[i]);
    for (int j = 0; j < 2; j++) {
      assert_int_equal(aloop_add_reader(env->loop, fds[i][j], count, calls), 0);
      assert_int_equal(aloop_add_writer(env->loop, fds[i][j], count, calls), 0);
    }
  }
  for (int i = 0; i < LEFT; i++) close_both(fds[i]);
}

static void a_server_accepts_under_numbers_that_were_left_behind(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0};
  int peers[LEFT], calls = 0;
  aloop_server_t *server = crowd_serve(env, &crowd);
  leave_behind(env, &calls);
  for (int i = 0; i < LEFT / 2; i++) peers[i] = peer_connect(aloop_server_port(server));
  while (crowd.made < LEFT / 2) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(1)) >= 0);
  for (int i = 0; i < LEFT / 2; i++) put(peers[i]);
  while (crowd.received < LEFT / 2) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(1)) >= 0);
  assert_int_equal(env->reports, 0);
  for (int i = 0; i < LEFT / 2; i++) close(peers[i]);
  while (crowd.lost < LEFT / 2) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(1)) >= 0);
  aloop_server_close(server);
  aloop_server_unref(server);
}

static void connects_and_endpoints_get_such_numbers_too(void **state) {
  env_t *env = *state;
  crowd_t crowd = {0}, clients = {0};
  int calls = 0;
  aloop_server_t *server = crowd_serve(env, &crowd);
  leave_behind(env, &calls);
  aloop_connect_options_t options = {
      .size = sizeof options, .host = "127.0.0.1", .port = aloop_server_port(server)};
  value_of(env, aloop_create_connection(env->loop, &crowd_protocol, &clients, &options));
  post_t post = {.env = env};
  open_udp(&post, &single_protocol);
  end_post(&post, -1);
  aloop_server_close_clients(server);
  while (clients.lost < 1) assert_true(aloop_run_once(env->loop, ALOOP_SECONDS(1)) >= 0);
  aloop_server_close(server);
  aloop_server_unref(server);
}

/* ---- Ghosts: closed, but a duplicate keeps the file open ---------------------------------------------------
 *
 * libkqueue cannot tell one; on the BSDs there are none: close() removes what was watched. */

/* Leaves a readable file that was watched under a number that is closed; fds: the duplicate and its peer. */
static int make_ghost(env_t *env, int fds[2], int *calls) {
  make_socketpair(fds);
  int number = fds[0];
  assert_int_equal(aloop_add_reader(env->loop, number, count, calls), 0);
  fds[0] = dup(number);
  close(number);
  put(fds[1]);
  return number;
}

static void a_ghost_is_got_rid_of(void **state) {
  env_t *env = *state;
  if (on_poller(env, "kqueue")) skip();
  int ghost[2], calls = 0;
  int number = make_ghost(env, ghost, &calls);
  assert_int_equal(aloop_remove_reader(env->loop, number), 1);
  wonder(env->loop);
  assert_in_range(rest(env->loop), 1, FEW);
  assert_int_equal(calls, 0);
  close_both(ghost);
}

static void many_ghosts_are_got_rid_of(void **state) {
  env_t *env = *state;
  if (on_poller(env, "kqueue")) skip();
  enum { N = 10 };
  int ghosts[N][2], calls = 0;
  for (int i = 0; i < N; i++) {
    int number = make_ghost(env, ghosts[i], &calls);
    assert_int_equal(aloop_remove_reader(env->loop, number), 1);
  }
  wonder(env->loop);
  assert_in_range(rest(env->loop), 1, FEW);
  assert_int_equal(calls, 0);
  for (int i = 0; i < N; i++) close_both(ghosts[i]);
}

static void the_others_survive_the_end_of_a_ghost(void **state) {
  env_t *env = *state;
  if (on_poller(env, "kqueue")) skip();
  enum { N = 20 };
  int ghost[2], fds[N][2], calls = 0;
  reader_t readers[N];
  for (int i = 0; i < N; i++) {
    make_socketpair(fds[i]);
    readers[i] = (reader_t){.fd = fds[i][0]};
    aloop_add_reader(env->loop, fds[i][0], read_one, &readers[i]);
  }
  int number = make_ghost(env, ghost, &calls);
  aloop_remove_reader(env->loop, number);
  wonder(env->loop);
  for (int i = 0; i < N; i++) put(fds[i][1]);
  assert_in_range(rest(env->loop), 1, FEW);
  for (int i = 0; i < N; i++) {
    assert_int_equal(readers[i].bytes, 1);
    aloop_remove_reader(env->loop, fds[i][0]);
    close_both(fds[i]);
  }
  assert_int_equal(env->reports, 0);
  close_both(ghost);
}

static void a_ghost_does_not_call_the_next_owner_of_its_number(void **state) {
  env_t *env = *state;
  if (on_poller(env, "kqueue")) skip();
  int ghost[2], fds[2], calls = 0;
  int number = make_ghost(env, ghost, &calls);
  aloop_remove_reader(env->loop, number);
  make_pair_at(number, fds);
  reader_t reader = {.fd = number};
  assert_int_equal(aloop_add_reader(env->loop, number, read_one, &reader), 0);
  wonder(env->loop);
  assert_in_range(rest(env->loop), 1, FEW);
  assert_int_equal(reader.calls, 0);
  put(fds[1]);
  look(env->loop);
  assert_int_equal(reader.bytes, 1);
  aloop_remove_reader(env->loop, number);
  close_both(fds);
  close_both(ghost);
}

static void a_ghost_that_was_never_removed_is_got_rid_of_when_its_number_is_added(void **state) {
  env_t *env = *state;
  if (on_poller(env, "kqueue")) skip();
  int ghost[2], fds[2], calls = 0;
  int number = make_ghost(env, ghost, &calls);
  make_pair_at(number, fds);
  reader_t reader = {.fd = number};
  assert_int_equal(aloop_add_reader(env->loop, number, read_one, &reader), 0);
  wonder(env->loop);
  assert_in_range(rest(env->loop), 1, FEW);
  assert_int_equal(reader.calls + calls, 0);
  put(fds[1]);
  look(env->loop);
  assert_int_equal(reader.bytes, 1);
  aloop_remove_reader(env->loop, number);
  close_both(fds);
  close_both(ghost);
}

static void a_ghost_does_not_end_the_loop_when_descriptors_are_short(void **state) {
  env_t *env = *state;
  if (!on_poller(env, "epoll")) skip(); /* poll() minds the limit */
  int ghost[2], calls = 0;
  int number = make_ghost(env, ghost, &calls);
  aloop_remove_reader(env->loop, number);
  struct rlimit before, none;
  getrlimit(RLIMIT_NOFILE, &before);
  none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
  setrlimit(RLIMIT_NOFILE, &none);
  aloop_call_later(env->loop, ALOOP_MILLIS(20), stop, NULL);
  int rc = aloop_run_forever(env->loop);
  setrlimit(RLIMIT_NOFILE, &before);
  assert_int_equal(rc, 0);
  wonder(env->loop);
  assert_in_range(rest(env->loop), 1, FEW);
  close_both(ghost);
}

static void a_descriptor_lost_with_a_ghost_is_reported(void **state) {
  env_t *env = *state;
  if (!on_poller(env, "epoll")) skip(); /* the only one that has to register again */
  int ghost[2], lost[2], calls = 0;
  int number = make_ghost(env, ghost, &calls);
  aloop_remove_reader(env->loop, number);
  make_socketpair(lost);
  int high = fcntl(lost[0], F_DUPFD, 200); /* the new poller shall not get its number */
  assert_int_equal(aloop_add_reader(env->loop, high, count, &calls), 0);
  close(high);
  close_both(lost);
  wonder(env->loop);
  assert_int_equal(env->reports, 1);
  assert_int_equal(env->report_errors[0], ALOOP_EBADF);
  assert_in_range(rest(env->loop), 1, FEW);
  aloop_remove_reader(env->loop, high);
  close_both(ghost);
}

/* A reader that hands its place to another in each turn: what it stops is stopped in the midst of a batch. */
typedef struct relay {
  int fds[2][2];
  int calls;
} relay_t;

static void pass_on(aloop_t *loop, void *arg) {
  relay_t *relay = arg;
  relay->calls++;
  for (int i = 0; i < 2; i++) {
    assert_int_equal(aloop_remove_reader(loop, relay->fds[i][0]), 1);
    assert_int_equal(aloop_add_reader(loop, relay->fds[i][0], pass_on, relay), 0);
  }
}

static void stopping_a_watch_in_each_turn_is_nothing_ugly(void **state) {
  env_t *env = *state;
  relay_t relay = {.calls = 0};
  int idle[2], calls = 0;
  make_socketpair(idle);
  aloop_add_reader(env->loop, idle[0], count, &calls);
  close_both(idle); /* would be reported if the poller were opened anew */
  for (int i = 0; i < 2; i++) {
    make_socketpair(relay.fds[i]);
    put(relay.fds[i][1]);
    assert_int_equal(aloop_add_reader(env->loop, relay.fds[i][0], pass_on, &relay), 0);
  }
  while (relay.calls < 300) assert_true(aloop_run_once(env->loop, 0) >= 0);
  assert_int_equal(env->reports, 0);
  for (int i = 0; i < 2; i++) {
    aloop_remove_reader(env->loop, relay.fds[i][0]);
    close_both(relay.fds[i]);
  }
}

/* ---- Always ready, both directions, regular files ---------------------------------------------------------- */

static void an_always_ready_descriptor_is_called_once_a_turn(void **state) {
  env_t *env = *state;
  int fds[2], calls = 0;
  make_socketpair(fds);
  aloop_add_writer(env->loop, fds[0], count, &calls);
  for (int i = 1; i <= 10; i++) {
    assert_true(aloop_run_once(env->loop, ALOOP_FOREVER) >= 0);
    assert_int_equal(calls, i);
  }
  aloop_remove_writer(env->loop, fds[0]);
  close_both(fds);
}

static void an_always_ready_descriptor_starves_nobody(void **state) {
  env_t *env = *state;
  int busy[2], quiet[2], calls = 0, soon = 0;
  make_socketpair(busy);
  make_socketpair(quiet);
  reader_t reader = {.fd = quiet[0]};
  aloop_add_writer(env->loop, busy[0], count, &calls);
  aloop_add_reader(env->loop, quiet[0], read_one, &reader);
  put(quiet[1]);
  aloop_call_soon(env->loop, count, &soon);
  look(env->loop);
  assert_int_equal(reader.bytes, 1);
  assert_int_equal(soon, 1);
  rest(env->loop); /* ends by a timer */
  aloop_remove_writer(env->loop, busy[0]);
  aloop_remove_reader(env->loop, quiet[0]);
  close_both(busy);
  close_both(quiet);
}

typedef struct order {
  char text[8];
  int fd;
} order_t;

static void append(order_t *order, char letter) {
  size_t length = strlen(order->text);
  if (length + 1 < sizeof order->text) order->text[length] = letter;
}

static void note_reader(aloop_t *loop, void *arg) {
  (void)loop;
  append(arg, 'r');
}

static void note_writer(aloop_t *loop, void *arg) {
  (void)loop;
  append(arg, 'w');
}

static void note_reader_and_remove_writer(aloop_t *loop, void *arg) {
  order_t *order = arg;
  append(order, 'r');
  assert_int_equal(aloop_remove_writer(loop, order->fd), 1);
}

static void both_directions_of_one_descriptor_reader_first(void **state) {
  env_t *env = *state;
  int fds[2];
  order_t order = {.text = ""};
  make_socketpair(fds);
  put(fds[1]);
  aloop_add_writer(env->loop, fds[0], note_writer, &order);
  aloop_add_reader(env->loop, fds[0], note_reader, &order);
  aloop_run_once(env->loop, ALOOP_FOREVER);
  aloop_run_once(env->loop, ALOOP_FOREVER);
  assert_string_equal(order.text, "rwrw");
  aloop_remove_reader(env->loop, fds[0]);
  aloop_run_once(env->loop, ALOOP_FOREVER);
  assert_string_equal(order.text, "rwrww");
  aloop_remove_writer(env->loop, fds[0]);
  close_both(fds);
}

static void a_reader_can_take_the_writer_away(void **state) {
  env_t *env = *state;
  int fds[2];
  make_socketpair(fds);
  order_t order = {.text = "", .fd = fds[0]};
  put(fds[1]);
  aloop_add_writer(env->loop, fds[0], note_writer, &order);
  aloop_add_reader(env->loop, fds[0], note_reader_and_remove_writer, &order);
  aloop_run_once(env->loop, ALOOP_FOREVER);
  assert_string_equal(order.text, "r");
  aloop_remove_reader(env->loop, fds[0]);
  close_both(fds);
}

static void a_hang_up_calls_both_sides(void **state) {
  env_t *env = *state;
  int fds[2];
  order_t order = {.text = ""};
  make_socketpair(fds);
  aloop_add_reader(env->loop, fds[0], note_reader, &order);
  aloop_add_writer(env->loop, fds[0], note_writer, &order);
  close(fds[1]);
  aloop_run_once(env->loop, ALOOP_FOREVER);
  assert_string_equal(order.text, "rw");
  aloop_remove_reader(env->loop, fds[0]);
  aloop_remove_writer(env->loop, fds[0]);
  close(fds[0]);
}

static void a_regular_file_is_refused_or_always_ready(void **state) {
  env_t *env = *state;
  FILE *file = tmpfile();
  assert_non_null(file);
  assert_true(fputs("text", file) >= 0 && fflush(file) == 0);
  rewind(file);
  int calls = 0, fd = fileno(file);
  bool refused = on_poller(env, "epoll") || on_poller(env, "uring");
  assert_int_equal(aloop_add_reader(env->loop, fd, count, &calls), refused ? ALOOP_EPERM : 0);
  assert_int_equal(metrics(env->loop).watches, refused ? 0 : 1);
  for (int i = 0; i < 3; i++) aloop_run_once(env->loop, 0);
  assert_int_equal(calls, refused ? 0 : 3);
  assert_int_equal(aloop_remove_reader(env->loop, fd), refused ? 0 : 1);
  fclose(file);
}

static bool allow_fds(rlim_t wanted) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur >= wanted) return true;
  if (limit.rlim_max < wanted) return false;
  limit.rlim_cur = wanted;
  return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

static void select_says_that_a_number_is_too_high(void **state) {
  env_t *env = *state;
  if (!allow_fds(FD_SETSIZE + 100)) skip();
  int fds[2];
  make_socketpair(fds);
  int high = fcntl(fds[0], F_DUPFD, FD_SETSIZE);
  reader_t reader = {.fd = high};
  int rc = aloop_add_reader(env->loop, high, read_one, &reader);
  assert_int_equal(rc, on_poller(env, "select") ? ALOOP_ERANGE : 0);
  put(fds[1]);
  look(env->loop);
  assert_int_equal(reader.bytes, rc == 0 ? 1 : 0);
  assert_int_equal(aloop_remove_reader(env->loop, high), rc == 0 ? 1 : 0);
  close(high);
  close_both(fds);
}

static void a_loop_that_gets_too_high_numbers_is_not_made(void **state) {
  env_t *env = *state;
  if (!on_poller(env, "select") || !allow_fds(FD_SETSIZE + 100)) skip();
  int fds[2], low[FD_SETSIZE], count_low = 0;
  make_socketpair(fds);
  for (int fd = dup(fds[0]); fd < FD_SETSIZE; fd = dup(fds[0])) low[count_low++] = fd;
  aloop_t *loop = NULL;
  aloop_options_t options = {.size = sizeof options, .poller = "select", .allocator = &env->allocator};
  assert_int_equal(aloop_new(&options, &loop), ALOOP_ERANGE);
  assert_null(loop);
  close(FD_SETSIZE);
  for (int i = 0; i < count_low; i++) close(low[i]);
  close_both(fds);
}

/* ---- Waiting --------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t alarms;
static volatile sig_atomic_t alarm_pipe;

static void on_alarm(int signal) {
  (void)signal;
  int error = errno;
  alarms++;
  if (alarm_pipe > 0 && write(alarm_pipe, "x", 1) > 0) alarm_pipe = -1;
  errno = error;
}

static void start_alarms(int pipe_end) {
  alarms = 0;
  alarm_pipe = pipe_end;
  struct sigaction action = {.sa_handler = on_alarm};
  assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
  struct itimerval every = {.it_interval.tv_usec = 1000, .it_value.tv_usec = 1000};
  assert_int_equal(setitimer(ITIMER_REAL, &every, NULL), 0);
}

static void stop_alarms(void) {
  struct itimerval never = {0};
  setitimer(ITIMER_REAL, &never, NULL);
  signal(SIGALRM, SIG_DFL);
}

static void signals_do_not_end_a_run_nor_hasten_a_timer(void **state) {
  env_t *env = *state;
  int64_t start = aloop_time(env->loop);
  start_alarms(-1);
  aloop_call_later(env->loop, ALOOP_MILLIS(20), stop, NULL);
  int rc = aloop_run_forever(env->loop);
  stop_alarms();
  assert_int_equal(rc, 0);
  assert_true(aloop_time(env->loop) - start >= ALOOP_MILLIS(20));
}

static void a_signal_handler_wakes_the_loop_through_a_pipe(void **state) {
  env_t *env = *state;
  int fds[2];
  make_pipe(fds);
  reader_t reader = {.fd = fds[0]};
  aloop_add_reader(env->loop, fds[0], read_one, &reader);
  start_alarms(fds[1]);
  while (reader.calls == 0 && aloop_run_once(env->loop, ALOOP_FOREVER) >= 0) continue;
  stop_alarms();
  assert_int_equal(reader.bytes, 1);
  aloop_remove_reader(env->loop, fds[0]);
  close_both(fds);
}

static void timers_in_the_far_future_are_not_now(void **state) {
  env_t *env = *state;
  static const int64_t far[] = {INT64_MAX, INT64_MAX - 1, INT64_MAX / 2, INT64_C(1) << 53};
  int fds[2], fired = 0;
  make_socketpair(fds);
  reader_t reader = {.fd = fds[0]};
  aloop_add_reader(env->loop, fds[0], read_one, &reader);
  for (size_t i = 0; i < sizeof far / sizeof far[0]; i++) {
    aloop_handle_t timer = aloop_call_later(env->loop, far[i], count, &fired);
    assert_int_equal(aloop_handle_error(timer), 0);
    put(fds[1]);
    for (int turns = 0; reader.bytes == (int)i && turns < 5; turns++)
      assert_true(aloop_run_once(env->loop, ALOOP_FOREVER) >= 0);
    assert_int_equal(reader.bytes, (int)i + 1);
    assert_int_equal(fired, 0);
    aloop_cancel(env->loop, &timer);
  }
  aloop_remove_reader(env->loop, fds[0]);
  close_both(fds);
}

static void a_huge_limit_of_a_turn_is_a_long_wait(void **state) {
  env_t *env = *state;
  int fired = 0;
  aloop_call_later(env->loop, ALOOP_MILLIS(5), count, &fired);
  while (fired == 0) assert_true(aloop_run_once(env->loop, INT64_MAX) >= 0);
}

/* ---- A poller of the user's own ---------------------------------------------------------------------------- */

/* Wraps the built-in poller under test, counts its calls and makes them fail or lie on demand. */
typedef struct probe {
  const aloop_poller_t *inner;
  void *state;
  int opens, closes, updates, waits;
  int open_error, update_error, wait_error;
  int fd; /* of the last update */
  uint32_t token;
  uint32_t before, after;
  aloop_poll_event_t lie; /* added to what wait() reports, if its events are not 0 */
} probe_t;

static int probe_open(void *arg, const aloop_allocator_t *allocator, void **state) {
  probe_t *probe = arg;
  probe->opens++;
  if (probe->open_error < 0) return probe->open_error;
  *state = probe;
  return probe->inner->open(NULL, allocator, &probe->state);
}

static void probe_close(void *state) {
  probe_t *probe = state;
  probe->closes++;
  probe->inner->close(probe->state);
}

static int probe_update(void *state, int fd, uint32_t token, uint32_t before, uint32_t after) {
  probe_t *probe = state;
  probe->updates++;
  if (probe->update_error < 0) return probe->update_error;
  probe->fd = fd;
  probe->token = token;
  probe->before = before;
  probe->after = after;
  return probe->inner->update(probe->state, fd, token, before, after);
}

static int probe_wait(void *state, aloop_poll_event_t *events, int capacity, int64_t timeout) {
  probe_t *probe = state;
  probe->waits++;
  if (probe->wait_error < 0) return probe->wait_error;
  if (probe->lie.events == 0) return probe->inner->wait(probe->state, events, capacity, timeout);
  events[0] = probe->lie;
  return 1 + probe->inner->wait(probe->state, events + 1, capacity - 1, 0);
}

static int64_t probe_now(void *state) {
  probe_t *probe = state;
  if (probe->inner->now != NULL) return probe->inner->now(probe->state);
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static const aloop_poller_t probe_table = {
    .size = sizeof probe_table,
    .name = "probe",
    .open = probe_open,
    .close = probe_close,
    .update = probe_update,
    .wait = probe_wait,
    .now = probe_now,
};

static probe_t *probe_loop(env_t *env) {
  static probe_t storage; /* teardown still needs it */
  probe_t *probe = &storage;
  *probe = (probe_t){.inner = aloop_poller_find(aloop_poller_name(env->loop))};
  env_loop(env, (aloop_options_t){.poller_table = &probe_table, .poller_arg = probe, .debug = -1});
  return probe;
}

static void a_loop_runs_on_its_users_poller(void **state) {
  env_t *env = *state;
  probe_t *probe = probe_loop(env);
  assert_string_equal(aloop_poller_name(env->loop), "probe");
  assert_int_equal(aloop_backend_fd(env->loop), ALOOP_ENOTSUP);
  int fds[2];
  make_socketpair(fds);
  reader_t reader = {.fd = fds[0]};
  aloop_add_reader(env->loop, fds[0], read_one, &reader);
  put(fds[1]);
  rest(env->loop);
  assert_int_equal(reader.bytes, 1);
  assert_true(probe->waits > 0);
  aloop_remove_reader(env->loop, fds[0]);
  close_both(fds);
  aloop_free(env->loop);
  env->loop = NULL;
  assert_int_equal(probe->opens, 1);
  assert_int_equal(probe->closes, 1);
}

static void updates_tell_what_was_and_what_shall_be(void **state) {
  env_t *env = *state;
  probe_t *probe = probe_loop(env);
  int fds[2], calls = 0;
  make_socketpair(fds);
  int before = probe->updates;
  aloop_add_reader(env->loop, fds[0], count, &calls);
  assert_true(probe->fd == fds[0] && probe->before == 0 && probe->after == R);
  uint32_t token = probe->token;
  aloop_add_writer(env->loop, fds[0], count, &calls);
  assert_true(probe->token == token && probe->before == R && probe->after == (R | W));
  aloop_remove_reader(env->loop, fds[0]);
  assert_true(probe->token == token && probe->before == (R | W) && probe->after == W);
  aloop_remove_writer(env->loop, fds[0]);
  assert_true(probe->token == token && probe->before == W && probe->after == 0);
  assert_int_equal(probe->updates - before, 4);
  aloop_add_reader(env->loop, fds[0], count, &calls);
  assert_true(probe->token != token);
  aloop_remove_reader(env->loop, fds[0]);
  close_both(fds);
}

static void an_error_of_update_reaches_the_caller(void **state) {
  env_t *env = *state;
  probe_t *probe = probe_loop(env);
  int fds[2], calls = 0;
  make_socketpair(fds);
  probe->update_error = ALOOP_ENOBUFS;
  assert_int_equal(aloop_add_reader(env->loop, fds[0], count, &calls), ALOOP_ENOBUFS);
  assert_int_equal(metrics(env->loop).watches, 0);
  probe->update_error = 0;
  assert_int_equal(aloop_add_reader(env->loop, fds[0], count, &calls), 0);
  probe->update_error = ALOOP_ENOBUFS;
  assert_int_equal(aloop_add_writer(env->loop, fds[0], count, &calls), ALOOP_ENOBUFS);
  probe->update_error = 0;
  put(fds[1]);
  aloop_run_once(env->loop, 0);
  assert_int_equal(calls, 1); /* the reader is still there, and no writer */
  assert_int_equal(aloop_remove_reader(env->loop, fds[0]), 1);
  close_both(fds);
}

static void an_error_of_wait_ends_the_run(void **state) {
  env_t *env = *state;
  probe_t *probe = probe_loop(env);
  probe->wait_error = ALOOP_EIO;
  assert_int_equal(aloop_run_forever(env->loop), ALOOP_EIO);
  assert_int_equal(aloop_run_once(env->loop, 0), ALOOP_EIO);
  probe->wait_error = 0;
  rest(env->loop);
}

static void an_error_of_open_is_that_of_aloop_new(void **state) {
  env_t *env = *state;
  probe_t probe = {.inner = aloop_poller_find(NULL), .open_error = ALOOP_ENOTSUP};
  aloop_options_t options = {
      .size = sizeof options, .poller_table = &probe_table, .poller_arg = &probe, .allocator = &env->allocator};
  aloop_t *loop = NULL;
  assert_int_equal(aloop_new(&options, &loop), ALOOP_ENOTSUP);
  assert_null(loop);
  assert_int_equal(probe.closes, 0);
}

static void an_event_of_an_unknown_token_is_dropped(void **state) {
  env_t *env = *state;
  probe_t *probe = probe_loop(env);
  static const aloop_poll_event_t lies[] = {{.fd = 0, .token = 0},
                                            {.fd = 0, .token = 1},
                                            {.fd = 3, .token = 5},
                                            {.fd = 1000000, .token = 1},
                                            {.fd = -1, .token = 0},
                                            {.fd = INT32_MIN, .token = UINT32_MAX},
                                            {.fd = INT32_MAX, .token = UINT32_MAX}};
  for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
    probe->lie = lies[i];
    probe->lie.events = R | W;
    uint64_t before = metrics(env->loop).stale;
    assert_true(aloop_run_once(env->loop, 0) >= 0);
    assert_int_equal(metrics(env->loop).stale, before + 1);
  }
  probe->lie.events = 0;
  rest(env->loop);
}

static void an_event_that_nobody_asked_for_is_no_call(void **state) {
  env_t *env = *state;
  probe_t *probe = probe_loop(env);
  int fds[2], calls = 0;
  make_socketpair(fds);
  aloop_add_reader(env->loop, fds[0], count, &calls);
  probe->lie = (aloop_poll_event_t){.fd = fds[0], .token = probe->token, .events = W};
  aloop_run_once(env->loop, 0);
  assert_int_equal(calls, 0);
  probe->lie.events = 0;
  aloop_remove_reader(env->loop, fds[0]);
  close_both(fds);
}

static void a_spurious_event_is_one_call(void **state) {
  env_t *env = *state;
  probe_t *probe = probe_loop(env);
  int fds[2];
  make_socketpair(fds);
  reader_t reader = {.fd = fds[0]};
  aloop_add_reader(env->loop, fds[0], read_one, &reader);
  probe->lie = (aloop_poll_event_t){.fd = fds[0], .token = probe->token, .events = R};
  aloop_run_once(env->loop, 0);
  probe->lie.events = 0;
  assert_in_range(rest(env->loop), 1, FEW);
  assert_int_equal(reader.calls, 1);
  assert_int_equal(reader.error, EAGAIN);
  aloop_remove_reader(env->loop, fds[0]);
  close_both(fds);
}

/* ---- Fork ------------------------------------------------------------------------------------------------ */

/* In the child: 0 if the loop serves the descriptor that the parent's loop was given. */
static int serve_in_child(env_t *env, reader_t *reader, int peer, int64_t now) {
  if (aloop_run_once(env->loop, 0) != ALOOP_ECHILD) return 1;
  if (aloop_after_fork(env->loop) != 0) return 2;
  if (aloop_time(env->loop) < now) return 3;
  if (write(peer, "x", 1) != 1) return 4;
  for (int i = 0; i < 5 && reader->bytes == 0; i++)
    if (aloop_run_once(env->loop, 0) < 0) return 5;
  return reader->bytes == 1 ? 0 : 6;
}

static void a_child_goes_on_where_its_parent_was(void **state) {
  env_t *env = *state;
  if (on_libkqueue(env)) skip(); /* its child may only exec */
  int fds[2];
  make_socketpair(fds);
  reader_t reader = {.fd = fds[0]};
  aloop_add_reader(env->loop, fds[0], read_one, &reader);
  rest(env->loop);
  int64_t now = aloop_time(env->loop);
  pid_t child = fork();
  if (child == 0) _exit(serve_in_child(env, &reader, fds[1], now));
  int status = -1;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_int_equal(status, 0);
  put(fds[1]);
  look(env->loop);
  assert_int_equal(reader.bytes, 1);
  aloop_remove_reader(env->loop, fds[0]);
  close_both(fds);
}

TESTS(T(a_server_accepts_under_numbers_that_were_left_behind), T(connects_and_endpoints_get_such_numbers_too),
      T(a_descriptor_closed_behind_our_back_does_not_spin), T(its_removal_later_disturbs_nobody),
      T(the_others_are_served_meanwhile), T(a_closed_descriptor_is_refused),
      T(a_closed_descriptor_is_refused_where_it_was_watched), T(a_reused_number_is_the_new_file_after_removal),
      T(a_reused_number_is_the_new_file_without_removal), T(a_number_reused_within_the_turn_gets_no_old_event),
      T(a_ghost_is_got_rid_of), T(many_ghosts_are_got_rid_of), T(the_others_survive_the_end_of_a_ghost),
      T(a_ghost_does_not_call_the_next_owner_of_its_number),
      T(a_ghost_that_was_never_removed_is_got_rid_of_when_its_number_is_added),
      T(a_ghost_does_not_end_the_loop_when_descriptors_are_short),
      T(a_descriptor_lost_with_a_ghost_is_reported), T(stopping_a_watch_in_each_turn_is_nothing_ugly),
      T(an_always_ready_descriptor_is_called_once_a_turn), T(an_always_ready_descriptor_starves_nobody),
      T(both_directions_of_one_descriptor_reader_first), T(a_reader_can_take_the_writer_away),
      T(a_hang_up_calls_both_sides), T(a_regular_file_is_refused_or_always_ready),
      T(select_says_that_a_number_is_too_high), T(a_loop_that_gets_too_high_numbers_is_not_made),
      T(signals_do_not_end_a_run_nor_hasten_a_timer), T(a_signal_handler_wakes_the_loop_through_a_pipe),
      T(timers_in_the_far_future_are_not_now), T(a_huge_limit_of_a_turn_is_a_long_wait),
      T(a_loop_runs_on_its_users_poller), T(updates_tell_what_was_and_what_shall_be),
      T(an_error_of_update_reaches_the_caller), T(an_error_of_wait_ends_the_run),
      T(an_error_of_open_is_that_of_aloop_new), T(an_event_of_an_unknown_token_is_dropped),
      T(an_event_that_nobody_asked_for_is_no_call), T(a_spurious_event_is_one_call),
      T(a_child_goes_on_where_its_parent_was))
