/* SPDX-License-Identifier: MIT
 *
 * Many loops in many threads: eight loops run side by side, each with timers, futures, a server, a connection
 * to the next loop's server, and a token that is posted from loop to loop in a ring. They are made, run, closed
 * while others still post to them, and freed, several times over. Nothing is shared but what the library says
 * may be, so the thread sanitizer must have nothing to say.
 *
 * pollers: all threads: yes / */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "harness.h"
#include "names.h"

enum { MEMBERS = 8, ROUNDS = 15, LAPS = 50, MESSAGES = 100, BEATS = 5, GATHERS = 5, LATE_POSTS = 20 };

typedef struct ring ring_t;

typedef struct member {
  ring_t *ring;
  struct member *next;
  pthread_t thread;
  aloop_t *loop;
  aloop_server_t *server;
  aloop_transport_t *transport;
  aloop_handle_t beat;
  int port;
  int tokens, messages, beats, gathers;
  int made, lost;
  bool finished;
  const char *failed; /* the first condition that did not hold */
} member_t;

struct ring {
  member_t members[MEMBERS];
  pthread_mutex_t mutex;
  pthread_cond_t all_here;
  int here; /* members that have come to a meeting, of all meetings */
  atomic_int finished;
};

/* Assertions of cmocka belong to the main thread. */
#define EXPECT(member, condition)                                                                              \
  do {                                                                                                         \
    if (!(condition) && (member)->failed == NULL) (member)->failed = #condition;                               \
  } while (0)

static void stop(aloop_t *loop, void *arg) {
  (void)arg;
  aloop_stop(loop);
}

/* Waits until all members have come as far. Not every system has barriers. */
static void meet(ring_t *ring) {
  pthread_mutex_lock(&ring->mutex);
  int meeting = ring->here++ / MEMBERS;
  if (ring->here % MEMBERS == 0) pthread_cond_broadcast(&ring->all_here);
  while (ring->here / MEMBERS == meeting) pthread_cond_wait(&ring->all_here, &ring->mutex);
  pthread_mutex_unlock(&ring->mutex);
}

/* The last to finish ends all: until then each is needed by its neighbours. */
static void look_at_oneself(member_t *self) {
  bool done =
      self->tokens == LAPS && self->messages == MESSAGES && self->beats >= BEATS && self->gathers == GATHERS;
  if (self->finished || !(done || self->failed != NULL)) return;
  self->finished = true;
  if (atomic_fetch_add(&self->ring->finished, 1) + 1 < MEMBERS) return;
  for (int i = 0; i < MEMBERS; i++)
    EXPECT(self, aloop_call_soon_threadsafe(self->ring->members[i].loop, stop, NULL) == 0);
}

/* ---- Timers, futures, posts -------------------------------------------------------------------------------- */

static void beat(aloop_t *loop, void *arg) {
  member_t *self = arg;
  EXPECT(self, loop == self->loop && aloop_running_loop() == loop);
  if (++self->beats == BEATS) aloop_cancel(loop, &self->beat);
  look_at_oneself(self);
}

static void gather_again(member_t *self);

static void gathered(aloop_future_t *future, void *arg) {
  member_t *self = arg;
  EXPECT(self, aloop_future_result(future) == 3);
  if (++self->gathers < GATHERS) gather_again(self);
  look_at_oneself(self);
}

static void gather_again(member_t *self) {
  aloop_future_t *three[3];
  for (int i = 0; i < 3; i++) three[i] = aloop_sleep(self->loop, ALOOP_MICROS(100 * i));
  aloop_future_t *all = aloop_gather(self->loop, three, 3, 0);
  EXPECT(self, all != NULL && aloop_future_add_done_callback(all, gathered, self) == 0);
  aloop_future_unref(all);
}

static void take_token(aloop_t *loop, void *arg) {
  member_t *self = arg;
  EXPECT(self, loop == self->loop && aloop_running_loop() == loop);
  self->tokens++;
  bool last = self->tokens == LAPS && self == &self->ring->members[MEMBERS - 1];
  if (!last) EXPECT(self, aloop_call_soon_threadsafe(self->next->loop, take_token, self->next) == 0);
  look_at_oneself(self);
}

/* ---- Connections ------------------------------------------------------------------------------------------- */

static void on_made(aloop_transport_t *transport, void *protocol) {
  member_t *self = protocol;
  EXPECT(self, aloop_transport_loop(transport) == self->loop);
  self->made++;
}

static void on_lost(aloop_transport_t *transport, void *protocol, int error) {
  (void)transport, (void)error;
  ((member_t *)protocol)->lost++;
}

static int echo(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)protocol;
  return aloop_transport_write(transport, data, size);
}

static const aloop_protocol_t echo_protocol = {.size = sizeof echo_protocol,
                                               .connection_made = on_made,
                                               .data_received = echo,
                                               .connection_lost = on_lost};

