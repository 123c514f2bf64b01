/* SPDX-License-Identifier: MIT
 *
 * The TLS engine of tests: see mocktls.h.
 */
#include "mocktls.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEAD = 3, RECORD_MAX = HEAD + 65535 };

mock_t mock;

typedef struct session {
  bool server;
  bool greeted, shaken, ended;
  bool offloaded; /* a kernel makes the records */
  char name[256];
  aloop_tls_session_t how;
  unsigned char *own; /* bytes taken that are no record yet, or that nobody has read */
  size_t own_size;
  unsigned char *plain;
  size_t plain_size, plain_at;
  void *context;
  void *chosen;
} session_t;

void mock_begin(void) {
  mock = (mock_t){.half_close = true, .version = ALOOP_TLS_1_2};
}

/* ---- Contexts -------------------------------------------------------------------------------------------- */

static int context_new(const aloop_tls_options_t *options, void **context) {
  int *made = malloc(sizeof *made);
  if (made == NULL) return ALOOP_ENOMEM;
  *made = options->role;
  mock.contexts++;
  *context = made;
  return 0;
}

static void context_free(void *context) {
  mock.contexts--;
  free(context);
}

aloop_tls_context_t *mock_context(int role) {
  aloop_tls_context_t *context = NULL;
  aloop_tls_options_t options = {.size = sizeof options,
                                 .role = role,
                                 .certificate_file = role == ALOOP_TLS_SERVER ? "mock" : NULL,
                                 .kernel = mock.kernel};
  if (role == ALOOP_TLS_CLIENT) options.verify = ALOOP_TLS_VERIFY_NONE;
  assert_int_equal(aloop_tls_context_new(&mock_engine, &options, &context), 0);
  return context;
}

/* ---- Sessions -------------------------------------------------------------------------------------------- */

static int session_new(void *context, const aloop_tls_session_t *how, void **made) {
  if (mock.session_error < 0) return mock.session_error;
  session_t *session = calloc(1, sizeof *session);
  if (session == NULL) return ALOOP_ENOMEM;
  session->context = context;
  session->server = *(int *)context == ALOOP_TLS_SERVER;
  session->how = *how;
  if (how->server_hostname != NULL) snprintf(session->name, sizeof session->name, "%s", how->server_hostname);
  mock.sessions++;
  *made = session;
  return 0;
}

static void session_free(void *arg) {
  session_t *session = arg;
  mock.sessions--;
  free(session->own);
  free(session->plain);
  free(session);
}

static int emit(aloop_tls_wire_t *wire, char letter, const void *text, size_t size) {
  char *record = malloc(HEAD + size);
  if (record == NULL) return ALOOP_ENOMEM;
  int rc = wire->output(wire, record, mock_record(record, letter, text, size));
  free(record);
  return rc;
}

static size_t record_size(const unsigned char *data, size_t size) {
  if (size < HEAD) return 0;
  size_t whole = HEAD + (size_t)(data[1] << 8 | data[2]);
  return whole <= size ? whole : 0;
}

static void append(unsigned char **block, size_t *used, const unsigned char *data, size_t size) {
  if (size == 0) return;
  *block = realloc(*block, *used + size);
  memcpy(*block + *used, data, size);
  *used += size;
}

static void swallow(session_t *session, aloop_tls_wire_t *wire) {
  if (wire->input_size == 0) return;
  append(&session->own, &session->own_size, wire->input, wire->input_size);
  wire->input += wire->input_size;
  wire->input_size = 0;
}

