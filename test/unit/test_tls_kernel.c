/* SPDX-License-Identifier: MIT
 *
 * Kernel TLS over a kernel that is played in the process and an engine whose bytes are made by hand: who is asked,
 * what goes which way, and that nothing is lost or moved when sockets are full. pollers: all,
 * needs: LINUX_TLS, softtls: yes
 */
#include "crowd.h"
#include "mocktls.h"
#include "peers.h"
#include "softtls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Records of the kernel in the mock's form. An alert is the end, a message of the handshake the letter K. */
static size_t seal(const soft_keys_t *keys, int type, const unsigned char *data, size_t size,
                   unsigned char *into) {
  (void)keys;
  static char turned[SOFT_RECORD_MAX];
  for (size_t i = 0; i < size; i++) turned[i] = (char)(data[i] ^ 0xff);
  if (type == SOFT_ALERT) return mock_record((char *)into, 'E', "", 0);
  return mock_record((char *)into, type == SOFT_DATA ? 'D' : 'K', turned, size);
}

static void begin(void) {
  mock_begin();
  soft_begin();
  soft.seal = seal;
  mock.tcp = mock.offloads = true;
}

static bool encrypts(const tape_t *tape) {
  aloop_tls_info_t info = {.size = sizeof info};
  assert_int_equal(aloop_transport_tls_info(tape->transport, &info), 0);
  return info.kernel == 1;
}

static int open_kernel_server(tape_t *tape, const aloop_protocol_t *table) {
  int peer = open_mock_server(tape, table);
  assert_true(encrypts(tape));
  return peer;
}

/* The peer's reading: plaintext of data records, the letters of the others. */
typedef struct reader {
  unsigned char raw[70000];
  size_t raw_size;
  unsigned char *plain;
  size_t size;
  char others[64];
  size_t others_count;
  bool eof;
} reader_t;

static reader_t reader;

static void read_begin(void) {
  free(reader.plain);
  reader = (reader_t){0};
}

static bool take_record(void) {
  size_t size = reader.raw_size >= 3 ? (size_t)(reader.raw[1] << 8 | reader.raw[2]) : 0;
  if (reader.raw_size < 3 || reader.raw_size < 3 + size) return false;
  if (reader.raw[0] == 'D') {
    reader.plain = realloc(reader.plain, reader.size + size + 1);
    for (size_t i = 0; i < size; i++) reader.plain[reader.size++] = reader.raw[3 + i] ^ 0xff;
  } else if (reader.others_count + 1 < sizeof reader.others) {
    reader.others[reader.others_count++] = (char)reader.raw[0];
  }
  reader.raw_size -= 3 + size;
  memmove(reader.raw, reader.raw + 3 + size, reader.raw_size);
  return true;
}

static void read_some(int peer) {
  ssize_t n = recv(peer, reader.raw + reader.raw_size, sizeof reader.raw - reader.raw_size, MSG_DONTWAIT);
  if (n == 0) reader.eof = true;
  if (n > 0) reader.raw_size += (size_t)n;
  while (take_record()) continue;
}

static void read_until(env_t *env, int peer, size_t size) {
  for (int turns = 0; reader.size < size && !reader.eof; turns++) {
    read_some(peer);
    assert_true(turns < 1000000);
    assert_true(aloop_run_once(env->loop, 0) >= 0);
  }
  assert_int_equal(reader.size, size);
}

static void read_to_end(env_t *env, int peer) {
  for (int turns = 0; !reader.eof; turns++) {
    read_some(peer);
    assert_true(turns < 1000000);
    assert_true(aloop_run_once(env->loop, 0) >= 0);
  }
}

/* Much more than the socket takes. */
static void stuff(tape_t *tape, const char *bytes, size_t size) {
  size_t left = 0;
  assert_int_equal(aloop_transport_write(tape->transport, bytes, size), 0);
  for (int quiet = 0; quiet < 20; quiet = unsent(tape) == left ? quiet + 1 : 0) {
    left = unsent(tape);
    soft_work();
    run_turn(tape->env->loop);
  }
  assert_true(left > 0);
}

