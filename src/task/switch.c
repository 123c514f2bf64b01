/* SPDX-License-Identifier: MIT
 *
 * The switch from one stack to another, per CPU.
 *
 * In the eyes of the compiler aloop__switch_CPU is a call of a C function, so all that has to survive it is
 * what the calling convention makes a callee keep: a few registers, and the control bits (not the sticky flags)
 * of the floating-point unit. They are pushed on the stack that is left; its stack pointer is the mark. A new
 * stack gets the same frame by hand, with the address of a small piece of assembly as the place to return to,
 * which calls the entry function. Loading control registers is slow, so it is only done when they differ.
 *
 * Debuggers and profilers walk through all this: the unwind information says where the caller's registers are
 * at each instruction, and that there is nothing above the entry; chains of frame pointers end there with 0.
 *
 * Elsewhere, and with -DALOOP_UCONTEXT, ucontext does the same, at the price of a system call or two per switch
 * for the signal mask. It is also the way where the CPU keeps shadow stacks (x86-64's SHSTK, aarch64's GCS):
 * such a stack has to be switched too, which the C library knows how to do. Both ways are compiled, so that one
 * can be chosen at run time and tests try all that this machine has.
 *
 * Left out on purpose: the signal mask, errno and thread-local state belong to the thread and not to the stack;
 * thus also what a C++ runtime notes about exceptions being handled, so a catch block must not switch.
 */
#include "task/switch.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#if defined(__ELF__) && defined(__GNUC__) && !defined(ALOOP_UCONTEXT)
#if defined(__x86_64__) && defined(__LP64__)
#define ALOOP_SWITCH_X86_64
#endif
#endif
#if defined(ALOOP_SWITCH_X86_64) || defined(ALOOP_SWITCH_AARCH64)
#define ALOOP_SWITCH_ASSEMBLY
#endif

/* ---- x86-64, System V ------------------------------------------------------------------------------------ */

#ifdef ALOOP_SWITCH_X86_64

/* What a stack that was left has at its mark. */
typedef struct frame {
  uint32_t mxcsr;
  uint16_t x87;
  uint16_t unused;
  uint64_t r15, r14, r13, r12, rbx, rbp;
  uint64_t rip;
  uint64_t zero[2]; /* above the entry's call: nothing, and the alignment that a call finds */
} frame_t;

void aloop__switch_x86_64(void **from, void *to);
void aloop__switch_x86_64_entry(void);

__asm__("  .text\n"
        "  .globl aloop__switch_x86_64\n"
        "  .hidden aloop__switch_x86_64\n"
        "  .type aloop__switch_x86_64, @function\n"
        "  .p2align 4\n"
        "aloop__switch_x86_64:\n"
        "  .cfi_startproc\n"
        "  endbr64\n"
        "  pushq %rbp\n"
        "  .cfi_adjust_cfa_offset 8\n"
        "  .cfi_rel_offset %rbp, 0\n"
        "  pushq %rbx\n"
        "  .cfi_adjust_cfa_offset 8\n"
        "  .cfi_rel_offset %rbx, 0\n"
        "  pushq %r12\n"
        "  .cfi_adjust_cfa_offset 8\n"
        "  .cfi_rel_offset %r12, 0\n"
        "  pushq %r13\n"
        "  .cfi_adjust_cfa_offset 8\n"
        "  .cfi_rel_offset %r13, 0\n"
        "  pushq %r14\n"
        "  .cfi_adjust_cfa_offset 8\n"
        "  .cfi_rel_offset %r14, 0\n"
        "  pushq %r15\n"
        "  .cfi_adjust_cfa_offset 8\n"
        "  .cfi_rel_offset %r15, 0\n"
        "  subq $8, %rsp\n"
        "  .cfi_adjust_cfa_offset 8\n"
        "  stmxcsr (%rsp)\n"
        "  fnstcw 4(%rsp)\n"
        "  movl (%rsp), %eax\n"
        "  movzwl 4(%rsp), %ecx\n"
        "  movq %rsp, (%rdi)\n"
        "  movq %rsi, %rsp\n"
        "  xorl (%rsp), %eax\n"
        "  testl $0xffc0, %eax\n"
        "  jne 1f\n"
        "  cmpw %cx, 4(%rsp)\n"
        "  jne 1f\n"
        "0:\n"
        "  addq $8, %rsp\n"
        "  .cfi_adjust_cfa_offset -8\n"
        "  popq %r15\n"
        "  .cfi_adjust_cfa_offset -8\n"
        "  .cfi_restore %r15\n"
        "  popq %r14\n"
        "  .cfi_adjust_cfa_offset -8\n"
        "  .cfi_restore %r14\n"
        "  popq %r13\n"
        "  .cfi_adjust_cfa_offset -8\n"
        "  .cfi_restore %r13\n"
        "  popq %r12\n"
        "  .cfi_adjust_cfa_offset -8\n"
        "  .cfi_restore %r12\n"
        "  popq %rbx\n"
        "  .cfi_adjust_cfa_offset -8\n"
        "  .cfi_restore %rbx\n"
        "  popq %rbp\n"
        "  .cfi_adjust_cfa_offset -8\n"
        "  .cfi_restore %rbp\n"
        "  ret\n"
        "1:\n"
        "  .cfi_def_cfa_offset 64\n"
        "  .cfi_offset %rbp, -16\n"
        "  .cfi_offset %rbx, -24\n"
        "  .cfi_offset %r12, -32\n"
        "  .cfi_offset %r13, -40\n"
        "  .cfi_offset %r14, -48\n"
        "  .cfi_offset %r15, -56\n"
        "  ldmxcsr (%rsp)\n"
        "  fldcw 4(%rsp)\n"
        "  jmp 0b\n"
        "  .cfi_endproc\n"
        "  .size aloop__switch_x86_64, . - aloop__switch_x86_64\n"
        "\n"
        "  .globl aloop__switch_x86_64_entry\n"
        "  .hidden aloop__switch_x86_64_entry\n"
        "  .type aloop__switch_x86_64_entry, @function\n"
        "  .p2align 4\n"
        "aloop__switch_x86_64_entry:\n"
        "  .cfi_startproc\n"
        "  .cfi_undefined %rip\n"
        "  endbr64\n"
        "  movq %r12, %rdi\n"
        "  callq *%r13\n"
        "  ud2\n"
        "  .cfi_endproc\n"
        "  .size aloop__switch_x86_64_entry, . - aloop__switch_x86_64_entry\n");

