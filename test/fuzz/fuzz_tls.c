/* SPDX-License-Identifier: MIT
 *
 * Any sequence of events around a TLS transport, over an engine that encrypts nothing, against a model. The
 * input is a program: each byte names an action, those behind it are its arguments. The peer shakes hands,
 * sends records cut anywhere, says the end or just leaves, sends what is no record, reads or does not; the
 * protocol writes, pauses, changes, closes, also inside its callbacks; time passes; the engine takes much or
 * little at once, and fails. A record is a letter, the size of its text in two bytes, and the text:
 *
 *     H S F   the handshake        D   data, each byte with its bits turned round        E   the end
 *
 * What must hold:
 *
 * - the protocol gets exactly what was in D records, in order, nothing while it is paused, nothing after EOF;
 * - EOF comes only after E, a cut is ALOOP_ETLS_TRUNCATED, and connection_lost comes once, last;
 * - the peer gets exactly what was written, in records of 16384 bytes at most, and nothing after the end;
 * - unless something went wrong all of it arrives, and then nothing is counted as unsent;
 * - every descriptor, session and block is given back.
 *
 * In one input out of four, allocations fail now and then. Only the public header is used. A broken promise
 * traps.
 */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ALL_MAX = 1 << 20, RECORD_MAX = 16384, HEAD = 3, ACTIONS = 500, BUFFER_MAX = 4096 };

typedef struct session {
  bool greeted, shaken, ended, clean;
  uint8_t *own; /* taken and not yet used */
  size_t own_size;
  uint8_t plain[1 << 16];
  size_t plain_size, plain_at;
} session_t;

static struct {
  aloop_t *loop;
  aloop_tls_context_t *context;
  aloop_future_t *future;
  aloop_transport_t *transport;
  int peer; /* -1: closed */

  bool server, swallows, greedy, half_close; /* the engine */
  unsigned engine_calls, engine_fails_at;
  int engine_error, sessions;

  uint8_t *queue; /* what the peer sends: made, and not all of it written */
  size_t queue_size, queue_at;
  size_t spoken; /* plaintext in it */
  bool said_end, cut;
  uint8_t *wire; /* what the peer has received and not yet understood */
  size_t wire_size;
  size_t understood; /* plaintext in it */
  bool got_end;

  size_t heard, written; /* by the protocol */
  bool made, eof, lost, paused, closed, aborted, ended_writing, in_callback;
  bool troubled; /* anything may end the connection now */
  int error;
  size_t offer;
  uint8_t buffer[BUFFER_MAX];
} w;

static size_t some(size_t most) {
  unsigned small = byte();
  size_t size = small < 160 ? small : (small - 159) * 797u;
  return size < most ? size : most;
}

/* The byte at a position of the stream of the peer (of the protocol). */
static uint8_t spoken_at(size_t at) {
  return (uint8_t)(at * 31 + (at >> 8) + 7);
}
static uint8_t written_at(size_t at) {
  return (uint8_t)(at * 17 + (at >> 8) + 99);
}

static void *resize_or_trouble(void *user, void *block, size_t bytes) {
  void *made = resize(user, block, bytes);
  w.troubled |= made == NULL;
  return made;
}

/* ---- The engine ------------------------------------------------------------------------------------------ */

static int context_new(const aloop_tls_options_t *options, void **context) {
  (void)options;
  *context = &w;
  return 0;
}

static void context_free(void *context) {
  MUST(context == &w);
}

static int session_new(void *context, const aloop_tls_session_t *how, void **session) {
  (void)context, (void)how;
  *session = calloc(1, sizeof(session_t));
  MUST(*session != NULL);
  w.sessions++;
  return 0;
}

static void session_free(void *arg) {
  session_t *session = arg;
  free(session->own);
  free(session);
  w.sessions--;
}

static bool fails(void) {
  if (++w.engine_calls != w.engine_fails_at) return false;
  w.troubled = true;
  return true;
}

