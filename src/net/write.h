/* SPDX-License-Identifier: MIT
 *
 * The cork: writes that are gathered while data_received runs. See write.c.
 */
#ifndef ALOOP_NET_WRITE_H
#define ALOOP_NET_WRITE_H

#include "net/driver.h"

/* From here on writes of this transport are gathered. `data` is what data_received is given: parts of it need no copy. */
static inline void aloop__cork_begin(aloop_transport_t *transport, const void *data, size_t size) {
  aloop__cork_t *cork = &aloop__net_of(transport->object.loop)->cork;
  cork->transport = transport;
  cork->data = data;
  cork->data_size = size;
}

/* Sends what was gathered and stops gathering. */
void aloop__cork_end(aloop_transport_t *transport);

/* Sends what was gathered so far; later order is kept by going on with an empty cork. */
void aloop__cork_flush(aloop_transport_t *transport);

/* Forgets what was gathered. */
void aloop__cork_drop(aloop_transport_t *transport);

/* Gathered bytes of this transport. */
size_t aloop__cork_size(const aloop_transport_t *transport);

/* Tells the protocol that the buffer is too full, or no more, when a mark was crossed. */
void aloop__write_check_high(aloop_transport_t *transport);
void aloop__write_check_low(aloop_transport_t *transport);

#endif
