/* SPDX-License-Identifier: MIT
 *
 * aloop.h - the event loop of Python's asyncio as a C library. The only public header.
 *
 * A first program:
 *
 *     static void hello(aloop_t *loop, void *arg) { puts(arg); aloop_stop(loop); }
 *
 *     aloop_t *loop;
 *     if (aloop_new(NULL, &loop) < 0) return 1;
 *     aloop_call_later(loop, ALOOP_SECONDS(1), hello, "hello");
 *     aloop_run_forever(loop);
 *     aloop_free(loop);
 *
 * Rules that hold for every call, so that the comments below need not repeat them:
 *
 * - Results. An int or int64_t result is zero or positive on success and one of the negative ALOOP_E... codes
 *   on failure. Outputs are written on success only; errno is neither read nor set for the caller. A call that
 *   fails, out of memory included (ALOOP_ENOMEM), leaves everything as it was.
 * - Mistakes. Every call may return ALOOP_EINVAL for a NULL or nonsensical argument; one whose result has no
 *   room for a code answers NULL, 0 or false (asked for an end: true) and does nothing. In debug mode the
 *   exception handler is also told which rule was broken, at once and in the thread that called; without an
 *   object that knows its loop, that of the loop running in this thread. So it goes with every code that only a
 *   mistake brings about. Not reported is what a correct program meets: ALOOP_ENOMEM, ALOOP_ENOTDONE,
 *   ALOOP_EDONE, ALOOP_ENOENT, ALOOP_EALREADY, ALOOP_ENOBUFS, ALOOP_ESTOPPED, the ALOOP_ECLOSED of a connection
 *   or server that has ended, and what the system refuses.
 * - Threads. Each comment ends with a tag. [loop]: only in the thread that runs the loop, or before it runs;
 *   debug mode answers other threads with ALOOP_ENOTLOOPTHREAD and touches nothing. [any]: any thread.
 *   [signal]: any thread and signal handlers. [task]: only inside a task (aloop_create_task), else ALOOP_EPERM.
 * - Callbacks. Every call may be made from inside any callback, unless its comment says otherwise.
 * - Futures. A function that returns aloop_future_t * hands the caller one reference, and returns NULL when
 *   out of memory and where no future can be made: the loop or object is NULL, or the thread is wrong. Every
 *   other failure, a wrong argument too, is an error of the future, with a message. A function that
 *   waits for futures (aloop_run_until_complete, aloop_gather, aloop_wait_for, ...) takes over the references
 *   it is given, also when it fails; aloop_future_ref keeps one. Cancelling the future cancels the operation
 *   at once.
 * - Time is int64_t nanoseconds on the loop's monotonic clock. Nothing fires early.
 * - Structs that start with `size` are filled in by the caller: set it to sizeof the struct; a member left
 *   zero means its default. They may grow at the end in later versions; an older library refuses options that
 *   it does not know and that are not zero (ALOOP_EINVAL).
 */
#ifndef ALOOP_H
#define ALOOP_H

#include <errno.h>
#include <netdb.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Version --------------------------------------------------------------------------------------------- */

#define ALOOP_VERSION_MAJOR 0
#define ALOOP_VERSION_MINOR 1
#define ALOOP_VERSION_PATCH 0

#if defined(__GNUC__)
#define ALOOP_API __attribute__((visibility("default")))
#else
#define ALOOP_API
#endif

/* The version of the library in use as "major.minor.patch", which may be newer than this header. [signal] */
ALOOP_API const char *aloop_version(void);

/* ---- Types ----------------------------------------------------------------------------------------------- */

typedef struct aloop aloop_t;                     /* an event loop */
typedef struct aloop_future aloop_future_t;       /* the end of an operation */
typedef struct aloop_transport aloop_transport_t; /* a connection */
typedef struct aloop_server aloop_server_t;       /* listening sockets and their connections */
typedef struct aloop_datagram aloop_datagram_t;   /* an endpoint that sends and receives datagrams */
typedef struct aloop_process aloop_process_t;     /* a child process */
typedef struct aloop_stream aloop_stream_t;       /* a connection that is read from and written to by calls */
typedef struct aloop_context aloop_context_t;     /* a set of context variables */
typedef struct aloop_var aloop_var_t;             /* a context variable */
typedef struct aloop_var_token aloop_var_token_t; /* the value a variable had before it was set */
typedef struct aloop_tls_context aloop_tls_context_t; /* certificates and rules for TLS connections */
typedef struct aloop_executor aloop_executor_t;       /* threads or processes that run jobs */
typedef struct aloop_job aloop_job_t;                 /* one piece of work, as an executor sees it */
typedef struct aloop_lock aloop_lock_t;               /* what only one may have at a time */
typedef struct aloop_event aloop_event_t;             /* a flag that can be waited for */
typedef struct aloop_condition aloop_condition_t;     /* a lock, and waiting for what somebody else changes */
typedef struct aloop_semaphore aloop_semaphore_t;     /* what only so many may have at a time */
typedef struct aloop_barrier aloop_barrier_t;         /* where all wait for all */
typedef struct aloop_queue aloop_queue_t;             /* items on their way from some to others */
typedef struct aloop_generator aloop_generator_t;     /* a function that hands out items one by one */

/* A scheduled callback. A plain value: copy it, drop it, keep it after the callback ran; it never refers to
 * another. */
typedef struct aloop_handle {
  uint64_t id; /* private; {0} is "no handle" */
} aloop_handle_t;

typedef void (*aloop_callback_fn)(aloop_t *loop, void *arg);
typedef void (*aloop_done_fn)(aloop_future_t *future, void *arg);
typedef void (*aloop_destroy_fn)(void *value);

/* Units of time. The argument may be fractional: ALOOP_SECONDS(1.5). */
#define ALOOP_SECONDS(s) ((int64_t)((double)(s)*1000000000.0))
#define ALOOP_MILLIS(ms) ((int64_t)((double)(ms)*1000000.0))
#define ALOOP_MICROS(us) ((int64_t)((double)(us)*1000.0))
#define ALOOP_FOREVER ((int64_t)-1) /* as a timeout: none */

/* Where a callback was scheduled, for reports; the macros below that end in it pass it. They take any
 * arguments, so that a compound literal, commas and all, may be one. Define ALOOP_NO_ORIGIN to leave file names
 * out of your program. */
#define ALOOP_STRING2(x) #x
#define ALOOP_STRING(x) ALOOP_STRING2(x)
#ifdef ALOOP_NO_ORIGIN
#define ALOOP_HERE ((const char *)0)
#else
#define ALOOP_HERE (__FILE__ ":" ALOOP_STRING(__LINE__))
#endif

/* ---- Errors ---------------------------------------------------------------------------------------------- */

/* System errors are the negated errno value; the library's own lie below -4000. X(name, value, text) */
#define ALOOP_SYSTEM_ERRORS(X)                                                                                 \
  X(E2BIG, -E2BIG, "arguments and environment too long")                                                       \
  X(EACCES, -EACCES, "permission denied")                                                                      \
  X(EADDRINUSE, -EADDRINUSE, "address already in use")                                                         \
  X(EADDRNOTAVAIL, -EADDRNOTAVAIL, "address not available on this machine")                                    \
  X(EAFNOSUPPORT, -EAFNOSUPPORT, "address family not supported")                                               \
  X(EAGAIN, -EAGAIN, "resource temporarily unavailable")                                                       \
  X(EALREADY, -EALREADY, "already in progress or already done")                                                \
  X(EBADF, -EBADF, "bad file descriptor")                                                                      \
  X(EBUSY, -EBUSY, "in use")                                                                                   \
  X(ECANCELED, -ECANCELED, "cancelled")                                                                        \
  X(ECHILD, -ECHILD, "used in a child process after fork; call aloop_after_fork first")                        \
  X(ECONNABORTED, -ECONNABORTED, "connection aborted")                                                         \
  X(ECONNREFUSED, -ECONNREFUSED, "connection refused")                                                         \
  X(ECONNRESET, -ECONNRESET, "connection reset by peer")                                                       \
  X(EEXIST, -EEXIST, "already exists")                                                                         \
  X(EHOSTUNREACH, -EHOSTUNREACH, "host unreachable")                                                           \
  X(EINTR, -EINTR, "interrupted")                                                                              \
  X(EINVAL, -EINVAL, "invalid argument")                                                                       \
  X(EIO, -EIO, "input/output error")                                                                           \
  X(EISDIR, -EISDIR, "is a directory")                                                                         \
  X(EMFILE, -EMFILE, "too many open descriptors in this process")                                              \
  X(EMSGSIZE, -EMSGSIZE, "message too long")                                                                   \
  X(ENAMETOOLONG, -ENAMETOOLONG, "name too long")                                                              \
  X(ENETUNREACH, -ENETUNREACH, "network unreachable")                                                          \
  X(ENFILE, -ENFILE, "too many open files in the system")                                                      \
  X(ENOBUFS, -ENOBUFS, "no buffer space left")                                                                 \
  X(ENOENT, -ENOENT, "no such entry")                                                                          \
  X(ENOEXEC, -ENOEXEC, "not a program that this system can execute")                                           \
  X(ENOMEM, -ENOMEM, "out of memory")                                                                          \
  X(ENOTCONN, -ENOTCONN, "not connected")                                                                      \
  X(ENOTDIR, -ENOTDIR, "not a directory")                                                                      \
  X(ENOTSOCK, -ENOTSOCK, "not a socket")                                                                       \
  X(ENOTSUP, -EOPNOTSUPP, "not supported here")                                                                \
  X(EPERM, -EPERM, "operation not permitted")                                                                  \
  X(EPIPE, -EPIPE, "broken pipe")                                                                              \
  X(ERANGE, -ERANGE, "value out of range")                                                                     \
  X(ESRCH, -ESRCH, "no such process")                                                                          \
  X(ETIMEDOUT, -ETIMEDOUT, "timed out")

#define ALOOP_OWN_ERRORS(X)                                                                                    \
  X(ECLOSED, -4001, "closed")                                                                                  \
  X(ENOTLOOPTHREAD, -4002, "called from a thread that does not run this loop")                                 \
  X(ERUNNING, -4003, "a loop is running in this thread")                                                       \
  X(ENOTDONE, -4004, "future is not done yet")                                                                 \
  X(EDONE, -4005, "future is already done")                                                                    \
  X(ENOLOOP, -4006, "no loop is set for this thread")                                                          \
  X(ESTOPPED, -4007, "loop stopped before the future was done")                                                \
  X(EOTHERLOOP, -4008, "object belongs to another loop")                                                       \
  X(EOF, -4009, "end of file")                                                                                 \
  X(EREAPED, -4010, "the child's exit status was collected by somebody else")                                  \
  X(ECRASHED, -4011, "worker process died before its job was done")                                            \
  X(EBROKEN, -4012, "barrier is broken")                                                                       \
  X(ETLS, -4021, "TLS failed")                                                                                 \
  X(ETLS_VERIFY, -4022, "the peer's certificate was not accepted")                                             \
  X(ETLS_ALERT, -4023, "the peer refused to go on with TLS")                                                   \
  X(ETLS_TRUNCATED, -4024, "the peer's TLS stream was cut off")                                                \
  X(EAI_ADDRFAMILY, -4101, "host has no address of the wanted family")                                         \
  X(EAI_AGAIN, -4102, "name server did not answer; try again later")                                           \
  X(EAI_BADFLAGS, -4103, "bad flags for a name lookup")                                                        \
  X(EAI_FAIL, -4104, "name server failed for good")                                                            \
  X(EAI_FAMILY, -4105, "address family not supported for a name lookup")                                       \
  X(EAI_MEMORY, -4106, "out of memory during a name lookup")                                                   \
  X(EAI_NODATA, -4107, "host has no address")                                                                  \
  X(EAI_NONAME, -4108, "host or service not known")                                                            \
  X(EAI_OVERFLOW, -4109, "name too long for its buffer")                                                       \
  X(EAI_SERVICE, -4110, "service not known for this socket type")                                              \
  X(EAI_SOCKTYPE, -4111, "socket type not supported for a name lookup")

enum {
#define ALOOP_ERROR_(name, value, text) ALOOP_##name = (value),
  ALOOP_SYSTEM_ERRORS(ALOOP_ERROR_) ALOOP_OWN_ERRORS(ALOOP_ERROR_)
#undef ALOOP_ERROR_
      ALOOP_OK = 0
};

/* A constant English sentence for a code: the table above, the C library's text for another errno value, never
 * NULL. [signal] for codes of the table, [any] otherwise. */
ALOOP_API const char *aloop_strerror(int64_t error);

/* The name of a code without its prefix ("ECONNREFUSED"), or "UNKNOWN". [signal] */
ALOOP_API const char *aloop_error_name(int64_t error);

/* ---- Memory ---------------------------------------------------------------------------------------------- */

/* Memory for one loop and all its objects. Alignment as malloc. `resize` is realloc: (NULL, n) allocates. Calls
 * come from the loop's thread, and from any thread that calls aloop_call_soon_threadsafe. They come from the
 * midst of things: neither may call the library. */
typedef struct aloop_allocator {
  size_t size;
  void *(*resize)(void *user, void *block, size_t bytes);
  void (*release)(void *user, void *block);
  void *user;
} aloop_allocator_t;

/* ---- Pollers --------------------------------------------------------------------------------------------- */

enum { ALOOP_READABLE = 1, ALOOP_WRITABLE = 4 };
enum { ALOOP_POLLER_ONE_THREAD = 1, ALOOP_POLLER_EDGES = 2 };

/* Beside these, for update() of a poller with ALOOP_POLLER_EDGES. */
enum { ALOOP_EDGES = 2 };

typedef struct aloop_poll_event {
  uint32_t events; /* ALOOP_READABLE | ALOOP_WRITABLE; any other bit: an error or hang-up, which is for both */
  int32_t fd;
  uint32_t token; /* as given to update(): tells the registrations of one descriptor number apart */
} aloop_poll_event_t;

/* A poller: what stands between the loop and the kernel (asyncio: a selector). The loop calls it from its own
 * thread only and never for the same descriptor twice at once; results follow the rules above. */
typedef struct aloop_poller {
  size_t size;
  const char *name;
  /* Makes the state. `arg` is aloop_options_t.poller_arg. Returns 0 or a code; ALOOP_ENOTSUP: not on this
   * kernel. */
  int (*open)(void *arg, const aloop_allocator_t *allocator, void **state);
  /* Releases what open() made. Watched descriptors may still be open; the poller does not close them. */
  void (*close)(void *state);
  /* Changes what fd is watched for from `before` to `after` (sets of ALOOP_READABLE | ALOOP_WRITABLE; 0: not
   * watched). Level-triggered. Must report ALOOP_EPERM for a descriptor that cannot be watched (regular file on
   * epoll). A removal (after == 0) of a descriptor that was closed behind our back succeeds. Events carry
   * the token of the last update. When before == after the descriptor is registered anew: its number may mean
   * another file than before. */
  int (*update)(void *state, int fd, uint32_t token, uint32_t before, uint32_t after);
  /* Waits at most `timeout` ns (rounded up, never down; negative: forever; 0: only looks) and fills
   * events[0..capacity). Returns their number; 0 on timeout or when interrupted by a signal. Each fd appears at
   * most once per call. */
  int (*wait)(void *state, aloop_poll_event_t *events, int capacity, int64_t timeout);
  /* May be NULL. A descriptor that is readable when wait() would not block, for aloop_backend_fd. */
  int (*backend_fd)(void *state);
  /* May be NULL: the loop's clock in ns, instead of the monotonic one (the virtual poller jumps its own). */
  int64_t (*now)(void *state);
  /* May be NULL. A run or a hosted turn ends: what update() has put off happens now. */
  void (*flush)(void *state);
  /* ALOOP_POLLER_ONE_THREAD: the state belongs to the thread that waits first; in another wait() answers
   * ALOOP_EEXIST and is opened anew, and so for a host, then with an `arg` that is not NULL.
   * ALOOP_POLLER_EDGES: with ALOOP_EDGES in `after` an event is due when something has come, once, and not for
   * as long as it is there; the loop's own wake-up then needs no reading. */
  uint64_t flags;
} aloop_poller_t;

/* The built-in poller of that name ("epoll", "uring", "kqueue", "poll", "select", "virtual"), NULL if this
 * build has none. "auto" or NULL: the best here. A constant that lives as long as the program. [any] */
ALOOP_API const aloop_poller_t *aloop_poller_find(const char *name);

/* The names of the built-in pollers, best first, ended by NULL. [any] */
ALOOP_API const char *const *aloop_poller_names(void);

/* ---- Loop ------------------------------------------------------------------------------------------------ */

typedef struct aloop_options {
  size_t size;
  const char *poller;                 /* by name; NULL: the environment's ALOOP_POLLER, else "auto" */
  const aloop_poller_t *poller_table; /* your own poller, instead of a name */
  void *poller_arg;                   /* handed to its open() */
  const aloop_allocator_t *allocator; /* NULL: malloc */
  int debug;                          /* 1 on, -1 off, 0: on if ALOOP_DEBUG is set and not "0" */
  int64_t slow_callback_duration;     /* debug mode reports callbacks this long; 0: 100 ms */
} aloop_options_t;

/* asyncio.new_event_loop: makes a loop with its poller and wake-up descriptor. `options` may be NULL. Not bound
 * to a thread until it runs. Errors: ALOOP_EINVAL (unknown poller name, size not set, a poller or allocator
 * that lacks functions), ALOOP_ENOTSUP (poller not on this kernel), ALOOP_ENOMEM, ALOOP_EMFILE, ALOOP_ENFILE.
 * [any] */
ALOOP_API int aloop_new(const aloop_options_t *options, aloop_t **loop);

/* loop.close: drops scheduled callbacks without calling them, cancels pending operations, ends live transports
 * (connection_lost with ALOOP_ECLOSED, called from inside), closes all descriptors. Afterwards most calls
 * answer ALOOP_ECLOSED. Closing again is a no-op. Errors: ALOOP_ERUNNING while it runs. [loop] */
ALOOP_API int aloop_close(aloop_t *loop);
ALOOP_API bool aloop_is_closed(const aloop_t *loop);

/* Closes the loop if needed and gives up the caller's claim; the memory goes when the last object made on the
 * loop is released. NULL is fine. Must not be called while the loop runs (debug mode reports it; the call does
 * nothing), nor by the destructor of a variable's value; what aloop_close ends may call it. [loop] */
ALOOP_API void aloop_free(aloop_t *loop);

/* loop.run_forever: runs turns until aloop_stop; called before, that gives exactly one turn that does not wait.
 * Binds the loop to this thread. Returns 0, the code given to aloop_stop_with_error, or ALOOP_ERUNNING (this or
 * another loop already runs here), ALOOP_ECLOSED, ALOOP_ECHILD (see aloop_after_fork), or the poller's error.
 * [loop] Not inside callbacks. */
ALOOP_API int aloop_run_forever(aloop_t *loop);

/* loop.run_until_complete: runs until the future is done and returns its value or error. Takes over the
 * reference. Errors besides the future's and those of aloop_run_forever: ALOOP_ESTOPPED (somebody called
 * aloop_stop first), ALOOP_EOTHERLOOP; ALOOP_ENOMEM also for a NULL future, so that calls nest. [loop] Not
 * inside callbacks. */
ALOOP_API int64_t aloop_run_until_complete(aloop_t *loop, aloop_future_t *future);

/* The same for a future whose result is an object: stores it in *out and makes the caller its owner, as
 * aloop_future_take_ptr does. Returns 0 or a code. [loop] Not inside callbacks. */
ALOOP_API int aloop_run_until_complete_ptr(aloop_t *loop, aloop_future_t *future, void *out);

/* One turn, for a host that has its own loop: waits at most `timeout` ns for something to do (0 or less: only
 * looks, ALOOP_FOREVER: no limit) and runs what was ready. Returns how many callbacks ran, or as
 * aloop_run_forever. [loop] Not inside callbacks. */
ALOOP_API int aloop_run_once(aloop_t *loop, int64_t timeout);

/* loop.stop: the current batch of callbacks finishes, then the run ends; what they added stays queued. [loop]
 */