static int emit(aloop_tls_wire_t *wire, uint8_t letter, const uint8_t *text, size_t size) {
  static uint8_t record[HEAD + RECORD_MAX];
  record[0] = letter;
  record[1] = (uint8_t)(size >> 8);
  record[2] = (uint8_t)size;
  for (size_t i = 0; i < size; i++) record[HEAD + i] = text[i] ^ 0xff;
  if (!w.greedy || size < 2) return wire->output(wire, record, HEAD + size);
  int rc = wire->output(wire, record, HEAD + size / 2); /* in two parts */
  return rc < 0 ? rc : wire->output(wire, record + HEAD + size / 2, size - size / 2);
}

static size_t whole(const uint8_t *data, size_t size) {
  if (size < HEAD) return 0;
  size_t record = HEAD + (size_t)(data[1] << 8 | data[2]);
  return record <= size ? record : 0;
}

/* What begins like this cannot become a record. */
static bool is_none(const uint8_t *data, size_t size) {
  if (size > 0 && memchr("HSFDE", data[0], 5) == NULL) return true;
  return size >= HEAD && (size_t)(data[1] << 8 | data[2]) > RECORD_MAX;
}

static void swallow(session_t *session, aloop_tls_wire_t *wire) {
  if (wire->input_size == 0) return;
  session->own = realloc(session->own, session->own_size + wire->input_size);
  MUST(session->own != NULL);
  memcpy(session->own + session->own_size, wire->input, wire->input_size);
  session->own_size += wire->input_size;
  wire->input += wire->input_size;
  wire->input_size = 0;
}

/* The next record's letter, its text in `text`; 0: there is none, -1: that is none. */
static int take(session_t *session, aloop_tls_wire_t *wire, uint8_t *text, size_t *size) {
  if (w.swallows) swallow(session, wire);
  bool own = session->own_size > 0;
  const uint8_t *data = own ? session->own : wire->input;
  size_t there = own ? session->own_size : wire->input_size;
  if (is_none(data, there)) return -1;
  size_t record = whole(data, there);
  if (record == 0) return 0;
  int letter = data[0];
  *size = record - HEAD;
  for (size_t i = 0; i < *size; i++) text[i] = data[HEAD + i] ^ 0xff;
  if (own) {
    session->own_size -= record;
    memmove(session->own, session->own + record, session->own_size);
  } else {
    wire->input += record;
    wire->input_size -= record;
  }
  return letter;
}

static int handshake(void *arg, aloop_tls_wire_t *wire) {
  static uint8_t text[RECORD_MAX];
  session_t *session = arg;
  size_t size;
  MUST(!session->shaken);
  if (fails()) return w.engine_error;
  if (!w.server && !session->greeted) {
    session->greeted = true;
    int rc = emit(wire, 'H', NULL, 0);
    if (rc < 0) return rc;
  }
  for (;;) {
    int letter = take(session, wire, text, &size);
    if (letter == 0) return 0;
    if (w.server && letter == 'H' && !session->greeted) {
      session->greeted = true;
      int rc = emit(wire, 'S', NULL, 0);
      if (rc < 0) return rc;
    } else if (letter == (w.server ? 'F' : 'S') && session->greeted) {
      session->shaken = true;
      int rc = w.server ? 0 : emit(wire, 'F', NULL, 0);
      return rc < 0 ? rc : 1;
    } else {
      w.troubled = true;
      return ALOOP_ETLS;
    }
  }
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
  size_t n;
  MUST(session->shaken && size > 0);
  if (fails()) return w.engine_error;
  while ((w.greedy || session->plain_size == 0) && !session->ended &&
         session->plain_size + RECORD_MAX <= sizeof session->plain) {
    int letter = take(session, wire, session->plain + session->plain_size, &n);
    if (letter == 0) break;
    if (letter == 'E') session->ended = true;
    if (letter == 'D') session->plain_size += n;
    if (letter == 'D' || letter == 'E') continue;
    w.troubled = true;
    return ALOOP_ETLS;
  }
  if (session->plain_size > 0) return give(session, buffer, size);
  return session->ended ? ALOOP_EOF : 0;
}

