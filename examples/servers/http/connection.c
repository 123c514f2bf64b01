/* SPDX-License-Identifier: MIT
 *
 * One HTTP connection: bytes from the transport go through the parser, requests to the site, answers back to
 * the transport.
 *
 * Requests are answered strictly in order. Those that arrive together are answered together: the library
 * gathers what is written while data_received runs. As long as an answer cannot go on, because a file is being
 * sent or the client does not take what it asked for, the connection is busy: it reads no more, and bytes that
 * had already come wait in `rest`.
 *
 * Memory. A connection that waits for a request holds this struct and nothing else. A parser is lent to it from
 * the first byte of a request to the last; the buffer for answers belongs to the worker.
 *
 * The end. To close a socket whose input was not read to its end makes the kernel send a reset, and that can
 * destroy the last answer on its way. So the server leaves in two steps: it says that no more will come
 * (write_eof), then drops what it receives until the client is gone too, or LINGER has passed. TLS before 1.3
 * knows no half ends: there the answer and the end are sent, and that is all.
 */
#include "worker.h"

#include "response.h"
#include "site.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINGER ALOOP_SECONDS(2)

struct connection {
  worker_t *worker;
  aloop_transport_t *transport; /* NULL once lost */
  connection_t *next, **link;   /* in worker->connections */
  http_parser_t *parser;        /* while a request is arriving */
  int64_t since;                /* when its first byte came, or the one before it was complete */
  char *rest;                   /* received and not yet looked at, from rest_used to rest_size */
  size_t rest_used, rest_size;
  aloop_future_t *sending; /* the sendfile under way */
  site_rest_t body;        /* what it sends; body.file is -1 if there is none */
  aloop_handle_t linger;
  bool blocked; /* the client does not take what it asked for */
  bool last;    /* no request is answered after this one */
  bool leaving; /* all is said */
};

/* ---- Parsers, lent and returned -------------------------------------------------------------------------- */

static http_parser_t *borrow_parser(connection_t *connection) {
  worker_t *worker = connection->worker;
  if (connection->parser != NULL) return connection->parser;
  http_parser_t *parser = worker->spare != NULL ? worker->spare : malloc(sizeof *parser);
  worker->spare = NULL;
  if (parser == NULL) return NULL;
  http_parser_init(parser);
  connection->parser = parser;
  connection->since = aloop_time(worker->loop);
  return parser;
}

static void return_parser(connection_t *connection) {
  worker_t *worker = connection->worker;
  if (worker->spare == NULL)
    worker->spare = connection->parser;
  else
    free(connection->parser);
  connection->parser = NULL;
}

/* ---- State ----------------------------------------------------------------------------------------------- */

static bool is_busy(const connection_t *connection) {
  return connection->sending != NULL || connection->blocked;
}

static void drop_rest(connection_t *connection) {
  free(connection->rest);
  connection->rest = NULL;
  connection->rest_used = connection->rest_size = 0;
}

static int keep_rest(connection_t *connection, const char *data, size_t size) {
  connection->rest = malloc(size);
  if (connection->rest == NULL) return ALOOP_ENOMEM;
  memcpy(connection->rest, data, size);
  connection->rest_size = size;
  return 0;
}

static void close_file(connection_t *connection) {
  if (connection->body.file >= 0) close(connection->body.file);
  connection->body.file = -1;
}

static void free_connection(connection_t *connection) {
  *connection->link = connection->next;
  if (connection->next != NULL) connection->next->link = connection->link;
  if (connection->parser != NULL) return_parser(connection);
  close_file(connection);
  drop_rest(connection);
  free(connection);
}

/* ---- Leaving --------------------------------------------------------------------------------------------- */

/* Time is up, unless the answer itself is still on its way to a slow client. */
static void end_linger(aloop_t *loop, void *arg) {
  connection_t *connection = arg;
  if (aloop_transport_get_write_buffer_size(connection->transport) == 0)
    aloop_transport_abort(connection->transport);
  else
    connection->linger = aloop_call_later(loop, LINGER, end_linger, connection);
}