ALOOP_API int aloop_stop(aloop_t *loop);

/* Ends the run right after the current callback, as a fatal exception does in asyncio: the rest of the batch
 * stays queued for the next run, and the run call returns `error` (negative). Errors: ALOOP_EINVAL (error >=
 * 0). [loop] */
ALOOP_API int aloop_stop_with_error(aloop_t *loop, int error);

/* loop.is_running. [any] */
ALOOP_API bool aloop_is_running(const aloop_t *loop);

/* asyncio.get_running_loop: the loop running in this thread, or NULL (also in the child of a fork). [any] */
ALOOP_API aloop_t *aloop_running_loop(void);

/* asyncio.get_event_loop, set_event_loop: the running loop, else the one set for this thread through the
 * policy. The thread's loop is borrowed, never freed for you; NULL unsets it. Errors: ALOOP_ENOLOOP (none is
 * set). [any] */
ALOOP_API int aloop_current(aloop_t **loop);
ALOOP_API int aloop_set_current(aloop_t *loop);

/* asyncio's event loop policy: decides what "the thread's loop" means and adjusts the options of every new
 * loop. A NULL member means the default behaviour: one loop per thread, options untouched. */
typedef struct aloop_policy {
  size_t size;
  int (*get_current)(void *user, aloop_t **loop);
  int (*set_current)(void *user, aloop_t *loop);
  void (*adjust_options)(void *user, aloop_options_t *options); /* `options` is a complete private copy */
  void *user;
} aloop_policy_t;

/* asyncio.set_event_loop_policy: process-wide; NULL restores the default. The table is borrowed and must
 * outlive its use. Set it before threads make loops. Never NULL from get. [any] */
ALOOP_API int aloop_set_policy(const aloop_policy_t *policy);
ALOOP_API const aloop_policy_t *aloop_get_policy(void);

/* Makes a loop usable in the child of a fork: new poller and wake-up descriptor, watches registered again,
 * callbacks and timers kept. Until then running it gives ALOOP_ECHILD. A no-op where no fork happened. What was
 * unsent is the parent's to send: here buffers are empty, who was closing ends, and what was sending (sendfile,
 * aloop_sock_sendall) ends with ALOOP_ECHILD. What comes is had by who reads first; a TLS connection is of use
 * to one of the two only: the other aborts it. What it calls (destructors of arguments, the exception handler)
 * finds the loop running. A fork inside a callback: in the child the loop does not run. The callback may run or
 * free it, but then must not return. If it returns without that, the parent's run ends in the child:
 * ALOOP_ECHILD. Errors: ALOOP_ERUNNING (called by what it calls); as aloop_new: the loop can then be told
 * again, or freed. [loop] */
ALOOP_API int aloop_after_fork(aloop_t *loop);

/* For hosting this loop in another: a descriptor that is readable when a turn would find I/O (ALOOP_ENOTSUP if
 * the poller has none; another one after aloop_after_fork), and the ns until the next turn is due (0: now,
 * ALOOP_FOREVER: only I/O). The hook is called whenever that moment moves closer while no turn runs; it may
 * only note the fact. NULL removes it. [loop] */
ALOOP_API int aloop_backend_fd(const aloop_t *loop);
ALOOP_API int64_t aloop_next_timeout(aloop_t *loop);
ALOOP_API int aloop_set_armed_hook(aloop_t *loop, aloop_callback_fn hook, void *arg);

/* The name of the poller in use, and in words why it is not the one that was asked for by name ("" if it is):
 * "uring" gives way to the next best where the kernel does not offer it. [any] */
ALOOP_API const char *aloop_poller_name(const aloop_t *loop);
ALOOP_API const char *aloop_poller_reason(const aloop_t *loop);

/* ---- Callbacks and timers -------------------------------------------------------------------------------- */

/* loop.call_soon: fn(loop, arg) runs in the next turn, after everything scheduled before it (strict FIFO). The
 * handle may be ignored. On failure the handle carries the code for aloop_handle_error: ALOOP_ENOMEM,
 * ALOOP_ECLOSED. [loop] */
ALOOP_API aloop_handle_t aloop_call_soon(aloop_t *loop, aloop_callback_fn fn, void *arg);

/* loop.call_later, loop.call_at: fn runs once, `delay` ns from now (negative: 0) or at `when` on aloop_time's
 * clock, never early; by deadline, equal ones in the order they were made. A moment that has passed means the
 * next turn that looks for I/O (20 us away at most while callbacks keep coming), after that I/O. Otherwise as
 * aloop_call_soon. [loop] */
ALOOP_API aloop_handle_t aloop_call_later(aloop_t *loop, int64_t delay, aloop_callback_fn fn, void *arg);
ALOOP_API aloop_handle_t aloop_call_at(aloop_t *loop, int64_t when, aloop_callback_fn fn, void *arg);

/* Beyond asyncio: fn runs every `period` ns (> 0), first one period from now, on a fixed grid (no drift; beats
 * missed because the loop was busy are skipped) until cancelled. [loop] */
ALOOP_API aloop_handle_t aloop_call_every(aloop_t *loop, int64_t period, aloop_callback_fn fn, void *arg);

/* loop.call_soon_threadsafe: as call_soon, from any thread, and wakes the loop if it sleeps. Such calls run in
 * the order they were made, whichever threads make them, but behind what aloop_call_soon has queued when the
 * loop takes them up, at the beginning of a turn: in the loop's own thread, too, where asyncio has one order
 * for both. They know no context variables of the caller. Lock-free. `arg` must stay valid until fn ran or the
 * loop is closed. Errors: ALOOP_ECLOSED, ALOOP_ENOMEM (also with two million posts waiting). [any], until
 * aloop_free begins. */
ALOOP_API int aloop_call_soon_threadsafe(aloop_t *loop, aloop_callback_fn fn, void *arg);

/* The same with the place of the call written out, for language bindings, as all calls with _from. `origin` is
 * borrowed and must be static. [loop], the threadsafe one [any] */
ALOOP_API aloop_handle_t aloop_call_soon_from(aloop_t *, aloop_callback_fn fn, void *arg, const char *origin);
ALOOP_API aloop_handle_t aloop_call_later_from(aloop_t *, int64_t, aloop_callback_fn fn, void *arg,
                                               const char *origin);
ALOOP_API aloop_handle_t aloop_call_at_from(aloop_t *, int64_t, aloop_callback_fn fn, void *arg,
                                            const char *origin);
ALOOP_API aloop_handle_t aloop_call_every_from(aloop_t *, int64_t, aloop_callback_fn fn, void *arg,
                                               const char *origin);
ALOOP_API int aloop_call_soon_threadsafe_from(aloop_t *, aloop_callback_fn fn, void *arg, const char *origin);
#define aloop_call_soon(...) aloop_call_soon_from(__VA_ARGS__, ALOOP_HERE)
#define aloop_call_later(...) aloop_call_later_from(__VA_ARGS__, ALOOP_HERE)
#define aloop_call_at(...) aloop_call_at_from(__VA_ARGS__, ALOOP_HERE)
#define aloop_call_every(...) aloop_call_every_from(__VA_ARGS__, ALOOP_HERE)
#define aloop_call_soon_threadsafe(...) aloop_call_soon_threadsafe_from(__VA_ARGS__, ALOOP_HERE)

/* loop.time: the monotonic clock. While the loop runs it is read at most once per callback, on first use; a
 * callback that computes for long calls aloop_update_time before it asks for a delay. [loop] */
ALOOP_API int64_t aloop_time(aloop_t *loop);
ALOOP_API int64_t aloop_update_time(aloop_t *loop);

/* Handle.cancel: once it returns the callback never runs, and *handle remembers that. Returns 1 if that was
 * still possible, 0 if the callback had run or was cancelled before (harmless, however long ago). [loop] */
ALOOP_API int aloop_cancel(aloop_t *loop, aloop_handle_t *handle);

/* TimerHandle, beyond asyncio: moves a pending timer to another moment, or revives none: O(1) when later, O(log
 * n) when sooner. Moving counts as making it anew among equal deadlines; a repeating timer goes on from there.
 * Errors: ALOOP_ENOENT (not a pending timer). [loop] */
ALOOP_API int aloop_reschedule(aloop_t *loop, const aloop_handle_t *handle, int64_t when);

/* 0 if scheduling succeeded, else why not; ALOOP_EINVAL for the empty handle, ALOOP_ECANCELED after
 * aloop_cancel. [any] */
ALOOP_API int aloop_handle_error(aloop_handle_t handle);

/* Handle.cancelled: whether aloop_cancel was called through this very value. [any] */
ALOOP_API bool aloop_handle_cancelled(aloop_handle_t handle);

/* Whether the callback is still going to run. [loop] */
ALOOP_API bool aloop_handle_pending(const aloop_t *loop, aloop_handle_t handle);

/* TimerHandle.when: the deadline of a pending timer, else ALOOP_ENOENT. [loop] */
ALOOP_API int64_t aloop_handle_when(const aloop_t *loop, aloop_handle_t handle);

/* ---- Context variables (contextvars) --------------------------------------------------------------------- */

/* ContextVar: `name` is copied. A variable belongs to no loop. unref accepts NULL; it lives on while values of
 * it do. The count is atomic: any thread may release it. [any] */
ALOOP_API int aloop_var_new(const char *name, aloop_var_t **var);
ALOOP_API void aloop_var_unref(aloop_var_t *var);

/* ContextVar.set: changes the value in the current context; callbacks scheduled from now on see it, those
 * scheduled before do not. `destroy` (may be NULL) runs on the value when the last context that holds it is
 * gone. *token (`token` may be NULL) remembers the old value for aloop_var_reset. On failure `destroy` has not
 * run. [loop] */
ALOOP_API int aloop_var_set(aloop_t *loop, aloop_var_t *var, void *value, aloop_destroy_fn destroy,
                            aloop_var_token_t **token);

/* ContextVar.get: the value in the current context, else `fallback`. Borrowed. [loop] */
ALOOP_API void *aloop_var_get(const aloop_t *loop, const aloop_var_t *var, void *fallback);

/* ContextVar.reset: puts the old value back and frees the token. On failure the token stays valid. NULL is a
 * no-op. [loop] */
ALOOP_API int aloop_var_reset(aloop_t *loop, aloop_var_token_t *token);

/* Frees a token that is not going to be used. NULL is fine. [loop] */
ALOOP_API void aloop_var_token_free(aloop_var_token_t *token);

/* copy_context, Context.run: a private copy of the current context, and fn(loop, arg) called at once within it;
 * what fn sets stays in that context. unref accepts NULL and may be called by fn. Errors: ALOOP_EBUSY (the
 * context is already entered), ALOOP_EOTHERLOOP. [loop] */
ALOOP_API int aloop_context_copy(aloop_t *loop, aloop_context_t **context);
ALOOP_API int aloop_context_run(aloop_t *loop, aloop_context_t *context, aloop_callback_fn fn, void *arg);
ALOOP_API void aloop_context_unref(aloop_context_t *context);

/* ---- Exception handler ----------------------------------------------------------------------------------- */

/* What went wrong where nobody was waiting for the answer. Members that do not apply are zero; fd is then -1.
 */
typedef struct aloop_error_context {
  size_t size;
  const char *message;    /* one English sentence */
  int error;              /* a code, or 0 for a mere warning */
  int fd;                 /* the descriptor concerned, or -1 */
  aloop_future_t *future; /* borrowed, like all below */
  aloop_handle_t handle;  /* of the callback */
  aloop_transport_t *transport;
  aloop_server_t *server;
  void *protocol;
  const char *origin;                         /* "file.c:12": where the callback or object was made */
  int64_t duration;                           /* of a slow callback or lookup, ns */
  const struct aloop_error_context *previous; /* what a failing handler was told */
  aloop_process_t *process;
  aloop_datagram_t *datagram;
} aloop_error_context_t;

/* Returns 0, or a code if it could not handle the report: the default handler then gets both. */
typedef int (*aloop_exception_handler_fn)(aloop_t *loop, const aloop_error_context_t *context, void *arg);

/* loop.set_exception_handler, get_exception_handler: NULL restores the default; get gives NULL for the default.
 * [loop] */
ALOOP_API int aloop_set_exception_handler(aloop_t *loop, aloop_exception_handler_fn handler, void *arg);
ALOOP_API aloop_exception_handler_fn aloop_get_exception_handler(const aloop_t *loop, void **arg);

/* loop.default_exception_handler: writes one line to stderr. [loop] */
ALOOP_API void aloop_default_exception_handler(aloop_t *loop, const aloop_error_context_t *context);

/* loop.call_exception_handler: hands a report to the handler in force. [loop] */
ALOOP_API void aloop_call_exception_handler(aloop_t *loop, const aloop_error_context_t *context);

/* ---- Debug, metrics, dump -------------------------------------------------------------------------------- */

/* loop.get_debug, set_debug, slow_callback_duration (ns, > 0). Debug mode reports to the exception handler:
 * slow callbacks and where they were scheduled, slow name lookups, calls from the wrong thread, misuse,
 * transports left open. A task that overflows its stack is named on stderr before the program crashes.
 * [loop] */
ALOOP_API bool aloop_get_debug(const aloop_t *loop);
ALOOP_API int aloop_set_debug(aloop_t *loop, bool on);
ALOOP_API int aloop_set_slow_callback_duration(aloop_t *loop, int64_t duration);

enum { ALOOP_LAG_BUCKETS = 24 };

/* Counters since aloop_new, always on. */
typedef struct aloop_counters {
  size_t size;
  uint64_t turns;
  uint64_t polls;     /* turns that asked the kernel */
  uint64_t events;    /* descriptors that were ready */
  uint64_t callbacks; /* run */
  uint64_t posts;     /* taken from other threads */
  uint64_t stale;     /* events dropped because their descriptor was gone or reused */
  int64_t busy_time;  /* ns outside and inside the poll call while the loop ran */
  int64_t idle_time;
  uint64_t lag
      [ALOOP_LAG_BUCKETS]; /* timers by lateness: [0] under 1 us, [i] under 2^i us, the last all later ones */
  uint64_t ready;          /* live objects: callbacks in the queue, ... */
  uint64_t timers;
  uint64_t watches; /* descriptors watched, transports included */
  uint64_t futures;
  uint64_t transports;
  uint64_t servers;
  uint64_t signal_handlers;
  uint64_t jobs; /* given to executors and not ended yet */
  uint64_t processes;
  uint64_t datagrams;    /* endpoints */
  uint64_t sync_objects; /* locks, events, ... */
  uint64_t tasks;
  uint64_t streams;
  uint64_t generators;
  uint64_t accepted;    /* connections that servers have got on this loop, so far */
  uint64_t handed_over; /* ... and that they have accepted here for other loops */
} aloop_metrics_t;

/* Fills in *metrics as far as its `size` reaches. [loop] */
ALOOP_API int aloop_metrics(aloop_t *loop, aloop_metrics_t *metrics);

/* Describes every live object, one line each with its kind, state, deadline or descriptor and origin, and
 * lastly what keeps the loop from being idle. `line` is called with text valid during the call, and makes no
 * calls that change the loop. [loop] */
ALOOP_API int aloop_dump(aloop_t *loop, void (*line)(void *arg, const char *text), void *arg);

/* ---- Descriptors ----------------------------------------------------------------------------------------- */

/* loop.add_reader, add_writer: fn(loop, arg) runs each turn in which fd is readable (writable); errors and
 * hang-ups count as both. Level-triggered. A second call replaces the callback, and one already queued in this
 * turn is dropped. The descriptor stays the caller's; remove before closing it. Returns 0. Errors: ALOOP_EBUSY
 * (a live transport or server owns fd, or an aloop_sock_... waits for this direction), ALOOP_EPERM (the poller
 * cannot watch it: a regular file), ALOOP_EBADF, ALOOP_ENOMEM, ALOOP_ERANGE (select's limit). [loop] */
ALOOP_API int aloop_add_reader(aloop_t *loop, int fd, aloop_callback_fn fn, void *arg);
ALOOP_API int aloop_add_writer(aloop_t *loop, int fd, aloop_callback_fn fn, void *arg);
ALOOP_API int aloop_add_reader_from(aloop_t *loop, int fd, aloop_callback_fn fn, void *arg, const char *origin);
ALOOP_API int aloop_add_writer_from(aloop_t *loop, int fd, aloop_callback_fn fn, void *arg, const char *origin);
#define aloop_add_reader(...) aloop_add_reader_from(__VA_ARGS__, ALOOP_HERE)
#define aloop_add_writer(...) aloop_add_writer_from(__VA_ARGS__, ALOOP_HERE)

/* loop.remove_reader, remove_writer: at once; a queued call is dropped. Returns 1 if something was removed,
 * else 0. Errors: ALOOP_EBUSY (as above), ALOOP_EBADF (negative). [loop] */
ALOOP_API int aloop_remove_reader(aloop_t *loop, int fd);
ALOOP_API int aloop_remove_writer(aloop_t *loop, int fd);

/* ---- Signals --------------------------------------------------------------------------------------------- */

typedef void (*aloop_signal_fn)(aloop_t *loop, int signum, void *arg);

/* loop.add_signal_handler, in any thread and for any number of loops and handlers: fn(loop, signum, arg) runs
 * as a callback of the loop once after one or more arrivals, in the order added. Adding the same fn and arg
 * again keeps the place and renews the rest. The first handler of the process for a signal saves what was there
 * before, the last one to go restores it, unless somebody else has put something over it meanwhile.
 * ALOOP_SIGNAL_CHAIN: what was there before is called too, inside the signal handler. In the child of a fork
 * arrivals wait for aloop_after_fork. Returns 0. Errors: ALOOP_EINVAL (no such signal, or one that cannot be
 * caught), ALOOP_ENOMEM, ALOOP_EMFILE, ALOOP_ENFILE. [loop] */
enum { ALOOP_SIGNAL_CHAIN = 1 };
ALOOP_API int aloop_add_signal_handler(aloop_t *loop, int signum, aloop_signal_fn fn, void *arg,
                                       unsigned flags);
ALOOP_API int aloop_add_signal_handler_from(aloop_t *loop, int signum, aloop_signal_fn fn, void *arg,
                                            unsigned flags, const char *origin);
#define aloop_add_signal_handler(...) aloop_add_signal_handler_from(__VA_ARGS__, ALOOP_HERE)

/* loop.remove_signal_handler: the handler with this fn and arg, or with a NULL fn all of this loop for the
 * signal, at once; a queued call is dropped. aloop_close removes all of the loop's. Returns how many were
 * removed. Errors: ALOOP_EINVAL. [loop] */
ALOOP_API int aloop_remove_signal_handler(aloop_t *loop, int signum, aloop_signal_fn fn, void *arg);

/* ---- Socket operations ----------------------------------------------------------------------------------- */

/* For the caller's own non-blocking sockets; in debug mode a blocking one is refused with ALOOP_EINVAL. Each is
 * tried at once, and waits only if it has to: a future may be done when it is returned. A socket has room for
 * one operation that reads (recv, recvfrom, accept) and one that writes (sendall, sendto, connect, sendfile) at
 * a time; the other direction may be watched by add_reader or add_writer. Cancelling is at once: the descriptor
 * may be closed and its number used again in the next statement. Do not close it before that, or before the
 * future is done. Errors of all: ALOOP_EBUSY (the direction is in use, or a live transport or server owns fd;
 * nothing was done), ALOOP_ENOTSOCK, and what the system call answers. */

/* loop.sock_recv, sock_recv_into: one receive of at most `size` bytes into `buffer`, which must stay valid
 * until the end. Ends with how many came; 0: end of the stream. [loop] */
ALOOP_API aloop_future_t *aloop_sock_recv(aloop_t *loop, int fd, void *buffer, size_t size);

/* loop.sock_recvfrom, sock_recvfrom_into: the same with the sender's address (*address_size as with
 * getsockname; both must stay valid, too). NULL: not wanted. [loop] */
ALOOP_API aloop_future_t *aloop_sock_recvfrom(aloop_t *loop, int fd, void *buffer, size_t size,
                                              struct sockaddr *address, socklen_t *address_size);

