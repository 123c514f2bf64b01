/* SPDX-License-Identifier: MIT
 *
 * asio (standalone), as its users tune it: ASIO_CONCURRENCY_HINT_UNSAFE, which leaves all locks out, except
 * where other threads post (a hint of 1 there); sockets and timers typed on io_context's own executor instead
 * of the erased any_io_executor; handlers small enough for its recycled memory. A connection reads with
 * async_read_some into a buffer of its own, answers with a non-blocking write_some and only falls back to
 * async_write. asio::post is its call_soon, from any thread.
 *
 * Waiting for readability and reading into one shared buffer would save memory per connection and costs about
 * the same time (an epoll_ctl instead of a read that finds nothing), so the scenario `idle` uses that form, the
 * others the usual one.
 */
#include "bench.h"

#include <array>
#include <asio.hpp>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <sys/sendfile.h>
#include <vector>

extern "C" const char *const peer_name = "asio";

using executor = asio::io_context::executor_type;
using timer_type = asio::basic_waitable_timer<std::chrono::steady_clock,
                                              asio::wait_traits<std::chrono::steady_clock>, executor>;
using socket_type = asio::basic_stream_socket<asio::ip::tcp, executor>;
using acceptor_type = asio::basic_socket_acceptor<asio::ip::tcp, executor>;
using asio::ip::tcp;

/* ---- Loop ------------------------------------------------------------------------------------------------ */

/* A context for one thread; with its reactor, which it would make for the first socket or timer. */
struct loop_context : asio::io_context {
  explicit loop_context(int hint = ASIO_CONCURRENCY_HINT_UNSAFE) : asio::io_context(hint) {
    timer_type(*this);
  }
};

void *peer_loop_new(void) {
  return new loop_context;
}

void peer_loop_turn(void *loop) {
  static_cast<loop_context *>(loop)->poll();
}

void peer_loop_free(void *loop) {
  delete static_cast<loop_context *>(loop);
}

/* ---- Callbacks ------------------------------------------------------------------------------------------- */

static void link_of_chain(asio::io_context &context, long &left) {
  if (--left > 0) asio::post(context, [&context, &left] { link_of_chain(context, left); });
}

int64_t peer_chain(long count) {
  loop_context context;
  int64_t start = bench_cpu();
  asio::post(context, [&context, &count] { link_of_chain(context, count); });
  context.run();
  int64_t took = bench_cpu() - start;
  return count == 0 ? took : -1;
}

int64_t peer_burst(long size, long rounds) {
  loop_context context;
  long left = size * rounds;
  int64_t start = bench_cpu();
  for (long round = 0; round < rounds; round++) {
    for (long i = 0; i < size; i++) asio::post(context, [&left] { left--; });
    context.run();
    context.restart();
  }
  int64_t took = bench_cpu() - start;
  return left == 0 ? took : -1;
}

/* ---- Timers ---------------------------------------------------------------------------------------------- */

static std::vector<timer_type> new_timers(asio::io_context &context, long count) {
  std::vector<timer_type> timers;
  timers.reserve(static_cast<size_t>(count));
  for (long i = 0; i < count; i++) timers.emplace_back(context);
  return timers;
}

static int64_t start_timers(std::vector<timer_type> &timers, const int64_t *delays, long &left) {
  auto now = std::chrono::steady_clock::now();
  int64_t last = 0;
  for (size_t i = 0; i < timers.size(); i++) {
    timers[i].expires_at(now + std::chrono::nanoseconds(delays[i]));
    timers[i].async_wait([&left](const asio::error_code &) { left--; });
    if (delays[i] > last) last = delays[i];
  }
  return last;
}

void peer_timers(long count, const int64_t *delays, long rounds, int64_t *inserts, int64_t *cancels) {
  loop_context context;
  auto timers = new_timers(context, count);
  for (long round = 0; round < rounds; round++) {
    long left = count;
    int64_t start = bench_cpu();
    start_timers(timers, delays, left);
    context.poll();
    int64_t middle = bench_cpu();
    for (auto &timer : timers) timer.cancel();
    context.run();
    context.restart();
    inserts[round] = middle - start;
    cancels[round] = bench_cpu() - middle;
  }
}

