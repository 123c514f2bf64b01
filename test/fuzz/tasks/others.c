/* SPDX-License-Identifier: MIT
 *
 * Generators, jobs of an executor that does them when the input says so, and streams whose two ends belong to
 * the same program. See fuzz_tasks.c.
 */
#include "tasks/actors.h"

#include <stdlib.h>
#include <unistd.h>

/* ---- Generators ------------------------------------------------------------------------------------------ */

enum { YIELDS = 64 };

typedef struct source {
  unsigned how;
  int serial;
} source_t;

static char items[YIELDS]; /* an item is a pointer into this */

static void source_over(void *arg) {
  t.arguments--;
  free(arg);
}

static int64_t source_body(aloop_t *loop, void *arg) {
  const source_t *source = arg;
  unsigned how = source->how;
  MUST(loop == t.loop && in_task());
  int rc = 0;
  t.bodies++;
  for (int i = 0; i < (int)how % YIELDS && rc == 0; i++) {
    react_as(source->serial, 0);
    rc = aloop_yield(&items[i]);
    check_code(rc);
    if (rc < 0) react_as(source->serial, 0);
    if (rc == ALOOP_EIO && how & 64) rc = 0; /* thrown in, and dealt with */
  }
  if (rc == ALOOP_ECLOSED && how & 128) check_code(aloop_yield(&items[0]));
  t.bodies--;
  return rc;
}

void read_step(const wish_t *wish, int64_t rc, const void *item) {
  generator_model_t *model = &t.generators[wish->index];
  if (rc != 0 || model->life != wish->life) return;
  MUST(item != NULL);
  ptrdiff_t number = (const char *)item - items;
  uint64_t bit = UINT64_C(1) << number;
  MUST((model->read & bit) == 0 || number == 0); /* the first is handed out again by those who ignore a close */
  model->read |= bit;
}

static generator_model_t *some_generator(void) {
  generator_model_t *model = &t.generators[byte() % GENERATORS];
  if (model->generator != NULL) return model;
  source_t *source = malloc(sizeof *source);
  *source = (source_t){byte(), model->serial = ++t.serials};
  aloop_generator_options_t options = {.size = sizeof options, .stack_size = 131072, .destroy = source_over};
  t.arguments++;
  if (aloop_generator_new(t.loop, source_body, source, &options, &model->generator) < 0) {
    source_over(source);
    model->generator = NULL;
    return NULL;
  }
  model->life++;
  model->read = 0;
  return model;
}

void use_generator(void) {
  if (t.bodies > TASKS_MAX) return;
  generator_model_t *model = some_generator();
  unsigned how = byte();
  if (model == NULL) return;
  unsigned index = (unsigned)(model - t.generators);
  if (how % 16 == 0) {
    aloop_generator_t *old = model->generator;
    model->generator = NULL;
    model->life++;
    aloop_generator_unref(old);
  } else if (how % 16 == 1) {
    have_behind(model->serial, aloop_generator_close(model->generator), NOTHING, index, model->life);
  } else if (how % 16 == 2) {
    have_behind(model->serial, aloop_generator_throw(model->generator, ALOOP_EIO), STEP, index, model->life);
  } else if (how == 3) {
    have_behind(0, aloop_shutdown_asyncgens(t.loop), NOTHING, 0, 0);
  } else {
    have_behind(model->serial, aloop_generator_next(model->generator), STEP, index, model->life);
  }
}

/* ---- Jobs ------------------------------------------------------------------------------------------------ */

static int take_job(void *state, aloop_job_t *job, int lane) {
  (void)state, (void)lane;
  if (t.job_count == JOBS_MAX) return ALOOP_EAGAIN;
  t.jobs_waiting[t.job_count++] = job;
  return 0;
}

static int take_back(void *state, aloop_job_t *job) {
  (void)state;
  for (int i = 0; i < t.job_count; i++)
    if (t.jobs_waiting[i] == job) {
      t.jobs_waiting[i] = t.jobs_waiting[--t.job_count];
      return 1;
    }
  return 0;
}

static int64_t work(void *arg) {
  return *(uint8_t *)arg & 1 ? ALOOP_EIO : 4;
}

static void job_over(void *arg) {
  t.jobs--;
  free(arg);
}

static bool have_executor(void) {
  static const aloop_executor_table_t table = {.size = sizeof table, .submit = take_job, .cancel = take_back};
  if (t.executor != NULL) return true;
  if (aloop_executor_new(&table, NULL, &t.executor) == 0) return true;
  t.executor = NULL;
  return false;
}

static void end_job(unsigned which, bool run) {
  aloop_job_t *job = t.jobs_waiting[which];
  t.jobs_waiting[which] = t.jobs_waiting[--t.job_count];
  if (run)
    aloop_job_run(job);
  else
    aloop_job_drop(job, ALOOP_ECANCELED);
}

void use_job(void) {
  unsigned how = byte();
  if (!have_executor()) return;
  if (how & 1 && t.job_count > 0) {
    end_job((how >> 2) % (unsigned)t.job_count, how & 2);
  } else if (how & 2) {
    static uint8_t lasting[2] = {0, 1};
    have(aloop_run_in_executor(t.loop, t.executor, work, &lasting[how >> 2 & 1]), NOTHING, 0, 0);
  } else {
    uint8_t *arg = malloc(1);
    *arg = (uint8_t)(how >> 2);
    aloop_job_options_t options = {.size = sizeof options, .fn = work, .arg = arg, .destroy = job_over};
    t.jobs++;
    aloop_future_t *future = aloop_submit(t.loop, t.executor, &options);
    if (future == NULL) job_over(arg);
    have(future, NOTHING, 0, 0);
  }
}

