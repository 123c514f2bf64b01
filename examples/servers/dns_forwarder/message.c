/* SPDX-License-Identifier: MIT
 *
 * DNS messages: see message.h for what is understood of them.
 *
 * A message is a head of twelve bytes, then questions, then three lists of records, whose numbers are in the
 * head. Everything is walked over once, from the front, by a reader that knows where the message ends; a reader
 * that would have to go further fails, and everything after that too, so that the result needs to be looked at
 * only once.
 *
 * Names are labels with their lengths before them. A name of a record may end in a pointer to an earlier place.
 * Pointers are not followed: whoever reads the message will, and has to guard against circles; here it is
 * enough that they point backwards. The question comes first, so there is nothing it could point to.
 *
 * A message with more than one question is malformed (RFC 9619), and one with none asks for nothing.
 */
#include "message.h"

#include <string.h>

enum {
  NAME_MAX_SIZE = 255,
  LABEL_MAX = 63,
  POINTER = 0xc0, /* the upper two bits of a length */
  FLAG_ANSWER = 0x8000,
  FLAG_TRUNCATED = 0x0200,
  FLAG_RECURSION = 0x0080, /* available here */
  FLAGS_KEPT = 0x7910,     /* of a query in its refusal: the opcode, "recursion desired", "checking disabled" */
};

/* ---- The reader ------------------------------------------------------------------------------------------ */

typedef struct reader {
  const uint8_t *data;
  size_t size;
  size_t at;
  bool failed;
} reader_t;

/* The next `count` bytes, or NULL. */
static const uint8_t *take(reader_t *reader, size_t count) {
  if (reader->failed || reader->size - reader->at < count) {
    reader->failed = true;
    return NULL;
  }
  reader->at += count;
  return reader->data + reader->at - count;
}

static unsigned take_number(reader_t *reader, size_t bytes) {
  const uint8_t *from = take(reader, bytes);
  unsigned number = 0;
  for (size_t i = 0; from != NULL && i < bytes; i++) number = number << 8 | from[i];
  return number;
}

/* Skips a name. `pointers`: whether it may end in one. */
static void take_name(reader_t *reader, bool pointers) {
  size_t start = reader->at;
  for (;;) {
    size_t label = reader->at;
    unsigned length = take_number(reader, 1);
    if (reader->failed || length == 0) break;
    if (length >= POINTER && pointers) {
      size_t target = (length & ~(unsigned)POINTER) << 8 | take_number(reader, 1);
      reader->failed |= target < DNS_HEAD_SIZE || target >= label;
      return;
    }
    reader->failed |= length > LABEL_MAX;
    take(reader, length);
  }
  reader->failed |= reader->at - start > NAME_MAX_SIZE;
}

static void take_question(reader_t *reader) {
  take_name(reader, false);
  take(reader, 4); /* type and class */
}

static void take_record(reader_t *reader) {
  take_name(reader, true);
  take(reader, 8); /* type, class and time to live */
  take(reader, take_number(reader, 2));
}

/* ---- Messages -------------------------------------------------------------------------------------------- */

dns_verdict_t dns_read(const void *data, size_t size, dns_message_t *message) {
  reader_t reader = {.data = data, .size = size};
  unsigned id = take_number(&reader, 2), flags = take_number(&reader, 2), questions = take_number(&reader, 2);
  unsigned records = take_number(&reader, 2);
  for (int list = 0; list < 2; list++) records += take_number(&reader, 2);
  if (reader.failed) return DNS_NO_MESSAGE;
  *message = (dns_message_t){.id = (uint16_t)id,
                             .is_answer = (flags & FLAG_ANSWER) != 0,
                             .is_truncated = (flags & FLAG_TRUNCATED) != 0,
                             .opcode = (int)(flags >> 11 & 15)};
  if (questions != 1) return DNS_MALFORMED;
  take_question(&reader);
  if (reader.failed) return DNS_MALFORMED;
  size_t question_size = reader.at - DNS_HEAD_SIZE;
  if (!message->is_answer || !message->is_truncated) {
    while (records-- > 0 && !reader.failed) take_record(&reader);
    if (reader.failed || reader.at < size) return DNS_MALFORMED;
  }
  message->question = reader.data + DNS_HEAD_SIZE;
  message->question_size = question_size;
  return DNS_OK;
}

/* The letters of DNS are those of ASCII, whatever the locale. The lengths of labels are no letters. */
static uint8_t lower(uint8_t c) {
  return c >= 'A' && c <= 'Z' ? (uint8_t)(c + ('a' - 'A')) : c;
}

bool dns_same_question(const dns_message_t *left, const dns_message_t *right) {
  if (left->question_size != right->question_size) return false;
  size_t name = left->question_size - 4;
  for (size_t i = 0; i < name; i++)
    if (lower(left->question[i]) != lower(right->question[i])) return false;
  return memcmp(left->question + name, right->question + name, 4) == 0;
}

static void put_number(uint8_t *out, unsigned number) {
  out[0] = (uint8_t)(number >> 8);
  out[1] = (uint8_t)number;
}

void dns_set_id(uint8_t *data, uint16_t id) {
  put_number(data, id);
}

size_t dns_write_refusal(uint8_t out[DNS_REFUSAL_MAX], const uint8_t *query, const dns_message_t *message,
                         dns_rcode_t rcode) {
  unsigned flags = ((unsigned)query[2] << 8 | query[3]) & FLAGS_KEPT;
  memset(out, 0, DNS_HEAD_SIZE);
  put_number(out, message->id);
  put_number(out + 2, flags | FLAG_ANSWER | FLAG_RECURSION | (unsigned)rcode);
  if (message->question == NULL) return DNS_HEAD_SIZE;
  put_number(out + 4, 1);
  memcpy(out + DNS_HEAD_SIZE, message->question, message->question_size);
  return DNS_HEAD_SIZE + message->question_size;
}