static void want_keys(env_t *env, int peer) {
  int before = mock.updates;
  mock_say(peer, 'U', "");
  run_until_count(env->loop, &mock.updates, before + 1);
}

/* ---- Who is asked ---------------------------------------------------------------------------------------- */

static void the_kernel_encrypts_what_is_sent(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  begin();
  int peer = open_kernel_server(&tape, &plain_protocol);
  put(&tape, "hello");
  mock_expect(env->loop, peer, 'D', "hello");
  mock_say(peer, 'D', "world");
  settle(env->loop);
  assert_memory_equal(tape.bytes, "world", 5);
  assert_int_equal(soft.records[SOFT_DATA], 1);
  aloop_transport_close(tape.transport);
  mock_expect(env->loop, peer, 'E', "");
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, 0);
  assert_int_equal(soft.lost, 0);
  release_tape(&tape, peer);
}

static void a_client_s_side_too(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  begin();
  int peer = open_mock_client(&tape, &plain_protocol);
  assert_true(encrypts(&tape));
  put(&tape, "hello");
  mock_expect(env->loop, peer, 'D', "hello");
  end_tape(&tape, peer);
}

/* What linux/tls.h says about the order of the members. */
static soft_keys_t keys_seen;

static size_t note_keys(const soft_keys_t *keys, int type, const unsigned char *data, size_t size,
                        unsigned char *into) {
  keys_seen = *keys;
  return seal(keys, type, data, size, into);
}

static void expect_keys(void **state, int version, int cipher, int number, const char *text) {
  tape_t tape = {.env = *state};
  begin();
  mock.version = version;
  mock.cipher = cipher;
  soft.exchanges = true;
  soft.seal = note_keys;
  int peer = open_kernel_server(&tape, &plain_protocol);
  put(&tape, "x");
  mock_expect(tape.env->loop, peer, 'D', "x");
  assert_int_equal(keys_seen.version, version);
  assert_int_equal(keys_seen.cipher, number);
  assert_int_equal(keys_seen.sequence, 7);
  assert_int_equal(keys_seen.size, 4 + strlen(text) + 8);
  assert_memory_equal(keys_seen.info + 4, text, strlen(text));
  end_tape(&tape, peer);
}

static void keys_are_told_as_linux_wants_them(void **state) {
  expect_keys(state, ALOOP_TLS_1_2, ALOOP_TLS_AES_128_GCM, 51, "EFGHIJKLabcdefghijklmnopABCD");
  expect_keys(state, ALOOP_TLS_1_3, ALOOP_TLS_AES_256_GCM, 52,
              "EFGHIJKLabcdefghijklmnopqrstuvwxyz{|}~\177\200ABCD");
  expect_keys(state, ALOOP_TLS_1_3, ALOOP_TLS_CHACHA20_POLY1305, 54,
              "ABCDEFGHIJKLabcdefghijklmnopqrstuvwxyz{|}~\177\200");
}

/* The engine goes on encrypting. */
static void expect_no_kernel(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  int peer = open_mock_server(&tape, &plain_protocol);
  assert_false(encrypts(&tape));
  put(&tape, "hello");
  mock_expect(env->loop, peer, 'D', "hello");
  assert_int_equal(soft.records[SOFT_DATA], 0);
  aloop_transport_close(tape.transport);
  mock_expect(env->loop, peer, 'E', "");
  run_until(env->loop, &tape.lost);
  release_tape(&tape, peer);
}

static void a_kernel_without_tls_is_done_without(void **state) {
  begin();
  soft.available = false;
  expect_no_kernel(state);
}

static void a_kernel_that_refuses_the_keys_is_done_without(void **state) {
  begin();
  soft.refuses = true;
  expect_no_kernel(state);
}