static int write_plain(void *arg, aloop_tls_wire_t *wire, const void *data, size_t size) {
  const session_t *session = arg;
  MUST(session->shaken && !session->clean && size > 0 && size <= RECORD_MAX);
  return fails() ? w.engine_error : emit(wire, 'D', data, size);
}

static int shut(void *arg, aloop_tls_wire_t *wire) {
  session_t *session = arg;
  MUST(session->shaken && !session->clean);
  session->clean = true;
  return fails() ? w.engine_error : emit(wire, 'E', NULL, 0);
}

static bool pending(void *arg) {
  const session_t *session = arg;
  if (session->plain_size > 0 || session->ended) return true;
  return is_none(session->own, session->own_size) || whole(session->own, session->own_size) > 0;
}

static void reason(void *arg, char *text, size_t size) {
  (void)arg;
  snprintf(text, size, "told to");
}

static void info(void *arg, aloop_tls_info_t *into) {
  (void)arg;
  into->version = "none";
}

static int certificate(void *arg, size_t index, const void **der, size_t *size) {
  (void)arg, (void)index, (void)der, (void)size;
  return ALOOP_ENOENT;
}

static int binding(void *arg, const char *type, void *data, size_t *size) {
  (void)arg, (void)type, (void)data, (void)size;
  return ALOOP_ENOTSUP;
}

static bool can_half_close(void *arg) {
  (void)arg;
  return w.half_close;
}

static const aloop_tls_engine_t engine = {
    .size = sizeof engine,
    .name = "fuzzed",
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
    .half_close = can_half_close,
};

/* ---- The protocol ---------------------------------------------------------------------------------------- */

static void act_inside(void);

static void on_made(aloop_transport_t *transport, void *protocol) {
  (void)protocol;
  MUST(!w.made && !w.lost);
  w.made = true;
  w.transport = aloop_transport_ref(transport);
  act_inside();
}

static int check_heard(const uint8_t *data, size_t size) {
  MUST(w.made && !w.lost && !w.eof && !w.paused && !w.closed && size > 0);
  MUST(size <= w.spoken - w.heard || w.troubled);
  for (size_t i = 0; i < size; i++, w.heard++) MUST(data[i] == spoken_at(w.heard) || w.troubled);
  act_inside();
  if (byte() != 77) return 0;
  w.troubled = true;
  return ALOOP_EPERM;
}

static int on_data(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)transport, (void)protocol;
  return check_heard(data, size);
}

static int get_buffer(aloop_transport_t *transport, void *protocol, size_t hint, void **buffer, size_t *size) {
  (void)transport, (void)protocol, (void)hint;
  *buffer = w.buffer;
  *size = w.offer;
  return 0;
}

static int on_updated(aloop_transport_t *transport, void *protocol, size_t size) {
  (void)transport, (void)protocol;
  return check_heard(w.buffer, size);
}

static int on_eof(aloop_transport_t *transport, void *protocol) {
  (void)transport, (void)protocol;
  MUST(w.made && !w.lost && !w.eof && !w.paused && !w.closed);
  MUST((w.said_end && w.heard == w.spoken) || w.troubled);
  w.eof = true;
  bool stays = byte() % 2 != 0;
  act_inside();
  if (!stays || !w.half_close) w.closed = true;
  return stays;
}

static void on_lost(aloop_transport_t *transport, void *protocol, int error) {
  (void)transport, (void)protocol;
  MUST(w.made && !w.lost);
  w.lost = true;
  w.error = error;
  if (error == ALOOP_ETLS_TRUNCATED) MUST(w.cut);
  if (error == 0) MUST(w.closed || w.aborted);
  if (error == ALOOP_ETLS || error == ALOOP_ENOMEM || error == ALOOP_EPERM) MUST(w.troubled);
}