static int say_next(aloop_transport_t *transport, member_t *self) {
  char text[16];
  int size = snprintf(text, sizeof text, "%08d", self->messages);
  return aloop_transport_write(transport, text, (size_t)size);
}

static void start_talk(aloop_transport_t *transport, void *protocol) {
  on_made(transport, protocol);
  EXPECT((member_t *)protocol, say_next(transport, protocol) == 0);
}

/* Each message is answered before the next one is sent, so it comes whole. */
static int hear(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  member_t *self = protocol;
  char expected[16];
  snprintf(expected, sizeof expected, "%08d", self->messages);
  EXPECT(self, size == 8 && memcmp(data, expected, 8) == 0);
  self->messages++;
  int rc = self->messages < MESSAGES ? say_next(transport, self) : 0;
  look_at_oneself(self);
  return rc;
}

static const aloop_protocol_t talk_protocol = {.size = sizeof talk_protocol,
                                               .connection_made = start_talk,
                                               .data_received = hear,
                                               .connection_lost = on_lost};

/* ---- A member's life --------------------------------------------------------------------------------------- */

static bool serve(member_t *self) {
  aloop_server_options_t options = {.size = sizeof options, .host = "127.0.0.1"};
  EXPECT(self, aloop_new(NULL, &self->loop) == 0);
  if (self->failed != NULL) return false;
  EXPECT(self, aloop_set_current(self->loop) == 0);
  aloop_future_t *made = aloop_create_server(self->loop, &echo_protocol, self, &options);
  EXPECT(self, aloop_run_until_complete_ptr(self->loop, made, &self->server) == 0);
  self->port = self->server != NULL ? aloop_server_port(self->server) : 0;
  EXPECT(self, self->port > 0);
  return self->failed == NULL;
}

static void run(member_t *self) {
  /* Every other one looks a name up, which takes a thread more. */
  bool by_name = (self - self->ring->members) % 2 != 0;
  aloop_connect_options_t options = {
      .size = sizeof options, .host = by_name ? "name.test" : "127.0.0.1", .port = self->next->port};
  aloop_future_t *met = aloop_create_connection(self->loop, &talk_protocol, self, &options);
  self->beat = aloop_call_every(self->loop, ALOOP_MICROS(200), beat, self);
  gather_again(self);
  if (self == self->ring->members) aloop_call_soon(self->loop, take_token, self);
  EXPECT(self, aloop_run_forever(self->loop) == 0);
  EXPECT(self, aloop_future_take_ptr(met, &self->transport) == 0);
  aloop_future_unref(met);
}

static void never_mind(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
}

/* Half of the loops close at once, and their neighbours do not know. */
static void post_late(member_t *self) {
  for (int i = 0; i < LATE_POSTS; i++) {
    int rc = aloop_call_soon_threadsafe(self->next->loop, never_mind, NULL);
    EXPECT(self, rc == 0 || rc == ALOOP_ECLOSED);
  }
}

static void *live(void *arg) {
  member_t *self = arg;
  bool serving = serve(self);
  if (!serving) atomic_fetch_add(&self->ring->finished, 1);
  meet(self->ring);
  if (serving && self->next->port > 0) run(self);
  if (self->failed == NULL && (self - self->ring->members) % 2 == 0) aloop_close(self->loop);
  if (self->failed == NULL) post_late(self);
  meet(self->ring);
  aloop_close(self->loop);
  EXPECT(self, aloop_current(&(aloop_t *){NULL}) == 0);
  aloop_transport_unref(self->transport);
  aloop_server_unref(self->server);
  aloop_free(self->loop);
  EXPECT(self, aloop_current(&(aloop_t *){NULL}) == ALOOP_ENOLOOP);
  EXPECT(self, self->made == 2 && self->lost == 2);
  return NULL;
}

static void loops_in_threads_work_side_by_side(void **state) {
  (void)state;
  static ring_t ring;
  names_errno = 0;
  for (int round = 0; round < ROUNDS; round++) {
    memset(&ring, 0, sizeof ring);
    pthread_mutex_init(&ring.mutex, NULL);
    pthread_cond_init(&ring.all_here, NULL);
    for (int i = 0; i < MEMBERS; i++) {
      member_t *member = &ring.members[i];
      member->ring = &ring;
      member->next = &ring.members[(i + 1) % MEMBERS];
      assert_int_equal(pthread_create(&member->thread, NULL, live, member), 0);
    }
    for (int i = 0; i < MEMBERS; i++) pthread_join(ring.members[i].thread, NULL);
    for (int i = 0; i < MEMBERS; i++)
      if (ring.members[i].failed != NULL) fail_msg("member %d: not so: %s", i, ring.members[i].failed);
    pthread_cond_destroy(&ring.all_here);
    pthread_mutex_destroy(&ring.mutex);
  }
}

TESTS(T(loops_in_threads_work_side_by_side))
