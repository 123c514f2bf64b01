/* SPDX-License-Identifier: MIT
 *
 * asio (standalone) with asio::ssl::stream, without locks and with sockets typed on io_context's own
 * executor, as bench_asio.cc. ssl::stream has a buffer of 17 KiB of its own for each direction of a
 * connection; the buffer for what was read is a connection's, as nothing else is safe while a write of it is
 * under way.
 */
#include "bench_tls.h"

#include <array>
#include <asio.hpp>
#include <asio/ssl.hpp>
#include <memory>

using socket_type = asio::basic_stream_socket<asio::ip::tcp, asio::io_context::executor_type>;
using acceptor_type = asio::basic_socket_acceptor<asio::ip::tcp, asio::io_context::executor_type>;
using stream_type = asio::ssl::stream<socket_type>;
using asio::ip::tcp;

/* A connection is owned by the handler of its pending operation: it ends when none is started. */
class connection : public std::enable_shared_from_this<connection> {
public:
  connection(socket_type socket, asio::ssl::context &context, bench_tls_work_t work)
      : stream_(std::move(socket), context), work_(work) {
    stream_.next_layer().set_option(tcp::no_delay(true));
  }

  void start() {
    stream_.async_handshake(asio::ssl::stream_base::server,
                            [self = shared_from_this()](const asio::error_code &error) {
                              if (!error) self->go_on();
                            });
  }

private:
  void go_on() {
    if (work_ == BENCH_TLS_SOURCE)
      write(asio::buffer(bench_tls_block));
    else
      read();
  }

  void read() {
    stream_.async_read_some(asio::buffer(buffer_),
                            [self = shared_from_this()](const asio::error_code &error, size_t size) {
                              if (!error) self->received(size);
                            });
  }

  template <class buffers> void write(const buffers &what) {
    asio::async_write(stream_, what, [self = shared_from_this()](const asio::error_code &error, size_t) {
      if (!error) self->go_on();
    });
  }

  void received(size_t size) {
    if (work_ == BENCH_TLS_ECHO)
      write(asio::buffer(buffer_.data(), size));
    else if (work_ == BENCH_TLS_HTTP)
      answer(bench_tls_requests(&state_, buffer_.data(), size));
    else
      read();
  }

  void answer(size_t count) {
    if (count == 1) {
      write(asio::buffer(bench_tls_response, bench_tls_response_size));
    } else {
      answers_.clear();
      while (count-- > 0) answers_.append(bench_tls_response, bench_tls_response_size);
      write(asio::buffer(answers_));
    }
  }

  stream_type stream_;
  bench_tls_work_t work_;
  unsigned state_ = 0;
  std::string answers_;
  std::array<char, 16384> buffer_;
};

static void accept_next(acceptor_type &acceptor, asio::ssl::context &context, bench_tls_work_t work) {
  acceptor.async_accept([&acceptor, &context, work](const asio::error_code &error, socket_type socket) {
    if (!error) std::make_shared<connection>(std::move(socket), context, work)->start();
    accept_next(acceptor, context, work);
  });
}

void peer_serve_tls(bench_tls_work_t work, const char *certificate, const char *key) {
  asio::io_context loop(ASIO_CONCURRENCY_HINT_UNSAFE);
  asio::ssl::context context(asio::ssl::context::tls_server);
  context.use_certificate_chain_file(certificate);
  context.use_private_key_file(key, asio::ssl::context::pem);
  acceptor_type acceptor(loop, tcp::endpoint(asio::ip::address_v4::loopback(), 0), true);
  acceptor.listen(BENCH_TLS_BACKLOG);
  bench_tls_listening(acceptor.native_handle());
  accept_next(acceptor, context, work);
  loop.run();
}
