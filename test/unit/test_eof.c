/* SPDX-License-Identifier: MIT
 *
 * What eof_received may do: anything. The poller still watches the descriptor meanwhile, which goes on being
 * readable for ever, so whatever is done there, the end is told once, the loop then finds nothing to do, and
 * what was written arrives. pollers: all, lacks: all
 */
#include "streams.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { KEEP = 1, CLOSE = 0, FAIL = ALOOP_EIO };

static const char words[] = "the last words";

static void do_nothing(tape_t *tape) {
  (void)tape;
}

static void pause_reading(tape_t *tape) {
  assert_int_equal(aloop_transport_pause_reading(tape->transport), 0);
}

static void resume_reading(tape_t *tape) {
  assert_int_equal(aloop_transport_resume_reading(tape->transport), 0);
}

static void pause_and_resume(tape_t *tape) {
  pause_reading(tape);
  resume_reading(tape);
  assert_false(aloop_transport_is_reading(tape->transport));
}

static void resume_with_timeouts(tape_t *tape) {
  assert_int_equal(aloop_transport_set_timeouts(tape->transport, 0, ALOOP_SECONDS(1000), 0), 0);
  pause_and_resume(tape);
}

static void write_last_words(tape_t *tape) {
  put(tape, words);
}

static void write_in_two_parts(tape_t *tape) {
  put(tape, "the last ");
  put(tape, "words");
}

static void write_and_end(tape_t *tape) {
  put(tape, words);
  assert_int_equal(aloop_transport_write_eof(tape->transport), 0);
}

static void write_and_pause(tape_t *tape) {
  put(tape, words);
  pause_reading(tape);
}

static void close_it(tape_t *tape) {
  aloop_transport_close(tape->transport);
}

static void write_and_close(tape_t *tape) {
  put(tape, words);
  close_it(tape);
}

static void close_and_resume(tape_t *tape) {
  close_it(tape);
  resume_reading(tape);
}

static void abort_it(tape_t *tape) {
  aloop_transport_abort(tape->transport);
}

static void abort_with_reset(tape_t *tape) {
  aloop_transport_abort_reset(tape->transport);
}

static void abort_and_resume(tape_t *tape) {
  abort_it(tape);
  pause_and_resume(tape);
}

static void take_a_buffer(tape_t *tape) {
  assert_int_equal(aloop_transport_set_protocol(tape->transport, &buffered_protocol, tape), 0);
}

static void do_without_a_buffer(tape_t *tape) {
  assert_int_equal(aloop_transport_set_protocol(tape->transport, &plain_protocol, tape), 0);
}

static void watch_it(tape_t *tape) {
  int fd = aloop_transport_fd(tape->transport);
  assert_int_equal(aloop_add_reader(tape->env->loop, fd, NULL, NULL), ALOOP_EINVAL);
  assert_int_equal(aloop_remove_reader(tape->env->loop, fd), ALOOP_EBUSY);
}

static void leave_the_run(tape_t *tape) {
  aloop_stop_with_error(tape->env->loop, ALOOP_EINTR);
}

typedef struct act {
  void (*run)(tape_t *tape);
  bool says; /* the last words */
  bool ends;
} act_t;

static const act_t acts[] = {
    {do_nothing, false, false},        {pause_reading, false, false},        {resume_reading, false, false},
    {pause_and_resume, false, false},  {resume_with_timeouts, false, false}, {write_last_words, true, false},
    {write_in_two_parts, true, false}, {write_and_end, true, false},         {write_and_pause, true, false},
    {close_it, false, true},           {write_and_close, true, true},        {close_and_resume, false, true},
    {abort_it, false, true},           {abort_with_reset, false, true},      {abort_and_resume, false, true},
    {take_a_buffer, false, false},     {do_without_a_buffer, false, false},  {watch_it, false, false},
    {leave_the_run, false, false},
};

static uint64_t events(const env_t *env) {
  aloop_metrics_t metrics = {.size = sizeof metrics};
  assert_int_equal(aloop_metrics(env->loop, &metrics), 0);
  return metrics.events;
}

/* Turns without end for a loop that has nothing to do. */
static void expect_rest(env_t *env) {
  uint64_t before;
  for (int i = 0; i < 20; i++) aloop_run_once(env->loop, 0);
  before = events(env);
  for (int i = 0; i < 20; i++) assert_int_equal(aloop_run_once(env->loop, 0), 0);
  assert_int_equal(events(env), before);
}

/* `late`: data comes with the end. */
static void play(env_t *env, const aloop_protocol_t *table, const act_t *act, int answer, bool tcp, bool late) {
  tape_t tape = {.env = env, .answer[AT_EOF] = answer, .on[AT_EOF] = act->run};
  char got[64];
  int peer = tcp ? open_tcp_tape(&tape, table) : open_tape(&tape, table);
  if (late) say(peer, "data");
  assert_int_equal(shutdown(peer, SHUT_WR), 0);
  while (tape.calls[AT_EOF] == 0) aloop_run_once(env->loop, ALOOP_SECONDS(1));
  expect_rest(env);
  assert_int_equal(tape.calls[AT_EOF], 1);
  assert_int_equal(tape.size, late ? 4 : 0);
  bool over = act->ends || answer != KEEP;
  assert_int_equal(tape.lost, over);
  if (over) assert_int_equal(tape.error, !act->ends && answer == FAIL ? FAIL : 0);
  size_t size = act->run == abort_with_reset ? 0 : drain(peer, got, sizeof got);
  assert_int_equal(size, act->says ? strlen(words) : 0);
  assert_memory_equal(got, words, size);
  if (!over && act->run != write_and_end) {
    put(&tape, words);
    expect_rest(env);
    assert_int_equal(drain(peer, got, sizeof got), strlen(words));
  }
  if (tcp)
    reset_tape(&tape, peer);
  else
    end_tape(&tape, peer);
}

static void play_all(env_t *env, const aloop_protocol_t *table, bool tcp) {
  static const int answers[] = {KEEP, CLOSE, FAIL};
  for (size_t i = 0; i < sizeof acts / sizeof acts[0]; i++)
    for (size_t j = 0; j < sizeof answers / sizeof answers[0]; j++)
      for (int late = 0; late < 2; late++) play(env, table, &acts[i], answers[j], tcp, late != 0);
}

static void it_may_do_anything(void **state) {
  play_all(*state, &plain_protocol, false);
}

static void it_may_do_anything_with_a_buffer(void **state) {
  play_all(*state, &buffered_protocol, false);
}

static void it_may_do_anything_over_tcp(void **state) {
  play_all(*state, &plain_protocol, true);
}

TESTS(T(it_may_do_anything), T(it_may_do_anything_with_a_buffer), T(it_may_do_anything_over_tcp))