static const aloop_protocol_t plain = {
    .size = sizeof plain,
    .connection_made = on_made,
    .data_received = on_data,
    .eof_received = on_eof,
    .connection_lost = on_lost,
};

static const aloop_protocol_t buffered = {
    .size = sizeof buffered,
    .connection_made = on_made,
    .get_buffer = get_buffer,
    .buffer_updated = on_updated,
    .eof_received = on_eof,
    .connection_lost = on_lost,
};

/* ---- What the protocol's side does ----------------------------------------------------------------------- */

static void write_some(void) {
  static uint8_t bytes[1 << 17];
  size_t size = some(sizeof bytes);
  if (size > ALL_MAX - w.written) return;
  for (size_t i = 0; i < size; i++) bytes[i] = written_at(w.written + i);
  size_t first = size / 3;
  struct iovec parts[2] = {{bytes, first}, {bytes + first, size - first}};
  int rc = byte() % 2 == 0 ? aloop_transport_write(w.transport, bytes, size)
                           : aloop_transport_writev(w.transport, parts, 2);
  if (rc == 0) w.written += size;
  if (w.closed || w.aborted || w.ended_writing) MUST(rc < 0 || size == 0);
}

static void pause_or_resume(void) {
  unsigned which = byte() % 2;
  int rc =
      which == 0 ? aloop_transport_pause_reading(w.transport) : aloop_transport_resume_reading(w.transport);
  if (rc == 0) w.paused = which == 0;
}

static void end_writing(void) {
  bool can = aloop_transport_can_write_eof(w.transport);
  int rc = aloop_transport_write_eof(w.transport);
  if (rc == 0 && can && !w.closed && !w.aborted) w.ended_writing = true;
  if (!w.half_close) MUST(!can);
}

static void finish(unsigned how) {
  if (how % 3 == 0) {
    w.closed = true;
    aloop_transport_close(w.transport);
  } else {
    w.aborted = w.troubled = true;
    if (how % 3 == 1)
      aloop_transport_abort(w.transport);
    else
      aloop_transport_abort_reset(w.transport);
  }
}

static void change(void) {
  unsigned how = byte();
  w.offer = how % 64 == 0 ? BUFFER_MAX : how % 64;
  aloop_transport_set_protocol(w.transport, how < 128 ? &plain : &buffered, NULL);
}

static void act_above(void) {
  if (w.transport == NULL || w.lost) return;
  switch (byte() % 12) {
  case 0:
  case 1:
  case 2:
  case 3:
    write_some();
    break;
  case 4:
  case 5:
  case 6:
    pause_or_resume();
    break;
  case 7:
    change();
    break;
  case 8:
    aloop_transport_set_write_buffer_limits(w.transport, (int64_t)some(100000), -1);
    break;
  case 9:
    if (byte() % 8 == 0) end_writing();
    break;
  case 10:
    if (byte() % 16 == 0) finish(byte());
    break;
  default:
    w.troubled = true; /* it may run out */
    aloop_transport_set_timeouts(w.transport, ALOOP_SECONDS(byte()), ALOOP_SECONDS(byte()),
                                 ALOOP_SECONDS(byte()));
  }
}

static void act_inside(void) {
  if (w.in_callback) return;
  w.in_callback = true;
  if (byte() % 3 == 0) act_above();
  w.in_callback = false;
}

/* ---- What the peer does ---------------------------------------------------------------------------------- */

static void say(uint8_t letter, size_t size) {
  if (w.queue_size + HEAD + size > ALL_MAX || w.said_end) return;
  uint8_t *at = w.queue + w.queue_size;
  at[0] = letter;
  at[1] = (uint8_t)(size >> 8);
  at[2] = (uint8_t)size;
  for (size_t i = 0; i < size; i++) at[HEAD + i] = spoken_at(w.spoken + i) ^ 0xff;
  w.queue_size += HEAD + size;
  if (letter == 'D') w.spoken += size;
  if (letter == 'E') w.said_end = true;
}

