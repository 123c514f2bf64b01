/* SPDX-License-Identifier: MIT
 *
 * From a request to a response: target -> path -> descriptor -> conditions -> head and body. A small file is
 * read right behind its head, so that both leave in one system call; a larger one is left to sendfile, which
 * does not copy it at all. The directory is asked anew for each request. Nothing is cached, so nothing is ever
 * stale.
 */
#include "site.h"

#include "conditions.h"
#include "date.h"
#include "files.h"
#include "listing.h"
#include "mime.h"
#include "target.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#if defined(__APPLE__)
#define st_mtim st_mtimespec
#endif

enum { SMALL_FILE = 32 * 1024 }; /* up to here reading costs less than the extra system call of sendfile */

static const char index_name[] = "index.html";

typedef struct answer {
  const http_request_t *request;
  const response_t *response;
  site_rest_t *rest;
  int root;
  char path[HTTP_LINE_MAX + sizeof index_name + 1];
} answer_t;

static void answer_page(const answer_t *answer, int status, const char *sentence) {
  response_page(answer->response, status, sentence, NULL, NULL);
}

/* Why a file did not open. What is outside, hidden or unreadable is told apart from what is missing, but
 * nothing is said of it. */
static void answer_error(const answer_t *answer, int error) {
  switch (-error) {
  case ENOENT:
  case ENOTDIR:
  case ENAMETOOLONG:
    answer_page(answer, 404, "There is nothing here by that name.");
    break;
  case EACCES:
  case EPERM:
  case EXDEV:
  case ELOOP:
    answer_page(answer, 403, "This may not be read.");
    break;
  case EMFILE:
  case ENFILE:
  case ENOMEM:
    answer_page(answer, 503, "The server is busy. Try again in a moment.");
    break;
  default:
    answer_page(answer, 500, "The server could not read this.");
  }
}

/* Reads exactly `count` bytes behind the end of the buffer. */
static bool read_into(buffer_t *out, int file, int64_t offset, size_t count) {
  char *room = buffer_reserve(out, count);
  size_t got = 0;
  while (room != NULL && got < count) {
    ssize_t n = pread(file, room + got, count - got, (off_t)(offset + (int64_t)got));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false; /* an error, or the file has shrunk */
    got += (size_t)n;
  }
  out->size += got;
  return room != NULL;
}

/* The head for 200, 206, 304 and 416. */
static void write_head(const answer_t *answer, const http_file_t *file, const http_verdict_t *verdict,
                       int64_t now) {
  const response_t *response = answer->response;
  char modified[HTTP_DATE_SIZE];
  http_date_format(file->modified < now ? file->modified : now, modified);
  response_begin(response, verdict->status);
  response_field(response, "Last-Modified", modified);
  response_field(response, "ETag", file->etag);
  response_field(response, "Accept-Ranges", "bytes");
  if (verdict->status == 206)
    buffer_format(response->out, "Content-Range: bytes %lld-%lld/%lld\r\n", (long long)verdict->offset,
                  (long long)(verdict->offset + verdict->count - 1), (long long)file->size);
  if (verdict->status != 304) {
    response_field(response, "Content-Type", http_mime_type(answer->path));
    response_field(response, "X-Content-Type-Options", "nosniff");
    buffer_format(response->out, "Content-Length: %lld\r\n", (long long)verdict->count);
  }
  response_end(response);
}