/* The next whole record, copied to `into`; returns the size of its text, or -1. */
static ssize_t take(session_t *session, aloop_tls_wire_t *wire, char *letter, unsigned char *into) {
  if (mock.swallows) swallow(session, wire);
  bool own = session->own_size > 0;
  const unsigned char *data = own ? session->own : wire->input;
  size_t whole = record_size(data, own ? session->own_size : wire->input_size);
  if (whole == 0) return -1;
  *letter = (char)data[0];
  memcpy(into, data + HEAD, whole - HEAD);
  if (own) {
    session->own_size -= whole;
    memmove(session->own, session->own + whole, session->own_size);
  } else {
    wire->input += whole;
    wire->input_size -= whole;
  }
  return (ssize_t)(whole - HEAD);
}

static int hear(session_t *session, aloop_tls_wire_t *wire, char letter, const char *text, size_t size) {
  if (letter == 'A') return ALOOP_ETLS_ALERT;
  if (session->server && letter == 'H' && !session->greeted) {
    session->greeted = true;
    snprintf(session->name, sizeof session->name, "%.*s", (int)size, text);
    if (size > 0) session->chosen = session->how.choose(session->how.arg, session->name);
    return emit(wire, 'S', "", 0);
  }
  if (session->server && letter == 'F' && session->greeted) return 1;
  if (!session->server && letter == 'S') {
    int rc = emit(wire, 'F', "", 0);
    return rc < 0 ? rc : 1;
  }
  emit(wire, 'A', "", 0);
  return ALOOP_ETLS;
}

static int handshake(void *arg, aloop_tls_wire_t *wire) {
  static unsigned char text[RECORD_MAX];
  session_t *session = arg;
  int rc = mock.shake_error;
  char letter;
  if (!session->server && !session->greeted) {
    session->greeted = true;
    rc = emit(wire, 'H', session->name, strlen(session->name));
  }
  while (rc == 0) {
    ssize_t n = take(session, wire, &letter, text);
    if (n < 0) break;
    rc = hear(session, wire, letter, (char *)text, (size_t)n);
  }
  session->shaken = rc == 1;
  return rc;
}

static void turn_bits(unsigned char *data, size_t size) {
  for (size_t i = 0; i < size; i++) data[i] ^= 0xff;
}

static int give_keys(aloop_tls_wire_t *wire) {
  aloop_tls_keys_t keys = {.size = sizeof keys,
                           .version = mock.version,
                           .cipher = mock.cipher != 0 ? mock.cipher : ALOOP_TLS_AES_128_GCM};
  for (size_t i = 0; i < sizeof keys.key; i++) keys.key[i] = (unsigned char)('a' + i);
  for (size_t i = 0; i < sizeof keys.iv; i++) keys.iv[i] = (unsigned char)('A' + i);
  keys.sequence[sizeof keys.sequence - 1] = 7;
  return wire->keys(wire, &keys);
}

static int offload(void *arg, aloop_tls_wire_t *wire) {
  session_t *session = arg;
  if (!mock.offloads) return ALOOP_ENOTSUP;
  int rc = give_keys(wire);
  session->offloaded = rc == 0;
  return rc;
}

static int update(aloop_tls_wire_t *wire) {
  static const unsigned char message[] = {24, 0, 0, 1, 0};
  mock.updates++;
  int rc = wire->record(wire, 22, message, sizeof message);
  return rc == 0 ? give_keys(wire) : rc;
}

/* Takes one record. Returns 1, 0 if there is none, or a code. */
static int read_record(session_t *session, aloop_tls_wire_t *wire) {
  static unsigned char text[RECORD_MAX];
  char letter;
  ssize_t n = session->ended ? -1 : take(session, wire, &letter, text);
  if (n < 0) return 0;
  if (letter == 'E') session->ended = true;
  if (letter == 'E') return 1;
  if (letter == 'A') return ALOOP_ETLS_ALERT;
  if (letter == 'U' && session->offloaded) {
    int rc = update(wire);
    return rc < 0 ? rc : 1;
  }
  if (letter == 'U') {
    int rc = emit(wire, 'U', "", 0);
    return rc < 0 ? rc : 1;
  }
  if (letter != 'D') return ALOOP_ETLS;
  turn_bits(text, (size_t)n);
  append(&session->plain, &session->plain_size, text, (size_t)n);
  return 1;
}

