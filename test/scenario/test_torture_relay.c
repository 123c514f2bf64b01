/* SPDX-License-Identifier: MIT
 *
 * Torture of relays: much goes one way and a little the other, over TCP, once until both peers have ended and once
 * until the relay is cancelled half-way. What arrives is the beginning of what was sent, whoever has it, each
 * protocol hears of its end once, and neither a descriptor nor a pipe stays behind.
 *
 * pollers: all
 * faults: yes
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "streams.h"
#include "torture.h"

enum { ALL = 300000, BACK = 1000 };

typedef struct side {
  aloop_transport_t *transport;
  int peer;
  int made, lost;
  size_t sent, came; /* by the peer, to the peer */
} side_t;

typedef struct stage {
  run_t *run;
  side_t a, b;
  size_t all, back;
  size_t read; /* by a's protocol, behind the relay's end */
  bool cancels, wrong;
  aloop_future_t *relay;
} stage_t;

static char text[ALL];

static void on_made(aloop_transport_t *transport, void *protocol) {
  side_t *side = protocol;
  side->transport = transport;
  side->made++;
  aloop_transport_pause_reading(transport);
}

static int on_data(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)transport, (void)data;
  side_t *side = protocol;
  side->came += size; /* counted with what the other peer gets */
  return 0;
}

static void on_lost(aloop_transport_t *transport, void *protocol, int error) {
  (void)transport;
  side_t *side = protocol;
  ALWAYS(error == 0 || is_known(error));
  side->lost++;
  side->transport = NULL;
}

static const aloop_protocol_t table = {
    .size = sizeof table, .connection_made = on_made, .data_received = on_data, .connection_lost = on_lost};

static void write_some(side_t *side, size_t all) {
  while (side->sent < all) {
    ssize_t n = send(side->peer, text + side->sent, all - side->sent, MSG_NOSIGNAL);
    if (n <= 0) return;
    side->sent += (size_t)n;
  }
  shutdown(side->peer, SHUT_WR);
}

/* Returns how much a peer has got, which must be what was sent. */
static size_t read_some(stage_t *stage, side_t *side, size_t got) {
  static char bytes[65536];
  for (ssize_t n; (n = recv(side->peer, bytes, sizeof bytes, 0)) > 0; got += (size_t)n)
    if (got + (size_t)n > ALL || memcmp(bytes, text + got, (size_t)n) != 0) stage->wrong = true;
  return got;
}

/* Moves the peers, until nothing is left to be done. */
static bool is_over(const void *arg) {
  stage_t *stage = (stage_t *)(uintptr_t)arg;
  static size_t at_b, at_a;
  faults_pause();
  if (stage->a.sent == 0) at_a = at_b = 0;
  write_some(&stage->a, stage->all);
  write_some(&stage->b, stage->back);
  at_b = read_some(stage, &stage->b, at_b);
  at_a = read_some(stage, &stage->a, at_a);
  faults_resume();
  if (stage->cancels && at_b > stage->all / 3) aloop_future_cancel(stage->relay);
  if (!aloop_future_done(stage->relay)) return false;
  stage->read = stage->a.came;
  bool lost = stage->a.transport == NULL || stage->b.transport == NULL;
  return lost || at_b + stage->read == stage->all;
}

static bool both_ended(const void *arg) {
  const stage_t *stage = arg;
  return stage->a.lost == stage->a.made && stage->b.lost == stage->b.made;
}

static bool connect_side(stage_t *stage, side_t *side) {
  const int small = 32768;
  int fds[2];
  run_t *run = stage->run;
  faults_pause();
  make_tcp_pair(fds);
  setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  setsockopt(fds[1], SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  faults_resume();
  side->peer = fds[1];
  int64_t rc = run_end_of(run, aloop_connect_accepted_socket(run->loop, &table, side, fds[0], NULL));
  NORMALLY(run, rc == 0);
  if (rc < 0 && side->made == 0) {
    faults_pause();
    close(fds[0]);
    faults_resume();
  }
  return rc == 0 && side->transport != NULL;
}

static void relay(stage_t *stage) {
  run_t *run = stage->run;
  bool cancels = stage->cancels;
  stage->relay = aloop_relay(stage->a.transport, stage->b.transport);
  if (run_made(run, stage->relay) == NULL) return;
  run_to(run, is_over, stage);
  aloop_future_cancel(stage->relay);
  int64_t result = aloop_future_result(stage->relay);
  ALWAYS(result >= 0 || is_known(result));
  NORMALLY(run, result == (cancels ? ALOOP_ECANCELED : (int64_t)(stage->all + stage->back)));
  NORMALLY(run, cancels || stage->read == 0);
  ALWAYS(!stage->wrong);
  aloop_future_unref(stage->relay);
}

static void play(run_t *run, bool cancels) {
  size_t all = run->kind == FAULT_SHORT ? 300 : ALL, back = run->kind == FAULT_SHORT ? 100 : BACK;
  stage_t stage = {.run = run, .a.peer = -1, .b.peer = -1, .all = all, .back = back, .cancels = cancels};
  pattern(text, sizeof text, 1);
  if (run_open(run, -1)) {
    if (connect_side(&stage, &stage.a) && connect_side(&stage, &stage.b)) relay(&stage);
    if (stage.a.transport != NULL) aloop_transport_abort(stage.a.transport);
    if (stage.b.transport != NULL) aloop_transport_abort(stage.b.transport);
    run_to(run, both_ended, &stage);
    aloop_close(run->loop);
  }
  ALWAYS(stage.a.made == stage.a.lost && stage.b.made == stage.b.lost);
  faults_pause();
  if (stage.a.peer >= 0) close(stage.a.peer);
  if (stage.b.peer >= 0) close(stage.b.peer);
  faults_resume();
}

static void play_to_the_end(run_t *run) {
  play(run, false);
}

static void play_and_cancel(run_t *run) {
  play(run, true);
}

static void relays(void **state) {
  torture_all(*state, "relays", play_to_the_end);
}

static void cancelled_relays(void **state) {
  torture_all(*state, "cancelled relays", play_and_cancel);
}

TESTS(T(relays), T(cancelled_relays))
