/* SPDX-License-Identifier: MIT
 *
 * The OpenSSL engine and an attacker on the line. A client and a server of one loop are not joined: what each
 * sends comes out here, and the input is a program that carries it on, whole or in pieces, changes it, drops
 * some, adds some, cuts the line, while both sides write, pause and close. Or there is one side only, and the
 * rest of the input is what it gets from the line. What must hold, whatever the attacker does:
 *
 * - a protocol gets what the other one wrote, in order, or the beginning of that: never anything else;
 * - EOF comes only if the other one has ended its stream, and behind all of it; nothing comes after that;
 * - nobody but the two sides of a handshake that nobody has touched is told of a connection;
 * - connection_lost comes once for each connection_made; what ends without an error was ended by a side;
 * - on a line that nobody has touched everything arrives;
 * - every descriptor and every block of the loop is given back.
 *
 * Only the public header is used, and OpenSSL for a certificate. A broken promise traps.
 */
#include "fuzz.h"

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LINE_MAX_BYTES = 1 << 19, WRITE_MAX = 40000, ACTIONS = 300, PEM_MAX = 4096 };

typedef struct side {
  struct side *other;
  aloop_future_t *future;
  aloop_transport_t *transport;
  int line; /* the far end of its socket; -1: cut */
  size_t written, heard;
  bool made, eof, lost, paused, ended, aborted;
  int error;
  unsigned char *wire; /* what it has sent and nobody has carried yet */
  size_t wire_size;
} side_t;

static struct {
  aloop_t *loop;
  side_t client, server;
  bool touched; /* the line is not as it should be */
  bool alone;   /* the attacker is the other side */
} w;

static aloop_tls_context_t *serving, *going[2][2]; /* by version, and whether sessions are resumed */

static size_t some(size_t most) {
  unsigned small = byte();
  size_t size = small < 128 ? small + 1 : (small - 127) * 331u;
  return size < most ? size : most;
}

static unsigned char written_at(const side_t *side, size_t at) {
  return (unsigned char)(at * 13 + (at >> 8) + (side == &w.client ? 1 : 2));
}

/* ---- Contexts, once -------------------------------------------------------------------------------------- */

static void take_text(BIO *bio, char into[PEM_MAX]) {
  int size = BIO_read(bio, into, PEM_MAX - 1);
  MUST(size > 0);
  into[size] = '\0';
  BIO_free(bio);
}

/* One that is signed by itself, and believed. */
static void make_certificate(char certificate[PEM_MAX], char key[PEM_MAX]) {
  EVP_PKEY *pair = NULL;
  EVP_PKEY_CTX *maker = EVP_PKEY_CTX_new_id(EVP_PKEY_EC, NULL);
  MUST(EVP_PKEY_keygen_init(maker) == 1);
  MUST(EVP_PKEY_CTX_set_ec_paramgen_curve_nid(maker, NID_X9_62_prime256v1) == 1);
  MUST(EVP_PKEY_keygen(maker, &pair) == 1);
  EVP_PKEY_CTX_free(maker);
  X509 *x509 = X509_new();
  X509_set_version(x509, 2);
  X509_gmtime_adj(X509_getm_notBefore(x509), -86400);
  X509_gmtime_adj(X509_getm_notAfter(x509), 864000);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(x509), "CN", MBSTRING_ASC, (const unsigned char *)"fuzz", -1,
                             -1, 0);
  X509_set_issuer_name(x509, X509_get_subject_name(x509));
  X509_set_pubkey(x509, pair);
  X509_EXTENSION *name = X509V3_EXT_conf_nid(NULL, NULL, NID_subject_alt_name, "DNS:fuzz.test");
  X509_add_ext(x509, name, -1);
  X509_EXTENSION_free(name);
  MUST(X509_sign(x509, pair, EVP_sha256()) > 0);
  BIO *bio = BIO_new(BIO_s_mem());
  PEM_write_bio_X509(bio, x509);
  take_text(bio, certificate);
  bio = BIO_new(BIO_s_mem());
  PEM_write_bio_PrivateKey(bio, pair, NULL, NULL, 0, NULL, NULL);
  take_text(bio, key);
  X509_free(x509);
  EVP_PKEY_free(pair);
}

static void forget_contexts(void) {
  aloop_tls_context_unref(serving);
  for (int i = 0; i < 4; i++) aloop_tls_context_unref(going[i / 2][i % 2]);
}

static void make_contexts(void) {
  char certificate[PEM_MAX], key[PEM_MAX];
  if (serving != NULL) return;
  make_certificate(certificate, key);
  aloop_tls_options_t rules = {.size = sizeof rules,
                               .role = ALOOP_TLS_SERVER,
                               .certificate = certificate,
                               .certificate_size = strlen(certificate),
                               .key = key,
                               .key_size = strlen(key)};
  MUST(aloop_tls_context_new(aloop_tls_openssl(), &rules, &serving) == 0);
  for (int i = 0; i < 4; i++) {
    rules = (aloop_tls_options_t){.size = sizeof rules,
                                  .ca = certificate,
                                  .ca_size = strlen(certificate),
                                  .max_version = i / 2 == 0 ? ALOOP_TLS_1_2 : ALOOP_TLS_1_3,
                                  .session_cache = i % 2 == 0 ? -1 : 0};
    MUST(aloop_tls_context_new(aloop_tls_openssl(), &rules, &going[i / 2][i % 2]) == 0);
  }
  atexit(forget_contexts);
}

