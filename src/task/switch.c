/* SPDX-License-Identifier: MIT
 *
 * The switch from one stack to another, per CPU.
 *
 * In the eyes of the compiler aloop__switch_assembly is a call of a C function, so all that has to survive it
 * is what the calling convention makes a callee keep: a few registers, and the control bits (not the sticky
 * flags) of the floating-point unit. They are pushed on the stack that is left; its stack pointer is the mark.
 * A new stack gets the same frame by hand, with the address of a small piece of assembly as the place to return
 * to, which calls the entry function. Loading control registers is slow, so it is only done when they differ.
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

#include "core/check.h"

#if defined(__GNUC__) && (defined(__ELF__) || defined(__APPLE__)) && defined(__LP64__) &&                      \
    !defined(ALOOP_UCONTEXT)
#if defined(__x86_64__) || (defined(__aarch64__) && !defined(__AARCH64EB__))
#define ALOOP_SWITCH_ASSEMBLY
#endif
#endif

/* ---- Assembly -------------------------------------------------------------------------------------------- */

#ifdef ALOOP_SWITCH_ASSEMBLY

void aloop__switch_assembly(void **from, void *to);
void aloop__switch_entry(void);

/* A function for this library only, with unwind information. */
#ifdef __APPLE__
#define BEGIN(name)                                                                                            \
  ".text\n.globl _" name "\n.private_extern _" name "\n.p2align 4\n_" name ":\n.cfi_startproc\n"
#define END(name) ".cfi_endproc\n"
#else
#define BEGIN(name)                                                                                            \
  ".text\n.globl " name "\n.hidden " name "\n.type " name ", %function\n.p2align 4\n" name ":\n.cfi_"          \
  "startproc\n"
#define END(name) ".cfi_endproc\n.size " name ", . - " name "\n"
#endif

#endif

/* ---- x86-64, System V ------------------------------------------------------------------------------------ */

#if defined(ALOOP_SWITCH_ASSEMBLY) && defined(__x86_64__)

/* What a stack that was left has at its mark. */
typedef struct frame {
  uint32_t mxcsr;
  uint16_t x87;
  uint16_t unused;
  uint64_t r15, r14, r13, r12, rbx, rbp, rip;
  uint64_t above[2]; /* what the entry finds: nothing, aligned */
} frame_t;

#define PUSH(name) "pushq %" name "\n.cfi_adjust_cfa_offset 8\n.cfi_rel_offset %" name ", 0\n"
#define POP(name) "popq %" name "\n.cfi_adjust_cfa_offset -8\n.cfi_restore %" name "\n"

/* It ends with a jump, because the CPU would predict a return to go back to where it was called from, which is
 * always wrong and costs more than all the rest. */
/* clang-format off */
__asm__(BEGIN("aloop__switch_assembly")
        "endbr64\n"
        PUSH("rbp") PUSH("rbx") PUSH("r12") PUSH("r13") PUSH("r14") PUSH("r15")
        "subq $8, %rsp\n"
        ".cfi_adjust_cfa_offset 8\n"
        "stmxcsr (%rsp)\n"
        "fnstcw 4(%rsp)\n"
        "movl (%rsp), %eax\n"
        "movzwl 4(%rsp), %ecx\n"
        "movq %rsp, (%rdi)\n"
        "movq %rsi, %rsp\n"
        "xorl (%rsp), %eax\n"
        "testl $0xffc0, %eax\n" /* the control bits */
        "jne 1f\n"
        "cmpw %cx, 4(%rsp)\n"
        "jne 1f\n"
        "0:\n"
        ".cfi_remember_state\n"
        "addq $8, %rsp\n"
        ".cfi_adjust_cfa_offset -8\n"
        POP("r15") POP("r14") POP("r13") POP("r12") POP("rbx") POP("rbp")
        "popq %rcx\n"
        ".cfi_adjust_cfa_offset -8\n"
        ".cfi_register %rip, %rcx\n"
        "notrack jmpq *%rcx\n"
        "1:\n"
        ".cfi_restore_state\n"
        "ldmxcsr (%rsp)\n"
        "fldcw 4(%rsp)\n"
        "jmp 0b\n"
        END("aloop__switch_assembly")

        BEGIN("aloop__switch_entry")
        ".cfi_undefined %rip\n"
        "endbr64\n"
        "movq %r12, %rdi\n"
        "callq *%r13\n"
        "ud2\n"
        END("aloop__switch_entry"));
/* clang-format on */

static void prepare(frame_t *frame, aloop__switch_entry_fn entry, void *arg) {
  __asm__ volatile("stmxcsr %0" : "=m"(frame->mxcsr));
  __asm__ volatile("fnstcw %0" : "=m"(frame->x87));
  frame->r12 = (uint64_t)(uintptr_t)arg;
  frame->r13 = (uint64_t)(uintptr_t)entry;
  frame->rip = (uint64_t)(uintptr_t)aloop__switch_entry;
}

/* The instruction does nothing where the CPU keeps no shadow stack. */
static bool has_shadow_stack(void) {
  uint64_t shadow = 0;
  __asm__ volatile("rdsspq %0" : "+r"(shadow));
  return shadow != 0;
}