/* Answers with the file, or that part of it that is asked for. Takes over the descriptor. */
static void answer_file(const answer_t *answer, int fd, const struct stat *info) {
  char etag[64];
  snprintf(etag, sizeof etag, "\"%llx-%lx-%llx\"", (unsigned long long)info->st_mtim.tv_sec,
           (unsigned long)info->st_mtim.tv_nsec, (unsigned long long)info->st_size);
  int64_t now = time(NULL);
  http_file_t file = {etag, info->st_mtim.tv_sec, info->st_size};
  http_verdict_t verdict = http_conditions_judge(answer->request, &file, now);
  buffer_t *out = answer->response->out;
  size_t start = out->size;
  char range[64];

  switch (verdict.status) {
  case 412:
    answer_page(answer, 412, "The file is not the one you mean.");
    break;
  case 416:
    snprintf(range, sizeof range, "bytes */%lld", (long long)file.size);
    response_page(answer->response, 416, "The file is shorter than that.", "Content-Range", range);
    break;
  default:
    write_head(answer, &file, &verdict, now);
  }
  if (verdict.count > SMALL_FILE && !answer->response->head_only) {
    *answer->rest = (site_rest_t){fd, verdict.offset, verdict.count};
    return;
  }
  if (!answer->response->head_only && !read_into(out, fd, verdict.offset, (size_t)verdict.count)) {
    out->size = start;
    answer_page(answer, 500, "The server could not read this.");
  }
  close(fd);
}

static void answer_listing(const answer_t *answer, int directory) {
  buffer_t page = {0};
  int error = listing_write(directory, answer->path, &page);
  if (error == 0 && page.failed) error = -ENOMEM;
  if (error < 0) {
    answer_error(answer, error);
  } else {
    response_begin(answer->response, 200);
    response_body(answer->response, "text/html; charset=utf-8", page.data, page.size);
  }
  buffer_free(&page);
}

/* "/directory" goes to "/directory/", or the relative links in its page would miss it. */
static void answer_redirect(const answer_t *answer, const char *query) {
  buffer_t location = {0};
  buffer_text(&location, "/");
  buffer_url(&location, answer->path);
  buffer_format(&location, "/%s", query);
  if (location.failed)
    answer_error(answer, -ENOMEM);
  else
    response_page(answer->response, 301, "This is a directory.", "Location", location.data);
  buffer_free(&location);
}

/* Answers with the directory's index.html, else with a listing. Takes over the descriptor. */
static void answer_directory(answer_t *answer, int directory) {
  char *end = answer->path + strlen(answer->path);
  snprintf(end, sizeof index_name + 1, "%s%s", end > answer->path ? "/" : "", index_name);
  struct stat info;
  int fd = files_open(answer->root, answer->path, &info);
  if (fd >= 0 && S_ISREG(info.st_mode)) {
    close(directory);
    answer_file(answer, fd, &info);
    return;
  }
  if (fd >= 0) close(fd);
  *end = '\0';
  if (fd >= 0 || fd == -ENOENT) {
    answer_listing(answer, directory);
  } else {
    close(directory);
    answer_error(answer, fd);
  }
}

static void answer_path(answer_t *answer, const http_target_t *target) {
  struct stat info;
  int fd = files_open(answer->root, answer->path, &info);
  if (fd < 0) {
    answer_error(answer, fd);
  } else if (S_ISREG(info.st_mode) && !target->slash) {
    answer_file(answer, fd, &info);
  } else if (S_ISDIR(info.st_mode) && target->slash) {
    answer_directory(answer, fd);
  } else {
    close(fd);
    if (target->slash)
      answer_error(answer, -ENOTDIR);
    else
      answer_redirect(answer, target->query);
  }
}

void site_answer(int root, const http_request_t *request, const response_t *response, site_rest_t *rest) {
  answer_t answer;
  answer.request = request;
  answer.response = response;
  answer.rest = rest;
  answer.root = root;
  *rest = (site_rest_t){.file = -1};
  if (request->method == HTTP_UNKNOWN) {
    answer_page(&answer, 501, "This server does not know that method.");
  } else if (request->method == HTTP_NOT_ALLOWED) {
    response_page(response, 405, "Files can be read here, and nothing else.", "Allow", "GET, HEAD");
  } else {
    http_target_t target;
    int status = http_target_parse(request->target, answer.path, &target);
    if (status == 400)
      answer_page(&answer, 400, "The target is not a path that a file can have.");
    else if (status != 0)
      answer_page(&answer, status, "There is nothing here by that name.");
    else
      answer_path(&answer, &target);
  }
}
