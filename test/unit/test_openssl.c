/* SPDX-License-Identifier: MIT
 *
 * The OpenSSL engine, with both ends in one loop: who is believed and who is refused, with which words; names,
 * protocols, versions, sessions that are resumed, and many bytes. pollers: all, needs: openssl
 */
#include "certs.h"
#include "mocktls.h"
#include "peers.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static cert_t ca, server_cert, client_cert, other_cert;

static void make_certificates(void) {
  cert_make_ca(&ca, "the CA");
  cert_issue(&server_cert, &ca, "DNS:server.test,IP:127.0.0.1", 10);
  cert_issue(&client_cert, &ca, "DNS:client.test", 10);
  cert_issue(&other_cert, &ca, "DNS:other.test,DNS:*.wild.test", 10);
}

static void free_certificates(void) {
  cert_free(&ca);
  cert_free(&server_cert);
  cert_free(&client_cert);
  cert_free(&other_cert);
}

/* ---- Contexts -------------------------------------------------------------------------------------------- */

static aloop_tls_options_t of_server(const cert_t *cert) {
  return (aloop_tls_options_t){.size = sizeof(aloop_tls_options_t),
                               .role = ALOOP_TLS_SERVER,
                               .certificate = cert->pem,
                               .certificate_size = strlen(cert->pem),
                               .key = cert->key,
                               .key_size = strlen(cert->key)};
}

static aloop_tls_options_t of_client(void) {
  return (aloop_tls_options_t){.size = sizeof(aloop_tls_options_t), .ca = ca.pem, .ca_size = strlen(ca.pem)};
}

static aloop_tls_context_t *context_of(aloop_tls_options_t options) {
  char text[256] = "";
  aloop_tls_context_t *context = NULL;
  options.message = text;
  options.message_size = sizeof text;
  int rc = aloop_tls_context_new(aloop_tls_openssl(), &options, &context);
  if (rc < 0) fail_msg("%s: %s", aloop_error_name(rc), text);
  return context;
}

/* ---- Two ends -------------------------------------------------------------------------------------------- */

typedef struct ends {
  env_t *env;
  tape_t server, client;
  aloop_future_t *accepted, *connected;
} ends_t;

static void begin(ends_t *ends, env_t *env, aloop_tls_context_t *server, aloop_tls_context_t *client,
                  const char *name) {
  int fds[2];
  *ends = (ends_t){.env = env, .server.env = env, .client.env = env};
  make_socketpair(fds);
  aloop_accepted_options_t as_server = {.size = sizeof as_server, .tls = server};
  aloop_connect_options_t as_client = {
      .size = sizeof as_client, .fd = fds[1], .tls = client, .server_hostname = name};
  ends->accepted = aloop_connect_accepted_socket(env->loop, &plain_protocol, &ends->server, fds[0], &as_server);
  ends->connected = aloop_create_connection(env->loop, &plain_protocol, &ends->client, &as_client);
}

static void shake(ends_t *ends) {
  int64_t connected = run_future(ends->env->loop, ends->connected);
  if (connected < 0) fail_msg("client: %s", aloop_future_message(ends->connected));
  int64_t accepted = run_future(ends->env->loop, ends->accepted);
  if (accepted < 0) fail_msg("server: %s", aloop_future_message(ends->accepted));
  aloop_future_unref(ends->connected);
  aloop_future_unref(ends->accepted);
  ends->connected = ends->accepted = NULL;
}

/* Runs until both know how it ended. */
static void end(ends_t *ends) {
  aloop_transport_close(ends->client.transport);
  run_until(ends->env->loop, &ends->client.lost);
  run_until(ends->env->loop, &ends->server.lost);
  assert_int_equal(ends->client.error, 0);
  assert_int_equal(ends->server.error, 0);
  release_tape(&ends->client, -1);
  release_tape(&ends->server, -1);
}

static aloop_tls_info_t info_of(const tape_t *tape) {
  aloop_tls_info_t info = {.size = sizeof info};
  assert_int_equal(aloop_transport_tls_info(tape->transport, &info), 0);
  return info;
}