void drop_jobs(void) {
  while (t.job_count > 0) end_job(0, false);
}

/* ---- Streams --------------------------------------------------------------------------------------------- */

enum { READ_MAX = 3000 };

static uint8_t pattern(size_t at) {
  return at % 7 == 6 ? '\n' : (uint8_t)('a' + at % 23);
}

/* Two streams that are each other's peers. */
static void open_pipe(unsigned which) {
  static const aloop_protocol_t nothing = {.size = sizeof nothing};
  int fds[2];
  if (aloop_socketpair(SOCK_STREAM, fds) < 0) return;
  for (unsigned i = 0; i < 2; i++) {
    aloop_transport_t *transport = NULL;
    aloop_stream_t *stream = NULL;
    aloop_future_t *future = aloop_connect_accepted_socket(t.loop, &nothing, NULL, fds[i], NULL);
    int rc = aloop_await_ptr(future, &transport);
    if (rc == ALOOP_ENOMEM || rc == ALOOP_ECANCELED) close(fds[i]);
    if (rc < 0) continue;
    aloop_stream_options_t options = {.size = sizeof options, .limit = 512};
    rc = aloop_stream_new(transport, &options, &stream);
    if (rc < 0) aloop_transport_abort(transport);
    aloop_transport_unref(transport);
    if (rc < 0) continue;
    stream_model_t *model = &t.streams[2 * which + i];
    if (model->stream != NULL) {
      aloop_stream_unref(stream);
      continue;
    }
    aloop_transport_set_write_buffer_limits(transport, 2000, 500);
    model->stream = stream;
    model->life++;
  }
}

static void write_some(stream_model_t *model, size_t size) {
  static uint8_t bytes[READ_MAX];
  if (size > sizeof bytes) size = sizeof bytes;
  for (size_t i = 0; i < size; i++) bytes[i] = pattern(model->written + i);
  int rc = aloop_stream_write(model->stream, bytes, size);
  check_code(rc);
  if (rc == 0) model->written += size;
}

/* What was read is the next that the peer wrote; two pairs never meet. */
static void check_bytes(stream_model_t *model, const uint8_t *bytes, int64_t n) {
  for (int64_t i = 0; i < n; i++) MUST(bytes[i] == pattern(model->read + (size_t)i));
  model->read += (size_t)n;
}

static void read_some(stream_model_t *model, unsigned how) {
  uint8_t buffer[READ_MAX];
  const char *line = NULL;
  aloop_stream_t *stream = aloop_stream_ref(model->stream);
  unsigned life = model->life;
  size_t size = 1 + byte();
  aloop_future_t *future = how & 8    ? aloop_stream_readline(stream, &line)
                           : how & 16 ? aloop_stream_readexactly(stream, buffer, size)
                           : how & 32 ? aloop_stream_readuntil(stream, "\n", 1, &line)
                                      : aloop_stream_read(stream, buffer, size);
  if (how & 64) future = aloop_wait_for(future, moment());
  if (how & 128 && future != NULL) future = aloop_gather(t.loop, &future, 1, 0);
  int64_t rc = aloop_await(future);
  check_code(rc);
  if (rc > 0 && how & 128)
    model->read = SIZE_MAX; /* the value is that of the gather */
  else if (rc > 0 && life == model->life && model->read != SIZE_MAX)
    check_bytes(model, line != NULL ? (const uint8_t *)line : buffer, rc);
  aloop_stream_unref(stream);
}

void use_stream(void) {
  unsigned which = byte() % (2 * PIPES), how = byte();
  stream_model_t *model = &t.streams[which];
  if (model->stream == NULL) {
    stream_model_t *peer = &t.streams[which ^ 1];
    if (!in_task() || peer->stream != NULL || t.opening[which / 2]) return;
    model->written = model->read = peer->written = peer->read = 0;
    t.opening[which / 2] = true;
    open_pipe(which / 2);
    t.opening[which / 2] = false;
    return;
  }
  switch (how % 8) {
  case 0:
  case 1:
  case 2:
    write_some(model, byte() * 13U);
    break;
  case 3:
  case 4:
  case 5:
    if (in_task() && model->read != SIZE_MAX) read_some(model, how);
    break;
  case 6:
    have(how & 8 ? aloop_stream_wait_closed(model->stream) : aloop_stream_drain(model->stream), NOTHING, 0, 0);
    break;
  default: {
    aloop_stream_t *old = model->stream;
    if (how & 8) aloop_stream_close(old);
    if (how & 16) check_code(aloop_stream_write_eof(old));
    if (how % 128 == 7) aloop_stream_abort(old);
    if (how & 32) break;
    model->stream = NULL;
    model->life++;
    aloop_stream_unref(old);
  }
  }
}

void free_others(void) {
  for (int i = 0; i < GENERATORS; i++) aloop_generator_unref(t.generators[i].generator);
  for (int i = 0; i < 2 * PIPES; i++) aloop_stream_unref(t.streams[i].stream);
  drop_jobs();
  aloop_executor_unref(t.executor);
}