static ssize_t give(session_t *session, void *buffer, size_t size) {
  size_t n = session->plain_size - session->plain_at;
  if (n > size) n = size;
  memcpy(buffer, session->plain + session->plain_at, n);
  session->plain_at += n;
  if (session->plain_at == session->plain_size) session->plain_at = session->plain_size = 0;
  return (ssize_t)n;
}

static ssize_t read_plain(void *arg, aloop_tls_wire_t *wire, void *buffer, size_t size) {
  session_t *session = arg;
  int rc = mock.read_error < 0 ? mock.read_error : 1;
  while (rc == 1 && (mock.greedy || session->plain_size == 0) && !session->ended)
    rc = read_record(session, wire);
  if (session->plain_size > 0) return give(session, buffer, size);
  if (rc < 0) return rc;
  return session->ended ? ALOOP_EOF : 0;
}

static int write_plain(void *arg, aloop_tls_wire_t *wire, const void *data, size_t size) {
  static unsigned char text[RECORD_MAX];
  assert_false(((session_t *)arg)->offloaded);
  assert_true(size > 0 && size <= 16384);
  if (mock.write_error < 0) return mock.write_error;
  memcpy(text, data, size);
  turn_bits(text, size);
  return emit(wire, 'D', text, size);
}

static int shut(void *arg, aloop_tls_wire_t *wire) {
  const session_t *session = arg;
  if (mock.shutdown_error < 0) return mock.shutdown_error;
  if (session->offloaded) return wire->record(wire, 21, "\1", 2);
  return emit(wire, 'E', "", 0);
}

static bool pending(void *arg) {
  const session_t *session = arg;
  return session->ended || session->plain_size > 0 || record_size(session->own, session->own_size) > 0;
}

static void reason(void *arg, char *text, size_t size) {
  (void)arg;
  snprintf(text, size, "the mock has failed");
}

static void info(void *arg, aloop_tls_info_t *into) {
  const session_t *session = arg;
  into->version = "mock";
  into->cipher = "none";
  into->server_name = session->name[0] != '\0' ? session->name : NULL;
  into->alpn = session->chosen != NULL ? "chosen" : NULL;
  into->certificates = 1;
}

static int certificate(void *arg, size_t index, const void **der, size_t *size) {
  (void)arg;
  if (index > 0) return ALOOP_ENOENT;
  *der = "certificate";
  *size = strlen("certificate");
  return 0;
}

static int binding(void *arg, const char *type, void *data, size_t *size) {
  (void)arg;
  if (strcmp(type, "tls-exporter") != 0) return ALOOP_ENOTSUP;
  if (*size < 4) return ALOOP_ENOBUFS;
  memcpy(data, "bond", 4);
  *size = 4;
  return 0;
}

static bool half_close(void *arg) {
  (void)arg;
  return mock.half_close;
}

const aloop_tls_engine_t mock_engine = {
    .size = sizeof mock_engine,
    .name = "mock",
    .context_new = context_new,
    .context_free = context_free,
    .session_new = session_new,
    .session_free = session_free,
    .handshake = handshake,
    .read = read_plain,
    .write = write_plain,
    .shutdown = shut,
    .pending = pending,
    .reason = reason,
    .info = info,
    .certificate = certificate,
    .binding = binding,
    .half_close = half_close,
    .offload = offload,
};

/* ---- The peer by hand ------------------------------------------------------------------------------------ */

size_t mock_record(char *into, char letter, const void *text, size_t size) {
  into[0] = letter;
  into[1] = (char)(size >> 8);
  into[2] = (char)(size & 0xff);
  if (size > 0) memcpy(into + HEAD, text, size);
  return HEAD + size;
}

