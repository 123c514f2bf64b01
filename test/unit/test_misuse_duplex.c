/* SPDX-License-Identifier: MIT
 *
 * Wrong calls on streams: see misuse.h for what is checked with each. pollers: all, threads: yes
 */
#include "duplexes.h"
#include "misuse.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void null_streams(misuse_t *m) {
  static const char text[] = "x";
  const struct iovec part = {(void *)text, 1};
  ORDINARY(aloop_stream_ref(NULL), 0);
  ORDINARY_OF_VOID(aloop_stream_unref(NULL));
  MISTAKE(aloop_stream_new(NULL, NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_stream_loop(NULL), 0);
  MISTAKE(aloop_stream_read(NULL, OUT, 1), 0);
  MISTAKE(aloop_stream_readexactly(NULL, OUT, 1), 0);
  MISTAKE(aloop_stream_readline(NULL, OUT), 0);
  MISTAKE(aloop_stream_readuntil(NULL, text, 1, OUT), 0);
  MISTAKE(aloop_stream_at_eof(NULL), true);
  MISTAKE(aloop_stream_write(NULL, text, 1), ALOOP_EINVAL);
  MISTAKE(aloop_stream_writev(NULL, &part, 1), ALOOP_EINVAL);
  MISTAKE(aloop_stream_write_eof(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_stream_can_write_eof(NULL), false);
  MISTAKE(aloop_stream_drain(NULL), 0);
  MISTAKE(aloop_stream_start_tls(NULL, NULL), 0);
  MISTAKE_OF_VOID(aloop_stream_close(NULL));
  MISTAKE_OF_VOID(aloop_stream_abort(NULL));
  MISTAKE(aloop_stream_is_closing(NULL), true);
  MISTAKE(aloop_stream_wait_closed(NULL), 0);
  MISTAKE(aloop_stream_error(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_stream_transport(NULL), 0);
}

static void arguments_of_reads(misuse_t *m) {
  aloop_stream_t *stream = m->arg;
  MISTAKE_OF_FUTURE(aloop_stream_read(stream, NULL, 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_stream_readexactly(stream, NULL, 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_stream_readexactly(stream, OUT, SIZE_MAX), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_stream_readline(stream, NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_stream_readuntil(stream, "x", 1, NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_stream_readuntil(stream, "x", 0, OUT), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_stream_readuntil(stream, NULL, 1, OUT), ALOOP_EINVAL);
}

static void two_reads(misuse_t *m) {
  aloop_stream_t *stream = m->arg;
  char byte;
  aloop_future_t *future = aloop_stream_read(stream, &byte, 1);
  MISTAKE_OF_FUTURE(aloop_stream_read(stream, OUT, 1), ALOOP_EBUSY);
  MISTAKE_OF_FUTURE(aloop_stream_readexactly(stream, OUT, 1), ALOOP_EBUSY);
  MISTAKE_OF_FUTURE(aloop_stream_readline(stream, OUT), ALOOP_EBUSY);
  MISTAKE_OF_FUTURE(aloop_stream_readuntil(stream, "x", 1, OUT), ALOOP_EBUSY);
  assert_int_equal(aloop_future_cancel(future), 1);
  aloop_future_unref(future);
}

static void arguments_of_writes(misuse_t *m) {
  aloop_stream_t *stream = m->arg;
  MISTAKE(aloop_stream_write(stream, NULL, 1), ALOOP_EINVAL);
  MISTAKE(aloop_stream_writev(stream, NULL, 1), ALOOP_EINVAL);
  assert_int_equal(aloop_stream_write_eof(stream), 0);
  MISTAKE(aloop_stream_write(stream, "x", 1), ALOOP_EPIPE);
}

static void making_streams(misuse_t *m) {
  aloop_stream_t *stream = m->arg;
  aloop_transport_t *transport = aloop_stream_transport(stream);
  aloop_stream_options_t unsized = {0}, partial = {.size = 1};
  MISTAKE(aloop_stream_new(transport, NULL, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_stream_new(transport, &unsized, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_stream_new(transport, &partial, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_stream_new(transport, NULL, OUT), ALOOP_EBUSY);
}

static void calls_of_another_thread(misuse_t *m) {
  aloop_stream_t *stream = m->arg;
  MISTAKE(aloop_stream_transport(stream), 0);
  MISTAKE(aloop_stream_ref(stream), 0);
  MISTAKE_OF_VOID(aloop_stream_unref(stream));
  MISTAKE(aloop_stream_read(stream, OUT, 1), 0);
  MISTAKE(aloop_stream_readexactly(stream, OUT, 1), 0);
  MISTAKE(aloop_stream_readline(stream, OUT), 0);
  MISTAKE(aloop_stream_readuntil(stream, "x", 1, OUT), 0);
  MISTAKE(aloop_stream_at_eof(stream), true);
  MISTAKE(aloop_stream_write(stream, "x", 1), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_stream_writev(stream, NULL, 0), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_stream_write_eof(stream), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_stream_drain(stream), 0);
  MISTAKE(aloop_stream_start_tls(stream, NULL), 0);
  MISTAKE_OF_VOID(aloop_stream_close(stream));
  MISTAKE_OF_VOID(aloop_stream_abort(stream));
  MISTAKE(aloop_stream_is_closing(stream), true);
  MISTAKE(aloop_stream_wait_closed(stream), 0);
  MISTAKE(aloop_stream_error(stream), ALOOP_ENOTLOOPTHREAD);
}

static int64_t serve(aloop_t *loop, aloop_stream_t *stream, void *arg) {
  (void)loop, (void)stream, (void)arg;
  return 0;
}

static void opening_and_serving(misuse_t *m) {
  aloop_stream_options_t unsized = {0};
  aloop_connect_options_t somewhere = {.size = sizeof somewhere, .host = "127.0.0.1", .port = 1}, nowhere = {0};
  aloop_unix_connect_options_t file = {.size = sizeof file, .path = "/nope/nope"}, no_file = {0};
  aloop_server_options_t server = {.size = sizeof server, .host = "127.0.0.1"}, no_server = {0};
  aloop_unix_server_options_t unix_server = {.size = sizeof unix_server, .path = "/nope/nope"}, none = {0};
  MISTAKE(aloop_open_connection(NULL, &somewhere, NULL), 0);
  MISTAKE(aloop_open_unix_connection(NULL, &file, NULL), 0);
  MISTAKE(aloop_start_server(NULL, serve, NULL, &server, NULL), 0);
  MISTAKE(aloop_start_unix_server(NULL, serve, NULL, &unix_server, NULL), 0);
  MISTAKE_OF_FUTURE(aloop_open_connection(m->loop, &nowhere, NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_open_connection(m->loop, NULL, NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_open_connection(m->loop, &somewhere, &unsized), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_open_unix_connection(m->loop, &no_file, NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_open_unix_connection(m->loop, &file, &unsized), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_start_server(m->loop, serve, NULL, &no_server, NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_start_server(m->loop, serve, NULL, &server, &unsized), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_start_server(m->loop, NULL, NULL, &server, NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_start_unix_server(m->loop, serve, NULL, &none, NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_start_unix_server(m->loop, serve, NULL, &unix_server, &unsized), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_start_unix_server(m->loop, NULL, NULL, &unix_server, NULL), ALOOP_EINVAL);
}

static void programs_of_streams(misuse_t *m) {
  static const char *const argv[] = {"true", NULL};
  aloop_stream_options_t unsized = {0};
  aloop_process_options_t options = {.size = sizeof options, .argv = argv}, nothing = {.size = sizeof nothing};
  MISTAKE(aloop_create_subprocess_exec(NULL, &options, NULL), 0);
  MISTAKE(aloop_create_subprocess_shell(NULL, "true", NULL, NULL), 0);
  MISTAKE_OF_FUTURE(aloop_create_subprocess_exec(m->loop, NULL, NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_create_subprocess_exec(m->loop, &nothing, NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_create_subprocess_exec(m->loop, &options, &unsized), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_create_subprocess_shell(m->loop, NULL, NULL, NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_create_subprocess_shell(m->loop, "true", &options, NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_create_subprocess_shell(m->loop, "true", NULL, &unsized), ALOOP_EINVAL);
  MISTAKE(aloop_process_stream(NULL, 0), 0);
}

static void in_a_closed_loop(misuse_t *m) {
  aloop_connect_options_t somewhere = {.size = sizeof somewhere, .host = "127.0.0.1", .port = 1};
  aloop_server_options_t server = {.size = sizeof server, .host = "127.0.0.1"};
  assert_int_equal(aloop_close(m->loop), 0);
  MISTAKE_OF_FUTURE(aloop_open_connection(m->loop, &somewhere, NULL), ALOOP_ECLOSED);
  MISTAKE_OF_FUTURE(aloop_start_server(m->loop, serve, NULL, &server, NULL), ALOOP_ECLOSED);
}

static void opening_in_another_thread(misuse_t *m) {
  MISTAKE(aloop_create_subprocess_exec(m->loop, NULL, NULL), 0);
  MISTAKE(aloop_create_subprocess_shell(m->loop, "true", NULL, NULL), 0);
  MISTAKE(aloop_open_connection(m->loop, NULL, NULL), 0);
  MISTAKE(aloop_open_unix_connection(m->loop, NULL, NULL), 0);
  MISTAKE(aloop_start_server(m->loop, serve, NULL, NULL, NULL), 0);
  MISTAKE(aloop_start_unix_server(m->loop, serve, NULL, NULL, NULL), 0);
}

/* ---- The tests ------------------------------------------------------------------------------------------- */

static void of_nothing(void **state) {
  in_both_modes(*state, null_streams);
}

static void on_a_stream(env_t *env, misuse_fn body, bool thread) {
  for (int debug = thread; debug < 2; debug++) {
    misuse_t m;
    int fds[2];
    misuse_begin(&m, env, debug);
    make_socketpair(fds);
    m.arg = stream_over(m.loop, fds[0], 0);
    if (thread)
      misuse_in_thread(&m, body);
    else
      misuse_in_callback(&m, body);
    end_stream(m.arg, fds[1]);
    misuse_end(&m);
  }
}

static void reads(void **state) {
  on_a_stream(*state, arguments_of_reads, false);
  on_a_stream(*state, two_reads, false);
}

static void writes(void **state) {
  on_a_stream(*state, arguments_of_writes, false);
}

static void beginnings(void **state) {
  on_a_stream(*state, making_streams, false);
}

static void another_thread(void **state) {
  on_a_stream(*state, calls_of_another_thread, true);
  on_a_stream(*state, opening_in_another_thread, true);
}

static void connections_and_servers(void **state) {
  in_both_modes(*state, opening_and_serving);
  in_both_modes(*state, programs_of_streams);
}

static void closed_loops(void **state) {
  in_both_modes_outside(*state, in_a_closed_loop);
}

static void reading_from_a_write_pipe(misuse_t *m) {
  MISTAKE_OF_FUTURE(aloop_stream_read(m->arg, OUT, 1), ALOOP_ENOTSUP);
  ORDINARY(aloop_stream_can_write_eof(m->arg), true);
}

static void writing_to_a_read_pipe(misuse_t *m) {
  MISTAKE(aloop_stream_write(m->arg, "x", 1), ALOOP_ENOTSUP);
  MISTAKE(aloop_stream_write_eof(m->arg), ALOOP_ENOTSUP);
  ORDINARY(aloop_stream_can_write_eof(m->arg), false);
}

static void pipes(void **state) {
  static const aloop_protocol_t nothing = {.size = sizeof nothing};
  for (int debug = 0; debug < 4; debug++) {
    misuse_t m;
    int fds[2];
    bool reads_it = debug >= 2;
    aloop_transport_t *pipe = NULL;
    aloop_stream_t *stream = NULL;
    misuse_begin(&m, *state, debug % 2);
    make_pipe(fds);
    aloop_future_t *future = reads_it ? aloop_connect_read_pipe(m.loop, &nothing, NULL, fds[0])
                                      : aloop_connect_write_pipe(m.loop, &nothing, NULL, fds[1]);
    assert_int_equal(run_future(m.loop, future), 0);
    assert_int_equal(aloop_future_take_ptr(future, &pipe), 0);
    aloop_future_unref(future);
    assert_int_equal(aloop_stream_new(pipe, NULL, &stream), 0);
    aloop_transport_unref(pipe);
    m.arg = stream;
    misuse_in_callback(&m, reads_it ? writing_to_a_read_pipe : reading_from_a_write_pipe);
    end_stream(stream, fds[reads_it ? 1 : 0]);
    misuse_end(&m);
  }
}

TESTS(T(of_nothing), T(reads), T(writes), T(beginnings), T(another_thread), T(connections_and_servers),
      T(closed_loops), T(pipes))