/* The words of both sides' failures. */
static void expect_refusal(env_t *env, aloop_tls_context_t *server, aloop_tls_context_t *client,
                           const char *name, int client_error, const char *client_words, int server_error,
                           const char *server_words) {
  ends_t ends;
  begin(&ends, env, server, client, name);
  int64_t rc = run_future(env->loop, ends.connected);
  if (client_error != 0) {
    assert_int_equal(rc, client_error);
    if (strstr(aloop_future_message(ends.connected), client_words) == NULL)
      fail_msg("client: not \"%s\" but \"%s\"", client_words, aloop_future_message(ends.connected));
  }
  rc = run_future(env->loop, ends.accepted);
  if (server_error != 0) {
    assert_int_equal(rc, server_error);
    if (strstr(aloop_future_message(ends.accepted), server_words) == NULL)
      fail_msg("server: not \"%s\" but \"%s\"", server_words, aloop_future_message(ends.accepted));
  }
  settle(env->loop);
  for (tape_t *tape = &ends.server;; tape = &ends.client) {
    if (tape->transport != NULL) aloop_transport_abort(tape->transport);
    settle(env->loop);
    if (tape->transport != NULL) aloop_transport_unref(tape->transport);
    if (tape == &ends.client) break;
  }
  settle(env->loop);
  aloop_future_unref(ends.connected);
  aloop_future_unref(ends.accepted);
}

/* ---- What works ------------------------------------------------------------------------------------------ */

static void speak(ends_t *ends) {
  put(&ends->client, "hello");
  run_until_count(ends->env->loop, (const int *)(const void *)&ends->server.size, 5);
  assert_memory_equal(ends->server.bytes, "hello", 5);
  put(&ends->server, "welcome");
  run_until_count(ends->env->loop, (const int *)(const void *)&ends->client.size, 7);
  assert_memory_equal(ends->client.bytes, "welcome", 7);
}

static void both_versions_work(void **state) {
  make_certificates();
  for (int version = ALOOP_TLS_1_2; version <= ALOOP_TLS_1_3; version++) {
    ends_t ends;
    aloop_tls_options_t options = of_client();
    options.max_version = version;
    aloop_tls_context_t *server = context_of(of_server(&server_cert)), *client = context_of(options);
    begin(&ends, *state, server, client, "server.test");
    shake(&ends);
    bool new = version == ALOOP_TLS_1_3;
    assert_string_equal(info_of(&ends.client).version, new ? "TLSv1.3" : "TLSv1.2");
    assert_string_equal(info_of(&ends.server).server_name, "server.test");
    assert_int_equal(info_of(&ends.client).certificates, 1);
    assert_int_equal(info_of(&ends.client).verify_error, 0);
    assert_int_equal(info_of(&ends.server).certificates, 0);
    assert_int_equal(aloop_transport_can_write_eof(ends.client.transport), new);
    speak(&ends);
    end(&ends);
    aloop_tls_context_unref(server);
    aloop_tls_context_unref(client);
  }
  free_certificates();
}

static void half_ends_work_in_tls_1_3(void **state) {
  ends_t ends;
  make_certificates();
  aloop_tls_context_t *server = context_of(of_server(&server_cert)), *client = context_of(of_client());
  begin(&ends, *state, server, client, "server.test");
  ends.server.answer[AT_EOF] = 1;
  shake(&ends);
  put(&ends.client, "question");
  assert_int_equal(aloop_transport_write_eof(ends.client.transport), 0);
  run_until(ends.env->loop, &ends.server.eof);
  put(&ends.server, "answer");
  aloop_transport_close(ends.server.transport);
  run_until(ends.env->loop, &ends.client.lost);
  run_until(ends.env->loop, &ends.server.lost);
  assert_memory_equal(ends.client.bytes, "answer", 6);
  assert_string_equal(ends.client.events, "MDEL");
  assert_int_equal(ends.client.error, 0);
  release_tape(&ends.client, -1);
  release_tape(&ends.server, -1);
  aloop_tls_context_unref(server);
  aloop_tls_context_unref(client);
  free_certificates();
}

enum { MANY = 5 * 1024 * 1024 };
static unsigned char many[MANY];

static void many_bytes_cross(void **state) {
  make_certificates();
  for (int version = ALOOP_TLS_1_2; version <= ALOOP_TLS_1_3; version++) {
    ends_t ends;
    aloop_tls_options_t options = of_client();
    options.max_version = version;
    aloop_tls_context_t *server = context_of(of_server(&server_cert)), *client = context_of(options);
    begin(&ends, *state, server, client, "server.test");
    shake(&ends);
    pattern(many, sizeof many, 7);
    assert_int_equal(aloop_transport_write(ends.client.transport, many, sizeof many), 0);
    assert_int_equal(aloop_transport_write(ends.server.transport, many, sizeof many), 0);
    assert_string_equal(ends.client.events, "MP");
    run_until_count(ends.env->loop, (const int *)(const void *)&ends.server.size, MANY);
    run_until_count(ends.env->loop, (const int *)(const void *)&ends.client.size, MANY);
    assert_memory_equal(ends.server.bytes, many, sizeof many);
    assert_memory_equal(ends.client.bytes, many, sizeof many);
    assert_int_equal(unsent(&ends.client), 0);
    end(&ends);
    aloop_tls_context_unref(server);
    aloop_tls_context_unref(client);
  }
  free_certificates();
}