#endif

/* ---- aarch64 --------------------------------------------------------------------------------------------- */

#if defined(ALOOP_SWITCH_ASSEMBLY) && defined(__aarch64__)

/* What a stack that was left has at its mark. */
typedef struct frame {
  uint64_t fpcr, unused;
  uint64_t x19, x20, x21, x22, x23, x24, x25, x26, x27, x28, x29, x30;
  double d8, d9, d10, d11, d12, d13, d14, d15;
} frame_t;

#define PAIR(one, two, at)                                                                                     \
  "stp " one ", " two ", [sp, #" #at "]\n.cfi_rel_offset " one ", " #at "\n.cfi_rel_offset " two ", " #at      \
  " + 8\n"
#define UNPAIR(one, two, at)                                                                                   \
  "ldp " one ", " two ", [sp, #" #at "]\n.cfi_restore " one "\n.cfi_restore " two "\n"

/* It ends with a jump rather than a return that would be predicted wrongly; but where branch targets are
 * guarded (BTI) only a return may go to the middle of a function. */
#ifdef __ARM_FEATURE_BTI_DEFAULT
#define GO_ON "ret\n"
#else
#define GO_ON "br x30\n"
#endif

/* hint #34 is "bti c", which older assemblers do not know. */
/* clang-format off */
__asm__(BEGIN("aloop__switch_assembly")
        "hint #34\n"
        "sub sp, sp, #176\n"
        ".cfi_adjust_cfa_offset 176\n"
        PAIR("x19", "x20", 16)
        PAIR("x21", "x22", 32)
        PAIR("x23", "x24", 48)
        PAIR("x25", "x26", 64)
        PAIR("x27", "x28", 80)
        PAIR("x29", "x30", 96)
        PAIR("d8", "d9", 112)
        PAIR("d10", "d11", 128)
        PAIR("d12", "d13", 144)
        PAIR("d14", "d15", 160)
        "mrs x9, fpcr\n"
        "str x9, [sp]\n"
        "mov x10, sp\n"
        "str x10, [x0]\n"
        "mov sp, x1\n"
        "ldr x10, [sp]\n"
        "cmp x9, x10\n"
        "b.ne 1f\n"
        "0:\n"
        ".cfi_remember_state\n"
        UNPAIR("x19", "x20", 16)
        UNPAIR("x21", "x22", 32)
        UNPAIR("x23", "x24", 48)
        UNPAIR("x25", "x26", 64)
        UNPAIR("x27", "x28", 80)
        UNPAIR("x29", "x30", 96)
        UNPAIR("d8", "d9", 112)
        UNPAIR("d10", "d11", 128)
        UNPAIR("d12", "d13", 144)
        UNPAIR("d14", "d15", 160)
        "add sp, sp, #176\n"
        ".cfi_adjust_cfa_offset -176\n"
        GO_ON
        "1:\n"
        ".cfi_restore_state\n"
        "msr fpcr, x10\n"
        "b 0b\n"
        END("aloop__switch_assembly")

        BEGIN("aloop__switch_entry")
        ".cfi_undefined x30\n"
        "hint #34\n"
        "mov x0, x19\n"
        "blr x20\n"
        "brk #1\n"
        END("aloop__switch_entry"));
/* clang-format on */

static void prepare(frame_t *frame, aloop__switch_entry_fn entry, void *arg) {
  __asm__ volatile("mrs %0, fpcr" : "=r"(frame->fpcr));
  frame->x19 = (uint64_t)(uintptr_t)arg;
  frame->x20 = (uint64_t)(uintptr_t)entry;
  frame->x30 = (uint64_t)(uintptr_t)aloop__switch_entry;
}

/* "chkfeat x16", which clears bit 0 if there is a guarded control stack, and does nothing on older CPUs. */
static bool has_shadow_stack(void) {
  register uint64_t features __asm__("x16") = 1;
  __asm__ volatile("hint #40" : "+r"(features));
  return (features & 1) == 0;
}

#endif

#ifdef ALOOP_SWITCH_ASSEMBLY

static void *make_assembly(char *low, char *top, aloop__switch_entry_fn entry, void *arg) {
  (void)low;
  frame_t *frame = (frame_t *)(void *)(top - sizeof *frame);
  memset(frame, 0, sizeof *frame);
  prepare(frame, entry, arg);
  return frame;
}

static const aloop__switch_t assembly = {"assembly", make_assembly, aloop__switch_assembly};

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

/* On its own, because getcontext may return twice, and compilers mind what else a function has. */
static ALOOP_NOINLINE int note_context(ucontext_t *context) {
  return getcontext(context);
}

static void *make_ucontext(char *low, char *top, aloop__switch_entry_fn entry, void *arg) {
  first_t *first = (first_t *)(void *)(top - ((sizeof *first + 63) & ~(size_t)63));
  if (note_context(&first->context) < 0) return NULL;
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
  here.uc_stack = (stack_t){0}; /* the address sanitizer looks at it */
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