static void an_engine_that_keeps_its_keys_goes_on(void **state) {
  begin();
  mock.offloads = false;
  expect_no_kernel(state);
}

static void an_option_turns_it_off(void **state) {
  begin();
  mock.kernel = -1;
  expect_no_kernel(state);
}

static void other_sockets_than_tcp_are_left_alone(void **state) {
  begin();
  mock.tcp = false;
  expect_no_kernel(state);
}

static void tls_1_3_wants_a_kernel_that_can_exchange_keys(void **state) {
  begin();
  mock.version = ALOOP_TLS_1_3;
  expect_no_kernel(state);
}

static void unless_an_option_says_that_it_need_not(void **state) {
  tape_t tape = {.env = *state};
  begin();
  mock.version = ALOOP_TLS_1_3;
  mock.kernel = 1;
  int peer = open_kernel_server(&tape, &plain_protocol);
  end_tape(&tape, peer);
}

/* ---- Bytes ----------------------------------------------------------------------------------------------- */

enum { MUCH = 8 * 1024 * 1024 };

static char *pattern_of(size_t size) {
  char *bytes = malloc(size);
  pattern(bytes, size, 1);
  return bytes;
}

static void a_full_socket_gets_the_rest_later(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  begin();
  read_begin();
  char *bytes = pattern_of(MUCH);
  int peer = open_kernel_server(&tape, &plain_protocol);
  assert_int_equal(aloop_transport_write(tape.transport, bytes, MUCH), 0);
  assert_true(unsent(&tape) > 0 && unsent(&tape) < MUCH);
  assert_string_equal(tape.events, "MP");
  aloop_transport_close(tape.transport);
  read_to_end(env, peer);
  run_until(env->loop, &tape.lost);
  assert_string_equal(tape.events, "MPRL");
  assert_int_equal(tape.error, 0);
  assert_int_equal(reader.size, MUCH);
  assert_memory_equal(reader.plain, bytes, MUCH);
  assert_string_equal(reader.others, "E");
  assert_int_equal(soft.lost, 0);
  free(bytes);
  release_tape(&tape, peer);
  read_begin();
}

static void close_waits_for_what_the_kernel_has_taken(void **state) {
  env_t *env = *state;
  begin();
  char *bytes = pattern_of(MUCH);
  for (size_t more = 0; more < 20; more++) {
    tape_t tape = {.env = env};
    read_begin();
    int peer = open_kernel_server(&tape, &plain_protocol);
    size_t size = 0;
    while (unsent(&tape) == 0) { /* until the socket is full, and some */
      assert_int_equal(aloop_transport_write(tape.transport, bytes + size, 10000 + more), 0);
      size += 10000 + more;
    }
    aloop_transport_close(tape.transport);
    settle(env->loop);
    read_to_end(env, peer);
    run_until(env->loop, &tape.lost);
    assert_int_equal(tape.error, 0);
    assert_int_equal(soft.lost, 0);
    assert_int_equal(reader.size, size);
    assert_memory_equal(reader.plain, bytes, size);
    assert_int_equal(reader.others[reader.others_count - 1], 'E');
    release_tape(&tape, peer);
  }
  free(bytes);
  read_begin();
}

static void parts_and_owned_bytes_keep_their_order(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  begin();
  read_begin();
  int released = 0;
  size_t size = 0;
  char *bytes = pattern_of(MUCH);
  int peer = open_kernel_server(&tape, &plain_protocol);
  while (size < MUCH - 70000) {
    struct iovec parts[3] = {{bytes + size, 1000}, {bytes + size + 1000, 0}, {bytes + size + 1000, 30000}};
    assert_int_equal(aloop_transport_writev(tape.transport, parts, 3), 0);
    size += 31000;
    assert_int_equal(aloop_transport_write_owned(tape.transport, bytes + size, 20000, count_release, &released),
                     0);
    size += 20000;
    assert_int_equal(aloop_transport_write(tape.transport, bytes + size, 17), 0);
    size += 17;
    if (size % 3 == 0) read_some(peer);
    run_turn(env->loop);
  }
  read_until(env, peer, size);
  assert_memory_equal(reader.plain, bytes, size);
  settle(env->loop);
  assert_int_equal(unsent(&tape), 0);
  assert_int_equal(released, (int)(size / 51017));
  free(bytes);
  end_tape(&tape, peer);
  read_begin();
}

