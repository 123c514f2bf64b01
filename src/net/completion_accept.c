/* SPDX-License-Identifier: MIT
 *
 * Listeners of the completion driver. One multishot accept per listener delivers connections until it is
 * cancelled or fails. A server with a limit of clients gets one accept at a time instead, so that connections
 * above the limit wait in the backlog, where they belong.
 *
 * A pause cannot take back what the kernel has accepted already. Such connections are held here, and come
 * first when the server accepts again; they are closed with the server. They are few: what arrives in the time
 * of one turn.
 *
 * Descriptors are closed by a call. Connect, one byte, close took a bare program 19.4 to 20.1 us of CPU time,
 * whether it sent and closed by requests or by calls, with direct descriptors or without (13 rounds in
 * rotation; this driver took 20.2, the readiness driver on epoll 21.7). Nearly half of it is the kernel's
 * close.
 *
 * A ring that is left for another one (the loop has changed threads, forked, or got a host) keeps its accept in
 * the kernel for a while. Of all accepts that wait at a socket the kernel wakes only one, and that would be the
 * old one, which accepts nothing any more. So a listener whose ring was left is polled from then on: of those
 * who poll it wakes all.
 */
#ifdef ALOOP_HAVE_IO_URING

#include <sys/socket.h>
#include <unistd.h>

#include "core/memory.h"
#include "net/address.h"
#include "net/completion.h"
#include "net/readiness.h"
#include "net/server.h"

/* Nothing of a listener comes through the poller. */
static void never(aloop_t *loop, void *watch) {
  (void)loop, (void)watch;
  ALOOP_CHECK(false);
}

static const aloop__watch_ops_t listener_ops = {.name = "listener", .readable = never, .writable = never};

static bool is_polled(const aloop__watch_t *watch) {
  return watch->ops == &aloop__readiness_listener_ops;
}

bool aloop__completion_is_listener(const aloop__watch_t *watch) {
  return watch->ops == &listener_ops || is_polled(watch);
}

static aloop__listener_t *listener_of(aloop__watch_t *watch) {
  return ALOOP_CONTAINER_OF(watch, aloop__listener_t, watch);
}

/* ---- Asking ---------------------------------------------------------------------------------------------- */

static int ask(aloop_t *loop, aloop__listener_t *listener) {
  if (listener->armed) return 0;
  struct io_uring_sqe *request = aloop__ring_request(aloop__completion_of(loop));
  if (request == NULL) return aloop__completion_refused(loop);
  request->opcode = IORING_OP_ACCEPT;
  request->fd = listener->fd;
  request->accept_flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
  if (listener->server->max_clients == 0) request->ioprio = IORING_ACCEPT_MULTISHOT;
  request->user_data = aloop__completion_name(ALOOP__COMPLETION_ACCEPT, listener->arming, &listener->watch);
  listener->armed = true;
  return 0;
}

static void ask_no_more(aloop_t *loop, aloop__listener_t *listener) {
  if (!listener->armed) return;
  aloop__completion_cancel(
      loop, aloop__completion_name(ALOOP__COMPLETION_ACCEPT, listener->arming, &listener->watch));
  listener->armed = false;
  listener->arming++;
}

/* ---- Holding --------------------------------------------------------------------------------------------- */

static void hold(aloop_t *loop, const aloop__watch_t *watch, int fd) {
  aloop__completion_accepts_t *accepts = &aloop__completion_net(loop)->accepts;
  if (accepts->held_count == accepts->held_room) {
    size_t room = accepts->held_room != 0 ? accepts->held_room * 2 : 8;
    void *grown = aloop__memory_resize(loop, accepts->held, room * sizeof *accepts->held);
    if (grown == NULL) {
      close(fd);
      return;
    }
    accepts->held = grown;
    accepts->held_room = room;
  }
  accepts->held[accepts->held_count++] =
      (aloop__completion_held_fd_t){fd, watch->fd, aloop__watch_generation(watch)};
}

static bool is_for(const aloop__completion_held_fd_t *held, const aloop__watch_t *watch) {
  return held->listener_fd == watch->fd && held->token == aloop__watch_generation(watch);
}

static bool holds_for(const aloop__completion_accepts_t *accepts, const aloop__watch_t *watch) {
  for (size_t i = 0; i < accepts->held_count; i++)
    if (is_for(&accepts->held[i], watch)) return true;
  return false;
}

/* The first that is held for a listener, or -1. */
static int unhold(aloop__completion_accepts_t *accepts, const aloop__watch_t *watch) {
  for (size_t i = 0; i < accepts->held_count; i++) {
    if (!is_for(&accepts->held[i], watch)) continue;
    int fd = accepts->held[i].fd;
    accepts->held_count--;
    for (size_t j = i; j < accepts->held_count; j++) accepts->held[j] = accepts->held[j + 1];
    return fd;
  }
  return -1;
}

