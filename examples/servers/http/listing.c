/* SPDX-License-Identifier: MIT
 *
 * Directory listings: directories first, then by name. Every name goes through an escape, for HTML or for a
 * URL, since whoever may put a file into the tree could otherwise put a script into our page. Hidden names stay
 * hidden. Links are listed without looking where they lead. A directory is read whole and sorted, O(n log n),
 * up to a limit that keeps one request from holding up the thread for long.
 */
#include "listing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ENTRIES_MAX = 10000 };

typedef struct entry {
  char *name;
  int64_t size; /* of a regular file, else -1 */
  bool directory;
} entry_t;

typedef struct entries {
  entry_t *list;
  size_t count, capacity;
  bool more; /* there were too many */
} entries_t;

static void free_entries(entries_t *entries) {
  for (size_t i = 0; i < entries->count; i++) free(entries->list[i].name);
  free(entries->list);
}

static bool add_entry(entries_t *entries, const char *name, const struct stat *info) {
  if (entries->count == entries->capacity) {
    size_t capacity = entries->capacity > 0 ? entries->capacity * 2 : 64;
    entry_t *list = realloc(entries->list, capacity * sizeof *list);
    if (list == NULL) return false;
    entries->list = list;
    entries->capacity = capacity;
  }
  char *copy = strdup(name);
  if (copy == NULL) return false;
  entries->list[entries->count++] =
      (entry_t){copy, S_ISREG(info->st_mode) ? (int64_t)info->st_size : -1, S_ISDIR(info->st_mode)};
  return true;
}

static int read_entries(DIR *stream, entries_t *entries) {
  for (;;) {
    errno = 0;
    struct dirent *item = readdir(stream);
    if (item == NULL) return -errno;
    if (item->d_name[0] == '.') continue;
    struct stat info;
    if (fstatat(dirfd(stream), item->d_name, &info, AT_SYMLINK_NOFOLLOW) < 0) continue; /* gone by now */
    if (entries->count == ENTRIES_MAX) {
      entries->more = true;
      return 0;
    }
    if (!add_entry(entries, item->d_name, &info)) return -ENOMEM;
  }
}

static int compare_entries(const void *left, const void *right) {
  const entry_t *a = left, *b = right;
  if (a->directory != b->directory) return a->directory ? -1 : 1;
  return strcmp(a->name, b->name);
}

static void write_entry(const entry_t *entry, buffer_t *page) {
  const char *slash = entry->directory ? "/" : "";
  buffer_text(page, "<tr><td><a href=\"./"); /* "./": a name like "a:b" would be taken for a scheme */
  buffer_url(page, entry->name);
  buffer_format(page, "%s\">", slash);
  buffer_html(page, entry->name);
  buffer_format(page, "%s</a><td>", slash);
  if (entry->size >= 0) buffer_format(page, "%lld", (long long)entry->size);
  buffer_text(page, "\n");
}

static void write_page(const entries_t *entries, const char *path, buffer_t *page) {
  buffer_text(page, "<!doctype html>\n<meta charset=\"utf-8\">\n<title>/");
  buffer_html(page, path);
  buffer_text(page, "</title>\n<style>body { font: 1rem/1.5 system-ui, sans-serif; margin: 2rem } "
                    "td + td { text-align: right; padding-left: 2rem }</style>\n<h1>/");
  buffer_html(page, path);
  buffer_text(page, "</h1>\n<table>\n");
  if (path[0] != '\0') buffer_text(page, "<tr><td><a href=\"../\">../</a><td>\n");
  for (size_t i = 0; i < entries->count; i++) write_entry(&entries->list[i], page);
  buffer_text(page, "</table>\n");
  if (entries->more) buffer_format(page, "<p>Only %d entries are listed.\n", ENTRIES_MAX);
}

int listing_write(int directory, const char *path, buffer_t *page) {
  DIR *stream = fdopendir(directory);
  if (stream == NULL) {
    int error = errno;
    close(directory);
    return -error;
  }
  entries_t entries = {0};
  int result = read_entries(stream, &entries);
  if (result == 0) {
    if (entries.count > 0) qsort(entries.list, entries.count, sizeof entries.list[0], compare_entries);
    write_page(&entries, path, page);
  }
  free_entries(&entries);
  closedir(stream);
  return result;
}
