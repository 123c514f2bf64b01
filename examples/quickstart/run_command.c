/* SPDX-License-Identifier: MIT
 *
 * Runs a command and shows how it ended and what it said, as in asyncio's manual: "ls /zzz" unless told otherwise.
 *
 *     run_command [COMMAND]
 */
#include <aloop.h>
#include <stdio.h>
#include <stdlib.h>

/* Runs the command to its end. Returns 0, or a code with its message in `why`. */
static int64_t run(aloop_t *loop, const char *command, aloop_output_t **output, char why[256]) {
  aloop_process_t *process = NULL;
  aloop_future_t *future = aloop_subprocess_shell(loop, NULL, NULL, command, NULL);
  int64_t error = aloop_run_until_complete_ptr(loop, aloop_future_ref(future), &process);
  if (error < 0) snprintf(why, 256, "%s", future != NULL ? aloop_future_message(future) : "out of memory");
  aloop_future_unref(future);
  if (error < 0) return error;
  error = aloop_run_until_complete_ptr(loop, aloop_process_communicate(process, NULL, 0, 0), output);
  if (error < 0) snprintf(why, 256, "%s", aloop_strerror(error));
  aloop_process_unref(process);
  return error;
}

int main(int argc, char **argv) {
  const char *command = argc > 1 ? argv[1] : "ls /zzz";
  char why[256];
  aloop_output_t *output;
  aloop_t *loop;
  if (aloop_new(NULL, &loop) < 0) return 1;
  int64_t error = run(loop, command, &output, why);
  if (error < 0) {
    fprintf(stderr, "cannot run it: %s\n", why);
  } else {
    printf("['%s' exited with %d]\n", command, output->returncode);
    if (output->out_size > 0) printf("[stdout]\n%s", output->out);
    if (output->err_size > 0) printf("[stderr]\n%s", output->err);
    free(output);
  }
  aloop_free(loop);
  return error < 0 ? 1 : 0;
}