/* ---- The protocol ---------------------------------------------------------------------------------------- */

static void on_made(aloop_transport_t *transport, void *protocol) {
  side_t *side = protocol;
  MUST(!side->made && !side->lost && !w.alone);
  side->made = true;
  side->transport = aloop_transport_ref(transport);
}

static int on_data(aloop_transport_t *transport, void *protocol, const void *data, size_t size) {
  (void)transport;
  side_t *side = protocol;
  const unsigned char *bytes = data;
  MUST(side->made && !side->lost && !side->eof && !side->paused && !side->ended);
  MUST(size > 0 && size <= side->other->written - side->heard);
  for (size_t i = 0; i < size; i++, side->heard++) MUST(bytes[i] == written_at(side->other, side->heard));
  return 0;
}

static int on_eof(aloop_transport_t *transport, void *protocol) {
  (void)transport;
  side_t *side = protocol;
  MUST(side->made && !side->lost && !side->eof && !side->paused);
  MUST(side->other->ended && side->heard == side->other->written);
  side->eof = true;
  return 0;
}

static void on_lost(aloop_transport_t *transport, void *protocol, int error) {
  (void)transport;
  side_t *side = protocol;
  MUST(side->made && !side->lost);
  side->lost = true;
  side->error = error;
  MUST(error < 0 || side->ended || side->eof || side->aborted);
}

static const aloop_protocol_t protocol = {
    .size = sizeof protocol,
    .connection_made = on_made,
    .data_received = on_data,
    .eof_received = on_eof,
    .connection_lost = on_lost,
};

/* ---- What the sides do ----------------------------------------------------------------------------------- */

static void write_some(side_t *side) {
  static unsigned char bytes[WRITE_MAX];
  size_t size = some(sizeof bytes);
  for (size_t i = 0; i < size; i++) bytes[i] = written_at(side, side->written + i);
  if (side->written + size <= LINE_MAX_BYTES / 4 && aloop_transport_write(side->transport, bytes, size) == 0)
    side->written += size;
}

static void act(side_t *side) {
  if (side->transport == NULL || side->lost) return;
  switch (byte() % 8) {
  case 0:
    side->paused = aloop_transport_pause_reading(side->transport) == 0;
    break;
  case 1:
    if (aloop_transport_resume_reading(side->transport) == 0) side->paused = false;
    break;
  case 2:
    if (byte() % 16 != 0) break;
    side->ended = true;
    aloop_transport_close(side->transport);
    break;
  case 3:
    if (byte() % 64 != 0) break;
    side->aborted = w.touched = true;
    aloop_transport_abort(side->transport);
    break;
  default:
    write_some(side);
  }
}

/* ---- What the attacker does ------------------------------------------------------------------------------ */

static void take_in(side_t *side) {
  if (side->line < 0) return;
  ssize_t n = recv(side->line, side->wire + side->wire_size, LINE_MAX_BYTES - side->wire_size, MSG_DONTWAIT);
  if (n > 0) side->wire_size += (size_t)n;
  if (n == 0 && side->wire_size == 0 && side->other->line >= 0) shutdown(side->other->line, SHUT_WR);
}

/* Brings bytes to a side. Returns how many it took. */
static size_t bring(const side_t *side, const void *data, size_t size) {
  ssize_t n = side->line >= 0 ? send(side->line, data, size, MSG_DONTWAIT | MSG_NOSIGNAL) : (ssize_t)size;
  return n > 0 ? (size_t)n : 0;
}

static void drop(side_t *from, size_t size) {
  from->wire_size -= size;
  memmove(from->wire, from->wire + size, from->wire_size);
}

static size_t carry(side_t *from, size_t most) {
  take_in(from);
  size_t size = bring(from->other, from->wire, most < from->wire_size ? most : from->wire_size);
  drop(from, size);
  return size;
}

static void attack(side_t *from) {
  unsigned char forged[64];
  take_in(from);
  size_t at = from->wire_size > 0 ? some(SIZE_MAX) % from->wire_size : 0;
  switch (byte() % 6) {
  case 0: /* changes */
    if (from->wire_size == 0) return;
    from->wire[at] ^= (unsigned char)(1 + byte() % 255);
    break;
  case 1: /* drops */
    if (from->wire_size == 0) return;
    drop(from, at + 1);
    break;
  case 2: /* says it twice */
    if (from->wire_size == 0) return;
    if (bring(from->other, from->wire, at + 1) == 0) return;
    break;
  case 3: { /* makes something up */
    size_t size = byte() % sizeof forged;
    for (size_t i = 0; i < size; i++) forged[i] = (unsigned char)byte();
    if (bring(from->other, forged, size) == 0) return;
    break;
  }
  case 4: /* tells it to whom it came from */
    if (bring(from, from->wire, from->wire_size) == 0) return;
    break;
  default: /* cuts */
    if (byte() % 4 != 0 || from->line < 0) return;
    close(from->line);
    from->line = -1;
  }
  w.touched = true;
}