/* loop.sock_sendall: sends all of `data`, which must stay valid until the end, over a stream; at most 256 KiB
 * in a turn. Ends with `size`. The message of an error says how many bytes were sent. [loop] */
ALOOP_API aloop_future_t *aloop_sock_sendall(aloop_t *loop, int fd, const void *data, size_t size);

/* loop.sock_sendto: one send, a datagram, of `data`, which must stay valid until the end. The address is
 * copied; NULL: that of the connect. Ends with how many bytes were sent. [loop] */
ALOOP_API aloop_future_t *aloop_sock_sendto(aloop_t *loop, int fd, const void *data, size_t size,
                                            const struct sockaddr *address, socklen_t address_size);

/* loop.sock_connect, of which the name is looked up before. The address is copied. Ends with 0. Errors:
 * ALOOP_ECONNREFUSED, ALOOP_ETIMEDOUT, ... with a message that names the address; ALOOP_EAGAIN (the backlog of
 * a unix listener is full). After an error or a cancel the socket is good for nothing but close. [loop] */
ALOOP_API aloop_future_t *aloop_sock_connect(aloop_t *loop, int fd, const struct sockaddr *address,
                                             socklen_t address_size);

/* loop.sock_accept: ends with a new descriptor, non-blocking and close-on-exec, and the peer's address if that
 * is wanted (as with recvfrom). It belongs to whoever reads the result, and is closed with the future if nobody
 * does. Connections that died in the backlog are passed over. [loop] */
ALOOP_API aloop_future_t *aloop_sock_accept(aloop_t *loop, int fd, struct sockaddr *address,
                                            socklen_t *address_size);

/* loop.sock_sendfile: sends `count` bytes (0: to the end) of a regular file from `offset`; otherwise as
 * aloop_sendfile, ALOOP_NO_FALLBACK included. Ends with the bytes sent, fewer if the file is shorter. [loop] */
ALOOP_API aloop_future_t *aloop_sock_sendfile(aloop_t *loop, int fd, int file, int64_t offset, int64_t count,
                                              unsigned flags);

/* ---- Futures --------------------------------------------------------------------------------------------- */

/* loop.create_future: a pending future with one reference for the caller. NULL: out of memory. [loop] */
ALOOP_API aloop_future_t *aloop_future_new(aloop_t *loop);
ALOOP_API aloop_future_t *aloop_future_new_from(aloop_t *loop, const char *origin);
#define aloop_future_new(...) aloop_future_new_from(__VA_ARGS__, ALOOP_HERE)

/* Another reference, and the end of one; unref accepts NULL. With the last reference goes the result; an error
 * that nobody read is reported to the exception handler ("never retrieved"). The operation behind a pending
 * future goes on. [loop] */
ALOOP_API aloop_future_t *aloop_future_ref(aloop_future_t *future);
ALOOP_API void aloop_future_unref(aloop_future_t *future);

/* The same as aloop_future_unref, for a future just returned whose end is of no interest. [loop] */
ALOOP_API void aloop_future_detach(aloop_future_t *future);

/* The loop it belongs to. [any] */
ALOOP_API aloop_t *aloop_future_loop(const aloop_future_t *future);

/* Future.set_result: ends the future with a number >= 0, or with an object and `destroy` (may be NULL) that
 * releases it unless somebody takes it; on failure the object stays the caller's. If the future is one that the
 * library made, its operation is stopped first, as by cancel; so too by set_error. Errors: ALOOP_EDONE,
 * ALOOP_EINVAL (negative). [loop] */
ALOOP_API int aloop_future_set_value(aloop_future_t *future, int64_t value);
ALOOP_API int aloop_future_set_result(aloop_future_t *future, int64_t value, void *ptr,
                                      aloop_destroy_fn destroy);

/* Future.set_exception: ends the future with a negative code and, if not NULL, a message (copied). Errors:
 * ALOOP_EDONE, ALOOP_EINVAL (code >= 0). When out of memory the message is left out. [loop] */
ALOOP_API int aloop_future_set_error(aloop_future_t *future, int error, const char *message);

/* Future.cancel: stops the operation behind it, at once, and ends the future with ALOOP_ECANCELED. A task is
 * only asked to end, and so is what waits for tasks (gather, wait_for) and the wait of a condition: it stays
 * pending until they have. Returns 1, or 0 if it was already done. [loop] */
ALOOP_API int aloop_future_cancel(aloop_future_t *future);

/* For makers of operations: `stop(future, arg)` is called once, inside aloop_future_cancel, before the future
 * ends. NULL removes it. Errors: ALOOP_EDONE, ALOOP_EPERM (a future that the library made). [loop] */
ALOOP_API int aloop_future_on_cancel(aloop_future_t *future, aloop_done_fn stop, void *arg);

/* Future.done, Future.cancelled. [loop] */
ALOOP_API bool aloop_future_done(const aloop_future_t *future);
ALOOP_API bool aloop_future_cancelled(const aloop_future_t *future);

/* Future.result and Future.exception in one: the value (>= 0) or the error (negative; ALOOP_ECANCELED if
 * cancelled), or ALOOP_ENOTDONE. Counts as reading the error. [loop] */
ALOOP_API int64_t aloop_future_result(aloop_future_t *future);

/* The object of the result: borrowed from the future, or taken over by the caller. `out` is the address of a
 * pointer. Returns 0, ALOOP_ENOTDONE, ALOOP_ENOENT (there is none, or it was taken) or the future's error,
 * which then counts as read. [loop] */
ALOOP_API int aloop_future_result_ptr(aloop_future_t *future, void *out);
ALOOP_API int aloop_future_take_ptr(aloop_future_t *future, void *out);

/* The error in words: the message it was given, else aloop_strerror of it; "" if there is no error. Borrowed.
 * [loop] */
ALOOP_API const char *aloop_future_message(aloop_future_t *future);

/* Future.add_done_callback: fn(future, arg) runs through call_soon once the future is done, in the order added,
 * with the context of now; for a done future too. The future is kept until then. Errors: ALOOP_ENOMEM,
 * ALOOP_ECLOSED. [loop] */
ALOOP_API int aloop_future_add_done_callback(aloop_future_t *future, aloop_done_fn fn, void *arg);

/* Future.remove_done_callback: removes every equal pair and returns how many; those already queued still run.
 * [loop] */
ALOOP_API int aloop_future_remove_done_callback(aloop_future_t *future, aloop_done_fn fn, void *arg);

/* Every address that a failed (or late) connect tried, in order, with its error. ALOOP_ENOENT past the last.
 * [loop] */
typedef struct aloop_attempt {
  struct sockaddr_storage address;
  socklen_t address_size;
  int error;
} aloop_attempt_t;
ALOOP_API int aloop_future_attempt(const aloop_future_t *future, size_t index, aloop_attempt_t *attempt);

/* asyncio.sleep: done with 0 after `delay` ns; 0 or less means the next turn. [loop] */
ALOOP_API aloop_future_t *aloop_sleep(aloop_t *loop, int64_t delay);
ALOOP_API aloop_future_t *aloop_sleep_from(aloop_t *loop, int64_t delay, const char *origin);
#define aloop_sleep(...) aloop_sleep_from(__VA_ARGS__, ALOOP_HERE)

/* asyncio.gather: done with `count` when all are; fails with the first error at once, the others go on,
 * unless ALOOP_RETURN_ERRORS: then it waits for all and never fails. Cancelling it cancels all, and ends it
 * when all have ended (asyncio: the first), as the first that failed. Takes over the references; a NULL
 * among them gives NULL and cancels the rest, so that calls nest. Children: aloop_future_child; who reads
 * the result has what they give, bytes of a stream or a lock, but for descriptors. Errors: ALOOP_EOTHERLOOP,
 * ALOOP_EINVAL (unknown flags). [loop] */
enum { ALOOP_RETURN_ERRORS = 1 };
ALOOP_API aloop_future_t *aloop_gather(aloop_t *loop, aloop_future_t *const *futures, size_t count,
                                       unsigned flags);
ALOOP_API aloop_future_t *aloop_gather_from(aloop_t *loop, aloop_future_t *const *futures, size_t count,
                                            unsigned flags, const char *origin);
#define aloop_gather(...) aloop_gather_from(__VA_ARGS__, ALOOP_HERE)

/* asyncio.wait: done with the number of done children when `until` holds or after `timeout` ns (ALOOP_FOREVER:
 * no limit), in the next turn at the earliest; never cancels children, nor reads their errors. One given twice
 * counts twice. Takes over the references like gather. Errors: ALOOP_EINVAL (no futures, unknown `until`),
 * ALOOP_EOTHERLOOP. [loop] */
enum { ALOOP_ALL_COMPLETED = 0, ALOOP_FIRST_COMPLETED = 1, ALOOP_FIRST_EXCEPTION = 2 };
ALOOP_API aloop_future_t *aloop_wait(aloop_t *loop, aloop_future_t *const *futures, size_t count,
                                     int64_t timeout, int until);
ALOOP_API aloop_future_t *aloop_wait_from(aloop_t *loop, aloop_future_t *const *futures, size_t count,
                                          int64_t timeout, int until, const char *origin);
#define aloop_wait(...) aloop_wait_from(__VA_ARGS__, ALOOP_HERE)

/* The index-th future given to gather or wait (the one given to wait_for or shield: 0), borrowed as long as the
 * outer future lives; NULL past the end. [loop] */
ALOOP_API aloop_future_t *aloop_future_child(const aloop_future_t *future, size_t index);

/* asyncio.wait_for: the end of `future`, in the same call, or ALOOP_ETIMEDOUT after `timeout` ns (0 or less: in
 * the next turn, unless it is done already), which cancels it; a task that then ends with something else has
 * the last word. A result that comes in the same turn as the limit is kept (asyncio: lost), and the task that
 * awaits is not counted as asked to end. ALOOP_FOREVER: no limit. Takes over the reference; NULL gives NULL.
 * [loop] */
ALOOP_API aloop_future_t *aloop_wait_for(aloop_future_t *future, int64_t timeout);
ALOOP_API aloop_future_t *aloop_wait_for_from(aloop_future_t *future, int64_t timeout, const char *origin);
#define aloop_wait_for(...) aloop_wait_for_from(__VA_ARGS__, ALOOP_HERE)

/* asyncio.shield: the end of `future`, which goes on when the outer one is cancelled; a cancel of the inner one
 * is passed on, later, without its message. Takes over the reference; NULL gives NULL. [loop] */
ALOOP_API aloop_future_t *aloop_shield(aloop_future_t *future);
ALOOP_API aloop_future_t *aloop_shield_from(aloop_future_t *future, const char *origin);
#define aloop_shield(...) aloop_shield_from(__VA_ARGS__, ALOOP_HERE)

/* ---- Locks, events, ... ---------------------------------------------------------------------------------- */

/* asyncio's synchronisation: for tasks and callbacks of one loop, not for threads. All wait in the order of
 * their calls. What a future of these brings (a lock, a place, an item) belongs to whoever reads its result,
 * by aloop_await, aloop_future_result, ...; until then it is set aside, where in asyncio somebody who comes
 * later may be quicker, and if nobody reads it, because the future is dropped or its task was cancelled, it
 * goes to the next who waits. Cancelling a future leaves the line at once, not only when its task runs.
 * *_new: an object of the loop, which outlives aloop_close. Errors: ALOOP_ENOMEM. *_free: whoever waits ends
 * with ALOOP_ECANCELED; NULL is fine. */

/* asyncio.Lock. [loop] */
ALOOP_API int aloop_lock_new(aloop_t *loop, aloop_lock_t **lock);
ALOOP_API void aloop_lock_free(aloop_lock_t *lock);

/* Lock.acquire: done with 0 when the lock is the caller's. A second acquire waits also for the same task.
 * [loop] */
ALOOP_API aloop_future_t *aloop_lock_acquire(aloop_lock_t *lock);

/* Lock.release: the next in line gets it. Whoever has the lock may have others release it. Errors: ALOOP_EPERM
 * (it is not acquired, or the next in line has not read his result yet). [loop] */
ALOOP_API int aloop_lock_release(aloop_lock_t *lock);

/* Lock.locked: whether acquire would have to wait. [loop] */
ALOOP_API bool aloop_lock_locked(const aloop_lock_t *lock);

/* asyncio.Event: not set at first. [loop] */
ALOOP_API int aloop_event_new(aloop_t *loop, aloop_event_t **event);
ALOOP_API void aloop_event_free(aloop_event_t *event);

/* Event.wait: done with 0 when the event is set, at once if it is. [loop] */
ALOOP_API aloop_future_t *aloop_event_wait(aloop_event_t *event);

/* Event.set: ends all that wait now, even if it is cleared before they run. Event.clear, Event.is_set.
 * [loop] */
ALOOP_API int aloop_event_set(aloop_event_t *event);
ALOOP_API int aloop_event_clear(aloop_event_t *event);
ALOOP_API bool aloop_event_is_set(const aloop_event_t *event);

/* asyncio.Condition: over `lock`, which it keeps alive and others may share, or a new one of its own (NULL).
 * Free: whoever waits ends as if cancelled, also who waits for its own lock, and need not give that back.
 * Errors: ALOOP_EOTHERLOOP. [loop] */
ALOOP_API int aloop_condition_new(aloop_t *loop, aloop_lock_t *lock, aloop_condition_t **condition);
ALOOP_API void aloop_condition_free(aloop_condition_t *condition);

/* Condition.acquire, release, locked: those of its lock. [loop] */
ALOOP_API aloop_future_t *aloop_condition_acquire(aloop_condition_t *condition);
ALOOP_API int aloop_condition_release(aloop_condition_t *condition);
ALOOP_API bool aloop_condition_locked(const aloop_condition_t *condition);

/* Condition.wait: releases the lock; done with 0 when it was notified and has the lock again. Cancelling is a
 * request: the future ends when it has the lock, which is the caller's whatever the end is and whether it
 * is read or not, unless the lock was freed or the loop closed. A notification that a cancelled task misses
 * goes to the next. Errors: ALOOP_EPERM (the lock is not acquired). [loop] */
ALOOP_API aloop_future_t *aloop_condition_wait(aloop_condition_t *condition);

/* Condition.wait_for: waits until predicate(arg) holds, which is looked at now and after each notification,
 * with the lock, inside the call that released it; it only looks. Otherwise as aloop_condition_wait. [loop] */
ALOOP_API aloop_future_t *aloop_condition_wait_for(aloop_condition_t *condition, bool (*predicate)(void *arg),
                                                   void *arg);

/* Condition.notify, notify_all: lets the first `count` who wait, or all, go on as soon as they get the lock,
 * for which they stand in line from now on, as does who is cancelled (asyncio: when their tasks run).
 * Errors: ALOOP_EPERM (the lock is not acquired). [loop] */
ALOOP_API int aloop_condition_notify(aloop_condition_t *condition, size_t count);
ALOOP_API int aloop_condition_notify_all(aloop_condition_t *condition);

/* asyncio.Semaphore, BoundedSemaphore: `value` places; a bounded one never has more. Errors: ALOOP_EINVAL
 * (negative). [loop] */
ALOOP_API int aloop_semaphore_new(aloop_t *loop, int64_t value, bool bounded, aloop_semaphore_t **semaphore);
ALOOP_API void aloop_semaphore_free(aloop_semaphore_t *semaphore);

/* Semaphore.acquire: done with 0 when the caller has a place. Nobody overtakes one who waited and was given his
 * place but has not read it yet. [loop] */
ALOOP_API aloop_future_t *aloop_semaphore_acquire(aloop_semaphore_t *semaphore);

/* Semaphore.release: one place more, for the first who waits. Errors: ALOOP_ERANGE (beyond the bound; a place
 * that somebody was given and has not read yet is a free one). [loop] */
ALOOP_API int aloop_semaphore_release(aloop_semaphore_t *semaphore);

/* Semaphore.locked: whether acquire would have to wait; and how many places are free. [loop] */
ALOOP_API bool aloop_semaphore_locked(const aloop_semaphore_t *semaphore);
ALOOP_API int64_t aloop_semaphore_value(const aloop_semaphore_t *semaphore);

/* asyncio.Barrier: for `parties` (at least 1). [loop] */
ALOOP_API int aloop_barrier_new(aloop_t *loop, size_t parties, aloop_barrier_t **barrier);
ALOOP_API void aloop_barrier_free(aloop_barrier_t *barrier);

/* Barrier.wait: done when `parties` wait, each with another number from 0 to parties - 1, in the order of
 * their calls. With the last of them the round is over: whoever calls next is the first of another one, and
 * a reset does not reach back (asyncio: not before all have run). Cancelling breaks nothing. Errors:
 * ALOOP_EBROKEN (reset or aborted). [loop] */
ALOOP_API aloop_future_t *aloop_barrier_wait(aloop_barrier_t *barrier);

/* Barrier.reset, abort: whoever waits ends with ALOOP_EBROKEN; after abort, so does everybody else until a
 * reset. [loop] */
ALOOP_API int aloop_barrier_reset(aloop_barrier_t *barrier);
ALOOP_API int aloop_barrier_abort(aloop_barrier_t *barrier);

/* Barrier.parties, n_waiting, broken. [loop] */
ALOOP_API size_t aloop_barrier_parties(const aloop_barrier_t *barrier);
ALOOP_API size_t aloop_barrier_n_waiting(const aloop_barrier_t *barrier);
ALOOP_API bool aloop_barrier_broken(const aloop_barrier_t *barrier);

enum { ALOOP_FIFO = 0, ALOOP_LIFO = 1, ALOOP_PRIORITY = 2 };

typedef struct aloop_queue_options {
  size_t size;
  size_t maxsize; /* 0: no limit */
  int kind;       /* ALOOP_FIFO, ... */
  /* ALOOP_PRIORITY: negative if a comes out before b; equals come out in the order they went in. It only
   * compares. */
  int (*compare)(const void *a, const void *b, void *arg);
  void *compare_arg;
  aloop_destroy_fn destroy; /* of items that nobody gets; may be NULL */
} aloop_queue_options_t;

/* asyncio.Queue, LifoQueue, PriorityQueue of pointers (NULL may be one). `options` may be NULL. Free: items
 * that are left are destroyed. [loop] */
ALOOP_API int aloop_queue_new(aloop_t *loop, const aloop_queue_options_t *options, aloop_queue_t **queue);
ALOOP_API void aloop_queue_free(aloop_queue_t *queue);

/* Queue.put, put_nowait: the item is the queue's once the put ended with 0, otherwise it stays the caller's. A
 * put that had to wait is in the queue when its result is read, or nobody is left to do so. Errors:
 * ALOOP_ECLOSED (shut down); put_nowait: ALOOP_EAGAIN (full), ALOOP_ENOMEM. [loop] */
ALOOP_API aloop_future_t *aloop_queue_put(aloop_queue_t *queue, void *item);
ALOOP_API int aloop_queue_put_nowait(aloop_queue_t *queue, void *item);

/* Queue.get, get_nowait: the object of the future is the item, for aloop_await_ptr, aloop_future_take_ptr, ...;
 * which one it is turns out when the result is read, so that urgent items overtake until then and a get
 * that is cancelled takes none. `out` is the address of a pointer. Errors: ALOOP_ECLOSED (shut down, and
 * nothing left); get_nowait: ALOOP_EAGAIN (empty). [loop] */
ALOOP_API aloop_future_t *aloop_queue_get(aloop_queue_t *queue);
ALOOP_API int aloop_queue_get_nowait(aloop_queue_t *queue, void *out);

/* Queue.task_done, join: an item that was got is done; done with 0 when all that were put are. Errors:
 * ALOOP_ERANGE (more often than items were put). [loop] */
ALOOP_API int aloop_queue_task_done(aloop_queue_t *queue);
ALOOP_API aloop_future_t *aloop_queue_join(aloop_queue_t *queue);

/* Queue.shutdown (3.13): nothing can be put any more, and get fails when the queue is empty; who waits to put
 * or get ends with ALOOP_ECLOSED. `immediate`: items that are left are destroyed, and count as done. [loop] */
ALOOP_API int aloop_queue_shutdown(aloop_queue_t *queue, bool immediate);

