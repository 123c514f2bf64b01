/* SPDX-License-Identifier: MIT
 *
 * Jobs for two programs that live on: a line to stdin is a job, the next line from stdout is its answer. A
 * program that ends or takes too long is killed and started anew, and its job is tried once more, perhaps by the
 * other one; a pause that doubles keeps a program that cannot run from being started all the time.
 *
 *     subprocess_workers [JOB...]      default: one crash two hang three
 *
 * The programs here are shells that answer "done JOB", and cannot stand some jobs. Each worker is a task with a
 * process of its own. The jobs come through a queue; when it is shut down, the workers close the stdin of their
 * programs and wait for them to end.
 */
#include <aloop.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { WORKERS = 2, TRIES = 2, JOBS_MAX = 100 };

static const char command[] =
    "while read -r job; do case $job in crash) exit 3;; hang) sleep 60;; *) echo \"done $job\";; esac; done";

typedef struct job {
  const char *text;
  char answer[64];
  int tries;
  int64_t error;
} job_t;

typedef struct shop {
  job_t jobs[JOBS_MAX];
  int count;
  aloop_queue_t *queue;
  int starts;
} shop_t;

/* ---- One program ----------------------------------------------------------------------------------------- */

static int64_t ask(aloop_process_t *process, job_t *job) {
  aloop_stream_t *to = aloop_process_stream(process, 0), *from = aloop_process_stream(process, 1);
  struct iovec line[] = {{(void *)job->text, strlen(job->text)}, {"\n", 1}};
  const char *answer;
  int64_t rc = aloop_stream_writev(to, line, 2);
  if (rc == 0) rc = aloop_await(aloop_stream_drain(to));
  if (rc == 0) rc = aloop_await(aloop_wait_for(aloop_stream_readline(from, &answer), ALOOP_SECONDS(1)));
  if (rc <= 0) return rc < 0 ? rc : ALOOP_EOF;
  snprintf(job->answer, sizeof job->answer, "%.*s", (int)strcspn(answer, "\n"), answer);
  return 0;
}

/* Returns 0 when the program is of no use any more, or why there is no job; ALOOP_ECLOSED: there are no more. A
 * job that failed for the last time counts as done, too. */
static int64_t do_jobs(shop_t *shop, aloop_process_t *process) {
  job_t *job;
  int64_t rc;
  while ((rc = aloop_await_ptr(aloop_queue_get(shop->queue), &job)) == 0) {
    job->tries++;
    job->error = ask(process, job);
    bool again = job->error < 0 && job->tries < TRIES;
    if (again && aloop_queue_put_nowait(shop->queue, job) < 0) job->error = ALOOP_ENOMEM;
    aloop_queue_task_done(shop->queue);
    if (job->error < 0) return job->error == ALOOP_ECANCELED ? ALOOP_ECANCELED : 0;
  }
  return rc;
}

/* Gives it half a second to end by itself. */
static int64_t end(aloop_process_t *process) {
  aloop_stream_close(aloop_process_stream(process, 0));
  int64_t status = aloop_await(aloop_wait_for(aloop_process_wait(process), ALOOP_MILLIS(500)));
  aloop_process_close(process); /* kills it if it still runs */
  aloop_process_unref(process);
  return status == ALOOP_ETIMEDOUT ? 0 : status;
}

/* ---- Workers --------------------------------------------------------------------------------------------- */

static int64_t work(aloop_t *loop, void *arg) {
  shop_t *shop = arg;
  aloop_process_options_t options = {.size = sizeof options, .err.kind = ALOOP_STDIO_INHERIT};
  for (int64_t pause = ALOOP_MILLIS(5);; pause *= 2) {
    aloop_process_t *process;
    int64_t rc = aloop_await_ptr(aloop_create_subprocess_shell(loop, command, &options, NULL), &process);
    if (rc < 0) return rc;
    shop->starts++;
    rc = do_jobs(shop, process);
    if (rc == ALOOP_ECLOSED) return end(process);
    aloop_process_close(process);
    aloop_process_unref(process);
    if (rc == 0) rc = aloop_await(aloop_sleep(loop, pause));
    if (rc < 0) return rc;
  }
}

static int64_t give_out(shop_t *shop) {
  for (int i = 0; i < shop->count; i++) {
    int64_t rc = aloop_await(aloop_queue_put(shop->queue, &shop->jobs[i]));
    if (rc < 0) return rc;
  }
  int64_t rc = aloop_await(aloop_queue_join(shop->queue));
  aloop_queue_shutdown(shop->queue, false);
  return rc;
}

static int64_t open_shop(aloop_t *loop, void *arg) {
  shop_t *shop = arg;
  aloop_task_group_t *group;
  int64_t rc = aloop_queue_new(loop, NULL, &shop->queue);
  if (rc < 0) return rc;
  rc = aloop_task_group_begin(loop, &group);
  if (rc == 0) {
    for (int i = 0; i < WORKERS; i++)
      aloop_future_detach(aloop_task_group_create_task(group, work, shop, NULL));
    rc = aloop_task_group_end(group, give_out(shop));
    aloop_task_group_free(group);
  }
  aloop_queue_free(shop->queue);
  return rc;
}

int main(int argc, char **argv) {
  static const char *const usual[] = {"one", "crash", "two", "hang", "three"};
  static shop_t shop;
  for (int i = 1; i < argc && i <= JOBS_MAX; i++) shop.jobs[shop.count++].text = argv[i];
  if (argc < 2)
    for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++) shop.jobs[shop.count++].text = usual[i];
  char why[200];
  aloop_run_options_t options = {.size = sizeof options, .message = why, .message_size = sizeof why};
  int64_t rc = aloop_run(open_shop, &shop, &options);
  if (rc < 0) {
    fprintf(stderr, "subprocess_workers: %s\n", why);
    return 1;
  }
  for (const job_t *job = shop.jobs; job < shop.jobs + shop.count; job++)
    printf("%s: %s\n", job->text, job->error < 0 ? aloop_strerror(job->error) : job->answer);
  printf("%d programs started\n", shop.starts);
  return 0;
}
