/* SPDX-License-Identifier: MIT
 *
 * Transports that keep messages apart: what is written as one arrives as one, at once or later, from inside
 * data_received or not, with descriptors or without; what is too long is said to be so; empty messages are no
 * end. pollers: all
 */
#include "peers.h"
#include "streams.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

/* ---- A strict system --------------------------------------------------------------------------------------- */

/* As POSIX allows, it refuses messages without parts. */
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
  static ssize_t (*real)(int, const struct msghdr *, int);
  if (real == NULL) {
    void *symbol = dlsym(RTLD_NEXT, "sendmsg");
    memcpy(&real, &symbol, sizeof real);
  }
  if (message->msg_iovlen > 0) return real(fd, message, flags);
  errno = EMSGSIZE;
  return -1;
}

/* ---- A box that notes its messages ----------------------------------------------------------------------- */

typedef struct box box_t;

struct box {
  env_t *env;
  aloop_transport_t *transport; /* a reference */
  char text[8192];              /* messages as lines, "EOF" and "lost" among them; no "filling" */
  size_t size, messages;
  bool lost, quiet; /* quiet: messages are counted only */
  int error;
  int answer; /* of eof_received */
  char *buffer;
  size_t room; /* of the buffer */
  void (*on_message)(box_t *box, const char *data, size_t size);
  void (*on_made)(box_t *box);
};

static void note(box_t *box, const char *data, size_t size) {
  if (size == 7 && memcmp(data, "filling", 7) == 0) return;
  if (box->quiet || box->size + size + 2 > sizeof box->text) return;
  memcpy(box->text + box->size, data, size);
  box->size += size;
  box->text[box->size++] = '\n';
  box->text[box->size] = '\0';
}

static void made(aloop_transport_t *transport, void *protocol) {
  box_t *box = protocol;
  box->transport = aloop_transport_ref(transport);
  if (box->on_made != NULL) box->on_made(box);
}

static int received(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  box_t *box = protocol;
  (void)transport;
  assert_false(box->lost);
  box->messages++;
  note(box, data, size);
  if (box->on_message != NULL) box->on_message(box, data, size);
  return 0;
}

static int room_for(aloop_transport_t *transport, void *protocol, size_t hint, void **buffer, size_t *size) {
  box_t *box = protocol;
  (void)transport, (void)hint;
  *buffer = box->buffer;
  *size = box->room;
  return 0;
}

static int updated(aloop_transport_t *transport, void *protocol, size_t size) {
  return received(transport, protocol, ((box_t *)protocol)->buffer, size);
}

static int eof(aloop_transport_t *transport, void *protocol) {
  (void)transport;
  note(protocol, "EOF", 3);
  return ((box_t *)protocol)->answer;
}

static void paused(aloop_transport_t *transport, void *protocol) {
  (void)transport;
  note(protocol, "pause", 5);
}

static void resumed(aloop_transport_t *transport, void *protocol) {
  (void)transport;
  note(protocol, "resume", 6);
}

static void lost(aloop_transport_t *transport, void *protocol, int error) {
  box_t *box = protocol;
  (void)transport;
  box->lost = true;
  box->error = error;
  note(box, "lost", 4);
}

static const aloop_protocol_t plain = {.size = sizeof plain,
                                       .connection_made = made,
                                       .data_received = received,
                                       .eof_received = eof,
                                       .pause_writing = paused,
                                       .resume_writing = resumed,
                                       .connection_lost = lost};

static const aloop_protocol_t buffered = {.size = sizeof buffered,
                                          .connection_made = made,
                                          .get_buffer = room_for,
                                          .buffer_updated = updated,
                                          .eof_received = eof,
                                          .connection_lost = lost};

static void attach(box_t *box, const aloop_protocol_t *table, int fd) {
  aloop_unix_connect_options_t options = {.size = sizeof options, .fd = fd};
  aloop_future_t *future = aloop_create_unix_connection(box->env->loop, table, box, &options);
  assert_true(run_future(box->env->loop, future) >= 0);
  aloop_future_unref(future);
}