static void answer_twice(tape_t *tape) {
  put(tape, "one");
  put(tape, "two");
}

static void what_is_written_inside_data_received_is_one_record(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env, .on[DATA] = answer_twice};
  begin();
  int peer = open_kernel_server(&tape, &plain_protocol);
  mock_say(peer, 'D', "question");
  mock_expect(env->loop, peer, 'D', "onetwo");
  end_tape(&tape, peer);
}

static void write_eof_leaves_the_other_direction(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  begin();
  int peer = open_kernel_server(&tape, &plain_protocol);
  put(&tape, "last");
  assert_int_equal(aloop_transport_write_eof(tape.transport), 0);
  mock_expect(env->loop, peer, 'D', "last");
  mock_expect(env->loop, peer, 'E', "");
  mock_say(peer, 'D', "more");
  settle(env->loop);
  assert_memory_equal(tape.bytes, "more", 4);
  mock_say(peer, 'E', "");
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, 0);
  release_tape(&tape, peer);
}

static void a_lost_peer_is_told(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  begin();
  char *bytes = pattern_of(MUCH);
  int peer = open_kernel_server(&tape, &plain_protocol);
  assert_int_equal(aloop_transport_write(tape.transport, bytes, MUCH), 0);
  struct linger now = {.l_onoff = 1};
  setsockopt(peer, SOL_SOCKET, SO_LINGER, &now, sizeof now);
  close(peer);
  run_until(env->loop, &tape.lost);
  assert_true(tape.error == ALOOP_ECONNRESET || tape.error == ALOOP_EPIPE);
  free(bytes);
  release_tape(&tape, -1);
}

static void a_peer_that_takes_nothing_does_not_delay_the_end_for_ever(void **state) {
  env_t *env = *state;
  if (!on_poller(env, "virtual")) skip(); /* where the clock jumps */
  tape_t tape = {.env = env};
  begin();
  char *bytes = pattern_of(MUCH);
  int peer = open_kernel_server(&tape, &plain_protocol);
  assert_int_equal(aloop_transport_write(tape.transport, bytes, MUCH), 0);
  aloop_transport_close(tape.transport);
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, ALOOP_ETIMEDOUT);
  free(bytes);
  release_tape(&tape, peer);
}

/* ---- Files ----------------------------------------------------------------------------------------------- */

static int make_file(const char *bytes, size_t size) {
  FILE *file = tmpfile();
  assert_non_null(file);
  assert_int_equal(fwrite(bytes, 1, size, file), size);
  assert_int_equal(fflush(file), 0);
  int fd = dup(fileno(file));
  fclose(file);
  return fd;
}

static void a_file_goes_through_the_kernel(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  begin();
  read_begin();
  char *bytes = pattern_of(MUCH);
  int file = make_file(bytes, MUCH);
  int peer = open_kernel_server(&tape, &plain_protocol);
  aloop_future_t *future = aloop_sendfile(tape.transport, file, 5, 0, ALOOP_NO_FALLBACK);
  read_until(env, peer, MUCH - 5);
  assert_int_equal(value_of(env, future), MUCH - 5);
  assert_memory_equal(reader.plain, bytes + 5, MUCH - 5);
  assert_true(soft.files > 1);
  assert_int_equal(soft.open, 0);
  put(&tape, "behind it");
  mock_expect(env->loop, peer, 'D', "behind it");
  free(bytes);
  close(file);
  end_tape(&tape, peer);
  read_begin();
}