void peer_fire(long count, const int64_t *delays, long rounds, int64_t *times) {
  loop_context context;
  auto timers = new_timers(context, count);
  for (long round = 0; round < rounds; round++) {
    long left = count;
    bench_sleep_until(bench_now() + start_timers(timers, delays, left) + 2000000);
    int64_t start = bench_cpu();
    context.run();
    times[round] = bench_cpu() - start;
    context.restart();
    if (left != 0) bench_die("not every timer was called");
  }
}

/* expires_at cancels what is pending: pushing back is the same as stopping and starting. */
int64_t peer_rearm(long timers_count, int64_t timeout, long total, const uint32_t *order) {
  loop_context context;
  auto timers = new_timers(context, timers_count);
  auto length = std::chrono::nanoseconds(timeout);
  long fired = 0;
  auto on_timer = [&fired](const asio::error_code &error) {
    if (!error) fired++;
  };
  for (auto &timer : timers) {
    timer.expires_after(length);
    timer.async_wait(on_timer);
  }
  int64_t start = bench_cpu();
  auto now = std::chrono::steady_clock::now();
  for (long i = 0; i < total; i++) {
    if (i % 1000 == 0) {
      context.poll();
      now = std::chrono::steady_clock::now();
    }
    timer_type &timer = timers[order[i % timers_count]];
    timer.expires_at(now + length);
    timer.async_wait(on_timer);
  }
  int64_t took = bench_cpu() - start;
  return fired == 0 ? took : -1;
}

int64_t peer_restart(long timers_count, int64_t timeout, long total, const uint32_t *order) {
  return peer_rearm(timers_count, timeout, total, order);
}

void peer_make_timers(void *loop, long count) {
  auto *timers = new auto(new_timers(*static_cast<loop_context *>(loop), count));
  for (auto &timer : *timers) {
    timer.expires_after(std::chrono::minutes(1));
    timer.async_wait([](const asio::error_code &) {});
  }
}

/* ---- Posts ----------------------------------------------------------------------------------------------- */

struct posts {
  loop_context context{1};
  asio::executor_work_guard<executor> work{context.get_executor()};
  long left = 0;
};

static void post(void *user) {
  auto *all = static_cast<posts *>(user);
  asio::post(all->context, [all] {
    if (--all->left == 0) all->context.stop();
  });
}

void peer_posts(int producers, long count, long rounds, int64_t *times) {
  posts all;
  for (long round = 0; round < rounds; round++) {
    bench_producers_t threads;
    all.left = count;
    int64_t start = bench_now();
    bench_producers_start(&threads, producers, count, post, &all);
    all.context.run();
    times[round] = bench_now() - start;
    bench_producers_join(&threads);
    all.context.restart();
  }
}

struct side : bench_side_t {
  loop_context context{1};
  asio::executor_work_guard<executor> work{context.get_executor()};

  side() : bench_side_t() {
    post = [](bench_side_t *to) {
      asio::post(static_cast<side *>(to)->context, [to] { bench_side_arrive(to); });
    };
    run = [](bench_side_t *self) { static_cast<side *>(self)->context.run(); };
    stop = [](bench_side_t *self) { static_cast<side *>(self)->context.stop(); };
  }
};

int64_t peer_pingpong(long count) {
  side sides[2];
  return bench_pingpong(&sides[0], &sides[1], count);
}

/* ---- Jobs ------------------------------------------------------------------------------------------------ */

struct jobs : posts {
  asio::thread_pool pool{4}; /* as many threads as libuv has */
  long burst = 0, back = 0;

  void came_back() {
    if (++back < burst) return;
    left -= burst;
    if (left > 0)
      send();
    else
      context.stop();
  }

  void send() {
    back = 0;
    for (long i = 0; i < burst; i++) asio::post(pool, [this] { asio::post(context, [this] { came_back(); }); });
  }
};

