/* SPDX-License-Identifier: MIT
 *
 * What the tests of subprocesses share: children whose protocol notes what it is told, and every way to start
 * and to watch them that a system may offer.
 *
 *     notes_t notes = {.env = env};
 *     start_noted(&notes, "cat", NULL);
 *     ...
 *     await_lost(&notes);
 *     assert_string_equal(notes.text[1], "hello");
 *     end_notes(&notes);
 */
#ifndef CHILDREN_H
#define CHILDREN_H

#include "harness.h"

enum { WAYS = 3, NOTES_ROOM = 16384 };

/* Uses the n-th way from now on: by the best there is; by fork; with a thread that watches. */
void use_way(int n);

/* A test that runs in every way. */
#define IN_EVERY_WAY(name)                                                                                     \
  static void name##_once(env_t *env);                                                                         \
  static void name(void **state) {                                                                             \
    for (int way = 0; way < WAYS; way++) {                                                                     \
      use_way(way);                                                                                            \
      name##_once(*state);                                                                                     \
    }                                                                                                          \
    use_way(0);                                                                                                \
  }                                                                                                            \
  static void name##_once(env_t *env)

typedef struct notes notes_t;

struct notes {
  env_t *env;
  aloop_process_t *process; /* a reference, from connection_made on */
  char events[256]; /* M made, 1 2 data (a run of it leaves one), a b c pipe 0 1 2 lost, X exited, P pause,
                               R resume, L lost */
  size_t events_count;
  char text[3][NOTES_ROOM]; /* what came from stdout and stderr; what does not fit is dropped */
  size_t size[3];           /* how much came */
  int pipe_errors[3];
  int error; /* of connection_lost */
  bool made, exited, lost;
  void (*on_made)(notes_t *notes);
  void (*on_exited)(notes_t *notes);
  void (*on_lost)(notes_t *notes);
  void *arg; /* the test's */
};

extern const aloop_process_protocol_t noting_protocol;

/* Starts a shell command; `options` may be NULL. The noted one is made when this returns; the other has no
 * protocol, and the reference is the caller's. */
void start_noted(notes_t *notes, const char *command, const aloop_process_options_t *options);
aloop_process_t *start_plain(env_t *env, const char *command, const aloop_process_options_t *options);

/* Why a start fails. `text`, if not NULL, gets the message. */
int64_t start_error(env_t *env, const aloop_process_options_t *options, char text[256]);

void await_lost(notes_t *notes);
void end_notes(notes_t *notes); /* closes it if need be */

/* The end of aloop_process_wait. */
int64_t wait_result(env_t *env, aloop_process_t *process);

/* Runs turns until no process is left, and checks that none is unknown to the library. */
void await_no_process(env_t *env);

/* Waits, without collecting it, until a child has ended. */
void await_end(aloop_process_t *process);

/* A pipe whose reading end is for a child to wait at. */
void make_gate(int gate[2]);

/* Options that pass a descriptor to the child besides the usual. */
aloop_process_options_t passing(const int *fd);

bool has_event(const notes_t *notes, char event);

#endif