static void a_file_s_last_record_does_not_wait_for_more(void **state) {
  env_t *env = *state;
  begin();
  static const int64_t counts[] = {0, 100, 10, 3};
  for (size_t i = 0; i < 4; i++) {
    tape_t tape = {.env = env};
    read_begin();
    int file = make_file("0123456789", 10);
    int peer = open_kernel_server(&tape, &plain_protocol);
    size_t size = counts[i] == 3 ? 3 : 10;
    assert_int_equal(value_of(env, aloop_sendfile(tape.transport, file, 0, counts[i], 0)), size);
    assert_int_equal(soft.open, 0);
    read_until(env, peer, size);
    close(file);
    end_tape(&tape, peer);
  }
  read_begin();
}

static void nor_does_it_when_the_sendfile_is_cancelled(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  begin();
  read_begin();
  char *bytes = pattern_of(MUCH);
  int file = make_file(bytes, MUCH);
  int peer = open_kernel_server(&tape, &plain_protocol);
  aloop_future_t *future = aloop_sendfile(tape.transport, file, 0, 0, 0);
  settle(env->loop);
  assert_false(aloop_future_done(future));
  aloop_future_cancel(future);
  aloop_future_unref(future);
  settle(env->loop);
  assert_int_equal(soft.open, 0);
  put(&tape, "what else");
  aloop_transport_close(tape.transport);
  read_to_end(env, peer);
  run_until(env->loop, &tape.lost);
  assert_true(reader.size > 9);
  assert_memory_equal(reader.plain, bytes, reader.size - 9);
  assert_memory_equal(reader.plain + reader.size - 9, "what else", 9);
  assert_int_equal(soft.lost, 0);
  free(bytes);
  close(file);
  release_tape(&tape, peer);
  read_begin();
}

/* ---- Keys ------------------------------------------------------------------------------------------------ */

static void new_keys_come_behind_the_message_about_them(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  begin();
  mock.version = ALOOP_TLS_1_3;
  soft.exchanges = true;
  int peer = open_kernel_server(&tape, &plain_protocol);
  put(&tape, "old");
  mock_say(peer, 'U', "");
  mock_expect(env->loop, peer, 'D', "old");
  mock_expect(env->loop, peer, 'K', NULL);
  assert_int_equal(soft.exchanged, 1);
  put(&tape, "new");
  mock_expect(env->loop, peer, 'D', "new");
  end_tape(&tape, peer);
}

/* Which keys a record was made with stands in its first byte. */
static int made_with[64];
static int made_count;

static size_t note_exchanges(const soft_keys_t *keys, int type, const unsigned char *data, size_t size,
                             unsigned char *into) {
  if (type != SOFT_DATA && made_count < 64) made_with[made_count++] = soft.exchanged;
  return seal(keys, type, data, size, into);
}

static void with_a_full_socket_they_wait_for_their_turn(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  begin();
  read_begin();
  made_count = 0;
  mock.version = ALOOP_TLS_1_3;
  soft.exchanges = true;
  soft.seal = note_exchanges;
  char *bytes = pattern_of(MUCH);
  int peer = open_kernel_server(&tape, &plain_protocol);
  stuff(&tape, bytes, MUCH);
  soft.full = true;
  want_keys(env, peer);
  want_keys(env, peer);
  assert_int_equal(soft.exchanged, 0);
  soft.full = false;
  aloop_transport_close(tape.transport);
  read_to_end(env, peer);
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, 0);
  assert_int_equal(reader.size, MUCH);
  assert_memory_equal(reader.plain, bytes, MUCH);
  assert_string_equal(reader.others, "KKE");
  assert_int_equal(soft.exchanged, 2);
  assert_int_equal(made_count, 3);
  for (int i = 0; i < 3; i++) assert_int_equal(made_with[i], i);
  free(bytes);
  release_tape(&tape, peer);
  read_begin();
}