static void *make_assembly(char *low, char *top, aloop__switch_entry_fn entry, void *arg) {
  (void)low;
  frame_t *frame = (frame_t *)(void *)(top - sizeof *frame);
  memset(frame, 0, sizeof *frame);
  __asm__ volatile("stmxcsr %0" : "=m"(frame->mxcsr));
  __asm__ volatile("fnstcw %0" : "=m"(frame->x87));
  frame->r12 = (uint64_t)(uintptr_t)arg;
  frame->r13 = (uint64_t)(uintptr_t)entry;
  frame->rip = (uint64_t)(uintptr_t)aloop__switch_x86_64_entry;
  return frame;
}

static const aloop__switch_t assembly = {"x86-64", make_assembly, aloop__switch_x86_64};

/* The instruction does nothing where the CPU keeps no shadow stack. */
static bool has_shadow_stack(void) {
  uint64_t shadow = 0;
  __asm__ volatile("rdsspq %0" : "+r"(shadow));
  return shadow != 0;
}

#endif

/* ---- ucontext -------------------------------------------------------------------------------------------- */

#ifdef ALOOP_HAVE_UCONTEXT

#include <ucontext.h>

/* What the first context of a new stack carries besides itself. */
typedef struct first {
  ucontext_t context; /* first: the mark is its address */
  aloop__switch_entry_fn entry;
  void *arg;
} first_t;

/* makecontext passes on nothing but ints. */
static void begin(unsigned high, unsigned low) {
  first_t *first = (first_t *)(uintptr_t)((uint64_t)high << 32 | low);
  first->entry(first->arg);
}

static void *make_ucontext(char *low, char *top, aloop__switch_entry_fn entry, void *arg) {
  first_t *first = (first_t *)(void *)(top - ((sizeof *first + 63) & ~(size_t)63));
  if (getcontext(&first->context) < 0) return NULL;
  first->context.uc_stack.ss_sp = low;
  first->context.uc_stack.ss_size = (size_t)((char *)first - low);
  first->context.uc_link = NULL;
  first->entry = entry;
  first->arg = arg;
  uint64_t address = (uint64_t)(uintptr_t)first;
  makecontext(&first->context, (void (*)(void))begin, 2, (unsigned)(address >> 32), (unsigned)address);
  return first;
}

static void switch_ucontext(void **from, void *to) {
  ucontext_t here;
  *from = &here;
  (void)swapcontext(&here, to);
}

static const aloop__switch_t ucontext = {"ucontext", make_ucontext, switch_ucontext};

#endif

/* ---- The choice ------------------------------------------------------------------------------------------ */

const aloop__switch_t *const *aloop__switch_ways(void) {
  static const aloop__switch_t *const ways[] = {
#ifdef ALOOP_SWITCH_ASSEMBLY
      &assembly,
#endif
#ifdef ALOOP_HAVE_UCONTEXT
      &ucontext,
#endif
      NULL,
  };
#ifdef ALOOP_SWITCH_ASSEMBLY
  if (has_shadow_stack()) return ways + 1;
#endif
  return ways;
}