/* Returns the other end. */
static int open_box(box_t *box, const aloop_protocol_t *table) {
  int fds[2];
  assert_int_equal(aloop_socketpair(SOCK_SEQPACKET, fds), 0);
  attach(box, table, fds[0]);
  return fds[1];
}

static void end_box(box_t *box, int peer) {
  aloop_transport_abort(box->transport);
  run_until(box->env->loop, &box->lost);
  aloop_transport_unref(box->transport);
  if (peer >= 0) close(peer);
}

/* What waits at the peer, as lines; "EOF" is the end. */
static const char *lines(int peer) {
  static char text[65536];
  char bytes[70000];
  size_t size = 0;
  int on = 1;
  setsockopt(peer, SOL_SOCKET, SO_TIMESTAMP, &on, sizeof on);
  for (;;) {
    char control[64];
    struct iovec part = {.iov_base = bytes, .iov_len = sizeof bytes};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control};
    message.msg_controllen = sizeof control;
    ssize_t n = recvmsg(peer, &message, MSG_DONTWAIT);
    bool end = n == 0 && message.msg_controllen == 0 && (message.msg_flags & MSG_EOR) == 0;
    if (n < 0) break;
    assert_true(size + (size_t)n + 5 < sizeof text);
    memcpy(text + size, end ? "EOF" : bytes, end ? 3 : (size_t)n);
    size += end ? 3 : (size_t)n;
    text[size++] = '\n';
    if (end) break;
  }
  text[size] = '\0';
  return text;
}

static void put_text(const box_t *box, const char *text) {
  assert_int_equal(aloop_transport_write(box->transport, text, strlen(text)), 0);
}