static void who_wants_too_many_is_sent_away(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  begin();
  mock.version = ALOOP_TLS_1_3;
  soft.exchanges = true;
  char *bytes = pattern_of(MUCH);
  int peer = open_kernel_server(&tape, &plain_protocol);
  stuff(&tape, bytes, MUCH);
  soft.full = true;
  for (int i = 0; i < 9; i++) want_keys(env, peer);
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, ALOOP_ENOBUFS);
  free(bytes);
  release_tape(&tape, peer);
}

static void without_an_exchange_the_connection_ends_with_a_reason(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  begin();
  mock.version = ALOOP_TLS_1_3;
  mock.kernel = 1;
  int peer = open_kernel_server(&tape, &plain_protocol);
  mock_say(peer, 'U', "");
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, ALOOP_ETLS);
  assert_non_null(strstr(aloop_transport_tls_error(tape.transport), "cannot exchange them"));
  assert_int_equal(soft.records[SOFT_HANDSHAKE], 0);
  release_tape(&tape, peer);
}

static void a_failed_exchange_ends_it_too(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  begin();
  mock.version = ALOOP_TLS_1_3;
  soft.exchanges = true;
  int peer = open_kernel_server(&tape, &plain_protocol);
  soft.refuses = true;
  mock_say(peer, 'U', "");
  run_until(env->loop, &tape.lost);
  assert_true(tape.error < 0);
  release_tape(&tape, peer);
}

/* ---- Above and beneath ----------------------------------------------------------------------------------- */

static void what_was_written_before_start_tls_comes_first(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  begin();
  read_begin();
  char *bytes = pattern_of(MUCH);
  int peer = open_tcp_tape(&tape, &plain_protocol);
  assert_int_equal(aloop_transport_write(tape.transport, bytes, MUCH), 0);
  aloop_tls_context_t *context = mock_context(ALOOP_TLS_SERVER);
  aloop_start_tls_options_t options = {.size = sizeof options, .tls = context};
  aloop_transport_t *lower = tape.transport;
  aloop_future_t *future = aloop_start_tls(lower, NULL, NULL, &options);
  tape.transport = NULL;
  mock_say(peer, 'H', "");
  mock_say(peer, 'F', "");
  aloop_transport_t *upper = NULL;
  assert_int_equal(run_future(env->loop, future), 0);
  assert_int_equal(aloop_future_take_ptr(future, &upper), 0);
  aloop_future_unref(future);
  aloop_tls_context_unref(context);
  if (tape.transport != NULL) aloop_transport_unref(tape.transport);
  tape.transport = upper;
  assert_int_equal(soft.sockets, 0); /* the engine's answer is not in the socket yet */
  assert_int_equal(aloop_transport_write(upper, "hello", 5), 0);
  char *clear = malloc(MUCH);
  assert_int_equal(collect(env->loop, &tape, peer, clear, MUCH), MUCH);
  assert_memory_equal(clear, bytes, MUCH);
  mock_expect(env->loop, peer, 'S', "");
  mock_expect(env->loop, peer, 'D', "hello");
  assert_int_equal(soft.sockets, 1);
  assert_int_equal(soft.records[SOFT_DATA], 1);
  aloop_transport_unref(lower);
  free(clear);
  free(bytes);
  end_tape(&tape, peer);
}