void peer_jobs(long burst, long count, long rounds, int64_t *times) {
  jobs all;
  all.burst = burst;
  for (long round = 0; round < rounds; round++) {
    all.left = count;
    int64_t start = bench_now();
    all.send();
    all.context.run();
    times[round] = bench_now() - start;
    all.context.restart();
  }
  all.pool.join();
}

/* ---- Lookups --------------------------------------------------------------------------------------------- */

static void look_up(tcp::resolver &resolver, long &left) {
  resolver.async_resolve("127.0.0.1", "80",
                         [&](const std::error_code &error, const tcp::resolver::results_type &) {
                           if (error) bench_die("async_resolve");
                           if (--left > 0) look_up(resolver, left);
                         });
}

int64_t peer_lookup(long count) {
  loop_context context(1); /* the resolver has a thread of its own */
  tcp::resolver resolver(context);
  int64_t start = bench_now();
  look_up(resolver, count);
  context.run();
  int64_t took = bench_now() - start;
  return count == 0 ? took : -1;
}

/* ---- Pipes ----------------------------------------------------------------------------------------------- */

using descriptor_type = asio::posix::basic_stream_descriptor<executor>;

struct pipes {
  pipes(asio::io_context &context, const int fds[2]) : in(context, fds[0]), out(context, fds[1]) {
    in.non_blocking(true);
    out.non_blocking(true);
  }

  /* Tries first, as the echo server does. */
  void send() {
    left -= depth;
    under_way = unsent = depth * size;
    write_on();
  }

  void write_on() {
    while (unsent > 0) {
      asio::error_code error;
      long part = unsent % size;
      unsent -= long(out.write_some(asio::buffer(bench_bytes, size_t(part > 0 ? part : size)), error));
      if (error == asio::error::would_block) {
        out.async_wait(descriptor_type::wait_write, [this](const asio::error_code &failed) {
          if (!failed) write_on();
        });
        return;
      }
      if (error) bench_die("write_some");
    }
  }

  void read() {
    in.async_read_some(asio::buffer(into), [this](const asio::error_code &error, size_t n) {
      if (error) bench_die("async_read_some");
      under_way -= long(n);
      if (under_way == 0 && left == 0) return;
      if (under_way == 0) send();
      read();
    });
  }

  descriptor_type in, out;
  long size = 0, depth = 0, left = 0; /* messages not yet sent */
  long unsent = 0, under_way = 0;     /* bytes */
  std::array<char, BENCH_BUFFER> into;
};

int64_t peer_pipe(long size, long depth, long count) {
  loop_context context;
  int fds[2];
  bench_pipe(fds);
  auto all = std::make_unique<pipes>(context, fds);
  all->size = size;
  all->depth = depth;
  all->left = count;
  int64_t start = bench_cpu();
  all->read();
  all->send();
  context.run();
  int64_t took = bench_cpu() - start;
  return all->left == 0 ? took : -1;
}

/* ---- Datagrams ------------------------------------------------------------------------------------------- */

using datagram_socket = asio::basic_datagram_socket<asio::ip::udp, executor>;
using asio::ip::udp;

struct inbox {
  explicit inbox(asio::io_context &context)
      : socket(context, udp::endpoint(asio::ip::address_v4::loopback(), 0)) {
    socket.non_blocking(true);
  }

  void echo() {
    socket.async_receive_from(asio::buffer(bytes), from, [this](const asio::error_code &error, size_t size) {
      if (error) return;
      if (socket.send_to(asio::buffer(bytes, size), from) != size) bench_die("send_to");
      echoed++;
      echo();
    });
  }

  void count() {
    socket.async_receive_from(asio::buffer(bytes), from, [this](const asio::error_code &error, size_t) {
      if (error) return;
      bench_received = bench_received + 1;
      count();
    });
  }

  datagram_socket socket;
  udp::endpoint from;
  long echoed = 0;
  std::array<char, BENCH_BUFFER> bytes;
};

