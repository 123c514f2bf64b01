/* SPDX-License-Identifier: MIT
 *
 * Wrong calls of datagram endpoints: see misuse.h for what is checked with each. pollers: all, threads: yes
 */
#include "misuse.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char byte[1];

static struct sockaddr *loopback(void) {
  static struct sockaddr_in address = {.sin_family = AF_INET};
  return (struct sockaddr *)(void *)&address;
}

enum { SIZE = sizeof(struct sockaddr_in) };

static aloop_datagram_t *given;

static void made(aloop_datagram_t *endpoint, void *protocol) {
  (void)protocol;
  given = aloop_datagram_ref(endpoint);
}

static const aloop_datagram_protocol_t protocol = {.size = sizeof protocol, .connection_made = made};

static aloop_datagram_t *open_endpoint(aloop_t *loop) {
  aloop_datagram_options_t options = {.size = sizeof options, .family = AF_INET};
  given = NULL;
  aloop_future_t *future = aloop_create_datagram_endpoint(loop, &protocol, NULL, &options);
  for (int i = 0; i < 10 && given == NULL; i++) aloop_run_once(loop, 0);
  aloop_future_unref(future);
  if (given == NULL) abort();
  return given;
}

#define OPEN(...)                                                                                              \
  aloop_create_datagram_endpoint(                                                                              \
      m->loop, &protocol, m,                                                                                   \
      &(aloop_datagram_options_t){.size = sizeof(aloop_datagram_options_t), __VA_ARGS__})