static void leave(connection_t *connection) {
  connection->leaving = true;
  drop_rest(connection);
  if (connection->parser != NULL) return_parser(connection);
  if (!aloop_transport_can_write_eof(connection->transport)) {
    aloop_transport_close(connection->transport);
    return;
  }
  connection->linger = aloop_call_later(connection->worker->loop, LINGER, end_linger, connection);
  int error = aloop_handle_error(connection->linger);
  if (error == 0) error = aloop_transport_write_eof(connection->transport);
  if (error == 0) error = aloop_transport_resume_reading(connection->transport);
  if (error < 0) aloop_transport_abort_error(connection->transport, error);
}

/* ---- Answering ------------------------------------------------------------------------------------------- */

/* Sends what is in the worker's buffer. */
static int send_out(connection_t *connection) {
  const buffer_t *out = &connection->worker->out;
  return out->failed ? ALOOP_ENOMEM : aloop_transport_write(connection->transport, out->data, out->size);
}

/* Answers what is no proper request. Where the next one would start is unknown, so this answer is the last. */
static int refuse(connection_t *connection, int status, const char *problem) {
  buffer_t *out = &connection->worker->out;
  response_t response = {.out = out, .minor = 1};
  buffer_clear(out);
  response_page(&response, status, problem, NULL, NULL);
  int error = send_out(connection);
  if (error == 0) leave(connection);
  return error;
}

/* The end of a sendfile. Returns an error if the client got less than it was promised: the file cannot be
 * read, or has shrunk, and all that is left to do is to break the connection. */
static int end_file(connection_t *connection, aloop_future_t *sending) {
  int64_t sent = aloop_future_result(sending);
  aloop_future_unref(sending);
  connection->sending = NULL;
  close_file(connection);
  if (sent < 0) return (int)sent;
  return sent < connection->body.count ? ALOOP_EIO : 0;
}

/* Declared ahead because sending a file and going on after it call each other. */
static void file_sent(aloop_future_t *future, void *arg);

static int send_file(connection_t *connection) {
  const site_rest_t *body = &connection->body;
  aloop_future_t *sending = aloop_sendfile(connection->transport, body->file, body->offset, body->count, 0);
  if (sending == NULL) return ALOOP_ENOMEM;
  if (aloop_future_done(sending)) return end_file(connection, sending); /* the socket took all of it at once */
  int error = aloop_future_add_done_callback(sending, file_sent, connection);
  if (error == 0) {
    connection->sending = sending;
  } else {
    aloop_future_cancel(sending);
    aloop_future_unref(sending);
  }
  return error;
}

static int answer(connection_t *connection) {
  const worker_t *worker = connection->worker;
  const http_request_t *request = &connection->parser->request;
  connection->since = aloop_time(worker->loop);
  /* A client that waits for "100 Continue" before it sends its body may send it or not after another answer: we
   * could not tell its body from its next request. */
  bool waits = request->expects_continue && request->body_size > 0;
  connection->last = worker->stopping || waits || !request->keep_alive;

  buffer_t *out = &connection->worker->out;
  response_t response = {out, request->minor, request->method == HTTP_HEAD, !connection->last};
  buffer_clear(out);
  site_answer(worker->root, request, &response, &connection->body);
  int error = send_out(connection);
  if (error == 0 && connection->body.file >= 0) error = send_file(connection);
  if (error == 0 && connection->last && connection->sending == NULL) leave(connection);
  return error;
}

/* Answers as many requests as it can; *used says how many bytes that took. */
static int serve(connection_t *connection, const char *data, size_t size, size_t *used) {
  int error = 0;
  size_t at = 0;
  while (error == 0 && at < size && !is_busy(connection) && !connection->leaving) {
    http_parser_t *parser = borrow_parser(connection);
    if (parser == NULL) {
      error = ALOOP_ENOMEM;
      break;
    }
    size_t taken;
    http_event_t event = http_parser_feed(parser, data + at, size - at, &taken);
    at += taken;
    if (event == HTTP_REQUEST) error = answer(connection);
    if (event == HTTP_ERROR) error = refuse(connection, parser->status, parser->problem);
  }
  if (connection->parser != NULL && http_parser_idle(connection->parser)) return_parser(connection);
  *used = at;
  return error;
}

/* Decides, after a step, what to wait for: the end of an answer, more input, or nothing any more. */
static int settle(connection_t *connection) {
  aloop_transport_t *transport = connection->transport;
  if (connection->leaving) return 0;
  if (is_busy(connection)) return aloop_transport_pause_reading(transport);
  if (connection->worker->stopping && connection->parser == NULL) aloop_transport_close(transport);
  return aloop_transport_resume_reading(transport);
}