static void addresses_are_names_too(void **state) {
  ends_t ends;
  make_certificates();
  aloop_tls_context_t *server = context_of(of_server(&server_cert)), *client = context_of(of_client());
  begin(&ends, *state, server, client, "127.0.0.1");
  shake(&ends);
  assert_null(info_of(&ends.server).server_name);
  end(&ends);
  begin(&ends, *state, server, client, "server.test."); /* the dot of a complete name */
  shake(&ends);
  assert_string_equal(info_of(&ends.server).server_name, "server.test");
  end(&ends);
  expect_refusal(*state, server, client, "127.0.0.2", ALOOP_ETLS_VERIFY, "IP address mismatch", 0, NULL);
  aloop_tls_context_unref(server);
  aloop_tls_context_unref(client);
  free_certificates();
}

/* ---- Who is refused -------------------------------------------------------------------------------------- */

static void certificates_that_are_no_good_are_refused(void **state) {
  cert_t expired, alone, foreign_ca, foreign;
  make_certificates();
  cert_issue(&expired, &ca, "DNS:server.test", -1);
  cert_issue(&alone, NULL, "DNS:server.test", 10);
  cert_make_ca(&foreign_ca, "another CA");
  cert_issue(&foreign, &foreign_ca, "DNS:server.test", 10);
  const struct {
    const cert_t *cert;
    const char *name;
    const char *words;
    const char *alert;
  } cases[] = {
      {&expired, "server.test", "certificate verify failed: certificate has expired", "certificate expired"},
      {&alone, "server.test", "certificate verify failed: self", "unknown CA"},
      {&foreign, "server.test", "unable to get local issuer certificate", "unknown CA"},
      {&server_cert, "wrong.test", "mismatch: the certificate is not for wrong.test", "bad certificate"},
  };
  aloop_tls_options_t options = of_client();
  options.max_version = ALOOP_TLS_1_2; /* where the server waits for the client's consent */
  aloop_tls_context_t *client = context_of(options);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    aloop_tls_context_t *server = context_of(of_server(cases[i].cert));
    expect_refusal(*state, server, client, cases[i].name, ALOOP_ETLS_VERIFY, cases[i].words, ALOOP_ETLS_ALERT,
                   cases[i].alert);
    aloop_tls_context_unref(server);
  }
  aloop_tls_context_unref(client);
  cert_free(&expired);
  cert_free(&alone);
  cert_free(&foreign_ca);
  cert_free(&foreign);
  free_certificates();
}

static void who_believes_everybody_is_told_what_is_wrong(void **state) {
  ends_t ends;
  cert_t alone;
  cert_issue(&alone, NULL, "DNS:server.test", 10);
  aloop_tls_options_t options = {.size = sizeof options, .verify = ALOOP_TLS_VERIFY_NONE};
  aloop_tls_context_t *server = context_of(of_server(&alone)), *client = context_of(options);
  begin(&ends, *state, server, client, NULL);
  shake(&ends);
  assert_int_not_equal(info_of(&ends.client).verify_error, 0);
  assert_non_null(strstr(info_of(&ends.client).verify_text, "self"));
  end(&ends);
  aloop_tls_context_unref(server);
  aloop_tls_context_unref(client);
  cert_free(&alone);
}

static void the_chain_may_be_enough(void **state) {
  ends_t ends;
  make_certificates();
  aloop_tls_options_t options = of_client();
  options.verify = ALOOP_TLS_VERIFY_CHAIN;
  aloop_tls_context_t *server = context_of(of_server(&server_cert)), *client = context_of(options);
  begin(&ends, *state, server, client, "wrong.test");
  shake(&ends);
  end(&ends);
  aloop_tls_context_unref(server);
  aloop_tls_context_unref(client);
  free_certificates();
}

static void write_file(const char *name, const char *text) {
  int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, text, strlen(text)), strlen(text));
  close(fd);
}