/* ---- A run ----------------------------------------------------------------------------------------------- */

static void run(unsigned turns) {
  while (turns-- > 0) MUST(aloop_run_once(w.loop, 0) >= 0);
}

static void begin(side_t *side, aloop_tls_context_t *context) {
  int fds[2];
  MUST(aloop_socketpair(SOCK_STREAM, fds) == 0);
  side->line = fds[1];
  side->other = side == &w.client ? &w.server : &w.client;
  side->wire = malloc(LINE_MAX_BYTES);
  MUST(side->wire != NULL);
  aloop_accepted_options_t as_server = {.size = sizeof as_server, .tls = context};
  aloop_connect_options_t as_client = {
      .size = sizeof as_client, .fd = fds[0], .tls = context, .server_hostname = "fuzz.test"};
  side->future = side == &w.server ? aloop_connect_accepted_socket(w.loop, &protocol, side, fds[0], &as_server)
                                   : aloop_create_connection(w.loop, &protocol, side, &as_client);
  MUST(side->future != NULL);
}

static void end(side_t *side) {
  if (side->line >= 0) close(side->line);
  aloop_future_unref(side->future);
  if (side->transport != NULL) aloop_transport_unref(side->transport);
  free(side->wire);
}

/* Everything moves that can. */
static void settle(void) {
  for (int turns = 0, idle = 0; idle < 4; turns++) {
    MUST(turns < 100000);
    size_t moved = carry(&w.client, SIZE_MAX) + carry(&w.server, SIZE_MAX);
    idle = aloop_run_once(w.loop, 0) > 0 || moved > 0 ? 0 : idle + 1;
  }
}

static void check_arrival(const side_t *side) {
  MUST(side->made);
  if (side->lost) MUST(side->error == 0 || side->other->lost);
  if (!side->paused && !side->ended && !side->lost) MUST(side->heard == side->other->written);
  if (!side->paused && side->other->ended && !side->ended)
    MUST(side->eof && side->heard == side->other->written);
}

static void between_two(unsigned how) {
  begin(&w.server, serving);
  begin(&w.client, going[how >> 1 & 1][how >> 2 & 1]);
  if (how & 8) settle(); /* the handshake is not what this is about */
  for (int i = 0; i < ACTIONS && fuzz.size > 0; i++) {
    unsigned kind = byte();
    side_t *side = kind & 128 ? &w.client : &w.server;
    if (kind % 8 < 3) act(side);
    if (kind % 8 >= 3 && kind % 8 < 6) carry(side, kind & 64 ? some(SIZE_MAX) : SIZE_MAX);
    if (kind % 8 == 6) run(byte() % 4);
    if (kind % 8 == 7 && (kind & 64) != 0) attack(side);
  }
  settle();
  if (!w.touched) {
    check_arrival(&w.client);
    check_arrival(&w.server);
  }
  end(&w.server);
  end(&w.client);
}

/* The attacker cannot have a connection: it knows no key. */
static void with_one(unsigned how) {
  side_t *side = how & 2 ? &w.client : &w.server;
  size_t piece = how >> 2;
  w.alone = true;
  begin(side, how & 2 ? going[1][0] : serving);
  run(3);
  while (fuzz.size > 0) {
    size_t size = piece > 0 && piece < fuzz.size ? piece : fuzz.size;
    size = size < 4096 ? size : 4096;
    if (bring(side, fuzz.data, size) < size) break;
    fuzz.data += size;
    fuzz.size -= size;
    run(2);
  }
  close(side->line);
  side->line = -1;
  for (int turns = 0; !aloop_future_done(side->future); turns++) {
    MUST(turns < 1000);
    run(1);
  }
  MUST(aloop_future_result(side->future) < 0);
  end(side);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static aloop_allocator_t allocator = {sizeof allocator, resize, release, NULL};
  const char *poller = size % 2 == 0 ? "poll" : "uring";
  aloop_options_t options = {.size = sizeof options, .poller = poller, .allocator = &allocator, .debug = -1};
  make_contexts();
  memset(&w, 0, sizeof w);
  begin_input(data, size);
  w.client.line = w.server.line = -1;
  MUST(aloop_new(&options, &w.loop) == 0);
  MUST(aloop_set_exception_handler(w.loop, ignore_report, NULL) == 0);
  unsigned how = byte();
  if (how & 1)
    with_one(how);
  else
    between_two(how);
  w.client.aborted = w.server.aborted = true;
  aloop_free(w.loop);
  MUST(fuzz.live == 0 && w.client.made == w.client.lost && w.server.made == w.server.lost);
  return 0;
}
