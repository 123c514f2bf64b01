/* SPDX-License-Identifier: MIT
 *
 * Numbers the lines of standard input and writes them to standard output, whatever these are: pipes, terminals,
 * files, sockets, /dev/null. Neither is changed for the programs that share them, and neither is waited for.
 *
 * While the output is slow, nothing is read: a line is never kept but in the write buffer, which the two
 * callbacks of back-pressure keep small.
 */
#include "aloop.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct echo {
  aloop_transport_t *in;
  aloop_transport_t *out;
  long lines;
  bool inside; /* a line that has begun and not ended */
  int error;
} echo_t;

/* A line or a part of one, with its number if it begins here. Returns 0, or why it cannot be written. */
static int write_part(echo_t *echo, const char *data, size_t size) {
  char number[32];
  struct iovec parts[2] = {{.iov_base = number, .iov_len = 0}, {.iov_base = (char *)data, .iov_len = size}};
  if (!echo->inside) parts[0].iov_len = (size_t)snprintf(number, sizeof number, "%6ld  ", ++echo->lines);
  echo->inside = data[size - 1] != '\n';
  return aloop_transport_writev(echo->out, parts, 2);
}

/* An error returned here ends the reading. */
static int on_data(aloop_transport_t *transport, void *arg, const void *data, size_t size) {
  const char *at = data;
  int error = 0;
  (void)transport;
  while (size > 0 && error == 0) {
    const char *end = memchr(at, '\n', size);
    size_t part = end != NULL ? (size_t)(end - at) + 1 : size;
    error = write_part(arg, at, part);
    at += part;
    size -= part;
  }
  return error;
}

/* The end of the input, or its failure: what is written still goes out. */
static void on_input_lost(aloop_transport_t *transport, void *arg, int error) {
  echo_t *echo = arg;
  (void)transport;
  if (error < 0 && error != ALOOP_ECLOSED) echo->error = error;
  aloop_transport_close(echo->out);
}

static void on_slow(aloop_transport_t *transport, void *arg) {
  const echo_t *echo = arg;
  (void)transport;
  aloop_transport_pause_reading(echo->in);
}

static void on_quick(aloop_transport_t *transport, void *arg) {
  const echo_t *echo = arg;
  (void)transport;
  aloop_transport_resume_reading(echo->in);
}

/* Everything was written, or a reader like `head` has seen enough. */
static void on_output_lost(aloop_transport_t *transport, void *arg, int error) {
  echo_t *echo = arg;
  if (error < 0 && error != ALOOP_EPIPE) echo->error = error;
  aloop_transport_close(echo->in);
  aloop_stop(aloop_transport_loop(transport));
}

static const aloop_protocol_t input = {
    .size = sizeof input, .data_received = on_data, .connection_lost = on_input_lost};
static const aloop_protocol_t output = {.size = sizeof output,
                                        .pause_writing = on_slow,
                                        .resume_writing = on_quick,
                                        .connection_lost = on_output_lost};

/* Waits for one of the connects. Says what is wrong with a descriptor that cannot be used. */
static int finish(aloop_t *loop, aloop_future_t *future, aloop_transport_t **transport) {
  int rc = aloop_run_until_complete_ptr(loop, aloop_future_ref(future), transport);
  if (rc < 0) fprintf(stderr, "stdin_echo: %s\n", aloop_future_message(future));
  aloop_future_unref(future);
  return rc;
}

int main(void) {
  aloop_t *loop;
  echo_t echo = {0};
  if (aloop_new(NULL, &loop) < 0) return 1;
  /* The output first: the input may have something to say at once. */
  int rc = finish(loop, aloop_connect_write_pipe(loop, &output, &echo, STDOUT_FILENO), &echo.out);
  if (rc == 0) rc = finish(loop, aloop_connect_read_pipe(loop, &input, &echo, STDIN_FILENO), &echo.in);
  if (rc == 0) aloop_run_forever(loop);
  if (echo.error < 0) fprintf(stderr, "stdin_echo: %s\n", aloop_strerror(echo.error));
  aloop_close(loop); /* may still call on_input_lost, which wants the output */
  aloop_transport_unref(echo.in);
  aloop_transport_unref(echo.out);
  aloop_free(loop);
  return rc < 0 || echo.error < 0;
}