static void revoked_certificates_are_refused(void **state) {
  char name[] = "/tmp/aloop-crl-XXXXXX", list[PEM_MAX];
  int fd = mkstemp(name);
  assert_true(fd >= 0);
  close(fd);
  make_certificates();
  aloop_tls_context_t *server = context_of(of_server(&server_cert));
  aloop_tls_options_t options = of_client();
  options.crl_file = name;
  cert_revoke(&ca, &server_cert, list);
  write_file(name, list);
  aloop_tls_context_t *client = context_of(options);
  expect_refusal(*state, server, client, "server.test", ALOOP_ETLS_VERIFY, "certificate revoked", 0, NULL);
  aloop_tls_context_unref(client);
  cert_revoke(&ca, NULL, list);
  write_file(name, list);
  client = context_of(options);
  ends_t ends;
  begin(&ends, *state, server, client, "server.test");
  shake(&ends);
  end(&ends);
  aloop_tls_context_unref(client);
  aloop_tls_context_unref(server);
  unlink(name);
  free_certificates();
}

static void clients_may_have_to_show_a_certificate(void **state) {
  ends_t ends;
  const void *der;
  size_t size;
  make_certificates();
  aloop_tls_options_t strict = of_server(&server_cert), known = of_client(), old = of_client();
  strict.ca = ca.pem;
  strict.ca_size = strlen(ca.pem);
  strict.verify = ALOOP_TLS_VERIFY_REQUIRED;
  known.certificate = client_cert.pem;
  known.certificate_size = strlen(client_cert.pem);
  known.key = client_cert.key;
  known.key_size = strlen(client_cert.key);
  old.max_version = ALOOP_TLS_1_2;
  aloop_tls_context_t *server = context_of(strict), *client = context_of(known),
                      *stranger = context_of(of_client());
  aloop_tls_context_t *old_stranger = context_of(old);
  begin(&ends, *state, server, client, "server.test");
  shake(&ends);
  assert_int_equal(info_of(&ends.server).certificates, 1);
  assert_int_equal(info_of(&ends.server).verify_error, 0);
  assert_int_equal(aloop_transport_tls_certificate(ends.server.transport, 0, &der, &size), 0);
  assert_true(size > 100);
  end(&ends);
  expect_refusal(*state, server, stranger, "server.test", 0, NULL, ALOOP_ETLS,
                 "peer did not return a certificate");
  expect_refusal(*state, server, old_stranger, "server.test", ALOOP_ETLS_ALERT,
                 "the peer says: handshake failure", ALOOP_ETLS, "peer did not return a certificate");
  aloop_tls_context_unref(server);
  strict.verify = ALOOP_TLS_VERIFY_OPTIONAL;
  server = context_of(strict);
  begin(&ends, *state, server, stranger, "server.test");
  shake(&ends);
  assert_int_equal(info_of(&ends.server).certificates, 0);
  end(&ends);
  aloop_tls_context_unref(server);
  aloop_tls_context_unref(client);
  aloop_tls_context_unref(stranger);
  aloop_tls_context_unref(old_stranger);
  free_certificates();
}

/* ---- What is agreed on ----------------------------------------------------------------------------------- */

static void protocols_are_chosen(void **state) {
  static const char *const of_the_server[] = {"h2", "http/1.1"}, *const of_the_client[] = {"http/1.1", "h2"};
  static const char *const unknown[] = {"spdy"};
  ends_t ends;
  make_certificates();
  aloop_tls_options_t left = of_server(&server_cert), right = of_client(), wrong = of_client();
  left.alpn = of_the_server;
  right.alpn = of_the_client;
  left.alpn_count = right.alpn_count = 2;
  wrong.alpn = unknown;
  wrong.alpn_count = 1;
  aloop_tls_context_t *server = context_of(left), *client = context_of(right), *stranger = context_of(wrong);
  aloop_tls_context_t *silent = context_of(of_client());
  begin(&ends, *state, server, client, "server.test");
  shake(&ends);
  assert_string_equal(info_of(&ends.client).alpn, "h2");
  assert_string_equal(info_of(&ends.server).alpn, "h2");
  end(&ends);
  begin(&ends, *state, server, silent, "server.test");
  shake(&ends);
  assert_null(info_of(&ends.client).alpn);
  end(&ends);
  expect_refusal(*state, server, stranger, "server.test", ALOOP_ETLS_ALERT,
                 "the peer says: no application protocol", ALOOP_ETLS, "no application protocol");
  aloop_tls_context_unref(server);
  aloop_tls_context_unref(client);
  aloop_tls_context_unref(stranger);
  aloop_tls_context_unref(silent);
  free_certificates();
}

