/* SPDX-License-Identifier: MIT
 *
 * Any sequence of calls at all. The input is a program: each byte names a call of the API, those behind it
 * are its arguments, and callbacks take their actions from the same stream, so that everything happens
 * inside everything else. Beside the library runs a model of its promises:
 *
 * - callbacks run in the order they were scheduled, timers never early and first made first among equals,
 *   each once, in the context they were scheduled in, and never after they were cancelled;
 * - a handle refers to its own callback or to none;
 * - a future ends once, and its callbacks follow in order;
 * - a connection is made once and lost once, with a reason that happened; pause_writing and resume_writing
 *   alternate; nothing arrives while reading is paused, or after the end;
 * - bytes arrive in order and, if the end was graceful, all of them, whatever kinds of writes and files they
 *   came from; owned memory is released once;
 * - every call answers what the header says, and every block and descriptor is given back.
 *
 * The clock stands still and jumps to the next deadline when nothing else is due. In one input out of four,
 * allocations fail now and then: calls may then answer ALOOP_ENOMEM and connections end with it, the rest
 * holds.
 *
 * Only the public header is used. A broken promise traps.
 */
#include "api/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void turn(int64_t timeout) {
  bool inside = aloop_is_running(w.loop);
  int rc = aloop_run_once(w.loop, timeout);
  if (inside) {
    MUST(rc == ALOOP_ERUNNING);
    return;
  }
  if (w.stop_error < 0)
    MUST(rc == w.stop_error);
  else
    MUST(rc >= 0 || (w.starved && rc == ALOOP_ENOMEM));
  w.interrupted = w.stop_error < 0;
  w.stop_error = 0;
  w.turn++;
}

static void run_turn(void) {
  turn(byte());
}

static void stop_loop(void) {
  unsigned how = byte();
  if (!aloop_is_running(w.loop)) return;
  if (how & 7) {
    MUST(aloop_stop(w.loop) == 0);
  } else if (w.stop_error == 0) {
    MUST(aloop_stop_with_error(w.loop, ALOOP_EIO) == 0);
    w.stop_error = ALOOP_EIO;
  }
}

static void pass_time(void) {
  fuzz.now += byte();
}

void act(void) {
  static void (*const calls[64])(void) = {
      run_turn,
      run_turn,
      run_turn,
      run_turn,
      run_turn,
      run_turn,
      run_turn,
      run_turn,
      call_soon,
      call_soon,
      call_soon,
      post,
      post,
      call_later,
      call_later,
      call_at,
      call_every,
      cancel_job,
      cancel_job,
      reschedule,
      set_variable,
      run_context,
      pass_time,
      stop_loop,
      make_future,
      make_sleep,
      end_future,
      end_future,
      cancel_future,
      add_callback,
      add_callback,
      remove_callback,
      drop_future,
      add_watch,
      add_watch,
      remove_watch,
      end_pair,
      feed_pair,
      famine,
      open_conn,
      open_conn,
      open_conn,
      cancel_conn,
      peer_acts,
      peer_acts,
      peer_acts,
      peer_acts,
      peer_acts,
      write_bytes,
      write_bytes,
      write_bytes,
      write_bytes,
      half_close,
      pause_or_resume,
      pause_or_resume,
      end_some_conn,
      set_limits,
      set_cap,
      set_timeouts,
      switch_protocol,
      switch_protocol,
      send_file,
      send_file,
      cancel_sendfile,
  };
  if (w.calls++ > CALLS_MAX || fuzz.size == 0) return;
  calls[byte() & 63]();
}

/* ---- The end -------------------------------------------------------------------------------------------- */

