/* SPDX-License-Identifier: MIT
 *
 * The messages of examples/servers/dns_forwarder: what is one, what is none, and how a query is refused.
 */
#include "harness.h"

#include "message.h"

#include <string.h>

#define HEAD(flags, questions, answers) "\x12\x34" flags questions answers "\0\0\0\0"
#define QUERY_HEAD HEAD("\x01\x00", "\0\x01", "\0\0")
#define ANSWER_HEAD HEAD("\x81\x80", "\0\x01", "\0\x01")
#define QUESTION                                                                                               \
  "\x07"                                                                                                       \
  "example"                                                                                                    \
  "\x03"                                                                                                       \
  "org"                                                                                                        \
  "\0"                                                                                                         \
  "\0\x01\0\x01"
#define RECORD                                                                                                 \
  "\xc0\x0c"                                                                                                   \
  "\0\x01\0\x01"                                                                                               \
  "\0\0\0\x3c"                                                                                                 \
  "\0\x04"                                                                                                     \
  "\x7f\0\0\x01"

static dns_message_t message;

#define READ(text) dns_read("" text, sizeof(text) - 1, &message)

static void reads_a_query(void **state) {
  (void)state;
  assert_int_equal(READ(QUERY_HEAD QUESTION), DNS_OK);
  assert_int_equal(message.id, 0x1234);
  assert_false(message.is_answer);
  assert_false(message.is_truncated);
  assert_int_equal(message.opcode, DNS_QUERY);
  assert_int_equal(message.question_size, sizeof(QUESTION) - 1);
  assert_memory_equal(message.question, QUESTION, sizeof(QUESTION) - 1);
}

static void reads_an_answer(void **state) {
  (void)state;
  assert_int_equal(READ(ANSWER_HEAD QUESTION RECORD), DNS_OK);
  assert_true(message.is_answer);
  assert_int_equal(READ(HEAD("\x28\x00", "\0\x01", "\0\0") QUESTION), DNS_OK);
  assert_int_equal(message.opcode, 5);
}

static void every_cut_of_a_message_is_malformed(void **state) {
  (void)state;
  static const char text[] = ANSWER_HEAD QUESTION RECORD;
  for (size_t size = 0; size < sizeof text - 1; size++) {
    dns_verdict_t verdict = dns_read(text, size, &message);
    assert_int_equal(verdict, size < DNS_HEAD_SIZE ? DNS_NO_MESSAGE : DNS_MALFORMED);
  }
}

static void bytes_behind_the_end_are_malformed(void **state) {
  (void)state;
  assert_int_equal(READ(QUERY_HEAD QUESTION "x"), DNS_MALFORMED);
  assert_int_equal(READ(ANSWER_HEAD QUESTION RECORD RECORD), DNS_MALFORMED);
}

static void a_truncated_answer_may_end_anywhere_behind_its_question(void **state) {
  (void)state;
  static const char text[] = HEAD("\x83\x80", "\0\x01", "\0\x01") QUESTION RECORD;
  size_t question_end = DNS_HEAD_SIZE + sizeof(QUESTION) - 1;
  assert_int_equal(dns_read(text, question_end - 1, &message), DNS_MALFORMED);
  for (size_t size = question_end; size < sizeof text; size++) {
    assert_int_equal(dns_read(text, size, &message), DNS_OK);
    assert_true(message.is_truncated);
  }
}

static void one_question_is_right(void **state) {
  (void)state;
  assert_int_equal(READ(HEAD("\x01\x00", "\0\0", "\0\0")), DNS_MALFORMED);
  assert_int_equal(READ(HEAD("\x01\x00", "\0\x02", "\0\0") QUESTION QUESTION), DNS_MALFORMED);
  assert_null(message.question);
}

static void names_have_their_limits(void **state) {
  (void)state;
  char text[DNS_HEAD_SIZE + 4 * 64 + 1 + 4] = QUERY_HEAD;
  uint8_t *name = (uint8_t *)text + DNS_HEAD_SIZE;
  for (int label = 0; label < 4; label++) {
    memset(name + 64 * label, 'a', 64);
    name[64 * label] = 63;
  }
  name[256] = 0;
  assert_int_equal(dns_read(text, sizeof text, &message), DNS_MALFORMED); /* 257 bytes */
  name[192] = 61;
  name[254] = 0;
  assert_int_equal(dns_read(text, sizeof text - 2, &message), DNS_OK); /* 255 */
  assert_int_equal(message.question_size, DNS_QUESTION_MAX);
  assert_int_equal(READ(QUERY_HEAD "\x40" QUESTION), DNS_MALFORMED);
  assert_int_equal(READ(QUERY_HEAD "\0"
                                   "\0\x01\0\x01"),
                   DNS_OK);
}