static void versions_that_do_not_meet_are_refused(void **state) {
  make_certificates();
  aloop_tls_options_t new = of_server(&server_cert), old = of_client();
  new.min_version = ALOOP_TLS_1_3;
  old.max_version = ALOOP_TLS_1_2;
  aloop_tls_context_t *server = context_of(new), *client = context_of(old);
  expect_refusal(*state, server, client, "server.test", ALOOP_ETLS_ALERT, "protocol version", ALOOP_ETLS,
                 "unsupported protocol");
  aloop_tls_context_unref(server);
  aloop_tls_context_unref(client);
  free_certificates();
}

static void names_choose_the_certificate(void **state) {
  ends_t ends;
  make_certificates();
  aloop_tls_context_t *server = context_of(of_server(&server_cert)),
                      *other = context_of(of_server(&other_cert));
  aloop_tls_context_t *client = context_of(of_client());
  assert_int_equal(aloop_tls_context_add_name(server, "other.test", other), 0);
  assert_int_equal(aloop_tls_context_add_name(server, "*.wild.test", other), 0);
  aloop_tls_context_unref(other);
  static const char *const names[] = {"server.test", "other.test", "a.wild.test", "other.test"};
  for (int i = 0; i < 4; i++) {
    begin(&ends, *state, server, client, names[i]);
    shake(&ends);
    assert_string_equal(info_of(&ends.server).server_name, names[i]);
    speak(&ends);
    end(&ends);
  }
  aloop_tls_context_unref(server);
  aloop_tls_context_unref(client);
  free_certificates();
}

static void a_name_has_rules_of_its_own(void **state) {
  ends_t ends;
  make_certificates();
  aloop_tls_options_t strict = of_server(&other_cert), shared = of_server(&server_cert);
  static const unsigned char key[80] = {1, 2, 3};
  strict.ca = ca.pem;
  strict.ca_size = strlen(ca.pem);
  strict.verify = ALOOP_TLS_VERIFY_REQUIRED;
  aloop_tls_context_t *server = context_of(shared), *other = context_of(strict),
                      *client = context_of(of_client());
  (void)key;
  assert_int_equal(aloop_tls_context_add_name(server, "other.test", other), 0);
  begin(&ends, *state, server, client, "server.test");
  shake(&ends);
  speak(&ends);
  end(&ends);
  expect_refusal(*state, server, client, "other.test", 0, NULL, ALOOP_ETLS,
                 "peer did not return a certificate");
  aloop_tls_context_unref(server);
  aloop_tls_context_unref(other);
  aloop_tls_context_unref(client);
  free_certificates();
}

/* ---- Sessions -------------------------------------------------------------------------------------------- */

static int reused_times(env_t *env, aloop_tls_context_t *server, aloop_tls_context_t *client, const char *name,
                        int connections) {
  int reused = 0;
  for (int i = 0; i < connections; i++) {
    ends_t ends;
    begin(&ends, env, server, client, name);
    shake(&ends);
    speak(&ends);
    assert_int_equal(info_of(&ends.server).reused, info_of(&ends.client).reused);
    assert_int_equal(info_of(&ends.client).certificates, 1);
    assert_int_equal(info_of(&ends.client).verify_error, 0);
    reused += info_of(&ends.client).reused;
    end(&ends);
  }
  return reused;
}

static void sessions_are_resumed(void **state) {
  make_certificates();
  for (int version = ALOOP_TLS_1_2; version <= ALOOP_TLS_1_3; version++) {
    aloop_tls_options_t options = of_client(), none = of_server(&server_cert), forgetful = of_client();
    options.max_version = forgetful.max_version = version;
    none.tickets = -1;
    forgetful.session_cache = -1;
    aloop_tls_context_t *server = context_of(of_server(&server_cert)), *client = context_of(options);
    assert_int_equal(reused_times(*state, server, client, "server.test", 4), 3);
    /* Another name begins anew, and so does another server's context. */
    assert_int_equal(reused_times(*state, server, client, "127.0.0.1", 2), 1);
    aloop_tls_context_t *another = context_of(of_server(&server_cert));
    assert_int_equal(reused_times(*state, another, client, "server.test", 1), 0);
    aloop_tls_context_t *without = context_of(none), *forgetting = context_of(forgetful);
    assert_int_equal(reused_times(*state, without, client, "server.test", 3), 0);
    assert_int_equal(reused_times(*state, server, forgetting, "server.test", 3), 0);
    aloop_tls_context_unref(server);
    aloop_tls_context_unref(client);
    aloop_tls_context_unref(another);
    aloop_tls_context_unref(without);
    aloop_tls_context_unref(forgetting);
  }
  free_certificates();
}

