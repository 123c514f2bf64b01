/* SPDX-License-Identifier: MIT
 *
 * The write buffer of a stream as a data structure: what goes in comes out in order, whatever mixture of
 * copies and owned memory it was, each release is called once, and running out of memory changes nothing.
 */
#include "streams.h"

#include <string.h>

#include "net/outbox.h"

static void append_text(env_t *env, aloop__outbox_t *outbox, const char *text) {
  struct iovec part = {.iov_base = (void *)text, .iov_len = strlen(text)};
  assert_int_equal(aloop__outbox_append(env->loop, outbox, &part, 1, 0, false), 0);
}

/* Takes out the first `size` bytes. */
static void take(env_t *env, aloop__outbox_t *outbox, char *into, size_t size) {
  size_t done = 0;
  while (done < size) {
    struct iovec part;
    assert_int_equal(aloop__outbox_peek(outbox, &part, 1), 1);
    size_t n = part.iov_len < size - done ? part.iov_len : size - done;
    memcpy(into + done, part.iov_base, n);
    aloop__outbox_consume(env->loop, outbox, n);
    done += n;
  }
}

static void assert_empty(const aloop__outbox_t *outbox) {
  struct iovec part;
  assert_int_equal(aloop__outbox_size(outbox), 0);
  assert_true(aloop__outbox_empty(outbox));
  assert_int_equal(aloop__outbox_peek(outbox, &part, 1), 0);
}

static void an_empty_one_holds_no_memory(void **state) {
  env_t *env = *state;
  aloop__outbox_t outbox = {0};
  long before = env->live;
  char text[8];
  append_text(env, &outbox, "a");
  append_text(env, &outbox, "bc");
  assert_int_equal(aloop__outbox_size(&outbox), 3);
  take(env, &outbox, text, 3);
  assert_memory_equal(text, "abc", 3);
  assert_empty(&outbox);
  assert_int_equal(env->live, before);
  aloop__outbox_clear(env->loop, &outbox);
  assert_empty(&outbox);
}

static void small_writes_share_a_block(void **state) {
  env_t *env = *state;
  aloop__outbox_t outbox = {0};
  long before = env->live;
  for (int i = 0; i < 10000; i++) append_text(env, &outbox, "x");
  assert_true(env->live - before <= 2);
  aloop__outbox_clear(env->loop, &outbox);
  assert_empty(&outbox);
  assert_int_equal(env->live, before);
}

static void parts_are_appended_behind_what_is_skipped(void **state) {
  env_t *env = *state;
  for (size_t skip = 0; skip <= 9; skip++) {
    aloop__outbox_t outbox = {0};
    struct iovec parts[] = {{"abc", 3}, {NULL, 0}, {"d", 1}, {"efghi", 5}};
    char text[16];
    assert_int_equal(aloop__outbox_append(env->loop, &outbox, parts, 4, skip, false), 0);
    assert_int_equal(aloop__outbox_size(&outbox), 9 - skip);
    take(env, &outbox, text, 9 - skip);
    assert_memory_equal(text, &"abcdefghi"[skip], 9 - skip);
    assert_empty(&outbox);
  }
}

static void owned_memory_is_released_when_its_last_byte_is_gone(void **state) {
  env_t *env = *state;
  aloop__outbox_t outbox = {0};
  int released = 0;
  char text[16];
  append_text(env, &outbox, "ab");
  assert_int_equal(aloop__outbox_append_owned(env->loop, &outbox, "cdef", 4, 1, count_release, &released), 0);
  append_text(env, &outbox, "gh");
  assert_int_equal(aloop__outbox_size(&outbox), 7);
  take(env, &outbox, text, 4);
  assert_int_equal(released, 0);
  take(env, &outbox, text + 4, 1);
  assert_int_equal(released, 1);
  take(env, &outbox, text + 5, 2);
  assert_memory_equal(text, "abdefgh", 7);
  assert_int_equal(released, 1);
  assert_empty(&outbox);
}

