/* SPDX-License-Identifier: MIT
 *
 * Wrong calls on transports: see misuse.h for what is checked with each. pollers: all, threads: yes
 */
#include "misuse.h"
#include "streams.h"

#include <stdlib.h>
#include <unistd.h>

static struct sockaddr *address_of(misuse_t *m) {
  return OUT;
}

static void count_call(void *arg) {
  ++*(int *)arg;
}

static void ignore(aloop_t *loop, void *arg) {
  (void)loop, (void)arg;
}

/* A file with something in it. */
static int some_file(void) {
  char path[] = "/tmp/aloop-misuse-XXXXXX";
  int fd = mkstemp(path);
  assert_true(fd >= 0);
  unlink(path);
  assert_int_equal(write(fd, "text", 4), 4);
  return fd;
}

/* ---- NULL ------------------------------------------------------------------------------------------------ */

static void null_transports(misuse_t *m) {
  static const char text[] = "x";
  const struct iovec part = {(void *)text, 1};
  size_t size = 0;
  ORDINARY(aloop_transport_ref(NULL), 0);
  ORDINARY_OF_VOID(aloop_transport_unref(NULL));
  MISTAKE(aloop_transport_loop(NULL), 0);
  MISTAKE(aloop_transport_write(NULL, text, 1), ALOOP_EINVAL);
  MISTAKE(aloop_transport_write(NULL, NULL, 0), ALOOP_EINVAL);
  MISTAKE(aloop_transport_writev(NULL, &part, 1), ALOOP_EINVAL);
  MISTAKE(aloop_transport_write_owned(NULL, text, 1, count_call, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_transport_write_eof(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_transport_can_write_eof(NULL), false);
  MISTAKE_OF_VOID(aloop_transport_close(NULL));
  MISTAKE_OF_VOID(aloop_transport_abort(NULL));
  MISTAKE_OF_VOID(aloop_transport_abort_reset(NULL));
  MISTAKE_OF_VOID(aloop_transport_abort_error(NULL, ALOOP_EIO));
  MISTAKE(aloop_transport_is_closing(NULL), true);
  MISTAKE(aloop_transport_pause_reading(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_transport_resume_reading(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_transport_is_reading(NULL), false);
  MISTAKE(aloop_transport_set_write_buffer_limits(NULL, -1, -1), ALOOP_EINVAL);
  MISTAKE(aloop_transport_get_write_buffer_limits(NULL, OUT, &size), ALOOP_EINVAL);
  MISTAKE(aloop_transport_set_write_buffer_cap(NULL, 1), ALOOP_EINVAL);
  MISTAKE(aloop_transport_get_write_buffer_size(NULL), 0);
  MISTAKE(aloop_transport_set_protocol(NULL, &plain_protocol, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_transport_get_protocol(NULL, OUT), 0);
  MISTAKE(aloop_transport_set_timeouts(NULL, 0, 0, 0), ALOOP_EINVAL);
  MISTAKE(aloop_transport_fd(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_transport_sockname(NULL, address_of(m), &(socklen_t){100}), ALOOP_EINVAL);
  MISTAKE(aloop_transport_peername(NULL, address_of(m), &(socklen_t){100}), ALOOP_EINVAL);
  MISTAKE(aloop_transport_server(NULL), 0);
  MISTAKE(aloop_sendfile(NULL, 0, 0, 0, 0), 0);
  MISTAKE(aloop_relay(NULL, NULL), 0);
}

/* ---- An open connection ---------------------------------------------------------------------------------- */

static void writes_without_bytes(misuse_t *m) {
  aloop_transport_t *transport = m->arg;
  static char text[] = "x";
  int released = 0;
  const struct iovec parts[] = {{text, 1}, {NULL, 1}}, whole[] = {{text, PTRDIFF_MAX}, {text, PTRDIFF_MAX}};
  const struct iovec nothing[] = {{NULL, 0}, {text, 0}};
  MISTAKE(aloop_transport_write(transport, NULL, 1), ALOOP_EINVAL);
  MISTAKE(aloop_transport_write(transport, text, SIZE_MAX), ALOOP_EINVAL);
  MISTAKE(aloop_transport_writev(transport, NULL, 1), ALOOP_EINVAL);
  MISTAKE(aloop_transport_writev(transport, parts, -1), ALOOP_EINVAL);
  MISTAKE(aloop_transport_writev(transport, NULL, INT32_MIN), ALOOP_EINVAL);
  MISTAKE(aloop_transport_writev(transport, parts, 2), ALOOP_EINVAL);
  MISTAKE(aloop_transport_writev(transport, whole, 2), ALOOP_EINVAL);
  MISTAKE(aloop_transport_write_owned(transport, NULL, 1, count_call, &released), ALOOP_EINVAL);
  MISTAKE(aloop_transport_write_owned(transport, text, SIZE_MAX, count_call, &released), ALOOP_EINVAL);
  assert_int_equal(released, 0);
  ORDINARY(aloop_transport_write(transport, NULL, 0), 0);
  ORDINARY(aloop_transport_write(transport, text, 0), 0);
  ORDINARY(aloop_transport_writev(transport, NULL, 0), 0);
  ORDINARY(aloop_transport_writev(transport, nothing, 2), 0);
  assert_int_equal(aloop_transport_get_write_buffer_size(transport), 0);
}

static void settings_that_make_no_sense(misuse_t *m) {
  aloop_transport_t *transport = m->arg;
  aloop_protocol_t unsized = {0}, partial = {.size = sizeof partial - 8};
  size_t high = 0, low = 0;
  const aloop_protocol_t *table = NULL;
  MISTAKE(aloop_transport_set_write_buffer_limits(transport, 1, 2), ALOOP_EINVAL);
  MISTAKE(aloop_transport_set_write_buffer_limits(transport, INT64_MAX, 1), ALOOP_ERANGE);
  MISTAKE(aloop_transport_set_write_buffer_limits(transport, -1, INT64_MAX), ALOOP_ERANGE);
  MISTAKE(aloop_transport_set_write_buffer_limits(transport, 0, INT64_MAX), ALOOP_EINVAL);
  MISTAKE(aloop_transport_get_write_buffer_limits(transport, OUT, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_transport_get_write_buffer_limits(transport, NULL, OUT), ALOOP_EINVAL);
  ORDINARY(aloop_transport_set_write_buffer_limits(transport, INT64_MIN, INT64_MIN), 0);
  assert_int_equal(aloop_transport_get_write_buffer_limits(transport, &high, &low), 0);
  assert_int_equal(high, 65536);
  assert_int_equal(low, 16384);
  MISTAKE(aloop_transport_set_protocol(transport, NULL, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_transport_set_protocol(transport, &unsized, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_transport_set_protocol(transport, &partial, NULL), ALOOP_EINVAL);
  assert_non_null(aloop_transport_get_protocol(transport, &table));
  assert_ptr_equal(table, &plain_protocol);
  MISTAKE(aloop_transport_set_timeouts(transport, -1, 0, 0), ALOOP_EINVAL);
  MISTAKE(aloop_transport_set_timeouts(transport, 0, INT64_MIN, 0), ALOOP_EINVAL);
  MISTAKE(aloop_transport_set_timeouts(transport, 0, 0, ALOOP_FOREVER), ALOOP_EINVAL);
  assert_int_equal(aloop_transport_set_timeouts(transport, INT64_MAX, INT64_MAX, INT64_MAX), 0);
  ORDINARY(aloop_transport_set_timeouts(transport, INT64_MAX, INT64_MAX, INT64_MAX), 0);
  assert_int_equal(aloop_transport_set_timeouts(transport, 0, 0, 0), 0);
}

static void questions_without_a_place(misuse_t *m) {
  aloop_transport_t *transport = m->arg;
  MISTAKE(aloop_transport_sockname(transport, NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_transport_sockname(transport, address_of(m), NULL), ALOOP_EINVAL);
  MISTAKE(aloop_transport_peername(transport, NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_transport_peername(transport, address_of(m), NULL), ALOOP_EINVAL);
  ORDINARY(aloop_transport_get_protocol(transport, NULL) != NULL, true);
  ORDINARY(aloop_transport_server(transport), 0);
}

static void files_that_cannot_be_sent(misuse_t *m) {
  aloop_transport_t *transport = m->arg;
  int file = some_file(), gone = dup(file), fds[2];
  make_pipe(fds);
  close(gone);
  MISTAKE_OF_FUTURE(aloop_sendfile(transport, -1, 0, 0, 0), ALOOP_EBADF);
  MISTAKE_OF_FUTURE(aloop_sendfile(transport, gone, 0, 0, 0), ALOOP_EBADF);
  MISTAKE_OF_FUTURE(aloop_sendfile(transport, fds[0], 0, 0, 0), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_sendfile(transport, file, -1, 0, 0), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_sendfile(transport, file, 0, INT64_MIN, 0), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_sendfile(transport, file, 0, 0, 2), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_sendfile(transport, file, 0, 0, ~0u), ALOOP_EINVAL);
  assert_int_equal(lseek(file, 0, SEEK_CUR), 4);
  assert_false(aloop_transport_is_closing(transport));
  close(file);
  close(fds[0]);
  close(fds[1]);
}

static void relays_to_nowhere(misuse_t *m) {
  aloop_transport_t *transport = m->arg;
  MISTAKE(aloop_relay(transport, NULL), 0);
  MISTAKE(aloop_relay(NULL, transport), 0);
  MISTAKE_OF_FUTURE(aloop_relay(transport, transport), ALOOP_EINVAL);
  assert_false(aloop_transport_is_closing(transport));
}

/* Descriptors of the library are not the caller's to watch. */
static void watching_its_descriptor(misuse_t *m) {
  int fd = aloop_transport_fd(m->arg);
  MISTAKE(aloop_add_reader(m->loop, fd, ignore, NULL), ALOOP_EBUSY);
  MISTAKE(aloop_add_writer(m->loop, fd, ignore, NULL), ALOOP_EBUSY);
  MISTAKE(aloop_remove_reader(m->loop, fd), ALOOP_EBUSY);
  MISTAKE(aloop_remove_writer(m->loop, fd), ALOOP_EBUSY);
}

/* ---- Later in its life ----------------------------------------------------------------------------------- */

static void calls_during_sendfile(misuse_t *m) {
  aloop_transport_t *transport = m->arg;
  int file = some_file(), released = 0;
  struct iovec part = {"x", 1};
  fill(aloop_transport_fd(transport));
  aloop_future_t *future = aloop_sendfile(transport, file, 0, 0, 0);
  assert_false(aloop_future_done(future));
  MISTAKE(aloop_transport_write(transport, "x", 1), ALOOP_EBUSY);
  MISTAKE(aloop_transport_writev(transport, &part, 1), ALOOP_EBUSY);
  MISTAKE(aloop_transport_write_owned(transport, "x", 1, count_call, &released), ALOOP_EBUSY);
  MISTAKE(aloop_transport_write_eof(transport), ALOOP_EBUSY);
  MISTAKE_OF_FUTURE(aloop_sendfile(transport, file, 0, 0, 0), ALOOP_EBUSY);
  assert_int_equal(released, 0);
  assert_int_equal(aloop_future_cancel(future), 1);
  aloop_future_unref(future);
  close(file);
}

/* Of three transports the first two are joined; the fourth is another loop's. */
static void calls_during_a_relay(misuse_t *m) {
  aloop_transport_t **transports = m->arg, *one = transports[0], *two = transports[1], *three = transports[2];
  int file = some_file(), released = 0;
  struct iovec part = {"x", 1};
  MISTAKE_OF_FUTURE(aloop_relay(one, transports[3]), ALOOP_EOTHERLOOP);
  aloop_future_t *future = aloop_relay(one, two);
  assert_false(aloop_future_done(future));
  MISTAKE(aloop_transport_write(one, "x", 1), ALOOP_EBUSY);
  MISTAKE(aloop_transport_writev(two, &part, 1), ALOOP_EBUSY);
  MISTAKE(aloop_transport_write_owned(one, "x", 1, count_call, &released), ALOOP_EBUSY);
  MISTAKE(aloop_transport_write_eof(two), ALOOP_EBUSY);
  MISTAKE_OF_FUTURE(aloop_sendfile(one, file, 0, 0, 0), ALOOP_EBUSY);
  MISTAKE_OF_FUTURE(aloop_relay(one, three), ALOOP_EBUSY);
  MISTAKE_OF_FUTURE(aloop_relay(three, two), ALOOP_EBUSY);
  assert_int_equal(released, 0);
  assert_int_equal(aloop_future_cancel(future), 1);
  aloop_future_unref(future);
  fill(aloop_transport_fd(one));
  future = aloop_sendfile(one, file, 0, 0, 0);
  MISTAKE_OF_FUTURE(aloop_relay(one, two), ALOOP_EBUSY);
  assert_int_equal(aloop_future_cancel(future), 1);
  aloop_future_unref(future);
  assert_int_equal(aloop_transport_write_eof(three), 0);
  MISTAKE_OF_FUTURE(aloop_relay(two, three), ALOOP_EPIPE);
  aloop_transport_close(two);
  ORDINARY_OF_FUTURE(aloop_relay(one, two), ALOOP_ECLOSED);
  close(file);
}

static void calls_after_write_eof(misuse_t *m) {
  aloop_transport_t *transport = m->arg;
  struct iovec part = {"x", 1};
  int file = some_file(), released = 0;
  assert_int_equal(aloop_transport_write_eof(transport), 0);
  ORDINARY(aloop_transport_write_eof(transport), 0);
  MISTAKE(aloop_transport_write(transport, "x", 1), ALOOP_EPIPE);
  MISTAKE(aloop_transport_writev(transport, &part, 1), ALOOP_EPIPE);
  MISTAKE(aloop_transport_write_owned(transport, "x", 1, count_call, &released), ALOOP_EPIPE);
  MISTAKE_OF_FUTURE(aloop_sendfile(transport, file, 0, 0, 0), ALOOP_EPIPE);
  assert_int_equal(released, 0);
  close(file);
}

/* Who writes cannot know in time that the connection is lost, so none of this is a mistake. */
static void calls_after_the_end(misuse_t *m) {
  aloop_transport_t *transport = m->arg;
  struct iovec part = {"x", 1};
  size_t high, low;
  int released = 0;
  ORDINARY(aloop_transport_write(transport, "x", 1), ALOOP_ECLOSED);
  ORDINARY(aloop_transport_writev(transport, &part, 1), ALOOP_ECLOSED);
  ORDINARY(aloop_transport_write_owned(transport, "x", 1, count_call, &released), ALOOP_ECLOSED);
  ORDINARY(aloop_transport_write_eof(transport), 0);
  ORDINARY_OF_VOID(aloop_transport_close(transport));
  ORDINARY_OF_VOID(aloop_transport_abort(transport));
  ORDINARY_OF_VOID(aloop_transport_abort_reset(transport));
  ORDINARY_OF_VOID(aloop_transport_abort_error(transport, ALOOP_EIO));
  ORDINARY(aloop_transport_is_closing(transport), true);
  ORDINARY(aloop_transport_pause_reading(transport), 0);
  ORDINARY(aloop_transport_resume_reading(transport), 0);
  ORDINARY(aloop_transport_is_reading(transport), false);
  ORDINARY(aloop_transport_set_write_buffer_limits(transport, 1, 1), 0);
  ORDINARY(aloop_transport_get_write_buffer_limits(transport, &high, &low), 0);
  ORDINARY(aloop_transport_set_write_buffer_cap(transport, 1), 0);
  ORDINARY(aloop_transport_get_write_buffer_size(transport), 0);
  ORDINARY(aloop_transport_set_protocol(transport, &plain_protocol, m), 0);
  ORDINARY(aloop_transport_get_protocol(transport, NULL) == m, true);
  ORDINARY(aloop_transport_set_timeouts(transport, 1, 1, 1), ALOOP_ECLOSED);
  ORDINARY(aloop_transport_fd(transport), ALOOP_ECLOSED);
  ORDINARY(aloop_transport_sockname(transport, address_of(m), &(socklen_t){100}), ALOOP_ECLOSED);
  ORDINARY(aloop_transport_peername(transport, address_of(m), &(socklen_t){100}), ALOOP_ECLOSED);
  ORDINARY(aloop_transport_server(transport), 0);
  ORDINARY(aloop_transport_loop(transport) == m->loop, true);
  assert_int_equal(released, 0);
}

static void sendfile_after_the_end(misuse_t *m) {
  ORDINARY_OF_FUTURE(aloop_sendfile(m->arg, 0, 0, 0, 0), ALOOP_ECLOSED);
  ORDINARY_OF_FUTURE(aloop_sendfile(m->arg, -1, -1, -1, ~0u), ALOOP_ECLOSED);
}

/* ---- Threads --------------------------------------------------------------------------------------------- */

#define REFUSED(call) MISTAKE(call, ALOOP_ENOTLOOPTHREAD)

static void calls_of_another_thread(misuse_t *m) {
  aloop_transport_t *transport = m->arg;
  struct iovec part = {"x", 1};
  int released = 0;
  MISTAKE(aloop_transport_ref(transport), 0);
  MISTAKE_OF_VOID(aloop_transport_unref(transport));
  REFUSED(aloop_transport_write(transport, "x", 1));
  REFUSED(aloop_transport_writev(transport, &part, 1));
  REFUSED(aloop_transport_write_owned(transport, "x", 1, count_call, &released));
  REFUSED(aloop_transport_write_eof(transport));
  MISTAKE(aloop_transport_can_write_eof(transport), false);
  MISTAKE_OF_VOID(aloop_transport_close(transport));
  MISTAKE_OF_VOID(aloop_transport_abort(transport));
  MISTAKE_OF_VOID(aloop_transport_abort_reset(transport));
  MISTAKE_OF_VOID(aloop_transport_abort_error(transport, ALOOP_EIO));
  MISTAKE(aloop_transport_is_closing(transport), true);
  REFUSED(aloop_transport_pause_reading(transport));
  REFUSED(aloop_transport_resume_reading(transport));
  MISTAKE(aloop_transport_is_reading(transport), false);
  REFUSED(aloop_transport_set_write_buffer_limits(transport, 1, 1));
  REFUSED(aloop_transport_get_write_buffer_limits(transport, OUT, OUT));
  REFUSED(aloop_transport_set_write_buffer_cap(transport, 1));
  MISTAKE(aloop_transport_get_write_buffer_size(transport), 0);
  REFUSED(aloop_transport_set_protocol(transport, &plain_protocol, NULL));
  MISTAKE(aloop_transport_get_protocol(transport, OUT), 0);
  REFUSED(aloop_transport_set_timeouts(transport, 1, 1, 1));
  REFUSED(aloop_transport_fd(transport));
  REFUSED(aloop_transport_sockname(transport, address_of(m), OUT));
  REFUSED(aloop_transport_peername(transport, address_of(m), OUT));
  MISTAKE(aloop_transport_server(transport), 0);
  MISTAKE(aloop_sendfile(transport, 0, 0, 0, 0), 0);
  MISTAKE(aloop_relay(transport, transport), 0);
}

/* ---- The tests ------------------------------------------------------------------------------------------- */

/* Calls the body with an open connection. */
static void with_connection(env_t *env, bool debug, misuse_fn body, bool in_thread) {
  misuse_t m;
  misuse_begin(&m, env, debug);
  tape_t tape = {.env = env};
  int peer = open_tape(&tape, &plain_protocol);
  m.arg = tape.transport;
  if (in_thread)
    misuse_in_thread(&m, body);
  else
    misuse_in_callback(&m, body);
  assert_false(tape.lost);
  end_tape(&tape, peer);
  misuse_end(&m);
}

static void on_a_connection(env_t *env, misuse_fn body) {
  for (int debug = 0; debug < 2; debug++) with_connection(env, debug, body, false);
}

static void transports_that_are_null(void **state) {
  in_both_modes(*state, null_transports);
}

static void nothing_to_write(void **state) {
  on_a_connection(*state, writes_without_bytes);
}

static void senseless_settings(void **state) {
  on_a_connection(*state, settings_that_make_no_sense);
}

static void no_place_for_the_answer(void **state) {
  on_a_connection(*state, questions_without_a_place);
}

static void unusable_files(void **state) {
  on_a_connection(*state, files_that_cannot_be_sent);
}

static void the_descriptor_of_a_connection(void **state) {
  on_a_connection(*state, watching_its_descriptor);
}

static void during_sendfile(void **state) {
  on_a_connection(*state, calls_during_sendfile);
}

static void senseless_relays(void **state) {
  on_a_connection(*state, relays_to_nowhere);
}

static void during_a_relay(void **state) {
  env_t *env = *state;
  for (int debug = 0; debug < 2; debug++) {
    enum { TAPES = 4 };
    misuse_t m;
    tape_t tapes[TAPES];
    aloop_transport_t *transports[TAPES];
    int peers[TAPES];
    misuse_begin(&m, env, debug);
    aloop_t *loop = env->loop, *other;
    const aloop_options_t options = {.size = sizeof options, .allocator = &env->allocator};
    assert_int_equal(aloop_new(&options, &other), 0);
    for (int i = 0; i < TAPES; i++) {
      env->loop = i < TAPES - 1 ? loop : other;
      tapes[i] = (tape_t){.env = env};
      peers[i] = open_tape(&tapes[i], &plain_protocol);
      transports[i] = tapes[i].transport;
    }
    m.arg = transports;
    env->loop = loop;
    misuse_in_callback(&m, calls_during_a_relay);
    for (int i = 0; i < TAPES; i++) {
      env->loop = i < TAPES - 1 ? loop : other;
      end_tape(&tapes[i], peers[i]);
    }
    aloop_free(other);
    env->loop = loop;
    misuse_end(&m);
  }
}

static void after_write_eof(void **state) {
  on_a_connection(*state, calls_after_write_eof);
}

static void after_connection_lost(void **state) {
  for (int debug = 0; debug < 2; debug++) {
    misuse_t m;
    misuse_begin(&m, *state, debug);
    tape_t tape = {.env = *state};
    int peer = open_tape(&tape, &plain_protocol);
    m.arg = tape.transport;
    aloop_transport_close(tape.transport);
    run_until(m.loop, &tape.lost);
    misuse_in_callback(&m, calls_after_the_end);
    misuse_in_callback(&m, sendfile_after_the_end);
    release_tape(&tape, peer);
    misuse_end(&m);
  }
}

static void after_the_loop_was_closed(void **state) {
  for (int debug = 0; debug < 2; debug++) {
    misuse_t m;
    misuse_begin(&m, *state, debug);
    tape_t tape = {.env = *state};
    int peer = open_tape(&tape, &plain_protocol);
    m.arg = tape.transport;
    assert_int_equal(aloop_close(m.loop), 0);
    calls_after_the_end(&m);
    release_tape(&tape, peer);
    misuse_end(&m);
  }
}

static void another_thread(void **state) {
  with_connection(*state, true, calls_of_another_thread, true);
}

TESTS(T(transports_that_are_null), T(nothing_to_write), T(senseless_settings), T(no_place_for_the_answer),
      T(unusable_files), T(the_descriptor_of_a_connection), T(senseless_relays), T(during_sendfile),
      T(during_a_relay), T(after_write_eof), T(after_connection_lost), T(after_the_loop_was_closed),
      T(another_thread))