static void servers_with_one_ticket_key_resume_each_others_sessions(void **state) {
  unsigned char key[80];
  make_certificates();
  pattern(key, sizeof key, 5);
  aloop_tls_options_t options = of_server(&server_cert);
  options.ticket_key = key;
  options.ticket_key_size = sizeof key;
  aloop_tls_context_t *first = context_of(options), *second = context_of(options),
                      *client = context_of(of_client());
  assert_int_equal(reused_times(*state, first, client, "server.test", 1), 0);
  assert_int_equal(reused_times(*state, second, client, "server.test", 1), 1);
  aloop_tls_context_unref(first);
  aloop_tls_context_unref(second);
  aloop_tls_context_unref(client);
  free_certificates();
}

/* ---- Bindings, keys, files ------------------------------------------------------------------------------- */

static void bindings_are_the_same_on_both_sides(void **state) {
  static const char *const types[] = {"tls-unique", "tls-exporter", "tls-server-end-point"};
  make_certificates();
  for (int version = ALOOP_TLS_1_2; version <= ALOOP_TLS_1_3; version++) {
    aloop_tls_options_t options = of_client();
    options.max_version = version;
    aloop_tls_context_t *server = context_of(of_server(&server_cert)), *client = context_of(options);
    for (int again = 0; again < 2; again++) {
      ends_t ends;
      begin(&ends, *state, server, client, "server.test");
      shake(&ends);
      speak(&ends);
      for (int i = 0; i < 3; i++) {
        char left[64], right[64];
        size_t left_size = sizeof left, right_size = sizeof right;
        int rc = aloop_transport_tls_binding(ends.server.transport, types[i], left, &left_size);
        assert_int_equal(aloop_transport_tls_binding(ends.client.transport, types[i], right, &right_size), rc);
        assert_int_equal(rc, i == 0 && version == ALOOP_TLS_1_3 ? ALOOP_ENOTSUP : 0);
        if (rc < 0) continue;
        assert_int_equal(left_size, right_size);
        assert_memory_equal(left, right, left_size);
        left_size = 1;
        assert_int_equal(aloop_transport_tls_binding(ends.server.transport, types[i], left, &left_size),
                         ALOOP_ENOBUFS);
      }
      char none[64];
      size_t size = sizeof none;
      assert_int_equal(aloop_transport_tls_binding(ends.server.transport, "x", none, &size), ALOOP_ENOTSUP);
      end(&ends);
    }
    aloop_tls_context_unref(server);
    aloop_tls_context_unref(client);
  }
  free_certificates();
}

static void keys_are_logged_on_request(void **state) {
  char name[] = "/tmp/aloop-keys-XXXXXX", text[4096] = "";
  struct stat file;
  make_certificates();
  assert_int_equal(close(mkstemp(name)), 0);
  unlink(name);
  aloop_tls_options_t options = of_server(&server_cert);
  options.keylog_file = name;
  aloop_tls_context_t *server = context_of(options), *client = context_of(of_client());
  assert_int_equal(reused_times(*state, server, client, "server.test", 1), 0);
  int fd = open(name, O_RDONLY);
  assert_true(fd >= 0);
  assert_int_equal(fstat(fd, &file), 0);
  assert_int_equal(file.st_mode & 0777, 0600);
  assert_true(read(fd, text, sizeof text - 1) > 0);
  assert_non_null(strstr(text, "SERVER_TRAFFIC_SECRET_0 "));
  close(fd);
  unlink(name);
  aloop_tls_context_unref(server);
  aloop_tls_context_unref(client);
  free_certificates();
}

static void expect_no_context(aloop_tls_options_t options, int code, const char *words) {
  char text[256] = "";
  aloop_tls_context_t *context = NULL;
  options.message = text;
  options.message_size = sizeof text;
  assert_int_equal(aloop_tls_context_new(aloop_tls_openssl(), &options, &context), code);
  if (strstr(text, words) == NULL) fail_msg("not \"%s\" but \"%s\"", words, text);
  assert_null(context);
}