/* Everything that is open is closed gracefully and must then end by itself. */
static void wind_down(void) {
  bool busy = true;
  w.depth = DEPTH_MAX; /* callbacks do nothing more */
  for (int turns = 0; busy; turns++) {
    MUST(turns < 20000);
    w.depth = 0;
    turn(0);
    w.depth = DEPTH_MAX;
    busy = false;
    for (int i = 0; i < CONNS; i++) {
      conn_t *conn = &w.conns[i];
      bool coming = conn->used && conn->connect != NULL && !aloop_future_done(conn->connect);
      if (coming || (conn->made && !conn->lost)) busy = true;
      if (conn->used) read_peer(conn, SIZE_MAX);
      if (!conn->made || conn->lost) continue;
      check_state(conn);
      if (!conn->closing) close_conn(conn);
    }
  }
}

static void give_back_futures(void) {
  for (int i = 0; i < w.future_count; i++)
    if (w.futures[i].future != NULL) aloop_future_unref(w.futures[i].future);
}

static void check_conns(void) {
  for (int i = 0; i < CONNS; i++) {
    conn_t *conn = &w.conns[i];
    if (!conn->used) continue;
    MUST(conn->made == conn->lost);
    sync_sendfile(conn);
    MUST(conn->sendfile == NULL && conn->loans == 0);
    end_conn(conn);
  }
}

static int quiet(aloop_t *loop, const aloop_error_context_t *context, void *arg) {
  (void)loop;
  (void)context;
  (void)arg;
  return 0;
}

static bool begin(void) {
  aloop_allocator_t allocator = {sizeof allocator, resize, release, NULL};
  unsigned how = byte();
  w.starved = (how & 0x0c) == 0x0c;
  w.no_sendfile = how & 0x20;
  if (w.starved) fuzz.fail_every = 2 + byte() % 60;
  aloop_options_t options = {.size = sizeof options,
                             .poller_table = jumping_poller(how & 3),
                             .allocator = &allocator,
                             .debug = how & 0x10 ? 1 : -1};
  int rc = aloop_new(&options, &w.loop);
  if (!answered(rc, 0)) return false;
  aloop_set_exception_handler(w.loop, quiet, NULL);
  MUST(aloop_var_new("fuzz", &w.var) == 0);
  return true;
}

static void make_files(void) {
  for (size_t i = 0; i < FILE_SIZE; i++) file_bytes[i] = (uint8_t)(i * 7 + (i >> 8));
  for (int i = 0; i < CONNS; i++) {
    char name[] = "/tmp/aloop-fuzz-XXXXXX";
    files[i] = mkstemp(name);
    MUST(files[i] >= 0 && write(files[i], file_bytes, FILE_SIZE) == FILE_SIZE);
    unlink(name);
  }
}

static int lowest_descriptor(void) {
  int fd = dup(0);
  close(fd);
  return fd;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (files[0] == 0) make_files();
  int free_fd = lowest_descriptor();
  memset(&w, 0, offsetof(struct world, conns));
  for (int i = 0; i < CONNS; i++) w.conns[i].used = w.conns[i].made = w.conns[i].lost = false;
  for (int i = 0; i < PAIRS; i++) w.pairs[i] = (pair_t){.fds = {-1, -1}};
  w.loans = 0;
  begin_input(data, size);
  fuzz.now = 1000;
  w.turn = 1;
  if (begin()) {
    while (fuzz.size > 0 && w.calls < CALLS_MAX) act();
    fuzz.fail_every = 0;
    bool graceful = size % 3 != 0;
    fuzz.size = 0;
    for (int i = 0; i < PAIRS; i++)
      if (w.pairs[i].fds[0] >= 0 && graceful) remove_watches(&w.pairs[i], true, true);
    if (graceful) wind_down();
    w.closed = true;
    MUST(aloop_close(w.loop) == 0);
    for (int i = 0; i < PAIRS; i++) close_pair(&w.pairs[i]);
    check_conns();
    give_back_futures();
    aloop_free(w.loop);
    aloop_var_unref(w.var);
  }
  MUST(fuzz.live == 0 && w.loans == 0);
  MUST(lowest_descriptor() == free_fd);
  return 0;
}