static void clearing_releases_what_is_owned(void **state) {
  env_t *env = *state;
  aloop__outbox_t outbox = {0};
  int released = 0;
  append_text(env, &outbox, "ab");
  for (int i = 0; i < 3; i++)
    assert_int_equal(aloop__outbox_append_owned(env->loop, &outbox, "cdef", 4, 0, count_release, &released), 0);
  assert_int_equal(aloop__outbox_append_owned(env->loop, &outbox, "cdef", 4, 0, NULL, NULL), 0);
  aloop__outbox_consume(env->loop, &outbox, 7);
  assert_int_equal(released, 1);
  aloop__outbox_clear(env->loop, &outbox);
  assert_int_equal(released, 3);
  assert_empty(&outbox);
}

static void peek_shows_as_many_parts_as_there_is_room_for(void **state) {
  env_t *env = *state;
  aloop__outbox_t outbox = {0};
  struct iovec parts[8];
  for (int i = 0; i < 5; i++)
    assert_int_equal(aloop__outbox_append_owned(env->loop, &outbox, &"01234"[i], 1, 0, NULL, NULL), 0);
  assert_int_equal(aloop__outbox_peek(&outbox, parts, 3), 3);
  assert_int_equal(aloop__outbox_peek(&outbox, parts, 8), 5);
  for (int i = 0; i < 5; i++) assert_int_equal(*(const char *)parts[i].iov_base, '0' + i);
  aloop__outbox_clear(env->loop, &outbox);
}

static void out_of_memory_takes_nothing(void **state) {
  env_t *env = *state;
  aloop__outbox_t outbox = {0};
  int released = 0;
  static char much[100000];
  struct iovec parts[] = {{much, sizeof much}, {much, sizeof much}};
  for (int filled = 0; filled < 2; filled++) {
    size_t before = aloop__outbox_size(&outbox);
    env->fail_from = env->calls + 1;
    assert_int_equal(aloop__outbox_append(env->loop, &outbox, parts, 2, 1, false), ALOOP_ENOMEM);
    assert_int_equal(aloop__outbox_append_owned(env->loop, &outbox, much, 4, 0, count_release, &released),
                     ALOOP_ENOMEM);
    env->fail_from = 0;
    assert_int_equal(aloop__outbox_size(&outbox), before);
    assert_int_equal(released, 0);
    append_text(env, &outbox, "kept");
  }
  char text[8];
  take(env, &outbox, text, 8);
  assert_memory_equal(text, "keptkept", 8);
  assert_empty(&outbox);
}

typedef struct reentry {
  env_t *env;
  aloop__outbox_t *outbox;
  int released;
} reentry_t;

static void append_more(void *arg) {
  reentry_t *reentry = arg;
  reentry->released++;
  append_text(reentry->env, reentry->outbox, "more");
}

static void clear_all(void *arg) {
  reentry_t *reentry = arg;
  reentry->released++;
  aloop__outbox_clear(reentry->env->loop, reentry->outbox);
}

static void a_release_may_append(void **state) {
  env_t *env = *state;
  for (size_t tail = 0; tail <= 4; tail++) {
    aloop__outbox_t outbox = {0};
    reentry_t reentry = {env, &outbox, 0};
    char text[16];
    assert_int_equal(aloop__outbox_append_owned(env->loop, &outbox, "abc", 3, 0, append_more, &reentry), 0);
    append_text(env, &outbox, "defg");
    /* The release runs while the rest of what was sent is still to be taken out. */
    aloop__outbox_consume(env->loop, &outbox, 3 + tail);
    assert_int_equal(reentry.released, 1);
    assert_int_equal(aloop__outbox_size(&outbox), 8 - tail);
    take(env, &outbox, text, 8 - tail);
    assert_memory_equal(text, &"defgmore"[tail], 8 - tail);
    assert_empty(&outbox);
  }
}

static void a_release_may_clear(void **state) {
  env_t *env = *state;
  for (size_t size = 3; size <= 10; size++) {
    aloop__outbox_t outbox = {0};
    reentry_t reentry = {env, &outbox, 0};
    assert_int_equal(aloop__outbox_append_owned(env->loop, &outbox, "abc", 3, 0, clear_all, &reentry), 0);
    append_text(env, &outbox, "defg");
    assert_int_equal(aloop__outbox_append_owned(env->loop, &outbox, "hij", 3, 0, clear_all, &reentry), 0);
    aloop__outbox_consume(env->loop, &outbox, size);
    assert_int_equal(reentry.released, 2);
    assert_empty(&outbox);
  }
}

/* ---- Against a model ------------------------------------------------------------------------------------ */

