/* SPDX-License-Identifier: MIT
 *
 * Any bytes at all, as a stream of HTTP requests. What must hold:
 *
 * - nothing crashes, and the parser never claims more bytes than it was given;
 * - whatever way the stream is cut into pieces, the same requests, or the same refusal, come out at the same
 *   places;
 * - what comes out keeps its promises: strings without control characters, a body within the limit, a path that
 *   is relative and does not climb, a range within the file.
 *
 * A broken promise traps, which libFuzzer and the replay program both report as a crash.
 */
#include "conditions.h"
#include "parser.h"
#include "target.h"

#include <stdlib.h>
#include <string.h>

#define MUST(condition) ((condition) ? (void)0 : __builtin_trap())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A running hash (FNV-1a) of what came out. */
static void mix(uint64_t *digest, const void *data, size_t size) {
  const unsigned char *bytes = data;
  for (size_t i = 0; i < size; i++) *digest = (*digest ^ bytes[i]) * 1099511628211U;
}

static void mix_text(uint64_t *digest, const char *text) {
  for (const char *c = text; *c != '\0'; c++) MUST((unsigned char)*c >= 0x20 || *c == '\t');
  mix(digest, text, strlen(text) + 1);
}

static void check_target(const char *text) {
  char path[HTTP_LINE_MAX];
  http_target_t target;
  int status = http_target_parse(text, path, &target);
  if (status != 0) {
    MUST(status == 400 || status == 404);
    return;
  }
  MUST(strlen(target.path) <= strlen(text) && target.path[0] != '/');
  for (const char *at = target.path; at != NULL; at = strchr(at, '/')) {
    at += *at == '/';
    MUST(at == target.path || (*at != '/' && *at != '\0'));
    MUST(at[0] != '.' || strncmp(at, ".well-known", 11) == 0);
  }
}

static void check_conditions(const http_request_t *request) {
  static const int64_t sizes[] = {0, 1, 1000, INT64_MAX};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    http_file_t file = {"\"1-2\"", 784111777, sizes[i]};
    http_verdict_t verdict = http_conditions_judge(request, &file, 1700000000);
    MUST(verdict.offset >= 0 && verdict.count >= 0 && verdict.count <= file.size - verdict.offset);
    if (verdict.status == 206)
      MUST(verdict.count > 0);
    else if (verdict.status == 200)
      MUST(verdict.count == file.size);
    else
      MUST(verdict.status == 304 || verdict.status == 412 || verdict.status == 416);
  }
}

static void check_request(const http_request_t *request, uint64_t *digest) {
  MUST(request->body_size >= 0 && request->body_size <= HTTP_BODY_MAX);
  MUST(request->field_count <= HTTP_FIELDS_MAX && request->target[0] != '\0');
  int64_t numbers[] = {request->method, request->minor, request->keep_alive, request->body_size};
  mix(digest, numbers, sizeof numbers);
  mix_text(digest, request->target);
  for (size_t i = 0; i < request->field_count; i++) {
    MUST(request->fields[i].name[0] != '\0');
    mix_text(digest, request->fields[i].name);
    mix_text(digest, request->fields[i].value);
  }
  check_target(request->target);
  check_conditions(request);
}

/* How long the next piece is: everything, one byte, or anything. */
static size_t next_piece(int way, size_t left, uint64_t *random) {
  if (way == 0) return left;
  if (way == 1) return 1;
  *random = *random * 6364136223846793005U + 1442695040888963407U;
  size_t piece = (size_t)(*random >> 33) % (*random >> 63 ? 8 : 300) + 1;
  return piece < left ? piece : left;
}

/* Parses the stream in pieces and returns a digest of all that came out, and where. */
static uint64_t parse(const uint8_t *data, size_t size, int way) {
  static http_parser_t parser;
  uint64_t digest = 14695981039346656037U, random = size;
  http_event_t event = HTTP_MORE;
  size_t at = 0;
  http_parser_init(&parser);
  while (at < size && event != HTTP_ERROR) {
    size_t piece = next_piece(way, size - at, &random), used;
    uint8_t *copy = malloc(piece); /* of its own, so that the address sanitizer sees a read past its end */
    MUST(copy != NULL);
    memcpy(copy, data + at, piece);
    event = http_parser_feed(&parser, copy, piece, &used);
    free(copy);
    MUST(used <= piece && (event != HTTP_MORE || used == piece));
    at += used;
    if (event == HTTP_REQUEST) check_request(&parser.request, &digest);
    if (event != HTTP_MORE) mix(&digest, &at, sizeof at);
  }
  bool idle = http_parser_idle(&parser);
  MUST((event == HTTP_ERROR) == (parser.status != 0));
  mix(&digest, &parser.status, sizeof parser.status);
  mix(&digest, &idle, sizeof idle);
  return digest;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  uint64_t whole = parse(data, size, 0);
  for (int way = 1; way < 4; way++) MUST(parse(data, size, way) == whole);
  return 0;
}