static void what_cannot_be_loaded_is_named(void **state) {
  (void)state;
  char encrypted[PEM_MAX];
  make_certificates();
  aloop_tls_options_t options = {
      .size = sizeof options, .role = ALOOP_TLS_SERVER, .certificate_file = "/nowhere/cert.pem"};
  expect_no_context(options, ALOOP_ENOENT, "certificate /nowhere/cert.pem: no such entry");
  options.certificate_file = "/dev/null";
  expect_no_context(options, ALOOP_ETLS, "certificate /dev/null: no start line");
  options = of_server(&server_cert);
  options.key = other_cert.key;
  options.key_size = strlen(other_cert.key);
  expect_no_context(options, ALOOP_ETLS, "private key: key values mismatch");
  cert_encrypt(&server_cert, "secret", encrypted);
  options.key = encrypted;
  options.key_size = strlen(encrypted);
  expect_no_context(options, ALOOP_ETLS, "private key");
  options.key_password = "wrong";
  expect_no_context(options, ALOOP_ETLS, "private key");
  options.key_password = "secret";
  aloop_tls_context_unref(context_of(options));
  options = of_client();
  options.ciphers = "NONSENSE";
  expect_no_context(options, ALOOP_ETLS, "ciphers NONSENSE");
  options = of_client();
  options.ciphersuites = "NONSENSE";
  expect_no_context(options, ALOOP_ETLS, "ciphersuites NONSENSE");
  options = of_client();
  options.ca = "x";
  options.ca_size = 1;
  expect_no_context(options, ALOOP_ETLS, "CA certificates");
  options = of_client();
  options.crl_file = "/dev/null";
  expect_no_context(options, ALOOP_ETLS, "revoked certificates /dev/null");
  options.crl_file = NULL;
  options.keylog_file = "/nowhere/keys";
  expect_no_context(options, ALOOP_ENOENT, "key log /nowhere/keys");
  free_certificates();
}

/* ---- Attacks --------------------------------------------------------------------------------------------- */

static void garbage_is_refused(void **state) {
  static const char *const texts[] = {"GET / HTTP/1.0\r\n\r\n", "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
                                      "\x80\x2e\x01\x03\x01xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"};
  env_t *env = *state;
  make_certificates();
  aloop_tls_context_t *server = context_of(of_server(&server_cert));
  for (int i = 0; i < 3; i++) {
    int fds[2];
    tape_t tape = {.env = env};
    make_socketpair(fds);
    aloop_accepted_options_t options = {.size = sizeof options, .tls = server};
    aloop_future_t *future = aloop_connect_accepted_socket(env->loop, &plain_protocol, &tape, fds[0], &options);
    assert_int_equal(write(fds[1], texts[i], i == 1 ? 10 : strlen(texts[i])), i == 1 ? 10 : strlen(texts[i]));
    shutdown(fds[1], SHUT_WR);
    int64_t rc = run_future(env->loop, future);
    assert_true(rc == ALOOP_ETLS || rc == ALOOP_ECONNRESET);
    aloop_future_unref(future);
    settle(env->loop);
    assert_string_equal(tape.events, "");
    close(fds[1]);
  }
  aloop_tls_context_unref(server);
  free_certificates();
}

static void a_changed_record_ends_the_connection(void **state) {
  env_t *env = *state;
  ends_t ends;
  make_certificates();
  aloop_tls_context_t *server = context_of(of_server(&server_cert)), *client = context_of(of_client());
  begin(&ends, env, server, client, "server.test");
  shake(&ends);
  speak(&ends);
  static const char forged[] = "\x17\x03\x03\x00\x20xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
  assert_int_equal(send(aloop_transport_fd(ends.client.transport), forged, 37, 0), 37);
  run_until(env->loop, &ends.server.lost);
  assert_int_equal(ends.server.error, ALOOP_ETLS);
  run_until(env->loop, &ends.client.lost);
  assert_true(ends.client.error < 0);
  release_tape(&ends.server, -1);
  release_tape(&ends.client, -1);
  aloop_tls_context_unref(server);
  aloop_tls_context_unref(client);
  free_certificates();
}

/* ---- A slow line, and a cut one -------------------------------------------------------------------------- */

/* Two ends that are not joined: what each sends comes out at a descriptor of the test's. */
typedef struct line {
  ends_t ends;
  int of_server, of_client;
} line_t;