static void tls_over_it_stays_with_the_engine(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  begin();
  int peer = open_kernel_server(&tape, &plain_protocol);
  aloop_tls_context_t *context = mock_context(ALOOP_TLS_CLIENT);
  aloop_start_tls_options_t options = {.size = sizeof options, .tls = context};
  aloop_transport_t *lower = tape.transport;
  aloop_future_t *future = aloop_start_tls(lower, NULL, NULL, &options);
  tape.transport = NULL;
  char inner[16], turned[16];
  size_t size = mock_record(inner, 'S', "", 0);
  mock_expect(env->loop, peer, 'D', NULL); /* H */
  for (size_t i = 0; i < size; i++) turned[i] = (char)(inner[i] ^ 0xff);
  char outer[32];
  size_t whole = mock_record(outer, 'D', turned, size);
  assert_int_equal(write(peer, outer, whole), whole);
  assert_int_equal(run_future(env->loop, future), 0);
  aloop_transport_t *upper = NULL;
  assert_int_equal(aloop_future_take_ptr(future, &upper), 0);
  aloop_future_unref(future);
  aloop_tls_context_unref(context);
  aloop_transport_unref(lower);
  tape.transport = upper;
  assert_false(encrypts(&tape));
  assert_int_equal(soft.sockets, 1);
  mock_expect(env->loop, peer, 'D', NULL); /* F */
  aloop_transport_close(upper);
  mock_expect(env->loop, peer, 'D', NULL); /* the inner end, then the outer */
  mock_expect(env->loop, peer, 'E', "");
  run_until(env->loop, &tape.lost);
  assert_int_equal(tape.error, 0);
  release_tape(&tape, peer);
}

static void a_relay_goes_both_ways(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env}, plain = {.env = env};
  begin();
  read_begin();
  char *bytes = pattern_of(MUCH);
  int peer = open_kernel_server(&tape, &plain_protocol);
  int other = open_tcp_tape(&plain, &plain_protocol);
  aloop_future_t *relay = aloop_relay(tape.transport, plain.transport);
  mock_say(peer, 'D', "up");
  char up[3] = "";
  assert_int_equal(collect(env->loop, &plain, other, up, 2), 2);
  assert_string_equal(up, "up");
  size_t sent = 0;
  for (int turns = 0; reader.size < MUCH; turns++) {
    assert_true(turns < 1000000);
    ssize_t n = sent < MUCH ? send(other, bytes + sent, MUCH - sent, MSG_DONTWAIT) : 0;
    if (n > 0) sent += (size_t)n;
    read_some(peer);
    assert_true(aloop_run_once(env->loop, 0) >= 0);
  }
  assert_memory_equal(reader.plain, bytes, MUCH);
  aloop_future_cancel(relay);
  aloop_future_unref(relay);
  free(bytes);
  settle(env->loop);
  aloop_transport_abort(tape.transport);
  aloop_transport_abort(plain.transport);
  run_until(env->loop, &tape.lost);
  run_until(env->loop, &plain.lost);
  release_tape(&tape, peer);
  release_tape(&plain, other);
  read_begin();
}

TESTS(T(the_kernel_encrypts_what_is_sent), T(a_client_s_side_too), T(keys_are_told_as_linux_wants_them),
      T(a_kernel_without_tls_is_done_without), T(a_kernel_that_refuses_the_keys_is_done_without),
      T(an_engine_that_keeps_its_keys_goes_on), T(an_option_turns_it_off),
      T(other_sockets_than_tcp_are_left_alone), T(tls_1_3_wants_a_kernel_that_can_exchange_keys),
      T(unless_an_option_says_that_it_need_not), T(a_full_socket_gets_the_rest_later),
      T(close_waits_for_what_the_kernel_has_taken), T(parts_and_owned_bytes_keep_their_order),
      T(what_is_written_inside_data_received_is_one_record), T(write_eof_leaves_the_other_direction),
      T(a_lost_peer_is_told), T(a_peer_that_takes_nothing_does_not_delay_the_end_for_ever),
      T(a_file_goes_through_the_kernel), T(a_file_s_last_record_does_not_wait_for_more),
      T(nor_does_it_when_the_sendfile_is_cancelled), T(new_keys_come_behind_the_message_about_them),
      T(with_a_full_socket_they_wait_for_their_turn), T(who_wants_too_many_is_sent_away),
      T(without_an_exchange_the_connection_ends_with_a_reason), T(a_failed_exchange_ends_it_too),
      T(what_was_written_before_start_tls_comes_first), T(tls_over_it_stays_with_the_engine),
      T(a_relay_goes_both_ways))
