/* SPDX-License-Identifier: MIT
 *
 * Wrong calls around TLS: see misuse.h for what is checked with each. pollers: all
 */
#include "misuse.h"
#include "mocktls.h"

#include <string.h>
#include <unistd.h>

static const aloop_protocol_t protocol = {.size = sizeof protocol};

#define CONTEXT(...)                                                                                           \
  aloop_tls_context_new(&mock_engine,                                                                          \
                        &(aloop_tls_options_t){.size = sizeof(aloop_tls_options_t), __VA_ARGS__}, OUT)

static void contexts(misuse_t *m) {
  static const char *const empty[] = {""};
  aloop_tls_options_t options = {.size = sizeof options};
  aloop_tls_engine_t half = mock_engine;
  half.read = NULL;
  MISTAKE(aloop_tls_context_new(NULL, &options, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_tls_context_new(&half, &options, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_tls_context_new(&mock_engine, NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_tls_context_new(&mock_engine, &options, NULL), ALOOP_EINVAL);
  options.size = 0;
  MISTAKE(aloop_tls_context_new(&mock_engine, &options, OUT), ALOOP_EINVAL);
  MISTAKE(CONTEXT(.role = 2), ALOOP_EINVAL);
  MISTAKE(CONTEXT(.role = ALOOP_TLS_SERVER), ALOOP_EINVAL);
  MISTAKE(CONTEXT(.verify = 9), ALOOP_EINVAL);
  MISTAKE(CONTEXT(.verify = ALOOP_TLS_VERIFY_REQUIRED), ALOOP_EINVAL);
  MISTAKE(CONTEXT(.role = ALOOP_TLS_SERVER, .certificate_file = "x", .verify = ALOOP_TLS_VERIFY_CHAIN),
          ALOOP_EINVAL);
  MISTAKE(CONTEXT(.certificate_file = "x", .certificate = "x", .certificate_size = 1), ALOOP_EINVAL);
  MISTAKE(CONTEXT(.certificate = "x"), ALOOP_EINVAL);
  MISTAKE(CONTEXT(.certificate_file = "x", .key_file = "x", .key = "x", .key_size = 1), ALOOP_EINVAL);
  MISTAKE(CONTEXT(.key_file = "x"), ALOOP_EINVAL);
  MISTAKE(CONTEXT(.ca = "x"), ALOOP_EINVAL);
  MISTAKE(CONTEXT(.min_version = 0x0301), ALOOP_EINVAL);
  MISTAKE(CONTEXT(.min_version = ALOOP_TLS_1_3, .max_version = ALOOP_TLS_1_2), ALOOP_EINVAL);
  MISTAKE(CONTEXT(.alpn_count = 1), ALOOP_EINVAL);
  MISTAKE(CONTEXT(.alpn = empty, .alpn_count = 1), ALOOP_EINVAL);
  MISTAKE(CONTEXT(.ticket_key = "x", .ticket_key_size = 1), ALOOP_EINVAL);
  MISTAKE(CONTEXT(.kernel = 2), ALOOP_EINVAL);
  MISTAKE(CONTEXT(.kernel = -2), ALOOP_EINVAL);
  MISTAKE(aloop_tls_context_ref(NULL), 0);
  ORDINARY_OF_VOID(aloop_tls_context_unref(NULL));
}

static void names(misuse_t *m) {
  mock_begin();
  aloop_tls_context_t *server = mock_context(ALOOP_TLS_SERVER), *client = mock_context(ALOOP_TLS_CLIENT);
  aloop_tls_context_t *other = mock_context(ALOOP_TLS_SERVER);
  MISTAKE(aloop_tls_context_add_name(NULL, "x", other), ALOOP_EINVAL);
  MISTAKE(aloop_tls_context_add_name(server, NULL, other), ALOOP_EINVAL);
  MISTAKE(aloop_tls_context_add_name(server, "", other), ALOOP_EINVAL);
  MISTAKE(aloop_tls_context_add_name(server, "*", other), ALOOP_EINVAL);
  MISTAKE(aloop_tls_context_add_name(server, "a.*.b", other), ALOOP_EINVAL);
  MISTAKE(aloop_tls_context_add_name(server, "x", server), ALOOP_EINVAL);
  MISTAKE(aloop_tls_context_add_name(server, "x", client), ALOOP_EINVAL);
  MISTAKE(aloop_tls_context_add_name(client, "x", other), ALOOP_EINVAL);
  ORDINARY(aloop_tls_context_add_name(server, "x", NULL), ALOOP_ENOENT);
  aloop_tls_context_unref(server);
  aloop_tls_context_unref(client);
  aloop_tls_context_unref(other);
}

#define CONNECT(...)                                                                                           \
  aloop_create_connection(                                                                                     \
      m->loop, &protocol, m,                                                                                   \
      &(aloop_connect_options_t){                                                                              \
          .size = sizeof(aloop_connect_options_t), .host = "127.0.0.1", .port = 1, __VA_ARGS__})
#define SERVE(...)                                                                                             \
  aloop_create_server(                                                                                         \
      m->loop, &protocol, m,                                                                                   \
      &(aloop_server_options_t){.size = sizeof(aloop_server_options_t), .host = "127.0.0.1", __VA_ARGS__})
#define UNIX_CONNECT(...)                                                                                      \
  aloop_create_unix_connection(m->loop, &protocol, m,                                                          \
                               &(aloop_unix_connect_options_t){.size = sizeof(aloop_unix_connect_options_t),   \
                                                               .path = "nowhere",                              \
                                                               __VA_ARGS__})
#define UNIX_SERVE(...)                                                                                        \
  aloop_create_unix_server(m->loop, &protocol, m,                                                              \
                           &(aloop_unix_server_options_t){                                                     \
                               .size = sizeof(aloop_unix_server_options_t), .path = "nowhere/x", __VA_ARGS__})
#define ACCEPTED(...)                                                                                          \
  aloop_connect_accepted_socket(                                                                               \
      m->loop, &protocol, m, 0,                                                                                \
      &(aloop_accepted_options_t){.size = sizeof(aloop_accepted_options_t), __VA_ARGS__})

static void options(misuse_t *m) {
  mock_begin();
  aloop_tls_context_t *server = mock_context(ALOOP_TLS_SERVER), *client = mock_context(ALOOP_TLS_CLIENT);
  aloop_tls_context_t *strict = NULL;
  aloop_tls_options_t verify = {.size = sizeof verify};
  assert_int_equal(aloop_tls_context_new(&mock_engine, &verify, &strict), 0);
  aloop_accepted_options_t unsized = {.size = 0};
  MISTAKE_OF_FUTURE(CONNECT(.tls = server), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.server_hostname = "x"), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.tls_handshake_timeout = 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.tls = client, .tls_shutdown_timeout = -1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(CONNECT(.tls = strict, .server_hostname = ""), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.tls = client), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(SERVE(.tls_handshake_timeout = 1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(UNIX_CONNECT(.tls = strict), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(UNIX_CONNECT(.server_hostname = "x"), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(UNIX_SERVE(.tls = client), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(ACCEPTED(.tls = client), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(ACCEPTED(.tls = server, .tls_handshake_timeout = -1), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_connect_accepted_socket(m->loop, &protocol, m, 0, &unsized), ALOOP_EINVAL);
  ORDINARY_OF_FUTURE(UNIX_CONNECT(.tls = strict, .server_hostname = "x"), ALOOP_ENOENT);
  aloop_tls_context_unref(server);
  aloop_tls_context_unref(client);
  aloop_tls_context_unref(strict);
}

static void upgrades(misuse_t *m) {
  aloop_transport_t *transport = m->arg;
  mock_begin();
  aloop_tls_context_t *server = mock_context(ALOOP_TLS_SERVER);
  aloop_start_tls_options_t how = {.size = sizeof how, .tls = server};
  aloop_start_tls_options_t none = {.size = sizeof none}, unsized = {.tls = server};
  aloop_start_tls_options_t named = {.size = sizeof named, .tls = server, .server_hostname = "x"};
  aloop_protocol_t wrong = {0};
  aloop_tls_info_t info = {0};
  MISTAKE(aloop_start_tls(NULL, NULL, NULL, &how), 0);
  MISTAKE_OF_FUTURE(aloop_start_tls(transport, NULL, NULL, NULL), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_start_tls(transport, NULL, NULL, &unsized), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_start_tls(transport, NULL, NULL, &none), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_start_tls(transport, NULL, NULL, &named), ALOOP_EINVAL);
  MISTAKE_OF_FUTURE(aloop_start_tls(transport, &wrong, NULL, &how), ALOOP_EINVAL);
  MISTAKE(aloop_transport_tls_info(NULL, &info), ALOOP_EINVAL);
  MISTAKE(aloop_transport_tls_certificate(NULL, 0, OUT, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_transport_tls_binding(NULL, "x", OUT, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_transport_tls_error(NULL), 0);
  aloop_tls_context_unref(server);
}

static void questions(misuse_t *m) {
  aloop_transport_t *transport = m->arg;
  aloop_tls_info_t info = {0};
  size_t size = 1;
  MISTAKE(aloop_transport_tls_info(transport, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_transport_tls_info(transport, &info), ALOOP_EINVAL);
  MISTAKE(aloop_transport_tls_certificate(transport, 0, NULL, OUT), ALOOP_EINVAL);
  MISTAKE(aloop_transport_tls_certificate(transport, 0, OUT, NULL), ALOOP_EINVAL);
  MISTAKE(aloop_transport_tls_binding(transport, NULL, OUT, &size), ALOOP_EINVAL);
  MISTAKE(aloop_transport_tls_binding(transport, "x", NULL, &size), ALOOP_EINVAL);
  MISTAKE(aloop_transport_tls_binding(transport, "x", OUT, NULL), ALOOP_EINVAL);
}

static void contexts_made_wrongly(void **state) {
  in_both_modes(*state, contexts);
}

static void names_that_are_none(void **state) {
  in_both_modes(*state, names);
}

static void connections_and_servers(void **state) {
  in_both_modes(*state, options);
}

/* Over a connection of the loop under test, with TLS or without. */
static void over_a_connection(env_t *env, misuse_fn body, bool tls) {
  for (int debug = 0; debug < 2; debug++) {
    misuse_t m;
    misuse_begin(&m, env, debug);
    env_t own = *env;
    own.loop = m.loop;
    mock_begin();
    tape_t tape = {.env = &own};
    int peer = tls ? open_mock_server(&tape, &plain_protocol) : open_tape(&tape, &plain_protocol);
    m.arg = tape.transport;
    misuse_in_callback(&m, body);
    end_tape(&tape, peer);
    misuse_end(&m);
  }
}

static void start_tls_with_nonsense(void **state) {
  over_a_connection(*state, upgrades, false);
}

static void questions_without_a_place_for_answers(void **state) {
  over_a_connection(*state, questions, true);
}

TESTS(T(contexts_made_wrongly), T(names_that_are_none), T(connections_and_servers), T(start_tls_with_nonsense),
      T(questions_without_a_place_for_answers))
