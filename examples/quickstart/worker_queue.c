/* SPDX-License-Identifier: MIT
 *
 * Work for three tasks through a queue that holds two jobs, as in asyncio's manual. Whoever puts waits while the
 * queue is full, and the task group waits for the workers, which end when the queue is shut down. Had one of
 * them failed, the group would have cancelled the others.
 */
#include <aloop.h>
#include <stdio.h>

enum { JOBS = 20, WORKERS = 3, WAITING_MAX = 2 };

typedef struct shop {
  aloop_queue_t *queue;
  size_t done;
  int64_t slept;
} shop_t;

static int64_t work(aloop_t *loop, void *arg) {
  shop_t *shop = arg;
  int64_t *delay;
  int64_t rc;
  while ((rc = aloop_await_ptr(aloop_queue_get(shop->queue), &delay)) == 0) {
    rc = aloop_await(aloop_sleep(loop, *delay));
    if (rc < 0) return rc;
    shop->done++;
    shop->slept += *delay;
    aloop_queue_task_done(shop->queue);
  }
  return rc == ALOOP_ECLOSED ? 0 : rc; /* no more jobs */
}

/* Gives out jobs, and waits until they are done. */
static int64_t give_out(shop_t *shop, int64_t *delays) {
  for (int i = 0; i < JOBS; i++) {
    delays[i] = ALOOP_MILLIS(10 + i % 5 * 10);
    int64_t rc = aloop_await(aloop_queue_put(shop->queue, &delays[i]));
    if (rc < 0) return rc;
  }
  int64_t rc = aloop_await(aloop_queue_join(shop->queue));
  aloop_queue_shutdown(shop->queue, false);
  return rc;
}

static int64_t open_shop(aloop_t *loop, void *arg) {
  (void)arg;
  int64_t delays[JOBS], begun = aloop_time(loop);
  aloop_queue_options_t options = {.size = sizeof options, .maxsize = WAITING_MAX};
  aloop_task_group_t *group;
  shop_t shop = {.done = 0};
  int64_t rc = aloop_queue_new(loop, &options, &shop.queue);
  if (rc < 0) return rc;
  rc = aloop_task_group_begin(loop, &group);
  if (rc == 0) {
    for (int i = 0; i < WORKERS; i++)
      aloop_future_detach(aloop_task_group_create_task(group, work, &shop, NULL));
    rc = aloop_task_group_end(group, give_out(&shop, delays));
    aloop_task_group_free(group);
  }
  aloop_queue_free(shop.queue);
  if (rc < 0) return rc;
  printf("%zu jobs done by %d workers\n", shop.done, WORKERS);
  printf("%d ms of sleep in %s time\n", (int)(shop.slept / 1000000),
         aloop_time(loop) - begun < shop.slept ? "less" : "more");
  return 0;
}

int main(void) {
  int64_t rc = aloop_run(open_shop, NULL, NULL);
  if (rc < 0) fprintf(stderr, "worker_queue: %s\n", aloop_strerror(rc));
  return rc < 0;
}
