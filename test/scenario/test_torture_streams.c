/* SPDX-License-Identifier: MIT
 *
 * Torture of streams: a server with a task for each client, a client that talks to it in lines and blocks, and a
 * child whose pipes are streams. What is read is what was written, in order, whatever fails; tasks end; nothing
 * stays behind.
 *
 * pollers: all
 * faults: yes
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "torture.h"

enum { LINES = 3, BLOCK = 3000 };

typedef struct stage {
  run_t *run;
  int begun, ended;
  aloop_stream_t *client;
} stage_t;

/* ---- A server -------------------------------------------------------------------------------------------- */

static int64_t answer_lines(aloop_stream_t *stream) {
  const char *line;
  int64_t size;
  while ((size = aloop_await(aloop_stream_readline(stream, &line))) > 0) {
    int64_t rc = aloop_stream_write(stream, "> ", 2);
    if (rc == 0) rc = aloop_stream_write(stream, line, (size_t)size);
    if (rc == 0) rc = aloop_await(aloop_stream_drain(stream));
    if (rc < 0) return rc;
  }
  return size;
}

static int64_t serve(aloop_t *loop, aloop_stream_t *stream, void *arg) {
  (void)loop;
  stage_t *stage = arg;
  stage->begun++;
  int64_t rc = answer_lines(stream);
  ALWAYS(rc == 0 || is_known(rc));
  stage->ended++;
  return rc == 0 ? 0 : ALOOP_ECANCELED;
}

/* Returns whether all went well. */
static bool ask(stage_t *stage, int number) {
  char question[32], wanted[40];
  const char *line = NULL;
  snprintf(question, sizeof question, "question %d\n", number);
  snprintf(wanted, sizeof wanted, "> %s", question);
  int rc = aloop_stream_write(stage->client, question, strlen(question));
  ALWAYS(rc == 0 || is_known(rc));
  if (rc < 0) return false;
  int64_t size = run_end_of(stage->run, aloop_stream_readline(stage->client, &line));
  if (size > 0) ALWAYS((size_t)size <= strlen(wanted) && memcmp(line, wanted, (size_t)size) == 0);
  return size == (int64_t)strlen(wanted);
}

static bool ask_much(stage_t *stage) {
  static char block[BLOCK], got[BLOCK + 2];
  memset(block, 'x', sizeof block);
  size_t size = stage->run->kind == FAULT_SHORT ? 100 : BLOCK;
  block[size - 1] = '\n';
  int rc = aloop_stream_write(stage->client, block, size);
  ALWAYS(rc == 0 || is_known(rc));
  if (rc < 0 || run_end_of(stage->run, aloop_stream_drain(stage->client)) < 0) return false;
  if (run_end_of(stage->run, aloop_stream_readexactly(stage->client, got, size + 2)) < 0) return false;
  ALWAYS(memcmp(got, "> ", 2) == 0 && memcmp(got + 2, block, size) == 0);
  return true;
}

static void talk(stage_t *stage) {
  char byte;
  bool well = true;
  for (int i = 0; i < LINES && well; i++) well = ask(stage, i);
  if (well) well = ask_much(stage);
  if (well) well = aloop_stream_write_eof(stage->client) == 0;
  if (well) well = run_end_of(stage->run, aloop_stream_read(stage->client, &byte, 1)) == 0;
  NORMALLY(stage->run, well);
}

static bool all_ended(const void *arg) {
  const stage_t *stage = arg;
  return stage->ended == stage->begun;
}

static void play_server(run_t *run) {
  stage_t stage = {.run = run};
  aloop_server_t *server = NULL;
  aloop_server_options_t at = {.size = sizeof at, .host = "127.0.0.1"};
  if (!run_open(run, -1)) return;
  if (run_object_of(run, aloop_start_server(run->loop, serve, &stage, &at, NULL), &server)) {
    aloop_connect_options_t to = {.size = sizeof to, .host = "127.0.0.1", .timeout = ALOOP_SECONDS(5)};
    to.port = aloop_server_port(server);
    if (to.port > 0 && run_object_of(run, aloop_open_connection(run->loop, &to, NULL), &stage.client)) {
      talk(&stage);
      aloop_stream_close(stage.client);
      aloop_stream_unref(stage.client);
      run_to(run, all_ended, &stage);
    } else {
      NORMALLY(run, false);
    }
    aloop_server_close(server);
    aloop_server_unref(server);
  } else {
    NORMALLY(run, false);
  }
  aloop_close(run->loop);
  ALWAYS(stage.begun == stage.ended);
}

/* ---- A child --------------------------------------------------------------------------------------------- */

static bool is_done(const void *future) {
  return aloop_future_done(future);
}

/* Starts cat. NULL: not this time. A system with too many processes says ALOOP_EAGAIN. */
static aloop_process_t *start(run_t *run) {
  static const char *const argv[] = {"/bin/cat", NULL};
  aloop_process_options_t options = {.size = sizeof options, .argv = argv, .err.kind = ALOOP_STDIO_DEVNULL};
  aloop_process_t *process = NULL;
  aloop_future_t *future = aloop_create_subprocess_exec(run->loop, &options, NULL);
  if (run_made(run, future) == NULL) return NULL;
  run_to(run, is_done, future);
  int rc = aloop_future_take_ptr(future, &process);
  NORMALLY(run, rc == 0);
  ALWAYS(rc == 0 || rc == ALOOP_ENOTDONE || rc == ALOOP_EAGAIN || is_known(rc));
  aloop_future_unref(future);
  return process;
}

static void talk_with_child(run_t *run, aloop_process_t *process) {
  const char *line = NULL;
  aloop_output_t *output = NULL;
  int rc = aloop_stream_write(aloop_process_stream(process, 0), "hello\n", 6);
  ALWAYS(rc == 0 || is_known(rc));
  int64_t size = rc < 0 ? rc : run_end_of(run, aloop_stream_readline(aloop_process_stream(process, 1), &line));
  if (size > 0) ALWAYS(size <= 6 && memcmp(line, "hello\n", (size_t)size) == 0);
  NORMALLY(run, size == 6);
  if (run_object_of(run, aloop_process_communicate(process, "bye", 3, 0), &output)) {
    if (size == 6) NORMALLY(run, strcmp(output->out, "bye") == 0);
    free(output);
  }
}

/* Only a status that could not be collected leaves a child. */
static void play_child(run_t *run) {
  if (!run_open(run, -1)) return;
  aloop_process_t *process = start(run);
  if (process != NULL) talk_with_child(run, process);
  if (process != NULL) aloop_process_close(process);
  aloop_process_unref(process);
  aloop_close(run->loop);
  faults_pause();
  pid_t left;
  do left = waitpid(-1, NULL, 0);
  while (left > 0 || (left < 0 && errno == EINTR));
  faults_resume();
}

static void clients_in_tasks(void **state) {
  torture_all(*state, "stream servers", play_server);
}

static void children_with_streams(void **state) {
  torture_all(*state, "streams of children", play_child);
}

TESTS(T(clients_in_tasks), T(children_with_streams))