/* Queue.qsize, with items that somebody was promised; maxsize; empty, full: whether get, put would have to
 * wait. [loop] */
ALOOP_API size_t aloop_queue_qsize(const aloop_queue_t *queue);
ALOOP_API size_t aloop_queue_maxsize(const aloop_queue_t *queue);
ALOOP_API bool aloop_queue_empty(const aloop_queue_t *queue);
ALOOP_API bool aloop_queue_full(const aloop_queue_t *queue);

/* Futures in the order in which they end. */
typedef struct aloop_as_completed aloop_as_completed_t;

/* asyncio.as_completed: goes through `futures` in the order in which they end, for at most `timeout` ns
 * (ALOOP_FOREVER: no limit). Takes over the references, also when it fails; never cancels them, but when out of
 * memory, or for a NULL among them (ALOOP_ENOMEM), so that calls nest. Errors: ALOOP_EOTHERLOOP. [loop] */
ALOOP_API int aloop_as_completed_new(aloop_t *loop, aloop_future_t *const *futures, size_t count,
                                     int64_t timeout, aloop_as_completed_t **all);
ALOOP_API void aloop_as_completed_free(aloop_as_completed_t *all);

/* The next future that has ended: the object of this one, with a reference for aloop_future_take_ptr; its value
 * is the index. Errors: ALOOP_ENOENT (all were given), ALOOP_ETIMEDOUT (once for each that did not end in
 * time). [loop] */
ALOOP_API aloop_future_t *aloop_as_completed_next(aloop_as_completed_t *all);

/* ---- Executors ------------------------------------------------------------------------------------------- */

/* A piece of work, called in another thread: it must not touch the loop or its objects. */
typedef int64_t (*aloop_job_fn)(void *arg);

/* Kinds of work that never wait for each other: each has its own queue and its own limit of threads. */
enum { ALOOP_LANE_USER = 0, ALOOP_LANE_FILE = 1, ALOOP_LANE_DNS = 2, ALOOP_LANES = 3 };

/* loop.run_in_executor: fn(arg) runs in a thread of `executor` (NULL: the loop's default); the future ends with
 * what it returns, a number >= 0 or a negative code. Cancelling, aloop_close too, takes a job that has not
 * begun out of the queue; one that has begun goes on, unheard: `arg` must be valid until fn has returned.
 * Errors: ALOOP_ECLOSED (executor shut down), ALOOP_EAGAIN (queue full, or no thread to be had), ALOOP_ECHILD
 * (the process forked), ALOOP_EINVAL. [loop] */
ALOOP_API aloop_future_t *aloop_run_in_executor(aloop_t *loop, aloop_executor_t *executor, aloop_job_fn fn,
                                                void *arg);

typedef struct aloop_job_options {
  size_t size;
  int lane; /* ALOOP_LANE_... */
  aloop_job_fn fn;
  void *arg;
  aloop_destroy_fn destroy; /* of arg; may be NULL */
} aloop_job_options_t;

/* Beyond asyncio, with a lane and an owned argument: if `destroy` is set, `arg` becomes the object of the
 * future (aloop_future_take_ptr) and is destroyed with it; when the future failed or was cancelled, as soon as
 * fn has returned or will not be called: in the loop's thread, once the loop is closed in the worker's. NULL
 * (out of memory): `arg` stays the caller's. Otherwise as aloop_run_in_executor. [loop] */
ALOOP_API aloop_future_t *aloop_submit(aloop_t *loop, aloop_executor_t *executor,
                                       const aloop_job_options_t *options);

/* loop.set_default_executor: a reference is taken, so one pool can serve many loops, and given up by
 * aloop_close; NULL: a thread pool of the loop's own again, made on first use (and anew in the child of a
 * fork). get makes it; borrowed, NULL: out of memory or shut down. Errors: ALOOP_EINVAL (a process pool).
 * [loop] */
ALOOP_API int aloop_set_default_executor(aloop_t *loop, aloop_executor_t *executor);
ALOOP_API aloop_executor_t *aloop_get_default_executor(aloop_t *loop);

/* loop.shutdown_default_executor: refuses new jobs from now on, until another executor is set; done with 0 when
 * all that were queued have run and the threads ended, or with ALOOP_ETIMEDOUT after `timeout` ns
 * (ALOOP_FOREVER: no limit), when those still running are left alone. An executor that is shared is shut down
 * for all. Cancelling it stops the wait only. aloop_close ends a pool of the loop's own without waiting.
 * Errors: ALOOP_EAGAIN (no thread to wait in; nothing was shut down). [loop] */
ALOOP_API aloop_future_t *aloop_shutdown_default_executor(aloop_t *loop, int64_t timeout);

typedef struct aloop_thread_pool_options {
  size_t size;
  const char *name;         /* of the threads, 15 characters; NULL: "aloop-pool" */
  int threads[ALOOP_LANES]; /* at most, per lane; 0: min(32, CPUs + 4) */
  size_t queue_limit;       /* jobs waiting, per lane; 0: no limit */
  int64_t idle_timeout;     /* a thread without work ends after so many ns; 0: 30 s, ALOOP_FOREVER: never */
  size_t stack_size;        /* of a thread; 0: the system's */
} aloop_thread_pool_options_t;

/* ThreadPoolExecutor: threads are started when a job finds none idle, and block all signals but those of their
 * own faults (SIGSEGV, ...). `options` may be NULL. The caller owns the reference. Errors: ALOOP_EINVAL (a
 * negative number, too small a stack), ALOOP_ENOMEM. [any] */
ALOOP_API int aloop_thread_pool_new(const aloop_thread_pool_options_t *options, aloop_executor_t **pool);

/* Changes the limit of a lane (0: as in the options); threads over it end after their job. Errors:
 * ALOOP_ENOTSUP (not a thread pool), ALOOP_ECHILD (made before a fork), ALOOP_EINVAL. [any] */
ALOOP_API int aloop_thread_pool_resize(aloop_executor_t *pool, int lane, int threads);

/* Reference counting, atomic; unref accepts NULL. The last one shuts the executor down without waiting: jobs
 * that are queued still run. [any] */
ALOOP_API aloop_executor_t *aloop_executor_ref(aloop_executor_t *executor);
ALOOP_API void aloop_executor_unref(aloop_executor_t *executor);

/* Executor.shutdown: refuses new jobs and waits at most `timeout` ns (0: not, ALOOP_FOREVER) until those queued
 * have run and the threads ended. ALOOP_CANCEL_QUEUED: those that have not begun end with ALOOP_ECANCELED
 * instead. Again is fine. Errors: ALOOP_ETIMEDOUT, ALOOP_EBUSY (called from one of its own jobs with a
 * timeout), ALOOP_ECHILD (made before a fork). [any]; blocks, so not where a loop should turn. */
enum { ALOOP_CANCEL_QUEUED = 1 };
ALOOP_API int aloop_executor_shutdown(aloop_executor_t *executor, int64_t timeout, unsigned flags);

typedef struct aloop_lane_stats {
  uint64_t queued, running, threads, idle; /* now; idle threads are counted in every lane that could use them */
  uint64_t done, cancelled, refused;       /* since the start; cancelled: before they began */
  int64_t wait_time, wait_max;             /* ns in the queue, in total and the longest */
  int64_t run_time, run_max;
} aloop_lane_stats_t;

typedef struct aloop_executor_counters {
  size_t size;
  aloop_lane_stats_t lanes[ALOOP_LANES];
} aloop_executor_stats_t;

/* Fills in *stats as far as its size reaches. Errors: ALOOP_ENOTSUP (an executor of your own that has none),
 * ALOOP_ECHILD (made before a fork). [any] */
ALOOP_API int aloop_executor_stats(const aloop_executor_t *executor, aloop_executor_stats_t *stats);

/* An executor of your own. Every function may be called from any thread, several at once. */
typedef struct aloop_executor_table {
  size_t size;
  const char *name; /* for messages; NULL: "executor" */
  /* Takes a job: afterwards exactly one of aloop_job_run and aloop_job_drop must be called for it, once, in any
   * thread. Returns 0, or a code and then has not taken it. */
  int (*submit)(void *state, aloop_job_t *job, int lane);
  /* May be NULL. Takes a waiting job back: 1 (nothing may be called for it any more), or 0 if it was too late.
   */
  int (*cancel)(void *state, aloop_job_t *job);
  /* May be NULL. As aloop_executor_shutdown. */
  int (*shutdown)(void *state, int64_t timeout, unsigned flags);
  /* May be NULL. */
  int (*stats)(void *state, aloop_executor_stats_t *stats);
  /* May be NULL. The last reference went: from the program, a loop or a job. Jobs whose futures were cancelled
   * may still run. */
  void (*destroy)(void *state);
} aloop_executor_table_t;

/* Makes an executor over a table (borrowed for its life). [any] */
ALOOP_API int aloop_executor_new(const aloop_executor_table_t *table, void *state, aloop_executor_t **executor);

/* For executors: does the job, in this thread; or ends it without, with a negative code. Both also after the
 * loop of the job was freed. [any] */
ALOOP_API void aloop_job_run(aloop_job_t *job);
ALOOP_API void aloop_job_drop(aloop_job_t *job, int error);

/* ---- Tasks ----------------------------------------------------------------------------------------------- */

/* What a task runs, on a stack of its own: a plain function, which may wait with aloop_await at any depth. The
 * task ends with what it returns: a number >= 0 or a negative code. Beware of addresses that belong to a thread
 * (errno, _Thread_local) if the loop goes on in another thread, and of longjmp out of a task. */
typedef int64_t (*aloop_task_fn)(aloop_t *loop, void *arg);

enum { ALOOP_STACK_SIZE = 262144 };

typedef struct aloop_task_options {
  size_t size;
  const char *name;         /* copied; NULL: "Task-1", "Task-2", ... */
  aloop_context_t *context; /* it runs in this, and keeps it meanwhile; NULL: a copy of the current one */
  size_t stack_size;        /* address space, of which what is touched becomes memory; 0: ALOOP_STACK_SIZE */
  bool eager;               /* it runs inside this call until its first await, if the loop runs */
  aloop_destroy_fn destroy; /* of arg, when the task has ended, also if it never began; may be NULL */
} aloop_task_options_t;

/* loop.create_task: a future that is a task, which begins in the next turn. Two references, one for the caller,
 * one until it ends: it may be detached. `options` may be NULL. A task that is cancelled before it begins never
 * runs; one that finds no memory for a stack then ends with ALOOP_ENOMEM. NULL: `arg` stays the caller's. Its
 * end is its own: aloop_future_set_... answer ALOOP_EPERM. Errors: ALOOP_EBUSY (eager in a context that is
 * entered), ALOOP_EOTHERLOOP (context), ALOOP_ECLOSED. [loop] */
ALOOP_API aloop_future_t *aloop_create_task(aloop_t *loop, aloop_task_fn fn, void *arg,
                                            const aloop_task_options_t *options);
ALOOP_API aloop_future_t *aloop_create_task_from(aloop_t *loop, aloop_task_fn fn, void *arg,
                                                 const aloop_task_options_t *options, const char *origin);
#define aloop_create_task(...) aloop_create_task_from(__VA_ARGS__, ALOOP_HERE)

/* await: suspends the task until the future is done; a done one does not suspend. Returns its value or error.
 * Takes over the reference; NULL gives ALOOP_ENOMEM, so that calls nest: aloop_await(aloop_sleep(loop, ...)).
 * Errors besides: ALOOP_ECANCELED (this task was cancelled; a result that came in the same moment is dropped
 * unread, so a lock or a descriptor goes back), ALOOP_EPERM, ALOOP_EINVAL (a task awaits itself),
 * ALOOP_EOTHERLOOP, ALOOP_ECLOSED (the loop is being closed: from then on no await waits). [task] */
ALOOP_API int64_t aloop_await(aloop_future_t *future);

/* The same for a result that is an object: stores it in *out and makes the caller its owner. Returns 0 or a
 * code; ALOOP_ENOENT: there is no object. [task] */
ALOOP_API int aloop_await_ptr(aloop_future_t *future, void *out);

/* The same as aloop_await, but the reference stays the caller's: for the message, the attempts, the object.
 * Afterwards aloop_future_message says why it failed, or aloop_future_take_ptr gives the object. [task] */
ALOOP_API int64_t aloop_await_keep(aloop_future_t *future);

/* What a task's function returns if its result is an object, `return aloop_return_ptr(p, free);`, or an error
 * with a message (printf), `return aloop_return_error(ALOOP_EIO, "%s: short read", name);`. They return 0 and
 * `error`. `destroy` may be NULL; it is called if nobody takes the object, also when the task ends otherwise
 * after all. [task] */
