/* SPDX-License-Identifier: MIT
 *
 * What the API fuzzer knows: its model of every object it made. See fuzz_api.c for the idea.
 */
#ifndef FUZZ_API_WORLD_H
#define FUZZ_API_WORLD_H

#include "fuzz.h"

enum { CALLS_MAX = 500, JOBS = 600, FUTURES = 100, TAGS = 3, PAIRS = 4, CONNS = 5, DEPTH_MAX = 3 };
enum { OUT_MAX = 1 << 18, FILE_SIZE = 1 << 16, SMALL_SOCKET = 4096 };

typedef enum kind { SOON, POST, TIMER, EVERY } kind_t;

typedef struct job {
  kind_t kind;
  aloop_handle_t handle;
  bool pending;
  int64_t when;
  int64_t period;
  uint64_t order;
  uint64_t turn; /* in which it was made or moved */
  void *context; /* the variable's value then */
} job_t;

struct future_model;

typedef struct tag {
  struct future_model *owner;
} tag_t;

/* Done callbacks: the tag they were added with, and the variable's value then. */
typedef struct due {
  tag_t *tag; /* NULL: a job */
  job_t *job;
  void *context;
} due_t;

typedef struct future_model {
  aloop_future_t *future; /* our reference, or NULL */
  bool sleeps;
  bool done;
  int64_t result;
  int64_t until;
  tag_t tags[TAGS];
  due_t waiting[16]; /* callbacks of a pending future, or of a sleep */
  int waiting_count;
} future_model_t;

typedef struct pair {
  int fds[2]; /* ours and the peer's; -1: none */
  int reader; /* 0: none, else which of two functions */
  int writer;
} pair_t;

typedef struct conn {
  bool used;
  aloop_future_t *connect; /* until it is made */
  aloop_transport_t *transport;
  int fd;   /* ours until connection_made */
  int peer; /* -1: closed */
  int file;
  bool refuse; /* create returns NULL */
  bool made, lost, leaving, closing, aborted, wants_eof, paused, told_to_pause, got_eof, keeps_open, timed;
  int abort_error;
  void *context;
  size_t cap;
  uint8_t out[OUT_MAX]; /* what was accepted, and behind it the file that is being sent */
  size_t accepted, read;
  size_t sendable; /* `accepted` if all of the file that is being sent gets there; 0: none is */
  off_t file_from;
  size_t peer_sent, received;
  aloop_future_t *sendfile;
  int loans; /* owned memory not yet released */
  uint8_t buffer[512];
} conn_t;

typedef struct world {
  int calls;
  int depth;
  aloop_t *loop;
  bool closed;
  bool in_callback;
  uint64_t turn;
  uint64_t changed; /* the turn in which a variable was last set */
  bool interrupted; /* stop_with_error left callbacks for the next turn */
  int stop_error;
  aloop_var_t *var;
  uint64_t order;
  bool starved;     /* allocations may have failed */
  bool no_sendfile; /* the kernel has none */
  job_t jobs[JOBS];
  int job_count;
  due_t queue[JOBS * 4];
  int queue_head, queue_tail;
  int posts[JOBS];
  int posts_head, posts_tail;
  future_model_t futures[FUTURES];
  int future_count;
  pair_t pairs[PAIRS];
  conn_t conns[CONNS];
  int loans;
} world_t;

extern world_t w;

/* What every file for sendfile holds, and one such file for each connection. */
extern uint8_t file_bytes[FILE_SIZE];
extern int files[CONNS];

/* ---- fuzz_api.c ------------------------------------------------------------------------------------------ */

/* One call of the API, as the input says. */
void act(void);

/* ---- world.c --------------------------------------------------------------------------------------------- */

/* The next byte of the input made into a number of bytes. */
size_t length(void);

/* What a callback does besides: a call or two, as the input says. */
void react(void);

/* The variable's value. */
void *current_context(void);

/* Checks a result that may also be ALOOP_ENOMEM if memory is short; whether it is 0. */
bool answered(int rc, int expected);

/* Memory comes and goes. */
void famine(void);

/* ---- callbacks.c ----------------------------------------------------------------------------------------- */

/* The order in which callbacks are due, and what runs now off it. */
void queue(due_t due);
due_t take_due(const job_t *job, const tag_t *tag);

/* Calls of the API. */
void call_soon(void);
void post(void);
void call_later(void);
void call_at(void);
void call_every(void);
void cancel_job(void);
void reschedule(void);
void set_variable(void);
void run_context(void);

/* ---- futures.c ------------------------------------------------------------------------------------------- */

void make_future(void);
void make_sleep(void);
void end_future(void);
void cancel_future(void);
void add_callback(void);
void remove_callback(void);
void drop_future(void);

/* ---- watches.c ------------------------------------------------------------------------------------------- */

void make_pair(int fds[2]);
void remove_watches(pair_t *pair, bool reader, bool writer);
void close_pair(pair_t *pair);

void add_watch(void);
void remove_watch(void);
void end_pair(void);
void feed_pair(void);

/* ---- connections.c --------------------------------------------------------------------------------------- */

/* Learns whether a sendfile has ended, and with how many bytes. */
void sync_sendfile(conn_t *conn);

/* Compares what the transport says of itself. */
void check_state(conn_t *conn);

/* The peer reads at most so many bytes, which must be the next ones. */
void read_peer(conn_t *conn, size_t most);

void close_conn(conn_t *conn);

/* Gives everything back. */
void end_conn(conn_t *conn);

void open_conn(void);
void cancel_conn(void);
void peer_acts(void);
void write_bytes(void);
void half_close(void);
void pause_or_resume(void);
void end_some_conn(void);
void set_limits(void);
void set_cap(void);
void set_timeouts(void);
void switch_protocol(void);
void send_file(void);
void cancel_sendfile(void);

#endif