static void offer(aloop_t *loop, aloop__listener_t *listener) {
  aloop__completion_accepts_t *accepts = &aloop__completion_net(loop)->accepts;
  aloop_server_t *server = aloop_server_ref(listener->server);
  while (listener->accepting) {
    int fd = unhold(accepts, &listener->watch);
    if (fd < 0 || !aloop__listener_accepted(listener, fd)) break;
  }
  aloop_server_unref(server);
}

/* What is held for those who accept again. */
static void offer_all(aloop_t *loop, void *arg) {
  aloop__completion_accepts_t *accepts = arg;
  accepts->offering = false;
  for (int fd = 0; fd < loop->watches_size && accepts->held_count > 0; fd++) {
    aloop__watch_t *watch = loop->watches[fd];
    if (watch != NULL && aloop__completion_is_listener(watch)) offer(loop, listener_of(watch));
  }
}

static int offer_soon(aloop_t *loop, const aloop__listener_t *listener) {
  aloop__completion_accepts_t *accepts = &aloop__completion_net(loop)->accepts;
  if (accepts->offering || !holds_for(accepts, &listener->watch)) return 0;
  accepts->offering = aloop__ready_push(loop, offer_all, accepts);
  return accepts->offering ? 0 : ALOOP_ENOMEM;
}

/* ---- The driver's part ----------------------------------------------------------------------------------- */

int aloop__completion_listen(aloop__listener_t *listener, bool on) {
  aloop_t *loop = aloop_server_get_loop(listener->server);
  if (listener->watch.fd < 0) {
    int rc = on ? aloop__watch_claim(loop, &listener->watch, listener->fd, &listener_ops) : 0;
    if (rc < 0 || !on) return rc;
  }
  int rc = on ? offer_soon(loop, listener) : 0;
  if (rc < 0) return rc;
  if (is_polled(&listener->watch)) return aloop__readiness_listen(listener, on);
  if (on) return ask(loop, listener);
  ask_no_more(loop, listener);
  return 0;
}

void aloop__completion_forget(aloop__listener_t *listener) {
  aloop_t *loop = aloop_server_get_loop(listener->server);
  if (listener->watch.fd < 0) return;
  ask_no_more(loop, listener);
  aloop__ring_hand_over(aloop__completion_of(loop)); /* closing the socket shall end the listening */
  for (int fd; (fd = unhold(&aloop__completion_net(loop)->accepts, &listener->watch)) >= 0;) close(fd);
  aloop__watch_stop(loop, &listener->watch);
}

int aloop__completion_listen_again(aloop_t *loop, aloop__watch_t *watch) {
  aloop__listener_t *listener = listener_of(watch);
  listener->armed = false;
  listener->arming++;
  if (!is_polled(watch)) {
    uint32_t token = aloop__watch_generation(watch);
    int rc =
        listener->accepting ? loop->poller->update(loop->poller_state, watch->fd, token, 0, ALOOP_READABLE) : 0;
    if (rc < 0) return rc;
    watch->ops = &aloop__readiness_listener_ops;
    aloop__watch_note(watch, listener->accepting ? ALOOP_READABLE : 0);
  }
  return listener->accepting ? offer_soon(loop, listener) : 0;
}

static void take(aloop_t *loop, aloop__listener_t *listener, int fd, bool keep) {
  bool waits =
      keep || !listener->accepting || holds_for(&aloop__completion_net(loop)->accepts, &listener->watch);
  if (waits)
    hold(loop, &listener->watch, fd);
  else
    aloop__listener_accepted(listener, fd);
}

void aloop__completion_accepted(aloop_t *loop, const aloop__ring_done_t *completion, bool keep) {
  aloop__watch_t *watch = aloop__completion_watch(loop, completion->name);
  if (watch == NULL) {
    if (completion->result >= 0) close(completion->result);
    return;
  }
  aloop__listener_t *listener = listener_of(watch);
  aloop_server_t *server = aloop_server_ref(listener->server);
  bool current = aloop__completion_arming(completion->name) == listener->arming;
  if (current && (completion->flags & IORING_CQE_F_MORE) == 0) listener->armed = false;
  int error = completion->result;
  if (error >= 0)
    take(loop, listener, error, keep);
  else if (current && error != ALOOP_ECANCELED && error != ALOOP_EAGAIN && !aloop__address_accept_again(error))
    aloop__listener_failed(listener, error);
  if (listener->accepting && !keep && !is_polled(watch) && ask(loop, listener) < 0)
    aloop__listener_failed(listener, ALOOP_ENOBUFS);
  aloop_server_unref(server);
}

void aloop__completion_accepts_close(aloop_t *loop, aloop__completion_accepts_t *accepts) {
  for (size_t i = 0; i < accepts->held_count; i++) close(accepts->held[i].fd);
  aloop__memory_release(loop, accepts->held);
}

#else
typedef int aloop__completion_accept_is_not_built; /* ISO C wants a declaration in every file */
#endif
