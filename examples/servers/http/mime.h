/* SPDX-License-Identifier: MIT
 *
 * The media type of a file, by the end of its name.
 */
#ifndef HTTP_MIME_H
#define HTTP_MIME_H

/* A constant for the Content-Type field; "application/octet-stream" for what is not known. */
const char *http_mime_type(const char *path);

#endif