static void say_text(int peer, const char *text) {
  assert_int_equal(send(peer, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

static size_t unsent_of(const box_t *box) {
  return aloop_transport_get_write_buffer_size(box->transport);
}

/* Until a message waits; `filler` is what that is, and what came before. */
static size_t fill_box(const box_t *box, const char *filler) {
  size_t count = 0;
  for (; unsent_of(box) == 0; count++) put_text(box, filler);
  return count;
}

/* ---- Both ways ------------------------------------------------------------------------------------------- */

static void each_write_is_a_message(void **state) {
  box_t box = {.env = *state};
  int released = 0, peer = open_box(&box, &plain);
  struct iovec parts[] = {{"fo", 2}, {NULL, 0}, {"ur", 2}}, none[] = {{NULL, 0}};
  put_text(&box, "one");
  put_text(&box, "");
  put_text(&box, "three");
  assert_int_equal(aloop_transport_writev(box.transport, parts, 3), 0);
  assert_int_equal(aloop_transport_writev(box.transport, none, 1), 0);
  assert_int_equal(aloop_transport_write_owned(box.transport, "six", 3, count_release, &released), 0);
  assert_int_equal(aloop_transport_write_owned(box.transport, "", 0, count_release, &released), 0);
  assert_int_equal(released, 2);
  assert_int_equal(unsent_of(&box), 0);
  assert_string_equal(lines(peer), "one\n\nthree\nfour\n\nsix\n\n");
  end_box(&box, peer);
}

static void each_message_is_a_call(void **state) {
  box_t box = {.env = *state};
  int peer = open_box(&box, &plain);
  say_text(peer, "one");
  say_text(peer, "");
  say_text(peer, "three");
  settle(box.env->loop);
  assert_string_equal(box.text, "one\n\nthree\n");
  for (int i = 0; i < 300; i++) send(peer, "x", 1, 0);
  for (int i = 0; i < 50; i++) settle(box.env->loop);
  assert_true(box.messages > 3 + 200);
  end_box(&box, peer);
}

static void an_empty_message_is_not_the_end(void **state) {
  box_t box = {.env = *state, .answer = 1};
  int peer = open_box(&box, &plain);
  say_text(peer, "");
  settle(box.env->loop);
  assert_string_equal(box.text, "\n");
  say_text(peer, "");
  assert_int_equal(shutdown(peer, SHUT_WR), 0);
  settle(box.env->loop);
  assert_string_equal(box.text, "\n\nEOF\n");
  put_text(&box, "still here");
  assert_int_equal(aloop_transport_write_eof(box.transport), 0);
  assert_string_equal(lines(peer), "still here\nEOF\n");
  end_box(&box, peer);
}

static void the_end_of_the_peer_ends_it(void **state) {
  box_t box = {.env = *state};
  int peer = open_box(&box, &plain);
  say_text(peer, "bye");
  close(peer);
  run_until(box.env->loop, &box.lost);
  assert_string_equal(box.text, "bye\nEOF\nlost\n");
  assert_int_equal(box.error, 0);
  end_box(&box, -1);
}

static void a_protocol_may_bring_its_own_memory(void **state) {
  char buffer[16];
  box_t box = {.env = *state, .buffer = buffer, .room = sizeof buffer};
  int peer = open_box(&box, &buffered);
  say_text(peer, "just fits: 16 by");
  say_text(peer, "");
  say_text(peer, "x");
  settle(box.env->loop);
  assert_string_equal(box.text, "just fits: 16 by\n\nx\n");
  say_text(peer, "does not fit: 17.");
  run_until(box.env->loop, &box.lost);
  assert_int_equal(box.error, ALOOP_EMSGSIZE);
  assert_int_equal(box.messages, 3);
  end_box(&box, peer);
}

/* ---- The cork -------------------------------------------------------------------------------------------- */

static void answer_thrice(box_t *box, const char *data, size_t size) {
  char copy[64];
  if (size == 0) return;
  assert_int_equal(aloop_transport_write(box->transport, data, size), 0);
  assert_int_equal(aloop_transport_write(box->transport, data + 1, size - 1), 0);
  snprintf(copy, sizeof copy, "<%.*s>", (int)size, data);
  put_text(box, copy);
  put_text(box, "");
}

static void answers_are_not_joined(void **state) {
  box_t box = {.env = *state, .on_message = answer_thrice};
  int peer = open_box(&box, &plain);
  say_text(peer, "ab");
  say_text(peer, "c");
  settle(box.env->loop);
  assert_string_equal(lines(peer), "ab\nb\n<ab>\n\nc\n\n<c>\n\n");
  end_box(&box, peer);
}

/* ---- The write buffer ------------------------------------------------------------------------------------ */

static void what_waits_stays_apart(void **state) {
  box_t box = {.env = *state};
  int released = 0, peer = open_box(&box, &plain);
  struct iovec parts[] = {{"o", 1}, {"ne", 2}};
  size_t count = fill_box(&box, "filling");
  assert_int_equal(unsent_of(&box), 7);
  assert_int_equal(aloop_transport_writev(box.transport, parts, 2), 0);
  put_text(&box, "");
  assert_int_equal(aloop_transport_write_owned(box.transport, "three", 5, count_release, &released), 0);
  assert_int_equal(aloop_transport_write_owned(box.transport, "", 0, count_release, &released), 0);
  put_text(&box, "five");
  assert_int_equal(unsent_of(&box), 7 + 3 + 1 + 5 + 1 + 4); /* an empty one counts as one */
  assert_int_equal(released, 0);
  char tail[64] = "";
  size_t came = 0;
  while (unsent_of(&box) > 0 || strstr(tail, "five") == NULL) {
    const char *text = lines(peer);
    for (; strncmp(text, "filling\n", 8) == 0; text += 8) came++;
    assert_true(strlen(tail) + strlen(text) < sizeof tail);
    strcat(tail, text);
    settle(box.env->loop);
  }
  assert_int_equal(came, count);
  assert_string_equal(tail, "one\n\nthree\n\nfive\n");
  assert_int_equal(released, 2);
  end_box(&box, peer);
}

static void the_marks_pause_and_resume(void **state) {
  box_t box = {.env = *state};
  int peer = open_box(&box, &plain);
  assert_int_equal(aloop_transport_set_write_buffer_limits(box.transport, 9, 3), 0);
  fill_box(&box, "filling");
  put_text(&box, "");
  put_text(&box, "");
  assert_string_equal(box.text, ""); /* 9 are not above 9 */
  put_text(&box, "");
  assert_string_equal(box.text, "pause\n");
  while (unsent_of(&box) > 0) {
    lines(peer);
    settle(box.env->loop);
  }
  assert_string_equal(box.text, "pause\nresume\n");
  end_box(&box, peer);
}

static void the_cap_counts_empty_ones_too(void **state) {
  box_t box = {.env = *state};
  int peer = open_box(&box, &plain);
  assert_int_equal(aloop_transport_set_write_buffer_cap(box.transport, 8), 0);
  fill_box(&box, "filling");
  assert_int_equal(aloop_transport_write(box.transport, "12", 2), ALOOP_ENOBUFS);
  assert_int_equal(aloop_transport_write(box.transport, "", 0), 0);
  assert_int_equal(aloop_transport_write(box.transport, "", 0), ALOOP_ENOBUFS);
  assert_int_equal(aloop_transport_write_owned(box.transport, "", 0, NULL, NULL), ALOOP_ENOBUFS);
  assert_int_equal(unsent_of(&box), 8);
  end_box(&box, peer);
}

static void closing_sends_what_waits(void **state) {
  box_t box = {.env = *state};
  int peer = open_box(&box, &plain);
  size_t count = fill_box(&box, "filling"), came = 0;
  put_text(&box, "");
  aloop_transport_close(box.transport);
  assert_int_equal(aloop_transport_write(box.transport, "", 0), ALOOP_ECLOSED);
  for (bool ended = false; !ended;) {
    const char *text = lines(peer);
    for (; strncmp(text, "filling\n", 8) == 0; text += 8) came++;
    ended = strcmp(text, "\nEOF\n") == 0 || strcmp(text, "EOF\n") == 0;
    settle(box.env->loop);
  }
  assert_int_equal(came, count);
  assert_true(box.lost);
  end_box(&box, peer);
}

static void more_parts_than_a_call_takes_are_one_message(void **state) {
  box_t box = {.env = *state};
  struct iovec parts[200];
  int peer = open_box(&box, &plain);
  for (int i = 0; i < 200; i++) parts[i] = (struct iovec){(void *)&"0123456789"[i % 10], 1};
  assert_int_equal(aloop_transport_writev(box.transport, parts, 200), 0);
  settle(box.env->loop);
  const char *text = lines(peer);
  assert_int_equal(strlen(text), 201);
  assert_memory_equal(text, "01234567890123456789", 20);
  end_box(&box, peer);
}

/* ---- Too long -------------------------------------------------------------------------------------------- */

enum { HUGE_SIZE = 600000 };

static void a_message_no_socket_takes_is_refused(void **state) {
  box_t box = {.env = *state};
  char *bytes = calloc(1, HUGE_SIZE);
  struct iovec part = {bytes, HUGE_SIZE}, parts[100] = {{bytes, HUGE_SIZE}};
  int released = 0, peer = open_box(&box, &plain);
  for (int waiting = 0; waiting < 2; waiting++) {
    size_t before = unsent_of(&box);
    assert_int_equal(aloop_transport_write(box.transport, bytes, HUGE_SIZE), ALOOP_EMSGSIZE);
    assert_int_equal(aloop_transport_writev(box.transport, &part, 1), ALOOP_EMSGSIZE);
    assert_int_equal(aloop_transport_writev(box.transport, parts, 100), ALOOP_EMSGSIZE);
    assert_int_equal(aloop_transport_write_owned(box.transport, bytes, HUGE_SIZE, count_release, &released),
                     ALOOP_EMSGSIZE);
    assert_int_equal(unsent_of(&box), before);
    if (!waiting) fill_box(&box, "filling");
  }
  assert_int_equal(released, 0);
  assert_false(aloop_transport_is_closing(box.transport));
  free(bytes);
  end_box(&box, peer);
}

static void a_message_that_came_too_long_is_the_end(void **state) {
  box_t box = {.env = *state, .quiet = true};
  int room = HUGE_SIZE, peer = open_box(&box, &plain);
  char *bytes = calloc(1, HUGE_SIZE);
  setsockopt(peer, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
  assert_int_equal(send(peer, bytes, 200000, 0), 200000);
  settle(box.env->loop);
  assert_int_equal(box.messages, 1);
  /* Where no socket may send so much there is nothing to see. */
  if (send(peer, bytes, 300000, 0) == 300000) {
    run_until(box.env->loop, &box.lost);
    assert_int_equal(box.error, ALOOP_EMSGSIZE);
    assert_int_equal(box.messages, 1);
  }
  free(bytes);
  end_box(&box, peer);
}

/* ---- Reading --------------------------------------------------------------------------------------------- */

static void pause_now(box_t *box, const char *data, size_t size) {
  (void)data, (void)size;
  assert_int_equal(aloop_transport_pause_reading(box->transport), 0);
}

static void who_pauses_gets_no_further_message(void **state) {
  box_t box = {.env = *state, .on_message = pause_now};
  int peer = open_box(&box, &plain);
  for (size_t i = 1; i <= 5; i++) say_text(peer, "x");
  for (size_t i = 1; i <= 5; i++) {
    settle(box.env->loop);
    assert_int_equal(box.messages, i);
    assert_int_equal(aloop_transport_resume_reading(box.transport), 0);
  }
  end_box(&box, peer);
}

static void stop_hard(box_t *box, const char *data, size_t size) {
  (void)data, (void)size;
  aloop_stop_with_error(box->env->loop, ALOOP_EINTR);
}

static void who_ends_the_run_gets_no_further_message(void **state) {
  box_t box = {.env = *state, .on_message = stop_hard};
  int peer = open_box(&box, &plain);
  for (size_t i = 1; i <= 5; i++) say_text(peer, "x");
  for (size_t i = 1; i <= 5; i++) {
    int rc = 0;
    while (box.messages < i) rc = aloop_run_once(box.env->loop, ALOOP_SECONDS(1));
    assert_int_equal(rc, ALOOP_EINTR);
    assert_int_equal(box.messages, i);
  }
  end_box(&box, peer);
}

static void one_peer_leaves_turns_to_others(void **state) {
  box_t box = {.env = *state, .quiet = true};
  int peer = open_box(&box, &plain), sent = 0;
  while (send(peer, "x", 1, MSG_DONTWAIT) == 1) sent++;
  assert_true(sent > 100);
  while (box.messages == 0) run_turn(box.env->loop);
  assert_true(box.messages <= 64);
  for (int i = 0; i < 100; i++) settle(box.env->loop);
  assert_int_equal(box.messages, sent);
  end_box(&box, peer);
}

static void question_and_answer(void **state) {
  box_t box = {.env = *state, .on_message = answer_thrice, .quiet = true};
  int peer = open_box(&box, &plain);
  for (int i = 0; i < 100; i++) {
    say_text(peer, "q");
    settle(box.env->loop);
    assert_string_equal(lines(peer), "q\n\n<q>\n\n");
  }
  end_box(&box, peer);
}

/* ---- Descriptors and credentials ------------------------------------------------------------------------- */

static void take_them(box_t *box, const char *data, size_t size) {
  char name, text[8];
  int fd;
  (void)data, (void)size;
  while ((fd = aloop_transport_take_fd(box->transport)) >= 0) {
    assert_int_equal(read(fd, &name, 1), 1);
    snprintf(text, sizeof text, "[%c]", name);
    note(box, text, 3);
    close(fd);
  }
}

static int named(char name) {
  int fds[2];
  make_pipe(fds);
  assert_int_equal(write(fds[1], &name, 1), 1);
  close(fds[1]);
  return fds[0];
}

static void send_named(const box_t *box, const char *text, const char *names) {
  int fds[10] = {0};
  size_t count = strlen(names);
  for (size_t i = 0; i < count; i++) fds[i] = named(names[i]);
  assert_int_equal(aloop_transport_write_fds(box->transport, text, strlen(text), fds, count), 0);
  for (size_t i = 0; i < count; i++) close(fds[i]);
}

static void descriptors_come_with_their_message(void **state) {
  box_t sender = {.env = *state}, box = {.env = *state, .on_message = take_them};
  attach(&box, &plain, open_box(&sender, &plain));
  put_text(&sender, "none");
  send_named(&sender, "two", "ab");
  put_text(&sender, "");
  send_named(&sender, "one", "c");
  settle(box.env->loop);
  assert_string_equal(box.text, "none\ntwo\n[a]\n[b]\n\none\n[c]\n");
  end_box(&sender, -1);
  end_box(&box, -1);
}

static void descriptors_wait_with_their_message(void **state) {
  box_t sender = {.env = *state}, box = {.env = *state, .on_message = take_them};
  int peer = open_box(&sender, &plain);
  size_t count = fill_box(&sender, "filling");
  put_text(&sender, "");
  send_named(&sender, "two", "ab");
  put_text(&sender, "");
  send_named(&sender, "one", "c");
  attach(&box, &plain, peer);
  while (box.messages < count + 4) run_turn(box.env->loop);
  assert_string_equal(box.text, "\ntwo\n[a]\n[b]\n\none\n[c]\n");
  end_box(&sender, -1);
  end_box(&box, -1);
}

static void those_of_a_refused_message_are_closed(void **state) {
  box_t sender = {.env = *state}, box = {.env = *state, .on_message = take_them};
  attach(&box, &plain, open_box(&sender, &plain));
  char *bytes = calloc(1, HUGE_SIZE);
  int fd = named('x');
  assert_int_equal(aloop_transport_write_fds(sender.transport, bytes, HUGE_SIZE, &fd, 1), ALOOP_EMSGSIZE);
  send_named(&sender, "next", "y");
  settle(box.env->loop);
  assert_string_equal(box.text, "next\n[y]\n");
  close(fd);
  free(bytes);
  end_box(&sender, -1);
  end_box(&box, -1);
}

/* ---- By name --------------------------------------------------------------------------------------------- */

static void a_server_and_a_connection_find_each_other(void **state) {
  env_t *env = *state;
  box_t one = {.env = env}, other = {.env = env};
  char folder[] = "/tmp/aloop-seq-XXXXXX", path[64];
  assert_non_null(mkdtemp(folder));
  snprintf(path, sizeof path, "%s/socket", folder);
  aloop_unix_server_options_t at = {.size = sizeof at, .path = path, .type = SOCK_SEQPACKET};
  aloop_unix_connect_options_t to = {.size = sizeof to, .path = path, .type = SOCK_SEQPACKET};
  aloop_server_t *server;
  assert_int_equal(
      aloop_run_until_complete_ptr(env->loop, aloop_create_unix_server(env->loop, &plain, &one, &at), &server),
      0);
  assert_int_equal(
      aloop_run_until_complete(env->loop, aloop_create_unix_connection(env->loop, &plain, &other, &to)), 0);
  aloop_peercred_t peer;
  while (one.transport == NULL) run_turn(env->loop);
  assert_int_equal(aloop_transport_peercred(one.transport, &peer), 0);
  assert_int_equal(peer.uid, getuid());
  put_text(&one, "hello");
  put_text(&one, "");
  put_text(&other, "world");
  settle(env->loop);
  assert_string_equal(other.text, "hello\n\n");
  assert_string_equal(one.text, "world\n");
  /* A stream is not what is served here. */
  to.type = SOCK_STREAM;
  assert_int_equal(
      aloop_run_until_complete(env->loop, aloop_create_unix_connection(env->loop, &plain, &other, &to)),
      -EPROTOTYPE);
  aloop_server_close(server);
  aloop_server_unref(server);
  assert_int_equal(rmdir(folder), 0);
  end_box(&one, -1);
  end_box(&other, -1);
}

static void a_descriptor_is_what_it_is(void **state) {
  env_t *env = *state;
  box_t box = {.env = env};
  int fds[2];
  aloop_unix_connect_options_t options = {.size = sizeof options, .type = SOCK_STREAM};
  assert_int_equal(aloop_socketpair(SOCK_SEQPACKET, fds), 0);
  options.fd = fds[0];
  assert_int_equal(
      aloop_run_until_complete(env->loop, aloop_create_unix_connection(env->loop, &plain, &box, &options)),
      ALOOP_EINVAL);
  options.type = SOCK_SEQPACKET;
  assert_int_equal(
      aloop_run_until_complete(env->loop, aloop_create_unix_connection(env->loop, &plain, &box, &options)), 0);
  say_text(fds[1], "");
  settle(env->loop);
  assert_string_equal(box.text, "\n");
  end_box(&box, fds[1]);
}

static void a_relay_keeps_them_apart(void **state) {
  env_t *env = *state;
  box_t a = {.env = env}, b = {.env = env};
  int from = open_box(&a, &plain), to = open_box(&b, &plain);
  aloop_future_t *relay = aloop_relay(a.transport, b.transport);
  assert_non_null(relay);
  size_t sent = 0, came = 0;
  for (int i = 0; i < 1000; i++) {
    if (i % 100 == 0) say_text(from, ""), sent++;
    while (send(from, "filling", 7, MSG_DONTWAIT) < 0) settle(env->loop);
    sent++;
  }
  settle(env->loop);
  close(from);
  for (bool ended = false; !ended;) {
    const char *text = lines(to);
    for (; *text == '\n' || strncmp(text, "filling\n", 8) == 0; text += *text == '\n' ? 1 : 8) came++;
    ended = strcmp(text, "EOF\n") == 0;
    assert_true(ended || *text == '\0');
    settle(env->loop);
  }
  assert_int_equal(came, sent);
  shutdown(to, SHUT_WR);
  assert_int_equal(run_future(env->loop, relay), 7 * 1000);
  aloop_future_unref(relay);
  end_box(&a, -1);
  end_box(&b, to);
}

static void files_have_no_messages(void **state) {
  box_t box = {.env = *state};
  int peer = open_box(&box, &plain), file = open("/dev/null", O_RDONLY | O_CLOEXEC);
  aloop_future_t *future = aloop_sendfile(box.transport, file, 0, 10, 0);
  assert_int_equal(run_future(box.env->loop, future), ALOOP_ENOTSUP);
  assert_non_null(aloop_future_message(future));
  aloop_future_unref(future);
  close(file);
  end_box(&box, peer);
}

TESTS(T(each_write_is_a_message), T(each_message_is_a_call), T(an_empty_message_is_not_the_end),
      T(the_end_of_the_peer_ends_it), T(a_protocol_may_bring_its_own_memory), T(answers_are_not_joined),
      T(what_waits_stays_apart), T(the_marks_pause_and_resume), T(the_cap_counts_empty_ones_too),
      T(closing_sends_what_waits), T(more_parts_than_a_call_takes_are_one_message),
      T(a_message_no_socket_takes_is_refused), T(a_message_that_came_too_long_is_the_end),
      T(who_pauses_gets_no_further_message), T(who_ends_the_run_gets_no_further_message),
      T(one_peer_leaves_turns_to_others), T(question_and_answer), T(descriptors_come_with_their_message),
      T(descriptors_wait_with_their_message), T(those_of_a_refused_message_are_closed),
      T(a_server_and_a_connection_find_each_other), T(a_descriptor_is_what_it_is), T(a_relay_keeps_them_apart),
      T(files_have_no_messages))