static void paths_that_contradict(misuse_t *m) {
  MISTAKE_OF_FUTURE(OPEN(.local_path = ""), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(OPEN(.remote_path = ""), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(OPEN(.remote_path = "a\0b", .remote_path_size = 3), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(OPEN(.family = AF_UNIX, .local_path_size = 3), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(OPEN(.family = AF_UNIX, .remote_path_size = 3), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(OPEN(.local_path = "x", .local = loopback(), .local_size = SIZE), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(OPEN(.remote_path = "x", .remote = loopback(), .remote_size = SIZE), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(OPEN(.local_path = "x", .local_port = 5), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(OPEN(.remote_path = "x", .remote_host = "localhost", .remote_port = 5), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(OPEN(.local_path = "x", .family = AF_INET), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(OPEN(.local_path = "x", .fd = 5), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(OPEN(.local_path = "x", .mode = 0100600), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(OPEN(.local_path = "\0x", .local_path_size = 2, .mode = 0600), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(OPEN(.remote_path = "x", .mode = 0600), ALOOP_EINVAL);
  ORDINARY_OF_FUTURE(OPEN(.remote_path = "nowhere/at all"), ALOOP_ENOENT);
  ORDINARY_OF_FUTURE(OPEN(.local_path = "nowhere/at all"), ALOOP_ENOENT);
}

static void paths(void **state) {
  in_both_modes(*state, paths_that_contradict);
}

static void without_an_endpoint(misuse_t *m) {
  aloop_message_t message = {.data = byte, .size = 1};
  MISTAKE(aloop_create_datagram_endpoint(NULL, &protocol, NULL, NULL), 0);
  ORDINARY(aloop_datagram_ref(NULL), 0);
  ORDINARY_OF_VOID(aloop_datagram_unref(NULL));
  MISTAKE(aloop_datagram_loop(NULL), 0);
  MISTAKE(aloop_datagram_sendto(NULL, byte, 1, NULL, 0), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_send_many(NULL, &message, 1), ALOOP_EINVAL);
  MISTAKE_OF_VOID(aloop_datagram_close(NULL));
  MISTAKE_OF_VOID(aloop_datagram_abort(NULL));
  MISTAKE(aloop_datagram_is_closing(NULL), true);
  MISTAKE(aloop_datagram_set_write_buffer_limits(NULL, -1, -1), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_get_write_buffer_limits(NULL, OUT, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_set_write_buffer_cap(NULL, 0), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_get_write_buffer_size(NULL), 0);
  MISTAKE(aloop_datagram_set_protocol(NULL, &protocol, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_get_protocol(NULL, OUT), 0);
  MISTAKE(aloop_datagram_fd(NULL), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_sockname(NULL, OUT, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_peername(NULL, OUT, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_join(NULL, loopback(), SIZE, 0), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_leave(NULL, loopback(), SIZE, 0), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_set_multicast_ttl(NULL, 1), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_set_multicast_loop(NULL, true), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_set_multicast_interface(NULL, 0), ALOOP_EINVAL);
}

#define OPENS(...)                                                                                             \
  aloop_create_datagram_endpoint(                                                                              \
      m->loop, &protocol, NULL,                                                                                \
      &(aloop_datagram_options_t){.size = sizeof(aloop_datagram_options_t), __VA_ARGS__})

static void opening(misuse_t *m) {
  static const aloop_datagram_protocol_t sizeless = {.size = 0};
  aloop_datagram_options_t options = {.size = 0};
  int fds[2];
  make_socketpair(fds);
  MISTAKE_OF_FUTURE(aloop_create_datagram_endpoint(m->loop, NULL, NULL, &options), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_create_datagram_endpoint(m->loop, &sizeless, NULL, &options), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_create_datagram_endpoint(m->loop, &protocol, NULL, NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_create_datagram_endpoint(m->loop, &protocol, NULL, &options), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(OPENS(.reuse_address = true, .local_host = "127.0.0.1"), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(OPENS(.local_port = -1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(OPENS(.remote_host = "127.0.0.1", .remote_port = 70000), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(OPENS(.remote = loopback(), .remote_size = 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(OPENS(.fd = fds[0]), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(OPENS(.fd = -1), ALOOP_EBADF);
  MISTAKE_OF_FUTURE(OPENS(.fd = fds[0], .bind_any = true), ALOOP_EINVAL);
  close(fds[0]);
  close(fds[1]);
}

static void sending(misuse_t *m) {
  aloop_datagram_t *endpoint = m->arg;
  aloop_message_t message = {.data = NULL, .size = 1, .address = loopback(), .address_size = SIZE};
  MISTAKE(aloop_datagram_sendto(endpoint, byte, 1, NULL, 0), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_sendto(endpoint, NULL, 1, loopback(), SIZE), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_sendto(endpoint, byte, 1, loopback(), 0), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_sendto(endpoint, byte, 1, loopback(), 4096), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_send_many(endpoint, NULL, 1), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_send_many(endpoint, &message, 1), ALOOP_EINVAL);
}

static void settings(misuse_t *m) {
  aloop_datagram_t *endpoint = m->arg;
  static const aloop_datagram_protocol_t sizeless = {.size = 0};
  MISTAKE(aloop_datagram_set_write_buffer_limits(endpoint, 1, 2), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_set_write_buffer_limits(endpoint, (int64_t)1 << 40, -1), ALOOP_ERANGE);
  MISTAKE(aloop_datagram_get_write_buffer_limits(endpoint, NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_set_protocol(endpoint, NULL, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_set_protocol(endpoint, &sizeless, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_sockname(endpoint, NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_join(endpoint, NULL, SIZE, 0), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_leave(endpoint, loopback(), 0, 0), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_set_multicast_ttl(endpoint, 256), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_set_multicast_interface(endpoint, 1u << 31), ALOOP_EINVAL);
  MISTAKE(aloop_datagram_peername(endpoint, OUT, NULL), ALOOP_EINVAL);
  ORDINARY(aloop_datagram_peername(endpoint, OUT, &(socklen_t){1024}), ALOOP_ENOTCONN);
}

static void after_the_end(misuse_t *m) {
  aloop_datagram_t *endpoint = m->arg;
  ORDINARY(aloop_datagram_sendto(endpoint, byte, 1, loopback(), SIZE), ALOOP_ECLOSED);
  ORDINARY(aloop_datagram_fd(endpoint), ALOOP_ECLOSED);
  ORDINARY_OF_VOID(aloop_datagram_close(endpoint));
  ORDINARY_OF_VOID(aloop_datagram_abort(endpoint));
  ORDINARY(aloop_datagram_is_closing(endpoint), true);
}

static void of_another_thread(misuse_t *m) {
  aloop_datagram_t *endpoint = m->arg;
  aloop_message_t message = {.data = byte, .size = 1};
  MISTAKE(OPENS(.family = AF_INET), 0);
  MISTAKE(aloop_datagram_ref(endpoint), 0);
  MISTAKE_OF_VOID(aloop_datagram_unref(endpoint));
  MISTAKE(aloop_datagram_sendto(endpoint, byte, 1, loopback(), SIZE), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_datagram_send_many(endpoint, &message, 1), ALOOP_ENOTLOOPTHREAD);
  MISTAKE_OF_VOID(aloop_datagram_close(endpoint));
  MISTAKE_OF_VOID(aloop_datagram_abort(endpoint));
  MISTAKE(aloop_datagram_is_closing(endpoint), true);
  MISTAKE(aloop_datagram_set_write_buffer_limits(endpoint, -1, -1), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_datagram_get_write_buffer_limits(endpoint, OUT, OUT), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_datagram_set_write_buffer_cap(endpoint, 0), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_datagram_get_write_buffer_size(endpoint), 0);
  MISTAKE(aloop_datagram_set_protocol(endpoint, &protocol, NULL), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_datagram_get_protocol(endpoint, OUT), 0);
  MISTAKE(aloop_datagram_fd(endpoint), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_datagram_sockname(endpoint, OUT, OUT), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_datagram_peername(endpoint, OUT, OUT), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_datagram_join(endpoint, loopback(), SIZE, 0), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_datagram_leave(endpoint, loopback(), SIZE, 0), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_datagram_set_multicast_ttl(endpoint, 1), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_datagram_set_multicast_loop(endpoint, true), ALOOP_ENOTLOOPTHREAD);
  MISTAKE(aloop_datagram_set_multicast_interface(endpoint, 0), ALOOP_ENOTLOOPTHREAD);
}

static void null_endpoints(void **state) {
  in_both_modes(*state, without_an_endpoint);
}

static void options_of_endpoints(void **state) {
  in_both_modes(*state, opening);
}

static void with_an_endpoint(env_t *env, misuse_fn body, bool ended) {
  for (int debug = 0; debug < 2; debug++) {
    misuse_t m;
    misuse_begin(&m, env, debug);
    aloop_datagram_t *endpoint = open_endpoint(m.loop);
    m.arg = endpoint;
    if (ended) aloop_datagram_abort(endpoint);
    for (int i = 0; i < 5; i++) aloop_run_once(m.loop, 0);
    if (body == of_another_thread && debug)
      misuse_in_thread(&m, body);
    else if (body != of_another_thread)
      misuse_in_callback(&m, body);
    aloop_datagram_abort(endpoint);
    for (int i = 0; i < 5; i++) aloop_run_once(m.loop, 0);
    aloop_datagram_unref(endpoint);
    misuse_end(&m);
  }
}

static void datagrams_that_cannot_be_sent(void **state) {
  with_an_endpoint(*state, sending, false);
}

static void settings_of_endpoints(void **state) {
  with_an_endpoint(*state, settings, false);
}

static void endpoints_that_have_ended(void **state) {
  with_an_endpoint(*state, after_the_end, true);
}

static void another_thread(void **state) {
  with_an_endpoint(*state, of_another_thread, false);
}

TESTS(T(paths), T(null_endpoints), T(options_of_endpoints), T(datagrams_that_cannot_be_sent),
      T(settings_of_endpoints), T(endpoints_that_have_ended), T(another_thread))
