/* SPDX-License-Identifier: MIT
 *
 * The page that stands for a directory without an index.html.
 */
#ifndef HTTP_LISTING_H
#define HTTP_LISTING_H

#include "buffer.h"

/* Adds an HTML page that lists the open directory, called `path`, to `page`. Takes over the descriptor. Returns
 * 0 or a negative errno value. */
int listing_write(int directory, const char *path, buffer_t *page);

#endif