static void pointers_lead_back(void **state) {
  (void)state;
  assert_int_equal(READ(QUERY_HEAD "\xc0\x0c"
                                   "\0\x01\0\x01"),
                   DNS_MALFORMED);
  assert_int_equal(READ(ANSWER_HEAD QUESTION "\x01"
                                             "a" RECORD),
                   DNS_OK);
  assert_int_equal(READ(ANSWER_HEAD QUESTION "\xc0\x0b"
                                             "\0\x01\0\x01\0\0\0\0\0\0"),
                   DNS_MALFORMED);
  assert_int_equal(READ(ANSWER_HEAD QUESTION "\xc0\x1d"
                                             "\0\x01\0\x01\0\0\0\0\0\0"),
                   DNS_MALFORMED);
  assert_int_equal(READ(ANSWER_HEAD QUESTION "\xff\xff"
                                             "\0\x01\0\x01\0\0\0\0\0\0"),
                   DNS_MALFORMED);
}

static void questions_compare_without_regard_to_case(void **state) {
  (void)state;
  dns_message_t other;
  static const char same[] = QUERY_HEAD "\x07"
                                        "eXampLe"
                                        "\x03"
                                        "ORG"
                                        "\0"
                                        "\0\x01\0\x01";
  static const char longer[] = QUERY_HEAD "\x08"
                                          "examples"
                                          "\x03"
                                          "org"
                                          "\0"
                                          "\0\x01\0\x01";
  static const char another[] = QUERY_HEAD "\x07"
                                           "example"
                                           "\x03"
                                           "orh"
                                           "\0"
                                           "\0\x01\0\x01";
  static const char type[] = QUERY_HEAD "\x07"
                                        "example"
                                        "\x03"
                                        "org"
                                        "\0"
                                        "\0\x1c\0\x01";
  READ(QUERY_HEAD QUESTION);
  assert_int_equal(dns_read(same, sizeof same - 1, &other), DNS_OK);
  assert_true(dns_same_question(&message, &other));
  assert_int_equal(dns_read(longer, sizeof longer - 1, &other), DNS_OK);
  assert_false(dns_same_question(&message, &other));
  assert_int_equal(dns_read(another, sizeof another - 1, &other), DNS_OK);
  assert_false(dns_same_question(&message, &other));
  assert_int_equal(dns_read(type, sizeof type - 1, &other), DNS_OK);
  assert_false(dns_same_question(&message, &other));
}

static void a_refusal_is_an_answer_to_the_question(void **state) {
  (void)state;
  static const char query[] = QUERY_HEAD QUESTION;
  uint8_t out[DNS_REFUSAL_MAX];
  READ(QUERY_HEAD QUESTION);
  size_t size = dns_write_refusal(out, (const uint8_t *)query, &message, DNS_SERVFAIL);
  assert_int_equal(size, sizeof query - 1);
  assert_memory_equal(out, HEAD("\x81\x82", "\0\x01", "\0\0") QUESTION, size);
}

static void a_refusal_keeps_some_flags_and_no_counts(void **state) {
  (void)state;
  static const char query[] = "\x12\x34"
                              "\x2f\xff"
                              "\xff\xff\xff\xff\xff\xff\xff\xff";
  uint8_t out[DNS_REFUSAL_MAX];
  assert_int_equal(dns_read(query, sizeof query - 1, &message), DNS_MALFORMED);
  size_t size = dns_write_refusal(out, (const uint8_t *)query, &message, DNS_FORMERR);
  assert_int_equal(size, DNS_HEAD_SIZE);
  assert_memory_equal(out,
                      "\x12\x34"
                      "\xa9\x91"
                      "\0\0\0\0\0\0\0\0",
                      size);
}

TESTS(T(reads_a_query), T(reads_an_answer), T(every_cut_of_a_message_is_malformed),
      T(bytes_behind_the_end_are_malformed), T(a_truncated_answer_may_end_anywhere_behind_its_question),
      T(one_question_is_right), T(names_have_their_limits), T(pointers_lead_back),
      T(questions_compare_without_regard_to_case), T(a_refusal_is_an_answer_to_the_question),
      T(a_refusal_keeps_some_flags_and_no_counts))
