/* SPDX-License-Identifier: MIT
 *
 * libevent with libevent_openssl: a bufferevent over the socket itself (bufferevent_openssl_socket_new),
 * which its authors call faster than a filter over another bufferevent. Echoed bytes move from buffer to
 * buffer, and a source's block is referred to, without a copy.
 */
#include "bench_tls.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

typedef struct server {
  SSL_CTX *ctx;
  bench_tls_work_t work;
} server_t;

static void echo(struct bufferevent *stream, void *arg) {
  (void)arg;
  bufferevent_write_buffer(stream, bufferevent_get_input(stream));
}

static void answer(struct bufferevent *stream, void *arg) {
  struct evbuffer *input = bufferevent_get_input(stream), *output = bufferevent_get_output(stream);
  unsigned *state = arg;
  struct evbuffer_iovec part;
  while (evbuffer_peek(input, -1, NULL, &part, 1) > 0 && part.iov_len > 0) {
    for (size_t n = bench_tls_requests(state, part.iov_base, part.iov_len); n > 0; n--)
      evbuffer_add(output, bench_tls_response, bench_tls_response_size);
    evbuffer_drain(input, part.iov_len);
  }
}

static void forget(struct bufferevent *stream, void *arg) {
  (void)arg;
  struct evbuffer *input = bufferevent_get_input(stream);
  evbuffer_drain(input, evbuffer_get_length(input));
}

/* Without a copy. Called when all is gone. */
static void write_on(struct bufferevent *stream, void *arg) {
  (void)arg;
  evbuffer_add_reference(bufferevent_get_output(stream), bench_tls_block, sizeof bench_tls_block, NULL, NULL);
}

static void on_event(struct bufferevent *stream, short events, void *arg) {
  if (events & (BEV_EVENT_EOF | BEV_EVENT_ERROR)) {
    bufferevent_free(stream);
    free(arg);
  }
}

/* libevent calls the write callback also when the handshake is over. */
static void on_connection(struct evconnlistener *listener, evutil_socket_t fd, struct sockaddr *address,
                          int size, void *arg) {
  (void)address, (void)size;
  static const bufferevent_data_cb readers[] = {echo, answer, forget, forget};
  server_t *server = arg;
  bench_tls_nodelay(fd);
  struct bufferevent *stream =
      bufferevent_openssl_socket_new(evconnlistener_get_base(listener), fd, SSL_new(server->ctx),
                                     BUFFEREVENT_SSL_ACCEPTING, BEV_OPT_CLOSE_ON_FREE);
  if (stream == NULL) bench_tls_die("bufferevent_openssl_socket_new");
  bufferevent_openssl_set_allow_dirty_shutdown(stream, 1);
  bufferevent_data_cb writer = server->work == BENCH_TLS_SOURCE ? write_on : NULL;
  bufferevent_setcb(stream, readers[server->work], writer, on_event, calloc(1, sizeof(unsigned)));
  bufferevent_set_max_single_read(stream, BENCH_TLS_BUFFER);
  bufferevent_set_max_single_write(stream, BENCH_TLS_BLOCK);
  bufferevent_enable(stream, EV_READ | EV_WRITE);
  if (writer != NULL) writer(stream, NULL);
}

void peer_serve_tls(bench_tls_work_t work, const char *certificate, const char *key) {
  server_t server = {.ctx = SSL_CTX_new(TLS_server_method()), .work = work};
  if (server.ctx == NULL || SSL_CTX_use_certificate_chain_file(server.ctx, certificate) != 1 ||
      SSL_CTX_use_PrivateKey_file(server.ctx, key, SSL_FILETYPE_PEM) != 1)
    bench_tls_die("certificate");
  struct event_config *config = event_config_new();
  event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK | EVENT_BASE_FLAG_EPOLL_USE_CHANGELIST);
  struct event_base *base = event_base_new_with_config(config);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  struct evconnlistener *listener =
      evconnlistener_new_bind(base, on_connection, &server, LEV_OPT_CLOSE_ON_FREE | LEV_OPT_REUSEABLE,
                              BENCH_TLS_BACKLOG, (struct sockaddr *)&address, sizeof address);
  if (listener == NULL) bench_tls_die("evconnlistener_new_bind");
  bench_tls_listening(evconnlistener_get_fd(listener));
  event_base_dispatch(base);
}