enum { STEPS = 20000, MODEL = 1 << 20 };

typedef struct model {
  env_t *env;
  aloop__outbox_t outbox;
  char *bytes; /* everything ever appended; those from `first` on are inside */
  size_t first;
  size_t end;
  int owned;
  int released;
  unsigned random;
} model_t;

static unsigned dice(model_t *model, unsigned sides) {
  model->random = model->random * 1103515245u + 12345u;
  return (model->random >> 16) % sides;
}

static size_t some_size(model_t *model) {
  size_t size = dice(model, 4) == 0 ? dice(model, 20000) : dice(model, 300);
  return size < MODEL - model->end ? size : MODEL - model->end;
}

static void append_copies(model_t *model) {
  struct iovec parts[4];
  char *from = model->bytes + model->end;
  size_t total = 0;
  int count = 1 + (int)dice(model, 4);
  for (int i = 0; i < count; i++) {
    size_t size = some_size(model);
    pattern(model->bytes + model->end, size, (unsigned)model->end);
    parts[i] = (struct iovec){model->bytes + model->end, size};
    model->end += size;
    total += size;
  }
  size_t skip = dice(model, 3) == 0 && total > 0 ? dice(model, (unsigned)total) : 0;
  assert_int_equal(aloop__outbox_append(model->env->loop, &model->outbox, parts, count, skip, false), 0);
  memmove(from, from + skip, total - skip);
  model->end -= skip;
}

static void append_owned(model_t *model) {
  size_t size = 1 + some_size(model);
  if (size > MODEL - model->end) return;
  pattern(model->bytes + model->end, size, (unsigned)model->end);
  assert_int_equal(aloop__outbox_append_owned(model->env->loop, &model->outbox, model->bytes + model->end, size,
                                              0, count_release, &model->released),
                   0);
  model->end += size;
  model->owned++;
}

static void compare(const model_t *model, const struct iovec *parts, int count) {
  size_t at = model->first;
  for (int i = 0; i < count; i++) {
    assert_true(parts[i].iov_len > 0 && parts[i].iov_len <= model->end - at);
    assert_memory_equal(parts[i].iov_base, model->bytes + at, parts[i].iov_len);
    at += parts[i].iov_len;
  }
}

static void send_some(model_t *model) {
  struct iovec parts[8];
  int count = aloop__outbox_peek(&model->outbox, parts, 1 + (int)dice(model, 8));
  size_t offered = 0;
  compare(model, parts, count);
  for (int i = 0; i < count; i++) offered += parts[i].iov_len;
  size_t size = dice(model, 2) == 0 ? offered : dice(model, (unsigned)offered + 1);
  aloop__outbox_consume(model->env->loop, &model->outbox, size);
  model->first += size;
}

static void random_use_agrees_with_a_model(void **state) {
  env_t *env = *state;
  model_t model = {.env = env, .random = 7};
  model.bytes = test_malloc(MODEL);
  for (int i = 0; i < STEPS; i++) {
    unsigned what = dice(&model, 8);
    if (what < 3)
      append_copies(&model);
    else if (what == 3)
      append_owned(&model);
    else if (!aloop__outbox_empty(&model.outbox))
      send_some(&model);
    assert_int_equal(aloop__outbox_size(&model.outbox), model.end - model.first);
    if (aloop__outbox_empty(&model.outbox)) {
      assert_empty(&model.outbox);
      assert_int_equal(model.released, model.owned);
      model.first = model.end = 0;
    }
    if (model.end > MODEL - 100000) {
      while (!aloop__outbox_empty(&model.outbox)) send_some(&model);
      model.first = model.end = 0;
    }
  }
  aloop__outbox_clear(env->loop, &model.outbox);
  assert_int_equal(model.released, model.owned);
  test_free(model.bytes);
}

TESTS(T(an_empty_one_holds_no_memory), T(small_writes_share_a_block),
      T(parts_are_appended_behind_what_is_skipped), T(owned_memory_is_released_when_its_last_byte_is_gone),
      T(clearing_releases_what_is_owned), T(peek_shows_as_many_parts_as_there_is_room_for),
      T(out_of_memory_takes_nothing), T(a_release_may_append), T(a_release_may_clear),
      T(random_use_agrees_with_a_model))