static void send_some(size_t most) {
  size_t left = w.queue_size - w.queue_at;
  if (w.peer < 0 || w.cut || left == 0) return;
  ssize_t n = send(w.peer, w.queue + w.queue_at, left < most ? left : most, MSG_DONTWAIT | MSG_NOSIGNAL);
  if (n > 0) w.queue_at += (size_t)n;
}

static void understand(void) {
  size_t at = 0, record;
  while ((record = whole(w.wire + at, w.wire_size - at)) > 0) {
    MUST(!w.got_end && record <= HEAD + RECORD_MAX);
    if (w.wire[at] == 'E') w.got_end = true;
    for (size_t i = HEAD; w.wire[at] == 'D' && i < record; i++, w.understood++)
      MUST(w.wire[at + i] + written_at(w.understood) == 0xff);
    MUST(memchr("HSFDE", w.wire[at], 5) != NULL);
    at += record;
  }
  MUST(w.understood <= w.written);
  w.wire_size -= at;
  memmove(w.wire, w.wire + at, w.wire_size);
}

static bool receive_some(size_t most) {
  enum { ROOM = 1 << 18 };
  if (w.peer < 0) return false;
  if (most > ROOM - w.wire_size) most = ROOM - w.wire_size;
  ssize_t n = recv(w.peer, w.wire + w.wire_size, most, MSG_DONTWAIT);
  if (n <= 0) return false;
  w.wire_size += (size_t)n;
  understand();
  return true;
}

static void leave(unsigned how) {
  w.cut = true;
  if (w.peer < 0) return;
  if (how % 2 == 0) shutdown(w.peer, SHUT_WR);
  if (how % 2 == 0) return;
  w.troubled = true; /* what is sent to nobody is an error */
  close(w.peer);
  w.peer = -1;
}

static void garble(void) {
  if (w.queue_size == ALL_MAX || w.said_end) return;
  w.troubled = true;
  w.queue[w.queue_size++] = (uint8_t)byte();
}

static void act_below(void) {
  switch (byte() % 8) {
  case 0:
  case 1:
  case 2:
    say('D', some(RECORD_MAX));
    break;
  case 3:
  case 4:
    send_some(some(SIZE_MAX));
    break;
  case 5:
    receive_some(some(SIZE_MAX));
    break;
  case 6:
    if (byte() % 8 == 0) say('E', 0);
    if (byte() % 64 == 0) garble();
    break;
  default:
    send_some(SIZE_MAX);
    if (byte() % 32 == 0) leave(byte());
  }
}

/* ---- A run ----------------------------------------------------------------------------------------------- */

static void run(unsigned turns) {
  while (turns-- > 0) MUST(aloop_run_once(w.loop, 0) >= 0);
}

static void raise_flag(aloop_t *loop, void *arg) {
  (void)loop;
  *(bool *)arg = true;
}

static void run_until(const bool *flag) {
  for (int turns = 0; !*flag; turns++) {
    MUST(turns < 100000);
    MUST(aloop_run_once(w.loop, -1) >= 0);
  }
}

static void pass_time(void) {
  bool there = false;
  aloop_handle_t handle = aloop_call_later(w.loop, ALOOP_SECONDS(byte()), raise_flag, &there);
  if (aloop_handle_error(handle) < 0) return;
  w.troubled = true;
  run_until(&there);
}