ALOOP_API int64_t aloop_return_ptr(void *ptr, aloop_destroy_fn destroy);
ALOOP_API int64_t aloop_return_error(int error, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    ;

/* asyncio.current_task: the task that runs now, borrowed; NULL outside of tasks. [loop] */
ALOOP_API aloop_future_t *aloop_current_task(const aloop_t *loop);

/* asyncio.all_tasks: fills tasks[0..capacity) with new references to those that have not ended, oldest first.
 * Returns how many there are. [loop] */
ALOOP_API size_t aloop_all_tasks(aloop_t *loop, aloop_future_t **tasks, size_t capacity);

/* asyncio.isfuture's sister: whether it is a task, foreign ones included. [any] */
ALOOP_API bool aloop_is_task(const aloop_future_t *future);

/* Task.get_name, set_name: borrowed, until the next set_name or the task's last reference; the name is copied.
 * Errors: ALOOP_EINVAL (not a task; the name is then ""), ALOOP_ENOMEM. [loop] */
ALOOP_API const char *aloop_task_name(aloop_future_t *task);
ALOOP_API int aloop_task_set_name(aloop_future_t *task, const char *name);

/* Task.cancel, which aloop_future_cancel is, too: asks the task to end. Its await ends with ALOOP_ECANCELED:
 * the future it waits for is cancelled, or if that is done, or it waits for nothing yet, the request itself
 * ends its next await that waits. The function may do its last things, await others, and even go on: the task
 * is cancelled only if it returns ALOOP_ECANCELED, or a number >= 0 with the request still under way. `message`
 * (copied, may be NULL) is the error's, the last request's if there are several. Returns 1, or 0 if the task
 * was done. Errors: ALOOP_EINVAL (not a task). [loop] */
ALOOP_API int aloop_task_cancel(aloop_future_t *task, const char *message);

/* Task.uncancel, Task.cancelling: takes one request back, for who has dealt with it, and how many are left,
 * which both return. With the last one goes a request that was not delivered yet. [loop] */
ALOOP_API int aloop_task_uncancel(aloop_future_t *task);
ALOOP_API int aloop_task_cancelling(const aloop_future_t *task);

/* loop.set_task_factory, get_task_factory: `factory` makes the tasks of this loop: any future of the loop, NULL
 * when out of memory. It gets what aloop_create_task was given, unchecked. Inside of it aloop_create_task makes
 * one of ours. NULL restores ours, and is what get gives for it. Errors: ALOOP_ENOMEM. [loop] */
typedef aloop_future_t *(*aloop_task_factory_fn)(aloop_t *loop, aloop_task_fn fn, void *arg,
                                                 const aloop_task_options_t *options, void *factory_arg);
ALOOP_API int aloop_set_task_factory(aloop_t *loop, aloop_task_factory_fn factory, void *arg);
ALOOP_API aloop_task_factory_fn aloop_get_task_factory(const aloop_t *loop, void **arg);

/* For such a factory, a task whose body is elsewhere, in a language runtime: pending until the runtime calls
 * aloop_future_set_.... cancel(task, arg) is called for each request to end and has to bring the body to its
 * end; aloop_close calls it too, and does not wait. Of the options it knows name, context and destroy; how it
 * begins is the factory's affair. [loop] */
ALOOP_API aloop_future_t *aloop_foreign_task_new(aloop_t *loop, const aloop_task_options_t *options,
                                                 aloop_done_fn cancel, void *arg);

/* asyncio's _enter_task and _leave_task: the body of a foreign task runs from here to there: it is the current
 * task, its context the current one. Nests. Errors: ALOOP_EINVAL (not a foreign task), ALOOP_EBUSY (entered
 * already), ALOOP_EDONE (enter: it has ended), ALOOP_EPERM (leave: another one is current). [loop] */
ALOOP_API int aloop_task_enter(aloop_future_t *task);
ALOOP_API int aloop_task_leave(aloop_future_t *task);

typedef struct aloop_run_options {
  size_t size;
  const aloop_options_t *loop;      /* for aloop_new; may be NULL */
  const aloop_task_options_t *task; /* for the main task; may be NULL */
  bool keep_sigint;                 /* SIGINT is not touched */
  int64_t executor_timeout;         /* ns to wait for jobs of the default executor; 0: 300 s, ALOOP_FOREVER */
  char *message;                    /* where to say in words why the run failed; NULL: nowhere */
  size_t message_size;
} aloop_run_options_t;

/* asyncio.run: makes a loop, runs fn(loop, arg) as its main task, cancels the tasks that are left then and
 * waits for them, closes the generators, shuts the default executor down, and closes the loop. In the main
 * thread, and if the program leaves SIGINT to the system, the first SIGINT cancels the main task and a second
 * one ends the run at once, unless the loop has a handler for it (aloop_add_signal_handler). Returns what the
 * main task ends with, `message` in its words (aloop_return_error); ALOOP_EINTR if a SIGINT ended it;
 * ALOOP_ERUNNING (a loop is running in this thread), ALOOP_ESTOPPED (somebody called aloop_stop), or as
 * aloop_new. [any] */
ALOOP_API int64_t aloop_run(aloop_task_fn fn, void *arg, const aloop_run_options_t *options);

typedef struct aloop_sync_future aloop_sync_future_t; /* what other threads know of a task */

/* asyncio.run_coroutine_threadsafe: has the loop, which another thread runs, make a task. *future is one
 * reference; to give it up early is fine, the task goes on. Errors: ALOOP_ECLOSED, ALOOP_ENOMEM. [any], until
 * aloop_free begins. */
ALOOP_API int aloop_run_coroutine_threadsafe(aloop_t *loop, aloop_task_fn fn, void *arg,
                                             aloop_sync_future_t **future);

/* concurrent.futures.Future.result: waits until the task has ended, at most `timeout` ns (0: only looks,
 * ALOOP_FOREVER: no limit), and returns its value or error. Errors besides: ALOOP_ETIMEDOUT (the task goes on),
 * ALOOP_ECLOSED (the loop was closed first), ALOOP_EPERM (in the thread that runs the loop: the wait would
 * never end). [any]; blocks. */
ALOOP_API int64_t aloop_sync_wait(aloop_sync_future_t *future, int64_t timeout);

/* Future.cancel: asks the task to end, as aloop_task_cancel; waits go on until it has. Returns 1, or 0 if it
 * has ended. Errors: ALOOP_ENOMEM. And Future.done. [any] */
ALOOP_API int aloop_sync_cancel(aloop_sync_future_t *future);
ALOOP_API bool aloop_sync_done(aloop_sync_future_t *future);

/* Reference counting, atomic; both accept NULL. The last one may come after the loop was freed. [any] */
ALOOP_API aloop_sync_future_t *aloop_sync_ref(aloop_sync_future_t *future);
ALOOP_API void aloop_sync_unref(aloop_sync_future_t *future);

/* asyncio.to_thread: aloop_run_in_executor with the default executor. [loop] */
ALOOP_API aloop_future_t *aloop_to_thread(aloop_t *loop, aloop_job_fn fn, void *arg);

/* ---- Time limits and task groups ------------------------------------------------------------------------- */

/* asyncio.timeout: what the task awaits between begin and end is cancelled when the time is over.
 *
 *     aloop_timeout_t limit;
 *     aloop_timeout_begin(&limit, ALOOP_SECONDS(1));
 *     int64_t rc = work(loop);
 *     rc = aloop_timeout_end(&limit, rc);     now ALOOP_ETIMEDOUT, if the limit ended the work
 *
 * The members are private. */
typedef struct aloop_timeout {
  aloop_future_t *inside;
  aloop_future_t *task;
  int64_t when;
  int cancelling;
  int error;
  bool expired;
} aloop_timeout_t;

/* asyncio.timeout, timeout_at: begins a scope of the current task, `delay` ns long (ALOOP_FOREVER: without a
 * limit so far), or until `when` on aloop_time's clock. A time that is over already cancels the next await that
 * waits. Scopes nest. The code may be ignored: the end answers with it. Errors: ALOOP_EPERM (outside of tasks),
 * ALOOP_ENOMEM. [task] */
ALOOP_API int aloop_timeout_begin(aloop_timeout_t *scope, int64_t delay);
ALOOP_API int aloop_timeout_begin_at(aloop_timeout_t *scope, int64_t when);

/* Ends it; every begin needs its end. Returns `rc`, the result of what was done inside, but ALOOP_ETIMEDOUT for
 * an ALOOP_ECANCELED that came from this scope and from nobody else. Errors: ALOOP_EPERM (ended already).
 * [task] */
ALOOP_API int64_t aloop_timeout_end(aloop_timeout_t *scope, int64_t rc);

/* Timeout.reschedule: another deadline, ALOOP_FOREVER: none. Errors: ALOOP_EDONE (it has expired), ALOOP_EPERM
 * (not between begin and end), ALOOP_ENOMEM. Timeout.when: the deadline or ALOOP_FOREVER. Timeout.expired:
 * whether it was over before the end. [loop] */
ALOOP_API int aloop_timeout_reschedule(aloop_timeout_t *scope, int64_t when);
ALOOP_API int64_t aloop_timeout_when(const aloop_timeout_t *scope);
ALOOP_API bool aloop_timeout_expired(const aloop_timeout_t *scope);

typedef struct aloop_task_group aloop_task_group_t; /* tasks that end before the scope that made them */

/* asyncio.TaskGroup, whose parent is the current task. The first child that fails cancels the others, and the
 * parent, once, so that it leaves what it is doing:
 *
 *     aloop_task_group_t *group;
 *     int64_t rc = aloop_task_group_begin(loop, &group);
 *     if (rc < 0) return rc;
 *     aloop_future_detach(aloop_task_group_create_task(group, worker, arg, NULL));
 *     rc = aloop_task_group_end(group, work(loop));
 *     aloop_task_group_free(group);
 *
 * Errors: ALOOP_EPERM (outside of tasks), ALOOP_ENOMEM. [task] */
ALOOP_API int aloop_task_group_begin(aloop_t *loop, aloop_task_group_t **group);

/* TaskGroup.create_task: as aloop_create_task, a child, whose error counts as read. NULL (out of memory) is a
 * failure of the group, too, so it may be detached unseen. Errors besides: ALOOP_ECLOSED (the group is being
 * cancelled), ALOOP_EPERM (it has ended); `destroy` of the options is called then. [loop] */
ALOOP_API aloop_future_t *aloop_task_group_create_task(aloop_task_group_t *group, aloop_task_fn fn, void *arg,
                                                       const aloop_task_options_t *options);
ALOOP_API aloop_future_t *aloop_task_group_create_task_from(aloop_task_group_t *group, aloop_task_fn fn,
                                                            void *arg, const aloop_task_options_t *options,
                                                            const char *origin);
#define aloop_task_group_create_task(...) aloop_task_group_create_task_from(__VA_ARGS__, ALOOP_HERE)

/* Waits until all children have ended, also while it is being cancelled. A negative `rc`, the result of what
 * was done between begin and end, cancels them; so does a cancel of the parent. Returns the first error, of a
 * child or `rc`; else ALOOP_ECANCELED if the parent was cancelled by others than the group; else `rc`. If there
 * is an error and the parent was cancelled too, its next await that waits ends with that. Errors besides:
 * ALOOP_EPERM (not the parent, or ended before), ALOOP_ECLOSED (the loop is being closed). [task] */
ALOOP_API int64_t aloop_task_group_end(aloop_task_group_t *group, int64_t rc);

/* ExceptionGroup.exceptions: how many children failed, and those tasks, in the order of their failures,
 * borrowed from the group; NULL past the last. [loop] */
ALOOP_API size_t aloop_task_group_errors(const aloop_task_group_t *group);
ALOOP_API aloop_future_t *aloop_task_group_error(const aloop_task_group_t *group, size_t index);

/* After its end; NULL is fine. Children that still run are cancelled: that is a mistake. [loop] */
ALOOP_API void aloop_task_group_free(aloop_task_group_t *group);

/* ---- Async generators ------------------------------------------------------------------------------------ */

/* An async generator: hands out pointers with aloop_yield, and may await in between. It ends with what it
 * returns: a number >= 0 (no more items) or a negative code. */
typedef int64_t (*aloop_generator_fn)(aloop_t *loop, void *arg);

typedef struct aloop_generator_options {
  size_t size;
  const char *name;         /* copied; may be NULL */
  size_t stack_size;        /* address space; 0: ALOOP_STACK_SIZE */
  aloop_destroy_fn destroy; /* of arg, when the generator has ended, also if it never began; may be NULL */
} aloop_generator_options_t;

/* Makes a generator, which begins when it is asked for its first item. The caller owns the reference. On
 * failure `arg` stays the caller's. `options` may be NULL. Errors: ALOOP_ENOMEM, ALOOP_ECLOSED. [loop] */
ALOOP_API int aloop_generator_new(aloop_t *loop, aloop_generator_fn fn, void *arg,
                                  const aloop_generator_options_t *options, aloop_generator_t **generator);
ALOOP_API int aloop_generator_new_from(aloop_t *loop, aloop_generator_fn fn, void *arg,
                                       const aloop_generator_options_t *options, aloop_generator_t **generator,
                                       const char *origin);
#define aloop_generator_new(...) aloop_generator_new_from(__VA_ARGS__, ALOOP_HERE)

/* __anext__, as in while (aloop_await_ptr(aloop_generator_next(g), &item) == 0) ...: ends with 1, and the
 * pointer that was yielded as its object; with 0 and no object when the function has returned; or with its
 * error. A task that awaits this at once runs the function as part of itself: it is the current task there, and
 * cancelling it reaches what the function awaits. Given to wait_for, gather or a callback, the function runs in
 * a task of its own from the next turn on. An item that nobody read comes again. Errors: ALOOP_EBUSY (the step
 * before has not ended), ALOOP_ECLOSED. [loop] */
ALOOP_API aloop_future_t *aloop_generator_next(aloop_generator_t *generator);

/* athrow: as next, but the aloop_yield that the function stands at answers `error` (negative). One that has not
 * begun ends with it. aclose: aloop_yield answers ALOOP_ECLOSED (GeneratorExit), and the function should return
 * that or a number: ends with 0 then, else with its error. Closing again is fine. Errors: as next; close
 * ALOOP_EINVAL (the function yields nevertheless, and is open still). [loop] */
ALOOP_API aloop_future_t *aloop_generator_throw(aloop_generator_t *generator, int error);
ALOOP_API aloop_future_t *aloop_generator_close(aloop_generator_t *generator);

/* Reference counting; both accept NULL. The last one closes a generator that is open, in the background.
 * [loop] */
ALOOP_API aloop_generator_t *aloop_generator_ref(aloop_generator_t *generator);
ALOOP_API void aloop_generator_unref(aloop_generator_t *generator);

/* yield: hands out `item`, which stays the generator's, and waits to be asked again. Returns 0, or the error
 * that was thrown in: clean up and return it then. Errors: ALOOP_EPERM (not in a generator's function),
 * ALOOP_ECLOSED. [task] */
ALOOP_API int aloop_yield(void *item);

/* loop.shutdown_asyncgens: closes all generators that are open; ends when they have ended, with how many there
 * were. Their errors go to the exception handler. aloop_run does it. [loop] */
ALOOP_API aloop_future_t *aloop_shutdown_asyncgens(aloop_t *loop);

/* ---- Process pools --------------------------------------------------------------------------------------- */

typedef struct aloop_reply aloop_reply_t; /* what a job in another process answers */

/* Runs in a worker process on a copy of the bytes that were sent, after which comes a zero byte. Returns a
 * number >= 0, or a negative code; what it replied is then the message of the future. What it prints, it should
 * also flush. */
typedef int64_t (*aloop_process_fn)(const void *data, size_t size, aloop_reply_t *reply);

/* Adds bytes (copied) to the answer. Only inside an aloop_process_fn. Errors: ALOOP_ENOMEM. [any] */
ALOOP_API int aloop_reply_add(aloop_reply_t *reply, const void *data, size_t size);

typedef struct aloop_process_pool_options {
  size_t size;
  int workers;                    /* at most; 0: one per CPU */
  size_t queue_limit;             /* jobs waiting; 0: no limit */
  int64_t max_jobs;               /* a worker is replaced after so many; 0: never */
  void (*initializer)(void *arg); /* called in each new worker; may be NULL */
  void *initializer_arg;
} aloop_process_pool_options_t;

/* ProcessPoolExecutor: forks, now, one small process that makes the workers as they are needed; so make pools
 * early, before threads and memory grow. Workers have no descriptor of the parent but 0 to 2, default signal
 * handlers, no ear for SIGINT, SIGQUIT, SIGHUP and SIGTERM, and end, by _exit, when the parent does. Other
 * executors' jobs are refused (ALOOP_ENOTSUP). `options` may be NULL. The caller owns the reference. Errors:
 * ALOOP_EAGAIN (no process or thread to be had), ALOOP_ENOMEM, ALOOP_EMFILE. [any] */
ALOOP_API int aloop_process_pool_new(const aloop_process_pool_options_t *options, aloop_executor_t **pool);

/* What a job replied: one block for free(). A zero byte follows the last. */
typedef struct aloop_bytes {
  size_t size;
  const char *data;
} aloop_bytes_t;

/* Runs fn on a copy of the bytes in a worker of `pool`; fn must be part of the program, or of a library that
 * was loaded before the pool was made. Ends with what fn returned; the object of the future is an aloop_bytes_t
 * *. Cancelling takes the job out of the queue, or kills the worker that runs it. Errors: ALOOP_ECRASHED (the
 * worker died, perhaps with half of the job done: the message says how; another takes its place. Or the process
 * that makes them was killed: then all jobs fail so), ALOOP_EINVAL, ALOOP_ECLOSED, ALOOP_ECHILD (the pool is
 * that of a parent process), ALOOP_EAGAIN (queue full, no process to be had), ALOOP_EMFILE. [loop] */
ALOOP_API aloop_future_t *aloop_run_in_process(aloop_t *loop, aloop_executor_t *pool, aloop_process_fn fn,
                                               const void *data, size_t size);

/* ---- Protocols ------------------------------------------------------------------------------------------- */

/* asyncio.Protocol and BufferedProtocol: what the transport calls, in this order: connection_made, then any
 * number of data and pause/resume calls, at most one eof_received, connection_lost, which comes exactly once if
 * connection_made did. A NULL member is not called. `protocol` is what create() returned. The table must
 * outlive its connections. */
typedef struct aloop_protocol {
  size_t size;
  /* The protocol factory; gets the `arg` of the connect or server call. NULL member: `arg` itself is the
   * protocol. Returning NULL refuses the connection with ALOOP_ENOMEM. */
  void *(*create)(void *arg);
  void (*connection_made)(aloop_transport_t *transport, void *protocol);
  /* `data` is valid during the call, in which writes are gathered and leave together as it returns. Returns 0,
   * or a code: the connection is then aborted and lost with it. */
  int (*data_received)(aloop_transport_t *transport, void *protocol, const void *data, size_t size);
  /* If set, bytes are read straight into your memory instead: set *buffer and *size (> 0), and learn how much
   * came. Results as data_received. */
  int (*get_buffer)(aloop_transport_t *transport, void *protocol, size_t hint, void **buffer, size_t *size);
  int (*buffer_updated)(aloop_transport_t *transport, void *protocol, size_t size);
  /* The peer sends no more. Returns 1 to keep the connection for writing, 0 (as a NULL member) to close it, or
   * a code. */
  int (*eof_received)(aloop_transport_t *transport, void *protocol);
  /* The write buffer rose above the high-water mark, and fell to the low one or below. */
  void (*pause_writing)(aloop_transport_t *transport, void *protocol);
  void (*resume_writing)(aloop_transport_t *transport, void *protocol);
  /* The end: 0 after close, abort or the peer's EOF, else why. The transport stays valid during the call;
   * release `protocol` here. */
  void (*connection_lost)(aloop_transport_t *transport, void *protocol, int error);
} aloop_protocol_t;

/* ---- Transports ------------------------------------------------------------------------------------------ */

/* A transport is valid from connection_made until connection_lost returns, and longer for who holds a
 * reference. After the connection is lost every call still works: writes answer ALOOP_ECLOSED. */

/* Reference counting; unref accepts NULL and never closes the connection. [loop] */
ALOOP_API aloop_transport_t *aloop_transport_ref(aloop_transport_t *transport);
ALOOP_API void aloop_transport_unref(aloop_transport_t *transport);
ALOOP_API aloop_t *aloop_transport_loop(const aloop_transport_t *transport);

/* Transport.write, writelines: sends what the socket takes and copies the rest to the write buffer; may call
 * pause_writing. Small writes (up to 4 KiB) that follow another one to this transport in the same callback are
 * gathered and leave together, as the turn ends or earlier. No data is a no-op. Returns 0. Errors:
 * ALOOP_ECLOSED (closing or lost), ALOOP_EPIPE (after write_eof), ALOOP_EBUSY (a sendfile or relay is under
 * way), ALOOP_ENOBUFS (over the hard cap, nothing was taken), ALOOP_ENOMEM (nothing was taken), ALOOP_ENOTSUP
 * (a read pipe). A failing socket is no error here: connection_lost reports it. [loop] */
ALOOP_API int aloop_transport_write(aloop_transport_t *transport, const void *data, size_t size);
ALOOP_API int aloop_transport_writev(aloop_transport_t *transport, const struct iovec *iov, int count);

/* Beyond asyncio: as write, without the copy. `data` belongs to the transport until it calls release(arg),
 * exactly once: when it was sent or dropped, or copied because it is small, perhaps before this returns. On
 * failure it is not called. release may be NULL (static data). [loop] */
ALOOP_API int aloop_transport_write_owned(aloop_transport_t *transport, const void *data, size_t size,
                                          aloop_destroy_fn release, void *arg);

/* Transport.write_eof, can_write_eof: half-closes once the write buffer is sent; again, or after close: a
 * no-op. Errors: ALOOP_EBUSY (sendfile, relay), ALOOP_ENOTSUP (a read pipe; TLS before 1.3). [loop] */
ALOOP_API int aloop_transport_write_eof(aloop_transport_t *transport);
ALOOP_API bool aloop_transport_can_write_eof(const aloop_transport_t *transport);

/* Transport.close: stops reading, sends the write buffer, then connection_lost(0), never from inside this call.
 * [loop] */
ALOOP_API void aloop_transport_close(aloop_transport_t *transport);

/* Transport.abort: drops the write buffer; connection_lost(0) in the next turn. abort_reset also makes the
 * kernel send RST, and abort_error gives connection_lost a reason (negative; other numbers are none). [loop] */
ALOOP_API void aloop_transport_abort(aloop_transport_t *transport);
ALOOP_API void aloop_transport_abort_reset(aloop_transport_t *transport);
ALOOP_API void aloop_transport_abort_error(aloop_transport_t *transport, int error);

/* Transport.is_closing: closed, aborted or lost. [loop] */
ALOOP_API bool aloop_transport_is_closing(const aloop_transport_t *transport);

/* Transport.pause_reading, resume_reading, is_reading: idempotent; EOF waits too; resuming while closing or
 * after EOF does nothing. pause works from inside connection_made. Errors: resume ALOOP_ENOMEM and the
 * poller's. [loop] */
ALOOP_API int aloop_transport_pause_reading(aloop_transport_t *transport);
ALOOP_API int aloop_transport_resume_reading(aloop_transport_t *transport);
ALOOP_API bool aloop_transport_is_reading(const aloop_transport_t *transport);

/* Transport.set_write_buffer_limits: marks in bytes; negative means unset. Defaults: high 64 KiB, low a quarter
 * of high; low alone: high is four times it. May call pause_writing at once, never resume_writing. Errors:
 * ALOOP_EINVAL (low above high), ALOOP_ERANGE (above 4 GiB). [loop] */
ALOOP_API int aloop_transport_set_write_buffer_limits(aloop_transport_t *transport, int64_t high, int64_t low);
ALOOP_API int aloop_transport_get_write_buffer_limits(const aloop_transport_t *transport, size_t *high,
                                                      size_t *low);

/* Beyond asyncio: writes that would leave more than `bytes` unsent are refused with ALOOP_ENOBUFS; 0: no cap.
 * [loop] */
ALOOP_API int aloop_transport_set_write_buffer_cap(aloop_transport_t *transport, size_t bytes);

/* Transport.get_write_buffer_size: bytes accepted and not yet sent. [loop] */
ALOOP_API size_t aloop_transport_get_write_buffer_size(const aloop_transport_t *transport);

/* Transport.set_protocol, get_protocol: later events go to the new one, between plain and buffered too; no
 * callback is made. get: *table may be NULL if not wanted. [loop] */
ALOOP_API int aloop_transport_set_protocol(aloop_transport_t *transport, const aloop_protocol_t *table,
                                           void *protocol);
ALOOP_API void *aloop_transport_get_protocol(const aloop_transport_t *transport,
                                             const aloop_protocol_t **table);

/* Beyond asyncio: the connection is lost with ALOOP_ETIMEDOUT when for so many ns nothing moved either way
 * (idle), nothing was received while reading (read), or unsent bytes made no progress (write); over TLS the
 * bytes of its records count. 0: off. Calls restart the count. [loop] */
ALOOP_API int aloop_transport_set_timeouts(aloop_transport_t *transport, int64_t idle, int64_t read,
                                           int64_t write);

/* Transport.get_extra_info, typed: the descriptor (borrowed; ALOOP_ECLOSED once lost), the addresses (*size is
 * the room on entry and the length on return, as with getsockname; peername is remembered once asked for;
 * ALOOP_ENOTSOCK of a pipe), the server or NULL. [loop] */
ALOOP_API int aloop_transport_fd(const aloop_transport_t *transport);
ALOOP_API int aloop_transport_sockname(const aloop_transport_t *transport, struct sockaddr *address,
                                       socklen_t *size);
ALOOP_API int aloop_transport_peername(const aloop_transport_t *transport, struct sockaddr *address,
                                       socklen_t *size);
ALOOP_API aloop_server_t *aloop_transport_server(const aloop_transport_t *transport);

/* loop.sendfile: sends `count` bytes (0: to the end) of a regular file from `offset`, after what is in the
 * write buffer; writes are refused and reading pauses meanwhile. Ends with the bytes sent; the file's position
 * is then just after them, also on error and cancel. `file` must stay open. Without sendfile(2) it reads and
 * writes, unless ALOOP_NO_FALLBACK: ALOOP_ENOTSUP. Errors: ALOOP_EINVAL (negative offset or count, unknown
 * flags, no regular file), ALOOP_ECLOSED, ALOOP_EPIPE (after write_eof), ALOOP_EBUSY (another sendfile),
 * ALOOP_EBADF, read errors. [loop] */
enum { ALOOP_NO_FALLBACK = 1 };
ALOOP_API aloop_future_t *aloop_sendfile(aloop_transport_t *transport, int file, int64_t offset, int64_t count,
                                         unsigned flags);

/* Beyond asyncio: joins two connections of one loop: what each receives is written to the other, with
 * back-pressure and half-close, until both peers have ended; then both are closed. Ends with the bytes moved,
 * both ways. Reading is resumed. Meanwhile the protocols are told nothing and writes refused; pausing, limits
 * and timeouts count as ever. Closing one transport closes the other (ALOOP_ECLOSED); if one fails or is
 * aborted the other is reset, the error is the future's and the message says which failed. connection_lost goes
 * to the old protocols. Cancelling gives them their transports back; what was read is still written, and EOF
 * told again. A pipe has one way; descriptors travel on between Unix sockets. TLS before 1.3 has no half ends:
 * such a peer hears of the other's EOF at the close only, and its own EOF ends both ways once what came is sent
 * (give it timeouts if the other may leave without a word). Errors: ALOOP_EINVAL (twice the same),
 * ALOOP_EOTHERLOOP, ALOOP_ECLOSED, ALOOP_EBUSY (sendfile, another relay), ALOOP_EPIPE (after write_eof),
 * ALOOP_ENOTSUP (no way between two such pipes). [loop] */
ALOOP_API aloop_future_t *aloop_relay(aloop_transport_t *a, aloop_transport_t *b);

/* ---- Names ----------------------------------------------------------------------------------------------- */

struct addrinfo; /* of netdb.h, which keeps it from programs that ask for nothing but C11 */

/* loop.getaddrinfo: the object of the result is a struct addrinfo * list, for freeaddrinfo. `host` (NULL: this
 * machine, see AI_PASSIVE) or `service` (NULL: port 0) may be left out, `hints` too; all are copied. Numeric
 * names are answered at once: the future is done on return. Others take a thread of the default executor's DNS
 * lane, or your resolver, for at most `timeout` ns (0: only what is known at once, ALOOP_FOREVER: no limit),
 * and are then forgotten, as by cancelling; nothing ever waits for a name server. Errors, with a message that
 * names the host: ALOOP_EAI_..., ALOOP_ETIMEDOUT, those of aloop_run_in_executor. [loop] */
ALOOP_API aloop_future_t *aloop_getaddrinfo(aloop_t *loop, const char *host, const char *service,
                                            const struct addrinfo *hints, int64_t timeout);

typedef struct aloop_nameinfo {
  char host[1025];  /* NI_MAXHOST */
  char service[32]; /* NI_MAXSERV */
} aloop_nameinfo_t;

/* loop.getnameinfo: the object is an aloop_nameinfo_t *, for free(). `flags`: NI_... With NI_NUMERICHOST and
 * NI_NUMERICSERV it is answered at once, else by a thread of the default executor's DNS lane. The rest is as
 * with aloop_getaddrinfo. [loop] */
ALOOP_API aloop_future_t *aloop_getnameinfo(aloop_t *loop, const struct sockaddr *address, socklen_t size,
                                            int flags, int64_t timeout);

/* Where names come from, if not from the C library: native DNS, a cache, a script for tests. */
typedef struct aloop_resolver {
  size_t size;
  /* As getaddrinfo(3), for what is not numeric: returns a new future, perhaps done already, whose object is a
   * struct addrinfo list, with what destroys it. NULL: out of memory. It is cancelled when nobody waits any
   * more. `host` or `service` may be NULL, `hints` may not; all are valid during the call only. */
  aloop_future_t *(*getaddrinfo)(aloop_t *loop, const char *host, const char *service,
                                 const struct addrinfo *hints, void *arg);
} aloop_resolver_t;

/* Beyond asyncio: `resolver` answers aloop_getaddrinfo, aloop_create_connection and aloop_create_server from
 * now on; NULL: the C library again. The table is borrowed for as long as it is set. What aloop_getaddrinfo
 * finds is then better borrowed from the future, too, which alone knows how to destroy it. Errors:
 * ALOOP_ENOMEM. [loop] */
ALOOP_API int aloop_set_resolver(aloop_t *loop, const aloop_resolver_t *resolver, void *arg);

/* The one in force, never NULL, and its argument (`arg` may be NULL): for a resolver that knows some names and
 * asks the one before it for the others. [loop] */
ALOOP_API const aloop_resolver_t *aloop_get_resolver(const aloop_t *loop, void **arg);

/* ---- Connecting ------------------------------------------------------------------------------------------ */

typedef struct aloop_connect_options {
  size_t size;
  const char *host;       /* name or numeric address (numeric ones need no resolver); NULL: use fd */
  int port;               /* 1..65535 */
  int family;             /* AF_INET, AF_INET6; 0: any */
  int proto;              /* as in getaddrinfo; 0: TCP */
  int flags;              /* AI_... of getaddrinfo */
  int fd;                 /* a connected stream socket, if host is NULL; owned by the transport on success */
  const char *local_host; /* bind before connecting, with an address of the same family; NULL: not */
  int local_port;         /* 0: any */
  int interleave;         /* addresses of the first family before one of the other; 0: 1, or all of them in the
                           * resolver's order if happy_eyeballs_delay is ALOOP_FOREVER */
  int64_t timeout;        /* for everything together; 0: none (beyond asyncio) */
  int64_t happy_eyeballs_delay;  /* the next address is tried beside the last after so long; 0: 250 ms;
                                 * ALOOP_FOREVER: only when the last has failed */
  aloop_tls_context_t *tls;      /* of a client; NULL: no TLS. It is kept for as long as it is needed */
  const char *server_hostname;   /* whom the peer's certificate is to name; NULL: host; "": nobody */
  int64_t tls_handshake_timeout; /* 0: 60 s */
  int64_t tls_shutdown_timeout;  /* 0: 10 s; see "TLS" */
} aloop_connect_options_t;

/* loop.create_connection: resolves, connects to the addresses by RFC 8305 (happy eyeballs: IPv6 and IPv4 take
 * turns, each with a head start; the first to answer wins, the others are closed), and makes a transport; the
 * result is the aloop_transport_t *, with a reference that aloop_future_take_ptr hands over.
 * connection_made was called by then. All option strings are copied. Errors: that of the first attempt (all:
 * aloop_future_attempt), ALOOP_EAI_..., ALOOP_ETIMEDOUT, ALOOP_EINVAL (with a message that says what to
 * change); of fd: ALOOP_EBADF, ALOOP_ENOTSOCK, ALOOP_ENOTCONN, ALOOP_EBUSY (this loop uses it). [loop] */
ALOOP_API aloop_future_t *aloop_create_connection(aloop_t *loop, const aloop_protocol_t *protocol, void *arg,
                                                  const aloop_connect_options_t *options);

typedef struct aloop_accepted_options {
  size_t size;
  aloop_tls_context_t *tls;      /* of a server; NULL: no TLS */
  int64_t tls_handshake_timeout; /* as in aloop_connect_options_t */
  int64_t tls_shutdown_timeout;
} aloop_accepted_options_t;

/* loop.connect_accepted_socket: makes a transport for a socket accepted elsewhere; as create_connection with
 * fd. `options` may be NULL. On failure the descriptor stays the caller's; a TLS handshake that fails comes too
 * late for that. [loop] */
ALOOP_API aloop_future_t *aloop_connect_accepted_socket(aloop_t *loop, const aloop_protocol_t *protocol,
                                                        void *arg, int fd,
                                                        const aloop_accepted_options_t *options);

/* ---- Pipes ----------------------------------------------------------------------------------------------- */

/* loop.connect_read_pipe, connect_write_pipe: a transport over one end of a pipe, a FIFO, a stream socket or a
 * character device (a terminal), and beyond asyncio a regular file or /dev/null: whatever stdin and stdout may
 * be. `fd` is owned by the transport on success, stays the caller's on failure. Its O_NONBLOCK, which others
 * may share, is left alone. The result is as that of create_connection. A read pipe refuses writes
 * (ALOOP_ENOTSUP) and ends with eof_received, whatever that returns: connection_lost(0) follows. A write pipe
 * learns that its reader went: connection_lost(ALOOP_EPIPE) with bytes unsent, else 0; write_eof ends it once
 * they are sent; no SIGPIPE comes. A file may still be written to for a moment after an abort. Errors:
 * ALOOP_EINVAL (no such kind, or not open for that; the message says which), ALOOP_EBADF, ALOOP_EBUSY (in use
 * by this loop; dup it). [loop] */
ALOOP_API aloop_future_t *aloop_connect_read_pipe(aloop_t *loop, const aloop_protocol_t *protocol, void *arg,
                                                  int fd);
ALOOP_API aloop_future_t *aloop_connect_write_pipe(aloop_t *loop, const aloop_protocol_t *protocol, void *arg,
                                                   int fd);

/* ---- Servers --------------------------------------------------------------------------------------------- */

typedef struct aloop_server_options {
  size_t size;
  const char *host;         /* one host; NULL with no hosts: all interfaces */
  const char *const *hosts; /* or several */
  size_t hosts_count;
  int port;       /* 0: the kernel chooses, for each socket its own */
  int family;     /* AF_INET, AF_INET6; 0: any */
  int flags;      /* AI_... of getaddrinfo; AI_PASSIVE is added */
  const int *fds; /* bound stream sockets, instead of hosts; owned by the server on success */
  size_t fds_count;
  int backlog;       /* 0: 100 */
  int reuse_address; /* 0: yes; -1: no */
  int v6only;        /* 0: yes; -1: no */
  int start_serving; /* 0: at once; -1: wait for aloop_server_start_serving */
  bool reuse_port;
  bool keep_alive;
  size_t max_clients; /* connections at one time; more wait in the backlog; 0: no limit (beyond asyncio) */
  aloop_tls_context_t *tls;      /* of a server; NULL: no TLS */
  int64_t tls_handshake_timeout; /* as in aloop_connect_options_t */
  int64_t tls_shutdown_timeout;
  aloop_t *const *loops; /* where connections live, the server's own loop too if it is named; see below */
  size_t loops_count;    /* 0: the server's own loop */
} aloop_server_options_t;

/* loop.create_server: binds one socket per address and, by default, listens; the result is the aloop_server_t
 * *, with a reference. Each connection gets `protocol` with `arg`. Errors: ALOOP_EADDRINUSE and other codes of
 * bind and listen (the message names the address), ALOOP_EADDRNOTAVAIL only if no address worked,
 * ALOOP_EAI_..., ALOOP_EINVAL, ALOOP_ECLOSED (one of loops is closed); of fds: ALOOP_EBADF, ALOOP_ENOTSOCK,
 * ALOOP_EBUSY. [loop] */
ALOOP_API aloop_future_t *aloop_create_server(aloop_t *loop, const aloop_protocol_t *protocol, void *arg,
                                              const aloop_server_options_t *options);

/* Servers of several loops, each run by a thread of its own (options.loops, beyond asyncio). The server's own
 * loop accepts; each connection lives on that of the named loops which has the fewest of this server's, and all
 * calls of its protocol, create() too, come from that loop's thread. So `protocol` and `arg` are shared by
 * threads, until wait_closed or drain has ended. The loops are open when the server is made, and their
 * allocators may be called by its thread; after that each may be stopped, closed and freed when its thread
 * likes, also before the server. What was on its way to a loop that is closed goes to another; when none is
 * left, the server closes. For a loop that does not run, or is busy, up to 64 connections wait.
 *
 * Calls on the server, in its own loop's thread, mean all its connections: max_clients and aloop_server_clients
 * count them, wait_closed and drain wait for them; close_clients and abort_clients reach other loops a moment
 * later. If the own loop is closed first, these futures end with ALOOP_ECLOSED and connections elsewhere live
 * on. What aloop_transport_server answers on another loop is the server's part there, an aloop_server_t without
 * sockets that belongs to that loop: calls on it mean that loop's connections, pausing and closing it keeps new
 * ones away, and it closes with the server. Other loops know no context variables of the call. In the child of
 * a fork there is the own loop only. */

/* Reference counting; unref accepts NULL and never closes the server: connections and listening sockets keep it
 * alive. [loop] */
ALOOP_API aloop_server_t *aloop_server_ref(aloop_server_t *server);
ALOOP_API void aloop_server_unref(aloop_server_t *server);
ALOOP_API aloop_t *aloop_server_get_loop(const aloop_server_t *server);

/* Server.start_serving: listens; a no-op if it already does. Errors: ALOOP_ECLOSED, those of listen. [loop] */
ALOOP_API int aloop_server_start_serving(aloop_server_t *server);

/* Server.serve_forever: starts serving; ends with ALOOP_ECANCELED when the server is closed, and closes it when
 * cancelled. Errors: ALOOP_EBUSY (already called), ALOOP_ECLOSED. [loop] */
ALOOP_API aloop_future_t *aloop_server_serve_forever(aloop_server_t *server);
ALOOP_API bool aloop_server_is_serving(const aloop_server_t *server);

/* Server.close: closes the listening sockets at once; connections live on. Idempotent. [loop] */
ALOOP_API void aloop_server_close(aloop_server_t *server);

/* Server.wait_closed (of Python 3.12.1 and later): done with 0 when the server is closed and its last
 * connection lost. [loop] */
ALOOP_API aloop_future_t *aloop_server_wait_closed(aloop_server_t *server);

/* Server.close_clients, abort_clients: closes (aborts) every connection it has now; returns how many. [loop] */
ALOOP_API int aloop_server_close_clients(aloop_server_t *server);
ALOOP_API int aloop_server_abort_clients(aloop_server_t *server);

/* Beyond asyncio, a graceful end: closes the server, gives clients `grace` ns to finish (ALOOP_FOREVER: as long
 * as they like), then closes those left, and aborts those still there after the same time again. Done, when the
 * last is gone, with the number that did not finish by themselves. Cancelling it leaves the rest alone. Errors:
 * ALOOP_EALREADY (another drain is under way). [loop] */
ALOOP_API aloop_future_t *aloop_server_drain(aloop_server_t *server, int64_t grace);

/* Beyond asyncio: stops and goes on accepting; new connections wait in the kernel's backlog. Idempotent.
 * Errors: ALOOP_ECLOSED. [loop] */
ALOOP_API int aloop_server_pause_accepting(aloop_server_t *server);
ALOOP_API int aloop_server_resume_accepting(aloop_server_t *server);

/* Server.sockets: how many listening sockets there are (0 once closed), and the index-th, borrowed, with its
 * address (as with getsockname; may be NULL). Errors: ALOOP_ENOENT past the last. [loop] */
ALOOP_API size_t aloop_server_sockets(const aloop_server_t *server);
ALOOP_API int aloop_server_socket(const aloop_server_t *server, size_t index, struct sockaddr *address,
                                  socklen_t *size);

/* The port of the first socket, in host order; ALOOP_ENOENT if there is none. [loop] */
ALOOP_API int aloop_server_port(const aloop_server_t *server);

/* How many connections it has. [loop] */
ALOOP_API size_t aloop_server_clients(const aloop_server_t *server);

/* ---- Datagrams ------------------------------------------------------------------------------------------- */

/* One datagram, or several of one address. */
typedef struct aloop_message {
  const void *data;
  size_t size;
  const struct sockaddr *address; /* of the peer; NULL: it has none (Unix sockets), in a send: the remote one */
  socklen_t address_size;
  socklen_t local_size;
  const struct sockaddr *local; /* this machine's: where it came to or goes out from; NULL: not known, any */
  int ecn;                      /* the two bits of ECN; 0 also where nobody knows */
  unsigned segment;             /* 0: one; else `data` is several of so many bytes, the last may be shorter */
} aloop_message_t;

/* asyncio.DatagramProtocol: connection_made comes first and connection_lost last, exactly once. Everything
 * pointed to is valid during the call. What is sent while datagrams are delivered leaves together when those of
 * one system call were. A NULL member is not called. The table must outlive its endpoints. */
typedef struct aloop_datagram_protocol {
  size_t size;
  void *(*create)(void *arg); /* as in aloop_protocol_t */
  void (*connection_made)(aloop_datagram_t *endpoint, void *protocol);
  void (*datagram_received)(aloop_datagram_t *endpoint, void *protocol, const void *data, size_t size,
                            const struct sockaddr *address, socklen_t address_size);
  /* Beyond asyncio: if set, it gets all that one system call brought, instead. */
  void (*datagrams_received)(aloop_datagram_t *endpoint, void *protocol, const aloop_message_t *messages,
                             size_t count);
  /* A receive or a send failed (ALOOP_ECONNREFUSED: the host of an earlier datagram says that nobody is there;
   * ALOOP_EMSGSIZE: one that came was too long for any buffer); the endpoint lives on. */
  void (*error_received)(aloop_datagram_t *endpoint, void *protocol, int error);
  void (*pause_writing)(aloop_datagram_t *endpoint, void *protocol); /* as in aloop_protocol_t */
  void (*resume_writing)(aloop_datagram_t *endpoint, void *protocol);
  /* 0 after close and abort, ALOOP_ECLOSED if the loop was closed. Release `protocol` here. */
  void (*connection_lost)(aloop_datagram_t *endpoint, void *protocol, int error);
} aloop_datagram_protocol_t;

/* Each side is a host, an address, or left out. With neither, `family` alone gives a socket that the kernel
 * binds when it first sends; without a family `fd` is used. */
typedef struct aloop_datagram_options {
  size_t size;
  const char *local_host;  /* bind to a name or numeric address */
  const char *remote_host; /* connect: datagrams go there, and come from there only */
  int local_port;       /* without local_host: of every interface; 0: the kernel chooses, if there is a host */
  int remote_port;      /* 1..65535 */
  int family;           /* AF_INET, AF_INET6, ...; 0: any */
  int proto;            /* as in socket(2); 0: UDP */
  int flags;            /* AI_... of getaddrinfo */
  int fd;               /* a datagram socket, bound and connected or not; owned by the endpoint on success */
  bool bind_any;        /* to every interface, also with local_port 0 */
  bool reuse_address;   /* refused: it would let other programs take this one's datagrams (asyncio) */
  bool reuse_port;      /* several sockets share the port */
  bool want_local;      /* messages say to which address they came, where the system knows it */
  bool want_ecn;        /* ... and their ECN bits */
  bool want_segments;   /* datagrams_received may get several of one sender as one message (Linux: GRO) */
  bool allow_broadcast; /* the socket is then not connected: anybody may answer what is sent to remote_host */
  socklen_t local_size;
  socklen_t remote_size;
  const struct sockaddr *local; /* instead of hosts */
  const struct sockaddr *remote;
  const char *local_path; /* a Unix socket of this path, or abstract name, as in aloop_unix_server_options_t */
  const char *remote_path;
  size_t local_path_size; /* in bytes, without a zero at the end; 0: that of a string */
  size_t remote_path_size;
  mode_t mode; /* permissions of the file of local_path, whatever the umask; 0: what the umask leaves */
  int cleanup; /* 0: unlink the file of a Unix socket when the endpoint closes; -1: leave it */
} aloop_datagram_options_t;

/* loop.create_datagram_endpoint: resolves, then makes, binds and connects a socket for the first pair of
 * addresses of one family that works; the result is the aloop_datagram_t *, with a reference that
 * aloop_future_take_ptr hands over. connection_made was called by then. All options are copied. Files of Unix
 * sockets are replaced and unlinked as by aloop_create_unix_server. Errors: that of the first address (all:
 * aloop_future_attempt), ALOOP_EADDRNOTAVAIL (the sides have no family in common), ALOOP_ENAMETOOLONG,
 * ALOOP_EAI_..., ALOOP_EINVAL (with a message that says what to change); of fd: ALOOP_EBADF, ALOOP_ENOTSOCK,
 * ALOOP_EBUSY. [loop] */
ALOOP_API aloop_future_t *aloop_create_datagram_endpoint(aloop_t *loop,
                                                         const aloop_datagram_protocol_t *protocol, void *arg,
                                                         const aloop_datagram_options_t *options);

/* An endpoint is valid from connection_made until connection_lost returns, and longer for who holds a
 * reference; unref accepts NULL and never closes it. [loop] */
ALOOP_API aloop_datagram_t *aloop_datagram_ref(aloop_datagram_t *endpoint);
ALOOP_API void aloop_datagram_unref(aloop_datagram_t *endpoint);
ALOOP_API aloop_t *aloop_datagram_loop(const aloop_datagram_t *endpoint);

/* DatagramTransport.sendto: sends at once, or copies what the socket does not take now; may call pause_writing.
 * A NULL address: the remote one. Empty datagrams are sent. Returns 0. Errors: ALOOP_ECLOSED (closing or lost),
 * ALOOP_EINVAL (no address, or not the remote one), ALOOP_EMSGSIZE (of a datagram that could be sent at once),
 * ALOOP_ENOBUFS (over the hard cap), ALOOP_ENOMEM; nothing was taken. Other failures go to error_received,
 * perhaps before this returns; the datagram is then lost, as any may be. [loop] */
ALOOP_API int aloop_datagram_sendto(aloop_datagram_t *endpoint, const void *data, size_t size,
                                    const struct sockaddr *address, socklen_t address_size);

/* Beyond asyncio: several datagrams, each with its own address, in as few system calls as can be. Those of one
 * message with a `segment` go through the kernel as one (Linux: GSO) where it cuts them, and one by one where
 * not. Returns how many messages were taken, from the first on (sent, queued, or refused by the system, which
 * error_received is told, too long ones included; a message ends at its second refusal); 0 or more. Errors: as
 * sendto, if they concern the first. [loop] */
ALOOP_API int64_t aloop_datagram_send_many(aloop_datagram_t *endpoint, const aloop_message_t *messages,
                                           size_t count);

/* DatagramTransport.close: receives no more, sends what waits, then connection_lost(0), never from inside this
 * call. abort drops what waits. [loop] */
ALOOP_API void aloop_datagram_close(aloop_datagram_t *endpoint);
ALOOP_API void aloop_datagram_abort(aloop_datagram_t *endpoint);
ALOOP_API bool aloop_datagram_is_closing(const aloop_datagram_t *endpoint);

/* As those of transports. An empty datagram that waits counts as one byte. [loop] */
ALOOP_API int aloop_datagram_set_write_buffer_limits(aloop_datagram_t *endpoint, int64_t high, int64_t low);
ALOOP_API int aloop_datagram_get_write_buffer_limits(const aloop_datagram_t *endpoint, size_t *high,
                                                     size_t *low);
ALOOP_API int aloop_datagram_set_write_buffer_cap(aloop_datagram_t *endpoint, size_t bytes);
ALOOP_API size_t aloop_datagram_get_write_buffer_size(const aloop_datagram_t *endpoint);

/* As those of transports: later events go to the new protocol. [loop] */
ALOOP_API int aloop_datagram_set_protocol(aloop_datagram_t *endpoint, const aloop_datagram_protocol_t *table,
                                          void *protocol);
ALOOP_API void *aloop_datagram_get_protocol(const aloop_datagram_t *endpoint,
                                            const aloop_datagram_protocol_t **table);

/* DatagramTransport.get_extra_info, typed, as those of transports. peername: the remote address, ALOOP_ENOTCONN
 * if there is none. [loop] */
ALOOP_API int aloop_datagram_fd(const aloop_datagram_t *endpoint);
ALOOP_API int aloop_datagram_sockname(const aloop_datagram_t *endpoint, struct sockaddr *address,
                                      socklen_t *size);
ALOOP_API int aloop_datagram_peername(const aloop_datagram_t *endpoint, struct sockaddr *address,
                                      socklen_t *size);

/* Beyond asyncio, multicast. The group is an address whose port is of no interest; the interface is an index
 * (if_nametoindex), 0: the system chooses. Errors: ALOOP_EADDRINUSE (a member already), ALOOP_EADDRNOTAVAIL
 * (not a member), ALOOP_EINVAL (not a group, or of the other family), ALOOP_EAFNOSUPPORT (a Unix socket),
 * ALOOP_ECLOSED, what the system answers. [loop] */
ALOOP_API int aloop_datagram_join(aloop_datagram_t *endpoint, const struct sockaddr *group,
                                  socklen_t group_size, unsigned interface);
ALOOP_API int aloop_datagram_leave(aloop_datagram_t *endpoint, const struct sockaddr *group,
                                   socklen_t group_size, unsigned interface);

/* What is sent to groups: how many routers it may pass (0: it stays on this machine; 1 unless set), whether
 * members on this machine get it (they do unless told otherwise), through which interface it leaves (0: the
 * system chooses). Errors: as join. [loop] */
ALOOP_API int aloop_datagram_set_multicast_ttl(aloop_datagram_t *endpoint, int ttl);
ALOOP_API int aloop_datagram_set_multicast_loop(aloop_datagram_t *endpoint, bool on);
ALOOP_API int aloop_datagram_set_multicast_interface(aloop_datagram_t *endpoint, unsigned interface);

/* ---- Unix sockets ---------------------------------------------------------------------------------------- */

/* Beyond asyncio, SOCK_SEQPACKET: transports that keep messages apart, where the system has them. One write,
 * writev or write_fds is one message, also an empty one, whole or not at all; each data_received is one (a
 * buffered protocol's memory must have room for it: buffer_updated). Nothing is joined, neither inside
 * data_received nor in the write buffer, where an empty message counts as one byte. Too long for a socket
 * buffer: ALOOP_EMSGSIZE from the write; one that came and has more than 256 KiB, or more than get_buffer gave,
 * ends the connection with ALOOP_EMSGSIZE. write_eof, descriptors and peercred are as with streams; sendfile is
 * refused (ALOOP_ENOTSUP). */

/* Of a stream: descriptors that come with it are closed at once, none can be sent, and a read costs less. */
enum { ALOOP_UNIX_NO_DESCRIPTORS = 1 };

typedef struct aloop_unix_connect_options {
  size_t size;
  const char *path; /* NULL: use fd. On Linux also an abstract name: a zero byte, then any bytes */
  size_t path_size; /* in bytes, without a zero at the end; 0: that of a string */
  int fd;   /* a connected Unix socket of such a type, if path is NULL; owned by the transport on success */
  int type; /* 0 or SOCK_STREAM; SOCK_SEQPACKET: messages */
  int64_t timeout;             /* 0: none (beyond asyncio) */
  aloop_tls_context_t *tls;    /* as in aloop_connect_options_t */
  const char *server_hostname; /* whom the peer's certificate is to name; "": nobody */
  int64_t tls_handshake_timeout;
  int64_t tls_shutdown_timeout;
  uint64_t flags; /* ALOOP_UNIX_... */
} aloop_unix_connect_options_t;

/* loop.create_unix_connection: as create_connection, to the Unix socket of that name. When the server's
 * backlog is full it is tried again, for as long as the timeout and you let it; systems other than Linux refuse
 * then. Errors: ALOOP_ENOENT, ALOOP_ECONNREFUSED (nobody listens), ALOOP_EACCES, ... with a message that names
 * the path, ALOOP_ENAMETOOLONG (it names the limit: some 100 bytes), ALOOP_ETIMEDOUT, ALOOP_ENOTSUP (an
 * abstract name elsewhere); of fd as in create_connection. [loop] */
ALOOP_API aloop_future_t *aloop_create_unix_connection(aloop_t *loop, const aloop_protocol_t *protocol,
                                                       void *arg, const aloop_unix_connect_options_t *options);

typedef struct aloop_unix_server_options {
  size_t size;
  const char *path; /* NULL: use fd; otherwise as above */
  size_t path_size;
  int fd;             /* a bound Unix socket of such a type, if path is NULL; owned by the server on success */
  int backlog;        /* 0: 100 */
  int start_serving;  /* 0: at once; -1: wait for aloop_server_start_serving */
  int type;           /* 0 or SOCK_STREAM; SOCK_SEQPACKET: messages */
  size_t max_clients; /* as in aloop_server_options_t */
  mode_t mode;        /* permissions of the file, whatever the umask; 0: what the umask leaves */
  int cleanup;        /* 0: unlink the file when the server closes; -1: leave it */
  aloop_tls_context_t *tls; /* as in aloop_server_options_t */
  int64_t tls_handshake_timeout;
  int64_t tls_shutdown_timeout;
  uint64_t flags;        /* ALOOP_UNIX_... */
  aloop_t *const *loops; /* as in aloop_server_options_t */
  size_t loops_count;
} aloop_unix_server_options_t;

/* loop.create_unix_server: as create_server. A socket file that is in the way is replaced if no socket is bound
 * to it any more; a file of another kind never. The file is unlinked when the server closes, if it is still the
 * server's own; never in the child of a fork, and never that of fd. Errors: ALOOP_EADDRINUSE (the message says
 * whether by a socket or another file), ALOOP_EACCES, ALOOP_ENOENT (no such directory), ...,
 * ALOOP_ENAMETOOLONG, ALOOP_ENOTSUP; of fd as in create_server. [loop] */
ALOOP_API aloop_future_t *aloop_create_unix_server(aloop_t *loop, const aloop_protocol_t *protocol, void *arg,
                                                   const aloop_unix_server_options_t *options);

/* Beyond asyncio: two connected Unix sockets, non-blocking and close-on-exec, the caller's. `type`:
 * SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET (where the system has it). Errors: ALOOP_EMFILE, ... [any] */
ALOOP_API int aloop_socketpair(int type, int fds[2]);

typedef struct aloop_peercred {
  pid_t pid; /* -1: not known here */
  uid_t uid;
  gid_t gid;
} aloop_peercred_t;

/* Beyond asyncio: whose process the peer's was when it connected (or listened), as the kernel knows it. Errors:
 * ALOOP_ENOTSUP (no Unix socket, or not known here), ALOOP_ENOTSOCK of a pipe, ALOOP_ECLOSED once lost. [loop]
 */
ALOOP_API int aloop_transport_peercred(const aloop_transport_t *transport, aloop_peercred_t *peer);

/* Beyond asyncio: a write of one byte or more with which 1 to 253 descriptors travel. They are duplicated at
 * once, so that the caller may close his, and sent once, with the first byte, in order with all other writes;
 * those still unsent at the end of the connection are closed. Only transports over Unix sockets can (pipes and
 * others: ALOOP_ENOTSUP). Errors: ALOOP_EBADF, ALOOP_EMFILE, those of
 * aloop_transport_write; on failure nothing was taken. [loop] */
ALOOP_API int aloop_transport_write_fds(aloop_transport_t *transport, const void *data, size_t size,
                                        const int *fds, size_t count);

/* Beyond asyncio: the next descriptor that was received, close-on-exec, the caller's from now on; ALOOP_ENOENT:
 * none waits. It is there when data_received gets the byte it came with, and waits until it is taken or
 * connection_lost has returned, which closes it. If more than 253 wait the connection ends with ALOOP_ENOBUFS,
 * if this process has no room for one with ALOOP_EMFILE. Errors: ALOOP_ENOTSUP (as write_fds). [loop] */
ALOOP_API int aloop_transport_take_fd(aloop_transport_t *transport);

/* ---- TLS ------------------------------------------------------------------------------------------------- */

/* asyncio's ssl= is the member `tls` of the option structs above, which makes the transport of a connection
 * a TLS transport: connection_made comes after the handshake, and never if that fails. The write buffer's
 * size counts what is not yet encrypted and what is not yet sent together. A stream that the peer ends
 * without saying so (a cut, perhaps made by an attacker) has no eof_received: connection_lost gets
 * ALOOP_ETLS_TRUNCATED. close sends what is unsent and the end of the stream, and does not wait for the
 * peer's: connection_lost follows, with ALOOP_ETIMEDOUT if the peer takes nothing at all for the shutdown
 * timeout. Before TLS 1.3 a stream has no half ends: can_write_eof is false, write_eof ALOOP_ENOTSUP, and
 * eof_received cannot keep the connection. A peer that goes on asking for new keys and takes no answers is cut
 * off (ALOOP_ETLS). */

enum { ALOOP_TLS_CLIENT = 0, ALOOP_TLS_SERVER = 1 };
enum { ALOOP_TLS_1_2 = 0x0303, ALOOP_TLS_1_3 = 0x0304 };

/* Whom to believe. */
enum {
  ALOOP_TLS_VERIFY_DEFAULT = 0, /* clients: the server's certificate and its name; servers: nobody */
  ALOOP_TLS_VERIFY_NONE,        /* anybody: a client then talks to whoever is in between */
  ALOOP_TLS_VERIFY_CHAIN,       /* of clients: any name will do */
  ALOOP_TLS_VERIFY_OPTIONAL,    /* of servers: a client may show a certificate, which must then be good */
  ALOOP_TLS_VERIFY_REQUIRED     /* of servers: it must */
};

/* Kernel TLS: of connections over TCP Linux encrypts what is sent, if it has TLS, the engine can give the keys
 * away, and the cipher is AES-GCM or ChaCha20-Poly1305; sendfile then copies nothing. In all else these
 * connections are as others. A peer of TLS 1.3 may ask for new keys, which the kernel can exchange since 6.14:
 * before, TLS 1.3 stays with the engine, unless options.kernel is 1, and then such a peer is cut off with
 * ALOOP_ETLS. */

/* A context's rules. Texts are PEM; a file or a block of memory, not both. All of it is copied. */
typedef struct aloop_tls_options {
  size_t size;
  int role;                     /* ALOOP_TLS_CLIENT or ALOOP_TLS_SERVER */
  int verify;                   /* ALOOP_TLS_VERIFY_... */
  const char *certificate_file; /* the own certificate first, then those that lead to the CA; servers need it */
  const void *certificate;
  size_t certificate_size;
  const char *key_file; /* NULL, as `key`: the private key stands with the certificate */
  const void *key;
  size_t key_size;
  const char *key_password; /* of an encrypted key */
  const char *ca_file;      /* who is believed */
  const char *ca_dir;       /* as c_rehash makes it */
  const void *ca;
  size_t ca_size;
  int system_ca;        /* the system's CAs are believed: 0: if no others are named; 1: as well; -1: never */
  int min_version;      /* ALOOP_TLS_1_2 (0), ALOOP_TLS_1_3 */
  int max_version;      /* 0: the latest */
  int tickets;          /* a server gives a client: 0: 2; -1: none, and no session is resumed */
  const char *crl_file; /* revoked certificates, of every CA of the chain */
  const char *ciphers;  /* of TLS 1.2, as the engine names them; NULL: its own choice */
  const char *ciphersuites; /* of TLS 1.3 */
  const char *const *alpn;  /* protocols, best first; a server refuses a client that has none of them */
  size_t alpn_count;
  int64_t session_cache;  /* of clients: sessions remembered, to be resumed; 0: 256; -1: none */
  const void *ticket_key; /* 80 secret bytes for servers that resume each other's sessions; NULL: random */
  size_t ticket_key_size;
  const char *keylog_file; /* secrets are appended to it, for tools that look into recorded traffic */
  char *message;           /* where to say in words why a context could not be made; NULL: nowhere */
  size_t message_size;
  int64_t kernel; /* see "Kernel TLS": 0: where it is complete; 1: wherever it is there; -1: never */
} aloop_tls_options_t;

typedef struct aloop_tls_engine aloop_tls_engine_t;

/* ssl.SSLContext: made by an engine (aloop_tls_openssl()), fixed from then on but for names, and shared by as
 * many loops in as many threads as you like. Errors: ALOOP_EINVAL, ALOOP_ENOENT, ALOOP_EACCES (of a file),
 * ALOOP_ETLS (no such certificate, key, cipher: `message` says which). [any] */
ALOOP_API int aloop_tls_context_new(const aloop_tls_engine_t *engine, const aloop_tls_options_t *options,
                                    aloop_tls_context_t **context);

/* Reference counting; connections and servers keep their context. unref accepts NULL. [any] */
ALOOP_API aloop_tls_context_t *aloop_tls_context_ref(aloop_tls_context_t *context);
ALOOP_API void aloop_tls_context_unref(aloop_tls_context_t *context);

/* SSLContext.sni_callback, for what it is used for: a client that asks a server for `name` ("example.org",
 * "*.example.org" for one label more) gets the certificate and rules of `other`, a server's context of the same
 * engine; NULL: no more. A name may be set anew while connections are made; they keep what they have. Errors:
 * ALOOP_EINVAL, ALOOP_ENOENT (nothing to take away). [any] */
ALOOP_API int aloop_tls_context_add_name(aloop_tls_context_t *context, const char *name,
                                         aloop_tls_context_t *other);

typedef struct aloop_start_tls_options {
  size_t size;
  aloop_tls_context_t *tls;    /* of a client or of a server: that decides which side this is */
  const char *server_hostname; /* of a client, as in aloop_unix_connect_options_t */
  int64_t tls_handshake_timeout;
  int64_t tls_shutdown_timeout;
} aloop_start_tls_options_t;

/* loop.start_tls: shakes hands over a live transport, behind what was written to it; the result is the TLS
 * transport, as that of create_connection. `transport` is of no use from now on: its calls answer
 * ALOOP_ECLOSED, its protocol, or `protocol` with its object if a table is given, gets the events of the new
 * one, with connection_made taken as done: connection_lost comes once whatever happens, also when the
 * handshake fails. Reading goes on even if it was paused. Bytes that data_received was given before this
 * call are the protocol's to throw away: they are no part of what is encrypted. Cancelling it ends the
 * connection. Errors: ALOOP_EINVAL, ALOOP_ECLOSED, ALOOP_EBUSY (sendfile), ALOOP_EPIPE (after write_eof or
 * EOF), ALOOP_ENOTSUP (a pipe of one direction); of the handshake: ALOOP_ETLS..., ALOOP_ETIMEDOUT,
 * ALOOP_ECONNRESET. [loop] */
ALOOP_API aloop_future_t *aloop_start_tls(aloop_transport_t *transport, const aloop_protocol_t *protocol,
                                          void *object, const aloop_start_tls_options_t *options);

/* What a handshake has agreed on. Texts live as long as the transport; NULL: none. */
typedef struct aloop_tls_info {
  size_t size;
  const char *version;     /* "TLSv1.3" */
  const char *cipher;      /* as the engine names it */
  const char *alpn;        /* the protocol chosen */
  const char *server_name; /* the client asked for */
  const char *verify_text; /* what is wrong with the peer's certificate, where it was not refused */
  int verify_error;        /* 0: it is good, or was not looked at; else the engine's number */
  int reused;              /* 1: a session was resumed */
  size_t certificates;     /* how many the peer showed */
  size_t kernel;           /* 1: the kernel encrypts what is sent, and sendfile copies nothing */
} aloop_tls_info_t;

/* Transport.get_extra_info of ssl_object, cipher, compression, ...: fills in as many members as `info->size`
 * says. Errors: ALOOP_ENOTSUP (no TLS transport), ALOOP_ENOTCONN (no handshake yet), ALOOP_ECLOSED once lost.
 * [loop] */
ALOOP_API int aloop_transport_tls_info(const aloop_transport_t *transport, aloop_tls_info_t *info);

/* get_extra_info("peercert"): the index-th certificate of the peer's chain in DER, the peer's own first, valid
 * as long as the transport. Errors: ALOOP_ENOENT past the last, those of aloop_transport_tls_info. [loop] */
ALOOP_API int aloop_transport_tls_certificate(const aloop_transport_t *transport, size_t index,
                                              const void **der, size_t *size);

/* SSLObject.get_channel_binding: "tls-unique" (TLS 1.2 only), "tls-exporter" or "tls-server-end-point" into
 * `data`; *size is the room on entry and the length on return. Errors: ALOOP_ENOTSUP (no such binding here),
 * ALOOP_ENOBUFS (64 bytes do), those of aloop_transport_tls_info. [loop] */
ALOOP_API int aloop_transport_tls_binding(const aloop_transport_t *transport, const char *type, void *data,
                                          size_t *size);

/* Why TLS has ended the connection, in words ("certificate verify failed: certificate has expired"), also
 * inside connection_lost and later; NULL if it has not. [loop] */
ALOOP_API const char *aloop_transport_tls_error(const aloop_transport_t *transport);

/* ---- TLS engines ----------------------------------------------------------------------------------------- */

/* What encrypts records that are sent, for a kernel that shall do it. */
typedef struct aloop_tls_keys {
  size_t size;
  int version; /* ALOOP_TLS_1_2, ALOOP_TLS_1_3 */
  int cipher;  /* ALOOP_TLS_AES_128_GCM, ... */
  unsigned char key[32];
  unsigned char iv[12]; /* in TLS 1.2 with AES-GCM 4 bytes of the key block, then the next record's own 8 */
  unsigned char sequence[8]; /* the next record's number */
} aloop_tls_keys_t;

enum { ALOOP_TLS_AES_128_GCM = 1, ALOOP_TLS_AES_256_GCM, ALOOP_TLS_CHACHA20_POLY1305 };

/* An engine is TLS without I/O: bytes in, bytes out. Each call may take received bytes from the front of
 * `input` (it moves both members on) and hand bytes for the peer to output(), which takes all of them: 0, or
 * ALOOP_ENOMEM, with which the call then fails. */
typedef struct aloop_tls_wire {
  const unsigned char *input;
  size_t input_size;
  int (*output)(struct aloop_tls_wire *wire, const void *data, size_t size);
  /* For engines with `offload`: the kernel encrypts with these keys from now on, behind all that was given
   * to record(): 0 or a code. */
  int (*keys)(struct aloop_tls_wire *wire, const aloop_tls_keys_t *keys);
  /* ... and then in place of output(): a record in clear, with its type in the protocol: 0 or a code. */
  int (*record)(struct aloop_tls_wire *wire, int type, const void *data, size_t size);
} aloop_tls_wire_t;

/* What a session is made for. Valid during session_new, but for `choose`. */
typedef struct aloop_tls_session {
  size_t size;
  const char *server_hostname; /* of a client: to be asked for and to be verified; NULL: neither */
  /* Of a server: the engine's context for the name a client asked for, NULL: the session's own. Valid as
   * long as the session. To be called at most once. */
  void *(*choose)(void *arg, const char *name);
  void *arg;
} aloop_tls_session_t;

/* Contexts are used by several threads at once, a session by one. No call may block. A code that is a failure
 * ends the connection: ALOOP_ETLS, ALOOP_ETLS_VERIFY, ALOOP_ETLS_ALERT, ALOOP_ENOMEM; what output() was given
 * before is sent first, so that the peer is told, too. */
struct aloop_tls_engine {
  size_t size;
  const char *name;
  /* `options` are those of aloop_tls_context_new, with every member there is; the role and whether texts are
   * given twice was checked. A reason in words goes to `options->message`, if there is one. */
  int (*context_new)(const aloop_tls_options_t *options, void **context);
  void (*context_free)(void *context);
  int (*session_new)(void *context, const aloop_tls_session_t *how, void **session);
  void (*session_free)(void *session);
  /* Returns 1 when it is done, 0 when it needs more input, or a code. */
  int (*handshake)(void *session, aloop_tls_wire_t *wire);
  /* Decrypts: the number of bytes, 0 when it needs more input, ALOOP_EOF at the end of the peer's stream, or a
   * code. */
  ssize_t (*read)(void *session, aloop_tls_wire_t *wire, void *buffer, size_t size);
  /* Encrypts all of at most 16384 bytes: 0 or a code. */
  int (*write)(void *session, aloop_tls_wire_t *wire, const void *data, size_t size);
  /* Tells the peer that the stream ends: 0 or a code. Reading may go on. */
  int (*shutdown)(void *session, aloop_tls_wire_t *wire);
  /* Whether read may return anything but 0 without more input. If not, it is called with input only. */
  bool (*pending)(void *session);
  /* Why the last call failed, in words; *text stays as it is if it is not known. */
  void (*reason)(void *session, char *text, size_t size);
  /* As the functions of transports, after the handshake. half_close: whether one direction may end alone. */
  void (*info)(void *session, aloop_tls_info_t *info);
  int (*certificate)(void *session, size_t index, const void **der, size_t *size);
  int (*binding)(void *session, const char *type, void *data, size_t *size);
  bool (*half_close)(void *session);
  /* Gives the keys of what is sent to wire->keys(), after the handshake and at most once. 0: the kernel
   * encrypts: write is not called any more, and what else there is to send (alerts, new keys) goes to
   * wire->record(). A code: nothing has changed. Not called if `kernel` of the options, which is -1 where there
   * is no such kernel, says so. NULL: the engine cannot do that. */
  int (*offload)(void *session, aloop_tls_wire_t *wire);
};

/* The engine of OpenSSL (3, or 1.1.1), a constant. It is the only symbol of libaloop-openssl: link that as well
 * (pkg-config aloop-openssl, CMake aloop::openssl). [any] */
ALOOP_API const aloop_tls_engine_t *aloop_tls_openssl(void);

/* ---- Subprocesses ---------------------------------------------------------------------------------------- */

/* asyncio.SubprocessProtocol: connection_made comes first, once every pipe is there, connection_lost last, once
 * the child has ended and every pipe is lost; exit and data come between them in no fixed order. fd is 0, 1
 * or 2. A NULL member is not called. The table must outlive its processes. */
typedef struct aloop_process_protocol {
  size_t size;
  void *(*create)(void *arg); /* as in aloop_protocol_t; returning NULL kills the child */
  void (*connection_made)(aloop_process_t *process, void *protocol);
  /* `data` is valid during the call. */
  void (*pipe_data_received)(aloop_process_t *process, void *protocol, int fd, const void *data, size_t size);
  void (*pipe_connection_lost)(aloop_process_t *process, void *protocol, int fd, int error);
  void (*process_exited)(aloop_process_t *process, void *protocol);
  void (*pause_writing)(aloop_process_t *process, void *protocol); /* of the child's stdin */
  void (*resume_writing)(aloop_process_t *process, void *protocol);
  /* 0, or ALOOP_ECLOSED when the loop was closed. Release `protocol` here. */
  void (*connection_lost)(aloop_process_t *process, void *protocol, int error);
} aloop_process_protocol_t;

/* What a child's stdin, stdout or stderr is. */
enum {
  ALOOP_STDIO_PIPE = 0, /* a pipe to this process */
  ALOOP_STDIO_INHERIT,  /* this process's own */
  ALOOP_STDIO_DEVNULL,
  ALOOP_STDIO_STDOUT, /* err only: where out goes */
  ALOOP_STDIO_FD      /* the descriptor `fd`, which stays the caller's */
};
typedef struct aloop_stdio {
  int kind;
  int fd;
} aloop_stdio_t;

enum { ALOOP_SET_UMASK = 1, ALOOP_SET_USER = 2, ALOOP_SET_GROUP = 4, ALOOP_SET_GROUPS = 8 };

typedef struct aloop_process_options {
  size_t size;
  const char *const *argv; /* ended by NULL; argv[0] is the program, looked up in PATH unless it has a slash */
  const char *executable;  /* the program, if argv[0] is to say something else */
  const char *const *env;  /* "NAME=value", ended by NULL, its PATH counts; NULL: this process's */
  const char *cwd;         /* NULL: this process's */
  aloop_stdio_t in, out, err;
  const int *pass_fds; /* descriptors above 2 that the child gets, under the same numbers; it gets no others */
  size_t pass_fds_count;
  int process_group; /* 0: this process's; -1: a new one; else that one */
  bool start_new_session;
  int restore_signals; /* 0: SIGPIPE and SIGXFSZ have their default action and no signal is blocked; -1: signals
                          are ignored and blocked as in the calling thread */
  unsigned set;        /* which of the following count: ALOOP_SET_... */
  mode_t umask;
  uid_t user; /* groups stay as they are unless set too */
  gid_t group;
  const gid_t *groups; /* the extra ones */
  size_t groups_count;
} aloop_process_options_t;

/* loop.subprocess_exec, subprocess_shell (`command` is for /bin/sh -c; no argv): starts a child. The object of
 * the future is the aloop_process_t *, with a reference for aloop_future_take_ptr; connection_made was called
 * by then. A NULL protocol: none; output waits in the pipes for aloop_process_communicate. `options` (NULL for
 * a shell: the defaults) are used during the call, in which the program is started; cancelling the future kills
 * it. Handlers and ignored signals are as exec leaves them. Errors: the code of the step that failed, which the
 * message names ("chdir to /nope: no such entry", "execute foo: permission denied"), ALOOP_EINVAL,
 * ALOOP_EMFILE. [loop] */
ALOOP_API aloop_future_t *aloop_subprocess_exec(aloop_t *loop, const aloop_process_protocol_t *protocol,
                                                void *arg, const aloop_process_options_t *options);
ALOOP_API aloop_future_t *aloop_subprocess_shell(aloop_t *loop, const aloop_process_protocol_t *protocol,
                                                 void *arg, const char *command,
                                                 const aloop_process_options_t *options);

/* Reference counting; unref accepts NULL and never kills. A process without protocol that has ended and that
 * nobody refers to closes its pipes. [loop] */
ALOOP_API aloop_process_t *aloop_process_ref(aloop_process_t *process);
ALOOP_API void aloop_process_unref(aloop_process_t *process);
ALOOP_API aloop_t *aloop_process_loop(const aloop_process_t *process);

/* SubprocessTransport.get_pid: also after the end. [loop] */
ALOOP_API pid_t aloop_process_pid(const aloop_process_t *process);

/* SubprocessTransport.get_returncode: *code is the exit code, or minus the signal that ended the child. Errors:
 * ALOOP_ENOTDONE (it still runs), ALOOP_EREAPED (somebody else collected its status). [loop] */
ALOOP_API int aloop_process_returncode(const aloop_process_t *process, int *code);

/* SubprocessTransport.get_pipe_transport, get_protocol: the pipe to stdin (0), from stdout (1) or stderr (2),
 * borrowed, NULL if that is no pipe; and what create() returned. [loop] */
ALOOP_API aloop_transport_t *aloop_process_pipe(const aloop_process_t *process, int fd);
ALOOP_API void *aloop_process_get_protocol(const aloop_process_t *process);

/* Process.wait: done when the child has ended, whoever still holds its pipes: with the exit code, or 256 plus
 * the signal that ended it. Cancelling stops only the waiting. Errors: ALOOP_EREAPED. [loop] */
#define ALOOP_EXIT_SIGNAL(status) ((status) >= 256 ? (int)((status)-256) : 0)
ALOOP_API aloop_future_t *aloop_process_wait(aloop_process_t *process);

/* What communicate collected: one block, for free(). A text ends with a 0 beyond its size; NULL: no pipe. */
typedef struct aloop_output {
  int returncode; /* as aloop_process_returncode */
  char *out;
  size_t out_size;
  char *err;
  size_t err_size;
} aloop_output_t;

/* Process.communicate, for a child without protocol: writes `input` (copied) to stdin and closes it, collects
 * stdout and stderr until both and the child have ended; the object is an aloop_output_t *. A child that does
 * not read is no error. With more than `limit` bytes (0: no limit) from either the child is killed, and the
 * error ALOOP_ENOBUFS. Cancelling stops collecting; what came is lost. Errors: ALOOP_EBUSY (called before, or
 * there is a protocol), ALOOP_EINVAL (input, but stdin is no pipe), ALOOP_EREAPED. [loop] */
ALOOP_API aloop_future_t *aloop_process_communicate(aloop_process_t *process, const void *input, size_t size,
                                                    size_t limit);

/* SubprocessTransport.send_signal, terminate (SIGTERM), kill (SIGKILL): 0 also for a child that has just ended.
 * Errors: ALOOP_ESRCH (its end is known, or it was collected by somebody else), ALOOP_EINVAL (no such signal),
 * ALOOP_EPERM. [loop] */
ALOOP_API int aloop_process_send_signal(aloop_process_t *process, int signum);
ALOOP_API int aloop_process_terminate(aloop_process_t *process);
ALOOP_API int aloop_process_kill(aloop_process_t *process);

/* SubprocessTransport.close: drops the pipes, unsent bytes too, and kills the child if it still runs;
 * connection_lost(0) follows when it has ended. Idempotent. aloop_close does the same, and waits for the end of
 * the child, at most a second. [loop] */
ALOOP_API void aloop_process_close(aloop_process_t *process);
ALOOP_API bool aloop_process_is_closing(const aloop_process_t *process);

/* ---- Streams --------------------------------------------------------------------------------------------- */

/* asyncio.StreamReader and StreamWriter as one object: a connection that is read from and written to by calls
 * instead of a protocol. Reads and waits are futures: a task awaits them, other programs watch them.
 *
 * A read consumes what it gives when its value is read (aloop_await and aloop_run_until_complete read it): one
 * that is cancelled, or whose future goes unread, consumes nothing. Until then the next read is refused with
 * ALOOP_EBUSY, as one is that is made while another waits. Buffers, and the places where addresses go, must
 * stay valid until the future ends. What was received before the connection ended can be read; then come the
 * errors, ALOOP_EOF or 0 after an end that is none, and what ended the connection otherwise. */

typedef struct aloop_stream_options {
  size_t size;
  size_t limit; /* of readline and readuntil, in bytes; reading pauses while twice as many wait. 0: 64 KiB */
} aloop_stream_options_t;

/* A stream over a transport that is connected, whose protocol it replaces; the transport stays referenced while
 * the stream is. `options` may be NULL. Errors: ALOOP_EBUSY (another stream has it), ALOOP_EINVAL (before
 * connection_made), ALOOP_ENOMEM, ALOOP_ECLOSED (the loop is closed). [loop] */
ALOOP_API int aloop_stream_new(aloop_transport_t *transport, const aloop_stream_options_t *options,
                               aloop_stream_t **stream);

/* asyncio.open_connection, open_unix_connection: aloop_create_connection and aloop_create_unix_connection with
 * a stream for result: the object is the aloop_stream_t *, for aloop_await_ptr or aloop_future_take_ptr.
 * `stream_options` may be NULL. Errors: theirs. [loop] */
ALOOP_API aloop_future_t *aloop_open_connection(aloop_t *loop, const aloop_connect_options_t *options,
                                                const aloop_stream_options_t *stream_options);
ALOOP_API aloop_future_t *aloop_open_unix_connection(aloop_t *loop, const aloop_unix_connect_options_t *options,
                                                     const aloop_stream_options_t *stream_options);

/* What serves a client, in a task of its own; the stream is borrowed. When it returns the stream is closed,
 * after what was written. A negative result is reported to the exception handler, but for ALOOP_ECANCELED and,
 * outside debug mode, what ended the connection. */
typedef int64_t (*aloop_client_fn)(aloop_t *loop, aloop_stream_t *stream, void *arg);

/* asyncio.start_server, start_unix_server: aloop_create_server and aloop_create_unix_server; each connection
 * gets a stream and a task that calls fn(loop, stream, arg). `arg` must be valid until the server is closed and
 * the last task has ended. Ending clients (aloop_server_close_clients, ..._drain) is the end of their streams;
 * their tasks go on from there. `stream_options` may be NULL. Errors: theirs. [loop] */
ALOOP_API aloop_future_t *aloop_start_server(aloop_t *loop, aloop_client_fn fn, void *arg,
                                             const aloop_server_options_t *options,
                                             const aloop_stream_options_t *stream_options);
ALOOP_API aloop_future_t *aloop_start_unix_server(aloop_t *loop, aloop_client_fn fn, void *arg,
                                                  const aloop_unix_server_options_t *options,
                                                  const aloop_stream_options_t *stream_options);

/* asyncio.create_subprocess_exec, create_subprocess_shell: aloop_subprocess_exec and aloop_subprocess_shell
 * without protocol, for a process whose pipes are streams. `stream_options` may be NULL. What is written to the
 * child's stdin it reads until aloop_stream_close; a child whose output nobody reads waits when the pipe and
 * the stream are full. aloop_process_communicate takes what the streams have not given yet, and ends them
 * (ALOOP_EBUSY while a read waits). Errors: theirs. [loop] */
ALOOP_API aloop_future_t *aloop_create_subprocess_exec(aloop_t *loop, const aloop_process_options_t *options,
                                                       const aloop_stream_options_t *stream_options);
ALOOP_API aloop_future_t *aloop_create_subprocess_shell(aloop_t *loop, const char *command,
                                                        const aloop_process_options_t *options,
                                                        const aloop_stream_options_t *stream_options);

/* Process.stdin (0), stdout (1), stderr (2): borrowed from a process so made; NULL if that is no pipe. The
 * stream lives as long as somebody refers to the process or to it. [loop] */
ALOOP_API aloop_stream_t *aloop_process_stream(const aloop_process_t *process, int fd);

/* Reference counting; unref accepts NULL. The last one closes the connection (aloop_stream_close). [loop] */
ALOOP_API aloop_stream_t *aloop_stream_ref(aloop_stream_t *stream);
ALOOP_API void aloop_stream_unref(aloop_stream_t *stream);
ALOOP_API aloop_t *aloop_stream_loop(const aloop_stream_t *stream);

/* StreamReader.read: ends with how many bytes came, from 1 to `size`; 0: end of the stream. [loop] */
ALOOP_API aloop_future_t *aloop_stream_read(aloop_stream_t *stream, void *buffer, size_t size);

/* StreamReader.readexactly: ends with `size`, which no limit concerns. Errors: ALOOP_EOF (IncompleteReadError:
 * the stream ended before; the message says after how many bytes, and those can still be read). [loop] */
ALOOP_API aloop_future_t *aloop_stream_readexactly(aloop_stream_t *stream, void *buffer, size_t size);

/* StreamReader.readline, without a copy: *line is the address of the line in the stream's memory, followed by a
 * 0, valid until the next read or the last unref. Ends with its length, the newline included, which only the
 * last line may lack; 0: end of the stream. Errors: ALOOP_ERANGE (no newline within the limit; nothing is
 * consumed, where asyncio drops bytes: aloop_stream_read gets them). [loop] */
ALOOP_API aloop_future_t *aloop_stream_readline(aloop_stream_t *stream, const char **line);

/* StreamReader.readuntil: the same up to a separator, which must stay valid until the future ends. Errors:
 * ALOOP_ERANGE (LimitOverrunError; nothing is consumed), ALOOP_EOF (IncompleteReadError; what is there can
 * still be read). [loop] */
ALOOP_API aloop_future_t *aloop_stream_readuntil(aloop_stream_t *stream, const void *separator, size_t size,
                                                 const char **data);

/* StreamReader.at_eof: the stream has ended and all of it was read. [loop] */
ALOOP_API bool aloop_stream_at_eof(const aloop_stream_t *stream);

/* StreamWriter.write, writelines, write_eof, can_write_eof: as those of the transport; once the connection has
 * ended they answer what ended it, or ALOOP_ECLOSED. What a task writes leaves together, when it waits for
 * something that is not done or writes to another stream. [loop] */
ALOOP_API int aloop_stream_write(aloop_stream_t *stream, const void *data, size_t size);
ALOOP_API int aloop_stream_writev(aloop_stream_t *stream, const struct iovec *iov, int count);
ALOOP_API int aloop_stream_write_eof(aloop_stream_t *stream);
ALOOP_API bool aloop_stream_can_write_eof(const aloop_stream_t *stream);

/* StreamWriter.drain: done with 0, at once unless the write buffer has risen over its high-water mark, then
 * when it has fallen to the low one. Errors: what ended the connection, or ALOOP_ECLOSED. [loop] */
ALOOP_API aloop_future_t *aloop_stream_drain(aloop_stream_t *stream);

/* StreamWriter.start_tls: aloop_start_tls for a stream, which goes on over TLS; ends with 0. What was received
 * and not read yet is thrown away: it came in clear. Until the end there is no reading or writing
 * (ALOOP_EBUSY); closing the stream ends the connection. Errors besides: ALOOP_EBUSY (a read waits, or its
 * result was not read yet; a drain is due first). [loop] */
ALOOP_API aloop_future_t *aloop_stream_start_tls(aloop_stream_t *stream,
                                                 const aloop_start_tls_options_t *options);

/* StreamWriter.close, is_closing: as those of the transport. abort drops what is unsent. A read that waits ends
 * as at the end of the stream. [loop] */
ALOOP_API void aloop_stream_close(aloop_stream_t *stream);
ALOOP_API void aloop_stream_abort(aloop_stream_t *stream);
ALOOP_API bool aloop_stream_is_closing(const aloop_stream_t *stream);

/* StreamWriter.wait_closed: done with 0 when the connection is lost, or with the error that ended it. [loop] */
ALOOP_API aloop_future_t *aloop_stream_wait_closed(aloop_stream_t *stream);

/* StreamReader.exception: the error that ended the connection; 0: it lives, or ended well. [loop] */
ALOOP_API int aloop_stream_error(const aloop_stream_t *stream);

/* StreamWriter.transport: borrowed, for addresses, limits and timeouts. [loop] */
ALOOP_API aloop_transport_t *aloop_stream_transport(const aloop_stream_t *stream);

#ifdef __cplusplus
}
#endif

#endif