void mock_say(int fd, char letter, const char *text) {
  char record[1024];
  size_t size = strlen(text);
  assert_true(size + HEAD <= sizeof record);
  size_t whole = mock_record(record, letter, text, size);
  if (letter == 'D') turn_bits((unsigned char *)record + HEAD, size);
  assert_int_equal(write(fd, record, whole), whole);
}

static void read_exactly(aloop_t *loop, int fd, unsigned char *into, size_t size) {
  for (int turns = 0; size > 0; turns++) {
    ssize_t n = recv(fd, into, size, MSG_DONTWAIT);
    if (n > 0) {
      into += n;
      size -= (size_t)n;
      continue;
    }
    if (n == 0 || (errno != EAGAIN && errno != EINTR)) fail_msg("the peer's stream ends within a record");
    assert_true(turns < 100000);
    assert_true(aloop_run_once(loop, 0) >= 0);
  }
}

void mock_expect(aloop_t *loop, int fd, char letter, const char *text) {
  static unsigned char record[RECORD_MAX + 1];
  read_exactly(loop, fd, record, HEAD);
  assert_int_equal(record[0], letter);
  size_t size = (size_t)(record[1] << 8 | record[2]);
  read_exactly(loop, fd, record, size);
  if (letter == 'D') turn_bits(record, size);
  record[size] = '\0';
  if (text != NULL) assert_string_equal((char *)record, text);
}

static void make_pair(int fds[2]) {
  if (mock.tcp)
    make_tcp_pair(fds);
  else
    make_socketpair(fds);
}

/* ---- Connections ----------------------------------------------------------------------------------------- */

aloop_future_t *mock_accept(tape_t *tape, const aloop_protocol_t *table, int *peer) {
  int fds[2];
  make_pair(fds);
  aloop_tls_context_t *context = mock_context(ALOOP_TLS_SERVER);
  aloop_accepted_options_t options = {.size = sizeof options,
                                      .tls = context,
                                      .tls_handshake_timeout = ALOOP_SECONDS(5),
                                      .tls_shutdown_timeout = ALOOP_SECONDS(5)};
  aloop_future_t *future = aloop_connect_accepted_socket(tape->env->loop, table, tape, fds[0], &options);
  assert_non_null(future);
  aloop_tls_context_unref(context);
  *peer = fds[1];
  return future;
}

aloop_future_t *mock_connect(tape_t *tape, const aloop_protocol_t *table, int *peer) {
  int fds[2];
  make_pair(fds);
  aloop_tls_context_t *context = mock_context(ALOOP_TLS_CLIENT);
  aloop_connect_options_t options = {.size = sizeof options,
                                     .fd = fds[0],
                                     .tls = context,
                                     .server_hostname = "server.test",
                                     .tls_handshake_timeout = ALOOP_SECONDS(5),
                                     .tls_shutdown_timeout = ALOOP_SECONDS(5)};
  aloop_future_t *future = aloop_create_connection(tape->env->loop, table, tape, &options);
  assert_non_null(future);
  aloop_tls_context_unref(context);
  *peer = fds[1];
  return future;
}

static void made(env_t *env, aloop_future_t *future) {
  assert_int_equal(run_future(env->loop, future), 0);
  aloop_future_unref(future);
}

int open_mock_server(tape_t *tape, const aloop_protocol_t *table) {
  int peer;
  aloop_future_t *future = mock_accept(tape, table, &peer);
  mock_say(peer, 'H', "");
  mock_expect(tape->env->loop, peer, 'S', "");
  mock_say(peer, 'F', "");
  made(tape->env, future);
  return peer;
}

int open_mock_client(tape_t *tape, const aloop_protocol_t *table) {
  int peer;
  aloop_future_t *future = mock_connect(tape, table, &peer);
  mock_expect(tape->env->loop, peer, 'H', "server.test");
  mock_say(peer, 'S', "");
  mock_expect(tape->env->loop, peer, 'F', "");
  made(tape->env, future);
  return peer;
}