static void begin_line(line_t *line, env_t *env, aloop_tls_context_t *server, aloop_tls_context_t *client) {
  int left[2], right[2];
  *line = (line_t){.ends = {.env = env, .server.env = env, .client.env = env}};
  make_socketpair(left);
  make_socketpair(right);
  aloop_accepted_options_t as_server = {.size = sizeof as_server, .tls = server};
  aloop_connect_options_t as_client = {
      .size = sizeof as_client, .fd = right[0], .tls = client, .server_hostname = "server.test"};
  line->ends.accepted =
      aloop_connect_accepted_socket(env->loop, &plain_protocol, &line->ends.server, left[0], &as_server);
  line->ends.connected = aloop_create_connection(env->loop, &plain_protocol, &line->ends.client, &as_client);
  line->of_server = left[1];
  line->of_client = right[1];
}

/* One byte, if there is one. */
static int carry(int from, int to) {
  char byte;
  if (recv(from, &byte, 1, MSG_DONTWAIT) != 1) return 0;
  return send(to, &byte, 1, MSG_NOSIGNAL) == 1;
}

/* Carries bytes, a turn after each, until there were so many or nothing happens any more. Returns how many. */
static int carry_some(line_t *line, int most) {
  int total = 0;
  for (int quiet = 0; quiet < 8 && total < most;) {
    int n = carry(line->of_client, line->of_server);
    if (total + n < most) n += carry(line->of_server, line->of_client);
    total += n;
    quiet = n > 0 ? 0 : quiet + 1;
    run_turn(line->ends.env->loop);
  }
  return total;
}

static void end_line(line_t *line) {
  close(line->of_server);
  close(line->of_client);
  settle(line->ends.env->loop);
  aloop_future_unref(line->ends.accepted);
  aloop_future_unref(line->ends.connected);
  for (tape_t *tape = &line->ends.server;; tape = &line->ends.client) {
    assert_int_equal(tape->calls[MADE], tape->calls[LOST]);
    if (tape->transport != NULL) aloop_transport_unref(tape->transport);
    free(tape->bytes);
    if (tape == &line->ends.client) return;
  }
}

static void bytes_may_come_one_at_a_time(void **state) {
  make_certificates();
  for (int version = ALOOP_TLS_1_2; version <= ALOOP_TLS_1_3; version++) {
    line_t line;
    aloop_tls_options_t options = of_client();
    options.max_version = version;
    aloop_tls_context_t *server = context_of(of_server(&server_cert)), *client = context_of(options);
    begin_line(&line, *state, server, client);
    assert_true(carry_some(&line, 100000) > 1000);
    assert_int_equal(aloop_future_result(line.ends.accepted), 0);
    assert_int_equal(aloop_future_result(line.ends.connected), 0);
    put(&line.ends.client, "slowly");
    carry_some(&line, 1000);
    assert_int_equal(line.ends.server.size, 6);
    assert_memory_equal(line.ends.server.bytes, "slowly", 6);
    end_line(&line);
    aloop_tls_context_unref(server);
    aloop_tls_context_unref(client);
  }
  free_certificates();
}

static void a_line_may_be_cut_anywhere(void **state) {
  make_certificates();
  for (int version = ALOOP_TLS_1_2; version <= ALOOP_TLS_1_3; version++) {
    aloop_tls_options_t options = of_client();
    options.max_version = version;
    options.session_cache = -1;
    aloop_tls_context_t *server = context_of(of_server(&server_cert)), *client = context_of(options);
    int most = 0, whole = 1;
    for (; whole == 1; most += 11) {
      line_t line;
      begin_line(&line, *state, server, client);
      whole = carry_some(&line, most) == most;
      end_line(&line);
    }
    assert_true(most > 1000);
    aloop_tls_context_unref(server);
    aloop_tls_context_unref(client);
  }
  free_certificates();
}

TESTS(T(both_versions_work), T(half_ends_work_in_tls_1_3), T(many_bytes_cross), T(addresses_are_names_too),
      T(certificates_that_are_no_good_are_refused), T(who_believes_everybody_is_told_what_is_wrong),
      T(the_chain_may_be_enough), T(revoked_certificates_are_refused),
      T(clients_may_have_to_show_a_certificate), T(protocols_are_chosen),
      T(versions_that_do_not_meet_are_refused), T(names_choose_the_certificate), T(a_name_has_rules_of_its_own),
      T(sessions_are_resumed), T(servers_with_one_ticket_key_resume_each_others_sessions),
      T(bindings_are_the_same_on_both_sides), T(keys_are_logged_on_request), T(what_cannot_be_loaded_is_named),
      T(garbage_is_refused), T(a_changed_record_ends_the_connection), T(bytes_may_come_one_at_a_time),
      T(a_line_may_be_cut_anywhere))
