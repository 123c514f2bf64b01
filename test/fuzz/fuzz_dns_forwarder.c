/* SPDX-License-Identifier: MIT
 *
 * Any bytes at all, as a DNS message. What must hold:
 *
 * - nothing crashes, and nothing is read behind the end;
 * - a message that is whole has a question that lies in it and is no longer than one may be, and asks for the
 *   same as itself, whatever the case of its letters;
 * - what is refused is refused with a message that is whole, an answer, and asks for the same;
 * - another id changes nothing but the id.
 *
 * A broken promise traps, which libFuzzer and the replay program both report as a crash.
 */
#include "message.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#define MUST(condition) ((condition) ? (void)0 : __builtin_trap())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_question(const uint8_t *data, size_t size, const dns_message_t *message) {
  MUST(message->question == data + DNS_HEAD_SIZE);
  MUST(message->question_size >= 5 && message->question_size <= DNS_QUESTION_MAX);
  MUST(DNS_HEAD_SIZE + message->question_size <= size);
}

static void check_refusal(const uint8_t *data, const dns_message_t *message) {
  uint8_t out[DNS_REFUSAL_MAX];
  dns_message_t refusal;
  size_t size = dns_write_refusal(out, data, message, DNS_SERVFAIL);
  dns_verdict_t verdict = dns_read(out, size, &refusal);
  MUST(refusal.is_answer && !refusal.is_truncated);
  MUST(refusal.id == message->id && refusal.opcode == message->opcode);
  MUST((verdict == DNS_OK) == (message->question != NULL));
  if (verdict == DNS_OK) MUST(dns_same_question(&refusal, message));
}

/* The copy gets another id and other letters; it still asks for the same. */
static void check_copy(uint8_t *copy, size_t size, const dns_message_t *message) {
  dns_message_t other;
  dns_set_id(copy, (uint16_t)(message->id + 1));
  for (size_t i = 0; i + 4 < message->question_size; i++) {
    uint8_t *letter = copy + DNS_HEAD_SIZE + i;
    if (*letter < 0x80 && isupper(*letter)) *letter = (uint8_t)(*letter | 0x20);
  }
  MUST(dns_read(copy, size, &other) == DNS_OK);
  MUST(other.id == (uint16_t)(message->id + 1));
  MUST(other.is_answer == message->is_answer && other.opcode == message->opcode);
  MUST(dns_same_question(&other, message) && dns_same_question(message, &other));
}

/* A block of its own, so that the address sanitizer sees a read past its end. */
static uint8_t *copy_of(const uint8_t *data, size_t size) {
  uint8_t *copy = calloc(1, size + (size == 0));
  MUST(copy != NULL);
  if (size > 0) memcpy(copy, data, size);
  return copy;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint8_t *whole = copy_of(data, size), *copy = copy_of(data, size);
  dns_message_t message;
  dns_verdict_t verdict = dns_read(whole, size, &message);
  MUST((verdict == DNS_NO_MESSAGE) == (size < DNS_HEAD_SIZE));
  if (verdict != DNS_NO_MESSAGE) {
    MUST((verdict == DNS_OK) == (message.question != NULL));
    check_refusal(whole, &message);
  }
  if (verdict == DNS_OK) {
    check_question(whole, size, &message);
    check_copy(copy, size, &message);
  }
  free(whole);
  free(copy);
  return 0;
}