static void set_up(void) {
  static aloop_allocator_t allocator = {sizeof allocator, resize_or_trouble, release, NULL};
  static const int errors[] = {ALOOP_ETLS, ALOOP_ETLS_ALERT, ALOOP_ETLS_VERIFY, ALOOP_ENOMEM};
  unsigned first = byte(), how = byte();
  aloop_options_t options = {.size = sizeof options, .poller = "virtual", .allocator = &allocator, .debug = -1};
  int fds[2];
  w.server = how & 1;
  w.swallows = how & 2;
  w.greedy = how & 4;
  w.half_close = how & 8;
  w.engine_error = errors[how >> 4 & 3];
  w.engine_fails_at = how & 64 ? byte() : 0;
  w.offer = BUFFER_MAX;
  MUST(aloop_new(&options, &w.loop) == 0);
  MUST(aloop_set_exception_handler(w.loop, ignore_report, NULL) == 0);
  MUST(aloop_socketpair(SOCK_STREAM, fds) == 0);
  w.peer = fds[1];
  aloop_tls_options_t rules = {.size = sizeof rules,
                               .role = w.server ? ALOOP_TLS_SERVER : ALOOP_TLS_CLIENT,
                               .verify = w.server ? ALOOP_TLS_VERIFY_DEFAULT : ALOOP_TLS_VERIFY_NONE,
                               .certificate_file = w.server ? "none" : NULL};
  MUST(aloop_tls_context_new(&engine, &rules, &w.context) == 0);
  const int small = 4096;
  if (how & 128) setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small);
  aloop_accepted_options_t accepted = {.size = sizeof accepted, .tls = w.context};
  aloop_connect_options_t connected = {.size = sizeof connected, .tls = w.context, .fd = fds[0]};
  w.future = w.server ? aloop_connect_accepted_socket(w.loop, &plain, NULL, fds[0], &accepted)
                      : aloop_create_connection(w.loop, &plain, NULL, &connected);
  MUST(w.future != NULL);
  if (w.server) say('H', 0);
  say(w.server ? 'F' : 'S', 0);
  if (first % 4 == 3) fuzz.fail_every = first / 4 % 23 + 3;
}

/* Everything moves that can. */
static void settle(void) {
  for (int turns = 0, idle = 0; idle < 4; turns++) {
    MUST(turns < 1000000);
    size_t at = w.queue_at;
    send_some(SIZE_MAX);
    bool moved = receive_some(SIZE_MAX) || w.queue_at > at;
    idle = aloop_run_once(w.loop, 0) > 0 || moved ? 0 : idle + 1;
  }
}

/* Nothing has gone wrong: then everything must have arrived. */
static void check_arrival(void) {
  if (w.troubled || (w.cut && !w.said_end)) return;
  if (w.cut && w.queue_at < w.queue_size) return;
  if (!w.made) broken(__FILE__, __LINE__, "a handshake ends");
  if (!w.paused && !w.closed) MUST(w.heard == w.spoken);
  if (w.said_end && !w.paused && !w.closed) MUST(w.eof);
  MUST(w.understood == w.written);
  MUST(w.got_end == (w.closed || w.ended_writing));
  MUST(w.lost == w.closed);
  if (w.lost)
    MUST(w.error == 0);
  else
    MUST(aloop_transport_get_write_buffer_size(w.transport) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  memset(&w, 0, sizeof w);
  begin_input(data, size);
  w.queue = malloc(ALL_MAX);
  w.wire = malloc(1 << 18);
  MUST(w.queue != NULL && w.wire != NULL);
  set_up();
  for (int i = 0; i < ACTIONS && fuzz.size > 0; i++) {
    unsigned kind = byte() % 8;
    if (kind < 3) act_above();
    if (kind >= 3 && kind < 6) act_below();
    if (kind == 6) run(byte() % 4);
    if (kind == 7 && byte() % 64 == 0) pass_time();
  }
  fuzz.size = 0;
  fuzz.fail_every = 0;
  settle();
  check_arrival();
  aloop_future_unref(w.future);
  if (w.transport != NULL) aloop_transport_unref(w.transport);
  if (w.peer >= 0) close(w.peer);
  w.closed = w.aborted = w.troubled = w.cut = true;
  aloop_free(w.loop);
  aloop_tls_context_unref(w.context);
  MUST(w.made == w.lost && w.sessions == 0 && fuzz.live == 0);
  free(w.queue);
  free(w.wire);
  return 0;
}