int64_t peer_datagrams(long size, long depth, long count) {
  loop_context context;
  inbox all(context);
  all.echo();
  return bench_datagrams(all.socket.local_endpoint().port(), size, depth, count, peer_loop_turn, &context,
                         &all.echoed);
}

void peer_receive(void) {
  loop_context context;
  auto all = std::make_unique<inbox>(context);
  all->count();
  bench_listening(all->socket.native_handle());
  context.run();
}

/* ---- Echo ------------------------------------------------------------------------------------------------ */

static void set_no_delay(socket_type &socket) {
  socket.set_option(tcp::no_delay(true));
}

using unix_stream = asio::local::stream_protocol;
using unix_socket = asio::basic_stream_socket<unix_stream, executor>;
using unix_acceptor = asio::basic_socket_acceptor<unix_stream, executor>;

static void set_no_delay(unix_socket &) {
}

/* A connection is owned by the handler of its pending operation: it ends when none is started. */
template <class socket_kind> class connection : public std::enable_shared_from_this<connection<socket_kind>> {
public:
  explicit connection(socket_kind socket) : socket_(std::move(socket)) {
    set_no_delay(socket_);
    socket_.non_blocking(true);
  }

  void read() {
    socket_.async_read_some(asio::buffer(buffer_),
                            [self = this->shared_from_this()](const asio::error_code &error, size_t size) {
                              if (!error) self->answer(size);
                            });
  }

private:
  void answer(size_t size) {
    asio::error_code error;
    size_t sent = socket_.write_some(asio::buffer(buffer_, size), error);
    if (error == asio::error::would_block) error.clear();
    if (error) return;
    if (sent == size) {
      read();
      return;
    }
    asio::async_write(socket_, asio::buffer(buffer_.data() + sent, size - sent),
                      [self = this->shared_from_this()](const asio::error_code &failed, size_t) {
                        if (!failed) self->read();
                      });
  }

  socket_kind socket_;
  std::array<char, 16384> buffer_;
};

/* The form that costs least memory: nothing is reserved while a connection is idle. */
class light_connection : public std::enable_shared_from_this<light_connection> {
public:
  explicit light_connection(socket_type socket) : socket_(std::move(socket)) {
    socket_.set_option(tcp::no_delay(true));
    socket_.non_blocking(true);
  }

  void read() {
    socket_.async_wait(socket_type::wait_read, [self = shared_from_this()](const asio::error_code &error) {
      if (!error) self->answer();
    });
  }

private:
  void answer() {
    static std::array<char, BENCH_BUFFER> buffer;
    asio::error_code error;
    size_t size = socket_.read_some(asio::buffer(buffer), error);
    if (error && error != asio::error::would_block) return;
    socket_.write_some(asio::buffer(buffer, size), error);
    if (!error) read();
  }

  socket_type socket_;
};

template <class kind, class socket_kind, class acceptor_kind> static void accept_next(acceptor_kind &acceptor) {
  acceptor.async_accept([&acceptor](const asio::error_code &error, socket_kind socket) {
    if (!error) std::make_shared<kind>(std::move(socket))->read();
    accept_next<kind, socket_kind>(acceptor);
  });
}

static void serve_unix(void) {
  loop_context context;
  unix_acceptor acceptor(context, unix_stream::endpoint(bench_path));
  acceptor.listen(BENCH_BACKLOG);
  bench_listening(acceptor.native_handle());
  accept_next<connection<unix_socket>, unix_socket>(acceptor);
  context.run();
}

template <class kind> static void serve() {
  loop_context context;
  acceptor_type acceptor(context, tcp::endpoint(asio::ip::address_v4::loopback(), 0), true);
  acceptor.listen(BENCH_BACKLOG);
  bench_listening(acceptor.native_handle());
  accept_next<kind, socket_type>(acceptor);
  context.run();
}

void peer_serve(bool for_memory) {
  if (bench_path != nullptr) serve_unix();
  if (for_memory)
    serve<light_connection>();
  else
    serve<connection<socket_type>>();
}

/* ---- Bulk ------------------------------------------------------------------------------------------------ */

static std::array<char, BENCH_BUFFER> shared_buffer;

