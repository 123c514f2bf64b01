/* SPDX-License-Identifier: MIT
 *
 * The table of pending queries of examples/servers/dns_forwarder.
 */
#include "harness.h"

#include "pending.h"

#include <stdlib.h>

static pending_entry_t entries[PENDING_MAX + 1];

static void an_entry_is_found_until_it_is_removed(void **state) {
  (void)state;
  pending_t pending = {0};
  for (int i = 0; i < 3; i++) assert_true(pending_add(&pending, &entries[i]));
  assert_ptr_equal(pending_find(&pending, entries[1].id), &entries[1]);
  pending_remove(&pending, &entries[1]);
  assert_null(pending_find(&pending, entries[1].id));
  assert_ptr_equal(pending_find(&pending, entries[0].id), &entries[0]);
  assert_ptr_equal(pending_find(&pending, entries[2].id), &entries[2]);
  assert_int_equal(pending.count, 2);
}

static void a_full_table_takes_no_more(void **state) {
  (void)state;
  pending_t pending = {0};
  for (size_t i = 0; i < PENDING_MAX; i++) assert_true(pending_add(&pending, &entries[i]));
  assert_false(pending_add(&pending, &entries[PENDING_MAX]));
  for (size_t i = 0; i < PENDING_MAX; i++)
    assert_ptr_equal(pending_find(&pending, entries[i].id), &entries[i]); /* so all ids differ */
  pending_remove(&pending, &entries[7]);
  assert_true(pending_add(&pending, &entries[PENDING_MAX]));
}

static void any_entry_comes_as_long_as_there_is_one(void **state) {
  (void)state;
  pending_t pending = {0};
  assert_null(pending_any(&pending));
  for (int i = 0; i < 100; i++) assert_true(pending_add(&pending, &entries[i]));
  for (int i = 0; i < 100; i++) pending_remove(&pending, pending_any(&pending));
  assert_null(pending_any(&pending));
  assert_int_equal(pending.count, 0);
}

/* Of 4096 ids, about as many lie in each sixteenth of all there are (256 in the mean, 16 the deviation), and
 * hardly one follows the one before. */
static void ids_cannot_be_guessed(void **state) {
  (void)state;
  pending_t pending = {0};
  int sixteenth[16] = {0}, followers = 0;
  for (size_t i = 0; i < PENDING_MAX; i++) {
    assert_true(pending_add(&pending, &entries[i]));
    sixteenth[entries[i].id >> 12]++;
    if (i > 0) followers += abs(entries[i].id - entries[i - 1].id) <= 1;
  }
  for (int i = 0; i < 16; i++) assert_in_range(sixteenth[i], 96, 416);
  assert_true(followers < 16);
}

TESTS(T(an_entry_is_found_until_it_is_removed), T(a_full_table_takes_no_more),
      T(any_entry_comes_as_long_as_there_is_one), T(ids_cannot_be_guessed))
