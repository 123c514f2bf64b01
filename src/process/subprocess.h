/* SPDX-License-Identifier: MIT
 *
 * The process object as communicate.c sees it. See subprocess.c for the story.
 */
#ifndef ALOOP_PROCESS_SUBPROCESS_H
#define ALOOP_PROCESS_SUBPROCESS_H

#include "aloop.h"
#include "core/loop.h"
#include "process/child.h"

typedef struct aloop__exchange aloop__exchange_t;
typedef struct aloop__lodger aloop__lodger_t;

/* What a higher room keeps with a process without protocol, whose pipes it has taken over. */
typedef struct aloop__lodger_ops {
  /* The process goes, or nobody can reach it any more and the child has ended. */
  void (*release)(aloop__lodger_t *lodger);
  /* Whether it is at work on stdout or stderr. */
  bool (*is_busy)(aloop__lodger_t *lodger);
  /* Lets go of the pipe. Returns how many bytes of it were received and not used; they are valid until the
   * lodger is released. */
  size_t (*give_back)(aloop__lodger_t *lodger, int fd, const void **data);
} aloop__lodger_ops_t;

struct aloop__lodger {
  const aloop__lodger_ops_t *ops;
};

/* A pipe to or from the child. */
typedef struct aloop__process_pipe {
  aloop_process_t *process;
  aloop_transport_t *transport; /* a reference until the process is released; NULL: no pipe */
  bool open;                    /* connection_lost is yet to come */
} aloop__process_pipe_t;

enum {
  ALOOP__PROCESS_MADE = 1,      /* connection_made was called */
  ALOOP__PROCESS_UNWANTED = 2,  /* it never will be: nobody is told anything */
  ALOOP__PROCESS_CLOSING = 4,   /* close was called */
  ALOOP__PROCESS_ENDING = 8,    /* connection_lost is queued */
  ALOOP__PROCESS_LOST = 16,     /* ... or was called: the loop's reference is gone */
  ALOOP__PROCESS_MADE_DUE = 32, /* could not be queued for want of memory */
  ALOOP__PROCESS_LOST_DUE = 64,
  ALOOP__PROCESS_COMMUNICATED = 128, /* communicate was called */
  ALOOP__PROCESS_DOOMED = 256        /* killed because the loop is being closed */
};

struct aloop_process {
  aloop__object_t object;
  aloop__child_t child;                  /* pid -1: it was never started */
  const aloop_process_protocol_t *table; /* NULL: none */
  void *protocol;                        /* before connection_made: the factory's argument */
  aloop__map_t *context;
  aloop_future_t *starting;    /* of the call, until connection_made */
  aloop__list_t waiters;       /* of aloop_process_wait */
  aloop__exchange_t *exchange; /* of communicate; NULL: none is under way */
  aloop__lodger_t *lodger;     /* or NULL */
  aloop__process_pipe_t pipes[3];
  int unmade; /* pipes whose connection_made is yet to come */
  unsigned flags;
  int64_t limit; /* DOOMED: how long to wait for its end */
};

static inline bool aloop__process_has_ended(const aloop_process_t *process) {
  return process->child.code != ALOOP_ENOTDONE || process->child.pid < 0;
}

/* What public calls begin with: 0, ALOOP_EINVAL (NULL) or ALOOP_ENOTLOOPTHREAD. */
int aloop__process_enter(const aloop_process_t *process);

/* The pipe tells the process again, whatever protocol it had. */
void aloop__process_reclaim_pipe(aloop_process_t *process, int fd);

/* communicate.c: bytes came from stdout or stderr; a pipe or the child ended; the loop is being closed. */
void aloop__communicate_received(aloop_process_t *process, int fd, const void *data, size_t size);
void aloop__communicate_ended(aloop_process_t *process, int fd, int error);
void aloop__communicate_close(aloop_process_t *process);

#endif
