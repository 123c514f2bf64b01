/* SPDX-License-Identifier: MIT
 *
 * DNS messages (RFC 1035), as far as somebody has to understand them who only passes them on: is this a message
 * at all, a query or an answer, and to which question. No I/O, no memory of its own, no event loop:
 *
 *     dns_message_t message;
 *     switch (dns_read(data, size, &message)) {
 *     case DNS_OK: ...                     // all of it is there
 *     case DNS_MALFORMED: ...              // its head can be read, and answered with DNS_FORMERR
 *     case DNS_NO_MESSAGE: ...             // nothing can be said about it
 *     }
 */
#ifndef DNS_MESSAGE_H
#define DNS_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  DNS_HEAD_SIZE = 12,
  DNS_QUESTION_MAX = 255 + 4,                         /* a name, a type and a class */
  DNS_REFUSAL_MAX = DNS_HEAD_SIZE + DNS_QUESTION_MAX, /* the longest that dns_write_refusal writes */
};

enum { DNS_QUERY = 0 }; /* the opcode of everyday */

typedef enum dns_rcode { DNS_FORMERR = 1, DNS_SERVFAIL = 2, DNS_NOTIMP = 4 } dns_rcode_t;

typedef enum dns_verdict { DNS_OK, DNS_MALFORMED, DNS_NO_MESSAGE } dns_verdict_t;

typedef struct dns_message {
  uint16_t id;
  bool is_answer;
  bool is_truncated;
  int opcode;
  const uint8_t *question; /* after DNS_OK: the only one, in the bytes that were read; else NULL */
  size_t question_size;
} dns_message_t;

/* Looks at `size` bytes. *message is filled in but for DNS_NO_MESSAGE. A truncated answer is complete as soon
 * as its question is: what follows may end anywhere. */
dns_verdict_t dns_read(const void *data, size_t size, dns_message_t *message);

/* Whether both ask for the same name, without regard to case, and the same type and class. */
bool dns_same_question(const dns_message_t *left, const dns_message_t *right);

/* Writes another id into a message. */
void dns_set_id(uint8_t *data, uint16_t id);

/* Writes the answer `rcode` to a query, with its question if that could be read. Returns how many bytes. */
size_t dns_write_refusal(uint8_t out[DNS_REFUSAL_MAX], const uint8_t *query, const dns_message_t *message,
                         dns_rcode_t rcode);

#endif