class sink : public std::enable_shared_from_this<sink> {
public:
  explicit sink(socket_type socket) : socket_(std::move(socket)) {
  }

  void read() {
    socket_.async_read_some(asio::buffer(shared_buffer),
                            [self = shared_from_this()](const asio::error_code &error, size_t) {
                              if (!error) self->read();
                            });
  }

private:
  socket_type socket_;
};

void peer_serve_sink(void) {
  serve<sink>();
}

class source : public std::enable_shared_from_this<source> {
public:
  explicit source(socket_type socket) : socket_(std::move(socket)) {
    set_no_delay(socket_);
  }

  void read() {
    asio::async_write(socket_, asio::buffer(bench_block),
                      [self = shared_from_this()](const asio::error_code &error, size_t) {
                        if (!error) self->read();
                      });
  }

private:
  socket_type socket_;
};

void peer_serve_source(void) {
  serve<source>();
}

/* asio has no sendfile, but tells when a socket has room for one. */
static int file_to_send;
static long file_size;

class file_sender : public std::enable_shared_from_this<file_sender> {
public:
  explicit file_sender(socket_type socket) : socket_(std::move(socket)) {
    set_no_delay(socket_);
    socket_.non_blocking(true);
  }

  void read() {
    socket_.async_read_some(asio::buffer(shared_buffer),
                            [self = shared_from_this()](const asio::error_code &error, size_t) {
                              if (error) return;
                              self->at_ = 0;
                              self->send();
                            });
  }

private:
  void send() {
    ssize_t n = sendfile(socket_.native_handle(), file_to_send, &at_, size_t(file_size - at_));
    if (n < 0 && errno != EAGAIN) return;
    if (at_ == file_size) {
      read();
      return;
    }
    socket_.async_wait(socket_type::wait_write, [self = shared_from_this()](const asio::error_code &error) {
      if (!error) self->send();
    });
  }

  socket_type socket_;
  off_t at_ = 0;
};

void peer_serve_file(int file, long size) {
  file_to_send = file;
  file_size = size;
  serve<file_sender>();
}

/* ---- Relay ----------------------------------------------------------------------------------------------- */

static uint16_t relay_port;

class relay : public std::enable_shared_from_this<relay> {
public:
  explicit relay(socket_type socket) : client_(std::move(socket)), target_(client_.get_executor()) {
    set_no_delay(client_);
    client_.non_blocking(true);
  }

  void read() {
    target_.async_connect(tcp::endpoint(asio::ip::address_v4::loopback(), relay_port),
                          [self = shared_from_this()](const asio::error_code &error) {
                            if (error) return;
                            set_no_delay(self->target_);
                            self->target_.non_blocking(true);
                            self->pass(self->client_, self->target_, self->forth_);
                            self->pass(self->target_, self->client_, self->back_);
                          });
  }

private:
  using buffer_type = std::array<char, BENCH_BUFFER>;

  void pass(socket_type &from, socket_type &to, buffer_type &buffer) {
    from.async_read_some(asio::buffer(buffer), [self = shared_from_this(), &from, &to,
                                                &buffer](const asio::error_code &error, size_t size) {
      if (error)
        self->end();
      else
        self->write(from, to, buffer, size);
    });
  }

  void write(socket_type &from, socket_type &to, buffer_type &buffer, size_t size) {
    asio::error_code error;
    size_t sent = to.write_some(asio::buffer(buffer, size), error);
    if (sent == size) {
      pass(from, to, buffer);
      return;
    }
    asio::async_write(to, asio::buffer(buffer.data() + sent, size - sent),
                      [self = shared_from_this(), &from, &to, &buffer](const asio::error_code &failed, size_t) {
                        if (failed)
                          self->end();
                        else
                          self->pass(from, to, buffer);
                      });
  }

  void end() {
    asio::error_code error;
    client_.close(error);
    target_.close(error);
  }

  socket_type client_, target_;
  buffer_type forth_, back_;
};

void peer_serve_relay(int port) {
  relay_port = uint16_t(port);
  serve<relay>();
}
