/* SPDX-License-Identifier: MIT
 *
 * What is told about TLS connections, when, and about which. pollers: all
 */
#include "mocktls.h"

#include <string.h>
#include <unistd.h>

static void ask_at_the_end(tape_t *tape) {
  aloop_tls_info_t info = {.size = sizeof info};
  *(int *)tape->arg = aloop_transport_tls_info(tape->transport, &info);
}

static void the_engine_answers(void **state) {
  env_t *env = *state;
  int last = 1;
  tape_t tape = {.env = env, .on[LOST] = ask_at_the_end, .arg = &last};
  aloop_tls_info_t info = {.size = sizeof info};
  const void *der;
  size_t size;
  char bond[8];
  mock_begin();
  int peer = open_mock_client(&tape, &plain_protocol);
  assert_int_equal(aloop_transport_tls_info(tape.transport, &info), 0);
  assert_string_equal(info.version, "mock");
  assert_string_equal(info.server_name, "server.test");
  assert_null(info.alpn);
  assert_int_equal(info.certificates, 1);
  assert_int_equal(aloop_transport_tls_certificate(tape.transport, 0, &der, &size), 0);
  assert_memory_equal(der, "certificate", size);
  assert_int_equal(aloop_transport_tls_certificate(tape.transport, 1, &der, &size), ALOOP_ENOENT);
  size = 2;
  assert_int_equal(aloop_transport_tls_binding(tape.transport, "tls-exporter", bond, &size), ALOOP_ENOBUFS);
  size = sizeof bond;
  assert_int_equal(aloop_transport_tls_binding(tape.transport, "tls-exporter", bond, &size), 0);
  assert_int_equal(size, 4);
  assert_int_equal(aloop_transport_tls_binding(tape.transport, "tls-unique", bond, &size), ALOOP_ENOTSUP);
  assert_null(aloop_transport_tls_error(tape.transport));
  aloop_transport_ref(tape.transport);
  aloop_transport_t *kept = tape.transport;
  end_tape(&tape, peer);
  assert_int_equal(last, 0);
  assert_int_equal(aloop_transport_tls_info(kept, &info), ALOOP_ECLOSED);
  assert_int_equal(aloop_transport_tls_certificate(kept, 0, &der, &size), ALOOP_ECLOSED);
  aloop_transport_unref(kept);
}

static void an_older_caller_gets_the_members_it_knows(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  aloop_tls_info_t info = {.size = offsetof(aloop_tls_info_t, cipher), .cipher = "untouched"};
  mock_begin();
  int peer = open_mock_server(&tape, &plain_protocol);
  assert_int_equal(aloop_transport_tls_info(tape.transport, &info), 0);
  assert_string_equal(info.version, "mock");
  assert_string_equal(info.cipher, "untouched");
  assert_int_equal(info.size, offsetof(aloop_tls_info_t, cipher));
  end_tape(&tape, peer);
}

static void other_transports_have_no_tls(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  aloop_tls_info_t info = {.size = sizeof info};
  const void *der;
  size_t size = 0;
  int peer = open_tape(&tape, &plain_protocol);
  assert_int_equal(aloop_transport_tls_info(tape.transport, &info), ALOOP_ENOTSUP);
  assert_int_equal(aloop_transport_tls_certificate(tape.transport, 0, &der, &size), ALOOP_ENOTSUP);
  assert_int_equal(aloop_transport_tls_binding(tape.transport, "tls-exporter", &info, &size), ALOOP_ENOTSUP);
  assert_null(aloop_transport_tls_error(tape.transport));
  end_tape(&tape, peer);
}

static void addresses_are_those_of_the_socket(void **state) {
  env_t *env = *state;
  tape_t tape = {.env = env};
  struct sockaddr_storage name;
  socklen_t size = sizeof name;
  mock_begin();
  int peer = open_mock_server(&tape, &plain_protocol);
  assert_int_equal(aloop_transport_sockname(tape.transport, (struct sockaddr *)(void *)&name, &size), 0);
  assert_int_equal(name.ss_family, AF_UNIX);
  assert_true(aloop_transport_fd(tape.transport) >= 0);
  end_tape(&tape, peer);
}

TESTS(T(the_engine_answers), T(an_older_caller_gets_the_members_it_knows), T(other_transports_have_no_tls),
      T(addresses_are_those_of_the_socket))
