/* SPDX-License-Identifier: MIT
 *
 * What the tests of pipes share: descriptors of every kind that a program's standard streams may be, and tapes
 * (streams.h) over them.
 */
#ifndef PIPES_H
#define PIPES_H

#include "streams.h"

/* A tape over one end of a pipe that the library made, its connection_made done. Returns the other end. */
int open_end(tape_t *tape, const aloop_protocol_t *table, bool reads);
int open_read_end(tape_t *tape);
int open_write_end(tape_t *tape);

/* connect_read_pipe or connect_write_pipe, until it is done. Returns its result. */
int64_t connect_end(tape_t *tape, int fd, bool reads);

/* The same where it must succeed: the descriptor is the tape's. */
void take_end(tape_t *tape, int fd, bool reads);

/* The end came by itself, with this error and after these events. */
void expect_lost(tape_t *tape, int error, const char *events);

/* Runs the loop until so much was read; a terminal takes a moment. */
void await_read(tape_t *tape, size_t size);

/* All that was read is this text. */
void expect_read(const tape_t *tape, const char *text);

/* As programs get them from a shell: nothing non-blocking. A FIFO's read and write end; the master and slave of a
 * pseudo terminal without echo and translations. */
void make_blocking_pipe(int fds[2]);
void make_blocking_pair(int fds[2]);
void make_fifo(int fds[2]);
void make_terminal(int fds[2]);

enum { FIFO_PATH = 300 };

/* A FIFO with a name, in a folder of its own. */
void make_fifo_path(char path[FIFO_PATH]);
void remove_fifo_path(char path[FIFO_PATH]);

/* A file of no name with these bytes, its position at the start. */
int make_file(const void *bytes, size_t size, int flags);

/* The whole file. Returns its size, at most `room`. */
size_t file_content(int fd, void *into, size_t room);

bool is_nonblocking(int fd);
void set_nonblocking(int fd);

#endif