/* Goes on with what had come while the connection was busy. */
static void go_on(connection_t *connection) {
  int error = 0;
  if (connection->rest != NULL) {
    const char *data = connection->rest + connection->rest_used;
    size_t size = connection->rest_size - connection->rest_used, used;
    error = serve(connection, data, size, &used);
    if (used < size)
      connection->rest_used += used;
    else
      drop_rest(connection);
  }
  if (error == 0) error = settle(connection);
  if (error < 0) aloop_transport_abort_error(connection->transport, error);
}

/* The file is sent, or could not be, or the connection is gone. */
static void file_sent(aloop_future_t *future, void *arg) {
  connection_t *connection = arg;
  int error = end_file(connection, future);
  if (connection->transport == NULL)
    free_connection(connection);
  else if (error < 0)
    aloop_transport_abort_error(connection->transport, error);
  else if (connection->last)
    leave(connection);
  else
    go_on(connection);
}

/* ---- The protocol ---------------------------------------------------------------------------------------- */

static void *make_connection(void *arg) {
  worker_t *worker = arg;
  connection_t *connection = calloc(1, sizeof *connection);
  if (connection == NULL) return NULL;
  connection->worker = worker;
  connection->body.file = -1;
  connection->next = worker->connections;
  connection->link = &worker->connections;
  if (connection->next != NULL) connection->next->link = &connection->next;
  worker->connections = connection;
  return connection;
}

static void connection_made(aloop_transport_t *transport, void *protocol) {
  connection_t *connection = protocol;
  connection->transport = transport;
  aloop_transport_set_timeouts(transport, connection->worker->idle_timeout, 0, 0);
}

static int data_received(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)transport;
  connection_t *connection = protocol;
  const worker_t *worker = connection->worker;
  if (connection->leaving) return 0;
  /* A byte now and then keeps the idle timeout away; it shall not keep a request going for ever. */
  if (connection->parser != NULL && aloop_time(worker->loop) - connection->since > worker->idle_timeout)
    return refuse(connection, 408, "The request took too long to arrive.");
  size_t used = 0;
  int error = serve(connection, data, size, &used);
  if (error == 0 && used < size && !connection->leaving)
    error = keep_rest(connection, (const char *)data + used, size - used);
  return error == 0 ? settle(connection) : error;
}

static void pause_writing(aloop_transport_t *transport, void *protocol) {
  (void)transport;
  connection_t *connection = protocol;
  connection->blocked = true;
}

static void resume_writing(aloop_transport_t *transport, void *protocol) {
  (void)transport;
  connection_t *connection = protocol;
  connection->blocked = false;
  if (!is_busy(connection) && !connection->leaving) go_on(connection);
}

static void connection_lost(aloop_transport_t *transport, void *protocol, int error) {
  (void)transport;
  (void)error; /* clients come and go; only a log would want to know why */
  connection_t *connection = protocol;
  connection->transport = NULL;
  aloop_cancel(connection->worker->loop, &connection->linger);
  if (connection->sending != NULL)
    aloop_future_cancel(connection->sending); /* file_sent does the rest */
  else
    free_connection(connection);
}

/* Without eof_received: a client that has sent all its requests gets the answers that are due, and the
 * connection closes. */
const aloop_protocol_t connection_protocol = {
    .size = sizeof connection_protocol,
    .create = make_connection,
    .connection_made = connection_made,
    .data_received = data_received,
    .pause_writing = pause_writing,
    .resume_writing = resume_writing,
    .connection_lost = connection_lost,
};

void connection_stop_all(worker_t *worker) {
  worker->stopping = true;
  for (connection_t *connection = worker->connections; connection != NULL; connection = connection->next) {
    connection->last = true;
    if (connection->transport != NULL && connection->parser == NULL && !is_busy(connection))
      aloop_transport_close(connection->transport);
  }
}

void connection_free_worker(worker_t *worker) {
  while (worker->connections != NULL) {
    aloop_future_unref(worker->connections->sending);
    free_connection(worker->connections);
  }
  free(worker->spare);
  buffer_free(&worker->out);
}
